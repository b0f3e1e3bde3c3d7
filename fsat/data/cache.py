"""Clips are decoded and resampled once for each sampling rate, and kept in the cache folder.

A store is found by what its clips are, not by their names or labels: a table that is relabelled decodes nothing again,
and a clip that is replaced, added or removed makes another store, which takes over what is the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from fsat.data.clip_store import FORMAT, ClipFile, build
from fsat.data.clips import Clips, Floats, Whole
from fsat.files import (
    INDEX,
    SAMPLES,
    Damaged,
    check_parts,
    clips_dir,
    explained,
    key_of,
    locked,
    read_facts,
    remove,
)
from fsat.progress import say

__all__ = ["ClipFile", "open_clips"]


def open_clips(files: Sequence[ClipFile], sampling_rate: int) -> Clips:
    """The clips of these files, decoded, mixed down and resampled; from the cache if they are there.

    Many processes may ask for the same clips at once: one decodes them, the others wait for it.

    Args:
        files: in the order wanted.
        sampling_rate: in Hz.

    Returns:
        a clip for each file; one that cannot be decoded has length 0 and an error.

    Raises:
        DataError: a file was changed since it was hashed.
        FsatError: a file cannot be read, the disk is full, or the cache folder cannot be written.
    """
    digests = [file.digest for file in files]
    folder = clips_dir() / key_of([FORMAT, sampling_rate, digests])
    with suppress(Damaged):  # perhaps because another process is just removing it
        if (clips := _open(folder, digests, sampling_rate)) is not None:
            return clips
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder, "decoding these clips"):
            try:
                clips = _open(folder, digests, sampling_rate)
            except Damaged as damage:
                say(f"{folder}: the decoded clips are damaged ({damage}); decoding them again")
                remove(folder)
                clips = None
            if clips is None:
                build(folder, files, sampling_rate)
                clips = _open(folder, digests, sampling_rate)
    return clips


def _open(folder: Path, digests: list[str], sampling_rate: int) -> Clips | None:
    """A finished store; None if there is none. Raises `Damaged`."""
    try:
        facts = read_facts(folder / INDEX)
    except OSError:
        if folder.exists():
            raise Damaged(f"{INDEX} is missing") from None
        return None
    if [facts.get(name) for name in ("format", "sampling_rate", "digests")] != [FORMAT, sampling_rate, digests]:
        raise Damaged(f"{INDEX} is that of other clips")
    lengths = np.array(facts["lengths"], dtype=np.int64)
    check_parts(folder / SAMPLES, 4 * lengths, facts["crcs"])
    with suppress(OSError):  # of no importance: it is only shown
        os.utime(folder / INDEX)
    try:
        samples = Floats.of_file(folder / SAMPLES)
    except OSError as error:
        raise Damaged(f"{SAMPLES} cannot be read: {error.strerror or error}") from error
    silent = np.array(facts["silent"], dtype=bool)
    return Clips(Whole(samples, lengths, facts["errors"], silent, sampling_rate, folder))
