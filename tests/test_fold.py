"""Training a fold: the learning rate, when it is validated, which weights are kept, and who takes part."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from helpers import make_dataset, one_line

from fsat.config import Config
from fsat.data.dataset import Dataset, load_dataset
from fsat.errors import ConfigError, FsatError
from fsat.metrics.ranking import log_loss
from fsat.models import build, import_keras
from fsat.training import fold as fold_module
from fsat.training import loop
from fsat.training.fold import FoldResult, split, train_fold, untaught
from fsat.training.loop import Watch, fit, learning_rate

keras = import_keras()

QUICK = Config(
    model="dummy1d", sampling_rate=100, audio_duration=1, n_folds=3, max_epochs=4, batch_size=8, eval_crops=1,
    learning_rate=0.05, precision="float32",
)  # fmt: skip
LOGMEL = Config(
    model="cnn_logmel", sampling_rate=8000, audio_duration=0.25, n_mels=16, n_folds=2, max_epochs=2, batch_size=8,
    precision="float32",
)  # fmt: skip


# --- learning rate ---------------------------------------------------------------------------------


def rates(n_steps: int, **settings: object) -> list[float]:
    config = Config(learning_rate=0.1, **settings)
    return [learning_rate(config, step, n_steps) for step in range(n_steps)]


def test_a_constant_rate() -> None:
    assert rates(50) == [0.1] * 50


def test_the_warm_up_rises_in_a_line_to_the_peak() -> None:
    found = rates(50, warmup=0.2)
    np.testing.assert_allclose(found[:10], [0.1 * (step + 1) / 11 for step in range(10)])
    assert found[10:] == [0.1] * 40


def test_a_cosine_falls_from_the_peak_to_nearly_0() -> None:
    found = rates(110, warmup=10 / 110, schedule="cosine")
    assert found[:10] == pytest.approx([0.1 * (step + 1) / 11 for step in range(10)])
    assert found[10] == pytest.approx(0.1)
    assert max(found) == pytest.approx(0.1)
    assert found[60] == pytest.approx(0.05)
    assert found[35] == pytest.approx(0.05 * (1 + math.cos(math.pi / 4)))
    assert (np.diff(found[10:]) < 0).all()
    assert 0 < found[-1] < 1e-4
    without = rates(100, schedule="cosine")
    assert without[0] == 0.1
    np.testing.assert_allclose(without, found[10:])


@pytest.mark.parametrize("n_steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.99])
def test_rates_of_the_shortest_trainings(n_steps: int, warmup: float) -> None:
    assert all(0 < rate <= 0.1 for rate in rates(n_steps, warmup=warmup, schedule="cosine"))


class Recorder(keras.callbacks.Callback):
    """Notes the learning rate at the end of each step, and the weights at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []
        self.weights: list[list[np.ndarray]] = []
        self.logs: list[dict[str, float]] = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.weights.append(self.model.get_weights())
        self.logs.append(dict(logs))


def tiny_model(rate: float):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(inputs))
    model.compile(optimizer=keras.optimizers.Adam(rate), loss="categorical_crossentropy", metrics=["acc"])
    return model


@pytest.mark.parametrize("settings", [{}, {"warmup": 0.3}, {"schedule": "cosine", "warmup": 0.2}])
def test_each_step_has_its_learning_rate(settings: dict) -> None:
    config = Config(learning_rate=0.1, max_epochs=3, **settings)
    model, recorder = tiny_model(0.1), Recorder()
    rng = np.random.default_rng(0)
    sizes = [4, 4, 2]
    batches = [(rng.standard_normal((n, 2)).astype(np.float32), np.eye(2)[np.arange(n) % 2]) for n in sizes]
    fit(keras.callbacks.CallbackList([recorder], model=model), lambda epoch: (b for b in batches), config, 9)
    np.testing.assert_allclose(recorder.rates, [learning_rate(config, step, 9) for step in range(9)], rtol=1e-6)


