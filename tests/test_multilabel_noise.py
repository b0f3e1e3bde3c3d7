"""Estimates of wrong and missing labels of clips with any number of them, and decisions on each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fsat.commands.verify_multilabel import PairEstimate, decide_pairs, estimate_pairs, pair_table
from fsat.metrics import label_noise
from fsat.metrics.label_noise import CLEAR
from fsat.metrics.multilabel_noise import DECISIONS, Rates, beliefs, decide, fit_rates
from fsat.options import Thresholds

# --- decisions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("thresholds", [
    Thresholds(), Thresholds(0.9, 0.8, 0.5), Thresholds(0.9, 0.8, 0.3), Thresholds(0, 0, 0), Thresholds(1, 1, 0),
    Thresholds(1, 1, 1),
])  # fmt: skip
def test_a_pair_is_decided_on_as_a_clip_of_two_classes(thresholds: Thresholds) -> None:
    believed = np.array([0, 0.05, 0.15, 0.25, 0.45, 0.55, 0.75, 0.85, 0.95, 1])
    for label in (False, True):
        labels = np.full((10, 1), label)
        decisions, confidence = decide(believed[:, np.newaxis], labels, np.array([True]), thresholds)
        rows, target = np.stack([1 - believed, believed], axis=1), np.full(10, int(label))
        expected, _, sure = label_noise.decide(rows, target, np.zeros(10, bool), thresholds)
        words = {"relabel": "remove" if label else "add"}
        assert [DECISIONS[i] for i in decisions[:, 0]] == [words.get(name, name) for name in expected]
        np.testing.assert_allclose(confidence[:, 0], sure, rtol=1e-12)


def test_labels_that_the_models_do_not_know_stay() -> None:
    believed, labels = np.array([[0.1, 0.1], [0.9, 0.9]]), np.array([[True, True], [False, False]])
    decisions, confidence = decide(believed, labels, np.array([True, False]), Thresholds())
    assert [[DECISIONS[i] for i in row] for row in decisions] == [["remove", "keep"], ["add", "keep"]]
    np.testing.assert_allclose(confidence, [[0.9, 0.1], [0.9, 0.1]])


# --- estimates -------------------------------------------------------------------------------------


def noisy(n_clips: int, without: list[float], missing: list[float], seed: int = 0) -> tuple[np.ndarray, ...]:
    """Calibrated scores, labels of which some are wrong or missing, and the truth."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.15, 0.6, (n_clips, len(without)))
    truth = rng.random(scores.shape) < scores
    present = rng.random(scores.shape) >= missing
    return scores, np.where(truth, present, rng.random(scores.shape) < without), truth


def test_the_rates_of_each_class_are_estimated() -> None:
    without, missing = [0, 0.05, 0, 0.02, 0.1], [0, 0, 0.4, 0.2, 0.6]
    scores, labels, truth = noisy(10_000, without, missing)
    rates = fit_rates(scores, labels)
    np.testing.assert_allclose(rates.without, without, atol=0.015)
    np.testing.assert_allclose(1 - rates.present, missing, atol=0.03)
    assert (rates.clear_by > 100).all()
    believed = beliefs(scores, labels, rates)
    for low, high in ((0.1, 0.4), (0.4, 0.6), (0.6, 0.9)):  # calibrated
        mask = (believed >= low) & (believed < high)
        assert truth[mask].mean() == pytest.approx(believed[mask].mean(), abs=0.05)
    wrong = [(np.where(guess, ~truth, truth)).mean() for guess in (believed > 0.5, scores > 0.5, labels)]
    assert wrong[0] < 0.75 * min(wrong[1:])


def test_beliefs_by_hand() -> None:
    rates = Rates(np.array([0.125, 0]), np.array([0.75, 1]), np.zeros(2))
    believed = beliefs(np.float32([[0.25, 0.5], [0.25, 0.5]]), np.array([[True, True], [False, False]]), rates)
    present, lacking = 0.75 * 0.25, 0.25 * 0.25
    expected = [[present / (present + 0.125 * 0.75), 1], [lacking / (lacking + 0.875 * 0.75), 0]]
    np.testing.assert_allclose(believed, expected, rtol=1e-9)
    assert beliefs(np.empty((0, 2)), np.empty((0, 2), bool), rates).shape == (0, 2)


