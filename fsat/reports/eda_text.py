"""Sentences about a dataset, computed from its numbers: one function per section of ``eda.html``.

Conventions: each function takes `Facts` and returns one or a few plain sentences. Counts have thousands separators;
lengths in samples have none, so that they can be found in a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fsat.data.near_duplicates import OTHER_FOLDS, OTHER_LABELS, OTHER_SPLITS, NearDuplicates
from fsat.errors import plural
from fsat.reports.eda_facts import MIN_REPEATS, MIN_REPEATS_SHARE, Facts
from fsat.text import named, short

SMIRNOV, MIN_DIFFERENCE = 1.95, 0.05
"""Two samples of n and m clips differ beyond chance (p = 0.001) if their cumulative shares differ by more than SMIRNOV
times sqrt((n + m) / (n m)) (Smirnov 1948); shares that differ by less than MIN_DIFFERENCE are called similar."""


def describe_classes(facts: Facts) -> str:
    """Describe how many clips the classes have, and how many labels are verified."""
    table, n_classes = facts.classes, len(facts.classes)
    if not n_classes:
        return f"None of {count(facts.n_train, 'clip')} has a label."
    fewest, most = int(table["clips"].min()), int(table["clips"].max())
    if n_classes == 1:
        text = f"There is one class, {named(table['label'].iloc[0])}, with {count(most, 'clip')}."
    elif fewest == most:
        text = f"Each of the {n_classes:,} classes has {count(most, 'clip')}."
    else:
        smallest, largest = (_having(table, number) for number in (fewest, most))
        text = f"{n_classes:,} classes with {fewest:,} to {most:,} clips per class; {smallest} the fewest, "
        text += f"{largest} the most."
    if n_classes > 1 and most > facts.n_train / 2:
        text += f" {named(table['label'].iloc[-1])} alone has {percent(most, facts.n_train)} of all clips."
    return f"{text} {_describe_verified(facts)}"


def describe_rates(facts: Facts) -> str:
    """Describe the sampling rates of the files."""
    clips = facts.lengths["samplerate"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if len(clips) == 1:
        return f"All clips are at {clips.index[0]:,} Hz."
    rates = [f"{rate:,} Hz ({count(n, 'clip')})" for rate, n in clips.items()]
    return f"The clips have {len(clips):,} sampling rates: {listed(rates, 5)}."


def describe_lengths_per_label(facts: Facts) -> str:
    """Describe how the lengths of training clips differ between labels and within them."""
    table = facts.classes.sort_values(["median_seconds", "label"])
    if table.empty:
        return "No clip has a label."
    table = table.assign(label=table["label"].map(named))
    first, last, seconds = table.iloc[0], table.iloc[-1], facts.seconds("train")
    medians = duration(first["median_seconds"]), duration(last["median_seconds"])
    if seconds.min() == seconds.max():
        return f"All training clips have the same length, {duration(seconds[0])}."
    if len(table) == 1:
        return f"The median clip of {first['label']} is {medians[0]} long; {_spread(first)}."
    text = f"The median length is the same for every label, {medians[0]}."
    if medians[0] != medians[1]:
        labels = f"{medians[0]} ({first['label']}) to {medians[1]} ({last['label']})"
        text = f"The median length of a label's clips ranges from {labels}."
    spread = table.assign(spread=table["p90_seconds"] - table["p10_seconds"]).sort_values(["spread", "label"])
    least, most = spread.iloc[0], spread.iloc[-1]
    if duration(most["p10_seconds"]) == duration(most["p90_seconds"]):
        return f"{text} Within a label, most clips are about equally long."
    if duration(most["spread"]) == duration(least["spread"]):
        return text
    low, high = duration(least["p10_seconds"]), duration(least["p90_seconds"])
    narrow = f"all about {low}" if low == high else f"{low} to {high}"
    text += f" Lengths vary most in {most['label']}, where {_spread(most)}"
    return f"{text}, and least in {least['label']} ({narrow})."


def describe_lengths(facts: Facts) -> str:
    """Describe how long training clips are, and whether test clips are as long."""
    train, test = facts.seconds("train"), facts.seconds("test")
    text = f"{duration(train.sum())} of sound in {count(len(train), 'training clip')}"
    if train.min() == train.max():
        text += f", {'all' if len(train) > 1 else 'which is'} {duration(train[0])} long."
    else:
        median, high = duration(np.median(train)), duration(np.quantile(train, 0.9))
        most = f"half of them are at most {median} long, nine in ten" if median != high else "nine in ten of them are"
        text += f", from {duration(train.min())} to {duration(train.max())}: {most} at most {high}."
    if len(test):
        return f"{text} {_compare_lengths(train, test)}"
    if facts.n_test:
        return f"{text} None of the {count(facts.n_test, 'test clip')} can be used."
    return f"{text} There are no test clips."


def describe_repeated(facts: Facts) -> str:
    """Describe which exact lengths many clips share."""
    table, sizes = facts.repeated, facts.lengths["split"].value_counts()
    if table.empty:
        share = f"{100 * MIN_REPEATS_SHARE:g} % of the training or of the test clips"
        return f"No exact length is shared by many clips ({MIN_REPEATS} or more, and at least {share})."
    rows = list(table.itertuples())
    if all(row.clips == sizes[row.split] for row in rows):
        texts = [f"{clips_of(row.split)} are {samples(row.frames)} ({duration(row.seconds)}) long" for row in rows]
        return f"All {' and all '.join(texts)}, exactly."
    mixed_rates = facts.lengths["samplerate"].nunique() > 1
    texts = [
        f"{samples(frames)} ({duration(seconds)}{f' at {rate:,} Hz' if mixed_rates else ''}) by "
        + " and ".join(f"{row.clips:,} {clips_of(row.split)}" for row in same.itertuples())
        for (frames, rate, seconds), same in table.groupby(["frames", "samplerate", "seconds"], sort=False)
    ]
    totals = table.groupby("split")["clips"].sum()
    shares = " and ".join(f"{percent(n, sizes[split])} of the {clips_of(split)}" for split, n in totals.items())
    if len(texts) == 1:
        return f"1 exact length is shared by many clips: {texts[0]}. It makes up {shares}."
    where = f", all of them among the {clips_of(rows[0].split)}" if len(totals) == 1 and sizes.size > 1 else ""
    text = f"{len(texts):,} exact lengths are each shared by many clips{where}: {listed(texts, 6)}."
    return f"{text} Together they make up {shares}."


def describe_problems(facts: Facts, n_unreadable: int) -> str:
    """Describe what is wrong with the dataset; `n_unreadable` clips could not be read for the page."""
    n_excluded = len({(problem.file, problem.row) for problem in facts.problems if problem.split == "train"})
    n_doubtful = sum(problem.split == "test" for problem in facts.problems) - facts.n_unusable
    sentences = [
        (n_excluded, f"{count(n_excluded, 'training row')} {_is(n_excluded)} excluded."),
        (facts.n_unusable, f"{count(facts.n_unusable, 'test clip')} of {facts.n_test:,} cannot be used."),
        (n_doubtful, f"{count(n_doubtful, 'row')} of the test table {_is(n_doubtful)} doubtful."),
        (n_unreadable, f"{count(n_unreadable, 'clip')} could not be read for this page, though the header is valid."),
    ]
    text = " ".join(sentence for number, sentence in sentences if number > 0)
    if text or facts.warnings:
        return text or "No clip is excluded, but see below."
    return "No problems: every row of the tables and every clip's header is valid."


def describe_odd_clips(kinds: Mapping[str, Sequence[str]]) -> str:
    """Describe how many clips are silent, clipped, off scale and so on; `kinds` has their names."""
    if not kinds:
        return "No clip is silent, nearly silent, clipped, off scale or offset; no channel is dead; no header is wrong."
    texts = [
        f"{kind}: {count(len(names), 'clip')} ({listed(list(map(short, names)))})" for kind, names in kinds.items()
    ]
    return f"{'; '.join(texts)}."


def describe_near_duplicates(near: NearDuplicates | None) -> str:
    """Describe how many pairs of clips sound almost the same, and what is wrong with them."""
    if near is None:
        return "Clips that sound almost the same were not looked for: name a pretrained network, -P backbone=FILE.json."
    how = f"by the embeddings of {near.backbone.partition('@')[0]} (cosine of at least {near.threshold:g})"
    if not near.n_pairs:
        return f"No two of {count(near.n_clips, 'clip')} sound almost the same {how}, apart from equal sounds."
    verb = "sounds" if near.n_pairs == 1 else "sound"
    text = f"{count(near.n_pairs, 'pair')} of clips {verb} almost the same {how}, apart from equal sounds."
    if near.n_pairs > len(near.pairs):
        text += f" The {len(near.pairs):,} most similar ones are listed."
    meanings = {
        OTHER_LABELS: "different labels, of which one may be wrong",
        OTHER_FOLDS: "clips in different folds, so that scores may be too high",
        OTHER_SPLITS: "a training and a test clip, so that scores on test clips may be too high",
    }
    numbers = {meaning: n for finding, meaning in meanings.items() if (n := near.count_of(finding))}
    parts = [f"{number:,} {'has' if number == 1 else 'have'} {meaning}" for meaning, number in numbers.items()]
    return f"{text} {'; '.join(parts)}." if parts else f"{text} No pair differs in label, fold or split."


def count(number: int, noun: str) -> str:
    """Return a number of things with thousands separators: ``1 clip``, ``9,473 clips``."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def samples(number: int) -> str:
    """Return a number of samples as it is in the tables, without separators: ``16000 samples``."""
    return f"{number} {'sample' if number == 1 else 'samples'}"


