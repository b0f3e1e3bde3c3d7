"""Files: written whole or not at all, hashed, locked, and one clear line for every disk error.

`replace_whole`, `new_folder`, `sha256_of`, `held_lock` and `disk_errors` are for any file. The rest serves the cache.

A clip store is a folder ``clips/<key>/`` with ``samples.f32``, the samples of all clips one after the other, and
``index.json``, their lengths, checksums and errors. While it is being built it is ``clips/<key>.unfinished/``, and the
process that builds or removes it holds ``clips/<key>.lock``. Lock files stay: deleting one under a process that waits
for it would let two processes build at once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fsat import interrupts
from fsat.errors import FsatError
from fsat.progress import say

SAMPLES, INDEX, JOURNAL = "samples.f32", "index.json", "journal.txt"
MEMOS = "checked"
UNFINISHED, REMOVED, LOCK = ".unfinished", ".removed", ".lock"

CHECKED_BYTES = 2 << 30
"""How much of a file is checked when it is opened."""

WAIT_SECONDS = 0.5
_BLOCK_BYTES = 1 << 20


class Damaged(Exception):
    """A file of the cache is not as it was written; the message says why."""


@contextmanager
def replace_whole(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    >>> with replace_whole(path) as unfinished:
    ...     unfinished.write_text("all of it")

    Args:
        path: the file to make or replace; its folder must exist.

    Yields:
        a path beside it to write to, which takes its place when the block ends without an error.

    Raises:
        OSError: the file cannot be written; what was at `path` is still there.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Write a new folder whole or not at all.

    Args:
        path: the folder to make; it must not exist.

    Yields:
        an empty folder beside it to write to, which is renamed to `path` when the block ends without an error.

    Raises:
        OSError: the folder cannot be written.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    for file in unfinished.rglob("*"):
        if file.is_file():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
    os.replace(unfinished, path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def held_lock(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file without waiting for it.

    Args:
        path: the lock file; its folder must exist.
        busy: the message of the error if another process holds the lock.

    Raises:
        FsatError: another process holds the lock.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise FsatError(busy) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def disk_errors(place: object, what: str = "cannot be written", advice: str = "") -> Iterator[None]:
    """Turn an `OSError` into an `FsatError` of one line: ``PLACE: WHAT: REASON; ADVICE``."""
    try:
        yield
    except OSError as error:
        message = f"{place}: {what}: {error.strerror or error}"
        raise FsatError(f"{message}; {advice}" if advice else message) from error


def cache_dir() -> Path:
    """``FSAT_CACHE_DIR``, else the platform's user cache."""
    if given := os.environ.get("FSAT_CACHE_DIR"):
        return Path(given).expanduser()
    import pooch

    return Path(pooch.os_cache("fsat"))


def clips_dir() -> Path:
    """The folder of the clip stores."""
    return cache_dir().absolute() / "clips"


def write_facts(path: Path, facts: dict[str, Any]) -> None:
    """Write facts as JSON under a line with their checksum, whole or not at all; raises OSError."""
    body = json.dumps(facts).encode()
    with replace_whole(path) as unfinished:
        unfinished.write_bytes(_digest(path.name, body) + b"\n" + body)


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that `write_facts` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it cannot be read, or is not as it was written.
    """
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror or error}") from error
    if digest != _digest(path.name, body):
        raise Damaged(f"{path.name} does not have its checksum")
    return json.loads(body)


def check_parts(path: Path, sizes: np.ndarray, crcs: Sequence[int]) -> None:
    """Check a file's size, and the checksums of parts spread over it that make up `CHECKED_BYTES`, or of all.

    Args:
        path: of the file, part after part.
        sizes: int64 (n,), of each part in bytes.
        crcs: CRC-32 of each part.

    Raises:
        Damaged: they are not as expected, or the file cannot be read.
    """
    total, n = int(sizes.sum()), len(sizes)
    starts = np.cumsum(sizes) - sizes
    wanted = n if total <= CHECKED_BYTES else max(2, int(n * CHECKED_BYTES / total))
    chosen = np.unique(np.linspace(0, n - 1, wanted).astype(int)) if n else np.empty(0, int)
    workers = os.cpu_count() or 1

    def check(parts: np.ndarray) -> None:
        with open(path, "rb", buffering=0) as file:
            for part in parts.tolist():
                interrupts.check()
                file.seek(int(starts[part]))
                if read_crc(file, int(sizes[part])) != crcs[part]:
                    raise Damaged(f"part {part + 1} of {n} of {path.name} does not have its checksum")

    try:
        there = path.stat().st_size
        if there != total:
            raise Damaged(f"{path.name} has {there} bytes, expected {total}")
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(check, [chosen[i::workers] for i in range(workers)]):
                pass
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror or error}") from error


def read_crc(file: BinaryIO, size: int) -> int | None:
    """CRC-32 of the next `size` bytes; None where the file ends before."""
    crc, block = 0, memoryview(bytearray(min(size, _BLOCK_BYTES)))
    while size:
        n = file.readinto(block[: min(size, _BLOCK_BYTES)])
        if not n:
            return None
        crc = zlib.crc32(block[:n], crc)
        size -= n
    return crc


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write to an unbuffered file, which may take less at once than it is given."""
    view = memoryview(data).cast("B")
    while view:
        view = view[file.write(view) :]


