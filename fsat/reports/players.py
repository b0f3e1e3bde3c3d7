"""Players: which clips a page plays, and their sound as small MP3 files inside the page.

MP3 plays in every browser; libsndfile writes it. Clips are mono at 44.1 kHz and at most `LISTEN_SECONDS` long. The
sound of a page is limited whatever the dataset: ``eda.html`` to `SOUND_SECONDS` and `SOUND_BYTES` (with many classes it
has one clip per class instead of two, then less of each clip, then fewer classes), ``report.html`` to `REPORT_BYTES`.
The choice depends on the dataset alone, so the same dataset gives the same page.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import soundfile as sf

from fsat.data.audio import blocks, read_header
from fsat.data.clip_names import stored_name
from fsat.data.manifest import Manifest
from fsat.data.near_duplicates import NearDuplicates
from fsat.errors import AudioError, Problem, count, printable
from fsat.metrics.ranking import TOP_K, top_k
from fsat.parallel.executor import Threads
from fsat.reports.eda_facts import Facts
from fsat.reports.eda_text import duration, listed
from fsat.reports.label_facts import row_per_label
from fsat.reports.prediction_tables import Analysis, Predictions, rank_suspects
from fsat.text import named, split_labels

Clip = TypeVar("Clip")

MP3_RATE = 44100
MP3_FORMAT = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.6}
"""A rate in Hz that MP3 supports; libsndfile's compression level is from 0 (large files) to 1 (small files)."""

MIN_SECONDS, LISTEN_SECONDS = 1.0, 10.0
"""Shortest beginning of a clip by which it can be recognised, and longest one that is played."""

SOUND_SECONDS = 600.0
"""Maximum length of all players of ``eda.html`` together; about 5 to 9 MB of MP3."""

SOUND_BYTES, REPORT_BYTES = 12_000_000, 5_000_000
"""Maximum size of all MP3 files of ``eda.html`` and of ``report.html``; as text they take a third more."""

NONE = "no label"
"""In place of the label of a training clip without one."""

LENGTHS_PLAYED, CLIPS_PER_LENGTH, PAIRS_PLAYED, LIST_LENGTH = 8, 2, 8, 20
"""Number of repeated lengths that have players, of clips of each, of pairs of near-duplicates that have players, and of
clips in a list of ``report.html``."""


@dataclass(frozen=True)
class Sound:
    """A clip with its player: a title, lines of notes, and an MP3 file, or None for a reason that the notes give."""

    title: str
    notes: Sequence[str]
    mp3: bytes | None


@dataclass(frozen=True)
class Example:
    """A clip that ``eda.html`` plays: the text around its player, its file and length, and its row, as a `Problem`.

    `others` are labels that it has besides that of the title, in words.
    """

    title: str
    note: str
    path: Path
    seconds: float
    row: Problem
    others: str = ""


@dataclass(frozen=True)
class Choice:
    """The clips that ``eda.html`` plays, the first `seconds` of each.

    They are of the first `n_classes` classes by label, of the repeated lengths, and of pairs of near-duplicates, both
    clips of one after those of another; `one_per_class` if there is no room for both a verified and an unverified clip
    of each class.
    """

    of_classes: list[Example]
    of_lengths: list[Example]
    of_pairs: list[Example]
    seconds: float
    n_classes: int
    one_per_class: bool


def encode(clips: Iterable[Clip], find: Callable[[Clip], Path], seconds: float) -> Iterator[tuple[float, bytes] | str]:
    """Yield each clip's length in seconds and its first `seconds` as an MP3 file, or why it cannot be played.

    Clips are encoded by threads; `find` returns a clip's file, or raises `AudioError`.
    """

    def encode_clip(clip: Clip) -> tuple[float, bytes] | str:
        try:
            path = find(clip)
            header = read_header(path)
            return header.frames / header.samplerate, _mp3(path, round(seconds * MP3_RATE))
        except AudioError as error:
            return printable(error)
        except sf.SoundFileError as error:
            return f"libsndfile cannot write MP3 ({printable(error)})"

    workers = os.cpu_count() or 1
    return Threads(workers, 2 * workers).map(encode_clip, clips)


def _mp3(path: Path, n_samples: int) -> bytes:
    """Return the first samples of a clip, at `MP3_RATE`, as an MP3 file."""
    parts: list[np.ndarray] = []
    for block in blocks(path, [MP3_RATE]):
        parts.append(block.at[MP3_RATE])
        if sum(map(len, parts)) >= n_samples:
            break
    return write_mp3(np.concatenate(parts)[:n_samples])


def write_mp3(samples: np.ndarray) -> bytes:
    """Return samples at `MP3_RATE`, (n,), as an MP3 file."""
    file = io.BytesIO()
    with sf.SoundFile(file, "w", MP3_RATE, 1, **MP3_FORMAT) as mp3:
        mp3.write(np.clip(samples, -1, 1))
    return file.getvalue()


