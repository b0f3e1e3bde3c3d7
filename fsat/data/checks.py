"""Is this file a clip? One pass over the names and headers of a table's clips, before anything is trained.

Every file is also hashed on the way, so that a dataset's digest speaks of the sounds and not only of their names.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fsat.data.audio import read_header
from fsat.errors import AudioError
from fsat.progress import Progress

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ClipFacts:
    """What is known of a clip without decoding it.

    Attributes:
        frames: length in samples per channel; 0 where the clip is unusable.
        samplerate: in Hz; 0 where the clip is unusable.
        digest: hash of the file's bytes; empty where the clip is unusable.
        reason: why the clip is unusable; empty where it is usable.
    """

    frames: int = 0
    samplerate: int = 0
    digest: str = ""
    reason: str = ""


def check_clips(folder: Path, fnames: Sequence[str], what: str) -> list[ClipFacts]:
    """Check every file of a table, in order.

    Args:
        folder: the folder that the names are relative to.
        fnames: file names as they stand in the table.
        what: what the progress line calls them, such as "training clips".
    """
    root = folder.resolve()
    facts = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, Progress(f"checking {what}", len(fnames)) as progress:
        for result in pool.map(lambda fname: check_clip(root, fname), fnames):
            facts.append(result)
            progress.advance()
    return facts


def check_clip(root: Path, fname: str) -> ClipFacts:
    """Check one file; `root` must be resolved."""
    reason = why_outside(root, fname)
    if reason:
        return ClipFacts(reason=reason)
    path = root / fname
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return ClipFacts(reason="not a regular file")
        if status.st_size == 0:
            return ClipFacts(reason="empty file")
        header = read_header(path)
        return ClipFacts(header.frames, header.samplerate, _hash_file(path))
    except FileNotFoundError:
        return ClipFacts(reason="missing file")
    except OSError as error:
        return ClipFacts(reason=f"unreadable file ({error.strerror or error})")
    except AudioError as error:
        return ClipFacts(reason=str(error))


def why_outside(root: Path, fname: str) -> str:
    """Why a name must not be opened, because it leads out of `root`; an empty string if it may."""
    if not fname.strip():
        return "the file name is empty"
    if "\0" in fname:
        return "the file name has a NUL in it"
    if "\r" in fname:
        return "the file name has a carriage return in it, which tables cannot keep: rename the file"
    if os.path.isabs(fname):
        return "leaves the folder (an absolute path)"
    if ".." in Path(fname).parts:
        return "leaves the folder (..)"
    try:
        if not (root / fname).resolve().is_relative_to(root):
            return "leaves the folder (a link out of it)"
    except (OSError, RuntimeError) as error:
        return f"unreadable file ({error})"
    return ""


def _hash_file(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
