"""Placeholder of the scaling of scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsat.metrics.task_scores import log_loss


@dataclass(frozen=True)
class Scaling:
    """A change of blended scores."""

    kind: str = "none"

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """Return the scaled scores."""
        return scores

    def to_dict(self) -> dict[str, Any]:
        """Return the facts."""
        return {"kind": self.kind}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Scaling:
        """Return the scaling of facts."""
        return cls(facts["kind"])


UNSCALED = Scaling()


@dataclass(frozen=True)
class Quality:
    """Calibration error and log loss."""

    ece: float
    log_loss: float


@dataclass(frozen=True)
class Calibrated:
    """Result of `calibrate`."""

    scaling: Scaling
    scores: np.ndarray
    before: Quality
    after: Quality


def calibrate(scores: np.ndarray, targets: np.ndarray, fold: np.ndarray, sigmoid: bool) -> Calibrated:
    """Return no scaling."""
    quality = Quality(0.0, log_loss(scores, targets, sigmoid))
    return Calibrated(UNSCALED, scores, quality, quality)
