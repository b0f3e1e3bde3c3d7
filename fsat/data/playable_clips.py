"""Find the training clips of a finished run on this machine, to play them.

A run stores the clips' names, and the dataset's digest, which depends on every file's bytes. If the folder still has
this digest, apart from corrected labels, all clips are unchanged. Otherwise, or if there are too many clips to hash, a
clip counts as unchanged if its file was last changed before the training began; but only in the folder that was trained
on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.clip_checks import check_clips, why_outside
from fsat.data.clip_names import stored_name
from fsat.data.layouts.recognise import read_layout
from fsat.data.layouts.rows import Rows
from fsat.data.manifest import Manifest
from fsat.errors import AudioError, FsatError, printable
from fsat.files import user_path
from fsat.layout_options import FOUND, LayoutOptions

CLIPS_CHECKED = 50_000  # maximum number of clips that are hashed for the digest
RENAMED = "renamed"
OPTION = "name the folder with --data_dir DIR (-P data_dir=DIR)"


@dataclass(frozen=True)
class Trained:
    """What a run was trained on: ``fname,label,manually_verified`` of all clips, and the start in s since 1970.

    `layout` has the options that its data folder was read with.
    """

    clips: pd.DataFrame
    is_test: np.ndarray
    digest: str
    began: float
    layout: LayoutOptions = FOUND


@dataclass(frozen=True)
class ClipFolder:
    """Where a run's training clips are.

    Attributes:
        folder: their folder, resolved; None if it is unknown.
        note: one line that says why, or what is uncertain, and what to do; empty if all clips are unchanged.
        before: seconds since 1970; a file changed later is not the one trained on. None if all are unchanged.
    """

    folder: Path | None
    note: str = ""
    before: float | None = None

    def path(self, fname: str) -> Path:
        """Return the path of a clip's file; raise `AudioError` with the reason if it must not be played."""
        if self.folder is None:
            raise AudioError("the clips are not on this machine")
        name = stored_name(self.folder, fname)
        if reason := why_outside(self.folder, name):
            raise AudioError(reason)
        path = self.folder / name
        with suppress(OSError, ValueError):  # whoever opens the file says why it cannot be read
            if self.before is not None and path.stat().st_mtime > self.before:
                raise AudioError("the file was changed after the training")
        return path


def find_clips(trained: Trained, known: Sequence[str], data_dir: str | Path | None = None) -> ClipFolder:
    """Find the clips in the data folders of the runs, or in `data_dir`; never raises because they are missing."""
    folders = [user_path(name) for name in ([data_dir] if data_dir else dict.fromkeys(known))]
    results = [_examine(trained, folder, own=str(folder.absolute()) in known) for folder in folders]
    missing = ClipFolder(None, f"No players: the runs do not say where the clips were: {OPTION}.")
    return next((result for result in results if result.folder), results[0] if results else missing)


def _examine(trained: Trained, folder: Path, own: bool) -> ClipFolder:
    shown = printable(folder)
    try:
        if not folder.is_dir():
            return ClipFolder(None, f"No players: this machine has no folder {shown} with the clips: {OPTION}.")
        rows = read_layout(folder, trained.layout).rows
        train_folder = rows.train.folder.resolve()
        if len(trained.clips) > CLIPS_CHECKED:
            doubt = f"{shown} has too many clips to compare them all with those that were trained on"
        elif (digest := _digest(trained, rows)) == trained.digest:
            return ClipFolder(train_folder)
        else:
            reasons = {"": "a clip is missing or unusable", RENAMED: "its clips have other names"}
            reason = reasons.get(digest, f"its digest is {digest}, expected {trained.digest}")
            doubt = f"{shown} differs from what was trained on ({reason})"
            own = own and digest != RENAMED  # whose files have their old times
        if own:
            note = f"{doubt}: clips whose files were changed since then have no player."
            return ClipFolder(train_folder, note, trained.began)
    except (FsatError, OSError, RuntimeError) as error:
        doubt = f"{shown} could not be read ({printable(error)})"
    return ClipFolder(None, f"No players: {doubt}: {OPTION} that has the unchanged clips.")


def _digest(trained: Trained, rows: Rows) -> str:
    """Return the dataset's digest with the labels that were trained on; empty if a clip is missing.

    It is `RENAMED` if the sounds are the same, and the names of some are those of others: the clips of a run are in the
    order of their content.
    """
    train, test = trained.clips[~trained.is_test].astype(str), trained.clips.loc[trained.is_test, ["fname"]]
    facts = check_clips(rows.train.folder, train["fname"].tolist(), "training clips")
    if any(fact.reason for fact in facts):
        return ""
    train = train.assign(digest=[fact.digest for fact in facts])
    folder = (rows.test or rows.train).folder
    facts = check_clips(folder, test["fname"].tolist(), "test clips") if len(test) else []
    test = test.assign(digest=[fact.digest for fact in facts])
    digest = Manifest(folder, train, test, "", folder, folder, "", [], task=rows.task).digest
    return digest if digest != trained.digest or train["digest"].is_monotonic_increasing else RENAMED
