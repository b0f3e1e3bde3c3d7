"""A Ray cluster: tasks that Ray places on its nodes.

Code, settings and the address of the tracking server travel with a task; the dataset must have the same path on every
node. Each node decodes clips into its own cache. A task whose node is lost starts again on another one, where a fold
continues from the last checkpoint that is available there.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsat import interrupts, progress
from fsat.errors import ConfigError, count, plural
from fsat.options import Cluster
from fsat.parallel.executor import STOP_SECONDS, Executor, Outcome, Submit, attempt, in_one_line
from fsat.progress import say
from fsat.user_folders import settle_folders

if TYPE_CHECKING:
    from types import ModuleType

RETRIES = 5
"""How often Ray starts a task again after its node or process was lost."""

TASKS_PER_CPU = 2
"""Tasks of an iterator that are submitted for each processor."""

REACH_SECONDS = 10.0
"""Time that a cluster has to answer."""

SENT = ("MLFLOW_", "FSAT_", "AWS_", "TF_", "KERAS_")
NOT_SENT = ("FSAT_CACHE_DIR", "FSAT_DATA_DIR", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI")
"""Beginnings of the environment variables that tasks get, and those that differ between nodes or tasks."""


class RayCluster(Executor):
    """A Ray cluster.

    Args:
        n_threads: processors that a task uses, for ``cpus=auto``.
        tracking_uri: the tracking server, as tasks find it; `is_remote` if other machines can reach it.
    """

    def __init__(self, cluster: Cluster, n_threads: int, tracking_uri: str, is_remote: bool) -> None:
        self._cluster, self._n_threads = cluster, n_threads
        self._tracking_uri, self._is_remote = tracking_uri, is_remote

    @contextmanager
    def _open(self, function: Callable, items: Iterable) -> Iterator[tuple[Submit, int]]:
        refs: dict[Future, Any] = {}
        with connected(self._cluster, self._tracking_uri, self._is_remote) as self._ray:
            ray, remote, self._messages = self._ray, self._remote(), _message_queue(self._ray)

            def submit(item: Any) -> Future:
                for future in [future for future in refs if future.done()]:
                    del refs[future]
                ref = remote.remote(function, item, self._messages.actor)
                refs[future := ref.future()] = ref
                return future

            n_cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
            try:
                yield submit, len(items) if isinstance(items, Sequence) else TASKS_PER_CPU * n_cpus
            finally:
                with interrupts.deferred():
                    if running := [ref for future, ref in refs.items() if not future.done()]:
                        for ref in running:
                            ray.cancel(ref)  # interrupts it
                        ray.wait(running, num_returns=len(running), timeout=STOP_SECONDS)
                    self._say_messages()

    def _remote(self) -> Any:
        """Return Ray's handle of `_run_on_node`, with the resources that each task needs."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU")}
        cpus, gpus = self._cluster.cpus, self._cluster.gpus
        n_cpus = min(self._n_threads, most["CPU"]) or 1 if cpus == "auto" else float(cpus)
        n_gpus = min(1, most["GPU"]) if gpus == "auto" else float(gpus)
        for name, needed in (("CPU", n_cpus), ("GPU", n_gpus)):
            if needed > most[name]:
                node = f"no node has {_count(needed, name)}; the most is {most[name]:g}"
                say(f"warning: {node}: tasks wait for a larger node")
        return self._ray.remote(num_cpus=n_cpus, num_gpus=n_gpus, max_retries=RETRIES)(_run_on_node)

    def _outcome(self, future: Future) -> Outcome:
        try:
            return future.result()
        except self._ray.exceptions.RayTaskError as error:
            return None, in_one_line(error.cause or error)
        except self._ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:200]
            return None, f"its node or process was lost {RETRIES + 1} times ({reason}); give the command again"

    def _wait(self, futures: Iterable[Future]) -> None:
        super()._wait(futures)
        self._say_messages()

    def _say_messages(self) -> None:
        """Print the messages of tasks that were received since the last call."""
        with suppress(self._ray.exceptions.RayError):
            for line in self._messages.get_nowait_batch(self._messages.qsize()):
                say(line)


