"""Figures of predictions, and the style of all figures.

The figures show learning curves, confusions, average precision per class, calibration and scores. MLflow shows them in
a pane that is 500 to 800 pixels wide and shrinks wider ones, so no figure is wider than its text needs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from fsat.metrics.calibration import Reliability
from fsat.metrics.ranking import class_average_precision, confusion
from fsat.metrics.task_scores import SCORE_WORDS, score_names_of

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator

DPI, PAGE_WIDTH = 110, 9.0
"""Pixels per inch, and width in inches of figures that are as wide as a page."""

BLUE, ORANGE, GREY, DARK_GREY = "#2a6f97", "#e07a2f", "#b8bfc6", "#55606a"
STUDY_COLOURS = (BLUE, ORANGE, "#4b8b3b", "#8b3a62", "#b8860b", "#5c5c9a", "#00868b", "#a0522d", "#c2509a", DARK_GREY)
"""Colours of studies, in order; used again from the first if there are more studies."""

MAX_MARKED, MIN_CELL = 30, 0.205
"""Longest curve whose points get markers; and smallest cell of a confusion matrix in inches: room for a label's letters
and two digits."""

FONT = "DejaVu Sans"
"""Comes with matplotlib; has Latin, Greek, Cyrillic, Arabic and Hebrew letters."""

OTHER_FONTS = (
    "Noto Sans CJK JP", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR", "Noto Sans Devanagari", "Noto Sans Thai",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "Hiragino Sans", "PingFang SC", "PingFang HK", "Heiti TC",
    "Apple SD Gothic Neo", "Arial Unicode MS", "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Nirmala UI",
    "Leelawadee UI", "Segoe UI Emoji", "Segoe UI Symbol",
)  # fmt: skip
"""Fonts of Linux, macOS and Windows with letters of other scripts, used where they are installed."""


def installed_fonts(names: Sequence[str]) -> list[str]:
    """Return those of the fonts that this machine has."""
    known = {font.name for font in fontManager.ttflist}
    return [name for name in names if name in known]


plt.rcParams.update({
    "font.family": [FONT, *installed_fonts(OTHER_FONTS)],
    "axes.grid": True, "grid.color": "#e3e6e8", "axes.axisbelow": True, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": "#8a9299", "axes.titlesize": 12, "font.size": 10,
})  # fmt: skip


@dataclass(frozen=True)
class FoldCurve:
    """Learning curves of one fold: values by epoch, from 0; empty if the tracking server has none.

    `val_score` is the score that decides, mAP@3 or lwlrap; `best_epoch` is that of the weights in use; None if unknown.
    """

    study: str
    model: str
    fold: int
    val_score: dict[int, float]
    val_loss: dict[int, float]
    best_epoch: int | None


def figure_text(text: str, limit: int = 24) -> str:
    """Return a label for a figure: cut to `limit` characters, with dollar signs that start no formula."""
    return (text if len(text) <= limit else text[: limit - 1] + "…").replace("$", r"\$")


def integer_ticks(axis: Axis, min_n_ticks: int = 2) -> None:
    """Put the ticks of an axis on integers."""
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=min_n_ticks))


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, making its folder, and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with ignore_missing_glyphs():
        figure.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(figure)


@contextmanager
def ignore_missing_glyphs() -> Iterator[None]:
    """Silence the warnings about labels in scripts that no font has, which are drawn as boxes, or that need shaping."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing|Matplotlib currently does not support .* natively")
        yield


def plot_learning_curves(history: Sequence[dict[str, float]], best_epoch: int, title: str, path: Path) -> None:
    """Plot loss and scores over the epochs of a fold, with a line at the epoch whose weights are used.

    `best_epoch` counts from 0; the figure counts from 1, as every text for people does.
    """
    is_multi = any("val_lwlrap" in row for row in history)
    scores = {"val_map": BLUE, "val_lwlrap": ORANGE} if is_multi else {"acc": GREY, "val_acc": BLUE, "val_map3": ORANGE}
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(6, 6), sharex=True, layout="constrained")
    for axes, colours in ((upper, {"loss": GREY, "val_loss": BLUE}), (lower, scores)):
        for name, colour in colours.items():
            points = [(epoch, row[name]) for epoch, row in enumerate(history, 1) if name in row]
            marker = "o" if len(points) <= MAX_MARKED else None
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, color=colour, label=name)
        axes.axvline(best_epoch + 1, color="black", linewidth=1, linestyle=":", label="weights kept")
        _legend_above(axes, fontsize=10, ncols=4, handlelength=1.2, columnspacing=1.2)
    upper.set_ylabel("cross-entropy (nats)")
    lower.set(ylabel="score", ylim=(0, 1))
    _epoch_axis(lower, len(history))
    figure.suptitle(title)
    save(figure, path)


