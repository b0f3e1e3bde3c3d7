"""Blend the predictions of fold runs that belong together, and score the blend.

Arrays of predictions are memory maps, processed a few rows at a time; memory holds one table of clips and a few numbers
per clip.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.manifest import targets_of
from fsat.errors import ConfigError, RunError, count, printable
from fsat.metrics.blending import Blended, OutOfFold, Weights, cross_fit, fit_weights
from fsat.metrics.ranking import TOP_K, label_ranks, map_of_ranks
from fsat.metrics.row_blocks import Rows, create_rows, iter_blocks
from fsat.metrics.sigmoid_blending import BlendedSigmoids
from fsat.metrics.sigmoid_blending import fit_weights as fit_sigmoids
from fsat.metrics.task_scores import COLUMN_NAMES, SCORE_NAMES, task_of, task_scores
from fsat.model_presets import BLENDS
from fsat.tracking.client import TAG
from fsat.tracking.fold_artifacts import Member, is_test
from fsat.tracking.select_runs import INIT_FROM, INIT_TAGGER


def columns_of(task: str) -> list[str]:
    """Return the columns of the table of scores.

    The scores are ``map3``, ``accuracy`` and ``map3_verified``, or ``lwlrap``, ``map`` and ``lwlrap_verified``.
    ``selected_on`` is that of `Config`: scores on the clips that the weights were selected on are slightly too high.
    ``leak`` is the number of clips that models score although they know them: they have trained on a clip of the same
    recording or sound, or start from weights that have; empty if there are none.
    """
    first, second = SCORE_NAMES[task]
    scores = [first, COLUMN_NAMES[second], f"{first}_verified"]
    return [
        *("kind", "study", "model", "method", "fold", "clips", *scores),
        *("selected_on", "leak", "minutes", "run_id"),
    ]


@dataclass(frozen=True)
class Blend:
    """Predictions of an ensemble.

    Attributes:
        oof: float32 (n_train, n_classes), for each training clip the blend of the members that did not train on it;
            NaN rows where a fold is missing. A memory map, like `test` and `best`.
        covered: bool (n_train,), whether the row of `oof` is a prediction.
        test: float32 (n_test, n_classes), the blend over all members of each study.
        best: int32 (n_test, 3), the most likely classes of each test clip, best first.
        targets: int64 (n_train,), classes; or bool (n_train, n_classes), which classes a clip has.
        verified: bool (n_train,), whether the label is verified by hand.
        method: one of `fsat.model_presets.BLENDS`.
        weights: for ``weighted``, the weight of each study in `test`; in `oof` they are fitted without a clip's fold.
        scores: table with `columns_of` the task: a row for each member, for each study, and for the blend by each
            method.
        task: ``single`` or ``multi``.
        sigmoid: whether each class has a probability of its own.
        folds: int32 (n_train,), the fold of the first study that holds the clip out, -1 for none.
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
    task: str
    sigmoid: bool
    folds: np.ndarray

    @property
    def row(self) -> pd.Series:
        """Row of `scores` of this blend."""
        return self.scores[self.scores["method"] == self.method].iloc[0]

    @property
    def metrics(self) -> dict[str, float]:
        """Scores and weights of the blend, by the names of the run's metrics."""
        row, (first, second) = self.row, SCORE_NAMES[self.task]
        metrics = {f"oof_{name}": row[name] for name in (first, f"{first}_verified")}
        metrics |= {f"oof_{second}": row[COLUMN_NAMES[second]]}
        metrics |= {f"weight_{study}": weight for study, weight in self.weights.items()}
        return {name: float(value) for name, value in metrics.items() if not np.isnan(value)}


def check_method(method: str) -> None:
    """Raise `ConfigError` for an unknown method."""
    if method not in BLENDS:
        raise ConfigError(f"blend={printable(method)}: expected one of {', '.join(BLENDS)}")


def blend_members(members: Sequence[Member], folder: Path | None = None, method: str = "geometric") -> Blend:
    """Blend members that belong together.

    Args:
        members: at least one; those of one study differ in fold.
        folder: new folder for ``oof.npy``, ``test.npy`` and ``best.npy``; by default unnamed files, which are freed
            with the blend.
        method: one of `fsat.model_presets.BLENDS`.

    Raises:
        ConfigError: the method is unknown.
        RunError: members disagree on the dataset, the labels, their order, the clips, or the folds.
        FsatError: the disk is full.
    """
    check_method(method)
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="fsat-") as name:
            return blend_members(members, Path(name), method)
    folder.mkdir(exist_ok=True)
    check_agreement(members)
    first, studies, config = members[0], by_study(members), members[0].record.config
    blended, fit = (BlendedSigmoids, fit_sigmoids) if config.use_sigmoid else (Blended, fit_weights)
    for study in studies.values():
        _check_folds(study)
    targets, verified = _truth(first)
    rows, parts, covered = _score_studies(studies, targets, verified)
    check_scorable(targets, covered)
    weights = cross_fit(parts, targets, verified, covered, fit)
    oof = _out_of_fold(parts, method, weights, blended).fill(create_rows(folder / "oof.npy", first.train.shape))
    for name in BLENDS:
        score = scorer_of(oof if name == method else _out_of_fold(parts, name, weights, blended), targets, verified)
        rows.append(_row("blend", members, score(covered), name))
    best = create_rows(folder / "best.npy", (len(first.test), min(TOP_K, len(first.labels))), np.int32)
    test = create_rows(folder / "test.npy", first.test.shape)
    blended([[member.test for member in folds] for folds in studies.values()], method, weights.final).fill(test, best)
    study_weights = dict(zip(studies, weights.final.tolist(), strict=True)) if method == "weighted" else {}
    scores = pd.DataFrame(rows, columns=columns_of(config.task))
    facts = config.task, config.use_sigmoid, parts[0].owner
    return Blend(oof, covered, test, best, targets, verified, method, study_weights, scores, *facts)


