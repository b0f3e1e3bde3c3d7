"""Blends: geometric means where products underflow, out-of-fold rows, fitted weights; no bit depends on the blocks."""

from __future__ import annotations

import threading
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from fsat.errors import FsatError
from fsat.metrics import blending, row_blocks
from fsat.metrics.blending import Blended, OutOfFold, clips_to_fit, cross_fit, fit_weights, label_prior
from fsat.metrics.ranking import log_loss, top_k


def random_members(count: int, n_clips: int = 8, n_classes: int = 5, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(n_classes), n_clips).astype(np.float32) for _ in range(count)]


def geometric(members: list) -> np.ndarray:
    return Blended([members]).fill()


def test_the_methods_by_hand() -> None:
    a, b = np.array([[0.1, 0.9]]), np.array([[0.4, 0.6]])
    studies = [[a, b], [b]]
    np.testing.assert_allclose(Blended(studies, "arithmetic").fill(), [[0.325, 0.675]], rtol=1e-6)
    unscaled = [(0.1 * 0.4) ** 0.15 * 0.4**0.7, (0.9 * 0.6) ** 0.15 * 0.6**0.7]
    weighted = Blended(studies, "weighted", np.array([0.3, 0.7])).fill()
    np.testing.assert_allclose(weighted, [np.array(unscaled) / sum(unscaled)], rtol=1e-6)
    equal = Blended(studies, "weighted", np.array([0.5, 0.5])).fill()
    np.testing.assert_allclose(equal, Blended(studies).fill(), rtol=1e-6)
    seven = random_members(7)
    assert Blended([seven], "weighted", np.array([1.0])).fill().tobytes() == geometric(seven).tobytes()


def test_invalid_arguments_are_refused() -> None:
    members = random_members(2)
    studies = [[member] for member in members]
    assert geometric([np.empty((0, 3), np.float32)] * 2).shape == (0, 3)
    with pytest.raises(ValueError, match=r"out has shape \(7, 5\), expected \(8, 5\)"):
        Blended([members]).fill(np.empty((7, 5), np.float32))
    with pytest.raises(ValueError, match=r"best has shape \(9, 3\)"):
        Blended([members]).fill(best=np.empty((9, 3), np.int32))
    for wrong, message in (
        (([[]],), "nothing to blend"),
        (([members, []],), "nothing to blend in one"),
        (([[members[0], members[1][:, :4]]],), r"\(8, 5\) and \(8, 4\)"),
        ((studies, "median"), "method is 'median', expected one of geometric, arithmetic, weighted"),
        ((studies, "weighted"), "no weights, expected one for each of 2 studies"),
        *(
            ((studies, "weighted", np.array(weights)), r"weights are \[.*\], expected 2, none below 0, that sum to 1")
            for weights in ([1.0], [0.5, 0.6], [1.5, -0.5], [np.nan, 1])
        ),
    ):
        with pytest.raises(ValueError, match=message):
            Blended(*wrong)


def test_out_of_fold_takes_the_row_of_the_member_that_held_the_clip_out() -> None:
    predictions = [np.full((6, 2), fill, dtype=np.float32) for fill in (0.1, 0.2, 0.3)]
    folds = np.array([2, 0, 1, 0, 9, 2])  # no member held clip 4 out
    result = OutOfFold(predictions, [folds == fold for fold in range(3)])[:]
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[:, 0], [0.3, 0.1, 0.2, 0.1, np.nan, 0.3])
    with pytest.raises(ValueError, match="clip 1 was held out by two members"):
        OutOfFold(predictions[:2], [folds == 0, np.arange(6) == 1])


def test_label_prior_is_the_share_of_each_class() -> None:
    prior = label_prior(np.array([0, 2, 2, 2, 0]), 4)
    assert prior.dtype == np.float32
    np.testing.assert_allclose(prior, [0.4, 0, 0.6, 0])


# --- many rows -------------------------------------------------------------------------------------

CUTS = [(1 << 17, 4), (41 * 7, 3), (41 * 64, 2), (41 * 1000, 8), (1, 2)]
"""Elements of a block (1 is one row), and threads."""


