"""Process arrays of any length in blocks of rows, in threads, in memory that does not grow with the rows.

Conventions: the first axis is clips. `Scores` are a numpy array, a memory map (`open_rows`), or any object that returns
rows when sliced (`Rows`). No result may depend on how the rows are cut or on which thread works on them:
`CHUNK_ELEMENTS` and `THREADS` affect speed and memory only.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fsat.errors import FsatError
from fsat.files import is_full

CHUNK_ELEMENTS = 1 << 17  # of a block: 1 MiB as float64, which stays in a core's cache
THREADS = min(4, os.cpu_count() or 1)  # numpy computes outside the interpreter lock; more would wait for memory
WINDOW_BYTES = 1 << 21  # touching a mapped page may map its neighbours, up to a large page of the page cache


class Rows(Protocol):
    """Rows that are computed on demand: ``rows[start:stop]`` is a new array (stop - start, n_classes)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_clips, n_classes)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""

    def __getitem__(self, rows: slice) -> np.ndarray:
        """The array of these rows."""


Scores = np.ndarray | Rows  # float (n_clips, n_classes)


class Ranges:
    """Hand out ``(start, stop)`` of the next `CHUNK_ELEMENTS` to whichever thread asks; each range once."""

    def __init__(self, n_rows: int, n_columns: int) -> None:
        self.n_rows, self.step = n_rows, max(1, CHUNK_ELEMENTS // max(1, n_columns))
        self._starts = iter(range(0, n_rows, self.step))
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self

    def __next__(self) -> tuple[int, int]:
        with self._lock:
            start = next(self._starts)
        return start, min(start + self.step, self.n_rows)

    def stop(self) -> None:
        """Hand out no more ranges."""
        with self._lock:
            self._starts = iter(())


def in_threads(n_rows: int, n_columns: int, work: Callable[[Ranges], object]) -> None:
    """Call `work` once in each of up to `THREADS` threads; together they loop over all ranges.

    `work` may allocate scratch arrays of ``step`` rows before its loop. The first error of a thread, or a signal, is
    raised; the other threads stop after their current range.
    """
    remaining = Ranges(n_rows, n_columns)
    threads = min(THREADS, -(-n_rows // remaining.step))
    if threads <= 1:
        work(remaining)
        return
    with ThreadPoolExecutor(threads, "rows") as pool:
        try:
            futures = [pool.submit(work, remaining) for _ in range(threads)]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            remaining.stop()
    for future in futures:
        future.result()


def map_blocks(scores: Scores, work: Callable[[slice, np.ndarray], object]) -> None:
    """Call ``work(rows, scores[rows])`` for each block of rows, in threads."""

    def loop(row_ranges: Ranges) -> None:
        for rows, block in _blocks(scores, row_ranges):
            work(rows, block)

    n_rows, n_columns = scores.shape
    in_threads(n_rows, n_columns, loop)


def iter_blocks(scores: Scores) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield each block of rows as ``(rows, scores[rows])``, in order."""
    n_rows, n_columns = scores.shape
    return _blocks(scores, Ranges(n_rows, n_columns))


def _blocks(scores: Scores, row_ranges: Ranges) -> Iterator[tuple[slice, np.ndarray]]:
    for start, stop in row_ranges:
        block = scores[start:stop]
        yield slice(start, stop), block
        release(block)


def as_rows(values: Any) -> Any:
    """Return `values` if it is an array or `Rows`, else (a list, for example) an array of it."""
    return values if hasattr(values, "shape") else np.asarray(values)


def open_rows(path: Path) -> np.ndarray:
    """Open a .npy file as a read-only memory map; raises OSError, or ValueError if it is not one or is truncated."""
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def create_rows(path: Path, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """Create a .npy file as a writable map; raises FsatError if the disk is full, as writing would end the process."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            except OSError as error:
                if is_full(error):
                    expected = f"expected {array.nbytes / 1e6:.0f} MB of free space"
                    advice = "free some, or name another folder for temporary files with TMPDIR"
                    raise FsatError(f"{path}: cannot be written: {error.strerror}; {expected}: {advice}") from error
    return array


def release(array: np.ndarray) -> None:
    """Return the memory of rows of a memory map to the system; the file keeps their content. Ignore other arrays."""
    if not isinstance(array, np.memmap) or array.mode == "c" or not array.size or not hasattr(mmap, "MADV_DONTNEED"):
        return  # in mode c, written values are in memory only
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap):
        return
    low, high = np.lib.array_utils.byte_bounds(array)
    first = np.frombuffer(base, np.uint8).__array_interface__["data"][0]
    start = (low - first) // WINDOW_BYTES * WINDOW_BYTES
    stop = min(-(-(high - first) // WINDOW_BYTES) * WINDOW_BYTES, len(base))
    base.madvise(mmap.MADV_DONTNEED, start, stop - start)
