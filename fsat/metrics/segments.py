"""Merge the scores of a recording's windows into tags over time.

Conventions: windows come in order of time, each with its start and end in seconds. Where windows overlap, each counts
for the time that is nearest to its middle. The tags of a window are its `top_k` best labels that score at least
`min_score`. Consecutive windows with the same tag make one segment; its score is their mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fsat.metrics.ranking import top_k as best_classes

Window = tuple[float, float, np.ndarray]
"""Start and end in seconds, and float (n_classes,)."""


class Segment(NamedTuple):
    """A tag with its start and end in seconds."""

    start: float
    end: float
    label: str
    score: float


def segments(
    windows: Iterable[Window], labels: Sequence[str], top_k: int = 1, min_score: float = 0.0
) -> Iterator[Segment]:
    """Merge the tags of consecutive windows, which may overlap.

    Yields:
        segments, each when it has ended: by end, then by start, then by label order.
    """
    open_tags: dict[int, tuple[float, float, float, int]] = {}  # start, end, sum of scores, windows

    def close(classes: Iterable[int]) -> Iterator[Segment]:
        for j in sorted(classes, key=lambda j: (open_tags[j][0], j)):
            start, end, total, count = open_tags.pop(j)
            yield Segment(start, end, labels[j], total / count)

    for start, end, row in without_overlap(windows):
        tags = [j for j in best_classes(row[np.newaxis], top_k)[0].tolist() if row[j] >= min_score]
        yield from close(set(open_tags) - set(tags))
        for j in tags:
            first, _, total, count = open_tags.get(j, (start, end, 0.0, 0))
            open_tags[j] = (first, end, total + float(row[j]), count + 1)
    yield from close(list(open_tags))


def without_overlap(windows: Iterable[Window]) -> Iterator[Window]:
    """Yield the windows cut to the time that each counts for: it ends halfway between its middle and the next one's."""
    previous: Window | None = None
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
