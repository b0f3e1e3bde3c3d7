"""Entry point `verify`: a study's out-of-fold predictions decide which unverified labels can be trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.commands.blend_members import Blend, blend_members
from fsat.errors import RunError
from fsat.metrics.blending import FEWEST_VERIFIED, clips_to_fit
from fsat.metrics.label_noise import (
    CLEAR,
    DECISIONS,
    NONE_WRONG,
    beliefs,
    decide,
    least_wrong,
    sharpened,
    sharpness,
    wrong_share,
)
from fsat.metrics.ranking import best_guesses
from fsat.metrics.row_blocks import ranges, release
from fsat.options import ALONE, Cluster, Thresholds
from fsat.parallel.ray_connection import check_installed
from fsat.parallel.ray_tasks import map_on
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.tracking import descriptions, runs
from fsat.tracking.fold_artifacts import Member, download
from fsat.tracking.select_runs import choose
from fsat.tracking.verified_labels import COLUMNS, STAGE, TABLE, round_of


@dataclass(frozen=True)
class Verified:
    """What `verify` has decided.

    Attributes:
        run_id: of its run, which `train_fold` takes as ``labels_run_id``.
        table: ``fname,label,new_label,score,decision``, every training clip.
        counts: clips by decision.
        wrong_share: the share of unverified labels that is believed to be wrong.
        warning: why not to rely on it, empty where nothing speaks against it.
    """

    run_id: str
    table: pd.DataFrame
    counts: dict[str, int]
    wrong_share: float
    warning: str


@dataclass(frozen=True)
class Estimate:
    """How much the labels are believed.

    Attributes:
        share: of unverified labels that is wrong.
        power: that scores are raised to, 1 where they are left as they are.
        warning: as in `Verified`.
    """

    share: float
    power: float = 1.0
    warning: str = ""


def verify(
    run_ids: Sequence[str] = (),
    studies: Sequence[str] = (),
    thresholds: Thresholds | None = None,
    cluster: Cluster = ALONE,
) -> Verified:
    """Accept, replace or drop the labels of unverified clips, and log what was decided.

    Args:
        run_ids, studies: as for `ensemble`; several studies are blended by geometric mean.
        thresholds: how sure the models must be.
        cluster: the machines to decide on.

    Raises:
        RunError: runs are missing, unfinished, or do not belong together, a clip has no out-of-fold prediction, or
            there is no unverified clip.
    """
    thresholds = thresholds or Thresholds()
    check_installed(cluster)
    with runs.tracked(STAGE, "verify"):
        chosen = choose(run_ids, studies, allow_incomplete=None)
        every = [record for records in chosen.values() for record in records]
        before = sorted({record.config.labels_run_id for record in every} - {"none"})
        round_number = 1 + max(map(round_of, before), default=0)
        with tempfile.TemporaryDirectory(prefix="fsat-") as name:
            members = [download(record, Path(name)) for record in every]
            table, found = label_table(members, thresholds, cluster)
        runs.rename(f"verify, round {round_number}")
        runs.set_tags({"round": round_number, "labels_run_id": ",".join(before) or "none"})
        return _log(members, table, found, thresholds, round_number)


def label_table(
    members: Sequence[Member], thresholds: Thresholds, cluster: Cluster = ALONE
) -> tuple[pd.DataFrame, Estimate]:
    """``fname,label,new_label,score,decision`` of every training clip, in the members' order; what they rest on."""
    first = members[0]
    blend = blend_members(members)
    clips = first.clips[first.clips["split"] != "test"]
    verified = (clips["manually_verified"] == "1").to_numpy()
    if not blend.covered.all():
        missing = clips["fname"].to_numpy()[~blend.covered]
        raise RunError(
            f"{len(missing)} of {len(clips)} training clips have no out-of-fold prediction of every study, first "
            f"{missing[0]}; expected complete studies that share their clips: train the missing folds with "
            "cross_validate"
        )
    if verified.all():
        raise RunError(f"study {first.record.study}: every label is verified by hand; there is nothing to verify")
    found = estimate(blend.oof, blend.targets, verified)
    if found.warning:
        say(f"warning: study {first.record.study}: {found.warning}")
    parts = map_on(cluster, partial(_decide, found, thresholds), _parts(blend, verified, cluster))
    decisions, classes, confidence = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = np.array([*first.labels, ""], dtype=object)
    columns = (clips["fname"].to_numpy(), clips["label"].astype(str).to_numpy(), names[classes], confidence, decisions)
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True))).round({"score": 6}), found


