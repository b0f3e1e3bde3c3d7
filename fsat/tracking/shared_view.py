"""The view of MLflow's page in which studies are compared: its columns and charts, its link, and one colour a study.

MLflow keeps a view that is shared as an experiment's tag ``mlflow.sharedViewState.KEY``, and a link that names the key
shows it: fold runs alone, the best first, curves by epoch and bars in the colour of the run's tag ``mlflow.runColor``.
The names of the fields are those of MLflow's page (``ExperimentPageUIState.ts``, ``runs-charts.types.ts`` and
``ExperimentPageSearchFacetsState.tsx`` in its sources). The value is an envelope with a name, by which MLflow from 3.17
on lists the view under *Views*; the fields themselves are in it too, for MLflow before that.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

KEY = "fsat-1"
"""Of the view; another number where its layout changes, as views that are there stay as they are."""

TAG = f"mlflow.sharedViewState.{KEY}"
"""The experiment's tag that has the view."""

COLOUR_TAG = "mlflow.runColor"
"""The run's tag that has its colour."""

NAME = "fsat: compare studies"

COLUMNS = (
    "tags.`fsat.model`", "tags.`fsat.fold`", "metrics.`val_map3`", "metrics.`val_acc`", "metrics.`best_epoch`",
    "metrics.`train_seconds`", "tags.`fsat.study`",
)  # fmt: skip
"""Of the table, after the name, the time and the duration of a run."""

CHARTS = (("LINE", "val_map3"), ("LINE", "val_loss"), ("BAR", "val_map3"), ("BAR", "train_seconds"))
"""Kind and metric, in order: curves by epoch, and bars of the last values."""

COLOURS = (
    "#2a6f97", "#e07a2f", "#3a9d5d", "#8e5bb5", "#c8373e", "#1fa3a3", "#b8931f", "#d65c9c", "#3b4ba0", "#8a5a3c",
)  # fmt: skip
"""Of studies; each can be told from the others and from white."""

RUNS_IN_CHARTS = 100
"""As many as MLflow's page loads at first."""


def state() -> dict[str, Any]:
    """The view, as MLflow's page keeps it."""
    charts = [_chart(number, *chart) for number, chart in enumerate(CHARTS)]
    return {
        "searchFilter": "tags.`fsat.stage` = 'train_fold'",
        "orderByKey": "metrics.`val_map3`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(COLUMNS),
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        "isAccordionReordered": False,
        "compareRunCharts": charts,
        "compareRunSections": [_section("fsat", "Studies", True), _section("rest", "Model metrics", False)],
    }


def _chart(number: int, kind: str, metric: str) -> dict[str, Any]:
    chart = {
        "uuid": f"fsat-{number}", "type": kind, "metricKey": metric, "metricSectionId": "fsat",
        "runsCountToCompare": RUNS_IN_CHARTS, "deleted": False, "isGenerated": False,
    }  # fmt: skip
    if kind == "LINE":
        chart |= {
            "selectedMetricKeys": [metric], "xAxisKey": "step", "scaleType": "linear", "xAxisScaleType": "linear",
            "lineSmoothness": 0, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True, "range": {},
        }  # fmt: skip
    return chart


def _section(uuid: str, name: str, is_open: bool) -> dict[str, Any]:
    return {"uuid": uuid, "name": name, "display": is_open, "isReordered": False, "deleted": False, "isGenerated": True}


def value(milliseconds: int) -> str:
    """What the tag `TAG` has, below MLflow's 5000 characters: the view, and when it was made."""
    view = state()
    packed = base64.b64encode(zlib.compress(json.dumps(view).encode(), 9)).decode()
    envelope = {"name": NAME, "createdAt": milliseconds, "updatedAt": milliseconds, "state": f"deflate;{packed}"}
    return json.dumps(envelope | view, separators=(",", ":"))


def link(experiment_id: str) -> str:
    """Where the charts of the view are, from the address of MLflow's page on."""
    mode = "workflowType=machine_learning&compareRunsMode=CHART"
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={KEY}&{mode}"


def new_colour(study: str, taken: Sequence[str]) -> str:
    """A colour for a study that has none: one that no other has, or else the one that was given to another longest ago.

    Args:
        study: its id, a hexadecimal number, from which it depends where the search begins: of studies that begin at
            the same time, few get the same.
        taken: colours of other studies, the newest first.
    """
    start = int(study, 16) % len(COLOURS)
    order = COLOURS[start:] + COLOURS[:start]
    free = [colour for colour in order if colour not in taken]
    return free[0] if free else max(COLOURS, key=list(taken).index)
