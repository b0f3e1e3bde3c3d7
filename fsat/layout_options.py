"""How a data folder is read: the layouts that fsat knows, and the options that name one and its parts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from fsat.model_presets import TASKS
from fsat.options import SECONDS, Checked, option

LAYOUTS = {
    "fsdkaggle2018": "train.csv and audio_train/, as FSDKaggle2018 at Kaggle and Zenodo",
    "fsdkaggle2019": "train_curated.csv and train_noisy.csv, as FSDKaggle2019",
    "fsd50k": "FSD50K.ground_truth/ and FSD50K.dev_audio/",
    "fsdnoisy18k": "FSDnoisy18k.meta/ and FSDnoisy18k.audio_train/",
    "esc50": "meta/esc50.csv and audio/, as ESC-50",
    "urbansound8k": "metadata/UrbanSound8K.csv and audio/fold1/ ...",
    "speech_commands": "a folder for each word, and testing_list.txt",
    "audiofolder": "metadata.csv or metadata.jsonl with a column file_name, as Hugging Face's audiofolder",
    "annotations": "long recordings, and the times and labels of what is in them",
    "table": "a table with a row for each clip",
    "class_folders": "a folder for each class",
}
"""The layouts of a data folder, and what they are known by; the order is that in which they are looked for."""


@dataclass(frozen=True)
class LayoutOptions(Checked):
    """How a data folder is read; by default by what is found there."""

    layout: str = option(
        "auto", "Layout of the data folder.", choices=("auto", *LAYOUTS), metavar="WORD", shown="auto, what is found"
    )
    task: str = option(
        "auto",
        "Labels of a clip: one (single), or any number, also none (multi); auto is multi if the table has such clips.",
        choices=("auto", *TASKS),
    )
    table: str = option(
        "", "Table of the clips: a path, or a name in the data folder.", metavar="FILE", shown="found by its columns"
    )
    path_column: str = option("", "Column of the clips' files.", shown="found by its name")
    label_column: str = option(
        "", "Column of the labels; A,B,C for columns with 0 or 1 for each of these labels.", shown="found by its name"
    )
    fold_column: str = option("", "Column of the folds; none for no such column.", shown="found by its name")
    group_column: str = option(
        "", "Column of the recording or site whose clips stay in one fold; none for no such column.",
        shown="found by its name",
    )  # fmt: skip
    verified_column: str = option(
        "", "Column of which labels a person has checked; none for no such column.", shown="found by its name"
    )
    label_level: int = option(
        0, "Level of the folders that are named after the classes, from 1; for a folder per class.", least=0, most=99,
        shown="the only one",
    )  # fmt: skip

    annotations: str = option(
        "", "Annotations of recordings: a folder or a file.", metavar="PATH", shown="in the data folder"
    )
    start_column: str = option("", "Column of the starts of annotations, in seconds.", shown="found by its name")
    end_column: str = option("", "Column of the ends of annotations, in seconds.", shown="found by its name")
    clip_seconds: float = option(
        0.0,
        "Length of the clips of annotated recordings: a shorter annotation has the sound around it, a longer one "
        "becomes several clips.",
        **SECONDS,
        most=600,
        shown="that of each annotation",
    )
    background: str = option(
        "",
        "Label of clips that have none of the classes: a folder, a label, _background_noise_ of Speech Commands, or "
        "the name of clips between annotations. They are a class with task=single.",
        metavar="LABEL",
        shown="no such label",
    )

    @property
    def given(self) -> dict[str, Any]:
        """The options that are not at their defaults, by name."""
        return {spec.name: value for spec in fields(self) if (value := getattr(self, spec.name)) != spec.default}


FOUND = LayoutOptions()
"""The layout that is found in a data folder."""
