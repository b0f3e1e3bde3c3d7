"""Blend predictions whose classes each have a probability of their own, and fit the weights of such a blend.

Conventions are those of `fsat.metrics.blending`, but rows do not sum to 1. The geometric mean is that of the odds, so
its logit is the mean of the members' logits: the logarithmic opinion pool of Genest and Zidek (1986) for the presence
and the absence of each class. Weights minimise the binary cross-entropy of the weighted mean, which is convex in them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsat.metrics.blending import Blended, minimise
from fsat.metrics.multilabel import EPSILON, one_hot
from fsat.metrics.row_blocks import Ranges, Scores, iter_blocks, release


def logits(scores: np.ndarray, lowest: float = EPSILON, highest: float = 1 - EPSILON) -> np.ndarray:
    """Return log(p / (1 - p)) of probabilities that are clipped to a range, float64 of the same shape."""
    clipped = np.clip(scores, lowest, highest, dtype=np.float64)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def expit(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)), of the same shape; NaN stays NaN."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.exp(-np.logaddexp(0, -values)))


class BlendedSigmoids(Blended):
    """`Rows` of a blend of studies with a probability for each class, computed when they are sliced; as `Blended`."""

    def _block(self, start: int, stop: int, scratch: tuple[np.ndarray, ...]) -> np.ndarray:
        total, result = scratch[0][: stop - start], scratch[3][: stop - start]
        total.fill(0)
        for s, study in enumerate(self._studies):
            divisor = self._divisors[..., s] if self._fold is None else self._divisors[self._fold[start:stop], s, None]
            for member in study:
                rows = member[start:stop]
                total += (logits(rows) if self._in_logs else np.asarray(rows, dtype=np.float64)) / divisor
                release(rows)
        result[:] = expit(total) if self._in_logs else total
        return result


def fit_weights(studies: Sequence[Scores], targets: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Return the weights with the least binary cross-entropy on `clips`, rounded to `DIGITS`: float64 (n_studies,).

    Args:
        studies: each study's predictions (n_clips, n_classes); equal ones get equal weights.
        targets: bool (n_clips, n_classes), which classes a clip has; or int (n_clips,), its class.
        clips: int (n,), ascending, with a prediction of every study; at least one.
    """
    values = _logits_of(studies, clips)
    return minimise(_loss_and_gradient, len(studies), values, one_hot(targets[clips], values.shape[2]))


def _logits_of(studies: Sequence[Scores], clips: np.ndarray) -> np.ndarray:
    """Return the logits of some clips by each study: float32 (n_studies, n, n_classes)."""
    n_clips, n_classes = studies[0].shape
    result = np.empty((len(studies), len(clips), n_classes), dtype=np.float32)
    for start, stop in Ranges(n_clips, n_classes):
        first, last = np.searchsorted(clips, (start, stop))
        for s, study in enumerate(studies if last > first else ()):
            rows = study[start:stop]
            result[s, first:last] = logits(rows[clips[first:last] - start])
            release(rows)
    return result


def _loss_and_gradient(weights: np.ndarray, values: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean binary cross-entropy in nats of the blend with these weights, and its gradient (n_studies,)."""
    n_studies, n_clips, n_classes = values.shape
    loss, gradient = np.empty(n_clips), np.empty((n_clips, n_studies))
    for rows, _ in iter_blocks(values[0]):
        part, present = values[:, rows].astype(np.float64), labels[rows]
        blend = np.tensordot(weights, part, axes=1)
        loss[rows] = (np.logaddexp(0, blend) - present * blend).sum(axis=1)
        errors = expit(blend) - present
        gradient[rows] = (errors * part).sum(axis=2).T
    return float(loss.mean()) / n_classes, gradient.mean(axis=0) / n_classes
