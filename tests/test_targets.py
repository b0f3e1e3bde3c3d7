"""Target classes, weights and encoded targets of training clips, and the losses for unverified labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import make_dataset

from fsat.config import Config
from fsat.data.dataset import load_dataset
from fsat.data.decoded_clips import Clips
from fsat.models import build_for_training, import_keras, seed_everything
from fsat.training.augment import Draws
from fsat.training.batches import TrainingClips
from fsat.training.targets import Targets, encode_targets

keras = import_keras()

import tensorflow as tf  # noqa: E402  (after Keras was told to be quiet)

from fsat.models.losses import is_linear, robust_loss, small_losses  # noqa: E402

CONFIG = Config(model="dummy1d", sampling_rate=20, audio_duration=1, batch_size=4, max_epochs=3)
LOSSES = {
    "lq": replace(CONFIG, loss="lq", lq=0.7),
    "soft": replace(CONFIG, loss="soft_bootstrap", bootstrap=0.8),
    "hard": replace(CONFIG, loss="hard_bootstrap", bootstrap=0.8),
    "drop": replace(CONFIG, drop_losses=0.5),
}

# five clips of three classes: 0, 1 and 4 are trusted, 2 and 3 are not
TARGETS = Targets(np.array([0, 1, 2, 1, 0]), np.array([True, True, False, False, True]), 3)
WEIGHTS = np.float32([1, 1, 0.25, 0.25, 1])
ALL = slice(None)


def draws_of(order: list[int], shares: list[float] | None = None, partners: list[int] | None = None) -> Draws:
    n = len(order)
    mixture = {} if shares is None else {"shares": np.float32(shares), "partners": np.array(partners)}
    return Draws(np.array(order), np.full(n, 20), np.zeros(n, int), **mixture)


# --- weights ---------------------------------------------------------------------------------------


def test_weights_follow_trust_certainty_and_epoch() -> None:
    targets = Targets(np.array([0, 1, -1, 2, -1]), np.array([True, False, True, False, False]), 3)
    config = replace(CONFIG, unverified_weight="0:1,10:0")
    for epoch, weight in ((0, 1), (5, 0.5), (10, 0), (99, 0)):
        weights = targets.weights(config, epoch)
        assert weights.dtype == np.float32
        assert weights.tolist() == [1, weight, 0, weight, 0]
        certain = replace(targets, certainty=np.float32([0.5, 0.25, 0.5, 1, 1]))
        assert certain.weights(config, epoch).tolist() == [0.5, weight, 0, weight, 0]


@pytest.mark.parametrize(("settings", "expected"), [
    ({}, True), ({"unverified_weight": "1"}, True), ({"unverified_weight": "0"}, True),
    ({"unverified_weight": "0.5"}, False), ({"unverified_weight": "2"}, False),
    ({"unverified_weight": "0:1,9:0"}, False), ({"labels_run_id": "0a"}, False), ({"loss": "lq"}, False),
    ({"drop_losses": 0.1}, False),
])  # fmt: skip
def test_rows_are_linear_only_if_they_sum_to_1(settings: dict, expected: bool) -> None:
    """TensorFlow's gradient of the cross-entropy of a softmax assumes it."""
    assert is_linear(replace(CONFIG, **settings)) is expected


def training_clips(config: Config, trusted: list[bool], classes: list[int] | None = None) -> TrainingClips:
    """Clips whose samples are their number; by default each is a class of its own."""
    n = len(trusted)
    clips = Clips.from_arrays([np.full(20, i, np.float32) for i in range(n)], 20)
    targets = Targets(np.arange(n) if classes is None else np.array(classes), np.array(trusted), n)
    return TrainingClips(clips, targets, config)


def clips_of(clips: TrainingClips, epoch: int) -> list[int]:
    batches = list(clips.batches(0, epoch))
    assert len(batches) == clips.n_batches(epoch)
    return sorted(int(crop[0, 0]) for inputs, _ in batches for crop in inputs)


def test_clips_without_weight_or_class_are_not_in_an_epoch() -> None:
    config = replace(CONFIG, unverified_weight="0:0,4:1,8:0")
    clips = training_clips(config, [True] * 3 + [False] * 6)
    assert [clips_of(clips, epoch) for epoch in (0, 1, 7, 8)] == [[0, 1, 2], [*range(9)], [*range(9)], [0, 1, 2]]
    clips = training_clips(CONFIG, [True, True, False, False, True], [0, -1, 2, -1, 4])
    assert clips_of(clips, 0) == [0, 2, 4]


