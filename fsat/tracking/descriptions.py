"""How runs look in MLflow's UI: descriptions, a shared view that compares studies, and one colour for each study.

Nothing else depends on this: if the server does not permit it, a warning says so once. A description that a person has
written or changed is never replaced: the tag ``fsat.note`` of a run has the digest of the text that fsat wrote.

MLflow stores a shared view as the experiment's tag ``mlflow.sharedViewState.KEY``, and a link that names the key opens
it. Its fields are those of MLflow's UI (``ExperimentPageUIState.ts``, ``runs-charts.types.ts`` and
``ExperimentPageSearchFacetsState.tsx`` in its sources). The value is an envelope with a name, under which MLflow lists
the view from 3.17 on; for earlier versions the fields are at its top level too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlflow
from mlflow.entities import RunTag
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE as NOTE

from fsat.progress import say
from fsat.text import cut
from fsat.tracking.client import SESSION, TAG, Refused, call, search_runs, without_password
from fsat.tracking.runs import active_run_id, experiment_id, now

DIGEST = TAG + "note"

PAGE = "http://127.0.0.1:5000/"
"""Address of `mlflow ui`, which shows runs that are stored in files or a database."""

VIEW_KEY = "fsat-1"
"""Key of the shared view; change it with the view, as experiments keep the view that they have."""

VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
VIEW_NAME = "fsat: compare studies"

COLUMNS = ["tags.`fsat.model`", "tags.`fsat.fold`", "metrics.`val_map3`", "metrics.`val_acc`", "metrics.`best_epoch`",
           "metrics.`train_seconds`", "tags.`fsat.study`"]  # fmt: skip
"""Columns of the view's table, after a run's name, time and duration."""

CHARTS = (("LINE", "val_map3"), ("LINE", "val_loss"), ("BAR", "val_map3"), ("BAR", "train_seconds"))
"""Charts of the view, in order: kind and metric."""

RUNS_IN_CHARTS = 100
"""Number of runs that MLflow's UI loads at first."""

COLOUR_TAG = "mlflow.runColor"
COLOURS = ("#2a6f97", "#e07a2f", "#3a9d5d", "#8e5bb5", "#c8373e", "#1fa3a3", "#b8931f", "#d65c9c", "#3b4ba0", "#8a5a3c")
"""Colours of studies, distinct from each other and from white."""

RECENT = 200
"""Number of runs whose colours a new study avoids."""


def describe(text: str | Callable[[str], str], run_id: str | None = None) -> None:
    """Set the description of a run, unless a person has written one.

    Args:
        text: Markdown, or a function that returns it for the link to the run.
        run_id: by default the open run.
    """
    run_id, client = run_id or active_run_id(), mlflow.MlflowClient()
    with permitted("describe runs"):
        run = call(lambda: client.get_run(run_id))
        tags = run.data.tags
        if NOTE in tags and _digest(tags[NOTE]) != tags.get(DIGEST):
            return
        note = _clean(text(run_link(run.info.experiment_id, run_id)) if callable(text) else text)
        call(lambda: client.log_batch(run_id, tags=[RunTag(NOTE, note), RunTag(DIGEST, _digest(note))]))


def describe_version(name: str, version: int, text: str, model_text: str) -> None:
    """Set the descriptions of a model version and of its registered model, if they have none."""
    client = mlflow.MlflowClient()
    with permitted("describe registered models"):
        if not call(lambda: client.get_model_version(name, str(version))).description:
            call(lambda: client.update_model_version(name, str(version), _clean(text)))
        if not call(lambda: client.get_registered_model(name)).description:
            call(lambda: client.update_registered_model(name, model_text))


def share_view(text: str) -> str:
    """Store the view that compares studies on the experiment, and describe the experiment if nobody has.

    Args:
        text: the description, Markdown.

    Returns:
        the view's address; an empty string if the server does not permit a view.
    """
    experiment, client = experiment_id(), mlflow.MlflowClient()
    with permitted("store a view on the experiment"):
        tags = call(lambda: client.get_experiment(experiment)).tags
        if VIEW_TAG not in tags:
            call(lambda: client.set_experiment_tag(experiment, VIEW_TAG, _view_value(now())))
        if NOTE not in tags:
            call(lambda: client.set_experiment_tag(experiment, NOTE, text))
        return page() + view_link()
    return ""


