"""The layout of a folder for each class, maybe below folders of folds or of train and test parts.

``dog/1.wav``, ``train/dog/1.wav`` with ``test/dog/2.wav`` or ``test/2.wav``, and ``fold1/dog/1.wav``. A single folder
around all of them, such as ``audio/``, does not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fsat.data.layouts.rows import TEST_SPLITS, TRAIN_SPLITS, DataFolder, Part, Rows, frame_of, listed_names, natural
from fsat.data.tables import Table
from fsat.errors import DataError, count

FOLD = re.compile(r"(?:fold|split)[ _.-]*(\d+)", re.IGNORECASE)
"""Names of folders of a fold."""

WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
"""Matches the words of a name such as ``train_audio`` or ``TestingData``."""


UNLABELLED = ("unlabeled", "unlabelled")
"""Names of a part without labels, in lower case."""


@dataclass(frozen=True)
class _Clip:
    """An audio file: its name, the folder of its part, its fold, and the folders below these, without the file."""

    name: str
    folders: tuple[str, ...]
    part: str = ""
    fold: str = ""
    is_test: bool = False


def matches(data: DataFolder) -> bool:
    """Return whether there are audio files in folders that may be classes, two at least."""
    train = _train(data.once(_clips))
    return any(len(names) > 1 for names in _levels(train).values())


def read(data: DataFolder) -> Rows:
    """Read the names of folders as labels; raise `DataError` if several levels of folders may be the classes."""
    clips = data.once(_clips)
    train = _train(clips)
    level = data.options.label_level or _level(data, train)
    loose = [clip.name for clip in train if len(clip.folders) < level]
    used = [clip for clip in train if len(clip.folders) >= level]
    if not used:
        raise DataError(f"{data.path}: no audio file is below {level} folders; expected a folder for each class")
    labels = [clip.folders[level - 1].strip() for clip in used]
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
    if tests := [clip.name for clip in clips if clip.is_test]:
        rows.test = Part(Table(frame_of({"fname": tests})), data.path.name, data.path, lists_all=True)
    if loose:
        rows.warnings.append(
            f"{count(len(loose), 'audio file')} in no folder of a class, not used: {listed_names(loose)}"
        )
    deeper = [clip.name for clip in used if len(clip.folders) > level]
    if deeper and not data.options.label_level:
        inner = f"{count(len(deeper), 'clip')} in folders below those of the classes, whose labels they have"
        rows.warnings.append(f"{inner}: {listed_names(deeper)}; label_level=2 takes the inner folders as classes")
    if empty := _without_audio(data, used, level):
        rows.warnings.append(
            f"{count(len(empty), 'folder')} beside those of the classes without an audio file: {listed_names(empty)}"
        )
    return rows


def describe(data: DataFolder) -> str:
    """Return the folders that may be classes, in words."""
    folders = [clip.folders[0] for clip in _train(data.once(_clips)) if clip.folders]
    return f"the folders {listed_names(sorted(set(folders), key=natural))}"


def clips_below_classes(data: DataFolder) -> list[str]:
    """Return the names of the clips that are in the folder of a class, those of a test part left out."""
    return [clip.name for clip in _train(data.once(_clips)) if clip.folders]


def _clips(data: DataFolder) -> list[_Clip]:
    """Return the audio files with what their folders say of part and fold."""
    clips = _without_shared([_Clip(name, tuple(name.split("/")[:-1])) for name in data.audio])
    clips = _with_parts(clips)
    inner = _level_names(_train(clips), 1)
    if len(inner) > 1 and all(FOLD.fullmatch(name) for name in inner):
        clips = [_with_fold(clip) for clip in clips]
    return clips


def _train(clips: Iterable[_Clip]) -> list[_Clip]:
    return [clip for clip in clips if not clip.is_test]


def _without_shared(clips: Sequence[_Clip]) -> list[_Clip]:
    """Leave out the folders that hold all audio files, each the only one of its level, and have folders with some."""
    depth = 0
    while True:
        below = [clip.folders for clip in clips if len(clip.folders) > depth]
        if len({folders[depth] for folders in below}) != 1 or all(len(folders) == depth + 1 for folders in below):
            return [replace(clip, folders=clip.folders[depth:]) for clip in clips]
        depth += 1


def _with_parts(clips: Sequence[_Clip]) -> list[_Clip]:
    """Take the outermost folders as parts, if all of them are called after parts such as ``train`` and ``test``."""
    words = {name: _part_of(name) for name in _level_names(clips, 1)}
    kinds = set(words.values())
    is_exact = all(word == name.lower() for name, word in words.items())
    if "" in kinds or len(kinds) < 2 or not (is_exact or (kinds & {*TEST_SPLITS} and kinds & {*TRAIN_SPLITS})):
        return list(clips)
    parts = [clip for clip in clips if not clip.folders]
    for name, word in words.items():
        own = [replace(clip, folders=clip.folders[1:]) for clip in clips if clip.folders[:1] == (name,)]
        if word in UNLABELLED:
            own = [replace(clip, folders=()) for clip in own]
        parts += [replace(clip, part=name, is_test=word in TEST_SPLITS) for clip in _without_shared(own)]
    return sorted(parts, key=lambda clip: natural(clip.name))


def _part_of(folder: str) -> str:
    """Return the word for a part in a folder's name, such as ``test`` for ``test_audio``; empty if there is none."""
    words = [word.lower() for word in WORD.findall(folder)]
    return next((word for word in words if word in {*TEST_SPLITS, *TRAIN_SPLITS, *UNLABELLED}), "")


