"""Runs on the MLflow tracking server: opened, written to, read, and closed with the right status.

A run is FINISHED only when everything that it promises is on the server; it is KILLED when a signal stopped it and
FAILED when an error did. A run that `mlflow run` has created for this process is used instead of a new one.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import pandas as pd
from mlflow.entities import Metric, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path

from fsat import interrupts
from fsat.data.manifest import Manifest
from fsat.errors import RunError
from fsat.progress import say
from fsat.tracking import ownership, remedies
from fsat.tracking.artifact_names import artifact_name
from fsat.tracking.client import SESSION, TAG, Refused, ServerUnreachable, call, discard, patience, refusal, search_runs
from fsat.tracking.first_call import may, nearest_folder

MARK = TAG + "launch"
"""Tag by which a run is found if the answer to its creation was lost."""

BATCH, LARGEST = 1000, 1e300
"""Maximum number of metrics in a request; a bound on values, as databases store infinity as their largest number."""


@dataclass(frozen=True)
class Parent:
    """The open run of a process, for processes that nest their runs in it."""

    run_id: str
    experiment_id: str


@contextmanager
def tracked(stage: str, name: str, parent: Parent | None = None) -> Iterator[str]:
    """Open a run, nested if one is open already, and close it as FINISHED, FAILED or KILLED; yield its id.

    Args:
        stage: the entry point, for the tag ``fsat.stage``.
        name: the run's name in the UI.
        parent: the run of another process to nest this one in.
    """
    patience()  # a wrong FSAT_SERVER_WAIT is an error now, not when the server is away
    outermost = mlflow.active_run() is None and parent is None
    with interrupts.deferred():
        run_id = _open(parent, outermost)
    with _closing(run_id, outermost):
        _check_artifacts()
        rename(name)
        set_tags({"stage": stage}, ownership.owner_tags())
        yield run_id


@contextmanager
def resumed(run_id: str) -> Iterator[None]:
    """Open a stopped run again, nested in the open one, and close it as `tracked` does."""
    outermost = parent_of_active() is None  # the open run does nothing else
    with interrupts.deferred():
        call(lambda: mlflow.start_run(run_id=run_id, nested=True))
    with _closing(run_id, outermost):
        yield


def after_finish(function: Callable[[], None]) -> None:
    """Call a function when the open run is marked as FINISHED, and not if it ends in another way."""
    SESSION.on_finish.setdefault(active_run_id(), []).append(function)


def supersede(run_id: str, by: str, name: str) -> None:
    """Mark a run of this process as superseded by another run: one that was stopped and is resumed, or is FINISHED.

    The run is deleted when it is closed, unless `mlflow run` created it and will look for it.
    """
    redundant = run_id not in SESSION.adopted
    tags = {"stage": "resume", "resumed": by, **({"spare": "true"} if redundant else {})}
    client = mlflow.MlflowClient()
    call(lambda: client.log_batch(run_id, tags=[RunTag(TAG + key, value) for key, value in tags.items()]))
    call(lambda: client.update_run(run_id, name=name))
    if redundant:
        SESSION.redundant.add(run_id)


def _check_artifacts() -> None:
    """Raise `Refused` if artifacts of the open run cannot be stored, as far as it can be told before there are any."""
    info = mlflow.active_run().info
    if info.experiment_id in SESSION.checked:
        return
    scheme = urlsplit(info.artifact_uri).scheme
    if scheme in ("", "file"):
        folder = nearest_folder(Path(local_file_uri_to_path(info.artifact_uri)).absolute())
        if not may(folder, os.W_OK | os.X_OK):
            raise Refused(remedies.unwritable_folder(folder))
    else:
        call(lambda: mlflow.MlflowClient().list_artifacts(info.run_id))
    SESSION.checked.add(info.experiment_id)


def _open(parent: Parent | None, outermost: bool) -> str:
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        call(lambda: mlflow.start_run(run_id=run_id, nested=not outermost))
        os.environ.pop("MLFLOW_RUN_ID", None)
        SESSION.adopted.add(run_id)
        return run_id
    nesting = {"experiment_id": parent.experiment_id, "parent_run_id": parent.run_id} if parent else {}
    mark, attempts = uuid.uuid4().hex, 0

    def create() -> str:
        nonlocal attempts
        attempts += 1
        if attempts > 1:  # the answer to the first attempt may have been lost
            for run in search_runs(f"tags.`{MARK}` = '{mark}'", parent.experiment_id if parent else None):
                return mlflow.start_run(run_id=run.info.run_id, nested=not outermost).info.run_id
        return mlflow.start_run(nested=not outermost, tags={MARK: mark}, **nesting).info.run_id

    return call(create)


@contextmanager
def _closing(run_id: str, outermost: bool) -> Iterator[None]:
    """Send heartbeats for the open run, and close it with the right status."""
    status = "FAILED"
    try:
        with ownership.heartbeat(run_id):
            interrupts.check()
            yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        with interrupts.deferred():
            if interrupts.received():  # a library may have turned the interruption into another error
                status = "KILLED"
            _close(run_id, status)
            functions = SESSION.on_finish.pop(run_id, [])
            if run_id in SESSION.redundant:
                SESSION.redundant.discard(run_id)
                with suppress(ServerUnreachable):
                    discard(run_id)
            if status == "FINISHED":
                for function in functions:
                    function()
                if outermost:
                    interrupts.ignore()
    if status == "KILLED":
        interrupts.check()


def _close(run_id: str, status: str) -> None:
    """Set the status of the innermost open run; only FINISHED is retried, as a later launch corrects the others."""

    def end() -> None:
        if (active := mlflow.active_run()) and active.info.run_id == run_id:
            mlflow.end_run(status)  # takes the run from MLflow's stack before it calls the server
        else:
            mlflow.MlflowClient().set_terminated(run_id, status)

    try:
        call(end, wait=None if status == "FINISHED" else 0)
    except RunError as error:
        if status == "FINISHED":
            raise
        reason = str(error).partition(";")[0]
        say(f"warning: run {run_id} could not be marked as {status} ({reason}); a later launch marks it as KILLED")


def close_unopened() -> None:
    """Mark the run that `mlflow run` created, and that `tracked` has not opened, as KILLED."""
    try:
        mlflow.MlflowClient().set_terminated(os.environ["MLFLOW_RUN_ID"], "KILLED")
    except (MlflowException, OSError) as error:
        say(f"warning: {refusal(error)}")


def parent_of_active() -> str | None:
    """Return the id of the run that the open one is nested in."""
    return mlflow.active_run().data.tags.get("mlflow.parentRunId")


def active_run_id() -> str:
    """Return the id of the open run."""
    return mlflow.active_run().info.run_id


def experiment_id() -> str:
    """Return the experiment of the open run."""
    return mlflow.active_run().info.experiment_id


def rename(name: str) -> None:
    """Give the open run another name."""
    call(lambda: mlflow.MlflowClient().update_run(active_run_id(), name=name))


def set_tags(tags: Mapping[str, Any], full_names: Mapping[str, str] | None = None) -> None:
    """Set tags of the open run: `tags` get the prefix ``fsat.``, `full_names` are set as they are."""
    all_tags = {TAG + key: value for key, value in tags.items()} | dict(full_names or {})
    call(lambda: mlflow.set_tags(all_tags))


def log_params(params: Mapping[str, Any]) -> None:
    """Log parameters of the open run, except those that `mlflow run` has logged as typed."""
    logged = call(lambda: mlflow.MlflowClient().get_run(active_run_id())).data.params
    call(lambda: mlflow.log_params({key: value for key, value in params.items() if key not in logged}))


def log_metrics(metrics: Mapping[str, float], step: int = 0) -> None:
    """Log metrics of the open run; the step is the epoch."""
    log_points(active_run_id(), [Metric(key, float(value), now(), step) for key, value in metrics.items()])


def log_points(run_id: str, points: Sequence[Metric]) -> None:
    """Log metric points of a run; the server ignores points that it has already."""
    for start in range(0, len(points), BATCH):
        call(partial(mlflow.MlflowClient().log_batch, run_id, metrics=points[start : start + BATCH]))


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def log_folder(folder: Path, name: str | None = None) -> None:
    """Upload all files of a folder, into the folder `name` if that is given."""
    call(lambda: mlflow.log_artifacts(str(folder), name))


def log_json(value: Any, artifact_file: str) -> None:
    """Upload a value as a JSON file."""
    call(lambda: mlflow.log_text(json.dumps(value, indent=2) + "\n", artifact_file))


def log_table(table: pd.DataFrame, artifact_file: str) -> None:
    """Upload a table as CSV."""
    call(lambda: mlflow.log_text(table.to_csv(index=False), artifact_file))


def log_file(path: Path) -> None:
    """Upload a file under its own name, or that of `artifact_name`."""
    name = artifact_name(path)
    if name == path.name:
        call(lambda: mlflow.log_artifact(str(path)))
        return
    with tempfile.TemporaryDirectory(prefix="fsat-") as folder:
        link = Path(folder, name)
        link.symlink_to(path.absolute())
        call(lambda: mlflow.log_artifact(str(link)))


def log_dataset(manifest: Manifest) -> None:
    """Log the dataset as the open run's input, and its problems as ``exclusions.csv``, if it has any."""
    columns = [name for name in ("fname", "label", "manually_verified", "fold") if name in manifest.train]
    source, name = str(manifest.folder.absolute()), manifest.folder.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of integer columns
        dataset = mlflow.data.from_pandas(manifest.train[columns], source, "label", name, manifest.digest)
        log = partial(mlflow.log_input, dataset, context="training")
        try:
            call(log)
        except Refused as error:
            if not re.search("IntegrityError|UniqueViolation", str(error)):
                raise
            call(log)  # another process has just logged the same dataset
    set_tags({"dataset": manifest.digest, "data_dir": source})
    if manifest.problems:
        log_table(pd.DataFrame([vars(problem) for problem in manifest.problems]), "exclusions.csv")


