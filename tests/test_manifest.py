"""The manifest: both editions' names, every kind of problem with file, row and reason, exclusion, and the digest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import CLASSES, append_line, error_line, make_dataset, make_zenodo, read_csv, tone, write_csv, write_wav

from fsat.config import Config
from fsat.data.audio import decode
from fsat.data.dataset import load_dataset
from fsat.data.manifest import read_manifest
from fsat.errors import DataError, Problem

OPTIONS = {"sampling_rate": 8000, "audio_duration": 0.25, "precision": "float32"}
CONFIG = Config.resolve(OPTIONS, "quick")  # two folds
CLIPS = [f"{label.lower()}_{j:02d}.wav" for j in range(6) for label in CLASSES]
TEST_CLIPS = ["test_00.wav", "test_01.wav", "test_02.wav", "test_03.wav"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data")


def refusal(folder: Path, on_bad_clip: str = "error", config: Config | None = CONFIG) -> DataError:
    with pytest.raises(DataError) as caught:
        read_manifest(folder, on_bad_clip, config)
    assert str(caught.value).isprintable()
    return caught.value


def add_row(folder: Path, row: str) -> int:
    """Add a row to the training table; its line."""
    return append_line(folder / "train.csv", row)


def add_clip(folder: Path, fname: str, label: str = "Flute") -> int:
    """Add a row with a sound clip; its line."""
    write_wav(folder / "audio_train" / fname, tone(500, 0.3, 8000))
    return add_row(folder, f"{fname},{label},1")


# --- what is read ----------------------------------------------------------------------------------


def test_a_clean_dataset(data: Path) -> None:
    write_wav(data / "audio_train" / "bell_00.wav", np.zeros((777, 2)), 22050)
    manifest = read_manifest(data, "error", CONFIG)
    assert manifest.train["fname"].tolist() == CLIPS
    assert manifest.train["label"].tolist() == list(CLASSES) * 6
    assert manifest.train["row"].tolist() == list(range(2, 20))
    assert manifest.train["manually_verified"].tolist() == [1] * 18
    assert manifest.train.loc[0, ["frames", "samplerate"]].tolist() == [777, 22050]
    assert manifest.test["fname"].tolist() == TEST_CLIPS
    assert manifest.test["reason"].tolist() == [""] * 4
    assert manifest.labels == list(CLASSES)
    assert manifest.targets.tolist() == [0, 1, 2] * 6
    assert manifest.problems == manifest.warnings == []


def test_columns_and_labels(tmp_path: Path) -> None:
    manifest = read_manifest(make_dataset(tmp_path / "order", classes=("b", "a", "Z"), clips_per_class=2))
    assert manifest.labels == ["Z", "a", "b"]
    assert manifest.targets.tolist() == [2, 1, 0, 2, 1, 0]
    manifest = read_manifest(make_dataset(tmp_path / "verified", clips_per_class=4, unverified=0.5))
    assert manifest.train["manually_verified"].tolist() == [0] * 6 + [1] * 6
    assert manifest.verified.tolist() == [False] * 6 + [True] * 6
    manifest = read_manifest(make_dataset(tmp_path / "optional", fold_column=3, freesound_id=True))
    assert manifest.train["fold"].tolist() == [str(j // 2 % 3 + 1) for j in range(6) for _ in CLASSES]
    assert manifest.train["freesound_id"].tolist()[:4] == ["1000", "2000", "3000", "1000"]


def test_a_dataset_without_a_test_part(tmp_path: Path) -> None:
    manifest = read_manifest(make_dataset(tmp_path / "data", test_clips=0), "error", CONFIG)
    assert len(manifest.test) == 0
    assert manifest.test.columns.tolist()[:2] == ["row", "fname"]
    assert manifest.warnings == []
    assert len(manifest.digest) == 16
    (manifest.folder / "audio_test").mkdir()
    warnings = read_manifest(manifest.folder, "error", CONFIG).warnings
    assert warnings == ["audio_test is not used, because sample_submission.csv is missing"]


def test_a_test_table_without_its_folder(data: Path) -> None:
    shutil.rmtree(data / "audio_test")
    manifest = read_manifest(data, "error", CONFIG)
    assert manifest.test["fname"].tolist() == TEST_CLIPS
    assert manifest.test["reason"].tolist() == ["missing file"] * 4


def test_zenodos_edition(tmp_path: Path) -> None:
    kaggle = read_manifest(make_dataset(tmp_path / "kaggle", unverified=0.5))
    folder = make_zenodo(make_dataset(tmp_path / "zenodo", unverified=0.5))
    zenodo = read_manifest(folder, "error", CONFIG)
    for column in ("fname", "label", "manually_verified", "frames", "digest"):
        assert zenodo.train[column].tolist() == kaggle.train[column].tolist()
    for column in ("fname", "reason", "frames", "digest"):
        assert zenodo.test[column].tolist() == kaggle.test[column].tolist()
    assert zenodo.train["freesound_id"].tolist() == [str(100 + i) for i in range(18)]
    assert zenodo.labels == kaggle.labels
    assert zenodo.problems == zenodo.warnings == []
    folders = (folder / "FSDKaggle2018.audio_train", folder / "FSDKaggle2018.audio_test")
    assert (zenodo.train_folder, zenodo.test_folder) == folders

    meta = folder / "FSDKaggle2018.meta"
    (meta / "test_post_competition_scoring_clips.csv").unlink()  # the other table has rows of padding clips
    manifest = read_manifest(folder, "error", CONFIG)
    assert manifest.test["fname"].tolist() == TEST_CLIPS
    assert manifest.problems == []
    for table in list(meta.iterdir()):  # tables beside the folders
        table.rename(folder / table.name)
    manifest = read_manifest(folder, "error", CONFIG)
    assert manifest.train["fname"].tolist() == CLIPS
    assert set(TEST_CLIPS) <= set(manifest.test["fname"])


def test_links_inside_the_folder_and_a_linked_folder_are_fine(data: Path, tmp_path: Path) -> None:
    (data / "audio_train" / "link.wav").symlink_to("bell_00.wav")
    (data / "audio_train" / "sub").mkdir()
    (data / "audio_train" / "sub" / "deep.wav").symlink_to("../bell_01.wav")
    add_row(data, "link.wav,Flute,1")
    add_row(data, "sub/deep.wav,Flute,1")
    (data / "audio_train").rename(tmp_path / "elsewhere")
    (data / "audio_train").symlink_to(tmp_path / "elsewhere")
    assert len(read_manifest(data, "error", CONFIG).train) == 20


# --- problems of training clips --------------------------------------------------------------------


def no_file(audio: Path) -> None:
    """The row is enough."""


def link_out(audio: Path) -> None:
    clip = write_wav(audio.parent.parent / "other" / "clip.wav", tone(500, 0.3, 8000))
    for name, target in (("out.wav", clip), ("sub", clip.parent)):
        (audio / name).unlink(missing_ok=True)
        (audio / name).symlink_to(target)


def file(name: str, content: bytes | np.ndarray | None = None) -> Callable[[Path], object]:
    """A function that makes a file in the folder of training clips, a sound one by default."""
    if isinstance(content, bytes):
        return lambda audio: (audio / name).write_bytes(content)
    return lambda audio: write_wav(audio / name, tone(500, 0.3, 8000) if content is None else content)


# what makes the problem, the row ({audio} is the folder of clips), and a part of the reason
KINDS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (no_file, "gone.wav,Flute,1", "missing file"),
    "text": (file("text.wav", b"words\n" * 99), "text.wav,Flute,1", "unreadable audio (Format not recognised)"),
    "empty file": (file("empty.wav", b""), "empty.wav,Flute,1", "empty file"),
    "no samples": (file("nothing.wav", np.zeros(0)), "nothing.wav,Flute,1", "no samples"),
    "directory": (lambda audio: (audio / "dir.wav").mkdir(), "dir.wav,Flute,1", "not a regular file"),
    "fifo": (lambda audio: os.mkfifo(audio / "fifo.wav"), "fifo.wav,Flute,1", "not a regular file"),
    "duplicate": (no_file, "bell_01.wav,Bell,1", "duplicate row: the clip is in line 5 too"),
    "duplicate with another label": (no_file, "bell_02.wav,Cello,1", "duplicate row: the clip is in line 8 too"),
    "empty label": (file("unlabelled.wav"), "unlabelled.wav,,1", "the label is empty"),
    "blank label": (file("blank.wav"), "blank.wav,  ,1", "the label is empty"),
    "label None": (file("none.wav"), "none.wav,None,1", "the label is None"),
    "label of two words": (file("two.wav"), "two.wav,Bass drum,1", "the label 'Bass drum' has white space"),
    "label with a space": (file("space.wav"), "space.wav, Flute,1", "the label ' Flute' has white space"),
    "verified 2": (file("v2.wav"), "v2.wav,Flute,2", "manually_verified is '2', expected 0 or 1"),
    "verified empty": (file("v.wav"), "v.wav,Flute,", "manually_verified is '', expected 0 or 1"),
    "verified yes": (file("vyes.wav"), "vyes.wav,Flute,yes", "manually_verified is 'yes', expected 0 or 1"),
    "parent": (file("../outside.wav"), "../outside.wav,Flute,1", "leaves the folder"),
    "there and back": (no_file, "../audio_train/bell_00.wav,Flute,1", "leaves the folder"),
    "absolute": (file("../absolute.wav"), "{audio}/../absolute.wav,Flute,1", "leaves the folder (an absolute path)"),
    "absolute inside": (no_file, "{audio}/bell_00.wav,Flute,1", "leaves the folder (an absolute path)"),
    "link out": (link_out, "out.wav,Flute,1", "leaves the folder (a link out of it)"),
    "linked folder": (link_out, "sub/clip.wav,Flute,1", "leaves the folder (a link out of it)"),
    "dangling link": (lambda audio: (audio / "link.wav").symlink_to("nowhere"), "link.wav,Flute,1", "missing file"),
    "circular link": (lambda audio: (audio / "circle.wav").symlink_to("circle.wav"), "circle.wav,Flute,1", ""),
    "no name": (no_file, ",Flute,1", "the file name is empty"),
    "long name": (no_file, "x" * 300 + ".wav,Flute,1", ""),
    "NUL in the name": (no_file, "a\0.wav,Flute,1", "NUL"),
    "too few cells": (no_file, "few.wav,Flute", "2 cells"),
    "too many cells": (no_file, "many.wav,Flute,1,2", "4 cells"),
}


def make_problem(folder: Path, kind: str) -> tuple[int, str, str]:
    """Make a bad row; its line, file name and reason."""
    make, row, reason = KINDS[kind]
    audio = folder.absolute() / "audio_train"
    make(audio)
    row = row.replace("{audio}", str(audio))
    return add_row(folder, row), row.partition(",")[0], reason


@pytest.mark.parametrize("kind", KINDS)
def test_one_bad_row(data: Path, kind: str) -> None:
    line, fname, reason = make_problem(data, kind)
    add_clip(data, "last.wav")  # rows after a bad one are read
    problems = refusal(data).problems
    assert [(p.file, p.row, p.fname, p.split) for p in problems] == [("train.csv", line, fname, "train")]
    assert reason in problems[0].reason
    manifest = read_manifest(data, "exclude", CONFIG)
    assert manifest.train["fname"].tolist() == [*CLIPS, "last.wav"]
    assert manifest.labels == list(CLASSES)
    assert manifest.problems == problems
    assert manifest.train["manually_verified"].isin([0, 1]).all()


@pytest.mark.parametrize("config", [None, CONFIG], ids=["without config", "with config"])
def test_all_problems_are_reported_together(data: Path, config: Config | None) -> None:
    expected = [make_problem(data, kind) for kind in KINDS]
    error = refusal(data, "error", config)
    assert [(p.row, p.fname) for p in error.problems] == [(line, fname) for line, fname, _ in expected]
    for problem, (_, _, reason) in zip(error.problems, expected, strict=True):
        assert problem.file == "train.csv"
        assert reason in problem.reason
        assert str(problem).startswith(f"train.csv:{problem.row}: ")
    advice = "fix the rows listed above, or leave these clips out with on_bad_clip=exclude"
    assert str(error) == f"{data}: {len(KINDS)} problems in the training clips; {advice}"
    manifest = read_manifest(data, "exclude", config)
    assert manifest.train["fname"].tolist() == CLIPS
    assert manifest.problems == error.problems


def test_a_row_with_several_problems_has_them_all(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", fold_column=2)
    line = add_row(folder, "gone.wav,,7,")
    problems = refusal(folder).problems
    assert [p.row for p in problems] == [line] * 4
    words = ("the label is empty", "manually_verified is '7'", "the fold is empty", "missing file")
    assert all(p.reason.startswith(word) for p, word in zip(problems, words, strict=True))
    assert read_manifest(folder, "exclude", CONFIG).train["fname"].tolist() == CLIPS


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_permission(data: Path) -> None:
    (data / "audio_train" / "bell_00.wav").chmod(0)
    problems = refusal(data).problems
    assert [(p.row, p.fname) for p in problems] == [(2, "bell_00.wav")]
    assert "unreadable" in problems[0].reason


# --- problems of classes and tables ----------------------------------------------------------------


@pytest.mark.parametrize("on_bad_clip", ["error", "exclude"])
def test_a_class_with_fewer_clips_than_folds_cannot_be_excluded(data: Path, on_bad_clip: str) -> None:
    add_clip(data, "rare_0.wav", "Rare")
    add_clip(data, "rare_1.wav", "Rare")
    line = add_row(data, "gone.wav,Flute,1")
    error = refusal(data, on_bad_clip, Config.resolve({"n_folds": 3}, "quick"))
    missing, rare = sorted(map(str, error.problems), key=lambda text: "Rare" in text)
    assert missing == f"train.csv:{line}: gone.wav: missing file"
    assert rare.startswith("train.csv: class Rare has 2 clips, fewer than the 3 folds")
    assert "on_bad_clip=exclude" not in str(error)
    assert len(read_manifest(data, "exclude", CONFIG).train) == 20  # two folds are possible


def test_exclusion_that_leaves_too_few_clips_of_a_class_names_clips_and_class(data: Path) -> None:
    add_clip(data, "rare.wav", "Rare")
    add_row(data, "gone.wav,Rare,1")
    listed = "\n".join(map(str, refusal(data, "exclude").problems))
    assert "gone.wav: missing file" in listed
    assert "class Rare has 1 clip," in listed


@pytest.mark.parametrize("fold_column", [0, 2])
def test_no_usable_clip_is_left(tmp_path: Path, fold_column: int) -> None:
    folder = make_dataset(tmp_path / "data", fold_column=fold_column)
    for path in (folder / "audio_train").iterdir():
        path.unlink()
    error = refusal(folder, "exclude")
    assert "no usable training clip is left" in str(error)
    assert [p.reason for p in error.problems] == ["missing file"] * 18
    header, *rows = (folder / "train.csv").read_text().splitlines()
    (folder / "train.csv").write_text("\n".join([header, *(row + ",x" for row in rows)]))
    assert [p.row for p in refusal(folder).problems] == list(range(2, 20))  # every row is ragged


def test_no_such_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "nowhere", tmp_path / "file"):
        line = error_line(DataError, read_manifest, folder)
        assert line.startswith(f"{folder}: no such folder; expected one with train.csv and audio_train/")


@pytest.mark.parametrize(
    ("name", "words"),
    [("train.csv", ["train.csv", "train_post_competition.csv"]), ("audio_train", ["audio_train", "FSDKaggle2018"])],
)
def test_a_table_or_folder_is_missing(data: Path, name: str, words: list[str]) -> None:
    (data / name).rename(data / "elsewhere")
    message = str(refusal(data))
    assert all(word in message for word in [*words, str(data), "missing"])


@pytest.mark.parametrize("table", ["train.csv", "sample_submission.csv"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: b"", ["the table is empty"]),
        (lambda raw: raw.replace(b"fname", b"file"), ["unknown column layout", "fname"]),
        (lambda raw: raw + "flöte.wav,Flöte,1\n".encode("latin-1"), ["wrong encoding", "line "]),
    ],
    ids=["empty", "layout", "latin-1"],
)
def test_a_table_that_cannot_be_read(data: Path, table: str, change: Callable, words: list[str]) -> None:
    (data / table).write_bytes(change((data / table).read_bytes()))
    for on_bad_clip in ("error", "exclude"):
        message = str(refusal(data, on_bad_clip))
        assert all(word in message for word in [table, *words])


def test_an_unreadable_test_table_is_reported_beside_bad_training_clips(data: Path) -> None:
    line = add_row(data, "gone.wav,Flute,1")
    (data / "sample_submission.csv").write_bytes(b"")
    listed = list(map(str, refusal(data).problems))
    assert listed[0] == f"train.csv:{line}: gone.wav: missing file"
    assert listed[1].startswith("sample_submission.csv: the table is empty")


# --- problems of test clips ------------------------------------------------------------------------


def move_out(path: Path) -> None:
    path.rename(path.parent.parent.parent / "away.wav")
    path.symlink_to(path.parent.parent.parent / "away.wav")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, "missing file"),
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_text("words\n" * 99), "unreadable audio"),
        (lambda path: write_wav(path, np.zeros(0)), "no samples"),
        (move_out, "leaves the folder"),
    ],
    ids=["missing", "empty", "text", "no samples", "link out"],
)
@pytest.mark.parametrize("on_bad_clip", ["error", "exclude"])
def test_an_unusable_test_clip_keeps_its_row(data: Path, spoil: Callable, reason: str, on_bad_clip: str) -> None:
    spoil(data / "audio_test" / "test_01.wav")
    manifest = read_manifest(data, on_bad_clip, CONFIG)
    assert manifest.test["fname"].tolist() == TEST_CLIPS
    assert [bool(text) for text in manifest.test["reason"]] == [False, True, False, False]
    assert reason in manifest.test["reason"][1]
    assert manifest.train["fname"].tolist() == CLIPS
    (problem,) = manifest.problems
    place = problem.file, problem.row, problem.fname, problem.split
    assert place == ("sample_submission.csv", 3, "test_01.wav", "test")
    (warning,) = manifest.warnings
    assert warning.startswith("1 unusable test clip, scored by the label prior: test_01.wav (")


def test_bad_test_rows(data: Path) -> None:
    """A name that leaves the folder and a ragged row keep their rows; a duplicate is left out."""
    table = data / "sample_submission.csv"
    table.write_text(table.read_text().replace("test_01.wav,", "test_01.wav,x,"))
    outside = append_line(table, "../audio_train/bell_00.wav,Bell")
    duplicate = append_line(table, "test_02.wav,Bell")
    manifest = read_manifest(data)
    assert manifest.test["fname"].tolist() == [*TEST_CLIPS, "../audio_train/bell_00.wav"]
    assert [p.row for p in manifest.problems] == [3, outside, duplicate]
    assert "leaves the folder" in manifest.test["reason"][4]
    reason = "duplicate row, which is left out"
    assert manifest.problems[2] == Problem(table.name, duplicate, "test_02.wav", reason, "test")
    assert any(line.startswith("2 bad rows in the test table: ") for line in manifest.warnings)


# --- the digest ------------------------------------------------------------------------------------


def digest_of(folder: Path) -> str:
    return read_manifest(folder).digest


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", clips_per_class=4, fold_column=2, freesound_id=True)


def test_the_digest_depends_on_content_only(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = digest_of(full)
    assert len(digest) == 16
    copy = tmp_path / "another" / "folder"
    shutil.copytree(full, copy)
    for path in [copy, *copy.rglob("*")]:
        os.utime(path, (1, 1))
    assert digest_of(copy) == digest
    monkeypatch.chdir(copy)
    assert digest_of(Path()) == digest
    (full / "audio_train" / "not in the table.wav").write_bytes(b"")
    (full / "README").write_text("words")
    change_cell(full, "label", "Bell Bell Bell", "sample_submission.csv")
    for name in ("train.csv", "sample_submission.csv"):
        text = (full / name).read_text().replace("\n", "\r\n")
        (full / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert digest_of(full) == digest
    assert [line.partition(":")[0] for line in read_manifest(full).warnings] == ["train.csv", "sample_submission.csv"]
    add_row(full, "gone.wav,Flute,1,1,7")
    assert read_manifest(full, "exclude").digest == digest


def change_cell(folder: Path, column: str, value: str, table: str = "train.csv") -> None:
    rows = read_csv(folder / table)
    rows[0][column] = value
    write_csv(folder / table, list(rows[0]), [list(row.values()) for row in rows])


def change_byte(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1  # of the last sample
    path.write_bytes(raw)


def reverse_test_table(folder: Path) -> None:
    rows = [(row["fname"], "") for row in reversed(read_csv(folder / "sample_submission.csv"))]
    write_csv(folder / "sample_submission.csv", ["fname", "label"], rows)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: change_byte(folder / "audio_train" / "flute_03.wav"),
        lambda folder: change_byte(folder / "audio_test" / "test_02.wav"),
        lambda folder: change_cell(folder, "label", "Cello"),
        lambda folder: change_cell(folder, "manually_verified", "0"),
        lambda folder: change_cell(folder, "fold", "2"),
        lambda folder: change_cell(folder, "freesound_id", "77"),
        lambda folder: (folder / "audio_test" / "test_02.wav").unlink(),
        reverse_test_table,
    ],
    ids=["audio", "test audio", "label", "verification", "fold", "freesound_id", "test clip gone", "test order"],
)
def test_the_digest_changes_with_the_content(full: Path, change: Callable[[Path], object]) -> None:
    digest = digest_of(full)
    change(full)
    assert digest_of(full) != digest


# --- what decoding finds ---------------------------------------------------------------------------


def with_nan(path: Path) -> None:
    samples = tone(500, 0.3, 8000)
    samples[100] = np.nan
    write_wav(path, samples, subtype="FLOAT")


def test_nan_in_a_training_clip(data: Path) -> None:
    with_nan(data / "audio_train" / "cello_02.wav")
    with pytest.raises(DataError) as caught:
        load_dataset(data, CONFIG)
    assert [str(p) for p in caught.value.problems] == ["train.csv:9: cello_02.wav: NaN or infinite samples"]

    dataset = load_dataset(data, CONFIG, "exclude")
    left = [fname for fname in CLIPS if fname != "cello_02.wav"]
    assert dataset.manifest.train["fname"].tolist() == left
    assert len(dataset.targets) == len(dataset.folds) == 17
    for fname, target, clip in zip(left, dataset.targets, dataset.train, strict=True):
        assert CLASSES[target].lower() == fname.partition("_")[0]
        np.testing.assert_array_equal(clip, decode(data / "audio_train" / fname, 8000))
    for fname, clip in zip(TEST_CLIPS, dataset.test, strict=True):
        np.testing.assert_array_equal(clip, decode(data / "audio_test" / fname, 8000))
    assert [p.fname for p in dataset.manifest.problems] == ["cello_02.wav"]
    assert dataset.summary()[0] == (
        "warning: 1 training row excluded (on_bad_clip=exclude): train.csv:9: cello_02.wav: NaN or infinite samples"
    )
    assert dataset.summary()[1].startswith(f"study {dataset.study}: 17 training clips, 4 test clips, 3 classes; model=")


def test_nan_in_a_test_clip(data: Path) -> None:
    with_nan(data / "audio_test" / "test_02.wav")
    (data / "audio_test" / "test_00.wav").write_bytes(b"")  # never decoded, but its row is there
    dataset = load_dataset(data, CONFIG)
    assert [len(clip) == 0 for clip in dataset.test] == [True, False, True, False]
    np.testing.assert_array_equal(dataset.test[1], decode(data / "audio_test" / "test_01.wav", 8000))
    assert dataset.manifest.test["fname"].tolist() == TEST_CLIPS
    assert dataset.manifest.test["reason"].tolist() == ["empty file", "", "NaN or infinite samples", ""]
    assert str(dataset.manifest.problems[-1]) == "sample_submission.csv:4: test_02.wav: NaN or infinite samples"
    assert any("test_02.wav" in line for line in dataset.manifest.warnings)


def test_nan_that_leaves_too_few_clips_of_a_class(data: Path) -> None:
    for name in ("rare_0.wav", "rare_1.wav"):
        add_clip(data, name, "Rare")
    with_nan(data / "audio_train" / "rare_1.wav")
    with pytest.raises(DataError) as caught:
        load_dataset(data, CONFIG, "exclude")
    listed = "\n".join(map(str, caught.value.problems))
    assert "class Rare has 1 clip" in listed
    assert "rare_1.wav: NaN or infinite samples" in listed  # the cause


def test_silence_is_a_warning(data: Path) -> None:
    write_wav(data / "audio_train" / "flute_00.wav", np.zeros(2000))
    write_wav(data / "audio_test" / "test_00.wav", np.zeros(2000))
    dataset = load_dataset(data, CONFIG)
    assert len(dataset.train) == 18
    assert dataset.test.silent.tolist() == [True, False, False, False]
    assert dataset.manifest.warnings == ["2 silent clips (every sample is 0): flute_00.wav, test_00.wav"]
    assert dataset.manifest.problems == []