def test_weights_reach_the_batches() -> None:
    clips = training_clips(replace(CONFIG, unverified_weight="0:1,4:0"), [True, False] * 4)
    for inputs, targets in clips.batches(0, 1):
        numbers = inputs[:, 0, 0].astype(int)
        expected = np.eye(8)[numbers] * np.where(numbers % 2, 0.75, 1)[:, np.newaxis]
        np.testing.assert_array_equal(targets.sum(axis=1), expected)


# --- targets ---------------------------------------------------------------------------------------


def test_targets_are_one_hot_times_weight() -> None:
    targets = encode_targets(TARGETS, WEIGHTS, draws_of([3, 0, 2, 4]), slice(0, 3), CONFIG)
    assert targets.dtype == np.float32
    assert targets.tolist() == [[0, 0.25, 0], [1, 0, 0], [0, 0, 0.25]]


def test_smoothing_spreads_a_share_of_each_label() -> None:
    config = replace(CONFIG, label_smoothing=0.3)
    targets = encode_targets(TARGETS, WEIGHTS, draws_of([0, 2]), ALL, config)
    np.testing.assert_allclose(targets, [[0.8, 0.1, 0.1], [0.025, 0.025, 0.2]], rtol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), [1, 0.25], rtol=1e-6)


def test_targets_of_mixtures() -> None:
    """The second batch of an epoch: partners are places in it."""
    draws = draws_of([4, 4, 0, 1, 2, 3], [1, 1, 0.75, 0.5, 0.5, 0.875], [0, 1, 1, 2, 3, 0])
    targets = encode_targets(TARGETS, WEIGHTS, draws, slice(2, 6), CONFIG)
    expected = [[0.75, 0.25, 0], [0, 0.5, 0.125], [0, 0.125, 0.125], [0.125, 0.21875, 0]]
    np.testing.assert_allclose(targets, expected, rtol=1e-6)
    smooth = encode_targets(TARGETS, WEIGHTS, draws, slice(2, 6), replace(CONFIG, label_smoothing=0.3))
    totals = np.sum(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(smooth, 0.7 * np.array(expected) + 0.1 * totals, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_other_losses_have_separate_parts(loss: str) -> None:
    plain = encode_targets(TARGETS, WEIGHTS, draws_of([0, 2, 3]), ALL, LOSSES[loss])
    assert (plain.shape, plain.dtype) == ((3, 3, 3), np.float32)
    none = [0, 0, 0]
    assert plain.tolist() == [[[1, 0, 0], none, none], [none, [0, 0, 0.25], none], [none, [0, 0.25, 0], none]]
    # clip and partner: both trusted; partner trusted; none; clip trusted
    draws = draws_of([0, 2, 3, 1], [0.75, 0.5, 0.625, 0.875], [3, 0, 1, 2])
    mixed = encode_targets(TARGETS, WEIGHTS, draws, ALL, LOSSES[loss])
    assert mixed.tolist() == [
        [[0.75, 0.25, 0], none, none], [[0.5, 0, 0], [0, 0, 0.125], none],
        [none, [0, 0.15625, 0], [0, 0, 0.09375]], [[0, 0.875, 0], none, [0, 0.03125, 0]],
    ]  # fmt: skip
    np.testing.assert_allclose(mixed.sum(axis=1), encode_targets(TARGETS, WEIGHTS, draws, ALL, CONFIG), rtol=1e-6)


def test_trusted_labels_are_smoothed_with_any_loss() -> None:
    config = replace(LOSSES["lq"], label_smoothing=0.3)
    targets = encode_targets(TARGETS, WEIGHTS, draws_of([0, 2], [0.75, 1], [1, 0]), ALL, config)
    np.testing.assert_allclose(targets[0, 0], [0.6, 0.075, 0.075], rtol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=(1, 2)), [0.75 + 0.0625, 0.25], rtol=1e-6)


# --- losses ----------------------------------------------------------------------------------------

P = np.float32([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25], [0.05, 0.05, 0.9]])


