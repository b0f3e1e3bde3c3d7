"""Scores of recordings over time, kept in a folder, so that a command that is run again computes no window twice."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fsat.data.audio import Report
from fsat.data.clip_names import stored_name
from fsat.errors import AudioError
from fsat.files import key_of, write_whole
from fsat.options import TagSettings
from fsat.tagging.recordings import ScoredWindow, Segment, segments, without_overlap
from fsat.tagging.tagger import Tagger


class WindowScores(NamedTuple):
    """The windows of a recording.

    Attributes:
        windows: starts and ends, float64 (n, 2), in seconds.
        scores: float32 (n, n_classes), NaN for silence.
        error: why there are not more windows; empty if that is the whole recording.
    """

    windows: np.ndarray
    scores: np.ndarray
    error: str

    def rows(self) -> list[ScoredWindow]:
        """Return start, end and scores of each window."""
        return [(start, end, row) for (start, end), row in zip(self.windows.tolist(), self.scores, strict=True)]

    def edges(self) -> np.ndarray:
        """Return where the time that one window counts for ends and that of the next one begins, float64 (n + 1,)."""
        parts = list(without_overlap(self.rows()))
        return np.array([parts[0][0], *(end for _, end, _ in parts)])


def tags_at(windows: list[ScoredWindow], labels: list[str], top_k: int, minimum: np.ndarray) -> list[Segment]:
    """Return the tags of windows as tables have them: times in whole milliseconds, without silence."""
    tags = segments(windows, labels, top_k, minimum)
    return [tag._replace(start=round(tag.start, 3), end=round(tag.end, 3)) for tag in tags if tag.label]


class StoredScores:
    """Scores of a tagger for recordings below `root`, kept in `folder`."""

    def __init__(self, tagger: Tagger, settings: TagSettings, root: Path, folder: Path) -> None:
        self._tagger, self._settings, self._root, self._folder = tagger, settings, root, folder
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, name: str, note: Callable[[str], None]) -> WindowScores:
        """Return the scores of a recording; `note` is called with the position in it."""
        path = self._root / stored_name(self._root, name)
        file = self._folder / f"{self._key(path, name)}.npz"  # a missing file has none
        with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(file) as arrays:
            return WindowScores(arrays["windows"], arrays["scores"], str(arrays["error"]))
        scores = self._compute(path, name, note)
        if not len(scores.windows):
            return scores

        def write(unfinished: Path) -> None:
            with open(unfinished, "wb") as target:
                np.savez(target, **scores._asdict())

        write_whole(file, write)
        return scores

    def _key(self, path: Path, name: str) -> str:
        settings, version = self._settings, list[int]()
        with suppress(OSError):
            status = os.stat(path)
            version = [status.st_size, status.st_mtime_ns]
        used = [settings.members, settings.window, settings.step, settings.max_seconds]
        return key_of([self._tagger.digest, used, name, version])

    def _compute(self, path: Path, name: str, note: Callable[[str], None]) -> WindowScores:
        from fsat import interrupts

        settings, times, rows, error = self._settings, list[tuple[float, float]](), list[np.ndarray](), ""
        try:
            over_time = self._tagger.over_time(path, settings.window, settings.step, settings.longest, Report())
            for start, end, row in over_time:
                interrupts.check()
                note(f"{name} at {end:.0f} s")
                times.append((start, end))
                rows.append(row)
        except AudioError as reason:
            error = str(reason)
        scores = np.array(rows, np.float32).reshape(-1, len(self._tagger.labels))
        return WindowScores(np.array(times, np.float64).reshape(-1, 2), scores, error)
