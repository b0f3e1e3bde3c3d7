"""Long recordings: cut into windows at bounded memory, and the scores of windows merged into tags over time.

Conventions: windows start every `hop` seconds and are `window` seconds long; the last ends with the recording. Times
are in seconds from the start of the recording. Where windows overlap, each counts for the time that is nearest to its
middle. The tags of a window are its `top_k` best labels that score at least `min_score`; consecutive windows with the
same tag make one segment, whose score is their mean.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
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


Minimum = float | np.ndarray
"""The minimum score of a tag: of all classes, or of each, float32 (n_classes,)."""

ScoredWindow = tuple[float, float, np.ndarray]
"""Start and end in seconds, and float (n_classes,), which is NaN for a silent window."""

BLOCK_WINDOWS = 1024
"""Windows whose tags are decided on together."""


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

    Those that end together come by start, then by label order. Memory does not grow with the number of windows.
    """
    minimum, open_tags = minima(min_score, len(labels)), _OpenTags(labels)
    shares = without_overlap(windows)
    while block := list(islice(shares, BLOCK_WINDOWS)):
        starts, ends = [start for start, _, _ in block], [end for _, end, _ in block]
        scores = np.stack([row for _, _, row in block])
        yield from open_tags.add(starts, ends, scores, tags_of(scores, top_k, minimum))
    yield from open_tags.close()


def tags_of(scores: np.ndarray, top_k: int, minimum: np.ndarray) -> np.ndarray:
    """Return which classes are tags of windows, bool (n, n_classes); none is one of a silent window.

    They are the `top_k` best of each row of `scores` that are at least `minimum`.
    """
    tags = scores >= minimum
    if top_k < scores.shape[1]:
        best = np.zeros(scores.shape, bool)
        np.put_along_axis(best, best_classes(scores, top_k), True, axis=1)
        tags &= best
    tags[np.isnan(scores[:, 0])] = False
    return tags


class _OpenTags:
    """The tags that have not ended, with what is known of them; column 0 of arrays is silence, then come the classes.

    Attributes:
        active: which tags the last window has, bool (1 + n_classes,).
        starts, totals, counts: of the tags: start in seconds, sum of scores, and number of windows.
        end: of the last window, in seconds.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        n_columns = 1 + len(labels)
        self.labels, self.end, self.active = labels, 0.0, np.zeros(n_columns, bool)
        self.starts, self.totals, self.counts = [0.0] * n_columns, [0.0] * n_columns, [0] * n_columns

    def add(
        self, starts: Sequence[float], ends: Sequence[float], scores: np.ndarray, tags: np.ndarray
    ) -> Iterator[Segment]:
        """Take further windows, float (n, n_classes), and their tags; yield those that end before one of them."""
        active = np.column_stack([np.isnan(scores[:, 0]), tags])
        changes = active != np.vstack([self.active, active[:-1]])
        columns = np.ascontiguousarray(scores.T, np.float64)
        first = dict.fromkeys(np.flatnonzero(self.active).tolist(), 0)
        for i, group in groupby(zip(*(part.tolist() for part in np.nonzero(changes)), strict=True), itemgetter(0)):
            changed = [j for _, j in group]
            ended = [j for j in changed if j in first]
            for j in ended:
                self._count(j, columns, first.pop(j), i)
            yield from self._segments(ended, ends[i - 1] if i else self.end)
            for j in changed:
                if active[i, j]:
                    first[j], self.starts[j], self.totals[j], self.counts[j] = i, starts[i], 0.0, 0
        for j, i in first.items():
            self._count(j, columns, i, len(scores))
        self.end, self.active = ends[-1], active[-1]

    def close(self) -> Iterator[Segment]:
        """Yield the tags of the last window."""
        yield from self._segments(np.flatnonzero(self.active).tolist(), self.end)

    def _count(self, j: int, columns: np.ndarray, first: int, last: int) -> None:
        """Add the scores of windows to a tag, one after the other."""
        self.counts[j] += last - first
        if j:
            self.totals[j] = float(np.add.accumulate([self.totals[j], *columns[j - 1, first:last].tolist()])[-1])

    def _segments(self, ended: Sequence[int], end: float) -> Iterator[Segment]:
        for j in sorted(ended, key=lambda j: (self.starts[j], j)):
            label, score = (self.labels[j - 1], self.totals[j] / self.counts[j]) if j else ("", None)
            yield Segment(self.starts[j], end, label, score)


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
