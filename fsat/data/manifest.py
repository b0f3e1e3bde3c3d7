"""The manifest of a dataset: its clips, their labels, and all problems, found before any training.

Files may have Kaggle's names (``train.csv``, ``audio_train/``, ``sample_submission.csv``, ``audio_test/``) or Zenodo's
(``FSDKaggle2018.meta/train_post_competition.csv``, ``FSDKaggle2018.audio_train/``, ...). The test part is optional. An
unusable training clip is an error or is excluded, by ``on_bad_clip``; an unusable test clip always keeps its row.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.config import Config
from fsat.data.clip_checks import check_clips
from fsat.data.clip_names import ascii_if_alike, earlier_rows, explain_missing, unnamed_files, unnamed_warnings
from fsat.data.folds import resolve_folds, small_classes
from fsat.data.label_checks import label_faults
from fsat.data.tables import Table, read_table
from fsat.errors import ConfigError, DataError, Problem, count, printable
from fsat.files import user_path
from fsat.text import NO_LABEL, is_unknown, label_order

REQUIRED = ("fname", "label", "manually_verified")
OPTIONAL = ("fold", "freesound_id")
KNOWN = (*OPTIONAL, "license")
FACTS = ("frames", "samplerate", "digest", "stamp", "reason")
"""Columns from `ClipFacts`."""

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
        train: one row per training clip: ``fname, label, manually_verified`` (0 or 1), optional ``fold`` and
            ``freesound_id`` (text), ``row`` (line), and ``frames``, ``samplerate``, ``digest`` and ``stamp`` of the
            file, as in `ClipFacts`. Once clips were compared, both tables have ``sound``, a number that clips with
            equal samples share.
        test: one row per test clip: ``fname, row, frames, samplerate, digest, stamp, reason``; the reason is empty for
            usable clips. May have no rows.
        train_table, test_table: file names of the tables; the test table's is empty if there is none.
        problems: excluded training clips and unusable test clips.
    """

    folder: Path
    train: pd.DataFrame
    test: pd.DataFrame
    train_table: str
    train_folder: Path
    test_folder: Path
    test_table: str
    labels: list[str]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Hash of tables and sounds, whatever their folder: 16 hex digits."""
        columns = [name for name in (*REQUIRED, *OPTIONAL, "digest") if name in self.train]
        facts = [columns, self.train[columns].astype(str).to_numpy().tolist()]
        facts.append(self.test[["fname", "digest"]].astype(str).to_numpy().tolist())
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()

    @property
    def targets(self) -> np.ndarray:
        """Class index of each training clip, int64 (n_train,)."""
        index = {label: i for i, label in enumerate(self.labels)}
        return np.asarray(self.train["label"].map(index), dtype=np.int64)

    @property
    def verified(self) -> np.ndarray:
        """Bool (n_train,): the label was verified by hand."""
        return np.asarray(self.train["manually_verified"].to_numpy() == 1)

    def without(
        self, train_errors: list[str], test_errors: list[str], on_bad_clip: str, config: Config | None = None
    ) -> Manifest:
        """Return the manifest without the clips that have an error, such as those that cannot be decoded.

        Raises `DataError` if `on_bad_clip` is ``error`` and training clips are unusable, or if too few are left.
        """
        if not any(train_errors) and not any(test_errors):
            return self
        train_problems = _problems_of(self.train, train_errors, self.train_table)
        _refuse(self.folder, train_problems, on_bad_clip)
        test_problems = _problems_of(self.test, test_errors, self.test_table, "test")
        train = self.train[[not error for error in train_errors]].reset_index(drop=True)
        if train.empty:
            raise _nothing_left(self.folder, train_problems)
        small = []
        if train_problems and config:
            small = small_classes(train, resolve_folds(train, config).n_folds, self.train_table)
        _refuse(self.folder, [*train_problems, *small], "error" if small else on_bad_clip)
        reasons = [error or reason for error, reason in zip(test_errors, self.test["reason"], strict=True)]
        test, labels = self.test.assign(reason=reasons), label_order(train["label"])
        problems = [*self.problems, *train_problems, *test_problems]
        warnings = [*self.warnings, *_warnings_of(test_problems)]
        return replace(self, train=train, test=test, labels=labels, problems=problems, warnings=warnings)


def read_manifest(folder: str | Path, on_bad_clip: str = "error", config: Config | None = None) -> Manifest:
    """Read and check a dataset's tables and the headers of its clips.

    Raises `DataError` with all problems if the folder or a table is missing, a table cannot be read, training rows are
    bad and `on_bad_clip` is ``error`` rather than ``exclude``, or a class has fewer clips than the folds of `config`.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder.absolute()}: no such folder; expected one with train.csv and audio_train/ (data_dir=DIR)"
        )
    columns = f", with the columns {','.join(REQUIRED)}; see docs/data.md, which has a program that writes it"
    train_table = _first(folder, TRAIN_TABLES, "a table of training clips", columns)
    train_folder = _first(folder, TRAIN_FOLDERS, "a folder of training clips")
    table = read_table(train_table, REQUIRED, KNOWN)
    for name in set(OPTIONAL) & set(table.frame):
        table.frame[name] = table.frame[name].str.strip()
    train, unnamed = _with_facts(table, train_folder, "training clips")
    faults = label_faults(train["label"].tolist(), train["row"].tolist())
    problems = [*table.problems, *_row_problems(train, train_folder, train_table.name, faults)]
    problems += _problems_of(train, train["reason"], train_table.name)
    problems.sort(key=lambda problem: problem.row)
    broken = []
    try:
        test, test_table, test_folder, test_problems, test_warnings = _read_test(folder, train_folder)
    except DataError as error:
        if not problems:
            raise
        broken = [Problem(_first(folder, TEST_TABLES, "").name, 0, "", str(error).partition(": ")[2], "test")]
    usable = train[~train["row"].isin({problem.row for problem in problems})]
    small, counted = [], _sound_rows(train, faults) if on_bad_clip == "error" else usable
    if config is not None and not counted.empty:
        try:
            small = small_classes(counted, resolve_folds(counted, config).n_folds, train_table.name)
        except ConfigError as error:
            if not problems:
                raise
            small = [Problem(train_table.name, 0, "", str(error))]
    _refuse(folder, [*problems, *small, *broken], "error" if small or broken else on_bad_clip)
    if usable.empty:
        raise _nothing_left(train_table, problems)
    train = usable.drop(columns="reason").reset_index(drop=True).astype({"manually_verified": "int64"})
    if test_folder.exists() and test_folder.samefile(train_folder):
        unnamed = sorted(set(unnamed) - set(map(os.path.normpath, test["fname"])))
    warnings = [*table.warnings, *unnamed_warnings(unnamed, train_folder.name, train_table.name), *test_warnings]
    problems = [*problems, *test_problems]
    names, labels = (train_table.name, train_folder, test_folder, test_table), label_order(train["label"])
    return Manifest(folder, train, test, *names, labels, problems, warnings)


