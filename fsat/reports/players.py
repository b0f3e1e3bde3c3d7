"""Players: which clips a page plays, and their sound as small MP3 files inside the page.

MP3 plays in every browser; libsndfile writes it. Clips are mono at 44.1 kHz, whatever their file has, and at most
`LISTEN_SECONDS` long. The sound of a page is limited whatever the dataset: ``eda.html`` to `SOUND_SECONDS` and
`SOUND_BYTES` (with many classes it has one clip per class instead of two, then less of each clip, then fewer classes),
``report.html`` to `REPORT_BYTES`. The choice depends on the dataset alone, so the same dataset gives the same page.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf

from fsat.data.audio import blocks, read_header
from fsat.data.manifest import Manifest
from fsat.errors import AudioError, Problem, count, printable
from fsat.metrics.ranking import TOP_K, top_k
from fsat.parallel.executor import Threads
from fsat.reports.eda_facts import Facts
from fsat.reports.eda_text import duration
from fsat.reports.study_reports import Analysis, Predictions, rank_suspects

MP3_RATE = 44100
"""Sampling rate in Hz, one that MP3 supports."""

MP3_COMPRESSION = 0.6
"""libsndfile's compression level, from 0 (large files) to 1 (small files), at a variable bit rate."""

LISTEN_SECONDS = 10.0
"""Longest beginning of a clip that is played."""

SOUND_SECONDS = 600.0
"""Maximum length of all players of ``eda.html`` together; about 5 to 9 MB of MP3."""

SOUND_BYTES, REPORT_BYTES = 12_000_000, 5_000_000
"""Maximum size of all MP3 files of ``eda.html`` and of ``report.html``; as text they take a third more."""

MIN_SECONDS = 1.0
"""Shortest beginning of a clip by which it can be recognised."""

LENGTHS_PLAYED, CLIPS_PER_LENGTH = 8, 2
"""Number of repeated lengths that have players, and of clips of each."""

LIST_LENGTH = 20
"""Number of clips in a list of ``report.html``."""


@dataclass(frozen=True)
class Sound:
    """A clip with its player: a title such as the label, lines of notes, and the content of an MP3 file.

    Without an MP3 the clip has no player, for a reason that the notes give.
    """

    title: str
    notes: Sequence[str]
    mp3: bytes | None


@dataclass(frozen=True)
class Example:
    """A clip that ``eda.html`` plays: the text around its player, its file, its row of a table, and its length."""

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
    """The clips that ``eda.html`` plays.

    Attributes:
        of_classes: examples of the classes, by label.
        of_lengths: examples of the repeated lengths.
        seconds: longest beginning of a clip that is played.
        n_classes: number of classes with an example; the first ones by label.
        one_per_class: whether there is no room for both a verified and an unverified clip of each class.
    """

    of_classes: list[Example]
    of_lengths: list[Example]
    seconds: float
    n_classes: int
    one_per_class: bool


def mp3_of(path: Path, seconds: float = LISTEN_SECONDS) -> bytes:
    """Return the first seconds of a clip as an MP3 file.

    Raises:
        AudioError: the file cannot be used as a clip.
    """
    parts, n_samples, limit = [], 0, round(seconds * MP3_RATE)
    for block in blocks(path, [MP3_RATE]):
        parts.append(block.at[MP3_RATE])
        n_samples += len(parts[-1])
        if n_samples >= limit:
            break
    samples, file = np.clip(np.concatenate(parts)[:limit], -1, 1), io.BytesIO()
    options = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": MP3_COMPRESSION}
    with sf.SoundFile(file, "w", MP3_RATE, 1, **options) as mp3:
        mp3.write(samples)
    return file.getvalue()


def choose_examples(manifest: Manifest, facts: Facts) -> Choice:
    """Choose one verified and one unverified clip of each class, if it has both, and clips of the repeated lengths."""
    of_lengths, pairs = _examples_of_lengths(manifest, facts), _examples_of_classes(manifest)
    singles = [examples[:1] for examples in pairs]
    for groups in (pairs, singles):
        of_classes = [example for examples in groups for example in examples]
        seconds = _playable_seconds([example.seconds for example in (*of_classes, *of_lengths)])
        if seconds >= MIN_SECONDS:
            return Choice(of_classes, of_lengths, seconds, len(groups), groups != pairs)
    n_classes = max(0, int(SOUND_SECONDS / MIN_SECONDS) - len(of_lengths))
    of_classes = [example for examples in singles[:n_classes] for example in examples]
    return Choice(of_classes, of_lengths, MIN_SECONDS, len(singles[:n_classes]), pairs != singles)


def encode(
    examples: Sequence[Example], seconds: float, max_bytes: int = SOUND_BYTES
) -> Iterator[tuple[Sound, Problem | None]]:
    """Yield each example's sound in order, and a problem if its file cannot be decoded.

    Sounds have the first `seconds` of a clip; clips that do not fit into `max_bytes` have a note instead of a player.
    """
    workers = os.cpu_count() or 1
    results = Threads(workers, 2 * workers).map(lambda example: _encode_example(example, seconds), examples)
    for example, result in zip(examples, results, strict=True):
        note = " · ".join(filter(None, (example.note, example.fname, duration(example.seconds))))
        if isinstance(result, str):
            problem = Problem(example.table, example.row, example.fname, result, example.split)
            yield Sound(example.title, [f"{note}: cannot be played: {result}"], None), problem
        elif len(result) > max_bytes:
            max_bytes = 0
            yield Sound(example.title, [f"{note}: left out, as the page is full"], None), None
        else:
            max_bytes -= len(result)
            yield Sound(example.title, [note], result), None


