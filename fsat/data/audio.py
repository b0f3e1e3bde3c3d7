"""Decode audio files to mono float32 samples.

Conventions: samples are float32 in about [-1, 1], mono (see `fsat.data.levels`), at a rate in Hz. `fsat.data.recording`
reads files; soxr resamples ("HQ", librosa's default). A file is read in blocks, so that neither many channels nor a
header with a wrong length takes memory; samples resampled in blocks are the same to the last bit. Unusable audio raises
`AudioError` with the reason; the caller names the file.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from fsat.data.byte_source import AudioSource, ByteSource
from fsat.data.levels import Levels
from fsat.data.recording import CutOff, Recording
from fsat.errors import AudioError

LONGEST = 3600.0  # maximum length in seconds of a clip to train on; longer files are recordings
BLOCK = 1 << 21  # samples of a block, of all channels together or as resampled: 47 s of mono at 44.1 kHz
TOO_LONG = "longer than"  # beginning of an error
SINE_RATE = 44100  # sampling rate of `sine` in Hz


@dataclass(frozen=True)
class Header:
    """Length of a file in samples per channel, and its rate in Hz."""

    frames: int
    samplerate: int


def read_header(path: str | PathLike[str]) -> Header:
    """Read a file's header; decode the samples only to count them, if the header does not.

    Raises `AudioError` if the file cannot be opened as audio, has no samples, is cut off, or is longer than `LONGEST`.
    """
    with closing(ByteSource(path)) as source, closing(Recording(source)) as recording:
        rate, frames = recording.samplerate, recording.frames
        if fault := recording.fault_of_header():
            raise AudioError(fault)
        _check_length(frames, rate, LONGEST)
    if not frames:
        frames = sum(len(block.mono) for block in blocks(path, [rate], LONGEST))
    return Header(frames, rate)


def rate_of(source: AudioSource) -> int:
    """Return a file's sampling rate in Hz; raise `AudioError` if it is no audio."""
    with closing(ByteSource(source)) as opened, closing(Recording(opened)) as recording:
        return recording.samplerate


def length_of(source: AudioSource) -> float:
    """Return a file's length in seconds by its header, infinite if unknown; raise `AudioError` if it is no audio."""
    with closing(ByteSource(source)) as opened, closing(Recording(opened)) as recording:
        return recording.frames / recording.samplerate if recording.frames else math.inf


def whole_length_of(source: AudioSource) -> float:
    """Return what `length_of` returns, but infinite if a part of the file is missing."""
    with closing(ByteSource(source)) as opened, closing(Recording(opened)) as recording:
        is_known = recording.frames and not recording.fault_of_header()
        return recording.frames / recording.samplerate if is_known else math.inf


def decode(source: AudioSource, sampling_rate: int, max_seconds: float = LONGEST) -> np.ndarray:
    """Read, mix down and resample one clip: float32 (n_samples,), n_samples >= 1, at `sampling_rate` in Hz.

    Raises `AudioError` if the audio is unreadable, has no samples, holds NaN or infinite samples, is cut off, or is too
    long.
    """
    heard = hear(source, [sampling_rate], max_seconds)
    if heard.fault:
        raise AudioError(heard.fault)
    return heard.at[sampling_rate]


@dataclass(frozen=True)
class Heard:
    """A decoded clip.

    Attributes:
        at: the samples at each requested rate, float32 (n,), n >= 1.
        notes: what is odd about the file or its levels, in words; see `fsat.data.levels.Levels.notes`.
        fault: why there are not more samples; empty if nothing is missing.
        is_silent: whether there is no sound in the samples.
    """

    at: dict[int, np.ndarray]
    notes: tuple[str, ...] = ()
    fault: str = ""
    is_silent: bool = False


def hear(source: AudioSource, rates: Sequence[int], max_seconds: float = LONGEST) -> Heard:
    """Read the file once, and return the samples at each of several rates, in Hz, as far as they can be read.

    Raises `AudioError` if there are none, or too many.
    """
    parts: dict[int, list[np.ndarray]] = {rate: [] for rate in rates}
    first, fault, report = np.zeros(0, np.float32), "", Report()
    try:
        for block in blocks(source, rates, max_seconds, report):
            first = first if len(first) else block.mono[:1].copy()
            for rate, samples in block.at.items():
                parts[rate].append(samples)
    except CutOff as error:
        fault = str(error)
        if not len(first):
            raise
    whole = {rate: part[0] if len(part) == 1 else np.concatenate(part) for rate, part in parts.items()}
    # a clip that is shorter than one sample at the new rate has one
    at = {rate: np.ascontiguousarray(samples if len(samples) else first) for rate, samples in whole.items()}
    return Heard(at, tuple(report.notes), fault, report.levels.is_silent)


class Report:
    """What `blocks` finds out about a recording: its levels so far, and after the last block, in words, what is odd."""

    def __init__(self) -> None:
        self.levels, self.notes = Levels(), list[str]()


