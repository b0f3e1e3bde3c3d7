"""What MLflow's page shows of fsat's runs: descriptions, the view that compares studies, and one colour a study.

None of it is needed by what fsat does: where the server does not permit it, a warning says so, and the work goes on. A
description that a person has written or changed is left as it is: a run's tag ``fsat.note`` has the digest of fsat's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import mlflow
from mlflow.entities import RunTag
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE as NOTE

from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.text import cut
from fsat.tracking import shared_view
from fsat.tracking.client import Refused, ask, without_password
from fsat.tracking.runs import TAG, active_run_id, experiment_id, now

DIGEST = TAG + "note"
PAGE = "http://127.0.0.1:5000/"
"""Where `mlflow ui` shows runs that are kept in files or a database."""

_refused: set[str] = set()

NEWEST = 200
"""Runs whose colours a new study avoids."""


def describe(text: str | Callable[[str], str], run_id: str | None = None) -> None:
    """Set a run's description, unless a person has written one.

    Args:
        text: Markdown, or what makes it of the link to the run.
        run_id: by default the open run.
    """
    run_id, client = run_id or active_run_id(), mlflow.MlflowClient()
    with permitted("describe runs"):
        run = ask(lambda: client.get_run(run_id))
        if not may_replace(run.data.tags):
            return
        if callable(text):
            text = text(run_link(run.info.experiment_id, run_id))
        text = clean(text)
        tags = [RunTag(NOTE, text), RunTag(DIGEST, digest(text))]
        ask(lambda: client.log_batch(run_id, tags=tags))


def describe_fold(run_id: str, scores: Mapping[str, float] | None = None) -> None:
    """Set a fold run's description from what the server has of it.

    Args:
        run_id: of a run whose parameters and tags are logged.
        scores: its last metrics, if it is trained.
    """
    client = mlflow.MlflowClient()
    with permitted("describe runs"):
        run = ask(lambda: client.get_run(run_id))
        all_folds = shared_view.link(run.info.experiment_id)
        facts = run.data.params, run.data.tags, scores or {}
        describe(lambda here: run_descriptions.fold(*facts, here, all_folds), run_id)


def describe_tagger(made: run_descriptions.Tagger) -> None:
    """Describe the open run of `ensemble`; and its version and the registered model, where nobody has."""
    client, name, version, where = mlflow.MlflowClient(), made.name, str(made.version), experiment_id()
    describe(lambda here: run_descriptions.ensemble(made, here, shared_view.link(where)))
    with permitted("describe registered models"):
        if not ask(lambda: client.get_model_version(name, version)).description:
            text = clean(run_descriptions.version(made, run_link(where, active_run_id())))
            ask(lambda: client.update_model_version(name, version, text))
        if not ask(lambda: client.get_registered_model(name)).description:
            ask(lambda: client.update_registered_model(name, run_descriptions.registered(name)))


def share_view() -> str:
    """Put the view that compares studies on the experiment, and a description where it has none.

    Returns:
        the view's address in a browser; an empty text where the server does not permit a view.
    """
    where, client = experiment_id(), mlflow.MlflowClient()
    with permitted("keep a view on the experiment"):
        tags = ask(lambda: client.get_experiment(where)).tags
        if shared_view.TAG not in tags:
            ask(lambda: client.set_experiment_tag(where, shared_view.TAG, shared_view.value(now())))
        if NOTE not in tags:
            text = run_descriptions.experiment(shared_view.link(where))
            ask(lambda: client.set_experiment_tag(where, NOTE, text))
        return page() + shared_view.link(where)
    return ""


def how_to_compare(address: str) -> str:
    """What to say of the address that `share_view` has given."""
    if address.startswith(PAGE):
        return f"Compare the runs with `mlflow ui`, then open {address}"
    return f"Compare the runs at {address or page()}"


def how_to_open(run_id: str, artifact: str) -> str:
    """What to say of where an artifact of a run in this experiment can be looked at."""
    link = f"{page()}{run_link(experiment_id(), run_id)}/artifacts/{artifact}"
    return f"start `mlflow ui`, then open {link}" if link.startswith(PAGE) else f"open {link}"


def give_colour(study: str) -> None:
    """Give the open run the colour of its study, in which MLflow's charts show it; a run that has one keeps it."""
    client, run_id, where = mlflow.MlflowClient(), active_run_id(), [experiment_id()]
    coloured = f"tags.`{shared_view.COLOUR_TAG}` LIKE '#%'"
    newest = ["attributes.start_time DESC"]
    with permitted("colour runs"):
        if shared_view.COLOUR_TAG in mlflow.active_run().data.tags:
            return
        of_study = f"{coloured} and tags.`{TAG}study` = '{study}'"
        found = ask(lambda: client.search_runs(where, of_study, max_results=1, order_by=newest))
        if found:
            colour = found[0].data.tags[shared_view.COLOUR_TAG]
        else:
            others = ask(lambda: client.search_runs(where, coloured, max_results=NEWEST, order_by=newest))
            colour = shared_view.new_colour(study, [run.data.tags[shared_view.COLOUR_TAG] for run in others])
        ask(lambda: client.set_tag(run_id, shared_view.COLOUR_TAG, colour))


@contextmanager
def permitted(what: str) -> Iterator[None]:
    """Go on where the server says no, with a warning, once a process."""
    try:
        yield
    except Refused as error:
        if what not in _refused:
            say(f"warning: cannot {what}, which nothing depends on: {error}")
        _refused.add(what)


def run_link(experiment: str, run_id: str) -> str:
    """Where a run is, from the address of MLflow's page on."""
    return f"#/experiments/{experiment}/runs/{run_id}"


def page() -> str:
    """The address of MLflow's page, without a user or a password."""
    uri = mlflow.get_tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return PAGE
    return re.sub(r"//[^/@]*@", "//", uri).rstrip("/") + "/"


def clean(text: str) -> str:
    """A description as it is kept: without passwords, not too long."""
    return cut(without_password(text))


def may_replace(tags: Mapping[str, str]) -> bool:
    """Whether a run has no description, or one that fsat has written and nobody has changed."""
    return NOTE not in tags or digest(tags[NOTE]) == tags.get(DIGEST)


def digest(text: str) -> str:
    """What tells a description from a changed one."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
