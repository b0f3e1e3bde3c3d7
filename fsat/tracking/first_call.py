"""What is done once, before the first call to a tracking store: create a new SQLite file, or look at the server."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import mlflow
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from fsat.files import UNFINISHED, replace_whole
from fsat.tracking import remedies


def fault_of_file(uri: str, address: str) -> str:
    """Return why an SQLite file cannot be opened or created, or an empty text; MLflow would try for 100 seconds."""
    path = _path_of(uri)
    if path is None or (may(path, os.R_OK) if path.exists() else may(nearest_folder(path), os.W_OK)):
        return ""
    return remedies.read_only("no permission", address)


def create_sqlite_store(uri: str) -> None:
    """Create a new SQLite store whole or not at all: MLflow cannot use one whose creation was killed."""
    scheme, _, rest = uri.partition(":///")
    _, mark, query = rest.partition("?")
    path = _path_of(uri)
    if path is None or (path.is_file() and path.stat().st_size):
        return
    for leftover in path.parent.glob(f".*{UNFINISHED}.{glob.escape(path.name)}*"):
        leftover.unlink(missing_ok=True)
    with replace_whole(path) as unfinished:
        mlflow.MlflowClient(f"{scheme}:///{unfinished}{mark}{query}").search_experiments(max_results=1)


def _path_of(uri: str) -> Path | None:
    """Return the file of an SQLite store, unless it is in memory or given as SQLite's own URI."""
    name = uri.partition(":///")[2].partition("?")[0]
    return None if not name or name.startswith((":", "file:")) else Path(name)


def nearest_folder(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def may(path: Path, mode: int) -> bool:
    """Return whether this process may read or write a file or folder; `mode` is as for `os.access`."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def fault_of_server(uri: str, address: str, has_experiments: bool) -> str:
    """Return why the server at an HTTP address cannot be used, in one line, or an empty text.

    Some programs answer every request with 200; what MLflow's client makes of that is a server without experiments.
    """
    answer = http_request(get_default_host_creds(uri), "/version", "GET")
    version = answer.text.strip() if answer.ok else ""
    if not has_experiments and not version[:1].isdecimal():
        return remedies.other_server(address)
    return remedies.other_version(version, address)
