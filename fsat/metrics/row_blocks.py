"""Going through arrays of any length a few rows at a time, in threads, in memory that does not grow with the rows.

Conventions: the first axis is clips. What is gone through is a numpy array, a memory map (`open_rows`), or anything
else that gives rows on being sliced (`Rows`). No result may depend on how the rows are cut or on who works on them:
`CHUNK_ELEMENTS` and `THREADS` settle speed and memory alone.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fsat.errors import FsatError

CHUNK_ELEMENTS = 1 << 17
"""Elements a chunk: 1 MiB as float64, so that what is computed with stays in a core's cache. 3196 rows of 41."""

THREADS = min(4, os.cpu_count() or 1)
"""numpy computes outside Python's lock; more threads than that wait for memory."""

WINDOW_BYTES = 1 << 21
"""Touching a mapped page may map its neighbours too, as far as a large page of the page cache goes: 2 MiB."""


class Rows(Protocol):
    """Rows that are computed on demand: ``rows[start:stop]`` is a new array (stop - start, n_classes)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_clips, n_classes)."""

    @property
    def dtype(self) -> np.dtype:
        """What the rows hold."""

    def __getitem__(self, rows: slice) -> np.ndarray:
        """The array of these rows."""


class Ranges:
    """Hands out ``(start, stop)`` of the next rows to whichever thread asks; each range once."""

    def __init__(self, n_rows: int, step: int) -> None:
        self.n_rows, self.step = n_rows, step
        self._starts = iter(range(0, n_rows, step))
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self

    def __next__(self) -> tuple[int, int]:
        with self._lock:
            start = next(self._starts)
        return start, min(start + self.step, self.n_rows)

    def stop(self) -> None:
        """Hand out no more."""
        with self._lock:
            self._starts = iter(())


def ranges(n_rows: int, n_columns: int) -> Ranges:
    """The ranges of rows to go through, `CHUNK_ELEMENTS` elements each."""
    return Ranges(n_rows, max(1, CHUNK_ELEMENTS // max(1, n_columns)))


def in_threads(n_rows: int, n_columns: int, work: Callable[[Ranges], object]) -> None:
    """Call `work` once in each of up to `THREADS` threads; together they go through all ranges.

    Args:
        n_rows, n_columns: of the arrays that are gone through.
        work: loops over the ranges that it is given. It may allocate before its loop what it needs for one chunk, of
            ``step`` rows at most. What it does for one range must not depend on other ranges.

    Raises:
        BaseException: the first that a thread, or a signal, has raised; the others stop after the chunk at hand.
    """
    todo = ranges(n_rows, n_columns)
    threads = min(THREADS, -(-n_rows // todo.step))
    if threads <= 1:
        work(todo)
        return
    with ThreadPoolExecutor(threads, "rows") as pool:
        try:
            futures = [pool.submit(work, todo) for _ in range(threads)]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            todo.stop()
    for future in futures:
        future.result()


def as_rows(values: Any) -> Any:
    """The values themselves if they are an array or `Rows`, else (a list, say) an array of them."""
    return values if hasattr(values, "shape") else np.asarray(values)


def open_rows(path: Path) -> np.ndarray:
    """A .npy file as a memory map that cannot be written to.

    Raises:
        OSError: there is no such file.
        ValueError: it is no .npy file, or is shorter than it says.
    """
    return np.load(path, mmap_mode="r", allow_pickle=False)


def create_rows(path: Path, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """A new .npy file as a memory map to be filled; what is written to it is in the file at once.

    Raises:
        FsatError: the disk has no room for it (writing to the map would end the process).
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise FsatError(
                        f"{path}: cannot be written: {error.strerror}; expected room for {array.nbytes / 1e6:.0f} MB: "
                        "free some, or name another folder for temporary files with TMPDIR"
                    ) from error
    return array


def release(array: np.ndarray) -> None:
    """Let go of the memory that some rows of a memory map take; their content stays in the file.

    Other arrays are left alone. Rows that are used again are mapped again.
    """
    if not isinstance(array, np.memmap) or array.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return  # in mode c, what was written is in memory alone
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not array.size:
        return
    low, high = np.lib.array_utils.byte_bounds(array)
    first = np.frombuffer(base, np.uint8).__array_interface__["data"][0]
    start = (low - first) // WINDOW_BYTES * WINDOW_BYTES
    stop = min(-(-(high - first) // WINDOW_BYTES) * WINDOW_BYTES, len(base))
    base.madvise(mmap.MADV_DONTNEED, start, stop - start)
