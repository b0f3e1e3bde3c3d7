"""Clips are decoded and resampled once for each sampling rate, and kept in the cache folder.

A store is found by what its clips are, not by their names or labels: a table that is relabelled decodes nothing again,
and a clip that is replaced, added or removed makes another store, which takes over what is the same.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from fsat import interrupts
from fsat.config import RECIPE, Config
from fsat.data.clips import Clips, Floats, Whole
from fsat.data.decoding import FORMAT, ClipFile, build
from fsat.data.features import fixed_crops, model_input
from fsat.data.store import (
    INDEX,
    SAMPLES,
    UNFINISHED,
    Damaged,
    check_parts,
    check_space,
    clips_dir,
    explained,
    key_of,
    locked,
    read_facts,
    remove,
    write_all,
    write_facts,
)
from fsat.progress import Progress, say

__all__ = ["ClipFile", "Features", "fixed_features", "open_clips"]

FEATURES = 1
"""Raised when the fixed crops or the MFCC made of the same samples change."""

_CROPS_PER_BATCH = 64


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


class Features:
    """What a model on MFCC takes in for the fixed crops of clips, clip after clip.

    Attributes:
        n_crops: int64 (n_clips,), how many rows each clip has; 0 where it cannot be used.
    """

    def __init__(self, clips: Clips, config: Config, kept: Floats | None = None) -> None:
        self.n_crops = fixed_crops(clips.lengths, config)[2]
        self._clips, self._config, self._kept = clips, config, kept
        if kept is not None:  # where the rows of these clips are among those of all
            counts = fixed_crops(clips.whole.lengths, config)[2]
            starts = np.append(np.cumsum(counts) - counts, 0)[clips.rows]
            own_starts = np.cumsum(self.n_crops) - self.n_crops
            self._places = np.repeat(starts - own_starts, self.n_crops) + np.arange(len(self))

    def __len__(self) -> int:
        return int(self.n_crops.sum())

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The inputs of these crops, float32 (stop - start, *config.dim), writable."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start} to {stop}, expected 0 to {len(self)}")
        if self._kept is None:
            return self._computed[start:stop].copy()
        values = self._kept.values.reshape(-1, *self._config.dim)
        self._kept.touch((stop - start) * values[:1].size)
        return values[self._places[start:stop]]

    @cached_property
    def _computed(self) -> np.ndarray:
        return np.concatenate([np.empty((0, *self._config.dim), np.float32), *_inputs(self._clips, self._config)])


def fixed_features(clips: Clips, config: Config) -> Features:
    """The MFCC of every clip's fixed crops, computed once and kept beside the clips.

    Those of all clips that were decoded together are computed at once, whichever are asked for. For clips in memory
    they are computed in memory when they are first asked for.

    Args:
        clips: at ``config.sampling_rate``.
        config: of a model on MFCC.

    Raises:
        FsatError: the disk is full, or the cache folder cannot be written.
    """
    if not config.use_mfcc or config.sampling_rate != clips.sampling_rate:
        raise ValueError(f"{config.model} at {config.sampling_rate} Hz, expected MFCC at {clips.sampling_rate} Hz")
    folder = clips.whole.folder
    if folder is None:
        return Features(clips, config)
    path = folder / f"features-{key_of([FEATURES, RECIPE, config.audio_length, config.eval_crops, config.n_mfcc])}.f32"
    opened = clips.whole.features
    if path.name not in opened and (kept := _kept_features(path, Clips(clips.whole), config)):
        opened[path.name] = kept
    return Features(clips, config, opened.get(path.name))


def _kept_features(path: Path, whole: Clips, config: Config) -> Floats | None:
    """The MFCC of all clips from a file, which is written if need be; None if the cache was cleared meanwhile."""
    size = 4 * len(fixed_crops(whole.lengths, config)[0]) * config.dim[0] * config.dim[1]
    with suppress(Damaged):
        if kept := _open_features(path, size):
            return kept
    with explained(path, lambda: size):
        if not path.parent.parent.is_dir():  # the whole cache was cleared
            return None
        with locked(path.parent, "computing these MFCC"):
            if not (path.parent / INDEX).exists():
                return None
            try:
                kept = _open_features(path, size)
            except Damaged as damage:
                say(f"{path.parent}: the MFCC are damaged ({damage}); computing them again")
                kept = None
            if kept is None:
                _write_features(path, whole, config, size)
                kept = _open_features(path, size)
    return kept


def _open_features(path: Path, size: int) -> Floats | None:
    """The MFCC in a file; None if there are none. Raises `Damaged`."""
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


def _write_features(path: Path, clips: Clips, config: Config, size: int) -> None:
    check_space(path.parent, size)
    n_crops = len(fixed_crops(clips.lengths, config)[0])
    unfinished = path.with_name(path.name + UNFINISHED)
    facts: dict[str, list[int]] = {"sizes": [], "crcs": []}
    try:
        with (
            open(unfinished, "wb", buffering=0) as file,
            Progress(f"computing {config.n_mfcc} MFCC of crops", n_crops) as progress,
        ):
            for inputs in _inputs(clips, config):
                interrupts.check()
                write_all(file, inputs)
                facts["sizes"].append(inputs.nbytes)
                facts["crcs"].append(zlib.crc32(inputs))
                progress.advance(len(inputs))
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        write_facts(path.with_suffix(".json"), facts)
    finally:
        unfinished.unlink(missing_ok=True)


def _inputs(clips: Clips, config: Config) -> Iterator[np.ndarray]:
    """The fixed crops' MFCC, batch by batch."""
    which, starts, _ = fixed_crops(clips.lengths, config)
    for first in range(0, len(which), _CROPS_PER_BATCH):
        batch = slice(first, first + _CROPS_PER_BATCH)
        yield model_input(clips.crops(which[batch], starts[batch], config.audio_length), config)
