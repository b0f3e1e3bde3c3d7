"""Log-mel spectrograms of whole clips, of which training and prediction take crops.

Conventions: a spectrogram is float32 (frames, mels), in decibels above `FLOOR_DB`; 0 is the floor, and frames beyond a
clip's ends are 0. A frame stands for `Config.hop_length` samples, its Hann window is twice as long. Power of the
Fourier transform; Slaney mel bands of equal area (as ``librosa.filters.mel``) from `LOWEST` Hz to half the rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from fsat.config import Config
from fsat.data.decoded_clips import Clips, Decoded, Floats
from fsat.data.feature_store import stored_features
from fsat.data.mfcc import threads
from fsat.files import key_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SPECTRA = 1  # raised when the spectrograms of the same samples change
FLOOR_DB = -80.0  # decibels of a band's power that count as silence
LOWEST = 20.0  # lower edge of the lowest band in Hz
STEP = 32  # minimum difference in frames of crops for prediction, which bounds the number of lengths
FRAMES_PER_BATCH = 512
CLIPS_PER_BATCH = 64


class Spectra:
    """Spectrograms of clips, in memory or in a mapped file; `n_frames` is int64 (n_clips,), 0 for an unusable clip."""

    def __init__(self, values: Clips, n_mels: int) -> None:
        self._values, self._n_mels = values, n_mels
        self.n_frames = values.lengths // n_mels

    def crops(self, indices: np.ndarray, starts: np.ndarray, n_frames: int) -> np.ndarray:
        """Return a piece of each spectrogram, float32 (m, n_frames, n_mels), with zeros beyond the clip's ends.

        Args:
            indices: int (m,) clips.
            starts: int (m,) first frame of each piece; may be negative.
            n_frames: of a piece.
        """
        flat = self._values.crops(indices, np.asarray(starts) * self._n_mels, n_frames * self._n_mels)
        return flat.reshape(len(flat), n_frames, self._n_mels)


def band_levels(source: Spectra) -> tuple[np.ndarray, float]:
    """Return the mean of each band over all frames, float64 (n_mels,), and the deviation of all values, in dB."""
    sums = squares = np.zeros(1)
    for i in np.flatnonzero(source.n_frames).tolist():
        frames = source.crops(np.array([i]), np.array([0]), int(source.n_frames[i]))[0].astype(np.float64)
        sums, squares = sums + frames.sum(axis=0), squares + np.square(frames).sum(axis=0)
    total = int(source.n_frames.sum())
    if not total:
        raise ValueError("no clip has a frame; expected at least one usable clip")
    mean = sums / total
    return mean, float(np.sqrt(max(0.0, squares.sum() / total / len(mean) - np.square(mean.mean()))))


def crop_frames(n_frames: np.ndarray, config: Config) -> np.ndarray:
    """Return the frames of each clip's crops for prediction: nearly the whole clip, within the limits of the config.

    The shortest is the config's crop, the longest `eval_duration`: int64 (n_clips,), the shortest plus some `STEP`s.
    """
    spare = np.clip(n_frames, config.n_frames, config.eval_frames) - config.n_frames
    return np.asarray(config.n_frames + spare // STEP * STEP)


def spectra(clips: Clips, config: Config) -> Spectra:
    """Return the spectrograms of clips, computed once for all that were decoded together and stored beside them.

    For clips in memory the spectrograms are in memory too.
    """
    if not config.use_logmel or config.sampling_rate != clips.sampling_rate:
        raise ValueError(f"{config.model} at {config.sampling_rate} Hz, expected log-mel at {clips.sampling_rate} Hz")
    decoded, n_mels = clips.decoded, config.n_mels
    name = f"logmel-{key_of([SPECTRA, config.hop_length, n_mels])}.f32"
    lengths = _value_counts(decoded.lengths, config)
    compute = partial(_compute, Clips(decoded), config)
    values = stored_features(decoded, name, "log-mel spectrograms", int(lengths.sum()) // n_mels, n_mels, compute)
    rows: np.ndarray | None = clips.rows
    if values is None:  # compute those of `clips` only
        lengths, rows = _value_counts(clips.lengths, config), None
        batches = (batch.ravel() for batch in _compute(clips, config))
        values = Floats(np.concatenate([np.empty(0, np.float32), *batches]))
    empty = [""] * len(lengths)
    return Spectra(Clips(Decoded(values, lengths, empty, empty, clips.sampling_rate), rows), n_mels)


def _value_counts(lengths: np.ndarray, config: Config) -> np.ndarray:
    """Return the number of values of each clip's spectrogram."""
    return np.where(lengths > 0, 1 + lengths // config.hop_length, 0) * config.n_mels


def _compute(clips: Clips, config: Config) -> Iterator[np.ndarray]:
    """Yield the spectrograms of usable clips, in batches of clips."""

    def compute(i: int) -> np.ndarray:
        return logmel(clips[i], config.sampling_rate, config.n_mels, config.hop_length)

    usable = np.flatnonzero(clips.lengths > 0)
    for first in range(0, len(usable), CLIPS_PER_BATCH):
        yield np.concatenate(list(threads().map(compute, usable[first : first + CLIPS_PER_BATCH].tolist())))


def logmel(samples: np.ndarray, sampling_rate: int, n_mels: int, hop_length: int) -> np.ndarray:
    """Return the log-mel spectrogram of a waveform, float32 (n_samples,) in about [-1, 1], zero-padded at both ends.

    It is float32 (1 + n_samples // hop_length, n_mels), in decibels above `FLOOR_DB`, at least 0.
    """
    from scipy.fft import rfft

    window, filters = window_and_filters(sampling_rate, n_mels, hop_length)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, len(window) // 2), len(window))[::hop_length]
    result = np.empty((len(frames), n_mels), np.float32)
    for first in range(0, len(frames), FRAMES_PER_BATCH):
        batch = slice(first, first + FRAMES_PER_BATCH)
        spectrum = rfft(frames[batch] * window, axis=-1)
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)  # time, bins
        result[batch] = (filters @ power.T).T
    np.maximum(result, np.float32(10 ** (FLOOR_DB / 10)), out=result)
    np.log10(result, out=result)
    result *= np.float32(10)
    result -= np.float32(FLOOR_DB)
    np.maximum(result, 0, out=result)  # the floor's logarithm is rounded
    return result