def choose_examples(manifest: Manifest, facts: Facts, near: NearDuplicates | None = None) -> Choice:
    """Choose one verified and one unverified clip of each class, if it has both, clips of the repeated lengths, and the
    first pairs of near-duplicates.
    """
    of_lengths, both = _examples_of_lengths(manifest, facts), _examples_of_classes(manifest)
    of_pairs = _examples_of_pairs(manifest, near) if near else []
    singles = [examples[:1] for examples in both]
    for groups in (both, singles):
        of_classes = list(chain(*groups))
        seconds = _playable_seconds([example.seconds for example in (*of_classes, *of_lengths, *of_pairs)])
        if seconds >= MIN_SECONDS:
            return Choice(of_classes, of_lengths, of_pairs, seconds, len(groups), groups != both)
    first = singles[: max(0, int(SOUND_SECONDS / MIN_SECONDS) - len(of_lengths) - len(of_pairs))]
    return Choice(list(chain(*first)), of_lengths, of_pairs, MIN_SECONDS, len(first), both != singles)


def example_sounds(
    examples: Sequence[Example], seconds: float, max_bytes: int = SOUND_BYTES
) -> Iterator[tuple[Sound, Problem | None]]:
    """Yield each example's sound in order, and a problem if its file cannot be decoded.

    Sounds have the first `seconds` of a clip; clips that do not fit into `max_bytes` have a note instead of a player.
    """
    results = encode(examples, lambda example: example.path, seconds)
    for example, result in zip(examples, results, strict=True):
        note = " · ".join(filter(None, (example.note, example.others, example.row.fname, duration(example.seconds))))
        if isinstance(result, str):
            yield (
                Sound(example.title, [f"{note}: cannot be played: {result}"], None),
                replace(example.row, reason=result),
            )
        elif len(result[1]) > max_bytes:
            max_bytes = 0
            yield Sound(example.title, [f"{note}: left out, as the page is full"], None), None
        else:
            max_bytes -= len(result[1])
            yield Sound(example.title, [note], result[1]), None


def first_suspects(clips: Predictions, analysis: Analysis) -> np.ndarray:
    """Return the indices of the first `LIST_LENGTH` clips of ``suspects.csv``."""
    return rank_suspects(clips, analysis.guesses)[:LIST_LENGTH]


def hardest_clips(clips: Predictions, analysis: Analysis) -> np.ndarray:
    """Return the indices of the verified clips with the greatest log loss (the least probable label)."""
    verified = np.flatnonzero(clips.verified)
    return verified[np.argsort(analysis.guesses.p_label[verified], kind="stable")][:LIST_LENGTH]


@dataclass
class PlayerMaker:
    """Makes the players of ``report.html`` until `free_bytes` are used; each clip is decoded once.

    `locate` is `find` of `encode`, or None if no clip is available, which the notes of the clips then do not repeat.
    """

    locate: Callable[[str], Path] | None
    free_bytes: int = REPORT_BYTES
    _encoded: dict[str, tuple[float, bytes] | str] = field(default_factory=dict)

    def sounds(self, clips: Predictions, indices: np.ndarray) -> list[Sound]:
        """Return clips with label, best guesses and their probabilities, name, length and player."""
        fnames = [str(clips.fnames[i]) for i in indices]
        self.encode(fnames)
        rows = np.asarray(clips.scores[indices], dtype=np.float64)
        sounds = []
        for i, fname, row, best in zip(indices.tolist(), fnames, rows, top_k(rows, TOP_K), strict=True):
            label = clips.targets[i]
            notes = ["guesses: " + ", ".join(f"{named(clips.labels[j])} {row[j]:.2f}" for j in best)]
            if label not in best:
                notes.append(f"the label itself: {row[label]:.2g}")
            lines, mp3 = self.player(fname)
            title = f"{clips.labels[label]} ({'verified' if clips.verified[i] else 'not verified'})"
            sounds.append(Sound(title, notes + lines, mp3))
        return sounds

    def encode(self, fnames: Iterable[str]) -> None:
        """Encode clips, unless they are already."""
        if self.locate is not None:
            new = [fname for fname in dict.fromkeys(fnames) if fname not in self._encoded]
            self._encoded |= zip(new, encode(new, self.locate, LISTEN_SECONDS), strict=True)

    def player(self, fname: str) -> tuple[list[str], bytes | None]:
        """Return lines with a clip's name, length or error, and its MP3 file if there is room for it."""
        name, result = printable(fname), self._encoded.get(fname)
        if result is None:
            return [name], None
        if isinstance(result, str):
            return [name, f"cannot be played: {result}"], None
        seconds, mp3 = result
        played = f" (the player has the first {LISTEN_SECONDS:g} s)" if seconds > LISTEN_SECONDS else ""
        lines = [f"{name}, {seconds:.1f} s{played}"]
        if len(mp3) > self.free_bytes:
            return [*lines, "no player: the page would be too large"], None
        self.free_bytes -= len(mp3)
        return lines, mp3


