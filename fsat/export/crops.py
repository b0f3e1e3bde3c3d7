"""The fixed crops of prediction, as part of the exported Keras model.

They are those of `fsat.data.mfcc.fixed_crops`, `fsat.data.logmel.crop_frames` and, for backbones,
`fsat.data.embeddings.window_crops`. See `fsat.export.frontend` for the
conventions. How many crops there are follows from the waveform's length; see `Signal.ones_from`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from keras import ops

from fsat.config import Config
from fsat.data.logmel import STEP
from fsat.export.frontend import Signal, Tensor, indices_of, logmel, slice_first


@dataclass(frozen=True)
class Crops:
    """The fixed crops of a signal.

    Attributes:
        numbers: int32 (m,), 0, 1, ... of which those from `n` on do not count.
        n: int32 (), number of crops.
    """

    numbers: Tensor
    n: Tensor

    def mean(self, predictions: Tensor) -> Tensor:
        """Return the mean over crops of predictions (m, n_classes)."""
        counts = ops.cast(ops.less(self.numbers, self.n), "float32")
        return ops.sum(predictions * ops.expand_dims(counts, 1), axis=0) / ops.cast(self.n, "float32")


def one_crop(signal: Signal) -> Crops:
    """Return one crop, whatever the signal's length."""
    return Crops(signal.zero(), 1 + ops.sum(signal.zero()))


def count_crops(n: Tensor, length: int | Tensor, hop: int | Tensor, least: int) -> Tensor:
    """Return the number of crops of a clip, int32 (), as `fsat.data.mfcc.fixed_crops`: one if it is no longer than one.

    `n`, `length` and `hop`, of the clip, of the crops, and the greatest distance of two, are in samples or in frames.
    """
    is_longer = ops.cast(ops.greater(n, length), "int32")
    spare = ops.maximum(n - length, 0)
    return 1 + is_longer * (ops.maximum(1 + (spare + hop - 1) // hop, least) - 1)


def even_starts(n: Tensor, length: int | Tensor, crops: Crops) -> Tensor:
    """Return the starts of crops as `fsat.data.audio.even_starts`, int32 (m,).

    `n` and `length`, of the clip and of the crops, are int32 (), in samples or in frames. Intermediate results are
    below twice the square of the number of crops, which may be up to 30000.
    """
    spare, missing = ops.maximum(n - length, 0), ops.maximum(length - n, 0)
    gaps, numbers = ops.maximum(crops.n - 1, 1), ops.minimum(crops.numbers, crops.n - 1)
    whole, rest = spare // gaps, spare % gaps
    doubled = 2 * numbers * rest + gaps  # the fractional part of numbers * spare / gaps, plus a half, in 2 * gaps
    starts = numbers * whole + doubled // (2 * gaps)
    tie = ops.logical_and(ops.equal(doubled % (2 * gaps), 0), ops.equal(starts % 2, 1))
    return starts - ops.cast(tie, "int32") - missing // 2


def crop_numbers(signal: Signal, min_length: int, n_crops: int) -> Tensor:
    """Return 0, 1, ... `n_crops` - 1, int32, or 0 for a signal that is shorter than `min_length`."""
    if n_crops == 1:
        return signal.zero()
    others = ops.expand_dims(signal.ones_for([min_length]), 1) * np.arange(1, n_crops, dtype=np.int32)
    return ops.concatenate([signal.zero(), ops.reshape(others, (-1,))])


def with_more(numbers: Tensor, signal: Signal, n_crops: int, min_length: int, step: int) -> Tensor:
    """Return `numbers`, then `n_crops`, ...: one for each length from `min_length` in steps that the signal reaches."""
    return ops.concatenate([numbers, n_crops - 1 + ops.cumsum(signal.ones_from(min_length, step))])


def waveform_crops(signal: Signal, config: Config, max_hop: int | None = None) -> tuple[Tensor, Crops]:
    """Return the fixed crops, and their samples, float32 (m, audio_length).

    `max_hop` is the greatest distance of two crops in samples, by default and at most their length.
    """
    length, n_crops = config.audio_length, config.eval_crops
    hop = min(max_hop or length, length)
    numbers = crop_numbers(signal, length + 1, n_crops)
    numbers = with_more(numbers, signal, n_crops, length + (n_crops - 1) * hop + 1, hop)
    crops = Crops(numbers, count_crops(signal.n, length, hop, n_crops))
    margin = length // 2 + 1  # a short clip is centred in zeros
    padded = ops.pad(signal.samples, (margin, length))
    offsets = indices_of(slice_first(padded, 0, length)) + margin
    return ops.take(padded, ops.expand_dims(even_starts(signal.n, length, crops), 1) + offsets, axis=0), crops


def backbone_windows(signal: Signal, config: Config) -> tuple[Tensor, Crops]:
    """Return the windows of `fsat.data.embeddings.window_crops`, and their samples, float32 (m, audio_length)."""
    windows, crops = waveform_crops(signal, config, max(1, round(config.sampling_rate * config.window_hop)))
    return ops.reshape(windows, (-1, config.audio_length)), crops


def logmel_crops(signal: Signal, config: Config) -> tuple[Tensor, Crops]:
    """Return the fixed crops, and their spectrograms, float32 (m, frames, n_mels, 1).

    The number of frames is that of `fsat.data.logmel.crop_frames`. Frames beyond the clip's are 0, as silence is.
    """
    hop, min_frames, n_crops = config.hop_length, config.n_frames, config.eval_crops
    n_frames = 1 + signal.n // hop
    offsets: Tensor = np.arange(min_frames, dtype=np.int32)
    crop: int | Tensor = min_frames
    lengths = [min_frames + STEP * (i + 1) for i in range((config.eval_frames - min_frames) // STEP)]
    if lengths:
        steps = signal.ones_for([(frames - 1) * hop for frames in lengths])
        later = ops.expand_dims(min_frames + STEP * (ops.cumsum(steps) - 1), 1) + np.arange(STEP, dtype=np.int32)
        crop = min_frames + STEP * ops.sum(steps)
        offsets = ops.concatenate([signal.zero() + offsets, ops.reshape(later, (-1,))])
        n_crops = max(n_crops, -(-(min_frames + STEP - 1) // min_frames))  # of a clip that is nearly a step longer
        numbers = signal.zero() + np.arange(n_crops, dtype=np.int32)
    else:
        numbers = crop_numbers(signal, min_frames * hop, n_crops)
    longest = max([min_frames, *lengths]) * hop
    numbers = with_more(numbers, signal, n_crops, n_crops * longest, longest)
    crops = Crops(numbers, count_crops(n_frames, crop, crop, config.eval_crops))
    frames = ops.expand_dims(even_starts(n_frames, crop, crops), 1) + offsets  # crops, frames
    inside = ops.logical_and(ops.greater_equal(frames, 0), ops.less(frames, n_frames))
    decibels = ops.take(logmel(signal, config), ops.minimum(ops.maximum(frames, 0), n_frames - 1), axis=0)
    return ops.expand_dims(decibels * ops.expand_dims(ops.cast(inside, "float32"), -1), -1), crops
