"""Names of tables and names on disk: Unicode forms, letter case, one file under two names, files without a row."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from helpers import append_line, make_dataset, read_csv, tone, write_csv, write_wav

from fsat.config import Config
from fsat.data.clip_names import earlier_rows, stored_name, unnamed_files
from fsat.data.dataset import load_dataset
from fsat.data.manifest import read_manifest
from fsat.data.playable_clips import ClipFolder
from fsat.errors import DataError, Problem
from fsat.reports.eda_facts import measure
from fsat.reports.players import choose_examples
from fsat.reports.waveforms import read_waveforms

CONFIG = Config.resolve({"sampling_rate": 8000, "audio_duration": 0.25, "precision": "float32"}, "quick")
NFC, NFD = "NFC", "NFD"


def form(name: str, text: str) -> str:
    return unicodedata.normalize(name, text)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", test_clips=2)


def problems(folder: Path) -> list[Problem]:
    with pytest.raises(DataError) as caught:
        read_manifest(folder, "error", CONFIG)
    return caught.value.problems


def rename(folder: Path, table: str, old: str, new: str) -> None:
    """Change a name in a table."""
    rows = read_csv(folder / table)
    write_csv(folder / table, list(rows[0]), [[new if cell == old else cell for cell in row.values()] for row in rows])


@pytest.mark.parametrize(("in_table", "on_disk"), [(NFC, NFD), (NFD, NFC)])
def test_a_file_under_another_normal_form_is_the_clip(data: Path, in_table: str, on_disk: str) -> None:
    """macOS's archives decompose names; the table keeps its own, and the same samples are read."""
    expected = load_dataset(data, CONFIG)
    for table, folder, old in (("train.csv", "audio_train", "bell_00.wav"), ("sample_submission.csv", "audio_test",
                                                                             "test_00.wav")):  # fmt: skip
        (data / folder / form(on_disk, "Übung")).mkdir()
        (data / folder / old).rename(data / folder / form(on_disk, "Übung/Glöckchen.wav"))
        rename(data, table, old, form(in_table, "Übung/Glöckchen.wav"))
    dataset = load_dataset(data, CONFIG)
    fname = form(in_table, "Übung/Glöckchen.wav")
    (row,) = np.flatnonzero(dataset.manifest.train["fname"] == fname)
    assert dataset.manifest.test["fname"][0] == fname
    assert dataset.manifest.warnings == []
    np.testing.assert_array_equal(dataset.train[row], expected.train[row])
    np.testing.assert_array_equal(dataset.test[0], expected.test[0])
    facts = measure(dataset.manifest)
    waves, examples = read_waveforms(dataset.manifest), choose_examples(dataset.manifest, facts)
    assert not any(wave.reason for wave in waves)
    assert all(example.path.exists() for example in (*examples.of_classes, *examples.of_lengths))
    assert ClipFolder((data / "audio_train").resolve()).path(fname).exists()


def test_a_name_is_only_found_if_one_file_can_be_meant(tmp_path: Path) -> None:
    mixed = form(NFC, "Grün/") + form(NFD, "Öl.wav")
    (tmp_path / form(NFD, "Grün")).mkdir()
    (tmp_path / form(NFD, "Grün/Öl.wav")).touch()
    assert stored_name(tmp_path, mixed) == form(NFD, "Grün/Öl.wav")
    (tmp_path / form(NFC, "é.wav")).touch()
    assert stored_name(tmp_path, form(NFC, "é.wav")) == form(NFC, "é.wav")
    assert stored_name(tmp_path, form(NFD, "é.wav")) == form(NFC, "é.wav")
    (tmp_path / form(NFD, "é.wav")).touch()
    assert stored_name(tmp_path, form(NFD, "é.wav")) == form(NFD, "é.wav")
    three = "ộ.wav"  # has a third form, with the marks in the other order of composition
    (tmp_path / form(NFC, three)).touch()
    (tmp_path / form(NFD, three)).touch()
    assert stored_name(tmp_path, "o\u0302\u0323.wav") == "o\u0302\u0323.wav"
    for name in ("a\0é.wav", "../é", "/é", "", "ghöst.wav"):
        assert stored_name(tmp_path, name) == name


