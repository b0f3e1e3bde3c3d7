"""Estimates of label noise, and decisions on unverified labels."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import error_line

from fsat.commands.verify_labels import Estimate, estimate
from fsat.errors import ConfigError
from fsat.metrics.label_noise import CLEAR, SHARPEST, beliefs, decide, least_wrong, sharpened, sharpness, wrong_share
from fsat.options import Thresholds

# --- decisions -------------------------------------------------------------------------------------

STRICT = Thresholds(accept=0.5, relabel=0.75, drop=0.25)


@pytest.mark.parametrize(("scores", "target", "decision", "new", "confidence"), [
    ([0.5, 0.25, 0.25], 0, "accept", 0, 0.5),  # just enough
    ([0.4375, 0.3125, 0.25], 0, "keep", 0, 0.4375),
    ([0.125, 0.125, 0.75], 1, "relabel", 2, 0.75),  # just enough
    ([0.0, 0.25, 0.74], 1, "keep", 1, 0.25),  # just enough to stay
    ([0.625, 0.125, 0.25], 1, "drop", -1, 0.875),
    ([0.24, 0.23, 0.22, 0.2, 0.11], 0, "drop", -1, 0.76),  # the best guess, and still not likely
    ([0.5, 0.5, 0.0], 0, "accept", 0, 0.5),  # of equals the first is the best guess
    ([0.5, 0.5, 0.0], 1, "keep", 1, 0.5),
])  # fmt: skip
def test_decisions_by_hand(scores: list[float], target: int, decision: str, new: int, confidence: float) -> None:
    rows = np.array([scores], dtype=np.float32)
    for verified, expected in ((False, (decision, new, confidence)), (True, ("verified", target, scores[target]))):
        decisions, classes, found = decide(rows, np.array([target]), np.array([verified]), STRICT)
        assert (str(decisions[0]), int(classes[0])) == expected[:2]
        assert found.dtype == np.float64
        assert found[0] == pytest.approx(expected[2], rel=1e-6)


@pytest.mark.parametrize(("thresholds", "expected"), [
    (Thresholds(), ["accept", "accept", "relabel", "relabel", "relabel"]),
    (Thresholds(0, 0.6, 0.1), ["accept", "accept", "relabel", "keep", "drop"]),
    (Thresholds(0, 1, 1), ["accept", "accept", "drop", "drop", "drop"]),
    (Thresholds(1, 1, 0), ["keep"] * 5),
    (Thresholds(0.5, 0.5, 1), ["accept", "drop", "relabel", "relabel", "relabel"]),
])  # fmt: skip
def test_accepting_comes_before_replacing_and_that_before_dropping(thresholds: Thresholds, expected: list) -> None:
    scores = np.float32([[0.9, 0.1, 0], [0.45, 0.4, 0.15], [0.2, 0.1, 0.7], [0.3, 0.55, 0.15], [0.05, 0.55, 0.4]])
    decisions, classes, _ = decide(scores, np.zeros(5, int), np.zeros(5, dtype=bool), thresholds)
    assert decisions.tolist() == expected
    best = scores.argmax(axis=1)
    by_decision = {"accept": 0 * best, "keep": 0 * best, "relabel": best, "drop": 0 * best - 1}
    assert classes.tolist() == [int(by_decision[decision][i]) for i, decision in enumerate(expected)]
    assert [len(part) for part in decide(scores[:0], np.empty(0, int), np.empty(0, bool), thresholds)] == [0, 0, 0]


@pytest.mark.parametrize("name", ["accept", "relabel", "drop"])
def test_a_threshold_is_a_probability(name: str) -> None:
    for value in (-0.01, 1.01, float("nan"), float("-inf")):
        assert error_line(ConfigError, Thresholds, **{name: value}).startswith(f"{name}_at={value:g}: expected ")
    assert [getattr(Thresholds(**{name: end}), name) for end in (0, 1)] == [0, 1]


# --- estimates -------------------------------------------------------------------------------------


def noisy(n_clips: int, n_classes: int, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrated scores, given labels of which a share is wrong, and true ones."""
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.full(n_classes, 0.3), n_clips)
    truth = (scores.cumsum(axis=1) > rng.random((n_clips, 1))).argmax(axis=1)
    wrong = rng.random(n_clips) < share
    return scores, np.where(wrong, (truth + rng.integers(1, n_classes, n_clips)) % n_classes, truth), truth


