"""Vectors that point in about the same direction: cosine similarity, and all pairs above a threshold.

Conventions: vectors are rows, float (n, size). The cosine of a vector of zeros with any other is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ROWS, COLUMNS = 512, 4096
"""Shape of the blocks of the matrix of similarities, of which one is in memory: 8 MiB."""


class Pairs(NamedTuple):
    """Pairs of similar rows, most similar first.

    `first` < `second` are their indices, int64 (m,), `similarity` their cosine, float32 (m,), and `total` the number of
    pairs above the threshold, of which these are the most similar.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    total: int


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Return the cosine of the angle between two vectors, float (size,), in [-1, 1]."""
    norm = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(np.clip(np.dot(one, other) / norm, -1, 1)) if norm else 0.0


def similar_pairs(
    vectors: np.ndarray,
    threshold: float,
    limit: int,
    groups: np.ndarray | None = None,
    done: Callable[[int], object] = lambda n_rows: None,
) -> Pairs:
    """Return the pairs of rows whose cosine is at least a threshold, computed in blocks.

    Args:
        vectors: float32 (n, size).
        threshold: in (0, 1].
        limit: maximum number of pairs to return, the most similar ones.
        groups: int (n,); pairs of rows with the same number are left out.
        done: called with the number of rows after each block of rows.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    norms[norms == 0] = 1
    groups = np.arange(len(vectors)) if groups is None else groups
    none = np.empty(0, np.int64)
    kept, total = Pairs(none, none, np.empty(0, np.float32), 0), 0
    for top in range(0, len(vectors), ROWS):
        rows = vectors[top : top + ROWS] / norms[top : top + ROWS, np.newaxis]
        for left in range(top, len(vectors), COLUMNS):
            similarity = rows @ vectors[left : left + COLUMNS].T / norms[left : left + COLUMNS]
            first, second = np.nonzero(similarity >= threshold)
            values = np.minimum(similarity[first, second], 1)
            first, second = first + top, second + left
            valid = (first < second) & (groups[first] != groups[second])
            total += int(valid.sum())
            kept = _most_similar(kept, first[valid], second[valid], values[valid], limit)
        done(len(rows))
    return kept._replace(total=total)


def _most_similar(kept: Pairs, first: np.ndarray, second: np.ndarray, similarity: np.ndarray, limit: int) -> Pairs:
    """Return the most similar of the pairs so far and more; of equal ones, those that come first."""
    if not len(first):
        return kept
    first, second = np.append(kept.first, first), np.append(kept.second, second)
    similarity = np.append(kept.similarity, similarity)
    order = np.lexsort([second, first, -similarity])[:limit]
    return Pairs(first[order], second[order], similarity[order], 0)
