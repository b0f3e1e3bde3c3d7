"""Runs on the MLflow tracking server: opened, described, and always closed as what they were.

A run is FINISHED only when all that it promises is there; it is KILLED when a signal stopped it and FAILED when an
error did. A run that `mlflow run` has opened for this process is taken over, not doubled.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException

from fsat import interrupts
from fsat.data.manifest import Manifest
from fsat.errors import RunError
from fsat.progress import say
from fsat.tracking import heartbeat
from fsat.tracking.client import Refused, ServerAway, address, ask, create_once, exchange, refusal

TAG = "fsat."
"""Prefix of every tag that fsat sets: stage, study, fold, model, dataset, ..."""

MARK = TAG + "launch"
"""Tag by which a run is found whose creation was not answered."""

BATCH = 1000
"""Metrics that MLflow takes at once."""

_after: dict[str, list[Callable[[], None]]] = {}
_made_elsewhere: set[str] = set()
_spare: set[str] = set()


@dataclass(frozen=True)
class Parent:
    """The open run of a process, for those that work for it."""

    run_id: str
    experiment_id: str


@contextmanager
def tracked(stage: str, name: str, parent: Parent | None = None) -> Iterator[str]:
    """Open a run, nested if one is open already, and close it as FINISHED, FAILED or KILLED.

    Args:
        stage: the entry point, kept in the tag ``fsat.stage``.
        name: the run's name in the UI.
        parent: the run of another process to nest this one in.

    Yields:
        the run's id.

    Raises:
        RunError: the tracking server cannot be used.
    """
    outermost = mlflow.active_run() is None and parent is None
    with interrupts.deferred():
        run_id = _open(parent, outermost)
    with _closing(run_id, outermost):
        describe = exchange(mlflow.MlflowClient().update_run)
        describe(run_id, name=name)
        set_tags({"stage": stage}, heartbeat.tags())
        yield run_id


@contextmanager
def continued(run_id: str) -> Iterator[None]:
    """Open a run that was stopped once more, nested in the open one, and close it as `tracked` does."""
    only = parent_of_active() is None
    with interrupts.deferred():
        ask(lambda: mlflow.start_run(run_id=run_id, nested=True))
    with _closing(run_id, outermost=only):  # all that the open one was for is done then
        yield


def after_finish(act: Callable[[], None]) -> None:
    """Do something when the open run is marked as FINISHED; not if it comes to another end."""
    _after.setdefault(active_run_id(), []).append(act)


def hand_over(run_id: str, to: str, name: str) -> None:
    """Say of a run of this process that another one stands in its place: it was stopped and goes on, or is FINISHED.

    It is deleted when it is closed, unless `mlflow run` has made it, which would miss it.
    """
    spare = run_id not in _made_elsewhere
    tags = {"stage": "resume", "resumed": to, "claim": "none", **({"spare": "true"} if spare else {})}
    client = mlflow.MlflowClient()
    ask(lambda: client.log_batch(run_id, tags=[RunTag(TAG + key, value) for key, value in tags.items()]))
    ask(lambda: client.update_run(run_id, name=name))
    if spare:
        _spare.add(run_id)


def discard(run_id: str) -> None:
    """Delete a run that came to nothing because another one does its work; it stays where that is not permitted."""
    with suppress(Refused):
        ask(lambda: mlflow.MlflowClient().delete_run(run_id))


def _open(parent: Parent | None, outermost: bool) -> str:
    where = {"experiment_id": parent.experiment_id, "parent_run_id": parent.run_id} if parent else {}
    if given := os.environ.get("MLFLOW_RUN_ID"):
        ask(lambda: mlflow.start_run(run_id=given, nested=not outermost))
        os.environ.pop("MLFLOW_RUN_ID", None)
        _made_elsewhere.add(given)
        return given

    def create(mark: str) -> str:
        return mlflow.start_run(nested=not outermost, tags={MARK: mark}, **where).info.run_id

    def find(mark: str) -> str | None:
        ids = [parent.experiment_id if parent else _experiment_id()]
        found = mlflow.MlflowClient().search_runs(ids, f"tags.`{MARK}` = '{mark}'", max_results=1)
        return mlflow.start_run(run_id=found[0].info.run_id, nested=not outermost).info.run_id if found else None

    return create_once(create, find)


@contextmanager
def _closing(run_id: str, outermost: bool) -> Iterator[None]:
    """Give the open run its heartbeat, and close it as what it came to."""
    heartbeat.start(run_id)
    status = "FAILED"
    try:
        interrupts.check()
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        heartbeat.stop(run_id)
        with interrupts.deferred():
            if interrupts.received():  # whatever a library made of the interruption
                status = "KILLED"
            _close(run_id, status)
            after = _after.pop(run_id, [])
            if run_id in _spare:
                _spare.discard(run_id)
                with suppress(ServerAway):
                    discard(run_id)
            if status == "FINISHED":
                for act in after:
                    act()
                if outermost:
                    interrupts.ignore()
    if status == "KILLED":
        interrupts.check()


def _close(run_id: str, status: str) -> None:
    """Mark the innermost open run; one that comes to no good is not waited for, as its end is found out later."""
    ended: list[bool] = []

    def end() -> None:
        if not ended:
            ended.append(True)
            mlflow.end_run(status)  # takes the run from MLflow's stack, then tells the server
        else:
            mlflow.MlflowClient().set_terminated(run_id, status)

    try:
        ask(end, wait=None if status == "FINISHED" else 0)
    except RunError as error:
        if status == "FINISHED":
            raise
        say(f"warning: run {run_id} could not be marked as {status} ({error.args[0].partition(';')[0]}); a later "
            "launch will find that nobody works on it")  # fmt: skip


def close_unopened() -> None:
    """Mark the run that `mlflow run` made for this process, and that `tracked` never took over, as KILLED."""
    try:
        mlflow.MlflowClient().set_terminated(os.environ["MLFLOW_RUN_ID"], "KILLED")
    except (MlflowException, OSError) as error:
        say(f"warning: {refusal(error)}")


def as_parent() -> Parent:
    """The open run, to nest runs of other processes in."""
    info = mlflow.active_run().info
    return Parent(info.run_id, info.experiment_id)


def parent_of_active() -> str | None:
    """Id of the run that the open one is nested in."""
    return mlflow.active_run().data.tags.get("mlflow.parentRunId")


def active_run_id() -> str:
    """Id of the open run."""
    return mlflow.active_run().info.run_id


@exchange
def rename(name: str) -> None:
    """Give the open run another name."""
    mlflow.MlflowClient().update_run(active_run_id(), name=name)


@exchange
def set_tags(tags: Mapping[str, Any], more: Mapping[str, str] | None = None) -> None:
    """Set ``fsat.`` tags of the open run, given without that, and `more` with their whole names."""
    mlflow.set_tags({TAG + key: value for key, value in tags.items()} | dict(more or {}))


@exchange
def log_params(params: Mapping[str, Any]) -> None:
    """Log parameters of the open run; those that `mlflow run` has logged as typed stay as they are."""
    run_id = mlflow.active_run().info.run_id
    known = mlflow.MlflowClient().get_run(run_id).data.params
    mlflow.log_params({key: value for key, value in params.items() if key not in known})


def log_metrics(metrics: Mapping[str, float], step: int | None = None) -> None:
    """Log numbers of the open run; the step is the epoch."""
    log_all(active_run_id(), [Metric(key, float(value), now(), step or 0) for key, value in metrics.items()])


def log_all(run_id: str, metrics: Sequence[Metric]) -> None:
    """Log metrics, which carry their times: those that are there already are not doubled."""
    for start in range(0, len(metrics), BATCH):
        some = metrics[start : start + BATCH]
        ask(lambda some=some: mlflow.MlflowClient().log_batch(run_id, metrics=some))


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@exchange
def log_folder(folder: Path) -> None:
    """Upload all files of a folder."""
    mlflow.log_artifacts(str(folder))


@exchange
def log_json(value: Any, artifact_file: str) -> None:
    """Upload a value as a JSON file."""
    mlflow.log_text(json.dumps(value, indent=2) + "\n", artifact_file)


@exchange
def log_table(frame: Any, artifact_file: str) -> None:
    """Upload a pandas table as CSV."""
    mlflow.log_text(frame.to_csv(index=False), artifact_file)


def log_file(path: Path) -> None:
    """Upload a file under its own name."""
    ask(lambda: mlflow.log_artifact(str(path)))


def log_dataset(manifest: Manifest) -> None:
    """Name the dataset as the open run's input, and upload what was wrong with it, if anything was."""
    import pandas as pd

    columns = [name for name in ("fname", "label", "manually_verified", "fold") if name in manifest.train]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whole-number columns are meant to be whole numbers
        source = str(manifest.folder.absolute())
        dataset = mlflow.data.from_pandas(
            manifest.train[columns], source=source, targets="label", name=manifest.folder.name, digest=manifest.digest
        )
        ask(lambda: mlflow.log_input(dataset, context="training"))
    set_tags({"dataset": manifest.digest, "data_dir": source})
    if manifest.problems:
        rows = [vars(problem) for problem in manifest.problems]
        log_table(pd.DataFrame(rows), "exclusions.csv")


def experiment_id() -> str:
    """The experiment that runs of this process belong to."""
    active = mlflow.active_run()
    if active is not None:
        return active.info.experiment_id
    return ask(_experiment_id)


def _experiment_id() -> str:
    """What `mlflow.start_run` would choose: MLFLOW_EXPERIMENT_ID, MLFLOW_EXPERIMENT_NAME or the default experiment."""
    from mlflow.tracking.fluent import _get_experiment_id

    return _get_experiment_id()


def tracking_uri() -> str:
    """Where runs are kept, without a password."""
    return address()
