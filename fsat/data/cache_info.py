"""What the cache folder holds, for people who want to see it or have the space back."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fsat.data.clip_store import read_header
from fsat.data.sample import SAMPLE
from fsat.files import (
    INDEX,
    JOURNAL,
    MEMOS,
    REMOVED,
    UNFINISHED,
    Damaged,
    cache_dir,
    clips_dir,
    explained,
    in_bytes,
    lock_path,
    read_facts,
    remove,
)

_STORE = re.compile(rf"[0-9a-f]{{20}}({re.escape(UNFINISHED)}|{re.escape(REMOVED)})?")


@dataclass(frozen=True)
class Kept:
    """A clip store.

    Attributes:
        folder: where it is.
        size: in bytes.
        sampling_rate: in Hz; 0 if not known.
        clips: how many; 0 if not known.
        made, used: seconds since 1970; 0 if not known.
        note: what is odd about it.
    """

    folder: Path
    size: int
    sampling_rate: int = 0
    clips: int = 0
    made: float = 0.0
    used: float = 0.0
    note: str = ""


def list_cache() -> list[str]:
    """Lines that say what is in the cache: a table of the clip stores, the generated sounds, the total.

    Raises:
        FsatError: the cache folder cannot be read.
    """
    with explained(cache_dir()):
        stores = [_look(folder) for folder in _stores()]
        others = [("generated sounds", folder) for folder in _generated()] + [("notes of checks", f) for f in _memos()]
        sized = [(what, folder, _size(folder)) for what, folder in others]
    lines = []
    if stores:
        rows = [("rate", "clips", "size", "made", "last used", "folder")]
        rows += [
            (
                f"{kept.sampling_rate} Hz" if kept.sampling_rate else "?",
                str(kept.clips) if kept.sampling_rate else "?",
                in_bytes(kept.size),
                _when(kept.made),
                _when(kept.used),
                f"{kept.folder}{kept.note and f'  ({kept.note})'}",
            )
            for kept in stores
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for *cells, last in rows:
            cells = [cell.rjust(width) for cell, width in zip(cells, widths, strict=False)]
            lines.append("  ".join([*cells, last]))
    lines += [f"{what}: {in_bytes(size)} in {folder}" for what, folder, size in sized]
    total = sum(kept.size for kept in stores) + sum(size for *_, size in sized)
    return [*lines, f"total: {in_bytes(total)} in {cache_dir().absolute()}"]


def clear_cache(everything: bool = False) -> Iterator[str]:
    """Remove the clip stores that no process is making, and say line by line what is done.

    Args:
        everything: remove the generated sounds too.

    Raises:
        FsatError: a store cannot be removed.
    """
    from filelock import FileLock, Timeout

    freed = 0
    with explained(cache_dir()):
        stores, others = _stores(), [*_memos(), *(_generated() if everything else [])]
    for folder in stores:
        size = _size(folder)
        with explained(folder):
            lock = FileLock(lock_path(folder))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                yield f"{folder}: is being made by another process, and stays"
                continue
            try:
                if folder.exists():  # still
                    remove(folder)
                    freed += size
                    yield f"{folder}: removed"
            finally:
                lock.release()
    for folder in others:
        size = _size(folder)
        with explained(folder):
            remove(folder)
        freed += size
        yield f"{folder}: removed"
    yield f"freed: {in_bytes(freed)} in {cache_dir().absolute()}"


def _stores() -> list[Path]:
    return [folder for folder in _folders(clips_dir()) if _STORE.fullmatch(folder.name)]


def _generated() -> list[Path]:
    start = SAMPLE.rstrip("0123456789")
    return [folder for folder in _folders(cache_dir().absolute()) if folder.name.startswith(start)]


def _memos() -> list[Path]:
    return [folder for folder in _folders(cache_dir().absolute()) if folder.name in (MEMOS, MEMOS + REMOVED)]


def _folders(parent: Path) -> list[Path]:
    """Folders that are really in the cache: what a link leads to is somebody else's."""
    if not parent.is_dir() or not parent.resolve().is_relative_to(cache_dir().resolve()):
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())


def _look(folder: Path) -> Kept:
    size = _size(folder)
    if folder.name.endswith(REMOVED):
        return Kept(folder, size, note="half removed")
    try:
        if folder.name.endswith(UNFINISHED):
            with open(folder / JOURNAL, "rb") as journal:
                header = read_header(journal) or {}
                done = sum(1 for _ in journal)
            note = f"unfinished: {done} of {header.get('clips', '?')} clips"
            used = (folder / JOURNAL).stat().st_mtime
            return Kept(folder, size, header.get("sampling_rate", 0), done, used=used, note=note)
        facts = read_facts(folder / INDEX)
        used = (folder / INDEX).stat().st_mtime
        return Kept(folder, size, facts["sampling_rate"], len(facts["digests"]), facts["made"], used)
    except (OSError, Damaged):
        return Kept(folder, size, note="unfinished" if folder.name.endswith(UNFINISHED) else "damaged")


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if not path.is_dir() else 0
        except OSError:  # just removed
            continue
    return total


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"
