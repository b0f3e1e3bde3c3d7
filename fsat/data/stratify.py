"""Divide clips with any number of labels into folds that are alike: iterative stratification, of whole groups.

Rarest first, the clips of each label and each pair of labels go to the fold that lacks most of them (Sechidis,
Tsoumakas and Vlahavas 2011, "On the stratification of multi-label data"; Szymański and Kajdanowicz 2017, "A network
perspective on stratification of multi-label data"). Published implementations know no groups: here it is the clips of a
group, such as a recording, that go to a fold together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-9  # needs of folds that differ by less are equal


def stratified_folds(targets: np.ndarray, groups: np.ndarray | None, n_folds: int, seed: int) -> np.ndarray:
    """Return the fold of each clip, int64 (n_clips,), from the arguments alone.

    Of equally needy folds for a label or pair, the one is taken that lacks most of the group's other labels, then the
    one that lacks most clips, then a random one. Clips without labels count as a class of their own. In the end, some
    groups of a class that is in one fold only are moved, so that it can be trained on whichever fold is held out. Folds
    may be empty, and a class may still be in one fold only, if there are too few groups.

    Args:
        targets: bool (n_clips, n_classes).
        groups: int (n_clips,), numbered from 0, or None if each clip is on its own.
    """
    units = np.arange(len(targets)) if groups is None else np.asarray(groups)
    state = _Folds.of(np.column_stack([targets, ~targets.any(axis=1)]), units, n_folds, seed)
    while (feature := state.rarest()) is not None:
        for unit in state.units_of(feature):
            state.assign(unit, state.neediest(unit, feature))
    for _ in range(2 * targets.shape[1]):
        if not state.spread():
            break
    return state.fold[units]


@dataclass
class _Folds:
    """Groups, some of which have a fold.

    Attributes:
        fold: int64 (n_groups,), -1 before a group has one.
        n_clips: int64 (n_groups,).
        counts: for each group, its features and the numbers of its clips that have them. The first `n_labels`
            features are labels, which all clips have one of; the others are pairs of labels.
        members: for each feature, the groups that have it, those with most clips first.
        left: int64 (n_features,), clips without a fold.
        needs: float64 (n_features, n_folds), clips that each fold lacks; in the last row, of all clips.
        shares: float64 (n_features,), 1 / clips of the feature.
    """

    fold: np.ndarray
    n_clips: np.ndarray
    counts: list[tuple[np.ndarray, np.ndarray]]
    members: list[np.ndarray]
    left: np.ndarray
    needs: np.ndarray
    shares: np.ndarray
    n_labels: int
    rng: np.random.Generator

    @classmethod
    def of(cls, labels: np.ndarray, units: np.ndarray, n_folds: int, seed: int) -> _Folds:
        """Count the features of each group; `labels` is bool (n_clips, n_labels), and no row is all False."""
        from scipy.sparse import coo_array

        clips, features, n_features = _features(labels)
        n_units = int(units.max(initial=-1)) + 1
        ones = np.ones(len(clips), dtype=np.int64)
        by_unit = coo_array((ones, (units[clips], features)), shape=(n_units, n_features)).tocsr()
        rng = np.random.default_rng(seed)
        order = rng.permutation(n_units)
        by_feature = by_unit[order].tocsc()
        members = []
        for start, stop in zip(by_feature.indptr[:-1], by_feature.indptr[1:], strict=True):
            largest_first = np.argsort(-by_feature.data[start:stop], kind="stable")
            members.append(order[by_feature.indices[start:stop][largest_first]])
        edges = by_unit.indptr[1:-1]
        counts = list(zip(np.split(by_unit.indices, edges), np.split(by_unit.data, edges), strict=True))
        totals = np.bincount(features, minlength=n_features)
        needs = np.append(totals, len(labels))[:, np.newaxis] / n_folds
        fold, n_clips = np.full(n_units, -1, dtype=np.int64), np.bincount(units, minlength=n_units)
        return cls(
            fold, n_clips, counts if n_units else [], members, totals, np.tile(needs, n_folds),
            1 / np.maximum(totals, 1), labels.shape[1], rng,
        )  # fmt: skip

    def rarest(self) -> int | None:
        """Return the feature of which fewest clips are left, and of equal ones a label; None if no clip is left."""
        left = np.where(self.left > 0, self.left, np.iinfo(np.int64).max)
        feature = int(left.argmin()) if len(left) else 0
        return feature if len(left) and self.left[feature] > 0 else None

    def units_of(self, feature: int) -> list[int]:
        """Return the groups with the feature that have no fold."""
        members = self.members[feature]
        return members[self.fold[members] < 0].tolist()  # type: ignore[no-any-return]

    def neediest(self, unit: int, feature: int) -> int:
        """Return the fold that lacks most of the feature."""
        needs = self.needs[feature]
        best = np.flatnonzero(needs > needs.max() - TOLERANCE)
        if len(best) > 1:
            own = self.counts[unit][0]
            own = own[own < self.n_labels]
            needs = self.shares[own] @ self.needs[np.ix_(own, best)]
            best = best[needs > needs.max() - TOLERANCE]
        if len(best) > 1:
            needs = self.needs[-1, best]
            best = best[needs > needs.max() - TOLERANCE]
        return int(best[self.rng.integers(len(best))] if len(best) > 1 else best[0])

    def assign(self, unit: int, fold: int) -> None:
        """Give the group its fold."""
        features, counts = self.counts[unit]
        self.fold[unit] = fold
        self.left[features] -= counts
        self.needs[features, fold] -= counts
        self.needs[-1, fold] -= self.n_clips[unit]

    def spread(self) -> bool:
        """Move a group of a class that is in one fold only to another fold; return False if there is no such class."""
        for feature, members in enumerate(self.members[: self.n_labels - 1]):
            if len(members) > 1 and (self.fold[members] == self.fold[members[0]]).all():
                unit = int(self.rng.choice(members))
                features, counts = self.counts[unit]
                self.needs[features, self.fold[unit]] += counts
                self.needs[-1, self.fold[unit]] += self.n_clips[unit]
                self.assign(unit, self.neediest(unit, feature))
                return True
        return False


def _features(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return each feature of each clip, as two arrays int64 (n,), and the number of features.

    They are the labels, then the pairs of labels that two clips or more have.
    """
    clips, columns = np.nonzero(labels)
    n_labels, n_own = labels.shape[1], labels.sum(axis=1)
    starts = np.cumsum(n_own) - n_own
    pair_clips, pair_codes = [clips[:0]], [columns[:0]]
    for k in np.unique(n_own[n_own > 1]).tolist():
        same = np.flatnonzero(n_own == k)
        own = columns[starts[same, np.newaxis] + np.arange(k)]
        first, second = np.triu_indices(k, 1)
        pair_clips.append(np.repeat(same, len(first)))
        pair_codes.append((own[:, first] * n_labels + own[:, second]).ravel())
    _, pair, counts = np.unique(np.concatenate(pair_codes), return_inverse=True, return_counts=True)
    number = np.cumsum(counts > 1) - 1 + n_labels
    repeated = counts[pair] > 1
    return (
        np.concatenate([clips, np.concatenate(pair_clips)[repeated]]),
        np.concatenate([columns, number[pair[repeated]]]),
        n_labels + int((counts > 1).sum()),
    )
