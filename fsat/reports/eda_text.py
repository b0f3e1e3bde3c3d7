"""What a dataset's numbers say, as a person would write it: one function a section of the page.

Conventions: each takes `Facts` and returns one or a few plain sentences, computed from the data. Counts have thousands
separators; lengths in samples have none, so that they can be searched for in a table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fsat.reports.eda_facts import FEWEST_ALIKE, SHARE_ALIKE, Facts

SURE = 1.95
"""Two samples of n and m clips differ beyond chance (p = 0.001) if their cumulative shares are further apart
than this times sqrt((n + m) / (n m)); Smirnov 1948."""

WORTH = 0.05
"""Cumulative shares that are nearer to each other than this are called alike, however many clips there are."""


def classes(facts: Facts) -> str:
    """How many clips the classes have, and how many of the labels are verified."""
    table, n = facts.classes, len(facts.classes)
    least, most = int(table["clips"].min()), int(table["clips"].max())
    if n == 1:
        says = f"There is one class, {table['label'].iloc[0]}, with {count(most, 'clip')}."
    elif least == most:
        says = f"Each of the {n:,} classes has {count(most, 'clip')}."
    else:
        fewest = _those(table, "clips", least)
        says = (
            f"{n:,} classes with {least:,} to {most:,} clips a class; {listed(fewest)} {_has(fewest)} the fewest, "
            f"{listed(_those(table, 'clips', most))} {_has(_those(table, 'clips', most))} the most."
        )
    if n > 1 and most > facts.n_train / 2:
        says += f" {table['label'].iloc[-1]} alone has {share(most, facts.n_train)} of all clips."
    return f"{says} {_verified(facts)}"


def rates(facts: Facts) -> str:
    """The sampling rates of the files."""
    clips = facts.lengths["samplerate"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if len(clips) == 1:
        return f"All clips are at {clips.index[0]:,} Hz."
    shown = [f"{rate:,} Hz ({count(n, 'clip')})" for rate, n in clips.items()]
    return f"The clips have {len(clips):,} sampling rates: {listed(shown, 5)}."


def lengths_per_label(facts: Facts) -> str:
    """How the lengths of training clips differ between labels and within them."""
    table = facts.classes.sort_values(["median_seconds", "label"])
    first, last = table.iloc[0], table.iloc[-1]
    everything = facts.seconds("train")
    if everything.min() == everything.max():
        return f"All training clips have the same length, {duration(everything[0])}."
    spread = table.assign(spread=table["p90_seconds"] - table["p10_seconds"]).sort_values(["spread", "label"])
    least, most = spread.iloc[0], spread.iloc[-1]
    if len(table) == 1:
        return f"The median clip of {first['label']} is {duration(first['median_seconds'])} long; {_within(first)}."
    if duration(first["median_seconds"]) == duration(last["median_seconds"]):
        says = f"The median length is the same for every label, {duration(first['median_seconds'])}."
    else:
        says = (
            f"The median length of a label's clips goes from {duration(first['median_seconds'])} ({first['label']}) to "
            f"{duration(last['median_seconds'])} ({last['label']})."
        )
    if duration(most["p10_seconds"]) == duration(most["p90_seconds"]):
        return f"{says} Within a label, most clips are about equally long."
    if duration(most["spread"]) == duration(least["spread"]):
        return says
    return f"{says} Lengths spread most in {most['label']}, where {_within(most)}, and least in {least['label']} " + (
        f"({duration(least['p10_seconds'])} to {duration(least['p90_seconds'])})."
        if duration(least["p10_seconds"]) != duration(least["p90_seconds"])
        else f"(all about {duration(least['p10_seconds'])})."
    )


def lengths(facts: Facts) -> str:
    """How long training clips are, and whether test clips are as long."""
    train, test = facts.seconds("train"), facts.seconds("test")
    total = f"{duration(train.sum())} of sound in {count(len(train), 'training clip')}"
    if train.min() == train.max():
        says = f"{total}, {'all' if len(train) > 1 else 'which is'} {duration(train[0])} long."
    else:
        half, most = duration(np.median(train)), duration(np.quantile(train, 0.9))
        half = f"half of them are at most {half} long, nine in ten" if half != most else "nine in ten of them are"
        says = f"{total}, from {duration(train.min())} to {duration(train.max())}: {half} at most {most}."
    if not len(test):
        there = f"None of the {count(facts.n_test, 'test clip')} can be used." if facts.n_test else ""
        return f"{says} {there or 'There are no test clips.'}"
    return f"{says} {_compared(train, test)}"


def repeated(facts: Facts) -> str:
    """Which exact lengths many clips share."""
    table = facts.repeated
    if table.empty:
        return (
            f"No exact length is shared by many clips ({FEWEST_ALIKE} or more, and at least {100 * SHARE_ALIKE:g} % of "
            "the training or of the test clips)."
        )
    sizes = facts.lengths["split"].value_counts()
    whole = [row for row in table.itertuples() if row.clips == sizes[row.split]]
    if len(whole) == len(table):
        same = [f"{_of(row.split)} are {row.frames} samples ({duration(row.seconds)}) long" for row in whole]
        return f"All {' and all '.join(same)}, exactly."
    same = table.groupby(["frames", "samplerate", "seconds"], sort=False)
    shown = [
        f"{frames} samples ({duration(seconds)}{_at(facts, rate)}) by "
        + " and ".join(f"{row.clips:,} {_of(row.split)}" for row in rows.itertuples())
        for (frames, rate, seconds), rows in same
    ]
    made = table.groupby("split")["clips"].sum()
    parts = [f"{share(clips, sizes[split])} of the {_of(split)}" for split, clips in made.items()]
    only = table["split"].unique()
    where = f", all of them among the {_of(only[0])}" if len(only) == 1 and sizes.size > 1 and len(shown) > 1 else ""
    many = f"{count(len(shown), 'exact length')} {'is' if len(shown) == 1 else 'are each'} shared by many clips{where}"
    together = "Together they make" if len(shown) > 1 else "It makes"
    return f"{many}: {listed(shown, 6)}. {together} up {' and '.join(parts)}."


def problems(facts: Facts, found: int) -> str:
    """What is wrong with the dataset.

    Args:
        found: clips whose samples could not be read for the page, though their headers are right.
    """
    excluded = {(problem.file, problem.row) for problem in facts.problems if problem.split == "train"}
    doubtful = len([problem for problem in facts.problems if problem.split == "test"]) - facts.n_unusable
    says = []
    if excluded:
        says.append(f"{count(len(excluded), 'training row')} {_is(len(excluded))} left out.")
    if facts.n_unusable:
        says.append(f"{count(facts.n_unusable, 'test clip')} of {facts.n_test:,} cannot be used.")
    if doubtful > 0:
        says.append(f"{count(doubtful, 'row')} of the test table {_is(doubtful)} doubtful.")
    if found:
        says.append(f"{count(found, 'clip')} could not be read to be shown here, though the header is right.")
    return " ".join(says) or "No problems: every row of the tables and every clip's header is right."


def count(number: int, thing: str) -> str:
    """A number of things: ``1 clip``, ``9,473 clips``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def share(part: float, whole: float) -> str:
    """A part in percent, which is 0 or 100 only if it is so."""
    percent = 100 * part / whole
    if 0 < percent < 0.5:
        return "under 1 %"
    if 99.5 <= percent < 100:
        return "over 99 %"
    return f"{percent:.0f} %"


