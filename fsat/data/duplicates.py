"""Clips that are the same sound: equal decoded samples, whatever their names, tags and formats.

Conventions: clips are numbered, first those of the training table, then those of the test table. A silent clip is
equal to no other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import pandas as pd

from fsat.data.decoded_clips import Clips
from fsat.errors import count, printable
from fsat.text import named, split_labels

SHOWN = 5


def first_equal(keys: Sequence[Hashable], are_equal: Callable[[int, int], bool]) -> np.ndarray:
    """Return for each item the first one that is equal to it, int64 (n,).

    Equal items have equal keys; an item with key None is equal to no other.
    """
    first, result = dict[Hashable, list[int]](), np.arange(len(keys))
    for i, key in enumerate(keys):
        if key is None:
            continue
        others = first.setdefault(key, [])
        result[i] = next((other for other in others if are_equal(other, i)), i)
        if result[i] == i:
            others.append(i)
    return result


def equal_clips(train: Clips, test: Clips) -> np.ndarray:
    """Return for each clip of a clip store the first one with equal samples, int64 (n_train + n_test,).

    Only clips of equal length and checksum are read.
    """
    keys: list[Hashable] = []
    for clips in (train, test):
        facts = zip(clips.lengths.tolist(), clips.crcs.tolist(), clips.silent.tolist(), strict=True)
        keys += [None if silent or not length else (length, crc) for length, crc, silent in facts]

    def samples(i: int) -> np.ndarray:
        return train[i] if i < len(train) else test[i - len(train)]

    return first_equal(keys, lambda i, j: np.array_equal(samples(i), samples(j)))


def contradictions(train: pd.DataFrame, first: Sequence[Hashable], task: str = "single") -> list[str]:
    """Return for each clip why its labels contradict those of an equal sound, or an empty string.

    `first` has a value for each clip that equal sounds share; with `task` ``multi`` a clip has any number of labels.
    """
    reasons = [""] * len(train)
    lines = [f" in line {row}" if file else "" for file, row in zip(train["file"], train["row"], strict=True)]
    rows = list(zip(train["fname"], train["label"], lines, strict=True))
    groups: dict[Hashable, list[int]] = {}
    for i, sound in enumerate(first):
        groups.setdefault(sound, []).append(i)
    for group in groups.values():
        for i in group if len({rows[j][1] for j in group}) > 1 else ():
            fname, label, line = next(rows[j] for j in group if rows[j][1] != rows[i][1])
            reasons[i] = f"the same sound as {printable(fname)}{line}, {_labelled(label, task)}"
    return reasons


def _labelled(cell: str, task: str) -> str:
    """Return the label or labels of a cell in a clause."""
    labels = split_labels(cell) if task == "multi" else [cell]
    if not labels:
        return "which has no label"
    return f"whose {'label is' if len(labels) == 1 else 'labels are'} {' and '.join(map(named, labels))}"


def copies_of(train: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """Return ``fname, copy_of`` of the clips that are equal to an earlier training clip.

    Both tables have ``fname`` and ``sound``, a value that equal sounds share; `clips` may be the training clips.
    """
    originals = train.drop_duplicates("sound").set_index("sound")["fname"]
    copies = clips.assign(copy_of=clips["sound"].map(originals))[["fname", "copy_of"]].dropna()
    return copies[copies["fname"] != copies["copy_of"]] if clips is train else copies


def describe_copies(train: pd.DataFrame, test: pd.DataFrame) -> list[str]:
    """Return sentences about training clips that are equal to others, and test clips that are equal to these."""
    lines = []
    for clips, of_what in (
        (train, "training clip# with the same sound as another one"),
        (test, "test clip# with the same sound as a training clip, so that scores on test clips are too high"),
    ):
        copies = copies_of(train, clips)
        names = [f"{printable(copy)} ({printable(original)})" for copy, original in copies.to_numpy()[:SHOWN]]
        if names:
            noun, _, rest = of_what.partition("#")
            ellipsis = ", ..." if len(copies) > SHOWN else ""
            lines.append(f"{count(len(copies), noun)}{rest}: {', '.join(names)}{ellipsis}")
    return lines
