"""The manifest: which clips there are, their labels, and all that is wrong with them, found before any training.

Read are Kaggle's names (``train.csv``, ``audio_train/``, ``sample_submission.csv``, ``audio_test/``) and Zenodo's
(``FSDKaggle2018.meta/train_post_competition.csv``, ``FSDKaggle2018.audio_train/``, ...). The test part is optional.
A bad training clip is an error or an exclusion, as asked for; a bad test clip always keeps its row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.config import Config
from fsat.data.checks import check_clips
from fsat.data.folds import resolve_folds, small_classes
from fsat.data.tables import Table, read_table
from fsat.errors import DataError, Problem, count
from fsat.labels import NO_LABEL, label_order, why_not_a_label

REQUIRED = ("fname", "label", "manually_verified")
OPTIONAL = ("fold", "freesound_id")
KNOWN = (*OPTIONAL, "license")

META = "FSDKaggle2018.meta"
TRAIN_TABLES = ("train.csv", "train_post_competition.csv", f"{META}/train_post_competition.csv")
TRAIN_FOLDERS = ("audio_train", "FSDKaggle2018.audio_train")
TEST_TABLES = (
    "sample_submission.csv",
    "test_post_competition.csv",
    f"{META}/test_post_competition_scoring_clips.csv",
    f"{META}/test_post_competition.csv",
)
TEST_FOLDERS = ("audio_test", "FSDKaggle2018.audio_test")


@dataclass(frozen=True)
class Manifest:
    """The clips of one dataset.

    Attributes:
        folder: the data folder.
        train: one row a training clip: ``fname, label, manually_verified`` (0 or 1), optional ``fold`` and
            ``freesound_id`` (text), and ``row`` (line), ``frames``, ``samplerate``, ``digest`` of the file.
        test: one row a test clip: ``fname, row, frames, samplerate, digest, reason``; the reason is empty for usable
            clips. May have no rows.
        train_table: the training table's file name.
        train_folder, test_folder: where the files lie.
        labels: label order.
        problems: all that was found wrong and lived with: excluded training clips and unusable test clips.
        warnings: one line each.
    """

    folder: Path
    train: pd.DataFrame
    test: pd.DataFrame
    train_table: str
    train_folder: Path
    test_folder: Path
    labels: list[str]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Hash of what the dataset says and sounds like, wherever it lies: 16 hex digits."""
        columns = [name for name in (*REQUIRED, *OPTIONAL, "digest") if name in self.train]
        facts = [columns, self.train[columns].astype(str).to_numpy().tolist()]
        facts.append(self.test[["fname", "digest"]].astype(str).to_numpy().tolist())
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()

    @property
    def targets(self) -> np.ndarray:
        """Class index of each training clip, int64 (n_train,)."""
        index = {label: i for i, label in enumerate(self.labels)}
        return self.train["label"].map(index).to_numpy(dtype="int64")

    def without(self, bad: Mapping[str, str], on_bad_clip: str, config: Config) -> Manifest:
        """The manifest once decoding has found more unusable clips.

        Args:
            bad: reason by ``train/fname`` or ``test/fname``.
            on_bad_clip: ``error`` or ``exclude``.
            config: whose folds the remaining clips must fill.

        Raises:
            DataError: training clips are bad and `on_bad_clip` is ``error``, or too few are left.
        """
        if not bad:
            return self
        train_bad = self.train["fname"].map(lambda name: bad.get(f"train/{name}", ""))
        test_bad = self.test["fname"].map(lambda name: bad.get(f"test/{name}", ""))
        found = [
            Problem(self.train_table, int(row), fname, reason)
            for row, fname, reason in zip(self.train["row"], self.train["fname"], train_bad, strict=True)
            if reason
        ]
        _decide(self.folder, found, on_bad_clip)
        found += [
            Problem("test", int(row), fname, reason, "test")
            for row, fname, reason in zip(self.test["row"], self.test["fname"], test_bad, strict=True)
            if reason
        ]
        test = self.test.copy()
        spoilt = test_bad.astype(bool)
        test.loc[spoilt, "reason"] = test_bad[spoilt]
        train = self.train[~train_bad.astype(bool)].reset_index(drop=True)
        if found and not train.empty:
            too_small = small_classes(train, resolve_folds(train, config).n_folds, self.train_table)
            _decide(self.folder, too_small, "error")
        if train.empty:
            raise DataError(f"{self.folder}: no usable training clip is left; see the problems below", found)
        labels = label_order(train["label"])
        return replace(self, train=train, test=test, labels=labels, problems=[*self.problems, *found])


