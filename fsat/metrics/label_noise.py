"""Label noise: which unverified labels are wrong, judged by models that did not train on the clips.

After the self-verification of Dorfer and Widmer (DCASE 2018), with relabelling as a third decision besides accepting
and dropping. The given label counts as evidence too: a share r of the unverified labels is assumed to be wrong, drawn
evenly from all other classes. With the models' probabilities p, the label y is then right with probability
(1 - r) p_y / Z, and the true class is c instead with r / (n_classes - 1) p_c / Z; Z makes these sum to 1.

This takes p to be the probability of the true class. Where the wrong labels of a class all come from one other class,
models learn that as well: p then predicts the given label, a wrong one is no surprise, and r is estimated as 0.
Verified clips, whose labels are right, reveal this: best guesses differ from them less often than from the others
(`least_wrong`), and p is too flat (`sharpness`, one over the temperature of Guo et al., ICML 2017).
"""

from __future__ import annotations

import numpy as np

from fsat.metrics.blending import TINY
from fsat.options import Thresholds

DECISIONS = ("verified", "accept", "relabel", "drop", "keep")
"""``verified`` by hand; ``accept`` or ``relabel``, after which the label is trusted; ``drop`` the clip from training;
``keep`` the label as it is, undecided."""

LEAST_SHARE = 1e-6  # lower bound of `wrong_share`, so that another class than the label is always possible
NONE_WRONG = 1e-3  # a `wrong_share` up to this value means that no label is wrong
SHARPEST = 10.0  # upper bound of `sharpness`: a few verified clips, all predicted right, prove no certainty
CLEAR = 2.0  # nats by which the estimated share must be likelier than random labels


def wrong_share(p_label: np.ndarray, n_classes: int) -> tuple[float, float]:
    """Return the maximum-likelihood estimate of the share r of wrong labels.

    The likelihood is the product of (1 - r) p_y + r / (n_classes - 1) (1 - p_y) over the clips; its logarithm is
    concave. At (n_classes - 1) / n_classes labels are random and say nothing of a clip; r is never larger.

    Args:
        p_label: (n,), n at least 1: probability of each clip's label, by models that did not train on the clip.
        n_classes: number of classes.

    Returns:
        r, in [1e-6, (n_classes - 1) / n_classes]; and by how many nats the labels are likelier than if they were
        random, at least 0: below `CLEAR` the models hardly know more of the labels than chance.
    """
    from scipy.optimize import minimize_scalar

    p = p_label.astype(np.float64)
    p_others = (1 - p) / max(1, n_classes - 1)

    def loss(share: float) -> float:
        return float(-np.log(np.maximum((1 - share) * p + share * p_others, 1e-300)).sum())

    random_share = max(2 * LEAST_SHARE, (n_classes - 1) / n_classes)
    fit = minimize_scalar(loss, bounds=(LEAST_SHARE, random_share), method="bounded", options={"xatol": 1e-9})
    return float(fit.x), max(0.0, loss(random_share) - float(fit.fun))


def least_wrong(differs: np.ndarray, verified: np.ndarray) -> float:
    """Return a lower bound of the share of unverified labels that are wrong, in [0, 1), by best guesses alone.

    Where models guess unverified clips as well as verified ones, whose labels are right, the guesses differ more often
    from the unverified labels only because of wrong labels. Two standard errors are subtracted, each rate with two
    extra clips of which one differs (Agresti and Caffo 2000).

    Args:
        differs: bool (n,), the best guess of models that did not train on the clip is not its label.
        verified: bool (n,), the label was verified by hand.
    """
    n = np.array([np.sum(~verified), np.sum(verified)]) + 2
    rates = (np.array([np.sum(differs & ~verified), np.sum(differs & verified)]) + 1) / n
    of_unverified, of_verified = rates
    error = np.sqrt((rates * (1 - rates) / n).sum())
    return max(0.0, float((of_unverified - of_verified - 2 * error) / (1 - of_verified)))


def sharpness(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the power of scores, rescaled to sum to 1, with the least log loss: from 1 (unchanged) to `SHARPEST`.

    Args:
        scores: float (n, n_classes), probabilities by models that did not train on the clips; n at least 1.
        targets: int (n,), verified classes.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logs = np.log(np.maximum(scores.astype(np.float64), TINY))
    log_label = logs[np.arange(len(targets)), targets]

    def loss(power: float) -> float:
        return float(np.mean(logsumexp(power * logs, axis=1) - power * log_label))  # convex

    fit = minimize_scalar(loss, bounds=(1, SHARPEST), method="bounded")
    return float(fit.x) if fit.fun < loss(1) else 1.0


def sharpened(scores: np.ndarray, power: float) -> np.ndarray:
    """Return scores (n, n_classes) to this power, rows rescaled to sum to 1; unchanged at 1."""
    if power == 1:
        return scores
    raised = (scores / scores.max(axis=1, keepdims=True)).astype(np.float64) ** power
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def beliefs(scores: np.ndarray, targets: np.ndarray, share: float) -> np.ndarray:
    """Return probabilities of the true class, by models and label together: float64 (n, n_classes), rows sum to 1.

    Args:
        scores: float (n, n_classes), probabilities by models that did not train on the clips.
        targets: int (n,), the clips' labels.
        share: of wrong labels, in (0, 1).
    """
    n_clips, n_classes = scores.shape
    weights = np.full((n_clips, n_classes), share / max(1, n_classes - 1))
    weights[np.arange(n_clips), targets] = 1 - share
    weights *= scores
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def decide(
    scores: np.ndarray, targets: np.ndarray, verified: np.ndarray, thresholds: Thresholds
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decide what to do with each clip's label.

    Args:
        scores: float (n, n_classes), probabilities of the true class, as of `beliefs`.
        targets: int (n,), the clips' labels.
        verified: bool (n,), the label was verified by hand; such clips are left alone.
        thresholds: probabilities from which a decision is made.

    Returns:
        str (n,), one of `DECISIONS`; int (n,), the new class, -1 for a dropped clip; float (n,), the confidence: the
        probability of the label if accepted, kept or verified, of the new class if relabelled, and one minus that of
        the label if dropped.
    """
    rows = np.arange(len(targets))
    best, p_label = scores.argmax(axis=1), scores[rows, targets].astype(np.float64)
    p_best = scores[rows, best].astype(np.float64)
    accept = (best == targets) & (p_label >= thresholds.accept)
    relabel = (best != targets) & (p_best >= thresholds.relabel)
    drop = p_label < thresholds.drop
    decisions = np.select([verified, accept, relabel, drop], DECISIONS[:4], DECISIONS[4])
    classes = np.select([decisions == "relabel", decisions == "drop"], [best, -1], targets)
    confidence = np.select([decisions == "relabel", decisions == "drop"], [p_best, 1 - p_label], p_label)
    return decisions, classes, confidence