DRAWS = draws_of([2, 3, 0, 4, 1], [0.75, 0.5, 0.625, 1, 0.875], [0, 2, 1, 3, 0])
MIXED = encode_targets(TARGETS, WEIGHTS, DRAWS, ALL, LOSSES["lq"])


def slow_loss(config: Config, targets: np.ndarray, p: np.ndarray) -> list[float]:
    """Compute the loss of each clip by the published formulas."""
    result = []
    for (trusted, *unverified), row in zip(targets.astype(np.float64), p.astype(np.float64), strict=True):
        loss = -(trusted * np.log(row)).sum()
        for part in unverified:
            if not part.any():
                continue
            k, weight = int(part.argmax()), part.sum()
            b = config.bootstrap
            kinds = {
                "ce": -np.log(row[k]),
                "lq": (1 - row[k] ** config.lq) / config.lq,
                "soft_bootstrap": -sum((b * (j == k) + (1 - b) * row[j]) * np.log(row[j]) for j in range(len(row))),
                "hard_bootstrap": -b * np.log(row[k]) - (1 - b) * np.log(row.max()),
            }
            loss += weight * kinds[config.loss]
        result.append(loss)
    return result


@pytest.mark.parametrize(("loss", "options"), [
    ("lq", {"lq": 0.7}), ("lq", {"lq": 1}), ("soft_bootstrap", {"bootstrap": 0}), ("hard_bootstrap", {"bootstrap": 1}),
    ("soft_bootstrap", {"bootstrap": 0.8}), ("hard_bootstrap", {"bootstrap": 0.8}),
])  # fmt: skip
def test_losses_are_those_of_the_papers(loss: str, options: dict[str, float]) -> None:
    config = replace(CONFIG, loss=loss, **options)
    assert [(MIXED[:, i].sum(axis=1) > 0).sum() for i in range(3)] == [4, 2, 3]  # all combinations
    result = robust_loss(config, 10)(tf.constant(MIXED), tf.constant(P))
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, slow_loss(config, MIXED, P), rtol=1e-5)


@pytest.mark.parametrize("q", [1e-2, 1e-4, 1e-7, 1e-12])
def test_lq_is_cross_entropy_for_a_q_near_0(q: float) -> None:
    lq = robust_loss(replace(CONFIG, loss="lq", lq=q), 10)(MIXED, P)
    np.testing.assert_allclose(lq, slow_loss(CONFIG, MIXED, P), rtol=max(1e-5, 2 * q))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_for_probabilities_of_0_and_1(loss: str) -> None:
    p = tf.constant([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [1 / 3] * 3])
    for _ in range(2):
        with tf.GradientTape() as tape:
            tape.watch(p)
            result = robust_loss(LOSSES[loss], 1)(tf.constant(MIXED), p)
        gradient = tape.gradient(result, p)
        assert np.isfinite(result).all()
        assert 0 < np.abs(gradient).max() < np.inf


# --- small losses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("n", [0, 1, 3, 10, 20])
def test_the_largest_losses_of_valid_elements_are_dropped(n: int, share: float) -> None:
    rng = np.random.default_rng(n)
    valid = np.zeros(32, dtype=bool)
    valid[rng.permutation(32)[:n]] = True
    losses = np.where(valid, rng.uniform(0, 3, 32), 9).astype(np.float32)  # invalid elements are larger
    mask = small_losses(tf.constant(losses.reshape(16, 2)), tf.constant(valid.reshape(16, 2)), tf.constant(share))
    assert mask.shape == (16, 2)
    largest = np.flatnonzero(valid)[np.argsort(-losses[valid])][: int(np.floor(share * n + 1e-9))]
    assert np.flatnonzero(np.ravel(mask) == 0).tolist() == sorted(largest.tolist())
    assert set(np.ravel(mask).tolist()) <= {0.0, 1.0}
    valid = tf.constant([False, True, True, True, True])  # of equal losses, the first
    assert small_losses(tf.zeros(5), valid, tf.constant(0.5)).numpy().tolist() == [1, 0, 0, 1, 1]


SURE = np.float32([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8], [0.1, 0.9], [0.05, 0.95]])