def by_study(members: Sequence[Member]) -> dict[str, list[Member]]:
    """Return the members of each study, in order."""
    studies = dict.fromkeys(member.record.study for member in members)
    return {study: [member for member in members if member.record.study == study] for study in studies}


def _score_studies(
    studies: dict[str, list[Member]], targets: np.ndarray, verified: np.ndarray
) -> tuple[list[list], list[OutOfFold], np.ndarray]:
    """Return rows of the table of scores, predictions by study, and bool (n_train,): all studies predict the clip."""
    rows, parts, everywhere = [], [], np.ones(len(targets), dtype=bool)
    for members in studies.values():
        oof = OutOfFold([member.train for member in members], [member.facts.held_out for member in members])
        covered, score = _has_prediction(oof), scorer_of(oof, targets, verified)
        parts.append(oof)
        everywhere &= covered
        for member in members:  # the rows of its own fold are those of the study
            rows.append(_row("member", [member], score(member.facts.held_out)))
        rows.append(_row("study", members, score(covered)))
    return rows, parts, everywhere


def _row(kind: str, members: Sequence[Member], scores: list[float], method: str = "") -> list:
    """Return a row of the table of scores."""
    records = [member.record for member in members]
    studies = "+".join(dict.fromkeys(record.study for record in records))
    models = "+".join(dict.fromkeys(record.config.model for record in records))
    fold, run_id = (records[0].fold, records[0].run_id) if kind == "member" else ("", "")
    minutes = sum(record.minutes for record in records)
    leak = " and ".join(dict.fromkeys(part.partition(":")[0] for part in leak_of(members).split("; ")))
    return [kind, studies, models, method, fold, *scores, selected_on(members), leak, minutes, run_id]


def selected_on(members: Sequence[Member]) -> str:
    """Return what the members' weights were selected on, joined by + where it differs."""
    return "+".join(dict.fromkeys(member.record.config.selected_on for member in members))


def leak_of(members: Sequence[Member]) -> str:
    """Return the members' leaks, see `FoldRun.leak`, joined by a semicolon where they differ."""
    return "; ".join(filter(None, dict.fromkeys(member.record.leak for member in members)))


def origins_of(members: Sequence[Member]) -> dict[str, str]:
    """Return the tags that say which earlier taggers the members start from; empty if they start from none."""
    tags = [member.record.run.data.tags for member in members]
    values = {name: dict.fromkeys(tag.get(TAG + name, "") for tag in tags) for name in (INIT_FROM, INIT_TAGGER)}
    return {name: text for name, found in values.items() if (text := ",".join(filter(None, found)))}


def _out_of_fold(parts: list[OutOfFold], method: str, weights: Weights, blended: type[Blended]) -> Blended:
    """Return the blend of out-of-fold predictions; a clip's weights are fitted without its fold."""
    if method == "weighted":
        return blended([[part] for part in parts], method, weights.by_fold, parts[0].owner)
    return blended([parts], method)


def check_agreement(members: Sequence[Member]) -> None:
    """Raise `RunError` where a member disagrees with the first, naming both runs and the difference."""
    first = members[0].record
    for member in members:
        record, facts = member.record, member.facts
        for name, array, clips in (("train", member.train, facts.n_train), ("test", member.test, facts.n_test)):
            shape = (clips, len(member.labels))
            if array.shape != shape:
                fault = f"predictions/{name}.npy has shape {array.shape}, expected {shape}"
                raise RunError(f"run {record.run_id}: {fault}; train fold {record.fold} again")
        for topic, value in _agreed(member).items():
            if value != (other := _agreed(members[0])[topic]):
                both = " disagrees with ".join(f"run {each.run_id} (study {each.study})" for each in (record, first))
                raise RunError(f"{both} on {_difference(topic, value, other)}")


def _difference(topic: str, value: object, other: object) -> str:
    """Return what two members disagree on, and what to do."""
    if topic in ("task", "reject"):
        return (
            f"the setting {topic} ({value}, not {other}), so that their scores differ in kind; blend runs of one kind"
        )
    return f"the {topic}; blend runs of one dataset only"


