"""Tables of tags: CSV, JSON lines or Parquet by the file's suffix, and label tracks for Audacity.

Conventions: a clip has one row, ``fname,label,scores,error,note`` in CSV, where labels and scores are separated by
spaces, and ``fname,labels,scores,error,note`` with lists in the other formats. A recording has a row for each segment,
``fname,start,end,label,score,error,note``, times in seconds. ``error`` says why a file, or the rest of it, could not be
tagged; ``note`` says what is odd about its header or its levels. For a recording these are rows without times. Rows are
written as they come, so a table may be larger than memory.
"""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TextIO

from fsat.errors import ConfigError
from fsat.files import write_whole

PARQUET_ROWS = 4096
"""Rows of a row group."""


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


Rows = Iterable[Tags | Span]


def check_suffix(path: Path) -> None:
    """Raise `ConfigError` unless the suffix of a file names a format."""
    if path.suffix.lower() not in WRITERS:
        raise ConfigError(f"output={path}: expected a name that ends in {', '.join(WRITERS)}, which is the format")


def write_tags(path: Path, rows: Rows, over_time: bool = False) -> None:
    """Write a table of `Tags`, or of `Span` if `over_time`, whole, in the format of the suffix; raise `FsatError`."""
    write_whole(path, lambda unfinished: WRITERS[path.suffix.lower()](unfinished, rows, over_time))


def write_label_track(path: Path, rows: Rows) -> None:
    """Write the segments of a recording as a label track for Audacity: start, end and label, separated by tabs."""
    spans = [row for row in rows if isinstance(row, Span) and row.label]
    lines = [f"{span.start:.6f}\t{span.end:.6f}\t{span.label}\n" for span in spans]
    write_whole(path, lambda unfinished: unfinished.write_text("".join(lines), encoding="utf-8"))


class TrackPaths:
    """Paths of label tracks below a folder, in the subfolders that a recording's name has; each is given once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._given = folder, set[str]()
        self.renamed: list[tuple[str, Path]] = []  # recordings whose track has a number, as another has its name

    def of(self, fname: str) -> Path:
        """Return the path of another recording's track; names that differ in case alone may be one file elsewhere."""
        parts = [part for part in PurePath(fname).parts if part not in ("..", os.sep, PurePath(fname).anchor)]
        path, number = self._folder.joinpath(*parts[:-1], f"{parts[-1]}.txt"), 1
        while (key := unicodedata.normalize("NFC", str(path)).casefold()) in self._given:
            number += 1
            path = path.with_name(f"{parts[-1]} ({number}).txt")
        self._given.add(key)
        if number > 1:
            self.renamed.append((fname, path))
        return path


def shown(fname: str) -> str:
    """Return a file's name as text; bytes that are not UTF-8 become ``\\xNN``."""
    return fname.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def csv_of(rows: Iterable[Tags]) -> str:
    """Return the text of the CSV file that `write_tags` writes of clips."""
    text = io.StringIO()
    _to_csv(text, rows)
    return text.getvalue()


def _write_csv(path: Path, rows: Rows, over_time: bool) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        _to_csv(file, rows, over_time)


def _to_csv(file: TextIO, rows: Rows, over_time: bool = False) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Span._fields if over_time else ("fname", "label", "scores", "error", "note"))
    writer.writerows(_cells(row) for row in rows)


def _cells(row: Tags | Span) -> tuple[str, ...]:
    name = shown(row.fname)
    if isinstance(row, Tags):
        return name, " ".join(row.labels), " ".join(f"{score:.6f}" for score in row.scores), row.error, row.note
    start, end = ("" if time is None else f"{time:.3f}" for time in (row.start, row.end))
    return name, start, end, row.label, "" if row.score is None else f"{row.score:.6f}", row.error, row.note


def _write_jsonl(path: Path, rows: Rows, over_time: bool) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(_as_dict(row)) + "\n" for row in rows)


def _write_parquet(path: Path, rows: Rows, over_time: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, score, time = pa.string(), pa.float32(), pa.float64()
    clip, segment = {"labels": pa.list_(text), "scores": pa.list_(score)}, {"start": time, "end": time, "label": text}
    schema = pa.schema(
        {"fname": text, **({**segment, "score": score} if over_time else clip), "error": text, "note": text}
    )
    dicts = (_as_dict(row) for row in rows)
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(dicts, PARQUET_ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema))


def _as_dict(row: Tags | Span) -> dict[str, Any]:
    return {**row._asdict(), "fname": shown(row.fname)}


WRITERS: dict[str, Callable[[Path, Rows, bool], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
"""The formats, by suffix."""
