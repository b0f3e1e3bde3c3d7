"""How runs look in MLflow's UI: descriptions, a shared view that compares studies, and one colour for each study.

Nothing else depends on this: if the server does not permit it, a warning says so once. A description that a person has
written or changed is never replaced: the tag ``fsat.note`` of a run has the digest of the text that fsat wrote.

MLflow stores a shared view as the experiment's tag ``mlflow.sharedViewState.KEY``, and a link that names the key opens
it. It has the scores of both tasks; MLflow hides charts and columns that no run has. Its fields, in ``view.json``, are
those of MLflow's UI (``ExperimentPageUIState.ts``, ``runs-charts.types.ts`` and ``ExperimentPageSearchFacetsState.tsx``
in its sources). The value is an envelope with a name, under which MLflow lists the view from 3.17 on; for earlier
versions the fields are at its top level too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.entities import RunTag

from fsat.progress import say
from fsat.text import cut
from fsat.tracking.client import SESSION, TAG, Refused, call, search_runs, without_password
from fsat.tracking.runs import active_run_id, experiment_id, now

NOTE, DIGEST = "mlflow.note.content", TAG + "note"
"""Tags of a description, as MLflow documents it, and of the digest of the one that fsat wrote."""

PAGE = "http://127.0.0.1:5000/"
"""Address of `mlflow ui`, which shows runs that are stored in files or a database."""

VIEW_KEY = "fsat-2"
"""Key of the shared view; change it with the view, as experiments keep the view that they have."""

VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
VIEW_NAME = "fsat: compare studies"
VIEW = json.loads((Path(__file__).parent / "view.json").read_text())

COLOUR_TAG = "mlflow.runColor"
COLOURS = ("#2a6f97", "#e07a2f", "#3a9d5d", "#8e5bb5", "#c8373e", "#1fa3a3", "#b8931f", "#d65c9c", "#3b4ba0", "#8a5a3c")
"""Colours of studies, distinct from each other and from white."""

RECENT = 200
"""Number of runs whose colours a new study avoids."""


def describe(text: str | Callable[[str], str], run_id: str | None = None) -> None:
    """Set the description of a run, by default the open one, unless a person has written one.

    The text is Markdown, or a function that returns it for the link to the run.
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
    """Store the view that compares studies on the experiment, and describe the experiment in Markdown if nobody has.

    Return the view's address; an empty string if the server does not permit a view.
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
        own = search_runs(f"{coloured} and tags.`{TAG}study` = '{study}'", order_by=newest, max_results=1)
        runs = own or search_runs(coloured, order_by=newest, max_results=RECENT)
        colours = [run.data.tags[COLOUR_TAG] for run in runs]
        colour = colours[0] if own else new_colour(study, colours)
        call(lambda: mlflow.MlflowClient().set_tag(active_run_id(), COLOUR_TAG, colour))


def new_colour(study: str, taken: Sequence[str]) -> str:
    """Return a colour for a new study: a free one, or else the one that was used longest ago.

    `taken` are the colours of other studies, newest first. Studies that start together search from different colours.
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
    remote = uri.startswith(("http://", "https://"))
    return re.sub(r"//[^/@]*@", "//", uri).rstrip("/") + "/" if remote else PAGE


def _clean(text: str) -> str:
    return cut(without_password(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _view_value(milliseconds: int) -> str:
    """Return the value of `VIEW_TAG`, shorter than MLflow's limit of 5000 characters."""
    packed = base64.b64encode(zlib.compress(json.dumps(VIEW).encode(), 9)).decode()
    envelope = {"name": VIEW_NAME, "createdAt": milliseconds, "updatedAt": milliseconds, "state": f"deflate;{packed}"}
    return json.dumps(envelope | VIEW, separators=(",", ":"))
