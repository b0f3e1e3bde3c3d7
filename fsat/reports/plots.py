"""Figures of predictions: a fold's learning curves, confusion, average precision of each class, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsat.reports.style import BLUE, GREY, ORANGE, plt, save
from fsat.scoring.calibration import Reliability
from fsat.scoring.metrics import class_average_precision, confusion


def plot_learning_curves(history: Sequence[dict[str, float]], best_epoch: int, title: str, path: Path) -> None:
    """Loss and scores over the epochs that have them; a line marks the epoch whose weights are kept."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for axes, names in ((left, ("loss", "val_loss")), (right, ("acc", "val_acc", "val_map3"))):
        for name, colour in zip(names, (GREY, BLUE, ORANGE), strict=False):
            points = [(epoch, row[name]) for epoch, row in enumerate(history) if name in row]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=name)
        axes.axvline(best_epoch, color="black", linewidth=0.8, linestyle=":", label="weights kept")
        axes.set_xlabel("epoch")
        axes.legend(frameon=False)
    left.set_ylabel("cross-entropy (nats)")
    right.set_ylabel("score")
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
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
    size = max(5.0, 0.34 * len(labels) + 2)
    figure, axes = plt.subplots(figsize=(size, size))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.grid(False)
    for i, j in zip(*np.nonzero(counts), strict=True):
        axes.text(
            j, i, counts[i, j], ha="center", va="center", fontsize=8, color="white" if shares[i, j] > 0.5 else "black"
        )
    axes.set_xlabel("best guess")
    axes.set_ylabel("label")
    axes.set_title(title)
    save(figure, path)


def plot_class_precision(
    scores: np.ndarray, targets: np.ndarray, labels: Sequence[str], title: str, path: Path
) -> None:
    """Average precision of each class, best first, with its number of clips."""
    precision = class_average_precision(scores, targets)
    counts = np.bincount(targets, minlength=len(labels))
    order = np.argsort(np.nan_to_num(precision, nan=-1.0))
    figure, axes = plt.subplots(figsize=(7, max(2.5, 0.26 * len(labels) + 1)))
    axes.barh(range(len(labels)), np.nan_to_num(precision[order]), color=BLUE)
    axes.set_yticks(range(len(labels)), [f"{labels[j]} ({counts[j]})" for j in order])
    axes.set_xlim(0, 1)
    axes.set_xlabel("average precision (number of clips in brackets)")
    axes.set_title(title)
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