def check_scorable(targets: np.ndarray, covered: np.ndarray) -> None:
    """Raise `RunError` if no clip has a prediction of every study, or none of those that have one has a label."""
    if not covered.any():
        fault = "no training clip is held out by a member of every study, so the blend cannot be scored"
        raise RunError(f"{fault}; expected studies that share at least one fold's clips")
    if task_of(targets) == "multi" and not targets[covered].any():
        fault = f"none of {count(int(covered.sum()), 'clip')} that the runs hold out has a label"
        raise RunError(f"{fault}, so the blend cannot be scored; blend them with runs of other folds")


def _check_folds(members: Sequence[Member]) -> None:
    """Raise `RunError` if members of a study hold out the same clip, or all of them together not every clip."""
    owner = np.full(members[0].facts.n_train, -1)
    for i, member in enumerate(members):
        held_out = member.facts.held_out
        if len(both := np.flatnonzero(held_out & (owner >= 0))):
            other = members[owner[both[0]]]
            runs = " and ".join(f"run {m.record.run_id} (fold {m.record.fold})" for m in (other, member))
            raise _other_split(member, f"{runs} both hold out {_clips_at(member, both)}")
        owner[held_out] = i
    if len(members) == members[0].record.config.n_folds and len(missing := np.flatnonzero(owner < 0)):
        raise _other_split(members[-1], f"none of its folds holds out {_clips_at(members[-1], missing)}")


def _other_split(member: Member, fault: str) -> RunError:
    record = member.record
    cause = "its folds come from different splits, such as those of two versions of scikit-learn"
    return RunError(f"study {record.study}: {fault}; {cause}: train fold {record.fold} again with resume=false")


def _clips_at(member: Member, rows: np.ndarray) -> str:
    """Return the name of the first of these training clips, and the number of the others."""
    others = f" and {count(len(rows) - 1, 'other clip')}" if len(rows) > 1 else ""
    return printable(member.clips["fname"].iloc[rows[0]]) + others


def _agreed(member: Member) -> dict[str, object]:
    """Return what all members of a blend must have in common."""
    config = member.record.config
    kinds = {"task": config.task, "reject": "auto" if config.use_sigmoid else "none"}  # scores of one kind
    clips = {"training clips": member.facts.train, "test clips": member.facts.test}
    return {**kinds, "labels": member.labels, **clips, "dataset": member.record.dataset}


def _truth(member: Member) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets of each training clip, see `targets_of`, and whether they are verified by hand, bool."""
    clips = member.clips.loc[~is_test(member.clips), ["label", "manually_verified"]]
    names = clips["label"].cat.remove_unused_categories().cat
    try:
        targets = targets_of(names.categories.to_series(), member.labels, member.record.config.task)[names.codes]
    except KeyError:
        fault = "predictions/clips.csv has a label that is not in labels.json"
        raise RunError(f"run {member.record.run_id}: {fault}; train fold {member.record.fold} again") from None
    return targets, (clips["manually_verified"] == "1").to_numpy()


def _has_prediction(scores: Rows) -> np.ndarray:
    """Return which rows have no NaN, bool (n_clips,)."""
    return np.concatenate([~np.isnan(block).any(axis=1) for _, block in iter_blocks(scores)])


def scorer_of(scores: Rows, targets: np.ndarray, verified: np.ndarray) -> Callable[[np.ndarray], list[float]]:
    """Return a function of a mask of clips: their number, the task's two scores, and the first on verified clips.

    `scores` (n_clips, n_classes) are read once. A score is NaN where it is undefined.
    """
    if task_of(targets) == "single":
        ranks = label_ranks(scores, targets)
        return lambda where: _of_ranks(ranks, verified, where)

    first, second = SCORE_NAMES["multi"]

    def score(where: np.ndarray) -> list[float]:
        values = task_scores(chosen_rows(scores, where), targets[where])
        checked = task_scores(chosen_rows(scores, where & verified), targets[where & verified])
        return [
            int(where.sum()),
            *(values.get(name, math.nan) for name in (first, second)),
            checked.get(first, math.nan),
        ]

    return score


def _of_ranks(ranks: np.ndarray, verified: np.ndarray, where: np.ndarray) -> list[float]:
    chosen = ranks[where]
    accuracy = float((chosen == 0).mean()) if len(chosen) else math.nan
    return [len(chosen), map_of_ranks(chosen), accuracy, map_of_ranks(ranks[where & verified])]


def chosen_rows(scores: Rows, where: np.ndarray) -> np.ndarray:
    """Return the rows of a mask, bool (n_clips,), in memory."""
    result, done = np.empty((int(where.sum()), scores.shape[1]), np.float32), 0
    for rows, block in iter_blocks(scores):
        part = block[where[rows]]
        result[done : done + len(part)] = part
        done += len(part)
    return result