def estimate(scores: np.ndarray, targets: np.ndarray, verified: np.ndarray) -> Estimate:
    """How many unverified labels are wrong, at least one being unverified.

    Scores are left as they are, but where they find no wrong label and best guesses do: there they are sharpened to fit
    the verified labels, if there are `FEWEST_VERIFIED` or more.

    Args:
        scores: (n, n_classes), out-of-fold predictions.
        targets: int (n,), the clips' labels.
        verified: bool (n,), the label was checked by hand.
    """
    guesses, n_classes = best_guesses(scores, targets), scores.shape[1]
    share, clear_by = wrong_share(guesses.p_label[~verified], n_classes)
    if clear_by < CLEAR:
        return Estimate(share, warning=(
            "its models hardly know more of the unverified labels than a draw would; train a better study before you "
            "train on these labels"
        ))  # fmt: skip
    differs = guesses.guess != targets
    least, n_verified, n_differs = least_wrong(differs, verified), int(verified.sum()), int(differs[~verified].sum())
    what = (
        f"the best guess differs from {n_differs} of {np.sum(~verified)} unverified labels and from "
        f"{np.sum(differs[verified])} of {n_verified} verified ones"
    )
    if least > 2 * share:
        what += f", so that {least:.0%} or more of the unverified are likely wrong; their probabilities say {share:.0%}"
        if share <= NONE_WRONG and n_verified >= FEWEST_VERIFIED:
            sure = clips_to_fit(verified)
            power = sharpness(np.array(scores[sure]), targets[sure])
            again, _ = wrong_share(_of_label(scores, targets, power)[~verified], n_classes)
            if 2 * again >= least:
                return Estimate(again, power, (
                    f"{what}, and {again:.0%} once they are sharpened to fit the verified labels (to the power of "
                    f"{power:.1f}), which is what was decided by; wrong labels may follow a rule that the models have "
                    "learned: check some of labels.csv by ear"
                ))  # fmt: skip
        return Estimate(share, warning=(
            f"{what}: labels are accepted that are likely wrong; train longer or another model before you train on "
            "these labels, or train on verified clips alone, with unverified_weight=0"
        ))  # fmt: skip
    if share <= NONE_WRONG and n_differs and n_verified < FEWEST_VERIFIED:
        return Estimate(share, warning=(
            f"{what}, which are too few to tell whether labels or models are wrong there; the labels are believed: "
            f"check some by ear and set manually_verified to 1, {FEWEST_VERIFIED} in all or more"
        ))  # fmt: skip
    return Estimate(share)


def _of_label(scores: np.ndarray, targets: np.ndarray, power: float) -> np.ndarray:
    """float (n,), the probability of each clip's label by sharpened scores."""
    found = np.empty(len(targets))
    for start, stop in ranges(*scores.shape):
        part = sharpened(scores[start:stop], power)
        found[start:stop] = part[np.arange(stop - start), targets[start:stop]]
        release(scores[start:stop])
    return found


def _parts(blend: Blend, verified: np.ndarray, cluster: Cluster) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Predictions, classes, and whether the label is verified, of some clips at a time."""
    for start, stop in ranges(*blend.oof.shape):
        scores = blend.oof[start:stop]
        yield (scores if cluster.kind == "none" else np.array(scores)), blend.targets[start:stop], verified[start:stop]
        release(scores)


def _decide(
    found: Estimate, thresholds: Thresholds, part: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, ...]:
    """What becomes of the labels of some clips."""
    scores, targets, checked = part
    believed = np.where(checked[:, np.newaxis], scores, beliefs(sharpened(scores, found.power), targets, found.share))
    return decide(believed, targets, checked, thresholds)


def _log(
    members: Sequence[Member], table: pd.DataFrame, found: Estimate, thresholds: Thresholds, round_number: int
) -> Verified:
    first, run_id = members[0], runs.active_run_id()
    studies = list(dict.fromkeys(member.record.study for member in members))
    runs.set_tags({
        "studies": ",".join(studies), "dataset": first.record.dataset, "data_dir": first.record.data_dir,
    } | ({"warning": found.warning} if found.warning else {}))  # fmt: skip
    runs.log_params({f"{name}_at": value for name, value in vars(thresholds).items()})
    runs.log_json([member.record.run_id for member in members], "members.json")
    runs.log_table(table, TABLE)
    counts = {name: int((table["decision"] == name).sum()) for name in DECISIONS}
    runs.log_metrics({f"n_{name}": number for name, number in counts.items()} | {"wrong_share": found.share})
    descriptions.describe(lambda here: run_descriptions.verify(
        round_number, studies, counts, found.share, found.warning, run_id, here
    ))  # fmt: skip
    say(f"verify: run {run_id}: round {round_number}, of {len(table) - counts['verified']} unverified labels, about "
        f"{found.share:.0%} of them wrong, {counts['accept']} are accepted, {counts['relabel']} replaced, "
        f"{counts['drop']} dropped, {counts['keep']} kept as they are")  # fmt: skip
    return Verified(run_id, table, counts, found.share, found.warning)
