"""Clips that are longer than their crops for prediction used to be: all of them counts, in bounded memory."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from helpers import CLASSES, make_dataset, read_csv, tone, write_wav
from taggers import FREQUENCIES, ONE_OF_EACH, TINY, register_tagger, write_tagger

from fsat.cli import run
from fsat.config import Config
from fsat.data.audio import Heard
from fsat.data.dataset import load_dataset
from fsat.data.decoded_clips import Clips
from fsat.data.mfcc import fixed_crops
from fsat.metrics.ranking import log_loss
from fsat.models import build
from fsat.tagging import Tagger
from fsat.training.fold import WEIGHTS, train_fold
from fsat.training.predict_clips import CROPS_PER_BATCH, Predictor

RATE = 8000
SETTINGS = {str(options["model"]): {**options, "audio_duration": 2.0} for options in ONE_OF_EACH}
SETTINGS["cnn_logmel"]["eval_duration"] = 10


def mostly(sound: np.ndarray) -> np.ndarray:
    """A clip of 540 s of a sound, and of 2 s of another where three crops of it would be."""
    clip, other = sound.copy(), tone(FREQUENCIES[0], 2, RATE)
    for second in (0, 269, 538):
        clip[second * RATE : (second + 2) * RATE] = other
    return clip


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """A clip of a tone of the last class, and one of silence, with the same 2 s at their start, middle and end."""
    sound = tone(FREQUENCIES[len(CLASSES) - 1], 540, RATE)
    return [mostly(sound), mostly(np.zeros_like(sound))]


# --- crops -----------------------------------------------------------------------------------------


def test_crops_cover_every_clip_without_gaps() -> None:
    for length, n_crops in product((1, 2, 7, 100), (1, 2, 3, 5, 100)):
        config = Config(model="dummy1d", sampling_rate=length, audio_duration=1, eval_crops=n_crops)
        lengths = np.arange(1, 60 * length + 3, max(1, length // 9))
        crops = fixed_crops(lengths, config)
        for n, starts in zip(lengths.tolist(), np.split(crops.starts, np.cumsum(crops.counts)[:-1]), strict=True):
            if n > length:
                assert (starts[0], starts[-1]) == (0, n - length)
                assert all(0 <= b - a <= length for a, b in pairwise(starts))
                assert len(starts) == max(n_crops, -(-n // length))


def test_crops_of_a_clip_that_they_covered_are_as_before() -> None:
    for length, n_crops in product((16, 999, 32000), (2, 3, 4, 5, 10)):
        config = Config(model="dummy1d", sampling_rate=length, audio_duration=1, eval_crops=n_crops)
        for n in np.linspace(length + 1, n_crops * length, 50).astype(int).tolist():
            before = np.linspace(0, n - length, n_crops).round().astype(int)
            assert fixed_crops(np.array([n]), config).starts.tolist() == before.tolist()


def test_starts_between_samples_are_rounded_exactly() -> None:
    config = Config(model="dummy1d", sampling_rate=10, audio_duration=1, eval_crops=1)
    for n in (296, 533, 1234, 10007):
        starts = fixed_crops(np.array([n]), config).starts.tolist()
        assert starts == [round(Fraction(i * (n - 10), len(starts) - 1)) for i in range(len(starts))]


class Recorder:
    """A model that returns the maximum of each input, and notes the shapes of the batches."""

    output_shape = (None, 1)

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def predict_on_batch(self, inputs: np.ndarray) -> np.ndarray:
        self.shapes.append(inputs.shape)
        return np.abs(inputs).reshape(len(inputs), -1).max(axis=1, keepdims=True)


@pytest.mark.parametrize("options", ONE_OF_EACH, ids=lambda options: options["model"])
@pytest.mark.parametrize("n_crops", [1, 3])
def test_every_part_of_a_clip_counts(options, n_crops: int) -> None:
    config = Config.resolve({**options, "eval_crops": n_crops})
    seconds = 13.7 * max(config.audio_duration, config.eval_duration)
    silent = np.zeros(round(seconds * RATE), np.float32)
    arrays = [silent]
    for start in range(0, len(silent), len(silent) // 60):
        arrays.append(silent.copy())
        arrays[-1][start : start + RATE // 50] = 0.5
    scores = Predictor(Clips.from_arrays(arrays, RATE), config)(Recorder())[0][:, 0]
    assert (scores[1:] != scores[0]).all()


@pytest.mark.parametrize("options", ONE_OF_EACH, ids=lambda options: options["model"])
def test_memory_does_not_grow_with_the_clip(options) -> None:
    """A model gets the same batches of a clip of an hour as of many short ones."""
    config, models = Config.resolve(options), (Recorder(), Recorder())
    clips = [np.zeros(3600 * RATE, np.float32)], [np.zeros(5 * RATE, np.float32)] * 40
    for arrays, model in zip(clips, models, strict=True):
        Predictor(Clips.from_arrays(arrays, RATE), config, keep=False)(model)
    assert max(models[0].shapes) == max(models[1].shapes)
    assert max(models[0].shapes)[0] == CROPS_PER_BATCH
    n_crops = sum(shape[0] for shape in models[0].shapes)
    assert n_crops == pytest.approx(3600 / 5 / 40 * sum(shape[0] for shape in models[1].shapes), rel=0.1)


# --- taggers, the command, and folds ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", SETTINGS)
def test_a_tagger_hears_all_of_a_long_clip(model: str, clips, tmp_path: Path) -> None:
    tagger = Tagger(write_tagger(tmp_path / "tagger", [SETTINGS[model]], n_folds=1))
    scores, errors = tagger.scores_of([Heard({RATE: clip}) for clip in clips])
    assert errors == ["", ""]
    assert scores[0].argmax() == len(CLASSES) - 1
    assert scores[0, -1] > 0.9
    assert scores[1, -1] < 0.1
    alone, _ = tagger.scores_of([Heard({RATE: clips[0]})])
    np.testing.assert_allclose(alone[0], scores[0], atol=1e-6)


@pytest.mark.slow
def test_a_window_longer_than_the_crops_is_heard_whole(clips, tmp_path: Path) -> None:
    tagger = Tagger(write_tagger(tmp_path / "tagger", [TINY], n_folds=1))
    path = write_wav(tmp_path / "clip.wav", clips[0][: 60 * RATE], RATE, "FLOAT")
    windows = list(tagger.over_time(path, 30, 30))
    expected, _ = tagger.scores_of([Heard({RATE: clips[0][first * RATE : (first + 30) * RATE]}) for first in (0, 30)])
    np.testing.assert_allclose([row for _, _, row in windows], expected, atol=1e-6)
    assert windows[0][2].argmax() == len(CLASSES) - 1  # although its first crop is of another class


@pytest.mark.slow
def test_long_windows_are_tagged_a_few_at_a_time(tmp_path: Path, monkeypatch) -> None:
    tagger = Tagger(write_tagger(tmp_path / "tagger", [TINY], n_folds=1))
    path = write_wav(tmp_path / "clip.wav", np.zeros(70 * RATE, np.float32), RATE)
    batches, scores_of = [], tagger.scores_of
    monkeypatch.setattr("fsat.tagging.tagger.LONGEST_CLIP", 45.0)
    monkeypatch.setattr(tagger, "scores_of", lambda batch: batches.append(len(batch)) or scores_of(batch))
    for window, expected in ((20, [2, 2]), (100, [1]), (1, [45, 25])):
        batches.clear()
        list(tagger.over_time(path, window, window))
        assert batches == expected


@pytest.mark.slow
@pytest.mark.usefixtures("signals")
def test_predict_hears_all_of_a_long_clip(store, clips, tmp_path: Path) -> None:
    register_tagger(write_tagger(tmp_path / "tagger", [SETTINGS["conv1d"], SETTINGS["conv2d_mfcc"]], n_folds=1))
    for name, clip in zip(("sound", "silence"), clips, strict=True):
        write_wav(tmp_path / "long" / f"{name}.wav", clip, RATE)
    assert run(["predict", "--input", str(tmp_path / "long"), "--output", str(tmp_path / "tags.csv")]) == 0
    labels = {row["fname"]: row["label"] for row in read_csv(tmp_path / "tags.csv")}
    assert labels["sound.wav"] == CLASSES[-1] != labels["silence.wav"]


@pytest.mark.slow
def test_a_fold_predicts_all_of_a_long_clip(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data")
    name = read_csv(folder / "train.csv")[0]["fname"]
    noise = np.random.default_rng(5).uniform(-0.5, 0.5, 20 * RATE)
    write_wav(folder / "audio_train" / name, noise, RATE)
    settings = {"sampling_rate": 1000, "audio_duration": 0.1, "n_folds": 2, "max_epochs": 2, "precision": "float32"}
    dataset = load_dataset(folder, Config(model="dummy1d", **settings))
    (row,) = np.flatnonzero(dataset.manifest.train["fname"] == name)
    clip, fold = dataset.train[row], int(dataset.folds[row])
    result = train_fold(dataset, fold, tmp_path)
    model = build(dataset.config, len(dataset.labels))
    model.load_weights(tmp_path / WEIGHTS)
    assert result.held_out[row]
    inputs = clip.reshape(200, 100, 1)  # its crops follow on each other
    np.testing.assert_allclose(result.train[row], model.predict_on_batch(inputs).mean(axis=0), atol=1e-5)
    scores = result.train[result.held_out], dataset.targets[result.held_out]
    assert result.scores["best_val_loss"] == pytest.approx(log_loss(*scores))
    single = replace(dataset.config, eval_crops=1)
    assert Predictor(dataset.train, single, cover=False).crops.counts.tolist() == [1] * len(dataset.train)
