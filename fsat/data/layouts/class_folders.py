"""The layout of a folder for each class, maybe below folders of folds or of train and test parts.

``dog/1.wav``, ``train/dog/1.wav`` with ``test/dog/2.wav`` or ``test/2.wav``, and ``fold1/dog/1.wav``. A single folder
around all of them, such as ``audio/``, does not count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fsat.data.layouts.rows import TEST_SPLITS, TRAIN_SPLITS, DataFolder, Part, Rows, frame_of, listed_names, natural
from fsat.data.tables import Table
from fsat.errors import DataError, count

FOLD = re.compile(r"(?:fold|split)[ _.-]*(\d+)", re.IGNORECASE)
"""Names of folders of a fold."""


@dataclass(frozen=True)
class _Clip:
    """An audio file: its name, its part and fold, and the folders below these, the name of the file left out."""

    name: str
    split: str
    fold: str
    folders: tuple[str, ...]


def matches(data: DataFolder) -> bool:
    """Return whether there are audio files in folders that may be classes."""
    return any(clip.folders for clip in _clips(data.audio) if clip.split not in TEST_SPLITS)


def read(data: DataFolder) -> Rows:
    """Read the names of folders as labels; raise `DataError` if several levels of folders may be the classes."""
    clips = _clips(data.audio)
    train = [clip for clip in clips if clip.split not in TEST_SPLITS]
    level = data.options.label_level or _level(data, train)
    loose = [clip.name for clip in train if len(clip.folders) < level]
    used = [clip for clip in train if len(clip.folders) >= level]
    if not used:
        raise DataError(f"{data.path}: no audio file is below {level} folders; expected a folder for each class")
    labels = [clip.folders[level - 1] for clip in used]
    columns: dict[str, Sequence[str]] = {
        "fname": [clip.name for clip in used],
        "label": labels,
        "manually_verified": ["0"] * len(used),
    }
    if any(clip.fold for clip in used):
        columns["fold"] = [clip.fold for clip in used]
    table = Table(frame_of(columns))
    classes = sorted(set(labels), key=natural)
    rows = Rows(_reading(used, classes), Part(table, data.path.name, data.path, lists_all=True))
    if tests := [clip.name for clip in clips if clip.split in TEST_SPLITS]:
        rows.test = Part(Table(frame_of({"fname": tests})), data.path.name, data.path, lists_all=True)
    if loose:
        rows.warnings.append(
            f"{count(len(loose), 'audio file')} in no folder of a class, not used: {listed_names(loose)}"
        )
    deeper = [clip.name for clip in used if len(clip.folders) > level]
    if deeper and not data.options.label_level:
        inner = f"{count(len(deeper), 'clip')} in folders below those of the classes, whose labels they have"
        rows.warnings.append(f"{inner}: {listed_names(deeper)}; label_level=2 takes the inner folders as classes")
    return rows


def describe(data: DataFolder) -> str:
    """Return the folders that may be classes, in words."""
    folders = [clip.folders[0] for clip in _clips(data.audio) if clip.folders]
    return f"the folders {listed_names(sorted(set(folders), key=natural))}"


def clips_below_classes(data: DataFolder) -> list[str]:
    """Return the names of the clips that are in the folder of a class."""
    return [clip.name for clip in _clips(data.audio) if clip.folders]


def _clips(names: Sequence[str]) -> list[_Clip]:
    """Return the audio files with what their folders say of part and fold."""
    paths = [tuple(name.split("/")) for name in names]
    first = _depth_of_shared(paths)
    tops = {path[first].lower() for path in paths if len(path) > first + 1}
    is_split = bool(tops) and tops <= {*TEST_SPLITS, *TRAIN_SPLITS} and len(tops) > 1
    clips = []
    for name, path in zip(names, paths, strict=True):
        rest = path[first:-1]
        split = rest[0].lower() if is_split and rest else ""
        clips.append(_Clip(name, split, "", rest[1:] if split else rest))
    inner = {clip.folders[0] for clip in clips if clip.folders and clip.split not in TEST_SPLITS}
    if len(inner) > 1 and all(FOLD.fullmatch(name) for name in inner):
        clips = [_without_fold(clip) for clip in clips]
    return clips


def _depth_of_shared(paths: Sequence[tuple[str, ...]]) -> int:
    """Return how many folders hold all audio files, each the only one of its level, and have folders with some."""
    depth = 0
    while True:
        below = [path for path in paths if len(path) > depth + 1]
        if len({path[depth] for path in below}) != 1 or not any(len(path) > depth + 2 for path in below):
            return depth
        depth += 1


def _without_fold(clip: _Clip) -> _Clip:
    match = FOLD.fullmatch(clip.folders[0]) if clip.folders else None
    return _Clip(clip.name, clip.split, match[1], clip.folders[1:]) if match else clip


def _level(data: DataFolder, clips: Sequence[_Clip]) -> int:
    """Return the level of the folders of classes, 1 unless all clips are deeper; then raise `DataError`."""
    depths = Counter(len(clip.folders) for clip in clips if clip.folders)
    if not depths or min(depths) == 1:
        return 1
    readings = []
    for level in range(1, min(depths) + 1):
        names = sorted({clip.folders[level - 1] for clip in clips if clip.folders}, key=natural)
        readings.append(f"label_level={level} reads {count(len(names), 'class')} ({listed_names(names)})")
    fault = f"the clips are {min(depths)} folders deep, and either level may name the classes"
    raise DataError(f"{data.path}: {fault}: {'; '.join(readings)}; give one of these options")


def _reading(clips: Sequence[_Clip], classes: Sequence[str]) -> str:
    words = f"a folder for each class ({listed_names(classes)})"
    if splits := sorted({clip.split for clip in clips if clip.split}):
        words += f" below {' and '.join(f'{name}/' for name in splits)}"
    if any(clip.fold for clip in clips):
        words += ", and a folder for each fold"
    return words
