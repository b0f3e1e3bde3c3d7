"""The notebook's look at the data: figures, and the tables behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.manifest import Manifest
from fsat.data.tables import write_table
from fsat.reports.style import BLUE, GREY, ORANGE, plt, save

FIRST_SAMPLES = 500
FEWEST_ALIKE = 3
"""How many clips of one exact length make it worth a line."""


def write_eda(manifest: Manifest, folder: Path) -> dict[str, float]:
    """Write all figures (``plots/*.png``) and tables (``tables/*.csv``) of a dataset.

    Args:
        manifest: as read, with the lengths from the clips' headers.
        folder: an existing folder.

    Returns:
        numbers of the dataset: clips, classes, verified share, seconds of sound, ...
    """
    train = manifest.train.assign(seconds=manifest.train["frames"] / manifest.train["samplerate"])
    usable = manifest.test[manifest.test["reason"] == ""]
    test = usable.assign(seconds=usable["frames"].astype(float) / usable["samplerate"].astype(float))

    classes = _classes(train)
    lengths = pd.concat([train.assign(split="train"), test.assign(split="test")])
    repeated = repeated_lengths(lengths)
    write_table(classes.reset_index(), folder / "tables" / "classes.csv")
    columns = ["split", "fname", "label", "frames", "samplerate", "seconds"]
    write_table(lengths[columns], folder / "tables" / "lengths.csv")
    write_table(repeated, folder / "tables" / "repeated_lengths.csv")

    _plot_classes(classes, folder / "plots" / "classes.png")
    _plot_waveform(manifest, train, folder / "plots" / "waveform.png")
    _plot_lengths_per_label(train, manifest.labels, folder / "plots" / "lengths_per_label.png")
    _plot_lengths(train["seconds"], test["seconds"], folder / "plots" / "lengths.png")
    _plot_repeated(repeated, folder / "plots" / "repeated_lengths.png")
    return {
        "n_train": len(train),
        "n_test": len(manifest.test),
        "n_classes": len(classes),
        "fewest_clips": int(classes["clips"].min()),
        "most_clips": int(classes["clips"].max()),
        "n_verified": int(train["manually_verified"].sum()),
        "train_seconds": float(train["seconds"].sum()),
        "shortest_seconds": float(train["seconds"].min()),
        "longest_seconds": float(train["seconds"].max()),
        "n_problems": len(manifest.problems),
    }


def repeated_lengths(lengths: pd.DataFrame) -> pd.DataFrame:
    """Exact lengths that several clips of one split share, most shared first.

    Args:
        lengths: has columns ``split``, ``frames``, ``samplerate``.

    Returns:
        ``split, frames, samplerate, seconds, clips``; lengths of at least three clips, and of at least a two-hundredth
        of the split, because in a large set a few clips share a length by chance.
    """
    groups = lengths.groupby(["split", "frames", "samplerate"]).size().rename("clips").reset_index()
    split_size = groups.groupby("split")["clips"].transform("sum")
    groups = groups[groups["clips"] >= np.maximum(FEWEST_ALIKE, split_size / 200)]
    groups["seconds"] = groups["frames"].astype(float) / groups["samplerate"].astype(float)
    groups = groups.sort_values(["clips", "split", "frames"], ascending=[False, True, True])
    return groups[["split", "frames", "samplerate", "seconds", "clips"]].reset_index(drop=True)


def _classes(train: pd.DataFrame) -> pd.DataFrame:
    """Per label: clips, verified, unverified, verified_share, median_seconds; fewest clips first."""
    groups = train.groupby("label")
    table = pd.DataFrame({"clips": groups.size(), "verified": groups["manually_verified"].sum()})
    table["unverified"] = table["clips"] - table["verified"]
    table["verified_share"] = (table["verified"] / table["clips"]).round(4)
    table["median_seconds"] = groups["seconds"].median().round(3)
    return table.sort_values(["clips", "label"])


def _plot_classes(classes: pd.DataFrame, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(max(7, 0.33 * len(classes)), 5))
    axes.bar(classes.index, classes["unverified"], color=GREY, label="not verified")
    axes.bar(classes.index, classes["verified"], bottom=classes["unverified"], color=BLUE, label="verified by hand")
    axes.tick_params(axis="x", rotation=90)
    axes.set_ylabel("training clips")
    axes.set_title(f"Clips per class: {classes['clips'].min()} to {classes['clips'].max()}, "
                   f"{classes['verified'].sum() / classes['clips'].sum():.0%} verified")  # fmt: skip
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(1.0, 0.0))
    save(figure, path)


def _plot_waveform(manifest: Manifest, train: pd.DataFrame, path: Path) -> None:
    """One clip, and its first 500 samples: the verified clip of median length."""
    import soundfile as sf

    pool = train[train["manually_verified"] == 1] if train["manually_verified"].any() else train
    clip = pool.sort_values(["seconds", "fname"]).iloc[len(pool) // 2]
    samples, rate = sf.read(manifest.train_folder / clip["fname"], always_2d=True)
    figure, (above, below) = plt.subplots(2, 1, figsize=(10, 6), layout="constrained")
    above.plot(np.arange(len(samples)) / rate, samples[:, 0], color=BLUE, linewidth=0.5)
    above.set_xlabel("seconds")
    above.set_title(f"{clip['fname']}: {clip['label']}, {len(samples)} samples at {rate} Hz")
    below.plot(samples[:FIRST_SAMPLES, 0], color=BLUE, linewidth=0.8, marker=".", markersize=3)
    below.set_xlabel(f"sample (the first {FIRST_SAMPLES})")
    save(figure, path)


def _plot_lengths_per_label(train: pd.DataFrame, labels: list[str], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(max(7, 0.4 * len(labels)), 5))
    groups = [train.loc[train["label"] == label, "seconds"].to_numpy() for label in labels]
    parts = axes.violinplot(groups, showmedians=True, widths=0.85)
    for body in parts["bodies"]:
        body.set_facecolor(BLUE)
    axes.set_xticks(range(1, len(labels) + 1), labels, rotation=90)
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.set_title("Lengths per label (line: median)")
    save(figure, path)


def _plot_lengths(train: pd.Series, test: pd.Series, path: Path) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharex=True)
    for axes, seconds, name, colour in zip(panels, (train, test), ("training", "test"), (BLUE, ORANGE), strict=True):
        if len(seconds):
            axes.hist(seconds, bins=100, color=colour)
        axes.set_title(f"{len(seconds)} {name} clips")
        axes.set_xlabel("seconds")
        axes.set_ylabel("clips")
    save(figure, path)


def _plot_repeated(repeated: pd.DataFrame, path: Path) -> None:
    shown = repeated.head(20).iloc[::-1]
    figure, axes = plt.subplots(figsize=(7, max(2.0, 0.3 * len(shown) + 1)))
    names = [f"{row.frames} ({row.seconds:.2f} s, {row.split})" for row in shown.itertuples()]
    axes.barh(range(len(shown)), shown["clips"], color=ORANGE)
    axes.set_yticks(range(len(shown)), names)
    axes.set_xlabel("clips of exactly this length in samples")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("Repeated lengths" if len(shown) else "No length is shared by several clips")
    save(figure, path)