def read_manifest(folder: str | Path, on_bad_clip: str = "error", config: Config | None = None) -> Manifest:
    """Read and check a dataset's tables and the headers of its clips.

    Args:
        folder: the data folder.
        on_bad_clip: ``error`` to refuse a dataset with bad training rows, ``exclude`` to go on without them.
        config: if given, classes with fewer clips than its folds are a problem too; excluding cannot mend that.

    Raises:
        DataError: there is no such folder or table, a table cannot be read, or there are bad training rows and
            `on_bad_clip` is ``error``; all problems that were found are in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"{folder.absolute()}: no such folder; expected one with train.csv and audio_train/ (data_dir=DIR)"
        )
    train_table = _first(folder, TRAIN_TABLES, "a table of training clips")
    train_folder = _first(folder, TRAIN_FOLDERS, "a folder of training clips")
    table = read_table(train_table, REQUIRED, KNOWN)
    problems = [*table.problems, *_row_problems(table.frame, train_table.name)]
    train = _with_facts(table.frame, train_folder, "training clips")
    problems += _clip_problems(train, train_table.name, "train")
    problems.sort(key=lambda problem: problem.row)

    test, test_problems, test_folder, warnings = _read_test(folder)
    usable = train[~train["row"].isin({problem.row for problem in problems})]
    too_small = []
    if config is not None:
        seen = train if on_bad_clip == "error" else usable
        too_small = small_classes(seen, resolve_folds(seen, config).n_folds, train_table.name)
    _decide(folder, [*problems, *too_small], "error" if too_small else on_bad_clip)
    train = usable.drop(columns="reason").reset_index(drop=True)
    if train.empty:
        raise DataError(f"{train_table}: no usable training clip is left; see the problems below", problems)
    train["manually_verified"] = train["manually_verified"].astype("int64")
    return Manifest(
        folder, train, test, train_table.name, train_folder, test_folder, label_order(train["label"]),
        problems=[*problems, *test_problems], warnings=[*table.warnings, *warnings],
    )  # fmt: skip


def _decide(folder: Path, problems: list[Problem], on_bad_clip: str) -> None:
    if problems and on_bad_clip == "error":
        way_out = ", or leave these clips out with on_bad_clip=exclude" if all(p.row for p in problems) else ""
        raise DataError(
            f"{folder}: {count(len(problems), 'problem')} in the training clips; mend what is listed{way_out}", problems
        )


def _first(folder: Path, names: Iterable[str], what: str) -> Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{folder}: {what} is missing; expected {' or '.join(names)}")


def _row_problems(frame: pd.DataFrame, file: str) -> list[Problem]:
    problems, first_line = [], {}
    for row in frame.itertuples(index=False):
        reasons = []
        if row.fname in first_line:
            reasons.append(f"duplicate row: the clip is in line {first_line[row.fname]} too")
        first_line.setdefault(row.fname, row.row)
        if reason := why_not_a_label(row.label):
            reasons.append(reason)
        if row.manually_verified not in ("0", "1"):
            reasons.append(f"manually_verified is {row.manually_verified!r}, expected 0 or 1")
        if "fold" in frame and not row.fold.strip():
            reasons.append("the fold is empty")
        problems += [Problem(file, row.row, row.fname, reason) for reason in reasons]
    return problems


def _with_facts(frame: pd.DataFrame, folder: Path, what: str) -> pd.DataFrame:
    facts = check_clips(folder, frame["fname"].tolist(), what)
    columns = {name: [getattr(fact, name) for fact in facts] for name in ("frames", "samplerate", "digest", "reason")}
    return frame.assign(**columns)


def _clip_problems(frame: pd.DataFrame, file: str, split: str) -> list[Problem]:
    bad = frame[frame["reason"] != ""]
    return [Problem(file, int(row.row), row.fname, row.reason, split) for row in bad.itertuples(index=False)]


def _read_test(folder: Path) -> tuple[pd.DataFrame, list[Problem], Path, list[str]]:
    tables = [folder / name for name in TEST_TABLES if (folder / name).exists()]
    folders = [folder / name for name in TEST_FOLDERS if (folder / name).exists()]
    if not tables or not folders:
        nothing = pd.DataFrame(columns=["row", "fname", "frames", "samplerate", "digest", "reason"])
        return nothing, [], folder / TEST_FOLDERS[0], []
    table = _test_table(tables[0])
    frame = _with_facts(table.frame[["row", "fname"]], folders[0], "test clips")
    problems = [*table.problems, *_clip_problems(frame, tables[0].name, "test")]
    warnings = table.warnings
    if problems:
        shown = ", ".join(f"{problem.fname} ({problem.reason})" for problem in problems[:5])
        more = ", ..." if len(problems) > 5 else ""
        warnings = [
            *warnings,
            f"{count(len(problems), 'unusable test clip')}, scored by the label prior: {shown}{more}",
        ]
    return frame, problems, folders[0], warnings


def _test_table(path: Path) -> Table:
    table = read_table(path, ("fname",), ("label", "usage", "freesound_id", "license"), "test")
    if META in path.parts and "label" in table.frame:  # Zenodo leaves out the padding clips' audio
        table.frame = table.frame[table.frame["label"] != NO_LABEL].reset_index(drop=True)
    return table
