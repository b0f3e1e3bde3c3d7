"""Ordered parallel `map`: by threads, and the base of executors whose tasks run in other processes.

Conventions: ``map(function, items)`` yields results in the order of the items, whatever the number of workers. Items of
an iterator are taken only a bounded number ahead of the results; those of a sequence may all be submitted at once.
"""

from __future__ import annotations

import os
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from fsat import interrupts
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

        Raises:
            RunError: a task failed, or its process died.
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
