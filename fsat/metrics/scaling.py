"""Scale scores so that they mean something: of the sounds that score 0.8 for a label, about 80 % have it.

Softmax scores are scaled by one temperature (Guo et al. 2017), scores of classes by themselves by a sigmoid of each
class (Platt 1999, "Probabilistic outputs for support vector machines"). A scaling must not be judged by the clips that
it was fitted on: `calibrate` fits one without the clips of each fold, and uses a scaling only if these are better.

Conventions: `scores` is float (n_clips, n_classes) in [0, 1], maybe a memory map; rows that are NaN, of clips without a
prediction, stay NaN and are not fitted on. `targets` is int (n_clips,), one class each, or bool (n_clips, n_classes);
`fold` is int (n_clips,).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsat.metrics import ranking
from fsat.metrics.blending import clips_to_fit
from fsat.metrics.calibration import Reliability, label_reliability, reliability
from fsat.metrics.multilabel import EPSILON, label_columns, log_loss, one_hot
from fsat.metrics.row_blocks import Scores, as_rows, iter_blocks, map_blocks
from fsat.metrics.sigmoid_blending import expit, logits

KINDS = ("none", "temperature", "platt")
FEWEST = 10  # clips with a label, and without it, from which a class has a sigmoid of its own
LEAST_SLOPE, MOST_SLOPE = 0.05, 20.0  # of a sigmoid, and of the logarithms of a softmax: 1 / temperature
SPREADS = (0.5, 1.0)  # standard deviations of slopes and offsets about the common ones, which hold back small classes
MOST_PAIRS = 1_000_000  # scores of all classes together that the common sigmoid is fitted on
DIGITS = 4  # decimals of a slope, an offset and a temperature
LOWEST, HIGHEST = float(np.finfo(np.float32).tiny), 1 - 2.0**-25  # scores 0 and 1 are moved here to be scaled
ITERATIONS, TOLERANCE = 100, 1e-8


@dataclass(frozen=True)
class Scaling:
    """A map from blended scores to calibrated ones.

    A temperature never changes the order of the classes of a clip, nor sigmoids that of the clips of a class; only in
    float32 may two scores become equal.

    Attributes:
        kind: ``none``; ``temperature``: p ** (1 / temperature), scaled so that rows sum to 1; or ``platt``: the sigmoid
            of slope * logit(p) + offset.
        temperature: above 0; 1 changes nothing.
        slopes, offsets: one for each class; slopes are above 0.
    """

    kind: str = "none"
    temperature: float = 1.0
    slopes: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()

    def apply(self, scores: Scores) -> np.ndarray:
        """Return the calibrated scores, float32 (n_clips, n_classes); raise ValueError for other classes."""
        scores = as_rows(scores)
        if self.kind == "none":
            return np.asarray(scores[:], dtype=np.float32)
        if self.kind == "platt" and len(self.slopes) != scores.shape[1]:
            raise ValueError(f"scores have {scores.shape[1]} classes, expected {len(self.slopes)} as the scaling has")
        result = np.empty(scores.shape, dtype=np.float32)
        slopes, offsets = np.array(self.slopes), np.array(self.offsets)

        def work(rows: slice, block: np.ndarray) -> None:
            if self.kind == "platt":
                result[rows] = expit(slopes * logits(block, LOWEST, HIGHEST) + offsets)
            else:
                result[rows] = _softmax(np.log(np.maximum(block, LOWEST, dtype=np.float64)) / self.temperature)

        map_blocks(scores, work)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return the scaling as JSON has it."""
        values: dict[str, dict[str, Any]] = {
            "temperature": {"temperature": self.temperature},
            "platt": {"slopes": list(self.slopes), "offsets": list(self.offsets)},
        }
        return {"kind": self.kind, **values.get(self.kind, {})}

    @classmethod
    def from_dict(cls, facts: Any) -> Scaling:
        """Return the scaling of `to_dict`; raise ValueError for anything else."""
        kind = facts.get("kind") if isinstance(facts, Mapping) else None
        if kind not in KINDS:
            raise ValueError(f"scaling is {facts!r:.80}, expected a kind of {', '.join(KINDS)}")
        wanted = set(cls(kind).to_dict())
        if set(facts) != wanted:
            raise ValueError(f"scaling has {', '.join(map(str, facts))}, expected {', '.join(sorted(wanted))}")
        temperature = _numbers([facts.get("temperature", 1.0)], "temperature", above=0)[0]
        slopes = _numbers(facts.get("slopes", []), "slopes", above=0)
        offsets = _numbers(facts.get("offsets", []), "offsets")
        if len(slopes) != len(offsets) or (kind == "platt" and not slopes):
            fault = f"scaling has {len(slopes)} slopes and {len(offsets)} offsets"
            raise ValueError(f"{fault}, expected one of both for each class")
        return cls(kind, temperature, slopes, offsets)


