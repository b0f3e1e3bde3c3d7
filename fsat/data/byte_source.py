"""The bytes of an audio file, from a path or from memory, read at any offset.

Conventions: what is wrong with the file itself raises `AudioError` with the reason. A failure of the machine, such as a
drive that no longer answers or too many open files, is tried again and then raises `StorageError`, because it says
nothing about the file.
"""

from __future__ import annotations

import copy
import errno
import io
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, TypeVar

from fsat.errors import AudioError, StorageError

AudioSource = str | PathLike[str] | bytes | bytearray | memoryview  # a path, or the bytes of an audio file
MISSING = "missing file"
OWN_FAULTS = (
    errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO,
)  # fmt: skip
"""Error numbers that are about the file; the others are about the machine."""

PAUSES = (0.1, 0.5, 2.0)
"""Seconds between attempts after a failure of the machine."""

TAIL, SEARCHED = 1 << 16, 1 << 20
"""Bytes at the end of a file that are searched, and bytes of a whole file that are searched at a time."""

HEAD = 1 << 12
"""Bytes of a file's beginning that are read at once."""

CHECKED = 1 << 12
"""Bytes that are read to find out whether a file can still be read."""

Result = TypeVar("Result")


class ByteSource:
    """An open audio file.

    Attributes:
        offset, size: its first byte in the file, and its length, in bytes.
        is_whole: whether it is the whole file.
        descriptor: of the file, for libraries that read by themselves; None for bytes in memory.
        failures: errors of the machine while a `Window` was read, which `check` raises.
    """

    def __init__(self, source: AudioSource) -> None:
        self.offset, self.is_whole = 0, True
        self.failures: list[StorageError] = []
        self._view: memoryview | None = None
        self._head = b""  # headers are read in many small pieces
        self.descriptor: int | None = None
        self._lock = threading.Lock()
        if isinstance(source, bytes | bytearray | memoryview):
            self._view = memoryview(source).cast("B")
            self.size = len(self._view)
            if not self.size:
                raise AudioError("empty file")
        else:
            self.descriptor = _attempt(lambda: _open_regular(source))
            self.size = os.fstat(self.descriptor).st_size
            self._head = _attempt(lambda: self._read_descriptor(0, HEAD))

    def part(self, start: int, end: int | None = None) -> ByteSource:
        """Return the bytes from `start` to `end` as a source of its own, which shares the open file."""
        part = copy.copy(self)
        part.offset, part.size = self.offset + start, (self.size if end is None else end) - start
        part.is_whole = False
        return part

    def close(self) -> None:
        """Close the file."""
        if self.descriptor is not None:
            os.close(self.descriptor)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from an offset on; raise `StorageError` if they cannot be read."""
        if offset >= self.size or size <= 0:
            return b""
        first, size = self.offset + offset, min(size, self.size - offset)
        if self._view is not None:
            return bytes(self._view[first : first + size])
        if first + size <= len(self._head):
            return self._head[first : first + size]
        return _attempt(lambda: self._read_descriptor(first, size))

    def _read_descriptor(self, offset: int, size: int) -> bytes:
        assert self.descriptor is not None
        if hasattr(os, "pread"):
            return os.pread(self.descriptor, size, offset)
        with self._lock:  # Windows: the position belongs to the library that reads by itself
            position = os.lseek(self.descriptor, 0, os.SEEK_CUR)
            try:
                os.lseek(self.descriptor, offset, os.SEEK_SET)
                return os.read(self.descriptor, size)
            finally:
                os.lseek(self.descriptor, position, os.SEEK_SET)

    def check(self, position: int = 0) -> None:
        """Raise `StorageError` if the file's start, the bytes at a position, or its end can no longer be read."""
        self.raise_failures()
        self._head = b""
        for offset in (0, position, max(0, self.size - CHECKED)):
            if len(self.read_at(offset, CHECKED)) < min(CHECKED, self.size - offset):
                raise StorageError("the file became shorter while it was read")

    def raise_failures(self) -> None:
        """Raise the first `StorageError` that a `Window` met."""
        if self.failures:
            raise self.failures[0]

    def rewind(self) -> None:
        """Set the descriptor to the first byte."""
        if self.descriptor is not None:
            os.lseek(self.descriptor, 0, os.SEEK_SET)


class Window(io.RawIOBase):
    """A part of a source as a file of its own, from byte `start` to `end`, with some bytes replaced.

    Args:
        source: where the bytes are.
        start, end: first byte, and the byte after the last one; None for the end of the source.
        patches: replaced bytes by their offset in the source.
    """

    def __init__(
        self, source: ByteSource, start: int = 0, end: int | None = None, patches: Mapping[int, bytes] | None = None
    ) -> None:
        self._source, self._start, self._position = source, start, 0
        self._size = (source.size if end is None else min(end, source.size)) - start
        self._patches = patches or {}

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer; return their number, 0 at the end."""
        view = memoryview(buffer).cast("B")
        first = self._start + self._position
        try:
            data = self._source.read_at(first, max(0, min(len(view), self._size - self._position)))
        except StorageError as error:  # it cannot pass through the C code of a decoder
            self._source.failures.append(error)
            return 0
        view[: len(data)] = data
        for offset, patch in self._patches.items():
            for i, value in enumerate(patch, offset - first):
                if 0 <= i < len(data):
                    view[i] = value
        self._position += len(data)
        return len(data)


def identity_of(folder: str | PathLike[str]) -> tuple[int, int] | None:
    """Return what differs for another folder, or another drive, at the same path; None if there is none."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _open_regular(path: str | PathLike[str]) -> int:
    """Return a descriptor of a file with bytes in it; a fifo or a device is refused without waiting for it."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise AudioError(MISSING) from None
    except ValueError as error:
        raise AudioError(f"unreadable file ({error})") from error
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise AudioError("not a regular file") from error  # a socket
        if error.errno in OWN_FAULTS:
            raise AudioError(f"unreadable file ({error.strerror})") from error
        raise
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return handle
    os.close(handle)
    raise AudioError("empty file" if stat.S_ISREG(status.st_mode) else "not a regular file")


def _attempt(function: Callable[[], Result]) -> Result:
    """Call a function again after failures of the machine; raise `StorageError` after the last one."""
    for pause in (*PAUSES, None):
        try:
            return function()
        except OSError as error:
            if pause is None:
                reason = error.strerror or str(error)
                raise StorageError(f"the file system failed ({reason})") from error
            time.sleep(pause)
    raise AssertionError
