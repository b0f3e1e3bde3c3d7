"""Clips that belong together, because they are of one recording or are the same sound, and what folds do to them.

A model that has trained on a part of a recording, or on a copy of a clip, scores too well on the rest. So such clips
share a fold in a stratified split; a ``fold`` column that separates them is a leak, which is said with the scores.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

import numpy as np
import pandas as pd

from fsat.errors import count, printable
from fsat.text import is_unknown

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e\+?\d{1,2})?", re.IGNORECASE | re.ASCII)
"""An id as spreadsheets and pandas write numbers, such as 123, 123.0 and 1.23e+05."""


def recording_ids(column: pd.Series) -> pd.Series:
    """Return the ids of recordings as text: equal for equal numbers, empty where they are unknown."""

    def settle(cell: str) -> str:
        text = unicodedata.normalize("NFC", cell.strip())
        if is_unknown(text):
            return ""
        if not NUMBER.fullmatch(text):
            return text
        number = Decimal(text)
        return str(int(number)) if number == int(number) else f"{number.normalize():f}"

    known = {cell: settle(cell) for cell in column.unique()}
    return column.map(known)


def clip_groups(train: pd.DataFrame) -> pd.Series | None:
    """Return the name of each clip's group: the clips that are linked by recordings or equal sounds.

    `train` has ``fname``, and may have ``group`` and ``sound``, a number that equal sounds share. A clip that is
    linked to no other has its own group. None if the table says nothing of recordings and no two sounds are equal.
    """
    sounds = "sound" in train and bool(train["sound"].duplicated().any())
    if "group" not in train and not sounds:
        return None
    own = "clip " + train["fname"]
    names = own
    if "group" in train:
        ids = recording_ids(train["group"])
        names = ids.where(ids != "", own)
    return names if not sounds else names.groupby(_linked(names, train["sound"])).transform("first")


def _linked(*columns: pd.Series) -> np.ndarray:
    """Return the number of each row's group, int (n,): rows are linked by equal values in any of the columns."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(columns[0])
    rows = np.arange(n)
    firsts = [pd.Series(rows).groupby(column.to_numpy()).transform("first").to_numpy() for column in columns]
    links = coo_array((np.ones(n * len(firsts)), (np.tile(rows, len(firsts)), np.concatenate(firsts))), shape=(n, n))
    return np.asarray(connected_components(links, directed=False)[1])


def describe_large_groups(train: pd.DataFrame, n_folds: int) -> list[str]:
    """Return a sentence if groups are larger than a fold, so that folds must differ in size."""
    groups = clip_groups(train)
    if groups is None:
        return []
    sizes = groups.value_counts()
    large = sizes[sizes > len(train) / n_folds]
    shown = [f"{printable(name)} ({count(size, 'clip')})" for name, size in large.head(5).items()]
    if not shown:
        return []
    ellipsis = ", ..." if len(large) > len(shown) else ""
    folds = f"{'is' if len(large) == 1 else 'are'} larger than a fold ({count(len(train), 'clip')} in {n_folds} folds)"
    return [f"{count(len(large), 'recording')} {folds}: {', '.join(shown)}{ellipsis}"]


def describe_leak(train: pd.DataFrame, folds: np.ndarray) -> str:
    """Say how many clips have a clip of the same recording or sound in another fold; empty if there are none.

    `folds` is int (n_clips,), or any other values that are equal for the clips of a fold.
    """
    columns = {}
    if "group" in train:
        ids = recording_ids(train["group"])
        columns["recording"] = ids.where(ids != "", "clip " + train["fname"])
    if "sound" in train:
        columns["repeated sound"] = train["sound"]
    is_split, counts = np.zeros(len(train), dtype=bool), {}
    for noun, column in columns.items():
        n_folds = pd.Series(folds).groupby(column.to_numpy()).nunique()
        counts[noun] = int((n_folds > 1).sum())
        is_split |= column.map(n_folds).to_numpy() > 1
    if not is_split.any():
        return ""
    parts = [count(number, noun) for noun, number in counts.items() if number]
    verb = "is" if sum(counts.values()) == 1 else "are"
    return f"{is_split.sum()} of {count(len(train), 'clip')}: {' and '.join(parts)} {verb} in several folds"
