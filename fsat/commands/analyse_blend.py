"""Analyse the out-of-fold predictions of a blend, and write their tables and figures, for either task."""

from __future__ import annotations

from pathlib import Path

from fsat.commands.fit_scores import Decisions
from fsat.metrics.task_scores import task_of
from fsat.reports.label_tables import Decided, LabelAnalysis, analyse_labels, write_label_reports
from fsat.reports.prediction_tables import Analysis, Predictions, analyse, write_reports


def analyse_blend(clips: Predictions, decisions: Decisions) -> Analysis | LabelAnalysis:
    """Analyse the predictions, before and after scaling."""
    if task_of(clips.targets) == "multi":
        return analyse_labels(clips, decided_by(decisions))
    return analyse(clips, decisions.scaled if decisions.scaling.kind != "none" else None)


def write_blend_reports(
    clips: Predictions, decisions: Decisions, analysis: Analysis | LabelAnalysis, folder: Path
) -> dict[str, float]:
    """Write ``reports/*.csv`` and ``plots/*.png`` into an existing folder; return metrics of the run."""
    if isinstance(analysis, Analysis):
        return write_reports(clips, analysis, folder)
    write_label_reports(clips, decided_by(decisions), analysis, folder)
    return analysis.metrics


def decided_by(decisions: Decisions) -> Decided:
    """Return what a tagger of clips with any number of labels makes of scores, as the reports take it."""
    assert decisions.scaled is not None
    assert decisions.given is not None
    return Decided(decisions.scaled, decisions.given, decisions.thresholds, decisions.scaling.kind != "none")
