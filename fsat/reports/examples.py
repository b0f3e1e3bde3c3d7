"""Which clips of a dataset are worth listening to, and as much of them as a page can hold.

The choice depends on nothing but the dataset, so that the same dataset gives the same page. A page's sound is bounded
by `SOUND_SECONDS` and `SOUND_BYTES` whatever the dataset: with many classes there is one clip a class instead of two,
then fewer seconds of each, then fewer classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import soundfile as sf

from fsat.data.manifest import Manifest
from fsat.errors import AudioError, Problem
from fsat.parallel.executor import Threads
from fsat.reports.eda_facts import Facts
from fsat.reports.eda_text import duration
from fsat.reports.players import LISTEN_SECONDS, mp3_of
from fsat.reports.webpage import Sound

SOUND_SECONDS = 600.0
"""What all players of a page play together, at most; as MP3 about 5 to 9 MB."""

SOUND_BYTES = 12_000_000
"""Of the MP3 files together, at most, whatever they sound like; in the page they take a third more."""

WORTH_HEARING = 1.0
"""Seconds of a clip that are enough to know it by."""

LENGTHS_HEARD, CLIPS_HEARD = 8, 2
"""How many of the repeated lengths have players, and how many clips of each."""


@dataclass(frozen=True)
class Example:
    """A clip that was chosen.

    Attributes:
        title: what is written above the player.
        note: what is said of it below, apart from name and length.
        path: the file.
        fname: its name in the table.
        table: that table's.
        row: its line there.
        split: ``train`` or ``test``.
        seconds: its length.
    """

    title: str
    note: str
    path: Path
    fname: str
    table: str
    row: int
    split: str
    seconds: float


@dataclass(frozen=True)
class Choice:
    """The clips to listen to.

    Attributes:
        of_classes: by label.
        of_lengths: of the repeated lengths.
        seconds: how much is heard of each, at most.
        n_classes: how many classes have an example; the first ones by label.
        alone: whether classes have one example though some have both verified and unverified clips.
    """

    of_classes: list[Example]
    of_lengths: list[Example]
    seconds: float
    n_classes: int
    alone: bool


def choose(manifest: Manifest, facts: Facts) -> Choice:
    """Choose clips of every class, one verified and one not where there are both, and of the repeated lengths."""
    of_lengths = _of_lengths(manifest, facts)
    pairs = _of_classes(manifest)
    singles = [group[:1] for group in pairs]
    for groups in (pairs, singles):
        clips = [example for group in groups for example in group]
        seconds = _heard([example.seconds for example in (*clips, *of_lengths)])
        if seconds >= WORTH_HEARING:
            return Choice(clips, of_lengths, seconds, len(groups), groups != pairs)
    most = max(0, int(SOUND_SECONDS / WORTH_HEARING) - len(of_lengths))
    clips = [example for group in singles[:most] for example in group]
    return Choice(clips, of_lengths, WORTH_HEARING, len(singles[:most]), pairs != singles)


def encode(
    examples: Sequence[Example], seconds: float, spare: int = SOUND_BYTES
) -> Iterator[tuple[Sound, Problem | None]]:
    """Make players.

    Args:
        examples: the clips.
        seconds: how much is heard of each.
        spare: bytes of MP3 that there is room for; players after that say so instead of playing.

    Yields:
        in order, the player and, where the file cannot be decoded, what is wrong with it.
    """
    workers = os.cpu_count() or 1
    for example, result in zip(
        examples, Threads(workers, 2 * workers).map(lambda example: _mp3(example, seconds), examples), strict=True
    ):
        about = " · ".join(filter(None, (example.note, example.fname, duration(example.seconds))))
        if isinstance(result, str):
            problem = Problem(example.table, example.row, example.fname, result, example.split)
            yield Sound(example.title, f"{about}: cannot be played: {result}", None), problem
        elif len(result) > spare:
            spare = 0
            yield Sound(example.title, f"{about}: left out, as the page is full", None), None
        else:
            spare -= len(result)
            yield Sound(example.title, about, result), None


def _mp3(example: Example, seconds: float) -> bytes | str:
    """The sound, or why there is none."""
    try:
        return mp3_of(example.path, seconds)
    except AudioError as error:
        return str(error)
    except sf.SoundFileError as error:
        return f"libsndfile cannot write MP3 ({error})"


def _of_classes(manifest: Manifest) -> list[list[Example]]:
    """For each label the clip of median length of those that are verified, then of those that are not."""
    train = manifest.train.assign(seconds=manifest.train["frames"] / manifest.train["samplerate"])
    train = train.sort_values(["label", "manually_verified", "seconds", "fname"], ascending=[True, False, True, True])
    kinds = train.groupby(["label", "manually_verified"], sort=False)
    chosen: dict[str, list[Example]] = {}
    for _, clip in train[kinds.cumcount() == kinds["fname"].transform("size") // 2].iterrows():
        note = "verified" if clip["manually_verified"] else "not verified"
        chosen.setdefault(clip["label"], []).append(_example(clip, clip["label"], note, manifest, "train"))
    return list(chosen.values())


def _of_lengths(manifest: Manifest, facts: Facts) -> list[Example]:
    """A few clips of each of the lengths that most clips share, spread over the table."""
    usable = manifest.test[manifest.test["reason"] == ""].assign(label="")
    chosen = []
    for length in facts.repeated.head(LENGTHS_HEARD).itertuples():
        clips = usable if length.split == "test" else manifest.train
        same = clips[(clips["frames"] == length.frames) & (clips["samplerate"] == length.samplerate)]
        same = same.assign(seconds=length.seconds).sort_values("fname")
        for i in range(CLIPS_HEARD):
            clip = same.iloc[i * len(same) // CLIPS_HEARD]
            note = clip["label"] or "test clip"
            chosen.append(_example(clip, f"{length.frames} samples", note, manifest, length.split))
    return chosen


def middle(clips: pd.DataFrame) -> pd.Series:
    """The clip of median length; of equal ones the first by name."""
    return clips.sort_values(["seconds", "fname"]).iloc[len(clips) // 2]


def _example(clip: pd.Series, title: str, note: str, manifest: Manifest, split: str) -> Example:
    if split == "train":
        table, folder = manifest.train_table, manifest.train_folder
    else:
        table, folder = manifest.test_table, manifest.test_folder
    fname = clip["fname"]
    return Example(title, note, folder / fname, fname, table, int(clip["row"]), split, float(clip["seconds"]))


def _heard(lengths: Sequence[float]) -> float:
    """The greatest number of seconds, up to `LISTEN_SECONDS`, so that so much of every clip fits into a page."""
    left, rest = SOUND_SECONDS, sorted(min(length, LISTEN_SECONDS) for length in lengths)
    for i, length in enumerate(rest):
        if length * (len(rest) - i) > left:
            return left / (len(rest) - i)
        left -= length
    return LISTEN_SECONDS
