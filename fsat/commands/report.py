"""The page of an ensemble, made of what its members left on the tracking server and of clips that are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fsat.commands.blend_members import Blend, selected_on
from fsat.data.locate_clips import Found, Trained, find_clips
from fsat.progress import say
from fsat.reports.curves import FoldCurve
from fsat.reports.result_page import Result, write_page
from fsat.reports.results_text import METHODS
from fsat.reports.study_reports import Predicted, Told
from fsat.tracking import runs
from fsat.tracking.fold_artifacts import Member
from fsat.tracking.runs import epoch_history
from fsat.tracking.select_runs import FoldRun

PAGE = "report.html"


class Report:
    """What the page of the open run shows; gathered once, and written when the tagger's fate is known.

    Args:
        members: of the ensemble.
        blend: what they gave.
        clips, told: its out-of-fold predictions, and what they tell.
        folder: of the run's artifacts, with ``plots/``.
        data_dir: where the clips lie, if not where they were trained on.
    """

    def __init__(
        self, members: Sequence[Member], blend: Blend, clips: Predicted, told: Told, folder: Path,
        data_dir: str | Path | None = None,
    ) -> None:  # fmt: skip
        self._members, self._blend, self._clips, self._told = members, blend, clips, told
        self._folder, self._data_dir = folder, data_dir

    def log(self, title: str, standing: str) -> None:
        """Write the page and upload it.

        Args:
            title: its heading.
            standing: what became of the tagger.
        """
        members, blend = self._members, self._blend
        found = _find(members, self._data_dir)
        if found.note:
            say(f"{PAGE}: {found.note}")
        result = Result(
            title, _facts(members, blend), _table(members), blend.scores, blend.method, selected_on(members),
            self._clips, self._told, [_curve(member.record) for member in members], self._folder / "plots", found,
        )  # fmt: skip
        path = self._folder / PAGE
        write_page(result, standing, path)
        runs.log_file(path)


def _find(members: Sequence[Member], data_dir: str | Path | None) -> Found:
    records = [member.record for member in members]
    began = min(record.run.info.start_time for record in records) / 1000
    known = [record.data_dir for record in records]
    return find_clips(Trained(members[0].clips, records[0].dataset, began), known, data_dir)


def _facts(members: Sequence[Member], blend: Blend) -> list[tuple[str, str]]:
    first, facts = members[0], members[0].facts
    studies: dict[str, list[FoldRun]] = {}
    for member in members:
        studies.setdefault(member.record.study, []).append(member.record)
    rows = [("run", runs.active_run_id()), ("blend", f"{blend.method}: {METHODS[blend.method]}")]
    for study, records in studies.items():
        weight = f", weight {blend.weights[study]:.4f}" if study in blend.weights else ""
        of = records[0].config.n_folds
        rows.append((f"study {study}", f"{records[0].config.model}, {len(records)} of {of} folds{weight}"))
    verified = int(blend.verified.sum())
    rows += [
        ("dataset", f"{first.record.dataset}, in {first.record.data_dir} when the first fold was trained"),
        ("clips", f"{facts.n_train} training clips of {len(first.labels)} classes, {verified} of them verified; "
                  f"{facts.n_test} test clips"),
        ("scored", f"{int(blend.covered.sum())} training clips, each by models that did not train on it"),
    ]  # fmt: skip
    return rows


def _table(members: Sequence[Member]) -> pd.DataFrame:
    records = [member.record for member in members]
    columns = ["study", "model", "fold", "minutes", "selected on", "run"]
    rows = [(r.study, r.config.model, r.fold, r.minutes, r.config.selected_on, r.run_id) for r in records]
    return pd.DataFrame(rows, columns=columns)


def _curve(record: FoldRun) -> FoldCurve:
    best = record.run.data.metrics.get("best_epoch")
    val_map3, val_loss = (epoch_history(record.run_id, key) for key in ("val_map3", "val_loss"))
    whole = None if best is None else round(best)
    return FoldCurve(record.study, record.config.model, record.fold, val_map3, val_loss, whole)
