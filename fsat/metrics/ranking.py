"""mAP@3, accuracy and per-class average precision.

Conventions: `scores` is float (n_clips, n_classes), higher is more likely; `targets` is int (n_clips,), the one true
class of each clip. Ties are broken by class order, so equal scores always rank alike; NaN ranks last. Scores may be a
memory map: they are gone through a few rows at a time (`fsat.metrics.row_blocks`), and a few numbers a clip are kept.
"""

from __future__ import annotations

import numpy as np

from fsat.metrics.row_blocks import Ranges, Rows, as_rows, in_threads, ranges, release

TOP_K = 3
"""Labels a clip, as in the challenge."""

PASSES = 8
"""Up to so many best classes are found one by one; for more, rows are sorted."""

COLUMNS = 4
"""Classes whose scores are taken out of the rows in one pass."""


def top_k(scores: np.ndarray | Rows, k: int = TOP_K, out: np.ndarray | None = None) -> np.ndarray:
    """Classes with the highest scores, best first.

    Args:
        scores: (n_clips, n_classes).
        k: how many; all classes if there are fewer.
        out: int (n_clips, min(k, n_classes)) to write the result to, perhaps a memory map; by default a new array.

    Returns:
        int (n_clips, min(k, n_classes)).
    """
    scores = as_rows(scores)
    n_clips, n_classes = scores.shape
    if out is None:
        out = np.empty((n_clips, len(range(n_classes)[:k])), dtype=np.intp)

    def work(todo: Ranges) -> None:
        for start, stop in todo:
            part = scores[start:stop]
            out[start:stop] = _best_of_rows(part, out.shape[1])
            release(part)
            release(out[start:stop])

    in_threads(n_clips, n_classes, work)
    return out


def _best_of_rows(scores: np.ndarray, k: int) -> np.ndarray:
    """`top_k` of one chunk. Taking the maximum `k` times is a few times faster than sorting, for small `k`."""
    if not 0 < k <= PASSES or scores.dtype.kind != "f":
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]
    left, rows = np.array(scores, order="C"), np.arange(len(scores))
    best = np.empty((len(scores), k), dtype=np.intp)
    odd = np.zeros(len(scores), dtype=bool)
    for i in range(k):
        best[:, i] = left.argmax(axis=1)  # the first of equals; NaN counts as the greatest
        odd |= ~(left[rows, best[:, i]] > -np.inf)
        left[rows, best[:, i]] = -np.inf
    if odd.any():  # NaN, or -inf, which looks like a class that was taken
        best[odd] = np.argsort(-scores[odd], axis=1, kind="stable")[:, :k]
    return best