def plot_curves(curves: Sequence[FoldCurve], path: Path, score: str = "mAP@3") -> None:
    """Plot validation score and loss of several folds: a colour per study, a line per fold, a dot at the best epoch."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(6.6, 6), sharex=True, gridspec_kw={"hspace": 0.08})
    studies = {curve.study: curve.model for curve in curves}
    colours = {study: STUDY_COLOURS[i % len(STUDY_COLOURS)] for i, study in enumerate(studies)}
    for study, model in studies.items():
        upper.plot([], [], color=colours[study], label=f"{figure_text(model)} {study}")
    for curve in curves:
        for axes, points in ((upper, curve.val_score), (lower, curve.val_loss)):
            style: dict[str, Any] = {"color": colours[curve.study], "marker": "." if len(points) == 1 else None}
            axes.plot([epoch + 1 for epoch in points], list(points.values()), linewidth=0.8, alpha=0.8, **style)
            if curve.best_epoch in points:
                style |= {"marker": "o", "markersize": 5, "markeredgecolor": "white", "zorder": 3}
                axes.plot(curve.best_epoch + 1, points[curve.best_epoch], **style)
    upper.set(ylabel=f"{score} on the fold's clips", ylim=(0, 1))
    lower.set_ylabel("loss on the fold's clips (nats)")
    _epoch_axis(lower, max(max([*curve.val_score, *curve.val_loss], default=0) + 1 for curve in curves))
    _legend_above(upper, ncols=2)
    save(figure, path)


def plot_confusion(scores: np.ndarray, targets: np.ndarray, labels: Sequence[str], title: str, path: Path) -> None:
    """Plot the counts of labels (`targets`, int (n_clips,)) against best guesses by `scores` (n_clips, n_classes)."""
    counts = confusion(scores, targets)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    texts = {(i, j): str(counts[i, j]) for i, j in zip(*np.nonzero(counts), strict=True)}
    draw_matrix(shares, texts, (labels, labels), ("best guess", "label"), title, path)


def draw_matrix(
    shares: np.ndarray, texts: Mapping[tuple[int, int], str], names: tuple[Sequence[str], Sequence[str]],
    sides: tuple[str, str], title: str, path: Path,
) -> None:  # fmt: skip
    """Draw a matrix of shares in [0, 1], with texts in cells and the names of rows and of columns.

    `sides` say what columns and what rows are.
    """
    n_rows, n_columns = shares.shape
    cell = min(1.0, max(4.2 / n_columns, MIN_CELL))  # in inches
    figure = plt.figure(figsize=(cell * n_columns, cell * n_rows))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = min(11.0, 0.8 * 72 * cell)
    axes.set_xticks(range(n_columns), list(map(figure_text, names[1])), rotation=90, fontsize=size)
    axes.set_yticks(range(n_rows), list(map(figure_text, names[0])), fontsize=size)
    for axis, number in ((axes.xaxis, n_columns), (axes.yaxis, n_rows)):
        axis.set_ticks(np.arange(number) - 0.5, minor=True)
    axes.tick_params(which="both", length=0)
    axes.grid(False)
    axes.grid(which="minor", linewidth=0.5)  # lines between the cells, to follow rows and columns
    for (i, j), text in texts.items():
        colour = "white" if shares[i, j] > 0.5 else "black"
        size = min(11.0, 1.5 * 72 * cell / max(2, len(text)))  # a digit is about 0.6 as wide as high
        axes.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)
    axes.set_xlabel(sides[0], fontsize=11)
    axes.set_ylabel(sides[1], fontsize=11)
    axes.set_title(title)
    save(figure, path)


def plot_class_precision(
    scores: np.ndarray, targets: np.ndarray, labels: Sequence[str], title: str, path: Path
) -> None:
    """Plot each class's average precision, worst first, with its number of clips; classes without clips are last."""
    counts = np.bincount(targets, minlength=len(labels))
    draw_class_precision(class_average_precision(scores, targets), counts, labels, title, path)


