"""Parse files of annotations: Audacity label tracks, Raven selection tables, and tables with a start and an end.

Conventions: times are in seconds from the start of a recording. A file's format is recognised by its content: a label
track has no header, and tabs between start, end and label; a selection table or another table has a header with the
usual names of columns, and tabs, semicolons or commas between them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fsat.data.annotation_rows import (
    EXPECTED,
    AnnotationFile,
    NotAnnotations,
    Numbers,
    Row,
    is_number,
    read_text,
    records,
)
from fsat.data.tables import why_ragged
from fsat.errors import printable
from fsat.text import is_unknown

USUAL = {
    "recording": (
        "begin_path", "begin_file", "recording", "filename", "file_name", "fname", "file", "path", "filepath",
        "file_path", "audio", "audio_file", "audio_filename", "audio_path", "sound_file", "soundfile", "source_file",
        "wav", "wav_file", "wav_filename", "in_file", "recording_id", "recording_name",
    ),
    "start": (
        "start", "begin", "onset", "start_time", "begin_time", "onset_time", "time_start", "t_start", "start_s",
        "begin_s", "onset_s", "start_sec", "start_seconds", "start_time_s", "begin_time_s", "start_time_seconds",
        "tmin", "min_t",
    ),
    "end": (
        "end", "stop", "offset", "end_time", "stop_time", "offset_time", "time_end", "t_end", "end_s", "stop_s",
        "offset_s", "end_sec", "end_seconds", "end_time_s", "stop_time_s", "end_time_seconds", "tmax", "max_t",
    ),
    "duration": ("duration", "length", "duration_s", "dur", "duration_seconds"),
    "label": (
        "label", "event_label", "annotation", "species", "class", "tag", "category", "labels", "annotations", "tags",
        "class_name", "class_label", "event", "event_type", "event_class", "target", "manual_id", "common_name",
        "scientific_name", "species_code", "call_type", "sound", "code",
    ),
}  # fmt: skip
"""Usual names of columns, the likeliest first, as `_plain` writes them."""

SEPARATORS = "\t;,"

EXCEL = "sep="
"""Beginning of a first line that Excel writes or reads, which names the separator."""

QUOTED = re.compile('"([^"]|"")*"')
"""Matches a cell that is in quotes as a whole."""

FILE_OFFSET = "file_offset_s"
"""Raven's column for the time in the recording, where a table is of several that were opened as one."""


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; an empty one is found by the usual names (`USUAL`)."""

    recording: str = ""
    start: str = ""
    end: str = ""
    label: str = ""


USUAL_COLUMNS = Columns()


def read_annotation_file(path: Path, columns: Columns = USUAL_COLUMNS) -> AnnotationFile:
    """Read a file of annotations; raise `NotAnnotations` if it has none of the known formats."""
    text, warnings = read_text(path)
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    if lines and lines[0].startswith(EXCEL):
        lines.pop(0)
    if not lines:
        return AnnotationFile("empty", warnings=warnings)
    cells = lines[0].split("\t")
    if is_number(cells[0]) and len(cells) > 1 and is_number(cells[1]):
        file = _read_track(text, ("start", "end", "label"))
    elif len(cells) == 4 and is_number(cells[1]) and is_number(cells[2]):
        file = _read_track(text, ("recording", "start", "end", "label"))
    else:
        file = _read_with_header(text, lines[0], columns)
    file.warnings[:0] = warnings
    return file


def _read_track(text: str, names: Sequence[str]) -> AnnotationFile:
    """Read lines without a header, with tabs between the cells that `names` lists."""
    file = AnnotationFile("label track", names_recordings="recording" in names)
    numbers = Numbers()
    for line, cells in records(text, "\t", quoted=False):
        if cells[0].strip() == "\\":  # the frequencies of the label before it
            continue
        values = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        recording = values.get("recording", "")
        if len(cells) > len(names):
            fault = f"{len(cells)} cells; expected {', '.join(names)}, separated by tabs"
        elif len(cells) < len(names) - 1:
            fault = f"{printable(chr(9).join(cells))[:60]!r}; expected {', '.join(names)}, separated by tabs"
        else:
            start, end, fault = numbers.pair(values["start"], values["end"])
            if not fault:
                file.rows.append(Row(line, recording, start, end, values.get("label", "")))
                continue
        file.faults.append((line, recording, fault))
    return file


def _read_with_header(text: str, first: str, columns: Columns) -> AnnotationFile:
    """Read a table whose first line names its columns."""
    attempts = []
    for separator in SEPARATORS:
        header: list[str] = []
        with suppress(NotAnnotations):  # of the wrong separator
            header = [cell.strip() for _, cells in records(first, separator, quoted=True) for cell in cells]
        reader = _TableReader(header, columns)
        attempts.append((len(reader.missing), -len(header), separator, reader))
    n_missing, _, separator, reader = min(attempts, key=lambda attempt: attempt[:2])
    if n_missing:
        got = printable(first.strip())[:80]
        missing = " and ".join(reader.missing)
        hint = "add one such as Annotation in Raven" if reader.file.kind == "selection table" else EXPECTED
        raise NotAnnotations(f"its first line is {got!r}, without a column of {missing}; {hint}")
    reader.read(text, separator)
    return reader.file


class _TableReader:
    """Reads the rows of a table with a header.

    `missing` names the columns that it lacks.
    """

    def __init__(self, header: list[str], columns: Columns) -> None:
        self._header = [name.lstrip("# ") if i == 0 else name for i, name in enumerate(header)]
        self._plain = [_plain(name) for name in self._header]
        is_raven = {"selection", "view"} <= set(self._plain)
        self.file = AnnotationFile("selection table" if is_raven else "table")
        self._at: dict[str, int | None] = {}
        for role in ("recording", "start", "end", "label"):
            self._at[role] = self._find(role, getattr(columns, role))
        self._duration = None if columns.end else self._find("duration", "")
        end, has_no_start = self._at["end"], self._at["start"] is None and self._duration is not None
        if has_no_start and end is not None and self._plain[end].startswith("offset"):
            self._at["start"], self._at["end"] = end, None  # Kaleidoscope's OFFSET and DURATION
        self._file_offset = self._plain.index(FILE_OFFSET) if FILE_OFFSET in self._plain else None
        self._begin_file = self._plain.index("begin_file") if "begin_file" in self._plain else None
        self.missing = [role for role in ("start", "label") if self._at[role] is None]
        if self._at["end"] is None and self._duration is None:
            self.missing.insert(1, "end")
        if columns.recording and self._at["recording"] is None:
            self.missing.insert(0, f"the recording ({printable(columns.recording)})")
        self.file.names_recordings = self._at["recording"] is not None
        self.file.label_column = self._header[at] if (at := self._at["label"]) is not None else ""
        self._are_tags = {"score", "error", "note"} <= set(self._plain)
        if self._are_tags:
            self.file.warnings.append("has tags that predict wrote, which are taken as annotations")

    def _find(self, role: str, name: str) -> int | None:
        """Return the index of a column, by its name if that is given."""
        if name:
            wanted = [i for i, own in enumerate(self._header) if own.casefold() == name.strip().casefold()]
            return wanted[0] if wanted else None
        found = sorted((USUAL[role].index(name), i) for i, name in enumerate(self._plain) if name in USUAL[role])
        others = [self._header[i] for _, i in found[1:]]
        if role == "label" and others:
            used = self._header[found[0][1]]
            named = " and ".join(map(printable, others))
            self.file.warnings.append(f"labels are in column {printable(used)}, not {named} (label_column=NAME)")
        return found[0][1] if found else None

    def read(self, text: str, separator: str) -> None:
        """Read the rows below the header."""
        numbers, views = Numbers(), dict[tuple[object, ...], tuple[str, int]]()
        is_raven = self.file.kind == "selection table" and separator == "\t"
        lines = records(text, separator, quoted=not is_raven)
        if is_raven:
            lines = ((line, [_unquoted(cell) for cell in cells]) for line, cells in lines)
        next(cells for _, cells in lines if not cells[0].startswith(EXCEL))  # the header
        names = set()
        for line, cells in lines:
            recording = self._cell(cells, self._at["recording"]) or self._cell(cells, self._begin_file)
            names.add(recording)
            if fault := why_ragged(cells, self._header):
                self.file.faults.append((line, recording, fault))
                continue
            roles = ("label",) if self._are_tags else ("start", "end", "label")  # silence has tags without a label
            if recording and all(is_unknown(self._cell(cells, self._at[role])) for role in roles):
                self.file.unannotated.append((line, recording))
                continue
            start, end, fault = self._times(cells, numbers)
            if not fault and self.file.names_recordings and not recording:
                fault = f"column {printable(self._header[self._at['recording'] or 0])} is empty; expected a recording"
            if fault:
                self.file.faults.append((line, recording, fault))
                continue
            row = Row(line, recording, start, end, self._cell(cells, self._at["label"]))
            if not self._is_second_view(row, cells, views):
                self.file.rows.append(row)
        if self.file.kind == "selection table" and len(names) > 1 and self._file_offset is None:
            fault = "names several recordings without a column File Offset (s)"
            self.file.warnings.append(f"{fault}: times are taken as those in each recording")

    def _cell(self, cells: list[str], index: int | None) -> str:
        return cells[index].strip() if index is not None and index < len(cells) else ""

    def _times(self, cells: list[str], numbers: Numbers) -> tuple[float, float, str]:
        """Return start and end, or why there are none."""
        first = self._cell(cells, self._at["start"])
        if self._at["end"] is None:
            start, length, fault = numbers.pair(first, self._cell(cells, self._duration), "duration")
            end = start + length
        else:
            start, end, fault = numbers.pair(first, self._cell(cells, self._at["end"]))
        if self._file_offset is not None and self.file.names_recordings and not fault:
            offset, _, fault = numbers.pair(self._cell(cells, self._file_offset), "0")
            start, end = offset, offset + end - start
        return start, end, fault

    def _is_second_view(self, row: Row, cells: list[str], views: dict[tuple[object, ...], tuple[str, int]]) -> bool:
        """Return whether the row is a selection in another view (waveform, spectrogram) than one before it."""
        if self.file.kind != "selection table":
            return False
        selection, view = (self._cell(cells, self._plain.index(name)) for name in ("selection", "view"))
        key = selection, row.recording, row.start, row.end
        known, at = views.setdefault(key, (view, len(self.file.rows)))
        if known == view:
            return False
        if row.label and not self.file.rows[at].label:
            self.file.rows[at] = row
        return True


def _unquoted(cell: str) -> str:
    """Return the text of a cell of a selection table: Raven writes quotes as text, a spreadsheet around the whole."""
    return cell.strip()[1:-1].replace('""', '"') if QUOTED.fullmatch(cell.strip()) else cell


def _plain(name: str) -> str:
    """Return a column's name in lower case, with ``_`` for all that is no letter or digit."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")
