"""Tables below ``reports/``: what out-of-fold predictions show about classes, confusions, calibration and labels.

Conventions: `scores` is float32 (n_clips, n_classes), possibly a memory map, of the clips that have a prediction; only
a few numbers per clip are held in memory. Shares, probabilities and precisions are in [0, 1], with six decimals; a cell
is empty where a number is undefined, such as the recall of a class without clips.
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
class Predictions:
    """Clips with their labels and predictions.

    Attributes:
        scores: float32 (n_clips, n_classes), without NaN.
        targets, verified: int and bool (n_clips,), the labels, and whether a person has verified them.
        fnames: (n_clips,), a pandas or numpy array.
        labels: label order.
    """

    scores: np.ndarray
    targets: np.ndarray
    verified: np.ndarray
    fnames: pd.api.extensions.ExtensionArray | np.ndarray
    labels: Sequence[str]


@dataclass(frozen=True)
class Analysis:
    """Each clip's best guess, their confusion matrix int (n_classes, n_classes) and calibration, and two tables."""

    guesses: Guesses
    counts: np.ndarray
    classes: pd.DataFrame
    pairs: pd.DataFrame
    bins: Reliability


def analyse(clips: Predictions) -> Analysis:
    """Analyse the predictions of at least one clip."""
    guesses, counts = best_guesses(clips.scores, clips.targets), confusion(clips.scores, clips.targets)
    bins = reliability(guesses.p_guess, guesses.guess == clips.targets)
    return Analysis(guesses, counts, class_table(clips, counts), confused_pairs(counts, clips.labels), bins)


def write_reports(clips: Predictions, analysis: Analysis, folder: Path) -> dict[str, float]:
    """Write all tables (``reports/*.csv``) and figures (``plots/*.png``) into an existing folder.

    Returns:
        ``oof_ece``, the expected calibration error, and ``oof_ece_verified`` if there are verified clips.
    """
    tables, plots = folder / "reports", folder / "plots"
    write_table(analysis.classes, tables / "classes.csv")
    counts = pd.DataFrame(analysis.counts, columns=list(clips.labels))
    counts.insert(0, "label", clips.labels, allow_duplicates=True)
    write_table(counts, tables / "confusion.csv")
    write_table(analysis.pairs, tables / "confused_pairs.csv")
    write_parts(tables / "suspects.csv", suspect_tables(clips, analysis.guesses))
    write_table(pd.DataFrame(vars(analysis.bins)).round(DECIMALS), tables / "calibration.csv")

    plot_confusion(clips.scores, clips.targets, clips.labels, TITLE, plots / "confusion.png")
    plot_class_precision(clips.scores, clips.targets, clips.labels, TITLE, plots / "class_precision.png")
    plot_calibration(analysis.bins, TITLE, plots / "calibration.png")
    metrics, guesses, verified = {"oof_ece": analysis.bins.expected_error}, analysis.guesses, clips.verified
    if verified.any():
        correct = (guesses.guess == clips.targets)[verified]
        metrics["oof_ece_verified"] = reliability(guesses.p_guess[verified], correct).expected_error
    return metrics


def class_table(clips: Predictions, counts: np.ndarray) -> pd.DataFrame:
    """Return ``label, clips, verified, ap, recall, precision`` of each class.

    The worst average precision is first, classes without clips last. `ap` ranks all clips by the class's score,
    `recall` is the share of the class's clips whose best guess is correct, `precision` the share of correct guesses
    among all best guesses of the class; `counts` is the confusion matrix.
    """
    correct, per_label, per_guess = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        table = pd.DataFrame({
            "label": clips.labels,
            "clips": per_label,
            "verified": np.bincount(clips.targets[clips.verified], minlength=len(clips.labels)),
            "ap": class_average_precision(clips.scores, clips.targets),
            "recall": correct / per_label,
            "precision": correct / per_guess,
        })  # fmt: skip
    return table.sort_values("ap", kind="stable", na_position="last").round(DECIMALS)


def confused_pairs(counts: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """Return ``label, guess, clips, share`` of wrong guesses, most clips first; `share` is of the label's clips."""
    errors = counts * ~np.eye(len(labels), dtype=bool)
    label, guess = np.nonzero(errors)
    names = np.array(labels, dtype=object)
    table = pd.DataFrame({"label": names[label], "guess": names[guess], "clips": errors[label, guess]})
    table["share"] = (table["clips"] / counts.sum(axis=1)[label]).round(DECIMALS)
    return table.sort_values("clips", ascending=False, kind="stable")


def rank_suspects(clips: Predictions, guesses: Guesses) -> np.ndarray:
    """Return the indices of the clips whose best guess is not their label, least probable label first."""
    wrong = np.flatnonzero(guesses.guess != clips.targets)
    return wrong[np.argsort(guesses.p_label[wrong], kind="stable")]


def suspect_tables(clips: Predictions, guesses: Guesses) -> Iterator[pd.DataFrame]:
    """Yield the table of the clips whose best guess is not their label, in parts, most probably wrong labels first.

    ``believed`` is the best guess, ``p_believed`` its probability, and ``score`` one minus the probability of the
    label: if wrong labels are drawn uniformly from all other classes, their probability rises with that alone.
    """
    suspects, names = rank_suspects(clips, guesses), np.array(clips.labels, dtype=object)
    for start in range(0, max(1, len(suspects)), CLIPS_AT_ONCE):
        rows = suspects[start : start + CLIPS_AT_ONCE]
        yield pd.DataFrame({
            "fname": clips.fnames[rows],
            "label": names[clips.targets[rows]],
            "manually_verified": clips.verified[rows].astype(int),
            "believed": names[guesses.guess[rows]],
            "score": 1 - guesses.p_label[rows].astype(np.float64),
            "p_believed": guesses.p_guess[rows].astype(float),
        }).round(DECIMALS)  # fmt: skip