@pytest.mark.parametrize(("warmup", "dropped"), [(0.25, [0, 1, 2, 3, 4, 4, 4]), (0, [0, 4, 4])])  # of 16 steps
def test_the_dropped_share_grows_over_the_warm_up(warmup: float, dropped: list[int]) -> None:
    """Eight unverified clips of the first class, and a trusted one with a larger loss, which always counts."""
    loss = robust_loss(replace(CONFIG, drop_losses=0.5, warmup=warmup), 16)
    targets = np.zeros((9, 3, 2), np.float32)
    targets[:8, 1, 0] = 0.5
    targets[8, 0, 0] = 1
    p = np.concatenate([SURE, np.float32([[0.01, 0.99]])])
    for n_dropped in dropped:
        expected = -np.log(p[:, 0]) * ([0.5] * (8 - n_dropped) + [0] * n_dropped + [1])
        np.testing.assert_allclose(loss(targets, p), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["lq", "soft_bootstrap", "hard_bootstrap"])
def test_losses_to_drop_are_ranked_by_the_configured_loss(name: str) -> None:
    """Each part of a mixture by itself, independent of its share."""
    config = replace(CONFIG, loss=name, drop_losses=0.4)
    loss = robust_loss(config, 1)
    loss(MIXED, P)
    remaining, losses = MIXED.copy(), {}
    for i, j in zip(*np.nonzero(MIXED[:, 1:].any(axis=2)), strict=True):
        label = np.zeros((1, 3, 3), np.float32)
        label[0, 1] = MIXED[i, 1 + j] > 0
        losses[i, j] = slow_loss(config, label, P[i : i + 1])[0]
    assert len(losses) == 5
    for i, j in sorted(losses, key=losses.get)[-2:]:  # 0.4 of 5
        remaining[i, 1 + j] = 0
    np.testing.assert_allclose(loss(MIXED, P), slow_loss(config, remaining, P), rtol=1e-5)


# --- a model ---------------------------------------------------------------------------------------


def test_a_model_counts_its_steps_once() -> None:
    """Without learning, the logged loss falls as more of the batch is dropped."""
    seed_everything(1)
    model = build_for_training(replace(CONFIG, drop_losses=0.5, warmup=0.5, learning_rate=1e-12), 2, 8)
    inputs = np.linspace(-1, 1, 160, dtype=np.float32).reshape(8, 20, 1)
    targets = np.zeros((8, 3, 2), np.float32)
    targets[:4, 1, 0] = targets[4:, 1, 1] = 1
    losses = -np.log((np.asarray(model(inputs)) * targets[:, 1]).sum(axis=1))
    expected = [np.sort(losses)[: 8 - n].sum() / 8 for n in (0, 1, 2, 3, 4, 4)]
    logged = [model.train_on_batch(inputs, targets, return_dict=True) for _ in expected]
    np.testing.assert_allclose([logs["loss"] for logs in logged], expected, rtol=1e-4)
    right = (np.asarray(model(inputs)).argmax(axis=1) == [0] * 4 + [1] * 4).mean()
    assert logged[0]["acc"] == pytest.approx(right)


# --- labels of `verify` ----------------------------------------------------------------------------


def test_new_labels_are_trusted_and_the_given_ones_stay(tmp_path: Path) -> None:
    config = Config.resolve({"precision": "float32"}, "quick")
    dataset = load_dataset(make_dataset(tmp_path / "data", unverified=0.5, test_clips=0), config)
    assert dataset.target_classes is dataset.targets
    np.testing.assert_array_equal(dataset.trusted, dataset.verified)
    assert dataset.verified.sum() == 9
    given, names = dataset.targets.copy(), dataset.manifest.train["fname"].tolist()
    new = {"bell_00.wav": "Flute", "cello_01.wav": "Cello", "flute_02.wav": "", "elsewhere.wav": "Bell"}
    relabelled = dataset.relabelled(new, {"bell_00.wav": 0.75})
    rows = [names.index(name) for name in list(new)[:3]]
    classes, trusted = given.copy(), dataset.verified.copy()
    classes[rows], trusted[rows] = [2, 1, -1], True
    np.testing.assert_array_equal(relabelled.target_classes, classes)
    np.testing.assert_array_equal(relabelled.trusted, trusted)
    assert relabelled.certainty.tolist() == [0.75 if name == "bell_00.wav" else 1 for name in names]
    assert (relabelled.labels, relabelled.study) == (dataset.labels, dataset.study)
    for targets in (relabelled.targets, dataset.targets, dataset.target_classes):
        np.testing.assert_array_equal(targets, given)
