"""Cells that list the labels of a clip: how a column separates them, and which labels a cell has.

A list is text with a separator (`SEPARATORS`), where a label with a separator in it is in quotes as in CSV, or a list
as Python and JSON write it, such as ``['Dog', 'Rain']``. An empty cell, or what programs write for a missing value, has
no label. Spaces around a label do not count.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from fsat.data.layouts.table_columns import look_of
from fsat.data.tables import ListCell
from fsat.errors import Problem, count, printable
from fsat.text import NO_VALUES

SEPARATORS = (",", ";", "|")
"""Characters that separate the labels of a cell, the usual one first."""

LISTS = ("labels", "tags", "classes", "categories", "label_list", "species_list", "tag_list")
"""Ends of the names of columns that mean a list."""

PRESENT, ABSENT = ("1", "1.0", "true"), ("0", "0.0", "false")
"""Cells of a column for one label, in lower case."""

FLAGGED = "a column of 0 and 1 for each label"
"""How clips get their labels from such columns, in words."""

N_UNUSED = 9
"""Number of columns without a clip that a warning names."""

_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_ARRAY = re.compile(r"""\[\s*(?:'[^']*'|"[^"]*")(?:\s+(?:'[^']*'|"[^"]*"))*\s*\]""")
"""Matches an array of texts as NumPy prints it, without commas."""

_OBJECT = re.compile(r"""\[.*['"].*\]|\{.*['"].*\}""")
"""Matches a list or object in the notation of Python or JSON."""

_RAGGED = re.compile(r"(\d+) cells in a table of (\d+) columns")

_BRACKETS = {"[": "]", "(": ")", "{": "}"}


@dataclass(frozen=True)
class LabelColumn:
    """The column of a table that has the labels.

    Attributes:
        name: of the column, for messages.
        is_list: whether its name, or who published it, says that a cell is a list.
        separator: between the labels of a cell, if it is known; else it is found.
        form: how labels are given where cells are `ListCell`, in words.
    """

    name: str
    is_list: bool = False
    separator: str = ""
    form: str = ""


def means_list(name: str) -> bool:
    """Return whether the name of a column says that its cells are lists of labels."""
    return look_of(name).endswith(LISTS)


def explain_ragged(problems: Iterable[Problem], column: LabelColumn) -> list[Problem]:
    """Return the problems of a table; rows with too many cells may have a list of labels without quotes."""
    advice = f"; a list of {printable(column.name)} with the separator of the table in it needs quotes around it"
    return [
        replace(problem, reason=problem.reason + advice)
        if column.is_list and (match := _RAGGED.fullmatch(problem.reason)) and int(match[1]) > int(match[2])
        else problem
        for problem in problems
    ]


def items_of(cell: str) -> tuple[str, ...] | None:
    """Return the items of a cell that is a list in the notation of Python, JSON or NumPy; None for other text."""
    if isinstance(cell, ListCell):
        return cell.items
    text = cell.strip()
    if not text or _BRACKETS.get(text[0]) != text[-1]:
        return None
    if _ARRAY.fullmatch(text):
        return tuple(match[0][1:-1] for match in re.finditer(r"""'[^']*'|"[^"]*\"""", text))
    for read in (ast.literal_eval, json.loads):
        try:
            value = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, (list, tuple, set)) and all(type(item) in (str, int, float) for item in value):
            return tuple(map(str, value))
    return None


@dataclass(frozen=True)
class Flagged:
    """The labels of each row as a `ListCell`, of columns that have 0 or 1 for a label each, and what is wrong."""

    cells: list[str]
    problems: list[Problem]
    warnings: list[str]


