"""Which clips to listen to when a blend is looked at: labels that look wrong, and verified clips that it gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fsat.data.audio import read_header
from fsat.errors import AudioError, printable
from fsat.metrics.ranking import TOP_K, top_k
from fsat.reports.players import LISTEN_SECONDS, mp3_of
from fsat.reports.study_reports import Predicted, Told, doubted
from fsat.reports.webpage import Sound

SHOWN = 20
"""Clips in a list."""

PLAYED_BYTES = 5_000_000
"""Of MP3 in one page at most, which takes a third more as text; forty noisy clips of 10 s take about that."""


@dataclass
class Players:
    """Makes players of clips, as long as there is room on the page; the same clip is decoded once.

    Attributes:
        where: gives a clip's file, or raises `AudioError` with the reason why there is none; None where no clip is at
            hand, which is then not said of each.
        room: bytes left.
        made: what was made, by name: seconds and MP3, or the reason why there is none.
    """

    where: Callable[[str], Path] | None
    room: int = PLAYED_BYTES
    made: dict[str, tuple[float, bytes] | str] = field(default_factory=dict)

    def sound(self, title: str, fname: str, notes: Sequence[str]) -> Sound:
        """A clip with its player, its file name and its length in seconds; or with the reason why it has no player."""
        name = printable(fname)
        if self.where is None:
            return Sound(title, "\n".join([*notes, name]), None)
        if fname not in self.made:
            try:
                self.made[fname] = self._make(self.where(fname))
            except (AudioError, OSError, RuntimeError) as error:  # libsndfile's are RuntimeErrors
                self.made[fname] = f"cannot be played: {printable(error)}"
        made = self.made[fname]
        if isinstance(made, str):
            return Sound(title, "\n".join([*notes, name, made]), None)
        seconds, mp3 = made
        length = f"{seconds:.1f} s" + (f", of which {LISTEN_SECONDS:g} s" if seconds > LISTEN_SECONDS else "")
        there = [*notes, f"{name}, {length}"]
        if len(mp3) > self.room:
            return Sound(title, "\n".join([*there, "no player: the page would be too large"]), None)
        self.room -= len(mp3)
        return Sound(title, "\n".join(there), mp3)

    def _make(self, path: Path) -> tuple[float, bytes]:
        header = read_header(path)
        return header.frames / header.samplerate, mp3_of(path)


def first_suspects(clips: Predicted, told: Told) -> np.ndarray:
    """Places of the first clips of ``suspects.csv``, in its order; at most `SHOWN`."""
    return doubted(clips, told.guesses)[:SHOWN]


def hardest(clips: Predicted, told: Told) -> np.ndarray:
    """Places of the verified clips with the greatest log loss, which is where the label is least likely."""
    verified = np.flatnonzero(clips.verified)
    return verified[np.argsort(told.guesses.p_label[verified], kind="stable")][:SHOWN]


def sounds(clips: Predicted, places: np.ndarray, players: Players) -> list[Sound]:
    """Clips to listen to, each with its label, whether that is verified, and the best guesses with probabilities."""
    rows = np.asarray(clips.scores[places], dtype=np.float64)
    made = []
    for place, row, best in zip(places.tolist(), rows, top_k(rows, TOP_K), strict=True):
        label = clips.targets[place]
        guesses = "guesses: " + ", ".join(f"{clips.labels[j]} {row[j]:.2f}" for j in best)
        own = [] if label in best else [f"the label itself: {row[label]:.2g}"]
        checked = "verified" if clips.verified[place] else "not verified"
        title = f"{clips.labels[label]} ({checked})"
        made.append(players.sound(title, str(clips.fnames[place]), [guesses, *own]))
    return made
