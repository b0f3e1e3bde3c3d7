"""Placeholder of rejection."""

import numpy as np


def fit_rejection(best_scores: np.ndarray, lost: float) -> float:
    """Return the threshold below which at most a share of scores lie."""
    return float(np.sort(best_scores)[int(lost * len(best_scores))])
