"""Clips that are the same sound share a fold, contradict each other or are said, whatever their names and formats."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from helpers import append_line, error_line, make_dataset, read_csv, write_csv, write_wav

from fsat.config import Config
from fsat.data.clip_groups import clip_groups, describe_large_groups, describe_leak, recording_ids
from fsat.data.dataset import inspect_dataset, load_dataset
from fsat.data.duplicates import first_equal
from fsat.errors import DataError
from fsat.training.fold import assign_splits

OPTIONS = {"sampling_rate": 8000, "audio_duration": 0.25, "precision": "float32"}
CONFIG = Config.resolve(OPTIONS, "quick")  # two folds


def with_tag(path: Path, copy: Path) -> None:
    """Copy a WAV file with a LIST chunk after the samples."""
    chunk = b"LIST" + struct.pack("<I", 12) + b"INFOICMT" + bytes(0)
    data = path.read_bytes() + chunk + bytes(4)
    copy.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])


def as_flac(path: Path, copy: Path) -> None:
    samples, rate = sf.read(path, dtype="int16")
    sf.write(copy, samples, rate, format="FLAC")


def as_stereo(path: Path, copy: Path) -> None:
    samples, rate = sf.read(path, dtype="int16")
    sf.write(copy, np.stack([samples, samples], axis=1), rate, format="WAV")


COPIES = {
    "bytes": shutil.copy, "tag": with_tag, "flac": as_flac, "stereo": as_stereo, "hard link": os.link,
    "link": lambda path, copy: copy.symlink_to(path.name),
}  # fmt: skip
"""Ways to have the same sound in another file."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data")


def add_copy(folder: Path, fname: str, copy: str, label: str, how: str = "tag", verified: int = 1) -> int:
    """Add a clip that is the same sound as another one; the line of its row."""
    COPIES[how](folder / "audio_train" / fname, folder / "audio_train" / copy)
    return append_line(folder / "train.csv", f"{copy},{label},{verified}")


def copy_all(folder: Path, how: str) -> None:
    for row in read_csv(folder / "train.csv"):
        add_copy(folder, row["fname"], f"copy_{row['fname']}", row["label"], how)


def assert_copies_share(train: pd.DataFrame, values: np.ndarray) -> None:
    by_name = dict(zip(train["fname"], values.tolist(), strict=True))
    copies = [fname for fname in by_name if fname.startswith("copy_")]
    assert copies
    assert all(by_name[fname] == by_name[fname.removeprefix("copy_")] for fname in copies)


@pytest.mark.parametrize("how", list(COPIES))
def test_copies_of_clips_share_a_fold_and_are_named(data: Path, how: str) -> None:
    copy_all(data, how)
    for n_folds in (2, 6):
        dataset = load_dataset(data, Config.resolve({**OPTIONS, "n_folds": n_folds}, "quick"))
        assert set(dataset.folds.tolist()) == set(range(n_folds))
        assert_copies_share(dataset.manifest.train, dataset.folds)
        assert dataset.leak == ""
    start = "warning: 18 training clips with the same sound as another one: copy_bell_00.wav (bell_00.wav), "
    assert any(line.startswith(start) and line.endswith(", ...") for line in dataset.summary())


def test_clips_held_aside_and_other_rates_keep_copies_together(data: Path) -> None:
    copy_all(data, "flac")
    folds = []
    for rate in (8000, 4000, 44100):  # a blend of studies needs the same folds
        dataset = load_dataset(data, Config.resolve({**OPTIONS, "sampling_rate": rate, "holdout": 0.5}, "quick"))
        folds.append(dataset.folds.tolist())
        assert_copies_share(dataset.manifest.train, assign_splits(dataset, 0) == "holdout")
        assert_copies_share(dataset.manifest.train, assign_splits(dataset, 1) == "train")
    assert folds[0] == folds[1] == folds[2]


