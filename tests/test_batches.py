"""Training batches and predictions: every clip once per epoch, reproducible, and means over the fixed crops."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from fsat.config import Config
from fsat.data.decoded_clips import Clips
from fsat.errors import AudioError
from fsat.parallel.executor import Threads
from fsat.training import predict_clips as predict_module
from fsat.training.batches import TrainingClips
from fsat.training.predict_clips import Predictor, average_crops, predict_clips
from fsat.training.targets import Targets

CONFIG = Config(model="dummy1d", sampling_rate=20, audio_duration=1, batch_size=8)
MFCC = Config(model="conv2d_mfcc", sampling_rate=16000, audio_duration=0.5, n_mfcc=16, batch_size=4)

Batches = list[tuple[np.ndarray, np.ndarray]]


def random_arrays(count: int, low: int = 5, high: int = 60) -> list[np.ndarray]:
    """Clips of various lengths, some shorter than a crop of CONFIG, some longer."""
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, rng.integers(low, high)).astype(np.float32) for _ in range(count)]


def as_clips(arrays: list[np.ndarray | AudioError], config: Config = CONFIG) -> Clips:
    return Clips.from_arrays(arrays, config.sampling_rate)


def mfcc_clips(count: int) -> Clips:
    return as_clips(random_arrays(count, MFCC.audio_length // 2, 3 * MFCC.audio_length), MFCC)


def batches_of(clips: Clips, config: Config = CONFIG, fold: int = 0, epoch: int = 0) -> Batches:
    """One epoch; each clip is a class of its own, so that the targets identify the clips."""
    n = len(clips)
    return list(TrainingClips(clips, Targets(np.arange(n), np.ones(n, dtype=bool), n), config).batches(fold, epoch))


def order(batches: Batches) -> list[int]:
    return np.concatenate([targets.argmax(axis=1) for _, targets in batches]).tolist()


# --- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 50])
def test_an_epoch_has_every_clip_once(count: int) -> None:
    clips = as_clips(random_arrays(count))
    copies = [clip.copy() for clip in clips]
    batches = batches_of(clips)
    assert [len(targets) for _, targets in batches] == [8] * (count // 8) + [count % 8] * (count % 8 > 0)
    assert sorted(order(batches)) == list(range(count))
    for inputs, targets in batches:
        assert inputs.shape == (len(targets), 20, 1)
        assert inputs.dtype == targets.dtype == np.float32
        np.testing.assert_array_equal(targets, np.eye(count)[targets.argmax(axis=1)])
    for clip, copy in zip(clips, copies, strict=True):
        np.testing.assert_array_equal(clip, copy)  # the clips are unchanged


def test_crops_have_every_start() -> None:
    long, short = np.arange(1, 24, dtype=np.float32), np.arange(1, 19, dtype=np.float32)
    starts = {batches_of(as_clips([long]), epoch=epoch)[0][0][0, 0, 0] for epoch in range(100)}
    assert starts == {1, 2, 3, 4}  # of 20 samples in 23
    crops = {tuple(batches_of(as_clips([short]), epoch=epoch)[0][0][0, :, 0]) for epoch in range(100)}
    assert crops == {(*short, 0, 0), (0, *short, 0), (0, 0, *short)}


def test_crops_of_waveforms_follow_from_seed_fold_and_epoch() -> None:
    """Other draws would be other studies."""
    clips = as_clips(random_arrays(21))
    rng = np.random.default_rng([7, 2, 5])
    permutation = rng.permutation(21)
    spare = clips.lengths[permutation] - 20
    starts = rng.integers(np.abs(spare) + 1) * np.sign(spare)
    batches = batches_of(clips, replace(CONFIG, seed=7), fold=2, epoch=5)
    assert order(batches) == permutation.tolist()
    inputs = np.concatenate([inputs for inputs, _ in batches])
    np.testing.assert_array_equal(inputs[..., 0], clips.crops(permutation, starts, 20))


def test_batches_of_mfcc() -> None:
    assert [inputs.shape for inputs, _ in batches_of(mfcc_clips(6), MFCC)] == [(4, 16, 16, 1), (2, 16, 16, 1)]


# --- threads ---------------------------------------------------------------------------------------


def test_results_of_threads_are_in_order_bounded_and_end_with_their_reader() -> None:
    made: list[int] = []

    def slow_at_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        made.append(number)
        return number

    assert list(Threads(3, 5).map(slow_at_first, range(20))) == list(range(20))
    made.clear()
    reader = Threads(3, 5).map(slow_at_first, range(1000))
    assert next(reader) == 0
    reader.close()
    assert len(made) <= 1 + 5
    with pytest.raises(ZeroDivisionError):
        list(Threads(2, 3).map(lambda number: 1 // number, [2, 1, 0, 1]))


# --- prediction ------------------------------------------------------------------------------------


class FakeModel:
    """A model whose predictions depend on every input value, so that mixed-up rows are noticed."""

    output_shape = (None, 3)

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def predict_on_batch(self, inputs: np.ndarray) -> np.ndarray:
        self.batch_sizes.append(len(inputs))
        return np.array([self.score(row) for row in inputs], dtype=np.float32)

    @staticmethod
    def score(row: np.ndarray) -> list[float]:
        flat = row.astype(np.float64).ravel()
        weights = np.cos(np.arange(len(flat)))
        return [float(flat @ weights), float((flat**2) @ weights), float(flat.max())]


def slow_means(clips: list[np.ndarray], n_crops: int) -> np.ndarray:
    """Cut the crops of each clip one by one, predict, and average."""
    rows = []
    for clip in clips:
        spare = len(clip) - 20
        if spare <= 0:
            crops = [np.pad(clip, (-spare // 2, -spare - -spare // 2))]
        else:
            n = max(n_crops, math.ceil(len(clip) / 20))  # without gaps
            starts = [round(i * spare / (n - 1)) for i in range(n)]
            crops = [clip[start : start + 20] for start in starts]
        rows.append(np.mean([FakeModel.score(crop) for crop in crops], axis=0))
    return np.array(rows)


@pytest.mark.parametrize("eval_crops", [1, 3, 5])
def test_predictions_are_means_over_crops_for_any_batch_size(eval_crops: int) -> None:
    config = replace(CONFIG, eval_crops=eval_crops)
    arrays = random_arrays(25)
    arrays.insert(3, arrays[0][:1])  # one sample
    arrays.insert(9, np.zeros(20, np.float32))  # exactly one crop
    arrays.insert(11, np.arange(21, dtype=np.float32) / 20)  # one sample more
    predictor, expected = Predictor(as_clips(arrays), config), slow_means(arrays, eval_crops)
    (predictions,) = predictor(FakeModel())
    assert (predictions.shape, predictions.dtype) == ((28, 3), np.float32)
    np.testing.assert_allclose(predictions, expected, atol=2e-5)
    for batch_size in (1, 2, 7, 1000):
        batches = list(predictor.batches(batch_size))
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert 0 < len(batches[-1]) <= batch_size
        rows = np.concatenate([FakeModel().predict_on_batch(batch) for batch in batches])
        np.testing.assert_allclose(average_crops(rows, predictor.crops.counts), expected, atol=2e-5)


@pytest.mark.parametrize("config", [CONFIG, MFCC], ids=["waveform", "mfcc"])
def test_predictions_are_the_same_every_time(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = mfcc_clips(30) if config is MFCC else as_clips(random_arrays(30))
    models, predictor = [FakeModel(), FakeModel()], Predictor(clips, config)
    first, second = predictor(*models)
    np.testing.assert_array_equal(first, second)
    assert models[0].batch_sizes == models[1].batch_sizes  # each input is made once
    assert max(models[0].batch_sizes) <= 64
    for workers in (1, 5):
        monkeypatch.setattr(predict_module, "WORKERS", workers)
        np.testing.assert_array_equal(predictor(FakeModel())[0], first)
    np.testing.assert_array_equal(predict_clips(FakeModel(), clips, config), first)


def test_unusable_clips_get_the_prior() -> None:
    arrays = random_arrays(3)
    broken = AudioError("broken")
    prior = np.array([0.5, 0.3, 0.2], np.float32)
    clips = as_clips([arrays[0], broken, arrays[1], broken, arrays[2]])
    result = predict_clips(FakeModel(), clips, CONFIG, prior)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result[[1, 3]], [prior, prior])
    np.testing.assert_array_equal(result[[0, 2, 4]], predict_clips(FakeModel(), as_clips(arrays), CONFIG))
    np.testing.assert_array_equal(predict_clips(FakeModel(), as_clips([broken]), CONFIG, prior), [prior])
    assert np.isnan(predict_clips(FakeModel(), clips, CONFIG)[[1, 3]]).all()
    assert predict_clips(FakeModel(), as_clips([]), CONFIG, prior).shape == (0, 3)


# --- noise of no class -----------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["dummy1d", "conv2d_mfcc", "cnn_logmel"])
def test_noise_of_no_class_follows_the_clips_of_a_batch(model: str) -> None:
    config = Config(model=model, reject="auto", sampling_rate=16000, audio_duration=0.5, n_mfcc=16, batch_size=8)
    rng = np.random.default_rng(0)
    clips = Clips.from_arrays([rng.standard_normal(9000).astype(np.float32) / 9 for _ in range(10)], 16000)
    targets = Targets(np.arange(10) % 3, np.ones(10, dtype=bool), 3).for_sigmoid()
    training, plain = (
        TrainingClips(clips, targets, config),
        TrainingClips(clips, targets, replace(config, reject="none")),
    )
    batches, again = list(training.batches(0, 0)), list(training.batches(0, 0))
    for (inputs, encoded), (same, _), (own, own_encoded), n in zip(
        batches, again, plain.batches(0, 0), (8, 2), strict=True
    ):
        assert len(inputs) == len(encoded) == n + max(1, n // 4)
        assert inputs.dtype == encoded.dtype == np.float32
        np.testing.assert_array_equal(inputs, same)
        np.testing.assert_array_equal(inputs[:n], own)
        np.testing.assert_array_equal(encoded[:n], own_encoded)
        assert (encoded[n:].sum(axis=(0, 1)) == [[0] * 3, [len(inputs) - n] * 3]).all()
        assert (inputs[n:].std(axis=(1, 2, 3) if inputs.ndim == 4 else (1, 2)) > 0).all()
    assert (batches[0][0][8:] != next(training.batches(0, 1))[0][8:]).any()
