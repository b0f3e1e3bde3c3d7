"""Augmentation: draw the random parameters of an epoch, then apply them batch by batch.

`draw` draws everything random about an epoch (order, crops, augmentations) before the first batch is made; the other
functions apply it. So an epoch does not depend on which thread makes a batch, and when.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsat.config import Config
from fsat.data.logmel import Spectra

N_MASKS = 2
"""Number of time masks and of mel masks of a crop (SpecAugment; Park et al. 2019)."""


MOST_ATTENUATION = 15.0
"""Most that a partner's sound is weakened where sounds are added, in dB."""


@dataclass(frozen=True)
class Draws:
    """Random parameters of an epoch, one element per clip in the order of training.

    Attributes:
        order: int, the clips.
        lengths: int, lengths of the crops in samples or frames; they differ from the model's input if stretched.
        starts: int, starts of the crops; negative for clips that are shorter than a crop.
        gains: float32, in dB; None if not configured, as all of the following.
        shifts: int, mel bands upwards.
        masks: int (n, 2 * N_MASKS, 2), start and end of the masked frames, then of the masked bands.
        shares: float32, the clip's share in the mixture with its partner.
        partners: int, the partner's index within the batch.
    """

    order: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray
    gains: np.ndarray | None = None
    shifts: np.ndarray | None = None
    masks: np.ndarray | None = None
    shares: np.ndarray | None = None
    partners: np.ndarray | None = None


def draw(rng: np.random.Generator, candidates: np.ndarray, lengths: np.ndarray, crop: int, config: Config) -> Draws:
    """Draw the random parameters of one epoch; the order of draws is part of a study's results.

    Args:
        rng: the only source of randomness.
        candidates: int (n,), the clips of this epoch.
        lengths, crop: int, of every clip, and of the model's input, in samples or frames.
        config: the settings.
    """
    n = len(candidates)
    order = candidates[rng.permutation(n)]
    crops = np.full(n, crop)
    if config.stretch:
        logs = rng.uniform(-1, 1, n) * np.log1p(config.stretch)
        crops = np.maximum(1, np.round(crop * np.exp(logs))).astype(np.int64)
    spare = lengths[order] - crops
    starts = rng.integers(np.abs(spare) + 1) * np.sign(spare)
    gains = rng.uniform(-config.gain, config.gain, n).astype(np.float32) if config.gain else None
    shifts = rng.integers(-config.mel_shift, config.mel_shift + 1, n) if config.mel_shift else None
    masks = _draw_masks(rng, n, config) if config.time_mask or config.mel_mask else None
    shares = partners = None
    if config.mixup:
        shares = rng.beta(config.mixup, config.mixup, n).astype(np.float32)
        shares = np.maximum(shares, 1 - shares)  # so that a clip has the larger share in its own mixture
        sizes = [min(config.batch_size, n - first) for first in range(0, n, config.batch_size)]
        partners = np.concatenate([rng.permutation(size) for size in sizes])
    return Draws(order, crops, starts, gains, shifts, masks, shares, partners)


def _draw_masks(rng: np.random.Generator, n: int, config: Config) -> np.ndarray:
    """Draw start and end of the masks, int (n, 2 * N_MASKS, 2): time masks, then mel masks."""
    frames = round(config.time_mask * config.sampling_rate / config.hop_length)
    masks = []
    for max_width, extent in ((frames, config.n_frames), (config.mel_mask, config.n_mels)):
        widths = rng.integers(0, min(max_width, extent) + 1, (n, N_MASKS))
        first = rng.integers(0, extent - widths + 1)
        masks.append(np.stack([first, first + widths], axis=2))
    return np.concatenate(masks, axis=1)


def cut(spectra: Spectra, draws: Draws, batch: slice, config: Config) -> np.ndarray:
    """Cut the crops of a batch, float32 (n, config.n_frames, config.n_mels), and apply stretch, gain and mel shift."""
    lengths = draws.lengths[batch]
    crops = spectra.crops(draws.order[batch], draws.starts[batch], int(lengths.max()))
    if config.stretch:  # the nearest frame
        frames = np.arange(config.n_frames) * lengths[:, np.newaxis] // config.n_frames
        crops = crops[np.arange(len(crops))[:, np.newaxis], frames]
    if draws.gains is not None:
        amplified = np.maximum(crops + draws.gains[batch, np.newaxis, np.newaxis], 0)
        crops = np.where(crops > 0, amplified, crops)  # silence stays silence
    if draws.shifts is not None:  # the outermost band repeats
        bands = np.arange(config.n_mels) - draws.shifts[batch, np.newaxis]
        bands = np.clip(bands, 0, config.n_mels - 1)[:, np.newaxis, :]
        crops = np.take_along_axis(crops, bands, axis=2)
    return crops


def mix(inputs: np.ndarray, draws: Draws, batch: slice) -> np.ndarray:
    """Mix the inputs of a batch with those of their partners (mixup; Zhang et al. 2018)."""
    if draws.shares is None or draws.partners is None:
        return inputs
    shares = draws.shares[batch].reshape(-1, *[1] * (inputs.ndim - 1))
    return np.asarray(shares * inputs + (1 - shares) * inputs[draws.partners[batch]])


def add(inputs: np.ndarray, draws: Draws, batch: slice, in_decibels: bool) -> np.ndarray:
    """Add the sounds of their partners to those of a batch, up to `MOST_ATTENUATION` weaker, as sounds add in the air.

    Args:
        inputs: float32, waveforms (n, samples), or spectrograms (n, frames, mels) in decibels above a floor, whose
            powers are added.
        draws, batch: as for `mix`; a clip's share decides how much weaker its partner is: not at all at 0.5.
        in_decibels: whether these are spectrograms.
    """
    if draws.shares is None or draws.partners is None:
        return inputs
    shares, partners = draws.shares[batch], inputs[draws.partners[batch]]
    power = 10 ** (-MOST_ATTENUATION / 10 * (2 * shares - 1)).reshape(-1, *[1] * (inputs.ndim - 1))
    if not in_decibels:
        return np.asarray(inputs + np.sqrt(power) * partners, dtype=np.float32)
    above_floor = 10 ** (partners / 10) - 1
    return np.asarray(10 * np.log10(10 ** (inputs / 10) + power * above_floor), dtype=np.float32)


def mask(crops: np.ndarray, draws: Draws, batch: slice, fill: np.ndarray) -> np.ndarray:
    """Replace the masked frames and bands by `fill`, a value for each mel band, in place; return `crops`."""
    if draws.masks is not None:
        for crop, ranges in zip(crops, draws.masks[batch].tolist(), strict=True):
            for first, end in ranges[:N_MASKS]:
                crop[first:end] = fill
            for first, end in ranges[N_MASKS:]:
                crop[:, first:end] = fill[first:end]
    return crops
