"""From crops to what a model takes in: the normalised waveform or MFCC.

The MFCC are those of ``librosa.feature.mfcc`` with its defaults, as in the notebook, computed for a whole batch at
once: Hann window of 2048 samples every 512, zero-padded at both ends; power; 128 Slaney mel bands; decibels with a
floor 80 dB below the crop's maximum; orthonormal DCT-II (Davis and Mermelstein 1980).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fsat.config import HOP_LENGTH, Config
from fsat.data.audio import audio_norm

N_FFT = 2048
N_MELS = 128
TOP_DB = 80.0


def model_input(crops: np.ndarray, config: Config) -> np.ndarray:
    """What `config.model` takes in for a batch of crops.

    Args:
        crops: float32 (batch, audio_length).

    Returns:
        float32 (batch, *config.dim).
    """
    if config.use_mfcc:
        return mfcc(crops, config.sampling_rate, config.n_mfcc)[..., np.newaxis]
    return audio_norm(crops)[..., np.newaxis]


def mfcc(crops: np.ndarray, sampling_rate: int, n_mfcc: int) -> np.ndarray:
    """Mel-frequency cepstral coefficients of each crop.

    Args:
        crops: float32 (batch, length).
        sampling_rate: in Hz.
        n_mfcc: how many coefficients.

    Returns:
        float32 (batch, n_mfcc, 1 + length // 512).
    """
    from scipy.fft import dct, rfft

    padded = np.pad(crops, ((0, 0), (N_FFT // 2, N_FFT // 2)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT, axis=1)[:, ::HOP_LENGTH]  # batch, time, n_fft
    window, filters = _window_and_filters(sampling_rate)
    spectrum = rfft(frames * window, axis=-1)  # batch, time, bins
    power = spectrum.real**2 + spectrum.imag**2
    mel = power @ filters.T  # batch, time, mels
    decibels = 10.0 * np.log10(np.maximum(mel, np.float32(1e-10)))
    floor = decibels.max(axis=(1, 2), keepdims=True) - TOP_DB
    cepstrum = dct(np.maximum(decibels, floor), type=2, axis=-1, norm="ortho")[..., :n_mfcc]
    return np.ascontiguousarray(cepstrum.transpose(0, 2, 1), dtype=np.float32)


@lru_cache(maxsize=8)
def _window_and_filters(sampling_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Hann window (n_fft,) and mel filter bank (n_mels, bins), float32."""
    import librosa

    window = librosa.filters.get_window("hann", N_FFT, fftbins=True).astype(np.float32)
    return window, librosa.filters.mel(sr=sampling_rate, n_fft=N_FFT, n_mels=N_MELS).astype(np.float32)
