"""What the readers of layouts return: the rows of a dataset's training and test clips.

Conventions: names of clips are relative to the folder of their part, with forward slashes. All cells are text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from fsat.data.audio_files import SYSTEM_FOLDERS, LeftOut, is_audio_file, walk
from fsat.data.layouts.clip_files import ClipFiles
from fsat.data.layouts.label_cells import LabelColumn
from fsat.data.tables import Table
from fsat.errors import DataError, count, printable
from fsat.files import user_path
from fsat.layout_options import LayoutOptions

T = TypeVar("T")


class DataFolder:
    """A folder whose layout is looked for: its path, the options, and its audio files, which are listed once.

    Args:
        path: the folder of the dataset.
        options: how it is read.
        given: the folder that the user names, which may be one around it.
    """

    def __init__(self, path: Path, options: LayoutOptions, given: Path) -> None:
        self.path, self.options, self._given = path, options, given
        self._left_out, self._results = LeftOut(), dict[object, Any]()

    def once(self, read: Callable[[DataFolder], T]) -> T:
        """Return what a function of the folder returns, which is called once."""
        if read not in self._results:
            self._results[read] = read(self)
        result: T = self._results[read]
        return result

    def find(self, names: Iterable[str]) -> Path | None:
        """Return the first of these names that exists below the folder, as a path."""
        return next((self.path / name for name in names if (self.path / name).exists()), None)

    def places_of(self, name: str) -> list[Path]:
        """Return where a file that an option names may be: below the folder, or in the current one."""
        return [self.path / user_path(name), self._given / user_path(name), user_path(name)]

    def below(self, path: Path) -> str:
        """Return a path relative to the folder, or as it is if it is elsewhere."""
        return path.relative_to(self.path).as_posix() if path.is_relative_to(self.path) else path.as_posix()

    @cached_property
    def audio(self) -> tuple[str, ...]:
        """Names of the audio files in and below the folder, sorted, but for those in hidden folders.

        Raises `DataError` if a folder cannot be read.
        """
        names = sorted((name.replace(os.sep, "/") for name in walk(self.path, self._left_out)), key=natural)
        names = [name for name in names if all(map(is_data, name.split("/")))]
        if locked := [name for name in names if not is_audio_file(os.path.basename(name))]:
            fault = f"{count(len(locked), 'folder')} cannot be read ({listed_names(locked)})"
            raise DataError(f"{self.path}: {fault}; change the permissions, or move what is no part of the dataset")
        return tuple(names)

    @cached_property
    def files(self) -> ClipFiles:
        """The audio files by the names that tables have for them."""
        return ClipFiles(self.audio)

    @cached_property
    def folders(self) -> list[Path]:
        """The folder and those below it, but for hidden ones; those of one depth by name, after those above them.

        Links are followed, but no folder is there twice.
        """
        level, found, entered = [self.path], list[Path](), set[str]()
        while level:
            new = [path for path in level if os.path.realpath(path) not in entered]
            entered.update(map(os.path.realpath, new))
            found += new
            level = [path for folder in new for path in _subfolders(folder)]
        return found

    @property
    def left_out(self) -> LeftOut:
        """The files that are no audio files, counted."""
        _ = self.audio
        return self._left_out


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []  # `DataFolder.audio` says so
    return [folder / name for name in sorted(names) if is_data(name)]


def is_data(name: str) -> bool:
    """Return whether a file or folder is none that is hidden or that a system has added."""
    return not name.startswith(".") and name not in SYSTEM_FOLDERS


TEST_SPLITS = ("test", "testing", "eval", "evaluation")
"""Names of the part of a dataset that is held back, in lower case."""

TRAIN_SPLITS = ("train", "training", "val", "valid", "validation", "dev", "devel", "development")
"""Names of parts that clips to train on come from; cross-validation makes its own partition of them."""

COLUMNS = ("fname", "label", "manually_verified", "fold", "group")
"""Columns of a part of training clips; the last two are optional."""


@dataclass
class Part:
    """The training clips or the test clips of a dataset.

    Attributes:
        table: ``file, row, fname``, the table and the line that name the clip, or an empty text and a number where
            files have made the row; of training clips also ``label, manually_verified``, 0 or 1, and maybe ``fold`` and
            ``group``, the recording or site whose clips belong together; of annotated recordings ``recording, start,
            end`` too, in seconds. Its problems are of rows that it leaves out.
        name: of the table, or of the folder if there is none, for messages.
        folder: that of the clips.
        lists_all: whether the rows are made from the files, so that no file can lack a row.
    """

    table: Table
    name: str
    folder: Path
    lists_all: bool = False


@dataclass
class Rows:
    """The clips of a dataset.

    Attributes:
        reading: how the layout was understood, in words.
        train, test: the parts; no test part if there are no test clips.
        test_fault: why there is a test part that cannot be read, in words, with its table; empty if there is none.
        warnings: what is left out, and what could be read in another way.
        task: ``single``, or ``multi``, where the labels of a clip are a cell of `fsat.text.join_labels`.
        labels: the column of labels, whose cells may be lists; None if a label is a folder, or one a row by definition.
        makes_background: whether the clips of ``background`` are made, so that no label needs to have that name.
    """

    reading: str
    train: Part
    test: Part | None = None
    test_fault: tuple[str, str] | None = None
    warnings: list[str] = field(default_factory=list)
    task: str = "single"
    labels: LabelColumn | None = None
    makes_background: bool = False


def optional_part(table: Path, read: Callable[[], Part]) -> tuple[Part | None, tuple[str, str] | None]:
    """Return the part that `read` returns, and if it raises `DataError`, the name of its table and the reason."""
    try:
        return read(), None
    except DataError as error:
        return None, (table.name, str(error).partition(": ")[2])


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts ``fold2`` before ``fold10``."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def frame_of(columns: Mapping[str, Sequence[str]], file: str = "") -> pd.DataFrame:
    """Return columns of text with ``file`` and ``row``, numbered from 1."""
    n_rows = len(next(iter(columns.values())))
    return pd.DataFrame({"file": [file] * n_rows, "row": range(1, n_rows + 1), **columns}, dtype=object)


def renamed(table: Table, names: Mapping[str, str], file: str) -> Table:
    """Return a table with `COLUMNS` only, by other names, and with ``manually_verified`` as 0 if it has none."""
    frame = table.frame.rename(columns=dict(names)).assign(file=file)
    if "label" in frame and "manually_verified" not in frame:
        frame["manually_verified"] = "0"
    return Table(frame[["file", "row", *(name for name in COLUMNS if name in frame)]], table.problems, table.warnings)


def listed_names(names: Sequence[str], shown: int = 3) -> str:
    """Return a number of names in words, and the first ones."""
    first = ", ".join(map(printable, names[:shown]))
    return f"{first}, ..." if len(names) > shown else first
