"""Command `predict`: tag files with a registered tagger, any number of them, and resume after an interruption."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from fsat.data.levels import N_NAMES, NO_LABEL, SEPARATOR, SILENT, kind_of
from fsat.errors import DataError, RunError, count, printable
from fsat.files import check_writable
from fsat.models import n_threads
from fsat.options import ALONE, CLIPS, PLAIN, Cluster, TableOptions, TagSettings
from fsat.parallel.executor import Processes, n_workers
from fsat.parallel.ray_cluster import RayCluster, check_installed
from fsat.progress import Progress, say
from fsat.reports import run_descriptions
from fsat.tagging import Tagger
from fsat.tagging import ledger as ledgers
from fsat.tagging.input_files import EXPECTED, Input, read_input
from fsat.tagging.ledger import File, Ledger
from fsat.tagging.presence import Presence
from fsat.tagging.recordings import Minimum
from fsat.tagging.tables import Form, Span, Tags, check_suffix, shown, write_tags
from fsat.tagging.tag_groups import GROUP_SIZE, Result, tag_groups
from fsat.tagging.tracks import LabelTracks, RavenTables, Tracks
from fsat.text import short
from fsat.tracking import artifact_names, client, mlflow_ui, ownership, runs
from fsat.tracking.client import ServerUnreachable
from fsat.tracking.model_uri import LATEST, pinned
from fsat.tracking.registry import open_tagger, run_of
from fsat.tracking.stored_thresholds import has_thresholds, load_thresholds

TASK_GROUPS = 8
"""Groups per task of a cluster, so that loading the tagger takes a small part of the time."""

FIRST_ROWS = 3

Results = list[tuple[int, Result]]
"""Numbers and results of files."""


@dataclass
class Tagged:
    """Summary of a tagging.

    Attributes:
        n_files, n_failed: files, and those of which nothing could be tagged.
        n_without: files that were heard and have no label; None if the tagger gives each sound one.
        first: the rows of the first files.
        failure: name and error of the first file that failed.
        partial: names and errors of files of which only a part could be tagged.
        notes: the files of each kind of note.
    """

    n_files: int = 0
    n_failed: int = 0
    n_without: int | None = None
    first: list[Tags | Span] = field(default_factory=list)
    failure: tuple[str, str] = ("", "")
    partial: Mentioned = field(default_factory=lambda: Mentioned())
    notes: dict[str, Mentioned] = field(default_factory=dict)

    def add(self, name: str, result: Result, rows: list[Tags | Span]) -> None:
        """Count a file."""
        error, tags, notes = result
        self.n_files += 1
        is_without = NO_LABEL in notes
        if self.n_without is not None:
            self.n_without += is_without
        for note in notes:
            if note != NO_LABEL:
                self.notes.setdefault(kind_of(note), Mentioned()).add(name)
        if error and not tags and not is_without:
            self.n_failed += 1
            self.failure = self.failure if self.failure[0] else (name, error)
            return
        if error:
            self.partial.add(f"{name}: {error}")
        if len(self.first) < FIRST_ROWS:
            self.first += rows[:1]


@dataclass
class Mentioned:
    """A number of files, and the first names."""

    number: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count a file."""
        self.number += 1
        if len(self.names) < N_NAMES:
            self.names.append(name)

    def __str__(self) -> str:
        ellipsis = ", ..." if self.number > len(self.names) else ""
        return f"{count(self.number, 'file')}: {', '.join(map(printable, self.names))}{ellipsis}"


