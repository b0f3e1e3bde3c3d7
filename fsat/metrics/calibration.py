"""Calibration: how often guesses of a given score are right.

Conventions: `scores` is float (n_clips,), of each clip's best guess, in [0, 1]; `right` is bool (n_clips,), the guess
is the label. Bins are of equal width, and a score on an edge belongs to the bin below it (Guo et al. 2017, "On
calibration of modern neural networks", section 2). `fsat.metrics.scaling` calibrates scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsat.metrics.multilabel import label_columns
from fsat.metrics.row_blocks import Scores

BINS = 15  # as in Guo et al.


@dataclass(frozen=True)
class Reliability:
    """Accuracy by score.

    Attributes:
        low, high: float64 (n_bins,), each bin's edges.
        clips: int64 (n_bins,).
        mean_score: float64 (n_bins,), of the bin's clips; NaN for an empty bin.
        accuracy: float64 (n_bins,), share of the bin's guesses that are right; NaN for an empty bin.
    """

    low: np.ndarray
    high: np.ndarray
    clips: np.ndarray
    mean_score: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_error(self) -> float:
        """Expected calibration error, in [0, 1]; NaN for no clips.

        The sum over bins of clips / all clips * |accuracy - mean score| (Guo et al. 2017, equation 3).
        """
        if not self.clips.any():
            return float("nan")
        gaps = np.nan_to_num(np.abs(self.accuracy - self.mean_score))
        return float((self.clips * gaps).sum() / self.clips.sum())


def reliability(scores: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Return the accuracy by score, in `bins` bins; raises ValueError if the shapes differ."""
    scores, right = np.asarray(scores, dtype=np.float64), np.asarray(right)
    if scores.shape != right.shape or scores.ndim != 1:
        raise ValueError(f"scores have shape {scores.shape} and right {right.shape}, expected (n_clips,) of both")
    edges = np.linspace(0, 1, bins + 1)
    bin_of_clip = np.searchsorted(edges[1:-1], scores, side="left")
    clips = np.bincount(bin_of_clip, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        mean_score = np.bincount(bin_of_clip, scores, bins) / clips
        accuracy = np.bincount(bin_of_clip, right, bins) / clips
    return Reliability(edges[:-1], edges[1:], clips, mean_score, accuracy)


def label_reliability(scores: Scores, targets: np.ndarray, bins: int = BINS) -> tuple[Reliability, np.ndarray]:
    """Return how often clips have a label, by its score: of all pairs of a clip and a class, and each class's error.

    `scores` is float (n_clips, n_classes) of a classifier that scores each class by itself, `targets` bool of the same
    shape. The first result counts pairs, where the other counts clips; the second is `expected_error` of each class,
    float64 (n_classes,). Scores that are NaN are left out.
    """
    columns = ((column, hits, column > -np.inf) for column, hits in label_columns(scores, targets))
    classes = [reliability(column[known], hits[known], bins) for column, hits, known in columns]
    pairs, clips = reliability(np.empty(0), np.empty(0, dtype=bool), bins), np.array([part.clips for part in classes])
    total = clips.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        mean_score, accuracy = (
            np.sum(clips * np.nan_to_num([getattr(part, name) for part in classes]), axis=0) / total
            for name in ("mean_score", "accuracy")
        )
    errors = np.array([part.expected_error for part in classes])
    return Reliability(pairs.low, pairs.high, total, mean_score, accuracy), errors