def test_the_loss_of_an_epoch_is_the_mean_over_its_clips() -> None:
    """Of a model that learns next to nothing, in batches of different sizes."""
    config = Config(learning_rate=1e-12, max_epochs=1)
    model, recorder = tiny_model(1e-12), Recorder()
    inputs = np.random.default_rng(0).standard_normal((7, 2)).astype(np.float32)
    targets = np.eye(2)[np.arange(7) % 2]
    batches = [(inputs[:4], targets[:4]), (inputs[4:6], targets[4:6]), (inputs[6:], targets[6:])]
    fit(keras.callbacks.CallbackList([recorder], model=model), lambda epoch: (b for b in batches), config, 3)
    scores = model.predict_on_batch(inputs)
    assert recorder.logs[0]["loss"] == pytest.approx(log_loss(scores, np.arange(7) % 2), rel=1e-5)
    assert recorder.logs[0]["acc"] == pytest.approx((scores.argmax(axis=1) == np.arange(7) % 2).mean())


# --- a fold ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 clips of three classes, a third of them unverified."""
    return make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=12, unverified=1 / 3, test_clips=2)


@dataclass
class Trained:
    """A trained fold and what a stub noted meanwhile."""

    result: FoldResult
    dataset: Dataset
    recorder: Recorder
    watch: Watch


@pytest.fixture
def train(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Trains fold 0, or another, with a recorder among the callbacks."""

    def trained(config: Config, fold: int = 0, dataset: Dataset | None = None) -> Trained:
        dataset = dataset or load_dataset(folder, config)
        recorder, watches = Recorder(), []

        def with_recorder(watch, *arguments):
            watches.append(watch)
            return [*loop.callbacks_of(watch, *arguments), recorder]

        monkeypatch.setattr(fold_module, "callbacks_of", with_recorder)
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        run.mkdir()
        return Trained(train_fold(dataset, fold, run), dataset, recorder, watches[0])

    return trained


def kept_by(trained: Trained) -> list[np.ndarray]:
    """The weights of the file that the fold left."""
    config = trained.dataset.config
    model = build(config, 3)
    model.load_weights(trained.result.folder / "best.weights.h5")
    return model.get_weights()


def assert_weights(found: list[np.ndarray], expected: list[np.ndarray], exact: bool = True) -> None:
    """Floats alone: what counts dropout's draws is of no importance."""
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a.dtype.kind == "f"]
    assert len(pairs) >= 2
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-6)


def test_best_keeps_the_epoch_with_the_least_loss(train) -> None:
    # a rate so high that the loss does not fall to the end
    trained = train(replace(QUICK, max_epochs=12, patience=12, learning_rate=3, eval_crops=3))
    losses = [row["val_loss"] for row in trained.result.history]
    assert len(losses) == 12
    assert trained.result.best_epoch == int(np.argmin(losses)) < 11
    assert_weights(kept_by(trained), trained.recorder.weights[trained.result.best_epoch])
    own = trained.result.held_out
    assert trained.result.scores["best_val_loss"] == pytest.approx(min(losses))
    assert log_loss(trained.result.train[own], trained.dataset.targets[own]) == pytest.approx(min(losses))


def test_best_stops_after_some_epochs_without_a_better_loss(train) -> None:
    trained = train(replace(QUICK, max_epochs=40, patience=2, learning_rate=3))
    history, best = trained.result.history, trained.result.best_epoch
    assert len(history) == best + 3 < 40


def test_last_keeps_the_last_and_does_not_stop(train) -> None:
    trained = train(replace(QUICK, max_epochs=12, patience=1, learning_rate=3, checkpoint="last"))
    assert len(trained.result.history) == 12
    assert trained.result.best_epoch == 11
    assert_weights(kept_by(trained), trained.recorder.weights[-1])


