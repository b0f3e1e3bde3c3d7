"""Scores of recordings over time, kept in a folder, so that a command that is run again computes no window twice.

Conventions: a recording has ``KEY.scores``, the scores as they are in memory, float32 (n, n_classes), and ``KEY.npz``,
which is written last, with the windows and why there are not more. Scores are memory maps, so they need no memory.
"""

from __future__ import annotations

import math
import os
import zipfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from fsat.data.audio import Report
from fsat.data.clip_names import stored_name
from fsat.errors import AudioError
from fsat.files import key_of, write_whole
from fsat.options import TagSettings
from fsat.tagging.recordings import BLOCK_WINDOWS, ScoredWindow, Segment, segments, without_overlap
from fsat.tagging.tagger import Tagger

SCORES = ".scores"
"""Suffix of a file of scores."""


class WindowScores(NamedTuple):
    """The windows of a recording.

    Attributes:
        windows: starts and ends, float64 (n, 2), in seconds.
        scores: float32 (n, n_classes), NaN for silence; maybe a memory map.
        error: why there are not more windows; empty if that is the whole recording.
    """

    windows: np.ndarray
    scores: np.ndarray
    error: str

    def edges(self) -> np.ndarray:
        """Return where the time that one window counts for ends and that of the next one begins, float64 (n + 1,)."""
        parts = [(start, end) for start, end, _ in without_overlap(rows_of(self.windows, self.windows))]
        return np.array([parts[0][0], *(end for _, end in parts)])


def rows_of(windows: np.ndarray, scores: np.ndarray) -> Iterator[ScoredWindow]:
    """Yield start, end and scores of each window; see `WindowScores`."""
    for first in range(0, len(windows), BLOCK_WINDOWS):
        block = slice(first, first + BLOCK_WINDOWS)
        yield from zip(*windows[block].T.tolist(), np.array(scores[block]), strict=True)


def tags_at(
    windows: np.ndarray, scores: np.ndarray, labels: list[str], top_k: int, minimum: np.ndarray
) -> list[Segment]:
    """Return the tags of windows as tables have them: times in whole milliseconds, without silence."""
    tags = segments(rows_of(windows, scores), labels, top_k, minimum)
    return [tag._replace(start=round(tag.start, 3), end=round(tag.end, 3)) for tag in tags if tag.label]


class StoredScores:
    """Scores of a tagger for recordings below `root`, kept in `folder`."""

    def __init__(self, tagger: Tagger, settings: TagSettings, root: Path, folder: Path) -> None:
        self._tagger, self._settings, self._root, self._folder = tagger, settings, root, folder
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, name: str, note: Callable[[str], None]) -> WindowScores:
        """Return the scores of a recording; `note` is called with the position in it."""
        path = self._root / stored_name(self._root, name)
        file = self._folder / f"{self._key(path, name)}.npz"  # a missing recording has none
        with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
            return self._read(file)
        times, error = array("d"), ""

        def write_rows(unfinished: Path) -> None:
            nonlocal error
            with open(unfinished, "wb") as target:
                error = self._compute(path, name, note, times, target)

        write_whole(file.with_suffix(SCORES), write_rows)
        windows = np.array(times).reshape(-1, 2)
        if not len(windows):
            file.with_suffix(SCORES).unlink()
            return WindowScores(windows, np.empty((0, len(self._tagger.labels)), np.float32), error)

        def write(unfinished: Path) -> None:
            with open(unfinished, "wb") as target:
                np.savez(target, windows=windows, error=error)

        write_whole(file, write)
        return self._read(file)

    def _read(self, file: Path) -> WindowScores:
        """Return the scores in files; raise OSError, ValueError, KeyError or BadZipFile if they are not complete."""
        with np.load(file) as arrays:
            windows, error = arrays["windows"], str(arrays["error"])
        path, shape = file.with_suffix(SCORES), (len(windows), len(self._tagger.labels))
        if path.stat().st_size != 4 * math.prod(shape):
            raise ValueError(f"{path}: has another size")
        return WindowScores(windows, np.memmap(path, np.float32, "r", shape=shape), error)

    def _key(self, path: Path, name: str) -> str:
        settings, version = self._settings, list[int]()
        with suppress(OSError):
            status = os.stat(path)
            version = [status.st_size, status.st_mtime_ns]
        used = [settings.members, settings.window, settings.step, settings.max_seconds]
        return key_of([self._tagger.digest, used, name, version])

    def _compute(
        self, path: Path, name: str, note: Callable[[str], None], times: array[float], target: BinaryIO
    ) -> str:
        """Append start and end of windows, write their scores, and return why there are not more, or an empty text."""
        from fsat import interrupts

        settings = self._settings
        try:
            over_time = self._tagger.over_time(path, settings.window, settings.step, settings.longest, Report())
            for start, end, row in over_time:
                interrupts.check()
                note(f"{name} at {end:.0f} s")
                times.extend((start, end))
                target.write(np.asarray(row, np.float32).tobytes())
        except AudioError as reason:
            return str(reason)
        return ""
