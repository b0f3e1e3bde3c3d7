"""Entry point `predict`: tag files with a registered tagger, as many as there are, and go on where it was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from fsat.data.tables import check_writable
from fsat.errors import DataError, count, printable
from fsat.models import n_threads
from fsat.options import ALONE, CLIPS, Cluster, TagSettings
from fsat.parallel.processes import cores, map_side_by_side
from fsat.parallel.ray_connection import check_installed
from fsat.parallel.ray_tasks import map_on
from fsat.progress import Progress, say
from fsat.reports import run_descriptions
from fsat.tagging import ledger as ledgers
from fsat.tagging.batches import FILES_AT_ONCE, Found, tag_group_anywhere, tag_groups
from fsat.tagging.inputs import EXPECTED, read_input
from fsat.tagging.ledger import File, Ledger
from fsat.tagging.tables import Span, Tags, check_suffix, track_path, write_label_track, write_tags
from fsat.text import short
from fsat.tracking import descriptions, ownership, runs
from fsat.tracking.registry import open_tagger, pinned

GROUPS_A_TASK = 8
"""Of a cluster: enough that loading the tagger does not matter."""

ROWS_SHOWN = 3


@dataclass
class Tagged:
    """What came of a tagging.

    Attributes:
        n_files: how many files there were.
        n_failed: how many of them could not be tagged.
        first: the first rows of those that could.
        failure: name and error of the first that could not.
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

    What is done is kept beside the output, in a file that is removed at the end; the same command goes on from there.

    Args:
        input: a file, folder, glob, list or ``-``, as `fsat.tagging.inputs.read_input` takes it.
        output: the table; its suffix is the format. It is replaced whole, at the end.
        model: an MLflow model URI, an alias of ``models:/fsat``, or ``NAME@ALIAS``.
        settings: how to tag.
        cluster: the machines to tag on; each must find the files under the same path.
        workers: processes to tag with on this machine; ``auto`` for one for every `n_threads` cores.
        label_tracks: a folder for an Audacity label track of each recording; with ``settings.window`` alone.
        resume: whether to go on where a killed tagging was.

    Raises:
        DataError: there is nothing to tag, or the output is that of another tagging.
        RunError: there is no such model.
    """
    check_writable(output)
    check_suffix(output)
    check_installed(cluster)
    given = read_input(input)
    with runs.tracked("predict", f"predict {short(Path(input).name or input)}") as run_id:
        ownership.sweep()
        model = pinned(uri_of(model))
        facts = {"input": input, "folder": str(given.root), "model": model, **asdict(settings)}
        tagger = open_tagger(model).only(settings.members)
        runs.log_params({"input": input, "model": model, **asdict(settings)})
        with ledgers.opened(output, facts, resume) as ledger:
            twice = ledger.add(given.names, given.ordered)
            n_files, before = ledger.n_files, ledger.n_done
            if not n_files:
                raise DataError(f"input={printable(input)}: no files to tag in it; {EXPECTED}")
            if before:
                say(f"predict: {before} of {count(n_files, 'file')} were tagged before; going on with the others")
            elif twice:
                say(f"warning: {count(twice, 'name')} were given twice; each file is tagged once")
            runs.log_params({"n_clips": n_files})
            size = 1 if settings.window else FILES_AT_ONCE
            with Progress("tagging", n_files, before) as progress:
                here = partial(tag_groups, tagger, given.root, settings, progress.note)
                anywhere = partial(tag_group_anywhere, model, given.root, settings)
                try:
                    for found in _found(cluster, workers, here, anywhere, ledger.groups(size)):
                        ledger.record(found)
                        progress.advance(len(found))
                except KeyboardInterrupt:
                    say(f"predict: {ledger.n_done} of {count(n_files, 'file')} are tagged and kept; the same command "
                        "goes on from there")  # fmt: skip
                    raise
            result = _write(ledger, output, settings, label_tracks)
            runs.log_file(output)
        runs.log_metrics({"n_tagged": result.n_files - result.n_failed, "n_failed": result.n_failed})
        others = {name: value for name, value in asdict(settings).items() if value != getattr(CLIPS, name)}
        of_files = partial(run_descriptions.predict, input, model, result.n_files, result.n_failed, output.name, others)
        descriptions.describe(of_files)
        say(f"predict: run {run_id}: {result.n_files - result.n_failed} of {count(result.n_files, 'file')} tagged; "
            f"table in {output}")  # fmt: skip
        if result.n_failed:
            name, error = result.failure
            say(f"warning: {count(result.n_failed, 'file')} could not be tagged, first {printable(name)}: {error}")
    return result


def uri_of(model: str) -> str:
    """The MLflow URI of a model that is given by URI, as ``NAME@ALIAS``, as an alias or version of ``fsat``."""
    if ":" in model or "/" in model:
        return model
    if "@" in model:
        return f"models:/{model}"
    return f"models:/fsat/{model}" if model.isdecimal() else f"models:/fsat@{model}"


def _found(
    cluster: Cluster, workers: str, here: Callable[..., Iterator], anywhere: Callable[..., Any], groups: Iterator
) -> Iterator[list[tuple[int, Found]]]:
    """What is found of the files of each group, by `here` of all groups or `anywhere` of each."""
    if cluster.kind != "none":
        yield from map_on(cluster, partial(_each, anywhere), _several(groups, GROUPS_A_TASK))
        return
    n_workers = max(1, len(cores()) // n_threads()) if workers == "auto" else int(workers)
    if n_workers == 1:
        yield from here(groups)
        return
    with closing(map_side_by_side(anywhere, groups, n_workers)) as found:
        yield from found


def _several(groups: Iterator[list[File]], size: int) -> Iterator[list[list[File]]]:
    """Groups in lists of `size`."""
    for _, some in groupby(enumerate(groups), key=lambda one: one[0] // size):
        yield [group for _, group in some]


def _each(one: Callable[[list[File]], list], groups: list[list[File]]) -> list[tuple[int, Found]]:
    return [row for group in groups for row in one(group)]


def _write(ledger: Ledger, output: Path, settings: TagSettings, label_tracks: Path | None) -> Tagged:
    """Write the table and the label tracks of all that was found."""
    result = Tagged()

    def rows() -> Iterator[Tags | Span]:
        for name, found in ledger.found():
            some = _rows(name, found, bool(settings.window))
            result.n_files += 1
            if found[0]:
                result.n_failed += 1
                result.failure = result.failure if result.failure[0] else (name, found[0])
            elif len(result.first) < ROWS_SHOWN:
                result.first += some[:1]
            if label_tracks is not None:
                write_label_track(track_path(label_tracks, name), some)
            yield from some

    write_tags(output, rows(), bool(settings.window))
    return result


def _rows(name: str, found: Found, over_time: bool) -> list[Tags | Span]:
    error, tags = found
    if not over_time:
        return [Tags(name, [label for label, _ in tags], [score for _, score in tags], error)]
    spans = [Span(name, start, end, label, score) for start, end, label, score in tags]
    return spans if spans and not error else [*spans, Span(name, None, None, "", None, error)]
