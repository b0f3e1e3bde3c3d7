"""Targets, weights and losses where each class of a clip has its own, and decisions of `verify` on them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from mixtures import make_mixtures

from fsat.config import Config
from fsat.data.dataset import Dataset, load_dataset
from fsat.errors import ConfigError
from fsat.models import import_keras
from fsat.training.augment import Draws
from fsat.training.fold import assign_splits, labels_without_clips
from fsat.training.targets import Targets, encode_targets

keras = import_keras()

import tensorflow as tf  # noqa: E402  (after Keras was told to be quiet)

from fsat.models.losses import binary_loss, compile_arguments, target_shape  # noqa: E402

CONFIG = Config(model="dummy1d", task="multi", sampling_rate=8000, audio_duration=0.25, batch_size=4, max_epochs=3)
LOSSES = {
    "ce": {}, "focal": {"focal": 2.0}, "lq": {"loss": "lq", "lq": 0.7}, "focal lq": {"loss": "lq", "focal": 0.5},
    "soft": {"loss": "soft_bootstrap", "bootstrap": 0.8}, "hard": {"loss": "hard_bootstrap", "bootstrap": 0.8},
    "soft focal": {"loss": "soft_bootstrap", "bootstrap": 0.8, "focal": 1.5},
}  # fmt: skip

# three clips of three classes: two labels, one, and none; some pairs are trusted, and one is left out
CLASSES = np.array([[True, True, False], [False, False, True], [False, False, False]])
TRUSTED = np.array([[True, True, True], [True, False, False], [False, False, False]])
CERTAINTY = np.float32([[1, 0.75, 0], [0.5, 1, 1], [1, 1, 1]])
TARGETS = Targets(CLASSES, TRUSTED, 3, CERTAINTY)
ALL = slice(None)


def settings(**options: object) -> Config:
    return replace(CONFIG, **options)


def draws_of(order: list[int], shares: list[float] | None = None, partners: list[int] | None = None) -> Draws:
    n = len(order)
    mixture = {} if shares is None else {"shares": np.float32(shares), "partners": np.array(partners)}
    return Draws(np.array(order), np.full(n, 20), np.zeros(n, int), **mixture)


# --- weights ---------------------------------------------------------------------------------------


def test_each_pair_has_a_weight_of_its_own() -> None:
    config = settings(unverified_weight="0:1,4:0.5,8:0")
    for epoch, weight in ((0, 1), (4, 0.5), (9, 0)):
        weights = TARGETS.weights(config, epoch)
        assert weights.dtype == np.float32
        assert weights.tolist() == [[1, 0.75, 0], [0.5, weight, weight], [weight] * 3]
        assert TARGETS.clips(config, epoch).tolist() == ([0, 1, 2] if weight else [0, 1])
    nothing = replace(TARGETS, certainty=np.zeros((3, 3), np.float32))
    assert nothing.clips(settings(unverified_weight="0"), 0).tolist() == []
    assert replace(TARGETS, certainty=None).weights(CONFIG, 0).tolist() == np.ones((3, 3)).tolist()


def test_balanced_weights_are_of_labels_that_count() -> None:
    """Two clips have the first class, one the second, and one the third without a weight; absences weigh 1."""
    classes = np.array([[True, True, False], [True, False, False], [False, False, True]])
    targets = Targets(classes, np.ones((3, 3), dtype=bool), 3, np.float32([[1, 1, 1], [1, 0.5, 1], [1, 1, 0]]))
    weights = targets.weights(settings(class_weights="balanced"), 0)
    np.testing.assert_allclose(weights, [[0.75, 1.5, 1], [0.75, 0.5, 1], [1, 1, 0]], rtol=1e-6)


def test_one_label_a_clip_is_a_target_for_each_class() -> None:
    """A clip without a class has no weight, trusted or not."""
    single = Targets(np.array([2, 0, -1, 1]), np.array([True, False, False, True]), 3, np.float32([0.75, 1, 1, 1]))
    targets = single.for_sigmoid()
    assert targets.classes.tolist() == [[False, False, True], [True, False, False], [False] * 3, [False, True, False]]
    assert targets.weights(settings(unverified_weight="0.5"), 0).tolist() == [[0.75] * 3, [0.5] * 3, [0] * 3, [1] * 3]
    assert targets.for_sigmoid() is targets
    plain = replace(single, certainty=None).for_sigmoid()
    assert plain.weights(CONFIG, 0).tolist() == [[1] * 3, [1] * 3, [0] * 3, [1] * 3]


# --- targets ---------------------------------------------------------------------------------------


def encode(config: Config, draws: Draws) -> np.ndarray:
    targets = encode_targets(TARGETS, TARGETS.weights(config, 0), draws, ALL, config)
    assert targets.dtype == np.float32
    assert targets.shape == (len(draws.order), *target_shape(config, 3))
    return targets


def test_targets_are_weights_of_presence_and_absence() -> None:
    config = settings(unverified_weight="0.5")
    together = encode(config, draws_of([1, 0]))
    signed = [[[0, 0, 0.5], [0.5, 0.5, 0]], [[1, 0.75, 0], [0, 0, 0]]]
    assert together[:, 0].tolist() == signed
    assert not together[:, 1:].any()
    apart = encode(replace(config, loss="lq"), draws_of([1, 0]))
    assert apart[:, 0].tolist() == [[[0, 0, 0], [0.5, 0, 0]], signed[1]]
    assert apart[:, 1].tolist() == [[[0, 0, 0.5], [0, 0.5, 0]], [[0] * 3] * 2]
    assert not apart[:, 2].any()


def test_a_mixture_has_the_labels_of_both_clips() -> None:
    """A label of one clip is trusted as there; that both lack it, only where both are; nothing depends on the share."""
    config = settings(loss="lq")
    weights = TARGETS.weights(config, 0)
    first, third = ([0, 1], [0.75, 1.0], [1, 1]), ([2, 0], [1.0, 0.5], [1, 0])
    mixed, same = (encode_targets(TARGETS, weights, draws_of(*draws), ALL, config) for draws in (first, third))
    trusted, unverified = mixed[0, 0], mixed[0, 1]
    assert trusted.tolist() == [[1, 0.75, 0], [0, 0, 0]]
    assert unverified.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert mixed[1].tolist() == encode_targets(TARGETS, weights, draws_of([1]), ALL, config)[0].tolist()
    assert same[0, 0].tolist() == [[1, 0.75, 0], [0, 0, 0]]
    assert same[0, 1].tolist() == [[0, 0, 0], [0, 0, 0]]  # neither has the third label, which is unknown for one
    assert not mixed[:, 2].any()


def test_smoothing_moves_half_its_share_to_the_other_side() -> None:
    """Only of trusted labels, if unverified ones have a loss of their own."""
    smooth = encode(settings(label_smoothing=0.2), draws_of([0, 1]))
    np.testing.assert_allclose(smooth[0, 0], [[0.9, 0.675, 0], [0.1, 0.075, 0]], rtol=1e-6)
    np.testing.assert_allclose(smooth[1, 0], [[0.05, 0.1, 0.9], [0.45, 0.9, 0.1]], rtol=1e-6)
    apart = encode(settings(label_smoothing=0.2, loss="lq"), draws_of([1]))
    np.testing.assert_allclose(apart[0, 0], [[0.05, 0, 0], [0.45, 0, 0]], rtol=1e-6)
    assert apart[0, 1].tolist() == [[0, 0, 1], [0, 1, 0]]


# --- losses ----------------------------------------------------------------------------------------

P = np.float32([[0.7, 0.2, 0.1], [0.1, 0.6, 0.8], [0.45, 0.05, 0.3]])
ENCODED = encode_targets(
    TARGETS, TARGETS.weights(settings(loss="lq"), 0), draws_of([0, 1, 2]), ALL, settings(loss="lq")
)
ENCODED[1, 2, :, 1:] = [[0.25, 0], [0, 0.125]]  # an unverified partner in a mixture


def slow_loss(config: Config, targets: np.ndarray, p: np.ndarray) -> list[float]:
    """Compute the loss of each clip by the published formulas."""
    result = []
    for clip, row in zip(targets.astype(np.float64), p.astype(np.float64), strict=True):
        loss = 0.0
        for part, side, j in product(range(3), range(2), range(3)):
            sides = row[j], 1 - row[j]
            kind, other, b = config.loss if part else "ce", 1 - side, config.bootstrap

            def entropy(s: int, sides: tuple = sides) -> float:
                return -((1 - sides[s]) ** config.focal) * np.log(sides[s])

            kinds = {
                "ce": entropy(side),
                "lq": (1 - sides[side]) ** config.focal * (1 - sides[side] ** config.lq) / config.lq,
                "soft_bootstrap": (b + (1 - b) * sides[side]) * entropy(side) + (1 - b) * sides[other] * entropy(other),
                "hard_bootstrap": b * entropy(side) + (1 - b) * entropy(int(sides[1] >= sides[0])),
            }
            loss += clip[part, side, j] * kinds[kind]
        result.append(loss / 3)
    return result


@pytest.mark.parametrize("options", LOSSES.values(), ids=LOSSES)
def test_losses_are_those_of_the_papers(options: dict) -> None:
    config, targets = settings(**options), ENCODED
    if config.loss == "ce":
        targets = np.concatenate([ENCODED.sum(axis=1, keepdims=True), 0 * ENCODED[:, :2]], axis=1)
    result = binary_loss(config, 10)(tf.constant(targets), tf.constant(P))
    assert (result.dtype, result.shape) == (tf.float32, (3,))
    np.testing.assert_allclose(result, slow_loss(config, targets, P), rtol=1e-5)


def test_the_loss_is_that_of_keras_if_all_labels_count() -> None:
    targets = replace(TARGETS, trusted=np.ones((3, 3), bool), certainty=None)
    encoded = encode_targets(targets, targets.weights(CONFIG, 0), draws_of([0, 1, 2]), ALL, CONFIG)
    loss = binary_loss(CONFIG, 10)(tf.constant(encoded), tf.constant(P))
    np.testing.assert_allclose(loss, keras.losses.binary_crossentropy(CLASSES.astype(np.float32), P), rtol=1e-5)
    focal = binary_loss(settings(focal=2.0), 10)(tf.constant(encoded), tf.constant(P))
    expected = keras.losses.binary_focal_crossentropy(CLASSES.astype(np.float32), P, gamma=2.0)
    np.testing.assert_allclose(focal, expected, rtol=1e-5)


@pytest.mark.parametrize("options", [*LOSSES.values(), {"drop_losses": 0.5}], ids=[*LOSSES, "drop"])
def test_gradients_are_finite_for_probabilities_of_0_and_1(options: dict) -> None:
    """A pair without a weight has none."""
    targets = tf.constant(np.concatenate([ENCODED, ENCODED[:, :, ::-1]]))
    p = tf.constant([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0.5], [1, 0, 0.5], [1, 0.5, 0]])
    with tf.GradientTape() as tape:
        tape.watch(p)
        result = binary_loss(settings(**options), 1)(targets, p)
    gradient = tape.gradient(result, p).numpy()
    assert np.isfinite(result).all()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0
    assert gradient[[0, 3], 2].tolist() == [0, 0]


@pytest.mark.parametrize(("warmup", "dropped"), [(0.25, [0, 1, 2, 3, 4, 4]), (0, [0, 4, 4])])  # of 16 steps
def test_the_largest_losses_of_single_labels_are_dropped(warmup: float, dropped: list[int]) -> None:
    """Of eight unverified pairs in four clips; the share grows over the warm-up, and trusted pairs always count."""
    loss = binary_loss(settings(drop_losses=0.5, warmup=warmup), 16)
    targets = np.zeros((4, 3, 2, 3), np.float32)
    targets[:, 1, 1, :2] = 0.5  # absent
    targets[:, 0, 0, 2] = 1
    p = np.float32([[0.1, 0.9, 0.01], [0.2, 0.8, 0.01], [0.3, 0.7, 0.01], [0.4, 0.6, 0.01]])
    for n in dropped:
        parts = -np.log(1 - p[:, :2])
        parts[parts >= np.sort(parts.ravel())[::-1][n - 1] if n else parts < 0] = 0
        np.testing.assert_allclose(loss(targets, p), (0.5 * parts.sum(axis=1) - np.log(0.01)) / 3, rtol=1e-5)


def test_the_accuracy_is_of_classes_with_a_weight() -> None:
    (accuracy,) = compile_arguments(CONFIG, 1)["metrics"]
    assert accuracy.__name__ == "acc"
    targets = np.concatenate([ENCODED, np.zeros((1, 3, 2, 3), np.float32)])
    right = accuracy(tf.constant(targets), tf.constant([[0.7, 0.3, 0.9], [0.9, 0.4, 0.9], [0, 0, 0], [0, 1, 0]]))
    np.testing.assert_allclose(right, [0.5, 2 / 3, 1, 0], rtol=1e-6)


# --- labels of `verify` ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder, _ = make_mixtures(tmp_path_factory.mktemp("data") / "mixtures", n_curated=6, n_noisy=8)
    return load_dataset(folder, settings(n_folds=2, precision="float32"))


def test_a_clip_is_verified_if_it_is_curated(dataset: Dataset) -> None:
    curated = dataset.manifest.train["fname"].str.startswith("train_curated/").to_numpy()
    np.testing.assert_array_equal(dataset.verified, curated)
    np.testing.assert_array_equal(dataset.trusted, np.tile(curated[:, np.newaxis], 3))
    assert dataset.target_classes is dataset.targets
    assert (dataset.config.task, dataset.targets.shape, dataset.targets.dtype) == ("multi", (14, 3), bool)


def decisions(*rows: tuple[int, str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["clip", "label", "decision", "score"])


def test_decisions_change_the_targets_of_their_pairs(dataset: Dataset) -> None:
    noisy, n_labels = np.flatnonzero(~dataset.verified).tolist(), dataset.targets.sum(axis=1)
    a = next(i for i in noisy if 0 < n_labels[i] < 3)
    b = next(i for i in noisy if i != a)
    has = dataset.targets[a]
    there, absent = dataset.labels[has.argmax()], dataset.labels[has.argmin()]
    rows = decisions((a, there, "remove", 0.75), (a, absent, "add", 0.625), (b, "Bell", "drop", 0.5),
                     (b, "Cello", "keep", 0.5), (b, "Flute", "accept", 0.875))  # fmt: skip
    changed = dataset.relabelled_pairs(rows)
    classes, trusted, certainty = dataset.targets.copy(), np.ones((14, 3), bool), np.ones((14, 3), np.float32)
    classes[a, [has.argmax(), has.argmin()]] = [False, True]
    certainty[a, [has.argmax(), has.argmin()]] = [0.75, 0.625]
    certainty[b], trusted[b], classes[b, 0] = [0, 1, 0.875], [True, False, True], False
    np.testing.assert_array_equal(changed.target_classes, classes)
    np.testing.assert_array_equal(changed.trusted, trusted)
    np.testing.assert_array_equal(changed.certainty, certainty)
    assert changed.certainty.dtype == np.float32
    np.testing.assert_array_equal(changed.targets, dataset.targets)
    assert changed.study == dataset.study


def test_clips_without_a_weighted_pair_are_not_trained_on(dataset: Dataset) -> None:
    zero = replace(dataset, config=replace(dataset.config, unverified_weight="0"))
    train = dataset.folds != 0
    np.testing.assert_array_equal(assign_splits(zero, 0) == "unused", train & ~dataset.verified)
    noisy = np.flatnonzero(train & ~dataset.verified)
    every = [(int(i), label, "drop", 0.5) for i in noisy for label in dataset.labels]
    dropped = zero.relabelled_pairs(decisions(*every, (int(noisy[0]), "Bell", "add", 0.75)).drop_duplicates(
        ["clip", "label"], keep="last"))  # fmt: skip
    np.testing.assert_array_equal(np.flatnonzero(assign_splits(dropped, 0) == "unused"), noisy[1:])
    kept = zero.relabelled_pairs(decisions(*[(i, label, "keep", 0.5) for i, label, *_ in every]))
    np.testing.assert_array_equal(assign_splits(kept, 0) == "unused", train & ~dataset.verified)
    weighted = replace(kept, config=replace(kept.config, unverified_weight="0:0,2:0.5"))
    assert not (assign_splits(weighted, 0) == "unused").any()
    nothing = [(int(i), label, "drop", 0.5) for i in np.flatnonzero(train) for label in dataset.labels]
    with pytest.raises(ConfigError, match=r"fold=0: no training clips with unverified_weight=0 and labels_run_id=none"):
        assign_splits(zero.relabelled_pairs(decisions(*nothing)), 0)


def test_labels_without_a_weighted_clip_are_named(dataset: Dataset) -> None:
    splits = assign_splits(dataset, 0)
    assert labels_without_clips(dataset, splits) == []
    bells = [(int(i), "Bell", "drop", 0.5) for i in np.flatnonzero(dataset.targets[:, 0])]
    assert labels_without_clips(dataset.relabelled_pairs(decisions(*bells)), splits) == ["Bell"]
    unweighted = replace(dataset, config=replace(dataset.config, unverified_weight="0"), trusted=~dataset.targets)
    assert labels_without_clips(unweighted, splits) == dataset.labels
