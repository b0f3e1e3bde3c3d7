"""``evaluation.html``: how tags over time compare with annotations, in sentences, figures, tables and players.

To add a section, add its heading and a block to ``templates/evaluation.html``, and what it shows to `write_evaluation`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from fsat.data.tables import write_table
from fsat.errors import count, printable
from fsat.metrics.detection_curves import Curve
from fsat.metrics.evaluation import Evaluation, Mistake, Scores
from fsat.metrics.sound_events import Counts
from fsat.reports.evaluation_plots import MAX_PANELS, plot_classes, plot_precision_recall, plot_thresholds
from fsat.reports.excerpts import sounds_of
from fsat.reports.html import Table, table, write_page
from fsat.text import short

PAGE = "evaluation.html"

N_PLAYED, CURVE_POINTS, MAX_ROWS = 20, 200, 500
"""Number of misses and of false alarms that have players, of points of a class in ``curves.csv``, of a table's rows."""

CLASS_COLUMNS = {
    "label": "label", "annotated": "annotated", "tags": "tags", "segment_f1": "F1 of segments",
    "segment_precision": "precision", "segment_recall": "recall", "event_f1": "F1 of events",
    "average_precision": "average precision", "chosen_threshold": "best threshold", "chosen_f1": "F1 there",
    "false_alarms_per_hour": "false alarms an hour",
}  # fmt: skip
RECORDING_COLUMNS = {
    "recording": "recording", "seconds": "seconds", "annotated": "annotated", "tags": "tags",
    "segment_f1": "F1 of segments", "segment_precision": "precision", "segment_recall": "recall",
    "event_f1": "F1 of events",
}  # fmt: skip
"""Columns of the tables in the page, of those in the files beside it."""

short_cell = partial(short, limit=160)


def write_evaluation(
    evaluation: Evaluation, folder: Path, root: Path, settings: Mapping[str, str], remarks: Sequence[str],
    faults: Mapping[str, str],
) -> None:  # fmt: skip
    """Write figures (``plots/``), tables (``tables/``) and the page of an evaluation into an existing folder.

    Args:
        root: folder of the recordings.
        settings: of the tags and of the scores, by name.
        remarks: what is odd about the annotations, a sentence each.
        faults: of recordings that cannot be read, or not to their end, by name.
    """
    plots, tables = folder / "plots", folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    cross_validated = evaluation.cross_validated
    annotated = evaluation.annotated
    plot_thresholds(evaluation.curves, evaluation.chosen.points, plots / "thresholds.png")
    plot_precision_recall(evaluation.curves, plots / "precision_recall.png")
    as_tagged, elsewhere = (
        {label: part.segments.classes[label] for label in annotated} if part else {}
        for part in (evaluation.total, cross_validated)
    )
    plot_classes(as_tagged, elsewhere, plots / "classes.png")
    classes, recordings = class_table(evaluation), recording_table(evaluation, faults)
    misses, alarms = evaluation.misses(), evaluation.false_alarms()
    write_table(classes, tables / "classes.csv")
    write_table(recordings, tables / "recordings.csv")
    write_table(curve_table(evaluation.curves), tables / "curves.csv")
    write_table(mistake_table(misses, "tagged"), tables / "misses.csv")
    write_table(mistake_table(alarms, "annotated"), tables / "false_alarms.csv")
    overall = evaluation.total.events.overall
    hours = sum(recording.seconds for recording in evaluation.recordings) / 3600
    write_page(
        folder / PAGE,
        PAGE,
        title=f"{count(overall.n_ref, 'annotation')} of {count(len(annotated), 'class')} in "
        f"{count(len(evaluation.recordings), 'recording')}",
        subtitle=f"{hours:.2f} hours; " + ", ".join(f"{name}={value}" for name, value in settings.items()),
        plots=plots,
        evaluation=evaluation,
        cross_validated=cross_validated,
        measures=evaluation.measures,
        max_panels=MAX_PANELS,
        poor=poor_classes(evaluation),
        score_table=score_table(evaluation),
        class_table=_shown(classes, CLASS_COLUMNS, "Classes", "tables/classes.csv"),
        recording_table=_shown(recordings, RECORDING_COLUMNS, "Recordings", "tables/recordings.csv"),
        n_misses=len(misses),
        n_alarms=len(alarms),
        unannotated=evaluation.unannotated,
        missed=sounds_of(misses[:N_PLAYED], root, "tagged"),
        alarms=sounds_of(alarms[:N_PLAYED], root, "annotated"),
        remarks=[*remarks, *(f"{short_cell(name)}: {fault}" for name, fault in faults.items())],
    )


def poor_classes(evaluation: Evaluation) -> list[str]:
    """Return the classes of which the best F1 is at most 10 % above that of tagging every segment."""
    poor = []
    for label, curve in evaluation.curves.items():
        share = curve.n_positive / curve.n_segments
        if evaluation.chosen.points[label].f1 < 1.1 * 2 * share / (1 + share):
            poor.append(short_cell(label))
    return poor


