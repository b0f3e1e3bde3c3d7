"""Metrics of clips with any number of labels, against their definitions and scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
)
from sklearn.metrics import log_loss as sklearn_log_loss

from fsat.metrics import bootstrap, multilabel, row_blocks
from fsat.metrics.bootstrap import bootstrap_intervals
from fsat.metrics.multilabel import (
    class_auc,
    class_average_precision,
    class_lwlrap,
    clip_precision,
    cross_fit_thresholds,
    d_prime,
    f1_at,
    fit_thresholds,
    label_prior,
    log_loss,
    lwlrap,
    macro_map,
    micro_map,
)

Pair = tuple[np.ndarray, np.ndarray]


def made(n_clips: int = 200, n_classes: int = 9, seed: int = 0, decimals: int = 8) -> Pair:
    """Scores that know something of the targets, of classes with very different numbers of clips, some of none."""
    rng = np.random.default_rng(seed)
    targets = rng.random((n_clips, n_classes)) < rng.choice([0.02, 0.1, 0.4], n_classes)
    logits = 1.5 * targets + rng.standard_normal(targets.shape) - 1
    return (1 / (1 + np.exp(-logits))).round(decimals).astype(np.float32), targets


PAIRS = [made(200, 9, 0), made(300, 5, 1, decimals=1), made(40, 30, 2, decimals=2), made(25, 2, 3)]
"""With ties, with classes of no clip, with clips of no label."""


def lwlrap_by_definition(scores: np.ndarray, targets: np.ndarray) -> tuple[float, dict[int, float]]:
    """Go through the ranked classes of each clip, as Fonseca et al. 2019 put it; equal scores share the lowest rank."""
    precision: dict[int, list[float]] = {}
    for row, labels in zip(scores.tolist(), targets.tolist(), strict=True):
        for j, is_label in enumerate(labels):
            if is_label:
                retrieved = [k for k, score in enumerate(row) if score >= row[j]]
                precision.setdefault(j, []).append(sum(labels[k] for k in retrieved) / len(retrieved))
    every = [value for values in precision.values() for value in values]
    return sum(every) / len(every), {j: sum(values) / len(values) for j, values in precision.items()}


@pytest.mark.parametrize("pair", PAIRS)
def test_lwlrap_is_its_definition_and_that_of_sklearn(pair: Pair) -> None:
    scores, targets = pair
    assert (~targets.any(axis=1)).any()
    expected, by_class = lwlrap_by_definition(scores, targets)
    labels = targets.sum(axis=1)
    of_sklearn = label_ranking_average_precision_score(
        targets[labels > 0], scores[labels > 0], sample_weight=labels[labels > 0]
    )
    assert lwlrap(scores, targets) == pytest.approx(expected, rel=1e-12)
    assert lwlrap(scores, targets) == pytest.approx(of_sklearn, rel=1e-12)
    assert lwlrap(scores[labels > 0], targets[labels > 0]) == pytest.approx(expected, rel=1e-12)
    per_class, weights = class_lwlrap(scores, targets)
    np.testing.assert_allclose(per_class, [by_class.get(j, np.nan) for j in range(targets.shape[1])], rtol=1e-12)
    np.testing.assert_allclose(weights, targets.sum(axis=0) / targets.sum())
    assert np.nansum(per_class * weights) == pytest.approx(expected, rel=1e-12)


def test_lwlrap_of_one_clip() -> None:
    scores = np.array([[0.9, 0.2, 0.6, 0.1]])
    assert lwlrap(scores, np.array([[False, True, True, False]])) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert lwlrap(scores, np.array([[True] * 4])) == 1
    assert lwlrap(np.full((1, 4), 0.5), np.array([[True, False, False, False]])) == 1 / 4
    assert lwlrap(np.array([[np.nan, 0.2, 0.6, 0.1]]), np.array([[True, False, True, False]])) == (1 / 2 + 1) / 2
    assert math.isnan(lwlrap(scores, np.zeros((1, 4), bool)))


@pytest.mark.parametrize("pair", PAIRS)
def test_precision_and_auc_agree_with_sklearn(pair: Pair) -> None:
    scores, targets = pair
    with_clips = [j for j in range(targets.shape[1]) if targets[:, j].any()]
    expected = np.full((2, targets.shape[1]), np.nan)
    for j in with_clips:
        hits, column = targets[:, j], scores[:, j]
        expected[:, j] = average_precision_score(hits, column), roc_auc_score(hits, column)
    np.testing.assert_allclose(class_average_precision(scores, targets), expected[0], rtol=1e-12)
    np.testing.assert_allclose(class_auc(scores, targets), expected[1], rtol=1e-12)
    assert macro_map(scores, targets) == pytest.approx(np.nanmean(expected[0]), rel=1e-12)
    assert micro_map(scores, targets) == pytest.approx(average_precision_score(targets.ravel(), scores.ravel()))


def test_where_scores_are_not_defined() -> None:
    scores, targets = np.full((3, 2), 0.5), np.array([[True, False]] * 3)
    np.testing.assert_array_equal(class_average_precision(scores, targets), [1, np.nan])
    assert np.isnan(class_auc(scores, targets)).all()
    nothing = np.zeros((3, 2), bool)
    values = macro_map(scores, nothing), micro_map(scores, nothing), log_loss(scores[:0], nothing[:0])
    assert np.isnan(values).all()
    assert not np.isfinite(bootstrap_intervals(scores, nothing).classes).any()
    assert (fit_thresholds(scores, nothing) == 0.5).all()
    for wrong in (targets.astype(int), targets[:2], targets[:, 0]):
        with pytest.raises(ValueError, match=r"expected bool \(3, 2\) as the scores"):
            lwlrap(scores, wrong)
    with pytest.raises(ValueError, match=r"thresholds have shape \(3,\), expected \(2,\)"):
        f1_at(scores, targets, np.zeros(3))


def test_d_prime() -> None:
    for auc in (0.01, 0.5, 0.814, 0.959):
        assert d_prime(auc) == pytest.approx(math.sqrt(2) * norm.ppf(auc))
    assert d_prime(0.959) == pytest.approx(2.452, abs=0.01)  # as Hershey et al. 2017 have it for AUC 0.959
    assert (d_prime(0), d_prime(1), math.isnan(d_prime(math.nan))) == (-math.inf, math.inf, True)


@pytest.mark.parametrize("pair", PAIRS)
def test_f1_agrees_with_sklearn(pair: Pair) -> None:
    scores, targets = pair
    thresholds = np.linspace(0.2, 0.7, targets.shape[1])
    counts, given = f1_at(scores, targets, thresholds), scores >= thresholds
    expected = precision_recall_fscore_support(targets, given, average=None, zero_division=np.nan)
    np.testing.assert_allclose([counts.precision, counts.recall, counts.f1], expected[:3])
    np.testing.assert_array_equal(counts.clips, expected[3])
    micro = precision_recall_fscore_support(targets, given, average="micro")
    assert [counts.micro()[name] for name in ("precision", "recall", "f1")] == pytest.approx(micro[:3])
    labelled = targets.any(axis=0)
    macro = {name: np.nanmean(getattr(counts, name)[labelled]) for name in ("f1", "precision", "recall")}
    assert counts.macro() == pytest.approx(macro)
    by_fold = f1_at(scores, targets, np.stack([np.ones_like(thresholds), thresholds]), np.ones(len(scores), int))
    np.testing.assert_array_equal(by_fold.f1, counts.f1)


def test_thresholds_have_the_highest_f1() -> None:
    scores, targets = made(150, 8, 5, decimals=2)
    targets[:, 7] = False
    thresholds = fit_thresholds(scores, targets)
    f1, few = f1_at(scores, targets, thresholds).f1, targets.sum(axis=0) < multilabel.FEWEST_CLIPS
    best = np.max([f1_at(scores, targets, np.full(8, value)).f1 for value in np.arange(-0.005, 1.01, 0.01)], axis=0)
    np.testing.assert_array_equal(f1[~few], best[~few])
    assert few[7]
    assert 4 < (~few).sum() < 8
    of_all = fit_thresholds(scores.reshape(-1, 1), targets.reshape(-1, 1))[0]
    assert (thresholds[few] == of_all).all()
    np.testing.assert_array_equal(fit_thresholds(np.vstack([scores, np.full((9, 8), np.nan)]),
                                                 np.vstack([targets, np.ones((9, 8), bool)])), thresholds)  # fmt: skip


def test_cross_fitted_thresholds_have_not_seen_the_clips() -> None:
    scores, targets = made(200, 6, 8)
    fold = np.arange(200) % 4
    fold[:10] = -1
    thresholds = cross_fit_thresholds(scores, targets, fold)
    for f in range(4):
        others = (fold != f) & (fold >= 0)
        np.testing.assert_array_equal(thresholds[f], fit_thresholds(scores[others], targets[others]))
    assert len(np.unique(thresholds)) > 6
    known = fold >= 0
    honest = f1_at(scores[known], targets[known], thresholds, fold[known]).macro()["f1"]
    assert honest < f1_at(scores[known], targets[known], fit_thresholds(scores[known], targets[known])).macro()["f1"]


def test_log_loss_is_that_of_every_pair_clipped() -> None:
    scores, targets = PAIRS[0]
    expected = np.mean([sklearn_log_loss(targets[:, j], scores[:, j], labels=[0, 1]) for j in range(9)])
    assert log_loss(scores, targets) == pytest.approx(expected, rel=1e-6)
    assert log_loss(np.array([[0.0, 1.0]]), np.array([[True, False]])) == pytest.approx(-math.log(1e-7))


def test_label_prior_is_the_share_of_clips() -> None:
    prior = label_prior(np.array([[True, True, False], [False, True, False]]))
    assert prior.dtype == np.float32
    assert prior.tolist() == [0.5, 1, 0]


# --- intervals -------------------------------------------------------------------------------------


def test_intervals_are_the_percentiles_of_resampled_clips() -> None:
    scores, targets = made(120, 4, 3, decimals=1)
    group = np.arange(120) // 3
    for groups, n_groups in ((None, 120), (group, 40)):
        intervals = bootstrap_intervals(scores, targets, n=200, seed=5, groups=groups)
        rng, drawn = np.random.default_rng(5), []
        for _ in range(200):
            draw = rng.integers(n_groups, size=n_groups)
            clips = draw if groups is None else np.concatenate([np.flatnonzero(group == g) for g in draw])
            some = scores[clips], targets[clips]
            drawn.append([lwlrap(*some), macro_map(*some), *class_average_precision(*some)])
        known = [column[~np.isnan(column)] for column in np.transpose(drawn)]
        expected = np.transpose(
            [np.percentile(column, [2.5, 97.5]) if len(column) else [np.nan] * 2 for column in known]
        )
        assert intervals.lwlrap == pytest.approx(expected[:, 0], rel=1e-5)
        assert intervals.macro_map == pytest.approx(expected[:, 1], rel=1e-5)
        np.testing.assert_allclose(intervals.classes, expected[:, 2:].T, rtol=1e-5)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    scores, targets = made(60_000, 6, 9)
    common = targets.mean(axis=0) > 0.05
    scores, targets = scores[:, common], targets[:, common]
    truth, hits = (macro_map(scores, targets), lwlrap(scores, targets)), np.zeros(2)
    for rows in np.split(np.arange(60_000), 100):
        intervals = bootstrap_intervals(scores[rows], targets[rows], n=300)
        for i, (low, high) in enumerate((intervals.macro_map, intervals.lwlrap)):
            hits[i] += low <= truth[i] <= high
    assert (hits >= 88).all()


def test_intervals_depend_on_the_seed_alone() -> None:
    scores, targets = PAIRS[0]
    first, again = (bootstrap_intervals(scores, targets, n=50) for _ in range(2))
    assert (first.lwlrap, first.macro_map) == (again.lwlrap, again.macro_map)
    assert first.classes.tobytes() == again.classes.tobytes()
    assert first.lwlrap != bootstrap_intervals(scores, targets, n=50, seed=1).lwlrap


def test_many_clips_are_resampled_less(monkeypatch) -> None:
    scores, targets = made(900, 4, 2)
    monkeypatch.setattr(bootstrap, "MOST_CLIPS", 300)
    monkeypatch.setattr(bootstrap, "RESAMPLED", 300 * 4 * 250)
    some = bootstrap_intervals(scores[::3], targets[::3], n=250)
    assert bootstrap_intervals(scores, targets).lwlrap == some.lwlrap


# --- blocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("elements", [1, 9 * 13])
def test_results_do_not_depend_on_blocks(elements: int, monkeypatch, tmp_path: Path) -> None:
    scores, targets = PAIRS[0]
    fold = np.arange(len(scores)) % 3
    functions = [
        lwlrap, lambda s, t: class_lwlrap(s, t)[0], class_average_precision, micro_map, class_auc, fit_thresholds,
        lambda s, t: f1_at(s, t, np.full((3, 9), 0.4), fold).f1, lambda s, t: clip_precision(s, t)[0],
    ]  # fmt: skip
    expected = [function(scores, targets) for function in functions]
    np.save(tmp_path / "scores.npy", scores)
    monkeypatch.setattr(row_blocks, "CHUNK_ELEMENTS", elements)
    mapped = row_blocks.open_rows(tmp_path / "scores.npy")
    for function, value in zip(functions, expected, strict=True):
        np.testing.assert_allclose(function(mapped, targets), value, rtol=1e-12)
    assert log_loss(mapped, targets) == pytest.approx(log_loss(scores, targets), rel=1e-9)