def duration(seconds: float) -> str:
    """A length of time: ``12 ms``, ``0.35 s``, ``6.1 s``, ``3.5 min``, ``18.0 h``."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 0.995:
        return f"{seconds:.2f} s"
    if seconds < 119.95:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7197 else f"{seconds / 3600:.1f} h"


def listed(words: Sequence[str], most: int = 3) -> str:
    """Words in a row: ``a, b and c``; of more than `most`, the first ones and how many others there are."""
    words = list(words)
    if len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1:,} others"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _verified(facts: Facts) -> str:
    table = facts.classes
    if facts.n_verified == facts.n_train:
        return "All labels are verified by hand."
    if not facts.n_verified:
        return "No label is verified by hand."
    shares = table["verified"] / table["clips"]
    of_all = share(facts.n_verified, facts.n_train)
    says = f"{facts.n_verified:,} of {facts.n_train:,} labels ({of_all}) are verified by hand"
    low, high = share(shares.min(), 1), share(shares.max(), 1)
    if len(table) == 1:
        return f"{says}."
    if low == high:
        return f"{says}, about the same share in every class."
    exact = table.assign(share=shares)
    return (
        f"{says}; the share of verified labels goes from {low} ({listed(_those(exact, 'share', shares.min()))}) to "
        f"{high} ({listed(_those(exact, 'share', shares.max()))})."
    )


def _compared(train: np.ndarray, test: np.ndarray) -> str:
    """Whether test clips are as long as training clips (Kolmogorov and Smirnov)."""
    at = np.unique(np.concatenate([train, test]))
    shares = [np.searchsorted(np.sort(some), at, side="right") / len(some) for some in (train, test)]
    apart = shares[1] - shares[0]
    k = int(np.argmax(np.abs(apart)))
    median, other = duration(np.median(test)), duration(np.median(train))
    medians = f"median {median} against {other}" if median != other else f"median {median} in both"
    limit = max(WORTH, SURE * np.sqrt((len(train) + len(test)) / (len(train) * len(test))))
    tests = count(len(test), "test clip")
    if abs(apart[k]) < limit:
        return f"The {tests} {'is' if len(test) == 1 else 'are'} about as long ({medians})."
    return (
        f"The {tests} tend to be {'shorter' if apart[k] > 0 else 'longer'} ({medians}); they differ most at "
        f"{duration(at[k])}: {share(shares[0][k], 1)} of the training clips and {share(shares[1][k], 1)} of the test "
        "clips are at most that long."
    )


def _those(table: pd.DataFrame, column: str, value: float) -> list[str]:
    """Labels of the classes that have this value; of more than three, how many they are."""
    labels = table.loc[table[column] == value, "label"].tolist()
    return labels if len(labels) <= 3 else [f"{len(labels):,} classes"]


def _has(labels: list[str]) -> str:
    return "has" if len(labels) == 1 and not labels[0].endswith(" classes") else "have"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _within(row: pd.Series) -> str:
    return f"four clips in five last {duration(row['p10_seconds'])} to {duration(row['p90_seconds'])}"


def _of(split: str) -> str:
    return "test clips" if split == "test" else "training clips"


def _at(facts: Facts, rate: int) -> str:
    return f" at {rate:,} Hz" if facts.lengths["samplerate"].nunique() > 1 else ""
