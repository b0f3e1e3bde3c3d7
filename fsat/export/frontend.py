"""The way from a waveform to what the networks take in, as a part of the Keras model that is exported.

It does what `fsat.data.audio`, `fsat.data.mfcc` and `fsat.data.logmel` do, up to rounding, with Keras's own layers
and operations alone, so that a file made of it opens without fsat. Conventions: samples are float32 (n,), places int32.
Nothing but the waveform has a length of its own, and no length depends on a sample: every shape follows from the
waveform's by slices with fixed bounds, which stop where the waveform does. Phones' runtimes plan their memory by that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import keras
import numpy as np
from keras import layers, ops

from fsat.config import Config
from fsat.data.logmel import FLOOR_DB, STEP
from fsat.data.logmel import window_and_filters as logmel_window_and_filters
from fsat.data.mfcc import N_FFT, N_MELS, TOP_DB
from fsat.data.mfcc import window_and_filters as mfcc_window_and_filters
from fsat.presets import HOP_LENGTH

Tensor = keras.KerasTensor


@dataclass(frozen=True)
class Signal:
    """A waveform at one sampling rate inside the model.

    Attributes:
        samples: float32 (at least n,), 0 from n on.
        n: int32 (), the length in samples.
        given: float32 (n_given,), the model's input that it was made from.
        ratio: (p, q): p samples of it stand for q of what was given.
    """

    samples: Tensor
    n: Tensor
    given: Tensor
    ratio: tuple[int, int] = (1, 1)

    def reached(self, lengths: Sequence[int]) -> Tensor:
        """Ones, int32, as many as there are of these lengths that the signal has; they must grow."""
        p, q = self.ratio
        marks = [-(-q * (2 * n - 1) // (2 * p)) for n in lengths]  # least n_given whose p / q, rounded, is n
        apart = next(k for k in range(1, len(marks) + 1) if _is_even(marks, k))
        parts = []
        for some in (marks[first::apart] for first in range(apart)):
            step = some[1] - some[0] if len(some) > 1 else 1
            parts.append(part(self.given, some[0] - 1, some[-1], step))
        return ops.ones_like(parts[0] if len(parts) == 1 else ops.concatenate(parts), dtype="int32")


def _is_even(marks: Sequence[int], apart: int) -> bool:
    """Whether every `apart`-th mark, from each of the first ones on, is as far from the last as the others are."""
    return all(len({b - a for a, b in pairwise(marks[first::apart])}) < 2 for first in range(apart))


def part(x: Tensor, start: int, stop: int | None = None, step: int = 1) -> Tensor:
    """``x[start:stop:step]`` of the first axis, which may end before `stop`."""
    return x[slice(start, stop, step),]


def length_of(x: Tensor) -> Tensor:
    """The number of elements, int32 (); a KerasTensor does not tell it otherwise."""
    return ops.sum(ops.ones_like(x, dtype="int32"))


def places(x: Tensor) -> Tensor:
    """0, 1, 2, ... for the elements, int32."""
    return ops.cumsum(ops.ones_like(x, dtype="int32")) - 1


def even_starts(n: Tensor, length: int | Tensor, which: Tensor, count: int) -> Tensor:
    """`fsat.data.audio.even_starts` in whole numbers, halves rounded to even.

    Args:
        n: int32 (), the clip's length.
        length: a crop's length.
        which: int32 (m,), the crops wanted, from 0.
        count: crops of a clip that is longer than one; of one that is not, all start at the same place.

    Returns:
        int32 (m,).
    """
    spare, missing = ops.maximum(n - length, 0), ops.maximum(length - n, 0)
    if count == 1:
        return which * 0 + spare // 2 - missing // 2
    gaps = count - 1
    whole, rest = spare // gaps, spare % gaps
    twice = 2 * which * rest + gaps  # the rest of which * spare / gaps, plus a half, in 2 * gaps
    up = twice // (2 * gaps)
    tie = ops.logical_and(ops.equal(twice % (2 * gaps), 0), ops.equal((which * whole + up) % 2, 1))
    return which * whole + up - ops.cast(tie, "int32") - missing // 2


def which_crops(signal: Signal, more_from: int, count: int) -> Tensor:
    """0 for a signal that is shorter than `more_from`, else 0, 1, ... `count` - 1; int32."""
    first = ops.zeros_like(part(signal.given, 0, 1), dtype="int32")
    if count == 1:
        return first
    others = ops.expand_dims(signal.reached([more_from]), 1) * np.arange(1, count, dtype=np.int32)
    return ops.concatenate([first, ops.reshape(others, (-1,))])


def waveform_crops(signal: Signal, config: Config) -> Tensor:
    """The fixed crops, float32 (crops, audio_length)."""
    length = config.audio_length
    starts = even_starts(signal.n, length, which_crops(signal, length + 1, config.eval_crops), config.eval_crops)
    around = length // 2 + 1  # a short clip lies centred in zeros
    padded = ops.pad(signal.samples, (around, length))
    offsets = places(part(padded, 0, length)) + around
    return ops.take(padded, ops.expand_dims(starts, 1) + offsets, axis=0)


def mfcc(crops: Tensor, config: Config) -> Tensor:
    """`fsat.data.mfcc.mfcc` of crops (crops, audio_length): float32 (crops, n_mfcc, n_frames, 1)."""
    n_frames, hops = config.n_frames, N_FFT // HOP_LENGTH
    whole = (n_frames - 1 + hops) * HOP_LENGTH
    padded = ops.pad(crops, ((0, 0), (N_FFT // 2, N_FFT // 2)))[:, :whole]
    pieces = ops.reshape(padded, (-1, n_frames - 1 + hops, HOP_LENGTH))
    frames = ops.concatenate([pieces[:, i : i + n_frames] for i in range(hops)], axis=-1)
    window, filters = mfcc_window_and_filters(config.sampling_rate)
    mel = mel_power(ops.reshape(frames, (-1, N_FFT)), window, filters.toarray())
    decibels = to_decibels(ops.reshape(mel, (-1, n_frames, N_MELS)), 1e-10)
    decibels = ops.maximum(decibels, ops.max(decibels, axis=(1, 2), keepdims=True) - TOP_DB)
    band = np.arange(N_MELS)
    dct = np.cos(np.pi / N_MELS * np.outer(band + 0.5, np.arange(config.n_mfcc))) * math.sqrt(2 / N_MELS)
    dct[:, 0] /= math.sqrt(2)
    return ops.expand_dims(ops.transpose(product(decibels, dct), (0, 2, 1)), -1)


def logmel_crops(signal: Signal, config: Config) -> Tensor:
    """The fixed crops of `fsat.data.logmel.logmel`: float32 (crops, frames, n_mels, 1), frames as `crop_frames` says.

    Frames are computed of what is in the crops alone. A frame beyond the clip's is 0, as silence is.
    """
    hop, least = config.hop_length, config.n_frames
    n_frames = 1 + signal.n // hop
    offsets = np.arange(least, dtype=np.int32)
    longer = [least + STEP * (i + 1) for i in range((config.eval_frames - least) // STEP)]
    if longer:
        steps = signal.reached([(frames - 1) * hop for frames in longer])
        some = ops.expand_dims(least + STEP * (ops.cumsum(steps) - 1), 1) + np.arange(STEP, dtype=np.int32)
        crop = least + STEP * ops.sum(steps)
        first = ops.zeros_like(part(signal.given, 0, 1), dtype="int32")
        offsets = ops.concatenate([first + offsets, ops.reshape(some, (-1,))])
    else:
        crop = least
    if longer:  # equal ones of a short clip, as a shape with two unknown sizes would be more trouble
        which = ops.zeros_like(part(signal.given, 0, 1), dtype="int32") + np.arange(config.eval_crops, dtype=np.int32)
    else:
        which = which_crops(signal, least * hop, config.eval_crops)
    starts = even_starts(n_frames, crop, which, config.eval_crops)
    frames = ops.expand_dims(starts, 1) + offsets  # crops, frames
    inside = ops.logical_and(ops.greater_equal(frames, 0), ops.less(frames, n_frames))
    flat = ops.reshape(ops.minimum(ops.maximum(frames, 0), n_frames - 1), (-1, 1))
    window, filters = logmel_window_and_filters(config.sampling_rate, config.n_mels, hop)
    beside = (len(window) - 2 * hop) // 2  # zeros on both sides of the window, which no power depends on
    padded = ops.pad(signal.samples, (hop, 2 * hop))
    pieces = ops.take(padded, flat * hop + np.arange(2 * hop, dtype=np.int32), axis=0)
    mel = mel_power(pieces, window[beside : beside + 2 * hop], filters.toarray())
    decibels = ops.maximum(to_decibels(mel, 10 ** (FLOOR_DB / 10)) - FLOOR_DB, 0.0)
    decibels = decibels * ops.cast(ops.reshape(inside, (-1, 1)), "float32")
    if longer:
        return ops.reshape(decibels, (config.eval_crops, -1, config.n_mels, 1))
    return ops.reshape(decibels, (-1, least, config.n_mels, 1))


def to_decibels(power: Tensor, least: float) -> Tensor:
    """Decibels of a power, which counts as `least` at least."""
    return ops.log(ops.maximum(power, np.float32(least))) * np.float32(10 / math.log(10))


def mel_power(frames: Tensor, window: np.ndarray, filters: np.ndarray) -> Tensor:
    """Power in mel bands of frames (n_frames, len(window)), by a Fourier transform of `n_fft` samples.

    The transform is done by two products with small matrices (Cooley and Tukey 1965), a tenth of the work of one with
    all sines and cosines, and no operation that a runtime may lack. With n = n2 * i + j and k = a + n1 * b, i and a
    below n1, j and b below n2:

        X[k] = sum over j of exp(-2 pi sqrt(-1) j b / n2) * Y[a, j]
        Y[a, j] = sum over i of x[n] exp(-2 pi sqrt(-1) (i a / n1 + j a / n_fft))

    Of a only 0 to n1 / 2 are computed: the power at k is that at n_fft - k. The bands' weights are put in that order.

    Args:
        frames: float32 (n_frames, n).
        window: float32 (n,).
        filters: float32 (n_mels, 1 + n_fft // 2), n_fft a power of 2 and at least n.
    """
    n_mels, n_fft = len(filters), 2 * (filters.shape[1] - 1)
    n1 = 2 ** math.ceil(math.log2(n_fft) / 2)
    n2 = n_fft // n1
    rows = -(-len(window) // n2)  # of n1, the others would be 0
    n_a, spare = n1 // 2 + 1, rows * n2 - len(window)
    i, j, a, b = np.arange(rows), np.arange(n2), np.arange(n_a), np.arange(n2)
    turns = np.multiply.outer(i, a)[:, np.newaxis] / n1 + np.multiply.outer(j, a) / n_fft  # i, j, a
    weights = np.pad(window.astype(np.float64), (0, spare)).reshape(rows, n2, 1)
    waves = np.stack([weights * np.cos(2 * np.pi * turns), -weights * np.sin(2 * np.pi * turns)], axis=-1)
    if spare:
        frames = ops.pad(frames, ((0, 0), (0, spare)))
    y = weighted(layers.EinsumDense("fij,ijar->farj", (n_a, 2, n2), dtype="float32", trainable=False),
                 ops.reshape(frames, (-1, rows, n2)), waves)  # fmt: skip
    cosines, sines = (wave(2 * np.pi / n2 * np.outer(j, b)) for wave in (np.cos, np.sin))
    x = product(ops.reshape(y, (-1, n_a, 2 * n2)), np.block([[cosines, -sines], [sines, cosines]]))
    x = ops.square(x)
    power = x[:, :, :n2] + x[:, :, n2:]  # frames, a, b
    k = np.add.outer(a, n1 * b).ravel()
    bins = np.minimum(k, n_fft - k)
    shares = filters[:, bins] / np.bincount(bins)[bins]  # some are there twice
    return product(ops.reshape(power, (-1, n_a * n2)), shares.T.reshape(-1, n_mels))


def product(x: Tensor, matrix: np.ndarray) -> Tensor:
    """``x @ matrix`` with a matrix that is kept with the weights, not in the model's description."""
    dense = layers.Dense(matrix.shape[1], use_bias=False, dtype="float32", trainable=False)
    return weighted(dense, x, matrix)


def weighted(layer: layers.Layer, x: Tensor, kernel: np.ndarray) -> Tensor:
    """What a layer without bias makes of `x` with this kernel."""
    y = layer(x)
    layer.set_weights([kernel.astype(np.float32)])
    return y
