"""Read the tables of `fsat.tagging.tables` in each of their forms and formats, row by row.

A reader takes what a person or a spreadsheet has changed since: other columns, another order, rows left out, a byte
order mark. A fault raises `DataError` with the line of a text table, the row of a Parquet table.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from itertools import count as numbers
from pathlib import Path
from typing import Any, NamedTuple

from fsat.errors import DataError, printable
from fsat.tagging.tables import BYTE_ORDER_MARK, DELIMITERS, WRITERS, delimiter_of, unguard

LABEL = re.compile(r"label(_\d+)?")
"""Matches the columns of labels in CSV and TSV."""

NUMBER = re.compile(r"score(_\d+)?|start|end")
"""Matches their columns of numbers."""

EXPECTED = "expected a table that `fsat predict` wrote"
BATCH_ROWS = 4096

NumberedRows = Iterator[tuple[str, Mapping[str, Any]]]
"""Rows by column, with the place of each in words."""


class Tag(NamedTuple):
    """A label of a clip, or of a recording from `start` to `end` in seconds, which are None for a clip."""

    fname: str
    start: float | None
    end: float | None
    label: str
    score: float


def read_tag_table(path: Path) -> Iterator[Tag]:
    """Yield the tags in a table, clip by clip; rows without a label, such as those of silence and errors, are left out.

    Raises `DataError` if the table cannot be read, or is another one, also while it is iterated over.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise DataError(f"{printable(path)}: {EXPECTED}, whose name ends in {', '.join(WRITERS)}")
    rows = {".jsonl": _read_jsonl, ".parquet": _read_parquet}.get(suffix, _read_csv)(path)
    with _errors(path):
        for place, row in rows:
            try:
                yield from _tags_of(row)
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                fault = f"no column {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
                raise DataError(f"{printable(path)}: {place}: {printable(fault)[:200]}; {EXPECTED}") from error


def _tags_of(row: Mapping[str, Any]) -> Iterator[Tag]:
    fname, is_over_time = str(row["fname"]), "start" in row or "end" in row
    labels, scores = row["labels"] if "labels" in row else [row["label"]], row.get("scores", [row.get("score")])
    for label, score in zip(labels, scores, strict=True):
        if not label:
            continue
        start, end = (_number(name, row[name]) if is_over_time else None for name in ("start", "end"))
        if start is not None and end is not None and not 0 <= start < end:
            raise ValueError(f"start {start:g} and end {end:g}: expected seconds, 0 <= start < end")
        yield Tag(fname, start, end, str(label), _number("score", score))


def _number(name: str, value: Any) -> float:
    with _value_error(f"{name} {value!r}: expected a number"):
        number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} {value!r}: expected a number")
    return number


@contextmanager
def _value_error(message: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError):
        raise ValueError(message) from None


def _read_csv(path: Path) -> NumberedRows:
    from fsat.data.tables import why_ragged

    mark = BYTE_ORDER_MARK.encode()
    with open(path, "rb") as raw:
        text = unguard if raw.read(len(mark)) == mark else str
    with open(path, encoding="utf-8-sig", newline="") as file:
        first, possible = file.readline(), DELIMITERS[path.suffix.lower()]
        delimiter = delimiter_of(first, possible) or possible[0]
        reader = csv.reader(chain([first], file), delimiter=delimiter, strict=True)
        try:
            header = [cell.strip() for cell in next(reader, [])]
            labels = [name for name in header if LABEL.fullmatch(name)]
            needed = ["fname", "label", *(name.replace("label", "score") for name in labels)]
            if missing := [name for name in needed if name not in header]:
                got = printable(",".join(header)[:200])
                raise DataError(f"{printable(path)}: got columns {got!r}, no {missing[0]}; {EXPECTED}")
            for cells in filter(None, reader):
                place = f"line {reader.line_num}"
                if fault := why_ragged(cells, header):
                    raise DataError(f"{printable(path)}: {place}: {fault}; fix that line")
                row: dict[str, Any] = dict(zip(header, cells, strict=False))
                if delimiter == ";":  # of a spreadsheet in a country with a decimal comma
                    numeric = [name for name in header if NUMBER.fullmatch(name)]
                    row |= {name: row[name].replace(",", ".") for name in numeric}
                row["fname"] = text(row["fname"])
                row["labels"] = [text(row[name]) for name in labels]
                row["scores"] = [row[name.replace("label", "score")] for name in labels]
                yield place, row
        except csv.Error as error:
            fault = f"not CSV ({printable(error)})"
            raise DataError(f"{printable(path)}: line {reader.line_num}: {fault}; fix that line") from error


def _read_jsonl(path: Path) -> NumberedRows:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            with suppress(ValueError):
                if isinstance(row := json.loads(line), dict):
                    yield f"line {number}", row
                    continue
            raise DataError(f"{printable(path)}: line {number}: not a JSON object; {EXPECTED}")


def _read_parquet(path: Path) -> NumberedRows:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        known = [name for name in file.schema_arrow.names if name in {*Tag._fields, "labels", "scores"}]
        batches: Iterable[Any] = file.iter_batches(BATCH_ROWS, columns=known)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from zip((f"row {number}" for number in numbers(1)), rows, strict=False)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn what readers of the formats raise into one line."""
    import pyarrow as pa

    try:
        yield
    except UnicodeDecodeError as error:
        fault = f"wrong encoding: byte 0x{error.object[error.start]:02x} is not UTF-8; save the table as UTF-8"
        raise DataError(f"{printable(path)}: {fault}") from error
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read: {error.strerror or error}; {EXPECTED}") from error
    except (ValueError, pa.ArrowException) as error:
        reason = printable(" ".join(str(error).split()))[:150]
        raise DataError(f"{printable(path)}: cannot be read: {reason}; {EXPECTED}") from error
