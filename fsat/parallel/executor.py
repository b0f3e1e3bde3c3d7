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

POLL_SECONDS = 0.5
STOP_SECONDS = 60.0
"""Time that interrupted tasks have to close their runs."""


class Threads:
    """Threads of this process.

    Args:
        n_workers: number of threads.
        ahead: maximum number of results that are computed before they are taken.
    """

    def __init__(self, n_workers: int, ahead: int) -> None:
        self._n_workers, self._ahead = n_workers, ahead

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
        """Yield ``function(item)`` for each item; `function` should release the GIL, as NumPy and libsndfile do."""
        items, pending = iter(items), deque[Future]()
        pool = ThreadPoolExecutor(self._n_workers)
        try:
            while True:
                pending.extend(pool.submit(function, item) for item in islice(items, self._ahead - len(pending)))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass
class Task:
    """An item that was submitted, and its error once it has failed."""

    item: Any
    future: Future
    error: str = ""


class Executor(ABC):
    """Base of executors whose tasks run in other processes; functions and items must be picklable."""

    @abstractmethod
    def _open(self, function: Callable) -> AbstractContextManager[Callable[[Any], Future]]:
        """Start the workers, yield a function that submits an item, and stop what still runs at the end."""

    @abstractmethod
    def _n_running(self, items: Iterable) -> int:
        """Return the maximum number of unfinished tasks."""

    @abstractmethod
    def _error(self, future: Future) -> str:
        """Return the error of a finished task in one line, empty if there is none."""

    @abstractmethod
    def _poll(self) -> None:
        """Do what is due every `POLL_SECONDS`."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], name: str = "item") -> Generator[Result]:
        """Yield ``function(item)`` for each item.

        After an error no more tasks start, those that run finish, and the error is raised. A signal stops them all.

        Args:
            function: runs in another process.
            items: a sequence, or an iterator that is read as results are taken.
            name: noun for an item, in errors.

        Raises:
            RunError: a task failed, or its process died.
        """
        source, tasks = iter(items), deque[Task]()
        with self._open(function) as submit:
            n_running = self._n_running(items)
            n_pending = len(items) if isinstance(items, Sequence) else n_running
            while True:
                n_failed = self._note_errors(tasks, name)
                if not n_failed:
                    room = min(n_running - len(_unfinished(tasks)), n_pending - len(tasks))
                    tasks.extend(Task(item, submit(item)) for item in islice(source, max(0, room)))
                if not tasks:
                    return
                unfinished = _unfinished(tasks)
                if tasks[0].future.done() and not tasks[0].error:
                    yield tasks.popleft().future.result()[0]
                elif not unfinished:
                    raise _failure(tasks, name)
                else:
                    wait(unfinished, POLL_SECONDS, FIRST_COMPLETED)
                    interrupts.check()
                    self._poll()

    def _note_errors(self, tasks: Iterable[Task], name: str) -> int:
        """Set the error of each failed task, report it, and return the number of failed tasks."""
        for task in tasks:
            if task.future.done() and not task.error and (error := self._error(task.future)):
                task.error = error
                if _unfinished(tasks):
                    say(f"{name} {task.item}: {error}; waiting for those that run")
        return sum(bool(task.error) for task in tasks)


def _unfinished(tasks: Iterable[Task]) -> list[Future]:
    return [task.future for task in tasks if not task.future.done()]


def _failure(tasks: Iterable[Task], name: str) -> RunError:
    first, *rest = [task for task in tasks if task.error]
    return RunError(f"{name} {first.item}: {first.error}" + (f" ({len(rest)} more failed)" if rest else ""))


def attempt(function: Callable[[Item], Result], item: Item) -> Outcome:
    """Run a task in its worker and return its result, or its error in one line."""
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
