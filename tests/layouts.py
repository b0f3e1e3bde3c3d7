"""Lay the same clips out in each layout that fsat reads, with the names and columns of the published archives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from helpers import tone, write_csv, write_wav


class Clip(NamedTuple):
    """A sound file to lay out, its label, its fold from 1, and its recording."""

    source: Path
    label: str
    fold: str
    group: str

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def suffix(self) -> str:
        return self.source.suffix


Clips = Sequence[Clip]


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def fsdkaggle2018(folder: Path, clips: Clips) -> None:
    for clip in clips:
        copy(clip.source, folder / "audio_train" / clip.name)
    rows = [(clip.name, clip.label, 0) for clip in clips]
    write_csv(folder / "train.csv", ["fname", "label", "manually_verified"], rows)


def fsdkaggle2018_zenodo(folder: Path, clips: Clips) -> None:
    for clip in clips:
        copy(clip.source, folder / "FSDKaggle2018.audio_train" / clip.name)
    rows = [(clip.name, clip.label, 0, clip.group, "Attribution") for clip in clips]
    header = ["fname", "label", "manually_verified", "freesound_id", "license"]
    write_csv(folder / "FSDKaggle2018.meta" / "train_post_competition.csv", header, rows)


def fsdkaggle2019(folder: Path, clips: Clips) -> None:
    for clip in clips:
        copy(clip.source, folder / "train_noisy" / clip.name)
    copy(clips[0].source, folder / "train_curated" / "extra.wav")  # a clip of two labels, which is left out
    write_csv(folder / "train_noisy.csv", ["fname", "labels"], [(clip.name, clip.label) for clip in clips])
    write_csv(folder / "train_curated.csv", ["fname", "labels"], [("extra.wav", f"{clips[0].label},{clips[-1].label}")])


def fsd50k(folder: Path, clips: Clips) -> None:
    for i, clip in enumerate(clips):
        copy(clip.source, folder / "FSD50K.dev_audio" / f"{1000 + i}{clip.suffix}")
    rows = [(1000 + i, clip.label, "/m/0bt9lr", "val" if i % 5 == 0 else "train") for i, clip in enumerate(clips)]
    write_csv(folder / "FSD50K.ground_truth" / "dev.csv", ["fname", "labels", "mids", "split"], rows)
    write_csv(
        folder / "FSD50K.ground_truth" / "vocabulary.csv", ["0", "Bark", "/m/05tny_"], [["1", "Bell", "/m/0395lw"]]
    )


def fsdnoisy18k(folder: Path, clips: Clips) -> None:
    for clip in clips:
        copy(clip.source, folder / "FSDnoisy18k.audio_train" / clip.name)
    header = ["fname", "label", "aso_id", "manually_verified", "noisy_small"]
    rows = [(clip.name, clip.label, "/m/07rv9rh", 0, i % 2) for i, clip in enumerate(clips)]
    write_csv(folder / "FSDnoisy18k.meta" / "train.csv", header, rows)


def esc50(folder: Path, clips: Clips) -> None:
    targets = sorted({clip.label for clip in clips})
    rows = []
    for clip in clips:
        copy(clip.source, folder / "audio" / clip.name)
        take = clip.source.stem.split("-")[-1]
        rows.append((clip.name, clip.fold, targets.index(clip.label), clip.label, "True", clip.group, take))
    write_csv(
        folder / "meta" / "esc50.csv", ["filename", "fold", "target", "category", "esc10", "src_file", "take"], rows
    )


def urbansound8k(folder: Path, clips: Clips) -> None:
    classes = sorted({clip.label for clip in clips})
    rows = []
    for i, clip in enumerate(clips):
        number = classes.index(clip.label)
        name = f"{clip.group}-{number}-0-{i}{clip.suffix}"
        copy(clip.source, folder / "audio" / f"fold{clip.fold}" / name)
        rows.append((name, clip.group, 0.5, 4.5, 1, clip.fold, number, clip.label))
    header = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    write_csv(folder / "metadata" / "UrbanSound8K.csv", header, rows)


def speech_commands(folder: Path, clips: Clips) -> None:
    for i, clip in enumerate(clips):
        copy(clip.source, folder / clip.label / f"{clip.group}_nohash_{i}{clip.suffix}")
    copy(clips[0].source, folder / "_background_noise_" / f"white_noise{clips[0].suffix}")
    first = f"{clips[0].label}/{clips[0].group}_nohash_0{clips[0].suffix}\n"
    (folder / "validation_list.txt").write_text(first)
    (folder / "testing_list.txt").write_text("")


def audiofolder(folder: Path, clips: Clips) -> None:
    for clip in clips:
        copy(clip.source, folder / "train" / "data" / clip.name)
    lines = [json.dumps({"file_name": f"data/{clip.name}", "label": clip.label}) for clip in clips]
    (folder / "train" / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def table(folder: Path, clips: Clips) -> None:
    """As a spreadsheet saves it where decimals have a comma, with the paths of another machine."""
    for clip in clips:
        copy(clip.source, folder / "recordings" / clip.label / clip.name)
    lines = ["Path;Species;Fold;Recording ID"]
    lines += [f"C:\\Users\\me\\{clip.label}\\{clip.name};{clip.label};{clip.fold};{clip.group}" for clip in clips]
    (folder / "labels.csv").write_bytes("\r\n".join([*lines, ""]).encode("utf-16"))


def class_folders(folder: Path, clips: Clips) -> None:
    for clip in clips:
        copy(clip.source, folder / clip.label / clip.name)


def fold_folders(folder: Path, clips: Clips) -> None:
    for clip in clips:
        copy(clip.source, folder / f"fold{clip.fold}" / clip.label / clip.name)


WRITERS: dict[str, tuple[str, Callable[[Path, Clips], None]]] = {
    "FSDKaggle2018 at Kaggle": ("fsdkaggle2018", fsdkaggle2018),
    "FSDKaggle2018 at Zenodo": ("fsdkaggle2018", fsdkaggle2018_zenodo),
    "FSDKaggle2019": ("fsdkaggle2019", fsdkaggle2019),
    "FSD50K": ("fsd50k", fsd50k),
    "FSDnoisy18k": ("fsdnoisy18k", fsdnoisy18k),
    "ESC-50": ("esc50", esc50),
    "UrbanSound8K": ("urbansound8k", urbansound8k),
    "Speech Commands": ("speech_commands", speech_commands),
    "audiofolder of Hugging Face": ("audiofolder", audiofolder),
    "a table": ("table", table),
    "a folder for each class": ("class_folders", class_folders),
    "a folder for each fold and class": ("class_folders", fold_folders),
}
"""The layouts: their name as an option, and the function that lays clips out."""


def tree(folder: Path) -> str:
    """Return the files of a folder as documentation shows them: two of each kind, and two lines of each table."""
    lines = ["DIR/"]

    def show(path: Path, depth: int) -> None:
        indent = "    " * depth
        entries = sorted(path.iterdir(), key=lambda entry: (entry.is_dir(), entry.name))
        audio = [entry for entry in entries if entry.suffix in (".wav", ".ogg")]
        folders = [entry for entry in entries if entry.is_dir()]
        for entry in entries:
            if entry in audio[2:] or entry in folders[3:]:
                continue
            lines.append(f"{indent}{entry.name}{'/' * entry.is_dir()}")
            if entry.is_dir():
                show(entry, depth + 1)
            elif entry not in audio:
                text = entry.read_bytes()
                cells = text.decode("utf-16" if text.startswith(b"\xff\xfe") else "utf-8").splitlines()
                lines.extend(f"{indent}    {line}" for line in cells[:2])
        if len(audio) > 2 or len(folders) > 3:
            lines.append(f"{indent}...")

    show(folder, 1)
    return "\n".join(lines)


def write_clips(folder: Path, *names: str) -> None:
    """Write a short tone of its own for each name."""
    for i, name in enumerate(names):
        write_wav(folder / name, tone(300 + 37 * i, 0.2 + 0.01 * i, 8000))


def lay_out(folder: Path, audio: str, tables: dict[str, str]) -> None:
    """Write sounds with these names, separated by spaces, and texts."""
    write_clips(folder, *audio.split())
    for name, text in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
