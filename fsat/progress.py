"""Progress of long work on standard error: a bar on a terminal, one plain line every few seconds elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Task

PLAIN_LINE_SECONDS = 10.0
RATE_SECONDS = 600.0
"""Period that the rate is averaged over."""


@dataclass
class Output:
    """Destination of this process's messages: no bars if `plain`; `send` replaces standard error."""

    plain: bool = False
    send: Callable[[str], None] | None = None


output = Output()


def say(message: str) -> None:
    """Print one line to standard error; the work continues if nobody reads it any more."""
    if output.send is not None:
        output.send(message)
        return
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (for the rest of the process)


_said: set[str] = set()


def say_once(message: str) -> None:
    """Print one line to standard error, unless this process has printed it before."""
    if message not in _said:
        _said.add(message)
        say(message)


class Progress:
    """Number of finished pieces of work, `done` of `total` before, with their rate and the time left.

    >>> with Progress("decoding", total=3) as progress:
    ...     for _ in range(3):
    ...         progress.advance()
    """

    def __init__(self, description: str, total: int, done: int = 0) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.text import Text

        class Pace(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(_pace(task))

        self._plain = output.plain or not sys.stderr.isatty()
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Pace()
        console = Console(stderr=True)
        self._bar = Bar(*columns, console=console, disable=self._plain, speed_estimate_period=RATE_SECONDS)
        self._id = self._bar.add_task(description, total=total, completed=done, note="")
        self._task = self._bar.tasks[0]
        self._bar.advance(self._id, 0)  # the rate counts from here
        self._printed = time.monotonic()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    @property
    def done(self) -> int:
        """Number of finished pieces."""
        return int(self._task.completed)

    def advance(self, count: int = 1) -> None:
        """Add `count` finished pieces."""
        self._bar.advance(self._id, count)
        self._print()

    def expect(self, total: int, done: int) -> None:
        """Change the total and the number of finished pieces; the rate counts from here."""
        self._bar.reset(self._id, total=total, completed=done)
        self._bar.advance(self._id, 0)

    def note(self, text: str) -> None:
        """Set a note on the piece in work, shown after the rate."""
        self._bar.update(self._id, note=text)
        self._print()

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if self._plain:
            self._printed = time.monotonic()
            say(message)
        else:
            self._bar.console.print(message, highlight=False, markup=False)

    def _print(self) -> None:
        if self._plain and time.monotonic() - self._printed > PLAIN_LINE_SECONDS:
            self.say(f"{self._task.description}: {self.done} of {self._task.total}{_pace(self._task)}")


def _pace(task: Task) -> str:
    """Return rate, time left and note of a task: ``, 52.7/s, 0:12:40 left``."""
    rate = task.finished_speed or task.speed
    remaining = task.remaining or 0
    pace = f", {rate:.3g}/s, {timedelta(seconds=round(remaining / rate))} left" if rate else ""
    return pace + (f", {task.fields['note']}" if task.fields["note"] else "")
