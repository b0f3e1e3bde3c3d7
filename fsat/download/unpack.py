"""Unpacking a zip file that nobody has to trust: nothing leaves the folder, nothing is larger than it says.

What an archive may hold is decided by its table of contents, before anything is written. Refused as a whole are names
that lead elsewhere on any system, links and devices, encrypted entries, the same name twice (whatever its case), and
more or larger entries than expected. Entries outside of the places that are asked for are left out, zips stay zips.
"""

from __future__ import annotations

import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fsat import interrupts
from fsat.errors import FsatError, count, printable
from fsat.files import format_bytes, write_all
from fsat.progress import Progress

_BLOCK_BYTES = 1 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)
"""What zipfile raises at a broken archive."""


@dataclass(frozen=True)
class Limits:
    """How much an archive may unpack to.

    Attributes:
        total_bytes: of all its entries.
        entries: their number.
        ratio: how many times as much as the archive's size, all in all.
    """

    total_bytes: int
    entries: int = 50_000
    ratio: float = 100.0


def unpack(archive: Path, folder: Path, places: Mapping[str, str], limits: Limits) -> list[str]:
    """Unpack a zip file into a new folder.

    Args:
        archive: the file.
        folder: is made; whoever calls removes it after an error.
        places: where a folder (with ``/`` at its end) or a file of the archive goes, as in `fsat.download.published`.
        limits: what is refused.

    Returns:
        names of files that were left out, because they are in none of the places.

    Raises:
        FsatError: the archive is damaged or refused, or a place has no files; the message says why.
        OSError: a file cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
            if reason := why_refused(infos, archive.stat().st_size, limits):
                raise FsatError(f"{archive}: is not unpacked: {reason}")
            files = [info for info in infos if not info.is_dir()]
            wanted = [(info, place) for info in files if (place := _place(info.orig_filename, places))]
            for there, here in places.items():
                if not any(info.orig_filename.startswith(there) for info, _ in wanted):
                    raise FsatError(f"{archive}: is not unpacked: it has no {there}, which would be {here}")
            folder.mkdir()
            with Progress(f"unpacking {archive.name}", len(wanted)) as progress:
                for info, place in wanted:
                    _write(opened, info, folder / place)
                    progress.advance()
            return [info.orig_filename for info in files if not _place(info.orig_filename, places)]
    except _DAMAGE as error:
        raise FsatError(f"{archive}: cannot be unpacked: {printable(error)}; remove it, and give the same command "
                        "again") from error  # fmt: skip


def why_refused(infos: list[zipfile.ZipInfo], archive_bytes: int, limits: Limits) -> str:
    """Why an archive with these entries must not be unpacked; an empty string if it may."""
    if len(infos) > limits.entries:
        return f"it has {len(infos)} entries, expected {limits.entries} at most"
    files, folders = {}, set()
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
    total = sum(info.file_size for info in infos)
    if total > limits.total_bytes or total > limits.ratio * archive_bytes:
        return (f"{format_bytes(archive_bytes)} would become {format_bytes(total)} in {count(len(files), 'file')}, expected "
                f"{format_bytes(min(limits.total_bytes, limits.ratio * archive_bytes))} at most")  # fmt: skip
    return ""


def why_unsafe(name: str) -> str:
    """Why an entry's name must not become a path, on any system; an empty string if it may.

    >>> why_unsafe("audio/../../x.wav")
    'leads out of the folder'
    """
    parts = name.removesuffix("/").split("/")
    if not name.isprintable():
        return "has control characters"
    if not name or name == "/" or "" in parts[1:]:
        return "has an empty name"
    if parts[0] == "" or re.match("[A-Za-z]:", name):
        return "is an absolute path"
    if "\\" in name or ":" in name:
        return "has a \\ or : in it"
    if any(part in (".", "..") for part in parts):
        return "leads out of the folder"
    if any(part != part.strip(" ").rstrip(".") for part in parts):
        return "begins or ends with a blank or dot"
    if any(len(part.encode()) > 255 for part in parts) or len(name.encode()) > 1000:
        return "is too long"
    return ""


def _why_special(info: zipfile.ZipInfo) -> str:
    if info.filename != info.orig_filename:
        return "has two names"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG):
        return "is a link, a device, or not what its name says"
    if info.flag_bits & 0x41:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed in a way that is not expected (type {info.compress_type})"
    if info.is_dir() and info.file_size:
        return "is a folder with content"
    return ""


def _same(name: str) -> str:
    """What is the same for names that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _place(name: str, places: Mapping[str, str]) -> str:
    """Where a file goes; an empty string if it is left out, as are the notes of macOS (``._name``)."""
    if name in places:
        return places[name]
    for there, here in places.items():
        if there.endswith("/") and name.startswith(there) and not name.rpartition("/")[2].startswith("._"):
            return here + name.removeprefix(there)
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
        raise zipfile.BadZipFile(f"{info.filename!r} has {size} bytes, and says {info.file_size}")
