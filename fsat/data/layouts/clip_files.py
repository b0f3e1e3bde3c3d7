"""Find the files that the cells of a table name, anywhere below a data folder."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from fsat.data.audio_files import SUFFIXES


@dataclass(frozen=True)
class Resolved:
    """What the cells of a column name.

    Attributes:
        names: the file of each cell, relative to the data folder; the cell itself if there is none.
        others: for each cell the files that it may name, if they are several, else none.
        n_found: number of cells with one file.
        without: what had to be left out of the cells, in words, as none names a file whole; empty if nothing.
    """

    names: list[str]
    others: list[list[str]]
    n_found: int
    without: str


class ClipFiles:
    """The audio files of a data folder, whose `names` are relative to it, with forward slashes.

    Letter case and the Unicode normal form do not count, unless files differ in nothing else.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._by_name = {name: [name] for name in names}
        self._by_end: dict[str, list[str]] = {}
        for name in names:
            base = name.rsplit("/", 1)[-1]
            for end in (base, os.path.splitext(base)[0]):
                self._by_end.setdefault(end, []).append(name)

    @cached_property
    def _by_folded_end(self) -> dict[str, list[str]]:
        ends: dict[str, list[str]] = {}
        for end, names in self._by_end.items():
            ends.setdefault(folded(end), []).extend(names)
        return ends

    def has_stem(self, stem: str) -> bool:
        """Return whether a file has this name, its suffix left out."""
        return stem in self._by_end

    def resolve(self, cells: Iterable[str], below: str = "") -> Resolved:
        """Return the files of the cells: paths from the table's or the data folder, ends of paths, or bare names.

        `below` is the table's folder, relative to the data folder.
        """
        texts = [_normal(cell) for cell in cells]
        start = "" if below in ("", ".") else f"{below}/"
        found, without = [self._find(text, start) for text in texts], ""
        for part, shorten in SHORTER.items():
            if any(found):
                break
            found = [self._find(shorten(text), start) if shorten(text) != text else [] for text in texts]
            without = part if any(found) else ""
        names = [files[0] if len(files) == 1 else text for text, files in zip(texts, found, strict=True)]
        others = [files if len(files) > 1 else [] for files in found]
        return Resolved(names, others, sum(len(files) == 1 for files in found), without)

    def _find(self, text: str, start: str) -> list[str]:
        """Return the files that a normalised path may name, which are those with the longest end in common."""
        for candidate in (start + text, text):
            if candidate in self._by_name:
                return [candidate]
        *folders, base = text.split("/")
        files = _with_end(self._by_end.get(base, ()), folders, base)
        if not files and (files := self._by_folded_end.get(folded(base), [])):
            files = _with_end(files, [folded(folder) for folder in folders], folded(base), folded)
        return [name for name in files if start and name.startswith(start)] or files


def _with_end(files: Sequence[str], folders: Sequence[str], base: str, look: Callable[[str], str] = str) -> list[str]:
    """Return the files called `base`, or that with a suffix, with most of the `folders`, and one if there are some."""
    if base.lower().endswith(SUFFIXES):
        files = [name for name in files if look(name.rsplit("/", 1)[-1]) == base]
    own = {name: [look(part) for part in name.split("/")[:-1]] for name in files}
    for first in range(len(folders)):
        end = folders[first:]
        if fitting := [name for name in files if own[name][-len(end) :] == end]:
            return fitting
    return [] if folders else list(files)


def _without_folders(text: str) -> str:
    return text.rsplit("/", 1)[-1]


def _without_suffix(text: str) -> str:
    return os.path.splitext(text)[0] if text.lower().endswith(SUFFIXES) else text


SHORTER: dict[str, Callable[[str], str]] = {
    "folders": _without_folders,
    "suffixes": _without_suffix,
    "folders and suffixes": lambda text: _without_suffix(_without_folders(text)),
    ".0": lambda text: re.sub(r"^(\d+)\.0$", r"\1", text),
}
"""What is left out of the cells of a column, one after the other, if none of them names a file."""


def folded(name: str) -> str:
    """Return a name without differences of letter case and Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def _normal(cell: str) -> str:
    """Return a path with forward slashes, without a drive and ``./``."""
    text = re.sub(r"^[A-Za-z]:(?=[\\/])", "", cell.strip()).replace("\\", "/")
    return os.path.normpath(text).replace(os.sep, "/") if text else ""