@pytest.mark.parametrize(("share", "n_classes"), [(0.05, 2), (0.35, 2), (0.05, 10), (0.35, 10), (0.6, 10)])
def test_the_share_of_wrong_labels_is_estimated(share: float, n_classes: int) -> None:
    scores, given, truth = noisy(20_000, n_classes, share)
    found, clear_by = wrong_share(scores[np.arange(len(given)), given], n_classes)
    assert found == pytest.approx(np.mean(given != truth), abs=0.02)
    assert clear_by > 100


@pytest.mark.parametrize(("p", "n_classes", "expected"), [
    ([1, 1], 4, 0), ([0, 0], 4, 0.75), ([0.49] * 50, 2, 0.5), ([0.5, 1, 0.9], 2, 0), ([1], 1, 0),
])  # fmt: skip
def test_a_share_is_within_its_limits(p, n_classes: int, expected) -> None:
    share, clear_by = wrong_share(np.float32(p), n_classes)
    assert share == pytest.approx(expected, abs=1e-4)
    assert share >= 1e-6
    assert (clear_by > 1e-5) == (expected == 0 and n_classes > 1)


def test_models_that_are_no_better_than_chance_are_recognised() -> None:
    rng = np.random.default_rng(3)
    assert wrong_share(rng.uniform(0.05, 0.15, 60), 10)[1] < CLEAR
    assert wrong_share(np.where(rng.random(60) < 0.7, 0.8, 0.02), 10)[1] > 10 * CLEAR


def test_beliefs_by_hand() -> None:
    scores = np.float32([[0.25, 0.625, 0.125], [0.25, 0.625, 0.125], [1, 0, 0]])
    believed = beliefs(scores, np.array([0, 1, 1]), 0.2)
    expected = [[0.8 * 0.25, 0.1 * 0.625, 0.1 * 0.125], [0.1 * 0.25, 0.8 * 0.625, 0.1 * 0.125], [1, 0, 0]]
    np.testing.assert_allclose(believed, np.array(expected) / np.sum(expected, axis=1, keepdims=True), rtol=1e-12)
    assert believed.dtype == np.float64
    assert beliefs(np.empty((0, 3)), np.empty(0, int), 0.5).shape == (0, 3)


def test_beliefs_are_calibrated() -> None:
    scores, given, truth = noisy(20_000, 5, 0.35)
    believed = beliefs(scores, given, 0.35)
    best = believed.argmax(axis=1)
    assert np.mean(best == truth) > max(np.mean(given == truth), np.mean(scores.argmax(axis=1) == truth)) + 0.05
    for low, high in ((0.4, 0.6), (0.6, 0.8), (0.8, 0.95)):
        mask = (believed.max(axis=1) >= low) & (believed.max(axis=1) < high)
        assert np.mean(best[mask] == truth[mask]) == pytest.approx(believed.max(axis=1)[mask].mean(), abs=0.02)


# --- wrong labels that models learn ----------------------------------------------------------------


