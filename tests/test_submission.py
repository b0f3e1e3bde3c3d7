"""Submissions: what is written, how they score, and the real tables of FSDKaggle2018."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import one_line, read_csv, write_csv

from fsat.data.manifest import KNOWN, REQUIRED, read_manifest
from fsat.data.tables import read_table
from fsat.errors import DataError
from fsat.reports.submission import score_submission, submission
from fsat.text import label_order, why_not_a_label

TRUTH = [("a.wav", "Bell"), ("b.wav", "Cello"), ("c.wav", "Flute"), ("d.wav", "Bell")]


def score(folder: Path, guesses: list[tuple], truth: list[tuple] = TRUTH, header=("fname", "label")) -> dict:
    """Scores by part: (clips, mAP@3, accuracy)."""
    table = score_submission(
        write_csv(folder / "submission.csv", ["fname", "label"], guesses),
        write_csv(folder / "truth.csv", header, truth),
    )
    assert table.columns.tolist() == ["part", "clips", "map3", "accuracy"]
    return {row.part: (row.clips, row.map3, row.accuracy) for row in table.itertuples()}


def test_by_hand(tmp_path: Path) -> None:
    guesses = [
        ("a.wav", "Bell Cello Flute"),  # 1
        ("b.wav", "Bell Cello Flute"),  # 1/2
        ("c.wav", "Bell Cello Flute"),  # 1/3
        ("d.wav", "Cello Flute Squeak"),  # 0, and a label that the truth has not
    ]
    assert score(tmp_path, guesses) == {"all": (4, pytest.approx((1 + 1 / 2 + 1 / 3) / 4), 0.25)}


@pytest.mark.parametrize(
    ("guess", "precision", "hit"),
    [
        ("Bell", 1, 1),
        ("Cello Bell", 1 / 2, 0),
        ("Cello Cello Bell", 1 / 3, 0),
        ("Bell Bell Bell", 1, 1),
        ("", 0, 0),
        ("Squeak Squeak Squeak", 0, 0),
        ("Cello Flute Squeak Bell", 0, 0),  # only three guesses count
        ("bell", 0, 0),  # labels are what they are
        ("  Cello   Bell ", 1 / 2, 0),
    ],
)
def test_one_clip(tmp_path: Path, guess: str, precision: float, hit: float) -> None:
    assert score(tmp_path, [("a.wav", guess)], TRUTH[:1]) == {"all": (1, pytest.approx(precision), hit)}


def test_rows_may_stand_in_any_order_and_be_more_than_the_truth(tmp_path: Path) -> None:
    guesses = [("d.wav", "Bell"), ("x.wav", "Bell"), ("c.wav", "Flute"), ("b.wav", "Cello"), ("a.wav", "Bell")]
    assert score(tmp_path, guesses) == {"all": (4, 1.0, 1.0)}


def test_clips_without_a_label_are_not_scored(tmp_path: Path) -> None:
    truth = [*TRUTH, ("e.wav", "None"), ("f.wav", ""), ("g.wav", " ")]
    guesses = [(fname, label) for fname, label in TRUTH]
    assert score(tmp_path, [*guesses, ("e.wav", "None")], truth) == {"all": (4, 1.0, 1.0)}
    assert score(tmp_path, guesses, truth) == {"all": (4, 1.0, 1.0)}  # nor need they have a row


def test_parts_by_usage(tmp_path: Path) -> None:
    usage = ["Private", "Public", "Private", "Public"]
    truth = [(*row, part) for row, part in zip(TRUTH, usage, strict=True)] + [("z.wav", "None", "Ignored")]
    guesses = [("a.wav", "Bell"), ("b.wav", "Bell Cello"), ("c.wav", "x"), ("d.wav", "Bell")]
    scores = score(tmp_path, guesses, truth, ("fname", "label", "usage"))
    assert list(scores) == ["Public", "Private", "both"]
    assert scores == {"Public": (2, 0.75, 0.5), "Private": (2, 0.5, 0.5), "both": (4, 0.625, 0.5)}


def test_other_words_in_the_column_usage(tmp_path: Path) -> None:
    truth = [("a.wav", "Bell", "zebra"), ("b.wav", "Bell", "Private"), ("c.wav", "Bell", "ape")]
    scores = score(tmp_path, [(f"{x}.wav", "Bell") for x in "abc"], truth, ("fname", "label", "usage"))
    assert list(scores) == ["Private", "ape", "zebra", "all"]


def test_missing_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        score(tmp_path, [("a.wav", "Bell"), ("c.wav", "Bell")])
    message = one_line(caught.value)
    assert str(tmp_path / "submission.csv") in message
    assert "2 of 4 clips have no row" in message
    assert "b.wav" in message


@pytest.mark.parametrize("which", ["submission.csv", "truth.csv"])
def test_duplicate_rows(tmp_path: Path, which: str) -> None:
    guesses, truth = list(TRUTH), list(TRUTH)
    (guesses if which == "submission.csv" else truth).append(("b.wav", "Cello"))
    with pytest.raises(DataError) as caught:
        score(tmp_path, guesses, truth)
    assert str(tmp_path / which) in one_line(caught.value)
    assert [str(problem) for problem in caught.value.problems] == [f"{which}:6: b.wav: duplicate row"]


def test_ragged_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        score(tmp_path, [*TRUTH[:3], ("d.wav", "Bell", "Cello")])
    one_line(caught.value)
    assert [(p.file, p.row, p.fname) for p in caught.value.problems] == [("submission.csv", 5, "d.wav")]


def test_tables_that_cannot_be_scored(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clip has a label"):
        score(tmp_path, TRUTH, [("a.wav", "None")])
    with pytest.raises(DataError, match="no rows"):
        score(tmp_path, [])
    with pytest.raises(DataError, match="unknown column layout"):
        score(tmp_path, TRUTH, TRUTH, ("file", "label"))
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read"):
        score_submission(tmp_path / "gone.csv", tmp_path / "truth.csv")


def test_a_submission_has_the_three_best_labels_of_each_clip(tmp_path: Path) -> None:
    scores = np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
    table = submission(["a.wav", "b.wav"], scores, ["Bell", "Cello", "Flute", "Gong"])
    assert table.columns.tolist() == ["fname", "label"]
    assert table.to_numpy().tolist() == [["a.wav", "Gong Flute Cello"], ["b.wav", "Bell Cello Flute"]]
    assert submission(["a.wav"], np.array([[0.3, 0.7]]), ["Bell", "Cello"])["label"].tolist() == ["Cello Bell"]


# --- the real tables -------------------------------------------------------------------------------


@pytest.fixture
def fsdkaggle2018(shared: Path) -> Path:
    return shared / "data" / "fsdkaggle2018"


def test_the_real_training_table(fsdkaggle2018: Path) -> None:
    table = read_table(fsdkaggle2018 / "train.csv", REQUIRED, KNOWN)
    frame = table.frame
    assert table.problems == table.warnings == []
    assert len(frame) == 9473
    assert frame["manually_verified"].value_counts().to_dict() == {"0": 5763, "1": 3710}
    assert len(label_order(frame["label"])) == 41
    sizes = Counter(frame["label"])
    assert (min(sizes.values()), max(sizes.values())) == (94, 300)
    assert not any(map(why_not_a_label, sizes))
    assert frame["fname"].is_unique
    assert frame["row"].tolist() == list(range(2, 9475))


def test_the_real_post_competition_table_is_the_same_with_ids(fsdkaggle2018: Path) -> None:
    plain = read_table(fsdkaggle2018 / "train.csv", REQUIRED, KNOWN).frame
    table = read_table(fsdkaggle2018 / "train_post_competition.csv", REQUIRED, KNOWN)
    assert table.problems == table.warnings == []
    for column in REQUIRED:
        assert table.frame[column].tolist() == plain[column].tolist()
    assert table.frame["freesound_id"].str.isdigit().all()


def test_every_missing_clip_of_the_real_table_is_named(fsdkaggle2018: Path) -> None:
    """The tables are all there, and one clip of 9,473."""
    rows = read_csv(fsdkaggle2018 / "train.csv")
    expected = [(line, row["fname"]) for line, row in enumerate(rows, 2) if row["fname"] != "a439d172.wav"]
    with pytest.raises(DataError, match="9472 problems") as caught:
        read_manifest(fsdkaggle2018)
    assert [(p.row, p.fname) for p in caught.value.problems] == expected
    assert {p.reason for p in caught.value.problems} == {"missing file"}
    manifest = read_manifest(fsdkaggle2018, "exclude")
    assert manifest.train["fname"].tolist() == ["a439d172.wav"]
    assert manifest.train["label"].tolist() == ["Cello"]
    assert manifest.train["frames"][0] / manifest.train["samplerate"][0] == pytest.approx(6.12, abs=0.005)


def slow_scores(guesses: Path, truth: Path) -> dict[str, tuple[int, float, float]]:
    """mAP@3 and accuracy by part, row by row with the csv module alone."""
    with open(guesses, newline="") as file:
        guessed = {row["fname"]: row["label"].split(" ") for row in csv.DictReader(file)}
    points: dict[str, list[float]] = {"Public": [], "Private": [], "both": []}
    with open(truth, newline="") as file:
        for row in csv.DictReader(file):
            if row["usage"] == "Ignored":
                continue
            value = 0.0
            for position in (2, 1, 0):
                if guessed[row["fname"]][position] == row["label"]:
                    value = 1 / (position + 1)
            points[row["usage"]].append(value)
            points["both"].append(value)
    return {
        part: (len(values), sum(values) / len(values), values.count(1.0) / len(values))
        for part, values in points.items()
    }


def scores_of(guesses: Path, truth: Path) -> dict[str, tuple[int, float, float]]:
    return {row.part: (row.clips, row.map3, row.accuracy) for row in score_submission(guesses, truth).itertuples()}


def test_the_real_truth_scores_one(fsdkaggle2018: Path, tmp_path: Path) -> None:
    truth = fsdkaggle2018 / "test_post_competition.csv"
    perfect = write_csv(
        tmp_path / "perfect.csv", ["fname", "label"], [(row["fname"], row["label"]) for row in read_csv(truth)]
    )
    assert scores_of(perfect, truth) == {
        "Public": (301, 1.0, 1.0),
        "Private": (1299, 1.0, 1.0),
        "both": (1600, 1.0, 1.0),
    }


@pytest.mark.parametrize("rotated", [False, True], ids=["as it is", "with other labels"])
def test_the_real_sample_submission_scores_what_the_slow_version_says(
    fsdkaggle2018: Path, tmp_path: Path, rotated: bool
) -> None:
    truth, guesses = fsdkaggle2018 / "test_post_competition.csv", fsdkaggle2018 / "sample_submission.csv"
    if rotated:  # "Laughter Hi-Hat Flute" for every clip hits little: the real label is Hi-hat
        labels = sorted({row["label"] for row in read_csv(truth)} - {"None"})
        rows = [
            (row["fname"], " ".join(labels[(i + j) % 41] for j in range(3))) for i, row in enumerate(read_csv(guesses))
        ]
        guesses = write_csv(tmp_path / "guesses.csv", ["fname", "label"], rows)
    expected = slow_scores(guesses, truth)
    result = scores_of(guesses, truth)
    assert list(result) == ["Public", "Private", "both"]
    for part, values in expected.items():
        assert result[part] == pytest.approx(values)
        assert 0 < result[part][1] < 0.2
