"""Write files whole or not at all, hash and lock them, and turn every disk error into one line.

The second half serves the cache folder. A clip store is a folder ``clips/<key>/`` with ``samples.f32``, the samples of
all clips one after the other, and ``index.json``, their lengths, checksums and errors. While it is built it is
``clips/<key>.unfinished/``, and the process that builds or removes it holds ``clips/<key>.lock``. Lock files stay:
deleting one that another process waits for would let two processes build at once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fsat import interrupts
from fsat.errors import DataError, FsatError
from fsat.progress import say

SAMPLES, INDEX, JOURNAL = "samples.f32", "index.json", "journal.txt"
MEMOS = "checked"
UNFINISHED, REMOVED, LOCK = ".unfinished", ".removed", ".lock"
WAIT_SECONDS = 0.5


class Damaged(Exception):
    """A file of the cache differs from what was written; the message says how."""


@contextmanager
def replace_whole(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all, in a folder that exists; raises OSError, and then `path` is unchanged.

    >>> with replace_whole(path) as unfinished:
    ...     unfinished.write_text("all of it")

    Yields a path in the same folder and with the same suffix, which replaces `path` at the end without an error.
    """
    unfinished = _unfinished(path)
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{os.getpid()}{UNFINISHED}.{path.name}")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Write a new folder whole or not at all; raises OSError.

    Yields an empty folder beside it, which is renamed to `path` when the block ends without an error, else removed.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for file in unfinished.rglob("*"):
            if file.is_file():
                with open(file, "rb") as opened:
                    os.fsync(opened.fileno())
        os.replace(unfinished, path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def copy_folder(source: Path, target: Path) -> None:
    """Copy the files of a folder to a new one; raises the first OSError, which `shutil.copytree` turns into text."""

    def fail(error: OSError) -> None:
        raise error

    for folder, _, names in os.walk(source, onerror=fail):
        copy = target / Path(folder).relative_to(source)
        copy.mkdir(parents=True)
        for name in names:
            shutil.copyfile(Path(folder, name), copy / name)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path, then put that file at `path`; raises FsatError if it cannot be written."""
    check_writable(path)
    with disk_errors(path), replace_whole(path) as unfinished:
        write(unfinished)


def check_writable(path: Path) -> None:
    """Make the folder of a file that will be written; raise `FsatError` if the file cannot be written."""
    with disk_errors(path, advice="choose another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise FsatError(f"{path}: is a folder; expected the name of a file to write")
        if not os.access(path.parent, os.W_OK):
            raise FsatError(f"{path}: cannot be written: no permission to write to {path.parent}; choose another file")
        probe = _unfinished(path)  # whose name may be too long
        probe.touch()
        probe.unlink()


def hash_file(path: Path, algorithm: Any = lambda: hashlib.blake2b(digest_size=16)) -> str:
    """Return the hash of a file's bytes in hex digits; the default is BLAKE2b, which is faster than SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex digits."""
    return hash_file(path, "sha256")


def key_of(facts: Any) -> str:
    """Return a short hash of JSON values: 20 hex digits."""
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=10).hexdigest()


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold a lock file, in a folder that exists, unless another process holds it; yields whether it is held."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0)
    with suppress(Timeout):
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()


@contextmanager
def held_lock(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file, or raise `FsatError` with the message `busy` if another process holds it."""
    with try_lock(path) as held:
        if not held:
            raise FsatError(busy)
        yield


def is_full(error: OSError) -> bool:
    """Return whether the cause is a full disk or quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_errors(path: object, what: str = "cannot be written", advice: str = "", full: str = "") -> Iterator[None]:
    """Turn an `OSError` into an `FsatError` of one line: ``PATH: WHAT: REASON; ADVICE``; `full` is for a full disk."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if full and is_full(error):
            raise FsatError(f"{path}: no space left ({reason}); {full}") from error
        raise FsatError(f"{path}: {what}: {reason}{advice and f'; {advice}'}") from error


def write_all(file: BinaryIO, data: Any) -> None:
    """Write bytes or an array to an unbuffered file, which may take fewer bytes at once than it is given."""
    view = memoryview(data).cast("B")
    while view:
        view = view[file.write(view) :]


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the platform can."""
    with suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def format_bytes(number: float) -> str:
    """Return a size as text: ``0.3 kB``, ``38.1 MB``, ``1.2 GB``."""
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if number >= unit), (1e3, "kB"))
    return f"{number / unit:.1f} {name}"


def user_path(path: str | Path) -> Path:
    """Return a path that a user gave with ``~`` and ``~USER`` replaced; that of an unknown user stays as it is."""
    return Path(os.path.expanduser(path))


