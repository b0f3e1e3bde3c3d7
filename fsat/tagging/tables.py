"""Tables of tags: CSV, TSV, JSON lines or Parquet by the file's suffix.

Conventions: a clip has one row. In CSV and TSV it is ``fname,label,score,label_2,score_2,...,error,note``, one value
per cell, best first; the other formats have ``fname,labels,scores,error,note`` with lists. In the long form a clip has
a row for each label, ``fname,label,score,rank,error,note``, rank 1 being the best. A recording has a row for each
segment, ``fname,start,end,label,score,error,note``, times in seconds. ``error`` says why a file, or the rest of it,
could not be tagged; ``note`` says what is odd about its header or its levels, or that it was heard and has no label.
For a recording these are rows without times. Rows are written as they come, so a table may be larger than memory.
`fsat.tagging.read_tables` reads them.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from fsat.errors import ConfigError, printable
from fsat.files import write_whole

PARQUET_ROWS = 4096
"""Rows of a row group."""

DELIMITERS = {".csv": ",;", ".tsv": "\t"}
"""What may separate the cells of a text table, by suffix: first what fsat writes, then what spreadsheets do."""

BYTE_ORDER_MARK = "\ufeff"
"""Beginning of a table for Excel, which reads other tables in the encoding of the country."""

FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")
"""Matches the beginning of a text that spreadsheets would compute, and of one that `guard` has changed."""


class Tags(NamedTuple):
    """The row of a clip: its labels, best first, and their scores, of what could be heard; why there is not more."""

    fname: str
    labels: list[str]
    scores: list[float]
    error: str = ""
    note: str = ""


class Span(NamedTuple):
    """A row of a recording: a tag, its start and end in seconds; or an `error` or a `note` about the whole of it."""

    fname: str
    start: float | None
    end: float | None
    label: str
    score: float | None
    error: str = ""
    note: str = ""


class Ranked(NamedTuple):
    """A row of a clip in the long form; a clip without tags has one row without label, score and rank."""

    fname: str
    label: str
    score: float | None
    rank: int | None
    error: str = ""
    note: str = ""


Row = Tags | Span | Ranked
Rows = Iterable[Tags | Span]


@dataclass(frozen=True)
class Form:
    """Form of a table.

    Attributes:
        n_tags: pairs of columns of a label and its score that a clip has in CSV and TSV; more tags are left out.
        over_time: the rows are segments of recordings, `Span`, rather than clips, `Tags`.
        long: a clip has a row for each label; the rows of recordings are as they are.
        excel: CSV and TSV begin with a byte order mark, and no text begins as a formula does; see `guard`.
    """

    n_tags: int = 3
    over_time: bool = False
    long: bool = False
    excel: bool = False


def check_suffix(path: Path, excel: bool = False) -> None:
    """Raise `ConfigError` unless the suffix of a file names a format, one that Excel opens if `excel`."""
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise ConfigError(f"output={path}: expected a name that ends in {', '.join(WRITERS)}, which is the format")
    if excel and suffix not in DELIMITERS:
        expected = f"a name that ends in {' or '.join(DELIMITERS)} with excel=true"
        raise ConfigError(f"output={printable(path)}: expected {expected}")


def write_tags(path: Path, rows: Rows, form: Form) -> None:
    """Write a table whole, in the format of the suffix; raise `FsatError` if it cannot be written."""
    write_whole(path, lambda unfinished: WRITERS[path.suffix.lower()](unfinished, rows, form))


def shown(fname: str) -> str:
    """Return a file's name as text; bytes that are not UTF-8 become ``\\xNN``."""
    return fname.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def guard(text: str) -> str:
    """Return a text that spreadsheets do not take for a formula: with an apostrophe before its beginning."""
    return f"'{text}" if FORMULA.match(text) else text


def unguard(text: str) -> str:
    """Return the text that `guard` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def delimiter_of(header: str, possible: str) -> str:
    """Return the first of some delimiters by which a table's header has a column ``fname``; empty if none does."""
    return next((mark for mark in possible if "fname" in map(str.strip, header.split(mark))), "")


def csv_of(rows: Iterable[Tags], n_tags: int) -> str:
    """Return the text of the CSV file that `write_tags` writes of clips with `n_tags` tags at most."""
    text = io.StringIO()
    _to_csv(text, rows, Form(n_tags), ",")
    return text.getvalue()


def _write_csv(path: Path, rows: Rows, form: Form) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        _to_csv(file, rows, form, DELIMITERS[path.suffix.lower()][0])


def _to_csv(file: TextIO, rows: Rows, form: Form, delimiter: str) -> None:
    if form.excel:
        file.write(BYTE_ORDER_MARK)
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(_columns(form))
    text = guard if form.excel else str
    writer.writerows(_cells(row, form.n_tags, text) for row in _in_form(rows, form))


def _columns(form: Form) -> list[str]:
    """Return the header of a CSV table."""
    if form.over_time or form.long:
        return list((Span if form.over_time else Ranked)._fields)
    pairs = [f"{name}_{i}" if i > 1 else name for i in range(1, form.n_tags + 1) for name in ("label", "score")]
    return ["fname", *pairs, "error", "note"]


def _cells(row: Row, n_tags: int, text: Callable[[str], str]) -> list[str]:
    """Return the cells of a row; `text` is applied to names, labels, errors and notes."""
    if isinstance(row, Tags):
        pairs = zip(map(text, row.labels), map(_score, row.scores), strict=True)
        cells = [cell for pair in islice(pairs, n_tags) for cell in pair]
        cells += [""] * (2 * n_tags - len(cells))
    elif isinstance(row, Span):
        start, end = ("" if time is None else f"{time:.3f}" for time in (row.start, row.end))
        cells = [start, end, text(row.label), _score(row.score)]
    else:
        cells = [text(row.label), _score(row.score), "" if row.rank is None else str(row.rank)]
    return [text(shown(row.fname)), *cells, text(row.error), text(row.note)]


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.6f}"


def _in_form(rows: Rows, form: Form) -> Iterator[Row]:
    """Yield the rows of a table: those given, or one for each label of a clip in the long form."""
    for row in rows:
        if not form.long or isinstance(row, Span):
            yield row
        elif not row.labels:
            yield Ranked(row.fname, "", None, None, row.error, row.note)
        else:
            for rank, (label, score) in enumerate(zip(row.labels, row.scores, strict=True), 1):
                yield Ranked(row.fname, label, score, rank, row.error, row.note)


def _write_jsonl(path: Path, rows: Rows, form: Form) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(_as_dict(row)) + "\n" for row in _in_form(rows, form))


def _write_parquet(path: Path, rows: Rows, form: Form) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, score, time = pa.string(), pa.float32(), pa.float64()
    tags = {"labels": pa.list_(text), "scores": pa.list_(score)}
    if form.over_time:
        tags = {"start": time, "end": time, "label": text, "score": score}
    elif form.long:
        tags = {"label": text, "score": score, "rank": pa.int32()}
    schema = pa.schema({"fname": text, **tags, "error": text, "note": text})
    dicts = (_as_dict(row) for row in _in_form(rows, form))
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(dicts, PARQUET_ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema))


def _as_dict(row: Row) -> dict[str, Any]:
    return {**row._asdict(), "fname": shown(row.fname)}


WRITERS: dict[str, Callable[[Path, Rows, Form], None]] = {
    ".csv": _write_csv,
    ".tsv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
"""The formats, by suffix."""
