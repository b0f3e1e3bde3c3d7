"""Download a published dataset into a data folder, whole or not at all.

All work is in ``DIR/.downloads/``: archives and parts of them, ``unfinished/``, which starts again after a kill, and
``ready/`` with a folder for each unpacked archive, flushed to the disk. Once every clip of the tables is there, the
files are renamed into their place, the table of training clips last: if that exists, the dataset is complete. Archives
are fetched and unpacked one after the other and then removed, so that little more space is needed than for the dataset.
"""

from __future__ import annotations

import csv
import os
import shlex
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fsat.download.fetch import fetch, shown
from fsat.download.published import DATASETS, Archive, Dataset
from fsat.download.unpack import unpack
from fsat.errors import AudioError, ConfigError, DataError, FsatError, count
from fsat.files import disk_errors, format_bytes, held_lock, sync_folder
from fsat.progress import say

WORK, READY, UNFINISHED, LOCK, OWNER, NAME = ".downloads", "ready", "unfinished", "lock", "owner", "dataset"
AGAIN = "and give the same command again"


def download(
    name: str, folder: Path, base_url: str = "", keep_zips: bool = False, retries: int = 5, timeout: float = 30.0
) -> list[str]:
    """Download a dataset, or resume an interrupted download.

    Args:
        name: a key of `DATASETS`.
        folder: new, empty, or with an interrupted download of the same dataset.
        base_url: address of the archives instead of the publisher's server.
        keep_zips: leave the archives in ``.downloads/``.
        retries, timeout: as for `fsat.download.fetch.fetch`.

    Returns lines that say what was downloaded, its licence, how to cite it, and what to do next. Raises `ConfigError`
    for the address, `DataError` for other files in the folder or unexpected contents of the archives, and `FsatError`
    if the dataset cannot be downloaded or written; what was received is kept.
    """
    dataset, folder = DATASETS[name], Path(folder).expanduser().absolute()
    if base_url and not base_url.lower().startswith(("http://", "https://")):
        raise ConfigError(f"base_url={shown(base_url)}: expected an address that begins with http:// or https://")
    work = folder / WORK
    advice, full = "fix that, or choose another folder", "finished archives are kept: make room"
    with disk_errors(folder, advice=f"{advice}, {AGAIN}", full=f"{full}, {AGAIN}"):
        if not (work / NAME).exists() and is_complete(folder, dataset):
            _remove_empty(work)
            return [f"{folder}: {dataset.title} is complete; nothing was downloaded", *_summary(folder, dataset)]
        _check_folder(folder, name, dataset)
        work.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if not _check_folder(folder, name, dataset):
                (work / NAME).write_text(name)
            if not is_complete(folder, dataset):
                shutil.rmtree(work / UNFINISHED, ignore_errors=True)
                _check_space(folder, dataset, keep_zips)
                for archive in dataset.archives:
                    if not (work / READY / archive.name).exists():
                        own = f"{dataset.base_url}/{archive.name}{dataset.query}"
                        url = f"{base_url.rstrip('/')}/{archive.name}" if base_url else own
                        size, most = archive.zip_bytes, archive.most_bytes
                        fetch(url, work / archive.name, archive.checksum, size, most, retries, timeout)
                        _unpack(work, dataset, archive)
                    if not keep_zips:
                        (work / archive.name).unlink(missing_ok=True)
                _verify(work, dataset)
                _put_in_place(work, dataset)
            _clean(work, keep_zips)
    return [f"{folder}: {dataset.title} is complete", *_summary(folder, dataset)]


def is_complete(folder: Path, dataset: Dataset) -> bool:
    """Return whether the table of training clips and all clips of the tables exist."""
    try:
        fnames = {row["fname"] for row in _rows(folder / dataset.table)}
        return len(fnames) == dataset.counts[dataset.table] and all(
            {row["fname"] for row in _rows(folder / table)} <= set(os.listdir(folder / audio))
            for table, audio in dataset.tables.items()
        )
    except (FileNotFoundError, NotADirectoryError, KeyError, ValueError):
        return False


