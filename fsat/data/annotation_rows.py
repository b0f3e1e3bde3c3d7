"""Rows of annotation files as they are written: their text, cells and numbers.

Conventions: lines are counted from 1. UTF-8, UTF-16 with a byte order mark, and Windows-1252 (Latin-1) are read.
Numbers have decimal points or decimal commas.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fsat.data.tables import decode_text
from fsat.errors import DataError, printable

EXPECTED = (
    "expected an Audacity label track (start, end and label, separated by tabs), a Raven selection table, or a table "
    "with columns start, end and label"
)


class Row(NamedTuple):
    """An annotation as written: its line, the recording that the row names, if any, times in seconds and the label."""

    line: int
    recording: str
    start: float
    end: float
    label: str


@dataclass
class AnnotationFile:
    """What was read of a file.

    Attributes:
        kind: ``label track``, ``selection table``, ``table`` or ``empty``.
        names_recordings: whether rows name their recording.
        rows: the annotations.
        unannotated: line and name of recordings that have a row without a time and a label, as they have no sound.
        faults: line, the recording that it names, and the reason, of rows that are no annotations.
        warnings: what is odd about the file, without its name.
        label_column: name of the column of labels; empty if there is no header.
    """

    kind: str
    names_recordings: bool = False
    rows: list[Row] = field(default_factory=list)
    unannotated: list[tuple[int, str]] = field(default_factory=list)
    faults: list[tuple[int, str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    label_column: str = ""


class NotAnnotations(DataError):
    """A file has none of the known formats; the message says why, without the file's name."""


def read_text(path: Path) -> tuple[str, list[str]]:
    """Return a file's text and warnings; raise `NotAnnotations` if it has none."""
    try:
        text, remark = decode_text(path.read_bytes())
    except OSError as error:
        raise NotAnnotations(f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise NotAnnotations("is not the UTF-16 that its byte order mark promises; save it as UTF-8") from error
    if "\0" in text:
        raise NotAnnotations("has NUL bytes: no text, or UTF-16 without a byte order mark; save it as UTF-8")
    return text, [remark] if remark else []


class Numbers:
    """Reads the numbers of a file, which has decimal points or decimal commas, not both."""

    def __init__(self) -> None:
        self._mark = ""

    def pair(self, start: str, end: str, end_name: str = "end") -> tuple[float, float, str]:
        """Return two times, or why they are none."""
        values = []
        for name, text in (("start", start), (end_name, end)):
            mark = next((mark for mark in ".," if mark in text), "")
            if not is_number(text):
                return 0, 0, f"{name}={printable(text)[:40]!r}: expected a number of seconds, such as 12.5"
            if mark and self._mark and mark != self._mark:
                return 0, 0, f"{name}={text}: the rows before have {self._mark!r} as decimal mark; use one"
            self._mark = self._mark or mark
            values.append(float(text.replace(",", ".")))
        return values[0], values[1], ""


def is_number(text: str) -> bool:
    """Return whether a text is a finite number, with a decimal point or comma."""
    try:
        return math.isfinite(float(text.strip().replace(",", "."))) and "_" not in text
    except ValueError:
        return False


def records(text: str, separator: str, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines that are not empty, with their number and cells; raise `NotAnnotations` where quotes are odd."""
    lines = io.StringIO(text, newline="")
    reader = csv.reader(
        lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
    )
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise NotAnnotations(f"line {reader.line_num}: not a table ({error}); fix that line") from error
