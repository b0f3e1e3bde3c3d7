"""Command `predict`: tag any number of files with a registered tagger, resuming where it was killed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from fsat.errors import DataError, count, printable
from fsat.files import check_writable
from fsat.models import n_threads
from fsat.options import ALONE, CLIPS, Cluster, TagSettings
from fsat.parallel.processes import Processes, n_workers
from fsat.parallel.ray_cluster import RayCluster, check_installed
from fsat.progress import Progress, say
from fsat.reports import run_descriptions
from fsat.tagging import Tagger
from fsat.tagging import ledger as ledgers
from fsat.tagging.batches import GROUP_SIZE, Result, tag_groups
from fsat.tagging.inputs import EXPECTED, read_input
from fsat.tagging.ledger import File, Ledger
from fsat.tagging.tables import Span, Tags, check_suffix, track_path, write_label_track, write_tags
from fsat.text import short
from fsat.tracking import client, descriptions, ownership, runs
from fsat.tracking.registry import open_tagger, pinned

TASK_GROUPS = 8
"""Groups per task of a cluster, so that loading the tagger takes a small part of the time."""

FIRST_ROWS = 3

Results = list[tuple[int, Result]]
"""Numbers and results of files."""


@dataclass
class Tagged:
    """Summary of a tagging.

    Attributes:
        n_files: number of files.
        n_failed: number of files that could not be tagged.
        first: the rows of the first files that could.
        failure: name and error of the first that could not.
    """

    n_files: int = 0
    n_failed: int = 0
    first: list[Tags | Span] = field(default_factory=list)
    failure: tuple[str, str] = ("", "")

    @property
    def n_tagged(self) -> int:
        """Number of files that were tagged."""
        return self.n_files - self.n_failed

    def add(self, name: str, error: str, rows: list[Tags | Span]) -> None:
        """Count a file."""
        self.n_files += 1
        if error:
            self.n_failed += 1
            self.failure = self.failure if self.failure[0] else (name, error)
        elif len(self.first) < FIRST_ROWS:
            self.first += rows[:1]


def predict(
    input: str,
    output: Path,
    model: str,
    settings: TagSettings = CLIPS,
    cluster: Cluster = ALONE,
    workers: str = "auto",
    label_tracks: Path | None = None,
    resume: bool = True,
) -> Tagged:
    """Tag files and write a table of their tags.

    Results are kept beside the output, in a file that is removed at the end; the same command resumes from there.

    Args:
        input: a file, folder, glob, list or ``-``; see `fsat.tagging.inputs.read_input`.
        output: the table; its suffix is the format. It is replaced at the end.
        model: an MLflow model URI, an alias of ``models:/fsat``, or ``NAME@ALIAS``.
        settings: how to tag.
        cluster: the machines to tag on; each must see the files under the same path.
        workers: processes on this machine; ``auto`` for one per `n_threads` cores.
        label_tracks: a folder for an Audacity label track of each recording; only with ``settings.window``.
        resume: whether to resume an interrupted tagging.

    Raises:
        DataError: there are no files to tag, or the output belongs to another tagging.
        RunError: the model does not exist.
    """
    check_writable(output)
    check_suffix(output)
    check_installed(cluster)
    files = read_input(input)
    with runs.tracked("predict", f"predict {short(Path(input).name or input)}") as run_id:
        ownership.sweep()
        model = pinned(uri_of(model))
        facts = {"input": input, "folder": str(files.root), "model": model, **asdict(settings)}
        tagger = open_tagger(model).only(settings.members)
        runs.log_params({"input": input, "model": model, **asdict(settings)})
        with ledgers.opened(output, facts, resume) as ledger:
            repeats = ledger.add(files.names, files.ordered)
            _announce(ledger, repeats, input)
            runs.log_params({"n_clips": ledger.n_files})
            with Progress("tagging", ledger.n_files, ledger.n_done) as progress:
                here = partial(tag_groups, tagger, files.root, settings, progress.note)
                task = partial(_tag_task, model, files.root, settings)
                groups = ledger.groups(1 if settings.window else GROUP_SIZE)
                try:
                    with closing(_map(cluster, workers, here, task, groups)) as batches:
                        for results in batches:
                            ledger.record(results)
                            progress.advance(len(results))
                except KeyboardInterrupt:
                    say(
                        f"predict: {ledger.n_done} of {count(ledger.n_files, 'file')} are tagged and kept; the same "
                        "command resumes from there"
                    )
                    raise
            result = _write(ledger, output, settings, label_tracks)
            runs.log_file(output)
        runs.log_metrics({"n_tagged": result.n_tagged, "n_failed": result.n_failed})
        changed = {name: value for name, value in asdict(settings).items() if value != getattr(CLIPS, name)}
        descriptions.describe(
            partial(run_descriptions.predict, input, model, result.n_files, result.n_failed, output.name, changed)
        )
        say(f"predict: run {run_id}: {result.n_tagged} of {count(result.n_files, 'file')} tagged; table in {output}")
        if result.n_failed:
            name, error = result.failure
            say(f"warning: {count(result.n_failed, 'file')} could not be tagged, first {printable(name)}: {error}")
    return result


def uri_of(model: str) -> str:
    """Return the MLflow URI of a model given by URI, as ``NAME@ALIAS``, or as an alias or version of ``fsat``."""
    if ":" in model or "/" in model:
        return model
    if "@" in model:
        return f"models:/{model}"
    return f"models:/fsat/{model}" if model.isdecimal() else f"models:/fsat@{model}"


def _announce(ledger: Ledger, repeats: int, input: str) -> None:
    """Say what is resumed or left out; raise `DataError` if there are no files."""
    n_files, n_done = ledger.n_files, ledger.n_done
    if not n_files:
        raise DataError(f"input={printable(input)}: no files to tag in it; {EXPECTED}")
    if n_done:
        say(f"predict: {n_done} of {count(n_files, 'file')} were tagged before; resuming with the others")
    elif repeats:
        say(f"warning: {count(repeats, 'name')} were given twice; each file is tagged once")


def _map(
    cluster: Cluster,
    workers: str,
    here: Callable[[Iterator[list[File]]], Generator[Results]],
    task: Callable[[list[list[File]]], Results],
    groups: Iterator[list[File]],
) -> Generator[Results]:
    """Tag all groups: `here`, or in a `task` each on this machine's processes or a cluster."""
    if cluster.kind == "ray":
        ray = RayCluster(cluster, n_threads(), client.absolute_uri(), client.is_remote())
        return ray.map(task, iter(lambda: list(islice(groups, TASK_GROUPS)), []), "part")
    n_processes = n_workers(workers, n_threads())
    if n_processes == 1:
        return here(groups)
    processes = Processes(n_processes, "if memory ran out, use workers=1; the same command resumes from there")
    return processes.map(task, ([group] for group in groups), "part")