def _with_fold(clip: _Clip) -> _Clip:
    match = FOLD.fullmatch(clip.folders[0]) if clip.folders else None
    return replace(clip, fold=match[1], folders=clip.folders[1:]) if match else clip


def _level_names(clips: Iterable[_Clip], level: int) -> set[str]:
    return {clip.folders[level - 1] for clip in clips if len(clip.folders) >= level}


def _levels(clips: Sequence[_Clip]) -> dict[int, list[str]]:
    """Return the levels of folders that all clips in folders are below, with the names of each."""
    least = min((len(clip.folders) for clip in clips if clip.folders), default=0)
    return {level: sorted(_level_names(clips, level), key=natural) for level in range(1, least + 1)}


def _level(data: DataFolder, clips: Sequence[_Clip]) -> int:
    """Return the level of the folders of classes, the only one with several; raise `DataError` if there are more."""
    levels = _levels(clips)
    several = {level: names for level, names in levels.items() if len(names) > 1}
    if len(several) < 2:
        return next(iter(several), 1)
    readings = [
        f"label_level={level} reads {count(len(names), 'class')} ({listed_names(names)})"
        for level, names in several.items()
    ]
    fault = f"the clips are {len(levels)} folders deep, and either level may name the classes"
    raise DataError(f"{data.path}: {fault}: {'; '.join(readings)}; give one of these options")


def _without_audio(data: DataFolder, used: Sequence[_Clip], level: int) -> list[str]:
    """Return the folders beside those of the classes without an audio file in or below them."""
    paths = [clip.name.split("/")[: level - len(clip.folders) - 1] for clip in used]
    beside = {"/".join(path[:-1]) for path in paths}
    filled = {name.rsplit("/", i)[0] for name in data.audio for i in range(1, name.count("/") + 1)}
    names = [path.relative_to(data.path).as_posix() for path in data.folders[1:]]
    return [name for name in names if name not in filled and name.rpartition("/")[0] in beside]


def _reading(clips: Sequence[_Clip], classes: Sequence[str]) -> str:
    words = f"a folder for each class ({listed_names(classes)})"
    if parts := sorted({clip.part for clip in clips if clip.part}):
        words += f" below {' and '.join(f'{name}/' for name in parts)}"
    if any(clip.fold for clip in clips):
        words += ", and a folder for each fold"
    return words