@pytest.mark.parametrize(("share", "n"), [(0.5, 3), (0.01, 1), (1.0, 6), (0.25, 2)])
def test_average_keeps_the_mean_of_the_last_epochs(train, share: float, n: int) -> None:
    trained = train(replace(QUICK, max_epochs=6, patience=1, checkpoint="average", average_last=share))
    assert len(trained.recorder.weights) == 6
    assert trained.result.best_epoch == 5
    means = [np.mean(weights, axis=0, dtype=np.float64) for weights in zip(*trained.recorder.weights[-n:], strict=True)]
    kept = kept_by(trained)
    assert_weights(kept, [mean.astype(weight.dtype) for mean, weight in zip(means, kept, strict=True)], exact=False)
    if n > 1:
        assert max(np.abs(a - b).max() for a, b in zip(kept, trained.recorder.weights[-1], strict=True)) > 1e-4


# --- validation ------------------------------------------------------------------------------------


def validated(trained: Trained) -> list[int]:
    rows = trained.result.history
    assert all(("val_loss" in row) == ("val_acc" in row) == ("val_map3" in row) for row in rows)
    return [epoch for epoch, row in enumerate(rows) if "val_loss" in row]


@pytest.mark.parametrize(
    ("checkpoint", "max_epochs", "expected"),
    [("last", 10, [0, 3, 6, 9]), ("average", 9, [0, 3, 6, 8]), ("last", 4, [0, 1, 2, 3])],
)
def test_where_nothing_is_chosen_some_epochs_are_validated_and_the_last(
    train, checkpoint: str, max_epochs: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "VALIDATIONS", 4)
    assert validated(train(replace(QUICK, max_epochs=max_epochs, checkpoint=checkpoint))) == expected


def test_where_the_best_is_chosen_every_epoch_is_validated(train, monkeypatch) -> None:
    monkeypatch.setattr(loop, "VALIDATIONS", 2)
    assert validated(train(replace(QUICK, patience=9))) == [0, 1, 2, 3]
    held = train(replace(QUICK, holdout=0.2, patience=9))
    assert validated(held) == [0, 2, 3]
    assert all("holdout_loss" in row for row in held.result.history)


def test_there_are_validations_enough_for_a_curve() -> None:
    assert loop.VALIDATIONS >= 10


# --- clips held aside ------------------------------------------------------------------------------


def test_the_best_epoch_is_chosen_on_clips_held_aside(train) -> None:
    trained = train(replace(QUICK, max_epochs=12, patience=12, learning_rate=3, holdout=0.25))
    result, dataset = trained.result, trained.dataset
    assert dataset.config.selected_on == "holdout"
    counts = {name: int((result.splits == name).sum()) for name in ("val", "train", "holdout", "unused")}
    assert counts == {"val": 12, "train": 18, "holdout": 6, "unused": 0}
    np.testing.assert_array_equal(result.held_out, dataset.folds == 0)
    losses = [row["holdout_loss"] for row in result.history]
    assert result.best_epoch == int(np.argmin(losses))
    assert_weights(kept_by(trained), trained.recorder.weights[result.best_epoch])
    aside = result.splits == "holdout"
    assert log_loss(result.train[aside], dataset.targets[aside]) == pytest.approx(min(losses))
    np.testing.assert_array_equal(np.bincount(dataset.targets[aside]), [2, 2, 2])
    assert trained.watch.n_train == 18


def test_early_stopping_looks_at_the_clips_held_aside(train) -> None:
    trained = train(replace(QUICK, max_epochs=40, patience=2, learning_rate=3, holdout=0.25))
    losses = [row["holdout_loss"] for row in trained.result.history]
    assert len(losses) == int(np.argmin(losses)) + 3 < 40
    assert math.isfinite(trained.result.scores["val_map3"])


def test_nothing_is_held_aside_unless_asked_for(train) -> None:
    trained = train(QUICK)
    assert set(trained.result.splits.tolist()) == {"val", "train"}
    assert not any("holdout_loss" in row for row in trained.result.history)