def median_clip(clips: pd.DataFrame) -> pd.Series:
    """Return the clip of median length; of clips of equal length the first by name."""
    return clips.sort_values(["seconds", "fname"]).iloc[len(clips) // 2]


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

    `locate` returns the file of a clip or raises `AudioError` with the reason. It is None if no clip is available,
    which the notes of the clips then do not repeat.
    """

    locate: Callable[[str], Path] | None
    free_bytes: int = REPORT_BYTES
    _cache: dict[str, tuple[float, bytes] | str] = field(default_factory=dict)

    def sounds(self, clips: Predictions, indices: np.ndarray) -> list[Sound]:
        """Return clips with label, best guesses and their probabilities, name, length and player."""
        rows = np.asarray(clips.scores[indices], dtype=np.float64)
        sounds = []
        for i, row, best in zip(indices.tolist(), rows, top_k(rows, TOP_K), strict=True):
            label = clips.targets[i]
            notes = ["guesses: " + ", ".join(f"{clips.labels[j]} {row[j]:.2f}" for j in best)]
            if label not in best:
                notes.append(f"the label itself: {row[label]:.2g}")
            title = f"{clips.labels[label]} ({'verified' if clips.verified[i] else 'not verified'})"
            sounds.append(self.sound(title, str(clips.fnames[i]), notes))
        return sounds

    def sound(self, title: str, fname: str, notes: Sequence[str]) -> Sound:
        """Return a clip with its player, name and length, or with the reason why it has no player."""
        name = printable(fname)
        if self.locate is None:
            return Sound(title, [*notes, name], None)
        if fname not in self._cache:
            self._cache[fname] = _encode_clip(self.locate, fname)
        result = self._cache[fname]
        if isinstance(result, str):
            return Sound(title, [*notes, name, result], None)
        seconds, mp3 = result
        played = f" (the player has the first {LISTEN_SECONDS:g} s)" if seconds > LISTEN_SECONDS else ""
        notes = [*notes, f"{name}, {seconds:.1f} s{played}"]
        if len(mp3) > self.free_bytes:
            return Sound(title, [*notes, "no player: the page would be too large"], None)
        self.free_bytes -= len(mp3)
        return Sound(title, notes, mp3)


def _encode_clip(locate: Callable[[str], Path], fname: str) -> tuple[float, bytes] | str:
    """Return the length of a clip in seconds and its MP3 file, or the reason why there is none."""
    try:
        path = locate(fname)
        header = read_header(path)
        return header.frames / header.samplerate, mp3_of(path)
    except (AudioError, OSError, RuntimeError) as error:  # libsndfile raises RuntimeError
        return f"cannot be played: {printable(error)}"


def _encode_example(example: Example, seconds: float) -> bytes | str:
    """Return the MP3 file, or the reason why there is none."""
    try:
        return mp3_of(example.path, seconds)
    except AudioError as error:
        return str(error)
    except sf.SoundFileError as error:
        return f"libsndfile cannot write MP3 ({error})"


def _examples_of_classes(manifest: Manifest) -> list[list[Example]]:
    """Return for each label the verified clip of median length, then the unverified one."""
    train = manifest.train.assign(seconds=manifest.train["frames"] / manifest.train["samplerate"])
    train = train.sort_values(["label", "manually_verified", "seconds", "fname"], ascending=[True, False, True, True])
    groups = train.groupby(["label", "manually_verified"], sort=False)
    examples: dict[str, list[Example]] = {}
    for _, clip in train[groups.cumcount() == groups["fname"].transform("size") // 2].iterrows():
        note = "verified" if clip["manually_verified"] else "not verified"
        examples.setdefault(clip["label"], []).append(_example(clip, clip["label"], note, manifest, "train"))
    return list(examples.values())


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
            note = clip["label"] or "test clip"
            examples.append(_example(clip, count(length.frames, "sample"), note, manifest, length.split))
    return examples


def _example(clip: pd.Series, title: str, note: str, manifest: Manifest, split: str) -> Example:
    if split == "train":
        table, folder = manifest.train_table, manifest.train_folder
    else:
        table, folder = manifest.test_table, manifest.test_folder
    fname = clip["fname"]
    return Example(title, note, folder / fname, fname, table, int(clip["row"]), split, float(clip["seconds"]))


def _playable_seconds(lengths: Sequence[float]) -> float:
    """Return how many seconds of each clip fit into a page, at most `LISTEN_SECONDS`."""
    left, rest = SOUND_SECONDS, sorted(min(length, LISTEN_SECONDS) for length in lengths)
    for i, length in enumerate(rest):
        if length * (len(rest) - i) > left:
            return left / (len(rest) - i)
        left -= length
    return LISTEN_SECONDS