def get_run(run_id: str, unknown: str) -> Run:
    """Return MLflow's record of a run; raise `RunError` with the message `unknown` if the id does not exist."""
    try:
        return call(lambda: mlflow.MlflowClient().get_run(run_id))
    except Refused as error:
        if not error.is_unknown:
            raise
        raise RunError(unknown) from error


def history(run_id: str, key: str) -> dict[int, float]:
    """Return a metric by step, which is the epoch from 0; empty if the run does not have it.

    Values that are not finite are left out. If a step was logged more than once, its newest value counts.
    """
    try:
        points = call(partial(mlflow.MlflowClient().get_metric_history, run_id, key))
    except Refused as error:
        if not error.is_unknown:
            raise
        return {}
    values = {point.step: point.value for point in sorted(points, key=lambda point: (point.step, point.timestamp))}
    return {step: value for step, value in values.items() if abs(value) < LARGEST}


def epoch_history(run_id: str, key: str, epochs_of: str = "val_loss") -> dict[int, float]:
    """Return a fold run's metric by epoch, without the last point, which is the score of the selected weights.

    `epochs_of` is a metric of the same epochs that has no such point.
    """
    last = max(history(run_id, epochs_of), default=-1)
    return {step: value for step, value in history(run_id, key).items() if step <= last}
