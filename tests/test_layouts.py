"""Layouts: the same clips in each of them are the same dataset, and what cannot be told apart is an error."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ROOT
from helpers import error_line, tone, write_csv, write_wav
from layouts import WRITERS, Clip, copy, tree

from fsat.cli import cli
from fsat.commands.ensemble import ensemble
from fsat.commands.train import cross_validate, train_fold
from fsat.config import Config
from fsat.data.dataset import Source, load_dataset
from fsat.data.layouts.recognise import READERS
from fsat.data.manifest import read_manifest
from fsat.errors import ConfigError, DataError
from fsat.layout_options import FOUND, LAYOUTS, LayoutOptions
from fsat.options import Launch

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
    options = FOUND
    if layout == "FSDKaggle2019":  # has a clip of two labels
        on_bad_clip, options = "exclude", LayoutOptions(task="single")
    else:
        on_bad_clip = "error"
    dataset = load_dataset(tmp_path, replace(CONFIG, folds="stratified"), on_bad_clip, layout=options)
    assert dataset.manifest.layout[0] == name
    assert len(dataset.train) == 240
    assert dataset.manifest.digest == stratified.manifest.digest
    assert dataset.labels == stratified.labels
    assert dataset.study == stratified.study
    if layout in WITH_FOLDS:
        assert load_dataset(tmp_path, CONFIG).study == by_column.study
    else:
        assert "fold" not in dataset.manifest.train


def test_the_documentation_shows_each_layout_as_it_is(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "layouts.md").read_text(encoding="utf-8")
    clips = []
    for name, label, group in (("1-100032-A", "Dog bark", "100032"), ("1-17367-A", "Rain", "17367"),
                               ("2-114280-A", "Dog bark", "114280"), ("2-82274-A", "Rain", "82274")):  # fmt: skip
        clips.append(Clip(write_wav(tmp_path / "source" / f"{name}.wav", tone(400, 0.1, 8000)), label, name[0], group))
    for layout, (name, write) in WRITERS.items():
        write(tmp_path / layout, clips)
        assert f"```text\n{tree(tmp_path / layout)}\n```" in page, layout
        assert f"layout={name}" in page


# --- folders ---------------------------------------------------------------------------------------


def write_clips(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        write_wav(folder / name, tone(300 + 37 * i, 0.2 + 0.01 * i, 8000))
    return folder


def reading_of(folder: Path, **options: object) -> tuple[str, dict[str, str], list[str]]:
    """The layout, the labels by name, and the warnings."""
    manifest = read_manifest(folder, layout=LayoutOptions(**options))
    labels = dict(zip(manifest.train["fname"], manifest.train["label"], strict=True))
    return manifest.layout[0], labels, manifest.warnings


def test_train_and_test_folders(tmp_path: Path) -> None:
    names = "train/dog/1.wav", "train/train/1.wav", "test/dog/1.wav", "test/loose.wav", "notes.txt"
    write_clips(tmp_path, *names[:4])
    (tmp_path / names[4]).write_text("a line")
    manifest = read_manifest(tmp_path)
    assert manifest.train["label"].tolist() == ["dog", "train"]
    assert manifest.test["fname"].tolist() == ["test/dog/1.wav", "test/loose.wav"]
    assert "below test/ and train/" in manifest.layout[1] or "below train/" in manifest.layout[1]


def test_classes_called_train_and_test_are_classes_beside_others(tmp_path: Path) -> None:
    write_clips(tmp_path, "train/1.wav", "plane/1.wav", "007/1.wav", "fold1/1.wav")
    assert set(reading_of(tmp_path)[1].values()) == {"train", "plane", "007", "fold1"}


def test_a_folder_around_the_classes_and_files_outside(tmp_path: Path) -> None:
    write_clips(tmp_path, "My sounds/audio/cat/1.wav", "My sounds/audio/dog/1.WAV", "My sounds/audio/dog/2.flac")
    (tmp_path / "__MACOSX").mkdir()
    layout, labels, warnings = reading_of(tmp_path)
    assert (layout, sorted(labels.values()), warnings) == ("class_folders", ["cat", "dog", "dog"], [])
    write_clips(tmp_path / "My sounds" / "audio", "stray.wav", "dog/more/3.wav")
    loose, deeper = reading_of(tmp_path)[2]
    assert loose == "1 audio file in no folder of a class, not used: audio/stray.wav"
    assert deeper.startswith(
        "1 clip in folders below those of the classes, whose labels they have: audio/dog/more/3.wav"
    )


def test_two_levels_of_folders_are_ambiguous(tmp_path: Path) -> None:
    write_clips(tmp_path, "birds/owl/1.wav", "birds/crow/1.wav", "mammals/fox/1.wav")
    message = error_line(DataError, read_manifest, tmp_path)
    assert "label_level=1 reads 2 classes (birds, mammals); label_level=2 reads 3 classes (crow, fox, owl)" in message
    assert set(reading_of(tmp_path, label_level=1)[1].values()) == {"birds", "mammals"}
    assert set(reading_of(tmp_path, label_level=2)[1].values()) == {"owl", "crow", "fox"}


def test_nothing_to_read(tmp_path: Path) -> None:
    assert "no audio file is in or below it; expected a folder for each class" in error_line(
        DataError, read_manifest, tmp_path
    )
    write_clips(tmp_path, "1.wav", "2.wav")
    message = error_line(DataError, read_manifest, tmp_path)
    assert "2 audio files (1.wav, 2.wav), but neither a table of labels nor class folders" in message


# --- tables ----------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    return write_clips(tmp_path, "a/1.wav", "a/2.wav", "b/1.wav", "b/deep/4.wav")


def test_a_table_and_folders_that_it_does_not_cover_are_ambiguous(clips: Path) -> None:
    rows = [("a/1.wav", "Owl"), ("a/2.wav", "Fox"), ("b/1.wav", "Fox"), ("4", "Owl")]
    table = write_csv(clips / "labels.csv", ["File Name", "Label"], rows)
    layout, labels, _ = reading_of(clips)
    assert (layout, labels["b/deep/4.wav"]) == ("table", "Owl")
    write_csv(table, ["File Name", "Label"], rows[:2])
    message = error_line(DataError, read_manifest, clips)
    assert "it may be read in 2 ways: layout=table (labels.csv), layout=class_folders (the folders a, b)" in message
    layout, labels, warnings = reading_of(clips, layout="table")
    assert len(labels) == 2
    assert any("2 audio files without a row in labels.csv" in line for line in warnings)
    assert reading_of(clips, layout="class_folders")[0] == "class_folders"


def test_cells_that_name_two_files_or_none(clips: Path) -> None:
    rows = [("1.wav", "Owl"), ("2.wav", "Fox"), ("c/1.wav", "Fox"), ("gone.wav", "Owl"), ("/home/me/b/1.wav", "Owl")]
    write_csv(clips / "labels.csv", ["path", "species"], rows)
    with pytest.raises(DataError) as caught:
        read_manifest(clips, layout=LayoutOptions(layout="table"))
    assert [str(problem) for problem in caught.value.problems] == [
        "labels.csv:2: 1.wav: 2 files may be meant: a/1.wav, b/1.wav; name the folder too",
        "labels.csv:4: c/1.wav: missing file; there is a/1.wav",
        "labels.csv:5: gone.wav: missing file",
    ]


def test_columns_by_options_and_what_they_may_not_be(clips: Path) -> None:
    header = ["clip", "sound", "site", "Fold", "split", "ok"]
    rows = [
        ("a/1.wav", "Owl, calling", "north", 1, "train", "yes"),
        ("a/2.wav", "Fox", "south", 2, "train", "no"),
        ("b/1.wav", "Fox", "north", 1, "test", ""),
        ("b/deep/4.wav", "Owl, calling", "south", 2, "train", "TRUE"),
    ]
    write_csv(clips / "labels.csv", header, rows)
    message = error_line(DataError, read_manifest, clips, layout=LayoutOptions(layout="table", table="labels.csv"))
    assert "labels.csv: no column is known to be the labels: it has clip, sound, site, Fold, split, ok" in message
    options = {"label_column": "sound", "verified_column": "OK"}
    manifest = read_manifest(clips, layout=LayoutOptions(**options))
    assert manifest.train["label"].tolist() == ["Owl, calling", "Fox", "Fox", "Owl, calling"]
    assert manifest.train["manually_verified"].tolist() == [1, 0, 0, 1]
    assert manifest.train["group"].tolist() == ["north", "south", "north", "south"]
    assert any(
        "Fold is read as the folds, not split (fold_column= chooses another)" in line for line in manifest.warnings
    )
    manifest = read_manifest(clips, layout=LayoutOptions(**options, fold_column="split", group_column="none"))
    assert manifest.test["fname"].tolist() == ["b/1.wav"]
    assert not {"fold", "group"} & set(manifest.train)
    text = (clips / "labels.csv").read_text()
    (clips / "labels.csv").write_text(text.replace("TRUE", "maybe"))
    with pytest.raises(DataError) as caught:
        read_manifest(clips, layout=LayoutOptions(**options))
    expected = "labels.csv:5: b/deep/4.wav: ok is 'maybe', expected 1 or 0, true or false, yes or no"
    assert [str(problem) for problem in caught.value.problems] == [expected]
    (clips / "labels.csv").write_text(text)
    message = error_line(DataError, read_manifest, clips, layout=LayoutOptions(label_column="colour"))
    assert message.startswith(f"label_column=colour: {clips / 'labels.csv'} has no such column; it has clip, sound")
    message = error_line(ConfigError, read_manifest, clips, layout=LayoutOptions(layout="table", label_level=2))
    assert message == "label_level=2: layout=table does not read it; leave it out, or use layout=class_folders"


def test_two_columns_of_labels(clips: Path) -> None:
    names = ["a/1.wav", "a/2.wav", "b/1.wav", "b/deep/4.wav"]
    numbered = [(name, i % 2, ("Owl", "Fox")[i % 2]) for i, name in enumerate(names)]
    write_csv(clips / "labels.csv", ["file", "target", "category"], numbered)
    _, labels, warnings = reading_of(clips)
    assert set(labels.values()) == {"Owl", "Fox"}
    assert warnings == ["labels.csv: category is read as the labels, not target (label_column= chooses another)"]
    write_csv(clips / "labels.csv", ["file", "class", "species"], [(name, "bird", i) for i, name in enumerate(names)])
    message = error_line(DataError, read_manifest, clips)
    assert (
        "several columns may be the labels: class (1 class), species (4 classes); choose one with label_column="
        in message
    )


def test_several_tables(clips: Path) -> None:
    for name, rows in (("train.csv", [("a/1.wav", "Owl"), ("a/2.wav", "Fox")]), ("test.csv", [("b/1.wav", "")])):
        write_csv(clips / name, ["filename", "label"], rows)
    (clips / "b" / "deep" / "4.wav").unlink()
    manifest = read_manifest(clips)
    assert (manifest.layout[0], manifest.test["fname"].tolist()) == ("table", ["b/1.wav"])
    (clips / "train.csv").rename(clips / "labels.csv")
    message = error_line(DataError, read_manifest, clips)
    assert "2 tables may name clips and labels: labels.csv, test.csv; choose one with table=" in message
    assert read_manifest(clips, layout=LayoutOptions(table="labels.csv")).train["label"].tolist() == ["Owl", "Fox"]
    assert error_line(DataError, read_manifest, clips, layout=LayoutOptions(table="x.csv")).startswith(
        "table=x.csv: no such"
    )


# --- what was understood, as a table ---------------------------------------------------------------


@pytest.mark.parametrize("layout", ["a folder for each fold and class", "ESC-50", "a table"])
def test_the_manifest_command_writes_a_table_that_reads_as_the_same(layout: str, real_clips, tmp_path: Path) -> None:
    folder, table = tmp_path / "data", tmp_path / "data" / "train.csv"
    WRITERS[layout][1](folder, real_clips[::8])
    expected = read_manifest(folder)
    result = CliRunner().invoke(cli, ["manifest", str(folder), "-o", str(table)])
    assert result.exit_code == 0, result.output
    assert f"{table}: 30 clips; layout={expected.layout[0]}: " in result.output
    again = read_manifest(folder, layout=LayoutOptions(table="train.csv"))
    assert again.digest == expected.digest
    assert "fold" in again.train
    for name in {"fold", "group"} & set(expected.train):
        assert sorted(again.train[name]) == sorted(expected.train[name])
    result = CliRunner().invoke(cli, ["manifest", str(folder), "-o", str(table)])
    assert str(result.exception) == f"{table}: exists already; choose another name, or remove it"
    if layout == "ESC-50":
        message = error_line(DataError, read_manifest, folder)
        assert "layout=esc50 (meta/esc50.csv and audio/, as ESC-50), layout=table (train.csv)" in message


@pytest.mark.slow
def test_folds_of_one_study_may_be_trained_in_two_layouts(store: Path, tmp_path: Path) -> None:
    folders, table = tmp_path / "folders", tmp_path / "table"
    names = [f"{label}/{i}.wav" for label in ("Owl, calling", "Fox") for i in range(6)]
    write_clips(folders, *names)
    for i, name in enumerate(names):
        copy(folders / name, table / "audio" / f"{99 - i}.wav")
    write_csv(table / "a.csv", ["file", "species"], [(f"{99 - i}", name.split("/")[0]) for i, name in enumerate(names)])
    config = Config.resolve({"max_epochs": 1, "n_folds": 2, "sampling_rate": 8000, "audio_duration": 0.1}, "dummy1d")
    first = train_fold(Source(folders), config, 0)
    records = cross_validate(Source(table), config)
    assert records[0].run_id == first  # it is not trained again
    assert {Path(record.data_dir).name for record in records} == {"folders", "table"}
    made = ensemble(run_ids=[record.run_id for record in records], register_as="owls", data_dir=folders)
    assert made.scores["clips"].iloc[-1] == 12
    alone = cross_validate(Source(folders), config, Launch(resume=False))
    again = ensemble(run_ids=[record.run_id for record in alone], register_as="owls")
    assert again.scores["map3"].iloc[-1] == made.scores["map3"].iloc[-1]
