"""Training a fold: learning rate, validation, the weights that are kept, splits, and reproducible results."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import error_line, make_dataset

from fsat.config import Config
from fsat.data.dataset import Dataset, load_dataset
from fsat.errors import ConfigError, FsatError
from fsat.metrics.ranking import log_loss
from fsat.models import build, build_for_training, import_keras
from fsat.training import fold as fold_module
from fsat.training import loop
from fsat.training.fold import FoldResult, assign_splits, labels_without_clips, train_fold
from fsat.training.loop import learning_rate, train_epoch
from fsat.training.predict_clips import predict_clips

keras = import_keras()

QUICK = Config(
    model="dummy1d", sampling_rate=100, audio_duration=1, n_folds=3, max_epochs=4, batch_size=8, eval_crops=1,
    learning_rate=0.05, precision="float32",
)  # fmt: skip
UNSTABLE = replace(QUICK, max_epochs=12, patience=12, learning_rate=3)  # the loss rises before the last epoch


# --- steps -----------------------------------------------------------------------------------------


def rates(n_steps: int, **settings: object) -> list[float]:
    config = Config(learning_rate=0.1, **settings)
    return [learning_rate(config, step, n_steps) for step in range(n_steps)]


def test_learning_rates_are_the_formula() -> None:
    assert rates(50) == [0.1] * 50
    warmup = [0.1 * (step + 1) / 11 for step in range(10)]
    np.testing.assert_allclose(rates(50, warmup=0.2), warmup + [0.1] * 40)
    cosine = rates(110, warmup=10 / 110, schedule="cosine")
    np.testing.assert_allclose(cosine[:10], warmup)
    assert cosine[10] == max(cosine) == pytest.approx(0.1)
    assert cosine[60] == pytest.approx(0.05)
    assert cosine[35] == pytest.approx(0.05 * (1 + math.cos(math.pi / 4)))
    assert (np.diff(cosine[10:]) < 0).all()
    assert 0 < cosine[-1] < 1e-4
    np.testing.assert_allclose(rates(100, schedule="cosine"), cosine[10:])


@pytest.mark.parametrize("n_steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.99])
def test_rates_of_the_shortest_trainings(n_steps: int, warmup: float) -> None:
    assert all(0 < rate <= 0.1 for rate in rates(n_steps, warmup=warmup, schedule="cosine"))


def test_steps_have_their_learning_rates_and_metrics_are_means_over_clips() -> None:
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(inputs))
    model.compile(optimizer=keras.optimizers.Adam(0.5), loss="categorical_crossentropy", metrics=["acc"])
    clips, classes = np.random.default_rng(0).standard_normal((7, 2)).astype(np.float32), np.arange(7) % 2
    batches = [(clips[part], np.eye(2)[classes[part]]) for part in (slice(4), slice(4, 6), slice(6, 7))]
    received: list[float] = []
    rates = [1e-12, 3e-12, 2e-12]  # which hardly change the weights
    metrics = train_epoch(model, batches, rates, lambda: received.append(float(model.optimizer.learning_rate)))
    np.testing.assert_allclose(received, rates, rtol=1e-6)
    scores = model.predict_on_batch(clips)
    assert metrics["loss"] == pytest.approx(log_loss(scores, classes), rel=1e-5)
    assert metrics["acc"] == pytest.approx((scores.argmax(axis=1) == classes).mean())


def test_the_schedule_covers_the_whole_training(train) -> None:
    config = replace(QUICK, schedule="cosine", warmup=0.25, seed=2**31 - 1)  # the largest seed
    trained = train(config)
    rates = trained.column("learning_rate")  # of the last of three steps of each epoch
    np.testing.assert_allclose(rates, [learning_rate(config, step, 12) for step in (2, 5, 8, 11)], rtol=1e-6)
    files = {path.name for path in trained.result.folder.iterdir()}
    assert files == {"best.weights.h5", "tensorboard"}  # no checkpoint


# --- kept weights ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 clips of three classes, a third of them unverified."""
    return make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=12, unverified=1 / 3, test_clips=2)


