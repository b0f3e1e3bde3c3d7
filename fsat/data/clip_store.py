"""Decode and resample clips once for each sampling rate, and keep them in the cache folder.

A store is found by the content of its clips, not by their names or labels: relabelling a table decodes nothing, and a
clip that is replaced, added or removed makes another store, which takes over the samples of the clips that are the
same.

A build that is killed loses nothing: the samples of each clip are appended to one file, then a line to a journal: the
clip's number, length, checksum and error, under the line's own checksum. A later run reads the journal up to its last
whole line, checks the samples that it names, truncates both files there and continues.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fsat import files as disk
from fsat import interrupts
from fsat.data.audio import Heard, hear
from fsat.data.clip_checks import stamp_of
from fsat.data.decoded_clips import Clips, Decoded, Floats, check_parts, read_crc
from fsat.data.levels import SEPARATOR
from fsat.errors import AudioError, DataError, FsatError, StorageError
from fsat.files import INDEX, JOURNAL, SAMPLES, UNFINISHED, Damaged, write_all
from fsat.parallel.executor import Threads
from fsat.progress import Progress, say

FORMAT = 2  # raised when the layout of a store changes, or the samples that `decode` makes of the same bytes
LONG_BYTES = 128 << 20
"""Samples of a clip, as float32, above which no other is decoded at the same time: 12 minutes at 48 kHz."""

_BYTES_PER_ENTRY = 256  # upper bound for a clip in index and journal


@dataclass(frozen=True)
class ClipFile:
    """A file to decode, and what `ClipFacts` says of it; all but its path and digest may be unknown."""

    path: Path
    digest: str
    stamp: tuple[int, ...] = ()
    frames: int = 0
    samplerate: int = 0


class Entry(NamedTuple):
    """What a store's index says of a clip: length, CRC-32, why it is unusable, and what is odd about it (`Heard`)."""

    length: int
    crc: int
    error: str
    notes: str


def clips_dir() -> Path:
    """Return the folder of the clip stores."""
    return disk.cache_dir().absolute() / "clips"


def open_clips(files: Sequence[ClipFile], sampling_rate: int) -> Clips:
    """Return the clips of these files, in order, mono and at `sampling_rate` in Hz; from the cache if possible.

    A clip that cannot be decoded has length 0 and an error. If several processes ask for the same clips, one decodes
    them and the others wait for it.

    Raises:
        DataError: a file was changed since it was hashed.
        FsatError: a file cannot be read, the disk is full, or the cache folder cannot be written.
    """
    digests = [file.digest for file in files]
    folder = clips_dir() / disk.key_of([FORMAT, sampling_rate, digests])
    with suppress(Damaged):  # another process may be removing it
        if (clips := _open(folder, digests, sampling_rate)) is not None:
            return clips
    with disk.cache_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with disk.locked(folder, "decoding these clips"):
            try:
                clips = _open(folder, digests, sampling_rate)
            except Damaged as damage:
                say(f"{folder}: the decoded clips are damaged ({damage}); decoding them again")
                disk.remove_store(folder)
                clips = None
            if clips is None:
                build(folder, files, sampling_rate)
                clips = _open(folder, digests, sampling_rate)
    assert clips is not None, folder
    return clips


def _open(folder: Path, digests: list[str], sampling_rate: int) -> Clips | None:
    """Open a finished store; None if it does not exist. Raises `Damaged`."""
    facts = disk.read_facts(folder / INDEX)
    if facts is None:
        if folder.exists():
            raise Damaged(f"{INDEX} is missing")
        return None
    if [facts.get(name) for name in ("format", "sampling_rate", "digests")] != [FORMAT, sampling_rate, digests]:
        raise Damaged(f"{INDEX} is that of other clips")
    lengths = np.array(facts["lengths"], dtype=np.int64)
    check_parts(folder / SAMPLES, 4 * lengths, facts["crcs"])
    with suppress(OSError):  # the time is only shown by `fsat cache`
        os.utime(folder / INDEX)
    with disk.unreadable(folder / SAMPLES):
        samples = Floats.of_file(folder / SAMPLES)
    crcs = np.array(facts["crcs"], dtype=np.uint32)
    return Clips(Decoded(samples, lengths, facts["errors"], facts["notes"], sampling_rate, folder, crcs, digests))


