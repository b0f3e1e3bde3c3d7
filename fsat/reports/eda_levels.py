"""What is odd about the levels and headers of a dataset's clips, found by reading all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from fsat.data.audio import listen
from fsat.data.levels import SEPARATOR, by_kind
from fsat.data.manifest import Manifest
from fsat.errors import AudioError, Problem
from fsat.parallel.executor import Threads
from fsat.progress import Progress
from fsat.reports.eda_text import count, listed
from fsat.text import short

COLUMNS = ["split", "fname", "label", "note"]

Row = tuple[str, Path, str, str, int]
"""Split, folder, name, label and line of a clip."""


def find_odd_clips(manifest: Manifest) -> tuple[pd.DataFrame, list[Problem]]:
    """Read every usable clip; return ``split, fname, label, note`` of the odd ones, and problems of unusable ones."""
    rows, problems, all_clips = [], [], list(_clips(manifest))
    workers = os.cpu_count() or 1
    with Progress("listening to clips", len(all_clips)) as progress:
        for clip, result in zip(all_clips, Threads(workers, 4 * workers).map(_listen, all_clips), strict=True):
            split, _, fname, label, line = clip
            table = manifest.train_table if split == "train" else manifest.test_table
            if isinstance(result, AudioError):
                problems.append(Problem(table, line, fname, str(result), split))
            elif result:
                rows.append((split, fname, label, SEPARATOR.join(result)))
            progress.advance()
    return pd.DataFrame(rows, columns=COLUMNS), problems


def _clips(manifest: Manifest) -> Iterator[Row]:
    for row in manifest.train.itertuples():
        yield "train", manifest.train_folder, row.fname, row.label, row.row
    for row in manifest.test[manifest.test["reason"] == ""].itertuples():
        yield "test", manifest.test_folder, row.fname, "", row.row


def _listen(clip: Row) -> tuple[str, ...] | AudioError:
    _, folder, fname, _, _ = clip
    try:
        return listen(folder / fname)
    except AudioError as error:
        return error


def describe_odd_clips(odd: pd.DataFrame) -> str:
    """Describe how many clips are silent, clipped, off scale and so on, with the first names."""
    kinds = by_kind(odd["fname"], odd["note"])
    if not kinds:
        return "No clip is silent, nearly silent, clipped, off scale or offset, and no channel is dead or cancelled."
    texts = [
        f"{count(len(names), 'clip')}: {kind} ({listed([short(name) for name in names])})"
        for kind, names in kinds.items()
    ]
    return f"{'; '.join(texts)}."
