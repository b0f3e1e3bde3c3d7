"""Reading CSV tables so that every fault has a line number, and writing them whole or not at all.

Conventions: UTF-8, commas, one header line; lines are counted from 1, the header's. A byte order mark is taken off
with a warning. A fault of the table as a whole raises `DataError`; faults of rows come back as `Problem`s.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from fsat.errors import DataError, FsatError, Problem, count


@dataclass
class Table:
    """A table as read: `frame` has all columns as text and `row`, the line number of each row."""

    frame: pd.DataFrame
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_table(path: Path, required: Sequence[str], known: Sequence[str] = (), split: str = "train") -> Table:
    """Read a CSV file as text.

    Args:
        path: the file.
        required: columns that must be there.
        known: columns that may be there; others are warned of and left out.
        split: what problems of this table are filed under.

    Raises:
        DataError: there is no such file, it is not UTF-8 text, it is empty, or required columns are missing.
    """
    text, warnings = _read_text(path)
    expected = ",".join(required)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        numbered = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not CSV ({error}); expected columns {expected}") from error
    if not header:
        raise DataError(f"{path}: the table is empty; expected a header line {expected} and a row for every clip")
    if any("\0" in name for name in header):
        raise DataError(f"{path}: wrong encoding: NUL bytes, as in UTF-16; save the table as UTF-8")
    missing = [name for name in required if name not in header]
    if missing:
        raise DataError(
            f"{path}: unknown column layout: got {','.join(header)[:200]!r}, expected {expected}; "
            f"missing {', '.join(missing)}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: column {twice[0]} is there twice; expected {expected} once each")
    if not numbered:
        raise DataError(f"{path}: the table has a header but no rows; expected a row for every clip")
    problems = []
    rows = []
    kept = [i for i, name in enumerate(header) if name in {*required, *known}]
    key = header.index(required[0])
    for line, cells in numbered:
        if len(cells) == len(header):
            rows.append([line, *(cells[i] for i in kept)])
        else:
            reason = f"{count(len(cells), 'cell')} in a table of {len(header)} columns"
            problems.append(Problem(path.name, line, cells[key] if key < len(cells) else "", reason, split))
    frame = pd.DataFrame(rows, columns=["row", *(header[i] for i in kept)], dtype=object)
    ignored = [name if name else repr(name) for i, name in enumerate(header) if i not in kept]
    if ignored:
        warnings.append(f"{path.name}: unknown columns are left out: {', '.join(ignored)}")
    return Table(frame, problems, warnings)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV; a reader sees the old file or the whole new one."""
    write_whole(path, lambda temporary: frame.to_csv(temporary, index=False))


def write_parts(path: Path, parts: Iterable[pd.DataFrame]) -> None:
    """Write tables of the same columns below each other as one CSV file, which is replaced whole."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            for i, part in enumerate(parts):
                part.to_csv(file, index=False, header=i == 0)

    write_whole(path, write)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in its place at once."""
    check_writable(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise FsatError(f"{path}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """Make the folder of a file to be written.

    Raises:
        FsatError: the path is a folder, or its folder cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FsatError(f"{path}: cannot be written: {error.strerror or error}; choose another file") from error
    if path.is_dir():
        raise FsatError(f"{path}: is a folder; expected the name of a file to write")
    if not os.access(path.parent, os.W_OK):
        raise FsatError(f"{path}: cannot be written: no permission to write to {path.parent}; choose another file")


def _read_text(path: Path) -> tuple[str, list[str]]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; expected a CSV table") from error
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: wrong encoding: UTF-16; save the table as UTF-8")
    warnings = []
    if raw.startswith(b"\xef\xbb\xbf"):
        warnings.append(f"{path.name}: starts with a byte order mark, which is left out")
        raw = raw[3:]
    try:
        return raw.decode("utf-8"), warnings
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line}: wrong encoding: byte 0x{raw[error.start]:02x} is not UTF-8; save the table as UTF-8"
        ) from error
