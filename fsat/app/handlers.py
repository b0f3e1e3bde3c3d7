"""Answers to the page's requests: sounds in, HTML out.

Conventions: `Tagger.scores` tags the sounds, as in `predict`, so labels and scores are the same. A tagger with
thresholds gives a sound the labels that reach theirs, maybe none; the page shows the next best too, to tell how close
they were. One lock guards the tagger and the drawing, which are not meant for several threads. It is released between
the batches of a long list, so that other visitors do not wait for hundreds of files. jinja2 escapes every text (file
names, labels, errors). Scores are shown with three digits; ``<data>`` holds six, as the downloaded table does. Times
are in seconds.
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
from fsat.data.levels import NO_LABEL, SEPARATOR
from fsat.errors import AudioError, count, printable
from fsat.metrics.ranking import top_k
from fsat.options import LONGEST_CLIP, check_options, option
from fsat.tagging.recordings import ScoredWindow, Segment, segments
from fsat.tagging.tables import Tags, csv_of

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


class Bar(NamedTuple):
    """A label, its score, and the minimum score of a tag of its class; None if the best scores are always tags."""

    label: str
    score: float
    threshold: float | None = None

    @property
    def is_tag(self) -> bool:
        """Whether the sound has the label."""
        return self.threshold is None or self.score >= self.threshold


class TagHandler:
    """Tags the sounds of all visitors with one tagger: shows `top_k` labels per sound, or all those that are tags.

    Windows for tags over time are as long as the longest crop of the tagger's models: `window` seconds.
    """

    def __init__(self, tagger: Tagger, limits: Limits, top_k: int) -> None:
        self._tagger, self.limits, self.top_k, self.labels = tagger, limits, top_k, tagger.labels
        self._lock = threading.Lock()
        self.may_be_none = tagger.thresholds is not None
        self.window = max(member.config.audio_duration for member in tagger.members)

    def answer(self, sounds: Sequence[Sound], progress: Callable[[int, int], object] = lambda done, total: None) -> str:
        """Return the page's answer: one sound with pictures, several as a table; report progress as (done, total)."""
        if not sounds:
            return render("answer.html", message="No sound yet: choose or record one.")
        tagged: list[tuple[Tags, list[Bar]]] = []
        for first in range(0, len(sounds), BATCH_SIZE):
            progress(first, len(sounds))
            tagged += self._tag(sounds[first : first + BATCH_SIZE])
        if len(sounds) > 1 or is_failure(tagged[0][0]):
            return self._render([tags for tags, _ in tagged])
        return self._with_pictures(sounds[0], *tagged[0])

    def _tag(self, sounds: Sequence[Sound]) -> Iterator[tuple[Tags, list[Bar]]]:
        """Yield the labels and scores of each sound, what is odd about it, and why there is not more; and its bars."""
        interrupts.check()
        with self._lock:
            clips = self._tagger.decode_all([sound.path for sound in sounds], [self.limits.max_seconds] * len(sounds))
            scores, errors = self._tagger.scores_of(clips)
        for sound, clip, row, error in zip(sounds, clips, scores, errors, strict=True):
            if not os.path.exists(sound.path):
                error = "the page keeps sounds for an hour, and this one is gone; choose it again"
            bars = [] if np.isnan(row[0]) else self._bars(row)
            given = [bar for bar in bars if bar.is_tag]
            labels, values = [bar.label for bar in given], [bar.score for bar in given]
            notes = SEPARATOR.join(self._tagger.notes_of(clip, row, given))
            yield Tags(sound.name, labels, values, error, notes), bars

    def _bars(self, row: np.ndarray) -> list[Bar]:
        """Return the bars of a sound: its tags, best first, then the next best if these are fewer than `top_k`."""
        thresholds = self._tagger.thresholds
        if thresholds is None:
            return [Bar(self.labels[j], float(row[j])) for j in top_k(row[np.newaxis], self.top_k)[0]]
        best = top_k(row[np.newaxis], len(row))[0]
        bars = [Bar(self.labels[j], float(row[j]), float(thresholds[j])) for j in best]
        given, others = [bar for bar in bars if bar.is_tag], [bar for bar in bars if not bar.is_tag]
        return given + others[: max(0, self.top_k - len(given))]

    def _with_pictures(self, sound: Sound, tags: Tags, bars: Sequence[Bar]) -> str:
        from fsat.app.pictures import picture

        rate = min(rate_of(sound.path), MAX_RATE)
        samples = hear(sound.path, [rate], self.limits.max_seconds).at[rate]
        seconds = len(samples) / rate
        spans = self._spans(sound.path) if seconds >= LONG_SOUND * self.window else None
        with self._lock:
            drawn = picture(samples, rate, spans)
        return self._render([tags], seconds, drawn, spans, bars)

    def _render(self, sounds: Sequence[Tags], *about_one: Any) -> str:
        n_tags = min(self.top_k, len(self.labels))
        if self._tagger.thresholds is not None:  # as `predict`: columns for the sound that has most labels
            n_tags = max(1, *(len(sound.labels) for sound in sounds))
        return render_tags(sounds, n_tags, *about_one)

    def _spans(self, path: str) -> list[Segment]:
        """Return the best label over time; of a tagger with thresholds, all labels that reach theirs, by start."""
        windows: list[ScoredWindow] = []
        with self._lock, suppress(AudioError):  # which says that the rest is missing, as the sound's error does
            for window in self._tagger.over_time(path, self.window, self.window / 2, self.limits.max_seconds):
                interrupts.check()
                windows.append(window)
        if self._tagger.thresholds is None:
            return list(segments(windows, self.labels))
        spans = segments(windows, self.labels, len(self.labels), self._tagger.thresholds)
        return sorted(spans, key=lambda span: span.start)


