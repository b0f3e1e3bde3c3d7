"""Blending: the geometric mean where products underflow, studies that count alike, out-of-fold rows, the prior.

Then: that no bit depends on how the rows are cut or on how many threads there are, and that files give what arrays do.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gmean

from fsat.errors import FsatError
from fsat.metrics import row_blocks
from fsat.metrics.blending import OutOfFold, blend_files, blend_studies, geometric_mean, label_prior
from fsat.metrics.ranking import top_k


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
    result = OutOfFold(predictions, [folds == fold for fold in range(3)])[:]
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[:, 0], [0.3, 0.1, 0.2, 0.1, np.nan, 0.3])
    np.testing.assert_array_equal(result[:, 0], result[:, 1])


def test_out_of_fold_refuses_a_clip_held_out_twice() -> None:
    predictions = [np.zeros((3, 2), np.float32)] * 2
    with pytest.raises(ValueError, match="clip 1 was held out by two members"):
        OutOfFold(predictions, [np.array([True, True, False]), np.array([False, True, True])])


def test_label_prior_is_how_often_each_class_occurs() -> None:
    prior = label_prior(np.array([0, 2, 2, 2, 0]), 4)
    assert prior.dtype == np.float32
    np.testing.assert_allclose(prior, [0.4, 0, 0.6, 0])


# --- many rows -------------------------------------------------------------------------------------

CUTS = [(1 << 17, 1), (1 << 17, 4), (41, 1), (41 * 7, 3), (41 * 64, 2), (41 * 1000, 8), (1, 2)]
"""Elements a chunk (1 and 41 are one row), and threads."""


def hard_members(count: int, n_clips: int, n_classes: int = 41, seed: int = 0) -> list[np.ndarray]:
    """Predictions from flat to certain, with zeros, numbers below float32's smallest, and rows of zeros."""
    rng = np.random.default_rng(seed)
    given = []
    for _ in range(count):
        logits = rng.standard_normal((n_clips, n_classes)) * rng.choice([0.1, 3, 40], (n_clips, 1))
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
        scores[rng.random(scores.shape) < 0.02] = 0
        scores[rng.random(scores.shape) < 0.01] = 1e-40
        given.append(scores)
    for scores in given:
        scores[n_clips // 2] = 0
    return given


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


@pytest.mark.parametrize("count", [1, 7, 8, 9, 12, 17])
def test_many_members_of_zeros_and_certainties_agree_with_log_space(count: int) -> None:
    given = hard_members(count, 1500)
    assert (np.prod(np.stack(given).astype(np.float64), axis=0) == 0).any()
    result, expected = geometric_mean(given), in_log_space([given])
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-37)
    np.testing.assert_array_equal(top_k(result), top_k(expected.astype(np.float32)))
    np.testing.assert_allclose(result[750], 1 / 41, rtol=1e-6)


def test_studies_of_zeros_and_certainties_agree_with_log_space() -> None:
    given = hard_members(14, 1500, seed=3)
    studies = [given[:10], given[10:11], given[11:]]
    np.testing.assert_allclose(blend_studies(studies), in_log_space(studies), rtol=1e-6, atol=1e-37)


def test_twelve_members_at_the_smallest_number() -> None:
    """Eight of them multiply to 4e-304; float64 holds no product of nine."""
    tiny = np.float32(np.finfo(np.float32).tiny)
    one = np.array([[tiny, tiny * 2, tiny * 4, 0]], dtype=np.float32)
    np.testing.assert_allclose(geometric_mean([one] * 12), [[1 / 8, 2 / 8, 4 / 8, 1 / 8]], rtol=1e-6)


