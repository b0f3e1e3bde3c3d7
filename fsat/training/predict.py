"""Class probabilities of clips by one trained model: fixed crops, averaged, the same on every run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fsat import interrupts
from fsat.config import Config
from fsat.data.clips import Clips
from fsat.data.fixed import fixed_features
from fsat.data.logmel import spectra
from fsat.parallel.executor import Threads
from fsat.training.batches import AHEAD, WORKERS, average_crops, evaluation_batches, evaluation_crops

if TYPE_CHECKING:
    import keras

CROPS_PER_BATCH = 64


class Predictor:
    """Predicts the same clips again and again: by one model after every epoch, or by many that share their features.

    MFCC and spectrograms are computed once and kept, in the clips' store where they have one.

    Args:
        clips: decoded clips; unusable ones, of length 0, get no prediction.
        config: of the model, or of all the models that share crops and features.
        keep: whether MFCC may be kept.
    """

    def __init__(self, clips: Clips, config: Config, keep: bool = True) -> None:
        self.clips, self.config = clips, config
        self.usable = clips.lengths > 0
        self._features = fixed_features(clips, config) if config.use_mfcc and keep else None
        self._spectra = spectra(clips, config) if config.use_logmel else None
        self.crops = evaluation_crops(clips, config, self._spectra)

    def batches(self) -> Iterator[np.ndarray]:
        """The models' inputs of all fixed crops, in the order of `crops`, as `evaluation_batches` yields them."""
        if self._features is None:
            return evaluation_batches(self.clips, self.config, CROPS_PER_BATCH, self._spectra)
        total = len(self.crops.which)
        return Threads(WORKERS, AHEAD).map(
            lambda first: self._features.rows(first, min(first + CROPS_PER_BATCH, total)),
            range(0, total, CROPS_PER_BATCH),
        )

    def __call__(self, *models: keras.Model) -> list[np.ndarray]:
        """Predict by each model, batch by batch, so that each input is made once for all of them.

        Returns:
            for each model float32 (n_clips, n_classes); rows sum to 1, rows of unusable clips are NaN.
        """
        parts: list[list[np.ndarray]] = [[] for _ in models]
        for batch in self.batches():
            for model, part in zip(models, parts, strict=True):
                part.append(np.asarray(model.predict_on_batch(batch)))
                interrupts.check()
        results = []
        for model, part in zip(models, parts, strict=True):
            result = np.full((len(self.clips), model.output_shape[-1]), np.nan, dtype=np.float32)
            if part:
                predictions = np.empty((len(self.crops.which), model.output_shape[-1]), dtype=np.float32)
                predictions[self.crops.places] = np.concatenate(part)
                result[self.usable] = average_crops(predictions, self.crops.counts[self.usable])
            results.append(result)
        return results


def predict_clips(model: keras.Model, clips: Clips, config: Config) -> np.ndarray:
    """Probabilities of decoded clips.

    Args:
        model: takes (batch, *config.dim).
        clips: at ``config.sampling_rate``.

    Returns:
        float32 (n_clips, n_classes); rows sum to 1, rows of unusable clips are NaN.
    """
    return Predictor(clips, config)(model)[0]


def predict_or_prior(model: keras.Model, clips: Clips, config: Config, prior: np.ndarray) -> np.ndarray:
    """As `predict_clips`, with `prior` (n_classes,) as the row of every clip that is unusable."""
    result = predict_clips(model, clips, config)
    result[clips.lengths == 0] = prior
    return result
