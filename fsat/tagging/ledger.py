"""What a long tagging has done so far, in an SQLite file beside its output, so that a killed one goes on.

The ledger holds what is tagged and how, the names of all files, and for each file that is done what was found. Files
are handed out in groups by their numbers, which never change: a file is tagged together with the same others whether or
not the work was interrupted. What was found is added group by group, in one transaction each.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fsat.errors import DataError, FsatError, printable

SUFFIX = ".unfinished"
"""Added to the output's name."""

LAYOUT = 1
"""Raised when older ledgers cannot be gone on from."""

TABLES = {"facts": "(facts TEXT)", "files": "(number INTEGER PRIMARY KEY, name BLOB UNIQUE, found TEXT)"}


class File(NamedTuple):
    """A file to tag: its number, from 1, and its name."""

    number: int
    name: str


class Ledger:
    """An open ledger; use `opened`.

    Attributes:
        facts: what was tagged and how, as it was begun.
    """

    def __init__(self, connection: sqlite3.Connection, facts: dict[str, Any]) -> None:
        self._db, self.facts = connection, facts

    def add(self, names: Iterable[str], ordered: bool) -> int:
        """Add the names that are not there yet; those of a list in its order, others sorted.

        Returns:
            how many of the names are repeats of others.
        """
        with self._db:
            self._db.execute("CREATE TEMP TABLE given (name BLOB)")
            self._db.executemany("INSERT INTO given VALUES (?)", ((os.fsencode(name),) for name in names))
            repeats = self._one("SELECT COUNT(*) - COUNT(DISTINCT name) FROM given")
            order = "rowid" if ordered else "name"
            self._db.execute(f"INSERT OR IGNORE INTO files (name) SELECT name FROM given ORDER BY {order}")
            self._db.execute("DROP TABLE given")
        return repeats

    @property
    def n_files(self) -> int:
        """How many files there are."""
        return self._one("SELECT COUNT(*) FROM files")

    @property
    def n_done(self) -> int:
        """How many of them are done."""
        return self._one("SELECT COUNT(*) FROM files WHERE found IS NOT NULL")

    def groups(self, size: int) -> Iterator[list[File]]:
        """The files that are not done yet, in groups that end at numbers divisible by `size`."""
        last = 0
        query = "SELECT number, name FROM files WHERE number > ? AND found IS NULL ORDER BY number LIMIT ?"
        while rows := self._db.execute(query, (last, size)).fetchall():
            end = -(-rows[0][0] // size) * size
            group = [File(number, os.fsdecode(name)) for number, name in rows if number <= end]
            last = group[-1].number
            yield group

    def record(self, found: Iterable[tuple[int, Any]]) -> None:
        """Keep what was found of some files, all of it or nothing.

        Args:
            found: a file's number and what JSON can hold.
        """
        rows = [(json.dumps(what), number) for number, what in found]
        with self._db:
            self._db.executemany("UPDATE files SET found = ? WHERE number = ?", rows)

    def found(self) -> Iterator[tuple[str, Any]]:
        """Name and what was found of every file that is done, in order."""
        for name, what in self._db.execute("SELECT name, found FROM files WHERE found IS NOT NULL ORDER BY number"):
            yield os.fsdecode(name), json.loads(what)

    def _one(self, query: str) -> Any:
        return self._db.execute(query).fetchone()[0]


@contextmanager
def opened(output: Path, facts: Mapping[str, Any], resume: bool = True) -> Iterator[Ledger]:
    """The ledger of an output, new or that of a tagging that was stopped.

    It is removed when the block ends well, or when nothing was to be done.

    Args:
        output: the file that is to be written.
        facts: what is tagged and how; a ledger that was begun otherwise is refused.
        resume: whether to go on; else an older ledger is thrown away.

    Raises:
        DataError: the older ledger is of another tagging, or another process works on this output.
        FsatError: the ledger cannot be read or written.
    """
    path, empty = output.with_name(output.name + SUFFIX), False
    try:
        db = _connect(path, output, resume)
        try:
            ledger = Ledger(db, _settle(db, path, {"layout": LAYOUT, **facts}, output))
            try:
                yield ledger
            finally:
                empty = not ledger.n_files
        finally:
            db.close()
            if empty:
                _remove(path)
    except sqlite3.Error as error:
        raise FsatError(f"{path}: {error}; make room or mend that and give the command again, which goes on from "
                        "there, or begin anew with resume=false") from error  # fmt: skip
    _remove(path)


def _connect(path: Path, output: Path, resume: bool) -> sqlite3.Connection:
    """The file, which no other process can use until it is closed; empty unless it is to be gone on from."""
    try:
        db = sqlite3.connect(path, timeout=1)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            with db:
                db.execute("BEGIN EXCLUSIVE")
                for table, columns in TABLES.items():
                    if not resume:
                        db.execute(f"DROP TABLE IF EXISTS {table}")
                    db.execute(f"CREATE TABLE IF NOT EXISTS {table} {columns}")
        except BaseException:
            db.close()
            raise
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise DataError(f"{output}: another process writes to it; choose another output, or wait for it") from error
        raise
    except sqlite3.DatabaseError:  # not a ledger, or damaged
        if resume:
            raise
        _remove(path)
        return _connect(path, output, True)
    return db


def _settle(db: sqlite3.Connection, path: Path, facts: dict[str, Any], output: Path) -> dict[str, Any]:
    """What was tagged and how, as it was begun; that is noted if this is the beginning."""
    row = db.execute("SELECT facts FROM facts").fetchone()
    if row is None:
        with db:
            db.execute("INSERT INTO facts VALUES (?)", (json.dumps(facts),))
        return facts
    before = json.loads(row[0])
    for name, value in facts.items():
        if before.get(name) != value:
            raise DataError(
                f"{path}: holds what was tagged with {name}={printable(before.get(name))}, not {name}="
                f"{printable(value)}; go on with that, choose another output than {output}, or begin anew with "
                "resume=false"
            )
    return before


def _remove(path: Path) -> None:
    for suffix in ("", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
