"""Sentences of ``eda.html`` about clips with any number of labels. Conventions: as in `fsat.reports.eda_text`."""

from __future__ import annotations

from fsat.reports.eda_text import count, listed, percent
from fsat.reports.label_facts import LabelFacts
from fsat.text import named, split_labels


def describe_label_numbers(labels: LabelFacts) -> str:
    """Describe how many clips have no label, one, two and so on."""
    table = labels.numbers[labels.numbers["clips"] > 0]
    total = int(table["clips"].sum())
    parts = [
        f"{row.clips:,} ({percent(row.clips, total)}) {'has' if row.clips == 1 else 'have'} "
        + (count(row.labels, "label") if row.labels else "no label")
        for row in table.itertuples()
    ]
    text = f"Of {count(total, 'clip')}, {listed(parts, 8)}."
    if not labels.n_none:
        text += " No clip is without a label, so what a tagger does with other sounds cannot be measured."
    return text


def describe_combinations(labels: LabelFacts) -> str:
    """Describe the most frequent combinations and pairs of labels."""
    if labels.combinations.empty:
        return "No clip has a label."
    several = [
        f"{' + '.join(map(named, names))} ({clips:,})"
        for cell, clips in labels.combinations.head(100).itertuples(index=False)
        if len(names := split_labels(cell)) > 1
    ]
    are = "is" if len(labels.combinations) == 1 else "are"
    text = f"There {are} {count(len(labels.combinations), 'combination')} of labels"
    if not several:
        return (
            f"{text}; no clip has several." if labels.pairs.empty else f"{text}; the most frequent are single labels."
        )
    text += f"; the most frequent of several labels {'is' if len(several) == 1 else 'are'} {listed(several[:3], 3)}."
    row = labels.pairs.iloc[0]
    pair = f"{named(row['label'])} and {named(row['other'])}"
    shares = (
        f"{percent(row['label_share'], 1)} of the clips of {named(row['label'])} and {percent(row['other_share'], 1)}"
    )
    return f"{text} {pair} are together most often, in {count(int(row['clips']), 'clip')}: {shares} of the other's."