def predict(
    input: str,
    output: Path,
    model: str,
    settings: TagSettings = CLIPS,
    cluster: Cluster = ALONE,
    workers: str = "auto",
    label_tracks: Path | None = None,
    resume: bool = True,
    raven_tables: Path | None = None,
    table: TableOptions = PLAIN,
    files: Input | None = None,
) -> Tagged:
    """Tag files and write a table of their tags.

    Results are recorded beside the output until all files are tagged, so that the same command resumes there.

    Args:
        input: a file, folder, glob, list or ``-``, as for `fsat.tagging.input_files.read_input`.
        output: path of the table, whose suffix is the format; written whole at the end.
        model: as for `uri_of`.
        cluster: machines to tag on; each must find the files at the same path.
        workers: number of processes on this machine, or ``auto`` for one for every `n_threads` cores.
        files: those of the input, if they are known.
        label_tracks: folder for an Audacity label track of each recording; requires ``settings.window``.
        raven_tables: folder for a Raven selection table of each recording; requires ``settings.window``.
        table: form of the table.

    Raises:
        DataError: the input has no files, or the output belongs to another tagging.
        RunError: the model does not exist.
    """
    check_writable(output)
    check_suffix(output, table.excel)
    for folder in filter(None, (label_tracks, raven_tables)):
        check_writable(folder / "NAME.txt")
    artifact_names.announce(output)
    check_installed(cluster)
    files = files or read_input(input)
    tracks: list[Tracks] = [LabelTracks(label_tracks)] if label_tracks is not None else []
    with runs.tracked("predict", f"predict {short(Path(input).name or input)}") as run_id:
        ownership.sweep()
        asked = uri_of(model)
        model, tagger = _open(asked, output, resume)
        tagger, settings = tagger.only(settings.members), settings.settled(tagger.thresholds is not None)
        if raven_tables is not None:
            tracks.append(RavenTables(raven_tables, files.root, max(tagger.rates)))
        origin = {"tagger": model, "tagger_run": run_of(model)}
        runs.log_params({"input": shown(input), "model": asked, **asdict(settings), **asdict(table), **origin})
        facts = {"input": input, "model": model, "tagger": tagger.digest, **asdict(settings), "folder": str(files.root)}
        min_score, chosen = minimum_of(model, tagger, settings)
        facts |= chosen
        with ledgers.opened(output, facts, resume, {"asked": asked}) as ledger:
            _add_files(ledger, files, input)
            with Progress("tagging", ledger.n_files, ledger.n_done) as progress:
                groups = ledger.groups(1 if settings.window else GROUP_SIZE)
                if cluster.kind == "none" and n_workers(workers, n_threads()) == 1:
                    results = tag_groups(tagger, files.root, settings, min_score, progress.note, groups)
                else:
                    task = partial(_tag_task, model, tagger.digest, files.root, settings, min_score)
                    results = _in_parallel(task, groups, cluster, workers)
                _record(ledger, results, progress, Presence(files.root, ledger, files.ordered))
            n_tags = min(tagger.most_tags(settings), len(tagger.labels))
            if tagger.use_sigmoid and not settings.window:
                n_tags = max(1, min(n_tags, ledger.most_tags))
            form = Form(n_tags, bool(settings.window), table.long, table.excel)
            result = _write(ledger, output, form, tracks, Tagged(n_without=0 if tagger.use_sigmoid else None))
            runs.log_file(output)
        _log(result, input, model, output, settings, run_id)
    return result


def uri_of(model: str) -> str:
    """Return the MLflow URI of a model given by URI, as ``NAME@ALIAS``, or as an alias or version of ``fsat``."""
    if ":" in model or "/" in model:
        return model
    if "@" in model:
        return f"models:/{model}"
    return f"models:/fsat/{model}" if model.isdecimal() or model.lower() == LATEST else f"models:/fsat@{model}"


def minimum_of(model: str, tagger: Tagger, settings: TagSettings) -> tuple[Minimum, dict[str, str]]:
    """Return the minimum score of a tag, and what identifies the thresholds of the tagger if these are used.

    Those that `evaluate` chose count before the tagger's own, if they were chosen with the same windows.
    """
    if not settings.is_auto:
        return float(settings.min_score), {}
    own = tagger.thresholds
    if own is not None and not has_thresholds(model):
        return own, {"thresholds": "own"}
    thresholds = load_thresholds(model, tagger.digest)
    if own is not None and (differences := thresholds.differences(settings)):
        for line in differences:
            say(f"note: {line}: the tagger's own are used")
        return own, {"thresholds": "own"}
    for warning in thresholds.differences(settings):
        say(f"warning: {warning}")
    return thresholds.minimum(tagger.labels), {"thresholds": thresholds.digest}


def _open(asked: str, output: Path, resume: bool) -> tuple[str, Tagger]:
    """Return the URI of the tagger's version and the tagger: those with which an unfinished table began, if any.

    An alias may have moved since then. If the table began with a model that was given in another way, `asked` counts.
    """
    version = began = pinned(asked)
    if resume and (facts := ledgers.stored_facts(output)).get("asked") == asked:
        began = facts.get("model", version)
    if began == version:
        return version, open_tagger(version)
    now = f"{asked} is now {version}" if version != asked else f"{asked} does not exist any more"
    say(f"predict: {now}: {output} goes on with {began}, with which it began (resume=false starts anew)")
    try:
        return began, open_tagger(began)
    except ServerUnreachable:
        raise
    except RunError as error:
        reason = str(error).removeprefix(f"model={began}: ").partition("; ")[0]
        raise RunError(f"{output}: began with {began}, which {reason}; {now}: start anew with resume=false") from error


def _add_files(ledger: Ledger, files: Input, input: str) -> None:
    """Add the input's files to the ledger, and report how many are new."""
    n_repeats = ledger.add(files.names, files.ordered)
    for line in files.left_out.lines():
        say(f"predict: {line}")
    if not ledger.n_files:
        raise DataError(f"input={printable(input)}: no files to tag; {EXPECTED}")
    if ledger.n_done:
        say(f"predict: {ledger.n_done} of {count(ledger.n_files, 'file')} were tagged before; resuming with the rest")
    elif n_repeats:
        say(f"warning: {count(n_repeats, 'repeated name')} in the input; each file is tagged once")
    runs.log_params({"n_clips": ledger.n_files})


