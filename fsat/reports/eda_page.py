"""The page of a dataset: each section begins with what the data say, then come its figure, table and players."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fsat.data.manifest import Manifest
from fsat.errors import Problem, printable
from fsat.reports import eda_text as findings
from fsat.reports import waveforms
from fsat.reports.eda_facts import Facts
from fsat.reports.eda_text import count, duration, listed
from fsat.reports.examples import CLIPS_HEARD, LENGTHS_HEARD, Choice
from fsat.reports.players import LISTEN_SECONDS
from fsat.reports.waveforms import FIRST_SAMPLES, Waveform
from fsat.reports.webpage import Page, Sound

ROWS = 500
"""Of a table in the page, at most; files beside the page have all."""

CELL = 160
"""Characters of a cell, at most."""


def page_of(
    manifest: Manifest,
    facts: Facts,
    shown: Sequence[Waveform],
    choice: Choice,
    sounds: Sequence[Sound],
    found: Sequence[Problem],
    plots: Path,
) -> Page:
    """Put the page together.

    Args:
        manifest: the dataset.
        facts: its numbers.
        shown: the waveforms of the figure.
        choice: the clips that have players.
        sounds: the players: those of the classes, then those of the repeated lengths.
        found: clips whose samples could not be read for this page.
        plots: folder of the figures.
    """
    n = len(facts.classes)
    tests = count(facts.n_test, "test clip") if facts.n_test else "No test clips"
    tables = " and ".join(filter(None, (manifest.train_table, manifest.test_table)))
    page = Page(
        f"{facts.name}: {count(facts.n_train, 'training clip')} of {n:,} {'class' if n == 1 else 'classes'}",
        f"{tests}; dataset {manifest.digest}; read from {tables}",
    )
    _classes(page, facts, plots)
    _waveforms(page, facts, shown, plots)
    page.section("lengths-per-label", "Lengths per label")
    page.finding(findings.lengths_per_label(facts))
    page.figure(plots / "lengths_per_label.png", "Distribution of the lengths of each label's training clips")
    page.section("lengths", "Lengths in train and test")
    page.finding(findings.lengths(facts))
    page.figure(plots / "lengths.png", "Histograms of the lengths of training and of test clips")
    _repeated(page, facts, sounds[len(choice.of_classes) :], plots)
    _listen(page, facts, choice, sounds[: len(choice.of_classes)])
    _problems(page, facts, found)
    return page


def _classes(page: Page, facts: Facts, plots: Path) -> None:
    page.section("classes", "Classes and verification")
    page.finding(findings.classes(facts))
    page.figure(plots / "classes.png", "Bars of the number of clips of each class, verified and not verified")
    table = facts.classes[["label", "clips", "verified", "verified_share", "median_seconds"]].head(ROWS)
    table = table.assign(label=table["label"].map(_cut), verified_share=100 * table["verified_share"])
    names = {"verified_share": "% verified", "median_seconds": "median length (s)"}
    caption = "Training clips of each class, fewest first"
    page.table(
        table.rename(columns=names), _cut_caption(caption, len(facts.classes), "tables/classes.csv"),
        {"clips": ",", "verified": ",", "% verified": ".0f", "median length (s)": ".2f"},
    )  # fmt: skip


def _waveforms(page: Page, facts: Facts, shown: Sequence[Waveform], plots: Path) -> None:
    page.section("waveforms", "Waveforms")
    page.finding(" ".join(filter(None, (findings.rates(facts), waveforms.finding(shown)))))
    page.figure(
        plots / "waveform.png", f"Waveforms of {count(len(shown), 'clip')}, and their first {FIRST_SAMPLES} samples",
        f"Left: the whole clip. Right: its first {FIRST_SAMPLES} samples, which are the stripe on the left.",
    )  # fmt: skip
    for one in shown:
        if one.reason:
            page.note(f"{one.fname} ({one.label}) cannot be shown: {one.reason}.")


def _repeated(page: Page, facts: Facts, sounds: Sequence[Sound], plots: Path) -> None:
    page.section("repeated", "Abnormal lengths")
    page.finding(findings.repeated(facts))
    if facts.repeated.empty:
        return
    page.words(
        "Clips that are equally long to the sample were often cut or made by one tool. Listen whether they are alike "
        "in other ways too, such as padding or background, which a model might learn instead of the sound."
    )
    page.figure(plots / "repeated_lengths.png", "Bars of how many clips share an exact length")
    if len(facts.repeated) > LENGTHS_HEARD:
        page.note(f"{CLIPS_HEARD} clips of each of the {LENGTHS_HEARD} lengths that most clips share:")
    page.sounds(sounds)


def _listen(page: Page, facts: Facts, choice: Choice, sounds: Sequence[Sound]) -> None:
    page.section("listen", "Listen")
    n, sides = len(facts.classes), Counter(one.note for one in choice.of_classes)
    if choice.alone:
        one_each = "one clip, a verified one where there is one"
    elif len(sides) == 2:
        one_each = "one clip whose label is verified and one whose label is not, where there are both"
    else:
        one_each = f"one clip, whose label is {next(iter(sides))}"
    of = f"of each of the {n:,} classes" if n > 1 else "of the class"
    if choice.n_classes < n:
        of = f"of each of the first {choice.n_classes:,} of {n:,} classes"
    page.finding(f"{count(len(choice.of_classes), 'clip')} to listen to: {of} {one_each}.")
    page.note("Each is the clip of median length among those of its class and kind, so the choice is always the same.")
    if choice.alone or choice.n_classes < n:
        page.note("There are so many classes that more clips would make this page too large to open.")
    if longer := sum(one.seconds > choice.seconds for one in (*choice.of_classes, *choice.of_lengths)):
        why = "" if choice.seconds == LISTEN_SECONDS else ", to keep the page small"
        longer = f"{longer:,} of the players play" if longer > 1 else "1 of the players plays"
        page.note(f"{longer} only the first {duration(choice.seconds)} of a longer clip{why}.")
    page.sounds(sounds)


def _problems(page: Page, facts: Facts, found: Sequence[Problem]) -> None:
    page.section("problems", "Problems")
    page.finding(findings.problems(facts, len(found)))
    problems = [*found, *facts.problems]
    if not problems:
        return
    kinds = Counter(problem.reason for problem in problems).most_common()
    if 1 < len(kinds) < len(problems):
        page.words(f"Most often: {listed([f'{_cut(reason)} ({n:,} times)' for reason, n in kinds], 5)}.")
    rows = [
        (_cut(one.fname), one.reason if len(one.reason) < 2 * CELL else _cut(one.reason), one.split, one.file, one.row)
        for one in problems[:ROWS]
    ]
    page.table(
        pd.DataFrame(rows, columns=["clip", "problem", "split", "table", "line"]),
        _cut_caption("What is wrong with the tables and files", len(problems), "exclusions.csv"),
    )


def _cut(value: object) -> str:
    text = printable(value)
    return text if len(text) <= CELL else f"{text[: CELL - 1]}…"


def _cut_caption(caption: str, rows: int, file: str) -> str:
    """The caption of a table of which the first rows are shown."""
    if rows <= ROWS:
        return f"{caption} ({count(rows, 'row')})"
    return f"{caption} (the first {ROWS:,} of {rows:,} rows; all are in {file}, beside this page)"
