"""Counts of the labels of clips that have any number of them: the tables behind ``eda``.

Conventions: clips are rows of the training clips of a manifest, whose column ``label`` has cells of
`fsat.text.join_labels`, empty for none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.tables import write_table
from fsat.text import split_labels


@dataclass(frozen=True)
class LabelFacts:
    """Labels of clips, and which of them occur together.

    Attributes:
        numbers: ``labels, clips, verified``: for each number of labels, from 0, how many clips have it.
        combinations: ``labels, clips``: the cells of clips with labels, most frequent first.
        pairs: ``label, other, clips, label_share, other_share``: how often two labels are on one clip, most often
            first, and the shares of the clips of each.
        together: int64 (n_classes, n_classes), clips with both labels, on the diagonal those with one; in label order.
        names: label order.
    """

    numbers: pd.DataFrame
    combinations: pd.DataFrame
    pairs: pd.DataFrame
    together: np.ndarray
    names: list[str]

    @property
    def n_none(self) -> int:
        """Number of clips without a label."""
        return int(self.numbers["clips"].iloc[0])

    @property
    def n_several(self) -> int:
        """Number of clips with two labels or more."""
        return int(self.numbers["clips"].iloc[2:].sum())

    def write(self, folder: Path) -> None:
        """Write the tables as CSV into an existing folder."""
        write_table(self.numbers, folder / "label_numbers.csv")
        write_table(self.combinations, folder / "combinations.csv")
        write_table(self.pairs, folder / "pairs.csv")


def row_per_label(clips: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each label of each clip, with the label as ``label`` and their number as ``n_labels``."""
    codes, cells = pd.factorize(clips["label"])
    labels = list(map(split_labels, cells))
    numbers = np.array(list(map(len, labels)), dtype=np.int64)[codes]
    rows = clips.iloc[np.repeat(np.arange(len(clips)), numbers)]
    names = [label for code in codes for label in labels[code]]
    return rows.assign(label=pd.Series(names, index=rows.index, dtype=object), n_labels=np.repeat(numbers, numbers))


def measure_labels(clips: pd.DataFrame, names: list[str]) -> LabelFacts:
    """Count the labels of training clips; `names` is the label order."""
    cells = clips.groupby("label", sort=False).agg(clips=("label", "size"), verified=("manually_verified", "sum"))
    labels = {cell: split_labels(str(cell)) for cell in cells.index}
    size = max(map(len, labels.values()), default=0) + 1
    numbers = pd.DataFrame({"labels": range(size), "clips": 0, "verified": 0})
    pairs: Counter[tuple[str, str]] = Counter()
    index = {name: j for j, name in enumerate(names)}
    together = np.zeros((len(names), len(names)), dtype=np.int64)
    for cell, n_clips, verified in cells.itertuples():
        own = labels[cell]
        numbers.loc[len(own), ["clips", "verified"]] += [n_clips, verified]
        pairs.update(dict.fromkeys(combinations(own, 2), n_clips))
        codes = [index[label] for label in own]
        together[np.ix_(codes, codes)] += n_clips
    several = cells[cells.index != ""].reset_index().rename(columns={"label": "labels"})[["labels", "clips"]]
    several = several.sort_values(["clips", "labels"], ascending=[False, True]).reset_index(drop=True)
    rows = [
        (a, b, n, n / together[index[a], index[a]], n / together[index[b], index[b]]) for (a, b), n in pairs.items()
    ]
    table = pd.DataFrame(rows, columns=["label", "other", "clips", "label_share", "other_share"]).round(4)
    table = table.sort_values(["clips", "label", "other"], ascending=[False, True, True]).reset_index(drop=True)
    return LabelFacts(numbers, several, table, together, list(names))