def _check_folder(folder: Path, name: str, dataset: Dataset) -> bool:
    """Return whether this download was begun in the folder; raise `DataError` if it has other files."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; expected a new or empty folder for {dataset.title}")
    marker = folder / WORK / NAME
    begun = marker.read_text() if marker.exists() else ""
    if begun not in ("", name):
        raise DataError(f"{folder}: has an interrupted download of {begun}; resume that, or choose another folder")
    known = {WORK, *(_top_names(dataset) if begun else ())}
    if other := sorted({path.name for path in (folder.iterdir() if folder.exists() else ())} - known):
        expected = f"expected a new or empty folder, or one with an interrupted download of {dataset.title}"
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


def _check_space(folder: Path, dataset: Dataset, keep_zips: bool) -> None:
    """Raise `FsatError` unless the disk has enough space, as far as sizes are known."""
    work, used, most = folder / WORK, 0, 0
    for archive in dataset.archives:
        if (work / READY / archive.name).exists():
            continue
        received = sum(path.stat().st_size for path in work.glob(archive.name + "*"))
        used += max(0, archive.zip_bytes - received) + archive.unpacked_bytes
        most = max(most, used)
        used -= 0 if keep_zips else archive.zip_bytes
    if most > (free := shutil.disk_usage(work).free):
        needs = f"{dataset.title} needs about {format_bytes(most)} more, {format_bytes(free)} are free"
        raise FsatError(f"{folder}: no space left: {needs}; make room, or choose a folder on another disk")


def _unpack(work: Path, dataset: Dataset, archive: Archive) -> None:
    """Unpack an archive into ``ready/``, whole or not at all."""
    unfinished = work / UNFINISHED
    try:
        if skipped := unpack(work / archive.name, unfinished, archive.targets, archive.most_bytes):
            say(f"{archive.name}: {count(len(skipped), 'file')} not needed, such as {skipped[0]}")
        if dataset.prepare:
            dataset.prepare(unfinished, dataset)
        os.sync()  # thousands of small files, before the archive is removed
        (work / READY).mkdir(exist_ok=True)
        os.rename(unfinished, work / READY / archive.name)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _top_names(dataset: Dataset) -> list[str]:
    """Return the names in the finished data folder, the one with the table of training clips last."""
    tops = {target.split("/")[0] for archive in dataset.archives for target in archive.targets.values()}
    tops |= {table.split("/")[0] for table in dataset.tables}
    return sorted(tops, key=lambda top: (top == dataset.table.split("/")[0], top))


def _top_paths(work: Path) -> dict[str, Path]:
    """Return the current path of each of `_top_names`: in ``ready/``, or in its place already."""
    paths = {path.name: path for path in work.parent.iterdir() if path.name != WORK}
    return paths | {path.name: path for path in work.glob(f"{READY}/*/*")}


def _verify(work: Path, dataset: Dataset) -> None:
    """Raise `DataError` unless the tables have the expected number of clips, and every clip exists."""
    again, tops = f"remove {work.parent}, {AGAIN}", _top_paths(work)
    for table, audio in dataset.tables.items():
        top, _, rest = table.partition("/")
        fnames = [row.get("fname") or "" for row in _rows(tops[top] / rest if rest else tops[top])]
        if len(set(fnames)) != dataset.counts[table]:
            clips = count(len(set(fnames)), "clip")
            raise DataError(f"{table}: has {clips}, expected {dataset.counts[table]}; {again}")
        if missing := sorted(set(fnames) - set(os.listdir(tops[audio]))):
            lack = f"{count(len(missing), 'clip')} of {len(fnames)} not in {audio}/, such as {missing[0]}"
            raise DataError(f"{table}: {lack}; {again}")
        if dataset.wav:
            _check_audio(tops[audio], fnames, dataset.wav)


def _check_audio(folder: Path, fnames: list[str], wav: tuple[int, int]) -> None:
    """Raise `DataError` unless every clip has this length in samples and rate in Hz."""
    from fsat.data.audio import read_header

    expected = f"expected {wav[0]} samples at {wav[1]} Hz"
    for fname in fnames:
        try:
            header = read_header(folder / fname)
        except AudioError as error:
            raise DataError(f"{fname}: {error}; {expected}") from error
        if (header.frames, header.samplerate) != wav:
            raise DataError(f"{fname}: has {header.frames} samples at {header.samplerate} Hz, {expected}")


def _put_in_place(work: Path, dataset: Dataset) -> None:
    """Rename the unpacked files into the data folder, the table of training clips last."""
    paths = _top_paths(work)
    for top in _top_names(dataset):
        os.rename(paths[top], work.parent / top)
        sync_folder(work.parent)


def _clean(work: Path, keep_zips: bool) -> None:
    """Remove the working files, the dataset's name last, so that an interrupted download resumes here."""
    shutil.rmtree(work / READY, ignore_errors=True)
    zips = {archive for archive in work.glob("*.zip") if keep_zips}
    for path in sorted(set(work.iterdir()) - zips, key=lambda path: (path.name == NAME, path.name == LOCK)):
        path.unlink(missing_ok=True)
    _remove_empty(work)


def _remove_empty(work: Path) -> None:
    with suppress(OSError):  # it has archives, or does not exist
        work.rmdir()


def _summary(folder: Path, dataset: Dataset) -> list[str]:
    """Return lines with the number of clips, licence, citation, and what to do next."""
    rows = _rows(folder / dataset.table)
    sizes = [f"{dataset.counts[table]:,} clips in {audio}/" for table, audio in dataset.tables.items()]
    lines = [
        f"clips: {', '.join(sizes)}, of {len({row['label'] for row in rows})} classes",
        f"licence: {dataset.licence}",
        f"cite: {dataset.citation}",
    ]
    if dataset.n_folds:
        folds = defaultdict(set)
        for row in rows:
            folds[row["freesound_id"]].add(row["fold"])
        split = sorted(recording for recording, values in folds.items() if len(values) > 1)
        several = f"{count(len(split), 'recording')} with clips in more than one ({', '.join(split)})"
        lines += [f"folds: as published, {several}; -P folds=stratified keeps recordings together"] * bool(split)
    return [*lines, f"next: mlflow run . -P data_dir={shlex.quote(str(folder))}"]


def _rows(table: Path) -> list[dict[str, str]]:
    with open(table, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
