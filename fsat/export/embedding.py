"""What stands before and after a backbone in an exported model: scaling, and the mean over frames."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from fsat.export.frontend import Tensor


def apply(model: keras.Model, windows: Tensor, size: int) -> Tensor:
    """Return the embeddings, float32 (m, size), of windows (m, n_samples): means over frames of a model's answers."""
    answer = np.asarray(model(np.zeros((1, windows.shape[1]), np.float32), training=False))
    n_frames = answer.size // size
    return ops.mean(ops.reshape(model(windows, training=False), (-1, n_frames, size)), axis=1)


def scaled(windows: Tensor, peak: float | None) -> Tensor:
    """Return windows (m, n_samples) as `fsat.backbones.runtime.scaled` does.

    The first sample is subtracted before the mean, so that a constant window is 0 without rounding errors.
    """
    if peak is None:
        return windows
    shifted = windows - windows[:, :1]
    centred = shifted - ops.mean(shifted, axis=1, keepdims=True)
    greatest = ops.max(ops.abs(centred), axis=1, keepdims=True)
    return centred * (peak / ops.maximum(greatest, 1e-30))
