"""The scores of a task: mAP@3 and accuracy where a clip has one label, lwlrap and mAP where it has any number.

Conventions: `targets` are int (n_clips,), the class of each clip, or bool (n_clips, n_classes), which classes it has.
Scores whose rows sum to 1 come from a softmax, others from a sigmoid for each class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from fsat.metrics import blending, multilabel, ranking
from fsat.metrics.row_blocks import Scores

SCORE_NAMES = {"single": ("map3", "acc"), "multi": ("lwlrap", "map")}
"""Names of the scores of each task; the first one decides."""

COLUMN_NAMES = {"map3": "map3", "acc": "accuracy", "lwlrap": "lwlrap", "map": "map"}
"""Their names as columns of a table."""

SCORE_WORDS = {"map3": "mAP@3", "acc": "accuracy", "lwlrap": "lwlrap", "map": "mAP"}
"""Their names in words."""


def score_names_of(columns: Iterable[str]) -> tuple[str, str]:
    """Return the names of the scores of the task whose columns a table has."""
    columns = set(columns)
    return next(names for names in SCORE_NAMES.values() if names[0] in columns)


def task_of(targets: np.ndarray) -> str:
    """Return ``single`` or ``multi``, by the shape of the targets."""
    return "multi" if targets.ndim == 2 else "single"


def task_scores(scores: Scores, targets: np.ndarray) -> dict[str, float]:
    """Return the scores of the task by name, without those that are undefined for these clips."""
    if task_of(targets) == "multi":
        values = {"lwlrap": multilabel.lwlrap(scores, targets), "map": multilabel.macro_map(scores, targets)}
    else:
        values = {"map3": ranking.map_at_k(scores, targets), "acc": ranking.accuracy(scores, targets)}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def log_loss(scores: Scores, targets: np.ndarray, sigmoid: bool) -> float:
    """Return the mean cross-entropy in nats: categorical, or binary if the scores are of sigmoids."""
    if not sigmoid:
        return ranking.log_loss(scores, targets)
    return multilabel.log_loss(scores, multilabel.one_hot(targets, scores.shape[1]))


def label_prior(targets: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the share of the clips that have each class: float32 (n_classes,)."""
    return multilabel.label_prior(targets) if targets.ndim == 2 else blending.label_prior(targets, n_classes)
