"""From a file's bytes to mono float32 samples, and from samples to fixed-length crops.

Conventions: samples are float32 in about [-1, 1], mono (channels are averaged), at a rate in Hz. libsndfile reads WAV,
FLAC, OGG and MP3 of any width and channel count; soxr resamples ("HQ", librosa's default). A file is read block by
block, so that neither many channels nor a header that promises too much takes memory; resampled in blocks, samples are
the same to the last bit. Unusable audio raises `AudioError` with the reason; the caller names the file.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from fsat.errors import AudioError

if TYPE_CHECKING:
    import soundfile as sf

Source = str | PathLike[str] | bytes | bytearray | memoryview
"""A path, or the bytes of an audio file."""

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
"""Names that a folder is searched for when clips are tagged."""

LONGEST = 3600.0
"""Seconds of the longest clip that can be trained on; what is longer is a recording, and no clip."""

BLOCK = 1 << 21
"""Samples, of all channels together or as resampled, that are made at once: 47 s of mono at 44.1 kHz."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself: length in samples per channel, rate in Hz."""

    frames: int
    samplerate: int


UNKNOWN = 1 << 50
"""Samples that a header says when it does not know them, or more."""

WHOLE = 0.98
"""Share of the samples that a header promises which must be there."""


def read_header(path: str | PathLike[str]) -> Header:
    """Read a file's header, without decoding its samples unless it does not know how many there are.

    Raises:
        AudioError: the file cannot be opened as audio, has no samples, or says that it is longer than `LONGEST`.
    """
    with _opened(path) as file:
        if file.frames < 1:
            raise AudioError("no samples in it")
        _check_whole(file.extra_info)
        _check_length(file.frames, file.samplerate, LONGEST)
        frames, rate = file.frames, file.samplerate
    if frames >= UNKNOWN:
        frames = sum(len(block.mono) for block in blocks(path, [rate], LONGEST))
    return Header(frames, rate)


def decode(source: Source, sampling_rate: int, max_seconds: float = LONGEST) -> np.ndarray:
    """Read, mix down and resample one clip.

    Args:
        source: a path, or the bytes of an audio file.
        sampling_rate: the rate wanted, in Hz.
        max_seconds: length of the longest clip that is taken.

    Returns:
        float32 (n_samples,), n_samples >= 1.

    Raises:
        AudioError: the audio is unreadable, has no samples, holds NaN or infinite samples, or is too long.
    """
    return decode_at(source, [sampling_rate], max_seconds)[sampling_rate]


def decode_at(source: Source, rates: Sequence[int], max_seconds: float = LONGEST) -> dict[int, np.ndarray]:
    """As `decode`, at several rates, of which each is what `decode` makes.

    Returns:
        by rate float32 (n_samples,), n_samples >= 1.
    """
    parts: dict[int, list[np.ndarray]] = {rate: [] for rate in rates}
    first = np.zeros(1, np.float32)
    for i, block in enumerate(blocks(source, rates, max_seconds)):
        if not i:
            first = block.mono[:1].copy()
        for rate, samples in block.at.items():
            parts[rate].append(samples)
    whole = {rate: some[0] if len(some) == 1 else np.concatenate(some) for rate, some in parts.items()}
    # a clip may be shorter than one sample at the new rate
    return {rate: np.ascontiguousarray(samples if len(samples) else first) for rate, samples in whole.items()}


@dataclass(frozen=True)
class Block:
    """A piece of a recording.

    Attributes:
        mono: float32 (n,), at the file's own rate.
        samplerate: that rate, in Hz.
        at: by rate asked for float32 (m,), the samples that have come out of the resampler so far.
        last: whether it is the recording's last.
    """

    mono: np.ndarray
    samplerate: int
    at: dict[int, np.ndarray]
    last: bool