def test_a_dataset_without_copies_is_split_as_before(data: Path) -> None:
    """Clips of equal length and loudness, an inverted one and one that is resampled are other sounds."""
    samples, rate = sf.read(data / "audio_train" / "bell_00.wav", dtype="int16")
    for name, other, at in (("inverted", -samples, rate), ("slower", samples, rate // 2), ("lsb", samples ^ 1, rate)):
        write_wav(data / "audio_train" / f"{name}.wav", other, at)
        append_line(data / "train.csv", f"{name}.wav,Cello,1")
    dataset = load_dataset(data, CONFIG)
    assert clip_groups(dataset.manifest.train) is None
    assert dataset.manifest.warnings == []
    assert inspect_dataset(data).warnings == dataset.manifest.warnings


@pytest.mark.parametrize("how", list(COPIES))
def test_contradictory_labels_of_equal_sounds_are_a_problem(data: Path, how: str) -> None:
    lines = [add_copy(data, "bell_00.wav", f"copy{i}.wav", label, how) for i, label in enumerate(["Bell", "Flute"])]
    for read in (lambda: load_dataset(data, CONFIG), lambda: inspect_dataset(data)):
        with pytest.raises(DataError) as caught:
            read()
        assert [str(problem) for problem in caught.value.problems] == [
            f"train.csv:2: bell_00.wav: the same sound as copy1.wav in line {lines[1]}, whose label is Flute",
            f"train.csv:{lines[0]}: copy0.wav: the same sound as copy1.wav in line {lines[1]}, whose label is Flute",
            f"train.csv:{lines[1]}: copy1.wav: the same sound as bell_00.wav in line 2, whose label is Bell",
        ]
        assert str(caught.value).endswith("or leave these clips out with on_bad_clip=exclude")
    dataset = load_dataset(data, CONFIG, "exclude")
    assert len(dataset.manifest.train) == len(dataset.train) == len(dataset.folds) == 17
    assert {"bell_00.wav", "copy0.wav", "copy1.wav"}.isdisjoint(dataset.manifest.train["fname"])
    manifest = inspect_dataset(data, "exclude")
    assert sorted(manifest.train["fname"]) == sorted(dataset.manifest.train["fname"])
    assert manifest.digest == dataset.manifest.digest
    assert len(manifest.problems) == 3


def test_exclusion_that_leaves_too_few_clips(data: Path) -> None:
    for i in range(5):
        add_copy(data, f"bell_{i:02d}.wav", f"copy{i}.wav", "Flute", "flac")
    message = error_line(DataError, load_dataset, data, CONFIG, "exclude")
    assert "6 problems" not in message
    with pytest.raises(DataError) as caught:
        load_dataset(data, CONFIG, "exclude")
    assert "class Bell has 1 clip: a class needs two or more" in str(caught.value.problems[-1])


def test_silence_is_no_sound(data: Path) -> None:
    """Silent clips are said to be silent; they are neither copies nor contradictions."""
    for i, (seconds, label) in enumerate([(0.2, "Bell"), (0.2, "Bell"), (0.2, "Cello"), (0.3, "Flute")]):
        write_wav(data / "audio_train" / f"silent{i}.wav", np.zeros(round(8000 * seconds)))
        append_line(data / "train.csv", f"silent{i}.wav,{label},1")
    dataset = load_dataset(data, CONFIG)
    assert dataset.manifest.warnings == ["silent: 4 clips: silent0.wav, silent1.wav, silent2.wav, silent3.wav"]
    assert inspect_dataset(data).warnings == dataset.manifest.warnings


@pytest.mark.parametrize("how", ["bytes", "flac"])
def test_test_clips_that_are_training_clips_are_said(data: Path, how: str) -> None:
    COPIES[how](data / "audio_train" / "bell_00.wav", data / "audio_test" / "seen.wav")
    append_line(data / "sample_submission.csv", "seen.wav,")
    warning = (
        "1 test clip with the same sound as a training clip, so that scores on test clips are too high: "
        "seen.wav (bell_00.wav)"
    )
    assert load_dataset(data, CONFIG).manifest.warnings == [warning]
    assert inspect_dataset(data).warnings == [warning]


def test_clips_with_one_checksum_are_compared() -> None:
    values = ["a", "b", "a", "b", "c", "a"]
    first = first_equal([1, 1, 1, 1, None, None], lambda i, j: values[i] == values[j])
    assert first.tolist() == [0, 1, 0, 1, 4, 5]


# --- recordings ------------------------------------------------------------------------------------


def test_unknown_recordings_are_empty_and_equal_numbers_equal() -> None:
    unknown = ["", " ", "NA", "NaN", "nan", "None", "null", "NULL", "-", "<NA>", "#N/A", "n/a", "\u00a0"]
    assert recording_ids(pd.Series(unknown)).tolist() == [""] * len(unknown)
    same = ["123", " 123", "123.0", "123.", "0123", "+123", "1.23e+02", "1.23E2"]
    assert recording_ids(pd.Series(same)).tolist() == ["123"] * len(same)
    assert recording_ids(pd.Series(["\u00fc 1", "u\u0308 1"])).nunique() == 1
    others = ["12.5", "2019_01", "201901", "take 1", "inf", "1e999999999", "0x1f", "Naples"]
    assert recording_ids(pd.Series(others)).tolist() == others


def table(**columns: list) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame({"fname": [f"{i}.wav" for i in range(n)], **columns})


def test_recordings_and_equal_sounds_are_linked() -> None:
    train = table(group=["1", "1", "2", "NA", "none", "3.0", "3"], sound=[0, 1, 1, 3, 3, 5, 6])
    groups = clip_groups(train)
    assert groups is not None
    numbers = pd.factorize(groups)[0].tolist()
    assert numbers == [0, 0, 0, 1, 1, 2, 2]
    assert clip_groups(table(sound=[0, 1, 2])) is None
    part = train.iloc[[0, 2, 4]]  # the link between 0 and 2 is not among them
    assert clip_groups(part).nunique() == 3


def test_unknown_recordings_in_most_rows_do_not_fill_a_fold(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", clips_per_class=20, test_clips=0)
    rows = read_csv(folder / "train.csv")
    cells = [
        [*row.values(), "NA" if i % 5 < 3 else f"{i // 2}.0" if i % 2 else f"{i // 2}"] for i, row in enumerate(rows)
    ]
    write_csv(folder / "train.csv", [*rows[0], "freesound_id"], cells)
    dataset = load_dataset(folder, Config.resolve({**OPTIONS, "n_folds": 4}, "quick"))
    assert np.bincount(dataset.folds).tolist() == pytest.approx([15] * 4, abs=1)
    assert dataset.manifest.warnings == []
    cells = [[*row[:-1], "7" if row[1] != "Bell" or i > 40 else i] for i, row in enumerate(cells)]
    write_csv(folder / "train.csv", [*rows[0], "freesound_id"], cells)
    assert describe_large_groups(inspect_dataset(folder).train, 4) == [
        "1 recording is larger than a fold (60 clips in 4 folds): 7 (46 clips)"
    ]


def test_a_fold_column_that_splits_recordings_and_copies(data: Path) -> None:
    add_copy(data, "bell_00.wav", "copy.wav", "Bell", "flac")
    rows = read_csv(data / "train.csv")
    cells = [[*row.values(), i % 2, f"{i // 2}.0" if i < 4 else "NA"] for i, row in enumerate(rows)]
    cells[-1][-2] = 1
    write_csv(data / "train.csv", [*rows[0], "fold", "freesound_id"], cells)
    leak = "5 of 19 clips: 2 recordings and 1 repeated sound are in several folds"
    for manifest in (inspect_dataset(data), load_dataset(data, CONFIG).manifest):
        assert manifest.warnings[-1].startswith(f"{leak}, so that models are scored on what they have trained on")
    assert load_dataset(data, CONFIG).leak == leak
    assert load_dataset(data, Config.resolve({**OPTIONS, "folds": "stratified"}, "quick")).leak == ""
    train = table(group=["1", "1", "2", ""], sound=[0, 1, 2, 3])
    assert describe_leak(train, np.array([0, 1, 1, 0])) == "2 of 4 clips: 1 recording is in several folds"
    assert describe_leak(train, np.array([0, 0, 1, 0])) == ""
