"""Published datasets that fsat can download: addresses, checksums, licences, citations.

Sources: FSDKaggle2018 is record 2552860 at Zenodo, which publishes the MD5 of its files. ESC-50 has no releases; GitHub
packs the archive of a commit on request. The SHA-256 of that archive is not published: several projects that pin the
same commit have recorded it independently. Sizes of FSDKaggle2018 are estimates, rounded up, from 4.6 GiB of archives
and 18 hours of training clips; they are used to check the disk space.
"""

from __future__ import annotations

import csv
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fsat.download.published import Archive, Published
from fsat.errors import AudioError, DataError, count
from fsat.text import why_not_a_label

ESC50_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"
ESC50_TABLE = "meta/esc50.csv"


@dataclass(frozen=True, kw_only=True)
class Dataset(Published):
    """A published dataset.

    Attributes:
        tables: for each table of clips, the folder of its clips; the first one makes the folder a dataset, and is put
            in its place last.
        counts: number of clips of each table.
        wav: length in samples and rate in Hz of every clip, if all are alike.
        n_folds: number of folds with equally many clips, numbered from 1; 0 for none.
        prepare: called with the folder of an unpacked archive and the dataset, if the archive needs more work.
    """

    tables: Mapping[str, str]
    counts: Mapping[str, int]
    wav: tuple[int, int] | None = None
    n_folds: int = 0
    prepare: Callable[[Path, Dataset], None] | None = None

    @property
    def table(self) -> str:
        """The table of training clips."""
        return next(iter(self.tables))

    @property
    def last(self) -> str:
        """The table of training clips, or its folder."""
        return self.table.split("/")[0]

    def is_complete(self, folder: Path) -> bool:
        """Return whether the table of training clips and all clips of the tables exist."""
        try:
            fnames = {row["fname"] for row in _rows(folder / self.table)}
            return len(fnames) == self.counts[self.table] and all(
                {row["fname"] for row in _rows(folder / table)} <= set(os.listdir(folder / audio))
                for table, audio in self.tables.items()
            )
        except (FileNotFoundError, NotADirectoryError, KeyError, ValueError):
            return False

    def finish(self, folder: Path) -> None:
        """Call `prepare`."""
        if self.prepare:
            self.prepare(folder, self)

    def verify(self, paths: Mapping[str, Path], again: str) -> None:
        """Raise `DataError` unless the tables have the expected number of clips, and every clip exists."""
        for table, audio in self.tables.items():
            top, _, rest = table.partition("/")
            fnames = [row.get("fname") or "" for row in _rows(paths[top] / rest if rest else paths[top])]
            if len(set(fnames)) != self.counts[table]:
                clips = count(len(set(fnames)), "clip")
                raise DataError(f"{table}: has {clips}, expected {self.counts[table]}; {again}")
            if missing := sorted(set(fnames) - set(os.listdir(paths[audio]))):
                lack = f"{count(len(missing), 'clip')} of {len(fnames)} not in {audio}/, such as {missing[0]}"
                raise DataError(f"{table}: {lack}; {again}")
            if self.wav:
                _check_audio(paths[audio], fnames, self.wav)

    def summary(self, folder: Path) -> list[str]:
        """Return lines with the number of clips, licence, citation, and what to do next."""
        rows = _rows(folder / self.table)
        sizes = [f"{self.counts[table]:,} clips in {audio}/" for table, audio in self.tables.items()]
        lines = [
            f"clips: {', '.join(sizes)}, of {len({row['label'] for row in rows})} classes",
            f"licence: {self.licence}",
            f"cite: {self.citation}",
        ]
        if self.n_folds:
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


