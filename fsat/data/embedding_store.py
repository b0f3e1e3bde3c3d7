"""Embeddings in the cache folder, found by backbone, layout of the windows, and the content of a clip.

A store ``embeddings/<key>/`` serves every dataset: ``vectors.f32`` has the embeddings of clip after clip, and a journal
has a line for each: the clip's digest, its first row, its number of windows, and a CRC-32, under the line's own
checksum. Both files grow while the store's lock is held. So a computation that is killed loses at most the clips
in progress, other processes can read what is there, and a clip whose embeddings are damaged is computed again: the last
line of a clip counts. A damaged line loses one clip: the next computation replaces the journal by its sound lines.
Whole rows are never removed, since another process may have them mapped; those without a line are not used again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fsat import files, interrupts
from fsat.data.decoded_clips import CHECKED_BYTES, Floats
from fsat.files import JOURNAL

VECTORS = "vectors.f32"


class Rows(NamedTuple):
    """Where a store has the embeddings of a clip, and their CRC-32; the first row and the number of windows."""

    first: int
    n_windows: int
    crc: int


def embeddings_dir() -> Path:
    """Return the folder of the stores of embeddings."""
    return files.cache_dir().absolute() / "embeddings"


class EmbeddingStore:
    """A store of embeddings with `size` values each.

    Attributes:
        folder: the store's; it may not exist yet.
        header: the first line of its journal: ``key``, which identifies the store, and what else is told about it.
        rows: by digest, the clips that the store had when it was read or appended to.
    """

    def __init__(self, folder: Path, size: int, header: dict[str, Any]) -> None:
        self.folder, self.size, self.header = folder, size, header
        self.read()

    def read(self) -> None:
        """Read what the store has, without damaged lines and what a killed process left unfinished; raises OSError."""
        journal, vectors = self.folder / JOURNAL, self.folder / VECTORS
        lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
        n_bytes = vectors.stat().st_size if vectors.exists() else 0  # after the journal, which is written later
        self._n_rows = n_bytes // self._bytes(1)
        header, *entries = [files.read_line(line) for line in lines] or [None]
        if header is not None and header["key"] != self.header["key"]:
            header, entries = None, []
        known = [(entry[0], Rows(*entry[1:])) for entry in entries if entry is not None]
        known = [(digest, rows) for digest, rows in known if rows.first + rows.n_windows <= self._n_rows]
        self.rows: dict[str, Rows] = dict(known)
        self._is_sound = header is not None and len(known) == len(entries)

    def lacking(self, digests: Iterable[str]) -> list[str]:
        """Return those of the clips that the store does not have, or whose embeddings are damaged; raises OSError.

        At most `CHECKED_BYTES` of embeddings are checked.
        """
        result, n_checked = [], 0
        with open(self.folder / VECTORS if self.rows else os.devnull, "rb") as vectors:
            for digest in dict.fromkeys(digests):
                interrupts.check()
                rows = self.rows.get(digest)
                n_checked += self._bytes(rows.n_windows) if rows else 0
                if rows is None or (n_checked <= CHECKED_BYTES and not self._is_whole(vectors, rows)):
                    result.append(digest)
        return result

    def _is_whole(self, vectors: Any, rows: Rows) -> bool:
        vectors.seek(self._bytes(rows.first))
        return zlib.crc32(vectors.read(self._bytes(rows.n_windows))) == rows.crc

    def append(self, computed: Iterable[tuple[str, np.ndarray]]) -> None:
        """Append digest and embeddings, float32 (n_windows, size), of clips as they come; raises OSError.

        The store's lock must be held, and `read` called since.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._is_sound:
            self._replace_journal()
        with (
            open(self.folder / VECTORS, "ab", buffering=0) as vectors,
            open(self.folder / JOURNAL, "ab", buffering=0) as journal,
        ):
            vectors.truncate(self._bytes(self._n_rows))  # which removes a part of a row
            for digest, embeddings in computed:
                interrupts.check()
                values = np.ascontiguousarray(embeddings, "<f4")
                rows = Rows(self._n_rows, len(values), zlib.crc32(values.data))
                files.write_all(vectors, values)
                files.write_all(journal, files.to_line([digest, *rows]))
                self.rows[digest] = rows
                self._n_rows += len(values)
            os.fsync(vectors.fileno())
        self.read()

    def _replace_journal(self) -> None:
        """Write a journal of the clips that the store has."""
        with files.replace_whole(self.folder / JOURNAL) as unfinished:
            lines = [self.header, *([digest, *rows] for digest, rows in self.rows.items())]
            unfinished.write_bytes(b"".join(map(files.to_line, lines)))

    def open(self) -> Floats:
        """Map the embeddings of all clips, float32 (n_rows * size,); raises OSError."""
        return Floats.of_file(self.folder / VECTORS, self._bytes(1))

    def _bytes(self, n_rows: int) -> int:
        return 4 * self.size * n_rows
