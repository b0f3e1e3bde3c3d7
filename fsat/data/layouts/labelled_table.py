"""The layout of a table with a row for each clip, in columns of any usual names; its clips are anywhere below.

Hugging Face's ``audiofolder`` is such a table too: ``metadata.csv`` or ``metadata.jsonl`` with the column
``file_name``, in the folder itself or in those of its parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fsat.data.layouts.label_cells import (
    FLAGGED,
    LabelColumn,
    explain_ragged,
    flagged_cells,
    items_of,
    labels_of,
    means_list,
    separator_of,
)
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
from fsat.data.layouts.table_columns import choose, find_candidates, look_of, missing_meanings
from fsat.data.layouts.table_files import (
    SPREADSHEETS,
    find_tables,
    flag_columns,
    header_of,
    is_table,
    names_clips,
    options_for,
    table_files,
    why_no_header,
)
from fsat.data.tables import ListCell, Table, read_header, read_table
from fsat.errors import DataError, Problem, count, printable

PRIMARY, SECONDARY = "primary_label", "secondary_labels"
"""Columns of BirdCLEF: the bird that a clip is of, and others that are heard in it."""

INSTRUMENT, RELEVANCE, LEAST_RELEVANCE = "instrument", "relevance", 0.5
"""Columns of OpenMIC: a label, and the probability that the clip has it; and the least one with which it counts."""

METADATA = ("metadata.csv", "metadata.jsonl")
TRUE, FALSE = ("1", "1.0", "true", "yes", "y", "t", "x"), ("0", "0.0", "false", "no", "n", "f", "")


def is_audiofolder(data: DataFolder) -> bool:
    """Return whether there is a table of Hugging Face's audiofolder, with labels."""
    return any(is_table(path, data) for path in _metadata(data))


def read_audiofolder(data: DataFolder) -> Rows:
    """Read the metadata of an audiofolder, that of its parts as well."""
    return _read(data, _metadata(data))


def read(data: DataFolder) -> Rows:
    """Read the table; raise `DataError` if there are several that may be meant."""
    paths = data.once(find_tables) or [path for path in data.path.iterdir() if path.suffix.lower() in SPREADSHEETS][:2]
    if len(paths) > 1 and not all(_split_of(path, data) for path in paths):
        names = listed_names(sorted(path.relative_to(data.path).as_posix() for path in paths), 9)
        raise DataError(f"{data.path}: {len(paths)} tables may name clips and labels: {names}; choose one with table=")
    return _read(data, [*paths, *_unlabelled_tests(data, paths)])


def _read(data: DataFolder, paths: Sequence[Path]) -> Rows:
    """Return the rows of the tables, of which those of a test part are named after it."""
    train_paths = [path for path in paths if data.options.table or _split_of(path, data) not in TEST_SPLITS]
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
    columns = [name for name in ("file", "row", *COLUMNS, "absent") if name in frame]
    train = frame.loc[~is_test, columns].reset_index(drop=True)
    if train.empty and problems:
        raise DataError(f"{data.path}: no row of {name} can be used; fix the rows listed above", problems)
    if train.empty:
        raise DataError(f"{data.path}: every row of {name} is of the test part; expected clips to train on")
    reading = "; ".join(part.reading for part in parts)
    rows = Rows(reading, Part(Table(train, problems, warnings), name, data.path), labels=parts[0].labels)
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
            if path.is_file() and "file_name" in header_of(path):
                found.append(path)
    return found


def _unlabelled_tests(data: DataFolder, paths: Sequence[Path]) -> list[Path]:
    """Return the table of test clips beside that of training clips, if there is one without labels."""
    if data.options.table or not paths or any(_split_of(path, data) in TEST_SPLITS for path in paths):
        return []
    for path in table_files(paths[0].parent, data):
        has_files = "fname" not in missing_meanings(header_of(path), data.options, path)
        if path not in paths and _split_of(path, data) in TEST_SPLITS and has_files and names_clips(path, data):
            return [path]
    return []


def _split_of(path: Path, data: DataFolder) -> str:
    """Return the part of a dataset that a table's name, or that of its folder, stands for; empty if none."""
    names = (path.stem, path.parent.name if path.parent != data.path else "")
    return next((name.lower() for name in names if name.lower() in {*TEST_SPLITS, *TRAIN_SPLITS}), "")


def _test_part(data: DataFolder, path: Path) -> Part:
    """Read a table of test clips, whose labels are optional and not used."""
    reader = _Reader(data, path, "test")
    return Part(Table(reader.frame[["file", "row", "fname"]], reader.problems, reader.warnings), path.name, data.path)


