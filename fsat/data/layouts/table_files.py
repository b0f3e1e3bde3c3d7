"""Find the tables of a data folder that name its clips and their labels, and say why others are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from fsat.data.audio_files import is_audio_file
from fsat.data.layouts.clip_files import Resolved
from fsat.data.layouts.label_cells import ABSENT, PRESENT
from fsat.data.layouts.other_files import ADVICE_AT_LAST
from fsat.data.layouts.rows import DataFolder
from fsat.data.layouts.table_columns import (
    OPTIONS,
    USUAL,
    candidates,
    listed_columns,
    look_of,
    may_be_label,
    missing_meanings,
    why_no_column,
)
from fsat.data.tables import JSON_LINES, read_first_rows, read_header
from fsat.errors import DataError, printable
from fsat.layout_options import LayoutOptions

SPREADSHEETS = (".csv", ".tsv", *JSON_LINES)
SUFFIXES = (*SPREADSHEETS, ".txt")

NOTES = ("readme", "license", "licence", "copying", "changelog", "requirements", "citation")
"""Beginnings of the names of texts that are no tables."""

SUBMISSION = "submission"
"""Part of the names of tables whose labels are to be replaced, as Kaggle's sample_submission.csv."""

N_READ = 200
"""Number of rows that are read to see which column names audio files."""

MOST = 0.9
"""Part of a column's cells that name an audio file, if its name does not say so."""

N_REASONS = 2
"""Number of tables of which is said why they are not read."""


def find_tables(data: DataFolder) -> list[Path]:
    """Return the tables with columns of files and labels: the named one, or those of the least depth.

    Tables that name no file that is there count only if there are no others.
    """
    options = data.options
    if options.table:
        for path in data.places_of(options.table):
            if advice := ADVICE_AT_LAST.get(path.suffix.lower(), "") if path.is_file() else "":
                raise DataError(f"table={printable(options.table)}: a file {path.suffix} is not read; {advice}")
            if path.is_file():
                return [path]
        raise DataError(f"table={printable(options.table)}: no such file in {data.path}; expected a table there")
    others: list[Path] = []
    for _, folders in groupby(data.folders, key=lambda folder: len(folder.parts)):
        usable = [path for folder in folders for path in table_files(folder, data) if is_table(path, data)]
        if naming := [path for path in usable if names_clips(path, data)]:
            return naming
        others = others or usable
    return others


def is_table(path: Path, data: DataFolder) -> bool:
    """Return whether a file has columns of files and labels."""
    header = header_of(path)
    missing = missing_meanings(header, options_for(path, header, data), path)
    return len(header) > 1 and (not missing or (missing == ["label"] and bool(flag_columns(path, header, data))))


def flag_columns(path: Path, header: Sequence[str], data: DataFolder) -> list[str]:
    """Return the columns that have 0 or 1 for a label each, where no column has labels; none if there are none.

    A single one is one only if the option names it, and clips may have no label.
    """
    options = data.options
    try:
        known = candidates(header, options, path, "label")
        is_named = bool(known and options.label_column)
        may_be_one = is_named and options.task == "multi" and look_of(known[0]) not in USUAL["label"]
        rows = read_first_rows(path, N_READ) if may_be_one or not known else []
    except DataError:
        return []
    if known:
        return known if is_named and (len(known) > 1 or (may_be_one and _is_flag(rows, header.index(known[0])))) else []
    given = [getattr(options, option) for meaning, option in OPTIONS.items() if meaning != "label"]
    others = {look_of(name) for name in given if name}
    found = []
    for i, name in enumerate(header):
        found += [name] * (_is_flag(rows, i) and may_be_label(name) and look_of(name) not in others)
    return found if len(found) > 1 else []


