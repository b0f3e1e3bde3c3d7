"""Decide whether clips have one label or any number, and read the labels of each clip accordingly.

Every layout's reader returns one label cell a row; `settle_task` settles `fsat.data.layouts.rows.Rows.task` by the
option ``task``, or where it is ``auto``, by what the cells and rows show without doubt.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import pandas as pd

from fsat.data.label_checks import look_of
from fsat.data.layouts.label_cells import items_of, labels_of, separator_of, shows_several
from fsat.data.layouts.rows import Rows, listed_names
from fsat.data.tables import ListCell, Table
from fsat.errors import DataError, Problem, count, printable
from fsat.layout_options import LayoutOptions
from fsat.text import NO_VALUES, is_unknown, join_labels, label_order, why_not_a_label

REPEATED, LEAST_REPEATED = 0.1, 3
"""Share and number of clips that have several rows with different labels where a table has a row for each label."""

MAY_BE_NONE = ("no_label", "nolabel", "unlabeled", "unlabelled", "nothing", "no_event", "background")
"""Labels, as they look, that may mean that a clip has none of the classes."""

FIRST_NAMED = 3
"""Number of lines or labels that a message names."""


def settle_task(rows: Rows, options: LayoutOptions) -> None:
    """Settle ``task``, and make the label cells of the training clips what they are in `Rows`; `rows` is changed.

    Raises `DataError` if `options.background` is the label of no clip.
    """
    cells, column = rows.train.table.frame["label"].tolist(), rows.labels
    several = column is not None and shows_several(_distinct(cells), column)
    repeated = column is not None and _has_row_for_each_label(rows.train.table.frame)
    separator = ""  # that a label may have in it
    if column and (several or options.task == "multi"):
        separator = column.separator or separator_of(_distinct(cells))
    task = options.task
    if task == "auto":
        task = "multi" if several or repeated or options.background else "single"
    absent = rows.train.table.frame.get("absent")
    rows.train.table.frame = rows.train.table.frame.drop(columns="absent", errors="ignore")
    if task == "single":
        if absent is not None and (absent != "0").any():
            what = f"{rows.train.name}: a relevance below 0.5 is not used: a clip has one label"
            rows.train.table.warnings.append(f"{what} (task=multi reads it as not in the clip)")
        if several:
            _keep_single(rows.train.table, separator)
        if options.background and not rows.makes_background:
            check_background(options.background, rows.train.table.frame["label"].str.strip())
        return
    rows.task = "multi"
    reader = _Reader(rows, options.background, separator)
    reader.read(absent)
    rows.reading += f"; task=multi: {', '.join(reader.forms)}"


def _distinct(cells: Iterable[str]) -> list[str]:
    """Return the distinct cells; a list is another one than its text."""
    return list({(cell, cell.items if isinstance(cell, ListCell) else None): cell for cell in cells}.values())


def _has_row_for_each_label(frame: pd.DataFrame) -> bool:
    """Return whether a good share of the clips have rows with different labels."""
    n_labels = frame["label"].groupby(frame["fname"].map(os.path.normpath)).nunique()
    return int((n_labels > 1).sum()) >= max(LEAST_REPEATED, REPEATED * len(n_labels))


def _keep_single(table: Table, separator: str) -> None:
    """Make rows with several labels or none problems."""
    frame = table.frame
    sound, labels = [], []
    for file, row, fname, cell in frame[["file", "row", "fname", "label"]].itertuples(index=False):
        found, _ = labels_of(cell, separator)
        is_list = items_of(cell) is not None
        if len(found) > 1:
            shown = printable(",".join(found))
            reason = f"the clip has {len(found)} labels ({shown}), and takes one: keep one, or use task=multi"
            table.problems.append(Problem(file, int(row), fname, reason))
        elif is_list and not found:
            reason = "the clip has no label; if it has none of the classes, use task=multi"
            table.problems.append(Problem(file, int(row), fname, reason))
        sound.append(len(found) == 1 or (not is_list and not found))
        labels.append(found[0] if is_list and found else str(cell))
    table.frame = frame.assign(label=labels)[sound].reset_index(drop=True)


class _Reader:
    """Reads the label cells of the training clips as the labels of each; `forms` is how, in words.

    Without a `separator` a cell is one label, or none, unless it is a list itself.
    """

    def __init__(self, rows: Rows, background: str, separator: str) -> None:
        self._rows, self._background, self._separator = rows, background, separator
        self._table, self._faulty = rows.train.table, set[str]()
        self._twice, self._missing, self._beside, self._empty = (list[int]() for _ in range(4))
        self._n_lists = self._n_split = self._n_merged = 0
        self.forms: list[str] = []

    def read(self, absent: pd.Series | None) -> None:
        """Change the table: a row for each clip, whose label cell is as `Rows` has it; `absent` has rows without it."""
        frame = self._table.frame
        labels = [self._labels(*row) for row in frame[["file", "row", "fname", "label"]].itertuples(index=False)]
        if absent is not None:
            self._check_relevance(frame[absent == ""])
            known = {label for own in labels for label in own}
            labels = [() if mark == "1" else own for own, mark in zip(labels, absent, strict=True)]
            if never := label_order(known.difference(*labels)):
                what = f"{count(len(never), 'label')} with a relevance below 0.5 in all rows, left out of the classes"
                self._table.warnings.append(f"{what}: {listed_names(never, 9)}")
        if self._background and not self._rows.makes_background:
            check_background(self._background, [label for own in labels for label in own])
        labels = [self._without_background(line, own) for line, own in zip(frame["row"], labels, strict=True)]
        for file, row, fname, own in zip(frame["file"], frame["row"], frame["fname"], labels, strict=True):
            if reason := next(filter(None, map(self._why_not_a_class, own)), ""):
                self._fail(file, row, fname, reason)
        names = [os.path.normpath(fname) for fname in frame["fname"]]
        self._leave_out_whole_clips(names)
        self._check_parts(frame, names)
        merged, first = self._merge(frame, labels)
        if absent is None:
            with_labels = {names[i] for i in first if merged[i]}
            rows = zip(names, labels, frame["row"], strict=True)
            self._empty = [line for name, own, line in rows if not own and name in with_labels]
        sound = [i for i in first if names[i] not in self._faulty]
        table = frame.iloc[sound].assign(label=[join_labels(merged[i]) for i in sound])
        if "manually_verified" in table:
            table["manually_verified"] = [self._verified[i] for i in sound]
        self._table.frame = table.reset_index(drop=True)
        self._describe()
        self._warn_of_classes({label for i in sound for label in merged[i]})
        if absent is not None:
            self.forms.append("not those whose relevance is below 0.5")

    def _leave_out_whole_clips(self, names: Sequence[str]) -> None:
        """Leave out clips of which a row could not be read: their labels are not known completely."""
        bad = {os.path.normpath(problem.fname) for problem in self._table.problems if problem.fname}
        bad -= self._faulty
        ends = {end for name in bad for end in (name, os.path.splitext(name)[0])}
        for name in set(names) if bad else ():
            parts = name.split("/")
            own = {"/".join(parts[i:]) for i in range(len(parts))}
            if not ends.isdisjoint({*own, *(os.path.splitext(end)[0] for end in own)}):
                self._faulty.add(name)

    def _check_parts(self, frame: pd.DataFrame, names: Sequence[str]) -> None:
        """Make clips that rows name as training and as test clips problems; each test clip stays once."""
        test = self._rows.test
        if test is None:
            return
        tests = [os.path.normpath(fname) for fname in test.table.frame["fname"]]
        if test.folder == self._rows.train.folder:
            lines = dict(zip(tests, test.table.frame["row"], strict=True))
            for file, row, fname, name in zip(frame["file"], frame["row"], frame["fname"], names, strict=True):
                if name in lines:
                    reason = f"the clip is a test clip in line {lines[name]}; write the same part in all its rows"
                    self._fail(file, row, fname, reason)
        is_again = pd.Series(tests, dtype=object).duplicated().to_numpy()
        if is_again.any():
            test.table.frame = test.table.frame[~is_again].reset_index(drop=True)
            self._table.warnings.append(f"{count(int(is_again.sum()), 'further row')} of test clips, which count once")

    def _check_relevance(self, frame: pd.DataFrame) -> None:
        """Make rows whose relevance is no probability problems."""
        for file, row, fname in frame[["file", "row", "fname"]].itertuples(index=False):
            self._fail(
                file, row, fname, "the relevance is no number from 0 to 1, so it is unknown if the clip has the label"
            )

    def _labels(self, file: str, row: int, fname: str, cell: str) -> tuple[str, ...]:
        """Return the labels of a row, each once; a row that cannot be read is a problem."""
        if self._rows.labels is None:
            return (str(cell),)
        text, is_list = cell.strip(), items_of(cell) is not None
        if text in NO_VALUES and not is_list:
            if text == self._background:
                return (text,)
            self._missing.append(row)
        if text and not is_list and not self._separator:
            return () if text in NO_VALUES else (text,)
        labels, fault = labels_of(cell, self._separator)
        if fault:
            self._fail(file, row, fname, fault)
        if len(set(labels)) < len(labels):
            self._twice.append(row)
        self._n_lists += is_list
        self._n_split += not is_list and len(labels) > 1
        return tuple(dict.fromkeys(labels))

    def _fail(self, file: str, row: int, fname: str, reason: str) -> None:
        self._table.problems.append(Problem(file, int(row), fname, reason))
        self._faulty.add(os.path.normpath(fname))

    def _without_background(self, line: int, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the labels that are classes."""
        if not self._background or self._background not in labels:
            return labels
        if len(labels) > 1:
            self._beside.append(line)
        return tuple(label for label in labels if label != self._background)

    def _why_not_a_class(self, label: str) -> str:
        if self._background and look_of(label) == look_of(self._background):
            return f"the label {label!r} looks like background={self._background}, and is another text; write one"
        return why_not_a_label(label)

    def _merge(self, frame: pd.DataFrame, labels: Sequence[tuple[str, ...]]) -> tuple[dict[int, set[str]], list[int]]:
        """Return the labels of each clip by its first row, and these rows; the others must say the same of it."""
        first: dict[str, int] = {}
        merged: dict[int, set[str]] = {}
        self._verified: dict[int, str] = {}
        others = [name for name in ("fold", "group") if name in frame]
        cells = {name: frame[name].tolist() for name in ("file", "row", "fname", "manually_verified", *others)}
        for i, fname in enumerate(cells["fname"]):
            j = first.setdefault(os.path.normpath(fname), i)
            merged.setdefault(j, set()).update(labels[i])
            verified = cells["manually_verified"][i]
            self._verified[j] = min(self._verified[j], verified) if j in self._verified else verified
            self._n_merged += i != j
            for name in others:
                if cells[name][i] != cells[name][j]:
                    values = f"{printable(cells[name][i])!r}, and {printable(cells[name][j])!r} in line"
                    reason = f"the {name} of the clip is {values} {cells['row'][j]}; write the same in all its rows"
                    self._fail(cells["file"][i], cells["row"][i], fname, reason)
        return merged, list(merged)

    def _warn_of_classes(self, labels: set[str]) -> None:
        """Warn of classes with a name that may mean that a clip has no label."""
        if unclear := label_order(label for label in labels if is_unknown(label) or look_of(label) in MAY_BE_NONE):
            way_out = f"background={printable(unclear[0])} makes its clips have none"
            self._table.warnings.append(f"read as classes: {listed_names(unclear)}; if it means no label, {way_out}")

    def _describe(self) -> None:
        """Set `forms`, and add warnings."""
        column, warnings = self._rows.labels, self._table.warnings
        if column is None:
            self.forms.append("one label each")
        elif column.form:
            self.forms.append(column.form)
        else:
            self.forms += ["lists of labels"] if self._n_lists else []
            if self._n_split or (self._separator and not self._n_merged and not self._n_lists):
                self.forms.append(f"labels separated by {self._separator!r}")
            elif not self._separator and not self._n_lists:
                self.forms.append("one label each")
        if self._n_merged:
            self.forms.append(f"{count(self._n_merged, 'row')} with further labels of clips")
        if self._background:
            self.forms.append(f"{printable(self._background)} is no label")
        for what, lines in (
            ("# with a label twice, which counts once", self._twice),
            ("# with None, NaN or the like, read as no label", self._missing),
            (f"# with {printable(self._background)} beside other labels, which is left out", self._beside),
            ("# without a label of clips with labels in other rows, which count", self._empty),
        ):
            if lines:
                shown = f"line {lines[0]}" + (", ..." if len(lines) > 1 else "")
                warnings.append(f"{what.replace('#', count(len(lines), 'row'))}: {shown}")


def check_background(name: str, labels: Iterable[str]) -> None:
    """Raise `DataError` if no clip has a label, with those that are near."""
    counts = Counter(labels)
    if name in counts:
        return
    known = label_order(label for label in counts if label)
    near = [label for label in known if look_of(label) == look_of(name)] or get_close_matches(name, known, FIRST_NAMED)
    names = f"did you mean {' or '.join(map(printable, near))}?" if near else f"the labels are {listed_names(known, 9)}"
    raise DataError(f"background={printable(name)}: no clip has this label; {names}")
