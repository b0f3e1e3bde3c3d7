"""Write what a layout was understood as: one table of all clips, to be edited and read again."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from fsat.data.layouts.recognise import Reading
from fsat.data.layouts.rows import Part
from fsat.data.tables import write_table
from fsat.errors import DataError
from fsat.text import split_labels

ANNOTATED = ("fname", "start", "end", "label", "manually_verified")
"""Columns of the clips of annotated recordings; ``labels`` for ``label`` where clips have several labels or none."""

SPECIAL = re.compile(r"[,;|\"\[\](){}]")
"""Characters of a label that may separate or enclose labels."""


def write_manifest_table(reading: Reading, folder: Path, output: Path) -> int:
    """Write a row for each clip, with names relative to the data folder; return their number.

    Columns are ``fname, label, manually_verified``, and where they are known ``fold``, ``group`` and ``split``, which
    is ``train`` or ``test``; for annotated recordings `ANNOTATED`. Where clips have several labels or none, ``labels``
    in place of ``label`` lists them, separated by commas.

    Rows with a problem are left out. Raises `DataError` if no clip was understood.
    """
    train = _sound(reading.rows.train)
    table = _annotations(train) if reading.layout == "annotations" else _clips(train, reading.rows.test, folder)
    if reading.rows.task == "multi":
        table = table.assign(label=table["label"].map(_listed)).rename(columns={"label": "labels"})
    if table.empty:
        raise DataError(f"{folder}: no clip was understood; see the problems that eda lists")
    write_table(table, output)
    return len(table)


def _sound(part: Part) -> Part:
    """Return a part without the rows that have a problem."""
    bad = {(problem.file, problem.row) for problem in part.table.problems}
    frame = part.table.frame
    is_sound = [key not in bad for key in zip(frame["file"], frame["row"], strict=True)]
    return replace(part, table=replace(part.table, frame=frame[is_sound].reset_index(drop=True)))


def _clips(train: Part, test: Part | None, folder: Path) -> pd.DataFrame:
    table = _named(train, folder)
    if test is not None and len(test.table.frame):
        table = pd.concat([table.assign(split="train"), _named(test, folder).assign(split="test")], ignore_index=True)
    columns = ("fname", "label", "manually_verified", "fold", "group", "split")
    return table[[name for name in columns if name in table]].fillna("")


def _listed(cell: str) -> str:
    """Return the labels of a cell so that none of their characters can be taken for a separator or a list."""
    labels = [label.replace('"', '""') if SPECIAL.search(label) else label for label in split_labels(cell)]
    return ",".join(f'"{label}"' if SPECIAL.search(label) else label for label in labels)


def _annotations(part: Part) -> pd.DataFrame:
    frame = part.table.frame
    table = frame.assign(fname=frame["recording"])[list(ANNOTATED)]
    return table.assign(**{name: table[name].map("{:.6f}".format) for name in ("start", "end")})


def _named(part: Part, folder: Path) -> pd.DataFrame:
    """Return the rows of a part with names relative to the data folder."""
    below = os.path.relpath(part.folder, folder)
    names = [os.path.normpath(os.path.join(below, name)).replace(os.sep, "/") for name in part.table.frame["fname"]]
    return part.table.frame.assign(fname=names)
