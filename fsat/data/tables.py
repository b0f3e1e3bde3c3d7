"""Read CSV tables so that every fault has a line number, and write them whole or not at all.

Conventions: UTF-8, commas, one header line; lines are counted from 1, the header's. A byte order mark is removed with a
warning. A fault of the table as a whole raises `DataError`; faults of rows are returned as `Problem`s.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fsat.errors import DataError, Problem, count, printable
from fsat.files import write_whole


@dataclass
class Table:
    """A table as read: `frame` has all columns as text, and `row`, the line number of each row."""

    frame: pd.DataFrame
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_table(path: Path, required: Sequence[str], known: Sequence[str] = (), split: str = "train") -> Table:
    """Read a CSV file as text, with the `required` columns, and the `known` ones that it has.

    Raises `DataError` if the file does not exist, is not UTF-8 text or is empty, or required columns are missing.
    """
    text, warnings = _read_text(path)
    expected = ",".join(required)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        numbered = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not CSV ({error}); expected columns {expected}") from error
    if fault := _fault_of(header, required):
        raise DataError(f"{path}: {fault}")
    if not numbered:
        raise DataError(f"{path}: the table has a header but no rows; expected a row for every clip")
    used = [i for i, name in enumerate(header) if name in {*required, *known}]
    unnamed = [i for i, name in enumerate(header) if not name]
    key = header.index(required[0])
    rows, problems, stray = [], [], []
    for line, cells in numbered:
        if reason := why_ragged(cells, header):
            problems.append(Problem(path.name, line, cells[key] if key < len(cells) else "", reason, split))
            continue
        rows.append([line, *(cells[i] for i in used)])
        stray += [(line, cells[i]) for i in unnamed if i < len(cells) and cells[i].strip()]
    frame = pd.DataFrame(rows, columns=["row", *(header[i] for i in used)], dtype=object)
    if unknown := [name for i, name in enumerate(header) if name and i not in used]:
        warnings.append(f"{path.name}: unknown columns are left out: {', '.join(unknown)}")
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
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; expected a CSV table") from error
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: wrong encoding: UTF-16; save the table as UTF-8")
    text, mark = raw.removeprefix(b"\xef\xbb\xbf"), raw.startswith(b"\xef\xbb\xbf")
    warnings = [f"{path.name}: starts with a byte order mark, which is left out"] * mark
    try:
        return text.decode("utf-8"), warnings
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        fault = f"wrong encoding: byte 0x{text[error.start]:02x} is not UTF-8; save the table as UTF-8"
        raise DataError(f"{path}: line {line}: {fault}") from error
