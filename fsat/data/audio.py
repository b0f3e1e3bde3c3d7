"""Decode audio files to mono float32 samples.

Conventions: samples are float32 in about [-1, 1], mono (channels are averaged), at a rate in Hz. libsndfile reads WAV,
FLAC, OGG and MP3 of any width and channel count; soxr resamples ("HQ", librosa's default). A file is read in blocks, so
that neither many channels nor a header with a wrong length takes memory; samples resampled in blocks are the same to
the last bit. Unusable audio raises `AudioError` with the reason; the caller names the file.
"""

from __future__ import annotations

import errno
import io
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from fsat.errors import AudioError, count

if TYPE_CHECKING:
    import soundfile as sf

AudioSource = str | PathLike[str] | bytes | bytearray | memoryview  # a path, or the bytes of an audio file
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")  # of the files in a folder that are tagged
LONGEST = 3600.0  # maximum length in seconds of a clip to train on; longer files are recordings
BLOCK = 1 << 21  # samples of a block, of all channels together or as resampled: 47 s of mono at 44.1 kHz
UNKNOWN = 1 << 50  # number of samples, or more, in a header that does not know it
WHOLE = 0.98  # share of the samples in the header that a file must have
SINE_RATE = 44100  # sampling rate of `sine` in Hz


@dataclass(frozen=True)
class Header:
    """Length of a file in samples per channel, and its rate in Hz."""

    frames: int
    samplerate: int


def read_header(path: str | PathLike[str]) -> Header:
    """Read a file's header; decode the samples only to count them, if the header does not.

    Raises `AudioError` if the file cannot be opened as audio, has no samples, or is longer than `LONGEST`.
    """
    with _opened(path) as file:
        _check_header(file, LONGEST)
        frames, rate = file.frames, file.samplerate
    if frames >= UNKNOWN:
        frames = sum(len(block.mono) for block in blocks(path, [rate], LONGEST))
    return Header(frames, rate)


def decode(source: AudioSource, sampling_rate: int, max_seconds: float = LONGEST) -> np.ndarray:
    """Read, mix down and resample one clip: float32 (n_samples,), n_samples >= 1, at `sampling_rate` in Hz.

    Raises `AudioError` if the audio is unreadable, has no samples, holds NaN or infinite samples, or is too long.
    """
    return decode_at(source, [sampling_rate], max_seconds)[sampling_rate]


def decode_at(source: AudioSource, rates: Sequence[int], max_seconds: float = LONGEST) -> dict[int, np.ndarray]:
    """Return the result of `decode` for each of several rates, reading the file once."""
    parts: dict[int, list[np.ndarray]] = {rate: [] for rate in rates}
    first = np.zeros(0, np.float32)  # for a clip that is shorter than one sample at the new rate
    for block in blocks(source, rates, max_seconds):
        first = first if len(first) else block.mono[:1].copy()
        for rate, samples in block.at.items():
            parts[rate].append(samples)
    whole = {rate: part[0] if len(part) == 1 else np.concatenate(part) for rate, part in parts.items()}
    return {rate: np.ascontiguousarray(samples if len(samples) else first) for rate, samples in whole.items()}


@dataclass(frozen=True)
class Block:
    """A part of a recording: float32 (n,) at the file's own rate in Hz, and (m,) at each requested rate."""

    mono: np.ndarray
    samplerate: int
    at: dict[int, np.ndarray]
    last: bool


