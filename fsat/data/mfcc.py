"""Crops for prediction, and the inputs of models on waveforms and MFCC.

Waveforms are given as they are; the model normalises them. The MFCC are those of ``librosa.feature.mfcc`` with its
defaults, as in the notebook, computed for a whole batch: Hann window of 2048 samples every 512, zero-padded at both
ends; power; 128 Slaney mel bands; decibels with a floor 80 dB below the crop's maximum; orthonormal DCT-II (Davis and
Mermelstein 1980).
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np

from fsat.config import Config
from fsat.data.audio import even_starts
from fsat.model_presets import HOP_LENGTH

if TYPE_CHECKING:
    from scipy.sparse import csr_array

N_FFT = 2048
N_MELS = 128
TOP_DB = 80.0


@dataclass(frozen=True)
class FixedCrops:
    """The crops for prediction: shorter ones first, those of one length clip after clip.

    Of each crop, int64 (n_crops,): clip, first sample or frame, length, and index if all crops came clip after clip.
    Of each clip, int64 (n_clips,): number of crops.
    """

    clips: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    order: np.ndarray
    counts: np.ndarray

    def batches(self, size: int) -> list[slice]:
        """Return batches of at most `size` crops of one length each, in order."""
        edges = [0, *(np.flatnonzero(np.diff(self.lengths)) + 1).tolist(), len(self.clips)]
        starts = [(first, stop) for start, stop in pairwise(edges) for first in range(start, stop, size)]
        return [slice(first, min(first + size, stop)) for first, stop in starts]


def fixed_crops(
    lengths: np.ndarray,
    config: Config,
    crops: np.ndarray | None = None,
    cover: bool = True,
    least: np.ndarray | int = 1,
) -> FixedCrops:
    """Return the crops for prediction: `eval_crops` of a clip, or as many as cover it without gaps; see `even_starts`.

    Args:
        lengths: int (n_clips,), in samples; 0 for an unusable clip, which has no crops.
        config: has the crops' least number and length.
        crops: int (n_clips,), each clip's length of crops if it is not that of the config; in the unit of `lengths`.
        cover: False for exactly `eval_crops`, however long the clip is.
        least: int (n_clips,), minimum number of crops of each clip that is longer than a crop.
    """
    if crops is None:
        crops = np.full(len(lengths), config.audio_length)
    needed = np.maximum(-(-lengths // crops) if cover else np.ones_like(lengths), least)
    triples = zip(lengths.tolist(), crops.tolist(), np.maximum(config.eval_crops, needed).tolist(), strict=True)
    starts = [even_starts(n, crop, number) if n else [] for n, crop, number in triples]
    counts = np.array([len(clip_starts) for clip_starts in starts], dtype=np.int64)
    clips = np.repeat(np.arange(len(lengths)), counts)
    flat = np.fromiter(chain.from_iterable(starts), np.int64, len(clips))
    order = np.argsort(crops[clips], kind="stable")
    return FixedCrops(clips[order], flat[order], crops[clips[order]].astype(np.int64), order, counts)


def model_input(crops: np.ndarray, config: Config) -> np.ndarray:
    """Return the input, (batch, *config.dim), of a model on waveforms or MFCC for float32 (batch, audio_length)."""
    if config.use_mfcc:
        return mfcc(crops, config.sampling_rate, config.n_mfcc)[..., np.newaxis]
    return crops[..., np.newaxis]


def mfcc(crops: np.ndarray, sampling_rate: int, n_mfcc: int) -> np.ndarray:
    """Return the mel-frequency cepstral coefficients of crops, float32 (batch, length) at `sampling_rate` in Hz.

    They are float32 (batch, n_mfcc, 1 + length // 512).
    """
    from scipy.fft import dct

    result = np.empty((len(crops), n_mfcc, 1 + crops.shape[1] // HOP_LENGTH), dtype=np.float32)
    window, filters = window_and_filters(sampling_rate)

    def compute(crop: np.ndarray, out: np.ndarray) -> None:
        mel = filters @ _power_spectrum(crop, window)  # mels, time
        np.maximum(mel, np.float32(1e-10), out=mel)
        np.log10(mel, out=mel)
        mel *= np.float32(10.0)  # decibels
        np.maximum(mel, mel.max() - np.float32(TOP_DB), out=mel)
        out[:] = dct(mel, type=2, axis=0, norm="ortho", overwrite_x=True)[:n_mfcc]

    for _ in threads().map(compute, crops, result):
        pass
    return result


def _power_spectrum(crop: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return the power of each frame, float32 (bins, n_frames), in a buffer that this thread uses again.

    Allocating memory of this size costs as much as the arithmetic.
    """
    from scipy.fft import rfft

    frames = np.lib.stride_tricks.sliding_window_view(np.pad(crop, N_FFT // 2), N_FFT)[::HOP_LENGTH]  # time, n_fft
    n_frames, n_bins = len(frames), 1 + N_FFT // 2
    if getattr(_buffers, "n_frames", 0) != n_frames:
        _buffers.windowed = np.empty((n_frames, N_FFT), np.float32)
        _buffers.power, _buffers.imaginary = np.empty((2, n_frames, n_bins), np.float32)
        _buffers.by_bin = np.empty((n_bins, n_frames), np.float32)
        _buffers.n_frames = n_frames
    np.multiply(frames, window, out=_buffers.windowed)
    spectrum = rfft(_buffers.windowed, axis=-1)
    np.square(spectrum.real, out=_buffers.power)
    np.square(spectrum.imag, out=_buffers.imaginary)
    _buffers.power += _buffers.imaginary
    _buffers.by_bin[:] = _buffers.power.T
    return np.asarray(_buffers.by_bin)


_buffers = threading.local()


@lru_cache(maxsize=1)
def threads() -> ThreadPoolExecutor:
    """Return the threads that compute features, one per core."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="features")


@lru_cache(maxsize=8)
def window_and_filters(sampling_rate: int) -> tuple[np.ndarray, csr_array]:
    """Return the Hann window (n_fft,) and the mel filter bank (n_mels, bins), float32.

    The bank is sparse, as a bin has weights in two bands; its product is faster, and BLAS starts no threads in ours.
    """
    import librosa
    from scipy.sparse import csr_array

    window = librosa.filters.get_window("hann", N_FFT, fftbins=True).astype(np.float32)
    return window, csr_array(librosa.filters.mel(sr=sampling_rate, n_fft=N_FFT, n_mels=N_MELS).astype(np.float32))
