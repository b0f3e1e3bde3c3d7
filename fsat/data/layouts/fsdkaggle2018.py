"""The layout of FSDKaggle2018, with Kaggle's names or Zenodo's, and of fsat's own tables.

A column ``labels`` in place of ``label`` lists the labels of each clip, and so does a column of 0 and 1 for each label.

Kaggle: ``train.csv``, ``audio_train/``, ``sample_submission.csv``, ``audio_test/``. Zenodo:
``FSDKaggle2018.meta/train_post_competition.csv``, ``FSDKaggle2018.audio_train/``, ... The test part is optional.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from fsat.data.layouts.label_cells import FLAGGED, LabelColumn, explain_ragged, flagged_cells, shows_several
from fsat.data.layouts.rows import DataFolder, Part, Rows, optional_part, renamed
from fsat.data.layouts.table_files import describe_other_flags, flag_columns, is_table
from fsat.data.tables import Table, read_header, read_table
from fsat.errors import DataError, Problem
from fsat.text import NO_LABEL

REQUIRED = ("fname", "label")
LISTED = LabelColumn("labels", is_list=True)
KNOWN = ("manually_verified", "fold", "freesound_id", "group", "license")

META = "FSDKaggle2018.meta"
TRAIN_TABLES = ("train.csv", "train_post_competition.csv", f"{META}/train_post_competition.csv")
TRAIN_FOLDERS = ("audio_train", "FSDKaggle2018.audio_train")
TEST_TABLES = (
    "sample_submission.csv",
    "test_post_competition.csv",
    f"{META}/test_post_competition_scoring_clips.csv",
    f"{META}/test_post_competition.csv",
)
TEST_FOLDERS = ("audio_test", "FSDKaggle2018.audio_test")


def matches(data: DataFolder) -> bool:
    """Return whether the folder has such a table, and the folder of its clips; others read one with other columns."""
    table, folder = data.find(TRAIN_TABLES), data.find(TRAIN_FOLDERS)
    if table is None or folder is None:
        return False
    if META in table.parts:
        return True
    try:
        header = read_header(table)
        required = {"fname", *(_flags(table, data) or [_label_column(table, data).name])}
        if not required <= set(header):
            return not is_table(table, data)
        first = read_table(table, ("fname",), header).frame["fname"].head(1).tolist()
        return not any((data.path / name).is_file() and not (folder / name).is_file() for name in first)
    except DataError:
        return True  # reading it says what is wrong


def read(data: DataFolder) -> Rows:
    """Read the tables; raise `DataError` if one is missing or cannot be read."""
    path = _first(
        data, TRAIN_TABLES, "a table of training clips", f", with the columns {','.join(REQUIRED)},manually_verified"
    )
    folder = _first(data, TRAIN_FOLDERS, "a folder of training clips")
    if flags := _flags(path, data):
        labels = LabelColumn("label", is_list=True, form=FLAGGED)
        table = read_table(path, ("fname", *flags), KNOWN)
        flagged = flagged_cells(table.frame, flags, path.name, "fname")
        table.frame = table.frame.drop(columns=flags)
        table.frame["label"] = pd.Series(flagged.cells, dtype=object)
        table.problems, table.warnings = table.problems + flagged.problems, table.warnings + flagged.warnings
        table.warnings = table.warnings + describe_other_flags(path, read_header(path), data, flags)
    else:
        labels = _label_column(path, data)
        table = read_table(path, ("fname", labels.name), KNOWN)
        table.problems = explain_ragged(table.problems, labels)
    if {"freesound_id", "group"} <= set(table.frame):
        raise DataError(f"{path}: it has the columns freesound_id and group; keep the one whose clips stay together")
    names = {"freesound_id": "group", labels.name: "label"}
    train = Part(renamed(table, names, path.name), path.name, folder)
    test_path, test_folder = data.find(TEST_TABLES), data.find(TEST_FOLDERS)
    reading = f"{path.relative_to(data.path).as_posix()} with {folder.name}/"
    if test_path is None:
        unused = [f"{test_folder.name} is not used, because {TEST_TABLES[0]} is missing"] if test_folder else []
        return Rows(reading, train, warnings=unused, labels=labels)
    clips = test_folder or data.path / TEST_FOLDERS[0]
    test, fault = optional_part(test_path, lambda: Part(_test_table(test_path, labels), test_path.name, clips))
    return Rows(reading, train, test, fault, labels=labels)


def _flags(path: Path, data: DataFolder) -> list[str]:
    """Return the columns that have 0 or 1 for a label each; none if a column has labels."""
    header = read_header(path)
    return flag_columns(path, header, data) if "fname" in header else []


def _label_column(path: Path, data: DataFolder) -> LabelColumn:
    """Return the column of labels: ``labels`` if there is no ``label``, and its cells are lists."""
    header = read_header(path)
    if {"label", "labels"} <= set(header) and data.options.task == "multi":
        raise DataError(f"{path}: it has the columns label and labels; keep the one that has all labels of the clips")
    if "label" not in header and {"fname", "labels"} <= set(header):
        cells = read_table(path, ("fname", "labels"), header).frame["labels"]
        if data.options.task == "multi" or shows_several(cells.unique(), LISTED):
            return LISTED
    return LabelColumn("label")


def _first(data: DataFolder, names: Iterable[str], description: str, columns: str = "") -> Path:
    """Return the first path that exists; raise `DataError` if there is none."""
    if path := data.find(names):
        return path
    raise DataError(f"{data.path}: {description} is missing; expected {' or '.join(names)}{columns}")


def _test_table(path: Path, labels: LabelColumn) -> Table:
    """Read the test table; a row with too many or too few cells keeps its name, a duplicate does not.

    Where clips have several labels, a submission has a column for each class.
    """
    known = read_header(path) if labels.is_list else ("label", "usage", "freesound_id", "license")
    table = read_table(path, ("fname",), known, "test")
    frame = table.frame
    if table.problems:
        ragged = pd.DataFrame([{"row": problem.row, "fname": problem.fname} for problem in table.problems])
        frame = pd.concat([frame, ragged]).sort_values("row").reset_index(drop=True)
    if META in path.parts and "label" in frame:  # Zenodo leaves out the padding clips' audio
        frame = frame[frame["label"] != NO_LABEL].reset_index(drop=True)
    duplicate = frame["fname"].map(os.path.normpath).duplicated()
    again = [
        Problem(path.name, int(row), fname, "duplicate row, which is left out", "test")
        for row, fname in frame.loc[duplicate, ["row", "fname"]].itertuples(index=False)
    ]
    kept = frame.loc[~duplicate, ["row", "fname"]].reset_index(drop=True).assign(file=path.name)
    return Table(kept, [*again, *table.problems], table.warnings)
