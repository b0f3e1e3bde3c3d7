"""What fsat raises when a person can mend the cause.

Conventions: the message is one line that says what was received, what was expected and what to do next. The
command line prints it without a traceback and exits with a non-zero code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WRONG_LABEL = ("the label '", 'the label "')
"""How the reasons of `fsat.label_names.why_not_a_label` begin that name a label, the
same for all of its clips."""


class FsatError(Exception):
    """An error that a user can mend; ``str(error)`` is one line."""


class ConfigError(FsatError):
    """A setting has a value that is not allowed."""


class AudioError(FsatError):
    """A file cannot be used as a clip; the message is the reason, without the file's name."""


class RunError(FsatError):
    """MLflow runs are missing, unfinished, or do not belong together."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a dataset.

    Attributes:
        file: name of the table.
        row: the line of the table, counted from 1 (the header is line 1); 0 for the table as a whole.
        fname: the clip concerned; empty for the table as a whole.
        reason: what is wrong, in words.
        split: ``train`` or ``test``.
    """

    file: str
    row: int
    fname: str
    reason: str
    split: str = "train"

    def __str__(self) -> str:
        place = f"{self.file}:{self.row}" if self.row else self.file
        return f"{place}: {printable(self.fname)}: {self.reason}" if self.fname else f"{place}: {self.reason}"


class DataError(FsatError):
    """A dataset cannot be used; ``problems`` holds all that is wrong with it."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


def listed(problems: Sequence[Problem]) -> list[str]:
    """Problems in words, a line each; of clips that have the same wrong label, the first one's line stands for all."""
    alike: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        of_a_label = problem.reason.startswith(WRONG_LABEL)
        alike.setdefault((problem.file, problem.reason, None if of_a_label else id(problem)), []).append(problem)
    return [
        f"{first}; {count(len(more), 'more clip')} with it" if more else str(first) for first, *more in alike.values()
    ]


def printable(value: object) -> str:
    """The value as text on one line: line ends and control characters are escaped."""
    text = str(value)
    return text if text.isprintable() else repr(text)[1:-1]


def count(number: int, thing: str) -> str:
    """A number of things in words: ``1 clip``, ``2 clips``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
