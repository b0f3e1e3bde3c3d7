"""What fold runs keep on this machine until the tracking server has it: checkpoints, and results not yet uploaded.

A fold run has a folder ``runs/<run id>/`` in the cache folder: ``run.json`` says which run it is, ``checkpoint`` is
written after every epoch, and ``results/`` is there when the fold is trained: ``artifacts/`` as they will stand on
the server, and ``metrics.json``. A process that works on a run holds its ``lock``. The folder goes when the run is
FINISHED.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fsat.errors import FsatError, RunError, count
from fsat.files import cache_dir
from fsat.training.checkpoint import count_epochs

RUN, CHECKPOINT, RESULTS, LOCK = "run.json", "checkpoint", "results", "lock"
ARTIFACTS, METRICS, CHECKSUMS = "artifacts", "metrics.json", "checksums.json"


def runs_dir() -> Path:
    """The folder of all that is kept."""
    return cache_dir().absolute() / "runs"


@dataclass(frozen=True)
class Kept:
    """What is kept of one run.

    Attributes:
        folder: its folder, which may not be there.
    """

    folder: Path

    @classmethod
    def of(cls, run_id: str) -> Kept:
        """Of the run with this id."""
        return cls(runs_dir() / run_id)

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self.folder.name

    @property
    def checkpoint(self) -> Path:
        """The file that a training goes on from."""
        return self.folder / CHECKPOINT

    @property
    def artifacts(self) -> Path:
        """The finished fold's artifacts."""
        return self.folder / RESULTS / ARTIFACTS

    @property
    def has_results(self) -> bool:
        """Whether the fold is trained."""
        return (self.folder / RESULTS).is_dir()

    @property
    def facts(self) -> dict[str, Any]:
        """What `begin` was told; empty where nothing is kept."""
        with suppress(OSError, ValueError):
            return json.loads((self.folder / RUN).read_text())
        return {}

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Make the folder.

        Args:
            facts: ``uri``, ``experiment_id``, ``study`` and ``fold``.
        """
        with _explained(self.folder):
            (self.folder / RUN).write_text(json.dumps(dict(facts), indent=2) + "\n")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no other process of this machine work on it meanwhile.

        Raises:
            RunError: another one does.
        """
        with _explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK, timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise RunError(f"run {self.run_id}: another process of this machine works on it; wait for it") from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def new_results(self) -> Iterator[Path]:
        """A folder to lay results out in; they are there, whole, when the block has ended without an error.

        Yields:
            the folder that ``artifacts/`` and ``metrics.json`` are expected in.
        """
        unfinished = self.folder / (RESULTS + ".unfinished")
        with _explained(self.folder):
            shutil.rmtree(unfinished, ignore_errors=True)
            (unfinished / ARTIFACTS).mkdir(parents=True)
            yield unfinished
            _write_checksums(unfinished / ARTIFACTS)
            for path in unfinished.rglob("*"):
                if path.is_file():
                    with open(path, "rb") as file:
                        os.fsync(file.fileno())
            os.replace(unfinished, self.folder / RESULTS)

    def is_whole(self) -> bool:
        """Whether the finished fold's artifacts are as they were written."""
        try:
            expected = json.loads((self.artifacts / CHECKSUMS).read_text())
            return {name: digest for name, digest in checksums(self.artifacts).items() if name != CHECKSUMS} == expected
        except (OSError, ValueError):
            return False

    def epochs(self) -> int:
        """How many epochs the checkpoint has; 0 if there is none that can be used."""
        return count_epochs(self.checkpoint)

    def metrics(self) -> list[dict[str, Any]]:
        """What is to be logged of finished results: ``key``, ``value``, ``step`` and ``timestamp`` in ms since 1970."""
        return json.loads((self.folder / RESULTS / METRICS).read_text())

    def remove_if_empty(self) -> None:
        """Forget it if no epoch was finished."""
        if not self.has_results and not self.checkpoint.exists():
            self.remove()

    def remove(self) -> None:
        """Forget it: the server has everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def forget(run_id: str) -> None:
    """Remove what is kept of a FINISHED run whose process died before it could, unless one works on it."""
    kept = Kept.of(run_id)
    if kept.folder.is_dir():
        with suppress(RunError), kept.held():
            kept.remove()


def every_kept() -> Sequence[Kept]:
    """All that is kept, oldest first."""
    with suppress(OSError):
        folders = [path for path in runs_dir().iterdir() if (path / RUN).is_file()]
        return [Kept(path) for path in sorted(folders, key=lambda path: (path / RUN).stat().st_mtime)]
    return []


def list_kept() -> list[str]:
    """A line for each run that something is kept of."""
    return [_in_words(kept) for kept in every_kept()]


def clear_kept() -> Iterator[str]:
    """Remove checkpoints of runs that no process works on, and say line by line what is done; results stay."""
    for kept in every_kept():
        if kept.has_results:
            yield f"{_in_words(kept)}; it stays: `python -m fsat sync` uploads it"
            continue
        try:
            with kept.held():
                kept.remove()
            yield f"{kept.folder}: removed"
        except RunError:
            yield f"{kept.folder}: a process works on it, and it stays"


def _in_words(kept: Kept) -> str:
    facts = kept.facts
    what = "results, not uploaded yet" if kept.has_results else f"checkpoint after {count(kept.epochs(), 'epoch')}"
    return f"fold {facts.get('fold', '?')} of study {facts.get('study', '?')}: {what}, in {kept.folder}"


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder and below it, by its name with forward slashes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _write_checksums(folder: Path) -> None:
    (folder / CHECKSUMS).write_text(json.dumps(checksums(folder), indent=2) + "\n")


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into one line."""
    try:
        yield
    except OSError as error:
        raise FsatError(
            f"{folder}: cannot be written ({error.strerror or error}); make room there or set FSAT_CACHE_DIR to "
            "another disk, then ask for the fold again: it goes on from its last checkpoint"
        ) from error
