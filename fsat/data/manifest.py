"""The manifest of a dataset: its clips, their labels, and all problems, found before any training.

`fsat.data.layouts` reads the rows; here their cells and files are checked. An unusable training clip is an error or is
excluded, by ``on_bad_clip``; an unusable test clip always keeps its row.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.config import Config
from fsat.data.clip_checks import check_clips
from fsat.data.clip_names import ascii_if_alike, earlier_rows, explain_missing, unnamed_files, unnamed_warnings
from fsat.data.folds import resolve_folds, small_classes
from fsat.data.label_checks import check_label_cells
from fsat.data.layouts.recognise import read_layout
from fsat.data.layouts.rows import Part, Rows
from fsat.errors import LINK_OUT, ConfigError, DataError, Problem, count, printable
from fsat.files import data_folder
from fsat.layout_options import FOUND, LayoutOptions
from fsat.text import is_unknown, label_order, split_labels

FACTS = ("frames", "samplerate", "digest", "stamp", "reason")
"""Columns from `ClipFacts`."""


@dataclass(frozen=True)
class Manifest:
    """The clips of one dataset.

    Attributes:
        train: one row per training clip: ``fname, label, manually_verified`` (0 or 1), optional ``fold`` and
            ``group`` (text), ``file`` and ``row``, the table and line that name it, and ``frames``, ``samplerate``,
            ``digest`` and ``stamp`` of the file, as in `ClipFacts`. Once clips were compared, both tables have
            ``sound``, a number that clips with equal samples share.
        test: one row per test clip: ``fname, file, row, frames, samplerate, digest, stamp, reason``; the reason is
            empty for usable clips. May have no rows.
        train_table, test_table: names of the tables, or of the folder if there is none; the test table's is empty if
            there are no test clips.
        layout: name of the layout, and how it was understood, in words.
        task: ``single``, or ``multi``, where a cell of ``label`` is one of `fsat.text.join_labels`, or empty for none.
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
    layout: tuple[str, str] = ("", "")
    task: str = "single"

    @property
    def digest(self) -> str:
        """Hash of the sounds, their labels and verification, whatever names, order and layout they have: 16 hex digits.

        Folds and groups do not count: the id of a study has the folds that they lead to. Test clips count in the order
        of their names, because members of an ensemble are matched by these.
        """
        columns = ["digest", "label", "manually_verified"]
        tests = sorted(
            (Path(fname).name, fname, str(sound)) for fname, sound in self.test[["fname", "digest"]].to_numpy()
        )
        facts: list[object] = [
            sorted(self.train[columns].astype(str).to_numpy().tolist()),
            [sound for *_, sound in tests],
        ]
        facts += [self.task] if self.task != "single" else []
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()

    def describe(self) -> str:
        """Return the layout, the clips, the classes and their length in one line."""
        name, reading = self.layout
        seconds = float((self.train["frames"] / self.train["samplerate"]).sum())
        length = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
        tests = f", {count(len(self.test), 'test clip')}" if len(self.test) else ""
        clips = f"{count(len(self.train), 'clip')} of {count(len(self.labels), 'class')}, {length}{tests}"
        if self.task == "multi":
            numbers = self.targets.sum(axis=1)
            clips += f", {np.sum(numbers == 0)} without a label, {np.sum(numbers > 1)} with several"
        return f"{printable(self.folder)}: {clips}; layout={name}: {printable(reading)}"

    def in_canonical_order(self) -> tuple[Manifest, np.ndarray]:
        """Return the manifest with its training clips ordered by content, whatever their names, and that order.

        The order is int64 (n_train,), the row of each clip in this manifest.
        """
        columns = ["digest", "label", "manually_verified", "fold", "group", "fname"]
        order = self.train.reset_index(drop=True).sort_values([name for name in columns if name in self.train]).index
        return replace(self, train=self.train.iloc[order].reset_index(drop=True)), order.to_numpy()

    @property
    def targets(self) -> np.ndarray:
        """What each training clip is labelled with; see `targets_of`."""
        return targets_of(self.train["label"], self.labels, self.task)

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
        train_problems = _problems_of(self.train, train_errors)
        _refuse(self.folder, train_problems, on_bad_clip)
        test_problems = _problems_of(self.test, test_errors, "test")
        train = self.train[[not error for error in train_errors]].reset_index(drop=True)
        if train.empty:
            raise _nothing_left(self.folder, train_problems)
        small = []
        if train_problems and config:
            small = small_classes(train, self.train_table, self.task)
        _refuse(self.folder, [*train_problems, *small], "error" if small else on_bad_clip)
        reasons = [error or reason for error, reason in zip(test_errors, self.test["reason"], strict=True)]
        test, labels = self.test.assign(reason=reasons), class_labels(train["label"], self.task)
        problems = [*self.problems, *train_problems, *test_problems]
        warnings = [*self.warnings, *_warnings_of(test_problems)]
        return replace(self, train=train, test=test, labels=labels, problems=problems, warnings=warnings)


def class_labels(cells: pd.Series, task: str) -> list[str]:
    """Return the label order of a column ``label``."""
    return label_order(
        cells if task == "single" else (label for cell in cells.unique() for label in split_labels(cell))
    )


