"""Batches: every clip once an epoch, reproducible randomness, and per-clip means of the fixed crops."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from fsat.config import Config
from fsat.data.clips import Clips
from fsat.data.mfcc import fixed_crops
from fsat.errors import AudioError
from fsat.parallel.executor import Threads
from fsat.training import batches as batches_module
from fsat.training.batches import TrainingClips, average_crops, evaluation_batches
from fsat.training.predict import Predictor, predict_clips, predict_or_prior
from fsat.training.targets import Lessons

CONFIG = Config(model="dummy1d", sampling_rate=20, audio_duration=1, batch_size=8)
MFCC = Config(model="conv2d_mfcc", sampling_rate=16000, audio_duration=0.5, n_mfcc=16, batch_size=4)


def random_arrays(count: int, low: int = 5, high: int = 60, seed: int = 0) -> list[np.ndarray]:
    """Clips of various lengths, some shorter than a crop of CONFIG, some longer."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, rng.integers(low, high)).astype(np.float32) for _ in range(count)]


def as_clips(arrays: list[np.ndarray | AudioError], config: Config = CONFIG) -> Clips:
    return Clips.from_arrays(arrays, config.sampling_rate)


def random_clips(count: int, low: int = 5, high: int = 60, seed: int = 0, config: Config = CONFIG) -> Clips:
    return as_clips(random_arrays(count, low, high, seed), config)


def training_batches(clips: Clips, targets: np.ndarray, n_classes: int, config: Config, fold: int, number: int):
    lessons = Lessons(targets, np.ones(len(targets), dtype=bool), n_classes)
    return TrainingClips(clips, lessons, config).batches(fold, number)


def epoch(clips: Clips, config: Config = CONFIG, fold: int = 0, number: int = 0):
    """One epoch; each clip is a class of its own, so that the targets say which clip is where."""
    return list(training_batches(clips, np.arange(len(clips)), len(clips), config, fold, number))


def order(batches: list[tuple[np.ndarray, np.ndarray]]) -> list[int]:
    return np.concatenate([targets.argmax(axis=1) for _, targets in batches]).tolist()


