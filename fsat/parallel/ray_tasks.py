"""Work spread over a Ray cluster: folds, and parts of long tables, each a task that Ray places.

Code, settings and the address of the tracking server travel with the task; the dataset must be found under the same
path on every node. What a node decodes stays in its own cache. A task whose node is lost is started again on another
one, where a fold goes on from the last checkpoint that can be had there.
"""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from fsat import interrupts, progress
from fsat.errors import FsatError, RunError
from fsat.models import n_threads
from fsat.options import Cluster
from fsat.parallel.ray_connection import connected
from fsat.progress import say

if TYPE_CHECKING:
    from types import ModuleType

Item, Result = TypeVar("Item"), TypeVar("Result")

RETRIES = 5
"""How often a task is started again after its node or its process was lost."""

STOP_SECONDS = 60.0
"""How long tasks that are told to stop may take to close their runs."""


def folds_on(cluster: Cluster, train: Callable[[int], str], folds: Sequence[int]) -> dict[int, str]:
    """Train folds on a cluster, each in a task of its own.

    An error in one fold lets the others finish, and then is raised. A signal stops them all.

    Args:
        cluster: where.
        train: trains a fold in a run of its own and returns the run's id; must be picklable.
        folds: numbers of the folds.

    Returns:
        the run's id by fold.

    Raises:
        RunError: a fold failed, or was lost too often.
        ConfigError: the cluster cannot be used.
    """
    with connected(cluster) as ray:
        remote, news = _task(ray, cluster), News(ray)
        fold_of = {remote.remote(train, fold, news.actor): fold for fold in folds}
        run_ids, errors, waiting = {}, [], set(fold_of)
        try:
            while waiting:
                ready, _ = ray.wait(list(waiting), num_returns=1, timeout=1.0)
                interrupts.check()
                news.say()
                for ref in ready:
                    waiting.discard(ref)
                    fold = fold_of[ref]
                    try:
                        run_ids[fold] = _answer(ray, ref)
                    except FsatError as error:
                        errors.append(f"fold {fold}: {error}")
                        say(errors[-1])
        finally:
            with interrupts.deferred():
                _stop(ray, waiting)
                news.say()
    if errors:
        more = f" ({len(errors) - 1} more failed)" if len(errors) > 1 else ""
        raise RunError(errors[0] + more)
    return run_ids


def map_on(cluster: Cluster, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``map(function, items)`` on a cluster, in order, with no more tasks at once than it has processors for, twice.

    Args:
        cluster: where; of kind ``none``, it is `map` itself.
        function: must be picklable.
        items: taken as they are needed.

    Raises:
        FsatError: as `function` raises it on a node.
        RunError: a task was lost too often.
    """
    if cluster.kind == "none":
        yield from map(function, items)
        return
    with connected(cluster) as ray:
        remote, waiting, items = _task(ray, cluster), deque(), iter(items)
        ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        try:
            while True:
                with suppress(StopIteration):
                    while len(waiting) < ahead:
                        waiting.append(remote.remote(function, next(items)))
                if not waiting:
                    return
                ref = waiting[0]
                while not ray.wait([ref], timeout=1.0)[0]:
                    interrupts.check()
                yield _answer(ray, waiting.popleft())
        finally:
            with interrupts.deferred():
                _stop(ray, waiting)


def _task(ray: ModuleType, cluster: Cluster) -> Any:
    """A remote function that calls the function it is given, with what the cluster's tasks need."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU")}
    cpus = min(n_threads(), most["CPU"]) or 1 if cluster.cpus == "auto" else float(cluster.cpus)
    gpus = min(1, most["GPU"]) if cluster.gpus == "auto" else float(cluster.gpus)
    for name, need in (("CPU", cpus), ("GPU", gpus)):
        if need > most[name]:
            say(f"warning: no node has {need:g} {name}s now, the most is {most[name]:g}: tasks wait until one has")
    return ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_on_node)


def _on_node(function: Callable[[Item], Result], item: Item, news: Any = None) -> tuple[Result | None, str]:
    """What a task does: the result, or the error in a line; `news` takes what it has to say."""
    interrupts.install()
    host = platform.node()
    progress.output.plain = True
    progress.output.send = lambda line: news and news.put_nowait.remote(f"{host}: {line}")
    try:
        return function(item), ""
    except FsatError as error:
        return None, f"on {host}: {error}"


class News:
    """What the tasks have to say, in one place.

    Args:
        ray: connected.
    """

    def __init__(self, ray: ModuleType) -> None:
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._lost = ray.exceptions.RayError
        self.actor = self._queue.actor

    def say(self) -> None:
        """Print what has come."""
        with suppress(self._lost):
            for line in self._queue.get_nowait_batch(self._queue.qsize()):
                say(line)


def _answer(ray: ModuleType, ref: Any) -> Any:
    """The result of a task that is done; its error as one of fsat's."""
    try:
        result, error = ray.get(ref)
    except ray.exceptions.RayTaskError as failed:
        cause = " ".join(str(failed.cause or failed).split())[:300]
        raise RunError(f"{type(failed.cause or failed).__name__}: {cause}") from failed
    except ray.exceptions.RayError as lost:
        what = " ".join(str(lost).split())[:200]
        raise RunError(f"its node or process was lost {RETRIES + 1} times ({what}); ask for it again") from lost
    if error:
        raise RunError(error)
    return result


def _stop(ray: ModuleType, refs: Iterable[Any]) -> None:
    """Tell tasks to stop, and give them time to close their runs."""
    refs = list(refs)
    for ref in refs:
        ray.cancel(ref)
    if refs:
        ray.wait(refs, num_returns=len(refs), timeout=STOP_SECONDS)