def average_precision_at_k(ranking: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision of each clip's ranked guesses.

    With one true label a clip it is 1 / (rank of the first right guess), 0 if there is none. This is the measure of
    the Freesound general-purpose audio tagging challenge (Fonseca et al., DCASE 2018, section 4).

    Args:
        ranking: int (n_clips, k), guesses best first.
        targets: int (n_clips,).

    Returns:
        float64 (n_clips,), each in [0, 1].
    """
    ranking, targets = np.asarray(ranking), np.asarray(targets)
    hits = ranking == targets[:, np.newaxis]
    return np.where(hits.any(axis=1), 1.0 / (1.0 + hits.argmax(axis=1)), 0.0)


def label_places(scores: np.ndarray | Rows, targets: np.ndarray, k: int = TOP_K) -> np.ndarray:
    """Where each clip's true label stands among its `k` best guesses.

    Args:
        scores: (n_clips, n_classes).
        targets: int (n_clips,).
        k: how many guesses are looked at.

    Returns:
        uint8 (n_clips,), or wider if `k` needs it: 0 for the best guess, `k` for a label that is not among them.

    Raises:
        ValueError: there are not as many targets as rows of scores.
    """
    scores, targets = _pair(scores, targets)
    places = np.empty(len(targets), dtype=np.min_scalar_type(k))

    def work(todo: Ranges) -> None:
        for start, stop in todo:
            part = scores[start:stop]
            hits = top_k(part, k) == targets[start:stop, np.newaxis]
            places[start:stop] = np.where(hits.any(axis=1), hits.argmax(axis=1), k)
            release(part)

    in_threads(*scores.shape, work)
    return places


def map_of_places(places: np.ndarray, k: int = TOP_K) -> float:
    """Mean average precision, in [0, 1], from what `label_places` gave with the same `k`; NaN for no clips."""
    if len(places) == 0:
        return float("nan")
    points = np.append(1.0 / (1.0 + np.arange(k)), 0.0)
    return float(points[places].mean())


def map_at_k(scores: np.ndarray | Rows, targets: np.ndarray, k: int = TOP_K) -> float:
    """Mean average precision of the `k` best guesses, in [0, 1]; NaN for no clips.

    >>> map_at_k(np.array([[0.1, 0.7, 0.2]]), np.array([2]))
    0.5
    """
    return map_of_places(label_places(scores, targets, k), k)


def accuracy(scores: np.ndarray | Rows, targets: np.ndarray) -> float:
    """Share of clips whose best guess is right, in [0, 1]; NaN for no clips."""
    if len(targets) == 0:
        return float("nan")
    return float((label_places(scores, targets, 1) == 0).mean())


def log_loss(scores: np.ndarray | Rows, targets: np.ndarray) -> float:
    """Mean categorical cross-entropy in nats; probabilities are clipped at 1e-7 as in Keras."""
    if len(targets) == 0:
        return float("nan")
    scores, targets = _pair(scores, targets)
    chosen = np.empty(len(targets))
    for start, stop in ranges(*scores.shape):
        part = scores[start:stop]
        chosen[start:stop] = part[np.arange(stop - start), targets[start:stop]]
        release(part)
    return float(-np.log(np.clip(chosen, 1e-7, 1.0)).mean())


def class_average_precision(scores: np.ndarray | Rows, targets: np.ndarray) -> np.ndarray:
    """Average precision of each class as a ranking of all clips.

    The mean of the precision at the rank of every clip of the class (Manning, Raghavan and Schütze 2008, section 8.4).

    Returns:
        float64 (n_classes,), in [0, 1]; NaN for a class without clips.
    """
    scores, targets = _pair(scores, targets)
    n_classes = scores.shape[1]
    result = np.full(n_classes, np.nan)
    for first in range(0, n_classes, COLUMNS):
        columns = _columns(scores, first, min(first + COLUMNS, n_classes))
        for j, column in enumerate(columns, first):
            relevant = targets == j
            if relevant.any():
                hits = relevant[np.argsort(-column, kind="stable")]
                places = np.flatnonzero(hits) + 1
                result[j] = (np.arange(1, len(places) + 1) / places).mean()
    return result


def confusion(scores: np.ndarray | Rows, targets: np.ndarray) -> np.ndarray:
    """Counts int64 (n_classes, n_classes): row is the label, column the best guess."""
    scores, targets = _pair(scores, targets)
    n_classes = scores.shape[1]
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    for start, stop in ranges(*scores.shape):
        part = scores[start:stop]
        np.add.at(counts, (targets[start:stop], top_k(part, 1)[:, 0]), 1)
        release(part)
    return counts


def _pair(scores: np.ndarray | Rows, targets: np.ndarray) -> tuple[np.ndarray | Rows, np.ndarray]:
    """Scores and targets as arrays of the same length."""
    scores, targets = as_rows(scores), np.asarray(targets)
    if targets.shape != scores.shape[:1]:
        raise ValueError(f"targets have shape {targets.shape}, expected {scores.shape[:1]} as the scores have rows")
    return scores, targets


def _columns(scores: np.ndarray | Rows, first: int, last: int) -> np.ndarray:
    """Some columns of the scores, (last - first, n_clips), each contiguous."""
    columns = np.empty((last - first, scores.shape[0]), dtype=scores.dtype)
    for start, stop in ranges(*scores.shape):
        part = scores[start:stop]
        columns[:, start:stop] = part[:, first:last].T
        release(part)
    return columns
