"""What is taught about each clip: weights by epoch, targets of a batch, and the losses on labels nobody has checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import make_dataset

from fsat.config import Config
from fsat.data.clips import Clips
from fsat.data.dataset import load_dataset
from fsat.models import build_for_training, import_keras, seed_everything
from fsat.training.augment import Draws
from fsat.training.batches import TrainingClips
from fsat.training.targets import Lessons, targets_of

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
LESSONS = Lessons(np.array([0, 1, 2, 1, 0]), np.array([True, True, False, False, True]), 3)
WEIGHTS = np.float32([1, 1, 0.25, 0.25, 1])
EVERY = slice(None)


def drawn(order: list[int], shares: list[float] | None = None, partners: list[int] | None = None) -> Draws:
    n = len(order)
    mixture = {} if shares is None else {"shares": np.float32(shares), "partners": np.array(partners)}
    return Draws(np.array(order), np.full(n, 20), np.zeros(n, int), **mixture)


# --- weights ---------------------------------------------------------------------------------------


def test_trusted_clips_count_whole_and_others_by_the_epoch() -> None:
    lessons = Lessons(np.array([0, 1, -1, 2, -1]), np.array([True, False, True, False, False]), 3)
    config = replace(CONFIG, unverified_weight="0:1,10:0")
    for epoch, weight in ((0, 1), (5, 0.5), (10, 0), (99, 0)):
        weights = lessons.weights(config, epoch)
        assert weights.dtype == np.float32
        assert weights.tolist() == [1, weight, 0, weight, 0]
        sure = np.float32([0.5, 0.25, 0.5, 1, 1])
        assert replace(lessons, certainty=sure).weights(config, epoch).tolist() == [0.5, weight, 0, weight, 0]


def test_labels_of_verify_are_weighed_by_their_certainty_in_the_loss() -> None:
    """Row sums other than 1 would have a wrong gradient in TensorFlow's own cross-entropy."""
    config = replace(CONFIG, labels_run_id="0a")
    assert (is_linear(CONFIG), is_linear(config)) == (True, False)
    lessons = Lessons(np.array([0, 1]), np.array([True, True]), 3, np.float32([1, 0.5]))
    targets = targets_of(lessons, lessons.weights(config, 0), drawn([1, 0]), EVERY, config)
    np.testing.assert_array_equal(targets[:, 0], [[0, 0.5, 0], [1, 0, 0]])
    assert not targets[:, 1:].any()
    p = np.float32([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]])
    losses = robust_loss(config, 10)(tf.constant(targets), tf.constant(p)).numpy()
    np.testing.assert_allclose(losses, [0.5 * np.log(2), np.log(2)], rtol=1e-6)


def training_clips(config: Config, trusted: list[bool], classes: list[int] | None = None) -> TrainingClips:
    """Clips whose every sample is their number; each is a class of its own unless told otherwise."""
    n = len(trusted)
    clips = Clips.from_arrays([np.full(20, i, np.float32) for i in range(n)], 20)
    lessons = Lessons(np.arange(n) if classes is None else np.array(classes), np.array(trusted), n)
    return TrainingClips(clips, lessons, config)


def taking_part(clips: TrainingClips, epoch: int) -> list[int]:
    batches = list(clips.batches(0, epoch))
    assert len(batches) == clips.n_batches(epoch)
    return sorted(int(crop[0, 0]) for inputs, _ in batches for crop in inputs)


def test_clips_without_weight_take_no_part_in_an_epoch() -> None:
    config = replace(CONFIG, unverified_weight="0:0,4:1,8:0")
    clips = training_clips(config, [True] * 3 + [False] * 6)
    assert taking_part(clips, 0) == [0, 1, 2]
    assert taking_part(clips, 1) == list(range(9))
    assert taking_part(clips, 7) == list(range(9))
    assert taking_part(clips, 8) == [0, 1, 2]
    assert [clips.n_batches(epoch) for epoch in (0, 1, 8)] == [1, 3, 1]


def test_clips_that_are_left_out_take_no_part_whoever_trusts_them() -> None:
    clips = training_clips(CONFIG, [True, True, False, False, True], [0, -1, 2, -1, 4])
    assert taking_part(clips, 0) == [0, 2, 4]


