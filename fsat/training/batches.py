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
from fsat.data.features import fixed_crops, model_input
from fsat.threads import in_order

WORKERS = 2
"""Threads that make batches ahead of the model."""

AHEAD = 3
"""Batches that wait for the model at most."""


def training_batches(
    clips: Clips, targets: np.ndarray, n_classes: int, config: Config, fold: int, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One epoch: every clip once, in random order, each as one random crop.

    A clip that is shorter than a crop comes whole, at a random place in zeros, as the notebook has it.

    Args:
        clips: decoded clips of the training split.
        targets: int (n_clips,).
        n_classes: width of the one-hot targets.
        config: gives batch size, crop and features.
        fold, epoch: with ``config.seed`` they fix order and crops.

    Yields:
        inputs float32 (batch, *config.dim) and one-hot targets float32 (batch, n_classes); the last batch may be
        smaller.
    """
    rng = np.random.default_rng([config.seed, fold, epoch])
    order = rng.permutation(len(clips))
    spare = clips.lengths[order] - config.audio_length
    starts = rng.integers(np.abs(spare) + 1) * np.sign(spare)
    one_hot = np.eye(n_classes, dtype=np.float32)

    def make(first: int) -> tuple[np.ndarray, np.ndarray]:
        some = slice(first, first + config.batch_size)
        crops = clips.crops(order[some], starts[some], config.audio_length)
        return model_input(crops, config), one_hot[targets[order[some]]]

    return in_order(make, range(0, len(order), config.batch_size), WORKERS, AHEAD)


def evaluation_batches(clips: Clips, config: Config, batch_size: int) -> Iterator[np.ndarray]:
    """The fixed crops of every clip, in order, as float32 (batch, *config.dim)."""
    which, starts, _ = fixed_crops(clips.lengths, config)

    def make(first: int) -> np.ndarray:
        some = slice(first, first + batch_size)
        return model_input(clips.crops(which[some], starts[some], config.audio_length), config)

    return in_order(make, range(0, len(which), batch_size), WORKERS, AHEAD)


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
