"""Predict clips by trained models: the mean over fixed crops, reproducible bit by bit."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from fsat import interrupts
from fsat.config import Config
from fsat.data.decoded_clips import Clips
from fsat.data.embeddings import embeddings
from fsat.data.feature_store import fixed_features
from fsat.data.logmel import crop_frames, spectra
from fsat.data.mfcc import fixed_crops, model_input
from fsat.parallel.executor import Threads
from fsat.training.batches import AHEAD, WORKERS

if TYPE_CHECKING:
    import keras

CROPS_PER_BATCH = 64


class Predictor:
    """Predict the same clips repeatedly: by one model after every epoch, or by several that share their features.

    MFCC (unless `keep` is False) and spectrograms are computed once and cached with the clips; embeddings have been
    before, by `embed_clips`. Clips of length 0 are unusable. Crops cover the clips unless `cover` is False; see
    `fixed_crops`. The crop of a model on embeddings is all windows of a clip.
    """

    def __init__(self, clips: Clips, config: Config, keep: bool = True, cover: bool = True) -> None:
        self.clips, self.config = clips, config
        self.usable = clips.lengths > 0
        self._mfcc = fixed_features(clips, config) if config.use_mfcc and keep else None
        self._spectra = spectra(clips, config) if config.use_logmel else None
        self._embeddings = embeddings(clips, config) if config.use_embedding else None
        lengths, crops = clips.lengths, None
        if self._spectra:
            lengths = self._spectra.n_frames
            crops = crop_frames(lengths, config)
        elif self._embeddings:
            lengths = crops = self._embeddings.n_windows
        self.crops = fixed_crops(lengths, config, crops, cover)

    def batches(self, batch_size: int = CROPS_PER_BATCH) -> Generator[np.ndarray]:
        """Iterate over the models' inputs for all fixed crops, in the order of `crops`: float32 (batch, *config.dim).

        Log-mel spectrograms have more frames where `eval_duration` allows it; embeddings are those of all windows.
        """
        return Threads(WORKERS, AHEAD).map(self._inputs, self.crops.batches(batch_size))

    def _inputs(self, batch: slice) -> np.ndarray:
        if self._mfcc is not None:
            return self._mfcc.rows(batch.start, batch.stop)
        indices, starts = self.crops.clips[batch], self.crops.starts[batch]
        length = int(self.crops.lengths[batch.start])
        if self._embeddings:
            return self._embeddings.windows(indices, starts, length)
        if self._spectra:
            return self._spectra.crops(indices, starts, length)[..., np.newaxis]
        return model_input(self.clips.crops(indices, starts, length), self.config)

    def __call__(self, *models: keras.Model) -> list[np.ndarray]:
        """Return each model's predictions, float32 (n_clips, n_classes); rows of unusable clips are NaN."""
        outputs: list[list[np.ndarray]] = [[] for _ in models]
        for batch in self.batches():
            for model, parts in zip(models, outputs, strict=True):
                parts.append(np.asarray(model.predict_on_batch(batch)))
                interrupts.check()
        results = [np.full((len(self.clips), model.output_shape[-1]), np.nan, dtype=np.float32) for model in models]
        for result, parts in zip(results, outputs, strict=True):
            if parts:
                predictions = np.empty((len(self.crops.clips), result.shape[1]), dtype=np.float32)
                predictions[self.crops.order] = np.concatenate(parts)
                result[self.usable] = average_crops(predictions, self.crops.counts[self.usable])
        return results


def average_crops(predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average predictions (n_crops, n_classes) over the crops of each clip; `counts` (n_clips,) are at least 1."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    sums = np.add.reduceat(predictions.astype(np.float64), starts, axis=0)
    return np.asarray(sums / counts[:, np.newaxis], dtype=np.float32)


def predict_clips(model: keras.Model, clips: Clips, config: Config, prior: np.ndarray | float = np.nan) -> np.ndarray:
    """Return predictions float32 (n_clips, n_classes) by one model; unusable clips get the `prior`, (n_classes,)."""
    (result,) = Predictor(clips, config)(model)
    result[clips.lengths == 0] = prior
    return result