UNSCALED = Scaling()


def _numbers(values: Any, name: str, above: float = -math.inf) -> tuple[float, ...]:
    numbers = [value for value in values if type(value) in (int, float)] if isinstance(values, list | tuple) else []
    if not isinstance(values, list | tuple) or len(numbers) < len(values):
        raise ValueError(f"{name} of the scaling are {values!r:.80}, expected numbers")
    for number in numbers:
        if not (math.isfinite(number) and number > above):
            expected = "a finite number" + (f" above {above:g}" if math.isfinite(above) else "")
            raise ValueError(f"{name} of the scaling are {number:g}, expected {expected}")
    return tuple(float(number) for number in numbers)


def fit_scaling(scores: Scores, targets: np.ndarray, kind: str) -> Scaling:
    """Return the scaling of the least log loss on the clips, rounded to `DIGITS`.

    A class with fewer than `FEWEST` clips with or without its label has a sigmoid that is common to all classes, to
    which the sigmoids of others are drawn (`SPREADS`) as if it were a normal prior. No clips give the kind ``none``.
    """
    return _fit_each(as_rows(scores), targets, kind, [np.ones(len(targets), dtype=bool)])[0]


def cross_fit_scaling(scores: Scores, targets: np.ndarray, fold: np.ndarray, kind: str) -> np.ndarray:
    """Return the scores, float32 (n_clips, n_classes), each scaled by a fit without the clips of its fold."""
    scores, folds = as_rows(scores), np.unique(fold)
    scalings = _fit_each(scores, targets, kind, [fold != f for f in folds])
    result = np.empty(scores.shape, dtype=np.float32)
    for rows, block in iter_blocks(scores):
        for f, scaling in zip(folds, scalings, strict=True):
            own = fold[rows] == f
            result[rows][own] = scaling.apply(block[own])
    return result


@dataclass(frozen=True)
class Calibration:
    """How well scores are calibrated.

    Attributes:
        log_loss: mean cross-entropy in nats, over classes too if each is scored by itself.
        ece: expected calibration error in [0, 1]: of the best guesses, or, if each class is scored by itself, of all
            pairs of a clip and a class.
        class_ece: mean of the classes' errors (Kull et al. 2019, "Beyond temperature scaling", section 2); of best
            guesses, `ece`. It is never less than `ece`, because errors of different classes do not cancel, and with
            few clips most of it is chance: 600 clips whose scores are right have one of about 0.03.
        reliability: the bins, of best guesses or of pairs.
    """

    log_loss: float
    ece: float
    class_ece: float
    reliability: Reliability


def calibration_of(scores: Scores, targets: np.ndarray, sigmoid: bool) -> Calibration:
    """Return how well scores are calibrated; `sigmoid` tells that classes are scored by themselves, not by a softmax.

    Clips without a prediction do not count.
    """
    clips = np.flatnonzero(_known(scores))
    known, targets = _rows(as_rows(scores), clips), targets[clips]
    if not sigmoid:
        best = ranking.best_guesses(known, targets)
        bins = reliability(best.p_guess, best.guess == targets)
        return Calibration(ranking.log_loss(known, targets), bins.expected_error, bins.expected_error, bins)
    labels = one_hot(targets, known.shape[1])
    pairs, errors = label_reliability(known, labels)
    class_ece = float(errors.mean()) if len(clips) else math.nan
    return Calibration(log_loss(known, labels), pairs.expected_error, class_ece, pairs)


