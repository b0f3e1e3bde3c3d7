"""Entry point `predict`: tag a file or a folder of files with a registered tagger."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from fsat.data.audio import SUFFIXES
from fsat.data.tables import check_writable, write_table
from fsat.errors import DataError, count
from fsat.labels import join_labels
from fsat.launch import ALONE, Cluster
from fsat.pipeline.cluster import map_on
from fsat.pipeline.ray_connection import check_installed
from fsat.progress import Progress, say
from fsat.tracking import runs
from fsat.tracking.registry import load_tagger, pinned

FILES_AT_ONCE = 64
FILES_A_TASK = 512
"""Of a cluster: enough that loading the tagger does not matter."""


def predict(input: Path, output: Path, model: str, top_k: int, cluster: Cluster = ALONE) -> pd.DataFrame:
    """Tag clips and write ``fname,label,scores,error`` as CSV.

    Args:
        input: a file, or a folder that is searched for WAV, FLAC, OGG and MP3 files, subfolders included.
        output: the CSV file; replaced whole.
        model: an MLflow model URI.
        top_k: labels a clip.
        cluster: the machines to tag on; each must find the clips under the same path.

    Returns:
        the table; ``label`` and ``scores`` hold `top_k` entries separated by spaces, and are empty where ``error``
        says why a clip could not be tagged.

    Raises:
        DataError: there is nothing to tag.
        RunError: there is no such model.
    """
    check_writable(output)
    check_installed(cluster)
    names, root = find_clips(input)
    with runs.tracked("predict", f"predict {input.name}") as run_id:
        runs.log_params({"input": str(input), "model": model, "top_k": top_k, "n_clips": len(names)})
        model = pinned(model)
        tagger = load_tagger(model)
        runs.set_tags({"tagger_run": tagger.metadata.run_id or ""})
        size, parts = FILES_AT_ONCE if cluster.kind == "none" else FILES_A_TASK, []
        some = [names[start : start + size] for start in range(0, len(names), size)]
        one = partial(_tag, tagger, root, top_k)
        if cluster.kind != "none":
            one = partial(_tag_on_node, model, root.absolute(), top_k)
        with Progress("tagging", len(names)) as progress:
            for part in map_on(cluster, one, some):
                parts.append(part)
                progress.advance(len(part))
        table = pd.concat(parts, ignore_index=True)
        write_table(table, output)
        runs.log_table(table, "predictions.csv")
        failed = int((table["error"] != "").sum())
        runs.log_metrics({"n_tagged": len(table) - failed, "n_failed": failed})
        say(f"predict: run {run_id}: {len(table) - failed} of {len(table)} clips tagged; table in {output}")
        if failed:
            example = table[table["error"] != ""].iloc[0]
            say(f"warning: {count(failed, 'clip')} could not be tagged, first {example['fname']}: {example['error']}")
    return table


def find_clips(input: Path) -> tuple[list[str], Path]:
    """Names of the files to tag, in order, and the folder that they are relative to."""
    if input.is_file():
        return [input.name], input.parent
    if not input.is_dir():
        raise DataError(f"input={input}: no such file or folder")
    found = sorted(_walk(input))
    if not found:
        raise DataError(f"input={input}: no {', '.join(SUFFIXES)} files in it")
    return found, input


def has_clips(folder: Path) -> bool:
    """Whether there is a file to tag in a folder or below it."""
    return next(_walk(folder), None) is not None


def _walk(root: Path) -> Iterator[str]:
    for folder, _, names in os.walk(root):
        for name in names:
            if name.lower().endswith(SUFFIXES):
                yield os.path.relpath(os.path.join(folder, name), root)


def _read(path: Path) -> tuple[bytes, str]:
    """A file's bytes, or why there are none."""
    try:
        if not path.exists():
            return b"", "missing file"
        if not path.is_file():
            return b"", "not a regular file"
        data = path.read_bytes()
    except OSError as error:
        return b"", f"unreadable file ({error.strerror or error})"
    return data, "" if data else "empty file"


def _tag_on_node(model: str, root: Path, top_k: int, names: list[str]) -> pd.DataFrame:
    """As `_tag`, by a tagger that this process loads once."""
    tagger = _load_once(model)
    parts = [names[start : start + FILES_AT_ONCE] for start in range(0, len(names), FILES_AT_ONCE)]
    return pd.concat([_tag(tagger, root, top_k, part) for part in parts], ignore_index=True)


@lru_cache(maxsize=1)
def _load_once(model: str) -> Any:
    return load_tagger(model)


def _tag(tagger: Any, root: Path, top_k: int, names: list[str]) -> pd.DataFrame:
    audio, unread = [], {}
    for name in names:
        data, reason = _read(root / name)
        audio.append(data)
        if reason:
            unread[name] = reason
    result = tagger.predict(pd.DataFrame({"audio": audio}), params={"top_k": top_k})
    return pd.DataFrame({
        "fname": names,
        "label": [join_labels(labels) for labels in result["labels"]],
        "scores": [" ".join(f"{score:.6f}" for score in scores) for scores in result["scores"]],
        "error": [unread.get(name, error) for name, error in zip(names, result["error"], strict=True)],
    })  # fmt: skip