def score_table(evaluation: Evaluation) -> Table:
    """Return the scores of all classes together, and their means over the annotated classes."""
    rows = []
    for name, scores in _named_scores(evaluation):
        for kind, scored in zip(("segments", "events"), scores, strict=True):
            metrics, macro = scored.overall.metrics(), scored.macro(evaluation.annotated)
            rows.append([name, kind, *metrics.values(), macro["f1"]])
    columns = ["tags", "compared by", "F1", "precision", "recall", "error rate", "mean F1 of the classes"]
    frame = pd.DataFrame(rows, columns=columns)
    return table(frame, "Scores of all classes together", dict.fromkeys(columns[2:], ".3f"))


def _named_scores(evaluation: Evaluation) -> list[tuple[str, Scores]]:
    cross_validated = evaluation.cross_validated
    rows = [("as tagged", evaluation.total)]
    rows += [("at thresholds chosen on other recordings", cross_validated)] if cross_validated else []
    return [*rows, ("at thresholds chosen on these recordings (flattering)", evaluation.at_chosen)]


def class_table(evaluation: Evaluation) -> pd.DataFrame:
    """Return a row for each class that is annotated or tagged, the most annotated first."""
    segments, events = evaluation.total
    rows = []
    for label, own in events.classes.items():
        if not (own.n_ref or own.n_sys):
            continue
        curve, point = evaluation.curves.get(label), evaluation.chosen.points.get(label)
        lengths = [event.end - event.start for item in evaluation.recordings for event in item.annotated
                   if event.label == label]  # fmt: skip
        row = {"label": label, "annotated": own.n_ref, "annotated_seconds": round(sum(lengths), 3), "tags": own.n_sys}
        row |= _prefixed("segment", segments.classes[label]) | _prefixed("event", own)
        row["false_alarms_per_hour"] = evaluation.unannotated.per_hour(label)
        row["average_precision"] = curve.average_precision if curve else math.nan
        row |= {f"chosen_{name}": value for name, value in (point._asdict() if point else {}).items()}
        if evaluation.cross_validated:
            row["cv_segment_f1"] = evaluation.cross_validated.segments.classes[label].f1
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["annotated", "label"], ascending=[False, True])


def recording_table(evaluation: Evaluation, faults: Mapping[str, str]) -> pd.DataFrame:
    """Return a row for each recording, the lowest F1 of segments first."""
    rows = []
    for item, scores in zip(evaluation.recordings, evaluation.each, strict=True):
        segments, events = (part.overall for part in scores)
        row = {"recording": printable(item.name), "seconds": item.seconds, "annotated": events.n_ref}
        row |= {"tags": events.n_sys} | _prefixed("segment", segments) | _prefixed("event", events)
        rows.append(row | {"fault": faults.get(item.name)})
    read = {item.name for item in evaluation.recordings}
    rows += [{"recording": printable(name), "fault": faults[name]} for name in faults if name not in read]
    return pd.DataFrame(rows).sort_values(["segment_f1", "recording"])


def _prefixed(kind: str, counts: Counts) -> dict[str, float]:
    """Return scores by name; error rates only where something is annotated."""
    metrics = counts.metrics() | ({} if counts.n_ref else {"error_rate": math.nan})
    return {f"{kind}_{name}": value for name, value in metrics.items()}


def curve_table(curves: Mapping[str, Curve]) -> pd.DataFrame:
    """Return precision, recall and F1 by threshold, at most `CURVE_POINTS` thresholds of each class."""
    parts = []
    for label, curve in curves.items():
        columns = {"threshold": curve.thresholds, "precision": curve.precision, "recall": curve.recall, "f1": curve.f1}
        frame = pd.DataFrame(columns)
        frame = frame.iloc[:: max(1, math.ceil(len(frame) / CURVE_POINTS))]
        frame.insert(0, "label", label)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def mistake_table(mistakes: Sequence[Mistake], instead: str) -> pd.DataFrame:
    """Return a row for each mistake; column `instead` has the other labels at that time."""
    rows = [
        [printable(m.recording), round(m.event.start, 3), round(m.event.end, 3), m.event.label, round(m.score, 6),
         "; ".join(m.instead)]
        for m in mistakes
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["recording", "start", "end", "label", "score", instead])


def _shown(frame: pd.DataFrame, columns: Mapping[str, str], caption: str, file: str) -> Table:
    """Return the first rows of a table, and those of its columns that a page has room for; the file has all."""
    note = f"{count(len(frame), 'row')}; {file} beside this page has all columns"
    if len(frame) > MAX_ROWS:
        note = f"the first {MAX_ROWS:,} of {len(frame):,} rows; {file} beside this page has all"
    shown = frame.head(MAX_ROWS)[[*columns]].rename(columns=columns)
    first = shown.columns[0]
    shown[first] = shown[first].map(short_cell)
    formats = {name: "," if name in ("annotated", "tags") else ".3f" for name in shown.columns[1:]}
    formats |= {"seconds": ".1f", "best threshold": ".3g", "false alarms an hour": ".3g"}
    return table(shown, f"{caption} ({note})", formats)
