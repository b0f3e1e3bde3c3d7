"""Intervals of the metrics of `fsat.metrics.multilabel`, by resampling clips."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fsat.metrics.multilabel import clip_precision, divide, label_columns, matching
from fsat.metrics.row_blocks import Scores

RESAMPLES, FEWEST_RESAMPLES = 1000, 200
RESAMPLED = 500_000_000  # clips * classes * resamples, above which there are fewer resamples
MOST_CLIPS = 50_000


@dataclass(frozen=True)
class Intervals:
    """Intervals of 95 %, low and high: of lwlrap and macro mAP, and of each class's average precision.

    Attributes:
        classes: float64 (n_classes, 2), NaN for classes without clips.
    """

    lwlrap: tuple[float, float]
    macro_map: tuple[float, float]
    classes: np.ndarray


def bootstrap_intervals(
    scores: Scores, targets: np.ndarray, n: int = RESAMPLES, seed: int = 0, groups: np.ndarray | None = None
) -> Intervals:
    """Return the 2.5th and 97.5th percentiles of the scores of `n` resamples of the clips (Efron 1979).

    A resample draws as many clips, with replacement, as there are; with `groups`, int (n_clips,), as many whole groups,
    because clips of a recording are alike. A class does not count in a resample without its clips, and the intervals of
    classes with few clips are too narrow.

    So that time and memory are bounded, there are fewer resamples, `FEWEST_RESAMPLES` at least, where clips * classes *
    `n` is more than `RESAMPLED`; and of more than `MOST_CLIPS` clips, that many evenly spaced ones are used, which
    makes the intervals wider than they have to be. The same arguments give the same intervals.
    """
    scores, targets = matching(scores, targets)
    n_all, n_classes = targets.shape
    chosen = np.arange(min(n_all, MOST_CLIPS)) * n_all // max(1, min(n_all, MOST_CLIPS))
    if not targets[chosen].any():
        return Intervals((math.nan, math.nan), (math.nan, math.nan), np.full((n_classes, 2), np.nan))
    n = max(min(n, FEWEST_RESAMPLES), min(n, RESAMPLED // (len(chosen) * n_classes)))
    group = np.arange(len(chosen)) if groups is None else np.unique(np.asarray(groups)[chosen], return_inverse=True)[1]
    n_groups, rng = int(group.max()) + 1, np.random.default_rng(seed)
    draws = np.empty((n, n_groups), dtype=np.float32)
    for row in draws:
        row[:] = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
    weights = np.ascontiguousarray(draws.T)[group]  # how often each clip was drawn: whole numbers, exact in float32

    precision, n_labels = (part[chosen] for part in clip_precision(scores, targets))
    totals = np.zeros((2, n))
    for weight, numerator, denominator in zip(weights, precision, n_labels, strict=True):
        totals += np.multiply.outer((numerator, denominator), weight)
    ap = np.full((n_classes, n), np.nan, dtype=np.float32)
    for j, (column, hits) in enumerate(label_columns(scores, targets)):
        if hits[chosen].any():
            ap[j] = _resampled_precision(column[chosen], hits[chosen], weights)
    known = ~np.isnan(ap)
    means = divide(np.where(known, ap, 0).sum(axis=0, dtype=np.float64), known.sum(axis=0))
    classes = np.array([_interval(row) for row in ap])
    return Intervals(_interval(divide(*totals)), _interval(means), classes)


def _resampled_precision(column: np.ndarray, hits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of a class in each resample, float32 (n,); NaN for those without its clips."""
    levels = np.unique(column[hits])
    level = np.searchsorted(levels, column, side="right")  # 0 for clips below all those of the class
    order = np.argsort(-level, kind="stable")
    order = order[level[order] > 0]
    starts = np.searchsorted(-level[order], -np.arange(len(levels), 0, -1))
    drawn = np.cumsum(np.add.reduceat(weights[order], starts, axis=0), axis=0)
    own = np.flatnonzero(hits)
    own = own[np.argsort(-level[own], kind="stable")]
    starts = np.searchsorted(-level[own], -np.arange(len(levels), 0, -1))
    step = np.add.reduceat(weights[own], starts, axis=0)
    right = np.cumsum(step, axis=0)
    return divide((step * right / np.maximum(drawn, 1)).sum(axis=0), right[-1])


def _interval(values: np.ndarray) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (math.nan, math.nan)
    return float(low), float(high)
