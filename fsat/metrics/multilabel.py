"""Metrics of clips with any number of labels: lwlrap, average precision, AUC, and F1 at thresholds.

Conventions: `scores` is float (n_clips, n_classes), higher is more likely; `targets` is bool (n_clips, n_classes), and
a row may be all False. A label is given to a clip where the score is at least the threshold. Equal scores count alike,
so that no result depends on the order of classes or clips; NaN ranks last. A mean over classes (``macro``) is over
those with clips. Scores may be a memory map: they are read in blocks of rows (`fsat.metrics.row_blocks`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from fsat.metrics import row_blocks
from fsat.metrics.detection_curves import curve
from fsat.metrics.row_blocks import Scores, as_rows, iter_blocks, map_blocks

COLUMNS = 4  # classes whose scores are copied out of the rows in one pass
EPSILON = 1e-7  # scores are clipped at it in a log loss, as in Keras
FEWEST_CLIPS = 5  # a class with fewer clips has the threshold of all classes together
MOST_PAIRS = 2_000_000  # scores that this threshold is fitted on at most, those of evenly spaced clips


def lwlrap(scores: Scores, targets: np.ndarray) -> float:
    """Return the label-weighted label-ranking average precision, in [0, 1]; NaN if no clip has a label.

    The mean over all labels of all clips of the precision at the label: of the classes that score at least as much in
    that clip, the share that are labels of the clip. Clips without labels do not count. This is the measure of
    FSDKaggle2019 (Fonseca et al., "Audio tagging with noisy labels and minimal supervision", DCASE 2019, section 4).
    Equal scores are counted as by scikit-learn's `label_ranking_average_precision_score`, which is the same quantity
    with the number of labels as sample weight; the published code orders them by class.
    """
    precision, n_labels = clip_precision(scores, targets)
    total = n_labels.sum()
    return float(precision.sum() / total) if total else math.nan


def class_lwlrap(scores: Scores, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean precision at the labels of each class, and the share of the labels that are of the class.

    Both are float64 (n_classes,), NaN and 0 for a class without clips; the sum of their products is `lwlrap`.
    """
    scores, targets = matching(scores, targets)
    sums, counts = np.zeros(scores.shape[1]), targets.sum(axis=0)
    for rows, block in iter_blocks(scores):
        for _, classes, precision in _label_precision(block, targets[rows]):
            sums += np.bincount(classes, precision, len(sums))
    return divide(sums, counts), counts / max(1, counts.sum())


