"""From members to a blend: do they belong together, what do they give together, and how good is it?

Arrays of predictions are memory maps throughout, gone through a few rows at a time; what is held in memory is one table
of clips and a few numbers a clip.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.errors import ConfigError, RunError, printable
from fsat.metrics.blending import Blended, OutOfFold, Weights, cross_fit
from fsat.metrics.ranking import TOP_K, label_ranks, map_of_ranks
from fsat.metrics.row_blocks import Rows, create_rows, map_blocks
from fsat.presets import BLENDS
from fsat.tracking.fold_artifacts import Member

COLUMNS = [
    "kind", "study", "model", "method", "fold", "clips", "map3", "accuracy", "map3_verified", "selected_on", "minutes",
    "run_id",
]  # fmt: skip
"""Of the table of scores. What the weights were selected on is as in `Config.selected_on`: a score is a little too good
where that is the fold that is scored."""


@dataclass(frozen=True)
class Blend:
    """Predictions of an ensemble.

    Attributes:
        oof: float32 (n_train, n_classes), for each training clip the blend of the predictions of each study's one
            member that did not train on it; NaN rows where a fold is missing. A memory map, as is all of the test
            clips.
        covered: bool (n_train,), the row of `oof` is a prediction.
        test: float32 (n_test, n_classes), the blend over all members of each study.
        best: int32 (n_test, 3), the most likely classes of each test clip, best first.
        targets: int64 (n_train,).
        verified: bool (n_train,), someone has verified the label.
        method: how `oof` and `test` are blended, one of `fsat.presets.BLENDS`.
        weights: for ``weighted`` what each study counts in `test`, by study, in order; empty for other methods. In
            `oof` a clip's weights are those that were fitted without the clips of its fold.
        scores: has `COLUMNS`: a row for each member on its own fold, each study's out-of-fold predictions, and the
            blend's by each method, whichever was chosen.
    """

    oof: np.ndarray
    covered: np.ndarray
    test: np.ndarray
    best: np.ndarray
    targets: np.ndarray
    verified: np.ndarray
    method: str
    weights: dict[str, float]
    scores: pd.DataFrame

    @property
    def row(self) -> pd.Series:
        """The row of `scores` that is this blend's."""
        return self.scores[self.scores["method"] == self.method].iloc[0]

    @property
    def metrics(self) -> dict[str, float]:
        """The blend's own scores, and its weights, under the names that the run logs."""
        row = self.row
        metrics = {"oof_map3": row["map3"], "oof_acc": row["accuracy"], "oof_map3_verified": row["map3_verified"]}
        metrics |= {f"weight_{study}": weight for study, weight in self.weights.items()}
        return {name: float(value) for name, value in metrics.items() if not np.isnan(value)}


def check_method(method: str) -> None:
    """Raise `ConfigError` if there is no such way to blend."""
    if method not in BLENDS:
        raise ConfigError(f"blend={printable(method)}: expected one of {', '.join(BLENDS)}")


def blend_members(members: Sequence[Member], folder: Path | None = None, method: str = "geometric") -> Blend:
    """Blend members that belong together.

    Args:
        members: at least one; those of one study differ in fold.
        folder: where ``oof.npy``, ``test.npy`` and ``best.npy`` are made; by default they are files without a name,
            which go when the blend is let go of.
        method: one of `fsat.presets.BLENDS`.

    Raises:
        ConfigError: there is no such method.
        RunError: members disagree on the dataset, the labels, their order, or the clips.
        FsatError: the disk has no room for the blend.
    """
    check_method(method)
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="fsat-") as name:
            return blend_members(members, Path(name), method)
    check_agreement(members)
    first = members[0]
    studies: dict[str, list[Member]] = {}
    for member in members:
        studies.setdefault(member.record.study, []).append(member)
    targets, verified = _truth(first)
    rows, parts, everywhere = _score_studies(studies, targets, verified)
    if not everywhere.any():
        raise RunError(
            "no training clip is held out by a member of every study, so the blend cannot be scored; "
            "expected studies that share at least one fold's clips"
        )
    weights = cross_fit(parts, targets, verified, everywhere)
    oof = _out_of_fold(parts, method, weights).fill(create_rows(folder / "oof.npy", first.train.shape))
    models = "+".join(dict.fromkeys(folds[0].record.config.model for folds in studies.values()))
    minutes = sum(member.record.minutes for member in members)
    for name in BLENDS:
        places, _ = _places(oof if name == method else _out_of_fold(parts, name, weights), targets)
        scores = _scores(places, verified, everywhere)
        rows.append(["blend", "+".join(studies), models, name, "", *scores, selected_on(members), minutes, ""])
    best = create_rows(folder / "best.npy", (len(first.test), min(TOP_K, len(first.labels))), np.int32)
    test = create_rows(folder / "test.npy", first.test.shape)
    members_by_study = [[member.test for member in folds] for folds in studies.values()]
    Blended(members_by_study, method, weights.final).fill(test, best)
    by_study = dict(zip(studies, weights.final.tolist(), strict=True)) if method == "weighted" else {}
    table = pd.DataFrame(rows, columns=COLUMNS)
    return Blend(oof, everywhere, test, best, targets, verified, method, by_study, table)


