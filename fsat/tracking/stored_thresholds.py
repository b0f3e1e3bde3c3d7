"""The thresholds of a registered tagger: an artifact of the run that chose them, named in a tag of the version.

The files of a version cannot be changed, as the same version must always be the same tagger. The tag has the run and
the SHA-256 of the artifact, so a file that was changed or taken from elsewhere is noticed.
"""

from __future__ import annotations

import re
from functools import partial

import mlflow

from fsat.errors import RunError
from fsat.metrics.class_thresholds import FILE, ClassThresholds, read_thresholds
from fsat.tracking.client import TAG, Refused, call

KEY = TAG + "thresholds"
"""Tag of a version: ``RUN/SHA256``."""

REGISTERED = re.compile(r"models:/([^/]+)/(\d+)$")

HOW = "choose them with `mlflow run . -e evaluate -P input=RECORDINGS -P annotations=DIR -P model={}`"


def keep_thresholds(model_uri: str, run_id: str, thresholds: ClassThresholds) -> str | None:
    """Make the thresholds in a run's artifact those of a registered version.

    Returns the id of the run whose thresholds the version had before, or an empty string; None if the URI is not that
    of a registered version, ``models:/NAME/VERSION``.
    """
    registered = REGISTERED.match(model_uri)
    if registered is None:
        return None
    client = mlflow.MlflowClient()
    before = call(partial(client.get_model_version, *registered.groups())).tags.get(KEY, "").partition("/")[0]
    call(partial(client.set_model_version_tag, *registered.groups(), KEY, f"{run_id}/{thresholds.digest}"))
    return before


def has_thresholds(model_uri: str) -> bool:
    """Return whether `evaluate` has chosen thresholds for a registered version."""
    registered = REGISTERED.match(model_uri)
    if registered is None:
        return False
    return bool(call(partial(mlflow.MlflowClient().get_model_version, *registered.groups())).tags.get(KEY))


def load_thresholds(model_uri: str, digest: str) -> ClassThresholds:
    """Return the thresholds of a registered version, whose tagger has a `digest`.

    Raises `RunError` if there are none, or not those that were chosen for it.
    """
    registered = REGISTERED.match(model_uri)
    if registered is None:
        raise RunError(f"min_score=auto: {model_uri} is no registered version, and only these have thresholds")
    version = call(partial(mlflow.MlflowClient().get_model_version, *registered.groups()))
    run_id, _, sha256 = version.tags.get(KEY, "").partition("/")
    advice = HOW.format(model_uri)
    if not run_id:
        raise RunError(f"min_score=auto: {model_uri} has no thresholds; {advice}, or give a number")
    try:
        text = call(partial(mlflow.artifacts.load_text, f"runs:/{run_id}/{FILE}"))
    except Refused as error:
        raise RunError(f"min_score=auto: {FILE} of run {run_id} cannot be read ({error}); {advice}") from error
    thresholds = read_thresholds(text)
    if thresholds.digest != sha256:
        raise RunError(f"min_score=auto: {FILE} of run {run_id} has changed since it was made; {advice}")
    if thresholds.tagger != digest:
        raise RunError(f"min_score=auto: the thresholds of run {run_id} are of another tagger; {advice}")
    return thresholds
