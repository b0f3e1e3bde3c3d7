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
from fsat.data.clip_checks import check_clips
from fsat.data.folds import resolve_folds, small_classes
from fsat.data.tables import Table, read_table
from fsat.errors import ConfigError, DataError, Problem, count
from fsat.text import NO_LABEL, label_order, why_not_a_label

REQUIRED = ("fname", "label", "manually_verified")
OPTIONAL = ("fold", "freesound_id")
KNOWN = (*OPTIONAL, "license")
HOW_TO_MAKE_IT = f", with the columns {','.join(REQUIRED)}; see docs/data.md, which has a program that writes it"

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
            ``freesound_id`` (text), and ``row`` (line), ``frames``, ``samplerate``, ``digest`` and ``stamp`` of
            the file, as in `ClipFacts`.
        test: one row a test clip: ``fname, row, frames, samplerate, digest, stamp, reason``; the reason is empty for
            usable clips. May have no rows.
        train_table, test_table: the tables' file names; that of the test table is empty where there is none.
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
    test_table: str
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
        unusable = [
            Problem(self.test_table, int(row), fname, reason, "test")
            for row, fname, reason in zip(self.test["row"], self.test["fname"], test_bad, strict=True)
            if reason
        ]
        test = self.test.copy()
        spoilt = test_bad.astype(bool)
        test.loc[spoilt, "reason"] = test_bad[spoilt]
        train = self.train[~train_bad.astype(bool)].reset_index(drop=True)
        if found and not train.empty:
            too_small = small_classes(train, resolve_folds(train, config).n_folds, self.train_table)
            if too_small:
                _decide(self.folder, [*found, *too_small], "error")
        if train.empty:
            raise DataError(f"{self.folder}: no usable training clip is left; mend what is listed", found)
        labels = label_order(train["label"])
        return replace(
            self, train=train, test=test, labels=labels, problems=[*self.problems, *found, *unusable],
            warnings=[*self.warnings, *_warn_of(unusable)],
        )  # fmt: skip


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
    train_table = _first(folder, TRAIN_TABLES, "a table of training clips", HOW_TO_MAKE_IT)
    train_folder = _first(folder, TRAIN_FOLDERS, "a folder of training clips")
    table = read_table(train_table, REQUIRED, KNOWN)
    for name in set(OPTIONAL) & set(table.frame):
        table.frame[name] = table.frame[name].str.strip()
    problems = [*table.problems, *_row_problems(table.frame, train_table.name)]
    train = _with_facts(table.frame, train_folder, "training clips")
    problems += _clip_problems(train, train_table.name, "train")
    problems.sort(key=lambda problem: problem.row)

    broken = []
    try:
        test, test_table, test_problems, test_folder, warnings = _read_test(folder)
    except DataError as error:
        if not problems:
            raise
        broken = [Problem(_first(folder, TEST_TABLES, "").name, 0, "", str(error).partition(": ")[2], "test")]
    usable = train[~train["row"].isin({problem.row for problem in problems})]
    too_small = []
    seen = _sound_rows(train) if on_bad_clip == "error" else usable
    if config is not None and not seen.empty:
        try:
            too_small = small_classes(seen, resolve_folds(seen, config).n_folds, train_table.name)
        except ConfigError as error:
            if not problems:
                raise
            too_small = [Problem(train_table.name, 0, "", str(error))]
    _decide(folder, [*problems, *too_small, *broken], "error" if too_small or broken else on_bad_clip)
    train = usable.drop(columns="reason").reset_index(drop=True)
    if train.empty:
        raise DataError(f"{train_table}: no usable training clip is left; mend what is listed", problems)
    train["manually_verified"] = train["manually_verified"].astype("int64")
    return Manifest(
        folder, train, test, train_table.name, train_folder, test_folder, test_table, label_order(train["label"]),
        problems=[*problems, *test_problems], warnings=[*table.warnings, *warnings],
    )  # fmt: skip


