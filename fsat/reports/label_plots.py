"""Figures of clips with any number of labels: which labels occur together, and which are given to clips without them.

With more than `SHOWN` classes, a figure has those with most clips, so that it can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsat.metrics.multilabel import divide
from fsat.reports.plots import draw_matrix

SHOWN = 60
"""Maximum number of classes of a heat map."""


def plot_co_occurrence(together: np.ndarray, labels: Sequence[str], path: Path) -> None:
    """Plot how many clips have two labels; colours are shares of the clips with the row's label.

    `together` is int (n_classes, n_classes), the clips with both labels, on the diagonal those with one.
    """
    n_clips = np.diag(together)
    chosen = _most_frequent(n_clips)
    part = together[np.ix_(chosen, chosen)]
    shares = np.nan_to_num(divide(part, n_clips[chosen, np.newaxis]))
    names = [labels[j] for j in chosen]
    texts = {(i, j): str(part[i, j]) for i, j in zip(*map(np.ndarray.tolist, np.nonzero(part)), strict=True)}
    title = f"Clips with both labels{_note(len(chosen), len(labels))}"
    draw_matrix(shares, texts, (names, names), ("also has", "label"), title, path)


def plot_label_confusion(
    shares: np.ndarray, n_clips: np.ndarray, labels: Sequence[str], title: str, path: Path, scores: bool = False
) -> None:
    """Plot how much labels are given to clips of others, in per cent.

    Args:
        shares: of `fsat.reports.label_tables.given_shares`: float (n_classes + 1, n_classes).
        n_clips: int (n_classes,), clips with each label.
        labels: label order.
        title: above the figure.
        path: of the PNG file.
        scores: `shares` are mean scores, not shares of clips.
    """
    chosen = _most_frequent(n_clips)
    none = [] if np.isnan(shares[-1]).all() else [len(labels)]
    part = shares[np.ix_([*chosen, *none], chosen)]
    percent = np.nan_to_num(np.round(100 * part)).astype(int)
    texts = {(i, j): str(percent[i, j]) for i, j in zip(*map(np.ndarray.tolist, np.nonzero(percent)), strict=True)}
    names = [labels[j] for j in chosen]
    what = "mean score, in %, of clips without it" if scores else "given to clips without it, in %"
    axes = f"{what} (diagonal: of its own clips)", "clips with the label"
    sides = [*names, *["(no label)"] * len(none)], names
    draw_matrix(np.nan_to_num(part), texts, sides, axes, title + _note(len(chosen), len(labels)), path)


def _most_frequent(n_clips: np.ndarray) -> list[int]:
    """Return the classes to show, in label order."""
    return sorted(np.argsort(-n_clips, kind="stable")[:SHOWN].tolist())


def _note(n_shown: int, n_labels: int) -> str:
    return f" ({n_shown} of {n_labels} classes)" if n_shown < n_labels else ""