@dataclass(frozen=True)
class Calibrated:
    """Scores before and after calibration.

    Attributes:
        scaling: fitted on all clips; of the kind ``none`` unless cross-fitted scores have a lower log loss.
        scores: the cross-fitted scores, float (n_clips, n_classes); the given ones if the scaling is ``none``.
        before, after: of the given and of the cross-fitted scores; equal if the scaling is ``none``.
    """

    scaling: Scaling
    scores: Scores
    before: Calibration
    after: Calibration


def calibrate(scores: Scores, targets: np.ndarray, fold: np.ndarray, sigmoid: bool) -> Calibrated:
    """Fit a scaling, and use it if it helps: if the scores that are scaled without the clip's fold have less log loss.

    `sigmoid` tells that classes are scored by themselves, not by a softmax. With one fold nothing is scaled.
    """
    scores, kind = as_rows(scores), "platt" if sigmoid else "temperature"
    before = calibration_of(scores, targets, sigmoid)
    if len(np.unique(fold[_known(scores)])) > 1:
        scaled = cross_fit_scaling(scores, targets, fold, kind)
        after = calibration_of(scaled, targets, sigmoid)
        if after.log_loss < before.log_loss:
            return Calibrated(fit_scaling(scores, targets, kind), scaled, before, after)
    return Calibrated(Scaling(), scores, before, before)


def _fit_each(scores: Scores, targets: np.ndarray, kind: str, masks: list[np.ndarray]) -> list[Scaling]:
    """Return the scaling that is fitted on the clips of each mask."""
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    known = _known(scores)
    chosen = [clips_to_fit(mask & known) for mask in masks]
    if kind == "none":
        return [Scaling() for _ in chosen]
    if kind == "temperature":
        return [_fit_temperature(scores, targets, clips) if len(clips) else Scaling() for clips in chosen]
    return _fit_sigmoids(scores, one_hot(targets, scores.shape[1]), chosen)


def _fit_temperature(scores: Scores, targets: np.ndarray, clips: np.ndarray) -> Scaling:
    """Return the temperature at which the log loss, convex in its inverse, is least.

    The inverse is drawn to 1 (`SPREADS`), as if it had a normal prior: without that, a few clips that are all guessed
    rightly would make all scores 0 or 1.
    """
    pull = 1 / SPREADS[0] ** 2 / len(clips)
    logs = np.log(np.maximum(_rows(scores, clips), EPSILON, dtype=np.float64))
    of_label = logs[np.arange(len(clips)), targets[clips]].mean()
    low, high, slope = LEAST_SLOPE, MOST_SLOPE, 1.0
    for _ in range(ITERATIONS):
        shares = _softmax(slope * logs)
        means = (shares * logs).sum(axis=1)
        gradient = means.mean() - of_label + pull * (slope - 1)
        curvature = ((shares * logs**2).sum(axis=1) - means**2).mean() + pull
        low, high = (low, slope) if gradient > 0 else (slope, high)
        newton = slope - gradient / max(curvature, LOWEST)
        following = newton if low < newton < high else (low + high) / 2
        if abs(following - slope) < TOLERANCE:
            break
        slope = following
    return Scaling("temperature", temperature=round(1 / slope, DIGITS))


