"""Answers to the page's requests: sounds in, HTML out.

Conventions: `Tagger.scores` tags the sounds, as in `predict`, so labels and scores are the same. One lock guards the
tagger and the drawing, which are not meant for several threads. It is released between the batches of a long list, so
that other visitors do not wait for hundreds of files. jinja2 escapes every text (file names, labels, errors). Scores
are shown with three digits; ``<data>`` holds six, as the downloaded table does. Times are in seconds.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader

from fsat import interrupts
from fsat.data.audio import LONGEST, hear, rate_of
from fsat.data.levels import SEPARATOR
from fsat.errors import AudioError, count, printable
from fsat.metrics.ranking import top_k
from fsat.options import LONGEST_CLIP, check_options, option
from fsat.tagging.recordings import ScoredWindow, Segment, segments
from fsat.tagging.tables import Tags, csv_of
from fsat.tagging.tagger import notes_of

if TYPE_CHECKING:
    from fsat.app.pictures import Picture
    from fsat.tagging import Tagger

BATCH_SIZE = 8
"""Sounds of a list that are tagged together."""

LONG_SOUND = 2.0
"""Sounds of at least this many crops get tags over time."""

MAX_RATE = 32000
"""Maximum sampling rate of the pictures, in Hz."""


@dataclass(frozen=True)
class Limits:
    """Limits of a sound; a value out of range raises `ConfigError`."""

    max_mb: float = option(100.0, "Size of a file, in MB of 1,000,000 bytes", above=0)
    max_seconds: float = option(LONGEST_CLIP, "Length of a sound, in seconds", above=0, most=LONGEST)

    def __post_init__(self) -> None:
        check_options(self)


class Sound(NamedTuple):
    """An uploaded file: its path on the server and the name that the visitor gave it."""

    path: str
    name: str


class TagHandler:
    """Tags the sounds of all visitors with one tagger, `top_k` labels per sound.

    Windows for tags over time are as long as the longest crop of the tagger's models: `window` seconds.
    """

    def __init__(self, tagger: Tagger, limits: Limits, top_k: int) -> None:
        self._tagger, self.limits, self.top_k, self.labels = tagger, limits, top_k, tagger.labels
        self._lock = threading.Lock()
        self.window = max(member.config.audio_duration for member in tagger.members)

    def answer(self, sounds: Sequence[Sound], progress: Callable[[int, int], object] = lambda done, total: None) -> str:
        """Return the page's answer: one sound with pictures, several as a table; report progress as (done, total)."""
        if not sounds:
            return render("answer.html", message="No sound yet: choose or record one.")
        tagged: list[Tags] = []
        for first in range(0, len(sounds), BATCH_SIZE):
            progress(first, len(sounds))
            tagged += self._tag(sounds[first : first + BATCH_SIZE])
        if len(sounds) > 1 or (tagged[0].error and not tagged[0].labels):
            return self._render(tagged)
        return self._with_pictures(sounds[0], tagged[0])

    def _tag(self, sounds: Sequence[Sound]) -> Iterator[Tags]:
        """Yield the labels and scores of each sound, what is odd about it, and why there is not more."""
        interrupts.check()
        with self._lock:
            clips = self._tagger.decode_all([sound.path for sound in sounds], [self.limits.max_seconds] * len(sounds))
            scores, errors = self._tagger.scores_of(clips)
        for sound, clip, row, best, error in zip(sounds, clips, scores, top_k(scores, self.top_k), errors, strict=True):
            if not os.path.exists(sound.path):
                error = "the page keeps sounds for an hour, and this one is gone; choose it again"
            best = [] if np.isnan(row[0]) else best
            labels, values = [self.labels[j] for j in best], [float(row[j]) for j in best]
            yield Tags(sound.name, labels, values, error, SEPARATOR.join(notes_of(clip)))

    def _with_pictures(self, sound: Sound, tags: Tags) -> str:
        from fsat.app.pictures import picture

        rate = min(rate_of(sound.path), MAX_RATE)
        samples = hear(sound.path, [rate], self.limits.max_seconds).at[rate]
        seconds = len(samples) / rate
        spans = self._spans(sound.path) if seconds >= LONG_SOUND * self.window else None
        with self._lock:
            drawn = picture(samples, rate, spans)
        return self._render([tags], seconds, drawn, spans)

    def _render(self, sounds: Sequence[Tags], *about_one: Any) -> str:
        return render_tags(sounds, min(self.top_k, len(self.labels)), *about_one)

    def _spans(self, path: str) -> list[Segment]:
        """Return the best label over time."""
        windows: list[ScoredWindow] = []
        with self._lock, suppress(AudioError):  # which says that the rest is missing, as the sound's error does
            for window in self._tagger.over_time(path, self.window, self.window / 2, self.limits.max_seconds):
                interrupts.check()
                windows.append(window)
        return list(segments(windows, self.labels))


def render_tags(
    sounds: Sequence[Tags], n_tags: int, seconds: float = 0, picture: Picture | None = None,
    spans: Sequence[Segment] | None = None,
) -> str:  # fmt: skip
    """Return the answer: a table of several sounds, or length, picture and tags over time (if it is long) of one.

    `n_tags` is the maximum number of tags of a sound.
    """
    n_failed = sum(bool(sound.error and not sound.labels) for sound in sounds)
    summary = f"{count(len(sounds) - n_failed, 'sound')} tagged" + (f", {n_failed} could not be" if n_failed else "")
    values = {"seconds": seconds, "picture": picture, "spans": spans, "csv": csv_of(sounds, n_tags).encode()}
    return render("answer.html", sounds=sounds, summary=summary, **values)


def render(template: str, **values: object) -> str:
    """Return the HTML of a file in ``templates``."""
    return _environment.get_template(template).render(values)


def clock(seconds: float) -> str:
    """Return a time as ``0.5 s``, ``9.3 s`` or ``1:05.0``."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes}:{tenths / 10:04.1f}" if minutes else f"{tenths / 10:.1f} s"


_environment = Environment(loader=PackageLoader("fsat.app"), autoescape=True, trim_blocks=True)
_environment.filters |= {"printable": printable, "clock": clock, "zip": zip}
_environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
