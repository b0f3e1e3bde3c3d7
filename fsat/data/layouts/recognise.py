"""Find the layout of a data folder, and read its rows.

The layouts of published datasets and of fsat's own tables are known by their files. Of the others annotations and
tables count before the names of folders; if several are there and one says something of clips that another leaves out,
that is an error that names both. If there is none, the error says why each file that seems to be of the clips is not
read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fsat.data.audio_files import is_audio_file
from fsat.data.layouts import annotated, class_folders, fsdkaggle2018, labelled_table, published
from fsat.data.layouts.clip_labels import settle_task
from fsat.data.layouts.other_files import ADVICE_AT_LAST, advice
from fsat.data.layouts.rows import DataFolder, Rows, is_data, listed_names
from fsat.data.layouts.table_files import (
    columns_of_tables,
    find_tables,
    has_flags_only,
    is_table,
    may_be_table,
    names_clips,
    why_not_tables,
)
from fsat.errors import ConfigError, DataError, count, printable
from fsat.layout_options import FOUND, LAYOUTS, LayoutOptions


@dataclass(frozen=True)
class Layout:
    """Whether a folder has a layout, and the function that reads it."""

    matches: Callable[[DataFolder], bool]
    read: Callable[[DataFolder], Rows]


READERS: dict[str, Layout] = {
    "fsdkaggle2018": Layout(fsdkaggle2018.matches, fsdkaggle2018.read),
    "fsdkaggle2019": Layout(published.is_fsdkaggle2019, published.read_fsdkaggle2019),
    "fsd50k": Layout(published.is_fsd50k, published.read_fsd50k),
    "fsdnoisy18k": Layout(published.is_fsdnoisy18k, published.read_fsdnoisy18k),
    "esc50": Layout(published.is_esc50, published.read_esc50),
    "urbansound8k": Layout(published.is_urbansound8k, published.read_urbansound8k),
    "speech_commands": Layout(published.is_speech_commands, published.read_speech_commands),
    "audiofolder": Layout(labelled_table.is_audiofolder, labelled_table.read_audiofolder),
    "annotations": Layout(annotated.matches, annotated.read),
    "table": Layout(lambda data: bool(data.once(find_tables)), labelled_table.read),
    "class_folders": Layout(class_folders.matches, class_folders.read),
}
"""The layouts, in the order in which they are looked for; `fsat.layout_options.LAYOUTS` describes them."""

OWN_TABLE = "train.csv"
"""Name of a table that `fsat manifest` writes, or that a person does, beside those of another layout."""

GENERAL = ("annotations", "table", "class_folders")
"""Layouts that a folder with a more special one has too."""

TABLE_OPTIONS = ("table", "path_column", "label_column", "fold_column", "group_column", "verified_column")
"""Options of `labelled_table`."""

ANNOTATION_OPTIONS = ("annotations", "start_column", "end_column", "clip_seconds")
"""Options of `annotated`."""

COMMON_OPTIONS = ("layout", "task", "background")
"""Options of every layout."""

READ_OPTIONS = {
    "table": TABLE_OPTIONS,
    "audiofolder": TABLE_OPTIONS[1:],
    "annotations": (*ANNOTATION_OPTIONS, "table", "path_column", "label_column"),
    "class_folders": ("label_level",),
}
"""The options that each layout reads."""


@dataclass(frozen=True)
class Reading:
    """The rows of a data folder, and the name of its layout."""

    layout: str
    rows: Rows


def read_layout(folder: Path, options: LayoutOptions = FOUND) -> Reading:
    """Return the rows of a data folder, whose layout is given by the options or found.

    Raises:
        DataError: no layout is found, several are, or the one that is cannot be read.
        ConfigError: an option does not belong to the layout.
    """
    data = DataFolder(_unwrapped(folder), options, folder)
    given = _given(data)
    name = given or _find(data)
    _check_options(name, options)
    rows = data.once(READERS[name].read)
    settle_task(rows, options)
    if name == "class_folders" and not given:
        rows.warnings += [f"not read: {reason}" for reason in [*why_not_tables(data), *advice(data)]]
    return Reading(name, rows)


def _unwrapped(folder: Path) -> Path:
    """Return the folder itself, or the only folder in it, as archives unpack, unless audio or a table is beside it."""
    try:
        entries = [path for path in folder.iterdir() if is_data(path.name)]
        folders = [path for path in entries if path.is_dir()]
        if len(folders) != 1 or any(may_be_table(path) or is_audio_file(path.name) for path in entries):
            return folder
        if any(is_audio_file(path.name) for path in folders[0].iterdir()):
            return folder
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); change its permissions") from error
    return _unwrapped(folders[0])


def _given(data: DataFolder) -> str:
    """Return the layout that the options name or imply; empty if it is to be found."""
    given = data.options.given
    if "layout" in given:
        return data.options.layout
    if given.keys() & set(ANNOTATION_OPTIONS):
        return "annotations"
    if given.keys() & set(TABLE_OPTIONS):
        return "annotations" if annotated.matches(data) else "table"
    return "class_folders" if "label_level" in given else ""


def _check_options(name: str, options: LayoutOptions) -> None:
    """Raise `ConfigError` if an option is given that the layout does not read."""
    for option, value in options.given.items():
        if option not in (*COMMON_OPTIONS, *READ_OPTIONS.get(name, ())):
            owner = next(layout for layout, read in READ_OPTIONS.items() if option in read)
            raise ConfigError(f"{option}={value}: layout={name} does not read it; leave it out, or use layout={owner}")


def _find(data: DataFolder) -> str:
    special = [name for name, layout in READERS.items() if name not in GENERAL and layout.matches(data)]
    if len(special) > 1:
        raise _ambiguous(data, special)
    own = data.path / OWN_TABLE
    if special:
        if special[0] != "fsdkaggle2018" and own.is_file() and is_table(own, data):
            raise _ambiguous(data, [*special, "table"])
        return special[0]
    general = [name for name in GENERAL if READERS[name].matches(data)]
    if not general:
        raise _unknown(data)
    if len(general) > 1:
        general = _more_special(data, general)
    if len(general) > 1:
        raise _ambiguous(data, general)
    return general[0]


def _more_special(data: DataFolder, names: list[str]) -> list[str]:
    """Return the general layouts without those that say nothing else of the clips than another one does."""
    if "table" in names and "class_folders" in names:
        tables = data.once(find_tables)
        if not any(names_clips(path, data) and not has_flags_only(path, data) for path in tables):
            names = [name for name in names if name != "table"]
        elif _table_covers_folders(data):
            names = [name for name in names if name != "class_folders"]
    if "annotations" in names:
        files = data.once(annotated.annotated_files)
        if "table" in names and set(data.once(find_tables)) == files.keys():
            names = [name for name in names if name != "table"]
        below = data.once(class_folders.clips_below_classes)
        if "class_folders" in names and 2 * len(set().union(*files.values()).intersection(below)) >= len(below):
            names = [name for name in names if name != "class_folders"]
    return names


_EXPECTED = (
    "a folder for each class with its clips, a table (.csv, .tsv, .jsonl) with columns such as filename and label, or "
    "a published dataset; see docs/layouts.md, or name the columns with path_column= and label_column="
)


def _unknown(data: DataFolder) -> DataError:
    """Return that no layout is found: what is there, why it is none, and what is expected."""
    n_audio = len(data.audio)
    folders = {name.rpartition("/")[0] for name in data.audio}
    what = f"{count(n_audio, 'audio file')} ({listed_names(data.audio)})"
    if not n_audio:
        what = "no audio file is in or below it"
    elif len(folders) == 1 and (folder := folders.pop()):
        what += f", all in one folder, {printable(folder)}, but no table of labels and no folders of several classes"
    else:
        what += ", but neither a table of labels nor class folders"
    reasons = [*why_not_tables(data), *annotated.why_not(data), *advice(data, ADVICE_AT_LAST)]
    reasons = reasons or columns_of_tables(data) or [f"expected {_EXPECTED}"]
    return DataError("; ".join([f"{data.path}: {what}", *reasons]))


def _table_covers_folders(data: DataFolder) -> bool:
    """Return whether a table names all audio files in folders, so that the folders say nothing else."""
    try:
        rows = data.once(labelled_table.read)
    except DataError:
        return True  # reading it says what is wrong
    named = {fname for part in (rows.train, rows.test) if part for fname in part.table.frame["fname"]}
    return set(data.once(class_folders.clips_below_classes)) <= named


def _ambiguous(data: DataFolder, names: list[str]) -> DataError:
    kinds = {"class_folders": class_folders.describe, "table": _describe_tables}
    known = [f"layout={name} ({kinds[name](data) if name in kinds else LAYOUTS[name]})" for name in names]
    return DataError(
        f"{data.path}: it may be read in {len(names)} ways: {', '.join(known)}; choose one of these options"
    )


def _describe_tables(data: DataFolder) -> str:
    return listed_names([data.below(path) for path in data.once(find_tables)])
