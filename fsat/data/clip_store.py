"""Decoding a dataset's clips into a store's folder, so that a run that is killed loses nothing.

The samples of each clip are appended to one file, then a line to a journal: the clip's number, length, checksum and
error, under the line's own checksum. A later run reads the journal up to its last whole line, checks the samples that
it speaks of, cuts both files there and goes on.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fsat import interrupts
from fsat.data.audio import decode
from fsat.data.clip_checks import hash_file, stamp_of
from fsat.errors import AudioError, DataError, FsatError
from fsat.files import (
    INDEX,
    JOURNAL,
    SAMPLES,
    UNFINISHED,
    Damaged,
    check_space,
    explained,
    read_crc,
    read_facts,
    sync_folder,
    write_all,
    write_facts,
)  # fmt: skip
from fsat.parallel.executor import Threads
from fsat.progress import Progress

FORMAT = 1
"""Raised when the layout of a store changes, or the samples that `decode` makes of the same bytes."""

_BYTES_PER_ENTRY = 256  # of index and journal, generously


@dataclass(frozen=True)
class ClipFile:
    """A file to decode.

    Attributes:
        path: where it is.
        digest: hash of its bytes, as `fsat.data.clip_checks` makes it.
        stamp: of the file when it was hashed; empty if not known.
        frames: length in samples per channel, as its header says; 0 if not known.
        samplerate: in Hz, as its header says; 0 if not known.
    """

    path: Path
    digest: str
    stamp: tuple[int, ...] = ()
    frames: int = 0
    samplerate: int = 0


class Entry(NamedTuple):
    """What is kept of a clip beside its samples: length, CRC-32, whether all are 0, and why it cannot be used."""

    length: int
    crc: int
    silent: bool
    error: str


def build(folder: Path, files: Sequence[ClipFile], sampling_rate: int) -> None:
    """Decode every file into a store, or go on where a run before was stopped; the store's lock must be held.

    Raises:
        FsatError: a file was changed since it was hashed or cannot be read, or the store cannot be written.
    """
    unfinished = folder.with_name(folder.name + UNFINISHED)
    header = {"format": FORMAT, "sampling_rate": sampling_rate, "clips": len(files)}
    sizes = [_expected_bytes(file, sampling_rate) for file in files]
    entries: list[Entry] = []
    with explained(folder, lambda: sum(sizes[len(entries) :])):
        unfinished.mkdir(parents=True, exist_ok=True)
        with (
            open(unfinished / SAMPLES, "ab+", buffering=0) as samples,
            open(unfinished / JOURNAL, "ab+", buffering=0) as journal,
        ):
            entries += _resume(samples, journal, header)
            check_space(unfinished, sum(sizes[len(entries) :]))
            known = _finished_elsewhere(folder, sampling_rate, {file.digest for file in files[len(entries) :]})
            workers = os.cpu_count() or 1
            decoded = Threads(workers, 4 * workers).map(
                lambda file: _samples_of(file, sampling_rate, known), files[len(entries) :]
            )
            with Progress(f"decoding clips to {sampling_rate} Hz", len(files)) as progress, closing(decoded):
                progress.advance(len(entries))
                for clip, error in decoded:
                    interrupts.check()
                    entry = Entry(len(clip), zlib.crc32(clip), len(clip) > 0 and not clip.any(), error)
                    write_all(samples, clip)
                    write_all(journal, _line([len(entries), *entry]))
                    entries.append(entry)
                    progress.advance()
            os.fsync(samples.fileno())
        facts = {**header, "made": time.time(), "digests": [file.digest for file in files]}
        lengths, crcs, silent, errors = (list(column) for column in zip(*entries, strict=True)) if entries else [[]] * 4
        write_facts(unfinished / INDEX, {**facts, "lengths": lengths, "crcs": crcs, "silent": silent, "errors": errors})
        sync_folder(unfinished)
        os.rename(unfinished, folder)
        sync_folder(folder.parent)
        (folder / JOURNAL).unlink(missing_ok=True)


def _samples_of(file: ClipFile, sampling_rate: int, known: dict[str, _Place]) -> tuple[np.ndarray, str]:
    """Samples, or none and why; from another store if they are there."""
    if (place := known.get(file.digest)) and (found := place.read()) is not None:
        return found, ""
    try:
        samples, error = decode(file.path, sampling_rate), ""
    except AudioError:
        samples, error = _decode_again(file, sampling_rate)
    with _readable(file):
        if file.stamp and stamp_of(os.stat(file.path)) != file.stamp:
            raise _changed(file)
    return samples, error


def _decode_again(file: ClipFile, sampling_rate: int) -> tuple[np.ndarray, str]:
    """Tell a fault of the clip, which is kept, from one of the file system or the machine, which is raised."""
    with _readable(file):
        if hash_file(file.path) != file.digest:
            raise _changed(file)
    try:
        return decode(file.path, sampling_rate), ""
    except AudioError as error:
        if isinstance(error.__cause__, OSError | MemoryError):
            raise FsatError(f"{file.path}: {error}, though it can be read; run again, or take the clip out") from error
        return np.empty(0, np.float32), str(error)


@contextmanager
def _readable(file: ClipFile) -> Iterator[None]:
    """Turn an OSError of a clip's file into one line that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise _changed(file) from error
    except OSError as error:
        raise FsatError(f"{file.path}: cannot be read: {error.strerror or error}; mend that and run again") from error


