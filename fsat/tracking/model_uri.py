"""URIs of registered taggers: which version an alias, a stage or ``latest`` stands for.

Aliases move while others train. A command resolves the URI that it was given once, and uses the version from then on:
in all of its processes, and when it is resumed.
"""

from __future__ import annotations

from functools import partial

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from fsat.tracking.client import UNKNOWN, Refused, call

SCHEME, LATEST = "models:/", "latest"
"""Beginning of the URI of a registered model; MLflow's word for its newest version, which is no alias."""


def pinned(model_uri: str) -> str:
    """Return the URI of the one model that a URI stands for now.

    That is ``models:/NAME/VERSION`` for ``models:/NAME@ALIAS``, ``models:/NAME/latest`` and ``models:/NAME/STAGE``, and
    ``models:/ID`` for ``runs:/RUN/NAME``, under which a run may log several models. A URI that names one model or a
    folder, and one whose model does not exist, is returned as it is.
    """
    if model_uri.startswith("runs:/"):
        try:
            model_id = call(lambda: mlflow.models.get_model_info(model_uri)).model_id
        except Refused:
            return model_uri
        return f"{SCHEME}{model_id}" if model_id else model_uri
    path = model_uri.removeprefix(SCHEME).lstrip("/")
    if path == model_uri or model_uri.startswith(f"{SCHEME}/"):  # models://PROFILE@databricks/NAME/VERSION
        return model_uri
    version = call(partial(_version, mlflow.MlflowClient(), path))
    if version is None:
        return model_uri
    if "?" in version.name and version.model_id:  # MLflow would take the rest of the name for a query
        return f"{SCHEME}{version.model_id}"
    return f"{SCHEME}{version.name}/{version.version}"


def _version(client: mlflow.MlflowClient, path: str) -> ModelVersion | None:
    """Return the version, if any, of ``NAME@ALIAS``, ``NAME/VERSION``, ``NAME/latest`` or ``NAME/STAGE``."""
    name, slash, suffix = path.partition("/")
    if not slash:
        name, _, suffix = path.rpartition("@")
        if not name or suffix.lower() != LATEST:
            return aliased(client, name, suffix) if name else None
    versions = find_versions(client, name)
    if suffix.isdecimal():
        versions = [version for version in versions if int(version.version) == int(suffix)]
    elif suffix.lower() != LATEST:
        versions = [version for version in versions if version.current_stage.lower() == suffix.lower()]
    return max(versions, key=lambda version: int(version.version), default=None)


def aliased(client: mlflow.MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Return the version with an alias, if any."""
    found = client.search_registered_models(filter_string=is_named(name))
    if name not in [model.name for model in found]:
        return None  # a server with users refuses requests about a model that does not exist
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in UNKNOWN:
            raise
        return None


def find_versions(client: mlflow.MlflowClient, name: str, query: str = "") -> list[ModelVersion]:
    """Return the versions of a registered model, or those that also match an MLflow filter string."""
    versions = client.search_model_versions(f"{is_named(name)} and {query}" if query else is_named(name))
    return [version for version in versions if version.name == name]


def is_named(name: str) -> str:
    """Return MLflow's filter string for a name. It has no escapes: with both quotes, other names may match too."""
    if "'" in name and '"' in name:
        return f"name LIKE '{name.replace(chr(39), '_')}'"
    quote = '"' if "'" in name else "'"
    return f"name = {quote}{name}{quote}"
