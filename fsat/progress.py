"""How far long work has come: a bar on a terminal, plain lines elsewhere. Both go to standard error."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
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
    """Counts `total` pieces of work.

    >>> with Progress("decoding", total=3) as progress:
    ...     for _ in range(3):
    ...         progress.advance()
    """

    def __init__(self, description: str, total: int) -> None:
        self.description, self.total, self.done = description, total, 0
        self._bar = None
        self._last = time.monotonic()

    def __enter__(self) -> Progress:
        if not _plain and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = RichProgress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=self.total)
        return self

    def advance(self, count: int = 1) -> None:
        """Say that `count` more pieces are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(self._task, advance=count)
        elif time.monotonic() - self._last > PLAIN_LINE_SECONDS:
            self._last = time.monotonic()
            say(f"{self.description}: {self.done} of {self.total}")

    def say(self, message: str) -> None:
        """Print a line of news above the bar."""
        if self._bar is not None:
            self._bar.console.print(message, highlight=False, markup=False)
        else:
            self._last = time.monotonic()
            say(message)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
