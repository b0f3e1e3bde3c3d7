"""Figures of predictions: a fold's learning curves, confusion, average precision of each class, calibration.

MLflow shows them in a pane that is 500 to 800 pixels wide, and makes wider ones fit: hence no figure is wider than its
letters need.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsat.metrics.calibration import Reliability
from fsat.metrics.ranking import class_average_precision, confusion
from fsat.reports.style import BLUE, GREY, ORANGE, lettering, plt, save

MARKED = 30
"""Points of a curve that are marked one by one; more are only a line."""

CELL = 0.205
"""Inches of the smallest cell of a confusion matrix, which holds a label's letters and two digits."""


def plot_learning_curves(history: Sequence[dict[str, float]], best_epoch: int, title: str, path: Path) -> None:
    """Loss and scores over the epochs that have them; a line marks the epoch whose weights are kept.

    `best_epoch` counts from 0, the figure from 1, as all does that people read.
    """
    figure, (above, below) = plt.subplots(2, 1, figsize=(6, 6), sharex=True, layout="constrained")
    for axes, names in ((above, ("loss", "val_loss")), (below, ("acc", "val_acc", "val_map3"))):
        for name, colour in zip(names, (GREY, BLUE, ORANGE), strict=False):
            points = [(epoch, row[name]) for epoch, row in enumerate(history, 1) if name in row]
            marker = "o" if len(points) <= MARKED else None
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, color=colour, label=name)
        axes.axvline(best_epoch + 1, color="black", linewidth=1, linestyle=":", label="weights kept")
        axes.legend(frameon=False, fontsize=10, ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2,
                    handlelength=1.2, columnspacing=1.2)  # fmt: skip
    above.set_ylabel("cross-entropy (nats)")
    below.set_ylabel("score")
    below.set_ylim(0, 1)
    below.set_xlabel("epoch")
    below.set_xlim(0.5, len(history) + 0.5)
    below.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.suptitle(title)
    save(figure, path)


def plot_confusion(scores: np.ndarray, targets: np.ndarray, labels: Sequence[str], title: str, path: Path) -> None:
    """Counts of labels against best guesses.

    Args:
        scores: (n_clips, n_classes).
        targets: int (n_clips,).
        labels: label order.
    """
    counts = confusion(scores, targets)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = min(1.0, max(4.2 / len(labels), CELL))  # in inches
    figure = plt.figure(figsize=(cell * len(labels), cell * len(labels)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names, size = [lettering(label) for label in labels], min(11.0, 0.8 * 72 * cell)
    axes.set_xticks(range(len(labels)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(labels)), names, fontsize=size)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(labels)) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels)) - 0.5, minor=True)
    axes.grid(False)
    axes.grid(which="minor", linewidth=0.5)  # rows and columns can be followed
    axes.tick_params(which="minor", length=0)
    for i, j in zip(*np.nonzero(counts), strict=True):
        text = str(counts[i, j])
        fits = 1.5 * 72 * cell / max(2, len(text))  # a digit is about 0.6 as wide as high
        axes.text(
            j, i, text, ha="center", va="center", fontsize=min(11.0, fits),
            color="white" if shares[i, j] > 0.5 else "black",
        )  # fmt: skip
    axes.set_xlabel("best guess", fontsize=11)
    axes.set_ylabel("label", fontsize=11)
    axes.set_title(title)
    save(figure, path)


def plot_class_precision(
    scores: np.ndarray, targets: np.ndarray, labels: Sequence[str], title: str, path: Path
) -> None:
    """Average precision of each class, worst first, with its number of clips; classes without clips last."""
    precision = class_average_precision(scores, targets)
    counts = np.bincount(targets, minlength=len(labels))
    order = np.argsort(np.nan_to_num(precision, nan=2.0), kind="stable")
    figure = plt.figure(figsize=(3.6, 0.24 * len(labels)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.barh(range(len(labels)), np.nan_to_num(precision[order]), color=BLUE)
    axes.set_yticks(range(len(labels)), [f"{lettering(labels[j])} ({counts[j]})" for j in order])
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel("average precision (clips in brackets)")
    figure.suptitle(title, fontsize=12, y=1 + 0.1 / figure.get_figheight(), va="bottom")
    save(figure, path)


def plot_calibration(bins: Reliability, title: str, path: Path) -> None:
    """Accuracy of best guesses against their scores, and below it how many clips have such scores.

    On the dotted line scores are what they say; below it guesses are less often right than they say.
    """
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(5.5, 6.5), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    width = bins.high - bins.low
    above.plot([0, 1], [0, 1], color="black", linewidth=1.2, linestyle=":", label="score = accuracy")
    above.bar(bins.low, np.nan_to_num(bins.accuracy), width, align="edge", color=BLUE, edgecolor="white",
              label="accuracy")  # fmt: skip
    above.plot(bins.mean_score, bins.accuracy, "o", color=ORANGE, clip_on=False, label="mean score")
    above.set_xlim(0, 1)
    above.set_ylim(0, 1)
    above.set_ylabel("share of best guesses that are right")
    above.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.suptitle(f"{title}: expected calibration error {bins.expected_error:.3f}", fontsize=12)
    below.bar(bins.low, bins.clips, width, align="edge", color=GREY, edgecolor="white")
    below.set_ylabel("clips")
    below.set_xlabel("score of the best guess")
    save(figure, path)
