"""Tables below ``reports/``: what out-of-fold predictions show about classes, confusions, calibration and labels.

Conventions: `scores` is float32 (n_clips, n_classes), possibly a memory map, of the clips that have a prediction; only
a few numbers per clip are held in memory. Shares, probabilities and precisions are in [0, 1], with six decimals; a cell
is empty where a number is undefined, such as the recall of a class without clips.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.tables import Table, read_table, write_parts, write_table
from fsat.errors import DataError, Problem, count, printable
from fsat.metrics import ranking
from fsat.metrics.calibration import Reliability, reliability
from fsat.metrics.ranking import TOP_K, Guesses, best_guesses, confusion
from fsat.progress import say
from fsat.reports.plots import plot_calibration, plot_class_precision, plot_confusion
from fsat.text import NO_LABEL, submitted

TITLE = "out-of-fold predictions"
DECIMALS = 6


@dataclass(frozen=True)
class Predictions:
    """Clips with their labels and predictions.

    Attributes:
        scores: float32 (n_clips, n_classes), without NaN.
        targets: int (n_clips,), the labels; or bool (n_clips, n_classes), see `fsat.reports.label_tables`.
        verified: bool (n_clips,), whether a person has verified the labels of a clip.
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
    """Each clip's best guess, their confusion matrix int (n_classes, n_classes) and calibration, and two tables.

    `scaled_bins` is the calibration of the scaled scores, None if they are not scaled.
    """

    guesses: Guesses
    counts: np.ndarray
    classes: pd.DataFrame
    pairs: pd.DataFrame
    bins: Reliability
    scaled_bins: Reliability | None = None


def analyse(clips: Predictions, scaled: np.ndarray | None = None) -> Analysis:
    """Analyse the predictions of at least one clip; `scaled` are their scores after scaling, (n_clips, n_classes)."""
    guesses, counts = best_guesses(clips.scores, clips.targets), confusion(clips.scores, clips.targets)
    bins, scaled_bins = reliability(guesses.p_guess, guesses.guess == clips.targets), None
    if scaled is not None:
        best = best_guesses(scaled, clips.targets)
        scaled_bins = reliability(best.p_guess, best.guess == clips.targets)
    pairs = confused_pairs(counts, clips.labels)
    return Analysis(guesses, counts, class_table(clips, counts), pairs, bins, scaled_bins)


def write_reports(clips: Predictions, analysis: Analysis, folder: Path) -> dict[str, float]:
    """Write all tables (``reports/*.csv``) and figures (``plots/*.png``) into an existing folder.

    Returns ``oof_ece``, the expected calibration error, and ``oof_ece_verified`` if there are verified clips.
    """
    tables, plots = folder / "reports", folder / "plots"
    write_table(analysis.classes, tables / "classes.csv")
    counts = pd.DataFrame(analysis.counts, columns=list(clips.labels))
    counts.insert(0, "label", clips.labels, allow_duplicates=True)
    write_table(counts, tables / "confusion.csv")
    write_table(analysis.pairs, tables / "confused_pairs.csv")
    write_parts(tables / "suspects.csv", suspect_tables(clips, analysis.guesses))
    write_calibration(analysis.bins, analysis.scaled_bins, tables)

    plot_confusion(clips.scores, clips.targets, clips.labels, TITLE, plots / "confusion.png")
    plot_class_precision(clips.scores, clips.targets, clips.labels, TITLE, plots / "class_precision.png")
    plot_calibration(analysis.bins, TITLE, plots / "calibration.png", analysis.scaled_bins)
    metrics, guesses, verified = {"oof_ece": analysis.bins.expected_error}, analysis.guesses, clips.verified
    if verified.any():
        correct = (guesses.guess == clips.targets)[verified]
        metrics["oof_ece_verified"] = reliability(guesses.p_guess[verified], correct).expected_error
    return metrics


def write_calibration(bins: Reliability, scaled: Reliability | None, folder: Path) -> None:
    """Write ``calibration.csv`` and, if scores are scaled, ``calibration_scaled.csv``."""
    for name, part in {"calibration.csv": bins, "calibration_scaled.csv": scaled}.items():
        if part is not None:
            write_table(pd.DataFrame(vars(part)).round(DECIMALS), folder / name)


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
            "ap": ranking.class_average_precision(clips.scores, clips.targets),
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


CLIPS_AT_ONCE = 50_000
"""Number of rows of a table that are written at once."""


