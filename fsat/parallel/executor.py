"""Ordered parallel `map`: by threads, by processes of this machine, and the base of `fsat.parallel.ray_cluster`.

Conventions: ``map(function, items)`` yields results in the order of the items, whatever the number of workers. Items of
an iterator are taken only a bounded number ahead of the results; those of a sequence may all be submitted at once.

Each process works on its share of the cores. It has a thread and a pipe of its own, so that its death fails its own
task alone and is reported with its exit code, which `concurrent.futures.ProcessPoolExecutor` cannot tell.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from multiprocessing.connection import Connection
from queue import LifoQueue
from threading import Lock
from typing import Any, TypeVar

from fsat import interrupts, progress
from fsat.errors import FsatError, RunError
from fsat.progress import say

Item = TypeVar("Item")
Result = TypeVar("Result")

Outcome = tuple[Any, str]
"""Result of a task and its error in one line, empty if there was none."""

Submit = Callable[[Any], Future]

POLL_SECONDS = 0.5
STOP_SECONDS = 60.0
"""Time that interrupted tasks have to close their runs."""


class Threads:
    """Threads of this process; at most `ahead` results are computed before they are taken."""

    def __init__(self, n_workers: int, ahead: int) -> None:
        self._n_workers, self._ahead = n_workers, ahead

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
        """Yield ``function(item)`` for each item; `function` should release the GIL, as NumPy and libsndfile do."""
        pool = ThreadPoolExecutor(self._n_workers)
        try:
            futures = (pool.submit(function, item) for item in items)
            pending = deque(islice(futures, self._ahead))
            while pending:
                yield pending.popleft().result()
                pending.extend(islice(futures, 1))
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass
class Task:
    """An item that was submitted; its outcome follows."""

    item: Any
    future: Future
    is_done: bool = False
    result: Any = None
    error: str = ""


class Executor(ABC):
    """Base of executors whose tasks run in other processes; functions and items must be picklable."""

    @abstractmethod
    def _open(self, function: Callable, items: Iterable) -> AbstractContextManager[tuple[Submit, int]]:
        """Yield a function that submits an item and the maximum number of unfinished tasks; stop them at the end."""

    def _outcome(self, future: Future) -> Outcome:
        """Return the outcome of a finished task."""
        return future.result()

    def _wait(self, futures: Iterable[Future]) -> None:
        """Wait for one of the futures, for at most `POLL_SECONDS`."""
        wait(futures, POLL_SECONDS, FIRST_COMPLETED)
        interrupts.check()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], name: str = "item") -> Generator[Result]:
        """Yield ``function(item)`` for each item; `name` is a noun for an item, in errors.

        After an error no more tasks start, those that run finish, and the error is raised. A signal stops them all.

        Raises `RunError` if a task failed, or its process died.
        """
        source, tasks = iter(items), deque[Task]()
        with self._open(function, items) as (submit, n_running):
            n_pending = len(items) if isinstance(items, Sequence) else n_running
            while True:
                n_unfinished = self._collect(tasks, name)
                failed = [task for task in tasks if task.error]
                room = 0 if failed else max(0, min(n_running - n_unfinished, n_pending - len(tasks)))
                tasks.extend(Task(item, submit(item)) for item in islice(source, room))
                if not tasks:
                    return
                if tasks[0].is_done and not tasks[0].error:
                    yield tasks.popleft().result
                elif failed and not n_unfinished:
                    others = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
                    raise RunError(f"{name} {failed[0].item}: {failed[0].error}{others}")
                else:
                    self._wait([task.future for task in tasks if not task.is_done])

    def _collect(self, tasks: Iterable[Task], name: str) -> int:
        """Set the outcomes of finished tasks, report errors, and return the number of unfinished tasks."""
        n_unfinished = sum(not task.future.done() for task in tasks)
        for task in tasks:
            if not task.is_done and task.future.done():
                task.is_done, (task.result, task.error) = True, self._outcome(task.future)
                if task.error and n_unfinished:
                    say(f"{name} {task.item}: {task.error}; waiting for those that run")
        return n_unfinished


def attempt(function: Callable[[Item], Result], item: Item) -> Outcome:
    """Run a task in its worker."""
    try:
        return function(item), ""
    except Exception as error:
        if os.environ.get("FSAT_DEBUG"):
            traceback.print_exc()
        interrupts.check()
        return None, in_one_line(error)


def in_one_line(error: BaseException) -> str:
    """Return an error in one line, with its type unless it is one of fsat's."""
    text = str(error) if isinstance(error, FsatError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


TASKS_PER_WORKER = 2
"""Tasks of an iterator that each worker has, so that none waits for the next."""


def cores() -> list[int]:
    """Return the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def n_workers(requested: str, n_threads: int) -> int:
    """Return a number of processes: `requested`, or for ``auto`` one for every `n_threads` cores."""
    return max(1, len(cores()) // n_threads) if requested == "auto" else int(requested)


class Processes(Executor):
    """At least one process of this machine; if one dies, its error ends with `advice`."""

    def __init__(self, n_workers: int, advice: str) -> None:
        self._n_workers, self._advice = n_workers, advice

    @contextmanager
    def _open(self, function: Callable, items: Iterable) -> Iterator[tuple[Submit, int]]:
        n, idle = self._n_workers, LifoQueue[_Worker]()
        workers = [_Worker(share) for share in _shares(cores(), n)]
        for worker in reversed(workers):
            idle.put(worker)
        pool = ThreadPoolExecutor(n)
        try:
            n_running = n if isinstance(items, Sequence) else n * TASKS_PER_WORKER
            yield lambda item: pool.submit(self._run, idle, function, item), n_running
        finally:
            with interrupts.deferred():
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in workers:
                    worker.stop()
                for worker in workers:
                    worker.join()

    def _run(self, idle: LifoQueue[_Worker], function: Callable, item: Any) -> Outcome:
        """Run a task in an idle process."""
        worker = idle.get()
        try:
            return worker.run(function, item)
        except (EOFError, ConnectionError):
            return None, f"its process {worker.exit_status()}; {self._advice}"
        finally:
            idle.put(worker)


class _Worker:
    """A process that starts with its first task and runs one at a time."""

    def __init__(self, share: list[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, self._end = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._end, share))
        self._lock, self._busy, self._stopped = Lock(), False, False

    def run(self, function: Callable, item: Any) -> Outcome:
        """Run a task and return its outcome; raise `EOFError` or `ConnectionError` if the process has ended."""
        with self._lock:
            if self._stopped:
                raise EOFError
            if self._process.pid is None:
                self._process.start()
                self._end.close()  # so that the end of the process ends the pipe
            self._busy = True
        self._pipe.send((function, item))
        outcome = self._pipe.recv()
        self._busy = False
        return outcome

    def exit_status(self) -> str:
        """Return how the process ended, in words."""
        self._process.join()
        code = self._process.exitcode or 0
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def stop(self) -> None:
        """Take no more tasks, and interrupt the one that runs."""
        with self._lock, suppress(ConnectionError):
            self._stopped = True
            if self._busy:
                self._process.terminate()
            elif self._process.pid is not None:
                self._pipe.send(None)

    def join(self) -> None:
        """Wait for the process to end, and kill it after `STOP_SECONDS`."""
        if self._process.pid is not None:
            self._process.join(STOP_SECONDS)
            self._process.kill()
            self._process.join()


def _shares(available: list[int], count: int) -> list[list[int]]:
    """Return the cores of each of `count` processes."""
    ends = [i * len(available) // count for i in range(count + 1)]
    return [available[start:end] or [available[i % len(available)]] for i, (start, end) in enumerate(pairwise(ends))]


def _serve(tasks: Connection, share: list[int]) -> None:
    """Run tasks in a new process until None comes; a signal interrupts the one that runs, and the process ends."""
    _end_on_signals()
    interrupts.follow_parent()
    progress.output.plain = True
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share)
    with suppress(EOFError, ConnectionError):  # the parent has ended
        for function, item in iter(tasks.recv, None):
            try:
                interrupts.install()
                outcome = attempt(function, item)
            except KeyboardInterrupt:
                os._exit(128 + (interrupts.received() or signal.SIGINT))
            finally:
                _end_on_signals()
            tasks.send(outcome)


def _end_on_signals() -> None:
    """Let signals end the process between two tasks, except SIGINT, on which the parent decides."""
    for signum in interrupts.SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
