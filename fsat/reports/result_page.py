"""``report.html``: what an ensemble came to, on one page that one can look at and listen to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fsat.data.locate_clips import ClipFolder
from fsat.errors import count
from fsat.reports import results_text as words
from fsat.reports.curves import FoldCurve, about_curves, plot_curves
from fsat.reports.listening import SHOWN, Players, first_suspects, hardest, sounds
from fsat.reports.study_reports import Predicted, Told
from fsat.reports.style import BLUE, ORANGE, lettering, plt, save
from fsat.reports.webpage import Page

PAIRS_SHOWN = 15
DOT = "#77818a"

SCORES_SHOWN = [
    "kind", "study", "model", "method", "fold", "map3", "accuracy", "map3_verified", "clips", "selected_on", "minutes",
]  # fmt: skip
"""Columns of the table of scores, the scores themselves where they are seen without scrolling."""


@dataclass(frozen=True)
class Result:
    """What a page needs to know of an ensemble.

    Attributes:
        title: the run's name.
        facts: what and how much of it, in words, a row each of the first table.
        members: table of the members.
        scores: with columns as in `fsat.commands.blend_members.COLUMNS`.
        method: the blend's.
        selected_on: what the weights were chosen on.
        clips, told: the clips that have an out-of-fold prediction, and what their predictions tell.
        curves: of all members.
        plots: folder with ``confusion.png``, ``class_precision.png`` and ``calibration.png``; others are made there.
        found: the clips, to be listened to.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    members: pd.DataFrame
    scores: pd.DataFrame
    method: str
    selected_on: str
    clips: Predicted
    told: Told
    curves: Sequence[FoldCurve]
    plots: Path
    found: ClipFolder


def write_page(result: Result, standing: str, path: Path) -> None:
    """Write the page.

    Args:
        result: what it shows.
        standing: a sentence on the registered version.
        path: of the HTML file.
    """
    page = Page(result.title, "What the blend of these models came to on clips that they did not train on.")
    page.section("about", "What this is")
    page.finding(standing)
    facts = pd.DataFrame(list(result.facts), columns=["what", "which"])
    page.table(facts, "The ensemble")
    page.table(result.members, f"{count(len(result.members), 'member')}", {"minutes": ".1f"})
    _scores(page, result)
    _curves(page, result)
    _classes(page, result)
    _confusion(page, result)
    page.section("calibration", "Calibration")
    page.finding(words.about_calibration(result.told, result.clips))
    page.words("Bars below the dotted line: guesses are less often right than their scores say; above it, more often.")
    page.figure(result.plots / "calibration.png", "Accuracy of best guesses against their scores, and clips by score")
    _listening(page, result)
    page.write(path)


def _scores(page: Page, result: Result) -> None:
    page.section("scores", "Scores")
    page.finding(words.about_blend(result.scores, result.method))
    page.words(words.about_others(result.scores, result.method))
    if warning := words.about_selection(result.selected_on):
        page.words(warning)
    path = result.plots / "scores.png"
    plot_scores(result.scores, result.method, path)
    page.figure(path, "mAP@3 of members, studies and blends on one axis", "Out-of-fold mAP@3.")
    table = result.scores[SCORES_SHOWN]
    formats = {"map3": ".4f", "accuracy": ".4f", "map3_verified": ".4f", "minutes": ".2f"}
    page.table(table, "Scores of members, studies and blends, as in scores.csv", formats)


def plot_scores(scores: pd.DataFrame, method: str, path: Path) -> None:
    """A line for each study, with its members, and for each blend; the blend that was chosen is marked."""
    rows = scores[scores["kind"] != "member"]
    figure, axes = plt.subplots(figsize=(6.6, 0.4 * len(rows) + 0.9))
    names = []
    for place, row in enumerate(rows.itertuples(index=False)):
        own = row.kind == "study"
        if own:
            members = scores.loc[(scores["kind"] == "member") & (scores["study"] == row.study), "map3"]
            axes.plot(members, [place + 0.25] * len(members), "o", color=DOT, markersize=4.5)
        chosen = row.method == method
        axes.plot(row.map3, place, "D", color=ORANGE if chosen else BLUE, markersize=8)
        axes.annotate(f"{row.map3:.4f}", (1, place), (6, 0), xycoords=("axes fraction", "data"), va="center",
                      textcoords="offset points", fontweight="bold" if chosen else "normal")  # fmt: skip
        names.append(f"{lettering(row.model)} {row.study}" if own else f"blend, {row.method}")
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("mAP@3 (dots: single folds; orange: this blend)")
    save(figure, path)


