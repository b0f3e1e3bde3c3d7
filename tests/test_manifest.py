"""The manifest: both editions' names, every kind of problem with file, row and reason, exclusion, and the digest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import CLASSES, append_line, make_dataset, make_zenodo, one_line, read_csv, tone, write_csv, write_wav

from fsat.config import Config
from fsat.data.audio import decode
from fsat.data.dataset import load_dataset
from fsat.data.manifest import Manifest, read_manifest
from fsat.errors import DataError, Problem

CONFIG = Config.resolve({"sampling_rate": 8000, "audio_duration": 0.25}, "quick")  # two folds
CLIPS = [f"{label.lower()}_{j:02d}.wav" for j in range(6) for label in CLASSES]
TEST_CLIPS = ["test_00.wav", "test_01.wav", "test_02.wav", "test_03.wav"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data")


def problems_of(folder: Path, config: Config | None = CONFIG) -> list[Problem]:
    with pytest.raises(DataError) as caught:
        read_manifest(folder, "error", config)
    one_line(caught.value)
    return caught.value.problems


def add(folder: Path, fname: str, label: str = "Flute", verified: str = "1") -> tuple[int, str]:
    """Add a row to the training table; its line and the name."""
    return append_line(folder / "train.csv", f"{fname},{label},{verified}"), fname


def add_good(folder: Path, fname: str, label: str = "Flute", verified: str = "1") -> tuple[int, str]:
    """Add a row with a clip that can be read."""
    write_wav(folder / "audio_train" / fname, tone(500, 0.3, 8000))
    return add(folder, fname, label, verified)


# --- what is read ----------------------------------------------------------------------------------


def test_clean_dataset(data: Path) -> None:
    manifest = read_manifest(data, "error", CONFIG)
    assert manifest.train["fname"].tolist() == CLIPS
    assert manifest.train["label"].tolist() == list(CLASSES) * 6
    assert manifest.train["row"].tolist() == list(range(2, 20))
    assert manifest.train["manually_verified"].tolist() == [1] * 18
    assert manifest.test["fname"].tolist() == TEST_CLIPS
    assert manifest.test["reason"].tolist() == [""] * 4
    assert manifest.labels == list(CLASSES)
    assert manifest.targets.tolist() == [0, 1, 2] * 6
    assert manifest.problems == []
    assert manifest.warnings == []


def test_headers_are_read(data: Path) -> None:
    write_wav(data / "audio_train" / "bell_00.wav", np.zeros((777, 2)), 22050)
    row = read_manifest(data).train.iloc[0]
    assert (row["frames"], row["samplerate"]) == (777, 22050)


def test_labels_are_in_alphabetical_order_wherever_they_stand(tmp_path: Path) -> None:
    manifest = read_manifest(make_dataset(tmp_path / "data", classes=("b", "a", "Z"), clips_per_class=2))
    assert manifest.labels == ["Z", "a", "b"]
    assert manifest.targets.tolist() == [2, 1, 0, 2, 1, 0]


def test_verification_is_read(tmp_path: Path) -> None:
    manifest = read_manifest(make_dataset(tmp_path / "data", clips_per_class=4, unverified=0.5))
    assert manifest.train["manually_verified"].tolist() == [0] * 6 + [1] * 6


def test_optional_columns_are_read(tmp_path: Path) -> None:
    manifest = read_manifest(make_dataset(tmp_path / "data", fold_column=3, freesound_id=True))
    assert manifest.train["fold"].tolist() == [str(j // 2 % 3 + 1) for j in range(6) for _ in CLASSES]
    assert manifest.train["freesound_id"].tolist()[:4] == ["1000", "2000", "3000", "1000"]


def test_a_dataset_without_a_test_part(tmp_path: Path) -> None:
    manifest = read_manifest(make_dataset(tmp_path / "data", test_clips=0), "error", CONFIG)
    assert len(manifest.test) == 0
    assert manifest.test.columns.tolist()[:2] == ["row", "fname"]
    assert manifest.warnings == []
    assert len(manifest.digest) == 16


def test_a_test_table_without_its_folder_is_not_passed_over(data: Path) -> None:
    """An unusable test clip keeps its row: so do they all, or at least somebody is told."""
    shutil.rmtree(data / "audio_test")
    manifest = read_manifest(data, "error", CONFIG)
    assert manifest.test["fname"].tolist() == TEST_CLIPS or any("audio_test" in line for line in manifest.warnings)


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
    assert zenodo.problems == []
    assert zenodo.warnings == []
    assert (zenodo.train_folder, zenodo.test_folder) == (
        folder / "FSDKaggle2018.audio_train",
        folder / "FSDKaggle2018.audio_test",
    )


def test_zenodos_edition_without_the_table_of_scoring_clips(tmp_path: Path) -> None:
    """The other table has rows for padding clips, whose audio Zenodo leaves out."""
    folder = make_zenodo(make_dataset(tmp_path / "data"))
    (folder / "FSDKaggle2018.meta" / "test_post_competition_scoring_clips.csv").unlink()
    manifest = read_manifest(folder, "error", CONFIG)
    assert manifest.test["fname"].tolist() == TEST_CLIPS
    assert manifest.problems == []


def test_zenodos_tables_beside_the_folders(tmp_path: Path) -> None:
    folder = make_zenodo(make_dataset(tmp_path / "data"))
    for table in list((folder / "FSDKaggle2018.meta").iterdir()):
        table.rename(folder / table.name)
    manifest = read_manifest(folder, "error", CONFIG)
    assert manifest.train["fname"].tolist() == CLIPS
    assert set(TEST_CLIPS) <= set(manifest.test["fname"])


def test_a_byte_order_mark_is_a_warning(data: Path) -> None:
    for name in ("train.csv", "sample_submission.csv"):
        (data / name).write_bytes(b"\xef\xbb\xbf" + (data / name).read_bytes())
    manifest = read_manifest(data, "error", CONFIG)
    assert manifest.train["fname"].tolist() == CLIPS
    assert manifest.test["fname"].tolist() == TEST_CLIPS
    assert [name for name in ("train.csv", "sample_submission.csv") for line in manifest.warnings if name in line] == [
        "train.csv",
        "sample_submission.csv",
    ]


def test_links_inside_the_folder_and_a_linked_folder_are_fine(data: Path, tmp_path: Path) -> None:
    (data / "audio_train" / "link.wav").symlink_to("bell_00.wav")
    (data / "audio_train" / "sub").mkdir()
    (data / "audio_train" / "sub" / "deep.wav").symlink_to("../bell_01.wav")
    add(data, "link.wav")
    add(data, "sub/deep.wav")
    (data / "audio_train").rename(tmp_path / "elsewhere")
    (data / "audio_train").symlink_to(tmp_path / "elsewhere")
    assert len(read_manifest(data, "error", CONFIG).train) == 20


# --- problems of training clips --------------------------------------------------------------------


def missing(folder: Path) -> tuple[int, str]:
    return add(folder, "gone.wav")


def text_as_wav(folder: Path) -> tuple[int, str]:
    (folder / "audio_train" / "text.wav").write_text("no sound, only words\n" * 9)
    return add(folder, "text.wav")


def empty_file(folder: Path) -> tuple[int, str]:
    (folder / "audio_train" / "empty.wav").write_bytes(b"")
    return add(folder, "empty.wav")


def no_samples(folder: Path) -> tuple[int, str]:
    write_wav(folder / "audio_train" / "nothing.wav", np.zeros(0))
    return add(folder, "nothing.wav")


def directory(folder: Path) -> tuple[int, str]:
    (folder / "audio_train" / "dir.wav").mkdir()
    return add(folder, "dir.wav")


def fifo(folder: Path) -> tuple[int, str]:
    os.mkfifo(folder / "audio_train" / "fifo.wav")  # opening it would wait for ever
    return add(folder, "fifo.wav")


def duplicate(folder: Path) -> tuple[int, str]:
    return add(folder, "bell_01.wav", "Bell")


def duplicate_with_another_label(folder: Path) -> tuple[int, str]:
    return add(folder, "bell_02.wav", "Cello")


def empty_label(folder: Path) -> tuple[int, str]:
    return add_good(folder, "unlabelled.wav", "")


def blank_label(folder: Path) -> tuple[int, str]:
    return add_good(folder, "blank.wav", "  ")


def none_label(folder: Path) -> tuple[int, str]:
    return add_good(folder, "none.wav", "None")


def label_of_two_words(folder: Path) -> tuple[int, str]:
    return add_good(folder, "two_words.wav", "Bass drum")


def label_with_a_space_before(folder: Path) -> tuple[int, str]:
    return add_good(folder, "space.wav", " Flute")


def verified_2(folder: Path) -> tuple[int, str]:
    return add_good(folder, "verified_2.wav", verified="2")


def verified_empty(folder: Path) -> tuple[int, str]:
    return add_good(folder, "verified_empty.wav", verified="")


def verified_yes(folder: Path) -> tuple[int, str]:
    return add_good(folder, "verified_yes.wav", verified="yes")


def parent(folder: Path) -> tuple[int, str]:
    write_wav(folder / "outside.wav", tone(500, 0.3, 8000))
    return add(folder, "../outside.wav")


def there_and_back(folder: Path) -> tuple[int, str]:
    return add(folder, "../audio_train/bell_00.wav")


def absolute(folder: Path) -> tuple[int, str]:
    return add(folder, str(write_wav(folder / "absolute.wav", tone(500, 0.3, 8000)).absolute()))


def absolute_inside(folder: Path) -> tuple[int, str]:
    return add(folder, str((folder / "audio_train" / "bell_00.wav").absolute()))


def link_out(folder: Path) -> tuple[int, str]:
    target = write_wav(folder.parent / "linked.wav", tone(500, 0.3, 8000))
    (folder / "audio_train" / "link_out.wav").symlink_to(target)
    return add(folder, "link_out.wav")


def linked_folder_out(folder: Path) -> tuple[int, str]:
    write_wav(folder.parent / "other" / "clip.wav", tone(500, 0.3, 8000))
    (folder / "audio_train" / "sub").symlink_to(folder.parent / "other")
    return add(folder, "sub/clip.wav")


def dangling_link(folder: Path) -> tuple[int, str]:
    (folder / "audio_train" / "dangling.wav").symlink_to("nowhere.wav")
    return add(folder, "dangling.wav")


def circular_link(folder: Path) -> tuple[int, str]:
    (folder / "audio_train" / "circle.wav").symlink_to("circle.wav")
    return add(folder, "circle.wav")


def no_name(folder: Path) -> tuple[int, str]:
    return add(folder, "")


def long_name(folder: Path) -> tuple[int, str]:
    return add(folder, "x" * 300 + ".wav")


def nul_in_name(folder: Path) -> tuple[int, str]:
    return add(folder, "a\0.wav")


def too_few_cells(folder: Path) -> tuple[int, str]:
    return append_line(folder / "train.csv", "few.wav,Flute"), "few.wav"


def too_many_cells(folder: Path) -> tuple[int, str]:
    return append_line(folder / "train.csv", "many.wav,Flute,1,2"), "many.wav"


# what makes the problem (and gives line and name), a part of the reason
KINDS = [
    (missing, "missing file"),
    (text_as_wav, "unreadable audio (Format not recognised)"),
    (empty_file, "empty file"),
    (no_samples, "no samples"),
    (directory, "not a regular file"),
    (fifo, "not a regular file"),
    (duplicate, "duplicate row: the clip is in line 5 too"),
    (duplicate_with_another_label, "duplicate row: the clip is in line 8 too"),
    (empty_label, "the label is empty"),
    (blank_label, "the label is empty"),
    (none_label, "the label is None"),
    (label_of_two_words, "the label 'Bass drum' has white space"),
    (label_with_a_space_before, "the label ' Flute' has white space"),
    (verified_2, "manually_verified is '2', expected 0 or 1"),
    (verified_empty, "manually_verified is '', expected 0 or 1"),
    (verified_yes, "manually_verified is 'yes', expected 0 or 1"),
    (parent, "leaves the folder"),
    (there_and_back, "leaves the folder"),
    (absolute, "leaves the folder (an absolute path)"),
    (absolute_inside, "leaves the folder (an absolute path)"),
    (link_out, "leaves the folder (a link out of it)"),
    (linked_folder_out, "leaves the folder (a link out of it)"),
    (dangling_link, "missing file"),
    (circular_link, ""),
    (no_name, "the file name is empty"),
    (long_name, ""),
    (nul_in_name, "NUL"),
    (too_few_cells, "2 cells"),
    (too_many_cells, "4 cells"),
]
Maker = Callable[[Path], tuple[int, str]]


@pytest.mark.parametrize(("make", "reason"), KINDS, ids=[make.__name__ for make, _ in KINDS])
@pytest.mark.parametrize("config", [None, CONFIG], ids=["without config", "with config"])
def test_one_bad_row(data: Path, make: Maker, reason: str, config: Config | None) -> None:
    line, fname = make(data)
    add_good(data, "last.wav")  # a problem does not hide what comes after it
    problems = problems_of(data, config)
    assert [(p.file, p.row, p.fname, p.split) for p in problems] == [("train.csv", line, fname, "train")]
    assert reason in problems[0].reason

    manifest = read_manifest(data, "exclude", config)
    assert manifest.train["fname"].tolist() == [*CLIPS, "last.wav"]
    assert manifest.labels == list(CLASSES)
    assert manifest.problems == problems
    assert manifest.train["manually_verified"].isin([0, 1]).all()


@pytest.mark.parametrize("config", [None, CONFIG], ids=["without config", "with config"])
def test_all_problems_are_reported_together(data: Path, config: Config | None) -> None:
    expected = [(*make(data), reason) for make, reason in KINDS]
    with pytest.raises(DataError) as caught:
        read_manifest(data, "error", config)
    problems = caught.value.problems
    assert [(p.row, p.fname) for p in problems] == [(line, fname) for line, fname, _ in expected]
    for problem, (_, _, reason) in zip(problems, expected, strict=True):
        assert problem.file == "train.csv"
        assert reason in problem.reason
        assert str(problem).startswith(f"train.csv:{problem.row}: ")
    message = one_line(caught.value)
    assert str(data) in message
    assert f"{len(KINDS)} problems" in message
    assert "on_bad_clip=exclude" in message

    manifest = read_manifest(data, "exclude", config)
    assert manifest.train["fname"].tolist() == CLIPS
    assert manifest.problems == problems


def test_a_row_with_two_problems_names_both(data: Path) -> None:
    line = append_line(data / "train.csv", "gone.wav,,7")
    problems = problems_of(data)
    assert [p.row for p in problems] == [line] * 3
    reasons = " ".join(p.reason for p in problems)
    assert "missing file" in reasons
    assert "label is empty" in reasons
    assert "manually_verified" in reasons
    assert read_manifest(data, "exclude", CONFIG).train["fname"].tolist() == CLIPS


def test_an_empty_fold(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", fold_column=2)
    write_wav(folder / "audio_train" / "foldless.wav", tone(500, 0.3, 8000))
    line = append_line(folder / "train.csv", "foldless.wav,Flute,1,")
    problems = problems_of(folder)
    assert [(p.row, p.fname, p.reason) for p in problems] == [(line, "foldless.wav", "the fold is empty")]
    assert len(read_manifest(folder, "exclude", CONFIG).train) == 18


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(data: Path) -> None:
    (data / "audio_train" / "bell_00.wav").chmod(0)
    problems = problems_of(data)
    assert [(p.row, p.fname) for p in problems] == [(2, "bell_00.wav")]
    assert "unreadable" in problems[0].reason


# --- problems of classes and tables ----------------------------------------------------------------


@pytest.mark.parametrize("on_bad_clip", ["error", "exclude"])
def test_a_class_with_fewer_clips_than_folds(data: Path, on_bad_clip: str) -> None:
    """Leaving clips out cannot mend that."""
    add_good(data, "rare_0.wav", "Rare")
    add_good(data, "rare_1.wav", "Rare")
    line, fname = missing(data)
    with pytest.raises(DataError) as caught:
        read_manifest(data, on_bad_clip, Config.resolve({"n_folds": 3}, "quick"))
    listed = [str(problem) for problem in caught.value.problems]
    assert len(listed) == 2
    assert f"train.csv:{line}: {fname}: missing file" in listed
    rare = next(text for text in listed if "Rare" in text)
    assert rare.startswith("train.csv: class Rare has 2 clips")
    assert "3 folds" in rare
    message = one_line(caught.value)
    assert "on_bad_clip=exclude" not in message
    assert len(read_manifest(data, "exclude", CONFIG).train) == 20  # two folds will do


def test_a_class_with_one_clip_is_counted_in_english(data: Path) -> None:
    add_good(data, "rare.wav", "Rare")
    assert [p.reason.partition(",")[0] for p in problems_of(data)] == ["class Rare has 1 clip"]


def test_exclusion_that_leaves_a_class_too_few_names_the_clips_and_the_class(data: Path) -> None:
    add_good(data, "rare.wav", "Rare")
    append_line(data / "train.csv", "gone.wav,Rare,1")
    with pytest.raises(DataError) as caught:
        read_manifest(data, "exclude", CONFIG)
    listed = "\n".join(str(problem) for problem in caught.value.problems)
    assert "gone.wav: missing file" in listed
    assert "class Rare has 1 clip" in listed


@pytest.mark.parametrize("fold_column", [0, 2])
def test_no_usable_clip_is_left(tmp_path: Path, fold_column: int) -> None:
    folder = make_dataset(tmp_path / "data", fold_column=fold_column)
    for path in (folder / "audio_train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no usable training clip is left") as caught:
        read_manifest(folder, "exclude", CONFIG)
    one_line(caught.value)
    assert [p.reason for p in caught.value.problems] == ["missing file"] * 18


@pytest.mark.parametrize("fold_column", [0, 2])
def test_every_row_is_ragged(tmp_path: Path, fold_column: int) -> None:
    folder = make_dataset(tmp_path / "data", fold_column=fold_column)
    header, *rows = (folder / "train.csv").read_text().splitlines()
    (folder / "train.csv").write_text("\n".join([header, *(row + ",x" for row in rows)]))
    with pytest.raises(DataError) as caught:
        read_manifest(folder, "error", CONFIG)
    assert [p.row for p in caught.value.problems] == list(range(2, 20))


def test_no_such_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(DataError, match=r"no such folder; expected one with train\.csv and audio_train/") as caught:
            read_manifest(folder)
        assert str(folder) in one_line(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("train.csv", ["train.csv", "train_post_competition.csv"]), ("audio_train", ["audio_train", "FSDKaggle2018"])],
)
def test_a_part_is_missing(data: Path, name: str, words: list[str]) -> None:
    (data / name).rename(data / "elsewhere")
    with pytest.raises(DataError, match="missing") as caught:
        read_manifest(data)
    message = one_line(caught.value)
    assert str(data) in message
    assert all(word in message for word in words)


@pytest.mark.parametrize("table", ["train.csv", "sample_submission.csv"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: b"", ["the table is empty"]),
        (lambda raw: raw.splitlines(keepends=True)[0], ["no rows"]),
        (lambda raw: raw.replace(b"fname", b"file"), ["unknown column layout", "fname"]),
        (lambda raw: raw + "flöte.wav,Flöte,1\n".encode("latin-1"), ["wrong encoding", "line "]),
        (lambda raw: raw.decode().encode("utf-16"), ["wrong encoding", "UTF-16"]),
    ],
    ids=["empty", "header only", "layout", "latin-1", "utf-16"],
)
def test_a_table_that_cannot_be_read(data: Path, table: str, change: Callable, words: list[str]) -> None:
    (data / table).write_bytes(change((data / table).read_bytes()))
    for on_bad_clip in ("error", "exclude"):
        with pytest.raises(DataError) as caught:
            read_manifest(data, on_bad_clip, CONFIG)
        text = "\n".join([one_line(caught.value), *map(str, caught.value.problems)])
        assert table in text
        assert all(word in text for word in words)


def test_an_unreadable_test_table_does_not_hide_bad_training_clips(data: Path) -> None:
    line, fname = missing(data)
    (data / "sample_submission.csv").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_manifest(data, "error", CONFIG)
    text = "\n".join([str(caught.value), *map(str, caught.value.problems)])
    assert f"train.csv:{line}: {fname}: missing file" in text
    assert "sample_submission.csv" in text


# --- problems of test clips ------------------------------------------------------------------------


def spoil_missing(path: Path) -> None:
    path.unlink()


def spoil_empty(path: Path) -> None:
    path.write_bytes(b"")


def spoil_text(path: Path) -> None:
    path.write_text("no sound, only words\n" * 9)


def spoil_no_samples(path: Path) -> None:
    write_wav(path, np.zeros(0))


def spoil_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def spoil_link(path: Path) -> None:
    path.rename(path.parent.parent.parent / "away.wav")
    path.symlink_to(path.parent.parent.parent / "away.wav")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_missing, "missing file"),
        (spoil_empty, "empty file"),
        (spoil_text, "unreadable audio"),
        (spoil_no_samples, "no samples"),
        (spoil_fifo, "not a regular file"),
        (spoil_link, "leaves the folder"),
    ],
)
@pytest.mark.parametrize("on_bad_clip", ["error", "exclude"])
def test_an_unusable_test_clip_keeps_its_row(data: Path, spoil: Callable, reason: str, on_bad_clip: str) -> None:
    spoil(data / "audio_test" / "test_01.wav")
    manifest = read_manifest(data, on_bad_clip, CONFIG)
    assert manifest.test["fname"].tolist() == TEST_CLIPS
    assert [bool(text) for text in manifest.test["reason"]] == [False, True, False, False]
    assert reason in manifest.test["reason"][1]
    assert manifest.train["fname"].tolist() == CLIPS
    assert [(p.file, p.row, p.fname, p.split) for p in manifest.problems] == [
        ("sample_submission.csv", 3, "test_01.wav", "test")
    ]
    assert len(manifest.warnings) == 1
    assert "test_01.wav" in manifest.warnings[0]


def test_a_test_clip_whose_name_leaves_the_folder_keeps_its_row(data: Path) -> None:
    append_line(data / "sample_submission.csv", "../audio_train/bell_00.wav,Bell")
    manifest = read_manifest(data)
    assert manifest.test["fname"].tolist() == [*TEST_CLIPS, "../audio_train/bell_00.wav"]
    assert "leaves the folder" in manifest.test["reason"][4]


def test_a_ragged_test_row_keeps_its_row(data: Path) -> None:
    text = (data / "sample_submission.csv").read_text()
    (data / "sample_submission.csv").write_text(text.replace("test_01.wav,", "test_01.wav,x,"))
    manifest = read_manifest(data)
    assert manifest.test["fname"].tolist() == TEST_CLIPS
    assert [(p.row, p.fname) for p in manifest.problems] == [(3, "test_01.wav")]


def test_a_duplicate_test_row_is_reported(data: Path) -> None:
    """A submission with two rows for a clip would be refused by `score`."""
    line = append_line(data / "sample_submission.csv", "test_01.wav,Bell")
    try:
        manifest = read_manifest(data)
    except DataError as error:
        problems = error.problems
    else:
        problems = manifest.problems
    assert [(p.file, p.row, p.fname) for p in problems] == [("sample_submission.csv", line, "test_01.wav")]
    assert "duplicate row" in problems[0].reason


# --- the digest ------------------------------------------------------------------------------------


def digest_of(folder: Path) -> str:
    return read_manifest(folder).digest


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", clips_per_class=4, fold_column=2, freesound_id=True)


def test_digest_is_that_of_the_content(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = digest_of(full)
    assert len(digest) == 16
    copy = tmp_path / "another" / "place"
    shutil.copytree(full, copy)
    for path in [copy, *copy.rglob("*")]:
        os.utime(path, (1, 1))
    assert digest_of(copy) == digest
    assert read_manifest(copy, "exclude", CONFIG).digest == digest
    monkeypatch.chdir(copy)
    assert digest_of(Path()) == digest


def change_cell(folder: Path, column: str, value: str, table: str = "train.csv") -> None:
    rows = read_csv(folder / table)
    rows[0][column] = value
    write_csv(folder / table, list(rows[0]), [list(row.values()) for row in rows])


def change_byte(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1  # of the last sample
    path.write_bytes(raw)


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
        lambda folder: write_csv(
            folder / "sample_submission.csv",
            ["fname", "label"],
            [(r["fname"], "") for r in reversed(read_csv(folder / "sample_submission.csv"))],
        ),
    ],
    ids=["audio", "test audio", "label", "verification", "fold", "freesound_id", "test clip gone", "test order"],
)
def test_digest_changes_with_what_counts(full: Path, change: Callable[[Path], object]) -> None:
    digest = digest_of(full)
    change(full)
    assert digest_of(full) != digest


def test_digest_does_not_change_with_what_does_not_count(full: Path) -> None:
    digest = digest_of(full)
    (full / "audio_train" / "not in the table.wav").write_bytes(b"")
    (full / "README").write_text("words")
    change_cell(full, "label", "Bell Bell Bell", "sample_submission.csv")
    text = (full / "train.csv").read_text().replace("\n", "\r\n")
    (full / "train.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert digest_of(full) == digest


def test_digest_is_that_of_the_clips_that_are_left(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "copy")
    missing(data)
    assert read_manifest(data, "exclude").digest == digest_of(tmp_path / "copy")


# --- what decoding finds ---------------------------------------------------------------------------


def with_nan(path: Path) -> None:
    samples = tone(500, 0.3, 8000)
    samples[100] = np.nan
    write_wav(path, samples, subtype="FLOAT")


def names(manifest: Manifest) -> list[str]:
    return manifest.train["fname"].tolist()


def test_decoded_clips_stand_in_the_order_of_the_table(data: Path) -> None:
    missing(data)
    dataset = load_dataset(data, CONFIG, "exclude")
    assert names(dataset.manifest) == CLIPS
    assert dataset.targets.tolist() == [0, 1, 2] * 6
    assert dataset.folds.shape == (18,)
    for fname, clip in zip(CLIPS, dataset.train, strict=True):
        np.testing.assert_array_equal(clip, decode(data / "audio_train" / fname, 8000))
    for fname, clip in zip(TEST_CLIPS, dataset.test, strict=True):
        np.testing.assert_array_equal(clip, decode(data / "audio_test" / fname, 8000))


def test_nan_in_a_training_clip(data: Path) -> None:
    with_nan(data / "audio_train" / "cello_02.wav")
    with pytest.raises(DataError) as caught:
        load_dataset(data, CONFIG)
    one_line(caught.value)
    assert [str(p) for p in caught.value.problems] == ["train.csv:9: cello_02.wav: NaN or infinite samples"]

    dataset = load_dataset(data, CONFIG, "exclude")
    left = [fname for fname in CLIPS if fname != "cello_02.wav"]
    assert names(dataset.manifest) == left
    assert len(dataset.targets) == len(dataset.folds) == 17
    for fname, target, clip in zip(left, dataset.targets, dataset.train, strict=True):
        assert CLASSES[target].lower() == fname.partition("_")[0]
        np.testing.assert_array_equal(clip, decode(data / "audio_train" / fname, 8000))
    assert [p.fname for p in dataset.manifest.problems] == ["cello_02.wav"]


def test_nan_in_a_test_clip(data: Path) -> None:
    with_nan(data / "audio_test" / "test_02.wav")
    dataset = load_dataset(data, CONFIG)
    assert [len(clip) == 0 for clip in dataset.test] == [False, False, True, False]
    assert dataset.manifest.test["fname"].tolist() == TEST_CLIPS
    assert dataset.manifest.test["reason"].tolist() == ["", "", "NaN or infinite samples", ""]
    assert [str(p) for p in dataset.manifest.problems] == [
        "sample_submission.csv:4: test_02.wav: NaN or infinite samples"
    ]
    assert any("test_02.wav" in line for line in dataset.manifest.warnings)


def test_nan_that_leaves_a_class_too_few(data: Path) -> None:
    for name in ("rare_0.wav", "rare_1.wav"):
        add_good(data, name, "Rare")
    with_nan(data / "audio_train" / "rare_1.wav")
    with pytest.raises(DataError) as caught:
        load_dataset(data, CONFIG, "exclude")
    listed = "\n".join(str(problem) for problem in caught.value.problems)
    assert "class Rare has 1 clip" in listed
    assert "rare_1.wav: NaN or infinite samples" in listed  # the cause


def test_silence_is_a_warning(data: Path) -> None:
    write_wav(data / "audio_train" / "flute_00.wav", np.zeros(2000))
    write_wav(data / "audio_test" / "test_00.wav", np.zeros(2000))
    dataset = load_dataset(data, CONFIG)
    assert len(dataset.train) == 18
    assert dataset.test.silent.tolist() == [True, False, False, False]
    warning = next(line for line in dataset.manifest.warnings if "silent" in line)
    assert "flute_00.wav" in warning
    assert "test_00.wav" in warning
    assert dataset.manifest.problems == []
