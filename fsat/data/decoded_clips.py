"""Decoded clips as one sequence, in memory or in a file that may be far larger than memory.

A file is mapped, not read: the system loads the pages that are used. Such pages count as this process's memory until
they are returned, which happens after every `TOUCHED_BYTES`; pages used again come from the system's cache.
"""

from __future__ import annotations

import mmap
import os
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsat import interrupts
from fsat.data.levels import SILENT
from fsat.errors import AudioError
from fsat.files import Damaged, unreadable

if TYPE_CHECKING:
    from fsat.data.embeddings import EmbeddedClips

TOUCHED_BYTES = 128 << 20  # bytes of a mapped file that may be used before its pages are returned
CHECKED_BYTES = 2 << 30  # bytes of a file that are checked when it is opened
_CRC_BYTES = 1 << 20
ABSENT = "the clip is absent"  # error of a row that `Clips.take` leaves empty


class Floats:
    """A flat read-only array, float32 (n,), in memory or mapped from a file. Safe to use from several threads."""

    def __init__(self, values: np.ndarray, mapped: mmap.mmap | None = None) -> None:
        self.values, self._mapped = values, mapped
        self._lock, self._touched = threading.Lock(), 0

    @classmethod
    def of_file(cls, path: Path, row_bytes: int = 4) -> Floats:
        """Map the whole rows of a file of little-endian float32; raises OSError."""
        with open(path, "rb") as file:
            n_bytes = path.stat().st_size // row_bytes * row_bytes
            if not n_bytes:  # an empty file cannot be mapped
                return cls(_read_only(np.empty(0, np.float32)))
            mapped = mmap.mmap(file.fileno(), n_bytes, access=mmap.ACCESS_READ)
        return cls(np.frombuffer(mapped, "<f4"), mapped)

    def touch(self, n_values: int) -> None:
        """Count `n_values` more as used; return the pages to the system when there are many."""
        if self._mapped is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        with self._lock:
            self._touched += 4 * n_values
            if self._touched > TOUCHED_BYTES:
                self._touched = 0
                self._mapped.madvise(mmap.MADV_DONTNEED)  # a shared read-only mapping, so nothing is lost


@dataclass(frozen=True)
class Decoded:
    """All clips that were decoded together, of which `Clips` are views; the attributes as there.

    Attributes:
        samples: clip after clip.
        folder: the clip store; None for clips in memory.
        crcs: uint32 (n,), CRC-32 of each clip's samples; empty for features.
        digests: of each clip's file; empty for clips in memory, and for features.
        features: features of the clips by file name, those already opened and checked.
        embeddings: embeddings of the clips by their key, see `fsat.data.embeddings`.
    """

    samples: Floats
    lengths: np.ndarray
    errors: list[str]
    notes: list[str]
    sampling_rate: int
    folder: Path | None = None
    crcs: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint32))
    digests: Sequence[str] = ()
    features: dict[str, Floats] = field(default_factory=dict)
    embeddings: dict[str, EmbeddedClips] = field(default_factory=dict)

    @cached_property
    def starts(self) -> np.ndarray:
        """First sample of each clip, int64 (n,)."""
        return np.asarray(np.cumsum(self.lengths) - self.lengths)


