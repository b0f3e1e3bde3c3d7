"""Tell a file that is missing from a drive or folder that went away while its files were tagged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fsat.data.byte_source import MISSING, identity_of
from fsat.errors import StorageError, printable
from fsat.tagging.ledger import Ledger
from fsat.tagging.tag_groups import Result


class Presence:
    """Checks results before they are recorded.

    Args:
        root: the folder of the input.
        ledger: the names of the files, and the results so far.
        ordered: whether the names are from a list, which may name files that never were there.
    """

    def __init__(self, root: Path, ledger: Ledger, ordered: bool) -> None:
        self._root, self._ledger, self._ordered = root, ledger, ordered
        self._identity = identity_of(root)

    def check(self, results: Iterable[tuple[int, Result]]) -> None:
        """Raise `StorageError` if files are missing because their folder is."""
        for number, (error, *_) in results:
            if error == MISSING:
                self._check_file(self._ledger.name_of(number))

    def _check_file(self, name: str) -> None:
        folder, has_files = os.path.dirname(os.path.join(self._root, name)), False
        with suppress(OSError), os.scandir(folder) as entries:
            has_files = next(entries, None) is not None
        if self._ordered:
            was_there = self._ledger.has_tags_in(os.path.join(os.path.dirname(name), ""))
        else:
            was_there = self._ledger.was_added(name)
        if was_there and (not has_files or identity_of(self._root) != self._identity):
            fault = f"{printable(folder)}: the folder went away while its files were tagged"
            raise StorageError(f"{fault}; connect it again, and the same command resumes there")