def is_failure(sound: Tags) -> bool:
    """Return whether nothing of a sound could be tagged."""
    return bool(sound.error and not sound.labels and not is_without(sound.note))


def is_without(note: str) -> bool:
    """Return whether a sound was heard and has no label, given its notes."""
    return NO_LABEL in note.split(SEPARATOR)


def render_tags(
    sounds: Sequence[Tags], n_tags: int, seconds: float = 0, picture: Picture | None = None,
    spans: Sequence[Segment] | None = None, bars: Sequence[Bar] | None = None,
) -> str:  # fmt: skip
    """Return the answer: a table of several sounds, or length, picture and tags over time (if it is long) of one.

    `n_tags` is the maximum number of tags of a sound; `bars` are those of one sound, by default its tags.
    """
    n_failed, n_without = sum(map(is_failure, sounds)), sum(is_without(sound.note) for sound in sounds)
    summary = f"{count(len(sounds) - n_failed, 'sound')} tagged" + (f", {n_failed} could not be" if n_failed else "")
    summary += f", {n_without} without a label" if n_without else ""
    bars = list(map(Bar, sounds[0].labels, sounds[0].scores)) if bars is None else bars
    values = {"seconds": seconds, "picture": picture, "spans": spans, "csv": csv_of(sounds, n_tags).encode()}
    return render("answer.html", sounds=sounds, summary=summary, bars=bars, failed=is_failure(sounds[0]), **values)


def render(template: str, **values: object) -> str:
    """Return the HTML of a file in ``templates``."""
    return _environment.get_template(template).render(values)


def clock(seconds: float) -> str:
    """Return a time as ``0.5 s``, ``9.3 s`` or ``1:05.0``."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes}:{tenths / 10:04.1f}" if minutes else f"{tenths / 10:.1f} s"


_environment = Environment(loader=PackageLoader("fsat.app"), autoescape=True, trim_blocks=True)
_environment.filters |= {"printable": printable, "clock": clock, "zip": zip}
_environment.filters["odd"] = lambda note: SEPARATOR.join(part for part in note.split(SEPARATOR) if part != NO_LABEL)
_environment.tests["without"] = lambda sound: is_without(sound.note)
_environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
