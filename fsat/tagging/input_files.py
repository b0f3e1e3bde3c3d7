"""Inputs to tag: a file, a folder, a glob, a table or a list on standard input, as names of files.

Conventions: names are texts as the file system has them (`os.fsdecode`), relative to one folder or absolute. They come
one at a time, so a list may be longer than memory. Only tables and folders are opened: a file that cannot be used is
reported in its row when it is decoded.
"""

from __future__ import annotations

import csv
import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fsat.data.audio_files import APPLE_DOUBLE, LeftOut, walk
from fsat.errors import DataError, printable
from fsat.tagging.tables import BYTE_ORDER_MARK, DELIMITERS, delimiter_of, unguard

LISTS, STDIN = (*DELIMITERS, ".txt"), "-"
"""Suffixes of lists (tables with a column ``fname``, or one name per line), and the name of one on standard input."""

SHOWN_SUFFIXES = ".wav, .flac, .mp3, .ogg, .opus, .m4a, .aif"
EXPECTED = f"expected a file, a folder or glob of audio files ({SHOWN_SUFFIXES}, ...), a .csv, .tsv or .txt list, or -"

CHUNK_BYTES = 1 << 16


class Input(NamedTuple):
    """Files to tag: names, relative to the absolute folder `root`.

    They are in the user's order if `ordered`; otherwise they were found in folders, where `left_out` counts the others
    while the names are taken.
    """

    root: Path
    names: Iterator[str]
    ordered: bool
    left_out: LeftOut


def read_input(text: str, stdin: BinaryIO | None = None) -> Input:
    """Return the files that an input names.

    It is a file; a folder, searched with its subfolders and links for audio files; a glob; a file with a suffix of
    `LISTS`, whose names are relative to its folder, or, for the table of a dataset, to the folder of its clips; or
    `STDIN`, for which `stdin` may be given.

    Raises `DataError` if no such file or folder exists, or a list cannot be read; also while it is iterated over.
    """
    if text == STDIN:
        return Input(Path.cwd(), _read_list(stdin or sys.stdin.buffer, "standard input"), True, LeftOut())
    path, left_out = Path(text), LeftOut()
    if path.is_dir():
        return Input(path.absolute(), walk(path, left_out), False, left_out)
    if path.suffix.lower() in LISTS and path.is_file():
        names = _read_list_file(path)
        first = list(islice(names, 1))
        return Input(_folder_of(first, path.parent.absolute()), chain(first, names), True, left_out)
    if os.path.lexists(path):
        return Input(path.parent.absolute(), iter([path.name]), True, left_out)
    if glob.has_magic(text):
        names = (name for match in _matches(text) for name in _files_of(match, left_out))
        return Input(Path.cwd(), names, False, left_out)
    raise DataError(f"input={printable(text)}: no such file or folder; {EXPECTED}")


def _matches(pattern: str) -> Iterator[str]:
    """Return the matches of a glob; if there are none, those of the same one with brackets as they are.

    Folders that exist under their part of the pattern, such as ``Site [-37.5 141.3]``, are taken as named.
    """
    parts, named = pattern.split(os.sep), 0
    while named < len(parts) - 1 and os.path.isdir(os.sep.join(parts[: named + 1]) or os.sep):
        named += 1

    def matches(rest: list[str]) -> Iterator[str]:
        return glob.iglob(os.sep.join([*map(glob.escape, parts[:named]), *rest]), recursive=True)

    found = matches(parts[named:])
    first = list(islice(found, 1))
    return chain(first, found) if first else matches([part.replace("[", "[[]") for part in parts[named:]])


def _folder_of(names: list[str], list_folder: Path) -> Path:
    """Return the folder that a list's names are relative to, by the first: its own, or that of a dataset's clips."""
    from fsat.data.clip_names import stored_name
    from fsat.data.layouts.fsdkaggle2018 import TEST_FOLDERS, TRAIN_FOLDERS

    folders = [list_folder, *(list_folder / folder for folder in (*TRAIN_FOLDERS, *TEST_FOLDERS))]
    return next(
        (folder for folder in folders for name in names if (folder / stored_name(folder, name)).exists()), list_folder
    )


def _files_of(match: str, left_out: LeftOut) -> Iterable[str]:
    """Return a match of a glob, or the files of a folder that matches; not macOS's companions of files."""
    if os.path.isdir(match):
        return (os.path.join(match, name) for name in walk(Path(match), left_out))
    if os.path.basename(match).startswith(APPLE_DOUBLE):
        left_out.add(os.path.basename(match))
        return []
    return [match]


def _read_list_file(path: Path) -> Iterator[str]:
    try:
        with open(path, "rb") as file:
            yield from _read_list(file, str(path), DELIMITERS.get(path.suffix.lower(), ""))
    except OSError as error:
        raise DataError(f"input={path}: cannot be read: {error.strerror or error}; expected a list of files") from error


def _read_list(file: BinaryIO, source: str, delimiters: str = "") -> Iterator[str]:
    """Yield the names in a list: a table with a column ``fname``, or names separated by line ends or NULs.

    It is a table if `delimiters` are given, of which it has one, or if its first line is the header of one.
    """
    start = file.read(CHUNK_BYTES)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"input: {source}: wrong encoding: UTF-16; save the list as UTF-8")
    mark = BYTE_ORDER_MARK.encode()
    is_for_excel, start = start.startswith(mark), start.removeprefix(mark)
    if b"\0" in start and not delimiters:
        yield from (os.fsdecode(name) for name in _split_at_nuls(file, start) if name)
        return
    text = io.TextIOWrapper(io.BufferedReader(_Rejoined(start, file)), "utf-8", "surrogateescape", newline="")
    first = text.readline()
    lines = chain([first], text)
    if delimiter := delimiter_of(first, delimiters or "".join(DELIMITERS.values())) or delimiters[:1]:
        names = _read_column(lines, source, delimiter)
        yield from map(unguard, names) if is_for_excel else names
    else:
        yield from filter(None, (line.rstrip("\r\n") for line in lines))


def _read_column(lines: Iterable[str], source: str, delimiter: str) -> Iterator[str]:
    """Yield the cells of a table's column ``fname``."""
    from fsat.data.tables import why_ragged

    kind = "TSV" if delimiter == "\t" else "CSV"
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if "fname" not in header:
            columns = printable(",".join(header)[:200])
            raise DataError(f"input: {source}: got columns {columns!r}; expected a {kind} table with a column fname")
        column = header.index("fname")
        for cells in reader:
            if cells and (fault := why_ragged(cells, header)):
                raise DataError(f"input: {source}: line {reader.line_num}: {fault}; fix that line")
            if cells:
                yield cells[column]
    except csv.Error as error:
        fault = f"not {kind} ({printable(error)})"
        raise DataError(f"input: {source}: line {reader.line_num}: {fault}; fix that line") from error


def _split_at_nuls(file: BinaryIO, start: bytes) -> Iterator[bytes]:
    chunk, rest = start, b""
    while chunk:
        *names, rest = (rest + chunk).split(b"\0")
        yield from names
        chunk = file.read(CHUNK_BYTES)
    yield rest


class _Rejoined(io.RawIOBase):
    """A stream whose start has been read, from its start."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self._start, self._file = start, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._start or self._file.read(len(buffer))
        n_bytes = min(len(data), len(buffer))
        buffer[:n_bytes], self._start = data[:n_bytes], data[n_bytes:]
        return n_bytes
