"""Command `embed`: a table with the embeddings of files, of clips or of their windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import pandas as pd

from fsat import interrupts
from fsat.commands.backbones import embedding_config, opener
from fsat.config import Config
from fsat.data.audio import TOO_LONG, decode
from fsat.data.clip_checks import ClipFacts, check_clips
from fsat.data.clip_names import stored_name
from fsat.data.clip_store import ClipFile
from fsat.data.embeddings import Embed, window_crops
from fsat.data.file_embeddings import FileEmbeddings, embed_files, length_at, window_spans
from fsat.errors import AudioError, DataError, WindowError, count, printable
from fsat.files import check_writable
from fsat.progress import Progress, say
from fsat.reports import run_descriptions
from fsat.tagging.embedding_table import Rows, check_table_suffix, facts_of, write_embeddings
from fsat.tagging.input_files import EXPECTED, Input, read_input
from fsat.tagging.recordings import Window, windows
from fsat.tagging.tables import shown
from fsat.text import short
from fsat.tracking import mlflow_ui, ownership, runs

FAILURES_SHOWN = 50
"""Files without embeddings that are named, in a line each."""

WINDOW_BATCH = 64
"""Windows of a recording that are embedded together."""


@dataclass
class Embedded:
    """Summary of a table of embeddings.

    Attributes:
        n_files, n_rows: files and rows in the table.
        failed: name and reason of each file without embeddings.
        partial: the same of recordings that could be read in part.
    """

    n_files: int = 0
    n_rows: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    partial: list[tuple[str, str]] = field(default_factory=list)


def embed(input: str, output: Path, backbone: str, per: str = "window", **windows: float | None) -> Embedded:
    """Write a Parquet table of the embeddings of files, and report those that cannot be decoded.

    Embeddings are kept in the cache folder, so that the same command continues one that was interrupted.

    Args:
        input: a file, folder, glob, list or ``-``, as for `fsat.tagging.input_files.read_input`.
        output: path of the table; written whole at the end.
        backbone: as for `fsat.commands.backbones.find_backbone`.
        per: ``window`` or ``clip``, what a row is; a clip has the mean of its windows.
        windows: ``audio_duration`` and ``window_hop`` in seconds, see `embedding_config`.

    Raises:
        DataError: the input has no files, or none that can be decoded.
        ConfigError: the backbone cannot be used.
    """
    check_table_suffix(output)
    check_writable(output)
    files = read_input(input)
    with runs.tracked("embed", f"embed {short(Path(input).name or input)}") as run_id:
        ownership.sweep()
        config, found = embedding_config(backbone, **windows)
        facts = facts_of(found, config, per)
        paths = {"input": shown(input), "output": shown(str(output))}
        runs.log_params({**paths, **{key: text for key, text in facts.items() if text}})
        listed = list_files(files, input, "embed")
        open_backbone, result = opener(found), Embedded()
        stored = embed_listed(listed, config, open_backbone, "embed")
        rows = _rows(listed, stored, config, open_backbone, result)
        write_embeddings(output, _counted(rows, per, result, input), facts)
        say(f"note: licence of {found.name}: {printable(found.license or 'unknown')}; it may hold for embeddings too")
        _log(result, input, output, found.ref, run_id)
    return result


@dataclass(frozen=True)
class Listed:
    """Files of an input, in order.

    Attributes:
        root: folder that the names are relative to.
        facts: of each file, by name.
    """

    root: Path
    facts: dict[str, ClipFacts]

    def path(self, name: str) -> Path:
        """Return the path of a file."""
        return self.root / stored_name(self.root, name)

    def file(self, name: str) -> ClipFile:
        """Return a file that has a digest."""
        facts = self.facts[name]
        return ClipFile(self.path(name), facts.digest, facts.stamp, facts.frames, facts.samplerate)

    def error(self, name: str, stored: FileEmbeddings) -> str:
        """Return why a file has no embeddings; empty if it has."""
        facts = self.facts[name]
        return facts.reason or stored.errors.get(facts.digest, "")


def list_files(files: Input, input: str, command: str, option: str = "input") -> Listed:
    """Return the files of an input and check them: each once, sorted unless the user gave an order.

    `input` is as the user gave it for an option of a command. Raises `DataError` if there are none.
    """
    names = list(files.names) if files.ordered else sorted(files.names)
    for line in files.left_out.lines():
        say(f"{command}: {line}")
    if not names:
        raise DataError(f"{option}={printable(input)}: no files in it; {EXPECTED}")
    distinct = list(dict.fromkeys(names))
    if n_repeats := len(names) - len(distinct):
        say(f"warning: {count(n_repeats, 'repeated name')} in the input; each file is embedded once")
    facts = check_clips(files.root, distinct, "files", anywhere=True)
    return Listed(files.root.resolve(), dict(zip(distinct, facts, strict=True)))


def embed_listed(listed: Listed, config: Config, open_backbone: Callable[[], Embed], command: str) -> FileEmbeddings:
    """Return the embeddings of all files that can be used."""
    usable = [listed.file(name) for name, facts in listed.facts.items() if not facts.reason]
    try:
        return embed_files(usable, config, open_backbone)
    except KeyboardInterrupt:
        say(f"{command}: embeddings so far are in the cache folder; the same command continues from there")
        raise


def report_failures(failed: list[tuple[str, str]]) -> None:
    """Print a line for each file without embeddings, up to `FAILURES_SHOWN`."""
    for name, error in failed[:FAILURES_SHOWN]:
        say(f"warning: {printable(name)}: not embedded: {error}")
    if len(failed) > FAILURES_SHOWN:
        say(f"warning: {count(len(failed) - FAILURES_SHOWN, 'more file')} not embedded")


def _rows(
    listed: Listed, stored: FileEmbeddings, config: Config, open_backbone: Callable[[], Embed], result: Embedded
) -> Iterator[Rows]:
    """Yield the rows of each file; those of one longer than a clip come in parts."""
    with Progress("writing embeddings of files", len(listed.facts)) as progress:
        for name in listed.facts:
            interrupts.check()
            error = listed.error(name, stored)
            if error.startswith(TOO_LONG):
                yield from _recording(name, listed.path(name), config, open_backbone(), result, progress)
            elif error:
                result.failed.append((name, error))
            else:
                yield _clip(name, listed.file(name), stored, config)
            progress.advance()


def _clip(name: str, file: ClipFile, stored: FileEmbeddings, config: Config) -> Rows:
    vectors = stored.windows(file.digest)
    length = length_at(file, config.sampling_rate)
    if int(window_crops(np.array([length]), config).counts[0]) != len(vectors):  # the header is wrong
        length = len(decode(file.path, config.sampling_rate))
    return Rows(name, window_spans(length, len(vectors), config), vectors)


def _recording(
    name: str, path: Path, config: Config, embed: Embed, result: Embedded, progress: Progress
) -> Iterator[Rows]:
    """Yield the rows of a recording of any length as it is read; its windows are `window_hop` apart."""
    rate, length = config.sampling_rate, config.audio_length
    hop = min(config.window_hop, config.audio_duration)
    failure, n_windows = "", 0
    with closing(windows(path, [rate], config.audio_duration, hop, math.inf)) as all_windows:
        while not failure:
            batch: list[Window] = []
            try:
                batch.extend(islice(all_windows, WINDOW_BATCH))
            except AudioError as error:
                failure = str(error)
            if not batch:
                break
            interrupts.check()
            samples = [window.samples[rate][:length] for window in batch]
            padded = np.stack([np.pad(part, (0, length - len(part))) for part in samples])
            try:
                vectors = embed(padded)
            except WindowError as error:
                failure = str(error)
                break
            n_windows += len(batch)
            yield Rows(name, np.array([(window.start, window.end) for window in batch]), vectors)
            progress.note(f"{printable(name)} at {batch[-1].end:.0f} s")
    progress.note("")
    if failure:
        (result.partial if n_windows else result.failed).append((name, failure))


def _counted(rows: Iterator[Rows], per: str, result: Embedded, input: str) -> Iterator[Rows]:
    """Yield the rows of a table and count them; raise `DataError` at the end if there are none."""
    for name, parts in groupby(rows, key=lambda item: item.fname):
        result.n_files += 1
        for item in [_mean(name, parts)] if per == "clip" else parts:
            result.n_rows += len(item.vectors)
            yield item
    if not result.n_rows:
        name, error = result.failed[0]
        fault = f"none of {count(len(result.failed), 'file')} could be embedded, first {printable(name)}: {error}"
        raise DataError(f"input={printable(input)}: {fault}")


def _mean(name: str, parts: Iterator[Rows]) -> Rows:
    """Return the one row of a clip, from those of its windows."""
    total, n_windows, start, end = np.zeros(1), 0, math.inf, 0.0
    for item in parts:
        total = total + item.vectors.sum(axis=0, dtype=np.float64)
        n_windows += len(item.vectors)
        start, end = min(start, float(item.spans.min())), max(end, float(item.spans.max()))
    return Rows(name, np.array([[start, end]]), (total / n_windows).astype(np.float32)[np.newaxis])


def _log(result: Embedded, input: str, output: Path, backbone: str, run_id: str) -> None:
    """Log and report the result."""
    numbers = {"n_embedded": result.n_files, "n_failed": len(result.failed), "n_partial": len(result.partial)}
    runs.log_metrics({**numbers, "n_rows": result.n_rows})
    if faults := [*result.failed, *result.partial]:
        named = [(shown(name), error) for name, error in faults]
        runs.log_table(pd.DataFrame(named, columns=["fname", "error"]), "failed.csv")
    facts = input, str(output.absolute()), backbone, result.n_files, result.n_rows, len(faults)
    mlflow_ui.describe(lambda link: run_descriptions.embed(*facts, link))
    report_failures(result.failed)
    for name, error in result.partial[:FAILURES_SHOWN]:
        say(f"warning: {printable(name)}: only a part is embedded: {error}")
    n_files = count(result.n_files + len(result.failed), "file")
    rows = f"{count(result.n_rows, 'row')} in {output}"
    say(f"embed: run {run_id}: {result.n_files} of {n_files} embedded by {backbone}; {rows}")
