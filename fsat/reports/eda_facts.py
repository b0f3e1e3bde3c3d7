"""Counts and lengths of a dataset: the tables behind the text, the figures and the page of ``eda``.

Conventions: lengths are in seconds by the clips' headers; shares are from 0 to 1; only usable clips count.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.duplicates import copies_of
from fsat.data.manifest import Manifest
from fsat.data.tables import write_table
from fsat.errors import Problem
from fsat.reports.label_facts import LabelFacts, measure_labels, row_per_label

MIN_REPEATS, MIN_REPEATS_SHARE = 3, 1 / 200
"""Smallest number of clips of one exact length, and share of the split's clips, that is reported: in a large set a few
clips share a length by chance."""

LENGTH_COLUMNS = ["split", "fname", "label", "frames", "samplerate", "seconds"]


@dataclass(frozen=True)
class Facts:
    """Counts and lengths of a dataset.

    Attributes:
        name: of the data folder.
        classes: one row per label, fewest clips first: ``label, clips, verified, unverified, verified_share,
            median_seconds, p10_seconds, p90_seconds``; the last two are the 10th and 90th percentile.
        lengths: one row per usable clip: ``split`` (train or test), ``fname, label, frames, samplerate, seconds``.
        repeated: see `repeated_lengths`.
        problems: excluded training clips, unusable test clips and doubtful rows.
        n_test, n_unusable: number of rows of the test table, and of those whose clip cannot be used.
        warnings: what the terminal shows too, a sentence each.
        copies: ``split, fname, copy_of``: clips that are the same sound as a training clip.
        n_train, n_verified: number of training clips, and of those with verified labels.
        labels: how labels occur together, if a clip may have any number of them. A clip counts for each of its labels
            in `classes`, and its label in `lengths` is a cell of `fsat.text.join_labels`.
    """

    name: str
    classes: pd.DataFrame
    lengths: pd.DataFrame
    repeated: pd.DataFrame
    problems: list[Problem]
    n_test: int
    n_unusable: int
    warnings: list[str]
    copies: pd.DataFrame
    n_train: int
    n_verified: int
    labels: LabelFacts | None = None

    def seconds(self, split: str) -> np.ndarray:
        """Return the lengths of the usable clips of ``train`` or ``test``, float64 (n,)."""
        return self.lengths.loc[self.lengths["split"] == split, "seconds"].to_numpy(dtype="float64")

    def seconds_by_label(self) -> dict[str, np.ndarray]:
        """Return the lengths of each label's training clips, float64 (n,)."""
        train = self.lengths[self.lengths["split"] == "train"]
        rows = row_per_label(train) if self.labels else train
        return {label: clips.to_numpy(dtype="float64") for label, clips in rows.groupby("label")["seconds"]}

    def metrics(self) -> dict[str, float]:
        """Return the numbers that are logged."""
        clips, seconds = self.classes["clips"], self.seconds("train")
        numbers: dict[str, float] = {"n_train": self.n_train, "n_test": self.n_test, "n_classes": len(self.classes)}
        extremes = (int(clips.min()), int(clips.max())) if len(clips) else (0, 0)
        numbers |= {"fewest_clips": extremes[0], "most_clips": extremes[1], "n_verified": self.n_verified}
        numbers |= {"n_none": self.labels.n_none, "n_several": self.labels.n_several} if self.labels else {}
        lengths = {"train": seconds.sum(), "shortest": seconds.min(), "longest": seconds.max()}
        numbers |= {f"{name}_seconds": float(value) for name, value in lengths.items()}
        return numbers | {"n_problems": len(self.problems), "n_copies": len(self.copies)}

    def write(self, folder: Path) -> None:
        """Write the tables as CSV, making the folder."""
        write_table(self.classes, folder / "classes.csv")
        write_table(self.lengths, folder / "lengths.csv")
        write_table(self.repeated, folder / "repeated_lengths.csv")
        write_table(self.copies, folder / "copies.csv")
        if self.labels:
            self.labels.write(folder)


def measure(manifest: Manifest) -> Facts:
    """Count and measure a dataset from its manifest, without reading files."""
    train = manifest.train.assign(split="train")
    usable = manifest.test[manifest.test["reason"] == ""].assign(split="test", label=None)
    parts = [part[LENGTH_COLUMNS[:-1]].astype(object) for part in (train, usable) if len(part)]
    lengths = pd.concat(parts, ignore_index=True).astype({"frames": "int64", "samplerate": "int64"})
    lengths["seconds"] = lengths["frames"] / lengths["samplerate"]
    clips = manifest.train.assign(seconds=lengths["seconds"].iloc[: len(train)].to_numpy())
    is_multi = manifest.task == "multi"
    return Facts(
        manifest.folder.absolute().name,
        _class_table(row_per_label(clips) if is_multi else clips),
        lengths,
        repeated_lengths(lengths),
        list(manifest.problems),
        len(manifest.test),
        len(manifest.test) - len(usable),
        list(manifest.warnings),
        _copies(manifest),
        len(train),
        int(manifest.train["manually_verified"].sum()),
        measure_labels(manifest.train, manifest.labels) if is_multi else None,
    )


def _copies(manifest: Manifest) -> pd.DataFrame:
    """Return the table of equal sounds, which has no rows if clips were not compared."""
    splits = {"train": manifest.train, "test": manifest.test} if "sound" in manifest.train else {}
    copies = [copies_of(manifest.train, clips).assign(split=split) for split, clips in splits.items()]
    columns = ["split", "fname", "copy_of"]
    return pd.concat([pd.DataFrame(columns=columns), *copies], ignore_index=True)[columns]


def odd_clips(manifest: Manifest) -> pd.DataFrame:
    """Return ``split, fname, label, note`` of the clips with a note, if the manifest has notes."""
    parts = [manifest.train.assign(split="train"), manifest.test.assign(split="test", label="")]
    columns = ["split", "fname", "label", "note"]
    odd = pd.concat([part.reindex(columns=columns)[columns].astype(object) for part in parts], ignore_index=True)
    return odd[odd["note"].fillna("") != ""].reset_index(drop=True)


def repeated_lengths(lengths: pd.DataFrame) -> pd.DataFrame:
    """Return ``split, frames, samplerate, seconds, clips`` of exact lengths that clips share, most frequent first.

    They have at least `MIN_REPEATS` clips and `MIN_REPEATS_SHARE` of the split.
    """
    groups = lengths.groupby(["split", "frames", "samplerate"]).size().rename("clips").reset_index()
    split_size = groups.groupby("split")["clips"].transform("sum")
    groups = groups[groups["clips"] >= np.maximum(MIN_REPEATS, split_size * MIN_REPEATS_SHARE)]
    groups["seconds"] = groups["frames"].astype(float) / groups["samplerate"].astype(float)
    groups = groups.sort_values(["clips", "split", "frames"], ascending=[False, True, True])
    return groups[["split", "frames", "samplerate", "seconds", "clips"]].reset_index(drop=True)


def _class_table(train: pd.DataFrame) -> pd.DataFrame:
    groups = train.groupby("label")
    table = pd.DataFrame({"clips": groups.size(), "verified": groups["manually_verified"].sum()})
    table["unverified"] = table["clips"] - table["verified"]
    table["verified_share"] = (table["verified"] / table["clips"]).round(4)
    quantiles = groups["seconds"].quantile([0.5, 0.1, 0.9]).unstack().round(4)
    table[["median_seconds", "p10_seconds", "p90_seconds"]] = quantiles.reindex(columns=[0.5, 0.1, 0.9])
    return table.sort_values(["clips", "label"]).reset_index()
