"""Copies of backbones in the cache folder, by digest, so that every process of a study finds the same file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fsat import files
from fsat.backbones.descriptor import Backbone, content_sha256, copy_backbone, read_backbone
from fsat.errors import FsatError
from fsat.progress import say

Stamps = tuple[tuple[Path, int, int, int], ...]
"""Path, size in bytes, time of change in ns, and number of each file of a folder."""


def library_dir() -> Path:
    """Return the folder of the copies."""
    return files.cache_dir().absolute() / "backbones"


def keep(backbone: Backbone) -> Backbone:
    """Return the copy of a backbone in the cache folder, which is made if needed; raise `FsatError` if it cannot be."""
    folder = library_dir() / backbone.digest
    if (copy := kept(backbone.digest)) is not None:
        return copy
    with files.cache_errors(folder, lambda: sum(size for _, size, *_ in _stamps(backbone.path))):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(folder, f"copying the backbone {backbone.name}"):
            if (copy := kept(backbone.digest)) is None:
                _copy(backbone, folder)
    return copy or read_backbone(folder)


def _copy(backbone: Backbone, folder: Path) -> None:
    """Copy a backbone in place of what the folder has; raises OSError if the disk is full."""
    try:
        with files.new_folder(folder) as unfinished:
            copy_backbone(backbone, unfinished)
            if folder.exists():
                files.remove_store(folder)
    except FsatError as error:
        if isinstance(error.__cause__, OSError) and files.is_full(error.__cause__):
            raise error.__cause__ from None
        raise


def kept(digest: str) -> Backbone | None:
    """Return the copy of the backbone with this digest; None if there is none, or it is damaged, which is printed."""
    folder = library_dir() / digest
    try:
        return _read(folder, _stamps(folder)) if folder.exists() else None
    except OSError:  # another process is replacing it
        return None


@cache
def _read(folder: Path, stamps: Stamps) -> Backbone | None:
    """Return the copy in a folder, None if it is damaged; its SHA-256 is computed once for the same stamps."""
    try:
        backbone = read_backbone(folder)
        if backbone.digest == folder.name and content_sha256(backbone.path) == backbone.sha256:
            return backbone
    except FsatError:
        pass
    say(f"{folder}: this copy of a backbone is damaged, and will be replaced by another copy of the original")
    return None


def _stamps(path: Path) -> Stamps:
    facts = [(file, file.stat()) for file in (path, *sorted(path.rglob("*")))]
    return tuple((file, fact.st_size, fact.st_mtime_ns, fact.st_ino) for file, fact in facts)