@dataclass
class Trained:
    """A trained fold, and the model's weights after each epoch."""

    dataset: Dataset
    weights: list[list[np.ndarray]] = field(default_factory=list)
    result: FoldResult | None = None

    @property
    def kept(self) -> list[np.ndarray]:
        """The weights in the fold's file."""
        model = build(self.dataset.config, 3)
        model.load_weights(self.result.folder / "best.weights.h5")
        return model.get_weights()

    def column(self, name: str) -> list[float]:
        return [row[name] for row in self.result.state.history]


@pytest.fixture
def train(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trained]:
    """Train fold 0."""

    def train(config: Config, dataset: Dataset | None = None) -> Trained:
        trained, models = Trained(dataset or load_dataset(folder, config)), []

        def build_and_note(*args):
            models.append(build_for_training(*args))
            return models[0]

        monkeypatch.setattr(fold_module, "build_for_training", build_and_note)
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        run.mkdir()
        trained.result = train_fold(
            trained.dataset, 0, run, lambda *epoch: trained.weights.append(models[0].get_weights())
        )
        return trained

    return train


def assert_weights(received: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 0) -> None:
    """Compare floats; the counters of dropout's draws may differ."""
    pairs = [(a, b) for a, b in zip(received, expected, strict=True) if a.dtype.kind == "f"]
    assert len(pairs) >= 2
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance / 100)


def assert_mean_of_weights(trained: Trained, n: int) -> None:
    """Check that the kept weights are the mean of the last `n` epochs'."""
    kept = trained.kept
    means = [np.mean(weights, axis=0, dtype=np.float64) for weights in zip(*trained.weights[-n:], strict=True)]
    assert_weights(kept, [mean.astype(weight.dtype) for mean, weight in zip(means, kept, strict=True)], 1e-4)


@pytest.mark.parametrize(("holdout", "counts"), [(0, [12, 24, 0, 0]), (0.25, [12, 18, 6, 0])])
def test_best_keeps_the_epoch_with_the_smallest_loss(train, folder, holdout: float, counts) -> None:
    """Of the fold's own clips, or of the holdout clips; own clips have a wrong label, so that these losses differ."""
    dataset = load_dataset(folder, replace(UNSTABLE, eval_crops=3, holdout=holdout))
    dataset = replace(dataset, targets=np.where(dataset.folds == 0, 1, dataset.targets))
    trained = train(dataset.config, dataset)
    result, split = trained.result, "holdout" if holdout else "val"
    assert [int((result.splits == name).sum()) for name in ("val", "train", "holdout", "unused")] == counts
    np.testing.assert_array_equal(result.held_out, dataset.folds == 0)
    losses = trained.column(f"{split}_loss")
    assert len(losses) == 12
    assert result.state.best_epoch == int(np.argmin(losses)) < 11
    assert_weights(trained.kept, trained.weights[result.state.best_epoch])
    selected = result.splits == split
    assert log_loss(result.train[selected], dataset.targets[selected]) == pytest.approx(min(losses))
    val_losses = trained.column("val_loss")
    assert result.scores["best_val_loss"] == pytest.approx(val_losses[result.state.best_epoch])
    if holdout:
        assert np.argmin(val_losses) != result.state.best_epoch
        assert np.bincount(dataset.targets[selected]).tolist() == [2, 2, 2]


@pytest.mark.parametrize("holdout", [0, 0.25])
def test_best_stops_when_the_loss_has_not_improved_for_some_epochs(train, holdout: float) -> None:
    trained = train(replace(UNSTABLE, max_epochs=40, patience=2, holdout=holdout))
    losses = trained.column("holdout_loss" if holdout else "val_loss")
    assert len(losses) == int(np.argmin(losses)) + 3 < 40
    assert math.isfinite(trained.result.scores["val_map3"])


