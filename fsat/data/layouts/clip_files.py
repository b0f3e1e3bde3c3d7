"""Find the files that the cells of a table name, anywhere below a data folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fsat.data.audio_files import SUFFIXES


@dataclass(frozen=True)
class Resolved:
    """What the cells of a column name.

    Attributes:
        names: the file of each cell, relative to the data folder; the cell itself if there is none.
        others: for each cell the files that it may name, if they are several, else none.
        n_found: number of cells with one file.
        by_name_alone: whether no folder in the cells is that of a file, so that their names alone count.
    """

    names: list[str]
    others: list[list[str]]
    n_found: int
    by_name_alone: bool


class ClipFiles:
    """The audio files of a data folder.

    Args:
        names: relative to the data folder, with forward slashes.
        below: the table's folder, relative to the data folder.
    """

    def __init__(self, names: Sequence[str], below: str) -> None:
        self._names, self._below = set(names), "" if below == "." else f"{below}/"
        self._by_base: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in names:
            base = name.rsplit("/", 1)[-1]
            self._by_base.setdefault(base, []).append(name)
            self._by_stem.setdefault(os.path.splitext(base)[0], []).append(name)

    def resolve(self, cells: Iterable[str]) -> Resolved:
        """Return the files of the cells: paths from the table's or the data folder, ends of paths, or bare names."""
        texts = [_normal(cell) for cell in cells]
        found = [self._find(text) for text in texts]
        by_name_alone = not any(found) and any("/" in text for text in texts)
        if by_name_alone:
            found = [self._find(text.rsplit("/", 1)[-1]) for text in texts]
            by_name_alone = any(found)
        names = [files[0] if len(files) == 1 else text for text, files in zip(texts, found, strict=True)]
        others = [files if len(files) > 1 else [] for files in found]
        return Resolved(names, others, sum(len(files) == 1 for files in found), by_name_alone)

    def _find(self, text: str) -> list[str]:
        """Return the files that a normalised path may name, which are those with the longest end in common."""
        for candidate in (self._below + text, text):
            if candidate in self._names:
                return [candidate]
        *folders, base = text.split("/")
        files = (self._by_base if base.lower().endswith(SUFFIXES) else self._by_stem).get(base, [])
        for first in range(len(folders) + 1):
            end = folders[first:]
            if (folders and not end) or not files:
                break
            if fitting := [name for name in files if not end or name.split("/")[-1 - len(end) : -1] == end]:
                return fitting
        return []


def _normal(cell: str) -> str:
    """Return a path with forward slashes, without a drive and ``./``."""
    text = re.sub(r"^[A-Za-z]:(?=[\\/])", "", cell.strip()).replace("\\", "/")
    return os.path.normpath(text).replace(os.sep, "/") if text else ""
