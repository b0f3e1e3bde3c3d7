"""Where data comes from when nobody says: ``FSAT_DATA_DIR``, else generated sounds, made once."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from fsat.data.synth import write_dataset
from fsat.errors import DataError, FsatError
from fsat.files import cache_dir
from fsat.progress import say

SAMPLE = "generated-sounds-1"
"""Folder of the generated sounds in the cache; the number rises when they change."""


def data_dir_or_default(data_dir: str | None) -> Path:
    """The folder asked for, else ``FSAT_DATA_DIR``, else the generated sounds, which are made on first use."""
    if given := data_dir or os.environ.get("FSAT_DATA_DIR"):
        return Path(os.path.expanduser(given))
    folder = cache_dir() / SAMPLE
    if not folder.is_dir():
        say(f"no data_dir given: generating sounds in {folder}")
        write_sample(folder)
    return folder


def write_sample(folder: Path, **options: int) -> None:
    """Write generated sounds into a new or empty folder, whole or not at all.

    Args:
        folder: must not exist, or be empty.
        options: as `fsat.data.synth.write_dataset` takes them.

    Raises:
        DataError: the folder has something in it.
        FsatError: it cannot be written.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; expected a new or empty folder for the generated sounds")
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty; expected a new or empty folder for the generated sounds")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            write_dataset(unfinished, **options)
            unfinished.chmod(0o755)
            if folder.is_dir():  # it may be where the user stands: fill it, the table last
                for path in sorted(unfinished.iterdir(), key=lambda path: path.name == "train.csv"):
                    path.rename(folder / path.name)
                return
            try:
                os.rename(unfinished, folder)
            except OSError:  # another process was first
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise FsatError(f"{folder}: generated sounds cannot be written: {error.strerror or error}") from error
