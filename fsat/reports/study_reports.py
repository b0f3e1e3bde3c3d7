"""What out-of-fold predictions tell of classes, confusions, calibration and labels, as tables below ``reports/``.

Conventions: `scores` is float32 (n_clips, n_classes), perhaps a memory map, of clips that have a prediction; a few
numbers a clip are held in memory. Shares, probabilities and precisions are in [0, 1], with six decimals; a cell is
empty where a number has no meaning, such as the recall of a class without clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.tables import write_parts, write_table
from fsat.metrics.calibration import Reliability, reliability
from fsat.metrics.ranking import Guesses, best_guesses, class_average_precision, confusion
from fsat.reports.plots import plot_calibration, plot_class_precision, plot_confusion
from fsat.reports.submission import CLIPS_AT_ONCE

TITLE = "out-of-fold predictions"
DECIMALS = 6


@dataclass(frozen=True)
class Predicted:
    """Clips with their labels and predictions.

    Attributes:
        scores: float32 (n_clips, n_classes), without NaN.
        targets: int (n_clips,), the labels.
        verified: bool (n_clips,), someone has verified the label.
        fnames: (n_clips,), the clips' names, a pandas or numpy array.
        labels: label order.
    """

    scores: np.ndarray
    targets: np.ndarray
    verified: np.ndarray
    fnames: Sequence[str]
    labels: Sequence[str]


@dataclass(frozen=True)
class Told:
    """What the predictions of `Predicted` clips tell.

    Attributes:
        guesses: each clip's best guess.
        counts: the confusion matrix.
        classes: as of `class_table`.
        pairs: as of `confused_pairs`.
        bins: calibration of the best guesses.
    """

    guesses: Guesses
    counts: np.ndarray
    classes: pd.DataFrame
    pairs: pd.DataFrame
    bins: Reliability


def tell(clips: Predicted) -> Told:
    """Go through the predictions; at least one clip has one."""
    guesses, counts = best_guesses(clips.scores, clips.targets), confusion(clips.scores, clips.targets)
    bins = reliability(guesses.p_guess, guesses.guess == clips.targets)
    return Told(guesses, counts, class_table(clips, counts), confused_pairs(counts, clips.labels), bins)


def write_reports(clips: Predicted, folder: Path, told: Told | None = None) -> dict[str, float]:
    """Write all tables (``reports/*.csv``) and figures (``plots/*.png``) of out-of-fold predictions.

    Args:
        clips: the clips that have a prediction; at least one.
        folder: an existing folder.
        told: what `tell` says of them, if it was asked already.

    Returns:
        ``oof_ece``, the expected calibration error, and ``oof_ece_verified`` if there are verified clips.
    """
    told = told or tell(clips)
    guesses = told.guesses
    tables, plots = folder / "reports", folder / "plots"
    write_table(told.classes, tables / "classes.csv")
    write_table(confusion_table(told.counts, clips.labels), tables / "confusion.csv")
    write_table(told.pairs, tables / "confused_pairs.csv")
    write_parts(tables / "suspects.csv", suspects(clips, guesses))
    write_table(pd.DataFrame(vars(told.bins)).round(DECIMALS), tables / "calibration.csv")

    plot_confusion(clips.scores, clips.targets, clips.labels, TITLE, plots / "confusion.png")
    plot_class_precision(clips.scores, clips.targets, clips.labels, TITLE, plots / "class_precision.png")
    plot_calibration(told.bins, TITLE, plots / "calibration.png")
    metrics = {"oof_ece": told.bins.expected_error}
    if clips.verified.any():
        right = (guesses.guess == clips.targets)[clips.verified]
        metrics["oof_ece_verified"] = reliability(guesses.p_guess[clips.verified], right).expected_error
    return metrics


def class_table(clips: Predicted, counts: np.ndarray) -> pd.DataFrame:
    """How well each class is told from the others.

    Args:
        clips: all of them.
        counts: their confusion matrix.

    Returns:
        ``label, clips, verified, ap, recall, precision``, the worst average precision first, classes without clips
        last: `ap` ranks all clips by the class's score, `recall` is the share of the class's clips whose best guess is
        right, `precision` the share of right ones among all best guesses of the class.
    """
    right, per_label, per_guess = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        table = pd.DataFrame({
            "label": clips.labels, "clips": per_label,
            "verified": np.bincount(clips.targets[clips.verified], minlength=len(clips.labels)),
            "ap": class_average_precision(clips.scores, clips.targets),
            "recall": right / per_label, "precision": right / per_guess,
        })  # fmt: skip
    return table.sort_values("ap", kind="stable", na_position="last").round(DECIMALS)


def confusion_table(counts: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """Counts of labels against best guesses: a row for each label, a column for each guess, the label's name first."""
    table = pd.DataFrame(counts, columns=list(labels))
    table.insert(0, "label", labels, allow_duplicates=True)
    return table


def confused_pairs(counts: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """Which labels are taken for which others.

    Returns:
        ``label, guess, clips, share``, most clips first; `share` is of the label's clips.
    """
    wrong = counts * ~np.eye(len(labels), dtype=bool)
    label, guess = np.nonzero(wrong)
    names = np.array(labels, dtype=object)
    table = pd.DataFrame({"label": names[label], "guess": names[guess], "clips": wrong[label, guess]})
    table["share"] = (table["clips"] / counts.sum(axis=1)[label]).round(DECIMALS)
    return table.sort_values("clips", ascending=False, kind="stable")


def doubted(clips: Predicted, guesses: Guesses) -> np.ndarray:
    """Places of the clips whose best guess is not their label, as `suspects` has them."""
    wrong = np.flatnonzero(guesses.guess != clips.targets)
    return wrong[np.argsort(guesses.p_label[wrong], kind="stable")]


def suspects(clips: Predicted, guesses: Guesses) -> Iterator[pd.DataFrame]:
    """The clips whose best guess is not their label, in parts.

    Yields:
        ``fname, label, manually_verified, believed, score, p_believed``, the most surely wrong labels first: `believed`
        is the best guess, `p_believed` its probability, and `score` one less the probability of the label. Where wrong
        labels are drawn alike from all other classes, how likely one is to be wrong rises with that and nothing else.
    """
    score = 1 - guesses.p_label.astype(np.float64)
    wrong = doubted(clips, guesses)
    names = np.array(clips.labels, dtype=object)
    for start in range(0, max(1, len(wrong)), CLIPS_AT_ONCE):
        some = wrong[start : start + CLIPS_AT_ONCE]
        yield pd.DataFrame({
            "fname": clips.fnames[some], "label": names[clips.targets[some]],
            "manually_verified": clips.verified[some].astype(int), "believed": names[guesses.guess[some]],
            "score": score[some], "p_believed": guesses.p_guess[some].astype(float),
        }).round(DECIMALS)  # fmt: skip
