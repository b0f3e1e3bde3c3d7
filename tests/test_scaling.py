"""Calibration of scores on data whose right answer is known, and rejection of sounds of no class."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fsat.metrics import row_blocks
from fsat.metrics.calibration import label_reliability, reliability
from fsat.metrics.multilabel import auroc, class_average_precision, one_hot
from fsat.metrics.multilabel import log_loss as label_log_loss
from fsat.metrics.ranking import log_loss
from fsat.metrics.rejection import false_alarms_per_hour, fit_rejection
from fsat.metrics.scaling import Scaling, calibrate, calibration_of, cross_fit_scaling, fit_scaling

FOLD = np.arange(4000) % 5


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def softmax_scores(temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that a `temperature` makes right: of labels drawn from what it makes of them."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((4000, 6))
    shares = np.exp(logits)
    shares /= shares.sum(axis=1, keepdims=True)
    targets = np.array([rng.choice(6, p=row) for row in shares])
    scores = np.exp(logits * temperature)
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32), targets


SLOPES, OFFSETS = np.array([0.5, 0.4, 2.0, 1.0]), np.array([0.0, -1.0, 1.0, 0.5])


def sigmoid_scores(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that sigmoids with `SLOPES` and `OFFSETS` make right."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.standard_normal((4000, 4)) - 1
    return sigmoid(logits).astype(np.float32), rng.random(logits.shape) < sigmoid(SLOPES * logits + OFFSETS)


@pytest.mark.parametrize("temperature", [2.5, 0.5], ids=["over-confident", "under-confident"])
def test_temperature_is_found_and_halves_the_error(temperature: float) -> None:
    scores, targets = softmax_scores(temperature)
    assert fit_scaling(scores, targets, "temperature").temperature == pytest.approx(temperature, rel=0.06)
    result = calibrate(scores, targets, FOLD, sigmoid=False)
    assert result.scaling == fit_scaling(scores, targets, "temperature")
    assert result.after.ece < 0.5 * result.before.ece
    assert result.after.log_loss == pytest.approx(log_loss(result.scores, targets))
    assert result.after.log_loss < result.before.log_loss
    best = scores.argmax(axis=1)
    np.testing.assert_array_equal(result.scores.argmax(axis=1), best)
    np.testing.assert_allclose(result.scores.sum(axis=1), 1, rtol=1e-6)
    assert result.before.ece == reliability(scores.max(axis=1), best == targets).expected_error


def test_sigmoids_are_found_and_halve_the_error() -> None:
    scores, targets = sigmoid_scores()
    scaling = fit_scaling(scores, targets, "platt")
    np.testing.assert_allclose(scaling.slopes, SLOPES, rtol=0.12)
    np.testing.assert_allclose(scaling.offsets, OFFSETS, atol=0.12)
    result = calibrate(scores, targets, FOLD, sigmoid=True)
    assert result.after.ece < 0.5 * result.before.ece
    assert result.after.class_ece < 0.5 * result.before.class_ece
    assert result.after.log_loss == pytest.approx(label_log_loss(result.scores, targets))
    np.testing.assert_allclose(
        class_average_precision(scaling.apply(scores), targets), class_average_precision(scores, targets)
    )
    again = calibrate(scores.copy(), targets.copy(), FOLD, sigmoid=True)
    assert again.scaling == result.scaling
    assert again.scores.tobytes() == result.scores.tobytes()


def test_each_fold_is_scaled_without_its_clips() -> None:
    scores, targets = sigmoid_scores(1)
    scores[7], fold = np.nan, np.where(np.arange(4000) < 10, -1, FOLD)
    scaled = cross_fit_scaling(scores, targets, fold, "platt")
    for f in range(5):
        known = (fold != f) & ~np.isnan(scores[:, 0])
        expected = fit_scaling(scores[known], targets[known], "platt").apply(scores[fold == f])
        np.testing.assert_array_equal(scaled[fold == f], expected)
    assert np.isnan(scaled[7]).all()
    assert not np.isnan(np.delete(scaled, 7, axis=0)).any()


@pytest.mark.parametrize("sigmoid", [False, True])
def test_scores_that_are_right_stay_as_they_are(sigmoid: bool) -> None:
    """A rule that looked at the clips it was fitted on would scale each of these."""
    for seed in range(4):
        scores, targets = softmax_scores(1.0, seed)
        some = slice(0, 120)
        result = calibrate(scores[some], targets[some], FOLD[some], sigmoid)
        assert result.after.log_loss <= result.before.log_loss
        if result.scaling.kind == "none":
            np.testing.assert_array_equal(result.scores, scores[some])
            assert result.after == result.before
            break
    else:
        pytest.fail("scaled whatever the scores")
    alone = calibrate(*softmax_scores(3.0), np.zeros(4000, int), sigmoid)
    assert alone.scaling == Scaling()


def test_a_class_of_few_clips_has_the_common_sigmoid() -> None:
    scores, targets = sigmoid_scores(2)
    targets[:, 1], targets[:, 2] = False, True
    targets[:9, 1] = True
    scaling = fit_scaling(scores, targets, "platt")
    lines = list(zip(scaling.slopes, scaling.offsets, strict=True))
    assert lines[1] == lines[2]
    assert len(set(lines)) == 3
    misleading = fit_scaling(1 - scores, targets, "platt")
    assert min(misleading.slopes) > 0


def test_separable_classes_and_scores_of_0_and_1() -> None:
    targets = np.arange(200)[:, np.newaxis] % 4 == np.arange(4)
    scores = targets.astype(np.float32)
    for kind, answer in (("platt", targets), ("temperature", targets.argmax(axis=1))):
        scaled = fit_scaling(scores, answer, kind).apply(scores)
        assert np.isfinite(scaled).all()
        assert ((scaled > 0.5) == targets).all()
    nothing = np.full((3, 4), np.nan, np.float32)
    for kind in ("platt", "temperature"):
        assert fit_scaling(nothing, np.zeros(3, int), kind) == Scaling()
    assert math.isnan(calibration_of(nothing, np.zeros(3, int), True).ece)


def test_classes_that_are_scored_by_themselves_with_one_label() -> None:
    scores, targets = softmax_scores(2.0)
    labels = one_hot(targets, 6)
    assert labels.sum() == 4000
    assert labels[np.arange(4000), targets].all()
    assert fit_scaling(scores, targets, "platt") == fit_scaling(scores, labels, "platt")
    assert calibration_of(scores, targets, True).ece == calibration_of(scores, labels, True).ece


def test_the_error_of_classes_is_not_less_than_that_of_pairs() -> None:
    scores, targets = sigmoid_scores()
    pairs, errors = label_reliability(scores, targets)
    each = [reliability(scores[:, j], targets[:, j]).expected_error for j in range(4)]
    np.testing.assert_allclose(errors, each, rtol=1e-12)
    assert pairs.expected_error == pytest.approx(reliability(scores.ravel(), targets.ravel()).expected_error)
    result = calibration_of(scores, targets, True)
    assert result.class_ece == pytest.approx(np.mean(each))
    assert result.ece == pairs.expected_error < np.mean(each)


# --- the scaling as such ---------------------------------------------------------------------------


def test_apply_is_its_formula_in_any_blocks(monkeypatch, tmp_path: Path) -> None:
    scores = np.array([[0.2, 0.5, 0.3], [1, 0, 0], [np.nan] * 3], np.float32)
    temperature = Scaling("temperature", 2.0).apply(scores)
    np.testing.assert_allclose(temperature[0], np.sqrt([0.2, 0.5, 0.3]) / np.sqrt([0.2, 0.5, 0.3]).sum(), rtol=1e-6)
    platt = Scaling("platt", slopes=(0.5, 1.0, 2.0), offsets=(0.0, 0.5, -1.0))
    expected = sigmoid(np.array([0.5, 1, 2]) * np.log(scores[0] / (1 - scores[0])) + [0, 0.5, -1])
    np.testing.assert_allclose(platt.apply(scores)[0], expected, rtol=1e-6)
    for result in (temperature, platt.apply(scores)):
        assert result.dtype == np.float32
        assert np.isfinite(result[:2]).all()
        assert np.isnan(result[2]).all()
    np.save(tmp_path / "scores.npy", scores)
    monkeypatch.setattr(row_blocks, "CHUNK_ELEMENTS", 1)
    np.testing.assert_array_equal(platt.apply(row_blocks.open_rows(tmp_path / "scores.npy")), platt.apply(scores))
    with pytest.raises(ValueError, match="scores have 2 classes, expected 3 as the scaling has"):
        platt.apply(scores[:, :2])


@pytest.mark.parametrize("scaling", [
    Scaling(), Scaling("temperature", 1.25), Scaling("platt", slopes=(0.5, 2.0), offsets=(-1.0, 0.25)),
])  # fmt: skip
def test_a_scaling_survives_json(scaling: Scaling) -> None:
    assert Scaling.from_dict(json.loads(json.dumps(scaling.to_dict()))) == scaling


@pytest.mark.parametrize(("facts", "message"), [
    (None, "scaling is None, expected a kind of none"),
    ({"kind": "isotonic"}, "expected a kind of none, temperature, platt"),
    ({"kind": ["platt"]}, "expected a kind of"),
    ({"kind": "temperature"}, "scaling has kind, expected kind, temperature"),
    ({"kind": "none", "slopes": [1]}, "scaling has kind, slopes, expected kind"),
    ({"kind": "temperature", "temperature": 0}, "temperature of the scaling are 0, expected a finite number above 0"),
    ({"kind": "temperature", "temperature": "1"}, "expected numbers"),
    ({"kind": "platt", "slopes": [1, -1], "offsets": [0, 0]}, "slopes of the scaling are -1"),
    ({"kind": "platt", "slopes": [1, math.nan], "offsets": [0, 0]}, "expected a finite number above 0"),
    ({"kind": "platt", "slopes": [1], "offsets": [0, 0]}, "scaling has 1 slopes and 2 offsets"),
    ({"kind": "platt", "slopes": [], "offsets": []}, "expected one of both for each class"),
    ({"kind": "platt", "slopes": 1, "offsets": [0, True]}, "expected numbers"),
])  # fmt: skip
def test_a_scaling_of_another_hand(facts: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scaling.from_dict(facts)


# --- rejection -------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [1, 2, 7])
def test_at_most_the_given_share_is_lost(decimals: int) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 120))
        scores, right = rng.random(n).round(decimals).astype(np.float32), rng.random(n) < 0.8
        for lost in (0.0, 0.05, 0.1, 0.29):
            threshold = fit_rejection(scores, right, lost)
            parts = [part for part in (scores, scores[right]) if len(part)]
            assert max((part < threshold).mean() for part in parts) <= lost
            assert max((part <= part[part >= threshold].min()).mean() for part in parts) > lost  # nor would one more do


def test_rejection_of_none_and_of_no_prediction() -> None:
    assert fit_rejection(np.array([]), np.array([], bool)) == 0
    scores = np.linspace(0.1, 1, 10)
    assert fit_rejection(scores, np.ones(10, bool), 0.1) == pytest.approx(0.15)
    with_nan = np.append(scores, [np.nan] * 90)
    assert fit_rejection(with_nan, np.ones(100, bool), 0.1) == pytest.approx(0.15)
    for bad in (-0.1, 1, math.nan):
        with pytest.raises(ValueError, match="expected a share from 0, below 1"):
            fit_rejection(scores, np.ones(10, bool), bad)


def test_auroc_of_known_and_unknown_sounds() -> None:
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(1, 1, 80).round(1), rng.normal(0, 1, 60).round(1)
    truth = np.repeat([True, False], [80, 60])
    assert auroc(known, unknown) == pytest.approx(roc_auc_score(truth, np.concatenate([known, unknown])))
    assert (auroc(np.ones(3), np.ones(2)), auroc(np.ones(3), np.zeros(2))) == (0.5, 1)
    assert math.isnan(auroc(known, np.array([])))
    assert false_alarms_per_hour(3, 1800) == 6
    assert math.isnan(false_alarms_per_hour(0, 0))


def test_a_few_right_guesses_do_not_make_scores_certain() -> None:
    scores = np.float32([[0.5, 0.3, 0.2], [0.3, 0.45, 0.25], [0.25, 0.25, 0.5]] * 9)
    scaled = fit_scaling(scores, np.arange(27) % 3, "temperature").apply(scores)
    assert 0.6 < scaled.max() < 0.99
