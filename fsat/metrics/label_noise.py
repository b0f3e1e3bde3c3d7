"""Which labels that nobody has checked can be believed, by what models that did not see the clips make of them.

After the self-verification of Dorfer and Widmer (DCASE 2018), with replacing as a third way out besides accepting and
dropping. The given label counts as evidence too: a share r of the unverified labels is taken to be wrong, and drawn
alike from all other classes. With p what the models say, the label y is then right with a probability
(1 - r) p_y / Z, and the true class is c instead with r / (n_classes - 1) p_c / Z; Z makes these sum to 1.

That takes p to be of the true class. Where the wrong labels of a class are all of one other, models learn that as well:
p is then of the given label, a wrong one is no surprise, and r is found to be 0. Verified clips, whose labels are
right, tell: best guesses differ from them less often than from the others (`least_wrong`), and p is too flat
(`sharpness`, one over the temperature of Guo et al., ICML 2017).
"""

from __future__ import annotations

import numpy as np

from fsat.metrics.blending import TINY
from fsat.options import Thresholds

DECISIONS = ("verified", "accept", "relabel", "drop", "keep")
"""``verified`` by hand; the label ``accept``-ed or replaced (``relabel``), both trusted from then on; the clip
``drop``-ped from training; or nothing settled (``keep``)."""

LEAST_SHARE = 1e-6
"""`wrong_share` is as far from 0 at least, so that another class than the label is always possible."""

NONE_WRONG = 1e-3
"""A `wrong_share` of no more says that no label is wrong."""

SHARPEST = 10.0
"""The greatest `sharpness`, so that few verified clips that are all told rightly do not make models infallible."""

CLEAR = 2.0
"""By so many nats the labels must be likelier with the share found than if all were drawn by lot, to tell anything."""


def wrong_share(of_label: np.ndarray, n_classes: int) -> tuple[float, float]:
    """The share r of wrong labels that makes the labels the likeliest.

    Its likelihood is the product of (1 - r) p_y + r / (n_classes - 1) (1 - p_y) over the clips, whose logarithm is
    concave. At (n_classes - 1) / n_classes labels are drawn by lot and tell nothing of a clip; r is never more.

    Args:
        of_label: (n,), probability of each clip's label as its true class, by models that did not train on the clip; n
            at least 1. Where models learn from wrong labels alone, it is too low to tell the share.
        n_classes: how many classes there are.

    Returns:
        r, in [1e-6, (n_classes - 1) / n_classes]; and by how many nats the labels are likelier so than drawn by lot, 0
        or more: below `CLEAR` the models hardly know more of the labels than a draw would.
    """
    from scipy.optimize import minimize_scalar

    p = of_label.astype(np.float64)
    of_others = (1 - p) / max(1, n_classes - 1)

    def loss(share: float) -> float:
        return -np.log(np.maximum((1 - share) * p + share * of_others, 1e-300)).sum()

    lot = max(2 * LEAST_SHARE, (n_classes - 1) / n_classes)
    found = minimize_scalar(loss, bounds=(LEAST_SHARE, lot), method="bounded", options={"xatol": 1e-9})
    return float(found.x), max(0.0, float(loss(lot) - found.fun))


def least_wrong(differs: np.ndarray, verified: np.ndarray) -> float:
    """The share of unverified labels that is wrong at least, by best guesses alone.

    Where models guess unverified clips as well as verified ones, whose labels are right, wrong labels are what they
    differ more from. Less two standard errors, each rate with two clips more of which one differs (Agresti and Caffo
    2000): few clips, or none that are verified, tell little or nothing.

    Args:
        differs: bool (n,), the best guess of models that did not train on the clip is not its label.
        verified: bool (n,), the label was checked by hand.

    Returns:
        The share, in [0, 1); 0 where the guesses show none.
    """
    n = np.array([np.sum(~verified), np.sum(verified)]) + 2
    others, checked = rates = (np.array([np.sum(differs & ~verified), np.sum(differs & verified)]) + 1) / n
    error = np.sqrt((rates * (1 - rates) / n).sum())
    return max(0.0, float((others - checked - 2 * error) / (1 - checked)))


def sharpness(scores: np.ndarray, targets: np.ndarray) -> float:
    """The power of scores, scaled to sum to 1, that has the least log loss: from 1, as they are, to `SHARPEST`.

    Args:
        scores: float (n, n_classes), probabilities by models that did not train on the clips; n at least 1.
        targets: int (n,), classes of which somebody is sure.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logs = np.log(np.maximum(scores.astype(np.float64), TINY))
    of_label = logs[np.arange(len(targets)), targets]

    def loss(power: float) -> float:
        return float(np.mean(logsumexp(power * logs, axis=1) - power * of_label))  # convex

    found = minimize_scalar(loss, bounds=(1, SHARPEST), method="bounded")
    return float(found.x) if found.fun < loss(1) else 1.0


def sharpened(scores: np.ndarray, power: float) -> np.ndarray:
    """Scores (n, n_classes) to this power, rows scaled to sum to 1; at 1 as they are."""
    if power == 1:
        return scores
    raised = (scores / scores.max(axis=1, keepdims=True)).astype(np.float64) ** power
    return raised / raised.sum(axis=1, keepdims=True)


def beliefs(scores: np.ndarray, targets: np.ndarray, share: float) -> np.ndarray:
    """Probabilities of the true class, by models and label together.

    Args:
        scores: float (n, n_classes), probabilities by models that did not train on the clips.
        targets: int (n,), the clips' labels.
        share: of wrong labels, in (0, 1).

    Returns:
        float64 (n, n_classes), rows sum to 1.
    """
    n_clips, n_classes = scores.shape
    weights = np.full((n_clips, n_classes), share / max(1, n_classes - 1))
    weights[np.arange(n_clips), targets] = 1 - share
    weights *= scores
    return weights / weights.sum(axis=1, keepdims=True)


def decide(
    scores: np.ndarray, targets: np.ndarray, verified: np.ndarray, thresholds: Thresholds
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decide on some clips.

    Args:
        scores: float (n, n_classes), probabilities of the true class, as of `beliefs`.
        targets: int (n,), the clips' labels.
        verified: bool (n,), the label was checked by hand; such clips are left alone.
        thresholds: how sure one must be.

    Returns:
        str (n,), words of `DECISIONS`; int (n,), the new class, -1 for a dropped clip; float (n,), the probability that
        decided: of the label where it was accepted or kept or is verified, of the new class where it was replaced, and
        one less that of the label where the clip was dropped.
    """
    rows = np.arange(len(targets))
    best, of_label = scores.argmax(axis=1), scores[rows, targets].astype(np.float64)
    of_best = scores[rows, best].astype(np.float64)
    accept = (best == targets) & (of_label >= thresholds.accept)
    relabel = (best != targets) & (of_best >= thresholds.relabel)
    drop = of_label < thresholds.drop
    decisions = np.select([verified, accept, relabel, drop], DECISIONS[:4], DECISIONS[4])
    classes = np.select([decisions == "relabel", decisions == "drop"], [best, -1], targets)
    confidence = np.select([decisions == "relabel", decisions == "drop"], [of_best, 1 - of_label], of_label)
    return decisions, classes, confidence
