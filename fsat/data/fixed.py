"""The inputs of models on MFCC for the crops that prediction takes, which never change: computed once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from fsat.config import Config
from fsat.data.clips import Clips, Floats
from fsat.data.feature_store import kept_features
from fsat.data.mfcc import fixed_crops, model_input
from fsat.files import key_of
from fsat.study import RECIPE

FEATURES = 1
"""Raised when the fixed crops or the MFCC made of the same samples change."""

_CROPS_PER_BATCH = 64


class Features:
    """What a model on MFCC takes in for the fixed crops of clips, clip after clip.

    Attributes:
        n_crops: int64 (n_clips,), how many rows each clip has; 0 where it cannot be used.
    """

    def __init__(self, clips: Clips, config: Config, kept: Floats | None = None) -> None:
        self.n_crops = fixed_crops(clips.lengths, config).counts
        self._clips, self._config, self._kept = clips, config, kept
        if kept is not None:  # where the rows of these clips are among those of all
            counts = fixed_crops(clips.whole.lengths, config).counts
            starts = np.append(np.cumsum(counts) - counts, 0)[clips.rows]
            own_starts = np.cumsum(self.n_crops) - self.n_crops
            self._places = np.repeat(starts - own_starts, self.n_crops) + np.arange(len(self))

    def __len__(self) -> int:
        return int(self.n_crops.sum())

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The inputs of these crops, float32 (stop - start, *config.dim), writable."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start} to {stop}, expected 0 to {len(self)}")
        if self._kept is None:
            return self._computed[start:stop].copy()
        values = self._kept.values.reshape(-1, *self._config.dim)
        self._kept.touch((stop - start) * values[:1].size)
        return values[self._places[start:stop]]

    @cached_property
    def _computed(self) -> np.ndarray:
        return np.concatenate([np.empty((0, *self._config.dim), np.float32), *_inputs(self._clips, self._config)])


def fixed_features(clips: Clips, config: Config) -> Features:
    """The MFCC of every clip's fixed crops, computed once and kept beside the clips.

    Those of all clips that were decoded together are computed at once, whichever are asked for. For clips in memory
    they are computed in memory when they are first asked for.

    Args:
        clips: at ``config.sampling_rate``.
        config: of a model on MFCC.

    Raises:
        FsatError: the disk is full, or the cache folder cannot be written.
    """
    if not config.use_mfcc or config.sampling_rate != clips.sampling_rate:
        raise ValueError(f"{config.model} at {config.sampling_rate} Hz, expected MFCC at {clips.sampling_rate} Hz")
    whole = Clips(clips.whole)
    key = key_of([FEATURES, RECIPE, config.audio_length, config.eval_crops, config.n_mfcc])
    kept = kept_features(
        clips.whole,
        f"features-{key}.f32",
        "MFCC",
        len(fixed_crops(whole.lengths, config).which),
        config.dim[0] * config.dim[1],
        lambda: _inputs(whole, config),
    )
    return Features(clips, config, kept)


def _inputs(clips: Clips, config: Config) -> Iterator[np.ndarray]:
    """The fixed crops' MFCC, batch by batch."""
    crops = fixed_crops(clips.lengths, config)
    for batch in crops.batches(_CROPS_PER_BATCH):
        yield model_input(clips.crops(crops.which[batch], crops.starts[batch], config.audio_length), config)