def test_random_labels_are_recognised() -> None:
    scores, labels, _ = noisy(3000, [0.02] * 3, [0.3] * 3)
    labels[:, 1] = np.random.default_rng(1).random(3000) < 0.1
    labels[:, 2] = False
    rates = fit_rates(scores, labels)
    assert rates.clear.tolist() == [True, False, False]
    assert rates.clear_by[2] == 0
    assert rates.clear_by[1] < CLEAR


def test_classes_with_few_labels_have_common_rates() -> None:
    """What is wrong is in proportion to the labels of the class; without any, the models know nothing of them."""
    scores, labels, _ = noisy(2000, [0.1, 0.1, 0.0], [0.3, 0.3, 0.9])
    rates = fit_rates(scores, labels)
    assert rates.present[2] < 0.2  # of many labels
    scores[60:, 2] = labels[:, 2] = 0
    labels[np.argsort(scores[:60, 2])[-3:], 2] = True
    few, share = fit_rates(scores, labels), labels.mean(axis=0)
    assert few.present[2] == pytest.approx(few.present[:2].mean(), abs=0.15)
    factors = few.without / share
    assert factors[2] == pytest.approx(factors[:2].mean(), abs=0.15)
    np.testing.assert_allclose(few.present[:2], 0.7, atol=0.03)
    labels[:, 2] = False
    none = fit_rates(scores, labels)
    assert (none.without[2], none.clear[2]) == (0, False)


LABELS = ["Bell", "Cello", "Flute"]


def study(
    n_clips: int, n_verified: int, learned: float, without: float = 0.02, missing: float = 0.4
) -> tuple[np.ndarray, ...]:
    """Scores, labels, verified clips, folds and truth: models learned that a share of the labels is missing."""
    scores, labels, truth = noisy(n_clips, [without] * 3, [missing] * 3, seed=2)
    verified = np.arange(n_clips) < n_verified
    labels[verified] = truth[verified]
    return (1 - learned) * scores, labels, verified, np.arange(n_clips) % 3, truth


def test_scores_are_scaled_to_fit_verified_clips() -> None:
    scores, labels, verified, folds, truth = study(3000, 600, 0.5)
    missing = (truth & ~labels)[~verified].sum() / truth[~verified].sum()
    found = estimate_pairs(scores, labels, verified, folds, LABELS)
    assert found.missing_share == pytest.approx(missing, abs=0.05)
    assert found.warning == ""
    few = np.arange(3000) < 40
    alone = estimate_pairs(scores, labels, few, folds, LABELS)
    np.testing.assert_array_equal(alone.scores, np.float32(scores))
    assert alone.missing_share < missing / 2
    assert alone.warning.startswith("40 verified clips cannot tell what models have learned from wrong labels")


def test_labels_that_models_know_nothing_of_are_named() -> None:
    scores, labels, verified, folds, _ = study(1200, 400, 0)
    rng = np.random.default_rng(0)
    scores[:, 1] = rng.permutation(scores[:, 1])
    found = estimate_pairs(scores, labels, verified, folds, LABELS)
    assert found.rates.clear.tolist() == [True, False, True]
    assert found.warning.endswith("a draw would; these stay as they are: Cello")
    scores = rng.permutation(scores.ravel()).reshape(scores.shape)
    assert "train a better study first" in estimate_pairs(scores, labels, verified, folds, LABELS).warning


