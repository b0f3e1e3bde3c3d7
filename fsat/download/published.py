"""Published datasets that fsat can download: addresses, checksums, licences, citations.

Sources: FSDKaggle2018 is record 2552860 at Zenodo, which publishes the MD5 of its files. ESC-50 has no releases; GitHub
packs the archive of a commit on request. The SHA-256 of that archive is not published: several projects that pin the
same commit have recorded it independently. Sizes of FSDKaggle2018 are estimates, rounded up, from 4.6 GiB of archives
and 18 hours of training clips; they are used to check the disk space.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fsat.errors import DataError, count
from fsat.text import why_not_a_label

ESC50_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"
ESC50_TABLE = "meta/esc50.csv"


@dataclass(frozen=True)
class Archive:
    """One zip file of a dataset.

    Attributes:
        checksum: ``algorithm:hex``.
        targets: entries to unpack: the path in the data folder of each folder (with ``/`` at its end) or file.
        zip_bytes, unpacked_bytes: about the size of the archive, and of the unpacked files.
        most_bytes: maximum size that is fetched and unpacked.
    """

    name: str
    checksum: str
    targets: Mapping[str, str]
    zip_bytes: int
    unpacked_bytes: int
    most_bytes: int = 10_000_000_000


@dataclass(frozen=True)
class Dataset:
    """A published dataset.

    Attributes:
        base_url, query: begin and end of the archives' addresses.
        archives: in the order of downloading.
        tables: for each table of clips, the folder of its clips; the first one makes the folder a dataset, and is put
            in its place last.
        counts: number of clips of each table.
        wav: length in samples and rate in Hz of every clip, if all are alike.
        n_folds: number of folds with equally many clips, numbered from 1; 0 for none.
        prepare: called with the folder of an unpacked archive and the dataset, if the archive needs more work.
    """

    title: str
    base_url: str
    archives: tuple[Archive, ...]
    tables: Mapping[str, str]
    counts: Mapping[str, int]
    licence: str
    citation: str
    query: str = ""
    wav: tuple[int, int] | None = None
    n_folds: int = 0
    prepare: Callable[[Path, Dataset], None] | None = None

    @property
    def table(self) -> str:
        """The table of training clips."""
        return next(iter(self.tables))


def write_esc50_table(folder: Path, dataset: Dataset) -> None:
    """Write ``train.csv`` from ESC-50's own table; raise `DataError` if that is not as expected.

    A clip's name is FOLD-RECORDING-TAKE-CLASS.wav; ``meta/esc50.csv`` has the same columns, with the class in words.
    The published folds keep clips of one recording together except for a few recordings.
    """
    with open(folder / ESC50_TABLE, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
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


def _of_zenodo(part: str, md5: str, zip_bytes: int, unpacked_bytes: int) -> Archive:
    top = f"FSDKaggle2018.{part}/"
    return Archive(f"FSDKaggle2018.{part}.zip", f"md5:{md5}", {top: top}, zip_bytes, unpacked_bytes)


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

DATASETS = {"fsdkaggle2018": FSDKAGGLE2018, "esc50": ESC50}
