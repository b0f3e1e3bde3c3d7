"""What a training logs while it goes on: sent by a thread, so that a slow server, or none, costs the training nothing.

Every epoch's metrics carry the time at which they were made, so that to send them again changes nothing. What is not
sent yet is in the checkpoint too, from where the next sitting sends it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import mlflow
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from fsat import interrupts
from fsat.progress import say
from fsat.tracking import heartbeat
from fsat.tracking.client import PAUSES, Refused, address, ask, how_away, is_away, refusal
from fsat.tracking.run_folder import Kept
from fsat.tracking.runs import BATCH

CHECKPOINTS = "checkpoint"
"""Artifact folder of checkpoints; two files take turns, so that a whole one is always there."""

CHECKPOINT_TAG = "fsat.checkpoint"
"""Which of them is whole: its name, the epochs that it has, and its SHA-256."""

GRACE_SECONDS = 5.0
"""How long what is unsent may take when a signal has stopped the training."""


class Outbox:
    """Sends the metrics of epochs, and their checkpoints where that is asked for.

    Args:
        kept: the run's folder.
        with_checkpoints: whether the server gets them too.
    """

    def __init__(self, kept: Kept, with_checkpoints: bool) -> None:
        self.run_id, self.kept, self.with_checkpoints = kept.run_id, kept, with_checkpoints
        self._waiting: list[Metric] = []
        self._newest = self._epochs_on_server = 0
        self._changed = threading.Condition()
        self._ending = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)

    def __enter__(self) -> Outbox:
        self._thread.start()
        return self

    def epoch(self, epoch: int, metrics: Mapping[str, float], milliseconds: int) -> None:
        """Take an epoch's metrics to send; its checkpoint is written.

        Raises:
            RunError: the server has refused what came before, or the run was taken up by another process.
        """
        if self._error:
            raise refusal(self._error) from self._error
        heartbeat.check(self.run_id)
        with self._changed:
            self._waiting += [Metric(key, float(value), milliseconds, epoch) for key, value in metrics.items()]
            self._newest = epoch + 1
            self._changed.notify()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Send what is left: patiently at the end of a training, for a moment if it was stopped."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(GRACE_SECONDS if kind else None)
        if kind is None:
            if self._error and not is_away(self._error):
                raise refusal(self._error) from self._error
            while self._waiting:
                ask(self._send)
                interrupts.check()

    def _work(self) -> None:
        pauses, away = list(PAUSES), False
        while True:
            with self._changed:
                while not self._waiting and not self._ending:
                    self._changed.wait()
                if not self._waiting:
                    return
            try:
                self._send()
            except (MlflowException, OSError) as error:
                if not is_away(error) or self._ending:  # whoever ends it asks once more
                    self._error = error
                    return
                if not away:
                    how = how_away(error)
                    say(f"the tracking server {address()} is {how}; the training goes on, and what it logs is kept")
                away = True
                with self._changed:
                    if not self._ending:
                        self._changed.wait_for(lambda: self._ending, timeout=pauses[0])
                pauses = pauses[1:] or pauses
            else:
                if away:
                    say(f"the tracking server {address()} is back, and has what was kept")
                pauses, away = list(PAUSES), False

    def _send(self) -> None:
        """Send the oldest metrics, those that fit into one request, after a checkpoint that has their epochs."""
        with self._changed:
            some, newest = self._waiting[:BATCH], self._newest
        if self.with_checkpoints and some and some[-1].step >= self._epochs_on_server:
            upload_checkpoint(self.kept, newest)
            self._epochs_on_server = newest
        mlflow.MlflowClient().log_batch(self.run_id, metrics=some)
        with self._changed:
            del self._waiting[: len(some)]


def upload_checkpoint(kept: Kept, epochs: int) -> None:
    """Put a run's checkpoint on the server; the one that was there stays until this one is whole."""
    client = mlflow.MlflowClient()
    name = f"{'ab'[epochs % 2]}.checkpoint"
    before = client.get_run(kept.run_id).data.tags.get(CHECKPOINT_TAG, "")
    if before.startswith(name):
        name = f"{'ba'[epochs % 2]}.checkpoint"
    copy = kept.folder / name
    copy.unlink(missing_ok=True)
    try:  # the next epoch replaces the file while this is sent
        os.link(kept.checkpoint, copy)
    except OSError:  # not every disk has links
        shutil.copyfile(kept.checkpoint, copy)
    try:
        with open(copy, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        client.log_artifact(kept.run_id, str(copy), CHECKPOINTS)
    finally:
        copy.unlink()
    client.set_tag(kept.run_id, CHECKPOINT_TAG, f"{name} {epochs} {digest}")


@dataclass(frozen=True)
class OnServer:
    """A checkpoint on the server: its file, the epochs that it has, and its SHA-256."""

    name: str
    epochs: int
    digest: str

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> OnServer | None:
        """What a run's tags say of it."""
        with suppress(ValueError):
            name, epochs, digest = tags.get(CHECKPOINT_TAG, "").split()
            return cls(name, int(epochs), digest)
        return None

    def fetch(self, kept: Kept) -> bool:
        """Make it the run's checkpoint on this machine; False, with a warning, if it is not as it was uploaded."""
        path = f"{CHECKPOINTS}/{self.name}"
        kept.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetched-", dir=kept.folder) as folder:
            fetch = partial(mlflow.artifacts.download_artifacts, run_id=kept.run_id, artifact_path=path)
            try:
                found = Path(ask(partial(fetch, dst_path=folder)))
                with open(found, "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == self.digest:
                        os.replace(found, kept.checkpoint)
                        return True
                why = "it was cut or altered"
            except Refused as error:
                why = " ".join(str(error.__cause__).split())[:200]
        say(f"warning: run {kept.run_id}: {path} on {address()} cannot be used ({why}); it is not gone on from")
        return False


def remove_checkpoints(run_id: str) -> None:
    """Take a finished run's checkpoints from the server, where its artifact store can delete."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    if CHECKPOINT_TAG not in run.data.tags:
        return
    with suppress(NotImplementedError, MlflowException, OSError):
        get_artifact_repository(run.info.artifact_uri).delete_artifacts(CHECKPOINTS)
    client.delete_tag(run_id, CHECKPOINT_TAG)
