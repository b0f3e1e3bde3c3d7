"""``report.html``: the results of an ensemble in sentences, figures, tables and players.

To add a section, write a function here that returns what the section shows, add it to `SECTIONS` where it belongs, and
add a block of the same name to ``templates/report.html``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fsat.data.locate_clips import ClipFolder
from fsat.errors import count
from fsat.reports import results_text
from fsat.reports.html import table, write_page
from fsat.reports.players import LIST_LENGTH, PlayerMaker, first_suspects, hardest_clips
from fsat.reports.plots import FoldCurve, plot_curves, plot_scores
from fsat.reports.study_reports import Analysis, Predictions

PAIRS_SHOWN = 15

SCORE_COLUMNS = [
    "kind", "study", "model", "method", "fold", "map3", "accuracy", "map3_verified", "clips", "selected_on", "minutes",
]  # fmt: skip
"""Columns of the table of scores, with the scores where they are visible without scrolling."""


@dataclass(frozen=True)
class Result:
    """What the page shows.

    Attributes:
        title: name of the run.
        outcome: a sentence on the registered version.
        facts: rows of the first table, a name and a text each.
        members: table of the members.
        scores: has the columns of `fsat.commands.blend_members.COLUMNS`.
        method: of the blend.
        selected_on: what the weights were selected on.
        clips, analysis: the clips with an out-of-fold prediction, and its analysis.
        curves: of all members.
        plots: folder with ``confusion.png``, ``class_precision.png`` and ``calibration.png``; gets the other figures.
        location: where the audio of the clips is.
    """

    title: str
    outcome: str
    facts: Sequence[tuple[str, str]]
    members: pd.DataFrame
    scores: pd.DataFrame
    method: str
    selected_on: str
    clips: Predictions
    analysis: Analysis
    curves: Sequence[FoldCurve]
    plots: Path
    location: ClipFolder

    @cached_property
    def players(self) -> PlayerMaker:
        """Makes the players of all lists of the page."""
        return PlayerMaker(self.location.path if self.location.folder else None)


def write_result_page(result: Result, path: Path) -> None:
    """Write the page as an HTML file into an existing folder."""
    subtitle = "Results of the blend of these models on clips that they did not train on."
    write_page(path, "report.html", result.title, subtitle, SECTIONS, result)


def about(result: Result) -> Mapping[str, Any]:
    """Return what was blended."""
    facts = pd.DataFrame(list(result.facts), columns=["what", "which"])
    members = table(result.members, count(len(result.members), "member"), {"minutes": ".1f"})
    return {"facts": table(facts, "The ensemble"), "members": members}


def scores(result: Result) -> Mapping[str, Any]:
    """Return the scores of members, studies and blends."""
    plot_scores(result.scores, result.method, result.plots / "scores.png")
    formats = {"map3": ".4f", "accuracy": ".4f", "map3_verified": ".4f", "minutes": ".2f"}
    caption = "Scores of members, studies and blends, as in scores.csv"
    return {
        "finding": results_text.describe_blend(result.scores, result.method),
        "alternatives": results_text.describe_alternatives(result.scores, result.method),
        "warning": results_text.selection_warning(result.selected_on),
        "table": table(result.scores[SCORE_COLUMNS], caption, formats),
    }


def curves(result: Result) -> Mapping[str, Any]:
    """Return the learning curves of all folds, as far as the tracking server has them."""
    known = [curve for curve in result.curves if curve.has_points]
    if known:
        plot_curves(known, result.plots / "folds.png")
        findings = results_text.describe_curves(known) or ["The tracking server has no val_loss of these fold runs."]
    else:
        findings = ["The tracking server has no metrics by epoch of these fold runs, so there are no curves."]
    return {"findings": findings, "n_known": len(known), "n_curves": len(result.curves)}


def classes(result: Result) -> Mapping[str, Any]:
    """Return how well each class is recognised."""
    formats = {"average precision": ".3f", "recall": ".3f", "precision": ".3f"}
    rows = results_text.class_rows(result.analysis)
    return {
        "finding": results_text.describe_classes(result.analysis),
        "table": table(rows, "All classes, worst first, as in reports/classes.csv", formats),
    }


def confusion(result: Result) -> Mapping[str, Any]:
    """Return which classes are taken for which others."""
    pairs, caption = result.analysis.pairs, "Most confused pairs"
    if len(pairs) > PAIRS_SHOWN:
        caption += f", {PAIRS_SHOWN} of {len(pairs)}: all are in reports/confused_pairs.csv"
    return {
        "finding": results_text.describe_confusion(result.analysis, result.clips.labels),
        "pairs": table(pairs.head(PAIRS_SHOWN), caption, {"share": ".3f"}),
    }


def calibration(result: Result) -> Mapping[str, Any]:
    """Return how far scores can be read as probabilities."""
    return {"finding": results_text.describe_calibration(result.analysis, result.clips)}


def suspects(result: Result) -> Mapping[str, Any]:
    """Return the clips whose label is probably wrong, with players."""
    clips, counts = result.clips, result.analysis.counts
    indices = first_suspects(clips, result.analysis)
    n_unverified = int((~clips.verified[indices]).sum())
    advice = f"{n_unverified} of them are not verified: check those first, by ear."
    if not len(indices):
        finding = "No label looks wrong: every best guess is the label."
    else:
        finding = (
            f"The best guess differs from the label for {int(counts.sum() - counts.trace())} of "
            f"{count(len(clips.targets), 'clip')}; these are the {len(indices)} with the least probable labels. "
            f"{advice if n_unverified else 'All of them are verified, but listen all the same.'}"
        )
    return {"finding": finding, "sounds": result.players.sounds(clips, indices)}


def hardest(result: Result) -> Mapping[str, Any]:
    """Return the verified clips that the blend gets most wrong, with players."""
    clips, guesses = result.clips, result.analysis.guesses
    indices, n_verified = hardest_clips(clips, result.analysis), int(clips.verified.sum())
    if not len(indices):
        finding = "No label is verified, so hard clips cannot be told from wrong labels."
    else:
        n_wrong = int((guesses.guess[indices] != clips.targets[indices]).sum())
        finding = (
            f"Of the {count(n_verified, 'clip')} with a verified label, these {len(indices)} have the greatest log "
            f"loss; the best guess is wrong for {n_wrong}. Here the models are more likely to err than the labels."
        )
    note = f"These are all of them: too few are verified for a list of {LIST_LENGTH}."
    return {
        "finding": finding,
        "note": note if 0 < n_verified < LIST_LENGTH else "",
        "sounds": result.players.sounds(clips, indices),
    }


SECTIONS = {
    "What this is": about,
    "Scores": scores,
    "Learning curves": curves,
    "Classes": classes,
    "Confusions": confusion,
    "Calibration": calibration,
    "Likely wrong labels": suspects,
    "Hardest clips": hardest,
}
