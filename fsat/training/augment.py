"""What is random about an epoch: order, crops and augmentations. Drawn here, all before the first batch is made.

Drawing and applying are apart, so an epoch is the same whichever thread applies it, and whenever.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsat.config import Config
from fsat.data.logmel import Spectra

N_MASKS = 2
"""Masks in time and in mel bands, each (SpecAugment; Park et al. 2019)."""


@dataclass(frozen=True)
class Draws:
    """The draws for one epoch, an element for each clip, in the order in which the clips come.

    Attributes:
        order: int, the clips.
        lengths: int, of the crops, in samples or in frames; other than the model's where crops are stretched.
        starts: int, where the crops begin; before 0 where a clip is shorter than its crop.
        gains: float32, in dB; None if there are none, as in all that follow.
        shifts: int, mel bands upwards.
        masks: int (n, 2 * N_MASKS, 2), first and end of the masked frames, then of the masked bands.
        shares: float32, the share of the clip itself in the mixture with its partner.
        partners: int, the partner's place within the batch.
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
    """Draw one epoch.

    Args:
        rng: where all comes from.
        candidates: int (n,), the clips that take part.
        lengths: int, of every clip, in samples or in frames.
        crop: length of the model's input, in the same unit.
        config: the settings.

    Returns:
        the draws, an element a candidate.
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
    masks = None
    if config.time_mask or config.mel_mask:
        frames = round(config.time_mask * config.sampling_rate / config.hop_length)
        masks = np.concatenate(
            [_masks(rng, n, frames, config.n_frames), _masks(rng, n, config.mel_mask, config.n_mels)], axis=1
        )
    shares = partners = None
    if config.mixup:
        shares = rng.beta(config.mixup, config.mixup, n).astype(np.float32)
        shares = np.maximum(shares, 1 - shares)  # so that a clip is the greater part of its own mixture
        batches = [rng.permutation(min(config.batch_size, n - first)) for first in range(0, n, config.batch_size)]
        partners = np.concatenate(batches)
    return Draws(order, crops, starts, gains, shifts, masks, shares, partners)


def _masks(rng: np.random.Generator, n: int, widest: int, extent: int) -> np.ndarray:
    """First and end of `N_MASKS` ranges, int (n, N_MASKS, 2), each up to `widest` wide and within `extent`."""
    widths = rng.integers(0, min(widest, extent) + 1, (n, N_MASKS))
    first = rng.integers(0, extent - widths + 1)
    return np.stack([first, first + widths], axis=2)


def cut(spectra: Spectra, draws: Draws, some: slice, config: Config) -> np.ndarray:
    """The crops of some clips' spectrograms, stretched, louder or softer, and shifted as drawn.

    Returns:
        float32 (n, config.n_frames, config.n_mels).
    """
    lengths = draws.lengths[some]
    crops = spectra.crops(draws.order[some], draws.starts[some], int(lengths.max()))
    if config.stretch:  # the nearest frame
        places = np.arange(config.n_frames) * lengths[:, np.newaxis] // config.n_frames
        crops = crops[np.arange(len(crops))[:, np.newaxis], places]
    if draws.gains is not None:
        louder = np.maximum(crops + draws.gains[some, np.newaxis, np.newaxis], 0)
        crops = np.where(crops > 0, louder, crops)  # silence stays silence
    if draws.shifts is not None:  # the outermost band repeats
        bands = np.arange(config.n_mels) - draws.shifts[some, np.newaxis]
        bands = np.clip(bands, 0, config.n_mels - 1)[:, np.newaxis, :]
        crops = np.take_along_axis(crops, bands, axis=2)
    return crops


def mix(inputs: np.ndarray, draws: Draws, some: slice) -> np.ndarray:
    """A batch's inputs mixed with those of their partners (mixup; Zhang et al. 2018), of the same shape."""
    if draws.shares is None:
        return inputs
    shares = draws.shares[some].reshape(-1, *[1] * (inputs.ndim - 1))
    return shares * inputs + (1 - shares) * inputs[draws.partners[some]]


def mask(crops: np.ndarray, draws: Draws, some: slice, fill: np.ndarray) -> np.ndarray:
    """Put `fill`, a value for each mel band, in the masked frames and bands, in place; returns `crops`."""
    if draws.masks is not None:
        for crop, ranges in zip(crops, draws.masks[some].tolist(), strict=True):
            for first, end in ranges[:N_MASKS]:
                crop[first:end] = fill
            for first, end in ranges[N_MASKS:]:
                crop[:, first:end] = fill[first:end]
    return crops
