"""Scores of a submission where a clip has any number of labels: a table with a column of scores for each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.layouts.label_cells import labels_of, separator_of
from fsat.data.tables import read_header, read_table
from fsat.errors import DataError, Problem, count, printable
from fsat.metrics.task_scores import task_scores
from fsat.reports.prediction_tables import by_fname, parts_of, score_submission

LABELS_SHOWN = 3
"""Number of labels without a column that an error names."""


def score_tables(submission: Path, truth: Path) -> pd.DataFrame:
    """Return the scores of a submission, for the task of the truth table."""
    _, header = (read_header(path) for path in (submission, truth))
    score = score_label_submission if _has_lists(header) else score_submission
    return score(submission, truth)


def _has_lists(header: Sequence[str]) -> bool:
    """Return whether a truth table lists the labels of clips: it has a column ``labels`` and no ``label``."""
    return "labels" in header and "label" not in header


def score_label_submission(submission_path: Path, truth_path: Path) -> pd.DataFrame:
    """Return lwlrap and macro mAP of a submission, as FSDKaggle2019 scores it.

    Args:
        submission_path: ``fname`` and a column of scores for each class; higher is more likely.
        truth_path: ``fname,labels``, the labels of a clip separated by commas; clips with an empty cell, without a
            label, count for mAP only. If it has a column ``usage``, each of its values is scored by itself too.

    Returns:
        ``part, clips, lwlrap, map``; the last row is for all clips. A score that is undefined is NaN.

    Raises `DataError` if a table cannot be read or names a clip twice, a score is not a number, or the submission lacks
    a clip or a class of the truth.
    """
    truth = by_fname(read_table(truth_path, ("fname", "labels"), ("usage",)), truth_path)
    names = [name for name in read_header(submission_path) if name and name != "fname"]
    submission = by_fname(read_table(submission_path, ("fname",), names), submission_path)
    separator = separator_of(truth["labels"])
    labels, problems = [], []
    for fname, cell, row in zip(truth.index, truth["labels"], truth["row"], strict=True):
        found, fault = labels_of(cell, separator)
        labels.append(found)
        problems += [Problem(truth_path.name, row, fname, fault)] if fault else []
    if problems:
        raise DataError(f"{truth_path}: {count(len(problems), 'bad row')}; expected labels separated by ,", problems)
    classes = sorted({label for found in labels for label in found})
    if not classes:
        raise DataError(f"{truth_path}: no clip has a label; expected a truth table")
    if missing := [label for label in classes if label not in names]:
        got = (
            f"its columns are {', '.join(map(printable, names[:LABELS_SHOWN]))}{', ...' * (len(names) > LABELS_SHOWN)}"
        )
        fault = f"no column for {len(missing)} of {count(len(classes), 'class')}, first {printable(missing[0])}"
        raise DataError(f"{submission_path}: {fault}; {got}; expected fname and a column of scores for each class")
    lacking = truth.index.difference(submission.index, sort=False)
    if len(lacking):
        fault = f"{len(lacking)} of {count(len(truth), 'clip')} have no row, first {printable(lacking[0])}"
        raise DataError(f"{submission_path}: {fault}; expected a row for every clip of the truth table")
    scores = _numbers(submission.loc[truth.index], names, submission_path)
    column = {name: j for j, name in enumerate(names)}
    targets = np.zeros(scores.shape, dtype=bool)
    for row, found in zip(targets, labels, strict=True):
        row[[column[label] for label in found]] = True
    rows = []
    for name, mask in parts_of(truth):
        values = task_scores(scores[mask], targets[mask])
        rows.append((name, int(mask.sum()), values.get("lwlrap", math.nan), values.get("map", math.nan)))
    return pd.DataFrame(rows, columns=["part", "clips", "lwlrap", "map"])


def _numbers(submission: pd.DataFrame, names: list[str], path: Path) -> np.ndarray:
    """Return the scores of a submission, float64 (n_clips, n_classes)."""
    scores = np.empty((len(submission), len(names)))
    problems = []
    for j, name in enumerate(names):
        scores[:, j] = pd.to_numeric(submission[name], errors="coerce")
        for i in np.flatnonzero(~np.isfinite(scores[:, j])):
            reason = f"the score of {printable(name)} is {submission[name].iloc[i]!r}, expected a number"
            problems.append(Problem(path.name, int(submission["row"].iloc[i]), submission.index[i], reason))
    if problems:
        problems.sort(key=lambda problem: problem.row)
        raise DataError(f"{path}: {count(len(problems), 'bad score')}; expected a number in every cell", problems)
    return scores
