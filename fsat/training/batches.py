"""Training batches.

Everything random in an epoch comes from one generator, seeded by (seed, fold, epoch), and is drawn before the first
batch is made. So the batches of an epoch depend neither on earlier epochs nor on the number of `WORKERS`.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from fsat.config import Config
from fsat.data.background_noise import background_noise
from fsat.data.decoded_clips import Clips
from fsat.data.embeddings import embeddings
from fsat.data.logmel import band_levels, spectra
from fsat.data.mfcc import model_input
from fsat.parallel.executor import Threads
from fsat.training.augment import Draws, add, cut, draw, mask, mix
from fsat.training.targets import Targets, encode_targets

WORKERS, AHEAD = 2, 3
"""Threads that make batches while the model trains, and maximum number of batches that wait for it."""

NOISE_SHARE, NOISE_GAIN = 0.25, 12.0
"""Number of noises by that of the clips of a batch, and their maximum random gain, up or down, in dB."""

MAX_WINDOWS = 32
"""Maximum number of windows of a clip that one batch has the embeddings of."""


class TrainingClips:
    """The training clips of a fold with their targets."""

    def __init__(self, clips: Clips, targets: Targets, config: Config) -> None:
        self.clips, self.targets, self.config = clips, targets, config
        self.spectra = spectra(clips, config) if config.use_logmel else None
        self.levels = band_levels(self.spectra) if self.spectra else None
        self.embeddings = embeddings(clips, config) if config.use_embedding else None
        self.noise = NoiseClips(config, targets.n_classes) if config.reject == "auto" else None

    def n_batches(self, epoch: int) -> int:
        """Return the number of batches of an epoch."""
        n_clips = len(self.targets.clips(self.config, epoch))
        return -(-n_clips // self.config.batch_size)

    def batches(self, fold: int, epoch: int) -> Generator[tuple[np.ndarray, np.ndarray]]:
        """Iterate over one epoch: a random crop of each clip with a weight, in random order.

        A clip that is shorter than a crop is placed at a random position in zeros, as in the notebook. A clip's
        embeddings are those of at most `MAX_WINDOWS` windows from a random one on, repeated if others have more.

        Yields:
            inputs float32 (batch, *config.dim), and targets as from `fsat.training.targets.encode_targets`; with
            ``reject=auto`` noise of no class after those of the clips.
        """
        config, weights = self.config, self.targets.weights(self.config, epoch)
        rng = np.random.default_rng([config.seed, fold, epoch])
        sizes = (self.clips.lengths, config.audio_length)
        if self.spectra:
            sizes = (self.spectra.n_frames, config.n_frames)
        elif self.embeddings:
            sizes = (self.embeddings.n_windows, 1)
        draws = draw(rng, self.targets.clips(config, epoch), *sizes, config)
        n = len(draws.order)

        def make_batch(first: int) -> tuple[np.ndarray, np.ndarray]:
            batch = slice(first, min(first + config.batch_size, n))
            inputs, encoded = self._inputs(draws, batch), encode_targets(self.targets, weights, draws, batch, config)
            if self.noise is None:
                return inputs, encoded
            return self.noise.add_to(inputs, encoded, np.random.default_rng([config.seed, fold, epoch, first]))

        return Threads(WORKERS, AHEAD).map(make_batch, range(0, n, config.batch_size))

    def _inputs(self, draws: Draws, batch: slice) -> np.ndarray:
        """Return the augmented inputs of a batch, float32 (batch, *config.dim)."""
        config = self.config
        if self.spectra and self.levels:
            crops = cut(self.spectra, draws, batch, config)
            crops = add(crops, draws, batch, in_decibels=True) if config.is_multi else mix(crops, draws, batch)
            return mask(crops, draws, batch, self.levels[0])[..., np.newaxis]
        if self.embeddings:
            clips = draws.order[batch]
            n_windows = min(MAX_WINDOWS, int(self.embeddings.n_windows[clips].max()))
            return mix(self.embeddings.windows(clips, draws.starts[batch], n_windows), draws, batch)
        crops = self.clips.crops(draws.order[batch], draws.starts[batch], config.audio_length)
        if config.is_multi:
            return model_input(add(crops, draws, batch, in_decibels=False), config)
        return mix(model_input(crops, config), draws, batch)


class NoiseClips:
    """Noise of no class, added to each batch so that the model learns to score it low in all classes."""

    def __init__(self, config: Config, n_classes: int) -> None:
        self.config, self.n_classes = config, n_classes
        self.clips = background_noise(config.sampling_rate, config.audio_length)
        self.spectra = spectra(self.clips, config) if config.use_logmel else None
        self.embeddings = embeddings(self.clips, config) if config.use_embedding else None

    def add_to(
        self, inputs: np.ndarray, targets: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs and targets of a batch with those of noise after them, `NOISE_SHARE` of their number."""
        count = max(1, round(NOISE_SHARE * len(inputs)))
        noise = self._inputs(rng, count, inputs.shape[1])
        absent = np.zeros((count, 3, 2, self.n_classes), np.float32)
        absent[:, 0, 1] = 1
        return np.concatenate([inputs, noise]), np.concatenate([targets, absent])

    def _inputs(self, rng: np.random.Generator, count: int, length: int) -> np.ndarray:
        """Return random pieces, float32 (count, *config.dim), of random level; of embeddings `length` windows."""
        config, clips = self.config, rng.integers(0, len(self.clips), count)
        gains = rng.uniform(-NOISE_GAIN, NOISE_GAIN, count).astype(np.float32)
        if self.spectra:
            starts = rng.integers(0, self.spectra.n_frames[clips] - config.n_frames + 1)
            crops = self.spectra.crops(clips, starts, config.n_frames) + gains[:, np.newaxis, np.newaxis]
            return np.maximum(crops, 0)[..., np.newaxis]
        if self.embeddings:
            return self.embeddings.windows(clips, rng.integers(0, self.embeddings.n_windows[clips]), length)
        starts = rng.integers(0, self.clips.lengths[clips] - config.audio_length + 1)
        waveforms = self.clips.crops(clips, starts, config.audio_length)
        return model_input(np.asarray(waveforms * 10 ** (gains[:, np.newaxis] / 20), dtype=np.float32), config)
