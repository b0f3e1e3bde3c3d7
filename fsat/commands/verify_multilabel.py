"""Decide, for `verify`, which labels of clips with any number of them are wrong, and which are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fsat.errors import count
from fsat.metrics.blending import FEWEST_VERIFIED
from fsat.metrics.label_noise import least_wrong
from fsat.metrics.multilabel_noise import (
    ACCEPT,
    ADD,
    DECISIONS,
    DROP,
    KEEP,
    REMOVE,
    VERIFIED,
    Rates,
    beliefs,
    decide,
    fit_rates,
)
from fsat.metrics.scaling import calibrate
from fsat.options import Thresholds
from fsat.text import named
from fsat.tracking.select_runs import MULTILABEL_COLUMNS

BY_CHANCE = "its models hardly know more of the unverified labels than a draw would; train a better study first"
STAY = "its models hardly know more of some unverified labels than a draw would; these stay as they are: "
LIKELY_WRONG = "so that at least {least:.1%} of these are likely wrong, whereas their probabilities say {share:.1%}"
ADVICE = (
    "; decisions miss many of them: train longer or another model before you train on these labels, or train on "
    "verified clips alone, with unverified_weight=0"
)
TOO_FEW_VERIFIED = (
    "{n_verified} cannot tell what models have learned from wrong labels, so that more are wrong or missing than "
    f"estimated; check some by ear and set manually_verified to 1, {FEWEST_VERIFIED} in all or more"
)
SHOWN = 5
"""Classes that a warning names."""

SURE = 0.95
"""The absence of a label is in the table only if it is less probable than this, or not accepted."""


@dataclass(frozen=True)
class PairEstimate:
    """What is estimated of the labels of unverified clips.

    Attributes:
        rates: how labels come about.
        scores: float32 (n_clips, n_classes), probabilities by the models alone.
        believed: float64 (n_unverified, n_classes), probabilities by models and labels together.
        wrong_share: share of the labels that are wrong.
        missing_share: share of the sounds without their label.
        warning: reason not to rely on the estimate, empty if there is none.
    """

    rates: Rates
    scores: np.ndarray
    believed: np.ndarray
    wrong_share: float
    missing_share: float
    warning: str = ""


def estimate_pairs(
    scores: np.ndarray, targets: np.ndarray, verified: np.ndarray, folds: np.ndarray, labels: Sequence[str]
) -> PairEstimate:
    """Estimate how many labels of unverified clips are wrong, and how many are missing.

    Scores are first scaled to fit the verified clips, if there are `FEWEST_VERIFIED` or more and that lowers their log
    loss on clips of other folds: the labels of all others may be wrong, and models learn such labels.

    Args:
        scores: float (n, n_classes), out-of-fold predictions.
        targets: bool (n, n_classes), labels.
        verified: bool (n,), whether the clip's labels were checked by hand; at least one was not.
        folds: int (n,), the fold of each clip.
        labels: names of the classes.
    """
    scores, n_verified = np.asarray(scores, dtype=np.float32), int(verified.sum())
    if n_verified >= FEWEST_VERIFIED:
        scores = calibrate(scores[verified], targets[verified], folds[verified], True).scaling.apply(scores)
    given = targets[~verified]
    rates = fit_rates(scores[~verified], given)
    believed = beliefs(scores[~verified], given, rates)
    n_wrong, n_missing = float((1 - believed)[given].sum()), float(believed[~given].sum())
    wrong_share, missing_share = n_wrong / max(1, int(given.sum())), n_missing / max(1.0, float(believed.sum()))
    facts = rates, scores, believed, wrong_share, missing_share
    unclear = np.flatnonzero(~rates.clear & given.any(axis=0))
    if not rates.clear.any():
        return PairEstimate(*facts, BY_CHANCE)
    others = f" and {len(unclear) - SHOWN} more" if len(unclear) > SHOWN else ""
    names = ", ".join(named(labels[j]) for j in unclear[:SHOWN])
    reasons = [STAY + names + others] if len(unclear) else []
    checked, hits = np.broadcast_to(verified[:, np.newaxis], targets.shape), scores >= 0.5
    absent_share = n_missing / max(1, int((~given).sum()))
    for name, pairs, differs, share in (
        ("labels", targets, ~hits, wrong_share),
        ("absences of a label", ~targets, hits, absent_share),
    ):
        least = least_wrong(differs[pairs], checked[pairs])
        if least > 2 * share:
            parts = [(f"{(differs & pairs & who).sum()} of {(pairs & who).sum()}") for who in (~checked, checked)]
            evidence = f"the models contradict {parts[0]} unverified {name} and {parts[1]} verified ones"
            reasons.append(f"{evidence}, {LIKELY_WRONG.format(least=least, share=share)}{ADVICE}")
    if n_verified < FEWEST_VERIFIED:
        reasons.append(TOO_FEW_VERIFIED.format(n_verified=count(n_verified, "verified clip")))
    return PairEstimate(*facts, "; ".join(reasons))


@dataclass(frozen=True)
class DecidedPairs:
    """Decisions on the labels of all clips.

    Attributes:
        table: see `pair_table`.
        classes: for each label ``labels``, its number of unverified clips, ``wrong_share`` and ``missing_share``, and
            numbers of decisions: ``accept remove drop keep`` of labels, ``add drop_absent keep_absent`` of absences.
        counts: sums of these decisions, and the ``verified`` labels.
    """

    table: pd.DataFrame
    classes: pd.DataFrame
    counts: dict[str, int]


def decide_pairs(
    found: PairEstimate, targets: np.ndarray, verified: np.ndarray, fnames: Sequence[str], labels: Sequence[str],
    thresholds: Thresholds,
) -> DecidedPairs:  # fmt: skip
    """Decide on each pair of an unverified clip and a class."""
    given = targets[~verified]
    decisions, confidence = np.full(targets.shape, VERIFIED, dtype=np.int8), found.scores.astype(np.float64)
    confidence[~targets] = 1 - confidence[~targets]
    decisions[~verified], confidence[~verified] = decide(found.believed, given, found.rates.clear, thresholds)
    numbers = {"labels": given.sum(axis=0)}
    with np.errstate(invalid="ignore"):
        wrong, missing = np.where(given, 1 - found.believed, 0), np.where(given, 0, found.believed)
        numbers["wrong_share"] = (wrong.sum(axis=0) / numbers["labels"]).round(4)
        numbers["missing_share"] = (missing.sum(axis=0) / found.believed.sum(axis=0)).round(4)
    own = decisions[~verified]
    counts = {"accept": (own == ACCEPT) & given, "remove": own == REMOVE, "drop": (own == DROP) & given,
              "keep": (own == KEEP) & given, "add": own == ADD, "drop_absent": (own == DROP) & ~given,
              "keep_absent": (own == KEEP) & ~given}  # fmt: skip
    by_class = {name: mask.sum(axis=0) for name, mask in counts.items()}
    classes = pd.DataFrame({"label": list(labels), **numbers, **by_class})
    total = {"verified": int(targets[verified].sum())} | {name: int(each.sum()) for name, each in by_class.items()}
    return DecidedPairs(pair_table(decisions, confidence, targets, fnames, labels), classes, total)


def pair_table(
    decisions: np.ndarray, confidence: np.ndarray, targets: np.ndarray, fnames: Sequence[str], labels: Sequence[str]
) -> pd.DataFrame:
    """Return the table ``fname,label,given,score,decision``, in the order of the clips.

    It has a row for each label that a clip has (``given`` 1), and for each other one (``given`` 0) that is added, is
    undecided, or is less than `SURE` to be absent. All other labels are absent, and accepted as such. A clip without
    a row has one with an empty label, whose score is that of the least certain absence.
    """
    absent = (decisions == ACCEPT) & (confidence >= SURE) | (decisions == VERIFIED)
    listed = targets | ~absent
    empty = np.flatnonzero(~listed.any(axis=1))
    clips, classes = np.nonzero(listed)
    clips, classes = np.concatenate([clips, empty]), np.concatenate([classes, np.full(len(empty), -1)])
    order = np.argsort(clips, kind="stable")
    clips, classes = clips[order], classes[order]
    scores, kinds = confidence[clips, classes], decisions[clips, classes]
    scores[classes < 0] = confidence[clips[classes < 0]].min(axis=1, initial=1)
    names = np.array([*labels, ""], dtype=object)
    given = (targets[clips, classes] & (classes >= 0)).astype(np.int64)
    columns = np.array(fnames, dtype=object)[clips], names[classes], given, scores, np.array(DECISIONS)[kinds]
    return pd.DataFrame(dict(zip(MULTILABEL_COLUMNS, columns, strict=True))).round({"score": 6})