def blocks(source: Source, rates: Sequence[int], max_seconds: float = math.inf) -> Iterator[Block]:
    """Read a recording of any length piece by piece, in memory that does not grow with it.

    Args:
        source: a path, or the bytes of an audio file.
        rates: in Hz, those that the samples are wanted at.
        max_seconds: length of the longest recording that is taken.

    Yields:
        blocks that together have at each rate what `decode` makes of the whole.

    Raises:
        AudioError: as for `decode`.
    """
    import soxr

    with _opened(source) as file:
        log, rate = file.extra_info, file.samplerate
        if file.frames < 1:
            raise AudioError("no samples in it")
        _check_whole(log)
        _check_length(file.frames, rate, max_seconds)
        size = max(1, min(BLOCK // file.channels, BLOCK * rate // max(rates)))
        streams: dict[int, soxr.ResampleStream] = {}
        seen, mono = 0, _read_mono(file, min(size, file.frames))
        if not len(mono):
            raise AudioError("no samples in it")
        while len(mono):
            seen += len(mono)
            _check_length(seen, rate, max_seconds)
            following = _read_mono(file, min(size, file.frames - seen))
            last = not len(following)
            at = {}
            for wanted in rates:
                if wanted == rate:
                    at[wanted] = mono
                elif last and not streams.get(wanted):
                    at[wanted] = _finite(soxr.resample(mono, rate, wanted, quality="HQ"))
                else:
                    if wanted not in streams:
                        streams[wanted] = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ")
                    at[wanted] = _finite(streams[wanted].resample_chunk(mono, last=last))
            yield Block(mono, rate, at, last)
            mono = following
        if seen < WHOLE * file.frames < UNKNOWN and (file.format != "MP3" or _counts_frames(source)):
            raise AudioError(f"truncated: the header promises {file.frames} samples, there are {seen}")


def even_starts(n_samples: int, length: int, count: int) -> list[int]:
    """Where the fixed crops for prediction begin: `count` evenly spaced ones, or the whole clip once.

    Args:
        n_samples: the clip's length, at least 1.
        length: a crop's length.
        count: crops of a clip that is longer than one.

    Returns:
        first samples; a clip that is shorter than a crop starts before 0, so that it lies centred in zeros.
    """
    spare = n_samples - length
    if spare <= 0:
        return [-(-spare // 2)]
    return [spare // 2] if count == 1 else np.linspace(0, spare, count).round().astype(int).tolist()


@contextmanager
def _opened(source: Source) -> Iterator[sf.SoundFile]:
    """An open audio file; what libsndfile says against it, then or later, becomes an `AudioError`."""
    import soundfile as sf

    class Stream(sf.SoundFile):
        """Read from front to back; else soundfile seeks after every read, which not every file can."""

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
        raise AudioError(f"unreadable audio ({_brief(error)})") from error
    finally:
        if isinstance(handle, int):
            os.close(handle)


def _open_regular(path: str | PathLike[str]) -> int:
    """A descriptor of a file that has bytes in it; a fifo or a device is refused, not waited for."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise AudioError("missing file") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"unreadable file ({getattr(error, 'strerror', None) or error})") from error
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return handle
    os.close(handle)
    raise AudioError("empty file" if stat.S_ISREG(status.st_mode) else "not a regular file")


def _counts_frames(source: Source) -> bool:
    """Whether an MP3 says how long it is, in a Xing or Info header; else its length is an estimate."""
    with io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else open(source, "rb") as file:
        start = file.read(10)
        if start[:3] == b"ID3":  # a tag, whose length has 7 bits a byte
            file.seek(sum(byte << 7 * i for i, byte in enumerate(reversed(start[6:]))), io.SEEK_CUR)
        start = file.read(1024)
    return b"Xing" in start or b"Info" in start


def _read_mono(file: sf.SoundFile, n_frames: int) -> np.ndarray:
    """The next samples of all channels, averaged: float32 (n,), fewer than `n_frames` at the end."""
    samples = file.read(n_frames, dtype="float32", always_2d=True)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    return _finite(np.ascontiguousarray(mono))


def _finite(samples: np.ndarray) -> np.ndarray:
    if not np.isfinite(samples).all():
        raise AudioError("NaN or infinite samples")
    return samples


def _check_length(frames: int, samplerate: int, max_seconds: float) -> None:
    if max_seconds * samplerate < frames < UNKNOWN:
        raise AudioError(f"longer than max_seconds={max_seconds:g}: {frames / samplerate:.0f} s")


def _check_whole(log: str) -> None:
    """Refuse a WAV that broke off: libsndfile's log says ``data : 88200 (should be 39956)``.

    A recorder that writes into a pipe does not know the length and writes the greatest number: that is no fault.
    """
    for promised, there in re.findall(r"^data\s*: (\d+) \(should be (\d+)\)", log, re.MULTILINE):
        if int(there) < int(promised) < 0x7FFFF000:
            raise AudioError(f"truncated: the header promises {promised} bytes of samples, there are {there}")


def _brief(error: Exception) -> str:
    """The last part of a library's message, on one line and without the path that it repeats."""
    return " ".join(str(error).split()).rsplit(": ", 1)[-1].rstrip(".") or type(error).__name__
