"""Resampling inside an exported model, by the very filter that soxr applies when a clip is decoded.

From a rate to p / q times that rate, soxr's output is a sum over the input that repeats itself every q samples of the
input and p of the output. What soxr makes of single pulses tells the weights: a convolution with a stride of q and p
channels. Where soxr works in two stages, the first output samples lack what the first stage would have left before the
clip's beginning; so they get weights of their own. `fsat.data.audio.decode` says which quality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from keras import layers, ops

from fsat.errors import ConfigError
from fsat.export.frontend import Signal, part, places, product, weighted

MOST_WEIGHTS = 1 << 25
"""Of a filter, 128 MB. Rates such as 44100 and 44101 Hz have no small common measure."""

REACH = 120
"""How far the filter reaches at most, to both sides, in samples of the output; 91 are enough for "HQ"."""

SILENT = 1e-6
"""What a pulse of 1 leaves is nothing where it is below this: soxr's own rounding is half of that."""


@dataclass(frozen=True)
class Filter:
    """What soxr does from a rate to p / q times that rate.

    Attributes:
        kernel: float32 (length, p), for p successive samples of the output the weights of samples of the input.
        before: how many of these come before the place of the first of the p.
        start: float32 (n, m), what the first m samples of the output get in addition from the first n of the input.
    """

    kernel: np.ndarray
    before: int
    start: np.ndarray


def resampled(given: Signal, rate: int, new_rate: int) -> Signal:
    """A signal at a lower rate.

    Raises:
        ConfigError: the rates have no common measure that would allow it.
    """
    if rate == new_rate:
        return given
    p, q = ratio(rate, new_rate)
    filter = measured_filter(rate, new_rate)
    length, before = len(filter.kernel), filter.before
    padded = ops.pad(given.samples, (before, length + len(filter.start)))
    convolution = layers.Conv1D(p, length, strides=q, use_bias=False, dtype="float32", trainable=False)
    blocks = weighted(convolution, ops.reshape(padded, (1, -1, 1)), filter.kernel[:, np.newaxis])  # 1, blocks, p
    samples = ops.reshape(blocks, (-1,))
    n_first, n_changed = filter.start.shape
    if n_changed:
        first = ops.reshape(part(padded, before, before + n_first), (1, n_first))
        changed = part(samples, 0, n_changed) + ops.reshape(product(first, filter.start), (-1,))
        samples = ops.concatenate([changed, part(samples, n_changed)])
    n = given.n // q * p + (2 * p * (given.n % q) + q) // (2 * q)  # n * p / q, rounded as soxr does
    place = places(samples)
    samples = samples * ops.cast(ops.less(place, n), "float32")  # the filter rings on after the end
    nothing = ops.cast(ops.logical_and(ops.equal(place, 0), ops.equal(n, 0)), "float32")
    samples = samples + nothing * part(given.samples, 0, 1)  # shorter than a sample at the new rate
    n = ops.maximum(n, 1)
    return Signal(samples, n, given.given, (p, q))


def ratio(rate: int, new_rate: int) -> tuple[int, int]:
    """``new_rate / rate`` in lowest terms."""
    common = math.gcd(rate, new_rate)
    return new_rate // common, rate // common


def measured_filter(rate: int, new_rate: int) -> Filter:
    """The filter of soxr's "HQ" from a rate to a lower one.

    Raises:
        ConfigError: it would have too many weights.
    """
    import soxr

    p, q = ratio(rate, new_rate)
    reach = math.ceil(REACH * rate / new_rate) + 2  # in samples of the input
    if (q + 2 * reach) * p > MOST_WEIGHTS or 2 * p * q > np.iinfo(np.int32).max:
        raise ConfigError(
            f"members at {rate} and {new_rate} Hz: the rates have no common measure that a model could resample by; "
            "export one member alone (members=STUDY/FOLD)"
        )
    apart = (2 * reach // q + 2) * q + 1  # pulses at every place in q, too far from each other to meet
    positions = (2 * reach // q + 1) * q + apart * np.arange(q)
    pulses = np.zeros(positions[-1] + 4 * reach + q, np.float32)
    pulses[positions] = 1
    left = soxr.resample(pulses, rate, new_rate, quality="HQ")
    places_in = np.arange(q + 2 * reach)
    pulse = positions[(places_in - reach) % q]
    block = (pulse - places_in + reach) // q  # of the output, as seen from which the pulse lies at that place
    kernel = left[block[:, np.newaxis] * p + np.arange(p)]

    i, m = np.arange(reach)[:, np.newaxis], np.arange(2 * REACH)  # input, output
    place = i - m // p * q + reach
    usual = np.where((place >= 0) & (place < len(kernel)), kernel[place.clip(0, len(kernel) - 1), m % p], 0)
    ones = np.eye(reach, 4 * reach, dtype=np.float32)
    start = np.stack([soxr.resample(one, rate, new_rate, quality="HQ")[: 2 * REACH] for one in ones]) - usual
    used = np.flatnonzero(np.abs(kernel).max(axis=1) > SILENT)
    strong = np.abs(start) > SILENT
    n_first, n_changed = (int(np.flatnonzero(strong.any(axis=i)).max(initial=-1)) + 1 for i in (1, 0))
    return Filter(kernel[used[0] : used[-1] + 1], reach - int(used[0]), start[:n_first, :n_changed])
