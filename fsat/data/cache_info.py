"""List and clear the cache folder."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fsat.data.clip_store import clips_dir, read_header
from fsat.data.synth import SAMPLE
from fsat.files import (
    INDEX,
    JOURNAL,
    MEMOS,
    REMOVED,
    UNFINISHED,
    Damaged,
    cache_dir,
    cache_errors,
    format_bytes,
    lock_path,
    read_facts,
    remove_store,
    try_lock,
)

_STORE = re.compile(rf"[0-9a-f]{{20}}({re.escape(UNFINISHED)}|{re.escape(REMOVED)})?")


@dataclass(frozen=True)
class Store:
    """A clip store.

    Attributes:
        folder: its path.
        size: in bytes.
        sampling_rate: in Hz; 0 if not known.
        clips: number of clips; 0 if not known.
        made, used: seconds since 1970; 0 if not known.
        note: its state, unless it is finished and readable.
    """

    folder: Path
    size: int
    sampling_rate: int = 0
    clips: int = 0
    made: float = 0.0
    used: float = 0.0
    note: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of the table."""
        return (
            f"{self.sampling_rate} Hz" if self.sampling_rate else "?",
            str(self.clips) if self.sampling_rate else "?",
            format_bytes(self.size),
            _date(self.made),
            _date(self.used),
            f"{self.folder}{self.note and f'  ({self.note})'}",
        )


def list_cache() -> list[str]:
    """Return the contents of the cache line by line: a table of the clip stores, generated sounds, the total.

    Raises:
        FsatError: the cache folder cannot be read.
    """
    with cache_errors(cache_dir()):
        stores = [_read_store(folder) for folder in _stores()]
        others = [("generated sounds", folder, _size(folder)) for folder in _generated()]
        others += [("notes of checks", folder, _size(folder)) for folder in _memos()]
    lines = []
    if stores:
        rows = [("rate", "clips", "size", "made", "last used", "folder"), *(store.cells for store in stores)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for *cells, last in rows:
            lines.append("  ".join([*(cell.rjust(width) for cell, width in zip(cells, widths, strict=False)), last]))
    lines += [f"{name}: {format_bytes(size)} in {folder}" for name, folder, size in others]
    total = sum(store.size for store in stores) + sum(size for *_, size in others)
    return [*lines, f"total: {format_bytes(total)} in {cache_dir().absolute()}"]


def clear_cache(everything: bool = False) -> Iterator[str]:
    """Remove the clip stores that no process is building; yields one line per folder.

    Args:
        everything: remove the generated sounds too.

    Raises:
        FsatError: a store cannot be removed.
    """
    freed = 0
    with cache_errors(cache_dir()):
        stores, others = _stores(), [*_memos(), *(_generated() if everything else [])]
    for folder in stores:
        with cache_errors(folder), try_lock(lock_path(folder)) as held:
            if not held:
                yield f"{folder}: kept, because another process is building it"
            elif folder.exists():
                freed += _remove(folder)
                yield f"{folder}: removed"
    for folder in others:
        with cache_errors(folder):
            freed += _remove(folder)
        yield f"{folder}: removed"
    yield f"freed: {format_bytes(freed)} in {cache_dir().absolute()}"


def _remove(folder: Path) -> int:
    """Remove a folder and return its size in bytes."""
    size = _size(folder)
    remove_store(folder)
    return size


def _stores() -> list[Path]:
    return [folder for folder in _folders(clips_dir()) if _STORE.fullmatch(folder.name)]


def _generated() -> list[Path]:
    prefix = SAMPLE.rstrip("0123456789")
    return [folder for folder in _folders(cache_dir().absolute()) if folder.name.startswith(prefix)]


def _memos() -> list[Path]:
    return [folder for folder in _folders(cache_dir().absolute()) if folder.name in (MEMOS, MEMOS + REMOVED)]


def _folders(parent: Path) -> list[Path]:
    """Return the folders in `parent`, without links out of the cache."""
    if not parent.is_dir() or not parent.resolve().is_relative_to(cache_dir().resolve()):
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())


def _read_store(folder: Path) -> Store:
    size = _size(folder)
    if folder.name.endswith(REMOVED):
        return Store(folder, size, note="half removed")
    unfinished = folder.name.endswith(UNFINISHED)
    try:
        if unfinished:
            with open(folder / JOURNAL, "rb") as journal:
                header, clips = read_header(journal), sum(1 for _ in journal)
            note = f"unfinished: {clips} of {header.get('clips', '?')} clips"
            used = (folder / JOURNAL).stat().st_mtime
            return Store(folder, size, header.get("sampling_rate", 0), clips, used=used, note=note)
        if facts := read_facts(folder / INDEX):
            used = (folder / INDEX).stat().st_mtime
            return Store(folder, size, facts["sampling_rate"], len(facts["digests"]), facts["made"], used)
    except (OSError, Damaged):
        pass
    return Store(folder, size, note="unfinished" if unfinished else "damaged")


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if not path.is_dir() else 0
        except OSError:  # just removed
            continue
    return total


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"