def submission(fnames: Sequence[str], best: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """Return ``fname,label`` with the labels of each clip, separated by spaces, as `fsat.text.submitted` has them.

    `best` is int (n_clips, 3), classes from `top_k`.
    """
    names = [submitted(label) for label in labels]
    return pd.DataFrame({"fname": list(fnames), "label": [" ".join(names[j] for j in row) for row in best.tolist()]})


def announce_submission(name: str, labels: Sequence[str]) -> None:
    """Say, once in a process, that a submission with this name has other labels than the dataset, if it has."""
    if changed := [label for label in labels if submitted(label) != label]:
        _say_once(
            f"note: {name} has _ for the spaces in labels, such as {submitted(changed[0])}: spaces separate labels"
        )


_say_once = cache(say)


def write_submission(path: Path, fnames: Sequence[str], best: np.ndarray, labels: Sequence[str]) -> None:
    """Write the table of `submission` in parts, so that it need not fit in memory; `best` may be a memory map."""
    starts = range(0, max(1, len(fnames)), CLIPS_AT_ONCE)
    slices = (slice(start, start + CLIPS_AT_ONCE) for start in starts)
    write_parts(path, (submission(fnames[rows], best[rows], labels) for rows in slices))


def score_table(fnames: Sequence[str], scores: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """Return ``fname`` and a column of scores for each label, the submission where a clip has any number of labels."""
    table = pd.DataFrame(np.round(scores.astype(np.float64), DECIMALS), columns=list(labels))
    table.insert(0, "fname", list(fnames), allow_duplicates=True)
    return table


def write_scores(path: Path, fnames: Sequence[str], scores: np.ndarray, labels: Sequence[str]) -> None:
    """Write the table of `score_table` in parts, so that it need not fit in memory; `scores` may be a memory map."""
    starts = range(0, max(1, len(fnames)), CLIPS_AT_ONCE)
    slices = (slice(start, start + CLIPS_AT_ONCE) for start in starts)
    write_parts(path, (score_table(fnames[rows], scores[rows], labels) for rows in slices))


def score_submission(submission_path: Path, truth_path: Path) -> pd.DataFrame:
    """Return mAP@3 and accuracy of a submission.

    Args:
        submission_path: ``fname,label``, up to three labels separated by spaces, with an underscore for the spaces in
            a label; further labels are ignored.
        truth_path: ``fname,label``; clips without a label (empty or ``None``) are not scored. Labels have spaces or
            underscores. If it has a column ``usage``, as FSDKaggle2018's ``test_post_competition.csv``, each of its
            values is scored by itself too.

    Returns:
        ``part, clips, map3, accuracy``; the last row is for all clips.

    Raises `DataError` if a table cannot be read or names a clip twice, or the submission lacks a clip that is scored.
    """
    guesses, truth = (
        by_fname(read_table(path, ("fname", "label"), ("usage",)), path) for path in (submission_path, truth_path)
    )
    truth = truth[~truth["label"].str.strip().isin(["", NO_LABEL])]
    if truth.empty:
        raise DataError(f"{truth_path}: no clip has a label; expected a truth table")
    missing = truth.index.difference(guesses.index, sort=False)
    if len(missing):
        fault = f"{len(missing)} of {count(len(truth), 'clip')} have no row, first {missing[0]}"
        raise DataError(f"{submission_path}: {fault}; expected a row for every clip of the truth table")
    names, cells = truth["label"].map(submitted), guesses.loc[truth.index, "label"]
    numbers = {name: i for i, name in enumerate(sorted(set(names)))}
    best = np.full((len(truth), TOP_K), -1)
    for i, text in enumerate(cells):
        classes = [numbers.get(name, -1) for name in text.split()[:TOP_K]]
        best[i, : len(classes)] = classes
    _warn_of_spaces(submission_path, cells, numbers)
    targets = names.map(numbers).to_numpy()
    precision, correct = ranking.average_precision_at_k(best, targets), best[:, 0] == targets
    rows = [
        (name, int(mask.sum()), float(precision[mask].mean()), float(correct[mask].mean()))
        for name, mask in parts_of(truth)
    ]
    return pd.DataFrame(rows, columns=["part", "clips", "map3", "accuracy"])


def _warn_of_spaces(path: Path, cells: pd.Series, names: Container[str]) -> None:
    """Warn if cells of a submission are labels with spaces, which count as several labels."""
    spaced = cells[[submitted(cell) in names and any(word not in names for word in cell.split()) for cell in cells]]
    if len(spaced):
        first = f"first {spaced.iloc[0]!r} of {printable(spaced.index[0])}"
        advice = f"write _ for a space, {submitted(spaced.iloc[0])}"
        say(f"warning: {path}: {count(len(spaced), 'label')} with spaces, {first}, count as several labels: {advice}")


def parts_of(truth: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    """Return the parts of a truth table that are scored, each a name and bool (n_clips,): by ``usage``, and all."""
    order = {"Public": 0, "Private": 1}
    usages = sorted(truth["usage"].unique(), key=lambda name: (order.get(name, 2), name)) if "usage" in truth else []
    parts = [(name, (truth["usage"] == name).to_numpy()) for name in usages]
    return [*parts, ("both" if len(parts) == 2 else "all", np.ones(len(truth), dtype=bool))]


def by_fname(table: Table, path: Path) -> pd.DataFrame:
    """Return the rows of a table by ``fname``; raise `DataError` for bad and duplicate rows."""
    frame = table.frame
    again = frame[frame["fname"].duplicated()].itertuples()
    if problems := [*table.problems, *(Problem(path.name, row.row, row.fname, "duplicate row") for row in again)]:
        raise DataError(f"{path}: {count(len(problems), 'bad row')}; expected one row per clip", problems)
    return frame.set_index("fname")
