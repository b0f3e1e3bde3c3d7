"""Blending the predictions of several members.

Conventions: a prediction is float32 (n_clips, n_classes), its rows sum to 1. A blend is made of studies, each a list of
members; `fsat.presets.BLENDS` names the methods. Geometric means are taken in log space, because the product of ten
float32 probabilities underflows to 0. A row that is NaN for one member is NaN in the blend, whatever that member
weighs. Everything goes through the clips a few rows at a time (`fsat.metrics.row_blocks`), so members that are memory
maps are blended in memory that does not grow with the clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fsat.metrics.ranking import TOP_K, top_k
from fsat.metrics.row_blocks import Ranges, Rows, as_rows, create_rows, in_threads, open_rows, release
from fsat.presets import BLENDS

TINY = float(np.finfo(np.float32).tiny)
"""What a probability of 0 counts as, so that one member alone cannot rule out a class for ever."""

FACTORS = 8
"""Members that are multiplied before a logarithm is taken: TINY ** 8 is 4e-304, which float64 still holds."""


def geometric_mean(
    predictions: Iterable[np.ndarray | Rows], out: np.ndarray | None = None, best: np.ndarray | None = None
) -> np.ndarray:
    """Geometric mean of the members' probabilities, scaled so that rows sum to 1.

    Args:
        predictions: one (n_clips, n_classes) array a member, all of one shape. A row with a NaN makes a row of NaN.
        out: float32 (n_clips, n_classes) to write the result to, perhaps a memory map; by default a new array.
        best: int (n_clips, k), to be filled with the k most likely classes of each clip, as by `top_k`.

    Returns:
        float32 (n_clips, n_classes); rows sum to 1. It is `out` if that is given.

    Raises:
        ValueError: there are no members or their shapes differ.
    """
    return blend_studies([list(predictions)], out, best)


def blend_studies(
    studies: Sequence[Sequence[np.ndarray | Rows]],
    out: np.ndarray | None = None,
    best: np.ndarray | None = None,
    method: str = "geometric",
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Blend the members of each study, then the studies; see `Blended`.

    Args:
        studies, method, weights: as for `Blended`.
        out, best: to be filled, as by `geometric_mean`.

    Returns:
        float32 (n_clips, n_classes); rows sum to 1.

    Raises:
        ValueError: as for `Blended`.
    """
    return Blended(studies, method, weights).fill(out, best)


def blend_files(members: Sequence[Path], out: Path, best: Path | None = None, k: int = TOP_K) -> None:
    """Blend .npy files into a .npy file, by memory map, a few rows at a time.

    Args:
        members: one .npy file (n_clips, n_classes) a member.
        out: is made: float32 (n_clips, n_classes).
        best: is made, if it is given: int32 (n_clips, k), the `k` most likely classes of each clip, best first.
        k: how many; all classes if there are fewer.

    Raises:
        ValueError: there are no members, their shapes differ, or a file is no .npy file.
        FsatError: the disk has no room for the results.
    """
    maps = [open_rows(path) for path in members]
    n_clips, n_classes = common_shape(maps)
    ranking = None if best is None else create_rows(best, (n_clips, min(k, n_classes)), np.int32)
    geometric_mean(maps, create_rows(out, (n_clips, n_classes)), ranking)


def common_shape(members: Sequence[np.ndarray | Rows]) -> tuple[int, int]:
    """The members' shape (n_clips, n_classes); `ValueError` if there are no members or their shapes differ."""
    if not members:
        raise ValueError("there is nothing to blend")
    first = members[0].shape
    for member in members:
        if member.shape != first:
            raise ValueError(f"members differ in shape: {first} and {member.shape}")
    if len(first) != 2:
        raise ValueError(f"members have shape {first}, expected (n_clips, n_classes)")
    return first


