"""Generated noise, which is of no class: what models with reject=auto are trained on beside the clips."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fsat.data.decoded_clips import Clips

N_NOISES, SEED = 64, 2026
SECONDS, MOST_SAMPLES = 5.0, 1 << 25
"""Length of a noise, if that of the model's crop is not longer, and maximum number of samples of all noises."""


@lru_cache(maxsize=2)
def background_noise(sampling_rate: int, length: int) -> Clips:
    """Return clips of noise, each at least `length` samples long; the same ones for the same arguments.

    The power of each falls with frequency at a rate of its own, from rising to far below that of brown noise. Half of
    them swell and ebb. Each has up to 19 clicks, and a level of its own.
    """
    n_samples = max(length, round(SECONDS * sampling_rate), 2)
    rng = np.random.default_rng(SEED)
    count = max(8, min(N_NOISES, MOST_SAMPLES // n_samples))
    return Clips.from_arrays([_noise(n_samples, sampling_rate, rng) for _ in range(count)], sampling_rate)


def _noise(n_samples: int, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return a noise, float32 (n_samples,), whose largest sample is between 0.01 and 0.63."""
    falling = np.maximum(1, np.arange(n_samples // 2 + 1)) ** rng.uniform(-0.2, 1.2)
    samples = np.fft.irfft(np.fft.rfft(rng.standard_normal(n_samples)) / falling, n_samples)
    if rng.random() < 0.5:
        phase = 2 * np.pi * rng.uniform(0.2, 8) * np.arange(n_samples) / sampling_rate + rng.uniform(0, 2 * np.pi)
        samples *= 1 + rng.uniform(0, 1) * np.sin(phase)
    samples[rng.integers(0, n_samples, rng.integers(0, 20))] += rng.uniform(2, 12) * samples.std()
    return np.asarray(samples / np.abs(samples).max() * 10 ** rng.uniform(-2, -0.2), dtype=np.float32)
