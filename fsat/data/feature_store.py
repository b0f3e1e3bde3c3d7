"""Features that are computed once and kept in a file beside the decoded clips that they were made of.

`fixed_features` are the inputs of models on MFCC for the fixed crops that prediction takes, which never change.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from fsat import files, interrupts
from fsat.config import Config
from fsat.data.decoded_clips import Clips, Decoded, Floats, check_parts
from fsat.data.mfcc import fixed_crops, model_input
from fsat.files import INDEX, UNFINISHED, Damaged
from fsat.progress import Progress, say
from fsat.study import RECIPE

FEATURES = 2  # raised when the fixed crops or the MFCC made of the same samples change
_CROPS_PER_BATCH = 64
Batches = Callable[[], Iterable[np.ndarray]]
"""Returns the rows of a file of features, in order, in batches: float32 (rows, ...)."""


def stored_features(decoded: Decoded, name: str, what: str, n_rows: int, width: int, batches: Batches) -> Floats | None:
    """Return features of all clips of a store from a file beside them, which is written if needed.

    The file's name ends in ``.f32`` and must identify all that the values depend on beside the clips; `what` are the
    features in words. Returns float32 (n_rows * width,); None for clips in memory, or if the cache was cleared.
    """
    if decoded.folder is None:
        return None
    path = decoded.folder / name
    if name not in decoded.features and (values := _open_or_write(path, what, n_rows, width, batches)):
        decoded.features[name] = values
    return decoded.features.get(name)


def _open_or_write(path: Path, what: str, n_rows: int, width: int, batches: Batches) -> Floats | None:
    size = 4 * n_rows * width
    with suppress(Damaged):
        if values := _open(path, size):
            return values
    with files.cache_errors(path, lambda: size):
        if not path.parent.parent.is_dir():  # the whole cache was cleared
            return None
        with files.locked(path.parent, f"computing these {what}"):
            if not (path.parent / INDEX).exists():
                return None
            try:
                values = _open(path, size)
            except Damaged as damage:
                say(f"{path.parent}: the {what} are damaged ({damage}); computing them again")
                values = None
            if values is None:
                files.check_space(path.parent, size)
                with Progress(f"computing {what}", n_rows) as progress:
                    _write(path, batches(), lambda batch: progress.advance(batch.size // width))
                values = _open(path, size)
    return values


def _open(path: Path, size: int) -> Floats | None:
    """Open a file of features; None if it does not exist. Raises `Damaged`."""
    facts = files.read_facts(path.with_suffix(".json"))
    if facts is None:
        return None
    if sum(facts["sizes"]) != size:
        raise Damaged(f"{path.name} is that of other clips")
    check_parts(path, np.array(facts["sizes"], dtype=np.int64), facts["crcs"])
    with files.unreadable(path):
        return Floats.of_file(path)


def _write(path: Path, batches: Iterable[np.ndarray], on_batch: Callable[[np.ndarray], None]) -> None:
    """Write batch after batch, then their sizes and checksums; the store's lock must be held."""
    for stray in path.parent.glob(f".*{UNFINISHED}.{path.name}"):  # of a process that was killed
        stray.unlink()
    sizes, crcs = [], []
    with files.replace_whole(path) as unfinished, open(unfinished, "wb", buffering=0) as file:
        for batch in batches:
            interrupts.check()
            files.write_all(file, batch)
            sizes.append(batch.nbytes)
            crcs.append(zlib.crc32(batch.data))
            on_batch(batch)
    files.write_facts(path.with_suffix(".json"), {"sizes": sizes, "crcs": crcs})


class Features:
    """Inputs of a model on MFCC for the `n_crops` fixed crops of each clip, int64 (n_clips,), clip after clip."""

    def __init__(self, clips: Clips, config: Config, stored: Floats | None = None) -> None:
        self.n_crops = fixed_crops(clips.lengths, config).counts
        self._clips, self._config, self._stored = clips, config, stored
        if stored is not None:  # the rows of these clips among those of all
            counts = fixed_crops(clips.decoded.lengths, config).counts
            starts = np.append(np.cumsum(counts) - counts, 0)[clips.rows]
            own_starts = np.cumsum(self.n_crops) - self.n_crops
            self._stored_rows = np.repeat(starts - own_starts, self.n_crops) + np.arange(len(self))

    def __len__(self) -> int:
        return int(self.n_crops.sum())

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the inputs of these crops, float32 (stop - start, *config.dim), writable."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start} to {stop}, expected 0 to {len(self)}")
        if self._stored is None:
            return self._computed[start:stop].copy()
        values = self._stored.values.reshape(-1, *self._config.dim)
        self._stored.touch((stop - start) * values[:1].size)
        return values[self._stored_rows[start:stop]]

    @cached_property
    def _computed(self) -> np.ndarray:
        return np.concatenate([np.empty((0, *self._config.dim), np.float32), *_inputs(self._clips, self._config)])


def fixed_features(clips: Clips, config: Config) -> Features:
    """Return the MFCC of every clip's fixed crops, computed once for all clips of the store, and stored beside them.

    For clips in memory they are computed in memory at their first use.
    """
    if not config.use_mfcc or config.sampling_rate != clips.sampling_rate:
        raise ValueError(f"{config.model} at {config.sampling_rate} Hz, expected MFCC at {clips.sampling_rate} Hz")
    all_clips = Clips(clips.decoded)
    key = files.key_of([FEATURES, RECIPE, config.audio_length, config.eval_crops, config.n_mfcc])
    n_crops, size = len(fixed_crops(all_clips.lengths, config).clips), config.dim[0] * config.dim[1]
    name, batches = f"features-{key}.f32", partial(_inputs, all_clips, config)
    return Features(clips, config, stored_features(clips.decoded, name, "MFCC", n_crops, size, batches))


def _inputs(clips: Clips, config: Config) -> Iterator[np.ndarray]:
    """Compute the fixed crops' MFCC, batch by batch."""
    crops = fixed_crops(clips.lengths, config)
    for batch in crops.batches(_CROPS_PER_BATCH):
        yield model_input(clips.crops(crops.clips[batch], crops.starts[batch], config.audio_length), config)