def targets_of(cells: pd.Series, labels: Sequence[str], task: str) -> np.ndarray:
    """Return the targets of clips with the labels of a column: int64 (n,), the class, or bool (n, n_classes) in multi.

    Raises KeyError for a label that is none of `labels`.
    """
    index = {label: i for i, label in enumerate(labels)}
    if task == "single":
        return np.asarray([index[label] for label in cells], dtype=np.int64)
    codes, cells_once = pd.factorize(cells)
    rows = np.zeros((len(cells_once), len(labels)), dtype=bool)
    for row, cell in zip(rows, cells_once, strict=True):
        row[[index[label] for label in split_labels(cell)]] = True
    return np.asarray(rows[codes])


def read_manifest(
    folder: str | Path, on_bad_clip: str = "error", config: Config | None = None, layout: LayoutOptions = FOUND
) -> Manifest:
    """Read and check a dataset's rows and the headers of its clips.

    Raises `DataError` with all problems if the folder is missing or its `layout` is not found, a table cannot be read,
    training rows are bad and `on_bad_clip` is ``error`` rather than ``exclude``, or a class has a single clip although
    folds are to be made for a `config`.
    """
    folder = data_folder(folder)
    found = read_layout(folder, layout)
    rows, part = found.rows, found.rows.train
    train, unnamed = _with_facts(part, "training clips")
    train["label"] = train["label"].str.strip()
    lines = train["row"].where(train["file"] != "", 0).tolist()
    faults, doubts = check_label_cells(train["label"].tolist(), lines, rows.task, rows.labels is not None)
    problems = [*part.table.problems, *_row_problems(train, part.folder, faults), *_problems_of(train, train["reason"])]
    problems.sort(key=lambda problem: (problem.file, problem.row))
    test = _read_test(rows)
    broken = [Problem(rows.test_fault[0], 0, "", rows.test_fault[1], "test")] if rows.test_fault else []
    if broken and not problems:
        raise DataError(f"{folder}: {broken[0]}", broken)
    bad = {(problem.file, problem.row) for problem in problems}
    usable = train[[key not in bad for key in zip(train["file"], train["row"], strict=True)]]
    small, counted = [], _sound_rows(train, faults) if on_bad_clip == "error" else usable
    if config is not None and not counted.empty:
        try:
            resolve_folds(counted, replace(config, task=rows.task))
            small = small_classes(counted, part.name, rows.task)
        except ConfigError as error:
            if not problems:
                raise
            small = [Problem(part.name, 0, "", str(error))]
    _refuse(folder, [*problems, *small, *broken], "error" if small or broken else on_bad_clip)
    if usable.empty:
        raise _nothing_left(folder, problems)
    train = usable.drop(columns="reason").reset_index(drop=True).astype({"manually_verified": "int64"})
    unnamed = _without_tests(unnamed, part.folder, test)
    warnings = [*rows.warnings, *part.table.warnings, *doubts, *unnamed_warnings(unnamed, part.folder.name, part.name)]
    return Manifest(
        folder, train, test.clips, part.name, part.folder, test.folder, test.table,
        class_labels(train["label"], rows.task), [*problems, *test.problems], [*warnings, *test.warnings],
        (found.layout, rows.reading), rows.task,
    )  # fmt: skip


def why_one_label(manifest: Manifest) -> str:
    """Return why a dataset whose clips all have the same label cannot be trained on; empty if it can be."""
    cells = manifest.train["label"]
    is_multi = manifest.task == "multi"
    if (len(manifest.labels) > 1 and not is_multi) or (manifest.labels and is_multi and cells.nunique() > 1):
        return ""
    if not manifest.labels:
        return f"none of {count(len(cells), 'training clip')} has a label; expected clips of one class at least"
    if is_multi:
        only = "only label" if len(manifest.labels) == 1 else "same labels"
        fault = f"all of {count(len(cells), 'training clip')} have the {only}, {printable(cells.iloc[0])}"
        way_out = "add some, with an empty cell, or of a class that background= names"
        return f"{fault}, and a tagger needs clips without {'it' if only == 'only label' else 'them'}: {way_out}"
    fault = f"the only label of {count(len(manifest.train), 'training clip')} is {printable(manifest.labels[0])}"
    advice = "does the column label name a folder above the classes, and is data_dir the folder of the whole dataset?"
    return f"{fault}, and a tagger needs two or more; {advice}"


def _refuse(folder: Path, problems: list[Problem], on_bad_clip: str) -> None:
    """Raise `DataError` with the problems, if there are any, unless clips are to be excluded."""
    if problems and on_bad_clip == "error":
        way_out = ", or leave these clips out with on_bad_clip=exclude" if all(p.row for p in problems) else ""
        are_links = all(problem.reason == LINK_OUT for problem in problems)
        links = "; instead of links, copy the files into the folder, as cp -rL does" if are_links else ""
        message = f"{count(len(problems), 'problem')} in the training clips; fix the rows listed above{way_out}{links}"
        raise DataError(f"{folder}: {message}", problems)


