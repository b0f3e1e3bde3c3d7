"""Weighted blends: weights that find the better study, are fitted without the clips they are scored on, and repeat."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gmean

from fsat.metrics import row_blocks, weights
from fsat.metrics.blending import Blended, OutOfFold, blend_studies
from fsat.metrics.ranking import log_loss
from fsat.metrics.weights import clips_to_fit, cross_fit, fit_weights

N_CLASSES = 6


def study(targets: np.ndarray, sharpness: float, seed: int) -> np.ndarray:
    """Predictions that favour the label by so many deviations of the noise; 0 is a study that knows nothing."""
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


def test_a_study_that_knows_nothing_weighs_next_to_nothing() -> None:
    targets, fold = targets_of(600), np.arange(600) % 5
    parts = [out_of_fold(study(targets, sharpness, i), fold) for i, sharpness in enumerate((2.5, 0.0))]
    found = cross_fit(parts, targets, everywhere(600), everywhere(600))
    assert found.final[0] > 0.9
    assert found.by_fold.shape == (5, 2)
    np.testing.assert_allclose(found.by_fold.sum(axis=1), 1)
    assert (found.by_fold[:, 0] > 0.9).all()
    crossed = Blended([[part] for part in parts], "weighted", found.by_fold, fold)
    assert log_loss(crossed, targets) < log_loss(Blended([parts]), targets) - 0.1


def test_the_weights_have_the_least_log_loss() -> None:
    targets = targets_of(400)
    studies = [study(targets, sharpness, i) for i, sharpness in enumerate((1.0, 1.2, 0.3))]

    def loss(weighing: np.ndarray) -> float:
        mean = np.exp(sum(w * np.log(s.astype(np.float64)) for w, s in zip(weighing, studies, strict=True)))
        return log_loss(mean / mean.sum(axis=1, keepdims=True), targets)

    found = fit_weights(studies, targets, np.arange(400))
    assert found.sum() == pytest.approx(1)
    grid = np.linspace(0, 1, 41)
    least = min(loss(np.array([a, b, 1 - a - b])) for a in grid for b in grid if a + b <= 1)
    assert loss(found) <= least + 1e-7
    assert loss(found) < loss(np.full(3, 1 / 3)) - 1e-4


def test_a_worse_study_may_weigh_exactly_nothing() -> None:
    """It is then as good as not there, but for its rows without a prediction."""
    targets = targets_of(500)
    good = study(targets, 2.5, 0)
    misled = study((targets + 1) % N_CLASSES, 2.5, 1)
    found = fit_weights([good, misled], targets, np.arange(500))
    assert found.tolist() == [1, 0]
    misled[7] = np.nan
    blend = blend_studies([[good], [misled]], method="weighted", weights=found)
    assert np.isnan(blend).any(axis=1).tolist() == (np.arange(500) == 7).tolist()
    np.testing.assert_allclose(np.delete(blend, 7, axis=0), np.delete(good, 7, axis=0), rtol=1e-5)


def test_a_fold_is_never_scored_with_weights_that_have_seen_it() -> None:
    """In each fold another study is perfect: weights fitted on a fold would find it, those of the others cannot."""
    fold = np.repeat(np.arange(3), 60)
    targets = targets_of(180)
    studies = [np.where((fold == i)[:, np.newaxis], study(targets, 9, i), study(targets, 0, i)) for i in range(3)]
    parts = [out_of_fold(scores, fold) for scores in studies]
    found = cross_fit(parts, targets, everywhere(180), everywhere(180))
    for i in range(3):
        seen = fit_weights(studies, targets, np.flatnonzero(fold == i))
        assert seen[i] > 0.95
        assert found.by_fold[i, i] < 0.05
        np.testing.assert_array_equal(found.by_fold[i], fit_weights(studies, targets, np.flatnonzero(fold != i)))
    np.testing.assert_array_equal(found.final, fit_weights(studies, targets, np.arange(180)))
    on_itself = Blended([[part] for part in parts], "weighted", np.eye(3), fold)
    crossed = Blended([[part] for part in parts], "weighted", found.by_fold, fold)
    assert log_loss(on_itself, targets) < 0.1 < log_loss(crossed, targets)


def test_changed_labels_of_a_fold_leave_its_weights_as_they_were() -> None:
    targets, fold = targets_of(200), np.arange(200) % 4
    parts = [out_of_fold(study(targets, 1 + i, i), fold) for i in range(2)]
    before = cross_fit(parts, targets, everywhere(200), everywhere(200))
    targets[fold == 2] = (targets[fold == 2] + 1) % N_CLASSES
    after = cross_fit(parts, targets, everywhere(200), everywhere(200))
    assert (before.by_fold == after.by_fold).all(axis=1).tolist() == [False, False, True, False]
    assert (before.final != after.final).any()


def test_studies_with_other_folds_and_missing_ones() -> None:
    """The first study's folds are the partition; clips that a study lacks are not fitted on and stay NaN."""
    targets = targets_of(240)
    first, second = np.arange(240) % 4, np.arange(240) // 80
    scores = [study(targets, 2, 0), study(targets, 1, 1)]
    parts = [
        OutOfFold([scores[0]] * 4, [first == i for i in range(4)]),
        OutOfFold([scores[1]] * 2, [second == i for i in range(2)]),  # its third fold is missing
    ]
    covered = second < 2
    found = cross_fit(parts, targets, ~everywhere(240), covered)
    assert found.by_fold.shape == (4, 2)
    for i in range(4):
        expected = fit_weights(scores, targets, np.flatnonzero(covered & (first != i)))
        np.testing.assert_array_equal(found.by_fold[i], expected)
    blend = Blended([[part] for part in parts], "weighted", found.by_fold, parts[0].owner)[:]
    assert np.isnan(blend).any(axis=1).tolist() == (~covered).tolist()
    weighing = found.by_fold[first][:, :, np.newaxis]
    mean = np.exp(np.sum(weighing.transpose(1, 0, 2) * np.log(np.stack(scores)), axis=0))
    expected = mean / mean.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(blend[covered], expected[covered], rtol=1e-5)


