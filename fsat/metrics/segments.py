"""From the scores of a recording's windows to tags over time.

Conventions: windows come in order of time, each with its start and end in seconds. Where they overlap, a window speaks
for the time that is nearest to its middle. Its tags are its `top_k` best labels that score at least `min_score`.
Windows with the same tag that follow each other make one segment; its score is their mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fsat.metrics.ranking import top_k as best_of

Window = tuple[float, float, np.ndarray]
"""Start and end in seconds, and float (n_classes,)."""


class Segment(NamedTuple):
    """A tag and when it holds, in seconds."""

    start: float
    end: float
    label: str
    score: float


def segments(
    windows: Iterable[Window], labels: Sequence[str], top_k: int = 1, min_score: float = 0.0
) -> Iterator[Segment]:
    """Merge the tags of consecutive windows.

    Args:
        windows: may overlap.
        labels: label order.
        top_k: tags of a window at most, at least 1.
        min_score: the least score of a tag.

    Yields:
        segments, each when it has ended: by end, then by start, then by label order.
    """
    going: dict[int, tuple[float, float, float, int]] = {}  # start, end, sum of scores, windows

    def ended(indices: Iterable[int]) -> Iterator[Segment]:
        for j in sorted(indices, key=lambda j: (going[j][0], j)):
            start, end, total, count = going.pop(j)
            yield Segment(start, end, labels[j], total / count)

    for start, end, row in side_by_side(windows):
        tags = [j for j in best_of(row[np.newaxis], top_k)[0].tolist() if row[j] >= min_score]
        yield from ended(set(going) - set(tags))
        for j in tags:
            first, _, total, count = going.get(j, (start, end, 0.0, 0))
            going[j] = (first, end, total + float(row[j]), count + 1)
    yield from ended(list(going))


def side_by_side(windows: Iterable[Window]) -> Iterator[Window]:
    """The same windows without overlap: each ends halfway between its middle and the next one's."""
    before: Window | None = None
    for window in windows:
        if before is None:
            edge = window[0]
        else:
            start, edge = edge, (before[0] + before[1] + window[0] + window[1]) / 4
            yield start, edge, before[2]
        before = window
    if before is not None:
        yield edge, before[1], before[2]
