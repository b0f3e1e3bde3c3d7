"""Entry point `verify`: a study's out-of-fold predictions decide which unverified labels can be trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.errors import RunError
from fsat.launch import ALONE, Cluster
from fsat.pipeline.blending import Blend, blend_members
from fsat.pipeline.choosing import choose
from fsat.pipeline.cluster import map_on
from fsat.pipeline.ray_connection import check_installed
from fsat.progress import say
from fsat.reports import descriptions
from fsat.scoring.guesses import best_guesses
from fsat.scoring.rows import ranges, release
from fsat.scoring.verification import CLEAR, DECISIONS, beliefs, decide, wrong_share
from fsat.thresholds import Thresholds
from fsat.tracking import notes, runs
from fsat.tracking.labels import COLUMNS, STAGE, TABLE, round_of
from fsat.tracking.members import Member, download


@dataclass(frozen=True)
class Verified:
    """What `verify` has decided.

    Attributes:
        run_id: of its run, which `train_fold` takes as ``labels_run_id``.
        table: ``fname,label,new_label,score,decision``, every training clip.
        counts: clips by decision.
        wrong_share: the share of unverified labels that is believed to be wrong.
    """

    run_id: str
    table: pd.DataFrame
    counts: dict[str, int]
    wrong_share: float


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
            table, share = label_table(members, thresholds, cluster)
        runs.rename(f"verify, round {round_number}")
        runs.set_tags({"round": round_number, "labels_run_id": ",".join(before) or "none"})
        return _log(members, table, share, thresholds, round_number)


def label_table(
    members: Sequence[Member], thresholds: Thresholds, cluster: Cluster = ALONE
) -> tuple[pd.DataFrame, float]:
    """``fname,label,new_label,score,decision`` of every training clip, in the members' order; share of wrong labels."""
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
    of_label = best_guesses(blend.oof, blend.targets).p_label
    share, clear_by = wrong_share(of_label[~verified], len(first.labels))
    if clear_by < CLEAR:
        say(f"warning: study {first.record.study}: its models hardly know more of the unverified labels than a draw "
            "would; train a better study before you train on these labels")  # fmt: skip
    parts = map_on(cluster, partial(_decide, share, thresholds), _parts(blend, verified, cluster))
    decisions, classes, confidence = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = np.array([*first.labels, ""], dtype=object)
    columns = (clips["fname"].to_numpy(), clips["label"].astype(str).to_numpy(), names[classes], confidence, decisions)
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True))).round({"score": 6}), share


def _parts(blend: Blend, verified: np.ndarray, cluster: Cluster) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Predictions, classes, and whether the label is verified, of some clips at a time."""
    for start, stop in ranges(*blend.oof.shape):
        scores = blend.oof[start:stop]
        yield (scores if cluster.kind == "none" else np.array(scores)), blend.targets[start:stop], verified[start:stop]
        release(scores)


def _decide(
    share: float, thresholds: Thresholds, part: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, ...]:
    """What becomes of the labels of some clips."""
    scores, targets, checked = part
    believed = np.where(checked[:, np.newaxis], scores, beliefs(scores, targets, share))
    return decide(believed, targets, checked, thresholds)


def _log(
    members: Sequence[Member], table: pd.DataFrame, share: float, thresholds: Thresholds, round_number: int
) -> Verified:
    first, run_id = members[0], runs.active_run_id()
    studies = list(dict.fromkeys(member.record.study for member in members))
    runs.set_tags({
        "studies": ",".join(studies), "dataset": first.record.dataset, "data_dir": first.record.data_dir,
    })  # fmt: skip
    runs.log_params({f"{name}_at": value for name, value in vars(thresholds).items()})
    runs.log_json([member.record.run_id for member in members], "members.json")
    runs.log_table(table, TABLE)
    counts = {name: int((table["decision"] == name).sum()) for name in DECISIONS}
    runs.log_metrics({f"n_{name}": number for name, number in counts.items()} | {"wrong_share": share})
    notes.describe(lambda here: descriptions.verification(round_number, studies, counts, share, run_id, here))
    say(f"verify: run {run_id}: round {round_number}, of {len(table) - counts['verified']} unverified labels, about "
        f"{share:.0%} of them wrong, {counts['accept']} are accepted, {counts['relabel']} replaced, "
        f"{counts['drop']} dropped, {counts['keep']} kept as they are")  # fmt: skip
    return Verified(run_id, table, counts, share)
