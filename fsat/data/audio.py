"""From a file's bytes to mono float32 samples, and from samples to fixed-length crops.

Conventions: samples are float32 in about [-1, 1], mono (channels are averaged), at a rate in Hz. libsndfile reads WAV,
FLAC, OGG and MP3 of any width and channel count; soxr resamples ("HQ", librosa's default). Unusable audio raises
`AudioError` with the reason; the caller names the file.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from os import PathLike

import numpy as np

from fsat.errors import AudioError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
"""Names that a folder is searched for when clips are tagged."""


@dataclass(frozen=True)
class Header:
    """What a file says about itself: length in samples per channel, rate in Hz."""

    frames: int
    samplerate: int


def read_header(path: str | PathLike[str]) -> Header:
    """Read a file's header without decoding its samples.

    Raises:
        AudioError: the file cannot be opened as audio or has no samples.
    """
    import soundfile as sf

    try:
        info = sf.info(str(path), verbose=True)  # for extra_info, libsndfile's log
    except (sf.SoundFileError, OSError, ValueError, TypeError) as error:
        raise AudioError(f"unreadable audio ({_brief(error)})") from error
    if info.frames < 1:
        raise AudioError("no samples in it")
    _check_whole(info.extra_info)
    return Header(info.frames, info.samplerate)


def decode(source: str | PathLike[str] | bytes, sampling_rate: int) -> np.ndarray:
    """Read, mix down and resample one clip.

    Args:
        source: a path, or the bytes of an audio file.
        sampling_rate: the rate wanted, in Hz.

    Returns:
        float32 (n_samples,), n_samples >= 1.

    Raises:
        AudioError: the audio is unreadable, has no samples, or holds NaN or infinite samples.
    """
    import soundfile as sf
    import soxr

    stream = io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else str(source)
    try:
        with sf.SoundFile(stream) as file:
            rate, log = file.samplerate, file.extra_info
            samples = file.read(dtype="float32", always_2d=True)
    except (sf.SoundFileError, OSError, ValueError, TypeError, MemoryError) as error:
        raise AudioError(f"unreadable audio ({_brief(error)})") from error
    if not len(samples):
        raise AudioError("no samples in it")
    _check_whole(log)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    first = mono[:1]
    if rate != sampling_rate and np.isfinite(mono).all():
        mono = soxr.resample(mono, rate, sampling_rate, quality="HQ")
    if not np.isfinite(mono).all():
        raise AudioError("NaN or infinite samples")
    if not len(mono):  # shorter than one sample at the new rate
        mono = first
    return np.ascontiguousarray(mono, dtype=np.float32)


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
