"""Targets and weights of the training clips.

A clip is *trusted* if its label was verified by hand, or accepted or set by `verify`; it is weighted by the certainty
of its label. All other clips have the weight ``unverified_weight`` and the configured loss (`fsat.models.losses`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsat.config import Config
from fsat.models.losses import is_linear
from fsat.training.augment import Draws


@dataclass(frozen=True)
class Targets:
    """Target class and weight of each training clip.

    Attributes:
        classes: int (n,), target classes; -1 for a clip without one.
        trusted: bool (n,).
        n_classes: number of classes.
        certainty: float32 (n,), in [0, 1], weights of trusted clips; None for 1.
    """

    classes: np.ndarray
    trusted: np.ndarray
    n_classes: int
    certainty: np.ndarray | None = None

    def weights(self, config: Config, epoch: int) -> np.ndarray:
        """Return each clip's weight in the loss of an epoch, float32 (n,); clips of weight 0 are not trained on."""
        certainty = 1 if self.certainty is None else self.certainty
        weights = np.where(self.trusted, certainty, config.unverified_weight_at(epoch))
        weights = np.where(self.classes < 0, 0, weights)
        if config.class_weights == "balanced":
            weights = weights * self._class_weights(weights > 0)
        return weights.astype(np.float32)

    def _class_weights(self, counted: np.ndarray) -> np.ndarray:
        """Return the weight of each clip's class, inverse to its number of `counted` clips, whose mean is 1."""
        counts = np.bincount(self.classes[counted], minlength=self.n_classes)
        weights = counted.sum() / np.maximum(1, np.count_nonzero(counts) * counts)
        return np.asarray(weights[self.classes])


def encode_targets(targets: Targets, weights: np.ndarray, draws: Draws, batch: slice, config: Config) -> np.ndarray:
    """Encode the targets of a batch of the epoch: one-hot rows times weight, mixed and smoothed.

    They are float32 (batch, n_classes), or (batch, 3, n_classes) unless `fsat.models.losses.is_linear`.
    """
    clips = draws.order[batch]
    rows = np.eye(targets.n_classes, dtype=np.float32)[targets.classes[clips]] * weights[clips, np.newaxis]
    trusted = targets.trusted[clips]
    parts = [(rows, trusted)]
    if draws.shares is not None and draws.partners is not None:
        share, partner = draws.shares[batch, np.newaxis], draws.partners[batch]
        parts = [(share * rows, trusted), ((1 - share) * rows[partner], trusted[partner])]
    if is_linear(config):
        total = np.sum([part for part, _ in parts], axis=0)
        return _smooth(total, config) if config.label_smoothing else total
    result = np.zeros((len(clips), 3, targets.n_classes), dtype=np.float32)
    for i, (part, is_trusted) in enumerate(parts):
        result[is_trusted, 0] += part[is_trusted]
        result[~is_trusted, 1 + i] = part[~is_trusted]
    result[:, 0] = _smooth(result[:, 0], config)
    return result


def _smooth(rows: np.ndarray, config: Config) -> np.ndarray:
    """Distribute `label_smoothing` of each row's sum evenly over the classes."""
    uniform = config.label_smoothing / rows.shape[1]
    return np.asarray((1 - config.label_smoothing) * rows + uniform * rows.sum(axis=1, keepdims=True))