@pytest.mark.parametrize(("elements", "threads"), CUTS)
def test_no_bit_depends_on_chunks_or_threads(elements: int, threads: int, monkeypatch, tmp_path: Path) -> None:
    given = hard_members(10, 1237, seed=1)
    fold = np.random.default_rng(0).integers(-1, 10, 1237)
    masks = [fold == i for i in range(10)]
    for i, scores in enumerate(given):
        np.save(tmp_path / f"{i}.npy", scores)
    maps = [row_blocks.open_rows(tmp_path / f"{i}.npy") for i in range(10)]
    cut(monkeypatch, 10**9, 1)
    best = np.empty((1237, 3), np.int32)
    expected = geometric_mean(given, best=best)
    studies, oof = blend_studies([given[:7], given[7:]]), OutOfFold(given, masks)[:]
    np.testing.assert_array_equal(best, top_k(expected))
    np.testing.assert_array_equal(oof[fold >= 0], np.stack(given)[fold, np.arange(1237)][fold >= 0])

    cut(monkeypatch, elements, threads)
    out = row_blocks.create_rows(tmp_path / "out.npy", (1237, 41))
    ranking = row_blocks.create_rows(tmp_path / "best.npy", (1237, 3), np.int32)
    assert geometric_mean(maps, out, ranking) is out
    assert np.load(tmp_path / "out.npy").tobytes() == expected.tobytes()
    assert np.load(tmp_path / "best.npy").tobytes() == best.tobytes()
    assert geometric_mean(given).tobytes() == expected.tobytes()
    assert geometric_mean([scores.astype(np.float64) for scores in maps]).tobytes() == expected.tobytes()
    assert blend_studies([maps[:7], maps[7:]]).tobytes() == studies.tobytes()
    assert OutOfFold(maps, masks)[:].tobytes() == oof.tobytes()
    blend_files([tmp_path / f"{i}.npy" for i in range(10)], tmp_path / "files.npy", tmp_path / "three.npy")
    assert (tmp_path / "files.npy").read_bytes() == (tmp_path / "out.npy").read_bytes()
    assert (tmp_path / "three.npy").read_bytes() == (tmp_path / "best.npy").read_bytes()


def test_rows_without_a_prediction_stay_without() -> None:
    given = members(4, n_clips=9)
    fold = np.array([0, 1, 0, 1, 7, 0, 1, 7, 0])
    whole = OutOfFold(given[:2], [fold == 0, fold == 1])
    other = OutOfFold(given[2:], [fold <= 1, fold == 7])
    result = geometric_mean([whole, other])
    assert np.isnan(result).all(axis=1).tolist() == (fold == 7).tolist()
    taken = np.where((fold == 0)[:, np.newaxis], given[0], given[1])[fold < 7]
    np.testing.assert_allclose(result[fold < 7], geometric_mean([taken, given[2][fold < 7]]), rtol=1e-6)


def test_what_is_to_be_filled_must_fit() -> None:
    with pytest.raises(ValueError, match=r"out has shape \(7, 5\), expected \(8, 5\)"):
        geometric_mean(members(2), np.empty((7, 5), np.float32))
    with pytest.raises(ValueError, match=r"best has shape \(9, 3\)"):
        geometric_mean(members(2), best=np.empty((9, 3), np.int32))
    with pytest.raises(ValueError, match="nothing to blend in one"):
        blend_studies([members(2), []])


def test_files_of_different_shape_leave_no_result(tmp_path: Path) -> None:
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path, clips in zip(paths, (8, 9), strict=True):
        np.save(path, members(1, n_clips=clips)[0])
    with pytest.raises(ValueError, match=r"\(8, 5\) and \(9, 5\)"):
        blend_files(paths, tmp_path / "out.npy")
    with pytest.raises(ValueError, match="nothing to blend"):
        blend_files([], tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


def test_files_without_clips(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.empty((0, 5), np.float32))
    blend_files([tmp_path / "a.npy"] * 2, tmp_path / "out.npy", tmp_path / "best.npy")
    assert np.load(tmp_path / "out.npy").shape == (0, 5)
    assert np.load(tmp_path / "best.npy").shape == (0, 3)


def test_an_error_in_one_thread_ends_the_others_and_is_raised(monkeypatch) -> None:
    cut(monkeypatch, 10, 4)
    seen, first = [], threading.Event()

    def work(todo: row_blocks.Ranges) -> None:
        for start, _ in todo:
            if start == 0:
                first.set()
                raise RuntimeError("no more")
            first.wait(5)
            seen.append(start)
            threading.Event().wait(0.001)

    with pytest.raises(RuntimeError, match="no more"):
        row_blocks.in_threads(100_000, 10, work)
    assert len(seen) < 50_000


def test_releasing_keeps_what_was_written(tmp_path: Path) -> None:
    made = row_blocks.create_rows(tmp_path / "made.npy", (3000, 41))
    made[:] = np.arange(3000)[:, np.newaxis]
    row_blocks.release(made[100:2000])
    row_blocks.release(made[::-1])
    assert (made[:, 7] == np.arange(3000)).all()
    assert (np.load(tmp_path / "made.npy")[:, 40] == np.arange(3000)).all()
    private = np.load(tmp_path / "made.npy", mmap_mode="c")
    private[:] = -1  # is in memory alone
    row_blocks.release(private[100:2000])
    assert (private == -1).all()
    row_blocks.release(np.ones((4, 4)))


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(row_blocks.os, "posix_fallocate", full)
    with pytest.raises(FsatError, match=r"out\.npy: cannot be written: No space left .* 0 MB.*TMPDIR"):
        row_blocks.create_rows(tmp_path / "out.npy", (10, 4))
