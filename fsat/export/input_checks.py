"""What an exported model does with a waveform that is no sound, as part of its graph.

Runtimes have no operation that raises an error, and networks turn NaN into a label with a high score.
"""

from __future__ import annotations

from keras import ops

from fsat.export.frontend import Tensor, slice_first

NEGLIGIBLE = 1e-30
"""Times the mean level, it changes no score."""


def not_empty(waveform: Tensor) -> Tensor:
    """Return the waveform, float32 (n,); no samples are an error: the first of none cannot have the shape (1,)."""
    return ops.concatenate([ops.reshape(slice_first(waveform, 0, 1), (1,)), slice_first(waveform, 1)])


def spoiled(scores: Tensor, waveform: Tensor) -> Tensor:
    """Return the scores, all of them NaN or infinite if a sample of the waveform is."""
    return scores + NEGLIGIBLE * ops.mean(ops.abs(waveform))
