"""Metrics during training, sent by a thread as far as the server allows, and the upload of a finished fold.

Live metrics are best effort: a slow or unreachable server costs the training nothing. `upload` alone makes sure that
everything is on the server, once: a metric point carries the time at which it was made, so that sending it again
changes nothing. What was not sent is in the checkpoint too, from which a resumed training sends it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlflow
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from fsat.errors import FsatError, RunError, count
from fsat.files import sha256_of
from fsat.progress import say
from fsat.tracking import mlflow_ui, ownership
from fsat.tracking.client import PAUSES, TAG, Refused, ServerUnreachable, address, call, delete_folder, outage, refusal
from fsat.tracking.fold_artifacts import CHECKSUMS, is_intact
from fsat.tracking.run_folder import RunFolder, run_folders
from fsat.tracking.runs import BATCH, log_points

CHECKPOINTS, CHECKPOINT_TAG = "checkpoint", TAG + "checkpoint"
"""Artifact folder of checkpoints, in which two files take turns so that one of them is always whole, and the tag that
says which: its name, its number of epochs and its SHA-256."""

GRACE_SECONDS = 5.0
"""Seconds for sending the remaining metrics when a signal or an error has stopped the training."""


class LiveMetrics:
    """Sends the metrics of each epoch, and its checkpoint if asked to, in a thread."""

    def __init__(self, folder: RunFolder, with_checkpoints: bool) -> None:
        self._folder, self._with_checkpoints = folder, with_checkpoints
        self._waiting: list[Metric] = []
        self._n_epochs = self._n_epochs_on_server = 0
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._send_all, name="live-metrics", daemon=True)

    def __enter__(self) -> LiveMetrics:
        self._thread.start()
        return self

    def epoch(self, epoch: int, metrics: Mapping[str, float], milliseconds: int) -> None:
        """Queue the metrics of an epoch whose checkpoint is written; raise `RunError` if the run was taken over."""
        ownership.check_owner(self._folder.run_id)
        with self._changed:
            self._waiting += [Metric(key, float(value), milliseconds, epoch) for key, value in metrics.items()]
            self._n_epochs = epoch + 1
            self._changed.notify()

    def __exit__(self, kind: type | None, *error: object) -> None:
        """End the thread: at once if training is complete, as `upload` follows, or after sending what it can."""
        with self._changed:
            self._ending = True
            if kind is None:
                self._waiting.clear()
            self._changed.notify()
        self._thread.join(GRACE_SECONDS if kind else None)

    def _send_all(self) -> None:
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                batch, n_epochs = self._waiting[:BATCH], self._n_epochs
            if not batch:
                return
            try:
                self._send(batch, n_epochs)
            except (MlflowException, OSError) as error:
                if not (state := outage(error)):
                    say(f"warning: {refusal(error)}; training continues without live metrics, and uploads at its end")
                    return
                if not failures:
                    say(f"the tracking server {address()} is {state}; training continues, and metrics are sent later")
                with self._changed:
                    if self._changed.wait_for(lambda: self._ending, PAUSES[min(failures, len(PAUSES) - 1)]):
                        return
                failures += 1
            else:
                if failures:
                    say(f"the tracking server {address()} answers again")
                failures = 0
                with self._changed:
                    del self._waiting[: len(batch)]

    def _send(self, batch: list[Metric], n_epochs: int) -> None:
        """Send metrics after a checkpoint that has their epochs, so that no resumed training logs them again."""
        if self._with_checkpoints and batch[-1].step >= self._n_epochs_on_server:
            upload_checkpoint(self._folder, n_epochs)
            self._n_epochs_on_server = n_epochs
        mlflow.MlflowClient().log_batch(self._folder.run_id, metrics=batch)


def upload_checkpoint(folder: RunFolder, n_epochs: int) -> None:
    """Upload a run's checkpoint; the previous one stays on the server until this one is whole."""
    client = mlflow.MlflowClient()
    previous = client.get_run(folder.run_id).data.tags.get(CHECKPOINT_TAG, "")
    name = "b.checkpoint" if previous.startswith("a") else "a.checkpoint"
    copy = folder.folder / name
    copy.unlink(missing_ok=True)
    try:  # the next epoch replaces the checkpoint during the upload
        os.link(folder.checkpoint, copy)
    except OSError:  # the file system has no hard links
        shutil.copyfile(folder.checkpoint, copy)
    try:
        digest = sha256_of(copy)
        client.log_artifact(folder.run_id, str(copy), CHECKPOINTS)
    finally:
        copy.unlink()
    client.set_tag(folder.run_id, CHECKPOINT_TAG, f"{name} {n_epochs} {digest}")


