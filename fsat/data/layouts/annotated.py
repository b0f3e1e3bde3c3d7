"""The layout of long recordings with annotations: each annotated sound is a clip to train on.

Annotations are Audacity label tracks, Raven selection tables, or tables with a start and an end, as
`fsat.data.annotations` reads them, in the data folder or in another one. The clips of a recording stay in one fold.

Where clips have any number of labels, each has those of all that sounds in it; but a table with a column that lists
labels, as `fsat manifest` writes it, names the labels of each clip itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from fsat.data.annotated_clips import (
    Span,
    background_spans,
    clip_names,
    cut_clips,
    lengths_of,
    spans_of,
    stretches,
    with_all_labels,
    with_own_labels,
)
from fsat.data.annotation_files import Columns, read_annotation_file
from fsat.data.annotation_names import RecordingNames
from fsat.data.annotation_rows import AnnotationFile, NotAnnotations
from fsat.data.annotations import AnnotationsRead, find_annotation_files, read_annotations
from fsat.data.layouts.label_cells import LabelColumn, labels_of, means_list, separator_of, shows_several
from fsat.data.layouts.rows import DataFolder, Part, Rows, frame_of, listed_names
from fsat.data.layouts.table_files import find_tables
from fsat.data.tables import ListCell, Table
from fsat.errors import ConfigError, DataError, Problem, count, printable

SOUNDING = "the labels of all that sounds in a clip"
"""How clips get their labels where they may have several, in words."""

MAY_BE_CUT = 5
"""Files of a table that are opened to tell recordings from clips that were cut out of them."""


def matches(data: DataFolder) -> bool:
    """Return whether a file below the folder has annotations of one of its audio files."""
    return any(_annotated_files(data))


def annotated_files(data: DataFolder) -> dict[Path, set[str]]:
    """Return the files with annotations, and the recordings that each is for."""
    found: dict[Path, set[str]] = {}
    for path, recordings in _annotated_files(data):
        found.setdefault(path, set()).update(recordings)
    return found


def why_not(data: DataFolder) -> list[str]:
    """Return why a file that has the name of an audio file has no annotations of it, for the first one."""
    for path in data.once(_paths):
        if data.once(_index).match_file(path).recordings:
            start = f"{printable(data.below(path))} has the name of a recording, but no annotations"
            try:
                file = read_annotation_file(path)
            except NotAnnotations as error:
                return [f"{start}: {error}"]
            if file.faults and not file.rows:
                line, _, fault = file.faults[0]
                return [f"{start}: line {line}: {fault}"]
    return []


def _paths(data: DataFolder) -> list[Path]:
    return [data.path / name for name in find_annotation_files(data.path)[0]]


def _index(data: DataFolder) -> RecordingNames:
    return RecordingNames(data.audio, data.path)


def _columns(data: DataFolder) -> Columns:
    options = data.options
    return Columns(options.path_column, options.start_column, options.end_column, options.label_column)


def _annotated_files(data: DataFolder) -> Iterator[tuple[Path, Iterable[str]]]:
    paths = [data.once(find_tables)[0]] if data.options.table else data.once(_paths)
    for path in paths if data.audio else ():
        try:
            file = read_annotation_file(path, _columns(data))
        except NotAnnotations:
            continue
        if not file.names_recordings:
            if file.rows and (recordings := data.once(_index).match_file(path).recordings):
                yield path, recordings
        elif _is_of_recordings(data, data.once(_index), file):
            named = {row.recording for row in file.rows}
            yield path, [found for text in named for found in data.once(_index).match_path(text).recordings]


def _is_of_recordings(data: DataFolder, index: RecordingNames, file: AnnotationFile) -> bool:
    """Return whether the rows of a table are parts of recordings, rather than of what clips were cut out of before."""
    ends: dict[str, float] = {}
    n_rows = Counter(row.recording for row in file.rows)
    for row in file.rows:
        found = index.match_path(row.recording).recordings
        if len(found) == 1:
            ends[found[0]] = max(row.end, ends.get(found[0], 0.0))
        if len(ends) == MAY_BE_CUT:
            break
    lengths = lengths_of(data.path, list(ends))
    fitting = [name for name, seconds in lengths.items() if ends[name] <= seconds + 1]
    return bool(ends) and len(fitting) == len(lengths) and (max(n_rows.values()) > 1 or _are_parts(ends, lengths))


def _are_parts(ends: dict[str, float], lengths: dict[str, float]) -> bool:
    """Return whether some recordings are clearly longer than what their only row marks."""
    return any(lengths[name] > ends[name] + 1 for name in lengths)


def read(data: DataFolder) -> Rows:
    """Read the annotations, and cut their clips out; raise `DataError` if there are none."""
    options = data.options
    if options.background and not data.audio:
        raise DataError(f"{data.path}: no recording is in or below it")
    folder = _annotation_folder(data)
    lengths = lengths_of(data.path, data.audio)
    is_multi = options.task == "multi" or (options.task == "auto" and bool(options.background))
    separator, listing = _listed_by(folder, _columns(data), is_multi)
    found = read_annotations(
        data.audio, data.path, folder, _columns(data), lengths, options.clip_seconds, may_be_empty=bool(separator)
    )
    for i, problem in enumerate(found.problems):
        found.problems[i] = replace(problem, reason=problem.reason.replace("point_seconds=", "clip_seconds="))
    by_recording = {
        name: spans_of(name, annotated.events, lengths.get(name, np.inf), options.clip_seconds)
        for name, annotated in found.recordings.items()
    }
    for name, own in by_recording.items():
        if separator:
            by_recording[name] = with_own_labels(_with_lists(own, separator, listing, found.problems))
        elif is_multi:
            by_recording[name] = with_all_labels(own, found.recordings[name].events)
    spans = [span for own in by_recording.values() for span in own]
    warnings = list(found.warnings)
    if is_multi and (faulty := sorted({problem.fname for problem in found.problems} & found.recordings.keys())):
        warnings.append(f"clips of {listed_names(faulty)} may lack labels, as annotations there are left out")
    if options.background and spans:
        spans += _background(found, by_recording, lengths, data, warnings)
    if is_multi or separator:
        spans = [s if isinstance(s.label, ListCell) else replace(s, label=ListCell((s.label,))) for s in spans]
    if not spans:
        advice = "fix the rows listed above" if found.problems else "expected start, end and label"
        raise DataError(f"{folder}: no annotation of the recordings in {data.path}; {advice}", found.problems)
    table, clips_folder = _table(data.path, spans, [*found.problems], warnings)
    n_recordings = sum(bool(own) for own in by_recording.values())
    reading = f"{count(len(spans), 'clip')} of {count(n_recordings, 'annotated recording')} ({_files_of(found)})"
    rows = Rows(reading, Part(table, printable(folder.name), clips_folder, lists_all=True), warnings=warnings)
    rows.makes_background = True
    if is_multi or separator:
        rows.labels = LabelColumn("label", form=f"labels separated by {separator!r}" if separator else SOUNDING)
    return rows


def _listed_by(folder: Path, columns: Columns, is_multi: bool) -> tuple[str, set[str]]:
    """Return what separates the labels of annotations whose column lists them, and the names of these files.

    The separator is empty if there are no such lists.
    """
    names = find_annotation_files(folder)[0] if folder.is_dir() else [folder.name]
    cells, listing = list[str](), set[str]()
    for name in names:
        with suppress(NotAnnotations):
            file = read_annotation_file(folder / name if folder.is_dir() else folder, columns)
            if means_list(file.label_column):
                listing.add(name)
                cells += [row.label for row in file.rows]
    is_list = bool(cells) and (is_multi or shows_several(set(cells), LabelColumn("", is_list=True)))
    return separator_of(set(cells)) if is_list else "", listing


def _with_lists(spans: Sequence[Span], separator: str, listing: set[str], problems: list[Problem]) -> list[Span]:
    """Return clips with their label cells as lists, those of the files `listing`; a cell that is none is a problem."""
    listed = []
    for span in spans:
        labels, fault = labels_of(span.label, separator) if span.file in listing else ((span.label,), "")
        fault = fault or ("the label is empty" if "" in labels else "")
        if fault:
            problems.append(Problem(span.file, span.row, span.recording, fault))
        else:
            listed.append(replace(span, label=ListCell(labels)))
    return listed


def _annotation_folder(data: DataFolder) -> Path:
    if data.options.table and data.options.annotations:
        raise ConfigError("table and annotations name the same; give one of them")
    if data.options.table:
        return data.once(find_tables)[0]
    if not data.options.annotations:
        return data.path
    for path in data.places_of(data.options.annotations):
        if path.exists():
            return path
    raise DataError(
        f"annotations={printable(data.options.annotations)}: no such file or folder, also below {data.path}"
    )


def _files_of(found: AnnotationsRead) -> str:
    names = list(dict.fromkeys(file for own in found.recordings.values() for file in own.files))
    return ", ".join(map(printable, names[:2])) + (", ..." if len(names) > 2 else "")


def _background(
    found: AnnotationsRead,
    by_recording: dict[str, list[Span]],
    lengths: dict[str, float],
    data: DataFolder,
    warnings: list[str],
) -> list[Span]:
    """Return the clips of background, of the usual length, and as many as the class with most clips has."""
    spans = [span for own in by_recording.values() for span in own]
    seconds = data.options.clip_seconds or float(np.median([span.end - span.start for span in spans]))
    labels = [span.label.items if isinstance(span.label, ListCell) else (span.label,) for span in spans]
    most = max(Counter(label for own in labels for label in own).values(), default=len(spans))
    label = data.options.background
    faulty = {problem.fname for problem in found.problems} & found.recordings.keys()
    if faulty:
        names = listed_names(sorted(faulty))
        warnings.append(f"background={label}: none is taken from {names}, of which annotations are left out")
    taken = {
        name: [(event.start, event.end) for event in annotated.events]
        + [(span.start, span.end) for span in by_recording[name]]
        for name, annotated in found.recordings.items()
        if name not in faulty
    }
    chosen = background_spans(taken, lengths, label, seconds, most)
    if not chosen:
        warnings.append(f"background={label}: no stretch of {seconds:.2f} s is without an annotation")
    return chosen


def _table(root: Path, spans: Sequence[Span], problems: list[Problem], warnings: list[str]) -> tuple[Table, Path]:
    """Return the rows of the clips, and the folder that they were cut into."""
    names = clip_names(spans)
    folder, faults = cut_clips(root, spans, names)
    groups = [span.recording for span in spans]
    if len(set(groups)) == 1 and len(spans) > 1:
        groups = stretches(spans)
        warnings.append(
            f"all clips are of one recording, {printable(spans[0].recording)}, so they are in several folds: scores "
            "describe this recording, not others"
        )
    frame = frame_of(
        {
            "fname": names,
            "label": [span.label for span in spans],
            "manually_verified": ["0"] * len(spans),
            "group": groups,
        }
    )
    for name in ("file", "recording", "start", "end"):
        frame[name] = [getattr(span, name) for span in spans]
    frame["row"] = [span.row or -1 - i for i, span in enumerate(spans)]
    is_cut = [name not in faults for name in names]
    for name, span in zip(names, spans, strict=True):
        if name in faults:
            problems.append(Problem(span.file, span.row or 1, name, faults[name]))
    return Table(frame[is_cut].reset_index(drop=True), problems), folder
