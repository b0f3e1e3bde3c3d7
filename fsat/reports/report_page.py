"""``report.html``: the results of an ensemble in sentences, figures, tables and players.

To add a section, add its heading and a block to ``templates/report.html`` (or ``label_report.html``, where a clip has
any number of labels), and what it shows to `_class_values` (or `_label_values`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.playable_clips import ClipFolder
from fsat.errors import count
from fsat.metrics.task_scores import COLUMN_NAMES, SCORE_WORDS, score_names_of
from fsat.reports import label_players, label_text, report_text
from fsat.reports.html import Table, table, write_page
from fsat.reports.label_tables import Decided, LabelAnalysis
from fsat.reports.players import LIST_LENGTH, PlayerMaker, first_suspects, hardest_clips
from fsat.reports.plots import FoldCurve, plot_curves, plot_scores
from fsat.reports.prediction_tables import Analysis, Predictions

PAIRS_SHOWN = 15


@dataclass(frozen=True)
class Result:
    """What the page shows.

    Attributes:
        title, outcome: name of the run, and a sentence on the registered version.
        facts, members: rows of the first table, a name and a text each; and the table of the members.
        scores, method: with the columns of `fsat.commands.blend_members.columns_of`; and the method of the blend.
        selected_on: what the weights were selected on.
        clips, analysis: the clips with an out-of-fold prediction, and its analysis.
        curves: of all members.
        plots: folder with the figures of `write_reports` or `write_label_reports`; gets the other figures.
        location: where the audio of the clips is.
        leak: why scores are too high: which clips the models know; empty if they know none.
        metrics: of the run.
        thresholds: minimum score of a tag of each class, (n_classes,); empty if the best are always tags.
        decided: what the tagger makes of the scores, where a clip has any number of labels.
    """

    title: str
    outcome: str
    facts: Sequence[tuple[str, str]]
    members: pd.DataFrame
    scores: pd.DataFrame
    method: str
    selected_on: str
    clips: Predictions
    analysis: Analysis | LabelAnalysis
    curves: Sequence[FoldCurve]
    plots: Path
    location: ClipFolder
    leak: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    thresholds: np.ndarray = field(default_factory=lambda: np.empty(0))
    decided: Decided | None = None


def write_result_page(result: Result, path: Path) -> None:
    """Write the page as an HTML file into an existing folder."""
    curves = [curve for curve in result.curves if curve.val_score or curve.val_loss]
    score = SCORE_WORDS[score_names_of(result.scores.columns)[0]]
    plot_scores(result.scores, result.method, result.plots / "scores.png")
    if curves:
        plot_curves(curves, result.plots / "folds.png", score)
    maker = PlayerMaker(result.location.path if result.location.folder else None)
    facts = pd.DataFrame(list(result.facts), columns=["what", "which"])
    common = {
        "title": result.title,
        "subtitle": "Results of the blend of these models on clips that they did not train on.",
        "page": result,
        "text": report_text,
        "score": score,
        "facts": table(facts, "The ensemble"),
        "members": table(result.members, count(len(result.members), "member"), {"minutes": ".1f"}),
        "score_table": _score_table(result.scores),
        "curves": curves,
    }
    if isinstance(result.analysis, LabelAnalysis):
        assert result.decided is not None
        values = _label_values(result.clips, result.analysis, result.decided, maker)
        write_page(path, "label_report.html", **common, **values)
    else:
        values = _class_values(result.clips, result.analysis, maker)
        write_page(path, "report.html", **common, **values, rejects=len(result.thresholds) > 0)


def _class_values(clips: Predictions, analysis: Analysis, maker: PlayerMaker) -> dict[str, object]:
    """Return what the page of clips with one label shows beside the scores."""
    suspects, hardest = first_suspects(clips, analysis), hardest_clips(clips, analysis)
    return {
        "class_table": _class_table(analysis),
        "pairs": _pair_table(analysis.pairs),
        "n_unverified_suspects": int((~clips.verified[suspects]).sum()),
        "suspects": maker.sounds(clips, suspects),
        "n_hardest_wrong": int((analysis.guesses.guess[hardest] != clips.targets[hardest]).sum()),
        "hardest": maker.sounds(clips, hardest),
        "list_length": LIST_LENGTH,
    }


def _label_values(
    clips: Predictions, analysis: LabelAnalysis, decided: Decided, maker: PlayerMaker
) -> dict[str, object]:
    """Return what the page of clips with any number of labels shows beside the scores."""
    chosen = {
        name: label_players.first_suspects(analysis.suspects, is_present)
        for name, is_present in (("wrong", True), ("missing", False))
    }
    sounds = {
        name: label_players.suspect_sounds(maker, clips, decided, analysis.suspects, rows)
        for name, rows in chosen.items()
    }
    return {
        "labels": label_text,
        "class_table": _label_table(analysis.classes),
        "threshold_table": _threshold_table(analysis.classes),
        "pairs": _label_pair_table(analysis.pairs),
        "per_label": label_players.PER_LABEL,
        **sounds,
    }


def _score_table(scores: pd.DataFrame) -> Table:
    """Return the table of scores, with the scores where they are visible without scrolling."""
    first, second = score_names_of(scores.columns)
    numbers = [first, COLUMN_NAMES[second], f"{first}_verified"]
    columns = ["kind", "study", "model", "method", "fold", *numbers, "clips", "selected_on", "minutes"]
    columns += ["leak"] if "leak" in scores and scores["leak"].any() else []
    formats = {**dict.fromkeys(numbers, ".4f"), "minutes": ".2f"}
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


def _label_table(classes: pd.DataFrame) -> Table:
    names = {"ap": "average precision", "d_prime": "d'", "auc": "AUC"}
    rows = classes[["label", "clips", "verified", "ap", "lwlrap", "auc", "d_prime"]].rename(columns=names)
    intervals = [
        "" if pd.isna(low) else f"{low:.3f} to {high:.3f}"
        for low, high in zip(classes["ap_low"], classes["ap_high"], strict=True)
    ]
    rows.insert(4, "interval", intervals)
    formats = dict.fromkeys(["average precision", "lwlrap", "AUC", "d'"], ".3f")
    return table(rows, "All classes, worst first, as in reports/classes.csv", formats)


def _threshold_table(classes: pd.DataFrame) -> Table:
    columns = ["f1", "precision", "recall", "threshold"]
    rows = classes.sort_values("f1", kind="stable", na_position="last")[["label", "clips", *columns]]
    rows = rows.rename(columns={"f1": "F1"})
    formats = dict.fromkeys(["F1", *columns[1:]], ".3f")
    return table(rows, "Thresholds of the classes, lowest F1 first, as in reports/classes.csv", formats)


def _label_pair_table(pairs: pd.DataFrame) -> Table:
    caption = "Pairs of labels that are confused or missed most"
    if len(pairs) > PAIRS_SHOWN:
        caption += f", {PAIRS_SHOWN} of {len(pairs)}: all are in reports/co_occurrence.csv"
    formats = dict.fromkeys(["both_share", "given_share", "missed_share"], ".3f")
    return table(pairs.head(PAIRS_SHOWN), caption, formats)