def hard_members(count: int, n_clips: int, n_classes: int = 41, seed: int = 0) -> list[np.ndarray]:
    """Predictions from flat to certain, with zeros, numbers below float32's smallest, and rows of zeros."""
    rng = np.random.default_rng(seed)
    members = []
    for _ in range(count):
        logits = rng.standard_normal((n_clips, n_classes)) * rng.choice([0.1, 3, 40], (n_clips, 1))
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
        scores[rng.random(scores.shape) < 0.02] = 0
        scores[rng.random(scores.shape) < 0.01] = 1e-40
        scores[n_clips // 2] = 0
        members.append(scores)
    return members


def in_log_space(studies: list[list[np.ndarray]]) -> np.ndarray:
    """The definition: a logarithm of every element, in float64."""
    tiny = np.finfo(np.float32).tiny
    means = [np.mean([np.log(np.maximum(m.astype(np.float64), tiny)) for m in ms], axis=0) for ms in studies]
    total = np.mean(means, axis=0)
    total = np.exp(total - total.max(axis=1, keepdims=True))
    return total / total.sum(axis=1, keepdims=True)


def cut(monkeypatch: pytest.MonkeyPatch, elements: int, threads: int) -> None:
    monkeypatch.setattr(row_blocks, "CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(row_blocks, "THREADS", threads)


@pytest.mark.parametrize("sizes", [(1,), (7,), (8,), (9,), (12,), (17,), (10, 1, 3)])
def test_geometric_means_agree_with_log_space_and_each_study_counts_alike(sizes: tuple[int, ...]) -> None:
    """With zeros and certainties."""
    members = iter(hard_members(sum(sizes), 1500))
    studies = [[next(members) for _ in range(size)] for size in sizes]
    copies = [[member.copy() for member in study] for study in studies]
    result, expected = Blended(studies).fill(), in_log_space(studies)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-37)
    np.testing.assert_allclose(result[750], 1 / 41, rtol=1e-6)
    np.testing.assert_array_equal(top_k(result), top_k(expected.astype(np.float32)))
    for study, copy in zip(studies, copies, strict=True):
        np.testing.assert_array_equal(study, copy)


def test_twelve_members_at_the_smallest_number() -> None:
    """Eight multiply to 4e-304; float64 holds no product of nine, nor the notebook's float32 one of two."""
    tiny = np.float32(np.finfo(np.float32).tiny)
    member = np.array([[tiny, tiny * 2, tiny * 4, 0]], dtype=np.float32)
    np.testing.assert_allclose(geometric([member] * 12), [[1 / 8, 2 / 8, 4 / 8, 1 / 8]], rtol=1e-6)


@pytest.mark.parametrize(("elements", "threads"), CUTS)
def test_no_bit_depends_on_blocks_or_threads(elements: int, threads: int, monkeypatch, tmp_path: Path) -> None:
    members = hard_members(10, 437, seed=1)
    fold = np.random.default_rng(0).integers(-1, 10, 437)
    masks = [fold == i for i in range(10)]
    for i, scores in enumerate(members):
        np.save(tmp_path / f"{i}.npy", scores)
    maps = [row_blocks.open_rows(tmp_path / f"{i}.npy") for i in range(10)]
    by_fold = np.random.default_rng(2).dirichlet(np.ones(2), 11)

    def blends(members: list[np.ndarray]) -> list[Blended]:
        halves = [members[:7], members[7:]]
        return [Blended(halves), Blended(halves, "arithmetic"), Blended(halves, "weighted", by_fold, fold)]

    cut(monkeypatch, 10**9, 1)
    best = np.empty((437, 3), np.int32)
    expected = Blended([members]).fill(best=best)
    wholes, oof = [blend.fill() for blend in blends(members)], OutOfFold(members, masks)[:]
    np.testing.assert_array_equal(best, top_k(expected))
    np.testing.assert_array_equal(oof[fold >= 0], np.stack(members)[fold, np.arange(437)][fold >= 0])

    cut(monkeypatch, elements, threads)
    out = row_blocks.create_rows(tmp_path / "out.npy", (437, 41))
    ranking = row_blocks.create_rows(tmp_path / "best.npy", (437, 3), np.int32)
    assert Blended([maps]).fill(out, ranking) is out
    assert np.load(tmp_path / "out.npy").tobytes() == expected.tobytes()
    assert np.load(tmp_path / "best.npy").tobytes() == best.tobytes()
    assert geometric([scores.astype(np.float64) for scores in maps]).tobytes() == expected.tobytes()
    assert OutOfFold(maps, masks)[:].tobytes() == oof.tobytes()
    for blend, whole in zip(blends(maps), wholes, strict=True):
        assert blend.fill().tobytes() == whole.tobytes()
        for rows in (slice(0, 90), slice(7, 20), slice(400, None), slice(5, 5)):
            assert blend[rows].tobytes() == whole[rows].tobytes()


def test_rows_without_a_prediction_are_nan() -> None:
    members = random_members(4, n_clips=9)
    fold = np.array([0, 1, 0, 1, 7, 0, 1, 7, 0])
    whole = OutOfFold(members[:2], [fold == 0, fold == 1])
    other = OutOfFold(members[2:], [fold <= 1, fold == 7])
    result = geometric([whole, other])
    assert np.isnan(result).all(axis=1).tolist() == (fold == 7).tolist()
    taken = np.where((fold == 0)[:, np.newaxis], members[0], members[1])[fold < 7]
    np.testing.assert_allclose(result[fold < 7], geometric([taken, members[2][fold < 7]]), rtol=1e-6)


def test_an_error_in_one_thread_stops_the_others_and_is_raised(monkeypatch) -> None:
    cut(monkeypatch, 10, 4)
    seen, first = [], threading.Event()

    def work(row_ranges: row_blocks.Ranges) -> None:
        for start, _ in row_ranges:
            if start == 0:
                first.set()
                raise RuntimeError("broken")
            first.wait(5)
            seen.append(start)
            threading.Event().wait(0.001)

    with pytest.raises(RuntimeError, match="broken"):
        row_blocks.in_threads(100_000, 10, work)
    assert len(seen) < 50_000


def test_release_keeps_written_values(tmp_path: Path) -> None:
    array = row_blocks.create_rows(tmp_path / "rows.npy", (3000, 41))
    array[:] = np.arange(3000)[:, np.newaxis]
    row_blocks.release(array[100:2000])
    row_blocks.release(array[::-1])
    assert (array[:, 7] == np.arange(3000)).all()
    assert (np.load(tmp_path / "rows.npy")[:, 40] == np.arange(3000)).all()
    private = np.load(tmp_path / "rows.npy", mmap_mode="c")
    private[:] = -1  # in memory only
    row_blocks.release(private[100:2000])
    assert (private == -1).all()
    row_blocks.release(np.ones((4, 4)))


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch) -> None:
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(row_blocks.os, "posix_fallocate", full)
    with pytest.raises(FsatError, match=r"out\.npy: cannot be written: No space left .* 0 MB.*TMPDIR"):
        row_blocks.create_rows(tmp_path / "out.npy", (10, 4))


