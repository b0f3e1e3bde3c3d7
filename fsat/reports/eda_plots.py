"""Figures of a dataset: classes, lengths, and lengths that many clips share.

Figures are as wide as the page that shows them, with text about as large as the page's. With many classes they grow
downwards, a panel for every `PER_PANEL` classes; what does not fit into `MAX_PANELS` panels is in the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fsat.errors import printable
from fsat.reports.eda_facts import Facts
from fsat.reports.eda_text import clips_of, count, samples
from fsat.reports.plots import BLUE, GREY, ORANGE, PAGE_WIDTH, figure_text, integer_ticks, plt, save

PER_PANEL, MAX_PANELS = 45, 12
LENGTHS_SHOWN = 20
BINS = 100
LOG_RATIO = 15
"""Lengths are on a logarithmic axis if the longest clip is this many times as long as the median one."""


def plot_classes(facts: Facts, path: Path) -> None:
    """Plot the number of clips of each class, fewest first, verified ones at the bottom."""
    table = facts.classes
    figure, panels = _panels(len(table), 4.2)
    for axes, part in panels:
        rows = table.iloc[part]
        x = np.arange(len(rows))
        axes.bar(x, rows["verified"], color=BLUE, label="verified by hand")
        axes.bar(x, rows["unverified"], bottom=rows["verified"], color=GREY, label="not verified")
        _label_classes(axes, rows["label"], len(table))
        axes.set_ylabel("training clips")
        axes.set_ylim(0, 1.05 * max([1, *table["clips"]]))
        integer_ticks(axes.yaxis)
    _title(figure, "Clips of each class", len(table))
    figure.axes[0].legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0)
    save(figure, path)


def plot_label_numbers(facts: Facts, path: Path) -> None:
    """Plot how many clips have no label, one, two and so on, verified ones at the bottom."""
    assert facts.labels is not None
    table = facts.labels.numbers
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH, 3.4), layout="constrained")
    axes.bar(table["labels"], table["verified"], color=BLUE, label="verified by hand")
    rest = table["clips"] - table["verified"]
    bars = axes.bar(table["labels"], rest, bottom=table["verified"], color=GREY, label="not verified")
    axes.bar_label(bars, [f"{number:,}" for number in table["clips"]], padding=2)
    axes.set_xlim(-0.6, max(len(table), 8) - 0.4)
    axes.set_xticks(table["labels"])
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)
    axes.set(xlabel="labels of a clip", ylabel="training clips")
    axes.set_title("Labels of each clip", loc="left")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0)
    integer_ticks(axes.yaxis)
    save(figure, path)


def plot_lengths_per_label(facts: Facts, path: Path) -> None:
    """Plot the distribution of the lengths of each label's training clips, shortest median first."""
    by_label = facts.seconds_by_label()
    labels = facts.classes.sort_values(["median_seconds", "label"])["label"]
    seconds = facts.seconds("train")
    low, median, high = np.quantile(seconds, [0, 0.5, 1])
    log = bool(high > LOG_RATIO * median or low * LOG_RATIO < median)
    figure, panels = _panels(len(labels), 4.2)
    for axes, part in panels:
        names = labels.iloc[part]
        groups = [np.log10(by_label[label]) if log else by_label[label] for label in names] or [np.array([np.nan])]
        options: dict[str, Any] = {"showmedians": True, "showextrema": False, "widths": 0.9, "points": 60}
        violins = axes.violinplot(groups, range(len(groups)), **options)
        for body in violins["bodies"]:  # type: ignore[attr-defined]  # a list, which its type does not say
            body.set(facecolor=BLUE, alpha=0.5)
        violins["cmedians"].set(color=ORANGE, linewidth=2)
        _label_classes(axes, names, len(labels))
        axes.set_ylabel("seconds")
        if log:
            _log_ticks(axes, low, high)
        else:
            axes.set_ylim(0, 1.05 * high)
    _title(figure, "Lengths of each label's training clips (line: median)", len(labels))
    save(figure, path)


