"""Blend the predictions of several members, and fit the weights of a blend.

Conventions: a prediction is float32 (n_clips, n_classes), its rows sum to 1. A blend is made of studies, each a list of
members; `fsat.model_presets.BLENDS` names the methods. Geometric means are taken in log space, because the product of
ten float32 probabilities underflows to 0. A row that is NaN for one member is NaN in the blend, whatever the member's
weight. Predictions are read in blocks of rows (`fsat.metrics.row_blocks`), so that members that are memory maps are
blended in memory that does not grow with the clips.

Weights are float64 (n_studies,), at least 0, with sum 1. They minimise the log loss of the studies' weighted geometric
mean, scaled so that rows sum to 1. That loss is convex in the weights: it is a mean of logarithms of sums of
exponentials of linear functions (Boyd and Vandenberghe 2004, section 3.1.5). A blend must not be scored on the clips
that its weights were fitted on: `cross_fit` gives each fold weights that were fitted on the clips of the other folds,
as in the stacking of Wolpert (1992).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fsat.metrics.ranking import top_k
from fsat.metrics.row_blocks import Ranges, Scores, as_rows, in_threads, iter_blocks, release
from fsat.model_presets import BLENDS

TINY = float(np.finfo(np.float32).tiny)  # smallest probability used, so that one member alone cannot rule out a class
FACTORS = 8  # members multiplied before a logarithm is taken: TINY ** 8 is 4e-304, which float64 still holds
FEWEST_VERIFIED = 50  # weights are fitted on verified clips alone if every fit has at least this many
MOST_CLIPS = 50_000  # maximum number of clips that weights are fitted on, which bounds the memory
DIGITS = 4  # decimals of a weight


def common_shape(members: Sequence[Scores]) -> tuple[int, int]:
    """Return the members' shape (n_clips, n_classes); raise ValueError if there are none or their shapes differ."""
    if not members:
        raise ValueError("there is nothing to blend")
    shape = members[0].shape
    for member in members:
        if member.shape != shape:
            raise ValueError(f"members differ in shape: {shape} and {member.shape}")
    if len(shape) != 2:
        raise ValueError(f"members have shape {shape}, expected (n_clips, n_classes)")
    return shape[0], shape[1]


