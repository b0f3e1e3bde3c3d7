"""Submissions: three labels per clip, as the challenge wants them, and their scores against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.tables import read_table, write_parts
from fsat.errors import DataError, Problem, count
from fsat.metrics.ranking import TOP_K, average_precision_at_k, top_k
from fsat.text import NO_LABEL

CLIPS_AT_ONCE = 50_000
"""Number of rows of a table that are written at once."""


def submission(fnames: Sequence[str], scores: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """Return ``fname,label`` with the three best labels of each clip by `scores` (n_clips, n_classes)."""
    return _table(fnames, top_k(scores), labels)


def write_submission(path: Path, fnames: Sequence[str], best: np.ndarray, labels: Sequence[str]) -> None:
    """Write the table of `submission` in parts, so that it need not fit in memory.

    `best` is int (n_clips, 3), classes as `top_k` returns them; it may be a memory map.
    """
    starts = range(0, max(1, len(fnames)), CLIPS_AT_ONCE)
    slices = (slice(start, start + CLIPS_AT_ONCE) for start in starts)
    write_parts(path, (_table(fnames[rows], best[rows], labels) for rows in slices))


def score_submission(submission_path: Path, truth_path: Path) -> pd.DataFrame:
    """Return mAP@3 and accuracy of a submission.

    Args:
        submission_path: ``fname,label``, up to three labels separated by spaces; further labels are ignored.
        truth_path: ``fname,label``; clips without a label (empty or ``None``) are not scored. If it has a column
            ``usage``, as FSDKaggle2018's ``test_post_competition.csv``, each of its values is scored by itself too.

    Returns:
        ``part, clips, map3, accuracy``; the last row is for all clips.

    Raises:
        DataError: a table cannot be read or names a clip twice, or the submission lacks a clip that is scored.
    """
    guesses, truth = _read_by_fname(submission_path), _read_by_fname(truth_path)
    truth = truth[~truth["label"].str.strip().isin(["", NO_LABEL])]
    if truth.empty:
        raise DataError(f"{truth_path}: no clip has a label; expected a truth table")
    missing = truth.index.difference(guesses.index, sort=False)
    if len(missing):
        raise DataError(
            f"{submission_path}: {len(missing)} of {count(len(truth), 'clip')} have no row, first {missing[0]}; "
            "expected a row for every clip of the truth table"
        )
    numbers = {name: i for i, name in enumerate(sorted(set(truth["label"])))}
    ranking = np.full((len(truth), TOP_K), -1)
    for i, text in enumerate(guesses.loc[truth.index, "label"]):
        best = [numbers.get(name, -1) for name in text.split()[:TOP_K]]
        ranking[i, : len(best)] = best
    targets = truth["label"].map(numbers).to_numpy()
    precision, correct = average_precision_at_k(ranking, targets), ranking[:, 0] == targets
    order = {"Public": 0, "Private": 1}
    usages = sorted(truth["usage"].unique(), key=lambda name: (order.get(name, 2), name)) if "usage" in truth else []
    parts = [(name, (truth["usage"] == name).to_numpy()) for name in usages]
    parts.append(("both" if len(parts) == 2 else "all", np.ones(len(truth), dtype=bool)))
    rows = [(name, int(mask.sum()), float(precision[mask].mean()), float(correct[mask].mean())) for name, mask in parts]
    return pd.DataFrame(rows, columns=["part", "clips", "map3", "accuracy"])


def _table(fnames: Sequence[str], best: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    texts = [" ".join(labels[j] for j in row) for row in best.tolist()]
    return pd.DataFrame({"fname": list(fnames), "label": texts})


def _read_by_fname(path: Path) -> pd.DataFrame:
    table = read_table(path, ("fname", "label"), ("usage",))
    frame = table.frame
    again = frame[frame["fname"].duplicated()].itertuples()
    if problems := [*table.problems, *(Problem(path.name, row.row, row.fname, "duplicate row") for row in again)]:
        raise DataError(f"{path}: {count(len(problems), 'bad row')}; expected one row per clip", problems)
    return frame.set_index("fname")