def test_evidence_against_an_estimate_is_a_warning() -> None:
    """Some clips have wrong labels so often that models have learned it; none of too few verified clips is one."""
    scores, labels, verified, folds, truth = study(2000, 45, 0, without=0, missing=0)
    scores = np.where(truth, 0.95, 0.01)
    odd = np.flatnonzero(~verified & ~truth[:, 0])[:400]
    scores[odd, 0], labels[odd[:180], 0] = 0.45, True
    found = estimate_pairs(scores, labels, verified, folds, LABELS)
    assert found.wrong_share < 0.02
    n_labels = [int(labels[mask].sum()) for mask in (~verified, verified)]
    evidence = f"the models contradict 180 of {n_labels[0]} unverified labels and 0 of {n_labels[1]} verified ones, so "
    assert found.warning.startswith(evidence)
    assert "their probabilities say 0.0%; decisions miss many of them: train longer" in found.warning
    scores[odd[:180], 0] = 0.02  # models that have not learned it
    found = estimate_pairs(scores, labels, verified, folds, LABELS)
    assert found.wrong_share == pytest.approx(180 / n_labels[0], abs=0.03)
    assert "contradict" not in found.warning


# --- tables ----------------------------------------------------------------------------------------


def test_a_table_has_all_clips_and_what_is_not_sure() -> None:
    """A row of labels, of added ones, and of absences that are in doubt; else one row without a label."""
    targets = np.array([[True, False, True], [False, False, False], [True, False, False], [False] * 3, [False] * 3])
    codes = {name: i for i, name in enumerate(DECISIONS)}
    words = [
        ["verified"] * 3,
        ["verified"] * 3,
        ["remove", "add", "accept"],
        ["accept"] * 3,
        ["keep", "drop", "accept"],
    ]
    decisions = np.array([[codes[word] for word in row] for row in words], dtype=np.int8)
    confidence = np.array([[0.9, 0.2, 0.8], [0.7, 0.6, 0.99], [0.75, 0.625, 0.94], [0.96, 0.97, 1], [0.5, 0.5, 0.96]])
    table = pair_table(decisions, confidence, targets, ["a", "b", "c", "d", "e"], LABELS)
    expected = [
        ("a", "Bell", 1, 0.9, "verified"), ("a", "Flute", 1, 0.8, "verified"), ("b", "", 0, 0.6, "verified"),
        ("c", "Bell", 1, 0.75, "remove"), ("c", "Cello", 0, 0.625, "add"), ("c", "Flute", 0, 0.94, "accept"),
        ("d", "", 0, 0.96, "accept"), ("e", "Bell", 0, 0.5, "keep"), ("e", "Cello", 0, 0.5, "drop"),
    ]  # fmt: skip
    assert list(table.itertuples(index=False, name=None)) == expected
    assert table.columns.tolist() == ["fname", "label", "given", "score", "decision"]


def test_decisions_are_counted_by_class() -> None:
    scores, labels, verified, folds, _ = study(600, 200, 0, without=0.1)
    labels[:, 2] = False
    found = estimate_pairs(scores, labels, verified, folds, LABELS)
    assert isinstance(found, PairEstimate)
    decided = decide_pairs(found, labels, verified, [f"{i}" for i in range(600)], LABELS, Thresholds(0.9, 0.7, 0.4))
    table, classes, counts = decided.table, decided.classes.set_index("label"), decided.counts
    assert table["fname"].drop_duplicates().tolist() == [f"{i}" for i in range(600)]
    assert (
        counts["verified"] == labels[:200].sum() == (table["decision"] == "verified").sum() - sum(table["label"] == "")
    )
    by_kind = table[table["decision"] != "verified"].groupby(["label", "given", "decision"]).size()
    for label in LABELS:
        for name in counts.keys() - {"verified"}:
            kind = name.removesuffix("_absent")
            given = int(kind == name != "add")
            assert classes.loc[label, name] == by_kind.get((label, given, kind), 0)
    assert counts == {"verified": counts["verified"]} | {
        name: classes[name].sum() for name in counts if name != "verified"
    }
    assert classes["labels"].tolist() == labels[200:].sum(axis=0).tolist()
    assert classes.loc["Flute", "keep_absent"] == 400
    assert pd.isna(classes.loc["Flute", "wrong_share"])
    weights = classes["labels"] / classes["labels"].sum()
    assert (classes["wrong_share"] * weights).sum() == pytest.approx(found.wrong_share, abs=1e-3)
    assert min(counts[name] for name in ("accept", "remove", "add", "keep")) > 0
