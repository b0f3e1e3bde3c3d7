"""The progress of a long tagging, in an SQLite file beside its output, so that it can be resumed.

The ledger holds the settings, the names of all files, and the result for each file that is done. Files are handed out
in groups by their numbers, which never change: a file is tagged together with the same others whether or not the work
was interrupted. Results are added group by group, in one transaction each.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fsat.errors import DataError, FsatError, printable

SUFFIX, LAYOUT = ".unfinished", 3
"""Added to the output's name; a number to raise when older ledgers cannot be resumed."""

TABLES = {"facts": "(facts TEXT)", "files": "(number INTEGER PRIMARY KEY, name BLOB UNIQUE, result TEXT)"}


class File(NamedTuple):
    """A file to tag: its number, from 1, and its name."""

    number: int
    name: str


class Ledger:
    """An open ledger; see `opened`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def add(self, names: Iterable[str], ordered: bool) -> int:
        """Add new names, in the order given if `ordered`, else sorted; return the number of repeated names.

        May be called once.
        """
        with self._db:
            self._db.execute("CREATE TEMP TABLE given (name BLOB)")
            self._db.executemany("INSERT INTO given VALUES (?)", ((os.fsencode(name),) for name in names))
            repeats = self._value("SELECT COUNT(*) - COUNT(DISTINCT name) FROM given")
            order = "rowid" if ordered else "name"
            self._db.execute(f"INSERT OR IGNORE INTO files (name) SELECT name FROM given ORDER BY {order}")
        return repeats

    @property
    def n_files(self) -> int:
        """Number of files."""
        return self._value("SELECT COUNT(*) FROM files")

    @property
    def n_done(self) -> int:
        """Number of files that have a result."""
        return self._value("SELECT COUNT(result) FROM files")

    @property
    def most_tags(self) -> int:
        """The largest number of tags of a file that has a result ``[error, tags, notes]``; 0 if there is none."""
        query = "SELECT MAX(json_array_length(result, '$[1]')) FROM files WHERE result IS NOT NULL"
        return self._value(query) or 0

    def groups(self, size: int) -> Iterator[list[File]]:
        """Yield the files without a result, in groups that end at numbers divisible by `size`."""
        last = 0
        query = "SELECT number, name FROM files WHERE number > ? AND result IS NULL ORDER BY number LIMIT ?"
        while rows := self._db.execute(query, (last, size)).fetchall():
            end = -(-rows[0][0] // size) * size
            group = [File(number, os.fsdecode(name)) for number, name in rows if number <= end]
            last = group[-1].number
            yield group

    def record(self, results: Iterable[tuple[int, Any]]) -> None:
        """Store results in one transaction: the number of a file and a JSON value each."""
        rows = [(json.dumps(result), number) for number, result in results]
        with self._db:
            self._db.executemany("UPDATE files SET result = ? WHERE number = ?", rows)

    def results(self) -> Iterator[tuple[str, Any]]:
        """Return the name and the result of each file that has one, in order."""
        rows = self._db.execute("SELECT name, result FROM files WHERE result IS NOT NULL ORDER BY number")
        return ((os.fsdecode(name), json.loads(result)) for name, result in rows)

    def name_of(self, number: int) -> str:
        """Return the name of a file."""
        return os.fsdecode(self._db.execute("SELECT name FROM files WHERE number = ?", (number,)).fetchone()[0])

    def was_added(self, name: str) -> bool:
        """Return whether `add` was given this name."""
        return self._value("SELECT COUNT(*) FROM given WHERE name = ?", os.fsencode(name)) > 0

    def has_tags_in(self, folder: str) -> bool:
        """Return whether a file in this folder, a name that ends in a separator, has been tagged."""
        query = "SELECT COUNT(*) FROM files WHERE substr(name, 1, length(?1)) = ?1 AND result LIKE '[\"\"%'"
        return self._value(query, os.fsencode(folder)) > 0

    def _value(self, query: str, *arguments: bytes) -> int:
        return self._db.execute(query, arguments).fetchone()[0]


def stored_facts(output: Path) -> dict[str, Any]:
    """Return the facts and notes of an output's ledger; empty if there is none, or none that can be read now."""
    path = output.with_name(output.name + SUFFIX)
    if not path.exists():
        return {}
    try:
        with closing(sqlite3.connect(path, timeout=1)) as db:
            row = db.execute("SELECT facts FROM facts").fetchone()
        return dict(json.loads(row[0])) if row else {}
    except (sqlite3.Error, ValueError):  # `opened` says what is wrong
        return {}


@contextmanager
def opened(
    output: Path,
    facts: Mapping[str, Any],
    resume: bool = True,
    notes: Mapping[str, Any] | None = None,
    anew: str = "start anew with resume=false",
) -> Iterator[Ledger]:
    """Open the ledger of an output, a new one or that of an interrupted tagging.

    Its file is removed when the block ends without an error, or when no files were added. Unless `resume`, an older
    ledger is discarded. `notes` are stored with the facts of a new ledger, for `stored_facts`, and not compared. `anew`
    tells a user how to do without the old ledger.

    Raises:
        DataError: the ledger has other facts, or another process uses it.
        FsatError: the ledger cannot be read or written.
    """
    path, empty = output.with_name(output.name + SUFFIX), False
    try:
        with closing(_connect(path, output, resume)) as db:
            ledger = Ledger(db)
            advice = f"give that again, choose another output than {output}, or {anew}"
            _check_facts(db, path, {"layout": LAYOUT, **facts}, notes or {}, advice)
            try:
                yield ledger
            finally:
                empty = not ledger.n_files
    except sqlite3.Error as error:
        advice = f"free disk space or fix the file and give the command again to resume, or {anew}"
        raise FsatError(f"{path}: {error}; {advice}") from error
    finally:
        if empty:
            _remove(path)
    _remove(path)


def _connect(path: Path, output: Path, resume: bool) -> sqlite3.Connection:
    try:
        return _open_exclusively(path, resume)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        raise DataError(f"{output}: another process writes to it; choose another output, or wait for it") from error
    except sqlite3.DatabaseError:  # damaged, or not a ledger
        if resume:
            raise
        _remove(path)
        return _open_exclusively(path, resume)


def _open_exclusively(path: Path, resume: bool) -> sqlite3.Connection:
    """Open the file, which no other process can use until it is closed; empty its tables unless `resume`."""
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
    return db


def _check_facts(
    db: sqlite3.Connection, path: Path, facts: dict[str, Any], notes: Mapping[str, Any], advice: str
) -> None:
    """Store the facts and notes in a new ledger; raise `DataError` with `advice` if an older ledger has others."""
    row = db.execute("SELECT facts FROM facts").fetchone()
    if row is None:
        with db:
            db.execute("INSERT INTO facts VALUES (?)", (json.dumps({**notes, **facts}),))
        return
    stored = json.loads(row[0])
    for name, value in facts.items():
        if stored.get(name) != value:
            others = f"{name}={printable(stored.get(name))}, not {name}={printable(value)}"
            raise DataError(f"{path}: holds results for {others}; {advice}")


def _remove(path: Path) -> None:
    for suffix in ("", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