# --- weights ---------------------------------------------------------------------------------------

N_CLASSES = 6


def study(targets: np.ndarray, sharpness: float, seed: int) -> np.ndarray:
    """Predictions that favour the label by so many deviations of the noise."""
    logits = np.random.default_rng(seed).standard_normal((len(targets), N_CLASSES))
    logits[np.arange(len(targets)), targets] += sharpness
    scores = np.exp(logits)
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def out_of_fold(scores: np.ndarray, fold: np.ndarray) -> OutOfFold:
    n_folds = fold.max() + 1
    return OutOfFold([scores] * n_folds, [fold == i for i in range(n_folds)])


def targets_of(n_clips: int) -> np.ndarray:
    return np.random.default_rng(99).integers(0, N_CLASSES, n_clips)


def everywhere(n_clips: int) -> np.ndarray:
    return np.ones(n_clips, dtype=bool)


def test_the_weights_have_the_least_log_loss() -> None:
    targets = targets_of(400)
    studies = [study(targets, sharpness, i) for i, sharpness in enumerate((1.0, 1.2, 0.3))]

    def loss(weights: np.ndarray) -> float:
        mean = np.exp(sum(w * np.log(s.astype(np.float64)) for w, s in zip(weights, studies, strict=True)))
        return log_loss(mean / mean.sum(axis=1, keepdims=True), targets)

    weights = fit_weights(studies, targets, np.arange(400))
    assert weights.sum() == pytest.approx(1)
    grid = np.linspace(0, 1, 41)
    least = min(loss(np.array([a, b, 1 - a - b])) for a in grid for b in grid if a + b <= 1)
    assert loss(weights) <= least + 1e-7
    assert loss(weights) < loss(np.full(3, 1 / 3)) - 1e-4


