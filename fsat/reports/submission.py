"""Submissions: three labels a clip, as the challenge wants them, and how they score against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.tables import read_table
from fsat.errors import DataError, Problem, count
from fsat.labels import NO_LABEL, join_labels
from fsat.scoring.metrics import TOP_K, average_precision_at_k, top_k


def submission(fnames: Sequence[str], scores: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """``fname,label`` with the three best labels of each clip, separated by spaces.

    Args:
        fnames: (n_clips,).
        scores: (n_clips, n_classes).
        labels: label order.
    """
    best = [join_labels([labels[j] for j in row]) for row in top_k(scores)]
    return pd.DataFrame({"fname": list(fnames), "label": best})


def score_submission(submission_path: Path, truth_path: Path) -> pd.DataFrame:
    """mAP@3 and accuracy of a submission.

    Args:
        submission_path: ``fname,label``, up to three labels separated by spaces; more are not looked at.
        truth_path: ``fname,label``; clips without a label (empty or ``None``) are not scored. A column ``usage``, as
            in FSDKaggle2018's ``test_post_competition.csv``, gives a line for each of its values and one for both.

    Returns:
        ``part, clips, map3, accuracy``, the last line being all clips.

    Raises:
        DataError: a table cannot be read, names a clip twice, or the submission lacks a clip that is to be scored.
    """
    guesses = _by_fname(submission_path)
    truth = _by_fname(truth_path)
    truth = truth[~truth["label"].str.strip().isin(["", NO_LABEL])]
    if truth.empty:
        raise DataError(f"{truth_path}: no clip has a label; expected a truth table")
    missing = [fname for fname in truth.index if fname not in guesses.index]
    if missing:
        raise DataError(f"{submission_path}: {len(missing)} of {len(truth)} clips have no row, first {missing[0]}; "
                        "expected a row for every clip of the truth table")  # fmt: skip
    names = sorted(set(truth["label"]))
    number = {name: i for i, name in enumerate(names)}
    ranking = np.full((len(truth), TOP_K), -1)
    for i, text in enumerate(guesses.loc[truth.index, "label"]):
        for j, name in enumerate(text.split()[:TOP_K]):
            ranking[i, j] = number.get(name, -1)
    targets = truth["label"].map(number).to_numpy()
    precision = average_precision_at_k(ranking, targets)
    hit = ranking[:, 0] == targets
    parts = [(name, (truth["usage"] == name).to_numpy()) for name in _usages(truth)]
    parts.append(("both" if len(parts) == 2 else "all", np.ones(len(truth), dtype=bool)))
    rows = [(name, int(mask.sum()), float(precision[mask].mean()), float(hit[mask].mean())) for name, mask in parts]
    return pd.DataFrame(rows, columns=["part", "clips", "map3", "accuracy"])


def _by_fname(path: Path) -> pd.DataFrame:
    table = read_table(path, ("fname", "label"), ("usage",))
    frame = table.frame
    problems = list(table.problems)
    for row in frame[frame["fname"].duplicated()].itertuples():
        problems.append(Problem(path.name, row.row, row.fname, "duplicate row"))
    if problems:
        raise DataError(f"{path}: {count(len(problems), 'bad row')}; expected one row a clip", problems)
    return frame.set_index("fname")


def _usages(truth: pd.DataFrame) -> list[str]:
    if "usage" not in truth:
        return []
    order = {"Public": 0, "Private": 1}
    return sorted(truth["usage"].unique(), key=lambda name: (order.get(name, 2), name))