def clip_precision(scores: Scores, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the precision at each label of a clip, float64 (n_clips,), and the number of its labels."""
    scores, targets = matching(scores, targets)
    result = np.zeros(len(targets))

    def work(rows: slice, block: np.ndarray) -> None:
        for clips, _, precision in _label_precision(block, targets[rows]):
            result[rows] += np.bincount(clips, precision, len(block))

    map_blocks(scores, work)
    return result, targets.sum(axis=1)


def _label_precision(scores: np.ndarray, targets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the clips, the classes and the precision of the labels of a block, some at a time."""
    scores, (clips, classes) = nan_last(scores), np.nonzero(targets)
    step = max(1, row_blocks.CHUNK_ELEMENTS // max(1, scores.shape[1]))
    for first in range(0, len(clips), step):
        some, own = clips[first : first + step], classes[first : first + step]
        above = scores[some] >= scores[some, own][:, np.newaxis]
        yield some, own, (above & targets[some]).sum(axis=1) / above.sum(axis=1)


def class_average_precision(scores: Scores, targets: np.ndarray) -> np.ndarray:
    """Return the average precision of each class, float64 (n_classes,), in [0, 1]; NaN for a class without clips.

    The mean over the clips of the class of the precision among all clips that score at least as much, as scikit-learn's
    `average_precision_score`. `fsat.metrics.ranking` orders equal scores by clip instead.
    """
    return np.array(
        [_average_precision(column[hits], column[~hits]) for column, hits in label_columns(scores, targets)]
    )


def macro_map(scores: Scores, targets: np.ndarray) -> float:
    """Return the mean of the classes' average precision; NaN if no class has a clip."""
    return mean(class_average_precision(scores, targets))


def micro_map(scores: Scores, targets: np.ndarray) -> float:
    """Return the average precision of all pairs of a clip and a class together; NaN if no clip has a label."""
    scores, targets = matching(scores, targets)
    hits = np.concatenate([nan_last(block)[targets[rows]] for rows, block in iter_blocks(scores)] or [np.empty(0)])
    levels, n_hits = np.unique(hits, return_counts=True)
    misses = np.zeros(len(levels) + 1, dtype=np.int64)
    for rows, block in iter_blocks(scores):
        below = np.searchsorted(levels, nan_last(block)[~targets[rows]], side="right")
        misses += np.bincount(below, minlength=len(misses))
    return _precision_of_levels(n_hits, misses[1:])


def _average_precision(hits: np.ndarray, misses: np.ndarray) -> float:
    levels, n_hits = np.unique(hits, return_counts=True)
    below = np.searchsorted(levels, misses, side="right")
    return _precision_of_levels(n_hits, np.bincount(below, minlength=len(levels) + 1)[1:])


def _precision_of_levels(hits: np.ndarray, misses: np.ndarray) -> float:
    """Return the average precision of hits and misses counted by level: from each score of a hit to the next higher."""
    right, wrong = np.cumsum(hits[::-1]), np.cumsum(misses[::-1])
    return float((hits[::-1] * right / (right + wrong)).sum() / hits.sum()) if len(hits) else math.nan


def class_auc(scores: Scores, targets: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each class, float64 (n_classes,), in [0, 1]; see `auroc`."""
    return np.array([auroc(column[hits], column[~hits]) for column, hits in label_columns(scores, targets)])


def auroc(higher: np.ndarray, lower: np.ndarray) -> float:
    """Return the probability that one of `higher`, (n,), is above one of `lower`, (m,); equal ones count half.

    That is the area under the ROC curve (Hanley and McNeil 1982). NaN if there are none of either; NaN ranks last.
    """
    if not len(higher) or not len(lower):
        return math.nan
    higher, ordered = nan_last(np.asarray(higher)), np.sort(nan_last(np.asarray(lower)))
    below = np.searchsorted(ordered, higher, side="left").sum() + np.searchsorted(ordered, higher, side="right").sum()
    return float(below / (2 * len(higher) * len(ordered)))


def d_prime(auc: float) -> float:
    """Return the distance between two normal distributions of unit variance that have this area under the ROC curve.

    It is sqrt(2) times the inverse of the normal distribution (Gemmeke et al., "Audio Set", ICASSP 2017; Hershey et
    al. 2017): infinite for 0 and 1, NaN for NaN.

    >>> d_prime(0.5)
    0.0
    """
    if not 0 < auc < 1:
        return math.nan if math.isnan(auc) else math.copysign(math.inf, auc - 0.5)
    return math.sqrt(2) * NormalDist().inv_cdf(auc)


@dataclass(frozen=True)
class LabelCounts:
    """Labels given at thresholds, by class: numbers of clips, each int64 (n_classes,).

    Attributes:
        clips: clips that have the label.
        given: clips that the label is given to.
        right: clips that have the label and are given it.
    """

    clips: np.ndarray
    given: np.ndarray
    right: np.ndarray

    @property
    def precision(self) -> np.ndarray:
        """Share of the given labels that are right, float64 (n_classes,); NaN where none is given."""
        return divide(self.right, self.given)

    @property
    def recall(self) -> np.ndarray:
        """Share of the clips' labels that are given, float64 (n_classes,); NaN for classes without clips."""
        return divide(self.right, self.clips)

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of both, float64 (n_classes,); NaN for a class that is neither a label nor given."""
        return divide(2 * self.right, self.clips + self.given)

    def macro(self) -> dict[str, float]:
        """Return the mean of `f1`, `precision` and `recall` over the classes with clips; NaN for no classes.

        The precision of a class that is never given does not count.
        """
        labelled = self.clips > 0
        return {name: mean(getattr(self, name)[labelled]) for name in ("f1", "precision", "recall")}

    def micro(self) -> dict[str, float]:
        """Return `f1`, `precision` and `recall` of the labels of all classes together; NaN where undefined."""
        total = LabelCounts(*(np.array([part.sum()]) for part in (self.clips, self.given, self.right)))
        return {name: float(getattr(total, name)[0]) for name in ("f1", "precision", "recall")}


def f1_at(scores: Scores, targets: np.ndarray, thresholds: np.ndarray, fold: np.ndarray | None = None) -> LabelCounts:
    """Return what is right at the thresholds: one of each class, (n_classes,).

    With `fold`, int (n_clips,), thresholds are (n_folds, n_classes), and row f is that of the clips of fold f.
    """
    scores, targets = matching(scores, targets)
    shape = targets.shape[1:]
    thresholds = np.asarray(thresholds)
    if thresholds.shape[-1:] != shape or thresholds.ndim != (1 if fold is None else 2):
        expected = shape if fold is None else ("n_folds", *shape)
        raise ValueError(f"thresholds have shape {thresholds.shape}, expected {expected}")
    given, right = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for rows, block in iter_blocks(scores):
        labels: np.ndarray = block >= (thresholds if fold is None else thresholds[fold[rows]])
        given += labels.sum(axis=0)
        right += (labels & targets[rows]).sum(axis=0)
    return LabelCounts(targets.sum(axis=0), given, right)


def fit_thresholds(scores: Scores, targets: np.ndarray) -> np.ndarray:
    """Return the threshold of each class with the highest F1, float64 (n_classes,); see `Curve.best`.

    It is halfway to the next lower score of the class, and has the precision of float32. A class with fewer than
    `FEWEST_CLIPS` clips has the one threshold that is best for all classes together, on at most `MOST_PAIRS` scores of
    evenly spaced clips; 0.5 if no clip has a label. Scores that are NaN are left out.
    """
    scores, targets = matching(scores, targets)
    return np.asarray(_fit(scores, targets, np.ones((1, len(targets)), dtype=bool))[0])


def cross_fit_thresholds(scores: Scores, targets: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return thresholds for each fold, fitted without its clips: float64 (n_folds, n_classes).

    `fold` is int (n_clips,), -1 for clips without a fold, on which none are fitted. With one fold, all are 0.5.
    """
    scores, targets = matching(scores, targets)
    n_folds = int(np.max(fold, initial=-1)) + 1
    return _fit(scores, targets, np.array([(fold != f) & (fold >= 0) for f in range(n_folds)], dtype=bool))


def _fit(scores: Scores, targets: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the thresholds on the clips of each mask, float64 (n_masks, n_classes)."""
    result = np.full((len(masks), targets.shape[1]), np.nan)
    step = max(1, -(-targets.size // MOST_PAIRS))
    pooled = np.empty_like(targets[::step].T, dtype=scores.dtype)
    for j, (column, hits) in enumerate(label_columns(scores, targets)):
        pooled[j] = column[::step]
        for row, mask in zip(result, masks & (column > -np.inf), strict=True):
            if hits[mask].sum() >= FEWEST_CLIPS:
                row[j] = curve(column[mask], hits[mask]).best().threshold
    for row, mask in zip(result, masks[:, ::step], strict=True):
        if np.isnan(row).any():
            known = mask & (pooled > -np.inf)
            hits = targets[::step].T[known]
            row[np.isnan(row)] = curve(pooled[known], hits).best().threshold if hits.any() else 0.5
    return result


def log_loss(scores: Scores, targets: np.ndarray) -> float:
    """Return the mean binary cross-entropy in nats; scores are clipped at 1e-7 and 1 - 1e-7 as in Keras."""
    scores, targets = matching(scores, targets)
    total = 0.0
    for rows, block in iter_blocks(scores):
        right = np.where(targets[rows], block, 1 - block.astype(np.float64))
        total -= float(np.log(np.clip(right, EPSILON, 1 - EPSILON)).sum())
    return total / targets.size if targets.size else math.nan


def label_prior(targets: np.ndarray) -> np.ndarray:
    """Return the share of clips that have each label: float32 (n_classes,), in [0, 1]."""
    return np.asarray(targets.mean(axis=0), dtype=np.float32)


def one_hot(targets: np.ndarray, n_classes: int) -> np.ndarray:
    """Return targets, int (n_clips,), one class each, or of this shape already, as bool (n_clips, n_classes)."""
    return targets if targets.ndim == 2 else np.asarray(targets[:, np.newaxis] == np.arange(n_classes))


def matching(scores: Scores, targets: np.ndarray) -> tuple[Scores, np.ndarray]:
    """Return scores and targets as arrays of the same shape."""
    scores, targets = as_rows(scores), np.asarray(targets)
    if targets.shape != scores.shape or targets.ndim != 2 or targets.dtype != bool:
        expected = f"bool {scores.shape} as the scores" if len(scores.shape) == 2 else "bool (n_clips, n_classes)"
        raise ValueError(f"targets are {targets.dtype} {targets.shape}, expected {expected}")
    return scores, targets


def label_columns(scores: Scores, targets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the scores of each class, with NaN as the lowest, and which clips have its label."""
    scores, targets = matching(scores, targets)
    n_classes = scores.shape[1]
    for first in range(0, n_classes, COLUMNS):
        last = min(first + COLUMNS, n_classes)
        columns = np.empty((last - first, scores.shape[0]), dtype=scores.dtype)
        for rows, block in iter_blocks(scores):
            columns[:, rows] = block[:, first:last].T
        for j, column in enumerate(columns, first):
            yield nan_last(column), np.ascontiguousarray(targets[:, j])


def nan_last(scores: np.ndarray) -> np.ndarray:
    """Return the scores with -inf for NaN."""
    return np.where(np.isnan(scores), -np.inf, scores)


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the ratio; NaN for 0 / 0."""
    with np.errstate(invalid="ignore"):
        ratio: np.ndarray = np.true_divide(numerator, denominator)
    return ratio


def mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan
