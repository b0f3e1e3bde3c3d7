"""The clips of a request: in groups that fit into memory, and some to begin with."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fsat.config import Config
from fsat.serving.limits import Limits

RATE = 44100


def groups(sources: Sequence[Any], max_seconds: float) -> Iterator[slice]:
    """Clips that are decoded at the same time: as many as last `max_seconds` together, by their headers; or one.

    Args:
        sources: the bytes of audio files, or anything else, which lasts no time.
        max_seconds: length of the longest clip that is decoded.
    """
    start, total = 0, 0.0
    for i, source in enumerate(sources):
        seconds = min(_seconds(source), max_seconds)
        if i > start and total + seconds > max_seconds:
            yield slice(start, i)
            start, total = i, 0.0
        total += seconds
    if len(sources) > start:
        yield slice(start, len(sources))


def _seconds(source: Any) -> float:
    """The length that a file's header says it has, and beyond which nothing is read; 0 if it cannot be read."""
    import soundfile as sf

    try:
        with sf.SoundFile(io.BytesIO(source)) as file:
            return max(0, file.frames) / max(1, file.samplerate)
    except (sf.SoundFileError, OSError, ValueError, TypeError, RuntimeError, MemoryError):
        return 0.0


def first_sounds(configs: Sequence[Config]) -> list[bytes]:
    """WAV files whose tagging is all that there is to do: one that is padded, and one that has every crop."""
    short = min(config.audio_duration for config in configs) / 2
    long = max(max(config.audio_duration, config.eval_duration) for config in configs) + 1
    return [_sine(short), _sine(long)]


def first_request(limits: Limits) -> bytes:
    """A right request with a clip of 5 s, or as long as the limits allow."""
    seconds = min(5, limits.max_seconds, limits.max_bytes / (4 * RATE))  # base64 has 2.7 bytes for each sample
    return json.dumps({"dataframe_records": [{"audio": base64.b64encode(_sine(seconds)).decode()}]}).encode()


def _sine(seconds: float) -> bytes:
    import soundfile as sf

    buffer = io.BytesIO()
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)
    sf.write(buffer, samples, RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