class Blended:
    """`Rows` of a blend of studies, computed when they are sliced.

    ``geometric`` is the geometric mean of the studies' geometric means, so that each study counts alike whatever its
    number of folds. ``arithmetic`` is the mean of the studies' means. ``weighted`` is the weighted geometric mean of
    the studies' geometric means, the logarithmic opinion pool of Genest and Zidek (1986).

    Args:
        studies: for each study its members' (n_clips, n_classes) arrays; ValueError if there are none or they differ.
        method: one of `BLENDS`.
        weights: for ``weighted``: float (n_studies,), at least 0, with sum 1; or, with `fold`, one such row per fold.
        fold: int (n_clips,), the row of `weights` for each clip.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        studies: Sequence[Sequence[Scores]],
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
        """Compute all rows, each with sum 1, and return `out`.

        Args:
            out: float32 (n_clips, n_classes) to write the rows to, possibly a memory map; a new array by default.
            best: int (n_clips, k), to be filled with the k most likely classes of each clip, as by `top_k`.
        """
        result = np.empty(self.shape, dtype=np.float32) if out is None else out
        for name, array, expected in (("out", result, self.shape), ("best", best, self.shape[:1])):
            if array is not None and array.shape[: len(expected)] != expected:
                raise ValueError(f"{name} has shape {array.shape}, expected {expected}")

        def work(row_ranges: Ranges) -> None:
            scratch = self._scratch(min(row_ranges.step, row_ranges.n_rows))
            for start, stop in row_ranges:
                block = self._block(start, stop, scratch)
                result[start:stop] = block
                release(result[start:stop])
                if best is not None:
                    best[start:stop] = top_k(block, best.shape[1])
                    release(best[start:stop])

        in_threads(*self.shape, work)
        return result

    def _scratch(self, n_rows: int) -> tuple[np.ndarray, ...]:
        """Allocate the arrays that `_block` computes up to `n_rows` rows in."""
        dtypes = (np.float64, np.float64, np.float32 if self._single else np.float64, np.float32)
        return tuple(np.empty((n_rows, self.shape[1]), dtype) for dtype in dtypes)

    def _block(self, start: int, stop: int, scratch: tuple[np.ndarray, ...]) -> np.ndarray:
        """Compute the rows from `start` to `stop`; the result is a view of `scratch`."""
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
            np.exp(total, out=total)  # at least TINY, so no row sums to 0
        np.divide(total, total.sum(axis=1, keepdims=True), out=result, casting="same_kind")
        return result


def _divisors(sizes: Sequence[int], weights: np.ndarray | None) -> np.ndarray:
    """Return the number of members by the weight of each study, float64 (n_studies,), or such a row per row of weights.

    It is infinite where a weight is 0, so that finite numbers count for nothing and NaN stays NaN.
    """
    if weights is None:  # a whole number, which 1 / weight need not be
        return np.array(sizes, dtype=np.float64) * len(sizes)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape[-1:] != (len(sizes),) or (weights < 0).any() or not np.allclose(weights.sum(axis=-1), 1):
        raise ValueError(f"weights are {weights.tolist()}, expected {len(sizes)}, none below 0, that sum to 1")
    with np.errstate(divide="ignore"):
        return np.asarray(np.array(sizes, dtype=np.float64) / weights)


class OutOfFold:
    """`Rows` of a study's out-of-fold predictions: for each clip the prediction of the member that held it out.

    Rows are NaN for clips that no member held out. The members' arrays are read only when rows are sliced.

    Attributes:
        owner: int32 (n_clips,), the index of the member that held the clip out, -1 for none.

    Args:
        predictions: for each member (n_clips, n_classes).
        held_out: for each member bool (n_clips,), its fold held the clip out; ValueError if two hold out the same one.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, predictions: Sequence[np.ndarray], held_out: Sequence[np.ndarray]) -> None:
        self.shape = common_shape(predictions)
        self._predictions = list(predictions)
        self.owner = np.full(self.shape[0], -1, dtype=np.int32)
        for i, mask in enumerate(held_out):
            if (twice := mask & (self.owner >= 0)).any():
                raise ValueError(f"clip {int(np.argmax(twice))} was held out by two members")
            self.owner[mask] = i

    def __getitem__(self, rows: slice) -> np.ndarray:
        owner = self.owner[rows]
        result = np.full((len(owner), self.shape[1]), np.nan, dtype=np.float32)
        for i in np.unique(owner[owner >= 0]):
            mask, block = owner == i, self._predictions[i][rows]
            result[mask] = block[mask]
            release(block)
        return result