def data_folder(path: str | Path) -> Path:
    """Return the path of a data folder that exists; raise `DataError` if it does not."""
    folder = user_path(path)
    if not folder.is_dir():
        reason = "not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder.absolute()}: {reason}; expected one with clips and their labels (data_dir=DIR)")
    return folder


def cache_dir() -> Path:
    """Return ``FSAT_CACHE_DIR``, or the platform's user cache."""
    if folder := os.environ.get("FSAT_CACHE_DIR"):
        return user_path(folder)
    import pooch

    return Path(pooch.os_cache("fsat"))


def write_facts(path: Path, facts: dict[str, Any]) -> None:
    """Write facts as JSON below a line with their checksum, whole or not at all; raises OSError."""
    body = json.dumps(facts).encode()
    with replace_whole(path) as unfinished:
        unfinished.write_bytes(_checksum(path.name, body) + b"\n" + body)


def read_facts(path: Path) -> dict[str, Any] | None:
    """Return the facts written by `write_facts`, None without the file; raise `Damaged` if its checksum differs."""
    with unreadable(path):
        if not path.exists():
            return None
        checksum, _, body = path.read_bytes().partition(b"\n")
    if checksum != _checksum(path.name, body):
        raise Damaged(f"{path.name} does not have its checksum")
    return dict(json.loads(body))


def to_line(facts: Any) -> bytes:
    """Return JSON values as a line of a journal, after their CRC-32."""
    body = json.dumps(facts).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def read_line(line: bytes) -> Any:
    """Return the values of a line written by `to_line`; None if it is damaged or not whole."""
    crc, _, body = line.removesuffix(b"\n").partition(b" ")
    return json.loads(body) if line.endswith(b"\n") and crc == b"%08x" % zlib.crc32(body) else None


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Turn an OSError on reading a file of the cache into `Damaged`."""
    try:
        yield
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror or error}") from error


def _checksum(name: str, body: bytes) -> bytes:
    """Return a checksum of a file's content and name, so that a file under another's name is found to be wrong."""
    return hashlib.blake2b(name.encode() + b"\n" + body, digest_size=16).hexdigest().encode()


@contextmanager
def locked(folder: Path, work: str) -> Iterator[None]:
    """Hold the lock of a store; wait for another process that does `work`, such as "decoding these clips"."""
    from filelock import FileLock, Timeout

    lock = FileLock(lock_path(folder))
    with suppress(Timeout):
        lock.acquire(timeout=0)
    if not lock.is_locked:
        say(f"waiting for another process that is {work}")
    while not lock.is_locked:
        interrupts.check()
        with suppress(Timeout):
            lock.acquire(timeout=WAIT_SECONDS, poll_interval=WAIT_SECONDS / 5)
    try:
        yield
    finally:
        lock.release()


def lock_path(folder: Path) -> Path:
    """Return the lock file of a store, finished or not."""
    return folder.with_name(folder.name.removesuffix(UNFINISHED).removesuffix(REMOVED) + LOCK)


@contextmanager
def cache_errors(folder: Path, needed: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Turn an OSError in the cache, or repeated damage, into one line; `needed` returns the bytes that are lacking."""
    try:
        yield
    except Damaged as damage:
        raise FsatError(f"{folder}: cannot be read back as it was written ({damage}); check the disk") from damage
    except OSError as error:
        if is_full(error):
            raise no_space(folder, needed()) from error
        advice = "fix that, or set FSAT_CACHE_DIR=DIR to put it elsewhere"
        raise FsatError(f"{folder}: the cache cannot be used: {error.strerror or error}; {advice}") from error


def check_space(folder: Path, needed: int) -> None:
    """Raise `FsatError` unless the disk has room for `needed` more bytes."""
    if needed > _free(folder):
        raise no_space(folder, needed)


def no_space(folder: Path, needed: int) -> FsatError:
    """Return the error for a disk that is too small, or full."""
    lack = f"{format_bytes(needed)} more needed, {format_bytes(_free(folder))} free"
    advice = "set FSAT_CACHE_DIR=DIR to put it elsewhere, or free some with `python -m fsat cache --clear`"
    return FsatError(f"{folder}: no space left in the cache: {lack}; {advice}")


def remove_store(folder: Path) -> None:
    """Remove a store's folder, so that no other process sees a part of it; its lock must be held. Raises OSError."""
    aside = folder.with_name(folder.name.removesuffix(UNFINISHED) + REMOVED)
    if folder != aside:
        if aside.exists():
            shutil.rmtree(aside)
        os.rename(folder, aside)
    shutil.rmtree(aside)


def _free(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
