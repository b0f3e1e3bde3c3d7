"""Players of labels that may be wrong or missing."""

from __future__ import annotations

import numpy as np

from fsat.metrics.ranking import TOP_K, top_k
from fsat.reports.label_tables import Decided, Suspects
from fsat.reports.players import LIST_LENGTH, PlayerMaker, Sound
from fsat.reports.prediction_tables import Predictions
from fsat.text import named

PER_LABEL = 3
"""Maximum number of clips of one label in a list, so that it shows several."""


def first_suspects(suspects: Suspects, is_present: bool) -> np.ndarray:
    """Return the rows of the first suspects that are present, or that are missing, at most `LIST_LENGTH`."""
    chosen: list[int] = []
    n_of: dict[int, int] = {}
    for row in np.flatnonzero(suspects.is_present == is_present):
        label = int(suspects.label[row])
        if n_of.get(label, 0) < PER_LABEL and len(chosen) < LIST_LENGTH:
            n_of[label] = n_of.get(label, 0) + 1
            chosen.append(int(row))
    return np.array(chosen, dtype=np.int64)


def suspect_sounds(
    maker: PlayerMaker, clips: Predictions, decided: Decided, suspects: Suspects, rows: np.ndarray
) -> list[Sound]:
    """Return clips with the label in question, their labels, best guesses (scaled scores), name, length and player."""
    fnames = [str(clips.fnames[i]) for i in suspects.clip[rows]]
    maker.encode(fnames)
    scores = np.asarray(decided.scaled[suspects.clip[rows]], dtype=np.float64)
    sounds = []
    for row, fname, values, best in zip(rows.tolist(), fnames, scores, top_k(scores, TOP_K), strict=True):
        clip, label = int(suspects.clip[row]), int(suspects.label[row])
        own = ", ".join(named(clips.labels[j]) for j in np.flatnonzero(clips.targets[clip]).tolist()) or "none"
        guesses = ", ".join(f"{named(clips.labels[j])} {values[j]:.2f}" for j in best)
        notes = [f"labels: {own}", f"guesses: {guesses}"]
        if label not in best:
            notes.append(f"{named(clips.labels[label])} itself: {values[label]:.2g}")
        lines, mp3 = maker.player(fname)
        title = f"{clips.labels[label]} ({'verified' if clips.verified[clip] else 'not verified'})"
        sounds.append(Sound(title, notes + lines, mp3))
    return sounds
