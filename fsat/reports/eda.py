"""The notebook's look at the data: figures, the tables behind them, and one page with all of it in words and sound."""

from __future__ import annotations

from pathlib import Path

from fsat.data.manifest import Manifest
from fsat.errors import Problem
from fsat.progress import Progress
from fsat.reports.eda_facts import facts_of
from fsat.reports.eda_page import page_of
from fsat.reports.eda_plots import plot_classes, plot_lengths, plot_lengths_per_label, plot_repeated
from fsat.reports.examples import choose, encode
from fsat.reports.waveforms import plot_waveforms, telling

PAGE = "eda.html"


def write_eda(manifest: Manifest, folder: Path) -> tuple[dict[str, float], list[Problem]]:
    """Write all figures (``plots/*.png``) and tables (``tables/*.csv``) of a dataset, and its page, ``eda.html``.

    Args:
        manifest: as read, with the lengths from the clips' headers.
        folder: an existing folder.

    Returns:
        numbers of the dataset: clips, classes, verified clips, seconds of sound, ...; and the clips whose samples
        could not be read to be shown, though their headers are right.
    """
    facts, plots = facts_of(manifest), folder / "plots"
    facts.write(folder / "tables")
    shown = telling(manifest)
    plot_classes(facts, plots / "classes.png")
    plot_waveforms(shown, plots / "waveform.png")
    plot_lengths_per_label(facts, plots / "lengths_per_label.png")
    plot_lengths(facts, plots / "lengths.png")
    plot_repeated(facts, plots / "repeated_lengths.png")

    choice = choose(manifest, facts)
    examples, heard = [*choice.of_classes, *choice.of_lengths], []
    with Progress("making players", len(examples)) as progress:
        for result in encode(examples, choice.seconds):
            heard.append(result)
            progress.advance()
    unread = [Problem(manifest.train_table, one.row, one.fname, one.reason) for one in shown if one.reason]
    unread += [problem for _, problem in heard if problem]
    found = list({(problem.split, problem.fname): problem for problem in unread}.values())
    page_of(manifest, facts, shown, choice, [sound for sound, _ in heard], found, plots).write(folder / PAGE)
    return facts.metrics(), found