def plot_lengths(facts: Facts, path: Path) -> None:
    """Plot histograms of the lengths of training and of test clips, one below the other."""
    parts = {"training": (facts.seconds("train"), BLUE), "test": (facts.seconds("test"), ORANGE)}
    lengths = np.concatenate([seconds for seconds, _ in parts.values()])
    low, high = lengths.min(), lengths.max()
    log = bool(high > LOG_RATIO * np.quantile(lengths, 0.9))
    bins = np.geomspace(low, high * 1.001, BINS + 1) if log else np.linspace(0, high * 1.001, BINS + 1)
    figure, panels = plt.subplots(2, 1, figsize=(PAGE_WIDTH, 4.8), sharex=True, layout="constrained")
    for axes, (name, (seconds, colour)) in zip(panels, parts.items(), strict=True):
        if len(seconds):
            axes.hist(seconds, bins=bins, color=colour)
            axes.axvline(np.median(seconds), color="black", linewidth=1, linestyle=":", label="median")
            axes.legend(frameon=False, loc="upper right")
        axes.set_title(count(len(seconds), f"{name} clip"), loc="left")
        axes.set_ylabel("clips")
        integer_ticks(axes.yaxis)
    if log:
        panels[0].set_xscale("log")
        panels[1].xaxis.set_major_formatter("{x:g}")
    panels[1].set_xlabel("seconds")
    save(figure, path)


def plot_repeated(facts: Facts, path: Path) -> None:
    """Plot how many clips share the most frequent exact lengths."""
    rows = list(facts.repeated.head(LENGTHS_SHOWN).iloc[::-1].itertuples())
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH, max(1.6, 0.3 * len(rows) + 0.9)), layout="constrained")
    colours = [BLUE if row.split == "train" else ORANGE for row in rows]
    bars = axes.barh(range(len(rows)), [row.clips for row in rows], color=colours, height=0.7)
    axes.bar_label(bars, [f"{row.clips:,} {clips_of(row.split)}" for row in rows], padding=4)
    axes.set_yticks(range(len(rows)), [f"{samples(row.frames)}, {row.seconds:.2f} s" for row in rows])
    axes.margins(x=0.22)
    axes.set_xlabel("clips of exactly this length")
    integer_ticks(axes.xaxis)
    axes.grid(visible=False, axis="y")
    hidden = len(facts.repeated) - len(rows)
    title = f"Lengths that many clips share{f' ({hidden:,} more in the table)' if hidden else ''}"
    axes.set_title(title if rows else "No length is shared by many clips", loc="left")
    if not rows:
        axes.set_xticks([])
    save(figure, path)


def _panels(n_classes: int, inches: float) -> tuple[Figure, Iterator[tuple[Axes, slice]]]:
    """Return a figure, and its panels with the slices of the classes that they show."""
    n_panels = max(1, min(MAX_PANELS, -(-n_classes // PER_PANEL)))
    size = max(1, min(PER_PANEL, -(-n_classes // n_panels)))
    shape = (PAGE_WIDTH, inches * n_panels)
    figure, axes = plt.subplots(n_panels, 1, figsize=shape, squeeze=False, layout="constrained")
    slices = (slice(start, min(n_classes, start + size)) for start in range(0, n_panels * size, size))
    return figure, zip(axes[:, 0], slices, strict=True)


def _label_classes(axes: Axes, labels: Sequence[str] | pd.Series, n_classes: int) -> None:
    """Write labels below the axis, horizontally if they are few and short."""
    texts = [figure_text(printable(label)) for label in labels]
    horizontal = sum(map(len, texts)) + 2 * len(texts) < 90
    axes.set_xticks(range(len(texts)), texts, rotation=0 if horizontal else 90)
    axes.set_xlim(-0.6, max(len(texts), min(n_classes, 8)) - 0.4)  # the bars of few classes stay narrow
    axes.grid(visible=False, axis="x")


def _title(figure: Figure, text: str, n_classes: int) -> None:
    if n_classes > PER_PANEL * MAX_PANELS:
        text += f" (the first {PER_PANEL * MAX_PANELS:,} of {n_classes:,})"
    figure.axes[0].set_title(text, loc="left")


def _log_ticks(axes: Axes, low: float, high: float) -> None:
    """Label an axis of logarithms of seconds with seconds."""
    ticks = [step * 10.0**k for k in range(-6, 5) for step in (1, 3)]
    ticks = [tick for tick in ticks if low / 1.2 <= tick <= high * 1.2]
    axes.set_yticks(np.log10(ticks), [f"{tick:g}" for tick in ticks])
    axes.set_ylim(np.log10(low) - 0.1, np.log10(high) + 0.1)
