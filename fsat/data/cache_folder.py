"""List and clear the cache folder."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from fsat import files
from fsat.data.annotated_clips import ANNOTATED
from fsat.data.clip_store import clips_dir, read_header
from fsat.data.synth import SAMPLE
from fsat.errors import count
from fsat.files import INDEX, JOURNAL, MEMOS, REMOVED, UNFINISHED, Damaged, read_facts

_SUFFIX = f"({re.escape(UNFINISHED)}|{re.escape(REMOVED)})?"
_STORE = re.compile(f"[0-9a-f]{{20}}{_SUFFIX}")
COPIES = {"embeddings": _STORE, ANNOTATED: _STORE, "backbones": re.compile(f"[0-9a-f]{{16}}{_SUFFIX}")}
"""Folders of the cache with embeddings, clips cut out of recordings and backbones, and the names in them."""


def list_cache() -> list[str]:
    """Return the contents of the cache line by line: a table of the clip stores, generated sounds, the total."""
    with files.cache_errors(files.cache_dir()):
        stores, generated, others = _contents()
        sizes = {folder: _size(folder) for folder in [*stores, *generated, *others]}
        rows = [_row(folder, sizes[folder]) for folder in stores]
    lines = []
    if rows:
        rows.insert(0, ("rate", "clips", "size", "made", "last used", "folder"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for *cells, last in rows:
            lines.append("  ".join([*(cell.rjust(width) for cell, width in zip(cells, widths, strict=False)), last]))
    for folder in [*generated, *others]:
        name = "generated sounds" if folder in generated else _kind(folder)
        lines.append(f"{name}: {files.format_bytes(sizes[folder])} in {folder}")
    return [*lines, f"total: {files.format_bytes(sum(sizes.values()))} in {files.cache_dir().absolute()}"]


def clear_cache(everything: bool = False) -> Iterator[str]:
    """Remove what no process is building, with `everything` generated sounds too; yields the report."""
    freed = 0
    with files.cache_errors(files.cache_dir()):
        stores, generated, others = _contents()
    for folder in [*stores, *others, *(generated if everything else [])]:
        is_shared = folder in stores or folder.parent.name in COPIES
        lock = files.try_lock(files.lock_path(folder)) if is_shared else nullcontext(True)
        with files.cache_errors(folder), lock as held:
            if not held:
                yield f"{folder}: kept, because another process is building it"
            elif folder.exists():
                freed += _size(folder)
                files.remove_store(folder)
                yield f"{folder}: removed"
    yield f"freed: {files.format_bytes(freed)} in {files.cache_dir().absolute()}"


def _contents() -> tuple[list[Path], list[Path], list[Path]]:
    """Return the folders of clip stores, of generated sounds, and others: results of checks, and `COPIES`."""
    cache, prefix = files.cache_dir().absolute(), SAMPLE.rstrip("0123456789")
    folders = _folders(cache)
    stores = [folder for folder in _folders(clips_dir()) if _STORE.fullmatch(folder.name)]
    others = [folder for folder in folders if folder.name in (MEMOS, MEMOS + REMOVED)]
    for name, pattern in COPIES.items():
        others += [folder for folder in _folders(cache / name) if pattern.fullmatch(folder.name)]
    return stores, [folder for folder in folders if folder.name.startswith(prefix)], others


def _kind(folder: Path) -> str:
    """Return what a folder that is neither a clip store nor generated sounds has."""
    if folder.parent.name not in COPIES:
        return "notes of checks"
    header: dict[str, Any] = {}
    if folder.parent.name == "embeddings":
        with suppress(OSError), open(folder / JOURNAL, "rb") as journal:
            header = read_header(journal)
    if folder.parent.name == ANNOTATED:
        return "clips of annotated recordings"
    return f"embeddings by {header['backbone']}" if "backbone" in header else folder.parent.name


def _folders(parent: Path) -> list[Path]:
    """Return the folders in `parent`, without links out of the cache."""
    if not parent.is_dir() or not parent.resolve().is_relative_to(files.cache_dir().resolve()):
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())


def _row(folder: Path, size: int) -> tuple[str, ...]:
    """Return rate, clips, size, dates and folder of a clip store, with ? for what is not known."""
    unfinished = folder.name.endswith(UNFINISHED)
    rate, clips, made, used, note = 0, 0, 0.0, 0.0, "unfinished" if unfinished else "damaged"
    with suppress(OSError, Damaged):
        if unfinished:
            with open(folder / JOURNAL, "rb") as journal:
                header, clips = read_header(journal), sum(1 for _ in journal)
            rate, used = header.get("sampling_rate", 0), (folder / JOURNAL).stat().st_mtime
            note = f"unfinished: {clips} of {count(header['clips'], 'clip') if 'clips' in header else '? clips'}"
        elif folder.name.endswith(REMOVED):
            note = "half removed"
        elif facts := read_facts(folder / INDEX):
            rate, clips, made, note = facts["sampling_rate"], len(facts["digests"]), facts["made"], ""
            used = (folder / INDEX).stat().st_mtime
    known = (f"{rate} Hz", str(clips)) if rate else ("?", "?")
    return (*known, files.format_bytes(size), _date(made), _date(used), f"{folder}{note and f'  ({note})'}")


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # just removed
            total += path.lstat().st_size if not path.is_dir() else 0
    return total


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"