def why_one_label(manifest: Manifest) -> str:
    """Return why a dataset whose clips all have the same label cannot be trained on; empty if there are more."""
    if len(manifest.labels) > 1:
        return ""
    fault = f"the only label of {count(len(manifest.train), 'training clip')} is {printable(manifest.labels[0])}"
    advice = "does the column label name a folder above the classes, and is data_dir the folder of the whole dataset?"
    return f"{fault}, and a tagger needs two or more; {advice}"


def _refuse(folder: Path, problems: list[Problem], on_bad_clip: str) -> None:
    """Raise `DataError` with the problems, if there are any, unless clips are to be excluded."""
    if problems and on_bad_clip == "error":
        way_out = ", or leave these clips out with on_bad_clip=exclude" if all(p.row for p in problems) else ""
        message = f"{count(len(problems), 'problem')} in the training clips; fix the rows listed above{way_out}"
        raise DataError(f"{folder}: {message}", problems)


def _nothing_left(path: Path, problems: list[Problem]) -> DataError:
    return DataError(f"{path}: no usable training clip is left; fix the rows listed above", problems)


def _first(folder: Path, names: Iterable[str], description: str, columns: str = "") -> Path:
    """Return the first path that exists; raise `DataError` if there is none."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{folder}: {description} is missing; expected {' or '.join(names)}{columns}")


def _row_problems(frame: pd.DataFrame, folder: Path, file: str, label_faults: Mapping[str, str]) -> list[Problem]:
    """Return the problems of a table's cells."""
    problems: list[Problem] = []
    fnames, lines = frame["fname"].tolist(), frame["row"].tolist()
    columns = [frame[name] for name in ("row", *REQUIRED)]
    folds = frame["fold"] if "fold" in frame else ["0"] * len(frame)
    earlier = earlier_rows(folder, fnames, frame["stamp"].tolist())
    for line, fname, label, verified, fold, first in zip(*columns, folds, earlier, strict=True):
        reasons = (
            "" if first is None else _same_file(fname, fnames[first], lines[first]),
            label_faults.get(label, ""),
            "" if verified in ("0", "1") else f"manually_verified is {verified!r}, expected 0 or 1",
            _fold_fault(fold),
        )
        problems += [Problem(file, line, fname, reason) for reason in reasons if reason]
    return problems


