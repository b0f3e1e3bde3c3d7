"""What is to be tagged: a file, a folder, a glob, a table or a list on standard input, as names of files.

Conventions: names are texts as the file system has them (`os.fsdecode`), relative to one folder or absolute. They come
one at a time, so that a list may be longer than memory. Nothing is opened but tables and folders: what cannot be used
is found when it is decoded, and said in its row.
"""

from __future__ import annotations

import csv
import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from fsat.data.audio import SUFFIXES
from fsat.errors import DataError, printable

LISTS = (".csv", ".txt")
"""Names of files that list clips: CSV with a column ``fname``, or a name a line."""

STDIN = "-"
"""The input that stands for a list on standard input."""

EXPECTED = (
    f"expected a file, a folder or glob of files ending in {' '.join(SUFFIXES)}, a {' or '.join(LISTS)} list, or -"
)
"""What an input is, in an error."""

CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Input:
    """Files to tag.

    Attributes:
        root: the folder that names are relative to, absolute.
        names: to be gone through once.
        ordered: whether their order means something; else they come as the file system has them.
    """

    root: Path
    names: Iterator[str]
    ordered: bool


def read_input(text: str, stdin: BinaryIO | None = None) -> Input:
    """The files that an input means.

    Args:
        text: a file; a folder, which is searched for `SUFFIXES`, subfolders and links included; a glob; a file with one
            of `LISTS` as suffix, whose names are relative to its folder, or to that of the clips if it is the table of
            a dataset; or `STDIN`.
        stdin: to read from instead of standard input.

    Raises:
        DataError: there is no such file or folder, or the list cannot be read. A list may also be found wrong while it
            is gone through.
    """
    if text == STDIN:
        return Input(Path.cwd(), _listed(stdin or sys.stdin.buffer, "standard input"), ordered=True)
    path = Path(text)
    if path.is_dir():
        return Input(path.absolute(), walk(path), ordered=False)
    if path.suffix.lower() in LISTS and path.is_file():
        names = _listed_in(path)
        first = next(names, None)
        if first is None:
            return Input(path.parent.absolute(), iter(()), ordered=True)
        return Input(_folder_of(first, path.parent.absolute()), chain([first], names), ordered=True)
    if os.path.lexists(path):
        return Input(path.parent.absolute(), iter([path.name]), ordered=True)
    if glob.has_magic(text):
        found = (name for match in glob.iglob(text, recursive=True) for name in _below(match))
        return Input(Path.cwd(), found, ordered=False)
    raise DataError(f"input={printable(text)}: no such file or folder; {EXPECTED}")


def has_clips(folder: Path) -> bool:
    """Whether there is a file to tag in a folder or below it."""
    return next(walk(folder), None) is not None


def walk(root: Path) -> Iterator[str]:
    """Names of the files in and below a folder that end in `SUFFIXES`, relative to it.

    Links are followed, but no folder is entered twice. A folder that cannot be read comes as a name itself.
    """
    entered: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        folder = os.path.join(root, inside)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            folders = []
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = os.path.join(inside, entry.name)
                    if _is_folder(entry):
                        folders.append(name)
                    elif entry.name.lower().endswith(SUFFIXES):
                        yield name
            waiting += sorted(folders, reverse=True)
        except OSError:
            yield inside or "."


def _folder_of(name: str, beside: Path) -> Path:
    """The folder of a list's first name: that of the list, unless it is a dataset's table with its clips in another."""
    from fsat.data.manifest import TEST_FOLDERS, TRAIN_FOLDERS

    folders = [beside, *(beside / folder for folder in (*TRAIN_FOLDERS, *TEST_FOLDERS))]
    return next((folder for folder in folders if os.path.lexists(folder / name)), beside)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _below(match: str) -> Iterator[str]:
    """A file that a glob has found, or the files of a folder."""
    if os.path.isdir(match):
        yield from (os.path.join(match, name) for name in walk(Path(match)))
    else:
        yield match


def _listed_in(path: Path) -> Iterator[str]:
    try:
        with open(path, "rb") as file:
            yield from _listed(file, str(path), table=path.suffix.lower() == ".csv")
    except OSError as error:
        raise DataError(f"input={path}: cannot be read: {error.strerror or error}; expected a list of files") from error


def _listed(file: BinaryIO, where: str, table: bool = False) -> Iterator[str]:
    """The names in a list: a CSV table with a column ``fname``, or names that line ends or NULs separate.

    Args:
        file: the list.
        where: what errors call it.
        table: whether it must be a table.
    """
    start = file.read(CHUNK_BYTES).removeprefix(b"\xef\xbb\xbf")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"input: {where}: wrong encoding: UTF-16; save the list as UTF-8")
    if b"\0" in start and not table:
        yield from (os.fsdecode(name) for name in _split(file, start) if name)
        return
    text = io.TextIOWrapper(io.BufferedReader(_Rest(start, file)), "utf-8", "surrogateescape", newline="")
    first = text.readline()
    if table or "fname" in [cell.strip() for cell in first.split(",")]:
        yield from _column(chain([first], text), where)
        return
    for line in chain([first], text):
        if name := line.rstrip("\r\n"):
            yield name


def _column(lines: Iterable[str], where: str) -> Iterator[str]:
    """The cells of a CSV table's column ``fname``."""
    reader = csv.reader(lines, strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if "fname" not in header:
            raise DataError(f"input: {where}: got columns {printable(','.join(header)[:200])!r}; expected a CSV table "
                            "with a column fname")  # fmt: skip
        column = header.index("fname")
        for cells in reader:
            if len(cells) == len(header):
                yield cells[column]
            elif cells:
                raise DataError(f"input: {where}: line {reader.line_num}: {len(cells)} cells in a table of "
                                f"{len(header)} columns; mend that line")  # fmt: skip
    except csv.Error as error:
        raise DataError(f"input: {where}: line {reader.line_num}: not CSV ({error})") from error


def _split(file: BinaryIO, start: bytes) -> Iterator[bytes]:
    """What NULs separate."""
    rest = start
    while True:
        *names, rest = rest.split(b"\0")
        yield from names
        more = file.read(CHUNK_BYTES)
        if not more:
            yield rest
            return
        rest += more


class _Rest(io.RawIOBase):
    """A stream of which the start was read already."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self._start, self._file = start, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        data, self._start = (self._start or self._file.read(len(buffer))), b""
        some, self._start = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(some)] = some
        return len(some)
