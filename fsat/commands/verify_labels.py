"""Command `verify`: decide by a study's out-of-fold predictions which unverified labels to train on."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.commands.blend_members import Blend, blend_members, chosen_rows, leak_of
from fsat.commands.verify_multilabel import decide_pairs, estimate_pairs
from fsat.errors import RunError, count
from fsat.metrics import label_noise
from fsat.metrics.blending import FEWEST_VERIFIED, TINY, clips_to_fit
from fsat.metrics.ranking import best_guesses
from fsat.metrics.row_blocks import Scores, iter_blocks
from fsat.options import Thresholds
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.tracking import mlflow_ui, runs
from fsat.tracking.fold_artifacts import Member, download, is_test
from fsat.tracking.select_runs import CLASSES_TABLE, LABELS_COLUMNS, LABELS_TABLE, VERIFY_STAGE, choose, round_of

BY_CHANCE = "its models hardly know more of the unverified labels than a draw would; train a better study first"
SHARPENED = (
    ", and {share:.0%} once they are sharpened to fit the verified labels (to the power of {power:.1f}), by which the "
    "decisions were made; wrong labels may follow a rule that the models have learned: check some of labels.csv by ear"
)
LIKELY_WRONG = (
    ": labels are accepted that are likely wrong; train longer or another model before you train on these labels, or "
    "train on verified clips alone, with unverified_weight=0"
)
TOO_FEW_VERIFIED = (
    ", which are too few to tell whether labels or models are wrong there; the labels are believed: check some by ear "
    f"and set manually_verified to 1, {FEWEST_VERIFIED} in all or more"
)


@dataclass(frozen=True)
class Verified:
    """Result of `verify`; `run_id` is for ``labels_run_id``.

    Attributes:
        table: ``fname,label,new_label,score,decision`` of every training clip; or that of `pair_table`, where a clip
            has any number of labels.
        counts: number of clips by decision, or of labels and their absences, see `DecidedPairs`.
        wrong_share: estimated share of wrong labels among the unverified ones.
        warning: reason not to rely on the estimate, empty if there is none.
        missing_share: estimated share of sounds in unverified clips without their label; None if a clip has one label.
        classes: numbers by class, see `DecidedPairs`; None if a clip has one label.
    """

    run_id: str
    table: pd.DataFrame
    counts: dict[str, int]
    wrong_share: float
    warning: str
    missing_share: float | None = None
    classes: pd.DataFrame | None = None


@dataclass(frozen=True)
class Estimate:
    """Estimated share of wrong labels; the scores are to be sharpened to `power`; `warning` as in `Verified`."""

    share: float
    power: float = 1.0
    warning: str = ""


def verify(run_ids: Sequence[str] = (), studies: Sequence[str] = (), thresholds: Thresholds | None = None) -> Verified:
    """Accept, replace or drop the labels of unverified clips, and log the decisions.

    Where clips have any number of labels, wrong ones are removed and missing ones are added. Several studies are
    blended by geometric mean.

    Raises:
        RunError: runs are missing, unfinished, or do not belong together, a clip has no out-of-fold prediction, or
            every clip is verified.
    """
    thresholds = thresholds or Thresholds()
    with runs.tracked(VERIFY_STAGE, "verify"):
        chosen = choose(run_ids, studies, allow_incomplete=None)
        records = [record for study in chosen.values() for record in study]
        before = sorted({record.config.labels_run_id for record in records} - {"none"})
        round_number = 1 + max(map(round_of, before), default=0)
        with tempfile.TemporaryDirectory(prefix="fsat-") as name:
            members = [download(record, Path(name)) for record in records]
            is_multi = records[0].config.is_multi
            decided = decide_labels(members, thresholds) if is_multi else decide_label(members, thresholds)
        runs.rename(f"verify, round {round_number}")
        runs.set_tags({"round": round_number, "labels_run_id": ",".join(before) or "none"})
        decided = replace(decided, run_id=runs.active_run_id())
        _log(members, decided, thresholds, round_number)
        return decided


def decide_label(members: Sequence[Member], thresholds: Thresholds) -> Verified:
    """Return the decision on the label of every training clip; the `Verified` has no run."""
    table, found = label_table(members, thresholds)
    counts = {name: int((table["decision"] == name).sum()) for name in label_noise.DECISIONS}
    return Verified("", table, counts, found.share, found.warning)


def decide_labels(members: Sequence[Member], thresholds: Thresholds) -> Verified:
    """Return the decisions on clips with any number of labels; the `Verified` has no run."""
    blend, clips = _to_verify(members)
    labels = members[0].labels
    found = estimate_pairs(blend.oof, blend.targets, blend.verified, blend.folds, labels)
    warning = _warning(members, found.warning)
    decided = decide_pairs(found, blend.targets, blend.verified, clips["fname"].tolist(), labels, thresholds)
    shares = found.wrong_share, warning, found.missing_share
    return Verified("", decided.table, decided.counts, *shares, decided.classes)


def label_table(members: Sequence[Member], thresholds: Thresholds) -> tuple[pd.DataFrame, Estimate]:
    """Return ``fname,label,new_label,score,decision`` of every training clip, and the estimate behind the decisions."""
    first = members[0]
    blend, clips = _to_verify(members)
    verified, oof = blend.verified, _Normalised(blend.oof) if blend.sigmoid else blend.oof
    found = estimate(oof, blend.targets, verified)
    found = replace(found, warning=_warning(members, found.warning))
    decisions, classes, confidence = _decide(oof, blend.targets, verified, found, thresholds)
    names = np.array([*first.labels, ""], dtype=object)
    columns = (clips["fname"].to_numpy(), clips["label"].astype(str).to_numpy(), names[classes], confidence, decisions)
    return pd.DataFrame(dict(zip(LABELS_COLUMNS, columns, strict=True))).round({"score": 6}), found


class _Normalised:
    """`Rows` of sigmoid scores, scaled to sum to 1: that of a clip with one label, whatever else may be heard."""

    def __init__(self, scores: Scores) -> None:
        self._scores, self.shape, self.dtype = scores, scores.shape, scores.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        block = np.maximum(self._scores[rows], TINY)
        return np.asarray(block / block.sum(axis=1, keepdims=True))


def _to_verify(members: Sequence[Member]) -> tuple[Blend, pd.DataFrame]:
    """Return the blend of the members, and the table of the training clips, of which some are not verified."""
    first = members[0]
    blend = blend_members(members)
    clips = first.clips[~is_test(first.clips)]
    if not blend.covered.all():
        missing = clips["fname"].to_numpy()[~blend.covered]
        lack = "lacks" if len(missing) == 1 else "lack"
        fault = f"{len(missing)} of {count(len(clips), 'training clip')} {lack} an out-of-fold prediction of a study"
        advice = "expected complete studies that share their clips: train the missing folds with cross_validate"
        raise RunError(f"{fault}, first {missing[0]}; {advice}")
    if blend.verified.all():
        raise RunError(f"study {first.record.study}: every label is verified by hand; there is nothing to verify")
    return blend, clips


def _warning(members: Sequence[Member], doubt: str) -> str:
    """Return the reasons not to rely on an estimate, and tell them: `doubt`, which may be empty, and leaks."""
    leak = leak_of(members)
    seen = leak and f"models have seen clips that they judge ({leak}), so too many labels are accepted"
    if warning := "; ".join(filter(None, [doubt, seen])):
        say(f"warning: study {members[0].record.study}: {warning}")
    return warning


def estimate(scores: Scores, targets: np.ndarray, verified: np.ndarray) -> Estimate:
    """Estimate how many unverified labels are wrong; at least one label must be unverified.

    Scores stay unchanged unless they show no wrong label where best guesses do: then they are sharpened to fit the
    verified labels, if there are `FEWEST_VERIFIED` or more.

    Args:
        scores: (n, n_classes), out-of-fold predictions.
        targets: int (n,), labels.
        verified: bool (n,), whether the label was checked by hand.
    """
    guesses, n_classes = best_guesses(scores, targets), scores.shape[1]
    share, clear_by = label_noise.wrong_share(guesses.p_label[~verified], n_classes)
    if clear_by < label_noise.CLEAR:
        return Estimate(share, warning=BY_CHANCE)
    differs = guesses.guess != targets
    least = label_noise.least_wrong(differs, verified)
    n_verified, n_differs = int(verified.sum()), int(differs[~verified].sum())
    of_unverified = f"{n_differs} of {count(np.sum(~verified), 'unverified label')}"
    of_verified = f"{np.sum(differs[verified])} of {count(n_verified, 'verified one')}"
    evidence = f"the best guess differs from {of_unverified} and from {of_verified}"
    if least > 2 * share:
        likely = f"{least:.0%} or more of the unverified are likely wrong"
        evidence += f", so that {likely}; their probabilities say {share:.0%}"
        if share <= label_noise.NONE_WRONG and n_verified >= FEWEST_VERIFIED:
            again, power = _sharpened_share(scores, targets, verified)
            if 2 * again >= least:
                return Estimate(again, power, evidence + SHARPENED.format(share=again, power=power))
        return Estimate(share, warning=evidence + LIKELY_WRONG)
    if share <= label_noise.NONE_WRONG and n_differs and n_verified < FEWEST_VERIFIED:
        return Estimate(share, warning=evidence + TOO_FEW_VERIFIED)
    return Estimate(share)


def _sharpened_share(scores: Scores, targets: np.ndarray, verified: np.ndarray) -> tuple[float, float]:
    """Return the share of wrong labels by scores sharpened to fit the verified labels, and the exponent."""
    fitted = np.isin(np.arange(len(verified)), clips_to_fit(verified))
    power = label_noise.sharpness(chosen_rows(scores, fitted), targets[fitted])
    p_label = np.empty(len(targets))
    for rows, block in iter_blocks(scores):
        p_label[rows] = label_noise.sharpened(block, power)[np.arange(len(block)), targets[rows]]
    return label_noise.wrong_share(p_label[~verified], scores.shape[1])[0], power


def _decide(
    scores: Scores, targets: np.ndarray, verified: np.ndarray, found: Estimate, thresholds: Thresholds
) -> list[np.ndarray]:
    """Return decision, class and confidence of each clip."""
    blocks = []
    for rows, block in iter_blocks(scores):
        labels, checked = targets[rows], verified[rows]
        believed = label_noise.beliefs(label_noise.sharpened(block, found.power), labels, found.share)
        probabilities = np.where(checked[:, np.newaxis], block, believed)
        blocks.append(label_noise.decide(probabilities, labels, checked, thresholds))
    return [np.concatenate(column) for column in zip(*blocks, strict=True)]


def _log(members: Sequence[Member], decided: Verified, thresholds: Thresholds, round_number: int) -> None:
    """Log and report the decisions."""
    record, run_id = members[0].record, decided.run_id
    studies = list(dict.fromkeys(member.record.study for member in members))
    tags = {"studies": ",".join(studies), "dataset": record.dataset, "data_dir": record.data_dir}
    tags |= {"warning": decided.warning} if decided.warning else {}
    runs.set_tags(tags | {"task": record.config.task})
    runs.log_params({f"{name}_at": value for name, value in vars(thresholds).items()})
    runs.log_json([member.record.run_id for member in members], "members.json")
    runs.log_table(decided.table, LABELS_TABLE)
    counts, shares = decided.counts, {"wrong_share": decided.wrong_share}
    if decided.missing_share is not None:
        shares |= {"missing_share": decided.missing_share}
    if decided.classes is not None:
        runs.log_table(decided.classes, CLASSES_TABLE)
    runs.log_metrics({f"n_{name}": number for name, number in counts.items()} | shares)
    facts = (round_number, studies, counts, decided.wrong_share, decided.warning, run_id)
    others = (decided.missing_share, [] if decided.classes is None else decided.classes.to_dict("records"))
    mlflow_ui.describe(lambda run_link: run_descriptions.verify(*facts, run_link, *others))
    n_labels = sum(counts[name] for name in ("accept", "relabel", "remove", "drop", "keep") if name in counts)
    words = {"accept": "accepted", "relabel": "replaced", "remove": "removed", "drop": "dropped",
             "keep": "left unchanged"}  # fmt: skip
    decisions = ", ".join(f"{counts[name]} {text}" for name, text in words.items() if name in counts)
    text = f"of {count(n_labels, 'unverified label')}, about {decided.wrong_share:.0%} of them wrong, {decisions}"
    if decided.missing_share is not None:
        text += f"; {counts['add']} added, as about {decided.missing_share:.0%} of the sounds lack their label"
    say(f"verify: run {run_id}: round {round_number}, {text}")