@pytest.mark.parametrize("config", [CONFIG, LOSSES["lq"]], ids=["linear", "lq"])
def test_weights_reach_the_targets(config: Config) -> None:
    clips = training_clips(replace(config, unverified_weight="0:1,4:0"), [True, False] * 4)
    for inputs, targets in clips.batches(0, 1):
        assert targets.shape[1:] == (3, 8)
        whole = targets.sum(axis=1)
        assert whole.dtype == np.float32
        for crop, row in zip(inputs, whole, strict=True):
            number = int(crop[0, 0])
            assert row.tolist() == [(0.75 if number % 2 else 1) * (k == number) for k in range(8)]


# --- targets ---------------------------------------------------------------------------------------


def test_targets_are_one_hot_times_weight() -> None:
    targets = targets_of(LESSONS, WEIGHTS, drawn([3, 0, 2, 4]), slice(0, 3), CONFIG)
    assert targets.dtype == np.float32
    assert targets.tolist() == [[0, 0.25, 0], [1, 0, 0], [0, 0, 0.25]]


def test_smoothing_spreads_a_share_of_each_label() -> None:
    config = replace(CONFIG, label_smoothing=0.3)
    targets = targets_of(LESSONS, WEIGHTS, drawn([0, 2]), EVERY, config)
    np.testing.assert_allclose(targets, [[0.8, 0.1, 0.1], [0.025, 0.025, 0.2]], rtol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), [1, 0.25], rtol=1e-6)


def test_targets_of_mixtures() -> None:
    """The second batch of an epoch: partners are places in it."""
    draws = drawn([4, 4, 0, 1, 2, 3], [1, 1, 0.75, 0.5, 0.5, 0.875], [0, 1, 1, 2, 3, 0])
    targets = targets_of(LESSONS, WEIGHTS, draws, slice(2, 6), CONFIG)
    expected = [[0.75, 0.25, 0], [0, 0.5, 0.125], [0, 0.125, 0.125], [0.125, 0.21875, 0]]
    np.testing.assert_allclose(targets, expected, rtol=1e-6)
    smooth = targets_of(LESSONS, WEIGHTS, draws, slice(2, 6), replace(CONFIG, label_smoothing=0.3))
    totals = np.sum(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(smooth, 0.7 * np.array(expected) + 0.1 * totals, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_where_losses_are_not_linear_the_parts_are_kept_apart(loss: str) -> None:
    assert not is_linear(LOSSES[loss])
    plain = targets_of(LESSONS, WEIGHTS, drawn([0, 2, 3]), EVERY, LOSSES[loss])
    assert plain.shape == (3, 3, 3)
    assert plain.dtype == np.float32
    assert plain[0].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert plain[1].tolist() == [[0, 0, 0], [0, 0, 0.25], [0, 0, 0]]
    assert plain[2].tolist() == [[0, 0, 0], [0, 0.25, 0], [0, 0, 0]]
    # both trusted; itself not, partner trusted; both not; itself trusted, partner not
    draws = drawn([0, 2, 3, 1], [0.75, 0.5, 0.625, 0.875], [3, 0, 1, 2])
    mixed = targets_of(LESSONS, WEIGHTS, draws, EVERY, LOSSES[loss])
    assert mixed[0].tolist() == [[0.75, 0.25, 0], [0, 0, 0], [0, 0, 0]]
    assert mixed[1].tolist() == [[0.5, 0, 0], [0, 0, 0.125], [0, 0, 0]]
    assert mixed[2].tolist() == [[0, 0, 0], [0, 0.15625, 0], [0, 0, 0.09375]]
    assert mixed[3].tolist() == [[0, 0.875, 0], [0, 0, 0], [0, 0.03125, 0]]
    np.testing.assert_allclose(mixed.sum(axis=1), targets_of(LESSONS, WEIGHTS, draws, EVERY, CONFIG), rtol=1e-6)


def test_what_is_trusted_is_smoothed_whatever_the_loss() -> None:
    config = replace(LOSSES["lq"], label_smoothing=0.3)
    targets = targets_of(LESSONS, WEIGHTS, drawn([0, 2], [0.75, 1], [1, 0]), EVERY, config)
    np.testing.assert_allclose(targets[0, 0], [0.6, 0.075, 0.075], rtol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=(1, 2)), [0.75 + 0.0625, 0.25], rtol=1e-6)


# --- losses ----------------------------------------------------------------------------------------

P = np.float32([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.4, 0.35, 0.25], [0.05, 0.05, 0.9]])


