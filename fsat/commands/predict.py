"""Command `predict`: tag files with a registered tagger, any number of them, and resume after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from fsat.data.tables import check_writable
from fsat.errors import DataError, count, printable
from fsat.models import n_threads
from fsat.options import ALONE, CLIPS, Cluster, TagSettings
from fsat.parallel.processes import Processes, n_workers
from fsat.parallel.ray_cluster import RayCluster, check_installed
from fsat.progress import Progress, say
from fsat.reports import run_descriptions
from fsat.tagging import Tagger
from fsat.tagging import ledger as ledgers
from fsat.tagging.batches import FILES_AT_ONCE, Found, tag_group_anywhere, tag_groups
from fsat.tagging.inputs import EXPECTED, read_input
from fsat.tagging.ledger import File, Ledger
from fsat.tagging.tables import Span, Tags, check_suffix, track_path, write_label_track, write_tags
from fsat.text import short
from fsat.tracking import client, descriptions, ownership, runs
from fsat.tracking.registry import open_tagger, pinned

GROUPS_PER_TASK = 8
"""Groups of files in a task of a cluster, so that loading the tagger takes a small part of its time."""

ROWS_SHOWN = 3

Tag = Callable[[Iterator[list[File]]], Iterator[list[tuple[int, Found]]]]
"""Tags groups of files: the number of each file of a group, and its tags."""


@dataclass
class Tagged:
    """Result of `predict`.

    Attributes:
        n_files: number of files.
        n_failed: number of files that could not be tagged.
        first: the first rows of tagged files.
        failure: name and error of the first file that could not be tagged.
    """

    n_files: int = 0
    n_failed: int = 0
    first: list[Tags | Span] = field(default_factory=list)
    failure: tuple[str, str] = ("", "")


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

    Finished files are recorded beside the output until all are tagged, so that the same command resumes there.

    Args:
        input: a file, folder, glob, list or ``-``, as for `fsat.tagging.inputs.read_input`.
        output: path of the table, whose suffix is the format; written whole at the end.
        model: an MLflow model URI, an alias of ``models:/fsat``, or ``NAME@ALIAS``.
        settings: options of tagging.
        cluster: machines to tag on; each must find the files at the same path.
        workers: number of processes on this machine, or ``auto`` for one for every `n_threads` cores.
        label_tracks: folder for an Audacity label track of each recording; requires ``settings.window``.
        resume: whether to resume an interrupted tagging.

    Raises:
        DataError: the input has no files, or the output belongs to another tagging.
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
            _add_files(ledger, input, files.names, files.ordered)
            with Progress("tagging", ledger.n_files, ledger.n_done) as progress:
                tag = _choose(tagger, model, files.root, settings, cluster, workers, progress)
                _tag(ledger, tag, settings, progress)
            result = _write(ledger, output, settings, label_tracks)
            runs.log_file(output)
        _log(result, input, model, output, settings, run_id)
    return result


def uri_of(model: str) -> str:
    """Return the MLflow URI of a model given by URI, as ``NAME@ALIAS``, or as an alias or version of ``fsat``."""
    if ":" in model or "/" in model:
        return model
    if "@" in model:
        return f"models:/{model}"
    return f"models:/fsat/{model}" if model.isdecimal() else f"models:/fsat@{model}"


def _add_files(ledger: Ledger, input: str, names: Iterator[str], ordered: bool) -> None:
    """Add the input's files to the ledger, and report how many are new."""
    n_repeats = ledger.add(names, ordered)
    if not ledger.n_files:
        raise DataError(f"input={printable(input)}: no files to tag; {EXPECTED}")
    if ledger.n_done:
        say(f"predict: {ledger.n_done} of {count(ledger.n_files, 'file')} were tagged before; resuming with the rest")
    elif n_repeats:
        say(f"warning: {count(n_repeats, 'name')} were given twice; each file is tagged once")
    runs.log_params({"n_clips": ledger.n_files})