def build(folder: Path, files: Sequence[ClipFile], sampling_rate: int) -> None:
    """Decode every file into a store, or continue a build that was stopped; the store's lock must be held."""
    unfinished = folder.with_name(folder.name + UNFINISHED)
    header = {"format": FORMAT, "sampling_rate": sampling_rate, "clips": len(files)}
    sizes = [_expected_bytes(file, sampling_rate) for file in files]
    entries: list[Entry] = []
    with disk.cache_errors(folder, lambda: sum(sizes[len(entries) :])):
        unfinished.mkdir(parents=True, exist_ok=True)
        with (
            open(unfinished / SAMPLES, "ab+", buffering=0) as samples,
            open(unfinished / JOURNAL, "ab+", buffering=0) as journal,
        ):
            entries += _resume(samples, journal, header)
            disk.check_space(unfinished, sum(sizes[len(entries) :]))
            with Progress(f"decoding clips to {sampling_rate} Hz", len(files)) as progress:
                progress.advance(len(entries))
                for clip, error, notes in decode_files(files[len(entries) :], sampling_rate):
                    interrupts.check()
                    entry = Entry(len(clip), zlib.crc32(clip.data), error, notes)
                    write_all(samples, clip)
                    write_all(journal, disk.to_line([len(entries), *entry]))
                    entries.append(entry)
                    progress.advance()
            os.fsync(samples.fileno())
        facts = {**header, "made": time.time(), "digests": [file.digest for file in files]}
        for i, name in enumerate(("lengths", "crcs", "errors", "notes")):
            facts[name] = [entry[i] for entry in entries]
        disk.write_facts(unfinished / INDEX, facts)
        disk.sync_folder(unfinished)
        os.rename(unfinished, folder)
        disk.sync_folder(folder.parent)
        (folder / JOURNAL).unlink(missing_ok=True)


DecodedClip = tuple[np.ndarray, str, str]
"""Samples, float32 (n,), the reason if there are none, and notes, separated by ``; ``."""


def decode_files(files: Sequence[ClipFile], sampling_rate: int) -> Generator[DecodedClip]:
    """Decode each file, in order, or copy it from a clip store; several are decoded ahead, in threads.

    Files of more than `LONG_BYTES` are decoded one at a time. Raises as `open_clips`.
    """
    known = _samples_elsewhere(sampling_rate, {file.digest for file in files})
    workers = os.cpu_count() or 1
    for is_long, group in groupby(files, lambda file: _expected_bytes(file, sampling_rate) > LONG_BYTES):
        threads = Threads(workers, 1 if is_long else 4 * workers)
        with closing(threads.map(lambda file: _samples_of(file, sampling_rate, known), group)) as decoded:
            yield from decoded


def _samples_of(file: ClipFile, sampling_rate: int, known: dict[str, _Location]) -> DecodedClip:
    """Return a clip, from another store if possible."""
    if (location := known.get(file.digest)) and (copied := location.read()) is not None:
        return copied, "", location.notes
    try:
        heard: Heard | str = _hear(file, sampling_rate)
    except AudioError:
        heard = _hear_again(file, sampling_rate)
    with _read_errors(file):
        if file.stamp and stamp_of(os.stat(file.path)) != file.stamp:
            raise _changed(file)
    if isinstance(heard, str):
        return np.empty(0, np.float32), heard, ""
    return heard.at[sampling_rate], "", SEPARATOR.join(heard.notes)