def _score_studies(
    studies: dict[str, list[Member]], targets: np.ndarray, verified: np.ndarray
) -> tuple[list[list], list[OutOfFold], np.ndarray]:
    """Rows of the table of scores, the studies' predictions, and bool (n_train,): every study has one of the clip."""
    rows, parts, everywhere = [], [], np.ones(len(targets), dtype=bool)
    for study, folds in studies.items():
        oof = OutOfFold([member.train for member in folds], [member.held_out for member in folds])
        places, covered = _places(oof, targets)
        parts.append(oof)
        everywhere &= covered
        for member in folds:  # its own fold's rows are the study's
            record = member.record
            scores = _scores(places, verified, member.held_out)
            facts = [*scores, selected_on([member]), record.minutes, record.run_id]
            rows.append(["member", study, record.config.model, "", record.fold, *facts])
        minutes = sum(member.record.minutes for member in folds)
        scores = _scores(places, verified, covered)
        rows.append(["study", study, folds[0].record.config.model, "", "", *scores, selected_on(folds), minutes, ""])
    return rows, parts, everywhere


def selected_on(members: Sequence[Member]) -> str:
    """What the members' weights were selected on, joined by + where that differs."""
    return "+".join(dict.fromkeys(member.record.config.selected_on for member in members))


def _out_of_fold(parts: list[OutOfFold], method: str, weights: Weights) -> Blended:
    """The blend of the studies' out-of-fold predictions; a clip's weights were fitted without its fold."""
    if method == "weighted":
        return Blended([[part] for part in parts], method, weights.by_fold, parts[0].owner)
    return Blended([parts], method)


def check_agreement(members: Sequence[Member]) -> None:
    """Raise `RunError` where a member disagrees with the first, naming both runs and what they disagree on."""
    first = members[0]
    for member in members:
        record = member.record
        facts = member.facts
        for name, array, clips in (("train", member.train, facts.n_train), ("test", member.test, facts.n_test)):
            shape = (clips, len(member.labels))
            if array.shape != shape:
                raise RunError(
                    f"run {record.run_id}: predictions/{name}.npy has shape {array.shape}, expected {shape}; "
                    f"train fold {record.fold} again"
                )
        for what, mine, others in (
            ("labels", member.labels, first.labels),
            ("training clips", facts.train, first.facts.train),
            ("test clips", facts.test, first.facts.test),
            ("dataset", record.dataset, first.record.dataset),
        ):
            if mine != others:
                raise RunError(
                    f"run {record.run_id} (study {record.study}) disagrees with run {first.record.run_id} "
                    f"(study {first.record.study}) on the {what}; blend runs of one dataset only"
                )


def _truth(member: Member) -> tuple[np.ndarray, np.ndarray]:
    """Of the training clips: int64 (n_train,), the class, and bool (n_train,), someone has verified it."""
    clips = member.clips
    train = (clips["split"] != "test").to_numpy()
    names = clips["label"].cat
    number = {label: i for i, label in enumerate(member.labels)}
    classes = np.array([number.get(name, -1) for name in names.categories], dtype=np.int64)
    targets = classes[names.codes.to_numpy()[train]]
    if (targets < 0).any():
        record = member.record
        raise RunError(
            f"run {record.run_id}: predictions/clips.csv has a label that is not in labels.json; "
            f"train fold {record.fold} again"
        )
    return targets, (clips["manually_verified"] == "1").to_numpy()[train]


def _places(scores: Rows, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`label_ranks`, and bool (n_clips,): the row has a prediction."""
    places = np.empty(len(targets), dtype=np.uint8)
    covered = np.empty(len(targets), dtype=bool)

    def work(rows: slice, block: np.ndarray) -> None:
        covered[rows] = ~np.isnan(block).any(axis=1)
        places[rows] = label_ranks(block, targets[rows])

    map_blocks(scores, work)
    return places, covered


def _scores(places: np.ndarray, verified: np.ndarray, where: np.ndarray) -> list[float]:
    """Clips, mAP@3, accuracy, and mAP@3 on verified clips, over the rows in `where`."""
    here = places[where]
    accuracy = float((here == 0).mean()) if len(here) else float("nan")
    return [len(here), map_of_ranks(here), accuracy, map_of_ranks(places[where & verified])]
