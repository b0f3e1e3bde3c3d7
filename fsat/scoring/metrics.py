"""mAP@3, accuracy and per-class average precision.

Conventions: `scores` is float (n_clips, n_classes), higher is more likely; `targets` is int (n_clips,), the one true
class of each clip. Ties are broken by class order, so equal scores always rank alike.
"""

from __future__ import annotations

import numpy as np

TOP_K = 3
"""Labels a clip, as in the challenge."""


def top_k(scores: np.ndarray, k: int = TOP_K) -> np.ndarray:
    """Classes with the highest scores, best first.

    Args:
        scores: (n_clips, n_classes).
        k: how many; all classes if there are fewer.

    Returns:
        int (n_clips, min(k, n_classes)).
    """
    return np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :k]


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


def map_at_k(scores: np.ndarray, targets: np.ndarray, k: int = TOP_K) -> float:
    """Mean average precision of the `k` best guesses, in [0, 1]; NaN for no clips.

    >>> map_at_k(np.array([[0.1, 0.7, 0.2]]), np.array([2]))
    0.5
    """
    if len(targets) == 0:
        return float("nan")
    return float(average_precision_at_k(top_k(scores, k), targets).mean())


def accuracy(scores: np.ndarray, targets: np.ndarray) -> float:
    """Share of clips whose best guess is right, in [0, 1]; NaN for no clips."""
    if len(targets) == 0:
        return float("nan")
    return float((top_k(scores, 1)[:, 0] == np.asarray(targets)).mean())


def log_loss(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean categorical cross-entropy in nats; probabilities are clipped at 1e-7 as in Keras."""
    if len(targets) == 0:
        return float("nan")
    chosen = np.asarray(scores, dtype=np.float64)[np.arange(len(targets)), targets]
    return float(-np.log(np.clip(chosen, 1e-7, 1.0)).mean())


def class_average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision of each class as a ranking of all clips.

    The mean of the precision at the rank of every clip of the class (Manning, Raghavan and Schütze 2008, section 8.4).

    Returns:
        float64 (n_classes,), in [0, 1]; NaN for a class without clips.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    result = np.full(scores.shape[1], np.nan)
    for j in range(scores.shape[1]):
        relevant = targets == j
        if relevant.any():
            hits = relevant[np.argsort(-scores[:, j], kind="stable")]
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            result[j] = precision[hits].mean()
    return result


def confusion(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Counts int64 (n_classes, n_classes): row is the label, column the best guess."""
    n_classes = np.asarray(scores).shape[1]
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(targets), top_k(scores, 1)[:, 0]), 1)
    return counts
