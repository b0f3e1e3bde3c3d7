"""Log-mel spectrograms: equal to librosa's, stored once beside the clips, and predictions from their crops."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
from clip_files import clip_files, store_of
from helpers import make_dataset, sounds, tone, write_wav

from fsat import tagging
from fsat.config import Config
from fsat.data import logmel as spectra_module
from fsat.data.clip_store import open_clips
from fsat.data.decoded_clips import Clips
from fsat.data.logmel import band_levels, logmel, spectra
from fsat.errors import AudioError
from fsat.models import build, save_weights, seed_everything
from fsat.training.predict_clips import Predictor, predict_clips

CONFIG = Config(model="cnn_logmel", sampling_rate=8000, audio_duration=0.5, n_mels=20, precision="float32")
HOP, FRAMES = CONFIG.hop_length, CONFIG.n_frames


def librosas(samples: np.ndarray, rate: int, n_mels: int) -> np.ndarray:
    """Decibels above -80, as float64 (frames, n_mels); the FFT's length is the power of 2 that holds two hops."""
    hop = round(0.016 * rate)
    power = librosa.feature.melspectrogram(
        y=samples.astype(np.float64), sr=rate, n_fft=2 ** math.ceil(math.log2(2 * hop)), hop_length=hop,
        win_length=2 * hop, window="hann", center=True, pad_mode="constant", power=2.0, n_mels=n_mels, fmin=20.0,
    )  # fmt: skip
    return (10 * np.log10(np.maximum(power, 1e-8)) + 80).T


def spectrogram(samples: np.ndarray) -> np.ndarray:
    return logmel(samples, CONFIG.sampling_rate, CONFIG.n_mels, HOP)


# --- one clip --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 44100])
def test_spectrograms_are_librosas(rate: int) -> None:
    config = Config(model="cnn_logmel", sampling_rate=rate, audio_duration=0.7)
    for samples in sounds(rate, 0.7).values():
        result = logmel(samples, rate, 40, config.hop_length)
        assert result.dtype == np.float32
        assert result.shape == (config.n_frames, 40)
        assert result.min() >= 0
        np.testing.assert_allclose(result, librosas(samples, rate, 40), atol=0.01)


