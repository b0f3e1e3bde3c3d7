"""One process trains a fold at a time, whichever machines they are on.

MLflow has no locks, so each process announces itself by the tags of its own run, and looks at those of others: first as
a ``candidate``, which gives way to every ``holder``, and to a candidate with a lower run id; then as a holder, which
looks once more, and gives way to a lower run id. Two can never both stay: the one with the higher id would have seen
the other on its second look, unless that came later and then saw a holder on its first.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import datetime

import mlflow
from mlflow.entities import Run, RunTag

from fsat.errors import RunError
from fsat.progress import say
from fsat.tracking import heartbeat
from fsat.tracking.client import ask
from fsat.tracking.runs import TAG, discard, experiment_id

STAGE = "train_fold"
CLAIM = TAG + "claim"
CANDIDATE, HOLDER, NONE = "candidate", "holder", "none"
ATTEMPTS = 4
"""Two that see each other as candidates may both give way; then each tries again after a random while."""


class FoldTaken(RunError):
    """Another process trains the fold; the message says which."""


def claim(run_id: str, study: str, fold: int) -> None:
    """Make an open run the one that trains a fold.

    Args:
        run_id: of this process's own run.
        study, fold: what it wants to train.

    Raises:
        FoldTaken: another process has it.
    """
    for attempt in range(ATTEMPTS):
        _announce(run_id, CANDIDATE, {"study": study, "fold": str(fold)})
        rival = _rival(run_id, study, fold)
        if rival is None:
            _announce(run_id, HOLDER)
            rival = _rival(run_id, study, fold, only_lower=True)
            if rival is None:
                return
        _announce(run_id, NONE)
        if rival.data.tags[CLAIM] == HOLDER or attempt == ATTEMPTS - 1:
            break
        time.sleep(random.uniform(0.2, 2.0))
    since = datetime.fromtimestamp(rival.info.start_time / 1000).isoformat(sep=" ", timespec="seconds")
    raise FoldTaken(
        f"fold {fold} of study {study} is being trained by {heartbeat.who(rival)} in run {rival.info.run_id} since "
        f"{since}; wait for it, or stop it and ask again"
    )


def hold(run_id: str, parent: str | None) -> None:
    """Take an earlier run of a fold up, for a process whose own run has the claim."""
    tags = {CLAIM: HOLDER, **heartbeat.tags()}
    if parent:
        tags["mlflow.parentRunId"] = parent
    _log(run_id, tags)


def is_held(study: str, fold: int) -> bool:
    """Whether a process that lives trains a fold."""
    return _rival("", study, fold) is not None


def finished_run(study: str, fold: int, where: str | None = None) -> str | None:
    """Id of a FINISHED run of a fold, in this experiment or the one given, if there is one."""
    wanted = f"{_of_fold(study, fold)} and attributes.status = 'FINISHED'"
    found = _search(wanted, where)
    return found[0].info.run_id if found else None


def earlier_runs(study: str, fold: int, but: str) -> list[Run]:
    """Runs of a fold that were stopped, newest first, without the run `but`."""
    found = _search(f"{_of_fold(study, fold)} and attributes.status != 'FINISHED'")
    stopped = [run for run in found if run.info.run_id != but and run.info.status in ("KILLED", "FAILED")]
    return sorted(stopped, key=lambda run: run.info.end_time or run.info.start_time, reverse=True)


def sweep() -> None:
    """Mark what dead processes have left RUNNING in this experiment as KILLED, where that is sure without waiting."""
    for run in _search(f"attributes.status = 'RUNNING' and tags.`{heartbeat.OWNER}` != ''"):
        if heartbeat.is_surely_gone(run):
            _give_up(run)


def _rival(run_id: str, study: str, fold: int, only_lower: bool = False) -> Run | None:
    """Another process's run that keeps this one from the fold; those whose process is gone are marked KILLED."""
    claims = f"tags.`{CLAIM}` != '{NONE}'"
    for run in _search(f"{_of_fold(study, fold)} and attributes.status = 'RUNNING' and {claims}"):
        other = run.info.run_id
        if other == run_id or run.data.tags.get(heartbeat.OWNER) == heartbeat.owner():
            continue
        lower = not run_id or other < run_id
        if not lower and (only_lower or run.data.tags[CLAIM] == CANDIDATE):
            continue
        if heartbeat.is_alive(run):
            return run
        _give_up(run)
    return None


def _give_up(run: Run) -> None:
    name = run.data.tags.get("mlflow.runName", run.info.run_id)
    say(f"run {run.info.run_id} ({name}) stayed RUNNING when {heartbeat.who(run)} died; it is marked KILLED")
    client = mlflow.MlflowClient()
    ask(lambda: client.set_terminated(run.info.run_id, "KILLED"))
    if run.data.tags.get(TAG + "spare"):
        discard(run.info.run_id)


def _announce(run_id: str, how: str, more: dict[str, str] | None = None) -> None:
    _log(run_id, {CLAIM: how, **{TAG + name: value for name, value in (more or {}).items()}, **heartbeat.tags()})


def _log(run_id: str, tags: dict[str, str]) -> None:
    ask(lambda: mlflow.MlflowClient().log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()]))


def _of_fold(study: str, fold: int) -> str:
    return f"tags.`{TAG}stage` = '{STAGE}' and tags.`{TAG}study` = '{study}' and tags.`{TAG}fold` = '{fold}'"


def _search(wanted: str, where: str | None = None) -> Sequence[Run]:
    ids = [where or experiment_id()]
    return ask(lambda: list(mlflow.MlflowClient().search_runs(ids, wanted, max_results=1000)))
