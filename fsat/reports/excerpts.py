"""Players of pieces of recordings, of any length, as small MP3 files inside a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile as sf

from fsat.data.audio import blocks
from fsat.data.clip_names import stored_name
from fsat.errors import AudioError, printable
from fsat.metrics.evaluation import Mistake
from fsat.reports.players import LISTEN_SECONDS, MP3_RATE, REPORT_BYTES, Sound, write_mp3

MARGIN = 1.0
"""Seconds that a player has before and after the sound."""


def clock(seconds: float) -> str:
    """Return a time in a recording: ``0:01:02.5``."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes // 60)}:{int(minutes % 60):02d}:{rest:04.1f}"


def cut(path: Path, spans: Sequence[tuple[float, float]]) -> list[np.ndarray]:
    """Return the samples of pieces of a recording at `MP3_RATE`; it is read once, up to the end of the last piece.

    Of a recording that cannot be read so far, the pieces have what can be read. Raises `AudioError` if that is nothing.
    """
    edges = [(round(start * MP3_RATE), round(end * MP3_RATE)) for start, end in spans]
    parts: list[list[np.ndarray]] = [[] for _ in spans]
    position, last = 0, max(end for _, end in edges)
    try:
        for block in blocks(path, [MP3_RATE], math.inf):
            samples = block.at[MP3_RATE]
            for part, (start, end) in zip(parts, edges, strict=True):
                part.append(samples[max(0, start - position) : max(0, end - position)])
            position += len(samples)
            if position >= last:
                break
    except AudioError:
        if not position:
            raise
    return [np.concatenate(part) for part in parts]


def sounds_of(mistakes: Sequence[Mistake], root: Path, instead: str, max_bytes: int = REPORT_BYTES) -> list[Sound]:
    """Return mistakes with their recordings, times, scores and players, as far as these fit into `max_bytes`.

    `root` is the folder of the recordings; `instead` says what the other labels of a mistake are.
    """
    clips: dict[Mistake, np.ndarray | str] = {}
    for name in dict.fromkeys(mistake.recording for mistake in mistakes):
        own = [mistake for mistake in mistakes if mistake.recording == name]
        try:
            pieces = cut(root / stored_name(root, name), [_span(mistake) for mistake in own])
        except AudioError as error:
            clips |= dict.fromkeys(own, f"cannot be played: {printable(error)}")
        else:
            clips |= zip(own, pieces, strict=True)
    sounds = []
    for mistake in mistakes:
        event, others = mistake.event, ", ".join(mistake.instead) or "nothing"
        notes = [f"{printable(mistake.recording)} at {clock(event.start)}, {event.end - event.start:.1f} s",
                 f"score {mistake.score:.2f}; {instead}: {others}"]  # fmt: skip
        mp3, note = _encoded(clips[mistake], max_bytes)
        max_bytes -= len(mp3 or b"")
        sounds.append(Sound(event.label, notes + [note] * bool(note), mp3))
    return sounds


def _span(mistake: Mistake) -> tuple[float, float]:
    """Return the time that is played: at most `LISTEN_SECONDS`, from a little before the sound on."""
    start = max(0.0, mistake.event.start - MARGIN)
    return start, min(mistake.event.end + MARGIN, start + LISTEN_SECONDS)


def _encoded(clip: np.ndarray | str, max_bytes: int) -> tuple[bytes | None, str]:
    """Return an MP3 file, or why there is none."""
    if isinstance(clip, str):
        return None, clip
    if not len(clip):
        return None, "cannot be played: the recording ends before it"
    try:
        mp3 = write_mp3(clip)
    except sf.SoundFileError as error:
        return None, f"libsndfile cannot write MP3 ({printable(error)})"
    return (mp3, "") if len(mp3) <= max_bytes else (None, "no player: the page would be too large")