def _is_flag(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Return whether most cells of a column are 0 or 1."""
    cells = [row[column].strip().lower() for row in rows if column < len(row)]
    return sum(cell in (*PRESENT, *ABSENT) for cell in cells) >= MOST * max(1, len(rows))


def has_flags_only(path: Path, data: DataFolder) -> bool:
    """Return whether a table has labels only in columns of 0 and 1 that no option names."""
    return not data.options.label_column and bool(flag_columns(path, header_of(path), data))


def names_clips(path: Path, data: DataFolder) -> bool:
    """Return whether a row of a table names an audio file that is there."""
    header = header_of(path)
    indices = [header.index(name) for name in candidates(header, options_for(path, header, data), path, "fname")]
    for number in (N_READ, None):  # the first rows usually do
        try:
            rows = read_first_rows(path, number)
        except DataError:
            return True  # reading it says what is wrong
        for i in indices:
            if _is_any(data.files.resolve([row[i] for row in rows if i < len(row)], data.below(path.parent))):
                return True
    return False


def options_for(path: Path, header: Sequence[str], data: DataFolder) -> LayoutOptions:
    """Return the options, with the only column whose cells name audio files if no column's name says so."""
    options = data.options
    if options.path_column or not header or "fname" not in missing_meanings(header, options, path):
        return options
    columns = _naming_columns(path, header, data)
    return replace(options, path_column=columns[0]) if len(columns) == 1 else options


def why_not_tables(data: DataFolder) -> list[str]:
    """Return why tables that seem to be of the clips are not read, a reason each, for the first ones."""
    reasons = []
    for folder in data.folders:
        for path in table_files(folder, data):
            if reason := _why_not(path, data):
                reasons.append(f"{data.below(path)}: {reason}")
            if len(reasons) == N_REASONS:
                return reasons
    return reasons


def why_no_header(path: Path, header: Sequence[str], data: DataFolder) -> str:
    """Return that the first line of a table names a clip, and no columns; empty if it does not."""
    cells = header[0].split() if len(header) == 1 else list(header)
    named = [cell for cell in cells if is_audio_file(cell)]
    if len(cells) < 2 or not named or not _is_any(data.files.resolve(named, data.below(path.parent))):
        return ""
    separated = ", and separate cells by commas" if len(header) == 1 else ""
    what = f"it has no header line, as its first line names {printable(named[0])}"
    return f"{what}: add one such as filename,label{separated}"


def columns_of_tables(data: DataFolder) -> list[str]:
    """Return the columns of the first spreadsheets, whatever they are."""
    paths = [path for folder in data.folders for path in table_files(folder, data)]
    headers = {path: header_of(path) for path in paths if path.suffix.lower() in SPREADSHEETS}
    return [
        f"{data.below(path)}: no column names audio files: it has {listed_columns(header)}; see docs/layouts.md"
        for path, header in headers.items()
        if len(header) > 1
    ][:N_REASONS]


def header_of(path: Path) -> list[str]:
    """Return the names of a table's columns; none if it cannot be read."""
    try:
        return read_header(path)
    except DataError:
        return []


def table_files(folder: Path, data: DataFolder) -> Iterator[Path]:
    """Yield the files of a folder that may be tables; a text beside the recording of its name is of this alone."""
    try:
        paths = sorted(path for path in folder.iterdir() if may_be_table(path) and path.is_file())
    except OSError:
        return
    for path in paths:
        is_own = path.suffix.lower() not in SPREADSHEETS and data.files.has_stem(path.stem)
        if SUBMISSION not in path.name.lower() and not is_own:
            yield path


def may_be_table(path: Path) -> bool:
    """Return whether a file's name may be that of a table."""
    name = path.name.lower()
    return name.endswith(SUFFIXES) and name[0] != "." and not name.startswith(NOTES)


def _naming_columns(path: Path, header: Sequence[str], data: DataFolder) -> list[str]:
    """Return the columns of which most cells name an audio file of their own; those with suffixes if there are some."""
    try:
        rows = read_first_rows(path, N_READ)
    except DataError:
        return []
    found, with_suffix = [], []
    for i, name in enumerate(header):
        cells = [row[i] for row in rows if i < len(row)]
        resolved = data.files.resolve(cells, data.below(path.parent))
        distinct = {name for name, others in zip(resolved.names, resolved.others, strict=True) if not others}
        if name and cells and min(resolved.n_found, len(distinct)) >= MOST * len(rows):
            found.append(name)
            with_suffix += [name] * is_audio_file(cells[0].strip())
    return with_suffix or found


def _why_not(path: Path, data: DataFolder) -> str:
    """Return why a table is not read although it seems to be of the clips; empty if it does not."""
    try:
        header = read_header(path)
    except DataError as error:
        return str(error).partition(": ")[2] if path.suffix.lower() in SPREADSHEETS else ""
    options = options_for(path, header, data)
    missing = missing_meanings(header, options, path)
    if not header and path.suffix.lower() in SPREADSHEETS:
        return "the table is empty"
    if fault := why_no_header(path, header, data):
        return fault
    if len(header) < 2:
        is_list = is_audio_file(header[0]) if header else False
        is_list = is_list and _is_any(data.files.resolve(header, data.below(path.parent)))
        return "it lists clips without labels; clips in a folder test/ are test clips" if is_list else ""
    if not missing:
        return "" if names_clips(path, data) else "it names no audio file that is there"
    if missing == ["label"] and (flags := flag_columns(path, header, data)):
        return f"its columns {listed_columns(flags)} are 0 or 1, as for a label each; layout=table reads them"
    if "label" not in missing or "fname" not in missing:
        return why_no_column([*header], missing[0])
    return why_no_column(header, "label") if _naming_columns(path, header, data) else ""


def _is_any(resolved: Resolved) -> bool:
    return resolved.n_found > 0 or any(resolved.others)
