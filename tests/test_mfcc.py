"""MFCC against librosa's own, and the shapes that models take in."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
from helpers import sounds

from fsat.config import Config
from fsat.data.mfcc import mfcc, model_input


def librosas(crop: np.ndarray, rate: int, n_mfcc: int) -> np.ndarray:
    """As the notebook calls it."""
    return librosa.feature.mfcc(y=crop, sr=rate, n_mfcc=n_mfcc)


# the notebooks' rates and numbers of coefficients
@pytest.mark.parametrize(("rate", "n_mfcc"), [(16000, 20), (44100, 40)])
def test_mfcc_of_a_batch_are_librosas_of_each_crop(rate: int, n_mfcc: int) -> None:
    """The floor 80 dB below the maximum is that of the crop: a quiet one is not cut by a loud neighbour."""
    crops = np.stack(list(sounds(rate, 2.0).values()))
    result = mfcc(crops, rate, n_mfcc)
    assert result.dtype == np.float32
    assert result.shape == (len(crops), n_mfcc, 1 + crops.shape[1] // 512)
    for crop, one in zip(crops, result, strict=True):
        np.testing.assert_allclose(one, librosas(crop, rate, n_mfcc), atol=1e-3)


@pytest.mark.parametrize(
    ("length", "n_mfcc"),
    [(7680, 20), (7681, 20), (8191, 20), (8192, 20), (22050, 20), (8000, 1), (8000, 13), (8000, 128)],
)
def test_any_number_of_frames_and_coefficients(length: int, n_mfcc: int) -> None:
    crop = sounds(16000, 2.0)["noise"][:length]
    np.testing.assert_allclose(mfcc(crop[np.newaxis], 16000, n_mfcc)[0], librosas(crop, 16000, n_mfcc), atol=1e-3)


def test_silence_by_hand() -> None:
    """Every band is at -100 dB: the first coefficient of the orthonormal DCT is -100 * sqrt(128), the others 0."""
    result = mfcc(np.zeros((1, 8000), np.float32), 16000, 20)[0]
    np.testing.assert_allclose(result[0], -100 * 128**0.5, atol=1e-3)
    np.testing.assert_allclose(result[1:], 0, atol=1e-3)


@pytest.mark.parametrize("preset", ["conv1d", "conv2d_mfcc", "quick"])
@pytest.mark.parametrize("batch", [1, 3])
def test_model_input_has_the_shape_that_the_config_names(preset: str, batch: int) -> None:
    config = Config.resolve({}, preset)
    crops = np.random.default_rng(0).standard_normal((batch, config.audio_length)).astype(np.float32)
    inputs = model_input(crops, config)
    assert inputs.shape == (batch, *config.dim)
    assert inputs.dtype == np.float32


def test_model_input_of_a_waveform_model_is_the_crop() -> None:
    config = Config(model="dummy1d", sampling_rate=4, audio_duration=1)
    inputs = model_input(np.array([[0, 1, -1, 0.5]], np.float32), config)
    np.testing.assert_array_equal(inputs, [[[0.0], [1.0], [-1.0], [0.5]]])


def test_model_input_of_a_model_on_mfcc_is_not_normalised() -> None:
    """As in the notebook, whose MFCC are those of the waveform itself."""
    config = Config.resolve({"model": "conv2d_mfcc", "sampling_rate": 16000})
    crop = sounds(16000, 2.0)["noise"]
    inputs = model_input(crop[np.newaxis], config)
    np.testing.assert_allclose(inputs[0, :, :, 0], librosas(crop, 16000, 40), atol=1e-3)
