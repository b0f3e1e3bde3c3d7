"""Find the recordings that annotation files, and the rows of tables, are named after.

Names of recordings are POSIX paths relative to their folder. Letter case and the Unicode normal form do not count,
unless recordings differ in nothing else.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fsat.data.audio_files import is_audio_file

EXTRA = re.compile(
    r"(.+?)[._ -](table([._ -]\d+)?|selections?|labels?|annotations?|events|raven|audacity|birdnet|results)$"
)
"""A name with a word after that of the recording."""


class Match(NamedTuple):
    """The recordings that a name may stand for, and how well they fit: more is better."""

    recordings: list[str]
    fit: tuple[int, int] = 0, 0


class RecordingNames:
    """Finds recordings by the names that others have for them."""

    def __init__(self, recordings: Sequence[str], root: Path) -> None:
        self._root = root.absolute()
        self._by_name: dict[str, list[str]] = {}
        for name in recordings:
            own = folded(PurePosixPath(name).name)
            for key in {own, stem_of(own)}:
                self._by_name.setdefault(key, []).append(name)

    def match_path(self, text: str) -> Match:
        """Return the recordings that a name or path in a table stands for, on whatever machine it was written."""
        path = PurePosixPath(text.replace("\\", "/"))
        own = folded(path.name)
        for rank, key in ((2, own), (1, stem_of(own) if is_audio_file(own) else "")):
            if key and (match := self._best(key, path, rank)).recordings:
                return match
        return Match([])

    def match_file(self, path: Path) -> Match:
        """Return the recordings that an annotation file is named after."""
        key = stem_of(folded(path.name))
        while True:
            if (match := self._best(key, PurePosixPath(path.absolute().as_posix()), 1)).recordings:
                return match
            shorter = EXTRA.match(key)
            if shorter is None:
                return Match([])
            key = shorter[1]

    def _best(self, key: str, path: PurePosixPath, rank: int) -> Match:
        """Return the recordings with a key that have most of the folders around `path`."""
        fits = {name: self._n_common(name, path) for name in self._by_name.get(key, ())}
        best = max(fits.values(), default=0)
        names = [name for name, fit in fits.items() if fit == best]
        exact = [name for name in names if path.name.startswith(stem_of(PurePosixPath(name).name))]
        return Match(exact if len(exact) == 1 else names, (rank, best))

    def _n_common(self, name: str, path: PurePosixPath) -> int:
        """Return the number of folders, from the innermost, that a recording and a path have in common."""
        own = [folded(part) for part in (self._root / name).parent.parts]
        others = [folded(part) for part in path.parent.parts]
        n_common = 0
        while n_common < min(len(own), len(others)) and own[-1 - n_common] == others[-1 - n_common]:
            n_common += 1
        return n_common


def folded(name: str) -> str:
    """Return a name without differences of letter case and Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def stem_of(name: str) -> str:
    """Return a file's name without its suffix."""
    return os.path.splitext(name)[0]
