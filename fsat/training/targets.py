"""What the model is told about each clip, and with what weight, as the targets of a batch.

A verified clip, or one whose label `verify` has accepted or set, is *trusted*, and counts by how sure that is; the
others count by ``unverified_weight``, and by the configured loss (`fsat.models.losses`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsat.config import Config
from fsat.models.losses import is_linear
from fsat.training.augment import Draws


@dataclass(frozen=True)
class Lessons:
    """What is taught about the training clips.

    Attributes:
        classes: int (n,), the class that each clip is taught as; -1 for one that is left out.
        trusted: bool (n,), the class was checked.
        n_classes: how many classes there are.
        certainty: float32 (n,), in [0, 1], how sure the class is where it is trusted; None where that is 1.
    """

    classes: np.ndarray
    trusted: np.ndarray
    n_classes: int
    certainty: np.ndarray | None = None

    def weights(self, config: Config, epoch: int) -> np.ndarray:
        """Of each clip in the loss, float32 (n,); 0 for one that takes no part in the epoch."""
        certainty = 1 if self.certainty is None else self.certainty
        weights = np.where(self.trusted, certainty, config.unverified_weight_at(epoch))
        return np.where(self.classes < 0, 0, weights).astype(np.float32)


def targets_of(lessons: Lessons, weights: np.ndarray, draws: Draws, some: slice, config: Config) -> np.ndarray:
    """The targets of a batch.

    Args:
        lessons: about all training clips.
        weights: float32, of all training clips in this epoch.
        draws: the epoch.
        some: the batch's places in it.
        config: gives loss and label smoothing.

    Returns:
        float32 (batch, n_classes), or (batch, 3, n_classes) where the loss is not linear.
    """
    rows = draws.order[some]
    own = np.eye(lessons.n_classes, dtype=np.float32)[lessons.classes[rows]] * weights[rows, np.newaxis]
    parts = [(own, lessons.trusted[rows])]
    if draws.shares is not None:
        share, partner = draws.shares[some, np.newaxis], draws.partners[some]
        parts = [(share * own, parts[0][1]), ((1 - share) * own[partner], parts[0][1][partner])]
    smooth, level = 1 - config.label_smoothing, config.label_smoothing / lessons.n_classes
    if is_linear(config):
        total = sum(part for part, _ in parts)
        return smooth * total + level * total.sum(axis=1, keepdims=True) if config.label_smoothing else total
    result = np.zeros((len(rows), 3, lessons.n_classes), dtype=np.float32)
    for i, (part, trusted) in enumerate(parts):
        result[trusted, 0] += part[trusted]
        result[~trusted, 1 + i] = part[~trusted]
    result[:, 0] = smooth * result[:, 0] + level * result[:, 0].sum(axis=1, keepdims=True)
    return result