def parts(order: list[int], shares: list[float], partners: list[int]) -> np.ndarray:
    return targets_of(LESSONS, WEIGHTS, drawn(order, shares, partners), EVERY, LOSSES["lq"])


MIXED = parts([2, 3, 0, 4, 1], [0.75, 0.5, 0.625, 1, 0.875], [0, 2, 1, 3, 0])


def by_hand(config: Config, targets: np.ndarray, p: np.ndarray) -> list[float]:
    """The loss of each clip, by the formulas as they are published."""
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


@pytest.mark.parametrize(
    "config",
    [
        LOSSES["lq"],
        replace(CONFIG, loss="lq", lq=1),
        LOSSES["soft"],
        LOSSES["hard"],
        replace(CONFIG, loss="soft_bootstrap", bootstrap=0),
        replace(CONFIG, loss="hard_bootstrap", bootstrap=1),
    ],
    ids=lambda config: f"{config.loss} {config.lq if config.loss == 'lq' else config.bootstrap:g}",
)
def test_losses_are_those_of_the_papers(config: Config) -> None:
    assert [(MIXED[:, i].sum(axis=1) > 0).sum() for i in range(3)] == [4, 2, 3]  # all there is to be told apart
    result = robust_loss(config, 10)(tf.constant(MIXED), tf.constant(P))
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, by_hand(config, MIXED, P), rtol=1e-5)


def test_a_number_or_two_by_hand() -> None:
    one = np.float32([[[0, 0, 0], [0, 1, 0], [0, 0, 0]]])
    p = np.float32([[0.5, 0.25, 0.25]])
    for config, expected in (
        (replace(CONFIG, loss="lq", lq=0.5), 1.0),  # (1 - 0.25 ** 0.5) / 0.5
        (replace(CONFIG, loss="lq", lq=1), 0.75),
        (replace(CONFIG, loss="soft_bootstrap", bootstrap=0.75), (0.75 * 2 + 0.25 * 1.5) * np.log(2)),
        (replace(CONFIG, loss="hard_bootstrap", bootstrap=0.75), (0.75 * 2 + 0.25 * 1) * np.log(2)),
    ):
        np.testing.assert_allclose(robust_loss(config, 10)(one, p), [expected], rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_trusted_clips_alone_count_by_cross_entropy(loss: str) -> None:
    config = replace(LOSSES[loss], label_smoothing=0.1)
    lessons = Lessons(np.array([0, 1, 2, 1, 0]), np.ones(5, dtype=bool), 3)
    draws = drawn([0, 1, 2, 3, 4], [0.75, 0.5, 0.625, 1, 0.875], [0, 2, 1, 3, 0])
    linear = targets_of(lessons, np.ones(5, np.float32), draws, EVERY, replace(CONFIG, label_smoothing=0.1))
    loss = robust_loss(config, 1)
    for _ in range(3):  # with nothing to drop, whenever
        result = loss(targets_of(lessons, np.ones(5, np.float32), draws, EVERY, config), P)
        np.testing.assert_allclose(result, keras.losses.categorical_crossentropy(linear, P), rtol=1e-5)


@pytest.mark.parametrize("q", [1e-2, 1e-4, 1e-7, 1e-12])
def test_lq_is_cross_entropy_for_a_q_near_0(q: float) -> None:
    lq = robust_loss(replace(CONFIG, loss="lq", lq=q), 10)(MIXED, P)
    np.testing.assert_allclose(lq, by_hand(CONFIG, MIXED, P), rtol=max(1e-5, 2 * q))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_for_probabilities_of_0_and_1(loss: str) -> None:
    p = tf.constant([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [1 / 3] * 3])
    for _ in range(2):
        with tf.GradientTape() as tape:
            tape.watch(p)
            result = robust_loss(LOSSES[loss], 1)(tf.constant(MIXED), p)
        gradient = tape.gradient(result, p)
        assert np.isfinite(result).all()
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_trusting_the_model_makes_a_wrong_label_cost_less() -> None:
    """Which is what these losses are for: of a label that the model is sure is wrong the pull is weaker."""
    label = np.float32([[[0, 0, 0], [1, 0, 0], [0, 0, 0]]])

    def pull(config: Config) -> float:
        logits = tf.constant([[0.0, 4.0, 0.0]])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = robust_loss(config, 1)(label, tf.nn.softmax(logits))
        return float(-tape.gradient(loss, logits)[0, 0])

    plain = pull(LOSSES["drop"])  # nothing is dropped in the first step
    np.testing.assert_allclose(plain, 1 - np.exp(0) / (np.exp(4) + 2), rtol=1e-4)
    for loss in ("lq", "soft", "hard"):
        assert 0 < pull(LOSSES[loss]) < 0.9 * plain


# --- small losses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("n", [0, 1, 3, 10, 20])
def test_just_the_greatest_of_those_that_are_there_are_dropped(n: int, share: float) -> None:
    rng = np.random.default_rng(n)
    there = np.zeros(32, dtype=bool)
    there[rng.permutation(32)[:n]] = True
    losses = np.where(there, rng.uniform(0, 3, 32), 9).astype(np.float32)  # what is absent must not be taken for great
    kept = small_losses(tf.constant(losses.reshape(16, 2)), tf.constant(there.reshape(16, 2)), tf.constant(share))
    assert kept.shape == (16, 2)
    dropped = np.flatnonzero(np.ravel(kept) == 0)
    greatest = np.flatnonzero(there)[np.argsort(-losses[there])][: int(np.floor(share * n + 1e-9))]
    assert dropped.tolist() == sorted(greatest.tolist())
    assert set(np.ravel(kept).tolist()) <= {0.0, 1.0}


def test_of_equal_losses_the_first_are_dropped_and_losses_of_0_are_there() -> None:
    there = tf.constant([False, True, True, True, True])
    assert small_losses(tf.zeros(5), there, tf.constant(0.5)).numpy().tolist() == [1, 0, 0, 1, 1]


SURE = np.float32([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8], [0.1, 0.9], [0.05, 0.95]])


