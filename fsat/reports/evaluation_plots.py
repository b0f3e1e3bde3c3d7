"""Figures of an evaluation: precision and recall by threshold, and F1 of each class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from fsat.metrics.detection_curves import Curve, Point
from fsat.metrics.sound_events import Counts
from fsat.reports.plots import BLUE, GREY, ORANGE, PAGE_WIDTH, figure_text, plt, save

COLUMNS, MAX_PANELS = 4, 40
"""Panels in a row, and classes that have one: those of which most segments are annotated."""

LOW, LOWEST = 0.02, 1e-4
"""Thresholds are on a logarithmic axis, from the second one up, if one below the first is chosen."""

MAX_BARS = 60


def plot_thresholds(curves: Mapping[str, Curve], points: Mapping[str, Point], path: Path) -> None:
    """Plot precision and recall of each class by threshold, with a line at the chosen one."""
    shown = sorted(curves, key=lambda label: -curves[label].n_positive)[:MAX_PANELS]
    n_columns = min(COLUMNS, len(shown))
    n_rows = math.ceil(len(shown) / n_columns)
    size = (max(5.0, PAGE_WIDTH * n_columns / COLUMNS), 2.1 * n_rows + 0.7)
    figure, grid = plt.subplots(n_rows, n_columns, figsize=size, sharex=True, sharey=True, layout="constrained",
                                squeeze=False)  # fmt: skip
    panels = grid.ravel().tolist()
    is_log = min(points[label].threshold for label in shown) < LOW
    for axes, label in zip(panels, sorted(shown), strict=False):
        _plot_curve(axes, curves[label], points[label])
        axes.set_xlim(LOWEST if is_log else 0, 1)
        axes.set_xscale("log" if is_log else "linear")
        axes.set_title(figure_text(label), fontsize=10)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    figure.supxlabel("threshold", fontsize=10)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=4, frameon=False)
    save(figure, path)


def _plot_curve(axes: Axes, curve: Curve, point: Point) -> None:
    at = curve.thresholds
    axes.step(at, curve.precision, where="pre", color=BLUE, label="precision")
    axes.step(at, curve.recall, where="pre", color=ORANGE, label="recall")
    axes.step(at, curve.f1, where="pre", color=GREY, label="F1")
    axes.axvline(max(point.threshold, LOWEST), color="black", linewidth=1.2, linestyle=":", label="highest F1")
    axes.set_ylim(0, 1.03)


def plot_precision_recall(curves: Mapping[str, Curve], path: Path) -> None:
    """Plot precision against recall, a line for each class."""
    figure, axes = plt.subplots(figsize=(5.4, 4.6), layout="constrained")
    named = len(curves) <= 10
    for label, curve in curves.items():
        text = f"{figure_text(label)} ({curve.average_precision:.2f})"
        colour = None if named else BLUE
        axes.plot(curve.recall, curve.precision, drawstyle="steps-pre", color=colour, alpha=1 if named else 0.4,
                  linewidth=1.4, label=text if named else None)  # fmt: skip
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.03))
    if named:
        axes.legend(title="average precision", fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def plot_classes(as_tagged: Mapping[str, Counts], cross_validated: Mapping[str, Counts], path: Path) -> None:
    """Plot the segment-based F1 of each class, as it was tagged and with thresholds chosen on other recordings."""
    shown = sorted(as_tagged, key=lambda label: (-as_tagged[label].n_ref, label))[:MAX_BARS]
    shown.sort(key=lambda label: _number(as_tagged[label]))
    height = np.arange(len(shown))
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH * 0.75, 0.32 * len(shown) + 1.2), layout="constrained")
    axes.barh(height, [_number(as_tagged[label]) for label in shown], 0.7, color=GREY, label="as tagged")
    if cross_validated:
        values = [_number(cross_validated[label]) for label in shown]
        axes.plot(values, height, "o", color=BLUE, label="at thresholds chosen on other recordings")
    axes.set_yticks(height, [figure_text(label) for label in shown])
    axes.set(xlim=(0, 1.01), xlabel="F1 of segments", ylim=(-0.6, len(shown) - 0.4))
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    save(figure, path)


def _number(counts: Counts) -> float:
    return 0.0 if math.isnan(counts.f1) else counts.f1
