"""Run folders: what this machine stores of a fold run until the tracking server has it.

A fold run has a folder ``runs/<run id>/`` in the cache folder: ``run.json`` says which fold it trains, ``checkpoint``
is written after every epoch, and ``results/`` appears when the fold is trained, with ``artifacts/`` as they will be on
the server, ``metrics.json`` and ``description.md``. The folder is removed when the run is FINISHED. The process that
trains a fold, or uploads its results, holds the fold's lock in ``locks/``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsat.errors import FsatError, count
from fsat.files import cache_dir, disk_errors, held_lock, key_of, new_folder

RUN, CHECKPOINT, RESULTS = "run.json", "checkpoint", "results"
ARTIFACTS, METRICS, DESCRIPTION = "artifacts", "metrics.json", "description.md"

RESUME = "then train the fold again: it resumes from its last checkpoint"
ADVICE = f"make room there or set FSAT_CACHE_DIR to another disk, {RESUME}"


@dataclass(frozen=True)
class Fold:
    """A fold of a study, by number from 0, on a tracking server whose address has no password."""

    uri: str
    experiment_id: str
    study: str
    fold: int


@contextmanager
def held_fold(fold: Fold, busy: str) -> Iterator[None]:
    """Hold the lock of a fold; raise `FsatError` with the message `busy` if another process holds it."""
    folder = cache_dir().absolute() / "locks"
    with disk_errors(folder, advice=ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
    with held_lock(folder / f"{key_of(asdict(fold))}.lock", busy):
        yield


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, which may not exist."""

    folder: Path

    @classmethod
    def of(cls, run_id: str) -> RunFolder:
        """Return the folder of the run with this id."""
        return cls(runs_dir() / run_id)

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self.folder.name

    @property
    def checkpoint(self) -> Path:
        """The file that training resumes from."""
        return self.folder / CHECKPOINT

    @property
    def artifacts(self) -> Path:
        """The trained fold's artifacts."""
        return self.folder / RESULTS / ARTIFACTS

    @property
    def has_results(self) -> bool:
        """Whether the fold is trained."""
        return (self.folder / RESULTS).is_dir()

    @property
    def fold(self) -> Fold:
        """The fold that the run trains, as `create` was given it; ``?`` for its names if the file is damaged."""
        with suppress(OSError, ValueError, TypeError):
            return Fold(**json.loads((self.folder / RUN).read_text()))
        return Fold("?", "?", "?", -1)

    def create(self, fold: Fold) -> None:
        """Create the folder, or note the fold again in the existing one."""
        with disk_errors(self.folder, advice=ADVICE):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / RUN).write_text(json.dumps(asdict(fold), indent=2) + "\n")

    def held(self) -> AbstractContextManager[None]:
        """Hold the lock of the folder's fold; raise `FsatError` if another process holds it."""
        return held_fold(self.fold, f"run {self.run_id}: another process on this machine is working on it; wait for it")

    @contextmanager
    def new_results(self, metrics: Sequence[Mapping[str, Any]], description: str) -> Iterator[Path]:
        """Write the results of a trained fold, all of them or none; yield the folder to write artifacts to.

        `metrics` are points to log: ``key``, ``value``, ``step``, and ``timestamp`` in milliseconds since 1970.
        """
        with disk_errors(self.folder, advice=ADVICE), new_folder(self.folder / RESULTS) as unfinished:
            (unfinished / ARTIFACTS).mkdir()
            (unfinished / METRICS).write_text(json.dumps(list(metrics)))
            (unfinished / DESCRIPTION).write_text(description)
            yield unfinished / ARTIFACTS

    def metrics(self) -> list[dict[str, Any]]:
        """Return the points to log, as `new_results` was given them."""
        return json.loads((self.folder / RESULTS / METRICS).read_text())

    def description(self) -> str:
        """Return the run's description, as `new_results` was given it."""
        return (self.folder / RESULTS / DESCRIPTION).read_text()

    def remove_if_empty(self) -> None:
        """Remove the folder if no epoch was finished."""
        if not self.has_results and not self.checkpoint.exists():
            self.remove()

    def remove(self) -> None:
        """Remove the folder: the server has everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def in_words(self, count_epochs: Callable[[Path], int]) -> str:
        """Return one line that says what is stored."""
        epochs = "" if self.has_results else count(count_epochs(self.checkpoint), "epoch")
        stored = f"checkpoint after {epochs}" if epochs else "results, not uploaded yet"
        return f"fold {self.fold.fold} of study {self.fold.study}: {stored}, in {self.folder}"


def runs_dir() -> Path:
    """Return the folder of the run folders."""
    return cache_dir().absolute() / "runs"


def run_folders() -> list[RunFolder]:
    """Return all run folders, the oldest first."""
    with suppress(OSError):
        files = sorted(runs_dir().glob(f"*/{RUN}"), key=lambda path: path.stat().st_mtime)
        return [RunFolder(path.parent) for path in files]
    return []


def remove_finished(run_id: str) -> None:
    """Remove the folder of a FINISHED run whose process died before it could, unless a process is working on it."""
    folder = RunFolder.of(run_id)
    if folder.folder.is_dir():
        with suppress(FsatError), folder.held():
            folder.remove()


def clear_checkpoints(count_epochs: Callable[[Path], int]) -> Iterator[str]:
    """Remove the checkpoints that no process is using, but no results; yield a line for each run folder."""
    for folder in run_folders():
        if folder.has_results:
            yield f"{folder.in_words(count_epochs)}; not removed: upload it with `python -m fsat sync`"
            continue
        try:
            with folder.held():
                folder.remove()
            yield f"{folder.folder}: removed"
        except FsatError:
            yield f"{folder.folder}: in use by another process, not removed"
