"""mAP@3, accuracy, per-class average precision, and best guesses.

Conventions: `scores` is float (n_clips, n_classes), higher is more likely; `targets` is int (n_clips,), the one true
class of each clip. Ties are broken by class order, so equal scores always rank alike; NaN ranks last. Scores may be a
memory map: they are read in blocks of rows (`fsat.metrics.row_blocks`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsat.metrics.row_blocks import Scores, as_rows, iter_blocks, map_blocks, release

TOP_K = 3  # labels per clip, as in the challenge
PASSES = 8  # up to this many best classes are found one by one; for more, rows are sorted
COLUMNS = 4  # classes whose scores are copied out of the rows in one pass


def top_k(scores: Scores, k: int = TOP_K, out: np.ndarray | None = None) -> np.ndarray:
    """Return the `k` classes with the highest scores, best first: `out`, or a new int (n_clips, min(k, n_classes))."""
    scores = as_rows(scores)
    n_clips, n_classes = scores.shape
    result = np.empty((n_clips, min(k, n_classes)), dtype=np.intp) if out is None else out

    def work(rows: slice, block: np.ndarray) -> None:
        result[rows] = _best_of_rows(block, result.shape[1])
        release(result[rows])

    map_blocks(scores, work)
    return result


def _best_of_rows(scores: np.ndarray, k: int) -> np.ndarray:
    """`top_k` of one block. For small `k`, taking the maximum `k` times is faster than sorting."""
    if not 0 < k <= PASSES or scores.dtype.kind != "f":
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]
    left, rows = np.array(scores, order="C"), np.arange(len(scores))
    best = np.empty((len(scores), k), dtype=np.intp)
    unsure = np.zeros(len(scores), dtype=bool)
    for i in range(k):
        best[:, i] = left.argmax(axis=1)  # the first of equals; NaN counts as the greatest
        unsure |= ~(left[rows, best[:, i]] > -np.inf)
        left[rows, best[:, i]] = -np.inf
    if unsure.any():  # NaN, or -inf, which looks like a class that was taken
        best[unsure] = np.argsort(-scores[unsure], axis=1, kind="stable")[:, :k]
    return best


@dataclass(frozen=True)
class Guesses:
    """Class with the highest score, int32 (n_clips,), its score, and the label's, float32 (n_clips,)."""

    guess: np.ndarray
    p_guess: np.ndarray
    p_label: np.ndarray


def best_guesses(scores: Scores, targets: np.ndarray) -> Guesses:
    """Return the best guess of each clip, its score, and the score of the label."""
    n_clips = len(targets)
    result = Guesses(np.empty(n_clips, np.int32), np.empty(n_clips, np.float32), np.empty(n_clips, np.float32))

    def work(rows: slice, block: np.ndarray) -> None:
        clips, guess = np.arange(len(block)), top_k(block, 1)[:, 0]
        result.guess[rows] = guess
        result.p_guess[rows] = block[clips, guess]
        result.p_label[rows] = block[clips, targets[rows]]

    map_blocks(as_rows(scores), work)
    return result