class Clips:
    """A read-only sequence of decoded clips; ``clips[i]`` is float32 (lengths[i],) in about [-1, 1].

    Attributes:
        decoded: all clips that were decoded together.
        rows: int64 (n,), the index of each clip among these; -1 for a clip that is absent.
        sampling_rate: in Hz.
        lengths: int64 (n,), in samples; 0 for an unusable clip.
        errors: for each clip the reason why it is unusable, '' for usable ones.
        notes: for each clip what is odd about its file or its levels, separated by ``; ``; see `fsat.data.audio.Heard`.
    """

    def __init__(self, decoded: Decoded, rows: np.ndarray | None = None) -> None:
        self.decoded, self.sampling_rate = decoded, decoded.sampling_rate
        self.rows = np.arange(len(decoded.lengths)) if rows is None else rows
        self.lengths = np.append(decoded.lengths, 0)[self.rows]  # row -1 is the 0
        self.errors = [ABSENT if row < 0 else decoded.errors[row] for row in self.rows.tolist()]
        self.notes = ["" if row < 0 else decoded.notes[row] for row in self.rows.tolist()]
        self._starts = np.append(decoded.starts, 0)[self.rows]

    @classmethod
    def from_arrays(cls, arrays: Sequence[np.ndarray | AudioError], sampling_rate: int) -> Clips:
        """Make clips in memory of float32 (n_samples,), n_samples >= 1, or the error of an unusable clip."""
        clips = [np.empty(0, np.float32) if isinstance(array, AudioError) else np.asarray(array) for array in arrays]
        for i, clip in enumerate(clips):
            if clip.dtype != np.float32 or clip.ndim != 1 or (not len(clip) and clip is arrays[i]):
                raise ValueError(f"clip {i}: got {clip.dtype} {clip.shape}, expected float32 (n_samples,)")
        values = _read_only(np.concatenate([np.empty(0, np.float32), *clips]))
        lengths = np.array([len(clip) for clip in clips], dtype=np.int64)
        errors = [str(array) if isinstance(array, AudioError) else "" for array in arrays]
        crcs = np.array([zlib.crc32(np.ascontiguousarray(clip).data) for clip in clips], dtype=np.uint32)
        return cls(Decoded(Floats(values), lengths, errors, [""] * len(clips), sampling_rate, crcs=crcs))

    @property
    def silent(self) -> np.ndarray:
        """Bool (n,): the clip has no sound."""
        return np.array([notes.startswith(SILENT) for notes in self.notes], dtype=bool)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def crcs(self) -> np.ndarray:
        """CRC-32 of each clip's samples, uint32 (n,); 0 for an absent clip."""
        return np.asarray(np.append(self.decoded.crcs, np.uint32(0))[self.rows])

    def __getitem__(self, i: int) -> np.ndarray:
        start, length = int(self._starts[i]), int(self.lengths[i])
        self.decoded.samples.touch(length)
        return self.decoded.samples.values[start : start + length]

    def take(self, indices: np.ndarray) -> Clips:
        """Return a view of the clips of a mask, bool (n,), or of indices, int (m,), -1 for an absent clip."""
        indices = np.asarray(indices)
        if indices.dtype == bool:
            if indices.shape != (len(self),):
                raise IndexError(f"a mask of {indices.shape}, expected ({len(self)},)")
            indices = np.flatnonzero(indices)
        indices = indices.astype(np.int64, casting="same_kind" if indices.size else "unsafe")
        if indices.size and not -1 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"indices {indices.min()} to {indices.max()}, expected -1 to {len(self) - 1}")
        return Clips(self.decoded, np.append(self.rows, -1)[indices])

    def crops(self, indices: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
        """Return a piece of each of these clips, float32 (m, length), writable, with zeros beyond the clip's ends.

        Args:
            indices: int (m,) indices into this sequence.
            starts: int (m,) first sample of each piece; may be negative.
            length: of a piece, in samples.
        """
        indices, starts = np.asarray(indices, np.int64), np.asarray(starts, np.int64)
        memory = np.empty(len(indices) * length + 16, np.float32)
        aligned = -memory.ctypes.data // memory.itemsize % 16  # on a 64-byte boundary TensorFlow makes no copy
        result = memory[aligned : aligned + len(indices) * length].reshape(len(indices), length)
        first = np.maximum(starts, 0)
        last = np.minimum(starts + length, self.lengths[indices])
        offsets = self._starts[indices]
        self.decoded.samples.touch(int(np.maximum(last - first, 0).sum()))
        edges = np.stack([offsets + first, offsets + last, first - starts, last - starts], axis=1)
        values = self.decoded.samples.values
        for row, (source, source_end, target, target_end) in zip(result, edges.tolist(), strict=True):
            if source >= source_end:
                row[:] = 0
                continue
            row[:target] = 0
            row[target:target_end] = values[source:source_end]
            row[target_end:] = 0
        return result


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def check_parts(path: Path, sizes: np.ndarray, crcs: Sequence[int]) -> None:
    """Check the size of a file of parts, and the CRC-32 of all parts, or of evenly spaced `CHECKED_BYTES` of them.

    `sizes` are the bytes of each part, int64 (n,). Raises `Damaged` if anything differs or cannot be read.
    """
    total, n = int(sizes.sum()), len(sizes)
    starts = np.cumsum(sizes) - sizes
    n_checked = n if total <= CHECKED_BYTES else max(2, int(n * CHECKED_BYTES / total))
    checked = np.unique(np.linspace(0, n - 1, n_checked).astype(int)) if n else np.empty(0, int)
    workers = os.cpu_count() or 1

    def check(parts: np.ndarray) -> None:
        with open(path, "rb", buffering=0) as file:
            for part in parts.tolist():
                interrupts.check()
                file.seek(int(starts[part]))
                if read_crc(file, int(sizes[part])) != crcs[part]:
                    raise Damaged(f"part {part + 1} of {n} of {path.name} does not have its checksum")

    with unreadable(path):
        if (size := path.stat().st_size) != total:
            raise Damaged(f"{path.name} has {size} bytes, expected {total}")
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(check, [checked[i::workers] for i in range(workers)]))


def read_crc(file: Any, size: int) -> int | None:
    """Return the CRC-32 of the next `size` bytes of an unbuffered file; None if it ends before."""
    crc, block = 0, memoryview(bytearray(min(size, _CRC_BYTES)))
    while size:
        n = file.readinto(block[: min(size, _CRC_BYTES)])
        if not n:
            return None
        crc = zlib.crc32(block[:n], crc)
        size -= n
    return crc
