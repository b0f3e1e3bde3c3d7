"""``eda.html``: a dataset in sentences, figures, tables and players.

To add a section, write a function here that returns what the section shows, add it to `SECTIONS` where it belongs, and
add a block of the same name to ``templates/eda.html``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fsat.data.manifest import Manifest
from fsat.errors import Problem, printable
from fsat.progress import Progress
from fsat.reports import eda_text, players
from fsat.reports.eda_facts import Facts, measure
from fsat.reports.eda_plots import plot_classes, plot_lengths, plot_lengths_per_label, plot_repeated
from fsat.reports.eda_text import count, duration, listed
from fsat.reports.html import Table, table, write_page
from fsat.reports.players import Choice, Sound, choose_examples, encode
from fsat.reports.waveforms import FIRST_SAMPLES, Waveform, describe_waveforms, plot_waveforms, read_waveforms

PAGE = "eda.html"

MAX_ROWS = 500
"""Maximum number of rows of a table in the page; files beside the page have all rows."""

MAX_CELL = 160
"""Maximum number of characters of a cell."""


@dataclass(frozen=True)
class Eda:
    """What the page shows.

    Attributes:
        facts: counts and lengths of the dataset.
        waveforms: the clips of the figure of waveforms.
        choice: the clips that have players.
        sounds: the players, those of the classes first, then those of the repeated lengths.
        unreadable: clips with a valid header whose samples could not be read.
        plots: folder of the figures.
    """

    facts: Facts
    waveforms: Sequence[Waveform]
    choice: Choice
    sounds: Sequence[Sound]
    unreadable: Sequence[Problem]
    plots: Path


def write_eda(manifest: Manifest, folder: Path) -> tuple[dict[str, float], list[Problem]]:
    """Write figures (``plots/*.png``), tables (``tables/*.csv``) and the page of a dataset into an existing folder.

    Returns:
        numbers of clips, classes, verified clips, seconds, ...; and the clips whose samples could not be read for the
        page, though their headers are valid.
    """
    facts, plots = measure(manifest), folder / "plots"
    facts.write(folder / "tables")
    waveforms = read_waveforms(manifest)
    plot_classes(facts, plots / "classes.png")
    plot_waveforms(waveforms, plots / "waveform.png")
    plot_lengths_per_label(facts, plots / "lengths_per_label.png")
    plot_lengths(facts, plots / "lengths.png")
    plot_repeated(facts, plots / "repeated_lengths.png")

    problems = [Problem(manifest.train_table, wave.row, wave.fname, wave.reason) for wave in waveforms if wave.reason]
    choice, sounds = choose_examples(manifest, facts), []
    examples = [*choice.of_classes, *choice.of_lengths]
    with Progress("making players", len(examples)) as progress:
        for sound, problem in encode(examples, choice.seconds):
            sounds.append(sound)
            problems += [problem] if problem else []
            progress.advance()
    unreadable = list({(problem.split, problem.fname): problem for problem in problems}.values())
    clips, classes = count(facts.n_train, "training clip"), count(len(facts.classes), "class")
    test_clips = count(facts.n_test, "test clip") if facts.n_test else "No test clips"
    tables = " and ".join(filter(None, (manifest.train_table, manifest.test_table)))
    title, subtitle = (
        f"{facts.name}: {clips} of {classes}",
        f"{test_clips}; dataset {manifest.digest}; read from {tables}",
    )
    page = Eda(facts, waveforms, choice, sounds, unreadable, plots)
    write_page(folder / PAGE, PAGE, title, subtitle, SECTIONS, page)
    return facts.metrics(), unreadable


def classes(page: Eda) -> Mapping[str, Any]:
    """Return the number of clips of each class, and how many are verified."""
    counts = page.facts.classes
    rows = pd.DataFrame({
        "label": counts["label"].map(_shorten),
        "clips": counts["clips"],
        "verified": counts["verified"],
        "% verified": 100 * counts["verified_share"],
        "median length (s)": counts["median_seconds"],
    })  # fmt: skip
    formats = {"clips": ",", "verified": ",", "% verified": ".0f", "median length (s)": ".2f"}
    caption = "Training clips of each class, fewest first"
    return {
        "finding": eda_text.describe_classes(page.facts),
        "table": _limited_table(rows, caption, "tables/classes.csv", formats),
    }


def waveforms(page: Eda) -> Mapping[str, Any]:
    """Return what the waveforms show, and which clips cannot be shown."""
    rates, shown = eda_text.describe_rates(page.facts), describe_waveforms(page.waveforms)
    return {
        "finding": f"{rates} {shown}",
        "clips": count(len(page.waveforms), "clip"),
        "first_samples": FIRST_SAMPLES,
        "unreadable": [waveform for waveform in page.waveforms if waveform.reason],
    }


def lengths_per_label(page: Eda) -> Mapping[str, Any]:
    """Return how lengths differ between labels."""
    return {"finding": eda_text.describe_lengths_per_label(page.facts)}


def lengths(page: Eda) -> Mapping[str, Any]:
    """Return how lengths differ between training and test clips."""
    return {"finding": eda_text.describe_lengths(page.facts)}


def repeated(page: Eda) -> Mapping[str, Any]:
    """Return the exact lengths that many clips share, with players."""
    n_lengths, per_length = players.LENGTHS_PLAYED, players.CLIPS_PER_LENGTH
    choice = f"{per_length} clips of each of the {n_lengths} lengths that most clips share:"
    return {
        "finding": eda_text.describe_repeated(page.facts),
        "choice": choice if len(page.facts.repeated) > n_lengths else "",
        "sounds": page.sounds[len(page.choice.of_classes) :],
    }


def listen(page: Eda) -> Mapping[str, Any]:
    """Return the players of the classes, and how their clips were chosen."""
    choice, n_classes = page.choice, len(page.facts.classes)
    kinds = {example.note for example in choice.of_classes}
    if choice.one_per_class:
        kind = "one clip, a verified one where there is one"
    elif len(kinds) == 2:
        kind = "one clip whose label is verified and one whose label is not, where there are both"
    else:
        kind = f"one clip, whose label is {kinds.pop()}"
    which = f"each of the {n_classes:,} classes" if n_classes > 1 else "the class"
    if choice.n_classes < n_classes:
        which = f"each of the first {choice.n_classes:,} of {n_classes:,} classes"
    notes = ["Each is the clip of median length among those of its class and kind, so the choice is always the same."]
    if choice.one_per_class or choice.n_classes < n_classes:
        notes.append("There are so many classes that more clips would make this page too large to open.")
    if n_longer := sum(example.seconds > choice.seconds for example in (*choice.of_classes, *choice.of_lengths)):
        who = f"{n_longer:,} of the players play" if n_longer > 1 else "1 of the players plays"
        why = "" if choice.seconds == players.LISTEN_SECONDS else ", to keep the page small"
        notes.append(f"{who} only the first {duration(choice.seconds)} of a longer clip{why}.")
    return {
        "finding": f"{count(len(choice.of_classes), 'clip')} to listen to: of {which} {kind}.",
        "notes": notes,
        "sounds": page.sounds[: len(choice.of_classes)],
    }


def problems(page: Eda) -> Mapping[str, Any]:
    """Return what is wrong with the tables and files."""
    problems = [*page.unreadable, *page.facts.problems]
    reasons = Counter(problem.reason for problem in problems).most_common()
    most_frequent = ""
    if 1 < len(reasons) < len(problems):
        most_frequent = listed([f"{_shorten(reason)} ({count(n, 'time')})" for reason, n in reasons], 5)
    rows = [
        (_shorten(problem.fname), _shorten(problem.reason, 2 * MAX_CELL), problem.split, problem.file, problem.row)
        for problem in problems
    ]
    frame = pd.DataFrame(rows, columns=["clip", "problem", "split", "table", "line"])
    return {
        "finding": eda_text.describe_problems(page.facts, len(page.unreadable)),
        "most_frequent": most_frequent,
        "table": _limited_table(frame, "What is wrong with the tables and files", "exclusions.csv"),
    }


SECTIONS = {
    "Classes and verification": classes,
    "Waveforms": waveforms,
    "Lengths per label": lengths_per_label,
    "Lengths in train and test": lengths,
    "Abnormal lengths": repeated,
    "Listen": listen,
    "Problems": problems,
}


def _shorten(value: object, limit: int = MAX_CELL) -> str:
    text = printable(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _limited_table(frame: pd.DataFrame, caption: str, file: str, formats: Mapping[str, str] | None = None) -> Table:
    """Return the first rows of a table; if they are not all, the caption names the file that has all."""
    n_rows = len(frame)
    if n_rows <= MAX_ROWS:
        note = count(n_rows, "row")
    else:
        note = f"the first {MAX_ROWS:,} of {n_rows:,} rows; all are in {file}, beside this page"
    return table(frame.head(MAX_ROWS), f"{caption} ({note})", formats)
