"""Blends of classes by themselves: the mean of logits, its weights, and what a tagger decides on such scores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import error_line

from fsat.commands.blend_members import check_agreement, check_scorable
from fsat.commands.fit_scores import fit_scores
from fsat.config import Config
from fsat.errors import RunError
from fsat.metrics import row_blocks
from fsat.metrics.blending import OutOfFold, cross_fit
from fsat.metrics.sigmoid_blending import BlendedSigmoids, fit_weights, logits


def scores_of(truth: np.ndarray, strength: float, seed: int, sharpness: float = 1.0) -> np.ndarray:
    """Probabilities that know the truth as well as `strength`, and are `sharpness` times as sure as they should be."""
    noise = np.random.default_rng(seed).standard_normal(truth.shape)
    values = sharpness * (strength * (2.0 * truth - 1) + noise) * 2 * strength
    return (1 / (1 + np.exp(-values))).astype(np.float32)


def truth_of(n_clips: int, n_classes: int, share: float = 0.3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n_clips, n_classes)) < share


def test_the_methods_by_hand() -> None:
    a, b = np.float32([[0.2, 0.9]]), np.float32([[0.5, 0.5]])
    odds = np.sqrt(np.array([0.25, 9.0]))  # of the geometric mean; those of b are 1
    np.testing.assert_allclose(BlendedSigmoids([[a], [b]]).fill(), [odds / (1 + odds)], rtol=1e-6)
    np.testing.assert_allclose(BlendedSigmoids([[a, b]]).fill(), [odds / (1 + odds)], rtol=1e-6)
    np.testing.assert_allclose(BlendedSigmoids([[a], [b]], "arithmetic").fill(), [[0.35, 0.7]], rtol=1e-6)
    odds = np.array([0.25, 9.0]) ** 0.75
    weighted = BlendedSigmoids([[a], [b]], "weighted", np.array([0.75, 0.25])).fill()
    np.testing.assert_allclose(weighted, [odds / (1 + odds)], rtol=1e-6)
    np.testing.assert_allclose(BlendedSigmoids([[a]]).fill(), a, rtol=1e-6)


def test_certain_members_rule_nothing_out_and_missing_rows_stay_missing() -> None:
    a, b = np.float32([[0, 1], [0.5, 0.5]]), np.float32([[1, 0], [np.nan, np.nan]])
    result = BlendedSigmoids([[a], [b]]).fill()
    np.testing.assert_allclose(result[0], [0.5, 0.5], atol=1e-6)
    assert np.isnan(result[1]).all()
    assert np.isnan(BlendedSigmoids([[a], [b]], "weighted", np.array([1.0, 0.0])).fill()[1]).all()


def test_no_bit_depends_on_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    truth = truth_of(301, 7)
    members = [scores_of(truth, 1, seed) for seed in range(4)]
    fold = np.arange(301) % 3
    by_fold = np.random.default_rng(2).dirichlet(np.ones(2), 3)

    def blends() -> list[bytes]:
        halves = [members[:2], members[2:]]
        kinds = ("geometric",), ("arithmetic",), ("weighted", by_fold, fold)
        return [BlendedSigmoids(halves, *kind).fill().tobytes() for kind in kinds]

    whole = blends()
    monkeypatch.setattr(row_blocks, "CHUNK_ELEMENTS", 7 * 16)
    assert blends() == whole


def test_weights_have_the_least_cross_entropy() -> None:
    truth = truth_of(600, 5)
    studies = [scores_of(truth, strength, seed) for seed, strength in enumerate((0.4, 1.2))]
    clips = np.arange(0, 600, 2)
    weights = fit_weights(studies, truth, clips)

    def loss(first: float) -> float:
        value = first * logits(studies[0][clips]) + (1 - first) * logits(studies[1][clips])
        return float(np.logaddexp(0, np.where(truth[clips], -value, value)).mean())

    grid = np.linspace(0, 1, 1001)
    assert weights[0] == pytest.approx(grid[np.argmin([loss(value) for value in grid])], abs=2e-3)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(fit_weights([studies[0]] * 2, truth, clips), [0.5, 0.5])
    classes = truth.argmax(axis=1)  # of one label, with reject=auto
    one_each = np.eye(5, dtype=bool)[classes]
    assert fit_weights(studies, classes, clips).tolist() == fit_weights(studies, one_each, clips).tolist()


def test_scores_of_other_kinds_are_not_blended() -> None:
    def member(study: str, **settings: Any) -> Any:
        record = SimpleNamespace(run_id=study * 2, study=study, dataset="d", config=Config(model="dummy1d", **settings))
        facts = SimpleNamespace(train="t", test="t", n_train=2, n_test=1)
        return SimpleNamespace(record=record, facts=facts, labels=["x"], train=np.zeros((2, 1)), test=np.zeros((1, 1)))

    several = member("c", task="multi")
    check_agreement([several, member("d", task="multi", reject="auto")])  # which it ignores
    for other, setting in (
        (member("b", reject="auto"), "reject (auto, not none)"),
        (several, "task (multi, not single)"),
    ):
        runs = f"run {other.record.run_id} (study {other.record.study}) disagrees with run aa (study a)"
        fault = f"on the setting {setting}, so that their scores differ in kind; blend runs of one kind"
        assert error_line(RunError, check_agreement, [member("a"), other]) == f"{runs} {fault}"


def test_clips_without_labels_alone_cannot_score_a_blend() -> None:
    targets, covered = np.array([[False, False], [True, False]]), np.array([True, False])
    line = error_line(RunError, check_scorable, targets, covered)
    expected = "so the blend cannot be scored; blend them with runs of other folds"
    assert line == f"none of 1 clip that the runs hold out has a label, {expected}"
    check_scorable(targets, ~covered)
    check_scorable(np.zeros(2, dtype=int), covered)


def test_weights_of_a_fold_do_not_know_its_clips() -> None:
    truth = truth_of(300, 4)
    fold, masks = np.arange(300) % 3, [np.arange(300) % 3 == i for i in range(3)]
    members = [[scores_of(truth, strength, 10 * s + i) for i in range(3)] for s, strength in enumerate((0.5, 1.0))]
    everywhere = np.ones(300, dtype=bool)

    def weights(labels: np.ndarray) -> np.ndarray:
        studies = [OutOfFold(study, masks) for study in members]
        return cross_fit(studies, labels, everywhere, everywhere, fit_weights).by_fold

    changed = truth.copy()
    changed[fold == 0] = ~truth[fold == 0]
    np.testing.assert_array_equal(weights(truth)[0], weights(changed)[0])
    assert (weights(truth)[1:] != weights(changed)[1:]).all()


def blend_of(oof: np.ndarray, targets: np.ndarray, **facts: object) -> SimpleNamespace:
    covered = ~np.isnan(oof).any(axis=1)
    folds = np.where(covered, np.arange(len(oof)) % 3, -1)
    task = "multi" if targets.ndim == 2 else "single"
    facts = {"verified": np.zeros(len(oof), bool)} | facts
    return SimpleNamespace(oof=oof, targets=targets, covered=covered, folds=folds, task=task, sigmoid=True, **facts)


def test_scaling_and_thresholds_of_several_labels() -> None:
    truth = truth_of(900, 4)
    oof = scores_of(truth, 1, 3, sharpness=4)
    oof[:9] = np.nan
    decisions = fit_scores(blend_of(oof, truth))  # type: ignore[arg-type]
    assert decisions.scaling.kind == "platt"
    assert decisions.metrics["oof_ece_scaled"] < decisions.metrics["oof_ece"] / 2
    assert decisions.metrics["oof_log_loss_scaled"] < decisions.metrics["oof_log_loss"]
    assert decisions.scaled is not None
    assert decisions.given is not None
    assert decisions.scaled.shape == decisions.given.shape == (891, 4)
    final = decisions.scaling.apply(oof[9:]) >= decisions.thresholds
    hits = (final & truth[9:]).sum()
    f1 = 2 * hits / (final.sum() + truth[9:].sum())
    assert decisions.metrics["oof_f1_micro"] == pytest.approx(f1, abs=0.02)
    assert decisions.metrics["oof_f1_micro"] > 0.7
    unscaled = fit_scores(blend_of(oof, truth), scale=False)  # type: ignore[arg-type]
    assert unscaled.scaling.kind == "none"
    assert "oof_ece_scaled" not in unscaled.metrics


def test_rejection_loses_few_known_clips() -> None:
    targets = np.arange(600) % 4
    oof = scores_of(np.eye(4, dtype=bool)[targets], 1.5, 4)
    decisions = fit_scores(blend_of(oof, targets, verified=np.ones(600, dtype=bool)))  # type: ignore[arg-type]
    assert len(set(decisions.thresholds)) == 1
    assert decisions.metrics["oof_ece_verified"] == decisions.metrics["oof_ece"]
    lost = (decisions.scaling.apply(oof).max(axis=1) < decisions.thresholds[0]).mean()
    assert 0.02 < lost <= 0.05
    assert decisions.metrics["oof_rejected"] == pytest.approx(0.05, abs=0.03)
    assert decisions.metrics["oof_right_kept"] > 0.85
    all_verified = fit_scores(blend_of(oof, targets, verified=np.ones(600, bool)))  # type: ignore[arg-type]
    assert all_verified.metrics == decisions.metrics | {"oof_ece_verified": decisions.metrics["oof_ece"]}
    noise = np.full((50, 4), 0.02, np.float32)
    assert (decisions.scaling.apply(noise).max(axis=1) < decisions.thresholds[0]).all()
