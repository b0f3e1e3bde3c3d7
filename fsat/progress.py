"""How far long work has come: a bar on a terminal, plain lines elsewhere. Both go to standard error."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

PLAIN_LINE_SECONDS = 10.0

_plain = False
_listener: Callable[[str], None] | None = None


def use_plain_lines() -> None:
    """No bars from here on, even on a terminal, because other processes write to it as well."""
    global _plain
    _plain = True


def tell(listener: Callable[[str], None]) -> None:
    """Give news to `listener` from here on, for a process whose standard error nobody looks at."""
    global _listener
    _listener = listener
    use_plain_lines()


def say(message: str) -> None:
    """Print one line of news to standard error; where nobody reads it any more, the work goes on without."""
    if _listener is not None:
        _listener(message)
        return
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (for the rest of the process)


class Progress:
    """Counts `total` pieces of work, and says how many are done in a second and how long the others will take.

    >>> with Progress("decoding", total=3) as progress:
    ...     for _ in range(3):
    ...         progress.advance()

    Args:
        description: the work in words.
        total: pieces of it.
        done: those that were done before.
    """

    def __init__(self, description: str, total: int, done: int = 0) -> None:
        self.description, self.total, self.done = description, total, done
        self._bar = None
        self._note = ""
        self._before = done
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Progress:
        if not _plain and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as RichProgress

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[at]}"),
            )
            self._bar = RichProgress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=self.total, completed=self.done, at="")
        return self

    def advance(self, count: int = 1) -> None:
        """Say that `count` more pieces are done."""
        self.done += count
        self._show()

    def expect(self, total: int, done: int) -> None:
        """Say that there are `total` pieces after all, of which `done` are done; the rate counts from here."""
        self.total, self.done, self._before, self._began = total, done, done, time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, total=total, completed=done)

    def note(self, text: str) -> None:
        """Say how far the piece in work has come."""
        self._note = text
        self._show()

    def say(self, message: str) -> None:
        """Print a line of news above the bar."""
        if self._bar is not None:
            self._bar.console.print(message, highlight=False, markup=False)
        else:
            self._last = time.monotonic()
            say(message)

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, at=self._pace())
        elif time.monotonic() - self._last > PLAIN_LINE_SECONDS:
            self._last = time.monotonic()
            say(f"{self.description}: {self.done} of {self.total}{self._pace()}")

    def _pace(self) -> str:
        """Rate, time left and note, as ``, 52.7/s, 0:12:40 left``."""
        rate = (self.done - self._before) / max(1e-9, time.monotonic() - self._began)
        left = f", {rate:.3g}/s, {timedelta(seconds=round((self.total - self.done) / rate))} left" if rate else ""
        return left + (f", {self._note}" if self._note else "")

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
