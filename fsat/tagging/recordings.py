"""Long recordings, window by window, in memory that does not grow with their length.

Conventions: windows begin every `hop` seconds and are `window` long; the last one ends with the recording, and is as
long unless the recording is shorter. Times are in seconds from the recording's beginning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np

from fsat.data.audio import AudioSource, blocks

NOTHING = 0.01
"""Seconds at the end that get no window of their own: rounding, not sound."""


class Window(NamedTuple):
    """A piece of a recording: where it begins and ends, and its samples by rate, float32 (n,), n >= 1."""

    start: float
    end: float
    at: dict[int, np.ndarray]


def windows(
    source: AudioSource, rates: Sequence[int], window: float, hop: float, max_seconds: float = math.inf
) -> Iterator[Window]:
    """The windows of a recording, each at several rates.

    Args:
        source: a path, or the bytes of an audio file.
        rates: in Hz.
        window: length of a window, in seconds.
        hop: from one window's start to the next's, in seconds; more than 0, at most `window`.
        max_seconds: length of the longest recording that is taken.

    Raises:
        AudioError: the recording cannot be used, or no further.
        ValueError: `hop` or `window` is not as it must be.
    """
    if not 0 < hop <= window < math.inf:
        raise ValueError(f"window={window}, hop={hop}: expected 0 < hop <= window")
    held = {rate: _Held(rate) for rate in rates}
    count, seconds = 0, 0.0
    with closing(blocks(source, rates, max_seconds)) as read:
        for block in read:
            seconds += len(block.mono) / block.samplerate
            for rate, samples in block.at.items():
                held[rate].append(samples)
            while all(one.reaches(count * hop + window) for one in held.values()):
                start = count * hop
                yield Window(start, start + window, {rate: one.cut(start, window) for rate, one in held.items()})
                count += 1
                for one in held.values():
                    one.drop_before(min(count * hop, max(0.0, seconds - window - 1)))
    done = (count - 1) * hop + window if count else 0.0
    if not count or seconds - done > NOTHING:
        start = max(0.0, seconds - window)
        yield Window(start, seconds, {rate: one.cut(start, window) for rate, one in held.items()})


class _Held:
    """The samples of a recording at one rate that are still needed."""

    def __init__(self, rate: int) -> None:
        self._rate, self._first = rate, 0
        self._samples = np.empty(0, np.float32)

    def append(self, samples: np.ndarray) -> None:
        self._samples = np.concatenate([self._samples, samples])

    def reaches(self, seconds: float) -> bool:
        return self._first + len(self._samples) >= round(seconds * self._rate)

    def cut(self, start: float, length: float) -> np.ndarray:
        """A copy of the samples from `start` on, at least one."""
        first = min(round(start * self._rate) - self._first, len(self._samples) - 1)
        found = self._samples[max(0, first) : max(0, first) + max(1, round(length * self._rate))]
        return found.copy() if len(found) else np.zeros(1, np.float32)

    def drop_before(self, seconds: float) -> None:
        """Forget the samples before a time."""
        count = min(round(seconds * self._rate) - self._first, len(self._samples))
        if count > 0:
            self._samples = self._samples[count:]
            self._first += count