def of_one_other(
    n_clips: int, n_verified: int, likely: float = 0.75, wrong: float = 1 / 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores of models that learned that a class is often labelled as another; labels, true classes, and verified.

    The models are right on 19 of 20 clips and unsure of the others; of unverified labels a share is wrong, all from
    one other class.
    """
    rng = np.random.default_rng(7)
    n_classes, verified = 12, np.arange(n_clips) < n_verified
    truth = rng.integers(0, n_classes, n_clips)
    unsure = rng.random(n_clips) < 0.05
    scores = rng.dirichlet(np.full(n_classes, 5), n_clips) * (0.8 - likely)
    scores[np.arange(n_clips), truth] += np.where(unsure, 0.3, likely)
    scores[np.arange(n_clips), truth ^ 1] += np.where(unsure, likely - 0.1, 0.2)
    given = np.where(~verified & (rng.random(n_clips) < wrong), truth ^ 1, truth)
    return np.float32(scores / scores.sum(axis=1, keepdims=True)), given, truth, verified


def test_wrong_labels_from_one_class_are_not_believed() -> None:
    scores, given, truth, verified = of_one_other(600, 200)
    assert wrong_share(scores[np.arange(600), given][~verified], 12)[0] < 1e-5  # by the scores as they are
    found = estimate(scores, given, verified)
    assert found.power > 2
    wrong = (given != truth)[~verified]
    assert wrong.mean() / 3 < found.share < wrong.mean()
    believed = beliefs(sharpened(scores, found.power), given, found.share)[~verified]
    decisions, classes, _ = decide(believed, given[~verified], np.zeros(400, dtype=bool), Thresholds())
    accepted, replaced = decisions == "accept", decisions == "relabel"
    assert wrong[accepted].mean() < wrong.mean() * 2 / 3
    assert np.mean(classes[replaced] == truth[~verified][replaced]) > 0.95
    differs = scores.argmax(axis=1) != given
    assert found.warning.startswith(
        f"the best guess differs from {differs[~verified].sum()} of 400 unverified labels and from "
        f"{differs[verified].sum()} of 200 verified ones, so that "
    )
    assert f"their probabilities say 0%, and {found.share:.0%} once they are sharpened" in found.warning


@pytest.mark.parametrize(("n_verified", "words"), [
    (40, "their probabilities say 0%: labels are accepted that are likely wrong; train longer"),
    (1, "of 1 verified one, which are too few to tell whether labels or models are wrong"),
    (0, "of 0 verified ones, which are too few to tell whether labels or models are wrong"),
])  # fmt: skip
def test_few_verified_labels_do_not_sharpen(n_verified: int, words: str) -> None:
    scores, given, _, verified = of_one_other(440, n_verified)
    found = estimate(scores, given, verified)
    assert (found.power, found.share < 1e-5) == (1, True)
    assert words in found.warning


def test_a_share_that_fits_the_guesses_is_unchanged() -> None:
    """To the bit, and without a warning, if labels are wrong as assumed, or models and not labels."""
    scores, given, truth = noisy(600, 10, 0.35)
    verified = np.arange(600) < 200
    given[verified] = truth[verified]
    of_label = np.float32(scores)[np.arange(600), given]
    share, _ = wrong_share(of_label[~verified], 10)
    assert 0.2 < share < 0.5
    assert estimate(np.float32(scores), given, verified) == Estimate(share)
    assert sharpened(scores, 1) is scores
    scores, given, _, verified = of_one_other(600, 200, wrong=0)
    share, _ = wrong_share(scores[np.arange(600), given][~verified], 12)
    assert estimate(scores, given, verified) == Estimate(share)


def test_a_share_that_is_much_too_small_is_a_warning() -> None:
    scores, given, _, verified = of_one_other(600, 200, likely=0.7)
    scores = np.float32(sharpened(scores, 3))
    share, _ = wrong_share(scores[np.arange(600), given][~verified], 12)
    assert 0.05 < share < 0.15
    found = estimate(scores, given, verified)
    assert (found.share, found.power) == (share, 1)
    assert f"their probabilities say {share:.0%}: labels are accepted that are likely wrong" in found.warning


def test_the_lower_bound_by_hand() -> None:
    verified = np.arange(444) < 180
    differs = np.zeros(444, dtype=bool)
    differs[:8] = differs[180:265] = True
    others, checked = 86 / 266, 9 / 182
    error = np.sqrt(others * (1 - others) / 266 + checked * (1 - checked) / 182)
    assert least_wrong(differs, verified) == pytest.approx((others - checked - 2 * error) / (1 - checked))
    assert least_wrong(differs, ~verified) == 0
    assert least_wrong(differs, np.zeros(444, dtype=bool)) == 0
    assert least_wrong(np.ones(3, dtype=bool), np.zeros(3, dtype=bool)) == 0


def test_sharpness_is_estimated() -> None:
    scores, _, truth = noisy(5000, 6, 0)
    assert sharpness(sharpened(scores, 0.4), truth) == pytest.approx(2.5, rel=0.05)
    assert sharpness(sharpened(scores, 3), truth) == pytest.approx(1, abs=1e-3)
    assert sharpness(np.float32([[0.6, 0.4, 0]]), np.array([0])) == pytest.approx(SHARPEST, rel=1e-3)
    np.testing.assert_allclose(sharpened(np.float32([[0.5, 0.25, 0.25]]), 2), [[2 / 3, 1 / 6, 1 / 6]], rtol=1e-6)