def average_precision_at_k(ranking: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the average precision of each clip's ranked guesses, float64 (n_clips,), in [0, 1].

    With one true label per clip it is 1 / (rank of the first right guess), 0 if no guess is right. This is the measure
    of the Freesound general-purpose audio tagging challenge (Fonseca et al., DCASE 2018, section 4). `ranking` is int
    (n_clips, k), best guesses first.
    """
    hits = np.asarray(ranking) == np.asarray(targets)[:, np.newaxis]
    return np.where(hits.any(axis=1), 1.0 / (1.0 + hits.argmax(axis=1)), 0.0)


def label_ranks(scores: Scores, targets: np.ndarray, k: int = TOP_K) -> np.ndarray:
    """Return the rank of each clip's true label, from 0 for the best guess; `k` for one outside the `k` best guesses.

    The type is uint8 (n_clips,), or wider if `k` needs it.
    """
    scores, targets = _pair(scores, targets)
    ranks = np.empty(len(targets), dtype=np.min_scalar_type(k))

    def work(rows: slice, block: np.ndarray) -> None:
        hits = top_k(block, k) == targets[rows, np.newaxis]
        ranks[rows] = np.where(hits.any(axis=1), hits.argmax(axis=1), k)

    map_blocks(scores, work)
    return ranks


def map_of_ranks(ranks: np.ndarray, k: int = TOP_K) -> float:
    """Return the mean average precision, in [0, 1], of ranks from `label_ranks` with the same `k`; NaN for no clips."""
    if len(ranks) == 0:
        return float("nan")
    points = np.append(1.0 / (1.0 + np.arange(k)), 0.0)
    return float(points[ranks].mean())


def map_at_k(scores: Scores, targets: np.ndarray, k: int = TOP_K) -> float:
    """Return the mean average precision of the `k` best guesses, in [0, 1]; NaN for no clips.

    >>> map_at_k(np.array([[0.1, 0.7, 0.2]]), np.array([2]))
    0.5
    """
    return map_of_ranks(label_ranks(scores, targets, k), k)


def accuracy(scores: Scores, targets: np.ndarray) -> float:
    """Return the share of clips whose best guess is right, in [0, 1]; NaN for no clips."""
    if len(targets) == 0:
        return float("nan")
    return float((label_ranks(scores, targets, 1) == 0).mean())


def log_loss(scores: Scores, targets: np.ndarray) -> float:
    """Return the mean categorical cross-entropy in nats; probabilities are clipped at 1e-7 as in Keras."""
    if len(targets) == 0:
        return float("nan")
    scores, targets = _pair(scores, targets)
    p_label = np.empty(len(targets))
    for rows, block in iter_blocks(scores):
        p_label[rows] = block[np.arange(len(block)), targets[rows]]
    return float(-np.log(np.clip(p_label, 1e-7, 1.0)).mean())


def class_average_precision(scores: Scores, targets: np.ndarray) -> np.ndarray:
    """Return the average precision of each class, float64 (n_classes,), in [0, 1]; NaN for a class without clips.

    The mean of the precision at the rank of every clip of the class (Manning, Raghavan and Schütze 2008, section 8.4).
    """
    scores, targets = _pair(scores, targets)
    n_classes = scores.shape[1]
    result = np.full(n_classes, np.nan)
    for first in range(0, n_classes, COLUMNS):
        for j, column in enumerate(_columns(scores, first, min(first + COLUMNS, n_classes)), first):
            ranks = np.flatnonzero(targets[np.argsort(-column, kind="stable")] == j) + 1
            if len(ranks):
                result[j] = (np.arange(1, len(ranks) + 1) / ranks).mean()
    return result


def confusion(scores: Scores, targets: np.ndarray) -> np.ndarray:
    """Return the confusion matrix, int64 (n_classes, n_classes): row is the label, column the best guess."""
    scores, targets = _pair(scores, targets)
    n_classes = scores.shape[1]
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    for rows, block in iter_blocks(scores):
        np.add.at(counts, (targets[rows], top_k(block, 1)[:, 0]), 1)
    return counts


def _pair(scores: Scores, targets: np.ndarray) -> tuple[Scores, np.ndarray]:
    """Return scores and targets as arrays of the same length."""
    scores, targets = as_rows(scores), np.asarray(targets)
    if targets.shape != scores.shape[:1]:
        raise ValueError(f"targets have shape {targets.shape}, expected {scores.shape[:1]} as the scores have rows")
    return scores, targets


def _columns(scores: Scores, first: int, last: int) -> np.ndarray:
    """Return columns of the scores, (last - first, n_clips), each contiguous."""
    columns = np.empty((last - first, scores.shape[0]), dtype=scores.dtype)
    for rows, block in iter_blocks(scores):
        columns[:, rows] = block[:, first:last].T
    return columns