@pytest.mark.filterwarnings("ignore:n_fft=")  # librosa finds some of them short
@pytest.mark.parametrize("length", [1, 2, HOP - 1, HOP, HOP + 1, 2 * HOP, 7 * HOP - 1, 7 * HOP, 4000])
def test_frames_of_any_length(length: int) -> None:
    samples = sounds(8000, 0.7)["noise"][:length]
    result = spectrogram(samples)
    assert result.shape == (1 + length // HOP, 20)
    np.testing.assert_allclose(result, librosas(samples, 8000, 20), atol=0.01)


@pytest.mark.parametrize("batch", [1, 7, 512, 1000])
def test_a_long_clip_does_not_depend_on_batches_of_frames(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.tile(sounds(8000, 0.7)["noise"], 16)
    expected = spectrogram(samples)
    assert len(expected) > spectra_module.FRAMES_PER_BATCH
    monkeypatch.setattr(spectra_module, "FRAMES_PER_BATCH", batch)
    np.testing.assert_allclose(spectrogram(samples), expected, atol=1e-3)
    np.testing.assert_allclose(expected, librosas(samples, 8000, 20), atol=0.01)


@pytest.mark.parametrize("rate", [1, 39, 40, 41, 80, 100, 500])
def test_very_low_rates_give_finite_numbers(rate: int) -> None:
    """Half of 40 Hz is the lower edge of the lowest band."""
    config = Config(model="cnn_logmel", sampling_rate=rate, audio_duration=16)
    samples = np.random.default_rng(0).standard_normal(config.audio_length).astype(np.float32)
    result = logmel(samples, rate, config.n_mels, config.hop_length)
    assert np.isfinite(result).all()
    assert result.min() >= 0


# --- crops -----------------------------------------------------------------------------------------


def noises(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(0.2 * rng.standard_normal(length)).astype(np.float32) for length in lengths]


def in_memory(arrays: list[np.ndarray | AudioError]) -> Clips:
    return Clips.from_arrays(arrays, CONFIG.sampling_rate)


def test_crops_are_pieces_with_zeros_beyond_both_ends() -> None:
    arrays = noises([10 * HOP, 3 * HOP, 20 * HOP])
    found = spectra(in_memory(arrays), CONFIG)
    assert found.n_frames.tolist() == [11, 4, 21]
    indices = np.array([0, 1, 1, 2, 0, 1, 2, 0])
    starts = np.array([0, -2, 1, 13, 20, -9, -8, 3])
    crops = found.crops(indices, starts, 8)
    assert crops.shape == (8, 8, 20)
    assert crops.dtype == np.float32
    for crop, i, start in zip(crops, indices, starts, strict=True):
        padded = np.pad(spectrogram(arrays[i]), ((50, 50), (0, 0)))
        np.testing.assert_array_equal(crop, padded[50 + start : 58 + start])
    assert not crops[4].any()
    crops[:] = 7  # their own memory
    np.testing.assert_array_equal(found.crops(indices[:1], starts[:1], 8)[0], spectrogram(arrays[0])[:8])


@pytest.mark.parametrize("config", [Config(), replace(CONFIG, sampling_rate=16000)], ids=["model", "rate"])
def test_spectra_need_a_model_on_spectrograms_at_the_rate_of_the_clips(config: Config) -> None:
    with pytest.raises(ValueError, match="expected log-mel at 8000 Hz"):
        spectra(in_memory(noises([500])), config)


# --- stored beside the clips -----------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, cache_folder: Path) -> list:
    """Eighteen clips, one much longer than a crop and one unusable."""
    folder = make_dataset(tmp_path / "data", test_clips=0) / "audio_train"
    write_wav(folder / "bell_00.wav", tone(500, 2.3, 8000))
    write_wav(folder / "cello_01.wav", np.full(900, np.nan), subtype="FLOAT")
    return clip_files(folder)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the clips whose spectrograms are computed."""
    lengths: list[int] = []

    def counted(samples, *settings):
        lengths.append(len(samples))
        return logmel(samples, *settings)

    monkeypatch.setattr(spectra_module, "logmel", counted)
    return lengths


def decoded(files: list) -> list[np.ndarray | AudioError]:
    return [clip if len(clip) else AudioError("broken") for clip in open_clips(files, CONFIG.sampling_rate)]


def assert_spectra(found, arrays: list[np.ndarray | AudioError]) -> None:
    assert len(found.n_frames) == len(arrays)
    for i, samples in enumerate(arrays):
        expected = np.empty((0, 20)) if isinstance(samples, AudioError) else spectrogram(samples)
        assert found.n_frames[i] == len(expected)
        crop = found.crops(np.array([i]), np.array([-1]), len(expected) + 2)[0]
        np.testing.assert_array_equal(crop, np.pad(expected, ((1, 1), (0, 0))))


def test_spectrograms_of_a_store_are_those_in_memory(files) -> None:
    arrays, clips = decoded(files), open_clips(files, CONFIG.sampling_rate)
    assert (clips.lengths == 0).sum() == 1
    for source in (clips, in_memory(arrays), open_clips(files, CONFIG.sampling_rate)):
        assert_spectra(spectra(source, CONFIG), arrays)
    view = in_memory(arrays).take(np.array([3, -1, 0]))
    assert_spectra(spectra(view, CONFIG), [arrays[3], AudioError("absent"), arrays[0]])
    assert_spectra(spectra(in_memory([]), CONFIG), [])


def test_spectrograms_are_computed_once_for_all_views_and_runs(files, computed) -> None:
    arrays, clips = decoded(files), open_clips(files, CONFIG.sampling_rate)
    bad = int(np.flatnonzero(clips.lengths == 0)[0])
    some = np.array([5, -1, 0, bad, 17, 5])
    view = [AudioError("absent") if i < 0 else arrays[i] for i in some]
    assert_spectra(spectra(clips.take(some), CONFIG), view)
    assert len(computed) == 17  # all that can be used, whichever were asked for
    assert_spectra(spectra(clips, CONFIG), arrays)
    assert_spectra(spectra(open_clips(files, CONFIG.sampling_rate).take(some[:2]), CONFIG), view[:2])
    assert len(computed) == 17
    names = sorted(path.name for path in store_of(clips).glob("logmel-*"))
    assert [Path(name).suffix for name in names] == [".f32", ".json"]


def test_the_file_name_depends_on_the_settings_of_spectrograms(files, computed) -> None:
    clips = open_clips(files, CONFIG.sampling_rate)
    spectra(clips, CONFIG)
    for same in ({"audio_duration": 1.0}, {"eval_crops": 1}, {"mixup": 0.5}, {"learning_rate": 0.1}, {"seed": 1}):
        spectra(clips, replace(CONFIG, **same))
    assert len(computed) == 17
    assert spectra(clips, replace(CONFIG, n_mels=33)).crops(np.array([0]), np.array([0]), 3).shape == (1, 3, 33)
    assert len(computed) == 2 * 17
    assert len(list(store_of(clips).glob("logmel-*.f32"))) == 2


# --- levels ----------------------------------------------------------------------------------------


def test_levels_of_bands_are_those_of_all_frames(files) -> None:
    arrays = [array for array in decoded(files) if isinstance(array, np.ndarray)]
    values = np.concatenate([spectrogram(array) for array in arrays]).astype(np.float64)
    for clips in (open_clips(files, CONFIG.sampling_rate), in_memory(decoded(files))):
        mean, deviation = band_levels(spectra(clips, CONFIG))
        np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-9)
        assert deviation == pytest.approx(values.std(), rel=1e-9)


def test_levels_need_a_usable_clip() -> None:
    silent = in_memory([np.zeros(900, np.float32)])
    mean, deviation = band_levels(spectra(silent, CONFIG))
    assert (mean.tolist(), deviation) == ([0] * 20, 0)
    with pytest.raises(ValueError, match="expected at least one usable clip"):
        band_levels(spectra(in_memory([AudioError("absent")]), CONFIG))


# --- prediction ------------------------------------------------------------------------------------


def cropped_by_hand(samples: np.ndarray, eval_crops: int, longest: int) -> np.ndarray:
    """The crops for prediction of a clip: evenly spaced over all its frames, or a short clip whole, within zeros."""
    whole, frames = spectrogram(samples), FRAMES
    while frames + 32 <= min(len(whole), longest):
        frames += 32
    spare = len(whole) - frames
    if spare <= 0:
        before = -spare // 2
        return np.pad(whole, ((before, -spare - before), (0, 0)))[np.newaxis]
    n = max(eval_crops, math.ceil(len(whole) / frames))
    starts = [round(i * spare / (n - 1)) for i in range(n)]
    return np.stack([whole[start : start + frames] for start in starts])


@pytest.fixture(scope="module")
def model():
    seed_everything(1)
    return build(CONFIG, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("eval_crops", "eval_duration", "longest"), [(1, 0, 32), (3, 0, 32), (3, 1.5, 94), (1, 9, 999)]
)
def test_predictions_are_means_over_crops(model, files, eval_crops: int, eval_duration: float, longest: int) -> None:
    config = replace(CONFIG, eval_crops=eval_crops, eval_duration=eval_duration)
    arrays, clips = decoded(files), open_clips(files, config.sampling_rate)
    assert {len(array) > config.audio_length for array in arrays if isinstance(array, np.ndarray)} == {True, False}
    stored = predict_clips(model, clips, config)
    np.testing.assert_array_equal(stored, predict_clips(model, in_memory(arrays), config))
    assert stored.dtype == np.float32
    for row, samples in zip(stored, arrays, strict=True):
        if isinstance(samples, AudioError):
            assert np.isnan(row).all()
        else:
            inputs = cropped_by_hand(samples, eval_crops, longest)[..., np.newaxis]
            np.testing.assert_allclose(row, model.predict_on_batch(inputs).mean(axis=0), atol=1e-5)
    predictor = Predictor(clips.take(np.array([4, -1, 0])), config)
    assert predictor.crops.counts.tolist() == [1, 0, len(cropped_by_hand(arrays[0], eval_crops, longest))]
    np.testing.assert_allclose(predictor(model)[0], [stored[4], [np.nan] * 3, stored[0]], atol=1e-6)


@pytest.mark.slow
def test_a_tagger_scores_files_as_the_fold_did(model, files, tmp_path: Path) -> None:
    save_weights(model, tmp_path / "best.weights.h5")
    (tmp_path / "tagger").mkdir()
    member = tagging.MemberFiles("s", 0, CONFIG, tmp_path / "best.weights.h5")
    tagging.write(tmp_path / "tagger", [member], ["a", "b", "c"])
    scores, errors = tagging.Tagger(tmp_path / "tagger").scores([file.path for file in files])
    expected = predict_clips(model, open_clips(files, CONFIG.sampling_rate), CONFIG)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert [bool(error) for error in errors] == np.isnan(expected[:, 0]).tolist()
    assert sum(map(bool, errors)) == 1