def percent(part: float, whole: float) -> str:
    """Return a part in percent, which is 0 or 100 only if it is exactly that."""
    share = 100 * part / whole
    if 0 < share < 0.5:
        return "under 1 %"
    if 99.5 <= share < 100:
        return "over 99 %"
    return f"{share:.0f} %"


def duration(seconds: float) -> str:
    """Return a length of time with its unit: ``12 ms``, ``0.35 s``, ``6.1 s``, ``3.5 min``, ``18.0 h``."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 119.95:
        return f"{seconds:.{2 if seconds < 0.995 else 1}f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7197 else f"{seconds / 3600:.1f} h"


def listed(words: Sequence[str], limit: int = 3) -> str:
    """Return words as ``a, b and c``; beyond `limit`, the first ones and the number of the others."""
    words = list(words)
    if len(words) > limit:
        words = [*words[: limit - 1], f"{len(words) - limit + 1:,} others"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def clips_of(split: str) -> str:
    """Name the clips of a split."""
    return "test clips" if split == "test" else "training clips"


def _describe_verified(facts: Facts) -> str:
    if facts.n_verified == facts.n_train:
        return "All labels are verified by hand."
    if not facts.n_verified:
        return "No label is verified by hand."
    table = facts.classes.assign(share=facts.classes["verified"] / facts.classes["clips"])
    total = percent(facts.n_verified, facts.n_train)
    what = "label" if facts.labels is None else "clip"
    labels = f"{facts.n_verified:,} of {count(facts.n_train, what)} ({total})"
    text = f"{labels} {_is(facts.n_verified)} verified by hand"
    low, high = table["share"].min(), table["share"].max()
    if len(table) == 1:
        return f"{text}."
    if percent(low, 1) == percent(high, 1):
        return f"{text}, about the same share in every class."
    lowest, highest = (f"{percent(share, 1)} ({listed(_labels_with(table, 'share', share))})" for share in (low, high))
    return f"{text}; the share of verified labels ranges from {lowest} to {highest}."


def _compare_lengths(train: np.ndarray, test: np.ndarray) -> str:
    """Say whether test clips are as long as training clips (two-sample test of Kolmogorov and Smirnov)."""
    lengths = np.unique(np.concatenate([train, test]))
    of_train, of_test = (np.searchsorted(np.sort(x), lengths, side="right") / len(x) for x in (train, test))
    k = int(np.argmax(np.abs(of_test - of_train)))
    difference = of_test[k] - of_train[k]
    median, other = duration(np.median(test)), duration(np.median(train))
    medians = f"median {median} {'in both' if median == other else f'against {other}'}"
    threshold = max(MIN_DIFFERENCE, SMIRNOV * np.sqrt((len(train) + len(test)) / (len(train) * len(test))))
    clips = count(len(test), "test clip")
    if abs(difference) < threshold:
        return f"The {clips} {_is(len(test))} about as long ({medians})."
    tend = f"{'tends' if len(test) == 1 else 'tend'} to be {'shorter' if difference > 0 else 'longer'}"
    return (
        f"The {clips} {tend} ({medians}); they differ most at "
        f"{duration(lengths[k])}: {percent(of_train[k], 1)} of the training clips and {percent(of_test[k], 1)} of the "
        "test clips are at most that long."
    )


def _labels_with(table: pd.DataFrame, column: str, value: float) -> list[str]:
    """Name the labels of the classes with this value; if they are more than three, return their number."""
    labels = table.loc[table[column] == value, "label"].tolist()
    return list(map(named, labels)) if len(labels) <= 3 else [f"{len(labels):,} classes"]


def _having(table: pd.DataFrame, n_clips: int) -> str:
    """Name the labels of the classes with this number of clips, with the verb."""
    is_one = (table["clips"] == n_clips).sum() == 1
    return f"{listed(_labels_with(table, 'clips', n_clips))} {'has' if is_one else 'have'}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _spread(row: pd.Series) -> str:
    return f"four clips in five last {duration(row['p10_seconds'])} to {duration(row['p90_seconds'])}"