def _same_file(fname: str, first: str, line: int) -> str:
    if fname == first:
        return f"duplicate row: the clip is in line {line} too"
    return f"duplicate row: the file is {ascii_if_alike(first, fname)} in line {line} too"


def _fold_fault(fold: str) -> str:
    return f"the fold is {repr(fold) if fold else 'empty'}" if is_unknown(fold) else ""


def _sound_rows(frame: pd.DataFrame, label_faults: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows with a valid label and fold, whatever their files."""
    sound = ~frame["label"].isin(label_faults) & ~frame["fname"].duplicated()
    if "fold" in frame:
        sound &= ~frame["fold"].map(is_unknown)
    return frame[sound]


def _with_facts(table: Table, folder: Path, description: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows with the facts of their files, and the files that no row names."""
    fnames = table.frame["fname"].tolist()
    facts = check_clips(folder, fnames, description)
    unnamed = unnamed_files(folder, [*fnames, *(problem.fname for problem in table.problems)])
    reasons = explain_missing(fnames, [fact.reason for fact in facts], unnamed)
    columns = {name: [getattr(fact, name) for fact in facts] for name in FACTS}
    return table.frame.assign(**{**columns, "reason": reasons}), unnamed


def _problems_of(frame: pd.DataFrame, reasons: Iterable[str], file: str, split: str = "train") -> list[Problem]:
    """Return a problem for each row with a reason."""
    rows = zip(frame["row"], frame["fname"], reasons, strict=True)
    return [Problem(file, int(line), fname, reason, split) for line, fname, reason in rows if reason]


_TestPart = tuple[pd.DataFrame, str, Path, list[Problem], list[str]]  # clips, table, folder, problems, warnings


def _read_test(folder: Path, train_folder: Path) -> _TestPart:
    tables = [folder / name for name in TEST_TABLES if (folder / name).exists()]
    folders = [folder / name for name in TEST_FOLDERS if (folder / name).exists()]
    test_folder = folders[0] if folders else folder / TEST_FOLDERS[0]
    if not tables:
        warnings = [f"{test_folder.name} is not used, because {TEST_TABLES[0]} is missing"] if folders else []
        return pd.DataFrame(columns=["row", "fname", *FACTS]), "", test_folder, [], warnings
    name = tables[0].name
    table = _test_table(tables[0])
    duplicate = table.frame["fname"].map(os.path.normpath).duplicated()
    reasons = ["duplicate row, which is left out" if again else "" for again in duplicate]
    bad_rows = [*_problems_of(table.frame, reasons, name, "test"), *table.problems]
    table.frame = table.frame.loc[~duplicate, ["row", "fname"]].reset_index(drop=True)
    frame, unnamed = _with_facts(table, test_folder, "test clips")
    if test_folder.exists() and test_folder.samefile(train_folder):
        unnamed = []  # they are training clips, or said with these
    unusable = _problems_of(frame, frame["reason"], name, "test")
    warnings = [*table.warnings, *unnamed_warnings(unnamed, test_folder.name, name), *_warnings_of(unusable)]
    if bad_rows:
        warnings.append(f"{count(len(bad_rows), 'bad row')} in the test table: {bad_rows[0]}")
    problems = sorted([*bad_rows, *unusable], key=lambda problem: problem.row)
    return frame, name, test_folder, problems, warnings


def _warnings_of(unusable: list[Problem]) -> list[str]:
    """Return one line about the unusable test clips, if there are any."""
    if not unusable:
        return []
    shown = ", ".join(f"{problem.fname} ({problem.reason})" for problem in unusable[:5])
    ellipsis = ", ..." if len(unusable) > 5 else ""
    return [f"{count(len(unusable), 'unusable test clip')}, scored by the label prior: {shown}{ellipsis}"]


def _test_table(path: Path) -> Table:
    """Read the test table; a row with too many or too few cells keeps its name."""
    table = read_table(path, ("fname",), ("label", "usage", "freesound_id", "license"), "test")
    if table.problems:
        ragged = pd.DataFrame([{"row": problem.row, "fname": problem.fname} for problem in table.problems])
        table.frame = pd.concat([table.frame, ragged]).sort_values("row").reset_index(drop=True)
    if META in path.parts and "label" in table.frame:  # Zenodo leaves out the padding clips' audio
        table.frame = table.frame[table.frame["label"] != NO_LABEL].reset_index(drop=True)
    return table