def _hear(file: ClipFile, sampling_rate: int) -> Heard:
    """Decode a whole clip; raise `AudioError` if it is not whole."""
    try:
        heard = hear(file.path, [sampling_rate])
    except StorageError as error:
        raise FsatError(f"{file.path}: {error}; run again, or take the clip out") from error
    if heard.fault:
        raise AudioError(heard.fault)
    return heard


def _hear_again(file: ClipFile, sampling_rate: int) -> Heard | str:
    """Decode a second time; return the reason why the clip is unusable, which is that of the file as it was hashed."""
    with _read_errors(file):
        if disk.hash_file(file.path) != file.digest:
            raise _changed(file)
    try:
        return _hear(file, sampling_rate)
    except AudioError as error:
        if isinstance(error.__cause__, MemoryError):
            raise FsatError(f"{file.path}: {error}; run again, or take the clip out") from error
        return str(error)


@contextmanager
def _read_errors(file: ClipFile) -> Iterator[None]:
    """Turn an OSError on reading a clip's file into one line."""
    with disk.disk_errors(file.path, "cannot be read", "fix that and run again"):
        try:
            yield
        except FileNotFoundError as error:
            raise _changed(file) from error


def _changed(file: ClipFile) -> DataError:
    return DataError(f"{file.path}: was changed while the clips were being read; run again when no file changes")


def _expected_bytes(file: ClipFile, sampling_rate: int) -> int:
    """Return about how many bytes a clip takes in the store."""
    return 4 * -(-file.frames * sampling_rate // max(1, file.samplerate)) + _BYTES_PER_ENTRY


def read_header(journal: BinaryIO) -> dict[str, Any]:
    """Return the first line of a journal: format, sampling rate and number of clips; empty if it is damaged."""
    return disk.read_line(journal.readline()) or {}


def _resume(samples: Any, journal: Any, header: dict[str, Any]) -> list[Entry]:
    """Return the clips that were decoded before; truncate both files after them."""
    entries: list[Entry] = []
    samples.seek(0)
    journal.seek(0)
    lines = journal.read().splitlines(keepends=True)
    if not lines or disk.read_line(lines[0]) != header:
        samples.truncate(0)
        journal.truncate(0)
        write_all(journal, disk.to_line(header))
        return []
    for line in lines[1:]:
        interrupts.check()
        facts = disk.read_line(line)
        if not facts or facts[0] != len(entries) or read_crc(samples, 4 * facts[1]) != facts[2]:
            break
        entries.append(Entry(*facts[1:]))
    samples.truncate(4 * sum(entry.length for entry in entries))
    journal.truncate(sum(map(len, lines[: 1 + len(entries)])))
    return entries


class _Location(NamedTuple):
    """Where another store has the samples of a clip."""

    path: Path
    start: int
    length: int
    crc: int
    notes: str

    def read(self) -> np.ndarray | None:
        """Return the samples; None if they are damaged."""
        try:
            samples = np.fromfile(self.path, "<f4", self.length, offset=4 * self.start)
        except OSError:
            return None
        return samples if len(samples) == self.length and zlib.crc32(samples.data) == self.crc else None


def _samples_elsewhere(sampling_rate: int, digests: set[str]) -> dict[str, _Location]:
    """Return where finished stores of the same rate have clips of these digests."""
    locations: dict[str, _Location] = {}
    for index in sorted(clips_dir().glob(f"*/{INDEX}")):
        try:
            facts = disk.read_facts(index)
        except Damaged:
            continue
        if facts is None or (facts.get("format"), facts.get("sampling_rate")) != (FORMAT, sampling_rate):
            continue
        start = 0
        columns = (facts[name] for name in ("digests", "lengths", "crcs", "notes"))
        for digest, length, crc, notes in zip(*columns, strict=True):
            if length and digest in digests:
                locations[digest] = _Location(index.parent / SAMPLES, start, length, crc, notes)
            start += length
    return locations
