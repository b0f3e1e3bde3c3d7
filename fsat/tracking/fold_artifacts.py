"""Fold artifacts: the files that a fold run leaves, their names, and the values of ``split``.

This is the only module that knows them. `write_artifacts` writes a fold's files into a folder that is uploaded as it
is; `download` fetches them, checks their SHA-256, and gives a `Member` of an ensemble.

``predictions/clips.csv`` has a row for each row of the predictions, first of ``train.npy``, then of ``test.npy``. Its
column ``split`` says what a clip was to the fold: ``train``, ``val`` (its own clips), ``holdout`` (only chose the
epoch), ``unused``, or ``test``. Everything that grows with the number of clips is read in parts or memory-mapped.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from fsat.data.tables import write_table
from fsat.errors import RunError
from fsat.files import copy_folder, sha256_of
from fsat.metrics.row_blocks import open_rows
from fsat.tracking.client import TAG, Refused, call
from fsat.tracking.select_runs import FoldRun

WEIGHTS = "weights/best.weights.h5"
TRAIN_PREDICTIONS, TEST_PREDICTIONS = "predictions/train.npy", "predictions/test.npy"
CLIPS, SUBMISSION = "predictions/clips.csv", "predictions/submission.csv"
CONFIG, LABELS, MODEL, PLOTS, EVENTS = "config.json", "labels.json", "model.txt", "plots", "tensorboard"
CHECKSUMS = "checksums.json"

MEMBER_FILES = (LABELS, WEIGHTS, TRAIN_PREDICTIONS, TEST_PREDICTIONS, CLIPS)
"""Artifacts that an ensemble needs."""

VAL, TEST = "val", "test"

SHARED_COLUMNS = {False: ("label", "manually_verified"), True: ("fname",)}
"""Columns of the training and the test clips that are the same for all members of an ensemble.

Training clips are in the order of their content (`Manifest.in_canonical_order`), so their names may be those of another
layout of the same dataset.
"""

CATEGORIES = ("split", "label", "manually_verified")
"""Columns of the table of clips with few different values."""

CLIPS_AT_ONCE = 50_000
"""Rows of the table of clips that are read at once."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of a fold, the table of their clips, and the challenge's table for the test clips."""

    train: np.ndarray  # float32 (n_train, n_classes)
    test: np.ndarray  # float32 (n_test, n_classes)
    clips: pd.DataFrame  # as `clip_table` makes it
    submission: pd.DataFrame


def clip_table(train: pd.DataFrame, splits: np.ndarray, test: pd.DataFrame) -> pd.DataFrame:
    """Return ``fname,split,label,manually_verified`` of a manifest's clips, in the order of the predictions.

    `splits` is str (n_train,): ``train``, ``val``, ``holdout`` or ``unused``.
    """
    columns = ["fname", "split", "label", "manually_verified"]
    tests = test[["fname"]].assign(split=TEST, label="", manually_verified="")
    return pd.concat([train.assign(split=splits)[columns], tests[columns]], ignore_index=True)


def is_test(clips: pd.DataFrame) -> np.ndarray:
    """Return bool (n_clips,), true for test clips, of a table of clips."""
    return (clips["split"] == TEST).to_numpy()


def has_trained(clips: pd.DataFrame) -> pd.Series:
    """Return for each row of a table of clips if weights depend on the clip, by training or choosing the epoch."""
    return clips["split"].isin(["train", "holdout"])


def without_fold(clips: pd.DataFrame) -> pd.DataFrame:
    """Return the table of clips with only ``train`` and ``test`` in its column ``split``."""
    return clips.assign(split=np.where(is_test(clips), TEST, "train"))


def write_artifacts(
    folder: Path, config: Mapping[str, Any], labels: Sequence[str], predictions: Predictions, weights: Path, model: str,
    events: Path,
) -> None:  # fmt: skip
    """Write what a trained fold leaves, except its plots, to an empty folder.

    `weights` is the file of the selected weights, `model` a summary of its layers, `events` TensorBoard's folder.
    """
    for name in (WEIGHTS, TRAIN_PREDICTIONS):
        (folder / name).parent.mkdir()
    shutil.copyfile(weights, folder / WEIGHTS)
    copy_folder(events, folder / EVENTS)
    (folder / MODEL).write_text(model)
    for name, value in ((CONFIG, dict(config)), (LABELS, list(labels))):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    np.save(folder / TRAIN_PREDICTIONS, predictions.train)
    np.save(folder / TEST_PREDICTIONS, predictions.test)
    write_table(predictions.clips, folder / CLIPS)
    write_table(predictions.submission, folder / SUBMISSION)