@pytest.mark.parametrize(("checkpoint", "share", "n"), [
    ("last", 0.5, 1), ("average", 0.01, 1), ("average", 0.25, 2), ("average", 1.0, 6),
])  # fmt: skip
def test_last_and_average_do_not_stop_and_keep_the_last_epochs(train, checkpoint: str, share: float, n: int) -> None:
    trained = train(replace(UNSTABLE, max_epochs=6, patience=1, checkpoint=checkpoint, average_last=share))
    assert (np.diff(trained.column("val_loss")) > 0).any()  # best would have stopped
    assert (len(trained.weights), trained.result.state.best_epoch) == (6, 5)
    assert_mean_of_weights(trained, n)
    difference = max(np.abs(a - b).max() for a, b in zip(trained.kept, trained.weights[-1], strict=True))
    assert difference > 1e-4 if n > 1 else difference == 0


@pytest.mark.parametrize(("settings", "expected"), [
    ({"checkpoint": "last", "max_epochs": 10}, [0, 3, 6, 9]), ({"checkpoint": "last", "max_epochs": 4}, [0, 1, 2, 3]),
    ({"checkpoint": "average", "max_epochs": 9}, [0, 3, 6, 8]), ({"checkpoint": "best", "max_epochs": 8}, [*range(8)]),
    ({"checkpoint": "best", "max_epochs": 8, "holdout": 0.2}, [0, 2, 4, 6, 7]),
])  # fmt: skip
def test_which_epochs_are_validated(settings: dict, expected: list[int], folder: Path, monkeypatch) -> None:
    assert loop.VALIDATIONS >= 10  # enough for a curve
    monkeypatch.setattr(loop, "VALIDATIONS", 4)
    dataset = load_dataset(folder, replace(QUICK, **settings))
    validation = loop.Validation(dataset, assign_splits(dataset, 0))
    model = SimpleNamespace(output_shape=(None, 3), predict_on_batch=lambda inputs: np.full((len(inputs), 3), 1 / 3))
    names = [set(validation(model, epoch)) for epoch in range(dataset.config.max_epochs)]
    always = {"holdout_loss"} if "holdout" in settings else set()
    both = {"val_loss", "val_acc", "val_map3"} | always
    assert names == [both if epoch in expected else always for epoch in range(dataset.config.max_epochs)]


@pytest.mark.parametrize("loss", ["ce", "lq"])
def test_a_loss_that_is_not_finite_is_one_line(train, loss: str) -> None:
    line = error_line(FsatError, train, replace(QUICK, learning_rate=1e38, loss=loss))
    assert "expected a finite number; lower learning_rate (it is 1e+38)" in line


# --- splits ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_unverified_clips_of_weight_0_are_unused(train) -> None:
    trained = train(replace(QUICK, unverified_weight="0"))
    dataset, splits = trained.dataset, trained.result.splits
    np.testing.assert_array_equal(splits == "unused", ~dataset.verified & (dataset.folds != 0))
    assert (splits == "unused").any()
    without = load_dataset(dataset.manifest.folder, replace(QUICK, unverified_weight="0"))
    without = replace(without, target_classes=np.where(without.verified, without.targets, -1))
    np.testing.assert_array_equal(train(QUICK, without).result.train, trained.result.train)


def test_clips_are_unused_if_their_weight_is_0_in_every_epoch(folder: Path) -> None:
    dataset = load_dataset(folder, replace(QUICK, unverified_weight="0:0,3:0.5"))
    assert "unused" not in assign_splits(dataset, 0)
    late = load_dataset(folder, replace(QUICK, unverified_weight="0:0,3:0,4:1"))  # of 4 epochs
    unused = ~late.verified & (late.folds != 0)
    np.testing.assert_array_equal(assign_splits(late, 0) == "unused", unused)
    first = int(unused.argmax())
    accepted = late.relabelled({late.manifest.train["fname"][first]: late.labels[late.targets[first]]})
    assert np.flatnonzero(assign_splits(accepted, 0) != assign_splits(late, 0)).tolist() == [first]