def test_one_study_or_one_fold_leaves_nothing_to_fit() -> None:
    targets, fold = targets_of(60), np.arange(60) % 2
    alone = out_of_fold(study(targets, 1, 0), fold)
    found = cross_fit([alone], targets, everywhere(60), everywhere(60))
    assert (found.final.tolist(), found.by_fold.tolist()) == ([1], [[1], [1]])
    both = [alone, out_of_fold(study(targets, 0, 1), fold)]
    found = cross_fit(both, targets, everywhere(60), fold == 1)  # one fold has clips
    assert (found.final.tolist(), found.by_fold.tolist()) == ([0.5, 0.5], [[0.5, 0.5]] * 2)


def test_one_study_is_blended_alike_by_weights_and_without() -> None:
    members = [study(targets_of(50), 1, i) for i in range(7)]
    weighted = blend_studies([members], method="weighted", weights=np.array([1.0]))
    assert weighted.tobytes() == blend_studies([members]).tobytes()


@pytest.mark.parametrize(("n_verified", "alone"), [(100, True), (99, False)])
def test_verified_clips_alone_are_fitted_on_if_every_fit_has_enough(n_verified: int, alone: bool) -> None:
    """All fits alike, or the score of cross-fitted weights would be that of another way to fit."""
    targets, fold = targets_of(240), np.arange(240) % 2
    verified = np.arange(240) < n_verified  # 50 in each fold, or 49 in one of them
    scores = [study(targets, 1 + i, i) for i in range(2)]
    found = cross_fit([out_of_fold(part, fold) for part in scores], targets, verified, everywhere(240))
    where = verified if alone else everywhere(240)
    np.testing.assert_array_equal(found.final, fit_weights(scores, targets, np.flatnonzero(where)))
    for i in range(2):
        expected = fit_weights(scores, targets, np.flatnonzero(where & (fold != i)))
        np.testing.assert_array_equal(found.by_fold[i], expected)


