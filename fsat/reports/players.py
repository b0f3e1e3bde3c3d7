"""Clips as small MP3 files, for players in a page.

MP3 is what every browser plays; libsndfile writes it. Clips are mono at 44.1 kHz, whatever the file has, and at most
`LISTEN_SECONDS` long, so that a page with hundreds of players stays small.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile as sf

from fsat.data.audio import blocks

RATE = 44100
"""In Hz; one of those that MP3 has."""

LISTEN_SECONDS = 10.0
"""What is played of a longer clip: its beginning."""

QUALITY = 0.6
"""libsndfile's compression level, from 0 (large) to 1 (small); variable bit rate."""


def mp3_of(path: Path, seconds: float = LISTEN_SECONDS) -> bytes:
    """The first seconds of a clip as an MP3 file.

    Raises:
        AudioError: the file cannot be used as a clip.
    """
    wanted, parts, there = round(seconds * RATE), [], 0
    for block in blocks(path, [RATE]):
        parts.append(block.at[RATE])
        there += len(parts[-1])
        if there >= wanted:
            break
    samples = np.clip(np.concatenate(parts)[:wanted], -1, 1)
    file = io.BytesIO()
    with sf.SoundFile(file, "w", RATE, 1, format="MP3", bitrate_mode="VARIABLE", compression_level=QUALITY) as mp3:
        mp3.write(samples)
    return file.getvalue()
