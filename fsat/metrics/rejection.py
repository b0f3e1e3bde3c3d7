"""Reject sounds of no class: the score that the best guess of a clip needs, and how well that works.

`fsat.metrics.multilabel.auroc` of the best scores of known and unknown clips tells how well they can be told apart.
"""

from __future__ import annotations

import math

import numpy as np

LOST = 0.05  # share of known clips that may be rejected


def fit_rejection(best_scores: np.ndarray, right: np.ndarray, lost: float = LOST) -> float:
    """Return the threshold below which at most the share `lost` of the best scores lie.

    It is at the highest score that allows it, or halfway from there to the next lower one. This holds for all clips,
    and for those whose best guess is right. A clip is rejected if its best score is below the threshold.

    Args:
        best_scores: of known clips, float (n_clips,); NaN, without a prediction, does not count.
        right: bool (n_clips,), the best guess is a label of the clip.
        lost: at least 0, below 1; else ValueError.
    """
    if not 0 <= lost < 1:
        raise ValueError(f"lost is {lost:g}, expected a share from 0, below 1")
    scores, right = np.asarray(best_scores), np.asarray(right, dtype=bool)
    if scores.shape != right.shape or scores.ndim != 1:
        raise ValueError(f"best_scores have shape {scores.shape} and right {right.shape}, expected (n_clips,) of both")
    known = ~np.isnan(scores)
    parts = [part for part in (scores[known], scores[known & right]) if len(part)]
    return min((_threshold(np.sort(part), lost) for part in parts), default=0.0)


def _threshold(scores: np.ndarray, lost: float) -> float:
    """Return the threshold for scores in ascending order."""
    most = int(lost * len(scores) + 1e-9)
    while most and most / len(scores) > lost:
        most -= 1
    score = float(scores[most])
    below = scores[: np.searchsorted(scores, scores[most])]
    if not len(below):
        return score
    middle = float(np.float32((score + float(below[-1])) / 2))
    return middle if below[-1] < middle <= score else score


def false_alarms_per_hour(n_alarms: int, seconds: float) -> float:
    """Return the number of labels given to sounds of no class in an hour of them; NaN for no sounds."""
    return n_alarms / seconds * 3600 if seconds > 0 else math.nan
