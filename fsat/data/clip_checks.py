"""Check the names and headers of a table's clips in one pass, before any training.

Every file is also hashed, so that a dataset's digest depends on the sounds and not only on their names. The results
are kept in the cache folder, and a file that has not changed since is not read again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from fsat.data.audio import read_header
from fsat.data.byte_source import MISSING, OWN_FAULTS, identity_of
from fsat.data.clip_names import stored_name
from fsat.errors import LINK_OUT, AudioError, DataError, StorageError
from fsat.files import MEMOS, Damaged, cache_dir, hash_file, key_of, read_facts, write_facts
from fsat.progress import Progress

CHECKS = 2  # raised when files that were usable clips no longer are, or are hashed differently
RACY_SECONDS = 2.0  # a file changed within this time may change again without a change of its times


@dataclass(frozen=True)
class ClipFacts:
    """Facts of a clip that need no decoding.

    Length in samples per channel, rate in Hz, hash of the file's bytes, and a stamp that differs if the file was
    changed since; or the reason why the clip is unusable.
    """

    frames: int = 0
    samplerate: int = 0
    digest: str = ""
    reason: str = ""
    stamp: tuple[int, ...] = ()


def check_clips(folder: Path, fnames: Sequence[str], description: str, anywhere: bool = False) -> list[ClipFacts]:
    """Check every file of a table, in order.

    Args:
        folder: that of the clips.
        fnames: names relative to it, or absolute.
        description: of the clips in the progress line, such as "training clips".
        anywhere: whether names may lead out of the folder, as those that a user gives for his own files.
    """
    root, facts = folder.resolve(), []
    identity = identity_of(root)
    known, now = _read_memo(root), time.time()
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(f"checking {description}", len(fnames)) as progress:
        for result in pool.map(lambda fname: check_clip(root, fname, known, anywhere), fnames):
            facts.append(result)
            progress.advance()
    if identity_of(root) != identity:
        raise DataError(f"{root}: the folder went away while its clips were checked; connect it again and run again")
    _write_memo(root, dict(zip(fnames, facts, strict=True)), known, now)
    return facts


def check_clip(
    root: Path, fname: str, known: Mapping[str, ClipFacts] | None = None, anywhere: bool = False
) -> ClipFacts:
    """Check a file in a resolved folder, or `anywhere`; `known` facts are returned unread if the stamp is the same."""
    name = stored_name(root, fname)
    if anywhere and "\0" in name:
        return ClipFacts(reason="the file name has a NUL in it")
    if not anywhere and (reason := why_outside(root, name)):
        return ClipFacts(reason=reason)
    path = root / name
    try:
        stamp = stamp_of(os.stat(path))
        if known and (facts := known.get(fname)) and facts.stamp == stamp:
            return facts
        header = read_header(path)
        return ClipFacts(header.frames, header.samplerate, hash_file(path), stamp=stamp)
    except FileNotFoundError:
        return ClipFacts(reason=MISSING)
    except OSError as error:
        if error.errno not in OWN_FAULTS:
            raise DataError(f"{path}: the file system failed ({error.strerror}); fix that and run again") from error
        return ClipFacts(reason=f"unreadable file ({error.strerror or error})")
    except StorageError as error:
        raise DataError(f"{path}: {error}; fix that and run again") from error
    except AudioError as error:
        return ClipFacts(reason=str(error))


def why_outside(root: Path, fname: str) -> str:
    """Return the reason why a file name must not be opened below `root`; an empty string if it may."""
    for bad, reason in (
        (not fname.strip(), "the file name is empty"),
        ("\0" in fname, "the file name has a NUL in it"),
        ("\r" in fname, "the file name has a carriage return in it, which tables cannot keep: rename the file"),
        (os.path.isabs(fname), "leaves the folder (an absolute path)"),
        (".." in Path(fname).parts, "leaves the folder (..)"),
    ):
        if bad:
            return reason
    try:
        if not (root / fname).resolve().is_relative_to(root):
            return LINK_OUT if (root / fname).exists() else "leaves the folder (a link to a missing file)"
    except (OSError, RuntimeError) as error:
        return f"unreadable file ({error})"
    return ""


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Return size, times of change in ns, and inode, which differ for another file or another content."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def memo_path(root: Path) -> Path:
    """Return the file with the results of earlier checks of a folder."""
    return cache_dir().absolute() / MEMOS / f"{key_of(str(root))}.json"


def _read_memo(root: Path) -> dict[str, ClipFacts]:
    """Return the results of earlier checks of this folder; none if they cannot be read."""
    try:
        memo = read_facts(memo_path(root)) or {}
    except Damaged:
        return {}
    if memo.get("checks") != CHECKS or memo.get("folder") != str(root):
        return {}
    rows: dict[str, list[Any]] = memo["files"]
    return {fname: replace(ClipFacts(*row), stamp=tuple(row[-1])) for fname, row in rows.items()}


def _write_memo(root: Path, checked: dict[str, ClipFacts], known: dict[str, ClipFacts], now: float) -> None:
    """Keep the results of usable clips; if they cannot be written, the next run reads the files again."""
    latest = 1e9 * (now - RACY_SECONDS)
    certain = {fname: facts for fname, facts in checked.items() if not facts.reason and max(facts.stamp[1:3]) < latest}
    certain = {fname: facts for fname, facts in known.items() if fname not in checked} | certain
    if certain == known:
        return
    with suppress(OSError):
        path = memo_path(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        files = {fname: astuple(facts) for fname, facts in certain.items()}
        write_facts(path, {"checks": CHECKS, "folder": str(root), "files": files})