def give_colour(study: str) -> None:
    """Give the open run the colour of its study in MLflow's charts, unless it has a colour."""
    with permitted("colour runs"):
        if COLOUR_TAG in mlflow.active_run().data.tags:
            return
        coloured, newest = f"tags.`{COLOUR_TAG}` LIKE '#%'", ["attributes.start_time DESC"]
        runs = search_runs(f"{coloured} and tags.`{TAG}study` = '{study}'", order_by=newest, max_results=1)
        if runs:
            colour = runs[0].data.tags[COLOUR_TAG]
        else:
            runs = search_runs(coloured, order_by=newest, max_results=RECENT)
            colour = new_colour(study, [run.data.tags[COLOUR_TAG] for run in runs])
        call(lambda: mlflow.MlflowClient().set_tag(active_run_id(), COLOUR_TAG, colour))


def new_colour(study: str, taken: Sequence[str]) -> str:
    """Return a colour for a new study: a free one, or else the one that was used longest ago.

    Args:
        study: its id, a hexadecimal number; studies that start at the same time search from different colours.
        taken: colours of other studies, the newest first.
    """
    start = int(study, 16) % len(COLOURS)
    free = [colour for colour in COLOURS[start:] + COLOURS[:start] if colour not in taken]
    return free[0] if free else max(COLOURS, key=list(taken).index)


@contextmanager
def permitted(action: str) -> Iterator[None]:
    """Continue if the server refuses an action, with one warning per process."""
    try:
        yield
    except Refused as error:
        if action not in SESSION.denied:
            say(f"warning: cannot {action}, which nothing depends on: {error}")
        SESSION.denied.add(action)


def how_to_compare(address: str) -> str:
    """Return one line that says how to open the view, for the address that `share_view` returned."""
    if address.startswith(PAGE):
        return f"Compare the runs with `mlflow ui`, then open {address}"
    return f"Compare the runs at {address or page()}"


def how_to_open(run_id: str, artifact: str) -> str:
    """Return how to open an artifact of a run in this experiment, in words."""
    link = f"{page()}{run_link(experiment_id(), run_id)}/artifacts/{artifact}"
    return f"start `mlflow ui`, then open {link}" if link.startswith(PAGE) else f"open {link}"


def run_link(experiment: str, run_id: str) -> str:
    """Return the link to a run, relative to the address of MLflow's UI."""
    return f"#/experiments/{experiment}/runs/{run_id}"


def view_link(experiment: str | None = None) -> str:
    """Return the link to the view's charts, relative to the address of MLflow's UI; by default of the open run."""
    mode = "workflowType=machine_learning&compareRunsMode=CHART"
    return f"#/experiments/{experiment or experiment_id()}/runs?viewStateShareKey={VIEW_KEY}&{mode}"


def page() -> str:
    """Return the address of MLflow's UI, without a user or a password."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return PAGE
    return re.sub(r"//[^/@]*@", "//", uri).rstrip("/") + "/"


def _clean(text: str) -> str:
    return cut(without_password(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _view_value(milliseconds: int) -> str:
    """Return the value of `VIEW_TAG`, shorter than MLflow's limit of 5000 characters."""
    view = _view()
    packed = base64.b64encode(zlib.compress(json.dumps(view).encode(), 9)).decode()
    envelope = {"name": VIEW_NAME, "createdAt": milliseconds, "updatedAt": milliseconds, "state": f"deflate;{packed}"}
    return json.dumps(envelope | view, separators=(",", ":"))


def _view() -> dict[str, Any]:
    return {
        "searchFilter": "tags.`fsat.stage` = 'train_fold'",
        "orderByKey": "metrics.`val_map3`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": COLUMNS,
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        "isAccordionReordered": False,
        "compareRunCharts": [_chart(number, *chart) for number, chart in enumerate(CHARTS)],
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
