"""``report.html``: the results of an ensemble in sentences, figures, tables and players.

To add a section, add its heading and a block to ``templates/report.html``, and what it shows to `write_result_page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fsat.data.playable_clips import ClipFolder
from fsat.errors import count
from fsat.reports import report_text
from fsat.reports.html import Table, table, write_page
from fsat.reports.players import LIST_LENGTH, PlayerMaker, first_suspects, hardest_clips
from fsat.reports.plots import FoldCurve, plot_curves, plot_scores
from fsat.reports.prediction_tables import Analysis, Predictions

PAIRS_SHOWN = 15

SCORE_COLUMNS = [
    "kind", "study", "model", "method", "fold", "map3", "accuracy", "map3_verified", "clips", "selected_on", "minutes",
]  # fmt: skip
"""Columns of the table of scores, with the scores where they are visible without scrolling."""


@dataclass(frozen=True)
class Result:
    """What the page shows.

    Attributes:
        title, outcome: name of the run, and a sentence on the registered version.
        facts, members: rows of the first table, a name and a text each; and the table of the members.
        scores, method: with the columns of `fsat.commands.blend_members.COLUMNS`; and the method of the blend.
        selected_on: what the weights were selected on.
        clips, analysis: the clips with an out-of-fold prediction, and its analysis.
        curves: of all members.
        plots: folder with ``confusion.png``, ``class_precision.png`` and ``calibration.png``; gets the other figures.
        location: where the audio of the clips is.
        leak: why scores are too high: which clips the models know; empty if they know none.
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
    leak: str = ""


def write_result_page(result: Result, path: Path) -> None:
    """Write the page as an HTML file into an existing folder."""
    clips, analysis = result.clips, result.analysis
    curves = [curve for curve in result.curves if curve.val_map3 or curve.val_loss]
    plot_scores(result.scores, result.method, result.plots / "scores.png")
    if curves:
        plot_curves(curves, result.plots / "folds.png")
    suspects, hardest = first_suspects(clips, analysis), hardest_clips(clips, analysis)
    maker = PlayerMaker(result.location.path if result.location.folder else None)
    facts = pd.DataFrame(list(result.facts), columns=["what", "which"])
    write_page(
        path,
        "report.html",
        title=result.title,
        subtitle="Results of the blend of these models on clips that they did not train on.",
        page=result,
        text=report_text,
        facts=table(facts, "The ensemble"),
        members=table(result.members, count(len(result.members), "member"), {"minutes": ".1f"}),
        score_table=_score_table(result.scores),
        curves=curves,
        class_table=_class_table(analysis),
        pairs=_pair_table(analysis.pairs),
        n_unverified_suspects=int((~clips.verified[suspects]).sum()),
        suspects=maker.sounds(clips, suspects),
        n_hardest_wrong=int((analysis.guesses.guess[hardest] != clips.targets[hardest]).sum()),
        hardest=maker.sounds(clips, hardest),
        list_length=LIST_LENGTH,
    )


def _score_table(scores: pd.DataFrame) -> Table:
    formats = {"map3": ".4f", "accuracy": ".4f", "map3_verified": ".4f", "minutes": ".2f"}
    columns = [*SCORE_COLUMNS, "leak"] if "leak" in scores and scores["leak"].any() else SCORE_COLUMNS
    return table(scores[columns], "Scores of members, studies and blends, as in scores.csv", formats)


def _class_table(analysis: Analysis) -> Table:
    formats = {"average precision": ".3f", "recall": ".3f", "precision": ".3f"}
    caption = "All classes, worst first, as in reports/classes.csv"
    return table(report_text.class_rows(analysis), caption, formats)


def _pair_table(pairs: pd.DataFrame) -> Table:
    caption = "Most confused pairs"
    if len(pairs) > PAIRS_SHOWN:
        caption += f", {PAIRS_SHOWN} of {len(pairs)}: all are in reports/confused_pairs.csv"
    return table(pairs.head(PAIRS_SHOWN), caption, {"share": ".3f"})
