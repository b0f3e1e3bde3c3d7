"""ESC-50's own table as a manifest: one row a clip, its fold, and the Freesound recording that it was cut from.

A clip's name is FOLD-RECORDING-TAKE-CLASS.wav; meta/esc50.csv says the same, with the class in words. The published
folds keep clips of one recording together but for a few recordings; fsat leaves the folds as they are, and says so.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

from fsat.download.published import Dataset
from fsat.errors import AudioError, DataError, count
from fsat.text import why_not_a_label

META = "meta/esc50.csv"
COLUMNS = ("filename", "fold", "category", "src_file")


def write_train_table(folder: Path, dataset: Dataset) -> None:
    """Write ``train.csv`` for ESC-50's table, once that says what it must.

    Args:
        folder: with ``meta/esc50.csv``.
        dataset: says how many clips and folds there must be.

    Raises:
        DataError: the table is not as expected.
        OSError: a file cannot be read or written.
    """
    with open(folder / META, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = dataset.counts[dataset.table]
    if missing := [name for name in COLUMNS if not rows or rows[0].get(name) is None]:
        raise DataError(f"{META}: has no column {missing[0]}; expected {','.join(COLUMNS)}")
    folds = Counter(row["fold"] for row in rows)
    expected = {str(fold): wanted // dataset.n_folds for fold in range(1, dataset.n_folds + 1)}
    if folds != expected or len({row["filename"] for row in rows}) != wanted:
        raise DataError(
            f"{META}: has {count(len(rows), 'clip')} in folds of {dict(sorted(folds.items()))}, expected "
            f"{wanted} different ones in folds of {expected}"
        )
    for row in rows:
        if reason := why_not_a_label(row["category"]):
            raise DataError(f"{META}: {row['filename']}: {reason}")
    with open(folder / dataset.table, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["fname", "label", "manually_verified", "fold", "freesound_id"])
        table.writerows([row["filename"], row["category"], 1, row["fold"], row["src_file"]] for row in rows)


def check_audio(folder: Path, fnames: list[str], wav: tuple[int, int]) -> None:
    """Raise `DataError` unless every clip has as many samples at that rate, in Hz."""
    from fsat.data.audio import read_header

    frames, rate = wav
    for fname in fnames:
        try:
            header = read_header(folder / fname)
        except AudioError as error:
            raise DataError(f"{fname}: {error}; expected {frames} samples at {rate} Hz") from error
        if (header.frames, header.samplerate) != wav:
            raise DataError(
                f"{fname}: has {header.frames} samples at {header.samplerate} Hz, expected {frames} at {rate} Hz"
            )


def split_recordings(rows: list[dict[str, str]]) -> list[str]:
    """The recordings that have clips in more than one fold."""
    folds = defaultdict(set)
    for row in rows:
        folds[row.get("freesound_id", "")].add(row.get("fold"))
    return sorted(name for name, found in folds.items() if name and len(found) > 1)