def key_of(facts: Any) -> str:
    """A short name for these facts: 20 hex digits."""
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=10).hexdigest()


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of a store's folder; waits for it, and says once that it does.

    Args:
        folder: the store; its parent must be there.
        what: what another process may be doing, such as "decoding these clips".
    """
    from filelock import FileLock, Timeout

    lock, said = FileLock(lock_path(folder)), False
    while True:
        interrupts.check()
        try:
            lock.acquire(timeout=WAIT_SECONDS if said else 0, poll_interval=WAIT_SECONDS / 5)
            break
        except Timeout:
            if not said:
                say(f"waiting for another process that is {what}")
            said = True
    try:
        yield
    finally:
        lock.release()


def lock_path(folder: Path) -> Path:
    """The lock file of a store, finished or not."""
    return folder.with_name(folder.name.removesuffix(UNFINISHED).removesuffix(REMOVED) + LOCK)


@contextmanager
def explained(folder: Path, needed: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Turn an OSError of the cache, or damage that nothing more can be done about, into one line.

    Args:
        folder: whose trouble it is.
        needed: how many bytes more would be needed; asked for when the disk is full.
    """
    try:
        yield
    except Damaged as damage:
        raise FsatError(f"{folder}: cannot be read back as it was written ({damage}); check the disk") from damage
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(folder, needed()) from error
        raise FsatError(
            f"{folder}: the cache cannot be used: {error.strerror or error}; mend that, or set "
            "FSAT_CACHE_DIR=DIR to put it elsewhere"
        ) from error


def check_space(folder: Path, needed: int) -> None:
    """Raise `FsatError` unless the disk of `folder` has room for as many bytes more."""
    if needed > _free(folder):
        raise no_space(folder, needed)


def no_space(folder: Path, needed: int) -> FsatError:
    """What to say when the disk is too small, or full."""
    return FsatError(
        f"{folder}: no space left in the cache: {in_bytes(needed)} more needed, {in_bytes(_free(folder))} free; "
        "set FSAT_CACHE_DIR=DIR to put it elsewhere, or free some with `python -m fsat cache --clear`"
    )


def remove(folder: Path) -> None:
    """Remove a store's folder, so that it is never seen in part; its lock must be held. Raises OSError."""
    aside = folder.with_name(folder.name.removesuffix(UNFINISHED) + REMOVED)
    if folder != aside:
        if aside.exists():
            shutil.rmtree(aside)
        os.rename(folder, aside)
    shutil.rmtree(aside)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlive a power cut, where the platform can."""
    with suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def in_bytes(number: int) -> str:
    """A size in words: ``0.3 kB``, ``38.1 MB``, ``1.2 GB``."""
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if number >= unit), (1e3, "kB"))
    return f"{number / unit:.1f} {name}"


def _free(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _digest(name: str, body: bytes) -> bytes:
    """Checksum of a file's content; that of a file under another's name is wrong."""
    return hashlib.blake2b(name.encode() + b"\n" + body, digest_size=16).hexdigest().encode()
