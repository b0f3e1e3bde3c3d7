"""Layouts: the same clips in each of them are the same dataset, and what cannot be told apart is an error."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from layouts import WRITERS, Clip

from fsat.config import Config
from fsat.data.dataset import load_dataset
from fsat.data.layouts.recognise import READERS
from fsat.options import LAYOUTS

CONFIG = Config.resolve({"sampling_rate": 8000, "audio_duration": 0.25, "precision": "float32", "n_folds": 3}, "quick")
WITH_FOLDS = ("ESC-50", "UrbanSound8K", "a table", "a folder for each fold and class")


@pytest.fixture(scope="module")
def real_clips(shared: Path) -> list[Clip]:
    with open(shared / "data" / "esc10" / "clips.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    folder = shared / "data" / "esc10" / "clips"
    # each clip is a recording of its own: not every layout can say which clips share one
    return [Clip(folder / r["fname"], r["label"].replace("_", " "), r["fold"], str(i)) for i, r in enumerate(rows)]


@pytest.fixture(scope="module")
def first(real_clips: list[Clip], tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("first")
    WRITERS["a folder for each fold and class"][1](folder, real_clips)
    return load_dataset(folder, CONFIG), load_dataset(folder, replace(CONFIG, folds="stratified"))


def test_every_layout_is_tried() -> None:
    assert {name for name, _ in WRITERS.values()} == set(READERS) - {"annotations"}  # test_annotated_clips
    assert list(LAYOUTS) == list(READERS)


@pytest.mark.parametrize("layout", WRITERS)
def test_the_same_clips_are_the_same_dataset_and_study(layout: str, real_clips, first, tmp_path: Path) -> None:
    name, write = WRITERS[layout]
    write(tmp_path, real_clips)
    by_column, stratified = first
    on_bad_clip = "exclude" if layout == "FSDKaggle2019" else "error"
    dataset = load_dataset(tmp_path, replace(CONFIG, folds="stratified"), on_bad_clip)
    assert dataset.manifest.layout[0] == name
    assert len(dataset.train) == 240
    assert dataset.manifest.digest == stratified.manifest.digest
    assert dataset.labels == stratified.labels
    assert dataset.study == stratified.study
    if layout in WITH_FOLDS:
        assert load_dataset(tmp_path, CONFIG).study == by_column.study
    else:
        assert "fold" not in dataset.manifest.train