@pytest.mark.slow
def test_training_is_on_new_labels_and_scores_on_the_given_ones(train, folder: Path) -> None:
    dataset = load_dataset(folder, QUICK)
    names = dataset.manifest.train["fname"].to_numpy()
    val = names[dataset.folds == 0].tolist()
    new = {"bell_00.wav": "", "cello_01.wav": "Flute", "flute_02.wav": "", val[0]: "", val[1]: "Bell"}
    trained = train(QUICK, dataset.relabelled(new))
    splits = trained.result.splits
    assert set(names[splits == "unused"]) == {name for name, label in new.items() if not label} - set(val)
    np.testing.assert_array_equal(trained.result.held_out, dataset.folds == 0)
    held_out = trained.result.held_out
    expected = log_loss(trained.result.train[held_out], dataset.targets[held_out])
    assert trained.result.scores["best_val_loss"] == pytest.approx(expected)
    assert np.abs(trained.result.train - train(QUICK).result.train).max() > 1e-5


@pytest.mark.parametrize(("settings", "all_trusted", "words"), [
    ({"unverified_weight": "0"}, False, "fold=1: no training clips with unverified_weight=0 and labels_run_id="),
    ({"unverified_weight": "0:0,2:1"}, False, "no training clips with unverified_weight=0:0,2:1"),
    ({"holdout": 0.05}, True, "holdout=0.05: 24 clips of 24 recordings"),
    ({"holdout": 0.2, "unverified_weight": "0"}, False, "holdout=0.2: 0 clips of 0 recordings"),
    ({}, True, "labels_run_id=none"),
])  # fmt: skip
def test_no_training_clips_are_one_line(settings: dict, all_trusted: bool, words: str, folder: Path) -> None:
    dataset = load_dataset(folder, replace(QUICK, **settings))
    if not settings:
        dataset = dataset.relabelled(dict.fromkeys(dataset.manifest.train["fname"], ""))
    if not all_trusted:
        dataset = replace(dataset, trusted=np.zeros(36, dtype=bool))
    assert words in error_line(ConfigError, assign_splits, dataset, 1)


def test_labels_without_training_clips(folder: Path) -> None:
    dataset = load_dataset(folder, QUICK)
    bells = dataset.targets == 0
    left_out = dataset.manifest.train["fname"][bells & (dataset.folds != 0)]
    dataset = dataset.relabelled(dict.fromkeys(left_out, ""))
    missing = [labels_without_clips(dataset, assign_splits(dataset, fold)) for fold in range(3)]
    assert missing == [["Bell"], [], []]


# --- reproducible results --------------------------------------------------------------------------

MFCC = Config(
    model="conv2d_mfcc", sampling_rate=8000, audio_duration=1, n_mfcc=16, n_folds=2, max_epochs=2, batch_size=9,
    precision="mixed_bfloat16", mixup=0.4, loss="lq", drop_losses=0.3, unverified_weight="0:1,2:0.5", warmup=0.2,
    checkpoint="average", average_last=1, eval_crops=1,
)  # fmt: skip


@pytest.mark.slow
def test_the_same_config_gives_the_same_bits(train) -> None:
    """In bfloat16; in float32, `test_resume` trains each model twice."""
    first, second = train(MFCC), train(MFCC)
    for name in ("train", "test"):
        np.testing.assert_array_equal(getattr(first.result, name), getattr(second.result, name))
    for name in ("loss", "acc", "learning_rate"):
        assert first.column(name) == second.column(name)
    np.testing.assert_allclose(first.result.train.sum(axis=1), 1, rtol=1e-5)
    assert_mean_of_weights(first, 2)  # moving statistics too
    model = build(MFCC, 3)
    model.load_weights(first.result.folder / "best.weights.h5")
    np.testing.assert_array_equal(first.result.train, predict_clips(model, first.dataset.train, MFCC))
