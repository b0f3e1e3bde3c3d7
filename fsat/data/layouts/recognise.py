"""Find the layout of a data folder, and read its rows.

The layouts of published datasets and of fsat's own tables are known by their files. Of the others a table with a row
for each clip counts before the names of folders; if both are there and do not agree on the clips, that is an error
that names both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fsat.data.audio_files import is_audio_file
from fsat.data.layouts import annotated, class_folders, fsdkaggle2018, labelled_table, published
from fsat.data.layouts.rows import DataFolder, Rows, listed_names
from fsat.errors import ConfigError, DataError, count
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
    "table": Layout(lambda data: bool(labelled_table.tables(data)), labelled_table.read),
    "class_folders": Layout(class_folders.matches, class_folders.read),
}
"""The layouts, in the order in which they are looked for; `fsat.layout_options.LAYOUTS` describes them."""

OWN_TABLE = "train.csv"
"""Name of a table that `fsat manifest` writes, or that a person does, beside those of another layout."""

GENERAL = ("table", "class_folders")
"""Layouts that a folder with a more special one has too."""

TABLE_OPTIONS = ("table", "path_column", "label_column", "fold_column", "group_column", "verified_column")
"""Options of `labelled_table`."""

ANNOTATION_OPTIONS = ("annotations", "start_column", "end_column", "clip_seconds", "background")
"""Options of `annotated`."""

READ_OPTIONS = {
    "table": TABLE_OPTIONS,
    "audiofolder": TABLE_OPTIONS[1:],
    "annotations": (*ANNOTATION_OPTIONS, "path_column", "label_column"),
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
    data = DataFolder(_unwrapped(folder), options)
    name = _given(data) or _find(data)
    _check_options(name, options)
    return Reading(name, READERS[name].read(data))


def _unwrapped(folder: Path) -> Path:
    """Return the folder itself, or the only folder in it, as archives unpack, unless audio files are directly there."""
    entries = [path for path in folder.iterdir() if path.name[0] != "." and path.name != "__MACOSX"]
    if len(entries) != 1 or not entries[0].is_dir():
        return folder
    if any(is_audio_file(path.name) for path in entries[0].iterdir()):
        return folder
    return _unwrapped(entries[0])


def _given(data: DataFolder) -> str:
    """Return the layout that the options name or imply; empty if it is to be found."""
    given = data.options.given
    if "layout" in given:
        return data.options.layout
    if given.keys() & set(ANNOTATION_OPTIONS):
        return "annotations"
    if given.keys() & set(TABLE_OPTIONS):
        return "annotations" if "table" not in given and annotated.matches(data) else "table"
    return "class_folders" if "label_level" in given else ""


def _check_options(name: str, options: LayoutOptions) -> None:
    """Raise `ConfigError` if an option is given that the layout does not read."""
    for option, value in options.given.items():
        if option != "layout" and option not in READ_OPTIONS.get(name, ()):
            owner = next(layout for layout, read in READ_OPTIONS.items() if option in read)
            raise ConfigError(f"{option}={value}: layout={name} does not read it; leave it out, or use layout={owner}")


def _find(data: DataFolder) -> str:
    special = [name for name, layout in READERS.items() if name not in GENERAL and layout.matches(data)]
    if len(special) > 1:
        raise _ambiguous(data, special)
    if special:
        own = data.path / OWN_TABLE
        if special[0] != "fsdkaggle2018" and own.is_file() and labelled_table.is_table(own, data):
            raise _ambiguous(data, [*special, "table"])
        return special[0]
    general = [name for name in GENERAL if READERS[name].matches(data)]
    if not general:
        raise DataError(f"{data.path}: {_what_is_there(data)}; expected {_EXPECTED}")
    if len(general) > 1 and not _table_covers_folders(data):
        raise _ambiguous(data, general)
    return general[0]


_EXPECTED = (
    "a folder for each class with its clips, a table (.csv, .tsv, .jsonl) with columns such as filename and label, or "
    "a published dataset; see docs/data.md, or name the columns with path_column= and label_column="
)


def _what_is_there(data: DataFolder) -> str:
    n_audio = len(data.audio)
    if not n_audio:
        return "no audio file is in or below it"
    return (
        f"{count(n_audio, 'audio file')} ({listed_names(data.audio)}), but neither a table of labels nor class folders"
    )


def _table_covers_folders(data: DataFolder) -> bool:
    """Return whether a table names all audio files in folders, so that the folders say nothing else."""
    try:
        rows = labelled_table.read(data)
    except DataError:
        return True  # reading it says what is wrong
    named = {fname for part in (rows.train, rows.test) if part for fname in part.table.frame["fname"]}
    return set(class_folders.clips_below_classes(data)) <= named


def _ambiguous(data: DataFolder, names: list[str]) -> DataError:
    kinds = {"class_folders": class_folders.describe, "table": _describe_tables}
    known = [f"layout={name} ({kinds[name](data) if name in kinds else LAYOUTS[name]})" for name in names]
    return DataError(
        f"{data.path}: it may be read in {len(names)} ways: {', '.join(known)}; choose one of these options"
    )


def _describe_tables(data: DataFolder) -> str:
    return listed_names([path.relative_to(data.path).as_posix() for path in labelled_table.tables(data)])
