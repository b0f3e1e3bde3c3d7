"""The manifest: both editions' names, every kind of problem with file, row and reason, exclusion, and the digest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clip_files import flip
from helpers import CLASSES, append_line, make_dataset, make_zenodo, one_line, read_csv, tone, write_csv, write_wav

from fsat.config import Config
from fsat.data.audio import decode
from fsat.data.dataset import load_dataset
from fsat.data.manifest import read_manifest
from fsat.errors import ConfigError, DataError, Problem, listed

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
    one_line(caught.value)
    return caught.value


def add_row(folder: Path, row: str) -> int:
    """Add a row to the training table; its line."""
    return append_line(folder / "train.csv", row)


def add_clip(folder: Path, fname: str, label: str = "Flute") -> int:
    """Add a row with a sound clip; its line."""
    write_wav(folder / "audio_train" / fname, tone(500, 0.3, 8000))
    return add_row(folder, f"{fname},{label},1")


def with_nan(path: Path) -> None:
    samples = tone(500, 0.3, 8000)
    samples[100] = np.nan
    write_wav(path, samples, subtype="FLOAT")


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
    assert manifest.train["group"].tolist()[:4] == ["1000", "2000", "3000", "1000"]


def test_a_dataset_without_test_clips_or_without_their_table(tmp_path: Path) -> None:
    manifest = read_manifest(make_dataset(tmp_path / "data", test_clips=0), "error", CONFIG)
    assert len(manifest.test) == 0
    assert manifest.test.columns.tolist()[:3] == ["file", "row", "fname"]
    assert manifest.warnings == []
    assert len(manifest.digest) == 16
    (manifest.folder / "audio_test").mkdir()
    warnings = read_manifest(manifest.folder, "error", CONFIG).warnings
    assert warnings == ["audio_test is not used, because sample_submission.csv is missing"]
    (manifest.folder / "audio_test").rmdir()
    write_csv(manifest.folder / "sample_submission.csv", ["fname"], [["a.wav"], ["b.wav"]])
    assert read_manifest(manifest.folder, "error", CONFIG).test["reason"].tolist() == ["missing file"] * 2


def test_zenodos_edition(tmp_path: Path) -> None:
    kaggle = read_manifest(make_dataset(tmp_path / "kaggle", unverified=0.5))
    folder = make_zenodo(make_dataset(tmp_path / "zenodo", unverified=0.5))
    zenodo = read_manifest(folder, "error", CONFIG)
    for column in ("fname", "label", "manually_verified", "frames", "digest"):
        assert zenodo.train[column].tolist() == kaggle.train[column].tolist()
    for column in ("fname", "reason", "frames", "digest"):
        assert zenodo.test[column].tolist() == kaggle.test[column].tolist()
    assert zenodo.train["group"].tolist() == [str(100 + i) for i in range(18)]
    assert zenodo.labels == kaggle.labels
    assert zenodo.problems == zenodo.warnings == []
    assert zenodo.train_folder == folder / "FSDKaggle2018.audio_train"
    assert zenodo.test_folder == folder / "FSDKaggle2018.audio_test"

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
    add_row(data, "link.wav,Bell,1")
    add_row(data, "sub/deep.wav,Bell,1")
    (data / "audio_train").rename(tmp_path / "elsewhere")
    (data / "audio_train").symlink_to(tmp_path / "elsewhere")
    assert len(read_manifest(data, "error", CONFIG).train) == 20


def test_links_out_of_the_folder_are_one_line(tmp_path: Path) -> None:
    for name in ("1.wav", "2.wav"):
        clip = write_wav(tmp_path / "elsewhere" / name, tone(500, 0.3, 8000))
        for label in ("Bell", "Flute"):
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / label / name).symlink_to(clip)
    error = refusal(tmp_path / "data")
    assert listed(error.problems) == ["Bell/1.wav: leaves the folder (a link out of it); 3 more clips with it"]
    assert str(error).endswith("; instead of links, copy the files into the folder, as cp -rL does")
    (tmp_path / "elsewhere" / "1.wav").unlink()
    assert "Bell/1.wav: leaves the folder (a link to a missing file)" in listed(refusal(tmp_path / "data").problems)


def test_test_clips_below_the_folder_of_training_clips_have_rows(tmp_path: Path) -> None:
    for name in ("train_curated/1.wav", "train_curated/2.wav", "test/3.wav", "test/4.wav", "5.wav"):
        write_wav(tmp_path / name, tone(300 + 50 * int(name[-5]), 0.3, 8000))
    write_csv(tmp_path / "train_curated.csv", ["fname", "labels"], [("1.wav", "Bell"), ("2.wav", "Flute")])
    write_csv(tmp_path / "sample_submission.csv", ["fname", "Bell", "Flute"], [("3.wav", 0, 0)])
    unnamed = [line for line in read_manifest(tmp_path).warnings if "without a row" in line]
    assert [line.rpartition("not used: ")[2] for line in unnamed] == ["5.wav", "4.wav"]


# --- problems of training clips --------------------------------------------------------------------


def no_file(audio: Path) -> None:
    """The row is enough."""


def link_out(audio: Path) -> None:
    clip = write_wav(audio.parent.parent / "other" / "clip.wav", tone(500, 0.3, 8000))
    (audio / "out.wav").symlink_to(clip)
    (audio / "sub").symlink_to(clip.parent)


def file(name: str, samples: np.ndarray | None = None) -> Callable[[Path], object]:
    """A function that makes a file in the folder of training clips, a sound one by default."""
    return lambda audio: write_wav(audio / name, tone(500, 0.3, 8000) if samples is None else samples)


# what makes the problem, the row ({audio} is the folder of clips), and a part of the reason; more files: test_hostile
PROBLEMS: list[tuple[Callable[[Path], object], str, str]] = [
    (no_file, "gone.wav,Flute,1", "missing file"),
    (file("nothing.wav", np.zeros(0)), "nothing.wav,Flute,1", "no samples"),
    (lambda audio: (audio / "dir.wav").mkdir(), "dir.wav,Flute,1", "not a regular file"),
    (no_file, "bell_01.wav,Bell,1", "duplicate row: the clip is in line 5 too"),
    (no_file, "bell_02.wav,Cello,1", "duplicate row: the clip is in line 8 too"),
    (file("unlabelled.wav"), "unlabelled.wav,,1", "the label is empty"),
    (file("none.wav"), "none.wav,None,1", "the label is None"),
    (file("two.wav"), "two.wav,Bass\tdrum,1", "the label 'Bass\\tdrum' has a tab"),
    (file("v2.wav"), "v2.wav,Flute,2", "manually_verified is '2', expected 0 or 1"),
    (file("vyes.wav"), "vyes.wav,Flute,yes", "manually_verified is 'yes', expected 0 or 1"),
    (file("../outside.wav"), "../outside.wav,Flute,1", "leaves the folder"),
    (file("../absolute.wav"), "{audio}/../absolute.wav,Flute,1", "leaves the folder (an absolute path)"),
    (link_out, "out.wav,Flute,1", "leaves the folder (a link out of it)"),
    (no_file, "sub/clip.wav,Flute,1", "leaves the folder (a link out of it)"),
    (no_file, ",Flute,1", "the file name is empty"),
    (no_file, "x" * 300 + ".wav,Flute,1", ""),
    (no_file, "a\0.wav,Flute,1", "NUL"),
    (no_file, "few.wav,Flute", "2 cells"),
    (no_file, "many.wav,Flute,1,2", "4 cells"),
]


@pytest.mark.parametrize("config", [None, CONFIG], ids=["without config", "with config"])
def test_all_problems_are_reported_together(data: Path, config: Config | None) -> None:
    audio, expected = data.absolute() / "audio_train", []
    for make, row, reason in PROBLEMS:
        make(audio)
        row = row.replace("{audio}", str(audio))
        expected.append((add_row(data, row), row.partition(",")[0], reason))
    add_clip(data, "last.wav")  # rows after bad ones are read
    error = refusal(data, "error", config)
    assert [(p.row, p.fname) for p in error.problems] == [(line, fname) for line, fname, _ in expected]
    for problem, (_, _, reason) in zip(error.problems, expected, strict=True):
        assert (problem.file, problem.split) == ("train.csv", "train")
        assert reason in problem.reason
        assert str(problem).startswith(f"train.csv:{problem.row}: ")
    advice = "fix the rows listed above, or leave these clips out with on_bad_clip=exclude"
    assert str(error) == f"{data}: {len(PROBLEMS)} problems in the training clips; {advice}"
    manifest = read_manifest(data, "exclude", config)
    assert manifest.train["fname"].tolist() == [*CLIPS, "last.wav"]
    assert manifest.train["manually_verified"].tolist() == [1] * 19
    assert manifest.labels == list(CLASSES)
    assert manifest.problems == error.problems


def test_a_row_with_several_problems_has_them_all(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", fold_column=2)
    line = add_row(folder, "gone.wav,,7,")
    problems = refusal(folder).problems
    assert [p.row for p in problems] == [line] * 4
    words = ("the label is empty", "manually_verified is '7'", "the fold is empty", "missing file")
    assert all(p.reason.startswith(word) for p, word in zip(problems, words, strict=True))
    assert read_manifest(folder, "exclude", CONFIG).train["fname"].tolist() == CLIPS


# --- problems of classes and tables ----------------------------------------------------------------


@pytest.mark.parametrize("on_bad_clip", ["error", "exclude"])
def test_a_class_of_one_clip_cannot_be_excluded(data: Path, on_bad_clip: str) -> None:
    add_clip(data, "rare_0.wav", "Rare")
    line = add_row(data, "gone.wav,Flute,1")
    error = refusal(data, on_bad_clip, CONFIG)
    missing, rare = sorted(map(str, error.problems), key=lambda text: "Rare" in text)
    assert missing == f"train.csv:{line}: gone.wav: missing file"
    assert rare.startswith("train.csv: class Rare has 1 clip: a class needs two or more")
    assert "on_bad_clip=exclude" not in str(error)
    add_clip(data, "rare_1.wav", "Rare")
    assert len(read_manifest(data, "exclude", CONFIG).train) == 20


def test_a_class_with_fewer_clips_than_folds_makes_fewer_folds(data: Path) -> None:
    for name in ("rare_0.wav", "rare_1.wav"):
        write_wav(data / "audio_train" / name, tone(500 + len(name), 0.3, 8000) * (0.5 + 0.1 * ("1" in name)))
        add_row(data, f"{name},Rare,1")
    dataset = load_dataset(data, Config.resolve({**OPTIONS, "n_folds": 5}, "quick"), n_folds_given=True)
    assert (dataset.config.n_folds, set(dataset.folds.tolist())) == (2, {0, 1})
    assert "2 folds instead of 5: class Rare has 2 clips" in dataset.manifest.warnings
    with pytest.raises(ConfigError, match=r"fold=4: there are 2 folds, numbered 0 to 1 \(2 folds instead of 5: class"):
        load_dataset(data, Config.resolve({**OPTIONS, "n_folds": 5}, "quick"), fold=4)


def test_exclusion_that_leaves_too_few_clips_of_a_class_names_clips_and_class(data: Path) -> None:
    for name in ("rare_0.wav", "rare_1.wav"):
        add_clip(data, name, "Rare")
    path = data / "audio_train" / "rare_1.wav"
    with_nan(path)  # only decoding tells
    with pytest.raises(DataError) as caught:
        load_dataset(data, CONFIG, "exclude")
    path.unlink()
    for error, reason in ((caught.value, "NaN or infinite samples"), (refusal(data, "exclude"), "missing file")):
        listed = "\n".join(map(str, error.problems))
        assert f"rare_1.wav: {reason}" in listed  # the cause
        assert "class Rare has 1 clip:" in listed


@pytest.mark.parametrize("fold_column", [0, 2])
def test_no_usable_clip_is_left(tmp_path: Path, fold_column: int) -> None:
    folder = make_dataset(tmp_path / "data", fold_column=fold_column)
    for path in (folder / "audio_train").iterdir():
        path.unlink()
    error = refusal(folder, "exclude")
    assert "no usable training clip is left" in str(error)
    assert [p.reason for p in error.problems] == ["missing file"] * 18
    table = folder / "train.csv"
    table.write_text(table.read_text().replace("wav,", "wav,x,"))
    assert [p.row for p in refusal(folder).problems] == list(range(2, 20))  # every row is ragged


def test_no_such_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, reason in (("nowhere", "no such folder"), ("file", "not a folder")):
        message = str(refusal(tmp_path / name))
        assert message.startswith(f"{tmp_path / name}: {reason}; expected one with clips and their labels")


@pytest.mark.parametrize("on_bad_clip", ["error", "exclude"])
def test_a_table_that_cannot_be_read(data: Path, on_bad_clip: str) -> None:
    text = (data / "sample_submission.csv").read_text()
    (data / "sample_submission.csv").write_text(text.replace("fname", "file"))
    assert "sample_submission.csv: unknown column layout" in str(refusal(data, on_bad_clip))
    text = (data / "train.csv").read_text()
    (data / "train.csv").write_text(text.replace("label", "sound"))
    assert "train.csv: unknown column layout: got 'fname,sound" in str(refusal(data, on_bad_clip))


def test_an_unreadable_test_table_is_reported_beside_bad_training_clips(data: Path) -> None:
    line = add_row(data, "gone.wav,Flute,1")
    (data / "sample_submission.csv").write_bytes(b"")
    problem, broken = map(str, refusal(data).problems)
    assert problem == f"train.csv:{line}: gone.wav: missing file"
    assert broken.startswith("sample_submission.csv: the table is empty")


# --- problems of test clips ------------------------------------------------------------------------


@pytest.mark.parametrize("on_bad_clip", ["error", "exclude"])
def test_an_unusable_test_clip_keeps_its_row(data: Path, on_bad_clip: str) -> None:
    paths = [data / "audio_test" / fname for fname in TEST_CLIPS]
    paths[0].unlink()
    paths[1].write_text("words\n" * 99)
    paths[3].rename(data.parent / "away.wav")
    paths[3].symlink_to(data.parent / "away.wav")
    manifest = read_manifest(data, on_bad_clip, CONFIG)
    assert manifest.test["fname"].tolist() == TEST_CLIPS
    reasons = ["missing file", "unreadable audio (unknown format)", "", "leaves the folder (a link out of it)"]
    assert manifest.test["reason"].tolist() == reasons
    assert manifest.train["fname"].tolist() == CLIPS
    assert manifest.problems == [
        Problem("sample_submission.csv", 2 + i, TEST_CLIPS[i], reasons[i], "test") for i in (0, 1, 3)
    ]
    (warning,) = manifest.warnings
    assert warning.startswith("3 unusable test clips, scored by the label prior: test_00.wav (missing file), test_01")


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
    assert [line.partition(":")[0] for line in read_manifest(full).warnings] == ["audio_train"]
    reverse_table(full, "train.csv")
    reverse_table(full, "sample_submission.csv")
    (full / "audio_train" / "flute_03.wav").rename(full / "audio_train" / "renamed.wav")
    (full / "train.csv").write_text((full / "train.csv").read_text().replace("flute_03.wav", "renamed.wav"))
    assert digest_of(full) == digest
    add_row(full, "gone.wav,Flute,1,1,7")
    assert read_manifest(full, "exclude").digest == digest


def change_cell(folder: Path, column: str, value: str, table: str = "train.csv") -> None:
    rows = read_csv(folder / table)
    rows[0][column] = value
    write_csv(folder / table, list(rows[0]), [list(row.values()) for row in rows])


def reverse_table(folder: Path, table: str) -> None:
    rows = read_csv(folder / table)[::-1]
    write_csv(folder / table, list(rows[0]), [list(row.values()) for row in rows])


def swap(path: Path, other: Path) -> None:
    sounds = path.read_bytes(), other.read_bytes()
    path.write_bytes(sounds[1])
    other.write_bytes(sounds[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: flip(folder / "audio_train" / "flute_03.wav", -1),
        lambda folder: flip(folder / "audio_test" / "test_02.wav", -1),
        lambda folder: change_cell(folder, "label", "Cello"),
        lambda folder: change_cell(folder, "manually_verified", "0"),
        lambda folder: (folder / "audio_test" / "test_02.wav").unlink(),
        lambda folder: swap(folder / "audio_test" / "test_00.wav", folder / "audio_test" / "test_01.wav"),
    ],
    ids=["audio", "test audio", "label", "verification", "test clip gone", "test clips swapped"],
)
def test_the_digest_changes_with_the_content(full: Path, change: Callable[[Path], object]) -> None:
    digest = digest_of(full)
    change(full)
    assert digest_of(full) != digest


# --- what decoding finds ---------------------------------------------------------------------------


def test_clips_with_nan(data: Path) -> None:
    with_nan(data / "audio_test" / "test_02.wav")
    (data / "audio_test" / "test_00.wav").write_bytes(b"")  # never decoded, but its row is there
    dataset = load_dataset(data, CONFIG)
    rows = dict(zip(TEST_CLIPS, ["empty file", "", "NaN or infinite samples", ""], strict=True))
    assert dict(zip(dataset.manifest.test["fname"], dataset.manifest.test["reason"], strict=True)) == rows
    for (fname, reason), clip in zip(rows.items(), dataset.test, strict=True):
        np.testing.assert_array_equal(clip, [] if reason else decode(data / "audio_test" / fname, 8000))
    problem = "sample_submission.csv:4: test_02.wav: NaN or infinite samples"
    assert str(dataset.manifest.problems[-1]) == problem
    assert any("test_02.wav" in line for line in dataset.manifest.warnings)

    with_nan(data / "audio_train" / "cello_02.wav")
    with pytest.raises(DataError) as caught:
        load_dataset(data, CONFIG)
    problem = "train.csv:9: cello_02.wav: NaN or infinite samples"
    assert [str(p) for p in caught.value.problems] == [problem]
    dataset = load_dataset(data, CONFIG, "exclude")
    left = [fname for fname in CLIPS if fname != "cello_02.wav"]
    assert sorted(dataset.manifest.train["fname"]) == sorted(left)
    assert len(dataset.targets) == len(dataset.folds) == 17
    for fname, target, clip in zip(dataset.manifest.train["fname"], dataset.targets, dataset.train, strict=True):
        assert CLASSES[target].lower() == fname.partition("_")[0]
        np.testing.assert_array_equal(clip, decode(data / "audio_train" / fname, 8000))
    *_, excluded, study = dataset.summary()
    assert excluded == f"warning: 1 training row excluded (on_bad_clip=exclude): {problem}"
    assert study.startswith(f"study {dataset.study}: 17 training clips, 4 test clips, 3 classes; model=")


def test_silence_is_a_warning(data: Path) -> None:
    write_wav(data / "audio_train" / "flute_00.wav", np.zeros(2000))
    write_wav(data / "audio_test" / "test_00.wav", np.zeros(2000))
    dataset = load_dataset(data, CONFIG)
    assert len(dataset.train) == 18
    assert dataset.test.notes == ["silent", "", "", ""]
    assert dataset.manifest.warnings == ["silent: 2 clips: flute_00.wav, test_00.wav"]
    assert dataset.manifest.problems == []
