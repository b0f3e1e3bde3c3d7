"""``eda.html``: a dataset in sentences, figures, tables and players.

To add a section, add its heading and a block to ``templates/eda.html``, and what it shows to `write_eda`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path

import pandas as pd

from fsat.data.levels import by_kind
from fsat.data.manifest import Manifest
from fsat.data.near_duplicates import NearDuplicates
from fsat.data.tables import write_table
from fsat.errors import Problem
from fsat.progress import Progress
from fsat.reports import eda_label_text, eda_text, players
from fsat.reports.eda_facts import Facts, measure, odd_clips
from fsat.reports.eda_plots import plot_classes, plot_label_numbers, plot_lengths, plot_lengths_per_label, plot_repeated
from fsat.reports.eda_text import count, listed
from fsat.reports.html import Table, table, write_page
from fsat.reports.label_facts import LabelFacts
from fsat.reports.label_plots import plot_co_occurrence
from fsat.reports.players import choose_examples, example_sounds
from fsat.reports.waveforms import FIRST_SAMPLES, describe_waveforms, plot_waveforms, read_waveforms
from fsat.text import short

PAGE = "eda.html"

MAX_ROWS, MAX_CELL = 500, 160
"""Maximum number of rows of a table in the page, and of characters of a cell; files beside the page have all."""

short_cell = partial(short, limit=MAX_CELL)


def write_eda(
    manifest: Manifest, folder: Path, near: NearDuplicates | None = None
) -> tuple[dict[str, float], list[Problem]]:
    """Write figures (``plots/*.png``), tables (``tables/*.csv``) and the page of a dataset into an existing folder.

    `near` are its near-duplicates, None if they were not looked for.

    Returns:
        numbers of clips, classes, verified clips, seconds, ...; and the clips whose samples could not be read for the
        page, though their headers are valid.
    """
    facts, plots = measure(manifest), folder / "plots"
    facts.write(folder / "tables")
    waveforms = read_waveforms(manifest)
    plot_classes(facts, plots / "classes.png")
    if facts.labels:
        plot_label_numbers(facts, plots / "label_numbers.png")
        if len(facts.classes) > 1:
            plot_co_occurrence(facts.labels.together, facts.labels.names, plots / "co_occurrence.png")
    plot_waveforms(waveforms, plots / "waveform.png")
    plot_lengths_per_label(facts, plots / "lengths_per_label.png")
    plot_lengths(facts, plots / "lengths.png")
    plot_repeated(facts, plots / "repeated_lengths.png")

    problems = [Problem(manifest.train_table, wave.row, wave.fname, wave.reason) for wave in waveforms if wave.reason]
    choice, sounds = choose_examples(manifest, facts, near), []
    groups = choice.of_classes, choice.of_lengths, choice.of_pairs
    examples = list(chain(*groups))
    with Progress("making players", len(examples)) as progress:
        for sound, problem in example_sounds(examples, choice.seconds):
            sounds.append(sound)
            problems += [problem] if problem else []
            progress.advance()
    odd = odd_clips(manifest)
    write_table(odd, folder / "tables" / "levels.csv")
    if near:
        write_table(near.pairs, folder / "tables" / "near_duplicates.csv")
    in_order = iter(sounds)
    class_sounds, length_sounds, pair_sounds = (list(islice(in_order, len(group))) for group in groups)
    unreadable = list({(problem.split, problem.fname): problem for problem in problems}.values())
    tables = " and ".join(filter(None, (manifest.train_table, manifest.test_table)))
    test_clips = count(facts.n_test, "test clip") if facts.n_test else "No test clips"
    write_page(
        folder / PAGE,
        PAGE,
        title=f"{facts.name}: {count(facts.n_train, 'training clip')} of {count(len(facts.classes), 'class')}",
        subtitle=f"{test_clips}; dataset {manifest.digest}; read from {tables}",
        text=eda_text,
        limits=players,
        facts=facts,
        plots=plots,
        waveforms=waveforms,
        loudness=describe_waveforms(waveforms),
        first_samples=FIRST_SAMPLES,
        choice=choice,
        class_sounds=class_sounds,
        length_sounds=length_sounds,
        pair_sounds=pair_sounds,
        near=near,
        near_table=_near_table(near),
        class_table=_class_table(facts),
        label_text=eda_label_text,
        label_tables=_label_tables(facts.labels) if facts.labels else [],
        odd_clips=eda_text.describe_odd_clips(by_kind(odd["fname"], odd["note"])),
        odd_table=_limited_table(odd, "Clips with odd levels or headers", "tables/levels.csv"),
        n_unreadable=len(unreadable),
        most_frequent=_most_frequent([*unreadable, *facts.problems]),
        copy_table=_copy_table(facts),
        problem_table=_problem_table([*unreadable, *facts.problems]),
    )
    numbers = facts.metrics() | {"n_odd_clips": len(odd)} | (near.metrics() if near else {})
    return numbers, unreadable


def _class_table(facts: Facts) -> Table:
    columns = {"label": "label", "clips": "clips", "verified": "verified", "verified_share": "% verified",
               "median_seconds": "median length (s)"}  # fmt: skip
    rows = facts.classes[[*columns]].rename(columns=columns)
    rows["label"] = rows["label"].map(short_cell)
    rows["% verified"] *= 100
    formats = {"clips": ",", "verified": ",", "% verified": ".0f", "median length (s)": ".2f"}
    return _limited_table(rows, "Training clips of each class, fewest first", "tables/classes.csv", formats)


def _label_tables(labels: LabelFacts) -> list[Table]:
    """Return the tables of combinations and of pairs of labels."""
    combinations = labels.combinations.assign(labels=labels.combinations["labels"].map(short_cell))
    pairs = labels.pairs.assign(
        label=labels.pairs["label"].map(short_cell), other=labels.pairs["other"].map(short_cell)
    )
    pairs = pairs.rename(columns={"label_share": "% of label", "other_share": "% of other"})
    pairs[["% of label", "% of other"]] *= 100
    formats = {"clips": ",", "% of label": ".0f", "% of other": ".0f"}
    tables = [_limited_table(combinations, "Combinations of labels", "tables/combinations.csv", formats)]
    return [*tables, *([_limited_table(pairs, "Pairs of labels", "tables/pairs.csv", formats)] if len(pairs) else [])]


def _most_frequent(problems: Sequence[Problem]) -> str:
    """Return the most frequent reasons; empty if all are the same, or each occurs once."""
    reasons = Counter(problem.reason for problem in problems).most_common()
    if not 1 < len(reasons) < len(problems):
        return ""
    return listed([f"{short_cell(reason)} ({count(n, 'time')})" for reason, n in reasons], 5)


def _problem_table(problems: Sequence[Problem]) -> Table:
    rows = [(short_cell(p.fname), short(p.reason, 2 * MAX_CELL), p.split, p.file, p.row) for p in problems]
    frame = pd.DataFrame(rows, columns=["clip", "problem", "split", "table", "line"])
    return _limited_table(frame, "What is wrong with the tables and files", "exclusions.csv")


def _copy_table(facts: Facts) -> Table:
    columns = {"fname": "clip", "split": "split", "copy_of": "the same sound as"}
    rows = facts.copies[[*columns]].rename(columns=columns).map(short_cell)
    return _limited_table(rows, "Clips that are the same sound as a training clip", "tables/copies.csv")


def _near_table(near: NearDuplicates | None) -> Table | None:
    if near is None or near.pairs.empty:
        return None
    pairs = near.pairs
    rows = pd.DataFrame({"cosine": pairs["similarity"]})
    for prefix, name in (("", "clip"), ("other_", "other clip")):
        rows[name] = pairs[f"{prefix}fname"].map(short_cell)
        rows[f"{name}: label" if prefix else "label"] = [
            short_cell(label) if split == "train" else "(test)"
            for label, split in zip(pairs[f"{prefix}label"], pairs[f"{prefix}split"], strict=True)
        ]
    rows["finding"] = pairs["finding"]
    caption = "Pairs of clips that sound almost the same"
    return _limited_table(rows, caption, "tables/near_duplicates.csv", {"cosine": ".3f"})


def _limited_table(frame: pd.DataFrame, caption: str, file: str, formats: Mapping[str, str] | None = None) -> Table:
    """Return the first rows of a table; if they are not all, the caption names the file that has all."""
    note = count(len(frame), "row")
    if len(frame) > MAX_ROWS:
        note = f"the first {MAX_ROWS:,} of {len(frame):,} rows; all are in {file}, beside this page"
    return table(frame.head(MAX_ROWS), f"{caption} ({note})", formats)