def test_of_many_clips_evenly_spaced_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MOST_CLIPS", 40)
    chosen = clips_to_fit(everywhere(1000))
    assert chosen.tolist() == list(range(0, 1000, 25))
    assert clips_to_fit(everywhere(41)).tolist() == list(range(40))


def test_no_digit_depends_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = targets_of(300)
    studies = [study(targets, sharpness, i) for i, sharpness in enumerate((1, 2, 3))]
    expected = fit_weights(studies, targets, np.arange(0, 300, 2))
    for elements in (1, N_CLASSES * 7, 10**9):
        monkeypatch.setattr(row_blocks, "CHUNK_ELEMENTS", elements)
        assert fit_weights(studies, targets, np.arange(0, 300, 2)).tolist() == expected.tolist()


def test_zeros_and_certainties_are_fitted_on_all_the_same() -> None:
    targets = targets_of(100)
    certain = np.eye(N_CLASSES, dtype=np.float32)[np.where(np.arange(100) % 4, targets, (targets + 1) % N_CLASSES)]
    found = fit_weights([certain, study(targets, 2, 0)], targets, np.arange(100))
    assert np.isfinite(found).all()
    assert 0 < found[0] < found[1]  # each clip that the first study rules out costs it much


def test_the_methods_by_hand() -> None:
    one, two = np.array([[0.1, 0.9]]), np.array([[0.4, 0.6]])
    np.testing.assert_allclose(blend_studies([[one, two], [two]], method="arithmetic"), [[0.325, 0.675]], rtol=1e-6)
    unscaled = [(0.1 * 0.4) ** 0.15 * 0.4**0.7, (0.9 * 0.6) ** 0.15 * 0.6**0.7]
    weighted = blend_studies([[one, two], [two]], method="weighted", weights=np.array([0.3, 0.7]))
    np.testing.assert_allclose(weighted, [np.array(unscaled) / sum(unscaled)], rtol=1e-6)
    equal = blend_studies([[one, two], [two]], method="weighted", weights=np.array([0.5, 0.5]))
    mean = gmean([gmean([one, two]), two])
    np.testing.assert_allclose(equal, mean / mean.sum(), rtol=1e-6)


def test_rows_on_demand_are_the_rows_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    members, fold = [study(targets_of(90), 1, i) for i in range(4)], np.arange(90) % 3
    by_fold = np.array([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    for method, arguments in (("geometric", ()), ("arithmetic", ()), ("weighted", (by_fold, fold))):
        blend = Blended([members[:3], members[3:]], method, *arguments)
        whole = blend.fill()
        assert whole.dtype == blend.dtype == np.float32
        assert whole.shape == blend.shape
        np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-6)
        for part in (slice(0, 90), slice(7, 20), slice(80, None), slice(5, 5)):
            assert blend[part].tobytes() == whole[part].tobytes()
        monkeypatch.setattr(row_blocks, "CHUNK_ELEMENTS", N_CLASSES * 11)
        assert blend.fill().tobytes() == whole.tobytes()


def test_what_does_not_fit_is_refused() -> None:
    members = [study(targets_of(5), 1, i) for i in range(2)]
    studies = [[member] for member in members]
    with pytest.raises(ValueError, match="method is 'median', expected one of geometric, arithmetic, weighted"):
        blend_studies(studies, method="median")
    with pytest.raises(ValueError, match="no weights, expected one for each of 2 studies"):
        blend_studies(studies, method="weighted")
    for wrong in ([1.0], [0.5, 0.6], [1.5, -0.5], [np.nan, 1]):
        with pytest.raises(ValueError, match=r"weights are \[.*\], expected 2, none below 0, that sum to 1"):
            blend_studies(studies, method="weighted", weights=np.array(wrong))
