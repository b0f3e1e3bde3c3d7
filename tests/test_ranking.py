"""Scores against slow versions written from their definitions, against scikit-learn, and against hand-made cases."""

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


def slow_map_at_3(scores: list[list[float]], targets: list[int]) -> float:
    """The challenge's measure, one clip and one guess after the other; among equal scores the first class wins."""
    total = 0.0
    for row, target in zip(scores, targets, strict=True):
        left = list(range(len(row)))
        precision_sum, right = 0.0, 0
        for position in range(min(3, len(row))):
            best = left[0]
            for candidate in left:
                if row[candidate] > row[best]:
                    best = candidate
            left.remove(best)
            if best == target:
                right += 1
                precision_sum += right / (position + 1)
        total += precision_sum  # divided by the number of true labels, which is 1
    return total / len(targets)


def random_case(seed: int, coarse: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n_clips, n_classes = int(rng.integers(1, 40)), int(rng.integers(1, 45))
    scores = rng.random((n_clips, n_classes)).astype(np.float32)
    if coarse:  # many ties
        scores = np.round(scores * 3) / 3
    return scores, rng.integers(0, n_classes, n_clips)


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "ties"])
def test_map3_agrees_with_the_slow_version(coarse: bool) -> None:
    for seed in range(150):
        scores, targets = random_case(seed, coarse)
        assert map_at_k(scores, targets) == pytest.approx(slow_map_at_3(scores.tolist(), targets.tolist()), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "target", "expected"),
    [
        ([0.7, 0.1, 0.1, 0.1], 0, 1.0),
        ([0.4, 0.5, 0.1, 0.0], 0, 1 / 2),
        ([0.3, 0.4, 0.2, 0.1], 2, 1 / 3),
        ([0.3, 0.4, 0.2, 0.1], 3, 0.0),
        ([0.25, 0.25, 0.25, 0.25], 0, 1.0),  # ties go by class order
        ([0.25, 0.25, 0.25, 0.25], 1, 1 / 2),
        ([0.25, 0.25, 0.25, 0.25], 2, 1 / 3),
        ([0.25, 0.25, 0.25, 0.25], 3, 0.0),
        ([0.1, 0.1, 0.4, 0.4], 3, 1 / 2),
        ([0.0, -1.0, 2.0, 1.0], 0, 1 / 3),  # any scores, not only probabilities
        ([0.6, 0.4], 1, 1 / 2),  # fewer than three classes
        ([0.6, 0.4], 0, 1.0),
        ([1.0], 0, 1.0),
    ],
)
def test_map3_of_one_clip(scores: list[float], target: int, expected: float) -> None:
    assert map_at_k(np.array([scores]), np.array([target])) == pytest.approx(expected)


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
def test_no_score_depends_on_chunks_or_threads(
    elements: int, threads: int, mapped: bool, monkeypatch, tmp_path: Path
) -> None:
    rng = np.random.default_rng(7)
    scores, targets = rng.dirichlet(np.ones(41), 3001).astype(np.float32), rng.integers(0, 41, 3001)
    scores[rng.random(scores.shape) < 0.1] = 0.03125
    functions = (
        map_at_k, accuracy, log_loss, class_average_precision, confusion, label_ranks, lambda s, _: top_k(s),
        lambda s, t: best_guesses(s, t).p_label,
    )  # fmt: skip
    ranking = np.argsort(-scores, axis=1, kind="stable")
    chosen = scores.astype(np.float64)[np.arange(3001), targets]
    expected = [
        average_precision_at_k(ranking[:, :3], targets).mean(),
        (ranking[:, 0] == targets).mean(),
        -np.log(np.clip(chosen, 1e-7, 1.0)).mean(),
        class_average_precision(scores, targets),
        confusion_matrix(targets, ranking[:, 0], labels=range(41)),
        [min(row.tolist().index(target), 3) for row, target in zip(ranking, targets, strict=True)],
        ranking[:, :3],
        scores[np.arange(3001), targets],
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


def test_accuracy() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.5, 0.5]])
    assert accuracy(scores, np.array([0, 0, 0, 1])) == 0.5  # right, wrong, right by class order, wrong


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


def test_confusion_agrees_with_sklearn() -> None:
    for seed in range(20):
        scores, targets = random_case(seed, coarse=seed % 2 == 0)
        guesses = [row.index(max(row)) for row in scores.tolist()]
        expected = confusion_matrix(targets, guesses, labels=range(scores.shape[1]))
        np.testing.assert_array_equal(confusion(scores, targets), expected)


def test_best_guesses(monkeypatch) -> None:
    monkeypatch.setattr(row_blocks, "CHUNK_ELEMENTS", 3)
    scores = np.float32([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0], [0.2, 0.2, 0.6]])
    guesses = best_guesses(scores, np.array([1, 1, 0]))
    assert guesses.guess.tolist() == [1, 0, 2]
    np.testing.assert_array_equal(guesses.p_guess, np.float32([0.7, 0.5, 0.6]))
    np.testing.assert_array_equal(guesses.p_label, np.float32([0.7, 0.5, 0.2]))
