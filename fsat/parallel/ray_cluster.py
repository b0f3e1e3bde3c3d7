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
from fsat.errors import ConfigError, count
from fsat.options import Cluster
from fsat.parallel.executor import STOP_SECONDS, Executor, Outcome, attempt, in_one_line
from fsat.progress import say

if TYPE_CHECKING:
    from types import ModuleType

RETRIES = 5
"""How often Ray starts a task again after its node or process was lost."""

TASKS_PER_CPU = 2
"""Tasks of an iterator that are submitted for each processor."""

REACH_SECONDS = 10.0
"""Time that a cluster has to answer."""

NOT_SENT = ("FSAT_CACHE_DIR", "FSAT_DATA_DIR", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI")
"""Environment variables that differ between nodes, or are set for each task."""


class RayCluster(Executor):
    """A Ray cluster.

    Args:
        cluster: its address, and what each task needs.
        n_threads: processors that a task uses, for ``cpus=auto``.
        tracking_uri: the tracking server, as tasks find it.
        is_remote: other machines can reach the tracking server.
    """

    def __init__(self, cluster: Cluster, n_threads: int, tracking_uri: str, is_remote: bool) -> None:
        self._cluster, self._n_threads = cluster, n_threads
        self._tracking_uri, self._is_remote = tracking_uri, is_remote

    def _n_running(self, items: Iterable) -> int:
        if isinstance(items, Sequence):
            return len(items)
        return TASKS_PER_CPU * max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    @contextmanager
    def _open(self, function: Callable) -> Iterator[Callable[[Any], Future]]:
        refs: dict[Future, Any] = {}
        with connected(self._cluster, self._tracking_uri, self._is_remote) as self._ray:
            remote, self._messages = self._remote(), _Messages(self._ray)

            def submit(item: Any) -> Future:
                for future in [future for future in refs if future.done()]:
                    del refs[future]
                ref = remote.remote(function, item, self._messages.actor)
                refs[future := ref.future()] = ref
                return future

            try:
                yield submit
            finally:
                with interrupts.deferred():
                    self._stop([ref for future, ref in refs.items() if not future.done()])

    def _remote(self) -> Any:
        """Return Ray's handle of `_run_on_node`, with the resources that each task needs."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU")}
        cpus, gpus = self._cluster.cpus, self._cluster.gpus
        n_cpus = min(self._n_threads, most["CPU"]) or 1 if cpus == "auto" else float(cpus)
        n_gpus = min(1, most["GPU"]) if gpus == "auto" else float(gpus)
        for name, needed in (("CPU", n_cpus), ("GPU", n_gpus)):
            if needed > most[name]:
                say(
                    f"warning: no node has {needed:g} {name}s; the most is {most[name]:g}: tasks wait for a larger node"
                )
        return self._ray.remote(num_cpus=n_cpus, num_gpus=n_gpus, max_retries=RETRIES)(_run_on_node)

    def _error(self, future: Future) -> str:
        try:
            return future.result()[1]
        except self._ray.exceptions.RayTaskError as error:
            return in_one_line(error.cause or error)
        except self._ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:200]
            return f"its node or process was lost {RETRIES + 1} times ({reason}); give the command again"

    def _poll(self) -> None:
        self._messages.say()

    def _stop(self, refs: list[Any]) -> None:
        """Interrupt tasks, wait until they have closed their runs, and print their last messages."""
        for ref in refs:
            self._ray.cancel(ref)
        if refs:
            self._ray.wait(refs, num_returns=len(refs), timeout=STOP_SECONDS)
        self._messages.say()


def _run_on_node(function: Callable, item: Any, messages: Any) -> Outcome:
    """Run a task on its node; its messages and its error begin with the node's name."""
    interrupts.install()
    host = platform.node()
    progress.output.plain = True
    progress.output.send = lambda line: messages.put_nowait.remote(f"{host}: {line}")
    result, error = attempt(function, item)
    return result, error and f"on {host}: {error}"


class _Messages:
    """Messages of the tasks, collected by an actor on this node."""

    def __init__(self, ray: ModuleType) -> None:
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._lost = ray.exceptions.RayError
        self.actor = self._queue.actor

    def say(self) -> None:
        """Print the messages received since the last call."""
        with suppress(self._lost):
            for line in self._queue.get_nowait_batch(self._queue.qsize()):
                say(line)


def check_installed(cluster: Cluster) -> None:
    """Raise `ConfigError` if Ray is needed and not installed."""
    if cluster.kind == "ray":
        _import_ray()


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or token.is_file():  # a head that was started here requires it
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("cluster=ray: Ray is not installed; run `pip install '.[ray]'` in the clone") from error
    return ray


@contextmanager
def connected(cluster: Cluster, tracking_uri: str, is_remote: bool) -> Iterator[ModuleType]:
    """Connect to a Ray cluster, and disconnect at the end; arguments as for `RayCluster`.

    Ray prints to standard output, which is for results, so that is sent to standard error.

    Raises:
        ConfigError: the cluster cannot be reached, refuses the token, or its machines cannot reach the tracking server.
    """
    ray = _import_ray()
    with redirect_stdout(sys.stderr):
        _connect(ray, cluster, tracking_uri)
        try:
            interrupts.reinstall()  # Ray has replaced the signal handlers
            nodes = [node for node in ray.nodes() if node["Alive"]]
            n_machines = len({node["NodeManagerAddress"] for node in nodes})
            if n_machines > 1 and not is_remote:
                raise ConfigError(
                    f"cluster=ray: its {n_machines} machines cannot share {tracking_uri}; start a tracking server and "
                    "set MLFLOW_TRACKING_URI to it"
                )
            resources = ray.cluster_resources()
            cpus, gpus = (f"{resources.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
            say(f"cluster=ray: {count(len(nodes), 'node')} with {cpus} and {gpus}")
            yield ray
        finally:
            with interrupts.deferred():
                ray.shutdown()


def _connect(ray: ModuleType, cluster: Cluster, tracking_uri: str) -> None:
    address = cluster.address
    try:
        if address == "auto":
            address = _own_address() or "local"
        if address == "local":
            say("cluster=ray: this machine belongs to no Ray cluster; starting one here for this command")
        else:
            _reach(address)
        options = {"include_dashboard": False} if address == "local" else {}
        ray.init(
            address=address,
            runtime_env=_environment(tracking_uri),
            logging_level=logging.ERROR,
            log_to_driver=False,
            namespace="fsat",
            **options,
        )
    except (OSError, OverflowError, RuntimeError, ValueError, SystemExit, ray.exceptions.RayError) as error:
        if "AuthenticationError" in "".join(traceback.format_exception(error)):
            raise ConfigError(
                f"ray_address={cluster.address}: the Ray cluster at {address} expects another token; copy "
                "~/.ray/auth_token from its head to this machine, or set RAY_AUTH_TOKEN"
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"ray_address={cluster.address}: cannot reach a Ray cluster at {address} ({reason}); start one with `ray "
            "start --head`, and give its HOST:PORT"
        ) from error


def _own_address() -> str | None:
    """Return the address of the Ray cluster that this machine belongs to, None if none answers.

    Ray has no public function for this. Its record of a cluster may outlive the cluster.
    """
    from ray._private.services import canonicalize_bootstrap_address

    try:
        address = canonicalize_bootstrap_address("auto")
    except ConnectionError:
        return None
    if not os.environ.get("RAY_ADDRESS"):
        try:
            _reach(address)
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

    variables = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("MLFLOW_", "FSAT_", "AWS_", "TF_", "KERAS_")) and name not in NOT_SENT
    }
    variables["MLFLOW_TRACKING_URI"] = tracking_uri
    return {"py_modules": [str(Path(fsat.__file__).parent)], "env_vars": variables}