@dataclass(frozen=True)
class ServerCheckpoint:
    """A checkpoint on the server: its file name, its number of epochs, and its SHA-256."""

    name: str
    n_epochs: int
    digest: str

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> ServerCheckpoint | None:
        """Return the checkpoint that a run's tags describe, if any."""
        with suppress(ValueError):
            name, n_epochs, digest = tags.get(CHECKPOINT_TAG, "").split()
            return cls(name, int(n_epochs), digest)
        return None

    def download(self, folder: RunFolder) -> bool:
        """Make it the run's checkpoint on this machine; return False, with a warning, if it is damaged."""
        path = f"{CHECKPOINTS}/{self.name}"
        folder.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetched-", dir=folder.folder) as temporary:
            fetch = partial(mlflow.artifacts.download_artifacts, run_id=folder.run_id, artifact_path=path)
            try:
                file = Path(call(partial(fetch, dst_path=temporary)))
                if sha256_of(file) == self.digest:
                    file.replace(folder.checkpoint)
                    return True
                reason = "its SHA-256 differs"
            except Refused as error:
                reason = " ".join(str(error.__cause__).split())[:200]
        say(f"warning: run {folder.run_id}: {path} on {address()} cannot be used ({reason}); it is ignored")
        return False


def upload(folder: RunFolder) -> None:
    """Upload a finished fold, without duplicating what the server has; raise `RunError` if its files were changed."""
    client, run_id = mlflow.MlflowClient(), folder.run_id
    if not is_intact(folder.artifacts):
        advice = f"remove the folder and train fold {folder.fold.fold} again"
        raise RunError(f"{folder.folder}: the results there were changed or truncated; {advice}")
    log_points(run_id, [Metric(**point) for point in folder.metrics()])
    call(lambda: client.log_artifacts(run_id, str(folder.artifacts)))
    call(lambda: client.set_tag(run_id, TAG + "checksums", sha256_of(folder.artifacts / CHECKSUMS)))
    mlflow_ui.describe(folder.description(), run_id)
    call(lambda: _remove_checkpoints(run_id))


def _remove_checkpoints(run_id: str) -> None:
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    if CHECKPOINT_TAG in run.data.tags:
        delete_folder(run, CHECKPOINTS)
        client.delete_tag(run_id, CHECKPOINT_TAG)


def sync(count_epochs: Callable[[Path], int]) -> list[str]:
    """Upload the finished folds that this machine stores for the current server; return a line for each run folder.

    `count_epochs` counts the epochs in a checkpoint file. `ServerUnreachable` ends it.
    """
    lines = []
    for folder in run_folders():
        name = f"run {folder.run_id} (fold {folder.fold.fold} of study {folder.fold.study})"
        if folder.fold.uri != address():
            lines.append(f"{name} belongs to {folder.fold.uri}: skipped; set MLFLOW_TRACKING_URI to that address")
            continue
        try:
            with folder.held():
                lines.append(f"{name}: {_sync(folder, count_epochs)}")
        except ServerUnreachable:
            raise
        except FsatError as error:
            lines.append(f"{name}: {error}")
    return lines


def _sync(folder: RunFolder, count_epochs: Callable[[Path], int]) -> str:
    run, fold = call(lambda: mlflow.MlflowClient().get_run(folder.run_id)), folder.fold
    if run.info.status == "FINISHED":
        folder.remove()
        return "already on the server"
    if not folder.has_results:
        epochs = count(count_epochs(folder.checkpoint), "epoch")
        return f"stopped after {epochs}; train the fold again to resume it"
    if run.info.status == "RUNNING" and run.data.tags.get(ownership.OWNER) and ownership.is_alive(run):
        return f"in use by {ownership.owner_of(run)}"
    if other := ownership.finished_run(fold.study, fold.fold, run.info.experiment_id):
        return f"skipped, as run {other} has trained the fold meanwhile; remove {folder.folder} if you do not need it"
    upload(folder)
    call(lambda: mlflow.MlflowClient().set_terminated(folder.run_id, "FINISHED"))
    folder.remove()
    say(f"run {folder.run_id} is uploaded")
    return "uploaded, FINISHED"
