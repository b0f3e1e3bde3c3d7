"""Tables below ``reports/`` where a clip has any number of labels: classes, pairs of labels, calibration and suspects.

Conventions: as in `fsat.reports.prediction_tables`, with `targets` bool (n_clips, n_classes). Ranks (lwlrap, average
precision, AUC) are those of the blended scores; labels are given at thresholds that were fitted, on scaled scores,
without the clip's fold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.tables import write_parts, write_table
from fsat.metrics import multilabel
from fsat.metrics.bootstrap import Intervals, bootstrap_intervals
from fsat.metrics.calibration import Reliability, label_reliability
from fsat.metrics.multilabel import LabelCounts, divide, mean
from fsat.metrics.row_blocks import Scores, iter_blocks
from fsat.reports.label_plots import plot_co_occurrence, plot_label_confusion
from fsat.reports.plots import draw_class_precision, plot_calibration
from fsat.reports.prediction_tables import CLIPS_AT_ONCE, DECIMALS, TITLE, Predictions, write_calibration
from fsat.text import join_labels

CALIBRATION_WORDS = "share of the pairs that are labels", "score of a clip for a class", "pairs"
"""Of the figure: a pair is a clip and a class."""


@dataclass(frozen=True)
class Decided:
    """What a tagger makes of the scores of clips, by fits without each clip's fold.

    Attributes:
        scaled: float32 (n_clips, n_classes), scaled scores.
        given: bool (n_clips, n_classes), the labels that are given.
        thresholds: float64 (n_classes,), those of the tagger, fitted on all clips.
        is_scaled: whether scaling changed the scores.
    """

    scaled: np.ndarray
    given: np.ndarray
    thresholds: np.ndarray
    is_scaled: bool


@dataclass(frozen=True)
class Suspects:
    """Labels that were given but not present, or present but not given; the most suspicious first.

    Attributes:
        clip, label: int64 (n,), indices of the clip and of the class.
        is_present: bool (n,): the clip has the label, so it may be wrong; else it may be missing.
        score: float32 (n,), in [0, 1]: the scaled score of a missing label, one minus that of a wrong one.
    """

    clip: np.ndarray
    label: np.ndarray
    is_present: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class LabelAnalysis:
    """What out-of-fold predictions show.

    Attributes:
        classes, pairs: the tables ``classes.csv`` and ``co_occurrence.csv``.
        together: int64 (n_classes, n_classes), clips with both labels; on the diagonal those with the label.
        shares: of `given_shares`.
        intervals: of lwlrap and mAP.
        bins, scaled_bins: calibration of the blended and of the scaled scores; the latter None if they are the same.
        suspects: of `rank_suspects`.
        n_labels, n_given: int64 (n_clips,), number of labels of each clip, and of those that are given.
        metrics: of the run.
    """

    classes: pd.DataFrame
    pairs: pd.DataFrame
    together: np.ndarray
    shares: np.ndarray
    intervals: Intervals
    bins: Reliability
    scaled_bins: Reliability | None
    suspects: Suspects
    n_labels: np.ndarray
    n_given: np.ndarray
    metrics: dict[str, float]


def analyse_labels(clips: Predictions, decided: Decided) -> LabelAnalysis:
    """Analyse the predictions of at least one clip."""
    scores, targets, given = clips.scores, clips.targets, decided.given
    intervals, auc = bootstrap_intervals(scores, targets), multilabel.class_auc(scores, targets)
    counts = LabelCounts(targets.sum(axis=0), given.sum(axis=0), (given & targets).sum(axis=0))
    together = _products(targets, targets).astype(np.int64)
    metrics = {"oof_map_micro": multilabel.micro_map(scores, targets), "oof_auc": mean(auc)}
    metrics["oof_d_prime"] = multilabel.d_prime(metrics["oof_auc"])
    for name, interval in {"lwlrap": intervals.lwlrap, "map": intervals.macro_map}.items():
        metrics |= {f"oof_{name}_{end}": value for end, value in zip(("low", "high"), interval, strict=True)}
    if decided.is_scaled:
        metrics["oof_lwlrap_scaled"] = multilabel.lwlrap(decided.scaled, targets)
    n_labels, n_given = targets.sum(axis=1), given.sum(axis=1)
    metrics["oof_none_tagged"] = mean((n_given[n_labels == 0] > 0).astype(float))
    metrics["oof_untagged"] = mean((n_given[n_labels > 0] == 0).astype(float))
    return LabelAnalysis(
        classes=class_table(clips, decided.thresholds, counts, intervals, auc),
        pairs=pair_table(clips, given, together),
        together=together,
        shares=given_shares(given, targets),
        intervals=intervals,
        bins=label_reliability(scores, targets)[0],
        scaled_bins=label_reliability(decided.scaled, targets)[0] if decided.is_scaled else None,
        suspects=rank_suspects(decided, targets),
        n_labels=n_labels,
        n_given=n_given,
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
    )


def write_label_reports(clips: Predictions, decided: Decided, analysis: LabelAnalysis, folder: Path) -> None:
    """Write all tables (``reports/*.csv``) and figures (``plots/*.png``) into an existing folder."""
    tables, plots = folder / "reports", folder / "plots"
    write_table(analysis.classes, tables / "classes.csv")
    write_table(analysis.pairs, tables / "co_occurrence.csv")
    write_parts(tables / "suspects.csv", suspect_tables(clips, decided, analysis.suspects))
    write_calibration(analysis.bins, analysis.scaled_bins, tables)

    intervals = analysis.intervals.classes
    plot_label_precision(clips.scores, clips.targets, clips.labels, TITLE, plots / "class_precision.png", intervals)
    plot_co_occurrence(analysis.together, clips.labels, plots / "co_occurrence.png")
    plot_label_confusion(analysis.shares, clips.targets.sum(axis=0), clips.labels, TITLE, plots / "confusion.png")
    plot_calibration(analysis.bins, TITLE, plots / "calibration.png", analysis.scaled_bins, CALIBRATION_WORDS)


def plot_label_precision(
    scores: np.ndarray, targets: np.ndarray, labels: Sequence[str], title: str, path: Path,
    intervals: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Plot each class's average precision, worst first; `targets` are bool (n_clips, n_classes)."""
    precision = multilabel.class_average_precision(scores, targets)
    draw_class_precision(precision, targets.sum(axis=0), labels, title, path, intervals)


def class_table(
    clips: Predictions, thresholds: np.ndarray, counts: LabelCounts, intervals: Intervals, auc: np.ndarray
) -> pd.DataFrame:
    """Return the row of each class: the worst average precision first, classes without clips last.

    Columns are ``label, clips, verified, ap, ap_low, ap_high, lwlrap, auc, d_prime, threshold, f1, precision, recall``;
    `counts` are those of labels given at cross-fitted thresholds, `auc` is float64 (n_classes,).
    """
    low, high = intervals.classes.T
    table = pd.DataFrame({
        "label": clips.labels,
        "clips": counts.clips,
        "verified": clips.targets[clips.verified].sum(axis=0),
        "ap": multilabel.class_average_precision(clips.scores, clips.targets),
        "ap_low": low,
        "ap_high": high,
        "lwlrap": multilabel.class_lwlrap(clips.scores, clips.targets)[0],
        "auc": auc,
        "d_prime": list(map(multilabel.d_prime, auc)),
        "threshold": thresholds,
        "f1": counts.f1,
        "precision": counts.precision,
        "recall": counts.recall,
    })  # fmt: skip
    return table.sort_values("ap", kind="stable", na_position="last").round(DECIMALS)


def pair_table(clips: Predictions, given: np.ndarray, together: np.ndarray) -> pd.DataFrame:
    """Return the pairs of labels that are on one clip or are confused, those that are confused most first.

    Columns are ``label, other, clips, both, both_share, given, given_share, missed, missed_share``: the clips with
    `label`; those that have both; those without `other` that are given it, and their share of those without it; and
    those with both that are not given `label`, and their share of those with both.
    """
    targets, n_clips = clips.targets, np.diag(together)
    confused = _products(targets, given & ~targets).astype(np.int64)
    missed = _products(targets & ~given, targets).astype(np.int64)
    a, b = np.nonzero(((together > 0) | (confused > 0)) & ~np.eye(len(n_clips), dtype=bool))
    both, names = together[a, b], np.array(clips.labels, dtype=object)
    table = pd.DataFrame({
        "label": names[a],
        "other": names[b],
        "clips": n_clips[a],
        "both": both,
        "both_share": both / n_clips[a],
        "given": confused[a, b],
        "given_share": divide(confused[a, b], n_clips[a] - both),
        "missed": missed[a, b],
        "missed_share": divide(missed[a, b], both),
    })  # fmt: skip
    return table.sort_values(["given", "both"], ascending=False, kind="stable").round(DECIMALS)


def given_shares(given: Scores, targets: np.ndarray) -> np.ndarray:
    """Return how much labels are given to the clips of others: float64 (n_classes + 1, n_classes), in [0, 1].

    Row a, column b is the share that are given b of the clips that have a and lack b; on the diagonal, of the clips
    that have a. The last row is of clips without a label. NaN where there is no such clip. `given` may be scores
    instead of bool; the result is then their mean.
    """
    n_classes = targets.shape[1]
    total, n_clips = (np.zeros((n_classes + 1, n_classes)) for _ in range(2))
    for rows, block in iter_blocks(given):
        labels = targets[rows]
        groups = np.column_stack([labels, ~labels.any(axis=1)]).T.astype(np.float32)
        total += groups @ (block * ~labels)
        n_clips += groups @ (~labels).astype(np.float32)
        own = np.arange(n_classes)
        total[own, own] += (block * labels).sum(axis=0, dtype=np.float64)
        n_clips[own, own] += labels.sum(axis=0)
    return divide(total, n_clips)


def _products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the number of clips with each label of `left` and each of `right`, float64 (n_classes, n_classes)."""
    result = np.zeros((left.shape[1], right.shape[1]))
    for rows, block in iter_blocks(left):
        result += block.T.astype(np.float32) @ right[rows].astype(np.float32)
    return result


def rank_suspects(decided: Decided, targets: np.ndarray) -> Suspects:
    """Return the labels on which the decisions and `targets`, bool (n_clips, n_classes), differ."""
    clip, label = np.nonzero(decided.given != targets)
    is_present, p_label = targets[clip, label], decided.scaled[clip, label]
    score = np.where(is_present, 1 - p_label, p_label)
    order = np.argsort(-score, kind="stable")
    return Suspects(clip[order], label[order], is_present[order], score[order])


def suspect_tables(clips: Predictions, decided: Decided, suspects: Suspects) -> Iterator[pd.DataFrame]:
    """Yield the table of labels that may be wrong or missing, in parts, the most suspicious first.

    ``kind`` is ``wrong`` or ``missing``, ``score`` how suspicious the label is, ``p_label`` the scaled score of the
    clip for it, and ``labels`` are all that the clip has.
    """
    names = np.array(clips.labels, dtype=object)
    for start in range(0, max(1, len(suspects.clip)), CLIPS_AT_ONCE):
        part = slice(start, start + CLIPS_AT_ONCE)
        rows, label = suspects.clip[part], suspects.label[part]
        yield pd.DataFrame({
            "fname": clips.fnames[rows],
            "label": names[label],
            "manually_verified": clips.verified[rows].astype(int),
            "kind": np.where(suspects.is_present[part], "wrong", "missing"),
            "score": suspects.score[part].astype(np.float64),
            "p_label": decided.scaled[rows, label].astype(np.float64),
            "labels": [join_labels(names[row]) for row in clips.targets[rows]],
        }).round(DECIMALS)  # fmt: skip
