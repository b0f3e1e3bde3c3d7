"""Command `segments`: cut the best-scoring segments of each class out of recordings, to be reviewed by ear."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fsat.data.byte_source import MISSING, identity_of
from fsat.data.clip_names import stored_name
from fsat.data.cut_pieces import Piece, cut_pieces
from fsat.data.tables import write_table
from fsat.errors import AudioError, DataError, StorageError, count, printable
from fsat.files import UNFINISHED, check_writable, disk_errors, hash_file
from fsat.options import SegmentOptions
from fsat.progress import Progress, say
from fsat.reports import run_descriptions
from fsat.tagging import ledger as ledgers
from fsat.tagging.best_segments import NamedSegment, best_tags, name_segments
from fsat.tagging.input_files import read_input
from fsat.tagging.ledger import Ledger
from fsat.tagging.read_tables import Tag, read_tag_table
from fsat.tagging.tables import shown
from fsat.text import short
from fsat.tracking import mlflow_ui, ownership, runs

INDEX = "segments.csv"
"""Table of the segments, in their folder."""

COLUMNS = ("fname", "label", "manually_verified", "group", "recording_start", "recording_end", "score")
"""Of that table, which can be trained on after a review."""

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
    plan = Plan(root, output, options, best)
    with runs.tracked("segments", f"segments of {short(tags.name)}") as run_id:
        ownership.sweep()
        paths = {"tags": shown(str(tags)), "input": shown(input), "output": shown(str(output))}
        runs.log_params({**paths, **asdict(options)})
        facts = {"tags": digest, "input": str(root), **asdict(options)}
        with ledgers.opened(plan.index, facts, anew=f"remove {printable(output)}") as ledger:
            _prepare(plan)
            failed = _cut_all(ledger, plan)
            result, table = _summary(ledger, plan, failed)
            write_table(table, plan.index)
            runs.log_file(plan.index)
        _log(result, tags, plan, run_id)
    return result


class Plan:
    """What is cut out, from which recordings, and where it goes.

    Attributes:
        root: folder that the recordings' names are relative to.
        segments: all of them, by label and best first.
        by_recording: the same by the recording's name.
        index: path of the table of segments.
    """

    def __init__(self, root: Path, output: Path, options: SegmentOptions, best: dict[str, list[Tag]]) -> None:
        self.root, self.output, self.options, self.index = root, output, options, output / INDEX
        taken = [f"{INDEX}{suffix}" for suffix in ("", ledgers.SUFFIX, f"{ledgers.SUFFIX}-journal")]
        self.segments = list(name_segments(best, options.longest(is_clip=False), taken))
        self.by_recording: dict[str, list[NamedSegment]] = {}
        for segment in self.segments:
            self.by_recording.setdefault(segment.tag.fname, []).append(segment)

    def piece(self, segment: NamedSegment) -> Piece:
        """Return the piece of a recording that a segment is."""
        path, tag, longest = self.output / segment.path, segment.tag, self.options.longest
        if tag.start is None or tag.end is None:
            return Piece(path, longest=longest(is_clip=True), padding=self.options.padding)
        return Piece(path, tag.start, tag.end, longest(is_clip=False), self.options.padding)


def _check_folder(output: Path) -> None:
    """Make the folder; raise `DataError` unless it is empty, but for hidden files, or has a ledger."""
    check_writable(output / INDEX)
    others = [path.name for path in output.iterdir() if not path.name.startswith(".")]
    if others and INDEX + ledgers.SUFFIX not in others:
        fault = f"is not empty, it has {printable(min(others))}"
        raise DataError(f"output={printable(output)}: {fault}; expected a new or empty folder")


def _prepare(plan: Plan) -> None:
    """Make the folders of the classes, and remove what a killed command has left of a file in them."""
    for folder in {(plan.output / segment.path).parent for segment in plan.segments}:
        with disk_errors(folder, "cannot be made"):
            folder.mkdir(exist_ok=True)
            for path in folder.glob(f".*{UNFINISHED}.*"):
                path.unlink()


def _cut_all(ledger: Ledger, plan: Plan) -> dict[str, str]:
    """Cut the segments out of all recordings that are not done; return those of which none could be cut out, and why.

    These stay undone. Raises `DataError` if they are all, and `StorageError` if the machine fails.
    """
    ledger.add(plan.by_recording, ordered=False)
    total = count(ledger.n_files, "recording")
    if ledger.n_done:
        say(f"segments: {ledger.n_done} of {total} were done before; resuming with the rest")
    failed, identity = dict[str, str](), identity_of(plan.root)
    with Progress("cutting recordings", ledger.n_files, ledger.n_done) as progress:
        try:
            for (file,) in ledger.groups(1):
                progress.note(printable(file.name))
                fault, cut = _cut_recording(plan, file.name)
                if fault == MISSING and identity_of(plan.root) != identity:
                    gone = f"{printable(plan.root)}: the folder went away while its recordings were cut"
                    raise StorageError(f"{gone}; connect it again, and the same command resumes there")
                if cut:
                    ledger.record([(file.number, [fault, cut])])
                else:
                    failed[file.name] = fault
                progress.advance()
        except KeyboardInterrupt:
            say(f"segments: {ledger.n_done} of {total} are done; the same command resumes there")
            raise
    if not ledger.n_done:
        name, fault = next(iter(failed.items()))
        reason = f"none of {total} could be cut, first {printable(name)}: {fault}"
        raise DataError(f"input={printable(plan.root)}: {reason}; expected the input that was given to `predict`")
    return failed


def _cut_recording(plan: Plan, name: str) -> tuple[str, Cut]:
    """Return why segments of a recording are missing, and what was cut out."""
    pieces = [plan.piece(segment) for segment in plan.by_recording[name]]
    try:
        result = cut_pieces(plan.root / stored_name(plan.root, name), pieces)
    except StorageError as error:
        advice = "fix that, and the same command resumes there"
        raise StorageError(f"{printable(plan.root / name)}: {error}; {advice}") from error
    except AudioError as error:
        return str(error), []
    cut: Cut = [[i, *span] for i, span in enumerate(result.spans) if span is not None]
    fault = result.fault
    if len(cut) < len(pieces):
        fault = f"{fault}: {len(cut)} of {count(len(pieces), 'segment')} cut out"
    return fault, cut


def _summary(ledger: Ledger, plan: Plan, failed: dict[str, str]) -> tuple[Segments, pd.DataFrame]:
    """Return the summary and the table of all segments that were cut out."""
    spans, result = dict[str, tuple[float, float]](), Segments(n_recordings=ledger.n_done, faults=failed)
    for name, (fault, cut) in ledger.results():
        spans |= {plan.by_recording[name][i].path: (start, end) for i, start, end in cut}
        if fault:
            result.faults[name] = fault
    rows = [
        (path, tag.label, 0, tag.fname, *(round(time, 3) for time in spans[path]), round(tag.score, 6))
        for tag, path in plan.segments
        if path in spans
    ]
    table = pd.DataFrame(rows, columns=[*COLUMNS])
    result.n_segments, result.n_classes = len(table), table["label"].nunique()
    return result, table


def _log(result: Segments, tags: Path, plan: Plan, run_id: str) -> None:
    """Log and report the result."""
    numbers = {"n_segments": result.n_segments, "n_classes": result.n_classes, "n_recordings": result.n_recordings}
    runs.log_metrics({**numbers, "n_failed": len(result.faults)})
    facts = str(tags), str(plan.output), result.n_segments, result.n_classes, result.n_recordings, len(result.faults)
    mlflow_ui.describe(lambda link: run_descriptions.segments(*facts, link))
    for name, fault in list(result.faults.items())[:FAULTS_SHOWN]:
        say(f"warning: {printable(name)}: {fault}")
    if len(result.faults) > FAULTS_SHOWN:
        say(f"warning: segments are missing of {count(len(result.faults) - FAULTS_SHOWN, 'more recording')}")
    cut = f"{count(result.n_segments, 'segment')} of {count(result.n_classes, 'class')}"
    say(f"segments: run {run_id}: {cut} from {count(result.n_recordings, 'recording')}; table in {plan.index}")