def _in_parallel(task: Any, groups: Iterator[list[File]], cluster: Cluster, workers: str) -> Generator[Results]:
    """Run a task for several groups on a cluster, or for each group in a process of this machine."""
    size = 1 if cluster.kind == "none" else TASK_GROUPS
    tasks = iter(lambda: _Part(islice(groups, size)), [])
    if cluster.kind == "none":
        advice = "if memory ran out, use workers=1; the same command resumes from there"
        yield from Processes(n_workers(workers, n_threads()), advice).map(task, tasks, "files")
    else:
        ray = RayCluster(cluster, n_threads(), client.absolute_uri(), client.is_remote())
        yield from ray.map(task, tasks, "files")


class _Part(list[list[File]]):
    """Groups of a task, as its errors show them: ``1 to 64``."""

    def __str__(self) -> str:
        return f"{self[0][0].number} to {self[-1][-1].number}"


def _tag_task(
    model: str, digest: str, root: Path, settings: TagSettings, min_score: Minimum, groups: Sequence[list[File]]
) -> Results:
    tagger = _loaded(model, settings.members)
    if tagger.digest != digest:
        fault = f"another tagger (digest {tagger.digest}) than the command began with (digest {digest})"
        raise RunError(f"model={model}: {fault}; give a version, models:/NAME/VERSION")
    batches = tag_groups(tagger, root, settings, min_score, lambda _: None, groups)
    return [result for batch in batches for result in batch]


@lru_cache(maxsize=1)
def _loaded(model: str, members: str) -> Tagger:
    return open_tagger(model).only(members)


def _record(ledger: Ledger, batches: Generator[Results], progress: Progress, presence: Presence) -> None:
    """Store results as they come."""
    try:
        with closing(batches):
            for results in batches:
                presence.check(results)
                ledger.record(results)
                progress.advance(len(results))
    except KeyboardInterrupt:
        say(f"predict: {ledger.n_done} of {count(ledger.n_files, 'file')} are tagged; the same command resumes there")
        raise


def _write(ledger: Ledger, output: Path, form: Form, tracks: Iterable[Tracks], summary: Tagged) -> Tagged:
    """Write the table, and the tracks of recordings; return the summary, to which all files were added."""

    def rows() -> Iterator[Tags | Span]:
        for name, result in ledger.results():
            file_rows = _rows(name, result, form.over_time)
            summary.add(name, result, file_rows)
            for files in tracks:
                files.write(name, file_rows)
            yield from file_rows

    write_tags(output, rows(), form)
    for files in tracks:
        if warning := files.warning():
            say(warning)
    return summary


def _rows(name: str, result: Result, over_time: bool) -> list[Tags | Span]:
    error, tags, notes = result
    if not over_time:
        labels, scores = [label for label, _ in tags], [score for _, score in tags]
        return [Tags(name, labels, scores, error, SEPARATOR.join(notes))]
    rows: list[Tags | Span] = [
        Span(name, start, end, label, score, note="" if label else SILENT) for start, end, label, score in tags
    ]
    about_all = SEPARATOR.join(notes)
    return [*rows, Span(name, None, None, "", None, error, about_all)] if error or notes or not rows else rows


def _log(result: Tagged, input: str, model: str, output: Path, settings: TagSettings, run_id: str) -> None:
    """Log and report the result."""
    n_tagged = result.n_files - result.n_failed
    numbers = {"n_tagged": n_tagged, "n_failed": result.n_failed, "n_partial": result.partial.number}
    runs.log_metrics(numbers if result.n_without is None else numbers | {"n_without": result.n_without})
    changed = {name: value for name, value in asdict(settings).items() if value != getattr(CLIPS.settled(False), name)}
    facts = (
        input,
        model,
        result.n_files,
        result.n_failed,
        result.n_without,
        artifact_names.artifact_name(output),
        changed,
    )
    mlflow_ui.describe(lambda link: run_descriptions.predict(*facts, link))
    without = "" if result.n_without is None else f", {result.n_without} of them without a label"
    tagged = f"{n_tagged} of {count(result.n_files, 'file')} tagged by {model}{without}"
    say(f"predict: run {run_id}: {tagged}; table in {output}")
    for kind, mentioned in result.notes.items():
        say(f"note: {kind}: {mentioned}")
    if result.partial.number:
        say(f"warning: only a part could be tagged of {result.partial}")
    if result.n_failed:
        name, error = result.failure
        say(f"warning: {count(result.n_failed, 'file')} could not be tagged, first {printable(name)}: {error}")
