"""Read tables so that every fault has a line number, and write them whole or not at all.

Conventions: one header line, then a row for each clip; lines are counted from 1, the header's. Tables are CSV as
spreadsheets write it, separated by commas, semicolons, tabs or ``|``, in UTF-8, UTF-16 or Windows-1252, or JSON lines
(``.jsonl``), an object for each row. Above the header there may be a line ``sep=;`` and lines that begin with ``#``, of
which the last may be the header itself. A fault of the table as a whole raises `DataError`; faults of rows are returned
as `Problem`s.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pandas as pd

from fsat.errors import DataError, Problem, count, printable
from fsat.files import write_whole

SEPARATORS = ",;\t|"
"""Characters that may separate the cells of a row; the one that gives the header most cells does."""

JSON_LINES = (".jsonl", ".ndjson")
"""Suffixes of tables of JSON lines."""

EXCEL = re.compile(r"sep=(.)", re.IGNORECASE)
"""A line that Excel reads and writes above the header, which names the separator."""

COMMENT = "#"
"""Beginning of other lines above the header."""

N_FIRST = 50
"""Number of rows that show whether they have a cell more than the header."""

N_UNKNOWN = 5
"""Number of columns without a meaning that a warning names."""


@dataclass
class Table:
    """A table as read: `frame` has all columns as text, and `row`, the line number of each row."""

    frame: pd.DataFrame
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class ListCell(str):
    """The text of a cell that is a list, whose `items` are known: they are separated by commas."""

    items: tuple[str, ...]

    def __new__(cls, items: Iterable[str]) -> ListCell:
        """Make the cell of these items."""
        items = tuple(items)
        cell = super().__new__(cls, ",".join(items))
        cell.items = items
        return cell


@dataclass(frozen=True)
class _Cells:
    """The cells of a table: its header, the cells of each line with its number, and warnings."""

    header: list[str]
    rows: list[tuple[int, list[str]]]
    warnings: list[str]


def read_table(path: Path, required: Sequence[str], known: Sequence[str] = (), split: str = "train") -> Table:
    """Read a table as text, with the `required` columns, and the `known` ones that it has.

    Raises `DataError` if the file does not exist, is no text or is empty, or required columns are missing.
    """
    cells = _read_cells(path, f"expected columns {','.join(required)}")
    if fault := _fault_of(cells.header, required):
        raise DataError(f"{path}: {fault}")
    if not cells.rows:
        raise DataError(f"{path}: the table has a header but no rows; expected a row for every clip")
    return _table(path, cells, required[0], {*required, *known}, split)


def read_header(path: Path) -> list[str]:
    """Return the names of a table's columns; empty if it has no header line. Raises `DataError` if it is no text."""
    return _read_cells(path, "", 0).header


def read_first_rows(path: Path, number: int | None) -> list[list[str]]:
    """Return the cells of a table's first rows, or all; they may be ragged. Raises `DataError` if it is no text."""
    return [row for _, row in _read_cells(path, "", number).rows]


def _read_cells(path: Path, expected: str, limit: int | None = None) -> _Cells:
    """Return the header of a table, and all rows or the first ones."""
    text, warnings = _read_text(path)
    if path.suffix.lower() in JSON_LINES:
        header, rows = _read_json(path, text)
        return _Cells(header, rows[:limit], warnings)
    text, first, separator = _from_header(text)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=f"{separator} " in first
    )
    header, rows = list[str](), list[tuple[int, list[str]]]()
    try:
        header = [name.strip() for name in next((cells for cells in reader if cells), [])]
        n_read = limit if limit is None else max(limit, N_FIRST)
        rows = [(reader.line_num, cells) for cells in islice((cells for cells in reader if cells), n_read)]
    except csv.Error as error:
        if limit != 0 or not header:  # a header counts whatever follows
            advice = f"; {expected}" if expected else ""
            raise DataError(f"{path}: line {reader.line_num}: not CSV ({error}){advice}") from error
    if _has_row_names(header, [cells for _, cells in rows[:N_FIRST]]):
        header = ["", *header]
    return _Cells(header, rows[:limit], warnings)


