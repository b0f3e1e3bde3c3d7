"""Finished folds on their way to the tracking server: now, or later by `sync`."""

from __future__ import annotations

import hashlib

import mlflow
from mlflow.entities import Metric

from fsat.errors import RunError
from fsat.progress import say
from fsat.tracking import descriptions, heartbeat, ownership
from fsat.tracking.client import ServerAway, address, ask
from fsat.tracking.live_metrics import remove_checkpoints
from fsat.tracking.run_folder import CHECKSUMS, Kept, every_kept
from fsat.tracking.runs import TAG, log_all


def upload(kept: Kept) -> None:
    """Upload a finished fold's metrics and artifacts; what is there already is not doubled.

    Raises:
        RunError: the kept files are not as they were written, or the server refused.
        ServerAway: the server was away for too long.
    """
    client, table = mlflow.MlflowClient(), kept.artifacts / CHECKSUMS
    if not kept.is_whole():
        raise RunError(
            f"{kept.folder}: the results kept there were altered or cut; remove the folder and train fold "
            f"{kept.facts.get('fold', '?')} again"
        )
    log_all(kept.run_id, [Metric(row["key"], row["value"], row["timestamp"], row["step"]) for row in kept.metrics()])
    ask(lambda: client.log_artifacts(kept.run_id, str(kept.artifacts)))
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    ask(lambda: client.set_tag(kept.run_id, TAG + "checksums", digest))
    descriptions.describe_fold(kept.run_id, {row["key"]: row["value"] for row in kept.metrics()})
    ask(lambda: remove_checkpoints(kept.run_id))


def sync() -> list[str]:
    """Upload what finished folds have kept on this machine for the tracking server that is set.

    Returns:
        what was done, a line for each run that something is kept of.

    Raises:
        RunError: the server refused, or cannot be reached.
    """
    uri, news = address(), []
    for kept in every_kept():
        facts = kept.facts
        what = f"run {kept.run_id} (fold {facts.get('fold', '?')} of study {facts.get('study', '?')})"
        if facts.get("uri") != uri:
            news.append(f"{what} belongs to {facts.get('uri')}: left alone; set MLFLOW_TRACKING_URI to that")
            continue
        try:
            with kept.held():
                news.append(f"{what}: {_sync(kept)}")
        except ServerAway:
            raise
        except RunError as error:
            news.append(f"{what}: {error}")
    return news


def _sync(kept: Kept) -> str:
    run = ask(lambda: mlflow.MlflowClient().get_run(kept.run_id))
    if run.info.status == "FINISHED":
        kept.remove()
        return "the server has it already"
    if not kept.has_results:
        return f"stopped after {kept.epochs()} epochs; it goes on when its fold is asked for again"
    if run.info.status == "RUNNING" and run.data.tags.get(heartbeat.OWNER) and heartbeat.is_alive(run):
        return f"{heartbeat.who(run)} works on it"
    study, fold = run.data.tags[TAG + "study"], int(run.data.tags[TAG + "fold"])
    if other := ownership.finished_run(study, fold, run.info.experiment_id):
        return f"run {other} has trained the fold meanwhile; left alone, remove {kept.folder} if you do not need it"
    upload(kept)
    ask(lambda: mlflow.MlflowClient().set_terminated(kept.run_id, "FINISHED"))
    kept.remove()
    say(f"run {kept.run_id} is uploaded")
    return "uploaded, FINISHED"
