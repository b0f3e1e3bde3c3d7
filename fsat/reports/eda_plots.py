"""Figures of a dataset: classes, lengths, lengths that are shared.

They are as wide as the page that shows them, and their text is about as large as the page's. With many classes they
grow downwards, a panel for every `PER_PANEL` of them; what does not fit into `PANELS` panels is in the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fsat.errors import printable
from fsat.reports.eda_facts import Facts
from fsat.reports.style import BLUE, GREY, ORANGE, PAGE_WIDTH, lettering, plt, save

PER_PANEL, PANELS = 45, 12
LENGTHS_SHOWN = 20
BINS = 100
FAR = 15
"""Lengths are on a logarithmic axis where the longest clip is so many times as long as the median one."""


def plot_classes(facts: Facts, path: Path) -> None:
    """Clips of each class, fewest first, verified ones below."""
    table = facts.classes
    figure, panels = _panels(len(table), 4.2)
    for axes, part in panels:
        some = table.iloc[part]
        at = np.arange(len(some))
        axes.bar(at, some["verified"], color=BLUE, label="verified by hand")
        axes.bar(at, some["unverified"], bottom=some["verified"], color=GREY, label="not verified")
        _name(axes, at, some["label"], len(table))
        axes.set_ylabel("training clips")
        axes.set_ylim(0, 1.05 * table["clips"].max())
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(visible=False, axis="x")
    _title(figure, "Clips of each class", len(table))
    figure.axes[0].legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0)
    save(figure, path)


def plot_lengths_per_label(facts: Facts, path: Path) -> None:
    """How the lengths of each label's clips are spread, shortest median first."""
    train = facts.lengths[facts.lengths["split"] == "train"]
    by_label = {label: clips.to_numpy(dtype="float64") for label, clips in train.groupby("label")["seconds"]}
    labels = facts.classes.sort_values(["median_seconds", "label"])["label"]
    everything = facts.seconds("train")
    far = bool(everything.max() > FAR * np.median(everything) or everything.min() * FAR < np.median(everything))
    figure, panels = _panels(len(labels), 4.2)
    for axes, part in panels:
        names = labels.iloc[part]
        groups = [np.log10(by_label[label]) if far else by_label[label] for label in names]
        drawn = axes.violinplot(groups, range(len(groups)), showmedians=True, showextrema=False, widths=0.9, points=60)
        for body in drawn["bodies"]:
            body.set(facecolor=BLUE, alpha=0.5)
        drawn["cmedians"].set(color=ORANGE, linewidth=2)
        _name(axes, range(len(groups)), names, len(labels))
        axes.set_ylabel("seconds")
        axes.grid(visible=False, axis="x")
        if far:
            _log_ticks(axes, everything.min(), everything.max())
        else:
            axes.set_ylim(0, 1.05 * everything.max())
    _title(figure, "Lengths of each label's training clips (line: median)", len(labels))
    save(figure, path)


def plot_lengths(facts: Facts, path: Path) -> None:
    """Lengths of training and of test clips, below each other on one axis."""
    parts = {"training": (facts.seconds("train"), BLUE), "test": (facts.seconds("test"), ORANGE)}
    everything = np.concatenate([seconds for seconds, _ in parts.values()])
    low, high = everything.min(), everything.max()
    far = bool(high > FAR * np.quantile(everything, 0.9))
    bins = np.geomspace(low, high * 1.001, BINS + 1) if far else np.linspace(0, high * 1.001, BINS + 1)
    figure, panels = plt.subplots(2, 1, figsize=(PAGE_WIDTH, 4.8), sharex=True, layout="constrained")
    for axes, (name, (seconds, colour)) in zip(panels, parts.items(), strict=True):
        if len(seconds):
            axes.hist(seconds, bins=bins, color=colour)
            axes.axvline(np.median(seconds), color="black", linewidth=1, linestyle=":", label="median")
            axes.legend(frameon=False, loc="upper right")
        axes.set_title(f"{len(seconds):,} {name} clip{'' if len(seconds) == 1 else 's'}", loc="left")
        axes.set_ylabel("clips")
        axes.yaxis.get_major_locator().set_params(integer=True)
    if far:
        panels[0].set_xscale("log")
        panels[1].xaxis.set_major_formatter("{x:g}")
    panels[1].set_xlabel("seconds")
    save(figure, path)


def plot_repeated(facts: Facts, path: Path) -> None:
    """The lengths that most clips share."""
    shown = facts.repeated.head(LENGTHS_SHOWN).iloc[::-1]
    figure, axes = plt.subplots(figsize=(PAGE_WIDTH, max(1.6, 0.3 * len(shown) + 0.9)), layout="constrained")
    names = [f"{row.frames} samples, {row.seconds:.2f} s" for row in shown.itertuples()]
    colours = [BLUE if split == "train" else ORANGE for split in shown["split"]]
    bars = axes.barh(range(len(shown)), shown["clips"], color=colours, height=0.7)
    axes.bar_label(bars, [f"{clips:,} {'training' if split == 'train' else 'test'} clips"
                          for clips, split in zip(shown["clips"], shown["split"], strict=True)], padding=4)  # fmt: skip
    axes.set_yticks(range(len(shown)), names)
    axes.margins(x=0.22)
    axes.set_xlabel("clips of exactly this length")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(visible=False, axis="y")
    more = len(facts.repeated) - len(shown)
    title = f"Lengths that many clips share{f' ({more:,} more in the table)' if more else ''}"
    axes.set_title(title if len(shown) else "No length is shared by many clips", loc="left")
    if not len(shown):
        axes.set_xticks([])
    save(figure, path)


def _panels(n: int, inches: float) -> tuple[Figure, Iterator[tuple[Axes, slice]]]:
    """A figure for n classes: its panels, and which of the classes each shows."""
    n_panels = min(PANELS, -(-n // PER_PANEL))
    each = min(PER_PANEL, -(-n // n_panels))
    figure, axes = plt.subplots(
        n_panels, 1, figsize=(PAGE_WIDTH, inches * n_panels), squeeze=False, layout="constrained"
    )  # fmt: skip
    return figure, ((one, slice(i * each, min(n, (i + 1) * each))) for i, one in enumerate(axes[:, 0]))


def _name(axes: Axes, at: Sequence[int], labels: pd.Series, n: int) -> None:
    """Write labels below their places; few ones stand level, if they are short."""
    texts = [lettering(printable(label)) for label in labels]
    level = sum(map(len, texts)) + 2 * len(texts) < 90
    axes.set_xticks(at, texts, rotation=0 if level else 90)
    least = min(n, 8)  # bars of one class would fill the picture
    axes.set_xlim(-0.6, max(len(texts), least) - 0.4)


def _title(figure: Figure, text: str, n: int) -> None:
    cut = f" (the first {PANELS * PER_PANEL:,} of {n:,})" if n > PANELS * PER_PANEL else ""
    figure.axes[0].set_title(text + cut, loc="left")


def _log_ticks(axes: Axes, low: float, high: float) -> None:
    """Seconds on an axis whose values are their logarithms."""
    ticks = [step * 10.0**k for k in range(-6, 5) for step in (1, 3)]
    shown = [tick for tick in ticks if low / 1.2 <= tick <= high * 1.2]
    axes.set_yticks(np.log10(shown), [f"{tick:g}" for tick in shown])
    axes.set_ylim(np.log10(low) - 0.1, np.log10(high) + 0.1)