def _tag_task(model: str, root: Path, settings: TagSettings, groups: list[list[File]]) -> Results:
    tagger = _loaded(model, settings.members)
    return [result for batch in tag_groups(tagger, root, settings, lambda _: None, groups) for result in batch]


@lru_cache(maxsize=1)
def _loaded(model: str, members: str) -> Tagger:
    return open_tagger(model).only(members)


def _write(ledger: Ledger, output: Path, settings: TagSettings, label_tracks: Path | None) -> Tagged:
    """Write the table and the label tracks."""
    summary = Tagged()

    def rows() -> Iterator[Tags | Span]:
        for name, (error, tags) in ledger.results():
            file_rows = _rows(name, error, tags, bool(settings.window))
            summary.add(name, error, file_rows)
            if label_tracks is not None:
                write_label_track(track_path(label_tracks, name), file_rows)
            yield from file_rows

    write_tags(output, rows(), bool(settings.window))
    return summary


def _rows(name: str, error: str, tags: list[Any], over_time: bool) -> list[Any]:
    if not over_time:
        return [Tags(name, [label for label, _ in tags], [score for _, score in tags], error)]
    spans = [Span(name, start, end, label, score) for start, end, label, score in tags]
    return spans if spans and not error else [*spans, Span(name, None, None, "", None, error)]
