"""``report.html`` of an ensemble, from what its members left on the tracking server and the clips on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fsat.commands.blend_members import Blend, selected_on
from fsat.data.locate_clips import ClipFolder, Trained, find_clips
from fsat.errors import count
from fsat.progress import say
from fsat.reports.plots import FoldCurve
from fsat.reports.result_page import Result, write_result_page
from fsat.reports.results_text import METHODS
from fsat.reports.study_reports import Analysis, Predictions
from fsat.tracking import runs
from fsat.tracking.fold_artifacts import FoldRun, Member
from fsat.tracking.histories import epochs

PAGE = "report.html"


def log_report(
    members: Sequence[Member],
    blend: Blend,
    clips: Predictions,
    analysis: Analysis,
    folder: Path,
    title: str,
    outcome: str,
    data_dir: str | Path | None = None,
) -> None:
    """Write the page of the open run and upload it.

    Args:
        members: of the ensemble.
        blend: their blend.
        clips, analysis: its out-of-fold predictions and their analysis.
        folder: of the run's artifacts, with ``plots/``.
        title: heading of the page.
        outcome: a sentence on the registered version.
        data_dir: folder of the clips, if it is not the one that the members were trained on.
    """
    location = _locate(members, data_dir)
    if location.note:
        say(f"{PAGE}: {location.note}")
    result = Result(
        title=title,
        outcome=outcome,
        facts=_facts(members, blend),
        members=_member_table(members),
        scores=blend.scores,
        method=blend.method,
        selected_on=selected_on(members),
        clips=clips,
        analysis=analysis,
        curves=[_curve(member.record) for member in members],
        plots=folder / "plots",
        location=location,
    )
    write_result_page(result, folder / PAGE)
    runs.log_file(folder / PAGE)


def _locate(members: Sequence[Member], data_dir: str | Path | None) -> ClipFolder:
    records = [member.record for member in members]
    start = min(record.run.info.start_time for record in records) / 1000
    known = [record.data_dir for record in records if runs.TAG + "data_dir" in record.run.data.tags]
    return find_clips(Trained(members[0].clips, records[0].dataset, start), known, data_dir)


def _facts(members: Sequence[Member], blend: Blend) -> list[tuple[str, str]]:
    first, facts = members[0], members[0].facts
    rows = [("run", runs.active_run_id()), ("blend", f"{blend.method}: {METHODS[blend.method]}")]
    for study in dict.fromkeys(member.record.study for member in members):
        configs = [member.record.config for member in members if member.record.study == study]
        weight = f", weight {blend.weights[study]:.4f}" if study in blend.weights else ""
        rows.append((f"study {study}", f"{configs[0].model}, {len(configs)} of {configs[0].n_folds} folds{weight}"))
    clips = (
        f"{count(facts.n_train, 'training clip')} of {count(len(first.labels), 'class')}, "
        f"{int(blend.verified.sum())} of them verified; {count(facts.n_test, 'test clip')}"
    )
    scored = count(int(blend.covered.sum()), "training clip")
    return [
        *rows,
        ("dataset", f"{first.record.dataset}, in {first.record.data_dir} when the first fold was trained"),
        ("clips", clips),
        ("scored", f"{scored}, each by models that did not train on it"),
    ]


def _member_table(members: Sequence[Member]) -> pd.DataFrame:
    records = [member.record for member in members]
    columns = ["study", "model", "fold", "minutes", "selected on", "run"]
    rows = [(r.study, r.config.model, r.fold, r.minutes, r.config.selected_on, r.run_id) for r in records]
    return pd.DataFrame(rows, columns=columns)


def _curve(record: FoldRun) -> FoldCurve:
    best = record.run.data.metrics.get("best_epoch")
    val_map3, val_loss = (epochs(record, key, "val_loss") for key in ("val_map3", "val_loss"))
    best_epoch = None if best is None else round(best)
    return FoldCurve(record.study, record.config.model, record.fold, val_map3, val_loss, best_epoch)
