"""Precision and recall of a class by threshold, from its scores over time, as ``sed_scores_eval`` 0.0.4 defines them.

Each segment of a recording has the highest score of the windows that it overlaps, and is positive if it overlaps an
annotation. A threshold calls the segments positive that score at least as much.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fsat.metrics.sound_events import RESOLUTION

DECIMALS = 6
"""Of times in seconds, to which those of segments and windows are rounded."""


class Point(NamedTuple):
    """A threshold, with F1, precision and recall there."""

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Curve:
    """Precision and recall of a class by threshold.

    Attributes:
        thresholds: the distinct scores, float32 (n,), descending.
        precision, recall: of each threshold, float64 (n,); NaN recall if nothing is annotated.
        n_segments, n_positive: number of segments, and of those with an annotation.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    n_segments: int
    n_positive: int

    @property
    def f1(self) -> np.ndarray:
        """F1 of each threshold, float64 (n,)."""
        f1: np.ndarray = 2 * self.precision * self.recall / np.maximum(self.precision + self.recall, 1e-15)
        return f1

    @property
    def average_precision(self) -> float:
        """Sum of the precision at each recall times the step to it; NaN if nothing is annotated."""
        if not self.n_positive:
            return math.nan
        step = np.diff(self.recall, prepend=0.0)
        return float(np.sum(self.precision * step))  # where recall repeats, the first precision is the highest

    def best(self) -> Point:
        """Return the point of the highest F1, and of equal ones that of the highest threshold.

        The threshold is halfway to the next lower score, so that small changes of scores change nothing; 0 for the
        lowest score. Raises `ValueError` if nothing is annotated.
        """
        if not self.n_positive:
            raise ValueError("a class that is not annotated has no best threshold")
        i = int(np.argmax(self.f1))
        return Point(self._lowered(i), float(self.f1[i]), float(self.precision[i]), float(self.recall[i]))

    def _lowered(self, i: int) -> float:
        """Return a threshold between the score at `i` and the next lower one, which float32 can tell from both."""
        if i + 1 == len(self.thresholds):
            return 0.0
        score, below = float(self.thresholds[i]), float(self.thresholds[i + 1])
        middle = float(np.float32((score + below) / 2))
        return middle if middle > below else score


def curve(scores: np.ndarray, positive: np.ndarray) -> Curve:
    """Return the curve of a class from the scores of segments, (n,), and whether each is positive, bool (n,)."""
    thresholds, first = np.unique(-np.asarray(scores, np.float32), return_inverse=True)
    n_at = np.bincount(first, minlength=len(thresholds))
    right_at = np.bincount(first, weights=positive, minlength=len(thresholds))
    right, detected, n_positive = np.cumsum(right_at), np.cumsum(n_at), int(np.sum(positive))
    recall = right / n_positive if n_positive else np.full(len(thresholds), np.nan)
    return Curve(-thresholds, right / np.maximum(detected, 1), recall, len(scores), n_positive)


def segment_scores(
    edges: Sequence[float] | np.ndarray, scores: np.ndarray, seconds: float, resolution: float = RESOLUTION
) -> np.ndarray:
    """Return the scores of the segments of a recording, float32 (n_segments, n_classes).

    Args:
        edges: of the windows, ascending and without overlap, (n + 1,), in seconds.
        scores: of the windows, (n, n_classes); NaN, for silence, counts as 0.
        seconds: length of the recording.
        resolution: length of a segment, in seconds.
    """
    starts, ends = segment_edges(seconds, resolution)
    at = np.round(np.asarray(edges, np.float64), DECIMALS)
    scores = np.nan_to_num(np.asarray(scores, np.float32), nan=0.0)
    first = np.maximum(np.searchsorted(at, starts, "right") - 1, 0)
    last = np.minimum(np.searchsorted(at, ends, "left"), len(at) - 1)
    rows = np.zeros((len(starts), scores.shape[1]), np.float32)
    for row, i, j in zip(rows, first.tolist(), last.tolist(), strict=True):
        if j > i:
            np.max(scores[i:j], axis=0, out=row)
    return rows


def positive_segments(events: Iterable[tuple[float, float]], seconds: float, resolution: float) -> np.ndarray:
    """Return which segments overlap the events, given as start and end in seconds; bool (n_segments,)."""
    starts, ends = segment_edges(seconds, resolution)
    positive = np.zeros(len(starts), bool)
    for start, end in events:
        positive[np.searchsorted(ends, start, "right") : np.searchsorted(starts, end)] = True
    return positive


def segment_edges(seconds: float, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts and the ends of the segments of a recording, float64 (n_segments,), in seconds."""
    edges = np.round(np.arange(math.ceil(seconds / resolution) + 1) * resolution, DECIMALS)
    return edges[:-1], edges[1:]
