"""Command `similar`: the clips of a folder, or of a table of embeddings, that are nearest to a clip."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.backbones.descriptor import Backbone
from fsat.commands.backbones import embedding_config, find_backbone, opener
from fsat.commands.embed import Listed, embed_listed, list_files, report_failures
from fsat.config import Config, digest_of
from fsat.data.clip_checks import check_clip
from fsat.data.embeddings import Embed
from fsat.data.file_embeddings import embed_files
from fsat.data.tables import write_table
from fsat.errors import ConfigError, DataError, count, printable
from fsat.files import check_writable
from fsat.metrics.neighbours import cosine
from fsat.progress import say
from fsat.tagging.embedding_table import SUFFIX, read_means, read_table_facts
from fsat.tagging.input_files import read_input
from fsat.tagging.tables import shown

SAME = 1e-6
"""Difference from 1 of the similarity of clips with the same embedding."""


def similar(
    clip: Path, among: str, backbone: str | None = None, top: int = 10, output: Path | None = None,
    **windows: float | None,
) -> pd.DataFrame:  # fmt: skip
    """Return ``rank, similarity, path`` of the clips that are nearest to a clip, nearest first.

    The similarity is the cosine of the means of their embeddings, which does not depend on the other clips.

    Args:
        clip: path of an audio file; files with the same bytes are left out.
        among: an input as of `fsat.commands.embed.embed`, or a table that it wrote.
        backbone: as of `embed`; may be None for a table, which names its own.
        top: maximum number of rows.
        output: CSV file to write the table to.
        windows: as of `embed`.

    Raises:
        DataError: there is nothing to compare with, or the clip cannot be used.
        ConfigError: the backbone cannot be used, or the table is of another one.
    """
    if output is not None:
        if output.suffix.lower() != ".csv":
            raise ConfigError(f"output={printable(output)}: expected a name that ends in .csv")
        check_writable(output)
    if Path(among).suffix.lower() == SUFFIX and Path(among).is_file():
        config, found = _config_of(Path(among), backbone, windows)
        query, _ = _embed_clip(clip, config, opener(found))
        named = read_means(Path(among), config.embedding_size)
    elif backbone is None:
        raise ConfigError("--backbone is missing: expected FILE.json, a folder or NAME@DIGEST, unless among is a table")
    else:
        try:
            files = read_input(among)
        except DataError as error:
            raise DataError(str(error).replace("input=", "among=", 1)) from error
        config, found = embedding_config(backbone, **windows)
        open_backbone = opener(found)
        query, digest = _embed_clip(clip, config, open_backbone)
        named = _means(list_files(files, among, "similar", "among"), config, open_backbone, digest)
    table = _nearest(query, named, top)
    if table.empty:
        raise DataError(f"among={printable(among)}: no other clip to compare {printable(clip)} with")
    if copies := table.loc[table["similarity"] > 1 - SAME, "path"].tolist():
        say(f"note: the same embedding as {printable(clip)}, as of the clip itself or a copy: {', '.join(copies)}")
    if output is not None:
        write_table(table, output)
    return table


def _config_of(table: Path, backbone: str | None, windows: dict[str, float | None]) -> tuple[Config, Backbone]:
    """Return the Config and the backbone of a table; raise `ConfigError` if others are given."""
    facts = read_table_facts(table)
    own = {"audio_duration": float(facts["window"]), "window_hop": float(facts["window_hop"])}
    for name, value in windows.items():
        if value is not None and value != own[name]:
            raise ConfigError(f"{name}={value:g}: {printable(table)} has {own[name]:g}; leave the option out")
    found = find_backbone(backbone or facts["backbone"])
    if found.digest != digest_of(facts["backbone"]):
        fault = f"is another one ({found.digest}) than that of {printable(table)}, {facts['backbone']}"
        raise ConfigError(f"backbone={printable(backbone)}: {fault}; give that, or leave the option out")
    return embedding_config(backbone or facts["backbone"], **own)


def _embed_clip(clip: Path, config: Config, open_backbone: Callable[[], Embed]) -> tuple[np.ndarray, str]:
    """Return the mean embedding of a clip, float64 (size,), and its digest."""
    path = clip.absolute()
    facts = check_clip(path.parent, path.name, anywhere=True)
    error = facts.reason
    if not error:
        listed = Listed(path.parent, {path.name: facts})
        stored = embed_files([listed.file(path.name)], config, open_backbone)
        error = listed.error(path.name, stored)
    if error:
        raise DataError(f"{printable(clip)}: {error}; expected an audio file to compare with")
    query = stored.mean(facts.digest)
    if not query.any():
        raise DataError(f"{printable(clip)}: its embedding is 0, which is similar to nothing; expected another sound")
    return query, facts.digest


def _means(
    listed: Listed, config: Config, open_backbone: Callable[[], Embed], digest: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield path and mean embedding of the files that can be used and do not have the digest of the clip."""
    stored = embed_listed(listed, config, open_backbone, "similar")
    report_failures([(name, error) for name in listed.facts if (error := listed.error(name, stored))])
    same = [name for name, facts in listed.facts.items() if facts.digest == digest]
    if same:
        names = ", ".join(map(printable, same))
        say(f"similar: left out: {count(len(same), 'file')} with the bytes of the clip: {names}")
    for name, facts in listed.facts.items():
        if facts.digest != digest and not listed.error(name, stored):
            yield _relative(listed.path(name)), stored.mean(facts.digest)


def _relative(path: Path) -> str:
    """Return a path relative to the working folder if it is below it, else as it is."""
    folder = Path.cwd()
    return os.fspath(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _nearest(query: np.ndarray, named: Iterator[tuple[str, np.ndarray]], top: int) -> pd.DataFrame:
    """Return the table of the nearest; of equal ones, the first."""
    scored = ((cosine(query, mean), -i, path) for i, (path, mean) in enumerate(named))
    rows = [(similarity, shown(path)) for similarity, _, path in heapq.nlargest(top, scored)]
    table = pd.DataFrame(rows, columns=["similarity", "path"])
    table.insert(0, "rank", range(1, len(table) + 1))
    return table
