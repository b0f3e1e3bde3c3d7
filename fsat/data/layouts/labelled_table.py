"""The layout of a table with a row for each clip, in columns of any usual names; its clips are anywhere below.

Hugging Face's ``audiofolder`` is such a table too: ``metadata.csv`` or ``metadata.jsonl`` with the column
``file_name``, in the folder itself or in those of its parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fsat.data.layouts.clip_files import ClipFiles
from fsat.data.layouts.rows import (
    COLUMNS,
    TEST_SPLITS,
    TRAIN_SPLITS,
    DataFolder,
    Part,
    Rows,
    listed_names,
    optional_part,
)
from fsat.data.layouts.table_columns import choose, find_candidates, is_clip_table
from fsat.data.tables import JSON_LINES, Table, read_header, read_table
from fsat.errors import DataError, Problem, count, printable
from fsat.files import user_path

SPREADSHEETS = (".csv", ".tsv", *JSON_LINES)
SUFFIXES = (*SPREADSHEETS, ".txt")
METADATA = ("metadata.csv", "metadata.jsonl")
TRUE, FALSE = ("1", "1.0", "true", "yes", "y", "t", "x"), ("0", "0.0", "false", "no", "n", "f", "")


def is_audiofolder(data: DataFolder) -> bool:
    """Return whether there is a table of Hugging Face's audiofolder."""
    return bool(_metadata(data))


def read_audiofolder(data: DataFolder) -> Rows:
    """Read the metadata of an audiofolder, that of its parts as well."""
    return _read(data, _metadata(data))


def tables(data: DataFolder) -> list[Path]:
    """Return the tables that have columns of files and labels: the named one, or those in the folder or one below."""
    options = data.options
    if options.table:
        for path in (data.path / user_path(options.table), user_path(options.table)):
            if path.is_file():
                return [path]
        raise DataError(f"table={printable(options.table)}: no such file in {data.path}; expected a table there")
    for folder in (data.path, *sorted(path for path in data.path.iterdir() if path.is_dir() and path.name[0] != ".")):
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        if usable := [path for path in paths if path.name[0] != "." and is_table(path, data)]:
            return usable
    return []


def read(data: DataFolder) -> Rows:
    """Read the table; raise `DataError` if there are several that may be meant."""
    paths = tables(data) or [path for path in data.path.iterdir() if path.suffix.lower() in SPREADSHEETS][:2]
    if len(paths) > 1 and not all(_split_of(path) for path in paths):
        names = listed_names(sorted(path.relative_to(data.path).as_posix() for path in paths), 9)
        raise DataError(f"{data.path}: {len(paths)} tables may name clips and labels: {names}; choose one with table=")
    return _read(data, paths)


def _read(data: DataFolder, paths: Sequence[Path]) -> Rows:
    """Return the rows of the tables, of which those of a test part are named after it."""
    train_paths = [path for path in paths if _split_of(path) not in TEST_SPLITS]
    test_paths = [path for path in paths if path not in train_paths]
    if not train_paths:
        names = listed_names([path.name for path in paths])
        raise DataError(
            f"{data.path}: {names or 'no table'} of clips to train on; expected one, or name it with table="
        )
    parts = [_Reader(data, path) for path in train_paths]
    frame = pd.concat([part.frame for part in parts], ignore_index=True)
    if missing := frame.columns[frame.isna().any()].tolist():
        raise DataError(f"{data.path}: only some of the tables have the column {missing[0]}; choose one with table=")
    warnings = [warning for part in parts for warning in part.warnings]
    is_test = frame["is_test"]
    problems = [problem for part in parts for problem in part.problems]
    name = " and ".join(path.name for path in train_paths)
    train = frame.loc[~is_test, [name for name in ("file", "row", *COLUMNS) if name in frame]].reset_index(drop=True)
    if train.empty:
        raise DataError(f"{data.path}: every row of {name} is of the test part; expected clips to train on")
    rows = Rows("; ".join(part.reading for part in parts), Part(Table(train, problems, warnings), name, data.path))
    if is_test.any():
        tests = frame.loc[is_test, ["file", "row", "fname"]].reset_index(drop=True)
        rows.test = Part(Table(tests), name, data.path)
    elif test_paths:
        path = test_paths[0]
        rows.test, rows.test_fault = optional_part(path, lambda: _test_part(data, path))
    return rows


