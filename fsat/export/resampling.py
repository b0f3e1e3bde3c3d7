"""Resampling inside an exported model, with the filter that soxr applies when a clip is decoded.

From a rate to p / q times that rate, soxr's output is a weighted sum of the input whose weights repeat every q input
and p output samples. Its responses to impulses are these weights: a convolution with a stride of q and p channels. If
soxr resamples in two stages, the first output samples lack what the first stage has before the clip's start; they
have weights of their own. The quality is that of `fsat.data.audio.decode`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from keras import layers, ops

from fsat.errors import ConfigError
from fsat.export.frontend import Signal, indices_of, multiply, slice_first, with_kernel

MAX_WEIGHTS = 1 << 25
"""Maximum size of a filter, 128 MB. Rates such as 44100 and 44101 Hz, with a large p and q, exceed it."""

REACH, THRESHOLD = 120, 1e-6
"""Output samples on both sides that a filter may reach ("HQ" reaches 91); and below what a weight counts as 0: soxr's
own rounding errors are half of that."""


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
        advice = (
            "expected sampling rates in a ratio of small whole numbers; export one member alone (members=STUDY/FOLD)"
        )
        raise ConfigError(f"members at {rate} and {new_rate} Hz: {advice}")
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
