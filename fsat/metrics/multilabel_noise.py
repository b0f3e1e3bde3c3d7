"""Label noise of clips with any number of labels: which labels are wrong, and which are missing.

As `fsat.metrics.label_noise`, but a decision is about a pair of a clip and a class, whose sound is in the clip or not.
The label of a class is given to a share a of the clips without its sound, and to a share d of those with it; without
noise, a is 0 and d is 1. With the models' probability p of the sound, the label is there with
probability (1 - p) a + p d, from which a and d are estimated. By Bayes' theorem the sound is in a clip with the label
with probability p d / ((1 - p) a + p d), and in one without it with p (1 - d) / ((1 - p) (1 - a) + p (1 - d)).

This takes p to be the probability of the sound, whereas models that were trained on noisy labels predict these: where
labels are missing, p is too low. Scores should therefore be scaled to fit verified clips first, see
`fsat.metrics.scaling`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsat.metrics.label_noise import CLEAR, LEAST_SHARE
from fsat.metrics.multilabel import label_columns, matching
from fsat.options import Thresholds

DECISIONS = ("verified", "accept", "add", "remove", "drop", "keep")
"""``verified`` by hand; ``accept`` the label or its absence, ``add`` a missing label or ``remove`` a wrong one, after
which the pair is trusted; ``drop`` the pair from training; ``keep`` it as it is, undecided."""

VERIFIED, ACCEPT, ADD, REMOVE, DROP, KEEP = range(len(DECISIONS))

PRIOR = 50  # known labels of a class, and known sounds, as which the rates common to all classes count
MOST_PAIRS = 1_000_000  # that the common rates are fitted on at most, of evenly spaced clips
TINY = 1e-12  # least probability of what was observed


@dataclass(frozen=True)
class Rates:
    """How labels come about, by class: each float64 (n_classes,).

    Attributes:
        without: probability of the label where its sound is not in the clip.
        present: probability of the label where its sound is in the clip.
        clear_by: by how many nats the labels are likelier than if they were random, at least 0: below `CLEAR` the
            models hardly know more of the labels than chance.
    """

    without: np.ndarray
    present: np.ndarray
    clear_by: np.ndarray

    @property
    def clear(self) -> np.ndarray:
        """Bool (n_classes,): the models know more of the labels than chance."""
        return np.asarray(self.clear_by >= CLEAR)


def fit_rates(scores: np.ndarray, labels: np.ndarray) -> Rates:
    """Return the most likely rates of each class.

    The logarithm of the likelihood is concave. Rates common to all classes are estimated first: the same `present`, and
    the same `without` in proportion to the labels of the class. These count as `PRIOR` more labels of each class, since
    its own may be few, and the scores may not tell much of them.

    Args:
        scores: float (n, n_classes), n at least 1: probabilities of the sounds by models that did not train on the
            clips.
        labels: bool (n, n_classes), unverified labels.
    """
    matching(scores, labels)  # shapes
    share, some = labels.mean(axis=0), slice(None, None, -(-labels.size // MOST_PAIRS))
    common = _fit(scores[some].ravel(), labels[some].ravel(), np.tile(share, len(labels[some])))
    rates = []
    for (p, own), part in zip(label_columns(scores, labels), share, strict=True):
        factor, present = _fit(p, own, np.full(len(p), part), np.array(common))
        without, present = factor * part, max(present, part)
        gain = _loss(p, own, part, part) - _loss(p, own, without, present)
        rates.append((without, present, max(0.0, gain)))
    return Rates(*np.array(rates, dtype=np.float64).reshape(-1, 3).T)


def _fit(p: np.ndarray, labels: np.ndarray, share: np.ndarray, prior: np.ndarray | None = None) -> tuple[float, float]:
    """Return a / share and d of the pairs, whose classes are labelled in this share of the clips; each is (n,).

    `prior` are values of both that count as `PRIOR` observations.
    """
    from scipy.optimize import minimize

    p, signs = p.astype(np.float64), np.where(labels, 1.0, -1.0)
    by_factor = (1 - p) * share

    def loss(rates: np.ndarray) -> tuple[float, np.ndarray]:
        label = rates[0] * by_factor + rates[1] * p
        observed = np.maximum(np.where(labels, label, 1 - label), TINY)
        slope = -signs / observed
        value, gradient = -np.log(observed).sum(), np.array([(slope * by_factor).sum(), (slope * p).sum()])
        if prior is not None:
            value -= PRIOR * (prior * np.log(rates) + (1 - prior) * np.log1p(-rates)).sum()
            gradient -= PRIOR * (prior / rates - (1 - prior) / (1 - rates))
        return float(value) / len(p), gradient / len(p)

    if prior is None and not labels.any():
        return 1 - LEAST_SHARE, LEAST_SHARE
    least = float(share.min())  # random labels have the factor 1 and this share
    bounds = [(LEAST_SHARE, 1 - LEAST_SHARE), (min(max(least, LEAST_SHARE), 1 - LEAST_SHARE), 1 - LEAST_SHARE)]
    fit = minimize(loss, (0.1, 0.9), jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12, "gtol": 1e-8})
    return float(fit.x[0]), float(fit.x[1])


def _loss(p: np.ndarray, labels: np.ndarray, without: float, present: float) -> float:
    """Return the negative logarithm of the likelihood of the labels of a class."""
    label = (1 - p.astype(np.float64)) * without + p * present
    return float(-np.log(np.maximum(np.where(labels, label, 1 - label), TINY)).sum())


def beliefs(scores: np.ndarray, labels: np.ndarray, rates: Rates) -> np.ndarray:
    """Return the probability that the sound of each class is in a clip, by models and label together.

    The arguments are as those of `fit_rates`; the result is float64 (n, n_classes).
    """
    p = scores.astype(np.float64)
    of_present = np.where(labels, rates.present, 1 - rates.present) * p
    of_absent = np.where(labels, rates.without, 1 - rates.without) * (1 - p)
    return np.asarray(of_present / np.maximum(of_present + of_absent, TINY))


def decide(
    believed: np.ndarray, labels: np.ndarray, decidable: np.ndarray, thresholds: Thresholds
) -> tuple[np.ndarray, np.ndarray]:
    """Decide on each label and on the absence of each other one, as `fsat.metrics.label_noise.decide` on two classes.

    Args:
        believed: float (n, n_classes), the probability that the sound is in the clip.
        labels: bool (n, n_classes), the clips' labels.
        decidable: bool (n_classes,); the labels of other classes stay as they are.
        thresholds: probabilities from which a decision is made.

    Returns:
        int8 (n, n_classes), the position in `DECISIONS`; and float64 (n, n_classes), the confidence: the probability
        of the label, or of its absence, if accepted or kept, else one minus it.
    """
    right = np.where(labels, believed, 1 - believed)
    likely = right >= 0.5
    undecided = np.broadcast_to(~decidable, labels.shape)
    accept, change = likely & (right >= thresholds.accept), ~likely & (1 - right >= thresholds.relabel)
    conditions = [undecided, accept, change & labels, change, right < thresholds.drop]
    decisions = np.select(conditions, [KEEP, ACCEPT, REMOVE, ADD, DROP], KEEP).astype(np.int8)
    confidence = np.where((decisions == ACCEPT) | (decisions == KEEP), right, 1 - right)
    return decisions, confidence
