"""Copies of backbones in the cache folder, by digest, so that every process of a study finds the same file."""

from __future__ import annotations

from pathlib import Path

from fsat import files
from fsat.backbones.descriptor import DESCRIPTOR, Backbone, copy_backbone, read_backbone
from fsat.errors import FsatError


def library_dir() -> Path:
    """Return the folder of the copies."""
    return files.cache_dir().absolute() / "backbones"


def keep(backbone: Backbone) -> Backbone:
    """Return the copy of a backbone in the cache folder, which is made if needed; raise `FsatError` if it cannot be."""
    folder = library_dir() / backbone.digest
    if (copy := kept(backbone.digest)) is not None:
        return copy
    with files.cache_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(folder, f"copying the backbone {backbone.name}"):
            if (copy := kept(backbone.digest)) is not None:
                return copy
            if folder.exists():
                files.remove_store(folder)
            with files.new_folder(folder) as unfinished:
                copy_backbone(backbone, unfinished)
    return read_backbone(folder)


def kept(digest: str) -> Backbone | None:
    """Return the copy of the backbone with this digest; None if there is none, or it is not that backbone."""
    folder = library_dir() / digest
    if not (folder / DESCRIPTOR).exists():
        return None
    try:
        backbone = read_backbone(folder)
    except FsatError:
        return None
    return backbone if backbone.digest == digest and backbone.path.exists() else None