def _fit_sigmoids(scores: Scores, targets: np.ndarray, chosen: list[np.ndarray]) -> list[Scaling]:
    """Return the sigmoids that are fitted on each choice of clips."""
    n_classes = targets.shape[1]
    parts = [clips[:: max(1, -(-len(clips) * n_classes // MOST_PAIRS))] for clips in chosen]
    pairs = [np.empty((n_classes, len(part)), dtype=np.float32) for part in parts]
    for j, (column, _) in enumerate(label_columns(scores, targets)):
        for part, own in zip(parts, pairs, strict=True):
            own[j] = column[part]
    common = [
        _fit_sigmoid(own.ravel(), targets[part].T.ravel(), (1.0, 0.0)) for part, own in zip(parts, pairs, strict=True)
    ]
    lines = [[pair] * n_classes for pair in common]
    for j, (column, hits) in enumerate(label_columns(scores, targets)):
        for line, clips, pair in zip(lines, chosen, common, strict=True):
            n_hits = int(hits[clips].sum())
            if min(n_hits, len(clips) - n_hits) >= FEWEST:
                line[j] = _fit_sigmoid(column[clips], hits[clips], pair)
    return [
        Scaling("platt", 1.0, *map(tuple, zip(*line, strict=True))) if len(clips) else Scaling()
        for line, clips in zip(lines, chosen, strict=True)
    ]


def _fit_sigmoid(scores: np.ndarray, hits: np.ndarray, centre: tuple[float, float]) -> tuple[float, float]:
    """Return slope and offset with the least log loss, drawn to a centre; the slope is at least `LEAST_SLOPE`."""
    values, one = logits(scores), np.ones(len(scores))
    precision = 1 / np.square(SPREADS)
    slope, offset = _newton(np.stack([values, one]), np.zeros(len(scores)), hits, np.array(centre), precision)
    if not LEAST_SLOPE <= slope <= MOST_SLOPE:
        slope = min(max(slope, LEAST_SLOPE), MOST_SLOPE)
        offset = _newton(one[np.newaxis], slope * values, hits, np.array(centre[1:]), precision[1:])[0]
    return round(float(slope), DIGITS), round(float(offset), DIGITS)


def _newton(
    inputs: np.ndarray, start: np.ndarray, hits: np.ndarray, centre: np.ndarray, precision: np.ndarray
) -> np.ndarray:
    """Fit a logistic regression whose coefficients have a normal prior, by Newton's method with halved steps.

    Args:
        inputs: float64 (n_coefficients, n).
        start: float64 (n,), added to the weighted sum of the inputs.
        hits: bool (n,).
        centre, precision: mean, and one by the variance, of each coefficient, float64 (n_coefficients,).
    """

    def loss_at(values: np.ndarray) -> tuple[float, np.ndarray]:
        sums = start + values @ inputs
        loss = np.logaddexp(0, np.where(hits, -sums, sums)).sum()
        return float(loss + (precision * (values - centre) ** 2).sum() / 2), sums

    values = centre
    loss, sums = loss_at(values)
    for _ in range(ITERATIONS):
        shares = expit(sums)
        gradient = inputs @ (shares - hits) + precision * (values - centre)
        curvature = (inputs * (shares * (1 - shares))) @ inputs.T + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        while (following := loss_at(values - step))[0] > loss and np.abs(step).max() > TOLERANCE:
            step /= 2
        if np.abs(step).max() <= TOLERANCE:
            break
        values, (loss, sums) = values - step, following
    return values


def _known(scores: Scores) -> np.ndarray:
    """Return which rows have no NaN, bool (n_clips,)."""
    scores = as_rows(scores)
    known = np.empty(scores.shape[0], dtype=bool)
    for rows, block in iter_blocks(scores):
        known[rows] = ~np.isnan(block).any(axis=1)
    return known


def _rows(scores: Scores, clips: np.ndarray) -> np.ndarray:
    """Return the rows of some clips, in ascending order."""
    parts = [block[np.isin(np.arange(rows.start, rows.stop), clips)] for rows, block in iter_blocks(scores)]
    return np.concatenate([*parts, np.empty((0, scores.shape[1]), dtype=scores.dtype)])


def _softmax(values: np.ndarray) -> np.ndarray:
    shares = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
