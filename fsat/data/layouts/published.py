"""The layouts of published datasets, as their archives unpack, with the meaning that their authors give the columns.

Sources: the README files of ESC-50 (github.com/karolpiczak/ESC-50), UrbanSound8K (urbansounddataset.weebly.com),
FSDKaggle2019 (Zenodo, record 3612637), FSD50K (record 4060432), FSDnoisy18k (record 2529934), and Speech Commands
(arxiv.org/abs/1804.03209).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from fsat.data.layouts.clip_labels import check_background
from fsat.data.layouts.label_cells import LabelColumn
from fsat.data.layouts.rows import (
    DataFolder,
    Part,
    Rows,
    frame_of,
    listed_names,
    natural,
    optional_part,
    renamed,
)
from fsat.data.tables import Table, read_header, read_table
from fsat.errors import DataError, count

ESC50_TABLES = ("meta/esc50.csv", "esc50.csv")
URBANSOUND_TABLES = ("metadata/UrbanSound8K.csv", "UrbanSound8K.csv")
URBANSOUND_COLUMNS = ("slice_file_name", "class", "fold", "fsID")
FSD50K_TABLES = ("FSD50K.ground_truth/dev.csv", "FSD50K.ground_truth/eval.csv")
NOISY18K_TABLES = ("FSDnoisy18k.meta/train.csv", "FSDnoisy18k.meta/test.csv")
CURATED_TABLES = (
    "train_curated.csv", "train_curated_post_competition.csv",
    "FSDKaggle2019.meta/train_curated_post_competition.csv",
)  # fmt: skip
NOISY_TABLES = (
    "train_noisy.csv", "train_noisy_post_competition.csv", "FSDKaggle2019.meta/train_noisy_post_competition.csv"
)  # fmt: skip
TEST_2019_TABLES = (
    "sample_submission.csv", "test_post_competition.csv", "FSDKaggle2019.meta/test_post_competition.csv"
)  # fmt: skip
TEST_2019_FOLDERS = ("test", "FSDKaggle2019.audio_test")
SPEECH_LISTS = ("testing_list.txt", "validation_list.txt")
SPEECH_FOLDERS = ("", "train/")
"""Where the lists are; at Kaggle the words are in ``train/audio/``."""

LISTED = LabelColumn("labels", is_list=True, separator=",")
"""The column of labels of FSDKaggle2019 and FSD50K."""

NO_HASH = "_nohash_"
BACKGROUND = "_background_noise_"


def is_esc50(data: DataFolder) -> bool:
    """Return whether the folder is that of ESC-50, or of its part ESC-10."""
    return data.find(ESC50_TABLES) is not None and _has_clips(data, "audio/[^/]*")


def read_esc50(data: DataFolder) -> Rows:
    """Read ESC-50: its folds, its classes in words, and ``src_file``, the recording at Freesound, as group."""
    path = _given(data, ESC50_TABLES)
    table = read_table(path, ("filename", "category", "fold"), ("src_file", "target", "esc10", "take"))
    names = {"filename": "fname", "category": "label", "src_file": "group"}
    return Rows(_reading(data, path, "filename, category, fold, src_file"), _part(table, names, path, "audio", data))


def is_urbansound8k(data: DataFolder) -> bool:
    """Return whether the folder is that of UrbanSound8K."""
    return data.find(URBANSOUND_TABLES) is not None and _has_clips(data, "audio/fold[^/]*/[^/]*")


def read_urbansound8k(data: DataFolder) -> Rows:
    """Read UrbanSound8K: a clip is in the folder of its fold, and clips with one ``fsID`` are of one recording.

    ``start`` and ``end`` are times in that recording, from which the clips were cut already.
    """
    path = _given(data, URBANSOUND_TABLES)
    table = read_table(path, URBANSOUND_COLUMNS, ("start", "end", "salience", "classID"))
    frame = table.frame
    frame["slice_file_name"] = "fold" + frame["fold"].str.strip() + "/" + frame["slice_file_name"].str.strip()
    names = {"slice_file_name": "fname", "class": "label", "fsID": "group"}
    return Rows(_reading(data, path, ", ".join(URBANSOUND_COLUMNS)), _part(table, names, path, "audio", data))


def is_fsd50k(data: DataFolder) -> bool:
    """Return whether the folder is that of FSD50K."""
    return data.find(FSD50K_TABLES[:1]) is not None


def read_fsd50k(data: DataFolder) -> Rows:
    """Read FSD50K: the clips of dev.csv to train on, of both of its splits, and those of eval.csv as test clips.

    A name is a number without suffix, that of the sound at Freesound. A clip has its label and those above it.
    """
    path = data.path / FSD50K_TABLES[0]
    table = read_table(path, ("fname", "labels"), ("mids", "split"))
    folder = _folder(data, "FSD50K.dev_audio")
    train = Part(_with_suffix(renamed(table, {"labels": "label"}, path.name), folder), path.name, folder)
    rows = Rows(_reading(data, path, "fname, labels"), train, labels=LISTED)
    if "split" in table.frame:
        rows.warnings.append(f"{path.name}: split ({_values(table.frame['split'])}) is not used: folds take its place")
    eval_path = data.path / FSD50K_TABLES[1]
    if eval_path.exists():
        rows.test, rows.test_fault = optional_part(eval_path, lambda: _fsd50k_test(eval_path, data))
    return rows


def is_fsdnoisy18k(data: DataFolder) -> bool:
    """Return whether the folder is that of FSDnoisy18k."""
    return data.find(NOISY18K_TABLES[:1]) is not None


def read_fsdnoisy18k(data: DataFolder) -> Rows:
    """Read FSDnoisy18k: the clean and the noisy clips to train on, of which ``manually_verified`` tells.

    ``noisy_small`` marks a part of the noisy clips, for experiments with as many of these as of clean ones.
    """
    path = data.path / NOISY18K_TABLES[0]
    table = read_table(path, ("fname", "label", "manually_verified"), ("aso_id", "noisy_small"))
    rows = Rows(_reading(data, path, "fname, label, manually_verified"),
                _part(table, {}, path, "FSDnoisy18k.audio_train", data))  # fmt: skip
    test_path, test_folder = data.path / NOISY18K_TABLES[1], data.path / "FSDnoisy18k.audio_test"
    if test_path.exists() and test_folder.is_dir():
        rows.test, rows.test_fault = optional_part(
            test_path, lambda: Part(_names_alone(test_path, ("label", "aso_id")), test_path.name, test_folder)
        )
    return rows


def is_fsdkaggle2019(data: DataFolder) -> bool:
    """Return whether the folder is that of FSDKaggle2019, with Kaggle's names or Zenodo's."""
    return data.find(CURATED_TABLES) is not None


def read_fsdkaggle2019(data: DataFolder) -> Rows:
    """Read FSDKaggle2019: the curated clips as verified and the noisy ones as not."""
    parts, tables, unused = list[Table](), list[Path](), list[str]()
    for tables_of, folders, verified in (
        (CURATED_TABLES, ("train_curated", "FSDKaggle2019.audio_train_curated"), "1"),
        (NOISY_TABLES, ("train_noisy", "FSDKaggle2019.audio_train_noisy"), "0"),
    ):
        path, folder = data.find(tables_of), data.find(folders)
        if path is None or folder is None:
            if verified == "1":
                raise DataError(f"{data.path}: {' or '.join(folders)} is missing, the folder of the curated clips")
            unused += _why_unused(path, tables_of, folder, folders)
            continue
        known = ("freesound_id", "license", "flickr_video_URL")
        table = read_table(path, ("fname", "labels"), known)
        table = renamed(table, {"labels": "label", "freesound_id": "group"}, path.name)
        table.frame = table.frame.assign(fname=folder.name + "/" + table.frame["fname"], manually_verified=verified)
        parts, tables = [*parts, table], [*tables, path]
    frame = pd.concat([table.frame for table in parts], ignore_index=True).fillna("")
    problems = [problem for table in parts for problem in table.problems]
    warnings = [warning for table in parts for warning in table.warnings]
    names = " and ".join(path.name for path in tables)
    rows = Rows(f"{names}: fname, labels", Part(Table(frame, problems, warnings), names, data.path), labels=LISTED)
    test_path, test_folder = data.find(TEST_2019_TABLES), data.find(TEST_2019_FOLDERS)
    if test_path and test_folder:
        rows.test, rows.test_fault = optional_part(
            test_path, lambda: Part(_names_alone(test_path, read_header(test_path)), test_path.name, test_folder)
        )  # whose other columns are its classes
    else:
        unused += _why_unused(test_path, TEST_2019_TABLES, test_folder, TEST_2019_FOLDERS)
    rows.warnings += unused
    return rows


def _why_unused(table: Path | None, tables: Sequence[str], folder: Path | None, folders: Sequence[str]) -> list[str]:
    """Return that a table or a folder is not used as the other one is missing; nothing if both are."""
    if table is None and folder is None:
        return []
    found, missing = (table, f"{' or '.join(folders)} is") if table else (folder, f"{' or '.join(tables)} is")
    return [f"{found.name if found else ''} is not used, because {missing} missing"]


def is_speech_commands(data: DataFolder) -> bool:
    """Return whether the folder is that of Speech Commands."""
    return _speech_list(data) is not None and any(NO_HASH in name for name in data.audio[:1000])


def read_speech_commands(data: DataFolder) -> Rows:
    """Read Speech Commands: a folder for each word, the clips of a speaker as group, and testing_list.txt.

    The beginning of a name, up to ``_nohash_``, is that of its speaker. Clips of validation_list.txt are trained on.
    The recordings in ``_background_noise_`` are clips only where the option ``background`` names them.
    """
    listed = _speech_list(data) or data.path / SPEECH_LISTS[0]
    folder = listed.parent / "audio" if (listed.parent / "audio").is_dir() else listed.parent
    below = "" if folder == data.path else f"{data.below(folder)}/"
    tests = {below + line for line in _lines(listed.with_name(SPEECH_LISTS[0]))}
    names = [name for name in data.audio if name.startswith(below) and "/" in name[len(below) :]]
    words = {name: name[len(below) :].split("/")[0] for name in names}
    if data.options.background:
        check_background(data.options.background, words.values())
    has_background = data.options.background == BACKGROUND
    train = [name for name in names if name not in tests and (has_background or words[name] != BACKGROUND)]
    columns: dict[str, Sequence[str]] = {
        "fname": train,
        "label": [words[name] for name in train],
        "manually_verified": ["0"] * len(train),
        "group": [PurePosixPath(name).stem.partition(NO_HASH)[0] for name in train],
    }
    part = Part(Table(frame_of(columns)), data.path.name, data.path, lists_all=True)
    rows = Rows("a folder for each word, and the beginning of a name for its speaker", part)
    if tests:
        table = Table(frame_of({"fname": sorted(tests, key=natural)}, SPEECH_LISTS[0]))
        rows.test = Part(table, SPEECH_LISTS[0], data.path)
    if left := [name for name in names if words[name] == BACKGROUND and not has_background]:
        way_out = f"not used (background={BACKGROUND} uses them)"
        rows.warnings.append(f"{BACKGROUND}: {count(len(left), 'recording')} without a word, {way_out}")
    if others := len(data.audio) - len(names):
        rows.warnings.append(f"{count(others, 'audio file')} in no folder of a word, not used")
    return rows


def _speech_list(data: DataFolder) -> Path | None:
    return data.find([folder + name for folder in SPEECH_FOLDERS for name in SPEECH_LISTS])


def _has_clips(data: DataFolder, pattern: str) -> bool:
    """Return whether audio files have names that match a pattern, or none is there and ``audio/`` is."""
    has_folder = (data.path / "audio").is_dir()
    return has_folder and (not data.audio or any(re.fullmatch(pattern, name) for name in data.audio))


def _given(data: DataFolder, names: Sequence[str]) -> Path:
    path = data.find(names)
    if path is None:
        raise DataError(f"{data.path}: expected {' or '.join(names)}")
    return path


def _folder(data: DataFolder, name: str) -> Path:
    folder = data.path / name
    if not folder.is_dir():
        raise DataError(f"{data.path}: {name}/ is missing, the folder of the clips")
    return folder


def _part(table: Table, names: dict[str, str], path: Path, folder: str, data: DataFolder) -> Part:
    return Part(renamed(table, names, path.name), path.name, _folder(data, folder))


def _reading(data: DataFolder, path: Path, columns: str) -> str:
    return f"{path.relative_to(data.path).as_posix()}: {columns}"


def _values(column: pd.Series) -> str:
    return listed_names(sorted(set(column)), 4)


def _with_suffix(table: Table, folder: Path) -> Table:
    """Return a table whose names have the suffix of their files, by default ``.wav``."""
    stems = {path.stem: path.name for path in folder.iterdir() if path.suffix}
    names = [stems.get(name.strip(), f"{name.strip()}.wav") for name in table.frame["fname"]]
    return Table(table.frame.assign(fname=names), table.problems, table.warnings)


def _fsd50k_test(path: Path, data: DataFolder) -> Part:
    folder = _folder(data, "FSD50K.eval_audio")
    return Part(_with_suffix(_names_alone(path, ("labels", "mids")), folder), path.name, folder)


def _names_alone(path: Path, known: Sequence[str]) -> Table:
    return renamed(read_table(path, ("fname",), known, "test"), {}, path.name)


def _lines(path: Path) -> set[str]:
    try:
        return {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    except FileNotFoundError:
        return set()