def test_a_worse_study_may_weigh_exactly_nothing() -> None:
    """Its rows without a prediction are still NaN in the blend."""
    targets = targets_of(500)
    good, misled = study(targets, 2.5, 0), study((targets + 1) % N_CLASSES, 2.5, 1)
    weights = fit_weights([good, misled], targets, np.arange(500))
    assert weights.tolist() == [1, 0]
    misled[7] = np.nan
    blend = Blended([[good], [misled]], "weighted", weights).fill()
    assert np.isnan(blend).any(axis=1).tolist() == (np.arange(500) == 7).tolist()
    np.testing.assert_allclose(np.delete(blend, 7, axis=0), np.delete(good, 7, axis=0), rtol=1e-5)


def test_a_fold_is_scored_with_weights_that_were_fitted_without_it() -> None:
    """Folds are those of the first study; clips that a study lacks are not fitted on and stay NaN."""
    targets = targets_of(240)
    first, second = np.arange(240) % 4, np.arange(240) // 80
    scores = [study(targets, 2, 0), study(targets, 1, 1)]
    parts = [
        OutOfFold([scores[0]] * 4, [first == i for i in range(4)]),
        OutOfFold([scores[1]] * 2, [second == i for i in range(2)]),  # its third fold is missing
    ]
    covered = second < 2
    weights = cross_fit(parts, targets, ~everywhere(240), covered)
    np.testing.assert_array_equal(weights.final, fit_weights(scores, targets, np.flatnonzero(covered)))
    assert weights.by_fold.shape == (4, 2)
    assert len(np.unique(weights.by_fold[:, 0])) == 4
    for i in range(4):
        expected = fit_weights(scores, targets, np.flatnonzero(covered & (first != i)))
        np.testing.assert_array_equal(weights.by_fold[i], expected)
    blend = Blended([[part] for part in parts], "weighted", weights.by_fold, parts[0].owner)[:]
    assert np.isnan(blend).any(axis=1).tolist() == (~covered).tolist()
    exponents = weights.by_fold[first][:, :, np.newaxis].transpose(1, 0, 2)
    mean = np.exp(np.sum(exponents * np.log(np.stack(scores)), axis=0))
    expected = mean / mean.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(blend[covered], expected[covered], rtol=1e-5)


def test_one_study_or_one_fold_has_equal_weights() -> None:
    targets, fold = targets_of(60), np.arange(60) % 2
    alone = out_of_fold(study(targets, 1, 0), fold)
    weights = cross_fit([alone], targets, everywhere(60), everywhere(60))
    assert (weights.final.tolist(), weights.by_fold.tolist()) == ([1], [[1], [1]])
    both = [alone, out_of_fold(study(targets, 0, 1), fold)]
    weights = cross_fit(both, targets, everywhere(60), fold == 1)  # one fold has clips
    assert (weights.final.tolist(), weights.by_fold.tolist()) == ([0.5, 0.5], [[0.5, 0.5]] * 2)


@pytest.mark.parametrize(("n_verified", "alone"), [(100, True), (99, False)])
def test_verified_clips_alone_are_fitted_on_if_every_fit_has_enough(n_verified: int, alone: bool) -> None:
    targets, fold = targets_of(240), np.arange(240) % 2
    verified = np.arange(240) < n_verified  # 50 in each fold, or 49 in one of them
    scores = [study(targets, 1 + i, i) for i in range(2)]
    weights = cross_fit([out_of_fold(part, fold) for part in scores], targets, verified, everywhere(240))
    mask = verified if alone else everywhere(240)
    np.testing.assert_array_equal(weights.final, fit_weights(scores, targets, np.flatnonzero(mask)))
    for i in range(2):
        expected = fit_weights(scores, targets, np.flatnonzero(mask & (fold != i)))
        np.testing.assert_array_equal(weights.by_fold[i], expected)


def test_of_many_clips_evenly_spaced_ones_are_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blending, "MOST_CLIPS", 40)
    assert clips_to_fit(everywhere(1000)).tolist() == list(range(0, 1000, 25))
    assert clips_to_fit(everywhere(41)).tolist() == list(range(40))


def test_zeros_and_certainties_have_finite_weights() -> None:
    targets = targets_of(100)
    certain = np.eye(N_CLASSES, dtype=np.float32)[np.where(np.arange(100) % 4, targets, (targets + 1) % N_CLASSES)]
    weights = fit_weights([certain, study(targets, 2, 0)], targets, np.arange(100))
    assert np.isfinite(weights).all()
    assert 0 < weights[0] < weights[1]  # each label that the first study excludes costs it much
