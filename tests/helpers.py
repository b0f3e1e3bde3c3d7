"""Builders that the tests share: clips, tables, and whole small datasets shaped like FSDKaggle2018.

Conventions: lengths in seconds, rates and frequencies in Hz. Everything random comes from a seeded generator, so a
dataset is the same, byte for byte, whenever it is made.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import soundfile as sf

CLASSES = ("Bell", "Cello", "Flute")
"""Label order of `make_dataset` when nothing else is asked for."""


def tone(frequency: float, seconds: float, rate: int, amplitude: float = 0.5) -> np.ndarray:
    """A sine, float32 (round(seconds * rate),), that starts at 0."""
    t = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int = 8000, subtype: str = "PCM_16") -> Path:
    """Write samples (n,) or (n, channels) as WAV, making the folder; `subtype` is libsndfile's. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, samples, rate, subtype=subtype, format="WAV")
    return path


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a table as UTF-8 CSV with ``\\n`` line ends, making the folder. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table as dictionaries of texts."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_line(path: Path, line: str) -> int:
    """Add a line of text to a table; the number of that line, counted from 1."""
    text = path.read_text(encoding="utf-8")
    path.write_text(text + line + "\n", encoding="utf-8")
    return text.count("\n") + 1


def make_dataset(
    folder: Path,
    *,
    classes: Sequence[str] = CLASSES,
    clips_per_class: int = 6,
    test_clips: int = 4,
    fold_column: int = 0,
    freesound_id: bool = False,
    unverified: float = 0.0,
    wrong: Mapping[str, str] = MappingProxyType({}),
    seed: int = 0,
) -> Path:
    """Write a small dataset with Kaggle's names: a sine for each clip, of another frequency for each class.

    Written are ``train.csv`` with ``audio_train/``, and, if `test_clips` is not 0, ``sample_submission.csv`` with
    ``audio_test/`` and the truth in ``test_truth.csv``. Clips of 0.2 to 0.5 s at 8000 Hz are named after their class
    and number, such as ``bell_00.wav``, and test clips ``test_00.wav``; the classes take turns in both tables.

    Args:
        folder: made if missing; returned.
        classes: labels; a clip's frequency is that of its class, up to 3 % higher or lower.
        clips_per_class: number of training clips of each class.
        test_clips: number of test clips.
        fold_column: number of folds in a ``fold`` column, numbered from 1 as in ESC-10; 0 for no such column.
        freesound_id: add that column; two clips of a class share an id (and a fold).
        unverified: share of each class's clips that have ``manually_verified`` 0; their labels are right.
        wrong: label that the table gives to a training clip instead of its own, by file name.
        seed: of lengths, frequencies and loudness.
    """
    rng = np.random.default_rng(seed)
    frequencies = np.geomspace(300, 3200, len(classes))

    def write(path: Path, kind: int) -> None:
        frequency = frequencies[kind] * rng.uniform(0.97, 1.03)
        write_wav(path, tone(frequency, rng.uniform(0.2, 0.5), 8000, rng.uniform(0.2, 0.9)))

    rows = []
    for j in range(clips_per_class):
        for kind, label in enumerate(classes):
            fname = f"{label.lower()}_{j:02d}.wav"
            write(folder / "audio_train" / fname, kind)
            row: list[object] = [fname, wrong.get(fname, label), int(j >= round(unverified * clips_per_class))]
            recording = j // 2 if freesound_id else j
            if fold_column:
                row.append(recording % fold_column + 1)
            if freesound_id:
                row.append(1000 * (kind + 1) + recording)
            rows.append(row)
    header = ["fname", "label", "manually_verified"]
    header += ["fold"] * bool(fold_column) + ["freesound_id"] * freesound_id
    write_csv(folder / "train.csv", header, rows)

    truth = [(f"test_{j:02d}.wav", j % len(classes)) for j in range(test_clips)]
    for fname, kind in truth:
        write(folder / "audio_test" / fname, kind)
    if truth:
        guess = " ".join(classes[:3])
        write_csv(folder / "sample_submission.csv", ["fname", "label"], [(fname, guess) for fname, _ in truth])
        write_csv(folder / "test_truth.csv", ["fname", "label"], [(fname, classes[kind]) for fname, kind in truth])
    return folder


def make_zenodo(folder: Path) -> Path:
    """Give a dataset of `make_dataset` the names and columns of Zenodo's edition of FSDKaggle2018. Returns the folder.

    As there, the test table has a row for every clip of Kaggle's edition, and another table those that count.
    """
    meta = folder / "FSDKaggle2018.meta"
    meta.mkdir()
    (folder / "audio_train").rename(folder / "FSDKaggle2018.audio_train")
    train = read_csv(folder / "train.csv")
    header = ["fname", "label", "manually_verified", "freesound_id", "license"]
    rows = [(r["fname"], r["label"], r["manually_verified"], 100 + i, "Attribution") for i, r in enumerate(train)]
    write_csv(meta / "train_post_competition.csv", header, rows)
    (folder / "train.csv").unlink()
    if (folder / "audio_test").exists():
        (folder / "audio_test").rename(folder / "FSDKaggle2018.audio_test")
        truth = read_csv(folder / "test_truth.csv")
        header = ["fname", "label", "usage", "freesound_id", "license"]
        usage = ("Private", "Public")
        scoring = [(r["fname"], r["label"], usage[i % 2], 500 + i, "Attribution") for i, r in enumerate(truth)]
        padding = [("padding.wav", "None", "Ignored", 999, "Attribution")]
        write_csv(meta / "test_post_competition_scoring_clips.csv", header, scoring)
        write_csv(meta / "test_post_competition.csv", header, padding + scoring)
        (folder / "sample_submission.csv").unlink()
        (folder / "test_truth.csv").unlink()
    return folder


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition is true; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still false after {seconds:g} s"
        time.sleep(0.02)


def one_line(error: BaseException) -> str:
    """The message of an error that a user sees, after checking that it is one line of text."""
    message = str(error)
    assert message
    assert message == message.strip()
    assert message.isprintable(), f"not one printable line: {message!r}"
    return message


def error_line(kind: type[BaseException], function: Callable[..., object], *args: object, **kwargs: object) -> str:
    """The message of the error that a call raises; see `one_line`."""
    with pytest.raises(kind) as caught:
        function(*args, **kwargs)
    return one_line(caught.value)


def sounds(rate: int, seconds: float) -> dict[str, np.ndarray]:
    """Noise, a sine, silence and a short tone: float32 (round(rate * seconds),) each."""
    rng = np.random.default_rng(0)
    n_samples = round(rate * seconds)
    short = np.pad(tone(440, seconds / 4, rate), (n_samples // 8, 0))
    return {
        "noise": (0.1 * rng.standard_normal(n_samples)).astype(np.float32),
        "quiet": (1e-4 * rng.standard_normal(n_samples)).astype(np.float32),
        "sine": tone(440, seconds, rate),
        "silence": np.zeros(n_samples, np.float32),
        "short": np.pad(short, (0, n_samples - len(short))),
        "full scale": np.where(np.arange(n_samples) % 40 < 20, 1, -1).astype(np.float32),
    }


def notebooks_audio_norm(data: np.ndarray) -> np.ndarray:
    """As the notebook has it (`seed/beginners-guide.txt`), in float64."""
    max_data = np.max(data)
    min_data = np.min(data)
    data = (data - min_data) / (max_data - min_data + 1e-6)
    return data - 0.5
