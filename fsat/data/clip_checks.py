"""Is this file a clip? One pass over the names and headers of a table's clips, before anything is trained.

Every file is also hashed on the way, so that a dataset's digest speaks of the sounds and not only of their names. What
was found is noted in the cache folder, and a file that has not been touched since is not read again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from fsat.data.audio import read_header
from fsat.errors import AudioError
from fsat.files import MEMOS, Damaged, cache_dir, key_of, read_facts, write_facts
from fsat.progress import Progress

CHECKS = 1
"""Raised when files that were usable clips would be so no more, or would be hashed otherwise."""

RACY_SECONDS = 2.0
"""A file that was changed this short a time ago may be changed again without that its times show it."""

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ClipFacts:
    """What is known of a clip without decoding it.

    Attributes:
        frames: length in samples per channel; 0 where the clip is unusable.
        samplerate: in Hz; 0 where the clip is unusable.
        digest: hash of the file's bytes; empty where the clip is unusable.
        reason: why the clip is unusable; empty where it is usable.
        stamp: what tells whether the file was changed since; empty where the clip is unusable.
    """

    frames: int = 0
    samplerate: int = 0
    digest: str = ""
    reason: str = ""
    stamp: tuple[int, ...] = ()


def check_clips(folder: Path, fnames: Sequence[str], what: str) -> list[ClipFacts]:
    """Check every file of a table, in order.

    Args:
        folder: the folder that the names are relative to.
        fnames: file names as they stand in the table.
        what: what the progress line calls them, such as "training clips".
    """
    root = folder.resolve()
    facts, known = [], _recall(root)
    now = time.time()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, Progress(f"checking {what}", len(fnames)) as progress:
        for result in pool.map(lambda fname: check_clip(root, fname, known), fnames):
            facts.append(result)
            progress.advance()
    _remember(root, dict(zip(fnames, facts, strict=True)), known, now)
    return facts


def check_clip(root: Path, fname: str, known: Mapping[str, ClipFacts] | None = None) -> ClipFacts:
    """Check one file; `root` must be resolved.

    Args:
        root: the folder that the name is relative to.
        fname: as it stands in the table.
        known: facts of files that need not be read again if their stamp is the same.
    """
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
        stamp = stamp_of(status)
        if known and (facts := known.get(fname)) and facts.stamp == stamp:
            return facts
        header = read_header(path)
        return ClipFacts(header.frames, header.samplerate, hash_file(path), stamp=stamp)
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


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Size, times of change in ns, and inode: another file, or another content, has another stamp."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def hash_file(path: Path) -> str:
    """Hash of a file's bytes; raises OSError."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def memo_path(root: Path) -> Path:
    """Where it is noted what was found in a folder."""
    return cache_dir().absolute() / MEMOS / f"{key_of(str(root))}.json"


def _recall(root: Path) -> dict[str, ClipFacts]:
    """What was found in this folder before; nothing where that cannot be read, as it is only a memo."""
    try:
        memo = read_facts(memo_path(root))
    except (OSError, Damaged):
        return {}
    if memo.get("checks") != CHECKS or memo.get("folder") != str(root):
        return {}
    return {fname: ClipFacts(*facts, stamp=tuple(stamp)) for fname, (*facts, stamp) in memo["files"].items()}


def _remember(root: Path, found: dict[str, ClipFacts], known: dict[str, ClipFacts], now: float) -> None:
    """Note what was found of usable clips; where that cannot be written, the next run reads the files again."""
    settled = 1e9 * (now - RACY_SECONDS)
    sure = {fname: facts for fname, facts in found.items() if not facts.reason and max(facts.stamp[1:3]) < settled}
    if sure == known:
        return
    with suppress(OSError):
        path = memo_path(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        files = {fname: astuple(facts) for fname, facts in sure.items()}
        write_facts(path, {"checks": CHECKS, "folder": str(root), "files": files})
