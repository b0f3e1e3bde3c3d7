"""From members to a blend: do they belong together, what do they give together, and how good is it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fsat.errors import RunError
from fsat.scoring.blend import blend_studies, geometric_mean, out_of_fold
from fsat.scoring.metrics import accuracy, map_at_k
from fsat.tracking.members import Member


@dataclass(frozen=True)
class Blend:
    """Predictions of an ensemble.

    Attributes:
        oof: float32 (n_train, n_classes), for each training clip the blend of the predictions of each study's one
            member that did not train on it; NaN rows where a fold is missing.
        test: float32 (n_test, n_classes), the geometric mean over all members, each study counting alike.
        targets: int64 (n_train,).
        scores: ``kind, study, model, fold, clips, map3, accuracy, map3_verified, minutes, run_id``: a row for each
            member on its own fold, each study's out-of-fold predictions, and the blend's.
    """

    oof: np.ndarray
    test: np.ndarray
    targets: np.ndarray
    scores: pd.DataFrame

    @property
    def metrics(self) -> dict[str, float]:
        """The blend's own scores under the names that the run logs."""
        row = self.scores[self.scores["kind"] == "blend"].iloc[0]
        metrics = {"oof_map3": row["map3"], "oof_acc": row["accuracy"], "oof_map3_verified": row["map3_verified"]}
        return {name: float(value) for name, value in metrics.items() if not np.isnan(value)}


def blend_members(members: Sequence[Member]) -> Blend:
    """Blend members that belong together.

    Args:
        members: at least one; those of one study differ in fold.

    Raises:
        RunError: members disagree on the dataset, the labels, their order, or the clips.
    """
    check_agreement(members)
    first = members[0]
    studies: dict[str, list[Member]] = {}
    for member in members:
        studies.setdefault(member.record.study, []).append(member)

    train = first.clips[first.clips["split"] != "test"]
    targets = train["label"].map({label: i for i, label in enumerate(first.labels)}).to_numpy(dtype=np.int64)
    verified = train["manually_verified"].to_numpy() == "1"

    rows, parts = [], {}
    for study, folds in studies.items():
        oof = out_of_fold([member.train for member in folds], [member.held_out for member in folds])
        parts[study] = oof
        for member in folds:
            record = member.record
            scores = _scores(member.train, targets, verified, member.held_out)
            rows.append(["member", study, record.config.model, record.fold, *scores, record.minutes, record.run_id])
        minutes = sum(member.record.minutes for member in folds)
        scores = _scores(oof, targets, verified, _rows(oof))
        rows.append(["study", study, folds[0].record.config.model, "", *scores, minutes, ""])

    oof = np.full_like(next(iter(parts.values())), np.nan)
    covered = np.logical_and.reduce([_rows(part) for part in parts.values()])
    if not covered.any():
        raise RunError(
            "no training clip is held out by a member of every study, so the blend cannot be scored; "
            "expected studies that share at least one fold's clips"
        )
    oof[covered] = geometric_mean([part[covered] for part in parts.values()])
    test = blend_studies([[member.test for member in folds] for folds in studies.values()])
    models = "+".join(dict.fromkeys(folds[0].record.config.model for folds in studies.values()))
    minutes = sum(member.record.minutes for member in members)
    rows.append(["blend", "+".join(studies), models, "", *_scores(oof, targets, verified, covered), minutes, ""])
    columns = ["kind", "study", "model", "fold", "clips", "map3", "accuracy", "map3_verified", "minutes", "run_id"]
    return Blend(oof, test, targets, pd.DataFrame(rows, columns=columns))


def check_agreement(members: Sequence[Member]) -> None:
    """Raise `RunError` where a member disagrees with the first, naming both runs and what they disagree on."""
    first = members[0]
    for member in members:
        record = member.record
        shape = (len(member.clips[member.clips["split"] != "test"]), len(member.labels))
        if member.train.shape != shape:
            raise RunError(
                f"run {record.run_id}: predictions/train.npy has shape {member.train.shape}, expected {shape}; "
                f"train fold {record.fold} again"
            )
        for what, mine, others in (
            ("labels", member.labels, first.labels),
            ("training clips", _clips(member, False), _clips(first, False)),
            ("test clips", _clips(member, True), _clips(first, True)),
            ("dataset", record.dataset, first.record.dataset),
        ):
            if mine != others:
                raise RunError(
                    f"run {record.run_id} (study {record.study}) disagrees with run {first.record.run_id} "
                    f"(study {first.record.study}) on the {what}; blend runs of one dataset only"
                )


def _clips(member: Member, test: bool) -> list[list[str]]:
    clips = member.clips
    return clips.loc[(clips["split"] == "test") == test, ["fname", "label", "manually_verified"]].to_numpy().tolist()


def _rows(scores: np.ndarray) -> np.ndarray:
    """Bool (n_clips,): the row has a prediction."""
    return ~np.isnan(scores).any(axis=1)


def _scores(scores: np.ndarray, targets: np.ndarray, verified: np.ndarray, where: np.ndarray) -> list[float]:
    """Clips, mAP@3, accuracy, and mAP@3 on verified clips, over the rows in `where`."""
    both = where & verified
    return [
        int(where.sum()),
        map_at_k(scores[where], targets[where]),
        accuracy(scores[where], targets[where]),
        map_at_k(scores[both], targets[both]),
    ]