@dataclass(frozen=True)
class Block:
    """A part of a recording: float32 (n,) at the file's own rate in Hz, and (m,) at each requested rate."""

    mono: np.ndarray
    samplerate: int
    at: dict[int, np.ndarray]
    last: bool


def blocks(
    source: AudioSource, rates: Sequence[int], max_seconds: float = math.inf, report: Report | None = None
) -> Iterator[Block]:
    """Read a recording of any length in blocks, in memory that does not grow with it; raises as `decode`.

    Together they have at each of the rates, in Hz, the samples that `decode` returns. An error after some blocks says
    why the rest is missing.
    """
    report = report or Report()
    with closing(ByteSource(source)) as opened, closing(Recording(opened)) as recording:
        rate = recording.samplerate
        _check_length(recording.frames, rate, max_seconds)
        report.levels.quiet = recording.quiet
        size = max(1, min(BLOCK // recording.channels, BLOCK * rate // max(rates, default=rate)))
        size = size // rate * rate or size  # whole seconds, for `Levels`
        streams: dict[int, Any] = {}
        seen = 0
        fault: AudioError | None = None
        parts = _mixed(recording, size, report.levels)
        mono = next(parts, None)
        if mono is None:
            raise AudioError("no samples in it")
        while mono is not None:
            seen += len(mono)
            _check_length(seen, rate, max_seconds)
            try:
                following = next(parts, None)
            except AudioError as error:
                fault, following = error, None
            last = following is None
            yield Block(mono, rate, {to: _resample(mono, rate, to, last, streams) for to in rates}, last)
            mono = following
        report.notes += [*recording.notes, *report.levels.notes()]
        if fault is not None:
            raise fault


def _mixed(recording: Recording, size: int, levels: Levels) -> Iterator[np.ndarray]:
    """Yield a recording's samples, float32 (size,), channels mixed down; the last block is shorter."""
    rest = np.empty((0, recording.channels), np.float32)
    fault: AudioError | None = None
    samples_read = recording.read(size)
    while fault is None:
        try:
            samples = next(samples_read, None)
        except AudioError as error:
            samples, fault = None, error
        if samples is None:
            break
        samples = np.concatenate([rest, samples]) if len(rest) else samples
        n_whole = len(samples) // size * size
        for first in range(0, n_whole, size):
            yield from _mix(samples[first : first + size], recording.samplerate, levels)
        rest = samples[n_whole:]
    if len(rest):
        yield from _mix(rest, recording.samplerate, levels)
    if fault is not None:
        raise fault


def _mix(samples: np.ndarray, samplerate: int, levels: Levels) -> Iterator[np.ndarray]:
    """Yield a block mixed down; raise `AudioError` after the samples before one that is NaN or infinite."""
    try:
        yield levels.mix(samples, samplerate)
    except AudioError:
        n_finite = int(np.argmin(np.isfinite(samples).all(axis=1)))
        if n_finite:
            yield levels.mix(samples[:n_finite], samplerate)
        raise


def _resample(mono: np.ndarray, rate: int, to: int, last: bool, streams: dict[int, Any]) -> np.ndarray:
    """Return the samples that a block gives at another rate; `streams` has the resampler of each rate."""
    import soxr

    if to == rate:
        return mono
    if last and to not in streams:  # a single block
        return _finite(soxr.resample(mono, rate, to, quality="HQ"))
    if to not in streams:
        streams[to] = soxr.ResampleStream(rate, to, 1, dtype="float32", quality="HQ")
    return _finite(streams[to].resample_chunk(mono, last=last))


def _finite(samples: np.ndarray) -> np.ndarray:
    if not np.isfinite(samples).all():
        raise AudioError("NaN or infinite samples")
    return samples


def even_starts(n_samples: int, length: int, count: int) -> list[int]:
    """Return the first samples of the fixed crops for prediction: `count` evenly spaced ones, or the whole clip once.

    They are negative for a clip that is shorter than a crop, so that it is centred in zeros. Starts between two samples
    are rounded, ties to even, in whole numbers, as exported models do.
    """
    spare, gaps = n_samples - length, count - 1
    if spare <= 0:
        return [-(-spare // 2)]
    if not gaps:
        return [spare // 2]
    starts, rest = np.divmod(2 * spare * np.arange(count) + gaps, 2 * gaps)
    return [int(start) for start in starts - ((rest == 0) & (starts % 2 == 1))]


def sine(seconds: float, rate: int = SINE_RATE) -> bytes:
    """Return a 440 Hz sine as a WAV file of 16 bits at a sampling rate in Hz."""
    import soundfile as sf

    buffer = io.BytesIO()
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    sf.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _check_length(frames: int, samplerate: int, max_seconds: float) -> None:
    if frames > max_seconds * samplerate:
        raise AudioError(f"{TOO_LONG} max_seconds={max_seconds:g}: {frames / samplerate:.0f} s")
