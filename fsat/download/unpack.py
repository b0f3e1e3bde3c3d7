"""Unpack an untrusted zip file: no file outside of the folder, none larger than declared.

The table of contents is checked before any file is written. An archive is refused for names that lead elsewhere on any
system, links and devices, encrypted entries, the same name twice (ignoring case), and more or larger entries than
expected. Entries without a target are skipped; zips inside it are not unpacked.
"""

from __future__ import annotations

import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from fsat import interrupts
from fsat.errors import FsatError, count, printable
from fsat.files import format_bytes, write_all
from fsat.progress import Progress

MOST_ENTRIES, MOST_RATIO = 50_000, 100.0  # of an archive; ratio of the size of all entries to the archive's
_BLOCK_BYTES = 1 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)
"""Errors of zipfile for a broken archive."""


def unpack(archive: Path, folder: Path, targets: Mapping[str, str], most_bytes: int) -> list[str]:
    """Unpack a zip file into a new folder, which the caller removes after an error.

    `targets` are the paths in `folder` of each folder (with ``/`` at its end) or file of the archive. Returns the names
    of files without a target, which were skipped. Raises `FsatError` if the archive is damaged or refused, or a target
    has no files.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
            if reason := why_refused(infos, archive.stat().st_size, most_bytes):
                raise FsatError(f"{archive}: is not unpacked: {reason}")
            files = [info for info in infos if not info.is_dir()]
            selected = [(info, target) for info in files if (target := _target(info.orig_filename, targets))]
            for source, target in targets.items():
                if not any(info.orig_filename.startswith(source) for info, _ in selected):
                    raise FsatError(f"{archive}: is not unpacked: it has no {source}, expected as {target}")
            folder.mkdir()
            with Progress(f"unpacking {archive.name}", len(selected)) as progress:
                for info, target in selected:
                    _write(opened, info, folder / target)
                    progress.advance()
            return [info.orig_filename for info in files if not _target(info.orig_filename, targets)]
    except _DAMAGE as error:
        advice = "remove it, and give the same command again"
        raise FsatError(f"{archive}: cannot be unpacked: {printable(error)}; {advice}") from error


def why_refused(infos: list[zipfile.ZipInfo], archive_bytes: int, most_bytes: int) -> str:
    """Return the reason why an archive with these entries must not be unpacked; an empty string if it may."""
    if len(infos) > MOST_ENTRIES:
        return f"it has {count(len(infos), 'entry')}, expected {MOST_ENTRIES} at most"
    files: dict[str, str] = {}
    folders: set[str] = set()
    for info in infos:
        name = info.orig_filename
        if reason := why_unsafe(name) or _why_special(info):
            return f"its entry {printable(name)!r} {reason}"
        parts = _same(name).rstrip("/").split("/")
        folders.update("/".join(parts[:i]) for i in range(1, len(parts)))
        if info.is_dir():
            folders.add("/".join(parts))
        elif (other := files.setdefault("/".join(parts), name)) is not name:
            return f"its entries {printable(other)!r} and {printable(name)!r} would be the same file"
    if both := files.keys() & folders:
        return f"its entry {printable(files[min(both)])!r} is a file and a folder"
    total, most = sum(info.file_size for info in infos), min(most_bytes, MOST_RATIO * archive_bytes)
    if total > most:
        unpacked = f"{format_bytes(total)} in {count(len(files), 'file')}"
        return f"{format_bytes(archive_bytes)} would become {unpacked}, expected {format_bytes(most)} at most"
    return ""


def why_unsafe(name: str) -> str:
    """Return the reason why an entry's name must not become a path, on any system; an empty string if it may.

    >>> why_unsafe("audio/../../x.wav")
    'leads out of the folder'
    """
    parts = name.removesuffix("/").split("/")
    if not name.isprintable():
        return "has control characters"
    faults = (
        (not name or name == "/" or "" in parts[1:], "has an empty name"),
        (parts[0] == "" or re.match("[A-Za-z]:", name), "is an absolute path"),
        ("\\" in name or ":" in name, "has a \\ or : in it"),
        (any(part in (".", "..") for part in parts), "leads out of the folder"),
        (any(part != part.strip(" ").rstrip(".") for part in parts), "begins or ends with a blank or dot"),
        (any(len(part.encode()) > 255 for part in parts) or len(name.encode()) > 1000, "is too long"),
    )
    return next((reason for fault, reason in faults if fault), "")


def _why_special(info: zipfile.ZipInfo) -> str:
    odd = stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG)
    known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    faults = (
        (info.filename != info.orig_filename, "has two names"),
        (odd, "is a link, a device, or not what its name says"),
        (info.flag_bits & 0x41, "is encrypted"),
        (not known, f"is compressed in an unexpected way (type {info.compress_type})"),
        (info.is_dir() and info.file_size, "is a folder with content"),
    )
    return next((reason for fault, reason in faults if fault), "")


def _same(name: str) -> str:
    """Return a key that is the same for names that some file system treats as one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _target(name: str, targets: Mapping[str, str]) -> str:
    """Return the target of a file; an empty string if it has none, as the notes of macOS (``._name``)."""
    if name in targets:
        return targets[name]
    for source, target in targets.items():
        if source.endswith("/") and name.startswith(source) and not name.rpartition("/")[2].startswith("._"):
            return target + name.removeprefix(source)
    return ""


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    """Write one entry; zipfile checks its CRC at the end."""
    interrupts.check()
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with opened.open(info) as packed, open(path, "xb", buffering=0) as file:
        while block := packed.read(_BLOCK_BYTES):
            size += len(block)
            write_all(file, block)
    if size != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename!r} has {size} bytes, declared {info.file_size}")
