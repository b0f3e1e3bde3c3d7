"""Batches for training and for prediction.

Everything random in a training epoch comes from one generator, seeded by (seed, fold, epoch), so an epoch's batches
are the same whatever ran before and however fast it ran.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fsat.config import Config
from fsat.data.audio import even_crops, n_even_crops, random_crop
from fsat.data.features import model_input


def training_batches(
    clips: Sequence[np.ndarray], targets: np.ndarray, n_classes: int, config: Config, fold: int, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One epoch: every clip once, in random order, each as one random crop.

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
    one_hot = np.eye(n_classes, dtype=np.float32)
    for start in range(0, len(order), config.batch_size):
        chosen = order[start : start + config.batch_size]
        crops = np.stack([random_crop(clips[i], config.audio_length, rng) for i in chosen])
        yield model_input(crops, config), one_hot[targets[chosen]]


def evaluation_batches(clips: Sequence[np.ndarray], config: Config, batch_size: int) -> Iterator[np.ndarray]:
    """The fixed crops of every clip, in order, as float32 (batch, *config.dim)."""
    waiting: list[np.ndarray] = []
    for clip in clips:
        waiting.extend(even_crops(clip, config.audio_length, config.eval_crops))
        while len(waiting) >= batch_size:
            yield model_input(np.stack(waiting[:batch_size]), config)
            del waiting[:batch_size]
    if waiting:
        yield model_input(np.stack(waiting), config)


def average_crops(predictions: np.ndarray, clips: Sequence[np.ndarray], config: Config) -> np.ndarray:
    """Mean over each clip's fixed crops.

    Args:
        predictions: (n_crops of all clips, n_classes), in the order of `evaluation_batches`.

    Returns:
        float32 (n_clips, n_classes).
    """
    counts = np.array([n_even_crops(len(clip), config.audio_length, config.eval_crops) for clip in clips])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    sums = np.add.reduceat(predictions.astype(np.float64), starts, axis=0)
    return (sums / counts[:, np.newaxis]).astype(np.float32)
