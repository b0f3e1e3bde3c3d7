"""Blending the predictions of several members.

Conventions: a prediction is float32 (n_clips, n_classes), its rows sum to 1. The geometric mean is taken in log space,
because the product of ten float32 probabilities underflows to 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

TINY = float(np.finfo(np.float32).tiny)
"""What a probability of 0 counts as, so that one member alone cannot rule out a class for ever."""


def geometric_mean(predictions: Iterable[np.ndarray]) -> np.ndarray:
    """Geometric mean of the members' probabilities, scaled so that rows sum to 1.

    Args:
        predictions: one (n_clips, n_classes) array a member, all of one shape. They are taken one after the other, so
            an iterator needs memory for one at a time.

    Returns:
        float32 (n_clips, n_classes); rows sum to 1.

    Raises:
        ValueError: there are no members or their shapes differ.
    """
    total, count = None, 0
    for member in predictions:
        logs = np.log(np.maximum(np.asarray(member, dtype=np.float64), TINY))
        if total is None:
            total = logs
        elif total.shape != logs.shape:
            raise ValueError(f"members differ in shape: {total.shape} and {logs.shape}")
        else:
            total += logs
        count += 1
    if total is None:
        raise ValueError("there is nothing to blend")
    total /= count
    if total.size == 0:
        return total.astype(np.float32)
    total -= total.max(axis=1, keepdims=True)
    np.exp(total, out=total)
    total /= total.sum(axis=1, keepdims=True)
    return total.astype(np.float32)


def blend_studies(studies: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Blend the members of each study, then the studies, so that each study counts alike whatever its folds.

    Args:
        studies: for each study its members' (n_clips, n_classes) arrays.
    """
    return geometric_mean([geometric_mean(members) for members in studies])


def out_of_fold(predictions: Sequence[np.ndarray], held_out: Sequence[np.ndarray]) -> np.ndarray:
    """For each clip the prediction of the one member that did not train on it.

    Args:
        predictions: per member (n_clips, n_classes).
        held_out: per member bool (n_clips,), true where the member's fold held the clip out.

    Returns:
        float32 (n_clips, n_classes); NaN rows for clips that no member held out.

    Raises:
        ValueError: two members held out the same clip.
    """
    result = np.full(predictions[0].shape, np.nan, dtype=np.float32)
    taken = np.zeros(len(result), dtype=bool)
    for member, mask in zip(predictions, held_out, strict=True):
        if (taken & mask).any():
            raise ValueError(f"clip {int(np.argmax(taken & mask))} was held out by two members")
        result[mask] = member[mask]
        taken |= mask
    return result


def label_prior(targets: np.ndarray, n_classes: int) -> np.ndarray:
    """How often each class occurs: float32 (n_classes,), sums to 1."""
    counts = np.bincount(np.asarray(targets), minlength=n_classes).astype(np.float64)
    return (counts / counts.sum()).astype(np.float32)
