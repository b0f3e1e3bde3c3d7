"""Long recordings, window by window, in memory that does not grow with their length.

Conventions: windows start every `hop` seconds and are `window` long. The last window ends with the recording and has
the same length, unless the recording is shorter. Times are in seconds from the start of the recording.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np

from fsat.data.audio import AudioSource, blocks

ROUNDING_SECONDS = 0.01
"""A rest this short at the end gets no window of its own: it is rounding, not sound."""


class Window(NamedTuple):
    """A piece of a recording: its start and end, and by rate its samples, float32 (n,), n >= 1."""

    start: float
    end: float
    samples: dict[int, np.ndarray]


def windows(
    source: AudioSource, rates: Sequence[int], window: float, hop: float, max_seconds: float = math.inf
) -> Generator[Window]:
    """Yield the windows of a recording, each at several rates, in Hz.

    Args:
        source: a path, or the bytes of an audio file.
        window, hop: length and distance of windows, in seconds, 0 < hop <= window.

    Raises:
        AudioError: the recording cannot be used, or not beyond the windows so far.
    """
    if not 0 < hop <= window < math.inf:
        raise ValueError(f"window={window}, hop={hop}: expected 0 < hop <= window")
    buffers = [_Buffer(rate) for rate in rates]

    def cut(start: float, end: float) -> Window:
        return Window(start, end, {buffer.rate: buffer.cut(start, window) for buffer in buffers})

    n_windows, seconds = 0, 0.0
    for block in blocks(source, rates, max_seconds):
        seconds += len(block.mono) / block.samplerate
        for buffer in buffers:
            buffer.append(block.at[buffer.rate])
        while all(buffer.reaches(n_windows * hop + window) for buffer in buffers):
            start = n_windows * hop
            yield cut(start, start + window)
            n_windows += 1
            for buffer in buffers:
                buffer.drop_before(min(n_windows * hop, max(0.0, seconds - window - 1)))
    covered = (n_windows - 1) * hop + window if n_windows else 0.0
    if not n_windows or seconds - covered > ROUNDING_SECONDS:
        yield cut(max(0.0, seconds - window), seconds)


class _Buffer:
    """The samples of a recording at one rate that later windows need."""

    def __init__(self, rate: int) -> None:
        self.rate, self._first = rate, 0
        self._samples = np.empty(0, np.float32)

    def append(self, samples: np.ndarray) -> None:
        self._samples = np.concatenate([self._samples, samples])

    def reaches(self, seconds: float) -> bool:
        return self._first + len(self._samples) >= round(seconds * self.rate)

    def cut(self, start: float, length: float) -> np.ndarray:
        """Return a copy of the samples of `length` seconds from `start` on, at least one sample."""
        first = max(0, min(round(start * self.rate) - self._first, len(self._samples) - 1))
        samples = self._samples[first : first + max(1, round(length * self.rate))]
        return samples.copy() if len(samples) else np.zeros(1, np.float32)

    def drop_before(self, seconds: float) -> None:
        n_samples = max(0, min(round(seconds * self.rate) - self._first, len(self._samples)))
        self._samples, self._first = self._samples[n_samples:], self._first + n_samples
