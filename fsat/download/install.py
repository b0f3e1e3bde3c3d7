"""Download a published dataset or backbone into a folder, whole or not at all.

All work is in ``DIR/.downloads/``: archives and parts of them, ``unfinished/``, which starts again after a kill, and
``ready/`` with a folder for each unpacked archive, flushed to the disk. Once all is there, the files are renamed into
their place, the table of training clips or the backbone's descriptor last: if that exists, the download is complete.
Archives are fetched and unpacked one after the other and then removed, so that little more space is needed than for
what they become.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fsat.download.catalogue import PUBLISHED
from fsat.download.fetch import ZIP, fetch, shown
from fsat.download.published import Archive, Published
from fsat.download.unpack import unpack
from fsat.errors import ConfigError, DataError, FsatError, count
from fsat.files import disk_errors, format_bytes, held_lock, sync_folder, user_path
from fsat.progress import say

WORK, READY, UNFINISHED, LOCK, OWNER, NAME = ".downloads", "ready", "unfinished", "lock", "owner", "name"
AGAIN = "and give the same command again"


def download(
    name: str, folder: Path, base_url: str = "", keep_zips: bool = False, retries: int = 5, timeout: float = 30.0
) -> list[str]:
    """Download a dataset or backbone, or resume an interrupted download.

    Args:
        name: a key of `PUBLISHED`.
        folder: new, empty, or with an interrupted download of the same name.
        base_url: address of the archives instead of the publisher's server.
        keep_zips: leave the archives in ``.downloads/``.
        retries, timeout: as for `fsat.download.fetch.fetch`.

    Returns lines that say what was downloaded, its licence, how to cite it, and what to do next. Raises `ConfigError`
    for the address, `DataError` for other files in the folder or unexpected contents of the archives, and `FsatError`
    if it cannot be downloaded or written; what was received is kept.
    """
    published, folder = PUBLISHED[name], user_path(folder).absolute()
    if base_url and not base_url.lower().startswith(("http://", "https://")):
        raise ConfigError(f"base_url={shown(base_url)}: expected an address that begins with http:// or https://")
    work = folder / WORK
    advice, full = "fix that, or choose another folder", "finished archives are kept: make room"
    with disk_errors(folder, advice=f"{advice}, {AGAIN}", full=f"{full}, {AGAIN}"):
        if not (work / NAME).exists() and published.is_complete(folder):
            _remove_empty(work)
            return [f"{folder}: {published.title} is complete; nothing was downloaded", *published.summary(folder)]
        _check_folder(folder, name, published)
        work.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if not _check_folder(folder, name, published):
                (work / NAME).write_text(name)
            if not published.is_complete(folder):
                shutil.rmtree(work / UNFINISHED, ignore_errors=True)
                _check_space(folder, published, keep_zips)
                for archive in published.archives:
                    if not (work / READY / archive.name).exists():
                        mirror = f"{base_url.rstrip('/')}/{archive.name}" if base_url else ""
                        url = mirror or published.url(archive)
                        size, most, kind = archive.fetched_bytes, archive.most_bytes, archive.kind
                        fetch(url, work / archive.name, archive.checksum, size, most, retries, timeout, kind)
                        _unpack(work, published, archive)
                    if not keep_zips:
                        (work / archive.name).unlink(missing_ok=True)
                published.verify(_top_paths(work), f"remove {folder}, {AGAIN}")
                _put_in_place(work, published)
            _clean(work, published, keep_zips)
    return [f"{folder}: {published.title} is complete", *published.summary(folder)]


def _check_folder(folder: Path, name: str, published: Published) -> bool:
    """Return whether this download was begun in the folder; raise `DataError` if it has other files."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; expected a new or empty folder for {published.title}")
    marker = folder / WORK / NAME
    begun = marker.read_text() if marker.exists() else ""
    if begun not in ("", name):
        raise DataError(f"{folder}: has an interrupted download of {begun}; resume that, or choose another folder")
    known = {WORK, *(published.names if begun else ())}
    if other := sorted({path.name for path in (folder.iterdir() if folder.exists() else ())} - known):
        expected = f"expected a new or empty folder, or one with an interrupted download of {published.title}"
        raise DataError(f"{folder}: has other files in it, such as {other[0]}; {expected}")
    return bool(begun)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from downloading into the folder; `_clean` removes the lock."""
    owner = folder / WORK / OWNER
    process = owner.read_text() if owner.exists() else "another one"
    busy = f"{folder}: process {process} is downloading into it; wait for its end, or choose another folder"
    with held_lock(folder / WORK / LOCK, busy):
        try:
            owner.write_text(str(os.getpid()))
            yield
        finally:
            owner.unlink(missing_ok=True)


def _check_space(folder: Path, published: Published, keep_zips: bool) -> None:
    """Raise `FsatError` unless the disk has enough space, as far as sizes are known."""
    work, used, most = folder / WORK, 0, 0
    for archive in published.archives:
        if (work / READY / archive.name).exists():
            continue
        received = sum(path.stat().st_size for path in work.glob(archive.name + "*"))
        used += max(0, archive.fetched_bytes - received) + archive.unpacked_bytes
        most = max(most, used)
        used -= 0 if keep_zips else archive.fetched_bytes
    if most > (free := shutil.disk_usage(work).free):
        needs = f"{published.title} needs about {format_bytes(most)} more, {format_bytes(free)} are free"
        raise FsatError(f"{folder}: no space left: {needs}; make room, or choose a folder on another disk")


def _unpack(work: Path, published: Published, archive: Archive) -> None:
    """Unpack an archive into ``ready/``, whole or not at all; a file of another kind is put there as it is."""
    unfinished = work / UNFINISHED
    try:
        if archive.kind != ZIP:
            unfinished.mkdir()
            _link(work / archive.name, unfinished / archive.targets[archive.name])
        elif skipped := unpack(work / archive.name, unfinished, archive.targets, archive.most_bytes):
            say(f"{archive.name}: {count(len(skipped), 'file')} not needed, such as {skipped[0]}")
        published.finish(unfinished)
        os.sync()  # thousands of small files, before the archive is removed
        (work / READY).mkdir(exist_ok=True)
        os.rename(unfinished, work / READY / archive.name)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _link(path: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _top_paths(work: Path) -> dict[str, Path]:
    """Return the current path of each of `Published.names`: in ``ready/``, or in its place already."""
    paths = {path.name: path for path in work.parent.iterdir() if path.name != WORK}
    return paths | {path.name: path for path in work.glob(f"{READY}/*/*")}


def _put_in_place(work: Path, published: Published) -> None:
    """Rename the unpacked files into the folder, `Published.last` last."""
    paths = _top_paths(work)
    for top in sorted(published.names, key=lambda top: (top == published.last, top)):
        os.rename(paths[top], work.parent / top)
        sync_folder(work.parent)


def _clean(work: Path, published: Published, keep_zips: bool) -> None:
    """Remove the working files, the file with the name last, so that an interrupted download resumes here."""
    shutil.rmtree(work / READY, ignore_errors=True)
    zips = {work / archive.name for archive in published.archives if keep_zips}
    for path in sorted(set(work.iterdir()) - zips, key=lambda path: (path.name == NAME, path.name == LOCK)):
        path.unlink(missing_ok=True)
    _remove_empty(work)


def _remove_empty(work: Path) -> None:
    with suppress(OSError):  # it has archives, or does not exist
        work.rmdir()