def _has_row_names(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return whether rows begin with their number, for which the header has no name, as R writes them."""
    return bool(rows) and all(len(cells) == len(header) + 1 and cells[0].isdecimal() for cells in rows)


def _from_header(text: str) -> tuple[str, str, str]:
    """Return a table's text with the lines above its header empty, the line of the header, and the separator."""
    above, separator, comment, first, at = list[str](), "", "", "", 0
    for match in re.finditer(r"([^\r\n]*)(\r\n|\r|\n|$)", text):
        first, at = match[1], match.start()
        if excel := EXCEL.fullmatch(first.strip()):
            separator = excel[1]
        elif first.startswith(COMMENT):
            comment = first.lstrip(f"{COMMENT} ")
        elif first.strip():
            break
        above.append(match[2])
    separator = separator or _separator_of(first)
    names = [name.strip() for name in _split(comment, separator)]
    if len(names) > 1 and len(names) == len(_split(first, separator)) and all(map(_NAME.fullmatch, names)):
        first = above[-1] = comment + above[-1]
    return "".join(above) + text[at:], first, separator


_NAME = re.compile(r"[\w.-]*")
"""Matches the name of a column in a comment, which else is a sentence."""


def _separator_of(line: str) -> str:
    return max(SEPARATORS, key=lambda character: len(_split(line, character)))


def _split(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return []


def _read_json(path: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the rows of JSON lines: the keys of all objects, and their values as text."""
    objects = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number}: not JSON ({error}); expected an object on each line") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}: line {number}: {printable(line)[:60]!r} is no object; expected one on each line")
        objects.append((number, value))
    header = list(dict.fromkeys(key for _, value in objects for key in value))
    return header, [(number, [_text_of(value.get(key)) for key in header]) for number, value in objects]


def _text_of(value: object) -> str:
    """Return a value of JSON as the text of a cell; the items of a list are separated by commas."""
    if isinstance(value, list):
        return ListCell(list(map(_text_of, value)))
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(path: Path, cells: _Cells, key_name: str, names: set[str], split: str) -> Table:
    """Return the columns `names` of a table; `key_name` is the column that names a ragged row."""
    header, warnings = cells.header, list(cells.warnings)
    used = [i for i, name in enumerate(header) if name in names]
    unnamed = [i for i, name in enumerate(header) if not name]
    key = header.index(key_name)
    rows, problems, stray = [], [], []
    for line, row in cells.rows:
        if reason := why_ragged(row, header):
            problems.append(Problem(path.name, line, row[key] if key < len(row) else "", reason, split))
            continue
        rows.append([line, *(row[i] for i in used)])
        stray += [(line, row[i]) for i in unnamed if i < len(row) and row[i].strip()]
    frame = pd.DataFrame(rows, columns=["row", *(header[i] for i in used)], dtype=object)
    if unknown := [name for i, name in enumerate(header) if name and i not in used]:
        others = f", ... ({len(unknown)})" if len(unknown) > N_UNKNOWN else ""
        warnings.append(f"{path.name}: unknown columns are left out: {', '.join(unknown[:N_UNKNOWN])}{others}")
    if stray:
        first = f"first {printable(stray[0][1])[:40]!r} in line {stray[0][0]}"
        warnings.append(f"{path.name}: {count(len(stray), 'cell')} in columns without a name are left out, {first}")
    return Table(frame, problems, warnings)


def why_ragged(cells: Sequence[str], header: Sequence[str]) -> str:
    """Return the reason why a row does not fit the header; an empty string if it does.

    Spreadsheets add empty columns at the end, in the header or in some rows only. These may be there or not.
    """
    n_named = max((i for i, name in enumerate(header) if name), default=-1) + 1
    if n_named <= len(cells) and not any(cell.strip() for cell in cells[len(header) :]):
        return ""
    return f"{count(len(cells), 'cell')} in a table of {count(n_named, 'column')}"


def _fault_of(header: Sequence[str], required: Sequence[str]) -> str:
    """Return the reason why a table with this header cannot be used; an empty string if it can."""
    expected, got = ",".join(required), ",".join(header)
    if not header:
        return f"the table is empty; expected a header line {expected} and a row for every clip"
    if "\0" in got:
        return "wrong encoding: NUL bytes, as in UTF-16; save the table as UTF-8"
    if missing := [name for name in required if name not in header]:
        return f"unknown column layout: got {got[:200]!r}, expected {expected}; missing {', '.join(missing)}"
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        return f"column {twice[0]} is there twice; expected {expected} once each"
    return ""


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV; a reader sees the old file or the whole new one."""
    write_parts(path, [frame])


def write_parts(path: Path, parts: Iterable[pd.DataFrame]) -> None:
    """Write tables of the same columns below each other as one CSV file, which is replaced whole."""

    def write(unfinished: Path) -> None:
        with open(unfinished, "w", encoding="utf-8", newline="") as file:
            for i, part in enumerate(parts):
                part.to_csv(file, index=False, header=i == 0)

    write_whole(path, write)


def _read_text(path: Path) -> tuple[str, list[str]]:
    """Return the text of a table and warnings."""
    try:
        text, remark = decode_text(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; expected a table") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: wrong encoding: damaged UTF-16; save the table as UTF-8") from error
    return text, [f"{path.name}: {remark}"] if remark else []


def decode_text(raw: bytes) -> tuple[str, str]:
    """Return the text of a file that a spreadsheet or another program wrote, and a remark if its encoding is a guess.

    It is UTF-8, or UTF-16 with a byte order mark, and else Windows-1252. Raises UnicodeDecodeError for damaged UTF-16.
    """
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16"), ""
    try:
        return raw.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        text = raw.decode("cp1252", "replace")
        shown = printable(text.splitlines()[line - 1].strip())[:80]
        return text, f"not UTF-8, so read as Windows-1252; line {line} is {shown!r}: correct?"
