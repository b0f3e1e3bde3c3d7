"""Processes of this machine, each on its share of the cores.

Every worker is a pool of one process, so that the death of a process fails its own task alone and is reported with its
exit code.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from fsat import interrupts, progress
from fsat.parallel.executor import STOP_SECONDS, Executor, Outcome, attempt

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
    """Processes of this machine.

    Args:
        n_workers: number of processes, at least 1; they start as tasks need them.
        advice: what to do if a process dies, for the error.
    """

    def __init__(self, n_workers: int, advice: str) -> None:
        self._n_workers, self._advice = n_workers, advice
        self._workers: list[_Worker] = []

    def _n_running(self, items: Iterable) -> int:
        return self._n_workers * (1 if isinstance(items, Sequence) else TASKS_PER_WORKER)

    @contextmanager
    def _open(self, function: Callable) -> Iterator[Callable[[Any], Future]]:
        available = cores()
        self._workers = [_Worker(_share(available, i, self._n_workers)) for i in range(self._n_workers)]
        try:
            yield lambda item: min(self._workers, key=_Worker.load).submit(function, item)
        finally:
            with interrupts.deferred():
                for worker in self._workers:
                    worker.stop()
                for worker in self._workers:
                    worker.join()

    def _poll(self) -> None:
        """Do nothing: the processes print to the same standard error."""

    def _error(self, future: Future) -> str:
        try:
            return future.result()[1]
        except BrokenProcessPool:
            worker = next(worker for worker in self._workers if future in worker.futures)
            return f"its process {worker.exit_status()}; {self._advice}"


class _Worker:
    """One process, started by its first task, and the futures of its tasks."""

    def __init__(self, share: list[int]) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (share,))
        self._process: multiprocessing.process.BaseProcess | None = None
        self.futures: list[Future] = []

    def load(self) -> int:
        """Return the number of unfinished tasks."""
        return sum(not future.done() for future in self.futures)

    def submit(self, function: Callable, item: Any) -> Future:
        """Queue a task."""
        before = set(multiprocessing.active_children())
        try:
            future = self._pool.submit(_run, function, item)
        except BrokenProcessPool as error:  # the process died just now
            future = Future()
            future.set_exception(error)
        if self._process is None:
            (self._process,) = set(multiprocessing.active_children()) - before
        self.futures = [*(earlier for earlier in self.futures if not earlier.done() or earlier.exception()), future]
        return future

    def exit_status(self) -> str:
        """Return how the process of a broken pool ended, in words."""
        self._pool.shutdown()
        code = self._process.exitcode if self._process else None
        return f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"

    def stop(self) -> None:
        """Take no more tasks, and interrupt the one that runs."""
        busy = self.load() > 0
        self._pool.shutdown(wait=False, cancel_futures=True)
        if busy and self._process is not None:
            self._process.terminate()

    def join(self) -> None:
        """Wait for the process to end, and kill it after `STOP_SECONDS`."""
        if self._process is not None:
            self._process.join(STOP_SECONDS)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()


def _share(available: list[int], i: int, count: int) -> list[int]:
    """Return the cores of the i-th of `count` processes."""
    return available[i * len(available) // count : (i + 1) * len(available) // count] or [available[i % len(available)]]


def _begin(share: list[int]) -> None:
    """Prepare a new process."""
    _end_on_signals()
    interrupts.follow_parent()
    progress.output.plain = True
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share)


def _run(function: Callable, item: Any) -> Outcome:
    """Run a task, which a signal interrupts; the process then ends."""
    try:
        interrupts.install()
        return attempt(function, item)
    except KeyboardInterrupt:
        os._exit(128 + (interrupts.received() or signal.SIGINT))
    finally:
        _end_on_signals()


def _end_on_signals() -> None:
    """Let signals end the process between two tasks, except SIGINT, on which the parent decides."""
    for signum in interrupts.SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
