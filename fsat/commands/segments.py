"""Command `segments`: cut the best-scoring segments of each class out of recordings, to be reviewed by ear."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fsat.data.byte_source import MISSING
from fsat.data.clip_names import stored_name
from fsat.data.cut_pieces import Piece, cut_pieces
from fsat.data.tables import write_table
from fsat.errors import AudioError, DataError, StorageError, count, printable
from fsat.files import UNFINISHED, check_writable, disk_errors, hash_file
from fsat.options import SegmentOptions
from fsat.progress import Progress, say
from fsat.reports import run_descriptions
from fsat.tagging import ledger as ledgers
from fsat.tagging.best_segments import Segment, best_tags, name_segments
from fsat.tagging.input_files import read_input
from fsat.tagging.ledger import Ledger
from fsat.tagging.presence import Presence
from fsat.tagging.read_tables import read_tag_table
from fsat.text import short
from fsat.tracking import mlflow_ui, ownership, runs

INDEX = "segments.csv"
"""Table of the segments, in their folder."""

FAULTS_SHOWN = 50
"""Recordings without some or all of their segments that are named, in a line each."""

Cut = list[list[Any]]
"""Segments of a recording, as the ledger stores them: number among those of the recording, start and end in seconds."""


@dataclass
class Segments:
    """Summary of the command.

    Attributes:
        n_segments, n_classes, n_recordings: of what was cut out.
        faults: recordings of which segments are missing, and why.
    """

    n_segments: int = 0
    n_classes: int = 0
    n_recordings: int = 0
    faults: dict[str, str] = field(default_factory=dict)


def segments(tags: Path, input: str, output: Path, options: SegmentOptions) -> Segments:
    """Write the best segments of each class as WAV files in a folder per class, and a table of them.

    Recordings that are done are recorded beside the table until all are, so that the same command resumes there. The
    table has a row for each segment, ``fname,label,manually_verified,group,recording_start,recording_end,score``, by
    label and best first; `group` is the recording, and times are those of the file's content, in seconds.

    Args:
        tags: a table that `predict` wrote.
        input: the files that it is about, as given to `predict`; only their folder counts.
        output: a folder that is new or empty, or that of an interrupted command.

    Raises:
        DataError: the table or the input cannot be used, nothing could be cut out, or the folder is in use.
    """
    _check_folder(output)
    with disk_errors(tags, "cannot be read", "expected a table that `fsat predict` wrote"):
        digest = hash_file(tags)
    root = read_input(input).root
    best = best_tags(read_tag_table(tags), options.per_class, options.min_score)
    if not best:
        raise DataError(f"tags={printable(tags)}: no tags with a score of at least {options.min_score:g}")
    index = output / INDEX
    taken = [f"{INDEX}{suffix}" for suffix in ("", ledgers.SUFFIX, f"{ledgers.SUFFIX}-journal")]
    all_segments = list(name_segments(best, options.longest(is_clip=False), taken))
    with runs.tracked("segments", f"segments of {short(tags.name)}") as run_id:
        ownership.sweep()
        runs.log_params({"tags": str(tags), "input": input, "output": str(output), **asdict(options)})
        facts = {"tags": digest, "input": str(root), **asdict(options)}
        with ledgers.opened(index, facts) as ledger:
            result, table = _cut_all(ledger, all_segments, root, output, options)
            write_table(table, index)
            runs.log_file(index)
        _log(result, tags, output, run_id)
    return result


def _check_folder(output: Path) -> None:
    """Make the folder; raise `DataError` unless it is empty, or has a ledger."""
    index = output / INDEX
    check_writable(index)
    others = [path.name for path in output.iterdir() if path.name != index.name + ledgers.SUFFIX]
    if others and not index.with_name(index.name + ledgers.SUFFIX).exists():
        fault = f"is not empty, it has {printable(min(others))}"
        raise DataError(f"output={printable(output)}: {fault}; expected a new or empty folder")


def _cut_all(
    ledger: Ledger, all_segments: list[Segment], root: Path, output: Path, options: SegmentOptions
) -> tuple[Segments, pd.DataFrame]:
    """Cut the segments out of all recordings that are not done; return the summary and the table."""
    by_recording: dict[str, list[Segment]] = {}
    for segment in all_segments:
        by_recording.setdefault(segment.tag.fname, []).append(segment)
    _prepare(output, all_segments)
    ledger.add(by_recording, ordered=False)
    if ledger.n_done:
        say(
            f"segments: {ledger.n_done} of {count(ledger.n_files, 'recording')} were done before; resuming with the rest"
        )
    faults, presence = dict[str, str](), Presence(root, ledger, ordered=True)
    with Progress("cutting recordings", ledger.n_files, ledger.n_done) as progress:
        try:
            for (file,) in ledger.groups(1):
                progress.note(printable(file.name))
                fault, cut = _cut_recording(root, file.name, by_recording[file.name], output, options)
                presence.check([(file.number, [fault])])
                if cut:
                    ledger.record([(file.number, [fault, cut])])
                else:  # the same command tries again
                    faults[file.name] = fault
                progress.advance()
        except KeyboardInterrupt:
            say(
                f"segments: {ledger.n_done} of {count(ledger.n_files, 'recording')} are done; the same command resumes there"
            )
            raise
    if not ledger.n_done:
        name, fault = next(iter(faults.items()))
        reason = f"none of {count(len(faults), 'recording')} could be cut, first {printable(name)}: {fault}"
        raise DataError(
            f"input={printable(root)}: {reason}; expected the input of `predict`, and the same command resumes"
        )
    return _summary(ledger, by_recording, all_segments, faults)


def _prepare(output: Path, all_segments: list[Segment]) -> None:
    """Make the folders of the classes, and remove what a killed command has left of a file in them."""
    for folder in {(output / segment.path).parent for segment in all_segments}:
        with disk_errors(folder, "cannot be made"):
            folder.mkdir(exist_ok=True)
            for path in folder.glob(f".*{UNFINISHED}.*"):
                path.unlink()


def _cut_recording(
    root: Path, name: str, segments: list[Segment], output: Path, options: SegmentOptions
) -> tuple[str, Cut]:
    """Return why segments of a recording are missing, and what was cut out."""
    pieces = []
    for path, tag in ((output / segment.path, segment.tag) for segment in segments):
        start, end = (0.0, math.inf) if tag.start is None or tag.end is None else (tag.start, tag.end)
        pieces.append(Piece(path, start, end, options.longest(is_clip=tag.start is None), options.padding))
    try:
        result = cut_pieces(root / stored_name(root, name), pieces)
    except StorageError as error:
        raise StorageError(
            f"{printable(root / name)}: {error}; fix that, and the same command resumes there"
        ) from error
    except AudioError as error:
        return str(error), []
    cut: Cut = [[i, *span] for i, span in enumerate(result.spans) if span is not None]
    missing = f" ({len(cut)} of {count(len(segments), 'segment')} cut out)" if len(cut) < len(segments) else ""
    return result.fault and result.fault + missing, cut


def _summary(
    ledger: Ledger, by_recording: dict[str, list[Segment]], all_segments: list[Segment], faults: dict[str, str]
) -> tuple[Segments, pd.DataFrame]:
    """Return the summary and the table of all segments that were cut out."""
    spans = dict[str, tuple[float, float]]()
    result = Segments(n_recordings=ledger.n_done, faults=faults)
    for name, (fault, cut) in ledger.results():
        spans |= {by_recording[name][i].path: (start, end) for i, start, end in cut}
        if fault:
            result.faults[name] = fault
    rows = [
        (path, tag.label, 0, tag.fname, *(round(time, 3) for time in spans[path]), round(tag.score, 6))
        for tag, path in all_segments
        if path in spans
    ]
    columns = ["fname", "label", "manually_verified", "group", "recording_start", "recording_end", "score"]
    table = pd.DataFrame(rows, columns=columns)
    result.n_segments, result.n_classes = len(table), table["label"].nunique()
    return result, table


def _log(result: Segments, tags: Path, output: Path, run_id: str) -> None:
    """Log and report the result."""
    numbers = {"n_segments": result.n_segments, "n_classes": result.n_classes, "n_recordings": result.n_recordings}
    runs.log_metrics({**numbers, "n_failed": len(result.faults)})
    facts = str(tags), str(output), result.n_segments, result.n_classes, result.n_recordings, len(result.faults)
    mlflow_ui.describe(lambda link: run_descriptions.segments(*facts, link))
    for name, fault in list(result.faults.items())[:FAULTS_SHOWN]:
        say(f"warning: {printable(name)}: {fault}")
    if len(result.faults) > FAULTS_SHOWN:
        say(f"warning: segments are missing of {count(len(result.faults) - FAULTS_SHOWN, 'more recording')}")
    cut = f"{count(result.n_segments, 'segment')} of {count(result.n_classes, 'class')}"
    say(f"segments: run {run_id}: {cut} from {count(result.n_recordings, 'recording')}; table in {output / INDEX}")