def _decide(folder: Path, problems: list[Problem], on_bad_clip: str) -> None:
    if problems and on_bad_clip == "error":
        way_out = ", or leave these clips out with on_bad_clip=exclude" if all(p.row for p in problems) else ""
        raise DataError(
            f"{folder}: {count(len(problems), 'problem')} in the training clips; mend what is listed{way_out}", problems
        )


def _first(folder: Path, names: Iterable[str], what: str, more: str = "") -> Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise DataError(f"{folder}: {what} is missing; expected {' or '.join(names)}{more}")


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
        if "fold" in frame and not row.fold:
            reasons.append("the fold is empty")
        problems += [Problem(file, row.row, row.fname, reason) for reason in reasons]
    return problems


def _sound_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that say which class and fold they are of, whatever their files are like."""
    sound = (frame["label"].map(why_not_a_label) == "") & ~frame["fname"].duplicated()
    if "fold" in frame:
        sound &= frame["fold"] != ""
    return frame[sound]


def _with_facts(frame: pd.DataFrame, folder: Path, what: str) -> pd.DataFrame:
    facts = check_clips(folder, frame["fname"].tolist(), what)
    names = ("frames", "samplerate", "digest", "stamp", "reason")
    return frame.assign(**{name: [getattr(fact, name) for fact in facts] for name in names})


def _clip_problems(frame: pd.DataFrame, file: str, split: str) -> list[Problem]:
    bad = frame[frame["reason"] != ""]
    return [Problem(file, int(row.row), row.fname, row.reason, split) for row in bad.itertuples(index=False)]


def _read_test(folder: Path) -> tuple[pd.DataFrame, str, list[Problem], Path, list[str]]:
    """Test clips, their table's name, what is wrong with them, their folder, and warnings."""
    tables = [folder / name for name in TEST_TABLES if (folder / name).exists()]
    folders = [folder / name for name in TEST_FOLDERS if (folder / name).exists()]
    test_folder = folders[0] if folders else folder / TEST_FOLDERS[0]
    if not tables:
        nothing = pd.DataFrame(columns=["row", "fname", "frames", "samplerate", "digest", "stamp", "reason"])
        warnings = [f"{test_folder.name} is left out: there is no {TEST_TABLES[0]}"] if folders else []
        return nothing, "", [], test_folder, warnings
    name = tables[0].name
    table = _test_table(tables[0])
    twice = table.frame["fname"].duplicated()
    problems = [
        Problem(name, row.row, row.fname, "duplicate row, which is left out", "test")
        for row in table.frame[twice].itertuples(index=False)
    ]
    frame = _with_facts(table.frame.loc[~twice, ["row", "fname"]].reset_index(drop=True), test_folder, "test clips")
    unusable = _clip_problems(frame, name, "test")
    warnings = [*table.warnings, *_warn_of(unusable)]
    if problems or table.problems:
        first = [*problems, *table.problems][0]
        warnings.append(f"{count(len(problems) + len(table.problems), 'bad row')} in the test table: {first}")
    problems = sorted([*problems, *table.problems, *unusable], key=lambda problem: problem.row)
    return frame, name, problems, test_folder, warnings


def _warn_of(unusable: list[Problem]) -> list[str]:
    """One line about the test clips that cannot be used, if there are any."""
    if not unusable:
        return []
    shown = ", ".join(f"{problem.fname} ({problem.reason})" for problem in unusable[:5])
    more = ", ..." if len(unusable) > 5 else ""
    return [f"{count(len(unusable), 'unusable test clip')}, scored by the label prior: {shown}{more}"]


def _test_table(path: Path) -> Table:
    """The test table; of a row with too many or too few cells the name counts all the same."""
    table = read_table(path, ("fname",), ("label", "usage", "freesound_id", "license"), "test")
    if table.problems:
        ragged = pd.DataFrame([{"row": problem.row, "fname": problem.fname} for problem in table.problems])
        table.frame = pd.concat([table.frame, ragged]).sort_values("row").reset_index(drop=True)
    if META in path.parts and "label" in table.frame:  # Zenodo leaves out the padding clips' audio
        table.frame = table.frame[table.frame["label"] != NO_LABEL].reset_index(drop=True)
    return table
