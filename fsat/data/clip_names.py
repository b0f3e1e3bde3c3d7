"""The names of clips in tables against those of the files in a folder.

Conventions: names are relative to the folder of clips. A name may be stored under another Unicode normal form than in
the table, as macOS and archives change it; such a file is the clip, if it is the only one. A name that is not UTF-8 may
be in a table with its bytes as ``\\xNN``, as `fsat.tagging.tables.shown` writes it.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from fsat.data.audio_files import APPLE_DOUBLE, SUFFIXES
from fsat.data.byte_source import MISSING
from fsat.errors import count, printable

SHOWN = 5
ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")
"""Matches a byte that is no part of a character, as `fsat.tagging.tables.shown` writes it."""


def stored_name(folder: Path, fname: str) -> str:
    """Return the name under which the file of a clip is stored: `fname`, or another form of its parts or bytes."""
    if "\\x" in fname and not os.path.lexists(folder / fname):
        raw = ESCAPED.sub(lambda byte: bytes.fromhex(byte[1].decode()), os.fsencode(fname))
        return os.fsdecode(raw) if os.path.lexists(folder / os.fsdecode(raw)) else fname
    if fname.isascii() or os.path.lexists(folder / fname):
        return fname
    name = ""
    for part in PurePath(fname).parts:
        forms = dict.fromkeys([part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD"))])
        stored = [form for form in forms if os.path.lexists(folder / name / form)]
        if len(stored) != 1 and part not in stored:
            return fname
        name = os.path.join(name, part if part in stored else stored[0])
    return name


def earlier_rows(folder: Path, fnames: Sequence[str], stamps: Sequence[tuple[int, ...]]) -> list[int | None]:
    """Return for each row the first one before it that names the same file; `stamps` are those of `ClipFacts`.

    ``./a.wav`` is ``a.wav``, and so is ``A.WAV`` where the file system ignores letter case.
    """
    first: dict[object, int] = {}
    rows = []
    for row, (fname, stamp) in enumerate(zip(fnames, stamps, strict=True)):
        name = os.path.normpath(stored_name(folder, fname)) if fname.strip() else fname
        keys: list[object] = [name, (name.casefold(), *stamp)] if stamp else [name]
        rows.append(next((first[key] for key in keys if key in first), None))
        for key in keys:
            first.setdefault(key, row)
    return rows


def unnamed_files(folder: Path, fnames: Iterable[str]) -> list[str]:
    """Return the audio files in and below a folder that no name stands for, and AppleDouble files; sorted.

    Hidden folders and links to folders are not searched.
    """
    named = {os.path.normpath(stored_name(folder, fname)) for fname in fnames}
    folded = {_folded(name): name for name in named}
    unnamed = []
    for path, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        below = os.path.relpath(path, folder)
        for file in files:
            name = os.path.normpath(os.path.join(below, file))
            if not file.lower().endswith(SUFFIXES) or name in named:
                continue
            if (alike := folded.get(_folded(name))) and _is_same(folder / name, folder / alike):
                continue
            unnamed.append(name)
    return sorted(unnamed)


def unnamed_warnings(unnamed: Sequence[str], folder: str, table: str) -> list[str]:
    """Return what to say of the files that no row of a table names."""
    lines = []
    for is_apple in (False, True):
        names = [printable(name) for name in unnamed if _is_apple_double(name) == is_apple]
        first = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        if names and is_apple:
            lines.append(f"{folder}: {count(len(names), 'AppleDouble file')}, macOS's metadata without sound: {first}")
        elif names:
            lines.append(f"{folder}: {count(len(names), 'audio file')} without a row in {table}, not used: {first}")
    return lines


def explain_missing(fnames: Sequence[str], reasons: Sequence[str], unnamed: Sequence[str]) -> list[str]:
    """Return the reasons why clips are unusable, where a file is missing with that which may be meant.

    It is the only unnamed file whose name differs in letter case, form, surrounding spaces or slashes; or in its
    suffix; or in its folder.
    """
    looks = (_folded, lambda name: os.path.splitext(_folded(name))[0], lambda name: os.path.basename(_folded(name)))
    audio = [name for name in unnamed if not _is_apple_double(name)]
    indices = []
    for look in looks if MISSING in reasons else ():
        index: dict[str, list[str]] = {}
        for name in audio:
            index.setdefault(look(name), []).append(name)
        indices.append((look, index))
    explained = []
    for fname, reason in zip(fnames, reasons, strict=True):
        matches = [index.get(look(fname), []) for look, index in indices] if reason == MISSING else []
        likely = next((names[0] for names in matches if len(names) == 1), None)
        explained.append(f"{reason}; there is {ascii_if_alike(likely, fname)}" if likely else reason)
    return explained


def ascii_if_alike(name: str, other: str) -> str:
    """Return a name as text on one line, with escapes if it looks like the other one."""
    alike = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)
    return ascii(name) if alike else printable(name)


def _is_apple_double(name: str) -> bool:
    return os.path.basename(name).startswith(APPLE_DOUBLE)


def _folded(name: str) -> str:
    path = os.path.normpath(name.strip().replace("\\", "/"))
    return unicodedata.normalize("NFC", path).casefold()


def _is_same(path: Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