def blocks(source: AudioSource, rates: Sequence[int], max_seconds: float = math.inf) -> Iterator[Block]:
    """Read a recording of any length in blocks, in memory that does not grow with it; raises as `decode`.

    Together they have at each of the rates, in Hz, the samples that `decode` returns.
    """
    with _opened(source) as file:
        _check_header(file, max_seconds)
        rate = file.samplerate
        size = max(1, min(BLOCK // file.channels, BLOCK * rate // max(rates)))
        streams: dict[int, Any] = {}
        seen, mono = 0, _read_mono(file, min(size, file.frames))
        if not len(mono):
            raise AudioError("no samples in it")
        while len(mono):
            seen += len(mono)
            _check_length(seen, rate, max_seconds)
            following = _read_mono(file, min(size, file.frames - seen))
            last = not len(following)
            yield Block(mono, rate, {to: _resample(mono, rate, to, last, streams) for to in rates}, last)
            mono = following
        if seen < WHOLE * file.frames < UNKNOWN and (file.format != "MP3" or _counts_frames(source)):
            raise AudioError(f"truncated: expected {count(file.frames, 'sample')} as in the header, got {seen}")


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


@contextmanager
def _opened(source: AudioSource) -> Iterator[sf.SoundFile]:
    """Open an audio file; errors of libsndfile, then or later, become an `AudioError`."""
    import soundfile as sf

    class Stream(sf.SoundFile):  # type: ignore[misc]  # soundfile has no types
        """Read from front to back: soundfile seeks after every read of a seekable file, which not every file can."""

        def seekable(self) -> bool:
            return False

    if isinstance(source, bytes | bytearray | memoryview):
        if not len(source):
            raise AudioError("empty file")
        handle: int | io.BytesIO = io.BytesIO(source)
    else:
        handle = _open_regular(source)
    try:
        with Stream(handle, closefd=False) as file:
            yield file
    except (sf.SoundFileError, OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split()).rsplit(": ", 1)[-1].rstrip(".")  # without the path
        raise AudioError(f"unreadable audio ({reason or type(error).__name__})") from error
    finally:
        if isinstance(handle, int):
            os.close(handle)


def _open_regular(path: str | PathLike[str]) -> int:
    """Return a descriptor of a file with bytes in it; a fifo or a device is refused without waiting for it."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise AudioError("missing file") from None
    except (OSError, ValueError) as error:
        if getattr(error, "errno", 0) == errno.ENXIO:
            raise AudioError("not a regular file") from error  # a socket
        raise AudioError(f"unreadable file ({getattr(error, 'strerror', None) or error})") from error
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return handle
    os.close(handle)
    raise AudioError("empty file" if stat.S_ISREG(status.st_mode) else "not a regular file")


def _counts_frames(source: AudioSource) -> bool:
    """Return whether an MP3 has its length in a Xing or Info header; otherwise libsndfile estimates it."""
    with io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else open(source, "rb") as file:
        start = file.read(10)
        if start[:3] == b"ID3":  # a tag, whose length has 7 bits per byte
            file.seek(sum(byte << 7 * i for i, byte in enumerate(reversed(start[6:]))), io.SEEK_CUR)
        start = file.read(1024)
    return b"Xing" in start or b"Info" in start


def _read_mono(file: sf.SoundFile, n_frames: int) -> np.ndarray:
    """Return the next samples, channels averaged: float32 (n,), fewer than `n_frames` at the end."""
    samples = file.read(n_frames, dtype="float32", always_2d=True)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    return _finite(np.ascontiguousarray(mono))


def _finite(samples: np.ndarray) -> np.ndarray:
    if not np.isfinite(samples).all():
        raise AudioError("NaN or infinite samples")
    return samples


def _check_header(file: sf.SoundFile, max_seconds: float) -> None:
    """Raise `AudioError` for a file that is empty, broken off, or too long by its header.

    libsndfile's log says ``data : 88200 (should be 39956)`` of a WAV that was broken off. A recorder that writes into a
    pipe does not know the length and writes the greatest number, which is not a fault.
    """
    if file.frames < 1:
        raise AudioError("no samples in it")
    for promised, actual in re.findall(r"^data\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE):
        if int(actual) < int(promised) < 0x7FFFF000:
            raise AudioError(f"truncated: expected {promised} bytes of samples as in the header, got {actual}")
    _check_length(file.frames, file.samplerate, max_seconds)


def _check_length(frames: int, samplerate: int, max_seconds: float) -> None:
    if max_seconds * samplerate < frames < UNKNOWN:
        raise AudioError(f"longer than max_seconds={max_seconds:g}: {frames / samplerate:.0f} s")