def _nothing_left(path: Path, problems: list[Problem]) -> DataError:
    return DataError(f"{path}: no usable training clip is left; fix the rows listed above", problems)


def _row_problems(frame: pd.DataFrame, folder: Path, label_faults: Sequence[str]) -> list[Problem]:
    """Return the problems of a table's cells; `label_faults` has those of the labels, or empty texts."""
    problems: list[Problem] = []
    fnames, lines, labels = frame["fname"].tolist(), frame["row"].tolist(), frame["label"].tolist()
    columns = [frame["file"], frame["row"], frame["fname"], range(len(frame)), frame["manually_verified"]]
    folds = frame["fold"] if "fold" in frame else ["0"] * len(frame)
    earlier = earlier_rows(folder, fnames, frame["stamp"].tolist())
    for file, line, fname, i, verified, fold, first in zip(*columns, folds, earlier, strict=True):
        reasons = (
            "" if first is None else _same_file(fname, fnames[first], lines[first], labels[i] != labels[first]),
            label_faults[i],
            "" if verified in ("0", "1") else f"manually_verified is {verified!r}, expected 0 or 1",
            _fold_fault(fold),
        )
        problems += [Problem(file, line, fname, reason) for reason in reasons if reason]
    return problems


def _same_file(fname: str, first: str, line: int, has_other_label: bool) -> str:
    way_out = "; if the clip has both labels, use task=multi" if has_other_label else ""
    if fname == first:
        return f"duplicate row: the clip is in line {line} too{way_out}"
    return f"duplicate row: the file is {ascii_if_alike(first, fname)} in line {line} too"


def _fold_fault(fold: str) -> str:
    return f"the fold is {repr(fold) if fold else 'empty'}" if is_unknown(fold) else ""


def _sound_rows(frame: pd.DataFrame, label_faults: Sequence[str]) -> pd.DataFrame:
    """Return the rows with a valid label and fold, whatever their files."""
    sound = ~np.array([bool(fault) for fault in label_faults], dtype=bool) & ~frame["fname"].duplicated()
    if "fold" in frame:
        sound &= ~frame["fold"].map(is_unknown)
    return frame[sound]


def _with_facts(part: Part, description: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows with the facts of their files, and the files that no row names."""
    fnames = part.table.frame["fname"].tolist()
    facts = check_clips(part.folder, fnames, description)
    unnamed = []
    if not part.lists_all:
        unnamed = unnamed_files(part.folder, [*fnames, *(problem.fname for problem in part.table.problems)])
    reasons = explain_missing(fnames, [fact.reason for fact in facts], unnamed)
    columns = {name: [getattr(fact, name) for fact in facts] for name in FACTS}
    return part.table.frame.assign(**{**columns, "reason": reasons}), unnamed


def _problems_of(frame: pd.DataFrame, reasons: Iterable[str], split: str = "train") -> list[Problem]:
    """Return a problem for each row with a reason."""
    rows = zip(frame["file"], frame["row"], frame["fname"], reasons, strict=True)
    return [Problem(file, int(line), fname, reason, split) for file, line, fname, reason in rows if reason]


@dataclass(frozen=True)
class _Test:
    """The test part, whose table has an empty name if there is none."""

    clips: pd.DataFrame
    folder: Path
    table: str = ""
    problems: Sequence[Problem] = ()
    warnings: Sequence[str] = ()


def _read_test(rows: Rows) -> _Test:
    part = rows.test
    if part is None:
        return _Test(pd.DataFrame(columns=["file", "row", "fname", *FACTS]), rows.train.folder / "no test clips")
    frame, unnamed = _with_facts(part, "test clips")
    if part.folder.exists() and part.folder.samefile(rows.train.folder):
        unnamed = []  # they are training clips, or said with these
    unusable, bad_rows = _problems_of(frame, frame["reason"], "test"), part.table.problems
    warnings = [*part.table.warnings, *unnamed_warnings(unnamed, part.folder.name, part.name), *_warnings_of(unusable)]
    if bad_rows:
        warnings.append(f"{count(len(bad_rows), 'bad row')} in the test table: {bad_rows[0]}")
    problems = sorted([*bad_rows, *unusable], key=lambda problem: problem.row)
    return _Test(frame, part.folder, part.name, problems, warnings)


def _without_tests(unnamed: Sequence[str], folder: Path, test: _Test) -> list[str]:
    """Return the files without a row in the table of training clips that are no test clips, nor in their folder."""
    if not test.folder.exists():
        return list(unnamed)
    below = os.path.relpath(test.folder.resolve(), folder.resolve())
    if below == os.curdir:
        return sorted(set(unnamed) - set(map(os.path.normpath, test.clips["fname"])))
    return [name for name in unnamed if not name.startswith(f"{below}{os.sep}")]


def _warnings_of(unusable: list[Problem]) -> list[str]:
    """Return one line about the unusable test clips, if there are any."""
    if not unusable:
        return []
    shown = ", ".join(f"{problem.fname} ({problem.reason})" for problem in unusable[:5])
    ellipsis = ", ..." if len(unusable) > 5 else ""
    return [f"{count(len(unusable), 'unusable test clip')}, scored by the label prior: {shown}{ellipsis}"]
