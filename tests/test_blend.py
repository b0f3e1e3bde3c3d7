"""Blending: the geometric mean where products underflow, studies that count alike, out-of-fold rows, the prior."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gmean

from fsat.scoring.blend import blend_studies, geometric_mean, label_prior, out_of_fold
from fsat.scoring.metrics import top_k


def members(count: int, n_clips: int = 8, n_classes: int = 5, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(n_classes), n_clips).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_equals_scipys_geometric_mean_with_rows_scaled_to_one(count: int) -> None:
    given = members(count)
    expected = gmean(np.stack(given).astype(np.float64), axis=0)
    expected /= expected.sum(axis=1, keepdims=True)
    result = geometric_mean(given)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-6)


def test_by_hand() -> None:
    # sqrt(0.1 * 0.4) = 0.2 and sqrt(0.9 * 0.6) = 0.7348
    result = geometric_mean([np.array([[0.1, 0.9]]), np.array([[0.4, 0.6]])])
    np.testing.assert_allclose(result, [[0.2 / (0.2 + 0.54**0.5), 0.54**0.5 / (0.2 + 0.54**0.5)]], rtol=1e-6)


def test_ten_members_at_1e_30_still_rank() -> None:
    """The notebook's product of ten such float32 numbers is 0 for every class."""
    one = np.array([[1e-30, 3e-30, 2e-30, 1.0]], dtype=np.float32)
    assert (np.prod(np.stack([one] * 10), axis=0)[0, :3] == 0).all()
    result = geometric_mean([one] * 10)
    assert top_k(result, 4).tolist() == [[3, 1, 2, 0]]
    np.testing.assert_allclose(result[0, :3], [1e-30, 3e-30, 2e-30], rtol=1e-4)


def test_rows_without_any_likely_class_still_rank() -> None:
    rng = np.random.default_rng(1)
    exponents = rng.uniform(-37, -25, (10, 4, 6))
    given = [(10.0**e).astype(np.float32) for e in exponents]
    result = geometric_mean(given)
    for i in range(4):
        assert top_k(result, 6)[i].tolist() == sorted(range(6), key=lambda j: -exponents[:, i, j].sum())
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-6)


def test_a_zero_of_one_member_weighs_much_but_does_not_end_all() -> None:
    one = np.array([[0.0, 0.5, 0.5]], dtype=np.float32)
    other = np.array([[0.6, 0.4, 0.0]], dtype=np.float32)
    result = geometric_mean([one, other])
    assert np.isfinite(result).all()
    assert top_k(result).tolist() == [[1, 0, 2]]  # 0.2, 0.6 * tiny, 0.5 * tiny
    assert result[0, 1] > 0.999


def test_only_zeros_give_equal_rows() -> None:
    np.testing.assert_allclose(geometric_mean([np.zeros((2, 4), np.float32)] * 3), np.full((2, 4), 0.25))


def test_members_may_come_one_at_a_time_and_are_left_alone() -> None:
    given = members(3)
    copies = [member.copy() for member in given]
    np.testing.assert_array_equal(geometric_mean(iter(given)), geometric_mean(given))
    for member, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(member, copy)


def test_order_does_not_matter() -> None:
    given = members(5)
    np.testing.assert_allclose(geometric_mean(given), geometric_mean(given[::-1]), rtol=1e-6)


def test_no_clips() -> None:
    assert geometric_mean([np.empty((0, 3), np.float32)] * 2).shape == (0, 3)


def test_nothing_to_blend() -> None:
    with pytest.raises(ValueError, match="nothing to blend"):
        geometric_mean([])


def test_members_of_different_shape() -> None:
    with pytest.raises(ValueError, match=r"\(8, 5\) and \(8, 4\)"):
        geometric_mean([*members(1), *members(1, n_classes=4)])


def test_each_study_counts_alike() -> None:
    ten, two = members(10, seed=1), members(2, seed=2)

    def mean(arrays: list[np.ndarray]) -> np.ndarray:
        return gmean(np.stack(arrays).astype(np.float64), axis=0)

    expected = np.sqrt(mean(ten) * mean(two))
    expected /= expected.sum(axis=1, keepdims=True)
    result = blend_studies([ten, two])
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert np.abs(result - geometric_mean(ten + two)).max() > 0.01  # all twelve alike would be another thing


def test_a_study_twice_is_that_study() -> None:
    given = members(4)
    np.testing.assert_allclose(blend_studies([given, given]), geometric_mean(given), rtol=1e-5)
    np.testing.assert_allclose(blend_studies([given]), geometric_mean(given), rtol=1e-5)


def test_out_of_fold_takes_the_row_of_the_member_that_held_the_clip_out() -> None:
    predictions = [np.full((6, 2), fill, dtype=np.float32) for fill in (0.1, 0.2, 0.3)]
    folds = np.array([2, 0, 1, 0, 9, 2])  # no member held clip 4 out
    result = out_of_fold(predictions, [folds == fold for fold in range(3)])
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[:, 0], [0.3, 0.1, 0.2, 0.1, np.nan, 0.3])
    np.testing.assert_array_equal(result[:, 0], result[:, 1])


def test_out_of_fold_refuses_a_clip_held_out_twice() -> None:
    predictions = [np.zeros((3, 2), np.float32)] * 2
    with pytest.raises(ValueError, match="clip 1 was held out by two members"):
        out_of_fold(predictions, [np.array([True, True, False]), np.array([False, True, True])])


def test_label_prior_is_how_often_each_class_occurs() -> None:
    prior = label_prior(np.array([0, 2, 2, 2, 0]), 4)
    assert prior.dtype == np.float32
    np.testing.assert_allclose(prior, [0.4, 0, 0.6, 0])
