"""Mix channels down and judge their levels: silence, cancelling or dead channels, wrong scale, clipping, offset.

Conventions: levels are of samples in [-1, 1], where a 16-bit file has steps of 1 / 32768. Channels are averaged; where
they cancel each other, which is decided for each second of a recording, its loudest channel is used instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fsat.errors import AudioError, count, printable

SILENT = "silent"
NO_LABEL = "no label"
"""Note of a clip that was heard, and whose scores are all below the minimum of a tag."""

STEP = 1 / 32768
QUIET = 1.5 * STEP
"""Half of the range of samples that are silent: digital silence, an offset, or noise in the lowest bit."""

NEAR_SILENCE, OFF_SCALE, OFFSET = 1e-3, 2.0, 0.05
"""Largest peak that is called near silence (-60 dB), peak above which the scale is wrong, and smallest mean that is
called an offset."""

MIN_SAMPLES = 1000
"""Samples from which on a mean is that of the recording, not of a part of a wave."""

FULL_SCALE, CLIPPED = 0.999, 0.001
"""Level that counts as clipped, and the share of such samples that is reported."""

CANCEL = 1e-3
"""Power of the mean of the channels, relative to the mean of their powers, below which they cancel (-30 dB)."""

N_NAMES = 5
"""Names of clips in a line."""

EDGE = 128
"""Samples at both ends of a window that a resampling filter may have changed."""


@dataclass
class Levels:
    """Levels of a recording, collected from its blocks.

    Attributes:
        quiet: half of the range of samples that are silent.
        low, high: of all samples, channels mixed.
        total: sum of all samples.
        n_samples, n_clipped, n_cancelled: of all samples, at full scale, and where one channel was used.
        lows, highs: of each channel, if there are several.
    """

    quiet: float = QUIET
    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0
    n_samples: int = 0
    n_clipped: int = 0
    n_cancelled: int = 0
    lows: np.ndarray | None = None
    highs: np.ndarray | None = None

    def mix(self, samples: np.ndarray, samplerate: int) -> np.ndarray:
        """Mix a block down, float32 (n, channels) -> (n,), and add its levels; n >= 1.

        Raises `AudioError` if samples are NaN or infinite.
        """
        is_mono = samples.shape[1] == 1
        mono = np.ascontiguousarray(samples[:, 0]) if is_mono else self._mix_channels(samples, samplerate)
        low, high = float(mono.min()), float(mono.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise AudioError("NaN or infinite samples")
        self.low, self.high = min(self.low, low), max(self.high, high)
        with np.errstate(all="ignore"):
            self.total += float(mono.sum())
        self.n_samples += len(mono)
        if max(-low, high) >= FULL_SCALE:
            self.n_clipped += int(np.count_nonzero(mono >= FULL_SCALE) + np.count_nonzero(mono <= -FULL_SCALE))
        return mono

    def _mix_channels(self, samples: np.ndarray, samplerate: int) -> np.ndarray:
        mono = np.ascontiguousarray(samples.mean(axis=1, dtype=np.float32))
        lows, highs = samples.min(axis=0), samples.max(axis=0)
        self.lows = lows if self.lows is None else np.minimum(self.lows, lows)
        self.highs = highs if self.highs is None else np.maximum(self.highs, highs)
        starts = np.arange(0, len(mono), samplerate)
        with np.errstate(all="ignore"):  # samples that are not finite
            power = np.add.reduceat(np.square(mono), starts)
            of_channels = np.add.reduceat(np.square(samples), starts, axis=0)
            cancelled = power < CANCEL * of_channels.mean(axis=1)
        for i in np.flatnonzero(cancelled):
            second = slice(starts[i], starts[i] + samplerate)
            if np.abs(samples[second]).max() > self.quiet:
                mono[second] = samples[second, int(of_channels[i].argmax())]
                self.n_cancelled += len(mono[second])
        return mono

    @property
    def is_silent(self) -> bool:
        """Whether the recording has no sound."""
        return self.high - self.low <= 2 * self.quiet

    def notes(self) -> list[str]:
        """Return what is odd about the levels, in words; the part before the first bracket or colon is the kind."""
        peak, mean = max(-self.low, self.high), self.total / max(1, self.n_samples)
        if self.is_silent:
            offset = f" ({_offset(mean)})" if abs(mean) > OFFSET else ""
            return [f"{SILENT}{offset}"]
        notes = []
        if self.n_cancelled:
            share = f"{100 * self.n_cancelled / self.n_samples:.0f} % of the time"
            notes.append(f"channels cancel ({share}): the loudest one is used there")
        if self.lows is not None and self.highs is not None:
            dead = int(np.count_nonzero(self.highs - self.lows <= 2 * self.quiet))
            notes += [f"dead channel ({dead} of {len(self.lows)})"] if dead else []
        if peak > OFF_SCALE:
            notes.append(f"off scale (peak {peak:.3g}, expected at most 1)")
        elif peak < NEAR_SILENCE:
            notes.append(f"near silence (peak {20 * math.log10(peak):.0f} dB)")
        elif self.n_clipped > CLIPPED * self.n_samples:
            notes.append(f"clipped ({100 * self.n_clipped / self.n_samples:.2g} % of the samples)")
        if abs(mean) > OFFSET and peak <= OFF_SCALE and self.n_samples >= MIN_SAMPLES:
            notes.append(_offset(mean))
        return notes


def _offset(mean: float) -> str:
    return f"DC offset (mean {mean:.2f})"


SEPARATOR = "; "
"""Between the notes of a clip."""


def by_kind(fnames: Iterable[str], notes: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of clips by kind of note, most frequent first; `notes` are joined by `SEPARATOR`."""
    kinds: dict[str, list[str]] = {}
    for fname, joined in zip(fnames, notes, strict=True):
        for note in filter(None, joined.split(SEPARATOR)):
            kinds.setdefault(kind_of(note), []).append(fname)
    return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))


def kind_of(note: str) -> str:
    """Return the kind of a note: the part before the first bracket or colon."""
    return re.split(r" \(|:", note)[0]


def kind_lines(kinds: dict[str, list[str]]) -> list[str]:
    """Return a line for each kind of note: ``silent: 2 clips: a.wav, b.wav``, with the first names."""
    lines = []
    for kind, names in kinds.items():
        ellipsis = ", ..." if len(names) > N_NAMES else ""
        lines.append(f"{kind}: {count(len(names), 'clip')}: {', '.join(map(printable, names[:N_NAMES]))}{ellipsis}")
    return lines


def is_silent(samples: np.ndarray, quiet: float = QUIET, ratio: float = 1.0) -> bool:
    """Return whether a window, float32 (n,), is silent, apart from the ends that resampling may have changed.

    `ratio` is the rate of the samples divided by that of the file. Resampled noise exceeds its range, not its power.
    """
    edge = math.ceil(EDGE * max(1.0, ratio))
    inner = samples[edge:-edge] if len(samples) > 4 * edge else samples
    return bool(inner.max() - inner.min() <= 6 * quiet and inner.std() <= quiet)