def _metadata(data: DataFolder) -> list[Path]:
    folders = [
        data.path,
        *(path for path in sorted(data.path.iterdir()) if path.name.lower() in {*TEST_SPLITS, *TRAIN_SPLITS}),
    ]
    found = []
    for folder in folders:
        for name in METADATA:
            path = folder / name
            if path.is_file() and "file_name" in _header(path):
                found.append(path)
    return found


def _header(path: Path) -> list[str]:
    try:
        return read_header(path)
    except DataError:
        return []


def is_table(path: Path, data: DataFolder) -> bool:
    """Return whether a file has columns of files and labels."""
    return is_clip_table(_header(path), data.options, path)


def _split_of(path: Path) -> str:
    """Return the part of a dataset that a table's name, or that of its folder, stands for; empty if none."""
    for name in (path.stem.lower(), path.parent.name.lower()):
        if name in {*TEST_SPLITS, *TRAIN_SPLITS}:
            return name
    return ""


def _test_part(data: DataFolder, path: Path) -> Part:
    """Read a table of test clips, whose labels are optional and not used."""
    reader = _Reader(data, path, "test")
    return Part(Table(reader.frame[["file", "row", "fname"]], reader.problems, reader.warnings), path.name, data.path)


class _Reader:
    """The rows of a table as `frame`: `COLUMNS` with ``file, row`` and ``is_test``."""

    def __init__(self, data: DataFolder, path: Path, split: str = "train") -> None:
        self._data, self._path, self._split = data, path, split
        needed = ("fname", "label") if split == "train" else ("fname",)
        found = find_candidates(read_header(path), data.options, path, needed)
        known = [column for columns in found.values() for column in columns]
        table = read_table(path, known[:1], known, split)
        files = ClipFiles(data.audio, _below(path.parent, data))
        resolved = {column: files.resolve(table.frame[column]) for column in found["fname"]}
        self._columns, remarks = choose(table.frame, found, path, lambda column: resolved[column].n_found)
        self.problems, self.warnings = list(table.problems), [*table.warnings, *remarks]
        clips = resolved[self._columns["fname"]]
        if clips.by_name_alone:
            what = f"{path.name}: the folders in {self._columns['fname']} are not those below {data.path}"
            self.warnings.append(f"{what}, so clips are found by the names of their files alone")
        frame = pd.DataFrame({"file": path.name, "row": table.frame["row"], "fname": clips.names, "is_test": False})
        if split == "train":
            frame = self._add_labels(frame, table.frame)
        self.frame = self._without_ambiguous(frame, clips.others)

    @property
    def reading(self) -> str:
        """The table and its columns in words."""
        columns = ", ".join(printable(name) for name in self._columns.values())
        return f"{_below(self._path, self._data)}: {columns}"

    def _add_labels(self, frame: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
        columns = self._columns
        frame["label"] = cells[columns["label"]].str.strip()
        verified = cells[columns["manually_verified"]] if "manually_verified" in columns else None
        frame["manually_verified"] = "0" if verified is None else verified.map(_truth)
        if "group" in columns:
            frame["group"] = cells[columns["group"]].str.strip()
        if "fold" not in columns:
            return frame
        folds = cells[columns["fold"]].str.strip()
        lower = folds.str.lower()
        frame["is_test"] = lower.isin(TEST_SPLITS)
        if not lower[~frame["is_test"]].isin(TRAIN_SPLITS).all():
            frame["fold"] = folds
        elif len(parts := sorted(set(folds[~frame["is_test"]]))) > 1:
            what = f"{self._path.name}: {columns['fold']} names parts ({', '.join(map(printable, parts))}), not folds"
            self.warnings.append(f"{what}: cross-validation makes its own folds of all of them")
        return frame

    def _without_ambiguous(self, frame: pd.DataFrame, others: Sequence[Sequence[str]]) -> pd.DataFrame:
        """Return the rows whose file is certain; the others are problems."""
        for row, fname, names in zip(frame["row"], frame["fname"], others, strict=True):
            if names:
                reason = f"{count(len(names), 'file')} may be meant: {listed_names(names)}; name the folder too"
                self.problems.append(Problem(self._path.name, int(row), fname, reason, self._split))
        return frame[[not names for names in others]].reset_index(drop=True)


def _below(path: Path, data: DataFolder) -> str:
    """Return a path relative to the data folder, or as it is if it is elsewhere."""
    return path.relative_to(data.path).as_posix() if path.is_relative_to(data.path) else path.as_posix()


def _truth(cell: str) -> str:
    """Return 1 or 0 for a cell that says yes or no, else the cell."""
    text = cell.strip().lower()
    return "1" if text in TRUE else "0" if text in FALSE else cell