@pytest.mark.parametrize(("fname", "stored", "hint"), [
    ("new.wav", "NEW.WAV", "NEW.WAV"),
    ("new.wav", "new.flac", "new.flac"),
    ("new.wav", "sub/new.wav", "sub/new.wav"),
    ("sub\\new.wav", "sub/new.wav", "sub/new.wav"),
    ("audio_train/new.wav", "new.wav", "new.wav"),
    ("new", "new.wav", "new.wav"),
    (" new.wav", "new.wav", "new.wav"),
])  # fmt: skip
def test_a_missing_file_has_a_hint(data: Path, fname: str, stored: str, hint: str) -> None:
    write_wav(data / "audio_train" / stored, tone(500, 0.3, 8000))
    line = append_line(data / "train.csv", f"{fname},Flute,1")
    assert problems(data) == [Problem("train.csv", line, fname, f"missing file; there is {hint}")]


def test_no_hint_where_two_files_may_be_meant_or_the_file_has_a_row(data: Path) -> None:
    for name in ("New.wav", "NEW.wav"):
        write_wav(data / "audio_train" / name, tone(500, 0.3, 8000))
    lines = [append_line(data / "train.csv", f"{name},Flute,1") for name in ("new.wav", "bell_00.flac")]
    assert [(p.row, p.reason) for p in problems(data)] == [(line, "missing file") for line in lines]


@pytest.mark.parametrize("name", ["./bell_00.wav", ".//bell_00.wav", "sub/../bell_00.wav"])
def test_the_same_file_twice(data: Path, name: str) -> None:
    (data / "audio_train" / "sub").mkdir()
    line = append_line(data / "train.csv", f"{name},Bell,1")
    reason = "duplicate row: the file is bell_00.wav in line 2 too"
    assert Problem("train.csv", line, name, reason) in problems(data)
    assert len(read_manifest(data, "exclude", CONFIG).train) == 18


def test_the_same_file_under_two_forms_and_in_the_test_table(data: Path) -> None:
    write_wav(data / "audio_train" / form(NFD, "Öl.wav"), tone(500, 0.3, 8000))
    for name in (NFC, NFD):
        line = append_line(data / "train.csv", f"{form(name, 'Öl.wav')},Bell,1")
    (problem,) = problems(data)
    assert (problem.row, problem.reason) == (line, r"duplicate row: the file is '\xd6l.wav' in line 20 too")
    line = append_line(data / "sample_submission.csv", "./test_00.wav,")
    manifest = read_manifest(data, "exclude", CONFIG)
    assert manifest.test["fname"].tolist() == ["test_00.wav", "test_01.wav"]
    assert Problem("sample_submission.csv", line, "./test_00.wav", "duplicate row, which is left out", "test") in (
        manifest.problems
    )


def test_where_the_file_system_ignores_letter_case(tmp_path: Path) -> None:
    """There both names have the same inode."""
    rows = earlier_rows(tmp_path, ["a.wav", "A.WAV", "b.wav", "B.wav"], [(1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 5), ()])
    assert rows == [None, 0, None, None]


def test_files_without_a_row_are_named(data: Path) -> None:
    audio = data / "audio_train"
    for name in ("extra.wav", "sub/deep.FLAC", ".hidden/x.wav", "notes.txt", "._bell_00.wav", "__MACOSX/._a.wav"):
        (audio / name).parent.mkdir(exist_ok=True)
        (audio / name).write_bytes(b"\0\5\x16\7" + bytes(200))
    for i in range(7):
        (data / "audio_test" / f"more{i}.ogg").touch()
    append_line(data / "train.csv", "ragged.wav,Bell")
    (audio / "ragged.wav").touch()
    assert read_manifest(data, "exclude", CONFIG).warnings == [
        "audio_train: 2 audio files without a row in train.csv, not used: extra.wav, sub/deep.FLAC",
        "audio_train: 2 AppleDouble files, macOS's metadata without sound: ._bell_00.wav, __MACOSX/._a.wav",
        "audio_test: 7 audio files without a row in sample_submission.csv, not used: "
        "more0.ogg, more1.ogg, more2.ogg, more3.ogg, more4.ogg, ...",
    ]


def test_training_and_test_clips_in_one_folder(data: Path) -> None:
    for path in (data / "audio_test").iterdir():
        shutil.move(path, data / "audio_train")
    (data / "audio_test").rmdir()
    (data / "audio_test").symlink_to("audio_train")
    assert read_manifest(data, "error", CONFIG).warnings == []
    (data / "audio_train" / "extra.wav").touch()
    assert len(read_manifest(data, "error", CONFIG).warnings) == 1


def test_a_link_to_a_file_with_another_case_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    os.symlink("a.wav", tmp_path / "A.wav")
    assert unnamed_files(tmp_path, ["a.wav"]) == []
    (tmp_path / "A.wav").unlink()
    (tmp_path / "A.wav").touch()
    assert unnamed_files(tmp_path, ["a.wav"]) == ["A.wav"]
