"""Write FSDKaggle2018 with generated sounds: its real tables, and WAV files of realistic lengths.

``python -m benchmarks.fsdkaggle2018 TABLES_DIR OUT [--share 0.1]`` reads train.csv and sample_submission.csv and writes
them, or a share of their rows, with a WAV file for every row: 44.1 kHz, mono, 16 bits, 300 ms to 30 s, with lengths
that depend on the label, 18 h of training sound in all. As in the original, many test clips share four exact lengths,
and three files have no samples. The output is deterministic. Each file repeats a short sound of `fsat.data.synth`, so
that 10 GB take about a minute.
"""

from __future__ import annotations

import argparse
import csv
import math
import wave
from collections import defaultdict
from pathlib import Path

import numpy as np

RATE = 44100
SHORTEST, LONGEST = 0.3, 30.0
MEDIANS = (1.0, 15.5)
"""Median lengths in seconds of the labels with the shortest and the longest clips."""

SPREAD = 0.8
"""Standard deviation of the logarithms of the lengths of a label's clips."""

TEST_LENGTH = 0.6
"""Factor of the lengths of test clips."""

ABNORMAL = {707364: 0.036, 353682: 0.030, 138474: 0.025, 184338: 0.021}
"""Lengths in samples that the notebook lists, and their shares of the test clips."""

EMPTY = ("0b0427e2.wav", "6ea0099f.wav", "b39975f5.wav")
"""Test files of Kaggle's edition without samples."""

SOUNDS, SOUND_SECONDS = 3, 1.5
"""Number of sounds per kind, and their length in seconds."""


def write(tables: Path, folder: Path, share: float = 1.0, length: float = 1.0) -> dict[str, float]:
    """Write the dataset.

    Args:
        tables: folder of train.csv and sample_submission.csv.
        folder: created if missing; existing files are replaced.
        share: share of the rows of both tables, approximately the same for each class and its verified clips, with at
            least one clip per class.
        length: factor of all lengths but the abnormal ones, for tests.

    Returns:
        numbers of ``train`` and ``test`` clips, and ``train_hours`` and ``test_hours``.
    """
    train, test = sample_train(_rows(tables / "train.csv"), share), _rows(tables / "sample_submission.csv")
    empty = [row for row in test if row["fname"] in EMPTY]
    others = [row for row in test if row["fname"] not in EMPTY]
    chosen = {row["fname"] for row in (*empty, *_spread(others, max(1, round(share * len(others)))))}
    test = [row for row in test if row["fname"] in chosen]
    _write_table(folder / "train.csv", train)
    _write_table(folder / "sample_submission.csv", test)

    labels = [row["label"] for row in train]
    train_frames, test_frames = draw_lengths(labels, [row["fname"] for row in test], length)
    sounds = _sounds()
    names = sorted(set(labels))
    for part, rows, frames in (("train", train, train_frames), ("test", test, test_frames)):
        audio = folder / f"audio_{part}"
        audio.mkdir(parents=True, exist_ok=True)
        for i, (row, n_frames) in enumerate(zip(rows, frames, strict=True)):
            kind = names.index(row["label"]) if part == "train" else i
            sound = sounds[kind % len(sounds)][i % SOUNDS]
            _write_wav(audio / row["fname"], sound, n_frames, 997 * i)
    train_hours, test_hours = (sum(frames) / RATE / 3600 for frames in (train_frames, test_frames))
    return {"train": len(train), "test": len(test), "train_hours": train_hours, "test_hours": test_hours}


def sample_train(rows: list[dict[str, str]], share: float) -> list[dict[str, str]]:
    """Return a share of the training rows in their order, the same for each class and its verified clips."""
    by_label: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_label[row["label"]].append(row)
    chosen: set[str] = set()
    for clips in by_label.values():
        n = max(1, round(share * len(clips)))
        sides = [[row for row in clips if row["manually_verified"] == side] for side in ("1", "0")]
        n_verified = max(n - len(sides[1]), min(len(sides[0]), round(n * len(sides[0]) / len(clips))))
        for side, size in zip(sides, (n_verified, n - n_verified), strict=True):
            chosen.update(row["fname"] for row in _spread(side, size))
    return [row for row in rows if row["fname"] in chosen]


def draw_lengths(labels: list[str], test_names: list[str], length: float = 1.0) -> tuple[list[int], list[int]]:
    """Draw lengths in samples of training clips with these labels and of test clips with these names."""
    rng = np.random.default_rng(2018)
    names = sorted(set(labels))
    medians = dict(zip(names, rng.permutation(np.geomspace(*MEDIANS, len(names))), strict=True))

    def draw(label: str, factor: float) -> int:
        seconds = factor * medians[label] * math.exp(SPREAD * rng.standard_normal())
        if not SHORTEST <= seconds <= LONGEST:  # away from the limits, where clips would share a length
            seconds = rng.uniform(*((SHORTEST, 2 * SHORTEST) if seconds < SHORTEST else (LONGEST / 2, LONGEST)))
        return round(RATE * seconds * length)

    train = [draw(label, 1.0) for label in labels]
    test = [0 if name in EMPTY else draw(labels[rng.integers(len(labels))], TEST_LENGTH) for name in test_names]
    spare = [i for i in rng.permutation(len(test)).tolist() if test[i]]
    for frames, share in ABNORMAL.items():
        for _ in range(min(len(spare), max(3, round(share * len(test))))):
            test[spare.pop()] = frames
    return train, test


def _sounds() -> list[list[np.ndarray]]:
    """Return a few int16 sounds per kind."""
    from fsat.data.synth import CLASSES, synthesise

    rng = np.random.default_rng(41)
    return [
        [np.round(32767 * synthesise(label, SOUND_SECONDS, RATE, rng)).astype("<i2") for _ in range(SOUNDS)]
        for label in CLASSES
    ]


def _write_wav(path: Path, sound: np.ndarray, frames: int, start: int) -> None:
    """Write `frames` samples of a repeated sound, beginning with sample `start`."""
    repeated = np.resize(np.roll(sound, -start), frames)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(repeated.tobytes())


def _spread(rows: list[dict[str, str]], n: int) -> list[dict[str, str]]:
    """Return n evenly spread rows."""
    return [rows[i * len(rows) // n] for i in range(min(n, len(rows)))]


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fsdkaggle2018", description=__doc__)
    parser.add_argument("tables", type=Path, metavar="TABLES_DIR", help="train.csv and sample_submission.csv")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, up to 10 GB")
    parser.add_argument("--share", type=float, default=1.0, help="share of the rows [default: 1]")
    arguments = parser.parse_args()
    if missing := [name for name in ("train.csv", "sample_submission.csv") if not (arguments.tables / name).is_file()]:
        parser.error(f"{arguments.tables}: {' and '.join(missing)} missing; expected the tables of FSDKaggle2018")
    if not 0 < arguments.share <= 1:
        parser.error(f"--share {arguments.share}: expected a number above 0 and at most 1")
    facts = write(arguments.tables, arguments.out, arguments.share)
    parts = [f"{facts[part]} {part} clips ({facts[f'{part}_hours']:.1f} h)" for part in ("train", "test")]
    print(f"{arguments.out}: {' and '.join(parts)}")


if __name__ == "__main__":
    main()