def band_centres(sampling_rate: int, n_mels: int) -> np.ndarray:
    """Return the centre frequencies of the bands of `logmel` in Hz, float64 (n_mels,)."""
    import librosa

    edges = librosa.mel_frequencies(n_mels + 2, fmin=_lowest(sampling_rate), fmax=sampling_rate / 2)
    return np.asarray(edges[1:-1])


def _lowest(sampling_rate: int) -> float:
    return min(LOWEST, sampling_rate / 4)  # at 40 Hz no band would be left


@lru_cache(maxsize=8)
def window_and_filters(sampling_rate: int, n_mels: int, hop_length: int) -> tuple[np.ndarray, csr_array]:
    """Return the Hann window of two hops, centred in n_fft samples, and the mel filter bank (n_mels, bins), float32."""
    import warnings

    import librosa
    from scipy.sparse import csr_array

    n_fft = 2 ** math.ceil(math.log2(2 * hop_length))
    window = librosa.util.pad_center(librosa.filters.get_window("hann", 2 * hop_length, fftbins=True), size=n_fft)
    with warnings.catch_warnings():  # at a low rate some bands are narrower than a bin, and stay at the floor
        warnings.simplefilter("ignore", UserWarning)
        filters = librosa.filters.mel(sr=sampling_rate, n_fft=n_fft, n_mels=n_mels, fmin=_lowest(sampling_rate))
    return window.astype(np.float32), csr_array(filters.astype(np.float32))
