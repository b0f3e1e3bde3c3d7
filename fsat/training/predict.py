"""Class probabilities of clips by one trained model: fixed crops, averaged, the same on every run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fsat import interrupts
from fsat.config import Config
from fsat.training.batches import average_crops, evaluation_batches

if TYPE_CHECKING:
    import keras

CROPS_PER_BATCH = 64


class Predictor:
    """Predicts the same clips again and again, as validation does after every epoch.

    The inputs of models on MFCC are kept, because they cost more to make than to hold.
    """

    def __init__(self, clips: Sequence[np.ndarray], config: Config) -> None:
        self.clips, self.config = clips, config
        self._kept: list[np.ndarray] | None = None

    def __call__(self, model: keras.Model) -> np.ndarray:
        """Probabilities float32 (n_clips, n_classes); rows sum to 1."""
        if self._kept is not None:
            batches = iter(self._kept)
        else:
            batches = evaluation_batches(self.clips, self.config, CROPS_PER_BATCH)
            if self.config.use_mfcc:
                self._kept = list(batches)
                batches = iter(self._kept)
        parts = []
        for batch in batches:
            parts.append(np.asarray(model.predict_on_batch(batch)))
            interrupts.check()
        if not parts:
            return np.empty((0, model.output_shape[-1]), dtype=np.float32)
        return average_crops(np.concatenate(parts), self.clips, self.config)


def predict_clips(model: keras.Model, clips: Sequence[np.ndarray], config: Config) -> np.ndarray:
    """Probabilities of decoded clips.

    Args:
        model: takes (batch, *config.dim).
        clips: float32 (n_samples,) each, at ``config.sampling_rate``.

    Returns:
        float32 (n_clips, n_classes); rows sum to 1.
    """
    return Predictor(clips, config)(model)


def predict_or_prior(
    model: keras.Model, clips: Sequence[np.ndarray | None], config: Config, prior: np.ndarray
) -> np.ndarray:
    """As `predict_clips`, with `prior` (n_classes,) as the row of every clip that is None."""
    result = np.tile(prior.astype(np.float32), (len(clips), 1))
    usable = [i for i, clip in enumerate(clips) if clip is not None]
    if usable:
        result[usable] = predict_clips(model, [clips[i] for i in usable], config)
    return result
