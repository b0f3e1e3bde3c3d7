"""Scores against NumPy's sort, against scikit-learn, and against hand-made cases."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix
from sklearn.metrics import log_loss as sklearn_log_loss

from fsat.metrics import row_blocks
from fsat.metrics.ranking import (
    accuracy,
    average_precision_at_k,
    best_guesses,
    class_average_precision,
    confusion,
    label_ranks,
    log_loss,
    map_at_k,
    top_k,
)


@pytest.mark.parametrize(("scores", "expected"), [
    ([0.4, 0.5, 0.1, 0.0], [1 / 2, 1, 1 / 3, 0]),
    ([0.25, 0.25, 0.25, 0.25], [1, 1 / 2, 1 / 3, 0]),  # ties go by class order
    ([0.1, 0.1, 0.4, 0.4], [1 / 3, 0, 1, 1 / 2]),
    ([0.0, -1.0, 2.0, 1.0], [1 / 3, 0, 1, 1 / 2]),  # any scores, not only probabilities
    ([0.6, 0.4], [1, 1 / 2]),  # fewer than three classes
    ([1.0], [1]),
])  # fmt: skip
def test_map3_of_one_clip(scores: list[float], expected: list[float]) -> None:
    """With each class as its target."""
    assert [map_at_k(np.array([scores]), np.array([target])) for target in range(len(scores))] == expected


def test_other_numbers_of_guesses() -> None:
    scores = np.array([[0.1, 0.2, 0.3, 0.4]])
    assert [map_at_k(scores, np.array([0]), k) for k in (1, 3, 4, 9)] == [0, 0, 0.25, 0.25]


def odd_scores(dtype: type, seed: int = 0) -> np.ndarray:
    """Ties, zeros of both signs, infinities, NaN, and rows of nothing else."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.standard_normal((700, 41)) * rng.choice([1, 8], (700, 1)))
    for value in (-0.0, np.nan, np.inf, -np.inf):
        scores[rng.random(scores.shape) < rng.choice([0, 0, 0.03, 0.9], (700, 1))] = value
    scores[:4] = np.array([np.nan, -np.inf, np.inf, 0.0])[:, np.newaxis]
    return scores.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_top_k_is_a_stable_sort_with_nan_last(dtype: type) -> None:
    for seed in range(5):
        scores = odd_scores(dtype, seed)
        assert np.isnan(scores).any(axis=1).sum() > 100
        for k in (0, 1, 3, 8, 9, 41, 50):
            np.testing.assert_array_equal(top_k(scores, k), np.argsort(-scores, axis=1, kind="stable")[:, :k])
    assert top_k(scores).dtype == np.intp
    whole = np.random.default_rng(0).integers(-3, 3, (50, 7))
    np.testing.assert_array_equal(top_k(whole), np.argsort(-whole, axis=1, kind="stable")[:, :3])


def test_top_k_leaves_the_scores_alone_and_fills_what_it_is_given() -> None:
    scores = odd_scores(np.float32)
    before, out = scores.copy(), np.empty((700, 3), np.int32)
    assert top_k(scores, out=out) is out
    np.testing.assert_array_equal(scores, before)
    np.testing.assert_array_equal(out, top_k(scores))


@pytest.mark.parametrize(("elements", "threads"), [(1, 1), (41 * 13, 2), (41 * 64, 4), (1 << 17, 2)])
@pytest.mark.parametrize("mapped", [False, True], ids=["array", "map"])
def test_scores_agree_with_numpy_for_any_chunks_and_threads(
    elements: int, threads: int, mapped: bool, monkeypatch, tmp_path: Path
) -> None:
    rng = np.random.default_rng(7)
    scores, targets = rng.dirichlet(np.ones(41), 1001).astype(np.float32), rng.integers(0, 41, 1001)
    scores[rng.random(scores.shape) < 0.1] = 0.03125
    functions = (
        map_at_k, accuracy, log_loss, class_average_precision, confusion, label_ranks, lambda s, _: top_k(s),
        lambda s, t: np.stack(list(vars(best_guesses(s, t)).values())),
    )  # fmt: skip
    ranking = np.argsort(-scores, axis=1, kind="stable")
    chosen = scores.astype(np.float64)[np.arange(1001), targets]
    ranks = [min(row.tolist().index(target), 3) for row, target in zip(ranking, targets, strict=True)]
    expected = [
        np.array([1, 1 / 2, 1 / 3, 0])[ranks].mean(),
        (ranking[:, 0] == targets).mean(),
        -np.log(np.clip(chosen, 1e-7, 1.0)).mean(),
        class_average_precision(scores, targets),
        confusion_matrix(targets, ranking[:, 0], labels=range(41)),
        ranks,
        ranking[:, :3],
        np.stack([ranking[:, 0], scores.max(axis=1), scores[np.arange(1001), targets]]),
    ]
    if mapped:
        np.save(tmp_path / "scores.npy", scores)
        scores = row_blocks.open_rows(tmp_path / "scores.npy")
    monkeypatch.setattr(row_blocks, "CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(row_blocks, "THREADS", threads)
    for function, value in zip(functions, expected, strict=True):
        np.testing.assert_array_equal(function(scores, targets), value)


@pytest.mark.parametrize("function", [map_at_k, accuracy, log_loss, class_average_precision, confusion])
def test_as_many_targets_as_rows(function) -> None:
    with pytest.raises(ValueError, match=r"targets have shape \(4,\), expected \(3,\)"):
        function(np.ones((3, 2)), np.zeros(4, dtype=int))


def test_a_repeated_guess_counts_once() -> None:
    ranking = np.array([[4, 2, 2], [2, 2, 2], [4, 5, 6], [-1, -1, 2]])
    assert average_precision_at_k(ranking, np.array([2, 2, 2, 2])) == pytest.approx([1 / 2, 1, 0, 1 / 3])


def test_log_loss_agrees_with_sklearn_and_is_clipped() -> None:
    rng = np.random.default_rng(3)
    scores, targets = rng.dirichlet(np.ones(7), 50), rng.integers(0, 7, 50)
    assert log_loss(scores, targets) == pytest.approx(sklearn_log_loss(targets, scores, labels=range(7)))
    assert log_loss(np.array([[0.0, 1.0]]), np.array([0])) == pytest.approx(-math.log(1e-7))


@pytest.mark.parametrize("function", [map_at_k, accuracy, log_loss])
def test_no_clips_have_no_score(function) -> None:
    assert math.isnan(function(np.empty((0, 3)), np.empty(0, dtype=int)))


def test_class_average_precision_agrees_with_sklearn() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n_clips, n_classes = int(rng.integers(2, 60)), int(rng.integers(2, 12))
        scores = rng.random((n_clips, n_classes))  # float64: no ties
        targets = rng.integers(0, n_classes, n_clips)
        expected = [
            average_precision_score(targets == j, scores[:, j]) if (targets == j).any() else np.nan
            for j in range(n_classes)
        ]
        np.testing.assert_allclose(class_average_precision(scores, targets), expected, rtol=1e-12)
