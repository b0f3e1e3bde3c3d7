"""Embeddings of clips: the output of a backbone for each window of a clip, computed once.

The windows of a clip are as long as `Config.audio_duration`, evenly spaced, and at most `Config.window_hop` apart; a
shorter clip is centred in zeros. For clips of a store, the embeddings go to an `EmbeddingStore`, which all datasets,
folds, seeds and heads share; for clips in memory they are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from fsat import files
from fsat.config import Config
from fsat.data.clip_store import FORMAT
from fsat.data.decoded_clips import Clips, Floats
from fsat.data.embedding_store import EmbeddingStore, embeddings_dir
from fsat.data.mfcc import FixedCrops, fixed_crops
from fsat.errors import FsatError, WindowError
from fsat.files import Damaged
from fsat.parallel.executor import Threads
from fsat.progress import Progress, say

EMBEDDINGS = 1  # raised when the embeddings of the same samples change
BATCH_BYTES = 32 << 20  # of the windows that are embedded together
AT_ONCE = 2  # batches in progress, so that no core waits for the last windows of a batch

Embed = Callable[[np.ndarray], np.ndarray]
"""Maps windows, float32 (n, audio_length), to embeddings, float32 (n, size)."""


@dataclass(frozen=True)
class EmbeddedClips:
    """Embeddings of all clips that were decoded together.

    `values` are float32 (n_rows * size,); `first` and `counts`, int64 (n_clips,), are each clip's first row and number
    of windows, 0 for an unusable clip.
    """

    values: Floats
    first: np.ndarray
    counts: np.ndarray


class Embeddings:
    """Embeddings of clips; `n_windows` is int64 (n_clips,), 0 for an unusable clip."""

    def __init__(self, embedded: EmbeddedClips, rows: np.ndarray, size: int) -> None:
        self._values, self._size = embedded.values, size
        self._first = np.append(embedded.first, 0)[rows]  # row -1, of an absent clip, is the 0
        self.n_windows = np.append(embedded.counts, 0)[rows]

    def windows(self, indices: np.ndarray, starts: np.ndarray, count: int) -> np.ndarray:
        """Return `count` windows of each of these usable clips, float32 (m, count, size), writable.

        Args:
            indices: int (m,) clips.
            starts: int (m,) first window of each; after its last window a clip begins anew.
            count: of windows.
        """
        numbers = (np.asarray(starts)[:, np.newaxis] + np.arange(count)) % self.n_windows[indices][:, np.newaxis]
        self._values.touch(numbers.size * self._size)
        rows = self._first[indices][:, np.newaxis] + numbers
        return np.asarray(self._values.values.reshape(-1, self._size)[rows])

    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and deviation of each value over all windows of all clips, float64 (size,)."""
        sums, squares = np.zeros((2, self._size))
        usable = np.flatnonzero(self.n_windows)
        for i in usable.tolist():
            vectors = self.windows(np.array([i]), np.array([0]), int(self.n_windows[i]))[0].astype(np.float64)
            sums, squares = sums + vectors.sum(axis=0), squares + np.square(vectors).sum(axis=0)
        n = max(1, int(self.n_windows.sum()))
        mean = sums / n
        return mean, np.sqrt(np.maximum(0, squares / n - np.square(mean)))


