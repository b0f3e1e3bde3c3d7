"""Errors that a user can fix, and the words that messages share.

Conventions: a message is one line that says what was received, what was expected and what to do next. The command line
prints it without a traceback and exits with a non-zero code.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

WRONG_LABEL = ("the label '", 'the label "')
"""Beginnings of the reasons of `fsat.text.why_not_a_label` and of `fsat.data.label_checks.label_faults` that quote a
label, equal for all clips with that label."""


LINK_OUT = "leaves the folder (a link out of it)"
"""Reason of clips that are links to another folder, or below one."""


class FsatError(Exception):
    """An error that a user can fix; ``str(error)`` is one line."""


class ConfigError(FsatError):
    """An option has a value that is not allowed."""


class AudioError(FsatError):
    """A file cannot be used as a clip; the message is the reason, without the file's name."""


class WindowError(FsatError):
    """A backbone has no embedding for a window of the clip with this `index`; -1 until that is known."""

    index: int = -1


class StorageError(FsatError):
    """The machine or its file system failed while a file was read, which says nothing about the file."""


class RunError(FsatError):
    """MLflow runs are missing, unfinished, or do not belong together."""


@dataclass(frozen=True)
class Problem:
    """One fault of a dataset, in a table's line `row`, counted from 1; 0 and no `fname` for the table as a whole.

    A clip that no table names has no `file`, and a number as `row`.
    """

    file: str
    row: int
    fname: str
    reason: str
    split: str = "train"

    def __str__(self) -> str:
        if not self.file:
            return f"{printable(self.fname)}: {self.reason}"
        where = f"{self.file}:{self.row}" if self.row else self.file
        return f"{where}: {printable(self.fname)}: {self.reason}" if self.fname else f"{where}: {self.reason}"


class DataError(FsatError):
    """A dataset cannot be used; ``problems`` lists all of its faults."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


def listed(problems: Sequence[Problem]) -> list[str]:
    """Return one line per problem; clips with the same wrong label share that of the first, and so do links."""
    alike: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        is_of_several = problem.reason.startswith((*WRONG_LABEL, LINK_OUT))
        alike.setdefault((problem.file, problem.reason, None if is_of_several else id(problem)), []).append(problem)
    groups = alike.values()
    return [str(first) + (f"; {count(len(rest), 'more clip')} with it" if rest else "") for first, *rest in groups]


def printable(value: object) -> str:
    """Return the value as text on one line, with line ends and control characters escaped.

    Spaces of all widths, and the joiners of scripts and emoji, stay as they are.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or _joins_or_spaces(char) else repr(char)[1:-1] for char in text)


def _joins_or_spaces(character: str) -> bool:
    """Return whether a character is a space, or joins or separates letters or emoji: U+200C, U+200D, tags of flags."""
    is_tag = "\U000e0020" <= character <= "\U000e007f"
    return is_tag or character in "\u200c\u200d" or unicodedata.category(character) == "Zs"


def count(number: int, noun: str) -> str:
    """Return a number of things in words: ``1 clip``, ``2 clips``, ``3 studies``, ``4 classes``."""
    return f"{number} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of a regular English noun; ``ch`` as in epoch, ``tch`` as in batch."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return noun + ("es" if noun.endswith(("s", "x", "sh", "tch")) else "s")
