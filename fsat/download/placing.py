"""A dataset in its folder: whether all of it is there, and putting it there, the table of training clips last."""

from __future__ import annotations

import csv
import os
import shlex
from pathlib import Path

from fsat.download.esc50 import check_audio, split_recordings
from fsat.download.published import Dataset
from fsat.errors import DataError, count
from fsat.files import sync_folder

WORK, READY = ".downloads", "ready"
"""Where work is done, and the folder in it with a folder of what each archive has become."""


def tops_of(dataset: Dataset) -> list[str]:
    """What a data folder holds in the end, the one with the table of training clips last."""
    tops = {place.split("/")[0] for archive in dataset.archives for place in archive.places.values()}
    tops |= {table.split("/")[0] for table in dataset.tables}
    return sorted(tops, key=lambda top: (top == dataset.table.split("/")[0], top))


def is_whole(folder: Path, dataset: Dataset) -> bool:
    """Whether the dataset is in its place: the table of training clips is, and all clips that it names."""
    try:
        fnames = {row["fname"] for row in _rows(folder / dataset.table)}
        return len(fnames) == dataset.counts[dataset.table] and all(
            {row["fname"] for row in _rows(folder / table)} <= set(os.listdir(folder / audio))
            for table, audio in dataset.tables.items()
        )
    except (FileNotFoundError, NotADirectoryError, KeyError, ValueError):
        return False


def _where(work: Path) -> dict[str, Path]:
    """Where each top of the dataset is: ready, or in its place already."""
    found = {path.name: path for path in work.parent.iterdir() if path.name != WORK}
    return found | {path.name: path for path in work.glob(f"{READY}/*/*")}


def verify(work: Path, dataset: Dataset) -> None:
    """Raise `DataError` unless the tables have as many clips as expected, and every clip is there."""
    again = f"remove {work.parent}, and give the same command again"
    tops = _where(work)
    for table, audio in dataset.tables.items():
        top, _, rest = table.partition("/")
        fnames = [row.get("fname") or "" for row in _rows(tops[top] / rest if rest else tops[top])]
        there = set(os.listdir(tops[audio]))
        if len(set(fnames)) != dataset.counts[table]:
            raise DataError(f"{table}: has {len(set(fnames))} clips, expected {dataset.counts[table]}; {again}")
        if missing := sorted(set(fnames) - there):
            lack = f"{count(len(missing), 'clip')} of {len(fnames)} not in {audio}/, such as {missing[0]}"
            raise DataError(f"{table}: {lack}; {again}")
        if dataset.wav:
            check_audio(tops[audio], fnames, dataset.wav)


def put_in_place(work: Path, dataset: Dataset) -> None:
    """Rename what is ready into the data folder, the table of training clips last."""
    ready = _where(work)
    for top in tops_of(dataset):
        os.rename(ready[top], work.parent / top)
        sync_folder(work.parent)


def summary(folder: Path, dataset: Dataset) -> list[str]:
    """What is there, its licence, how to cite it, and what to do next, line by line."""
    rows = _rows(folder / dataset.table)
    sizes = [f"{dataset.counts[table]:,} clips in {audio}/" for table, audio in dataset.tables.items()]
    lines = [
        f"clips: {', '.join(sizes)}, of {len({row['label'] for row in rows})} classes",
        f"licence: {dataset.licence}",
        f"cite: {dataset.citation}",
    ]
    if split := split_recordings(rows) if dataset.n_folds else []:
        several = f"{count(len(split), 'recording')} with clips in more than one ({', '.join(split)})"
        lines.append(f"folds: as published, {several}; -P folds=stratified keeps recordings together")
    return [*lines, f"next: mlflow run . -P data_dir={shlex.quote(str(folder))}"]


def _rows(table: Path) -> list[dict[str, str]]:
    with open(table, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
