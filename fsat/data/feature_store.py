"""Features that are computed once and kept beside the decoded clips that they were made of."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from fsat import interrupts
from fsat.data.clips import Floats, Whole
from fsat.files import (
    INDEX,
    UNFINISHED,
    Damaged,
    check_parts,
    check_space,
    explained,
    locked,
    read_facts,
    write_all,
    write_facts,
)
from fsat.progress import Progress, say


def kept_features(
    whole: Whole, name: str, what: str, n_rows: int, row_size: int, parts: Callable[[], Iterable[np.ndarray]]
) -> Floats | None:
    """Values made of all clips of a store, from a file beside them, which is written if need be.

    Args:
        whole: what was decoded together; its `features` remember what was opened.
        name: of the file, ending in ``.f32``; it must say all that the values depend on beside the clips.
        what: the features in words.
        n_rows: how many rows there are.
        row_size: values in a row.
        parts: gives the rows, in order, some at a time: float32 (some, ...).

    Returns:
        float32 (n_rows * row_size,); None for clips in memory, or if the cache was cleared meanwhile.

    Raises:
        FsatError: the disk is full, or the cache folder cannot be written.
    """
    if whole.folder is None:
        return None
    if name not in whole.features and (kept := _open_or_write(whole.folder / name, what, n_rows, row_size, parts)):
        whole.features[name] = kept
    return whole.features.get(name)


def _open_or_write(
    path: Path, what: str, n_rows: int, row_size: int, parts: Callable[[], Iterable[np.ndarray]]
) -> Floats | None:
    size = 4 * n_rows * row_size
    with suppress(Damaged):
        if kept := _open(path, size):
            return kept
    with explained(path, lambda: size):
        if not path.parent.parent.is_dir():  # the whole cache was cleared
            return None
        with locked(path.parent, f"computing these {what}"):
            if not (path.parent / INDEX).exists():
                return None
            try:
                kept = _open(path, size)
            except Damaged as damage:
                say(f"{path.parent}: the {what} are damaged ({damage}); computing them again")
                kept = None
            if kept is None:
                check_space(path.parent, size)
                with Progress(f"computing {what}", n_rows) as progress:
                    _write(path, parts(), lambda part: progress.advance(part.size // row_size))
                kept = _open(path, size)
    return kept


def _open(path: Path, size: int) -> Floats | None:
    """What is in a file; None if there is none. Raises `Damaged`."""
    try:
        facts = read_facts(path.with_suffix(".json"))
    except OSError:
        return None
    if sum(facts["sizes"]) != size:
        raise Damaged(f"{path.name} is that of other clips")
    check_parts(path, np.array(facts["sizes"], dtype=np.int64), facts["crcs"])
    try:
        return Floats.of_file(path)
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror or error}") from error


def _write(path: Path, parts: Iterable[np.ndarray], on_part: Callable[[np.ndarray], None]) -> None:
    unfinished = path.with_name(path.name + UNFINISHED)
    facts: dict[str, Sequence[int]] = {"sizes": [], "crcs": []}
    try:
        with open(unfinished, "wb", buffering=0) as file:
            for part in parts:
                interrupts.check()
                write_all(file, part)
                facts["sizes"].append(part.nbytes)
                facts["crcs"].append(zlib.crc32(part))
                on_part(part)
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        write_facts(path.with_suffix(".json"), facts)
    finally:
        unfinished.unlink(missing_ok=True)
