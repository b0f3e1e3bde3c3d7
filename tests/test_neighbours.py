"""Pairs of similar vectors, in blocks, against all of them at once."""

import numpy as np
import pytest

from fsat.metrics import neighbours
from fsat.metrics.neighbours import cosine, similar_pairs


@pytest.fixture
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 5))
    rows = centres[rng.integers(0, 6, 50)] + 0.05 * rng.normal(size=(50, 5))
    rows[[7, 30]] = 0
    return (rows * rng.uniform(0.1, 10, (50, 1))).astype(np.float32)


def all_pairs(vectors: np.ndarray, threshold: float, groups: np.ndarray) -> dict[tuple[int, int], float]:
    pairs = {(i, j): cosine(vectors[i], vectors[j]) for i in range(len(vectors)) for j in range(i + 1, len(vectors))}
    return {(i, j): value for (i, j), value in pairs.items() if value >= threshold and groups[i] != groups[j]}


@pytest.mark.parametrize("shape", [(512, 4096), (7, 11), (16, 5), (1, 50)])
def test_pairs_do_not_depend_on_the_blocks(vectors, shape, monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", shape[0])
    monkeypatch.setattr(neighbours, "COLUMNS", shape[1])
    groups, n_done = np.arange(50) // 2, []
    expected = all_pairs(vectors, 0.99, groups)
    found = similar_pairs(vectors, 0.99, 1000, groups, n_done.append)
    assert found.total == len(expected) > 50
    values = dict(zip(zip(found.first.tolist(), found.second.tolist(), strict=True), found.similarity, strict=True))
    assert values == pytest.approx(expected, abs=1e-5)
    assert (np.diff(found.similarity) <= 0).all()
    assert sum(n_done) == 50
    best = similar_pairs(vectors, 0.99, 10, groups)
    assert best.total == found.total
    np.testing.assert_array_equal(best.first, found.first[:10])
    np.testing.assert_array_equal(best.second, found.second[:10])


def test_nothing_is_similar_to_zeros_and_no_vectors_have_no_pairs():
    assert similar_pairs(np.zeros((3, 2), np.float32), 0.5, 10).total == 0
    assert similar_pairs(np.zeros((0, 2), np.float32), 0.5, 10).total == 0
    assert cosine(np.zeros(2), np.ones(2)) == 0
    assert cosine(np.ones(3), 5 * np.ones(3)) == 1
