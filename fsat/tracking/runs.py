"""Runs on the MLflow tracking server: opened, described, and always closed as what they were.

A run is FINISHED only when all that it promises is there; it is KILLED when a signal stopped it and FAILED when an
error did. A run that `mlflow run` has opened for this process is taken over, not doubled.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsat import interrupts
from fsat.data.manifest import Manifest
from fsat.errors import RunError
from fsat.progress import say

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing waits for a network
logging.getLogger("alembic").setLevel(logging.WARNING)

import mlflow  # noqa: E402  (after it was told to be quiet)
from mlflow.exceptions import MlflowException  # noqa: E402

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

TAG = "fsat."
"""Prefix of every tag that fsat sets: stage, study, fold, model, dataset, ..."""


@dataclass(frozen=True)
class Parent:
    """The open run of a process, for those that work for it."""

    run_id: str
    experiment_id: str


@contextmanager
def server_call() -> Iterator[None]:
    """An exchange with the tracking server: a signal waits for its end, and a refusal becomes one line."""
    with interrupts.shielded():
        try:
            yield
        except MlflowException as error:
            raise refusal(error) from error


def refusal(error: MlflowException) -> RunError:
    """A server's error in one line."""
    what = " ".join(str(error).split())[:300]
    return RunError(f"the tracking server {mlflow.get_tracking_uri()} refused: {what}; check MLFLOW_TRACKING_URI")


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
    with interrupts.deferred(), server_call():
        where = {"experiment_id": parent.experiment_id, "parent_run_id": parent.run_id} if parent else {}
        run_id = mlflow.start_run(nested=not outermost, **where).info.run_id
    status = "FAILED"
    try:
        interrupts.check()
        with server_call():
            mlflow.MlflowClient().update_run(run_id, name=name)
            set_tags({"stage": stage})
        yield run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        with interrupts.deferred():
            if interrupts.received():  # whatever a library made of the interruption
                status = "KILLED"
            mlflow.end_run(status)
            if status == "FINISHED" and outermost:
                interrupts.ignore()
    if status == "KILLED":
        interrupts.check()


def close_unopened() -> None:
    """Mark the run that `mlflow run` made for this process, and that `tracked` never took over, as KILLED."""
    try:
        mlflow.MlflowClient().set_terminated(os.environ["MLFLOW_RUN_ID"], "KILLED")
    except MlflowException as error:
        say(f"warning: {refusal(error)}")


def as_parent() -> Parent:
    """The open run, to nest runs of other processes in."""
    info = mlflow.active_run().info
    return Parent(info.run_id, info.experiment_id)


def active_run_id() -> str:
    """Id of the open run."""
    return mlflow.active_run().info.run_id


@server_call()
def rename(name: str) -> None:
    """Give the open run another name."""
    mlflow.MlflowClient().update_run(active_run_id(), name=name)


@server_call()
def set_tags(tags: Mapping[str, Any]) -> None:
    """Set ``fsat.`` tags of the open run."""
    mlflow.set_tags({TAG + key: value for key, value in tags.items()})


@server_call()
def log_params(params: Mapping[str, Any]) -> None:
    """Log parameters of the open run; those that `mlflow run` has logged as typed stay as they are."""
    run_id = mlflow.active_run().info.run_id
    known = mlflow.MlflowClient().get_run(run_id).data.params
    mlflow.log_params({key: value for key, value in params.items() if key not in known})


@server_call()
def log_metrics(metrics: Mapping[str, float], step: int | None = None) -> None:
    """Log numbers of the open run; the step is the epoch."""
    mlflow.log_metrics(dict(metrics), step=step)


def log_metrics_of_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
    """Log an epoch's numbers of the open run."""
    log_metrics(metrics, step=epoch)


@server_call()
def log_folder(folder: Path) -> None:
    """Upload all files of a folder."""
    mlflow.log_artifacts(str(folder))


@server_call()
def log_json(value: Any, artifact_file: str) -> None:
    """Upload a value as a JSON file."""
    mlflow.log_text(json.dumps(value, indent=2) + "\n", artifact_file)


@server_call()
def log_table(frame: Any, artifact_file: str) -> None:
    """Upload a pandas table as CSV."""
    mlflow.log_text(frame.to_csv(index=False), artifact_file)


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
        with server_call():
            mlflow.log_input(dataset, context="training")
    set_tags({"dataset": manifest.digest, "data_dir": source})
    if manifest.problems:
        rows = [vars(problem) for problem in manifest.problems]
        log_table(pd.DataFrame(rows), "exclusions.csv")


def experiment_id() -> str:
    """The experiment that runs of this process belong to."""
    active = mlflow.active_run()
    if active is not None:
        return active.info.experiment_id
    with server_call():
        # what mlflow.start_run would choose: MLFLOW_EXPERIMENT_ID, MLFLOW_EXPERIMENT_NAME or the default experiment
        from mlflow.tracking.fluent import _get_experiment_id

        return _get_experiment_id()


def tracking_uri() -> str:
    """Where runs are kept."""
    return mlflow.get_tracking_uri()