def _run_on_node(function: Callable, item: Any, messages: Any) -> Outcome:
    """Run a task on its node; its messages and its error begin with the node's name."""
    interrupts.install()
    host = platform.node()
    progress.output.plain = True
    progress.output.send = lambda line: messages.put_nowait.remote(f"{host}: {line}")
    settle_folders()
    result, error = attempt(function, item)
    return result, error and f"on {host}: {error}"


def _count(number: float, name: str) -> str:
    """Return a number of processors, which may be a fraction, in words."""
    return f"{number:g} {name if number == 1 else plural(name)}"


def _message_queue(ray: ModuleType) -> Any:
    """Return a queue for messages of tasks, on this node."""
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def check_installed(cluster: Cluster) -> None:
    """Raise `ConfigError` if Ray is needed and not installed."""
    if cluster.kind == "ray":
        _import_ray()


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or os.path.isfile(token):  # a head that was started here requires it
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("cluster=ray: Ray is not installed; run `pip install '.[ray]'` in the clone") from error
    return ray


@contextmanager
def connected(cluster: Cluster, tracking_uri: str, is_remote: bool) -> Iterator[ModuleType]:
    """Connect to a Ray cluster, and disconnect at the end; arguments as for `RayCluster`.

    Raises:
        ConfigError: the cluster cannot be reached, refuses the token, or its machines cannot reach the tracking server.
    """
    ray = _import_ray()
    with redirect_stdout(sys.stderr):  # standard output is for results
        _connect(ray, cluster, tracking_uri)
        try:
            if interrupts.state.installed:
                interrupts.install()  # Ray has replaced the signal handlers
            nodes = [node for node in ray.nodes() if node["Alive"]]
            n_machines = len({node["NodeManagerAddress"] for node in nodes})
            if n_machines > 1 and not is_remote:
                fault = f"cluster=ray: its {n_machines} machines cannot share {tracking_uri}"
                raise ConfigError(f"{fault}; start a tracking server and set MLFLOW_TRACKING_URI to it")
            resources = ray.cluster_resources()
            cpus, gpus = (_count(resources.get(name, 0), name) for name in ("CPU", "GPU"))
            say(f"cluster=ray: {count(len(nodes), 'node')} with {cpus} and {gpus}")
            yield ray
        finally:
            with interrupts.deferred():
                ray.shutdown()


def _connect(ray: ModuleType, cluster: Cluster, tracking_uri: str) -> None:
    address, option = cluster.address, f"ray_address={cluster.address}"
    try:
        if address == "auto":
            address = _own_address() or "local"
        if address == "local":
            say("cluster=ray: this machine belongs to no Ray cluster; starting one here for this command")
        else:
            _reach(address)
        options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        options |= {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": "fsat"}
        ray.init(address=address, runtime_env=_environment(tracking_uri), **options)
    except (OSError, OverflowError, RuntimeError, ValueError, SystemExit, ray.exceptions.RayError) as error:
        if "AuthenticationError" in "".join(traceback.format_exception(error)):
            advice = "copy ~/.ray/auth_token from its head to this machine, or set RAY_AUTH_TOKEN"
            raise ConfigError(f"{option}: the Ray cluster at {address} expects another token; {advice}") from error
        reason = " ".join(str(error).split())[:200]
        advice = "start one with `ray start --head`, and give its HOST:PORT"
        raise ConfigError(f"{option}: cannot reach a Ray cluster at {address} ({reason}); {advice}") from error


def _own_address() -> str | None:
    """Return the address of this machine's Ray cluster, None if none answers; Ray has no public function for this."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        address = canonicalize_bootstrap_address("auto")
        if not os.environ.get("RAY_ADDRESS"):
            _reach(address)  # the record of a cluster may outlive it
    except OSError:
        return None
    return address


def _reach(address: str) -> None:
    """Raise `OSError` if nothing answers at ``HOST:PORT``; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()


def _environment(tracking_uri: str) -> dict[str, Any]:
    """Return the runtime environment of tasks: this package, and this machine's settings."""
    import fsat

    variables = {name: value for name, value in os.environ.items() if name.startswith(SENT) and name not in NOT_SENT}
    variables["MLFLOW_TRACKING_URI"] = tracking_uri
    return {"py_modules": [str(Path(fsat.__file__).parent)], "env_vars": variables}
