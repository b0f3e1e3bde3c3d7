"""Batches for training and for prediction.

Everything random in a training epoch comes from one generator, seeded by (seed, fold, epoch), and is drawn before the
first batch is made. So an epoch's batches are the same whatever ran before, however fast it ran, and whichever of the
`WORKERS` threads made them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fsat.config import Config
from fsat.data.clips import Clips
from fsat.data.logmel import Spectra, band_levels, crop_frames, spectra
from fsat.data.mfcc import FixedCrops, fixed_crops, model_input
from fsat.parallel.executor import Threads
from fsat.training.augment import cut, draw, mask, mix
from fsat.training.targets import Lessons, targets_of

WORKERS = 2
"""Threads that make batches ahead of the model."""

AHEAD = 3
"""Batches that wait for the model at most."""


class TrainingClips:
    """The clips that a fold trains on, and what is taught about them.

    Args:
        clips: decoded clips of the training split.
        lessons: about them.
        config: gives batch size, crop, features and augmentation.
    """

    def __init__(self, clips: Clips, lessons: Lessons, config: Config) -> None:
        self.clips, self.lessons, self.config = clips, lessons, config
        self.spectra = spectra(clips, config) if config.use_logmel else None
        self.levels = band_levels(self.spectra) if self.spectra else None

    def n_batches(self, epoch: int) -> int:
        """Batches of an epoch."""
        taking_part = int(np.count_nonzero(self.lessons.weights(self.config, epoch)))
        return -(-taking_part // self.config.batch_size)

    def batches(self, fold: int, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One epoch: every clip with a weight once, in random order, each as one random crop.

        A clip that is shorter than a crop comes whole, at a random place in zeros, as the notebook has it.

        Args:
            fold, epoch: with ``config.seed`` they fix all that is random.

        Yields:
            inputs float32 (batch, *config.dim) and targets as `fsat.training.targets.targets_of` makes them; the last
            batch may be smaller.
        """
        config, source = self.config, self.spectra
        weights = self.lessons.weights(config, epoch)
        rng = np.random.default_rng([config.seed, fold, epoch])
        lengths, crop = (source.n_frames, config.n_frames) if source else (self.clips.lengths, config.audio_length)
        draws = draw(rng, np.flatnonzero(weights), lengths, crop, config)

        def make(first: int) -> tuple[np.ndarray, np.ndarray]:
            some = slice(first, min(first + config.batch_size, len(draws.order)))
            targets = targets_of(self.lessons, weights, draws, some, config)
            if source:
                crops = mix(cut(source, draws, some, config), draws, some)
                return mask(crops, draws, some, self.levels[0])[..., np.newaxis], targets
            crops = self.clips.crops(draws.order[some], draws.starts[some], config.audio_length)
            return mix(model_input(crops, config), draws, some), targets

        return Threads(WORKERS, AHEAD).map(make, range(0, len(draws.order), config.batch_size))


def evaluation_crops(clips: Clips, config: Config, source: Spectra | None = None) -> FixedCrops:
    """The crops for prediction, in samples, or in frames of the clips' spectrograms for models on them."""
    if source:
        return fixed_crops(source.n_frames, config, crop_frames(source.n_frames, config))
    return fixed_crops(clips.lengths, config)


def evaluation_batches(
    clips: Clips, config: Config, batch_size: int, source: Spectra | None = None
) -> Iterator[np.ndarray]:
    """The fixed crops of every clip, as `evaluation_crops` orders them.

    Args:
        clips: decoded clips.
        config: gives crops and features.
        batch_size: crops in a batch at most.
        source: the clips' spectrograms, for models on them.

    Yields:
        float32 (batch, *config.dim); of spectrograms, more frames where `eval_duration` allows it.
    """
    crops = evaluation_crops(clips, config, source)

    def make(some: slice) -> np.ndarray:
        which, starts, length = crops.which[some], crops.starts[some], int(crops.lengths[some.start])
        if source:
            return source.crops(which, starts, length)[..., np.newaxis]
        return model_input(clips.crops(which, starts, length), config)

    return Threads(WORKERS, AHEAD).map(make, crops.batches(batch_size))


def average_crops(predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over each clip's fixed crops.

    Args:
        predictions: (n_crops of all clips, n_classes), clip after clip.
        counts: int (n_clips,), crops of each clip, at least 1.

    Returns:
        float32 (n_clips, n_classes).
    """
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    sums = np.add.reduceat(predictions.astype(np.float64), starts, axis=0)
    return (sums / counts[:, np.newaxis]).astype(np.float32)
