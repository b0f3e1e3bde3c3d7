"""How much each study of a weighted blend counts, fitted on out-of-fold predictions.

Conventions: weights are float64 (n_studies,), none below 0, their sum 1. They minimise the log loss of the studies'
weighted geometric mean, scaled so that rows sum to 1. That loss is convex in the weights: it is a mean of logarithms of
sums of exponentials of linear functions (Boyd and Vandenberghe 2004, section 3.1.5).

Weights are fitted to the clips that they are fitted on, so a blend is not to be scored on those: `cross_fit` gives each
fold weights that were fitted on the other folds' clips alone, as in the stacking of Wolpert (1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsat.metrics.blending import TINY, OutOfFold
from fsat.metrics.row_blocks import Rows, ranges, release

FEWEST_VERIFIED = 50
"""Weights are fitted on verified clips alone if every fit has so many of them or more."""

MOST_CLIPS = 50_000
"""Clips that weights are fitted on, so that memory does not grow with the clips; of more, evenly spaced ones."""

DIGITS = 4
"""Decimals that are kept of a weight: one of less than 0.00005 is 0."""


@dataclass(frozen=True)
class Weights:
    """Weights of studies.

    Attributes:
        final: float64 (n_studies,), fitted on the clips of all folds.
        by_fold: float64 (n_folds, n_studies), row f fitted without the clips of fold f.
    """

    final: np.ndarray
    by_fold: np.ndarray


def cross_fit(studies: Sequence[OutOfFold], targets: np.ndarray, verified: np.ndarray, covered: np.ndarray) -> Weights:
    """Fit the weights of studies on all clips, and for each fold of the first study on the clips of its other folds.

    Where no fold but one has clips, there is nothing to fit on that is not scored as well: all weights are equal.
    Verified clips alone are fitted on if each of these fits has `FEWEST_VERIFIED` of them, else all clips.

    Args:
        studies: each study's out-of-fold predictions; the first study's owners are the folds.
        targets: int (n_clips,).
        verified: bool (n_clips,), someone has verified the label.
        covered: bool (n_clips,), the clip has a prediction of every study.
    """
    folds = studies[0].owner
    n_folds = int(folds.max(initial=-1)) + 1
    equal = np.full(len(studies), 1 / len(studies))
    if len(studies) == 1 or len(np.unique(folds[covered])) < 2:
        return Weights(equal, np.tile(equal, (n_folds, 1)))

    others = [covered & (folds != fold) for fold in range(n_folds)]
    if all((where & verified).sum() >= FEWEST_VERIFIED for where in others):
        others, covered = [where & verified for where in others], covered & verified
    by_fold = [fit_weights(studies, targets, clips_to_fit(where)) for where in others]
    return Weights(fit_weights(studies, targets, clips_to_fit(covered)), np.array(by_fold))


def clips_to_fit(where: np.ndarray) -> np.ndarray:
    """Which clips weights are fitted on, out of those that may be used.

    Args:
        where: bool (n_clips,), the clip may be used.

    Returns:
        int (n,), ascending: all of them; of more than `MOST_CLIPS`, so many that are evenly spaced.
    """
    clips = np.flatnonzero(where)
    if len(clips) > MOST_CLIPS:
        clips = clips[np.arange(MOST_CLIPS) * len(clips) // MOST_CLIPS]
    return clips


def fit_weights(studies: Sequence[np.ndarray | Rows], targets: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """The weights with the least log loss on some clips, rounded to `DIGITS`.

    Args:
        studies: each study's predictions (n_clips, n_classes), rows NaN or summing to 1.
        targets: int (n_clips,).
        clips: int (n,), ascending, with a prediction of every study; at least one.

    Returns:
        float64 (n_studies,). Of studies that predict the same, equal weights.
    """
    from scipy.optimize import LinearConstraint, minimize

    n_studies = len(studies)
    logs = _log_ratios(studies, targets, clips)
    found = minimize(
        _loss_and_slope,
        np.full(n_studies, 1 / n_studies),
        args=(logs,),
        method="SLSQP",
        jac=True,
        bounds=[(0, 1)] * n_studies,
        constraints=LinearConstraint(np.ones(n_studies), 1, 1),
        options={"ftol": 1e-10, "maxiter": 200},
    )
    weights = np.round(np.clip(found.x, 0, 1), DIGITS)
    return weights / weights.sum()


def _log_ratios(studies: Sequence[np.ndarray | Rows], targets: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """log(p / p of the label) of each study and clip: float32 (n_studies, n, n_classes)."""
    n_clips, n_classes = studies[0].shape
    logs = np.empty((len(studies), len(clips), n_classes), dtype=np.float32)
    for start, stop in ranges(n_clips, n_classes):
        first, last = np.searchsorted(clips, (start, stop))
        some = clips[first:last]
        for s, study in enumerate(studies if len(some) else ()):
            rows = study[start:stop]
            part = np.log(np.maximum(rows[some - start], TINY, dtype=np.float64))
            release(rows)
            logs[s, first:last] = part - part[np.arange(len(some)), targets[some], None]
    return logs


def _loss_and_slope(weights: np.ndarray, logs: np.ndarray) -> tuple[float, np.ndarray]:
    """Log loss in nats of the blend with these weights, and its gradient (n_studies,)."""
    n_studies, n_clips, n_classes = logs.shape
    loss, slope = np.empty(n_clips), np.empty((n_clips, n_studies))
    for start, stop in ranges(n_clips, n_classes):
        part = logs[:, start:stop]
        exponents = sum(weight * study for weight, study in zip(weights, part, strict=True))
        greatest = exponents.max(axis=1, keepdims=True)
        shares = np.exp(exponents - greatest)
        total = shares.sum(axis=1, keepdims=True)
        shares /= total
        loss[start:stop] = (greatest + np.log(total))[:, 0]
        for s, study in enumerate(part):
            slope[start:stop, s] = (shares * study).sum(axis=1)
    return float(loss.mean()), slope.mean(axis=0)