def _examples_of_classes(manifest: Manifest) -> list[list[Example]]:
    """Return for each label the verified clip of median length, then the unverified one.

    Where a clip may have any number of labels, it is one of those with the fewest; those without a label are the last.
    """
    train = manifest.train.assign(seconds=manifest.train["frames"] / manifest.train["samplerate"])
    if manifest.task == "multi":
        return _examples_of_labels(train, manifest)
    train = train.sort_values(["label", "manually_verified", "seconds", "fname"], ascending=[True, False, True, True])
    groups = train.groupby(["label", "manually_verified"], sort=False)
    examples: dict[str, list[Example]] = {}
    for _, clip in train[groups.cumcount() == groups["fname"].transform("size") // 2].iterrows():
        note = "verified" if clip["manually_verified"] else "not verified"
        examples.setdefault(clip["label"], []).append(_example(clip, clip["label"], note, manifest, "train"))
    return list(examples.values())


def _examples_of_labels(train: pd.DataFrame, manifest: Manifest) -> list[list[Example]]:
    rows, none = row_per_label(train.assign(cell=train["label"])), train[train["label"] == ""]
    fewest = rows.groupby(["label", "manually_verified"])["n_labels"].transform("min")
    parts = [part for _, part in rows[rows["n_labels"] == fewest].groupby("label")] + [none] * (len(none) > 0)
    examples = []
    for clips in parts:
        of_kinds = []
        for is_verified, kind in ((1, "verified"), (0, "not verified")):
            same = clips[clips["manually_verified"] == is_verified].sort_values(["seconds", "fname"])
            if same.empty:
                continue
            clip = same.iloc[len(same) // 2]
            label = clip["label"] or NONE
            example = _example(clip, label, kind, manifest, "train")
            others = [named(other) for other in split_labels(clip.get("cell", "")) if other != label]
            of_kinds.append(replace(example, others=f"also {listed(others)}" if others else ""))
        examples.append(of_kinds)
    return examples


def _examples_of_lengths(manifest: Manifest, facts: Facts) -> list[Example]:
    """Return clips of each of the most frequent repeated lengths, spread over the names."""
    usable = manifest.test[manifest.test["reason"] == ""].assign(label="")
    examples = []
    for length in facts.repeated.head(LENGTHS_PLAYED).itertuples():
        clips = usable if length.split == "test" else manifest.train
        same = clips[(clips["frames"] == length.frames) & (clips["samplerate"] == length.samplerate)]
        same = same.assign(seconds=length.seconds).sort_values("fname")
        for i in range(CLIPS_PER_LENGTH):
            clip = same.iloc[i * len(same) // CLIPS_PER_LENGTH]
            title, note = count(length.frames, "sample"), clip["label"] or _unlabelled(length.split)
            examples.append(_example(clip, title, note, manifest, length.split))
    return examples


def _examples_of_pairs(manifest: Manifest, near: NearDuplicates) -> list[Example]:
    """Return both clips of the first pairs of near-duplicates."""
    tables = {"train": manifest.train, "test": manifest.test}
    by_name = {
        split: table.assign(seconds=table["frames"] / table["samplerate"], name=table["fname"])
        .drop_duplicates("name")
        .set_index("name")
        for split, table in tables.items()
    }
    examples = []
    for number, pair in enumerate(near.pairs.head(PAIRS_PLAYED).to_dict("records"), 1):
        title = f"pair {number}, {pair['similarity']:.3f}"
        for prefix in ("", "other_"):
            split, fname, label = (pair[f"{prefix}{name}"] for name in ("split", "fname", "label"))
            examples.append(_example(by_name[split].loc[fname], title, label or _unlabelled(split), manifest, split))
    return examples


def _unlabelled(split: str) -> str:
    return "test clip" if split == "test" else NONE


def _example(clip: pd.Series, title: str, note: str, manifest: Manifest, split: str) -> Example:
    train, fname = split == "train", clip["fname"]
    folder = manifest.train_folder if train else manifest.test_folder
    path = folder / stored_name(folder, fname)
    return Example(title, note, path, float(clip["seconds"]), Problem(clip["file"], int(clip["row"]), fname, "", split))


def _playable_seconds(lengths: Sequence[float]) -> float:
    """Return how many seconds of each clip fit into a page, at most `LISTEN_SECONDS`."""
    left, rest = SOUND_SECONDS, sorted(min(length, LISTEN_SECONDS) for length in lengths)
    for i, length in enumerate(rest):
        if length * (len(rest) - i) > left:
            return left / (len(rest) - i)
        left -= length
    return LISTEN_SECONDS
