"""Targets and weights of the training clips.

A label is *trusted* if it was verified by hand, or accepted or set by `verify`; it is weighted by its certainty. All
others have the weight ``unverified_weight`` and the configured loss (`fsat.models.losses`). Where a clip has one label,
and the outputs of the model sum to 1, trust and certainty are those of the clip; else each class of a clip has its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsat.config import Config
from fsat.models.losses import is_linear
from fsat.training.augment import Draws


@dataclass(frozen=True)
class Targets:
    """Target classes and weights of the training clips.

    Attributes:
        classes: int (n,), target classes, -1 for a clip without one; or bool (n, n_classes), which classes it has.
        trusted: bool (n,), or (n, n_classes) for classes of that shape.
        n_classes: number of classes.
        certainty: float32, in [0, 1], of the same shape, weights of trusted labels; None for 1.
    """

    classes: np.ndarray
    trusted: np.ndarray
    n_classes: int
    certainty: np.ndarray | None = None

    @property
    def by_class(self) -> bool:
        """Whether each class of a clip has a target and a weight of its own."""
        return self.classes.ndim == 2

    def for_sigmoid(self) -> Targets:
        """Return the same with a target for each class."""
        if self.by_class:
            return self
        known, shape = self.classes >= 0, (len(self.classes), self.n_classes)
        classes = np.zeros(shape, dtype=bool)
        classes[known, self.classes[known]] = True
        certainty = np.where(known, 1 if self.certainty is None else self.certainty, 0)
        trusted, weights = (np.broadcast_to(each[:, np.newaxis], shape) for each in (self.trusted | ~known, certainty))
        return Targets(classes, trusted, self.n_classes, weights.astype(np.float32))

    def weights(self, config: Config, epoch: int) -> np.ndarray:
        """Return the weight of each clip, or of each of its classes, in the loss of an epoch: float32, as `trusted`.

        Clips of weight 0 are not trained on.
        """
        certainty = 1 if self.certainty is None else self.certainty
        weights = np.where(self.trusted, certainty, config.unverified_weight_at(epoch))
        if self.by_class:
            if config.class_weights == "balanced":
                weights = np.where(self.classes, weights * self._positive_weights(weights > 0), weights)
            return weights.astype(np.float32)
        weights = np.where(self.classes < 0, 0, weights)
        if config.class_weights == "balanced":
            weights = weights * self._class_weights(weights > 0)
        return weights.astype(np.float32)

    def clips(self, config: Config, epoch: int) -> np.ndarray:
        """Return which clips an epoch trains on, int, ascending."""
        weights = self.weights(config, epoch)
        return np.flatnonzero(weights.any(axis=1) if self.by_class else weights)

    def _class_weights(self, counted: np.ndarray) -> np.ndarray:
        """Return the weight of each clip's class, inverse to its number of `counted` clips, whose mean is 1."""
        counts = np.bincount(self.classes[counted], minlength=self.n_classes)
        weights = counted.sum() / np.maximum(1, np.count_nonzero(counts) * counts)
        return np.asarray(weights[self.classes])

    def _positive_weights(self, counted: np.ndarray) -> np.ndarray:
        """Return the weight of a clip that has a class, inverse to their number; its mean over labels is 1."""
        counts = (self.classes & counted).sum(axis=0)
        return np.asarray(counts.sum() / np.maximum(1, np.count_nonzero(counts) * counts))


def encode_targets(targets: Targets, weights: np.ndarray, draws: Draws, batch: slice, config: Config) -> np.ndarray:
    """Encode the targets of a batch of the epoch: one-hot rows times weight, mixed and smoothed.

    They are float32 (batch, n_classes), or (batch, 3, n_classes) unless `fsat.models.losses.is_linear`. Targets of each
    class are (batch, 3, 2, n_classes): weights of its presence and of its absence, see `fsat.models.losses`.
    """
    if targets.by_class:
        return _encode_by_class(targets, weights, draws, batch, config)
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


def _encode_by_class(targets: Targets, weights: np.ndarray, draws: Draws, batch: slice, config: Config) -> np.ndarray:
    clips = draws.order[batch]
    present, trusted, weight = targets.classes[clips], targets.trusted[clips], weights[clips]
    if config.is_multi and draws.partners is not None:
        present, trusted, weight = _union(present, trusted, weight, draws.partners[batch])
    signed = np.stack([present, ~present], axis=1) * weight[:, np.newaxis]  # batch, 2, classes
    parts = [(signed, trusted)]
    if not config.is_multi and draws.shares is not None and draws.partners is not None:
        share, partner = draws.shares[batch, np.newaxis, np.newaxis], draws.partners[batch]
        parts = [(share * signed, trusted), ((1 - share) * signed[partner], trusted[partner])]
    result = np.zeros((len(clips), 3, 2, targets.n_classes), dtype=np.float32)
    for i, (part, is_trusted) in enumerate(parts):
        result[:, 0] += part * is_trusted[:, np.newaxis]
        result[:, 1 + i] = part * ~is_trusted[:, np.newaxis]
    if config.loss == "ce" and not config.drop_losses:  # linear, so one row is enough
        result[:, 0] += result[:, 1] + result[:, 2]
        result[:, 1:] = 0
    half = config.label_smoothing / 2
    result[:, 0] = (1 - 2 * half) * result[:, 0] + half * result[:, 0].sum(axis=1, keepdims=True)
    return result


def _union(
    present: np.ndarray, trusted: np.ndarray, weight: np.ndarray, partners: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labels of clips and their partners together, bool, whether they are trusted, and their weights.

    A label that one of both has is trusted and weighted as there; that both lack it, as where it is less certain.
    """
    others = present[partners], trusted[partners], weight[partners]
    of_own, of_other = present * weight, others[0] * others[2]
    together, is_own = present | others[0], of_own >= of_other
    both_trusted, least = trusted & others[1], np.minimum(weight, others[2])
    return (
        together,
        np.where(together, np.where(is_own, trusted, others[1]), both_trusted),
        np.where(together, np.maximum(of_own, of_other), least),
    )