def flagged_cells(
    frame: pd.DataFrame, columns: Sequence[str], file: str, fname: str, is_test: Sequence[bool] | None = None
) -> Flagged:
    """Return the names of the columns that have 1 in each row of a table; a cell that is neither 1 nor 0 is a problem.

    A column that no clip has, or every one, has a warning: the first is no class, and the second may be none.

    Args:
        frame: all columns as text, and ``row``.
        columns: those with 0 and 1.
        file: name of the table.
        fname: the column of the clips' names.
        is_test: which rows are of test clips, whose labels are not used; by default none.
    """
    labels: list[list[str]] = [[] for _ in range(len(frame))]
    problems, lines, clips = [], frame["row"].tolist(), frame[fname].tolist()
    used = [i for i in range(len(frame)) if is_test is None or not is_test[i]]
    for name in columns:
        cells = frame[name].tolist()
        for i in used:
            cell = cells[i]
            word = cell.strip().lower()
            if word in PRESENT:
                labels[i].append(name)
            elif word not in ABSENT:
                reason = f"{printable(name)} is {printable(cell)[:40]!r}, expected 1 or 0"
                problems.append(Problem(file, int(lines[i]), clips[i], reason))
    n_clips = Counter(label for own in labels for label in own)
    warnings = []
    if unused := [printable(name) for name in columns if not n_clips[name]]:
        what = f"{file}: {count(len(unused), 'column')} without a clip, left out of the classes"
        warnings.append(f"{what}: {_first(unused)}")
    if of_all := [printable(name) for name in columns if n_clips[name] == len(used) > 1]:
        what = f"{file}: {count(len(of_all), 'column')} with 1 in every row, read as a label"
        warnings.append(f"{what}: {_first(of_all)} (label_column= names the columns of labels, separated by commas)")
    return Flagged(list(map(ListCell, labels)), problems, warnings)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:N_UNUSED]) + (", ..." if len(names) > N_UNUSED else "")


def separator_of(cells: Iterable[str]) -> str:
    """Return what separates the labels of a column: the only separator in its cells, or that which makes fewest labels.

    It is a comma if there is none. Separators in quotes do not count.
    """
    texts = [cell for cell in cells if items_of(cell) is None]
    bare = [_QUOTED.sub("", text) for text in texts]
    used = [separator for separator in SEPARATORS if any(separator in text for text in bare)]

    def n_labels(separator: str) -> int:
        return len({label for text in texts for label in labels_of(text, separator)[0]})

    return min(used, key=n_labels) if len(used) > 1 else (used or SEPARATORS)[0]


def labels_of(cell: str, separator: str) -> tuple[tuple[str, ...], str]:
    """Return the labels of a cell, as they are written, and why it is no list of labels, or an empty text."""
    items = items_of(cell)
    if items is None:
        text = cell.strip()
        if not text or text in NO_VALUES:
            return (), ""
        if len(text.splitlines()) > 1:  # no label, which says so
            return (text,), ""
        tight = re.sub(rf'"\s+(?={re.escape(separator)}|$)', '"', text)
        try:
            items = tuple(next(csv.reader([tight], delimiter=separator, skipinitialspace=True, strict=True)))
        except csv.Error as error:
            return (), f"the labels {text!r} are no list ({error}); expected labels separated by {separator!r}"
        items = items[:-1] if len(items) > 1 and not items[-1].strip() else items
    labels = tuple(item.strip() for item in items)
    if "" in labels:
        return (), f"the labels {printable(cell.strip())!r} have an empty one; write each label once, or leave it out"
    return labels, _why_broken(cell, labels, separator)


def _why_broken(cell: str, labels: Sequence[str], separator: str) -> str:
    """Return the reason if a cell, or an item of one, is a list or an object that cannot be read.

    So is one of labels with a part of a pair of brackets, unless they are in quotes.
    """
    if isinstance(cell, ListCell):
        broken = any(map(_OBJECT.fullmatch, labels))
    elif items_of(cell) is not None:
        broken = False
    else:
        parts = _QUOTED.sub("", cell).split(separator) if separator else []
        broken = any(part.count(a) != part.count(b) for part in parts for a, b in _BRACKETS.items())
        broken = broken or bool(_OBJECT.fullmatch(cell.strip()))
    if not broken:
        return ""
    advice = f"write Dog{separator or ','}Rain or ['Dog', 'Rain'], and a label with brackets in quotes"
    return f"the labels {printable(cell.strip())!r} are no list that can be read; {advice}"


def shows_several(cells: Iterable[str], column: LabelColumn) -> bool:
    """Return whether the cells of a column are without doubt lists of labels, of which one has several, or none.

    Texts with a separator are lists in a column whose name says so, unless all of them may be labels such as ``Chirp,
    tweet``: each separator has a space after it, and no part of such a text is in another cell.
    """
    cells = list(cells)
    if any(len(items) != 1 for cell in cells if (items := items_of(cell)) is not None):
        return True
    if not column.is_list:
        return False
    separator = column.separator or separator_of(cells)
    labels = {cell: labels_of(cell, separator)[0] for cell in cells}
    several = {cell: found for cell, found in labels.items() if len(found) > 1}
    counts = Counter(label for found in labels.values() for label in set(found))
    return any(
        column.separator or re.search(rf"{re.escape(separator)}\S", _QUOTED.sub("", cell)) or counts[label] > 1
        for cell, found in several.items()
        for label in found
    )
