"""Published datasets that fsat can download: where they are, their checksums, licences, and how to cite them.

Sources: FSDKaggle2018 is record 2552860 at Zenodo, which publishes the MD5 of its files. ESC-50 has no releases; GitHub
packs the archive of a commit when it is asked for. The SHA-256 of that archive is not published: it is what several
projects that pin the same commit have noted independently. Sizes of FSDKaggle2018 are estimates, rounded up, from
4.6 GiB of archives and 18 hours of training clips; they serve the check of the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ESC50_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"


@dataclass(frozen=True)
class Archive:
    """One zip file of a dataset.

    Attributes:
        name: of the file, at the source and while it is kept.
        checksum: ``algorithm:hex``, as pooch writes it.
        places: what is unpacked: where a folder (with ``/`` at its end) or file of the archive goes in the data folder.
        zip_bytes: size of the archive, about.
        unpacked_bytes: size of what is unpacked, about.
        most_bytes: more than this is neither fetched nor unpacked.
    """

    name: str
    checksum: str
    places: Mapping[str, str]
    zip_bytes: int
    unpacked_bytes: int
    most_bytes: int = 10_000_000_000


@dataclass(frozen=True)
class Dataset:
    """A published dataset.

    Attributes:
        title: its name.
        base_url: what the archives' names are added to.
        query: what is added to the address then, at the publisher's own server.
        archives: in the order in which they are fetched.
        tables: for each table of clips, the folder of its clips; the first one makes the folder a dataset, and is put
            in its place last.
        counts: how many clips each table has.
        licence: in a line.
        citation: in a line.
        wav: the length in samples and the rate in Hz of every clip, where all are alike.
        n_folds: folds of as many clips each, numbered from 1; 0 for none.
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

    @property
    def table(self) -> str:
        """The table of training clips."""
        return next(iter(self.tables))


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
            {
                f"ESC-50-{ESC50_COMMIT}/audio/": "audio_train/",
                f"ESC-50-{ESC50_COMMIT}/meta/esc50.csv": "meta/esc50.csv",
                f"ESC-50-{ESC50_COMMIT}/LICENSE": "LICENSE",
                f"ESC-50-{ESC50_COMMIT}/README.md": "README.md",
            },
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
)

DATASETS = {"fsdkaggle2018": FSDKAGGLE2018, "esc50": ESC50}