def test_recordings_are_neither_shared_with_the_fold_nor_torn_apart(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", clips_per_class=12, freesound_id=True, test_clips=0)
    dataset = load_dataset(folder, replace(QUICK, holdout=0.25))
    ids = dataset.manifest.train["freesound_id"].to_numpy()
    chosen = []
    for fold in range(3):
        splits = split(dataset, fold)
        of_split = {name: set(ids[splits == name].tolist()) for name in ("val", "train", "holdout")}
        assert all(of_split.values())
        assert sum(map(len, of_split.values())) == len(set(ids.tolist()))
        np.testing.assert_array_equal(splits == "val", dataset.folds == fold)
        np.testing.assert_array_equal(split(dataset, fold), splits)
        chosen.append((splits == "holdout").tobytes())
    assert len(set(chosen)) == 3


# --- who takes part --------------------------------------------------------------------------------


def test_a_weight_of_0_leaves_unverified_clips_out(train) -> None:
    trained = train(replace(QUICK, unverified_weight="0"))
    dataset, splits = trained.dataset, trained.result.splits
    assert (splits == "unused").any()
    np.testing.assert_array_equal(splits == "unused", ~dataset.verified & (dataset.folds != 0))
    assert trained.watch.n_train == (splits == "train").sum()
    alone = load_dataset(dataset.manifest.folder, replace(QUICK, unverified_weight="0"))
    alone = replace(alone, target_classes=np.where(alone.verified, alone.targets, -1))
    np.testing.assert_array_equal(train(QUICK, dataset=alone).result.train, trained.result.train)


def test_a_weight_that_is_0_at_times_leaves_nobody_out(folder: Path) -> None:
    dataset = load_dataset(folder, replace(QUICK, unverified_weight="0:0,3:0.5"))
    assert "unused" not in split(dataset, 0)
    late = load_dataset(folder, replace(QUICK, unverified_weight="0:0,3:0,4:1"))
    np.testing.assert_array_equal(split(late, 0) == "unused", ~late.verified & (late.folds != 0))  # of 4 epochs


def test_the_weight_changes_what_is_learned(train) -> None:
    usual, less = (train(replace(QUICK, unverified_weight=weight)).result.train for weight in ("1", "0.25"))
    assert np.abs(usual - less).max() > 1e-5


def test_labels_of_verify_are_trained_on_and_scores_are_on_those_given(train, folder: Path) -> None:
    dataset = load_dataset(folder, QUICK)
    names = dataset.manifest.train["fname"].to_numpy()
    own = names[dataset.folds == 0]
    new = {"bell_00.wav": "", "cello_01.wav": "Flute", "flute_02.wav": "", str(own[0]): "", str(own[1]): "Bell"}
    trained = train(QUICK, dataset=dataset.relabelled(new))
    splits = dict(zip(names.tolist(), trained.result.splits.tolist(), strict=True))
    out = [name for name, label in new.items() if not label and name not in own]
    assert {name for name, kind in splits.items() if kind == "unused"} == set(out)
    assert {splits[name] for name in own} == {"val"}
    held = trained.result.held_out
    expected = log_loss(trained.result.train[held], dataset.targets[held])
    assert trained.result.scores["best_val_loss"] == pytest.approx(expected)
    assert np.abs(trained.result.train - train(QUICK).result.train).max() > 1e-5


@pytest.mark.parametrize(
    ("settings", "verified", "words"),
    [
        ({"unverified_weight": "0"}, False, "fold=1: no clip is left to train on with unverified_weight=0 and"),
        ({"unverified_weight": "0:0,2:1"}, False, "no clip is left to train on with unverified_weight=0:0,2:1"),
        ({"holdout": 0.05}, True, "holdout=0.05: 24 clips of 24 recordings"),
        ({"holdout": 0.2, "unverified_weight": "0"}, False, "holdout=0.2: 0 clips of 0 recordings"),
    ],
)
def test_nothing_to_train_on_is_one_line(settings: dict, verified: bool, words: str, folder: Path) -> None:
    dataset = load_dataset(folder, replace(QUICK, **settings))
    if not verified:
        dataset = replace(dataset, trusted=np.zeros(36, dtype=bool))
    with pytest.raises(ConfigError) as caught:
        split(dataset, 1)
    assert words in one_line(caught.value)


def test_every_label_dropped_is_one_line(folder: Path) -> None:
    dataset = load_dataset(folder, QUICK)
    nothing = dataset.relabelled(dict.fromkeys(dataset.manifest.train["fname"], ""))
    with pytest.raises(ConfigError, match="labels_run_id=none") as caught:
        split(nothing, 0)
    one_line(caught.value)


def test_a_label_that_is_never_trained_on_is_found(folder: Path) -> None:
    dataset = load_dataset(folder, QUICK)
    assert untaught(dataset, split(dataset, 0)) == []
    bells = dataset.manifest.train["fname"][dataset.targets == 0]
    kept = bells[dataset.folds[dataset.targets == 0] == 0]  # trained on by the other folds alone
    dropped = dataset.relabelled(dict.fromkeys(set(bells) - set(kept), ""))
    assert [untaught(dropped, split(dropped, fold)) for fold in range(3)] == [["Bell"], [], []]


@pytest.mark.parametrize("loss", ["ce", "lq"])
def test_a_loss_that_is_not_finite_is_one_line(train, loss: str) -> None:
    with pytest.raises(FsatError) as caught:
        train(replace(QUICK, learning_rate=1e38, loss=loss))
    assert "lower learning_rate (it is 1e+38)" in one_line(caught.value)


# --- the same bits ---------------------------------------------------------------------------------

AUGMENTED = replace(
    LOGMEL, mixup=0.4, gain=6, stretch=0.2, mel_shift=2, time_mask=0.05, mel_mask=4, label_smoothing=0.1,
    weight_decay=0.01, schedule="cosine", warmup=0.2, checkpoint="average", average_last=1,
)  # fmt: skip


def assert_same(first: Trained, again: Trained) -> None:
    for name in ("train", "test"):
        assert getattr(first.result, name).tobytes() == getattr(again.result, name).tobytes()
    timed = ("epoch_seconds", "clips_per_second")
    for row, other in zip(first.result.history, again.result.history, strict=True):
        assert {k: v for k, v in row.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}


@pytest.mark.parametrize(
    "config",
    [
        AUGMENTED,
        replace(AUGMENTED, loss="lq", drop_losses=0.3, unverified_weight="0:1,2:0.5", precision="mixed_bfloat16"),
    ],
    ids=["augmented", "lq and drop"],
)
def test_the_same_config_gives_the_same_bits(train, config: Config) -> None:
    first = train(config)
    assert_same(first, train(config))
    assert np.isfinite(first.result.train).all()
    np.testing.assert_allclose(first.result.train.sum(axis=1), 1, rtol=1e-5)
    # the running statistics are averaged too, and the mean is what predicts
    kept = kept_by(first)
    means = [np.mean(pair, axis=0, dtype=np.float64) for pair in zip(*first.recorder.weights, strict=True)]
    assert_weights(kept, [mean.astype(weight.dtype) for mean, weight in zip(means, kept, strict=True)], exact=False)
    model = build(config, 3)
    model.set_weights(kept)
    again = fold_module.predict_clips(model, first.dataset.train, config)
    np.testing.assert_array_equal(first.result.train, again)


def test_and_so_it_does_on_waveforms_and_another_seed_does_not(train) -> None:
    config = replace(QUICK, loss="soft_bootstrap", drop_losses=0.3, mixup=0.3, holdout=0.25)
    first = train(config)
    assert_same(first, train(config))
    assert (train(replace(config, seed=5)).result.train != first.result.train).any()
