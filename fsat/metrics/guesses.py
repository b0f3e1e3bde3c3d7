"""What a prediction says of each clip in three numbers: its best guess, and the probabilities of guess and label.

Conventions: as in `fsat.metrics.ranking`. Scores are gone through a few rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsat.metrics.ranking import top_k
from fsat.metrics.row_blocks import Ranges, Rows, as_rows, in_threads, release


@dataclass(frozen=True)
class Guesses:
    """Best guesses.

    Attributes:
        guess: int32 (n_clips,), the class with the highest score.
        p_guess: float32 (n_clips,), its score.
        p_label: float32 (n_clips,), the label's score.
    """

    guess: np.ndarray
    p_guess: np.ndarray
    p_label: np.ndarray


def best_guesses(scores: np.ndarray | Rows, targets: np.ndarray) -> Guesses:
    """The best guess of each clip.

    Args:
        scores: (n_clips, n_classes).
        targets: int (n_clips,), the labels.
    """
    scores, n_clips = as_rows(scores), len(targets)
    found = Guesses(np.empty(n_clips, np.int32), np.empty(n_clips, np.float32), np.empty(n_clips, np.float32))

    def work(todo: Ranges) -> None:
        for start, stop in todo:
            part, clips = scores[start:stop], np.arange(stop - start)
            guess = top_k(part, 1)[:, 0]
            found.guess[start:stop] = guess
            found.p_guess[start:stop] = part[clips, guess]
            found.p_label[start:stop] = part[clips, targets[start:stop]]
            release(part)

    in_threads(*scores.shape, work)
    return found