class Blended:
    """`Rows` of a blend of studies: rows are computed when they are asked for, and not kept.

    ``geometric`` is the geometric mean of the studies' geometric means, so that each study counts alike whatever its
    folds: scaling the latter's rows would cancel out. ``arithmetic`` is the mean of the studies' means. ``weighted`` is
    the weighted geometric mean of the studies' geometric means, the logarithmic opinion pool of Genest and Zidek
    (1986).

    Attributes:
        shape: (n_clips, n_classes).
        dtype: float32.

    Args:
        studies: for each study its members' (n_clips, n_classes) arrays.
        method: one of `BLENDS`.
        weights: for ``weighted``: float (n_studies,), none below 0, sum 1; or, with `fold`, such a row a fold.
        fold: int (n_clips,), the row of `weights` that holds for each clip.

    Raises:
        ValueError: there are no members, their shapes differ, there is no such method, or the weights do not fit.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        studies: Sequence[Sequence[np.ndarray | Rows]],
        method: str = "geometric",
        weights: np.ndarray | None = None,
        fold: np.ndarray | None = None,
    ) -> None:
        self._studies = [[as_rows(member) for member in members] for members in studies]
        members = [member for study in self._studies for member in study]
        self.shape = common_shape(members)
        if not all(self._studies):
            raise ValueError("there is nothing to blend in one of the studies")
        if method not in BLENDS:
            raise ValueError(f"method is {method!r}, expected one of {', '.join(BLENDS)}")
        if method == "weighted" and weights is None:
            raise ValueError(f"there are no weights, expected one for each of {len(self._studies)} studies")
        self._divisors = _divisors([len(study) for study in self._studies], weights if method == "weighted" else None)
        self._in_logs = method != "arithmetic"
        self._fold = fold
        self._single = all(getattr(member, "dtype", None) == np.float32 for member in members)

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        return self._block(start, stop, self._scratch(max(0, stop - start)))

    def fill(self, out: np.ndarray | None = None, best: np.ndarray | None = None) -> np.ndarray:
        """All rows, in `out`, and the most likely classes in `best`, as by `geometric_mean`."""
        if out is None:
            out = np.empty(self.shape, dtype=np.float32)
        for name, array, expected in (("out", out, self.shape), ("best", best, self.shape[:1])):
            if array is not None and array.shape[: len(expected)] != expected:
                raise ValueError(f"{name} has shape {array.shape}, expected {expected}")

        def work(todo: Ranges) -> None:
            scratch = self._scratch(min(todo.step, todo.n_rows))
            for start, stop in todo:
                part = self._block(start, stop, scratch)
                out[start:stop] = part
                release(out[start:stop])
                if best is not None:
                    best[start:stop] = top_k(part, best.shape[1])
                    release(best[start:stop])

        in_threads(*self.shape, work)
        return out

    def _scratch(self, n_rows: int) -> tuple[np.ndarray, ...]:
        """Arrays for what `_block` computes of so many rows at most."""
        chunk = (n_rows, self.shape[1])
        kinds = (np.float64, np.float64, np.float32 if self._single else np.float64, np.float32)
        return tuple(np.empty(chunk, kind) for kind in kinds)

    def _block(self, start: int, stop: int, scratch: tuple[np.ndarray, ...]) -> np.ndarray:
        """The rows from `start` to `stop`; they lie in `scratch`."""
        total, product, clamped, result = (buffer[: stop - start] for buffer in scratch)
        total.fill(0)
        for s, study in enumerate(self._studies):
            divisor = self._divisors[..., s] if self._fold is None else self._divisors[self._fold[start:stop], s, None]
            for i, member in enumerate(study):
                rows = member[start:stop]
                np.maximum(rows, TINY, out=clamped, dtype=clamped.dtype)
                release(rows)
                if not self._in_logs:
                    total += np.divide(clamped, divisor, out=product)
                    continue
                if i % FACTORS == 0:
                    np.copyto(product, clamped)
                else:
                    np.multiply(product, clamped, out=product)
                if i % FACTORS == FACTORS - 1 or i == len(study) - 1:
                    np.log(product, out=product)
                    product /= divisor
                    total += product
        if self._in_logs:
            np.exp(total, out=total)  # no less than TINY, so no row sums to 0
        return np.divide(total, total.sum(axis=1, keepdims=True), out=result, casting="same_kind")


def _divisors(sizes: Sequence[int], weights: np.ndarray | None) -> np.ndarray:
    """What the sum over the members of each study, of `sizes`, is divided by: its size by its weight.

    Returns:
        float64 (n_studies,), or a row for each row of `weights`; infinite where a weight is 0, so that finite numbers
        count for nothing and NaN stays NaN.
    """
    if weights is None:  # a whole number, which 1 / weight need not be
        return np.array(sizes, dtype=np.float64) * len(sizes)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape[-1:] != (len(sizes),) or (weights < 0).any() or not np.allclose(weights.sum(axis=-1), 1):
        raise ValueError(f"weights are {weights.tolist()}, expected {len(sizes)}, none below 0, that sum to 1")
    with np.errstate(divide="ignore"):
        return np.array(sizes, dtype=np.float64) / weights


class OutOfFold:
    """`Rows` of a study's out-of-fold predictions: for each clip the prediction of the member that held it out.

    Rows are NaN for clips that no member held out. The members' arrays are looked at only as rows are asked for.

    Attributes:
        shape: (n_clips, n_classes).
        dtype: float32.
        owner: int32 (n_clips,), the number of the member that held the clip out, -1 if there is none.

    Args:
        predictions: per member (n_clips, n_classes).
        held_out: per member bool (n_clips,), true where the member's fold held the clip out.

    Raises:
        ValueError: two members held out the same clip, or there are no members, or their shapes differ.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, predictions: Sequence[np.ndarray], held_out: Sequence[np.ndarray]) -> None:
        self.shape = common_shape(predictions)
        self._predictions = list(predictions)
        self.owner = np.full(self.shape[0], -1, dtype=np.int32)
        for i, (_, mask) in enumerate(zip(predictions, held_out, strict=True)):
            twice = mask & (self.owner >= 0)
            if twice.any():
                raise ValueError(f"clip {int(np.argmax(twice))} was held out by two members")
            self.owner[mask] = i

    def __getitem__(self, rows: slice) -> np.ndarray:
        owner = self.owner[rows]
        result = np.full((len(owner), self.shape[1]), np.nan, dtype=np.float32)
        for i in np.unique(owner[owner >= 0]):
            mask, part = owner == i, self._predictions[i][rows]
            result[mask] = part[mask]
            release(part)
        return result


def label_prior(targets: np.ndarray, n_classes: int) -> np.ndarray:
    """How often each class occurs: float32 (n_classes,), sums to 1."""
    counts = np.bincount(np.asarray(targets), minlength=n_classes).astype(np.float64)
    return (counts / counts.sum()).astype(np.float32)
