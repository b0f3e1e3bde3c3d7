"""Training clips found again on this machine, to be listened to: are they there, and are they those trained on?

A run knows its clips by name, and the dataset's digest, which speaks of every file's bytes. Where the folder still has
this digest, labels corrected in its table apart, all clips are as they were. Where it has not, or where there are too
many clips to look at them all, a clip is taken for unchanged if its file was last changed before the training began;
but only in the folder that was trained on, as in another one that says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fsat.data.clip_checks import check_clips, why_outside
from fsat.data.manifest import OPTIONAL, TEST_FOLDERS, TRAIN_FOLDERS, TRAIN_TABLES, Manifest
from fsat.data.tables import read_table
from fsat.errors import AudioError, DataError, FsatError, printable

CLIPS_CHECKED = 50_000
"""So many clips at most are looked at for the digest."""

OPTION = "name the folder with --data_dir DIR (-P data_dir=DIR)"


@dataclass(frozen=True)
class Trained:
    """What was trained on.

    Attributes:
        clips: ``fname,split,label,manually_verified`` of all clips, test clips too, in the dataset's order.
        digest: the dataset's.
        began: when the training began, in seconds since 1970.
    """

    clips: pd.DataFrame
    digest: str
    began: float


@dataclass(frozen=True)
class Found:
    """Where a run's training clips are.

    Attributes:
        folder: theirs, resolved; None where they were not found.
        note: one line that says why there are none, or what is not certain, and what to do; empty if all is well.
        before: seconds since 1970; a file that was changed later is not the one trained on. None if all are known.
    """

    folder: Path | None
    note: str = ""
    before: float | None = None

    def path(self, fname: str) -> Path:
        """A clip's file.

        Raises:
            AudioError: there is none that may be played, for this reason.
        """
        if self.folder is None:
            raise AudioError("the clips are not at hand")
        if reason := why_outside(self.folder, fname):
            raise AudioError(reason)
        path = self.folder / fname
        try:
            changed = path.stat().st_mtime
        except FileNotFoundError:
            raise AudioError("missing file") from None
        except (OSError, ValueError) as error:
            raise AudioError(f"unreadable file ({getattr(error, 'strerror', None) or error})") from error
        if self.before is not None and changed > self.before:
            raise AudioError("the file was changed after the training")
        return path


def find_clips(trained: Trained, known: Sequence[str], given: str | Path | None = None) -> Found:
    """Look for the clips of a finished training.

    Args:
        trained: what they were.
        known: the folders that they lay in.
        given: the folder to look in instead.

    Returns:
        where they are; or, never as an error, why they are not at hand.
    """
    folders = [Path(name).expanduser() for name in ([given] if given else dict.fromkeys(known))]
    found = [_look(trained, folder, own=str(folder.absolute()) in known) for folder in folders]
    none = Found(None, f"No players: the runs do not say where the clips lay: {OPTION}.")
    return next((place for place in found if place.folder), found[0] if found else none)


def _look(trained: Trained, folder: Path, own: bool) -> Found:
    shown = printable(folder)
    try:
        if not folder.is_dir():
            return Found(None, f"No players: this machine has no folder {shown} with the clips: {OPTION}.")
        home = _first(folder, TRAIN_FOLDERS)
        if home is None:
            return Found(None, f"No players: {shown} has no {' or '.join(TRAIN_FOLDERS)} with the clips: {OPTION}.")
        home = home.resolve()
        if len(trained.clips) > CLIPS_CHECKED:
            what = f"{shown} has too many clips to compare them all with those that were trained on"
        elif (there := _digest(trained, folder, home)) == trained.digest:
            return Found(home)
        else:
            why = f"its digest is {there}, expected {trained.digest}" if there else "a clip is missing or unusable"
            what = f"{shown} is not quite what was trained on ({why})"
    except (FsatError, OSError, RuntimeError) as error:
        what = f"{shown} could not be looked through ({printable(error)})"
        own = False
    if own:
        return Found(home, f"{what}: clips whose files were changed since then have no player.", trained.began)
    return Found(None, f"No players: {what}: {OPTION} that has the clips as they were.")


def _digest(trained: Trained, folder: Path, home: Path) -> str:
    """The dataset's digest as it would be with the labels that were trained on; empty where a clip is not there."""
    is_test = (trained.clips["split"] == "test").to_numpy()
    train, test = trained.clips[~is_test].astype(str), trained.clips.loc[is_test, ["fname"]]
    facts = check_clips(home, train["fname"].tolist(), "training clips")
    if any(fact.reason for fact in facts):
        return ""
    train = train.assign(digest=[fact.digest for fact in facts])
    table = _first(folder, TRAIN_TABLES)
    if table is not None:
        try:
            frame = read_table(table, ("fname",), ("label", "manually_verified", *OPTIONAL, "license")).frame
        except DataError:
            return ""
        frame = frame.drop_duplicates("fname").set_index("fname")
        for name in OPTIONAL:
            if name in frame:
                train[name] = frame[name].str.strip().reindex(train["fname"]).to_numpy()
    place = _first(folder, TEST_FOLDERS) or folder / TEST_FOLDERS[0]
    facts = check_clips(place, test["fname"].tolist(), "test clips") if len(test) else []
    test = test.assign(digest=[fact.digest for fact in facts])
    return Manifest(folder, train, test, "", home, place, "", []).digest


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)