# --- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 50])
def test_an_epoch_holds_every_clip_once(count: int) -> None:
    batches = epoch(random_clips(count))
    assert [len(targets) for _, targets in batches] == [8] * (count // 8) + [count % 8] * (count % 8 > 0)
    assert sorted(order(batches)) == list(range(count))
    for inputs, targets in batches:
        assert inputs.shape == (len(targets), 20, 1)
        assert inputs.dtype == targets.dtype == np.float32
        assert targets.shape[1] == count
        np.testing.assert_array_equal(np.sort(targets, axis=1)[:, -2:], [[0, 1] if count > 1 else [1]] * len(targets))


def test_targets_are_the_classes_asked_for() -> None:
    clips = random_clips(20)
    targets = np.arange(20) % 3
    batches = list(training_batches(clips, targets, 5, CONFIG, 0, 0))
    rows = np.concatenate([one_hot for _, one_hot in batches])
    assert rows.shape == (20, 5)
    assert rows.sum(axis=0).tolist() == [7, 7, 6, 0, 0]


def test_each_input_is_a_crop_of_its_own_clip() -> None:
    clips = random_clips(30)
    for inputs, targets in epoch(clips):
        for crop, number in zip(inputs[:, :, 0], targets.argmax(axis=1), strict=True):
            clip = clips[number]
            if len(clip) < 20:
                clip = np.pad(clip, 20 - len(clip))
            places = [clip[start : start + 20] for start in range(len(clip) - 19)]
            assert any((place == crop).all() for place in places)


def test_crops_reach_every_place() -> None:
    clips = as_clips([np.arange(1, 24, dtype=np.float32)])
    first = {int(epoch(clips, number=number)[0][0][0, 0, 0]) for number in range(100)}
    assert first == {1, 2, 3, 4}  # of 20 samples in 23


def test_a_short_clip_comes_whole_at_every_place_in_zeros() -> None:
    clips = as_clips([np.arange(1, 19, dtype=np.float32)])
    crops = {tuple(epoch(clips, number=number)[0][0][0, :, 0].astype(int)) for number in range(100)}
    whole = tuple(range(1, 19))
    assert crops == {(*whole, 0, 0), (0, *whole, 0), (0, 0, *whole)}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_batches_do_not_depend_on_the_number_of_workers(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = random_clips(50)
    expected, fixed = epoch(clips), list(evaluation_batches(clips, CONFIG, 8))
    monkeypatch.setattr(batches_module, "WORKERS", workers)
    for (inputs, targets), (others, other_targets) in zip(expected, epoch(clips), strict=True):
        np.testing.assert_array_equal(inputs, others)
        np.testing.assert_array_equal(targets, other_targets)
    for inputs, others in zip(fixed, evaluation_batches(clips, CONFIG, 8), strict=True):
        np.testing.assert_array_equal(inputs, others)


def test_work_ahead_is_in_order_bounded_and_ends_with_its_reader() -> None:
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


def test_an_error_in_a_worker_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        list(Threads(2, 3).map(lambda number: 1 // number, [2, 1, 0, 1]))


def test_equal_seed_fold_and_epoch_give_equal_batches() -> None:
    clips = random_clips(30)
    np.random.seed(1)
    first = epoch(clips, fold=3, number=2)
    epoch(clips, fold=3, number=0)  # whatever ran before
    np.random.seed(2)
    for (inputs, targets), (again, targets_again) in zip(first, epoch(clips, fold=3, number=2), strict=True):
        np.testing.assert_array_equal(inputs, again)
        np.testing.assert_array_equal(targets, targets_again)


@pytest.mark.parametrize("change", ["epoch", "fold", "seed"])
def test_another_seed_fold_or_epoch_gives_other_batches(change: str) -> None:
    clips = random_clips(40)
    other = {
        "epoch": lambda: epoch(clips, number=1),
        "fold": lambda: epoch(clips, fold=1),
        "seed": lambda: epoch(clips, replace(CONFIG, seed=1002)),
    }[change]()
    first = epoch(clips)
    assert order(first) != order(other)
    # and other crops of the same clips
    crops, others = (dict(zip(order(b), np.concatenate([i for i, _ in b]), strict=True)) for b in (first, other))
    assert sum((crops[i] != others[i]).any() for i in range(40)) > 20


def test_epoch_and_fold_are_not_mixed_up() -> None:
    clips = random_clips(40)
    orders = {tuple(order(epoch(clips, fold=fold, number=number))) for fold in range(4) for number in range(4)}
    assert len(orders) == 16


def test_clips_are_left_alone() -> None:
    clips = random_clips(10)
    copies = [clip.copy() for clip in clips]
    assert len(copies) == 10
    epoch(clips)
    list(evaluation_batches(clips, CONFIG, 4))
    for clip, copy in zip(clips, copies, strict=True):
        np.testing.assert_array_equal(clip, copy)


def test_batches_of_mfcc() -> None:
    batches = epoch(random_clips(6, 4000, 12000, config=MFCC), MFCC)
    assert [inputs.shape for inputs, _ in batches] == [(4, 16, 16, 1), (2, 16, 16, 1)]


# --- evaluation ------------------------------------------------------------------------------------


class FakeModel:
    """Answers with numbers that depend on every input value, so that mixing up rows shows."""

    output_shape = (None, 3)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict_on_batch(self, inputs: np.ndarray) -> np.ndarray:
        self.batches.append(len(inputs))
        return np.array([self.answer(row) for row in inputs], dtype=np.float32)

    @staticmethod
    def answer(row: np.ndarray) -> list[float]:
        flat = row.astype(np.float64).ravel()
        weights = np.cos(np.arange(len(flat)))
        return [float(flat @ weights), float((flat**2) @ weights), float(flat.max())]


def slow_means(clips: list[np.ndarray], config: Config) -> np.ndarray:
    """Per clip: cut the crops by hand, ask the model, average."""
    rows = []
    for clip in clips:
        spare = len(clip) - 20
        if spare <= 0:
            before = -spare // 2
            crops = [np.concatenate([np.zeros(before), clip, np.zeros(-spare - before)])]
        elif config.eval_crops == 1:
            crops = [clip[spare // 2 : spare // 2 + 20]]
        else:
            starts = [round(i * spare / (config.eval_crops - 1)) for i in range(config.eval_crops)]
            crops = [clip[start : start + 20] for start in starts]
        answers = [FakeModel.answer(crop.astype(np.float64)) for crop in crops]
        rows.append([sum(column) / len(column) for column in zip(*answers, strict=True)])
    return np.array(rows)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("eval_crops", [1, 3, 5])
def test_per_clip_means_whatever_the_batch_size(batch_size: int, eval_crops: int) -> None:
    config = replace(CONFIG, eval_crops=eval_crops)
    arrays = random_arrays(25)
    arrays.insert(3, arrays[0][:1])  # one sample
    arrays.insert(9, np.zeros(20, np.float32))  # exactly one crop
    arrays.insert(11, np.arange(21, dtype=np.float32) / 20)  # a sample more
    clips, model = as_clips(arrays), FakeModel()
    batches = list(evaluation_batches(clips, config, batch_size))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 0 < len(batches[-1]) <= batch_size
    predictions = np.concatenate([model.predict_on_batch(batch) for batch in batches])
    means = average_crops(predictions, fixed_crops(clips.lengths, config).counts)
    assert means.shape == (28, 3)
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, slow_means(arrays, config), atol=2e-5)


def test_evaluation_is_the_same_every_time() -> None:
    clips = random_clips(12)
    first, again = (list(evaluation_batches(clips, CONFIG, 5)) for _ in range(2))
    for batch, batch_again in zip(first, again, strict=True):
        np.testing.assert_array_equal(batch, batch_again)


def test_no_clips_make_no_batches() -> None:
    assert list(evaluation_batches(as_clips([]), CONFIG, 8)) == []
    assert predict_clips(FakeModel(), as_clips([]), CONFIG).shape == (0, 3)


@pytest.mark.parametrize("config", [CONFIG, MFCC], ids=["waveform", "mfcc"])
def test_a_predictor_may_be_asked_again(config: Config) -> None:
    clips = random_clips(30, config.audio_length // 2, 3 * config.audio_length, config=config)
    model, predictor = FakeModel(), Predictor(clips, config)
    (first,) = predictor(model)
    assert first.shape == (30, 3)
    np.testing.assert_array_equal(predictor(model)[0], first)
    np.testing.assert_array_equal(predict_clips(model, clips, config), first)
    assert max(model.batches) <= 64


def test_many_models_see_each_input_once() -> None:
    clips = random_clips(30, MFCC.audio_length // 2, 3 * MFCC.audio_length, config=MFCC)
    first, second = FakeModel(), FakeModel()
    results = Predictor(clips, MFCC)(first, second)
    np.testing.assert_array_equal(*results)
    assert first.batches == second.batches


def test_clips_that_are_not_there_get_the_prior() -> None:
    arrays = random_arrays(3)
    broken = AudioError("broken")
    prior = np.array([0.5, 0.3, 0.2])
    clips = as_clips([arrays[0], broken, arrays[1], broken, arrays[2]])
    result = predict_or_prior(FakeModel(), clips, CONFIG, prior)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[[1, 3]], [prior, prior], rtol=1e-6)
    np.testing.assert_array_equal(result[[0, 2, 4]], predict_clips(FakeModel(), as_clips(arrays), CONFIG))
    nothing = as_clips([broken, broken])
    np.testing.assert_allclose(predict_or_prior(FakeModel(), nothing, CONFIG, prior), [prior, prior], rtol=1e-6)
    assert np.isnan(predict_clips(FakeModel(), clips, CONFIG)[[1, 3]]).all()
    assert predict_or_prior(FakeModel(), as_clips([]), CONFIG, prior).shape == (0, 3)