def test_the_share_that_is_dropped_grows_over_the_warm_up() -> None:
    """Eight unverified clips of the first class and a trusted one with a greater loss than theirs, which always counts.

    Of 16 steps 4 are warm-up.
    """
    loss = robust_loss(replace(CONFIG, drop_losses=0.5, warmup=0.25), 16)
    targets = np.zeros((9, 3, 2), np.float32)
    targets[:8, 1, 0] = 0.5
    targets[8, 0, 0] = 1
    p = np.concatenate([SURE, np.float32([[0.01, 0.99]])])
    for n_dropped in (0, 1, 2, 3, 4, 4, 4):
        expected = -np.log(p[:, 0]) * ([0.5] * (8 - n_dropped) + [0] * n_dropped + [1])
        np.testing.assert_allclose(loss(targets, p), expected, rtol=1e-5)


def test_without_warm_up_all_count_in_the_first_step_alone() -> None:
    loss = robust_loss(replace(CONFIG, drop_losses=0.25), 16)
    targets = np.zeros((8, 3, 2), np.float32)
    targets[:, 1, 0] = 1
    assert [int((np.asarray(loss(targets, SURE)) == 0).sum()) for _ in range(3)] == [0, 2, 2]


@pytest.mark.parametrize("name", ["lq", "soft_bootstrap", "hard_bootstrap"])
def test_what_is_great_is_measured_by_the_loss_itself(name: str) -> None:
    """Mixtures too: each part stands for itself, whatever its share."""
    config = replace(CONFIG, loss=name, drop_losses=0.4)
    loss = robust_loss(config, 1)
    loss(MIXED, P)
    kept = MIXED.copy()
    own = {}
    for i, j in zip(*np.nonzero(MIXED[:, 1:].any(axis=2)), strict=True):
        one = np.zeros((1, 3, 3), np.float32)
        one[0, 1] = MIXED[i, 1 + j] > 0
        own[i, j] = by_hand(config, one, P[i : i + 1])[0]
    assert len(own) == 5
    for i, j in sorted(own, key=own.get)[-2:]:  # 0.4 of 5
        kept[i, 1 + j] = 0
    np.testing.assert_allclose(loss(MIXED, P), by_hand(config, kept, P), rtol=1e-5)


# --- a model ---------------------------------------------------------------------------------------


