"""What is counted and measured of a dataset before anyone looks at it: the tables behind words, figures and page.

Conventions: lengths are in seconds as the clips' headers have them; shares are from 0 to 1; only usable clips count.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.manifest import Manifest
from fsat.data.tables import write_table
from fsat.errors import Problem

FEWEST_ALIKE = 3
"""How many clips of one exact length make it worth a line."""

SHARE_ALIKE = 1 / 200
"""The share of a split's clips that they must be as well, because in a large set a few share a length by chance."""

LENGTH_COLUMNS = ["split", "fname", "label", "frames", "samplerate", "seconds"]


@dataclass(frozen=True)
class Facts:
    """What is known of a dataset.

    Attributes:
        name: the data folder's.
        classes: one row a label, fewest clips first: ``label, clips, verified, unverified, verified_share,
            median_seconds, p10_seconds, p90_seconds``; nine clips in ten are at least p10 and at most p90 long.
        lengths: one row a usable clip: ``split`` (train or test), ``fname, label, frames, samplerate, seconds``.
        repeated: exact lengths that many clips share, as `repeated_lengths` has them.
        problems: excluded training clips, unusable test clips and doubtful rows.
        n_test: rows of the test table.
        n_unusable: those of them whose clip cannot be used.
    """

    name: str
    classes: pd.DataFrame
    lengths: pd.DataFrame
    repeated: pd.DataFrame
    problems: list[Problem]
    n_test: int
    n_unusable: int

    def seconds(self, split: str) -> np.ndarray:
        """Lengths of the usable clips of ``train`` or ``test``, float64 (n,)."""
        return self.lengths.loc[self.lengths["split"] == split, "seconds"].to_numpy(dtype="float64")

    @property
    def n_train(self) -> int:
        """Training clips."""
        return int(self.classes["clips"].sum())

    @property
    def n_verified(self) -> int:
        """Those of them whose label is verified."""
        return int(self.classes["verified"].sum())

    def metrics(self) -> dict[str, float]:
        """The numbers that are logged of a dataset."""
        seconds = self.seconds("train")
        return {
            "n_train": self.n_train,
            "n_test": self.n_test,
            "n_classes": len(self.classes),
            "fewest_clips": int(self.classes["clips"].min()),
            "most_clips": int(self.classes["clips"].max()),
            "n_verified": self.n_verified,
            "train_seconds": float(seconds.sum()),
            "shortest_seconds": float(seconds.min()),
            "longest_seconds": float(seconds.max()),
            "n_problems": len(self.problems),
        }

    def write(self, folder: Path) -> None:
        """Write the tables as CSV into a folder, which is made if missing."""
        write_table(self.classes, folder / "classes.csv")
        write_table(self.lengths, folder / "lengths.csv")
        write_table(self.repeated, folder / "repeated_lengths.csv")


def facts_of(manifest: Manifest) -> Facts:
    """Count and measure a dataset; its files are not read, only what the manifest knows of them."""
    train = manifest.train.assign(split="train")
    usable = manifest.test[manifest.test["reason"] == ""].assign(split="test", label=None)
    parts = [part[LENGTH_COLUMNS[:-1]].astype(object) for part in (train, usable) if len(part)]
    lengths = pd.concat(parts, ignore_index=True).astype({"frames": "int64", "samplerate": "int64"})
    lengths["seconds"] = lengths["frames"] / lengths["samplerate"]
    return Facts(
        manifest.folder.absolute().name,
        _classes(manifest.train.assign(seconds=lengths["seconds"].iloc[: len(train)].to_numpy())),
        lengths,
        repeated_lengths(lengths),
        list(manifest.problems),
        len(manifest.test),
        len(manifest.test) - len(usable),
    )


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
    groups = groups[groups["clips"] >= np.maximum(FEWEST_ALIKE, split_size * SHARE_ALIKE)]
    groups["seconds"] = groups["frames"].astype(float) / groups["samplerate"].astype(float)
    groups = groups.sort_values(["clips", "split", "frames"], ascending=[False, True, True])
    return groups[["split", "frames", "samplerate", "seconds", "clips"]].reset_index(drop=True)


def _classes(train: pd.DataFrame) -> pd.DataFrame:
    groups = train.groupby("label")
    table = pd.DataFrame({"clips": groups.size(), "verified": groups["manually_verified"].sum()})
    table["unverified"] = table["clips"] - table["verified"]
    table["verified_share"] = (table["verified"] / table["clips"]).round(4)
    spread = groups["seconds"].quantile([0.5, 0.1, 0.9]).unstack().round(4)
    table[["median_seconds", "p10_seconds", "p90_seconds"]] = spread[[0.5, 0.1, 0.9]]
    return table.sort_values(["clips", "label"]).reset_index()