def draw_class_precision(
    precision: np.ndarray, counts: np.ndarray, labels: Sequence[str], title: str, path: Path,
    intervals: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Plot average precisions, (n_classes,), with `intervals` (n_classes, 2) and clips; worst first, NaN last."""
    order = np.argsort(np.nan_to_num(precision, nan=2.0), kind="stable")
    figure = plt.figure(figsize=(3.6, 0.24 * len(labels)))
    axes = figure.add_axes((0, 0, 1, 1))
    values = np.nan_to_num(precision[order])
    axes.barh(range(len(labels)), values, color=BLUE)
    if intervals is not None:
        rows = np.flatnonzero(~np.isnan(intervals[order]).any(axis=1))
        errors = np.abs(intervals[order][rows].T - values[rows])
        axes.errorbar(values[rows], rows, xerr=errors, fmt="none", ecolor=ORANGE, elinewidth=1.5, capsize=2)
    axes.set_yticks(range(len(labels)), [f"{figure_text(labels[j])} ({counts[j]})" for j in order])
    axes.tick_params(axis="y", length=0)
    note = "" if intervals is None else ", interval of 95 %"
    axes.set(xlabel=f"average precision (clips in brackets{note})", xlim=(0, 1), ylim=(len(labels) - 0.4, -0.6))
    figure.suptitle(title, fontsize=12, y=1 + 0.1 / figure.get_figheight(), va="bottom")
    save(figure, path)


def plot_calibration(
    bins: Reliability, title: str, path: Path, scaled: Reliability | None = None,
    words: tuple[str, str, str] = ("share of best guesses that are right", "score of the best guess", "clips"),
) -> None:  # fmt: skip
    """Plot the accuracy of best guesses against their scores, and the number of clips in each bin of scores.

    On the dotted line scores equal accuracy; below it guesses are correct less often than their scores say. `scaled`,
    the bins of the scores after scaling, are drawn beside them; `words` name accuracy, scores and what is counted.
    """
    columns, notes = ([bins], [""]) if scaled is None else ([bins, scaled], [", as blended", ", scaled"])
    options: dict[str, Any] = {"sharex": True, "sharey": "row", "squeeze": False, "height_ratios": (3, 1)}
    size = (5.5 if scaled is None else PAGE_WIDTH, 6.5)
    figure, axes = plt.subplots(2, len(columns), figsize=size, layout="constrained", **options)
    for part, note, (upper, lower) in zip(columns, notes, axes.T, strict=True):
        width, bars = part.high - part.low, {"align": "edge", "edgecolor": "white"}
        upper.plot([0, 1], [0, 1], color="black", linewidth=1.2, linestyle=":", label="score = accuracy")
        upper.bar(part.low, np.nan_to_num(part.accuracy), width, color=BLUE, label="accuracy", **bars)
        upper.plot(part.mean_score, part.accuracy, "o", color=ORANGE, clip_on=False, label="mean score")
        upper.set(xlim=(0, 1), ylim=(0, 1))
        lower.bar(part.low, part.clips, width, color=GREY, **bars)
        lower.set(xlabel=words[1] + note)
    axes[0, 0].set_ylabel(words[0])
    axes[1, 0].set_ylabel(words[2])
    axes[0, 0].legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    text = f"{title}: expected calibration error {bins.expected_error:.3f}"
    text += "" if scaled is None else f" as blended, {scaled.expected_error:.3f} after scaling"
    figure.suptitle(text, fontsize=12)
    save(figure, path)


def plot_scores(scores: pd.DataFrame, method: str, path: Path) -> None:
    """Plot the score of each study, with its members, and of each blend; the blend by `method` is marked."""
    first, _ = score_names_of(scores.columns)
    rows = scores[scores["kind"] != "member"]
    figure, axes = plt.subplots(figsize=(6.6, 0.4 * len(rows) + 0.9))
    names = []
    for y, row in enumerate(rows.itertuples(index=False)):
        if row.kind == "study":
            members = scores.loc[(scores["kind"] == "member") & (scores["study"] == row.study), first]
            axes.plot(members, [y + 0.25] * len(members), "o", color="#77818a", markersize=4.5)
            names.append(f"{figure_text(row.model)} {row.study}")
        else:
            names.append(f"blend, {row.method}")
        colour, weight = (ORANGE, "bold") if row.method == method else (BLUE, "normal")
        value = getattr(row, first)
        axes.plot(value, y, "D", color=colour, markersize=8)
        place = (1, y), (6, 0), ("axes fraction", "data"), "offset points"  # right of the axes
        axes.annotate(f"{value:.4f}", *place, va="center", fontweight=weight)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"{SCORE_WORDS[first]} (dots: single folds; orange: this blend)")
    save(figure, path)


def _epoch_axis(axes: Axes, n_epochs: int) -> None:
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, n_epochs + 0.5)
    integer_ticks(axes.xaxis, min_n_ticks=1)


def _legend_above(axes: Axes, **options: object) -> None:
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, **options)
