"""What the page asks the tagger: sounds in, an answer as HTML out.

Conventions: sounds are tagged by `Tagger.scores`, as `predict` does, so that they get the same labels and scores. One
lock guards the tagger and the drawing, neither of which is made for several threads; it is let go between the parts of
a long list, so that nobody waits for somebody else's hundreds of files.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fsat import interrupts
from fsat.app import views
from fsat.data.audio import LONGEST, decode, read_header
from fsat.errors import ConfigError
from fsat.metrics.ranking import top_k
from fsat.metrics.segments import Segment, Window, segments
from fsat.options import LONGEST_CLIP
from fsat.tagging.tables import Tags

if TYPE_CHECKING:
    from fsat.tagging import Tagger

AT_ONCE = 8
"""Sounds of a list that are tagged together."""

LONG = 2.0
"""A sound gets tags over time if it is this many times as long as the longest crop of the tagger's models."""

MOST_RATE = 32000
"""Hz; pictures show nothing above half of it."""


@dataclass(frozen=True)
class Limits:
    """What the page takes.

    Attributes:
        max_mb: size of a file, in MB of 10^6 bytes.
        max_seconds: length of a sound, in seconds.

    Raises:
        ConfigError: a value is not allowed.
    """

    max_mb: float = 100.0
    max_seconds: float = LONGEST_CLIP

    def __post_init__(self) -> None:
        if not 0 < self.max_mb < math.inf:
            raise ConfigError(f"max_mb={self.max_mb:g}: expected a number of MB, more than 0")
        if not 0 < self.max_seconds <= LONGEST:
            raise ConfigError(f"max_seconds={self.max_seconds:g}: expected more than 0 s, at most {LONGEST:g}")

    @property
    def max_bytes(self) -> int:
        """Size of a file, in bytes."""
        return int(1e6 * self.max_mb)


class Sound(NamedTuple):
    """A file that the page was given: where it lies, and its name there."""

    path: str
    name: str


class Desk:
    """Answers with one tagger.

    Args:
        tagger: the tagger.
        limits: of each sound.
        top_k: labels a sound.

    Attributes:
        window: seconds of the pieces that tags over time are made of: the longest crop of the tagger's models.
    """

    def __init__(self, tagger: Tagger, limits: Limits, top_k: int) -> None:
        self._tagger, self._limits, self.top_k = tagger, limits, top_k
        self._lock = threading.Lock()
        self.window = max(member.config.audio_duration for member in tagger.members)

    @property
    def labels(self) -> list[str]:
        """All labels that the tagger knows."""
        return self._tagger.labels

    def answer(self, sounds: Sequence[Sound], progress: Callable[[int, int], None] = lambda done, total: None) -> str:
        """The page's answer: of one sound with pictures, of several as a table.

        Args:
            sounds: none of them need be usable.
            progress: is told how many are done, and of how many.
        """
        if not sounds:
            return views.notice("No sound yet: choose or record one.")
        tagged: list[Tags] = []
        for first in range(0, len(sounds), AT_ONCE):
            progress(first, len(sounds))
            tagged += self.tag(sounds[first : first + AT_ONCE])
        if len(sounds) > 1:
            return views.several(tagged)
        if tagged[0].error:
            return views.one(tagged[0], 0.0, None, None)
        return self._with_pictures(sounds[0], tagged[0])

    def tag(self, sounds: Sequence[Sound]) -> list[Tags]:
        """Labels and scores of each sound, or why there are none."""
        interrupts.check()
        with self._lock:
            scores, errors = self._tagger.scores([sound.path for sound in sounds], self._limits.max_seconds)
        result = []
        for sound, row, best, error in zip(sounds, scores, top_k(scores, self.top_k), errors, strict=True):
            if not os.path.exists(sound.path):
                error = "the page keeps sounds for an hour, and this one is gone; choose it again"
            if error:
                result.append(Tags(sound.name, [], [], error))
            else:
                labels, values = [self.labels[j] for j in best], [float(row[j]) for j in best]
                result.append(Tags(sound.name, labels, values))
        return result

    def spans(self, path: str) -> list[Segment]:
        """The best label over time."""
        windows: list[Window] = []
        with self._lock:
            for window in self._tagger.over_time(path, self.window, self.window / 2, self._limits.max_seconds):
                interrupts.check()
                windows.append(window)
        return list(segments(windows, self.labels))

    def _with_pictures(self, sound: Sound, tagged: Tags) -> str:
        from fsat.app.pictures import picture

        rate = min(read_header(sound.path).samplerate, MOST_RATE)
        samples = decode(sound.path, rate, self._limits.max_seconds)
        seconds = len(samples) / rate
        spans = self.spans(sound.path) if seconds >= LONG * self.window else None
        with self._lock:
            drawn = picture(samples, rate, spans)
        return views.one(tagged, seconds, drawn, spans)
