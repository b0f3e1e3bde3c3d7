"""How surely a label is wrong, by what models say that have not trained on the clip.

Conventions: `scores` is float (n_clips, n_classes), out-of-fold predictions, rows sum to 1; `targets` is int
(n_clips,), the labels as they are given. Scores are gone through a few rows at a time; a few numbers a clip are kept.
"""

from __future__ import annotations

import numpy as np

from fsat.scoring.rows import Ranges, Rows, as_rows, in_threads, release


def doubts(scores: np.ndarray | Rows, targets: np.ndarray) -> np.ndarray:
    """How surely each clip's label is wrong.

    The normalised margin of Northcutt, Jiang and Chuang (2021, "Confident learning"), turned round: the probability of
    the likeliest other class less that of the label, mapped from [-1, 1] to [0, 1]. It is 0.5 where both are as likely.

    Args:
        scores: (n_clips, n_classes).
        targets: int (n_clips,).

    Returns:
        float64 (n_clips,), in [0, 1], higher where the label is more surely wrong; NaN for rows with NaN.
    """
    scores, targets = as_rows(scores), np.asarray(targets)
    if targets.shape != scores.shape[:1]:
        raise ValueError(f"targets have shape {targets.shape}, expected {scores.shape[:1]} as the scores have rows")
    result = np.empty(len(targets), dtype=np.float64)

    def work(todo: Ranges) -> None:
        for start, stop in todo:
            part = scores[start:stop]
            others, clips = np.array(part, dtype=np.float64), np.arange(stop - start)
            release(part)
            label = others[clips, targets[start:stop]]
            others[clips, targets[start:stop]] = 0
            result[start:stop] = (1 + others.max(axis=1) - label) / 2

    in_threads(*scores.shape, work)
    return result