def label_prior(targets: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the share of each class: float32 (n_classes,), sums to 1."""
    return np.asarray(np.bincount(np.asarray(targets), minlength=n_classes) / len(targets), dtype=np.float32)


@dataclass(frozen=True)
class Weights:
    """Weights of studies, float64: fitted on all clips, and (n_folds, n_studies), row f without the clips of fold f."""

    final: np.ndarray
    by_fold: np.ndarray


def cross_fit(
    studies: Sequence[OutOfFold], targets: np.ndarray, verified: np.ndarray, covered: np.ndarray,
    fit: Callable[[Sequence[Scores], np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Weights:  # fmt: skip
    """Fit the weights of studies on all clips, and for each fold of the first study on the clips of its other folds.

    If only one fold has clips, all weights are equal. Verified clips alone are used if each of these fits has
    `FEWEST_VERIFIED` of them, else all clips. `verified` and `covered` are bool (n_clips,): the label was verified by
    hand; the clip has a prediction of every study. `fit` is by default `fit_weights`.
    """
    fit = fit or fit_weights
    folds = studies[0].owner
    n_folds = int(folds.max(initial=-1)) + 1
    if len(studies) == 1 or len(np.unique(folds[covered])) < 2:
        equal = np.full(len(studies), 1 / len(studies))
        return Weights(equal, np.tile(equal, (n_folds, 1)))

    masks = [covered & (folds != fold) for fold in range(n_folds)]
    if all((mask & verified).sum() >= FEWEST_VERIFIED for mask in masks):
        masks, covered = [mask & verified for mask in masks], covered & verified
    by_fold = [fit(studies, targets, clips_to_fit(mask)) for mask in masks]
    return Weights(fit(studies, targets, clips_to_fit(covered)), np.array(by_fold))


def clips_to_fit(mask: np.ndarray) -> np.ndarray:
    """Return the clips of a mask, bool (n_clips,), as int (n,), ascending; of more than `MOST_CLIPS` evenly spaced."""
    clips = np.flatnonzero(mask)
    if len(clips) > MOST_CLIPS:
        clips = clips[np.arange(MOST_CLIPS) * len(clips) // MOST_CLIPS]
    return clips


def fit_weights(studies: Sequence[Scores], targets: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Return the weights with the least log loss on `clips`, rounded to `DIGITS`: float64 (n_studies,).

    Args:
        studies: each study's predictions (n_clips, n_classes), rows NaN or summing to 1; equal ones get equal weights.
        targets: int (n_clips,).
        clips: int (n,), ascending, with a prediction of every study; at least one.
    """
    return minimise(_loss_and_gradient, len(studies), _log_ratios(studies, targets, clips))


def minimise(loss: Callable[..., tuple[float, np.ndarray]], n_studies: int, *arguments: np.ndarray) -> np.ndarray:
    """Return the weights, rounded to `DIGITS`, at which a convex loss is least: float64 (n_studies,).

    `loss` takes weights and the `arguments`; it returns the loss and its gradient, (n_studies,).
    """
    from scipy.optimize import LinearConstraint, minimize

    fit = minimize(
        loss,
        np.full(n_studies, 1 / n_studies),
        args=arguments,
        method="SLSQP",
        jac=True,
        bounds=[(0, 1)] * n_studies,
        constraints=LinearConstraint(np.ones(n_studies), 1, 1),
        options={"ftol": 1e-10, "maxiter": 200},
    )
    weights = np.round(np.clip(fit.x, 0, 1), DIGITS)
    return np.asarray(weights / weights.sum())


def _log_ratios(studies: Sequence[Scores], targets: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Return log(p / p of the label) for each study and clip: float32 (n_studies, n, n_classes)."""
    n_clips, n_classes = studies[0].shape
    logs = np.empty((len(studies), len(clips), n_classes), dtype=np.float32)
    for start, stop in Ranges(n_clips, n_classes):
        first, last = np.searchsorted(clips, (start, stop))
        chosen = clips[first:last]
        for s, study in enumerate(studies if len(chosen) else ()):
            rows = study[start:stop]
            part = np.log(np.maximum(rows[chosen - start], TINY, dtype=np.float64))
            release(rows)
            logs[s, first:last] = part - part[np.arange(len(chosen)), targets[chosen], None]
    return logs


def _loss_and_gradient(weights: np.ndarray, logs: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the log loss in nats of the blend with these weights, and its gradient (n_studies,)."""
    n_studies, n_clips, _ = logs.shape
    loss, gradient = np.empty(n_clips), np.empty((n_clips, n_studies))
    for rows, _ in iter_blocks(logs[0]):
        part = logs[:, rows]
        exponents = sum(weight * study for weight, study in zip(weights, part, strict=True))
        greatest = exponents.max(axis=1, keepdims=True)
        shares = np.exp(exponents - greatest)
        total = shares.sum(axis=1, keepdims=True)
        shares /= total
        loss[rows] = (greatest + np.log(total))[:, 0]
        for s, study in enumerate(part):
            gradient[rows, s] = (shares * study).sum(axis=1)
    return float(loss.mean()), gradient.mean(axis=0)
