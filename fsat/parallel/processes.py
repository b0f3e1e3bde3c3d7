"""Processes of this machine, each on its share of the cores.

Each process has a thread and a pipe of its own, so that its death fails its own task alone and is reported with its
exit code, which `concurrent.futures.ProcessPoolExecutor` cannot tell.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from multiprocessing.connection import Connection
from queue import LifoQueue
from threading import Lock
from typing import Any

from fsat import interrupts, progress
from fsat.parallel.executor import STOP_SECONDS, Executor, Outcome, Submit, attempt

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