class _Reader:
    """The rows of a table as `frame`: `COLUMNS` with ``file, row`` and ``is_test``."""

    def __init__(self, data: DataFolder, path: Path, split: str = "train") -> None:
        self._data, self._path, self._split = data, path, split
        header = read_header(path)
        if fault := why_no_header(path, header, data):
            raise DataError(f"{path}: {fault}")
        self._flags = flag_columns(path, header, data) if split == "train" else []
        needed = ("fname", "label") if split == "train" and not self._flags else ("fname",)
        found = find_candidates(header, options_for(path, header, data), path, needed)
        found = {meaning: names for meaning, names in found.items() if meaning != "label" or not self._flags}
        looks = {look_of(name): name for name in header}
        pairs = ((PRIMARY, SECONDARY), (INSTRUMENT, RELEVANCE))
        self._others = {other: looks[other] for name, other in pairs if {name, other} <= looks.keys()}
        known = [*(column for columns in found.values() for column in columns), *self._flags, *self._others.values()]
        table = read_table(path, known[:1], known, split)
        below = data.below(path.parent)
        resolved = {column: data.files.resolve(table.frame[column], below) for column in found["fname"]}
        self._columns, remarks = choose(table.frame, found, path, lambda column: resolved[column].n_found)
        self.problems, self.warnings = list(table.problems), [*table.warnings, *remarks]
        if split == "train":
            self.problems = explain_ragged(self.problems, self.labels)
        self._splits = [name for name in found.get("fold", ()) if name != self._columns["fold"]]
        clips = resolved[self._columns["fname"]]
        if clips.without:
            what = f"{path.name}: no cell of {printable(self._columns['fname'])} is the name of a file as it is"
            self.warnings.append(f"{what}, so clips are found by these names without {clips.without}")
        if split == "train" and len(clips.names) > 1 and not clips.n_found and not any(clips.others):
            raise DataError(f"{path}: {self._why_no_clip(table.frame)}")
        frame = pd.DataFrame({"file": path.name, "row": table.frame["row"], "fname": clips.names, "is_test": False})
        if split == "train":
            frame = self._add_labels(frame, table.frame)
        self.frame = self._without_ambiguous(*_with_labels_as_folders(frame, clips.others))

    def _why_no_clip(self, cells: pd.DataFrame) -> str:
        """Return that no row names a file, with the first cell and the first file."""
        column = self._columns["fname"]
        first = f"the first {printable(column)} is {printable(cells[column].iloc[0])}"
        files = f"no audio file is in or below {self._data.path}"
        if self._data.audio:
            files = f"the first file below {self._data.path} is {printable(self._data.audio[0])}"
        what = f"none of its {len(cells)} rows names an audio file that is there"
        return f"{what}: {first}, and {files}; correct the names, or choose another column with path_column="

    @property
    def reading(self) -> str:
        """The table and its columns in words."""
        names = [printable(name) for name in self._columns.values()]
        columns = ", ".join([*names, listed_names(self._flags)] if self._flags else names)
        return f"{self._data.below(self._path)}: {columns}"

    @property
    def labels(self) -> LabelColumn:
        """The column of labels."""
        if self._flags:
            return LabelColumn(", ".join(self._flags), form=FLAGGED)
        name = self._columns["label"]
        if self._has_secondary:
            return LabelColumn(name, form=f"{name} and {self._others[SECONDARY]}")
        return LabelColumn(name, means_list(name))

    @property
    def _has_secondary(self) -> bool:
        """Whether further labels of clips are in another column, and read."""
        is_there = SECONDARY in self._others and look_of(self._columns.get("label", "")) == PRIMARY
        return is_there and self._data.options.task == "multi"

    def _label_cells(self, cells: pd.DataFrame, is_test: pd.Series) -> list[str]:
        """Return the labels of each row as one cell; further columns than that of the labels may belong to them."""
        if self._flags:
            flagged = flagged_cells(cells, self._flags, self._path.name, self._columns["fname"], is_test.tolist())
            self.problems += flagged.problems
            self.warnings += flagged.warnings
            return flagged.cells
        texts = [cell if isinstance(cell, ListCell) else cell.strip() for cell in cells[self._columns["label"]]]
        if self._has_secondary:
            return self._with_secondary(cells, texts)
        if SECONDARY in self._others:
            what, way_out = f"{self._path.name}: {self._others[SECONDARY]} is not used", "task=multi reads all of them"
            if look_of(self._columns["label"]) != PRIMARY:
                way_out = f"task=multi with label_column={PRIMARY} reads all of them"
            self.warnings.append(f"{what}: a clip has one label ({way_out})")
        return texts

    def _with_secondary(self, cells: pd.DataFrame, texts: Sequence[str]) -> list[str]:
        """Return the labels of each row with the further ones of another column; a list that is none is a problem."""
        column, labels = self._others[SECONDARY], list[str]()
        separator = separator_of(cells[column].unique())
        for row, fname, text, cell in zip(
            cells["row"], cells[self._columns["fname"]], texts, cells[column], strict=True
        ):
            items = items_of(cell)
            own, fault = labels_of(cell, separator) if items is None else (items, "")
            if fault:
                self.problems.append(Problem(self._path.name, int(row), fname, f"{printable(column)}: {fault}"))
            labels.append(ListCell((text, *filter(None, own))))
        return labels

    def _are_absent(self, cells: pd.DataFrame) -> pd.Series | None:
        """Return 1 for each row whose label is said not to be in the clip, else 0; empty texts where that is unknown.

        None if there is no such column, or most of its cells are no probabilities.
        """
        column = self._others.get(RELEVANCE)
        if column is None or self._flags or look_of(self._columns["label"]) != INSTRUMENT:
            return None
        numbers = pd.to_numeric(cells[column], errors="coerce")
        is_known = numbers.between(0, 1)
        if is_known.mean() > 0.5:
            return (numbers < LEAST_RELEVANCE).map({True: "1", False: "0"}).where(is_known, "")
        first = f"line {cells['row'][~is_known].iloc[0]} has {printable(cells[column][~is_known].iloc[0])[:40]!r}"
        what = f"{self._path.name}: {column} is not used, so that each row counts: {first}"
        self.warnings.append(f"{what}, expected probabilities from 0 to 1")
        return None

    def _add_labels(self, frame: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
        columns = self._columns
        if "fold" in columns:
            self._add_folds(frame, cells)
        labels = self._label_cells(cells, frame["is_test"])
        frame["label"] = pd.Series(labels, dtype=object)  # pandas' own texts are no `ListCell`
        if (absent := self._are_absent(cells)) is not None:
            frame["absent"] = absent
        frame["manually_verified"] = "0"
        if column := columns.get("manually_verified"):
            rows = zip(frame["row"], frame["fname"], cells[column], strict=True)
            frame["manually_verified"] = [self._truth(*row) for row in rows]
        if "group" in columns:
            frame["group"] = cells[columns["group"]].str.strip()
            if not self._data.options.group_column and _is_one_for_each_label(frame):
                frame = frame.drop(columns="group")
                what = f"{self._path.name}: {columns.pop('group')} has one value for each label"
                self.warnings.append(f"{what}, so it is not read as groups (group_column= reads it)")
        return frame

    def _add_folds(self, frame: pd.DataFrame, cells: pd.DataFrame) -> None:
        """Add ``is_test``, and ``fold`` unless the column names parts."""
        columns = self._columns
        folds = cells[columns["fold"]].str.strip()
        lower = folds.str.lower()
        frame["is_test"] = lower.isin(TEST_SPLITS)
        for name in self._splits:  # test clips have no fold where `fsat manifest` writes both columns
            frame["is_test"] |= (lower == "") & cells[name].str.strip().str.lower().isin(TEST_SPLITS)
        if not lower.isin({*TRAIN_SPLITS, *TEST_SPLITS}).any():
            frame["fold"] = folds
        elif len(parts := sorted(set(folds[~frame["is_test"]]))) > 1:
            what = f"{self._path.name}: {columns['fold']} names parts ({', '.join(map(printable, parts))}), not folds"
            self.warnings.append(f"{what}: cross-validation makes its own folds of all of them")

    def _truth(self, row: int, fname: str, cell: str) -> str:
        """Return 1 or 0 for a cell that says yes or no; another one is a problem."""
        text = cell.strip().lower()
        if text not in (*TRUE, *FALSE):
            column = printable(self._columns["manually_verified"])
            reason = f"{column} is {printable(cell)[:40]!r}, expected 1 or 0, true or false, yes or no"
            self.problems.append(Problem(self._path.name, int(row), fname, reason))
        return "1" if text in TRUE else "0"

    def _without_ambiguous(self, frame: pd.DataFrame, others: Sequence[Sequence[str]]) -> pd.DataFrame:
        """Return the rows whose file is certain; the others are problems, and raise `DataError` if it is none."""
        folders = {tuple(name.rpartition("/")[0] for name in names) for names in others}
        if len(others) > 1 and len(folders) == 1 and (same := folders.pop()):
            what = f"{self._path}: each of its {len(others)} clips is in {len(same)} folders, {listed_names(same)}"
            raise DataError(f"{what}; name the folder in {self._columns['fname']}, or move the others away")
        for row, fname, names in zip(frame["row"], frame["fname"], others, strict=True):
            if names:
                reason = f"{count(len(names), 'file')} may be meant: {listed_names(names)}; name the folder too"
                self.problems.append(Problem(self._path.name, int(row), fname, reason, self._split))
        return frame.loc[[not names for names in others]].reset_index(drop=True)


def _with_labels_as_folders(
    frame: pd.DataFrame, others: Sequence[list[str]]
) -> tuple[pd.DataFrame, Sequence[list[str]]]:
    """Return the rows and the files that each may mean, where the only one in a folder with its label is certain."""
    if "label" not in frame or not any(others):
        return frame, others
    names, left = frame["fname"].tolist(), list(others)
    for i, (label, files) in enumerate(zip(frame["label"], others, strict=True)):
        if len(own := [name for name in files if label in name.split("/")[:-1]]) == 1:
            names[i], left[i] = own[0], []
    return frame.assign(fname=names), left


def _is_one_for_each_label(frame: pd.DataFrame) -> bool:
    """Return whether groups are the labels by other names, so that no fold could train on a label and test on it."""
    n_pairs = len(frame[["label", "group"]].drop_duplicates())
    return 1 < n_pairs < len(frame) and n_pairs == frame["label"].nunique() == frame["group"].nunique()
