"""From a waveform to the networks' inputs, as part of the exported Keras model.

It computes what `fsat.data.audio`, `fsat.data.mfcc` and `fsat.data.logmel` compute, up to rounding, with Keras's own
layers and operations, so that exported files load without fsat. Conventions: samples are float32 (n,), indices int32.
All shapes follow from the waveform's length by slices with constant bounds, which end where the waveform ends: no shape
depends on a sample. Runtimes on phones need that to plan their memory.

Resampling uses the filter that soxr applies when a clip is decoded. From a rate to p / q times that rate, soxr's output
is a weighted sum of the input whose weights repeat every q input and p output samples. Its responses to impulses are
these weights: a convolution with a stride of q and p channels. If soxr resamples in two stages, the first output
samples lack what the first stage has before the clip's start; they have weights of their own. The quality is that of
`fsat.data.audio.decode`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

import keras
import numpy as np
from keras import layers, ops

from fsat.config import Config
from fsat.data.logmel import FLOOR_DB
from fsat.data.logmel import window_and_filters as logmel_window_and_filters
from fsat.data.mfcc import N_FFT, N_MELS, TOP_DB
from fsat.data.mfcc import window_and_filters as mfcc_window_and_filters
from fsat.errors import ConfigError
from fsat.model_presets import HOP_LENGTH

MAX_WEIGHTS = 1 << 25
"""Maximum size of a filter, 128 MB. Rates such as 44100 and 44101 Hz, with a large p and q, exceed it."""

REACH, THRESHOLD = 120, 1e-6
"""Output samples on both sides that a filter may reach ("HQ" reaches 91); and below what a weight counts as 0: soxr's
own rounding errors are half of that."""

MAX_LENGTH = 2**31 - 1
"""Maximum length of a waveform in samples."""


@dataclass(frozen=True)
class Filter:
    """soxr's filter from a rate to p / q times that rate.

    Attributes:
        kernel: float32 (length, p), weights of input samples for p successive output samples.
        before: number of these input samples before the position of the first output sample.
        start: float32 (n, m), weights of the first n input samples to add for the first m output samples.
    """

    kernel: np.ndarray
    before: int
    start: np.ndarray


def resample(signal: Signal, rate: int, new_rate: int) -> Signal:
    """Resample a signal to a lower rate; raise `ConfigError` if the ratio of the rates is not supported."""
    if rate == new_rate:
        return signal
    (p, q), filter = Fraction(new_rate, rate).as_integer_ratio(), measure_filter(rate, new_rate)
    length = len(filter.kernel)
    padded = ops.pad(signal.samples, (filter.before, length + len(filter.start)))
    convolution = layers.Conv1D(p, length, strides=q, use_bias=False, dtype="float32", trainable=False)
    blocks = with_kernel(convolution, ops.reshape(padded, (1, -1, 1)), filter.kernel[:, np.newaxis])  # 1, blocks, p
    samples = ops.reshape(blocks, (-1,))
    n_first, n_changed = filter.start.shape
    if n_changed:
        first = ops.reshape(slice_first(padded, filter.before, filter.before + n_first), (1, n_first))
        changed = slice_first(samples, 0, n_changed) + ops.reshape(multiply(first, filter.start), (-1,))
        samples = ops.concatenate([changed, slice_first(samples, n_changed)])
    n = signal.n // q * p + (2 * p * (signal.n % q) + q) // (2 * q)  # n * p / q, rounded as soxr does
    indices = indices_of(samples)
    samples = samples * ops.cast(ops.less(indices, n), "float32")  # the filter rings after the end
    is_empty = ops.cast(ops.logical_and(ops.equal(indices, 0), ops.equal(n, 0)), "float32")
    samples = samples + is_empty * slice_first(signal.samples, 0, 1)  # shorter than a sample at the new rate
    return Signal(samples, ops.maximum(n, 1), signal.waveform, (p, q))


def measure_filter(rate: int, new_rate: int) -> Filter:
    """Measure the filter of soxr's "HQ" from a rate to a lower one; `ConfigError` if it has more than `MAX_WEIGHTS`."""
    import soxr

    p, q = Fraction(new_rate, rate).as_integer_ratio()
    reach = math.ceil(REACH * rate / new_rate) + 2  # in input samples
    if (q + 2 * reach) * p > MAX_WEIGHTS or 2 * p * q > np.iinfo(np.int32).max:
        expected = "expected sampling rates in a ratio of small whole numbers"
        advice = "export one member alone (members=STUDY/FOLD)"
        raise ConfigError(f"members at {rate} and {new_rate} Hz: {expected}; {advice}")
    distance = (2 * reach // q + 2) * q + 1  # between impulses at every position modulo q: no responses overlap
    positions = (2 * reach // q + 1) * q + distance * np.arange(q)
    impulses = np.zeros(positions[-1] + 4 * reach + q, np.float32)
    impulses[positions] = 1
    response = soxr.resample(impulses, rate, new_rate, quality="HQ")
    inputs = np.arange(q + 2 * reach)
    impulse = positions[(inputs - reach) % q]
    block = (impulse - inputs + reach) // q  # the output block for which the impulse is this input
    kernel = response[block[:, np.newaxis] * p + np.arange(p)]
    start = _measure_start(kernel, rate, new_rate, reach)
    used = np.flatnonzero(np.abs(kernel).max(axis=1) > THRESHOLD)
    return Filter(kernel[used[0] : used[-1] + 1], reach - int(used[0]), start)


def _measure_start(kernel: np.ndarray, rate: int, new_rate: int, reach: int) -> np.ndarray:
    """Return soxr's responses to impulses at the start of a clip minus those of the kernel; see `Filter`."""
    import soxr

    p, q = Fraction(new_rate, rate).as_integer_ratio()
    i, m = np.arange(reach)[:, np.newaxis], np.arange(2 * REACH)  # input, output
    row = i - m // p * q + reach
    regular = np.where((row >= 0) & (row < len(kernel)), kernel[row.clip(0, len(kernel) - 1), m % p], 0)
    impulses = np.eye(reach, 4 * reach, dtype=np.float32)
    responses = [soxr.resample(impulse, rate, new_rate, quality="HQ")[: 2 * REACH] for impulse in impulses]
    start: np.ndarray = np.stack(responses) - regular
    nonzero = np.abs(start) > THRESHOLD
    n_first, n_changed = (int(np.flatnonzero(nonzero.any(axis=axis)).max(initial=-1)) + 1 for axis in (1, 0))
    return start[:n_first, :n_changed]


Tensor: TypeAlias = keras.KerasTensor


@dataclass(frozen=True)
class Signal:
    """A waveform at one sampling rate inside the model.

    Attributes:
        samples: float32 (at least n,), 0 from n on.
        n: int32 (), number of samples.
        waveform: float32 (n_waveform,), the model's input that it was computed from.
        ratio: (p, q): p samples for q of the waveform.
    """

    samples: Tensor
    n: Tensor
    waveform: Tensor
    ratio: tuple[int, int] = (1, 1)

    def ones_for(self, lengths: Sequence[int]) -> Tensor:
        """Return int32 ones, one for each of the ascending `lengths` that the signal reaches."""
        ends = [self._shortest(length) for length in lengths]
        strided = ([ends[first::stride] for first in range(stride)] for stride in range(1, len(ends) + 1))
        subsets = next(sets for sets in strided if all(len({b - a for a, b in pairwise(s)}) < 2 for s in sets))
        parts = [slice_first(self.waveform, s[0] - 1, s[-1], s[1] - s[0] if len(s) > 1 else 1) for s in subsets]
        return ops.ones_like(parts[0] if len(parts) == 1 else ops.concatenate(parts), dtype="int32")

    def ones_from(self, length: int, step: int) -> Tensor:
        """Return int32 ones, one for each of the lengths from `length` in steps of `step` that the signal reaches.

        Where the waveform's rate is not a multiple of the signal's there may be more: one too many once in many steps.
        """
        p, q = self.ratio
        first, step = (min(n, MAX_LENGTH) for n in (self._shortest(length) - 1, q * step // p))
        return ops.ones_like(slice_first(self.waveform, first, None, step), dtype="int32")

    def _shortest(self, length: int) -> int:
        """Return the length of the shortest waveform whose p / q, rounded, is `length`."""
        p, q = self.ratio
        return -(-q * (2 * length - 1) // (2 * p))

    def zero(self) -> Tensor:
        """Return int32 (1,), 0, as a tensor that depends on the waveform."""
        return ops.zeros_like(slice_first(self.waveform, 0, 1), dtype="int32")


def slice_first(x: Tensor, start: int, stop: int | None = None, step: int = 1) -> Tensor:
    """Return ``x[start:stop:step]`` of the first axis, which may end before `stop`."""
    return x[slice(start, stop, step),]


def length_of(x: Tensor) -> Tensor:
    """Return the number of elements, int32 ()."""
    return ops.sum(ops.ones_like(x, dtype="int32"))


def indices_of(x: Tensor) -> Tensor:
    """Return the index of each element, int32."""
    return ops.cumsum(ops.ones_like(x, dtype="int32")) - 1


def mfcc(crops: Tensor, config: Config) -> Tensor:
    """Return `fsat.data.mfcc.mfcc` of crops (crops, audio_length), float32 (crops, n_mfcc, n_frames, 1)."""
    n_frames, hops = config.n_frames, N_FFT // HOP_LENGTH
    n_samples = (n_frames - 1 + hops) * HOP_LENGTH
    padded = ops.pad(crops, ((0, 0), (N_FFT // 2, N_FFT // 2)))[:, :n_samples]
    pieces = ops.reshape(padded, (-1, n_frames - 1 + hops, HOP_LENGTH))
    frames = ops.concatenate([pieces[:, i : i + n_frames] for i in range(hops)], axis=-1)
    window, filters = mfcc_window_and_filters(config.sampling_rate)
    mel = mel_power(ops.reshape(frames, (-1, N_FFT)), window, filters.toarray())
    decibels = to_decibels(ops.reshape(mel, (-1, n_frames, N_MELS)), 1e-10)
    decibels = ops.maximum(decibels, ops.max(decibels, axis=(1, 2), keepdims=True) - TOP_DB)
    band = np.arange(N_MELS)
    dct = np.cos(np.pi / N_MELS * np.outer(band + 0.5, np.arange(config.n_mfcc))) * math.sqrt(2 / N_MELS)
    dct[:, 0] /= math.sqrt(2)
    return ops.expand_dims(ops.transpose(multiply(decibels, dct), (0, 2, 1)), -1)


def logmel(signal: Signal, config: Config) -> Tensor:
    """Return `fsat.data.logmel.logmel` of a signal, float32 (at least its frames, n_mels)."""
    hop = config.hop_length
    window, filters = logmel_window_and_filters(config.sampling_rate, config.n_mels, hop)
    margin = (len(window) - 2 * hop) // 2  # zeros on both sides of the window
    padded = ops.pad(signal.samples, (hop, 2 * hop))
    starts = hop * indices_of(slice_first(padded, 2 * hop, None, hop))
    windows = ops.take(padded, ops.expand_dims(starts, 1) + np.arange(2 * hop, dtype=np.int32), axis=0)
    mel = mel_power(windows, window[margin : margin + 2 * hop], filters.toarray())
    return ops.maximum(to_decibels(mel, 10 ** (FLOOR_DB / 10)) - FLOOR_DB, 0.0)


def to_decibels(power: Tensor, minimum: float) -> Tensor:
    """Return the decibels of a power that is clipped to `minimum`."""
    return ops.log(ops.maximum(power, np.float32(minimum))) * np.float32(10 / math.log(10))


def mel_power(frames: Tensor, window: np.ndarray, filters: np.ndarray) -> Tensor:
    """Return the power in mel bands of frames, by a Fourier transform of `n_fft` samples.

    The transform consists of two products with small matrices (Cooley and Tukey 1965): a tenth of the work of a product
    with all sines and cosines, by operations that every runtime has. With n = n2 * i + j and k = a + n1 * b, i and a
    below n1, j and b below n2:

        X[k] = sum over j of exp(-2 pi sqrt(-1) j b / n2) * Y[a, j]
        Y[a, j] = sum over i of x[n] exp(-2 pi sqrt(-1) (i a / n1 + j a / n_fft))

    Only a from 0 to n1 / 2 is computed: the power at k equals that at n_fft - k. The filters are ordered accordingly.

    Args:
        frames, window: float32 (n_frames, n) and (n,).
        filters: float32 (n_mels, 1 + n_fft // 2), n_fft a power of 2 and at least n.

    Returns:
        float32 (n_frames, n_mels).
    """
    n_mels, n_fft = len(filters), 2 * (filters.shape[1] - 1)
    n1 = 2 ** math.ceil(math.log2(n_fft) / 2)
    n2 = n_fft // n1
    rows = -(-len(window) // n2)  # of n1; the others are 0
    n_a, padding = n1 // 2 + 1, rows * n2 - len(window)
    i, j, a, b = np.arange(rows), np.arange(n2), np.arange(n_a), np.arange(n2)
    turns = np.multiply.outer(i, a)[:, np.newaxis] / n1 + np.multiply.outer(j, a) / n_fft  # i, j, a
    weights = np.pad(window.astype(np.float64), (0, padding)).reshape(rows, n2, 1)
    waves = np.stack([weights * np.cos(2 * np.pi * turns), -weights * np.sin(2 * np.pi * turns)], axis=-1)
    if padding:
        frames = ops.pad(frames, ((0, 0), (0, padding)))
    first = layers.EinsumDense("fij,ijar->farj", (n_a, 2, n2), dtype="float32", trainable=False)
    y = with_kernel(first, ops.reshape(frames, (-1, rows, n2)), waves)
    cosines, sines = (wave(2 * np.pi / n2 * np.outer(j, b)) for wave in (np.cos, np.sin))
    x = multiply(ops.reshape(y, (-1, n_a, 2 * n2)), np.block([[cosines, -sines], [sines, cosines]]))
    x = ops.square(x)
    power = x[:, :, :n2] + x[:, :, n2:]  # frames, a, b
    k = np.add.outer(a, n1 * b).ravel()
    bins = np.minimum(k, n_fft - k)
    shares = filters[:, bins] / np.bincount(bins)[bins]  # some bins occur twice
    return multiply(ops.reshape(power, (-1, n_a * n2)), shares.T.reshape(-1, n_mels))


def multiply(x: Tensor, matrix: np.ndarray) -> Tensor:
    """Return ``x @ matrix`` with the matrix stored among the weights."""
    dense = layers.Dense(matrix.shape[1], use_bias=False, dtype="float32", trainable=False)
    return with_kernel(dense, x, matrix)


def with_kernel(layer: layers.Layer, x: Tensor, kernel: np.ndarray) -> Tensor:
    """Apply a layer without bias, with this kernel."""
    y = layer(x)
    layer.set_weights([kernel.astype(np.float32)])
    return y