def _curves(page: Page, result: Result) -> None:
    page.section("curves", "Learning curves")
    there = [curve for curve in result.curves if curve.is_there]
    if not there:
        page.finding("The tracking server has no metrics by epoch of these fold runs, so there are no curves.")
        return
    for text in about_curves(there) or ["The tracking server has no val_loss of these fold runs."]:
        page.finding(text)
    if len(there) < len(result.curves):
        missing = len(result.curves) - len(there)
        page.note(f"Of {missing} of {count(len(result.curves), 'fold run')} the tracking server has no such metrics.")
    path = result.plots / "folds.png"
    plot_curves(there, path)
    caption = "A colour for each study, a line for each fold; dots are the epochs whose weights are kept."
    page.figure(path, "Validation mAP@3 and loss of all folds over the epochs", caption)


def _classes(page: Page, result: Result) -> None:
    page.section("classes", "Classes")
    page.finding(words.about_classes(result.told))
    page.table(
        words.class_rows(result.told), "All classes, worst first, as in reports/classes.csv",
        {"average precision": ".3f", "recall": ".3f", "precision": ".3f"},
    )  # fmt: skip
    page.figure(result.plots / "class_precision.png", "Average precision of each class, worst first")


def _confusion(page: Page, result: Result) -> None:
    page.section("confusion", "Confusions")
    page.finding(words.about_confusion(result.told, list(result.clips.labels)))
    page.figure(result.plots / "confusion.png", "Counts of labels against best guesses", "Rows are labels.")
    pairs = result.told.pairs
    if len(pairs):
        more = f", {PAIRS_SHOWN} of {len(pairs)}: all are in reports/confused_pairs.csv"
        caption = "Most confused pairs" + (more if len(pairs) > PAIRS_SHOWN else "")
        page.table(pairs.head(PAIRS_SHOWN), caption, {"share": ".3f"})


def _listening(page: Page, result: Result) -> None:
    clips, told, found = result.clips, result.told, result.found
    players = Players(found.path if found.folder else None)
    page.section("suspects", "Likely wrong labels")
    wrong = int(told.counts.sum() - told.counts.trace())
    places = first_suspects(clips, told)
    if not len(places):
        page.finding("No label looks wrong: every best guess is the label.")
    else:
        unverified = int((~clips.verified[places]).sum())
        page.finding(
            f"{count(wrong, 'clip')} of {len(clips.targets)} have another best guess than their label; these are the "
            f"{len(places)} whose labels the blend believes least. "
            + (
                f"{unverified} of them nobody has verified: check those first, by ear."
                if unverified
                else "All of these are said to be verified: hear them all the same."
            )
        )
        page.words("In the order of reports/suspects.csv, which has them all.")
        _note(page, found)
        page.sounds(sounds(clips, places, players))
    page.section("hardest", "Hardest clips")
    verified = int(clips.verified.sum())
    places = hardest(clips, told)
    if not len(places):
        page.finding("No clip's label is verified, so it cannot be told which clips are hard and which labels wrong.")
        return
    missed = int((told.guesses.guess[places] != clips.targets[places]).sum())
    page.finding(
        f"Of the {count(verified, 'clip')} whose label someone has verified, these {len(places)} have the greatest log "
        f"loss; the best guess is wrong in {missed}. Here it is more likely the models than the labels that err."
    )
    if verified < SHOWN:
        page.words(f"That is all of them: too few are verified for a list of {SHOWN}.")
    _note(page, found)
    page.sounds(sounds(clips, places, players))


def _note(page: Page, found: ClipFolder) -> None:
    if found.note:
        page.note(found.note)
