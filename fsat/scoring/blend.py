"""Blending the predictions of several members.

Conventions: a prediction is float32 (n_clips, n_classes), its rows sum to 1. The geometric mean is taken in log space,
because the product of ten float32 probabilities underflows to 0. Everything goes through the clips a few rows at a
time (`fsat.scoring.rows`), so members that are memory maps are blended in memory that does not grow with the clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fsat.scoring.metrics import TOP_K, top_k
from fsat.scoring.rows import Ranges, Rows, as_rows, create_rows, in_threads, open_rows, release

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
    studies: Sequence[Sequence[np.ndarray | Rows]], out: np.ndarray | None = None, best: np.ndarray | None = None
) -> np.ndarray:
    """Blend the members of each study, then the studies, so that each study counts alike whatever its folds.

    It is the geometric mean of the studies' geometric means: scaling the latter's rows would cancel out.

    Args:
        studies: for each study its members' (n_clips, n_classes) arrays.
        out, best: to be filled, as by `geometric_mean`.

    Returns:
        float32 (n_clips, n_classes); rows sum to 1.

    Raises:
        ValueError: there are no members or their shapes differ.
    """
    studies = [[as_rows(member) for member in members] for members in studies]
    shape = common_shape([member for members in studies for member in members])
    if not all(studies):
        raise ValueError("there is nothing to blend in one of the studies")
    if out is None:
        out = np.empty(shape, dtype=np.float32)
    for name, array, expected in (("out", out, shape), ("best", best, shape[:1])):
        if array is not None and array.shape[: len(expected)] != expected:
            raise ValueError(f"{name} has shape {array.shape}, expected {expected}")

    def work(todo: Ranges) -> None:
        _blend_rows(studies, todo, out, best)

    in_threads(*shape, work)
    return out


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


def _blend_rows(studies: Sequence[Sequence[Rows]], todo: Ranges, out: np.ndarray, best: np.ndarray | None) -> None:
    """What one thread does: `todo`'s rows of `out` and `best`, with scratch arrays for one chunk."""
    members = [member for study in studies for member in study]
    single = all(getattr(member, "dtype", None) == np.float32 for member in members)
    chunk = (min(todo.step, todo.n_rows), out.shape[1])
    buffers = np.empty(chunk), np.empty(chunk), np.empty(chunk, np.float32 if single else np.float64)
    result = np.empty(chunk, np.float32)
    for start, stop in todo:
        total, product, clamped = (buffer[: stop - start] for buffer in buffers)
        total.fill(0)
        for study in studies:
            for i, member in enumerate(study):
                rows = member[start:stop]
                np.maximum(rows, TINY, out=clamped, dtype=clamped.dtype)
                release(rows)
                if i % FACTORS == 0:
                    np.copyto(product, clamped)
                else:
                    np.multiply(product, clamped, out=product)
                if i % FACTORS == FACTORS - 1 or i == len(study) - 1:
                    np.log(product, out=product)
                    product /= len(studies) * len(study)
                    total += product
        np.exp(total, out=total)  # no less than TINY, so no row sums to 0
        part = np.divide(total, total.sum(axis=1, keepdims=True), out=result[: stop - start], casting="same_kind")
        out[start:stop] = part
        release(out[start:stop])
        if best is not None:
            best[start:stop] = top_k(part, best.shape[1])
            release(best[start:stop])


class OutOfFold:
    """`Rows` of a study's out-of-fold predictions: for each clip the prediction of the member that held it out.

    Rows are NaN for clips that no member held out. The members' arrays are looked at only as rows are asked for.

    Attributes:
        shape: (n_clips, n_classes).
        dtype: float32.

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
        self._owner = np.full(self.shape[0], -1, dtype=np.int32)
        for i, (_, mask) in enumerate(zip(predictions, held_out, strict=True)):
            twice = mask & (self._owner >= 0)
            if twice.any():
                raise ValueError(f"clip {int(np.argmax(twice))} was held out by two members")
            self._owner[mask] = i

    def __getitem__(self, rows: slice) -> np.ndarray:
        owner = self._owner[rows]
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
