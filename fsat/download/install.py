"""Downloading a published dataset into a folder that fsat reads, whole or not at all.

All work is in ``DIR/.downloads/``: archives and parts of them, ``unfinished/``, which is begun anew after a kill, and
``ready/``, whose folders hold what an archive has become, whole and on the disk. Once all is ready and every clip of
the tables is there, it is renamed into its place, the table of training clips last: where that is, the dataset is.
Archives are fetched and unpacked one after the other, and removed then, so that little more room is needed than the
dataset takes.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fsat.download.esc50 import META as ESC50_META
from fsat.download.esc50 import write_train_table
from fsat.download.fetch import fetch, shown
from fsat.download.placing import READY, WORK, is_whole, put_in_place, summary, tops_of, verify
from fsat.download.published import DATASETS, Archive, Dataset
from fsat.download.unpack import Limits, unpack
from fsat.errors import ConfigError, DataError, FsatError, count
from fsat.files import format_bytes
from fsat.progress import say

UNFINISHED, LOCK, OWNER, NAME = "unfinished", "lock", "owner", "dataset"


def download(
    name: str, folder: Path, base_url: str = "", keep_zips: bool = False, retries: int = 5, timeout: float = 30.0
) -> list[str]:
    """Download a dataset, or go on with that.

    Args:
        name: a key of `DATASETS`.
        folder: new, empty, or one in which the same download was interrupted.
        base_url: where the archives are instead of the publisher's server.
        keep_zips: leave the archives in ``.downloads/``.
        retries, timeout: as `fsat.download.fetch.fetch` takes them.

    Returns:
        what is there now, its licence, how to cite it, and what to do next, line by line.

    Raises:
        ConfigError: the address is none.
        DataError: the folder has other things in it, or the archives hold something else than expected.
        FsatError: the dataset cannot be had, or not be written; what has come is kept.
    """
    dataset, folder = DATASETS[name], Path(folder).expanduser().absolute()
    if base_url and not base_url.lower().startswith(("http://", "https://")):
        raise ConfigError(f"base_url={shown(base_url)}: expected an address that begins with http:// or https://")
    work = folder / WORK
    with _explained(folder):
        if not (work / NAME).exists() and is_whole(folder, dataset):
            _remove_empty(work)
            return [f"{folder}: {dataset.title} is there, and nothing was downloaded", *summary(folder, dataset)]
        _check_folder(folder, name, dataset)
        work.mkdir(parents=True, exist_ok=True)
        with _held(folder):
            if not _check_folder(folder, name, dataset):
                (work / NAME).write_text(name)
            if not is_whole(folder, dataset):
                shutil.rmtree(work / UNFINISHED, ignore_errors=True)
                _check_space(folder, dataset, keep_zips)
                for archive in dataset.archives:
                    if not (work / READY / archive.name).exists():
                        url = f"{base_url.rstrip('/')}/{archive.name}" if base_url else _address(dataset, archive)
                        size, most = archive.zip_bytes, archive.most_bytes
                        fetch(url, work / archive.name, archive.checksum, size, most, retries, timeout)
                        _unpack(work, dataset, archive)
                    if not keep_zips:
                        (work / archive.name).unlink(missing_ok=True)
                verify(work, dataset)
                put_in_place(work, dataset)
            _clean(work, keep_zips)
    return [f"{folder}: {dataset.title} is there", *summary(folder, dataset)]


def _address(dataset: Dataset, archive: Archive) -> str:
    return f"{dataset.base_url}/{archive.name}{dataset.query}"


def _check_folder(folder: Path, name: str, dataset: Dataset) -> bool:
    """Whether this download was begun in the folder; raises `DataError` where it was not, and is not empty."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; expected a new or empty folder for {dataset.title}")
    marker = folder / WORK / NAME
    before = marker.read_text() if marker.exists() else ""
    if before not in ("", name):
        raise DataError(f"{folder}: a download of {before} was begun there; go on with that, or choose another folder")
    known = {WORK, *(tops_of(dataset) if before else ())}
    if other := sorted({path.name for path in (folder.iterdir() if folder.exists() else ())} - known):
        raise DataError(f"{folder}: has other things in it, such as {other[0]}; expected a new or empty folder, or one "
                        f"in which the download of {dataset.title} was interrupted")  # fmt: skip
    return bool(before)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Let no other process work on the folder meanwhile; the lock is removed by who has finished it."""
    from filelock import FileLock, Timeout

    work = folder / WORK
    lock = FileLock(work / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        owner = (work / OWNER).read_text() if (work / OWNER).exists() else "another one"
        raise FsatError(
            f"{folder}: process {owner} downloads into it; wait for its end, or choose another folder"
        ) from None
    try:
        (work / OWNER).write_text(str(os.getpid()))
        yield
    finally:
        (work / OWNER).unlink(missing_ok=True)
        lock.release()


def _check_space(folder: Path, dataset: Dataset, keep_zips: bool) -> None:
    """Raise `FsatError` unless the disk has room, as far as sizes are known beforehand."""
    work, now, most = folder / WORK, 0, 0
    for archive in dataset.archives:
        if (work / READY / archive.name).exists():
            continue
        kept = sum(path.stat().st_size for path in work.glob(archive.name + "*"))
        now += max(0, archive.zip_bytes - kept) + archive.unpacked_bytes
        most = max(most, now)
        now -= 0 if keep_zips else archive.zip_bytes
    if most > (free := shutil.disk_usage(work).free):
        raise FsatError(f"{folder}: no space left: {dataset.title} needs about {format_bytes(most)} more, {format_bytes(free)} "
                        "are free; make room, or choose a folder on another disk")  # fmt: skip


def _unpack(work: Path, dataset: Dataset, archive: Archive) -> None:
    """Unpack an archive, so that it is ready or not there."""
    unfinished = work / UNFINISHED
    try:
        limits = Limits(archive.most_bytes)
        if left_out := unpack(work / archive.name, unfinished, archive.places, limits):
            say(f"{archive.name}: {count(len(left_out), 'file')} not needed, such as {left_out[0]}")
        if (unfinished / ESC50_META).exists():
            write_train_table(unfinished, dataset)
        os.sync()  # thousands of small files, before the archive is removed
        (work / READY).mkdir(exist_ok=True)
        os.rename(unfinished, work / READY / archive.name)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _clean(work: Path, keep_zips: bool) -> None:
    """Remove what was needed on the way, the name last, by which a download that was interrupted here goes on."""
    shutil.rmtree(work / READY, ignore_errors=True)
    kept = {archive for archive in work.glob("*.zip") if keep_zips}
    for path in sorted(set(work.iterdir()) - kept, key=lambda path: (path.name == NAME, path.name == LOCK)):
        path.unlink(missing_ok=True)
    _remove_empty(work)


def _remove_empty(work: Path) -> None:
    with suppress(OSError):  # there are archives in it, or it is not there
        work.rmdir()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn an OSError into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise FsatError(f"{folder}: no space left ({error.strerror}); what is finished is kept: make room, and "
                            "give the same command again") from error  # fmt: skip
        raise FsatError(f"{folder}: cannot be written: {error.strerror or error}; mend that, or choose another folder, "
                        "and give the same command again") from error  # fmt: skip