def _changed(file: ClipFile) -> DataError:
    return DataError(f"{file.path}: was changed while the clips were being read; run again when nobody changes them")


def _expected_bytes(file: ClipFile, sampling_rate: int) -> int:
    """About how much a clip takes in the store."""
    if file.frames and file.samplerate:
        return 4 * -(-file.frames * sampling_rate // file.samplerate) + _BYTES_PER_ENTRY
    try:
        return file.path.stat().st_size + _BYTES_PER_ENTRY
    except OSError:
        return _BYTES_PER_ENTRY


def _line(facts: Sequence[Any] | dict[str, Any]) -> bytes:
    body = json.dumps(facts).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _read_line(line: bytes) -> Any:
    """The facts of a whole line; None of any other."""
    crc, _, body = line.removesuffix(b"\n").partition(b" ")
    return json.loads(body) if line.endswith(b"\n") and crc == b"%08x" % zlib.crc32(body) else None


def read_header(journal: BinaryIO) -> dict[str, Any] | None:
    """The first line of a journal: format, sampling rate and number of clips; None if there is none."""
    return _read_line(journal.readline())


def _resume(samples: BinaryIO, journal: BinaryIO, header: dict[str, Any]) -> list[Entry]:
    """The clips that were decoded before; both files are cut after them."""
    entries: list[Entry] = []
    samples.seek(0)
    journal.seek(0)
    lines = journal.read().splitlines(keepends=True)
    if not lines or _read_line(lines[0]) != header:
        samples.truncate(0)
        journal.truncate(0)
        write_all(journal, _line(header))
        return []
    for line in lines[1:]:
        interrupts.check()
        facts = _read_line(line)
        if not facts or facts[0] != len(entries) or read_crc(samples, 4 * facts[1]) != facts[2]:
            break
        entries.append(Entry(*facts[1:]))
    samples.truncate(4 * sum(entry.length for entry in entries))
    journal.truncate(sum(map(len, lines[: 1 + len(entries)])))
    return entries


class _Place(NamedTuple):
    """Where another store has the samples of a clip."""

    path: Path
    start: int
    length: int
    crc: int

    def read(self) -> np.ndarray | None:
        try:
            found = np.fromfile(self.path, "<f4", self.length, offset=4 * self.start)
        except OSError:
            return None
        return found if len(found) == self.length and zlib.crc32(found) == self.crc else None


def _finished_elsewhere(folder: Path, sampling_rate: int, digests: set[str]) -> dict[str, _Place]:
    """Where finished stores of the same rate have clips of these digests."""
    found: dict[str, _Place] = {}
    for index in sorted(folder.parent.glob(f"*/{INDEX}")):
        try:
            facts = read_facts(index)
        except (OSError, Damaged):
            continue
        if facts.get("format") != FORMAT or facts["sampling_rate"] != sampling_rate:
            continue
        start = 0
        for digest, length, crc in zip(facts["digests"], facts["lengths"], facts["crcs"], strict=True):
            if length and digest in digests:
                found[digest] = _Place(index.parent / SAMPLES, start, length, crc)
            start += length
    return found
