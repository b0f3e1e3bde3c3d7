"""Which labels that nobody has checked can be believed, by what models that did not see the clips make of them.

After the self-verification of Dorfer and Widmer (DCASE 2018), with a third way out besides accepting and dropping.
"""

from __future__ import annotations

import numpy as np

from fsat.thresholds import Thresholds

DECISIONS = ("verified", "accept", "relabel", "drop", "keep")
"""``verified`` by hand; the label ``accept``-ed or replaced (``relabel``), both trusted from then on; the clip
``drop``-ped from training; or nothing settled (``keep``)."""


def decide(
    scores: np.ndarray, targets: np.ndarray, verified: np.ndarray, thresholds: Thresholds
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decide on some clips.

    Args:
        scores: float (n, n_classes), probabilities by models that did not train on the clips.
        targets: int (n,), the clips' labels.
        verified: bool (n,), the label was checked by hand; such clips are left alone.
        thresholds: how sure the models must be.

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
