"""Embeddings of files that are no dataset: decoded one after the other, and kept in the cache folder.

They are the embeddings of `fsat.data.embeddings`, in the same stores, so that files that belong to a dataset too are
embedded once. Decoded samples are not kept, so that a folder of any size takes the space of its embeddings only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numpy as np

from fsat import files as disk
from fsat.config import Config
from fsat.data.audio import even_starts
from fsat.data.clip_store import ClipFile, decode_files
from fsat.data.decoded_clips import Clips
from fsat.data.embedding_store import EmbeddingStore
from fsat.data.embeddings import BATCH_BYTES, Embed, embed_each, store_of, window_crops
from fsat.errors import WindowError
from fsat.progress import Progress


class FileEmbeddings:
    """Embeddings of files in a store of the cache folder.

    Attributes:
        errors: why files have no embeddings, by digest.
    """

    def __init__(self, store: EmbeddingStore, errors: dict[str, str]) -> None:
        self.errors, self._store, self._values = errors, store, store.open() if store.rows else None

    def windows(self, digest: str) -> np.ndarray:
        """Return the embeddings of a file without an error, float32 (n_windows, size)."""
        assert self._values is not None
        rows, size = self._store.rows[digest], self._store.size
        self._values.touch(rows.n_windows * size)
        start = rows.first * size
        return np.array(self._values.values[start : start + rows.n_windows * size].reshape(-1, size))

    def mean(self, digest: str) -> np.ndarray:
        """Return the mean of a file's embeddings, float64 (size,)."""
        return np.asarray(self.windows(digest).mean(axis=0, dtype=np.float64))


def embed_files(files: Sequence[ClipFile], config: Config, open_backbone: Callable[[], Embed]) -> FileEmbeddings:
    """Compute the embeddings of files with a digest, or find them in the cache folder.

    `open_backbone` is called if there are any to compute. A file that cannot be decoded, or for which the backbone has
    no embedding, has an error. Raises as `fsat.data.clip_store.open_clips`, or whatever the backbone raises; what was
    computed before is kept.
    """
    by_digest, errors = {file.digest: file for file in files}, dict[str, str]()
    lacking: list[str] = []
    store = store_of(config)

    def n_bytes() -> int:
        lengths = np.array([length_at(by_digest[digest], config.sampling_rate) for digest in lacking], np.int64)
        return int(4 * config.embedding_size * window_crops(lengths, config).counts.sum())

    with disk.cache_errors(store.folder, n_bytes):
        if store.lacking(by_digest):
            store.folder.parent.mkdir(parents=True, exist_ok=True)
            with disk.locked(store.folder, "computing these embeddings"):
                store.read()
                lacking += store.lacking(by_digest)
                disk.check_space(store.folder, n_bytes())
                if chosen := [by_digest[digest] for digest in lacking]:
                    store.append(_computed(chosen, config, open_backbone(), errors))
            if missing := [digest for digest in by_digest if digest not in store.rows and digest not in errors]:
                raise disk.Damaged(f"{len(missing)} clips are missing")
        return FileEmbeddings(store, errors)


def length_at(file: ClipFile, sampling_rate: int) -> int:
    """Return the length of a file at another rate by its header, in samples."""
    return max(1, round(file.frames * sampling_rate / max(1, file.samplerate)))


def window_spans(length: int, n_windows: int, config: Config) -> np.ndarray:
    """Return start and end of each window of a clip in seconds, float64 (n_windows, 2), within the clip.

    Args:
        length: of the clip at `Config.sampling_rate`, in samples.
        n_windows: as many as `window_crops` gives.
        config: has the length of the windows.
    """
    starts = np.array(even_starts(length, config.audio_length, n_windows))
    ends = starts + config.audio_length
    return np.asarray(np.clip(np.stack([starts, ends], axis=1), 0, length) / config.sampling_rate)


def _computed(
    files: Sequence[ClipFile], config: Config, embed: Embed, errors: dict[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield digest and embeddings of files in order; add the reasons of those without embeddings to `errors`."""
    name = config.backbone.partition("@")[0]
    with Progress(f"computing embeddings by {name}", len(files)) as progress:
        for group in _decoded(files, config.sampling_rate, errors, progress):
            clips = Clips.from_arrays([samples for _, samples in group], config.sampling_rate)
            lacking = list(range(len(group)))
            while lacking:
                try:
                    for index, vectors in embed_each(clips, np.array(lacking), config, embed):
                        yield group[index][0], vectors
                        lacking.remove(index)
                        progress.advance()
                except WindowError as error:
                    errors[group[error.index][0]] = str(error)
                    lacking.remove(error.index)
                    progress.advance()


def _decoded(
    files: Sequence[ClipFile], sampling_rate: int, errors: dict[str, str], progress: Progress
) -> Iterator[list[tuple[str, np.ndarray]]]:
    """Yield groups of digests and samples, of about `BATCH_BYTES` each."""
    group: list[tuple[str, np.ndarray]] = []
    n_bytes = 0
    with closing(decode_files(files, sampling_rate)) as decoded:
        for file, (samples, error, _) in zip(files, decoded, strict=True):
            if error:
                errors[file.digest] = error
                progress.advance()
                continue
            group.append((file.digest, samples))
            n_bytes += samples.nbytes
            if n_bytes >= BATCH_BYTES:
                yield group
                group, n_bytes = [], 0
    if group:
        yield group