def window_crops(lengths: np.ndarray, config: Config) -> FixedCrops:
    """Return the windows of clips, whose lengths are int (n_clips,), in samples; see `fixed_crops`."""
    hop = max(1, round(config.sampling_rate * config.window_hop))
    spare = np.maximum(np.asarray(lengths) - config.audio_length, 0)
    return fixed_crops(lengths, config, least=1 + -(-spare // hop))


def embeddings(clips: Clips, config: Config) -> Embeddings:
    """Return the embeddings of clips, for which `embed_clips` was called before."""
    if (embedded := clips.decoded.embeddings.get(_key(config))) is None:
        raise ValueError(f"the clips have no embeddings by {config.backbone}; call embed_clips first")
    return Embeddings(embedded, clips.rows, config.embedding_size)


def embed_clips(clips: Clips, config: Config, open_backbone: Callable[[], Embed]) -> None:
    """Compute the embeddings of all clips that were decoded with these, or find them in the cache folder.

    `open_backbone` is called if there are any to compute. Raises `FsatError` if the disk is full, `WindowError` with
    the index among all clips, or whatever the backbone raises; what was computed before is kept.
    """
    if not config.backbone_digest or config.sampling_rate != clips.sampling_rate:
        raise ValueError(
            f"{config.backbone} at {config.sampling_rate} Hz, expected a backbone for {clips.sampling_rate}"
        )
    decoded, key = clips.decoded, _key(config)
    if key in decoded.embeddings:
        return
    every = Clips(decoded)
    if decoded.folder is None:
        vectors = [rows for _, rows in embed_each(every, np.flatnonzero(every.lengths), config, open_backbone())]
        values = np.concatenate([np.empty((0, config.embedding_size), np.float32), *vectors])
        counts = window_crops(every.lengths, config).counts
        decoded.embeddings[key] = EmbeddedClips(Floats(values.ravel()), np.cumsum(counts) - counts, counts)
    else:
        decoded.embeddings[key] = _stored(every, config, open_backbone)


def _key(config: Config) -> str:
    layout = [config.sampling_rate, config.audio_length, config.window_hop, config.eval_crops]
    return files.key_of([EMBEDDINGS, FORMAT, config.backbone_digest, config.embedding_size, *layout])


def store_of(config: Config) -> EmbeddingStore:
    """Return the store of the embeddings by the backbone and the windows of a Config."""
    key = _key(config)
    header = {"key": key, "backbone": config.backbone, "size": config.embedding_size}
    folder = embeddings_dir() / key
    with files.cache_errors(folder):
        return EmbeddingStore(folder, config.embedding_size, header)


def _stored(clips: Clips, config: Config, open_backbone: Callable[[], Embed]) -> EmbeddedClips:
    """Return the embeddings of a clip store's clips from the cache folder, after computing those that it lacks."""
    store = store_of(config)
    digests = [digest if length else "" for digest, length in zip(clips.decoded.digests, clips.lengths, strict=True)]
    wanted = [digest for digest in digests if digest]
    counts, lacking = window_crops(clips.lengths, config).counts, list[str]()
    with files.cache_errors(store.folder, lambda: _bytes_of(digests, lacking, counts, config)):
        if store.lacking(wanted):
            store.folder.parent.mkdir(parents=True, exist_ok=True)
            with files.locked(store.folder, "computing these embeddings"):
                store.read()
                lacking += store.lacking(wanted)
                if damaged := [digest for digest in lacking if digest in store.rows]:
                    say(f"{store.folder}: the embeddings of {len(damaged)} clips are damaged; computing them again")
                files.check_space(store.folder, _bytes_of(digests, lacking, counts, config))
                by_digest = {digest: i for i, digest in enumerate(digests)}
                if chosen := [by_digest[digest] for digest in lacking]:
                    store.append(_progress(clips, np.array(chosen), digests, config, open_backbone()))
            if lacking := store.lacking(wanted):
                raise Damaged(f"{len(lacking)} clips are missing or damaged")
        empty = (0, 0, 0)
        rows = np.array([store.rows[digest] if digest else empty for digest in digests], np.int64).reshape(-1, 3)
        return EmbeddedClips(store.open(), rows[:, 0], rows[:, 1])


def _bytes_of(digests: list[str], chosen: list[str], counts: np.ndarray, config: Config) -> int:
    """Return the size of the embeddings of the chosen clips."""
    by_digest = dict(zip(digests, counts.tolist(), strict=True))
    return int(4 * config.embedding_size * sum(by_digest[digest] for digest in chosen))


def _progress(
    clips: Clips, chosen: np.ndarray, digests: list[str], config: Config, embed: Embed
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield digest and embeddings of the chosen clips, with a progress line."""
    name = config.backbone.partition("@")[0]
    with Progress(f"computing embeddings by {name}", len(chosen)) as progress:
        for index, vectors in embed_each(clips, chosen, config, embed):
            yield digests[index], vectors
            progress.advance()


def embed_each(clips: Clips, chosen: np.ndarray, config: Config, embed: Embed) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the index and the embeddings, float32 (n_windows, size), of each of the chosen usable clips, in order.

    Raises `WindowError` with the index of a clip for which the backbone has none, perhaps before earlier ones are
    yielded.
    """
    crops = window_crops(clips.lengths[chosen], config)
    size = max(1, BATCH_BYTES // (4 * config.audio_length))

    def compute(batch: slice) -> np.ndarray:
        indices = chosen[crops.clips[batch]]
        windows = clips.crops(indices, crops.starts[batch], config.audio_length)
        try:
            return embed(windows)
        except WindowError as failure:
            for index, window in zip(indices.tolist(), windows, strict=True):
                try:
                    embed(window[np.newaxis])
                except WindowError as error:
                    error.index = index
                    raise
            raise FsatError(str(failure)) from failure  # no window fails alone

    rest, clip = np.empty((0, config.embedding_size), np.float32), 0
    with closing(Threads(AT_ONCE, AT_ONCE).map(compute, crops.batches(size))) as batches:
        for vectors in batches:
            rest = np.concatenate([rest, vectors])
            while clip < len(chosen) and len(rest) >= (n_windows := int(crops.counts[clip])):
                yield int(chosen[clip]), rest[:n_windows]
                rest, clip = rest[n_windows:], clip + 1