def _choose(
    tagger: Tagger, model: str, root: Path, settings: TagSettings, cluster: Cluster, workers: str, progress: Progress
) -> Tag:
    """Return a function that tags groups in this process, in several, or on a cluster."""
    tag_group = partial(tag_group_anywhere, model, root, settings)
    if cluster.kind == "ray":
        ray = RayCluster(cluster, n_threads(), client.absolute_uri(), client.is_remote())
        return lambda groups: ray.map(partial(_tag_several, tag_group), _batched(groups, GROUPS_PER_TASK), "part")
    n_processes = n_workers(workers, n_threads())
    if n_processes == 1:
        return partial(tag_groups, tagger, root, settings, progress.note)
    processes = Processes(n_processes, "if memory ran out, use workers=1; the same command resumes from there")
    return lambda groups: processes.map(tag_group, groups, "part")


def _tag(ledger: Ledger, tag: Tag, settings: TagSettings, progress: Progress) -> None:
    """Tag all files of the ledger that have no tags yet."""
    groups = ledger.groups(1 if settings.window else FILES_AT_ONCE)
    try:
        with closing(tag(groups)) as results:
            for tags in results:
                ledger.record(tags)
                progress.advance(len(tags))
    except KeyboardInterrupt:
        say(f"predict: {ledger.n_done} of {count(ledger.n_files, 'file')} are tagged; the same command resumes there")
        raise


def _batched(groups: Iterator[list[File]], size: int) -> Iterator[list[list[File]]]:
    """Yield lists of `size` groups."""
    for _, batch in groupby(enumerate(groups), key=lambda numbered: numbered[0] // size):
        yield [group for _, group in batch]


def _tag_several(
    tag_group: Callable[[list[File]], list[tuple[int, Found]]], groups: list[list[File]]
) -> list[tuple[int, Found]]:
    return list(chain.from_iterable(map(tag_group, groups)))


def _write(ledger: Ledger, output: Path, settings: TagSettings, label_tracks: Path | None) -> Tagged:
    """Write the table and the label tracks."""
    result = Tagged()

    def rows() -> Iterator[Tags | Span]:
        for name, (error, tags) in ledger.found():
            file_rows = _rows(name, error, tags, bool(settings.window))
            result.n_files += 1
            if error:
                result.n_failed += 1
                result.failure = result.failure if result.failure[0] else (name, error)
            elif len(result.first) < ROWS_SHOWN:
                result.first += file_rows[:1]
            if label_tracks is not None:
                write_label_track(track_path(label_tracks, name), file_rows)
            yield from file_rows

    write_tags(output, rows(), bool(settings.window))
    return result


def _rows(name: str, error: str, tags: list[Any], over_time: bool) -> list[Tags | Span]:
    """Return the rows of a file: one for a clip, one for each segment of a recording and for its error."""
    if not over_time:
        return [Tags(name, [label for label, _ in tags], [score for _, score in tags], error)]
    spans = [Span(name, start, end, label, score) for start, end, label, score in tags]
    return spans if spans and not error else [*spans, Span(name, None, None, "", None, error)]


def _log(result: Tagged, input: str, model: str, output: Path, settings: TagSettings, run_id: str) -> None:
    """Log and report the result."""
    n_tagged = result.n_files - result.n_failed
    runs.log_metrics({"n_tagged": n_tagged, "n_failed": result.n_failed})
    changed = {name: value for name, value in asdict(settings).items() if value != getattr(CLIPS, name)}
    descriptions.describe(
        partial(run_descriptions.predict, input, model, result.n_files, result.n_failed, output.name, changed)
    )
    say(f"predict: run {run_id}: {n_tagged} of {count(result.n_files, 'file')} tagged; table in {output}")
    if result.n_failed:
        name, error = result.failure
        say(f"warning: {count(result.n_failed, 'file')} could not be tagged, first {printable(name)}: {error}")
