"""The connection to a Ray cluster: how it is found, what it has to be asked with, and what travels to its nodes."""

from __future__ import annotations

import logging
import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsat import interrupts
from fsat.errors import ConfigError
from fsat.options import Cluster
from fsat.progress import say
from fsat.tracking import client

if TYPE_CHECKING:
    from types import ModuleType

REACH_SECONDS = 10.0
"""How long a cluster may take to answer."""

STAYS_HERE = ("FSAT_CACHE_DIR", "FSAT_DATA_DIR", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI")
"""Variables that mean something else on another node, or travel in another way."""


def check_installed(cluster: Cluster) -> None:
    """Raise `ConfigError` if Ray is asked for and not installed."""
    if cluster.kind == "ray":
        _import_ray()


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or token.is_file():  # a head that was started here asks for it
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError(
            "cluster=ray: Ray is not installed here; install it with `pip install '.[ray]'` in the clone"
        ) from error
    return ray


@contextmanager
def connected(cluster: Cluster) -> Iterator[ModuleType]:
    """Ray, connected to the cluster. It prints its news to standard output, which is for results: they go elsewhere."""
    ray = _import_ray()
    with redirect_stdout(sys.stderr):
        yield from _connect(ray, cluster)


def _connect(ray: ModuleType, cluster: Cluster) -> Iterator[ModuleType]:
    options = {"runtime_env": _travels(), "logging_level": logging.ERROR, "log_to_driver": False, "namespace": "fsat"}
    address = cluster.address
    try:
        if address == "auto":
            address = _own_address() or "local"
        if address == "local":
            say("cluster=ray: this machine belongs to no Ray cluster; one is started here for this command")
            ray.init(address="local", include_dashboard=False, **options)
        else:
            if address != "auto":
                _reach(address)
            ray.init(address=address, **options)
    except (OSError, OverflowError, RuntimeError, ValueError, SystemExit, ray.exceptions.RayError) as error:
        if "AuthenticationError" in "".join(traceback.format_exception(error)):
            raise ConfigError(
                f"ray_address={cluster.address}: the Ray cluster at {address} asks for a token that is not here; copy "
                "~/.ray/auth_token from its head to this machine, or set RAY_AUTH_TOKEN"
            ) from error
        what = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"ray_address={cluster.address}: no Ray cluster can be reached at {address} ({what}); start one with `ray "
            "start --head`, and give its HOST:PORT"
        ) from error
    try:
        interrupts.reinstall()  # Ray has put its own handlers in their place
        nodes = [node for node in ray.nodes() if node["Alive"]]
        addresses = {node["NodeManagerAddress"] for node in nodes}
        if len(addresses) > 1 and not client.is_remote():
            raise ConfigError(
                f"cluster=ray: its {len(addresses)} machines cannot share {client.address()}; start a tracking "
                "server and set MLFLOW_TRACKING_URI to it"
            )
        resources = ray.cluster_resources()
        say(f"cluster=ray: {len(nodes)} node{'s' if len(nodes) > 1 else ''} with {resources.get('CPU', 0):g} processors"
            f" and {resources.get('GPU', 0):g} GPUs")  # fmt: skip
        yield ray
    finally:
        with interrupts.deferred():
            ray.shutdown()


def _own_address() -> str | None:
    """Of the Ray cluster that this machine belongs to, as Ray itself finds it; None if there is none that answers.

    What Ray has noted of a cluster outlives it where it was killed.
    """
    try:
        from ray._private.services import canonicalize_bootstrap_address
    except ImportError:  # another Ray, which may take long to find out
        return "auto"
    try:
        found = canonicalize_bootstrap_address("auto")
    except ConnectionError:
        return None
    if not os.environ.get("RAY_ADDRESS"):
        try:
            _reach(found)
        except OSError:
            return None
    return found


def _reach(address: str) -> None:
    """Raise `OSError` if nothing answers at ``HOST:PORT``: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()


def _travels() -> dict[str, Any]:
    """What a task finds on its node: this package, and the settings in the environment."""
    import fsat

    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("MLFLOW_", "FSAT_", "AWS_", "TF_", "KERAS_")) and name not in STAYS_HERE
    }
    kept["MLFLOW_TRACKING_URI"] = client.absolute_uri()
    return {"py_modules": [str(Path(fsat.__file__).parent)], "env_vars": kept}