def weights_after(config: Config, targets: np.ndarray, steps: int = 3) -> np.ndarray:
    seed_everything(3)
    model = build_for_training(replace(config, learning_rate=0.1, precision="float32"), targets.shape[-1], steps)
    inputs = np.random.default_rng(0).uniform(-1, 1, (len(targets), 20, 1)).astype(np.float32)
    for _ in range(steps):
        logs = model.train_on_batch(inputs, targets, return_dict=True)
        assert set(logs) == {"loss", "acc"}
        assert np.isfinite(logs["loss"])
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


@pytest.mark.parametrize("loss", ["lq", "soft", "hard", "drop"])
def test_trusted_clips_alone_train_a_model_alike(loss: str) -> None:
    linear = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    apart = np.zeros((4, 3, 3), np.float32)
    apart[:, 0] = linear
    expected = weights_after(CONFIG, linear)
    np.testing.assert_allclose(weights_after(LOSSES[loss], apart), expected, rtol=1e-4, atol=1e-5)
    unverified = apart[:, [1, 0, 2]]
    if loss != "drop":
        assert np.abs(weights_after(LOSSES[loss], unverified) - expected).max() > 1e-3


def test_weights_in_the_targets_are_those_of_the_clips() -> None:
    inputs = np.random.default_rng(0).uniform(-1, 1, (6, 20, 1)).astype(np.float32)
    one_hot = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    clip_weights = np.float32([1, 0.25, 0.5, 1, 0.25, 0.1])
    apart = np.zeros((6, 3, 3), np.float32)
    apart[:, 1] = one_hot * clip_weights[:, np.newaxis]
    found = []
    for weight, targets, weights in (("0.25", apart, None), ("1", one_hot, clip_weights)):
        config = replace(CONFIG, learning_rate=0.1, precision="float32", unverified_weight=weight)
        seed_everything(3)
        model = build_for_training(config, 3)
        for _ in range(3):
            logs = model.train_on_batch(inputs, targets, sample_weight=weights, return_dict=True)
        found.append([logs["loss"], *model.get_weights()])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weight", ["0.5", "2", "0:1,9:0", "0:0,9:1"])
def test_weighted_rows_do_not_sum_to_1_and_so_are_kept_apart(weight: str) -> None:
    """TensorFlow's own gradient of the cross-entropy of a softmax takes every row for one that sums to 1."""
    assert not is_linear(replace(CONFIG, unverified_weight=weight))
    assert is_linear(replace(CONFIG, unverified_weight="1"))
    assert is_linear(replace(CONFIG, unverified_weight="0"))  # those clips are left out


def test_a_model_counts_its_steps_once() -> None:
    """The loss that is logged falls as more of the batch is dropped, while nothing is learned."""
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


def test_other_labels_are_taught_and_trusted_and_the_given_ones_stay(tmp_path: Path) -> None:
    config = Config.resolve({"precision": "float32"}, "quick")
    dataset = load_dataset(make_dataset(tmp_path / "data", unverified=0.5, test_clips=0), config)
    assert dataset.target_classes is dataset.targets
    np.testing.assert_array_equal(dataset.trusted, dataset.verified)
    new = {"bell_00.wav": "Flute", "cello_01.wav": "Cello", "flute_02.wav": "", "elsewhere.wav": "Bell"}
    other = dataset.relabelled(new, {"bell_00.wav": 0.75})
    assert Counter(other.certainty.tolist()) == {1: 17, 0.75: 1}
    names = other.manifest.train["fname"].tolist()
    taught = dict(zip(names, other.target_classes.tolist(), strict=True))
    trusted = dict(zip(names, other.trusted.tolist(), strict=True))
    assert [taught[name] for name in list(new)[:3]] == [2, 1, -1]
    assert all(trusted[name] for name in list(new)[:3])
    rest = np.array([name not in new for name in names])
    np.testing.assert_array_equal(other.target_classes[rest], dataset.targets[rest])
    np.testing.assert_array_equal(other.trusted[rest], dataset.verified[rest])
    np.testing.assert_array_equal(other.targets, dataset.targets)
    np.testing.assert_array_equal(other.verified, dataset.verified)
    assert Counter(dataset.verified.tolist()) == {True: 9, False: 9}
    assert (other.labels, other.study) == (dataset.labels, dataset.study)
    np.testing.assert_array_equal(dataset.target_classes, dataset.targets)  # the dataset itself has not changed