def write_checksums(folder: Path) -> None:
    """Write ``checksums.json``, the SHA-256 of every artifact; call it last."""
    (folder / CHECKSUMS).write_text(json.dumps(checksums(folder), indent=2) + "\n")


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its name with forward slashes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def is_intact(folder: Path) -> bool:
    """Return whether the artifacts are as `write_checksums` found them."""
    try:
        expected = json.loads((folder / CHECKSUMS).read_text())
        return {name: digest for name, digest in checksums(folder).items() if name != CHECKSUMS} == expected
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class ClipFacts:
    """What an ensemble compares between members, without their tables of clips.

    `train` and `test` are digests of `SHARED_COLUMNS`, in order.
    """

    n_train: int
    n_test: int
    train: str
    test: str
    held_out: np.ndarray  # bool (n_train,), true for the fold's own clips


@dataclass(frozen=True)
class Member:
    """A fold run with its downloaded artifacts; the rows of its arrays are those of `clips`."""

    record: FoldRun
    folder: Path

    @cached_property
    def labels(self) -> list[str]:
        """Label order."""
        return json.loads((self.folder / LABELS).read_text())

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The table of clips: ``fname``, and the others as categories of strings."""
        parts = [part.astype(dict.fromkeys(CATEGORIES, "category")) for part in self._clip_parts()]
        names = pd.concat([part["fname"] for part in parts], ignore_index=True)
        others = {name: union_categoricals([part[name] for part in parts]) for name in CATEGORIES}
        return pd.DataFrame({"fname": names, **others})

    @cached_property
    def facts(self) -> ClipFacts:
        """Counts, digests and held-out clips of the table of clips."""
        counts, held_out = {True: 0, False: 0}, [np.empty(0, bool)]
        hashes = {(test, name): hashlib.sha256() for test in counts for name in SHARED_COLUMNS[test]}
        for part in self._clip_parts():
            mask = is_test(part)
            held_out.append((part["split"] == VAL).to_numpy()[~mask])
            for test in counts:
                rows = part[mask == test]
                counts[test] += len(rows)
                for name in SHARED_COLUMNS[test]:
                    hashes[test, name].update("\0".join([*rows[name].tolist(), ""]).encode())
        digests = {test: " ".join(hashes[test, name].hexdigest() for name in SHARED_COLUMNS[test]) for test in counts}
        return ClipFacts(counts[False], counts[True], digests[False], digests[True], np.concatenate(held_out))

    @cached_property
    def train(self) -> np.ndarray:
        """Predictions of the training clips, float32 (n_train, n_classes), a memory map."""
        return open_rows(self.folder / TRAIN_PREDICTIONS)

    @cached_property
    def test(self) -> np.ndarray:
        """Predictions of the test clips, float32 (n_test, n_classes), a memory map."""
        return open_rows(self.folder / TEST_PREDICTIONS)

    @property
    def weights(self) -> Path:
        """The file of the selected weights."""
        return self.folder / WEIGHTS

    def _clip_parts(self) -> Iterator[pd.DataFrame]:
        path = self.folder / CLIPS
        with pd.read_csv(path, dtype=str, keep_default_na=False, chunksize=CLIPS_AT_ONCE) as parts:
            yield from parts


def download(record: FoldRun, folder: Path, files: Sequence[str] = MEMBER_FILES) -> Member:
    """Download artifacts, by default what an ensemble needs, into a folder named by the run.

    Raises `RunError` if one of the `files` is missing or changed.
    """
    target = folder / record.run_id
    target.mkdir(parents=True)
    advice = f"train fold {record.fold} again (mlflow run . -e train_fold -P fold={record.fold} -P resume=false ...)"
    fetch = partial(mlflow.artifacts.download_artifacts, run_id=record.run_id)
    for name in (CHECKSUMS, *files):
        (target / name).parent.mkdir(exist_ok=True)
        try:
            call(partial(fetch, artifact_path=name, dst_path=str((target / name).parent)))
        except Refused as error:
            if getattr(error.__cause__, "errno", None) == errno.ENOSPC:
                raise
            cause = " ".join(str(error.__cause__).split())[:200]
            raise RunError(f"run {record.run_id}: {name} cannot be fetched ({cause}); {advice}") from error
    for name in files:
        if not (target / name).is_file():
            raise RunError(f"run {record.run_id}: {name} is missing; {advice}")
    expected, actual = {CHECKSUMS: record.run.data.tags.get(TAG + "checksums", "")}, checksums(target)
    if actual[CHECKSUMS] == expected[CHECKSUMS]:
        expected |= json.loads((target / CHECKSUMS).read_text())
    for name in (CHECKSUMS, *files):
        if actual[name] != expected[name]:
            digests = f"its SHA-256 begins with {actual[name][:8]}, expected {expected[name][:8]}"
            raise RunError(f"run {record.run_id}: {name} was changed after it was logged: {digests}; {advice}")
    return Member(record, target)
