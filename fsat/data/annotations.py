"""Annotations of recordings: who sounds from when to when, read from the files of other programs.

Conventions: recordings are named by POSIX paths relative to their folder, and times are in seconds from the start of a
recording. An annotation file belongs to the recording of the same name (``day.wav`` has ``day.txt``, ``day.wav.txt``,
``day.Table.1.selections.txt`` or ``day.csv``), or its rows name their recordings. Where several recordings have that
name, the one with the same folders around it is meant. `fsat.data.annotation_files` has the formats.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fsat.data.annotation_files import USUAL_COLUMNS, Columns, read_annotation_file
from fsat.data.annotation_names import Match, RecordingNames, stem_of
from fsat.data.annotation_rows import EXPECTED, AnnotationFile, NotAnnotations, Row
from fsat.data.audio_files import APPLE_DOUBLE, SYSTEM_FOLDERS
from fsat.errors import DataError, Problem, count, printable

SUFFIXES = (".txt", ".csv", ".tsv", ".tab")
"""Suffixes of files that are read as annotations."""

OTHER_PROGRAMS = {
    **dict.fromkeys((".aup3", ".aup"), "export the labels from Audacity (File > Export Other > Export Labels)"),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "save as CSV"),
    **dict.fromkeys((".textgrid", ".eaf", ".svl", ".srt", ".vtt"), "export as a table with start, end and label"),
    ".lab": "save as .txt with tabs between start, end and label",
    **dict.fromkeys((".json", ".jsonl", ".parquet"), "write as CSV with columns start, end and label"),
}
"""What to do with other files that may have annotations, by suffix."""

TOLERANCE = 0.1
"""Seconds by which an annotation may end after its recording, from rounding; it is cut there."""

SHOWN = 3


@dataclass(frozen=True)
class Annotation:
    """A sound: start and end in seconds, 0 <= start < end, its label, and its file and line there, from 1."""

    start: float
    end: float
    label: str
    file: str = ""
    row: int = 0


@dataclass
class Annotations:
    """The annotations of a recording by start, and the files that they are from; none if nothing sounds there."""

    recording: str
    files: list[str] = field(default_factory=list)
    events: list[Annotation] = field(default_factory=list)


class AnnotationsRead(NamedTuple):
    """Annotations by recording, in the order of these; all faults; and what is odd, a line each.

    Recordings without an annotation file, and without a row in a table of all, are not among `recordings`.
    """

    recordings: dict[str, Annotations]
    problems: list[Problem]
    warnings: list[str]


def read_annotations(
    recordings: Sequence[str],
    root: Path,
    folder: Path,
    columns: Columns = USUAL_COLUMNS,
    lengths: Mapping[str, float] | None = None,
    point_seconds: float = 0.0,
    complete: bool = True,
    may_be_empty: bool = False,
) -> AnnotationsRead:
    """Read the annotations of recordings from the files in and below a folder.

    Args:
        recordings: POSIX paths relative to `root`.
        folder: of the annotation files, which may be `root`; or one file, which may have any name if there is one
            recording.
        columns: names of a table's columns, if they are not the usual ones.
        lengths: of recordings in seconds, as far as they are known; no annotation may end later.
        point_seconds: length that an annotation without one gets, around its time; 0 makes it a fault.
        complete: whether these are all recordings, so that the annotations of another one are a fault.
        may_be_empty: whether an empty label is that of a time when nothing sounds, rather than a fault.

    Raises `DataError` if the folder does not exist, or has no annotation file.
    """
    return _Reader(recordings, root, lengths or {}, point_seconds, complete, may_be_empty).read(folder, columns)


def find_annotation_files(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the files in and below a folder that may have annotations, and of other programs' files.

    Both are POSIX paths relative to the folder, sorted. Links are followed, but no folder is entered twice; hidden
    files and folders are left out. Raises `DataError` if a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{printable(error.filename)}: cannot be read: {error.strerror}") from error

    names, others = [], []
    entered = {os.path.realpath(folder)}
    for path, subfolders, files in os.walk(folder, onerror=fail, followlinks=True):
        real = {name: os.path.realpath(os.path.join(path, name)) for name in sorted(subfolders)}
        is_data = {name: not name.startswith(".") and name not in SYSTEM_FOLDERS for name in real}
        subfolders[:] = [name for name in real if is_data[name] and real[name] not in entered]
        entered.update(real.values())
        for file in files:
            suffix = os.path.splitext(file)[1].lower()
            if suffix in (*SUFFIXES, *OTHER_PROGRAMS) and not file.startswith((".", APPLE_DOUBLE)):
                name = Path(os.path.relpath(path, folder), file).as_posix()
                names += [name] * (suffix in SUFFIXES)
                others += [name] * (suffix in OTHER_PROGRAMS)
    return sorted(names), sorted(others)


@dataclass
class _Claim:
    """Rows of a file that are for one recording: that after which the file is named, or that `name` in its rows."""

    file: str
    name: str
    line: int
    match: Match
    rows: list[Row] = field(default_factory=list)

    def is_worse_than(self, other: _Claim) -> bool:
        """Return whether another name of the same kind, in the file names or in rows, fits their recording better."""
        if bool(self.name) != bool(other.name):
            return False
        have_folders = all(not claim.name or PurePosixPath(claim.name).name != claim.name for claim in (self, other))
        (rank, n_common), (other_rank, other_n) = self.match.fit, other.match.fit
        return rank < other_rank or (have_folders and n_common < other_n)

    def is_elsewhere(self, recording: str) -> bool:
        """Return whether the file is in other folders than the recording, below their own ones and above."""
        return PurePosixPath(self.file).parent != PurePosixPath(recording).parent and not self.match.fit[1]


class _Reader:
    """Reads annotation files, and collects what is wrong with them."""

    def __init__(
        self,
        recordings: Sequence[str],
        root: Path,
        lengths: Mapping[str, float],
        point: float,
        complete: bool,
        may_be_empty: bool,
    ) -> None:
        self._recordings, self._index = recordings, RecordingNames(recordings, root)
        self._lengths, self._point, self._complete, self._may_be_empty = lengths, point, complete, may_be_empty
        self._problems: list[Problem] = []
        self._odd: dict[str, list[str]] = {}  # where, by what
        self._warnings: list[str] = []
        self._unknown: list[str] = []
        self._is_pair = False  # one recording, and one file that is named as its annotations

    def read(self, folder: Path, columns: Columns) -> AnnotationsRead:
        """Read the files of a folder, or one file."""
        if not folder.exists():
            raise DataError(f"{folder}: no such folder of annotations; {EXPECTED}")
        names, others = find_annotation_files(folder) if folder.is_dir() else ([folder.name], [])
        if advice := OTHER_PROGRAMS.get(folder.suffix.lower(), "") if folder.is_file() else "":
            raise DataError(f"{folder}: cannot be read as annotations; {advice}")
        self._warnings += _warnings_of_others(others)
        self._is_pair = folder.is_file() and len(self._recordings) == 1
        parent = folder if folder.is_dir() else folder.parent
        claims = [claim for name in names for claim in self._claims(parent, name, columns)]
        if not claims and not self._problems:
            suffixes = ", ".join(SUFFIXES)
            reasons = [*self._warnings, *self._told()]
            raise DataError("; ".join([f"{folder}: no annotations in files {suffixes}", *reasons, EXPECTED]))
        annotated: dict[str, Annotations] = {}
        for recording, own in self._by_recording(claims).items():
            files = list(dict.fromkeys(claim.file for claim in own))
            events = self._unique([event for claim in own for event in self._events(recording, claim)])
            annotated[recording] = Annotations(recording, files, events)
            if len(files) > 1:
                self._note("has several annotation files, which are all used", f"{recording} ({', '.join(files)})")
        self._warnings += self._told()
        if self._unknown:
            fault = f"{count(len(self._unknown), 'name')} of other recordings in the annotations"
            self._warnings.append(f"{fault}, first {printable(self._unknown[0])}: left out")
        if missing := [name for name in self._recordings if name not in annotated]:
            first = ", ".join(map(printable, missing[:SHOWN])) + (", ..." if len(missing) > SHOWN else "")
            self._warnings.append(f"{count(len(missing), 'recording')} without annotations: {first}")
        in_order = {name: annotated[name] for name in self._recordings if name in annotated}
        return AnnotationsRead(in_order, sorted(self._problems, key=lambda p: (p.file, p.row)), self._warnings)

    def _note(self, what: str, where: str) -> None:
        """Take down what is odd about a file or recording."""
        self._odd.setdefault(what, []).append(printable(where))

    def _told(self) -> list[str]:
        """Return what is odd, a line for each kind, with the first place."""
        return [
            f"{first}: {what}" + (f" (and {len(rest):,} more like it)" if rest else "")
            for what, (first, *rest) in self._odd.items()
        ]

    def _claims(self, folder: Path, name: str, columns: Columns) -> Iterator[_Claim]:
        """Yield what a file has for each recording."""
        match = self._index.match_file(folder / name)
        if self._is_pair and not match.recordings:
            match = Match(list(self._recordings))
        try:
            file = read_annotation_file(folder / name, columns)
        except NotAnnotations as error:
            if match.recordings:
                self._problems.append(Problem(name, 0, "", str(error)))
            else:
                self._note(f"left out, as no recording has its name: {error}", name)
            return
        for warning in file.warnings:
            self._note(warning, name)
        has_rows = bool(file.rows or file.unannotated or file.faults)
        if file.names_recordings and (has_rows or len(match.recordings) != 1):
            yield from self._claims_of_rows(name, file)
            return
        self._problems += [Problem(name, line, "", fault) for line, _, fault in file.faults]
        if match.recordings or file.rows:
            yield _Claim(name, "", 0, match, file.rows)
        elif not file.faults:
            self._note(f"left out, as it has no row ({file.kind}) and no recording has its name", name)

    def _claims_of_rows(self, name: str, file: AnnotationFile) -> Iterator[_Claim]:
        claims: dict[str, _Claim] = {}
        lines = [(row.line, row.recording, row) for row in file.rows]
        for line, recording, row in sorted([*lines, *((*pair, None) for pair in file.unannotated)], key=lambda r: r[0]):
            if recording not in claims:
                claims[recording] = _Claim(name, recording, line, self._index.match_path(recording))
            claims[recording].rows += [row] if row else []
        self._problems += [Problem(name, *fault) for fault in file.faults]
        yield from claims.values()

    def _by_recording(self, claims: Iterable[_Claim]) -> dict[str, list[_Claim]]:
        """Return the claims of each recording; those that fit worse than others are of a recording that is missing."""
        claimed: dict[str, list[_Claim]] = {}
        for claim in claims:
            if len(claim.match.recordings) == 1:
                claimed.setdefault(claim.match.recordings[0], []).append(claim)
            elif claim.match.recordings:
                names = " and ".join(map(printable, claim.match.recordings[:SHOWN]))
                fault = (
                    f"may be {count(len(claim.match.recordings), 'recording')}, {names}; give the name with its folder"
                )
                self._problems.append(Problem(claim.file, claim.line, claim.name, fault))
            else:
                self._name_unknown(claim)
        elsewhere = []
        for recording, own in claimed.items():
            for claim in [claim for claim in own if any(claim.is_worse_than(other) for other in own)]:
                own.remove(claim)
                self._name_unknown(claim, f", as {printable(recording)} has other annotations")
            elsewhere += [(claim, recording) for claim in own if not claim.name and claim.is_elsewhere(recording)]
        if elsewhere:
            files = f"{count(len(elsewhere), 'annotation file')} in other folders than their recordings"
            claim, recording = elsewhere[0]
            self._warnings.append(f"{files}, first {printable(claim.file)} for {printable(recording)}")
        return claimed

    def _name_unknown(self, claim: _Claim, why: str = "") -> None:
        if not self._complete:
            self._unknown.append(claim.name or claim.file)
            return
        if claim.name:
            fault = f"no recording has this name{why}"
        else:
            stem = stem_of(PurePosixPath(claim.file).name)
            fault = (
                f"no recording is called {printable(stem)}{why}; name it after its recording, as day.txt for day.wav"
            )
        self._problems.append(Problem(claim.file, claim.line, claim.name, fault))

    def _events(self, recording: str, claim: _Claim) -> Iterator[Annotation]:
        """Yield the annotations of a claim that can be used."""
        length = self._lengths.get(recording, math.inf)
        for row in claim.rows:
            start, end, fault = row.start, row.end, ""
            if start == end and self._point:
                start, end = max(0.0, start - self._point / 2), min(length, start + self._point / 2)
            if not row.label and not self._may_be_empty:
                fault = "the label is empty"
            elif start < 0:
                fault = f"start={start:g}: expected at least 0 s"
            elif end < start:
                fault = f"end={end:g}: before start={start:g}"
            elif end > length + TOLERANCE or start >= length:
                fault = f"{start:g} to {end:g} s: the recording ends at {length:g} s"
            elif start == end:
                fault = f"{row.label!r} at {start:g} s has no length; drag its end, or say how long such sounds are"
                fault += " (point_seconds=SECONDS)"
            if fault:
                self._problems.append(Problem(claim.file, row.line, recording, fault))
            else:
                yield Annotation(start, min(end, length), row.label, claim.file, row.line)

    def _unique(self, events: Iterable[Annotation]) -> list[Annotation]:
        """Return annotations by start, without those that are there twice."""
        first: dict[tuple[float, float, str], Annotation] = {}
        twice = [
            event
            for event in events
            if first.setdefault((round(event.start, 3), round(event.end, 3), event.label), event) is not event
        ]
        for event in twice:
            self._note("repeats an annotation, which counts once", f"{event.file}:{event.row}")
        return sorted(first.values(), key=lambda event: (event.start, event.end, event.label))


def _warnings_of_others(names: Sequence[str]) -> list[str]:
    """Return what to say of files of other programs, a line for each kind."""
    suffixes = Counter(os.path.splitext(name)[1].lower() for name in names)
    return [
        f"left out: {count(number, 'file')} {suffix}; {OTHER_PROGRAMS[suffix]}" for suffix, number in suffixes.items()
    ]