def write_esc50_table(folder: Path, dataset: Dataset) -> None:
    """Write ``train.csv`` from ESC-50's own table; raise `DataError` if that is not as expected.

    A clip's name is FOLD-RECORDING-TAKE-CLASS.wav; ``meta/esc50.csv`` has the same columns, with the class in words.
    The published folds keep clips of one recording together except for a few recordings.
    """
    rows = _rows(folder / ESC50_TABLE)
    columns = ("filename", "fold", "category", "src_file")
    if missing := [name for name in columns if not rows or rows[0].get(name) is None]:
        raise DataError(f"{ESC50_TABLE}: has no column {missing[0]}; expected {','.join(columns)}")
    n_clips = dataset.counts[dataset.table]
    folds = Counter(row["fold"] for row in rows)
    expected = {str(fold): n_clips // dataset.n_folds for fold in range(1, dataset.n_folds + 1)}
    if folds != expected or len({row["filename"] for row in rows}) != n_clips:
        received = f"{count(len(rows), 'clip')} in folds of {dict(sorted(folds.items()))}"
        raise DataError(f"{ESC50_TABLE}: has {received}, expected {n_clips} different ones in folds of {expected}")
    for row in rows:
        if reason := why_not_a_label(row["category"]):
            raise DataError(f"{ESC50_TABLE}: {row['filename']}: {reason}")
    with open(folder / dataset.table, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["fname", "label", "manually_verified", "fold", "freesound_id"])
        table.writerows([row["filename"], row["category"], 1, row["fold"], row["src_file"]] for row in rows)


def _of_zenodo(part: str, md5: str, fetched_bytes: int, unpacked_bytes: int) -> Archive:
    top = f"FSDKaggle2018.{part}/"
    return Archive(f"FSDKaggle2018.{part}.zip", f"md5:{md5}", {top: top}, fetched_bytes, unpacked_bytes)


FSDKAGGLE2018 = Dataset(
    title="FSDKaggle2018",
    base_url="https://zenodo.org/records/2552860/files",
    query="?download=1",
    archives=(
        _of_zenodo("meta", "f16828ac8be0e5285b9175a12f90d784", 1_000_000, 2_000_000),
        _of_zenodo("audio_test", "f85c8665c3fc39311ea1b748e194a81d", 700_000_000, 1_000_000_000),
        _of_zenodo("audio_train", "a8b47ff4b52022c178f88fa5c6f080d0", 4_400_000_000, 5_900_000_000),
    ),
    tables={
        "FSDKaggle2018.meta/train_post_competition.csv": "FSDKaggle2018.audio_train",
        "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv": "FSDKaggle2018.audio_test",
    },
    counts={
        "FSDKaggle2018.meta/train_post_competition.csv": 9473,
        "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv": 1600,
    },
    licence="CC BY 4.0; each clip has its own licence, CC0, CC BY or CC BY-NC, in the tables of FSDKaggle2018.meta/",
    citation="E. Fonseca, M. Plakal, F. Font, D. P. W. Ellis, X. Favory, J. Pons, X. Serra: General-purpose Tagging of "
    "Freesound Audio with AudioSet Labels: Task Description, Dataset, and Baseline. DCASE Workshop 2018, "
    "doi 10.5281/zenodo.2552860",
)

ESC50 = Dataset(
    title="ESC-50",
    base_url="https://github.com/karolpiczak/ESC-50/archive",
    archives=(
        Archive(
            f"{ESC50_COMMIT}.zip",
            "sha256:661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
            {f"ESC-50-{ESC50_COMMIT}/audio/": "audio_train/"}
            | {f"ESC-50-{ESC50_COMMIT}/{name}": name for name in (ESC50_TABLE, "LICENSE", "README.md")},
            645_832_161,
            883_000_000,
        ),
    ),
    tables={"train.csv": "audio_train"},
    counts={"train.csv": 2000},
    licence="CC BY-NC 3.0; its part ESC-10 is CC BY 3.0; LICENSE names the author of each clip",
    citation="K. J. Piczak: ESC: Dataset for Environmental Sound Classification. ACM Multimedia 2015, "
    "doi 10.1145/2733373.2806390",
    wav=(220_500, 44_100),
    n_folds=5,
    prepare=write_esc50_table,
)

DATASETS: dict[str, Published] = {"fsdkaggle2018": FSDKAGGLE2018, "esc50": ESC50}
