"""Long recordings: cut into windows at bounded memory, and the scores of windows merged into tags over time.

Conventions: windows start every `hop` seconds and are `window` seconds long; the last ends with the recording. Times
are in seconds from the start of the recording. Where windows overlap, each counts for the time that is nearest to its
middle. The tags of a window are its `top_k` best labels that score at least `min_score`; consecutive windows with the
same tag make one segment, whose score is their mean.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fsat.data.audio import Report, blocks
from fsat.data.byte_source import AudioSource
from fsat.data.levels import is_silent
from fsat.errors import AudioError
from fsat.metrics.ranking import top_k as best_classes

ROUNDING_SECONDS = 0.01
"""A rest this short at the end gets no window of its own: it is rounding, not sound."""


class Window(NamedTuple):
    """A piece of a recording: start and end, by rate the samples, float32 (n,), n >= 1, and whether it is silent."""

    start: float
    end: float
    samples: dict[int, np.ndarray]
    is_silent: bool


def windows(
    source: AudioSource, rates: Sequence[int], window: float, hop: float, max_seconds: float = math.inf,
    report: Report | None = None,
) -> Generator[Window]:  # fmt: skip
    """Yield the windows of a recording, each at several rates, in Hz.

    Args:
        source: a path, or the bytes of an audio file.
        window, hop: length and distance of windows, in seconds, 0 < hop <= window.
        report: takes what is odd about the recording.

    Raises `AudioError` if the recording cannot be used, or not beyond the windows so far.
    """
    if not 0 < hop <= window < math.inf:
        raise ValueError(f"window={window}, hop={hop}: expected 0 < hop <= window")
    buffers, report = [_Buffer(rate) for rate in rates], report or Report()

    def cut(start: float, end: float) -> Window:
        samples = {buffer.rate: buffer.cut(start, window) for buffer in buffers}
        quiet = (is_silent(part, report.levels.quiet, to / samplerate) for to, part in samples.items())
        return Window(start, end, samples, all(quiet))

    n_windows, seconds, samplerate = 0, 0.0, 1
    failure: AudioError | None = None
    all_blocks = blocks(source, rates, max_seconds, report)
    while True:
        try:
            block = next(all_blocks, None)
        except AudioError as error:
            block, failure = None, error
        if block is None:
            break
        samplerate = block.samplerate
        seconds += len(block.mono) / samplerate
        for buffer in buffers:
            buffer.append(block.at[buffer.rate])
        while all(buffer.reaches(n_windows * hop + window) for buffer in buffers):
            start = n_windows * hop
            yield cut(start, start + window)
            n_windows += 1
            for buffer in buffers:
                buffer.drop_before(min(n_windows * hop, max(0.0, seconds - window - 1)))
    covered = (n_windows - 1) * hop + window if n_windows else 0.0
    if seconds and (not n_windows or seconds - covered > ROUNDING_SECONDS):
        yield cut(max(0.0, seconds - window), seconds)
    if failure is not None:
        raise failure


class _Buffer:
    """The samples of a recording at one rate that later windows need."""

    def __init__(self, rate: int) -> None:
        self.rate, self._first = rate, 0
        self._samples = np.empty(0, np.float32)

    def append(self, samples: np.ndarray) -> None:
        self._samples = np.concatenate([self._samples, samples])

    def reaches(self, seconds: float) -> bool:
        return self._first + len(self._samples) >= round(seconds * self.rate)

    def cut(self, start: float, length: float) -> np.ndarray:
        """Return a copy of the samples of `length` seconds from `start` on, at least one sample."""
        first = max(0, min(round(start * self.rate) - self._first, len(self._samples) - 1))
        samples = self._samples[first : first + max(1, round(length * self.rate))]
        return samples.copy() if len(samples) else np.zeros(1, np.float32)

    def drop_before(self, seconds: float) -> None:
        n_samples = max(0, min(round(seconds * self.rate) - self._first, len(self._samples)))
        self._samples, self._first = self._samples[n_samples:], self._first + n_samples


SILENCE = -1
"""In place of a class: windows without any sound."""

Minimum = float | np.ndarray
"""The minimum score of a tag: of all classes, or of each, float32 (n_classes,)."""

ScoredWindow = tuple[float, float, np.ndarray]
"""Start and end in seconds, and float (n_classes,), which is NaN for a silent window."""


class Segment(NamedTuple):
    """A tag with its start and end in seconds; silence has no label and no score."""

    start: float
    end: float
    label: str
    score: float | None


def segments(
    windows: Iterable[ScoredWindow], labels: Sequence[str], top_k: int = 1, min_score: Minimum = 0.0
) -> Iterator[Segment]:
    """Merge the tags of consecutive windows, which may overlap; yield each segment when it has ended, silence too.

    Those that end together come by start, then by label order.
    """
    minimum = minima(min_score, len(labels))
    open_tags: dict[int, tuple[float, float, float, int]] = {}  # start, end, sum of scores, windows

    def close(classes: Iterable[int]) -> Iterator[Segment]:
        for j in sorted(classes, key=lambda j: (open_tags[j][0], j)):
            start, end, total, count = open_tags.pop(j)
            yield Segment(start, end, "", None) if j == SILENCE else Segment(start, end, labels[j], total / count)

    for start, end, row in without_overlap(windows):
        tags = [SILENCE]
        if not np.isnan(row[0]):
            tags = [j for j in best_classes(row[np.newaxis], top_k)[0].tolist() if row[j] >= minimum[j]]
        yield from close(set(open_tags) - set(tags))
        for j in tags:
            first, _, total, count = open_tags.get(j, (start, end, 0.0, 0))
            open_tags[j] = (first, end, total + (0.0 if j == SILENCE else float(row[j])), count + 1)
    yield from close(list(open_tags))


def minima(min_score: Minimum, n_classes: int) -> np.ndarray:
    """Return the minimum score of each class, float32 (n_classes,), the type of scores."""
    return np.broadcast_to(np.asarray(min_score, np.float32), n_classes)


def without_overlap(windows: Iterable[ScoredWindow]) -> Iterator[ScoredWindow]:
    """Yield the windows cut to the time that each counts for: it ends halfway between its middle and the next one's."""
    previous: ScoredWindow | None = None
    edge = 0.0
    for window in windows:
        if previous is None:
            edge = window[0]
        else:
            start, edge = edge, (previous[0] + previous[1] + window[0] + window[1]) / 4
            yield start, edge, previous[2]
        previous = window
    if previous is not None:
        yield edge, previous[1], previous[2]
