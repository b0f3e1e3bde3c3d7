"""Submissions: their content, their scores, and the real tables of FSDKaggle2018."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import error_line, one_line, read_csv, write_csv

from fsat.data import synth
from fsat.data.layouts.fsdkaggle2018 import KNOWN, REQUIRED
from fsat.data.tables import read_table
from fsat.errors import DataError
from fsat.metrics.ranking import top_k
from fsat.reports.prediction_tables import announce_submission, score_submission, submission
from fsat.text import label_order, submitted, why_not_a_label

TRUTH = [("a.wav", "Bell"), ("b.wav", "Cello"), ("c.wav", "Flute"), ("d.wav", "Bell")]
PERFECT = {"all": (4, 1.0, 1.0)}


def scores_of(guesses: Path, truth: Path) -> dict[str, tuple[int, float, float]]:
    """Return clips, mAP@3 and accuracy by part."""
    table = score_submission(guesses, truth)
    assert table.columns.tolist() == ["part", "clips", "map3", "accuracy"]
    return {row.part: (row.clips, row.map3, row.accuracy) for row in table.itertuples()}


def score(folder: Path, guesses: list[tuple], truth: list[tuple] = TRUTH, header=("fname", "label")) -> dict:
    submitted = write_csv(folder / "submission.csv", ["fname", "label"], guesses)
    return scores_of(submitted, write_csv(folder / "truth.csv", header, truth))


@pytest.mark.parametrize(("guess", "precision", "hit"), [
    ("Bell", 1, 1), ("Cello Bell", 1 / 2, 0), ("Cello Cello Bell", 1 / 3, 0), ("Bell Bell Bell", 1, 1), ("", 0, 0),
    ("Squeak Squeak Squeak", 0, 0), ("Cello Flute Squeak Bell", 0, 0),  # only three guesses count
    ("bell", 0, 0), ("  Cello   Bell ", 1 / 2, 0),  # labels are case-sensitive
])  # fmt: skip
def test_one_clip(tmp_path: Path, guess: str, precision: float, hit: float) -> None:
    assert score(tmp_path, [("a.wav", guess)], TRUTH[:1]) == {"all": (1, pytest.approx(precision), hit)}


def test_several_clips(tmp_path: Path) -> None:
    guesses = [(f"{name}.wav", "Bell Cello Flute") for name in "abc"]
    guesses.append(("d.wav", "Cello Flute Squeak"))  # a label that the truth does not have
    assert score(tmp_path, guesses) == {"all": (4, pytest.approx((1 + 1 / 2 + 1 / 3) / 4), 0.25)}
    # rows in any order, more of them than the truth, and clips without a label, which need no row
    unlabelled = [*TRUTH, ("e.wav", "None"), ("f.wav", ""), ("g.wav", " ")]
    assert score(tmp_path, [("x.wav", "Bell"), *reversed(TRUTH), ("e.wav", "None")], unlabelled) == PERFECT


def test_parts_by_usage(tmp_path: Path) -> None:
    header, usages = ("fname", "label", "usage"), ["Private", "Public", "Private", "Public"]
    truth = [(*row, usage) for row, usage in zip(TRUTH, usages, strict=True)] + [("z.wav", "None", "Ignored")]
    guesses = [("a.wav", "Bell"), ("b.wav", "Bell Cello"), ("c.wav", "x"), ("d.wav", "Bell")]
    scores = score(tmp_path, guesses, truth, header)
    assert list(scores) == ["Public", "Private", "both"]
    assert scores == {"Public": (2, 0.75, 0.5), "Private": (2, 0.5, 0.5), "both": (4, 0.625, 0.5)}
    truth = [("a.wav", "Bell", "zebra"), ("b.wav", "Bell", "Private"), ("c.wav", "Bell", "ape")]
    assert list(score(tmp_path, guesses, truth, header)) == ["Private", "ape", "zebra", "all"]


def test_missing_rows(tmp_path: Path) -> None:
    line = error_line(DataError, score, tmp_path, [("a.wav", "Bell"), ("c.wav", "Bell")])
    assert line.startswith(f"{tmp_path / 'submission.csv'}: 2 of 4 clips have no row, first b.wav; expected ")


@pytest.mark.parametrize("table", ["submission.csv", "truth.csv"])
def test_duplicate_rows(tmp_path: Path, table: str) -> None:
    guesses, truth = list(TRUTH), list(TRUTH)
    (guesses if table == "submission.csv" else truth).append(("b.wav", "Cello"))
    with pytest.raises(DataError) as caught:
        score(tmp_path, guesses, truth)
    assert str(tmp_path / table) in one_line(caught.value)
    assert [str(problem) for problem in caught.value.problems] == [f"{table}:6: b.wav: duplicate row"]


def test_tables_that_cannot_be_scored(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        score(tmp_path, [*TRUTH[:3], ("d.wav", "Bell", "Cello")])  # a row with too many cells
    one_line(caught.value)
    assert [(p.file, p.row, p.fname) for p in caught.value.problems] == [("submission.csv", 5, "d.wav")]
    with pytest.raises(DataError, match="no clip has a label"):
        score(tmp_path, TRUTH, [("a.wav", "None")])
    with pytest.raises(DataError, match="no rows"):
        score(tmp_path, [])
    with pytest.raises(DataError, match="unknown column layout"):
        score(tmp_path, TRUTH, TRUTH, ("file", "label"))
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read"):
        score_submission(tmp_path / "gone.csv", tmp_path / "truth.csv")


def test_a_submission_has_the_three_best_labels_of_each_clip() -> None:
    scores = np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
    table = submission(["a.wav", "b.wav"], top_k(scores), ["Bell", "Cello", "Flute", "Gong"])
    assert table.columns.tolist() == ["fname", "label"]
    assert table.to_numpy().tolist() == [["a.wav", "Gong Flute Cello"], ["b.wav", "Bell Cello Flute"]]
    assert submission(["a.wav"], top_k(np.array([[0.3, 0.7]])), ["Bell", "Cello"])["label"].tolist() == ["Cello Bell"]


def test_labels_with_spaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["12", "Chirp, tweet", "Dog bark", "犬\u3000の声"]
    truth = [(f"{i}.wav", label) for i, label in enumerate(labels)]
    scores = np.eye(4)[[0, 1, 2, 2]]
    table = submission([name for name, _ in truth], top_k(scores), labels)
    assert table["label"].tolist()[1:3] == ["Chirp,_tweet 12 Dog_bark", "Dog_bark 12 Chirp,_tweet"]
    assert all(len(cell.split()) == 3 for cell in table["label"])
    guesses = table.to_numpy().tolist()
    for name in (str, submitted):  # in the truth's words
        assert score(tmp_path, guesses, [(fname, name(label)) for fname, label in truth]) == {"all": (4, 0.75, 0.75)}
    assert capsys.readouterr().err == ""
    assert score(tmp_path, truth, truth) == {"all": (4, 0.25, 0.25)}
    assert one_line(ValueError(capsys.readouterr().err.removesuffix("\n"))) == (
        f"warning: {tmp_path / 'submission.csv'}: 3 labels with spaces, first 'Chirp, tweet' of 1.wav, count as "
        "several labels: write _ for a space, Chirp,_tweet"
    )


def test_that_labels_have_underscores_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        announce_submission("here/submission.csv", ["Bell", "Dog bark", "R/C car"])
        announce_submission("there/submission.csv", ["Bell", "Dog_bark"])
    assert capsys.readouterr().err == (
        "note: here/submission.csv has _ for the spaces in labels, such as Dog_bark: spaces separate labels\n"
    )


# --- the real tables -------------------------------------------------------------------------------


def test_the_real_training_tables(shared: Path) -> None:
    folder = shared / "data" / "fsdkaggle2018"
    table, other = (read_table(folder / f"{name}.csv", REQUIRED, KNOWN) for name in ("train", "train_post_competition"))
    assert table.problems == table.warnings == other.problems == other.warnings == []
    frame, sizes = table.frame, Counter(table.frame["label"])
    assert frame["row"].tolist() == list(range(2, 9475))
    assert frame["manually_verified"].value_counts().to_dict() == {"0": 5763, "1": 3710}
    assert (len(label_order(frame["label"])), min(sizes.values()), max(sizes.values())) == (41, 94, 300)
    assert not any(map(why_not_a_label, sizes))
    assert set(synth.CLASSES) <= set(sizes)
    assert frame["fname"].is_unique
    for column in (*REQUIRED, "manually_verified"):
        assert other.frame[column].tolist() == frame[column].tolist()
    assert other.frame["freesound_id"].str.isdigit().all()


def reference_scores(guesses: Path, truth: Path) -> dict[str, tuple[int, float, float]]:
    """Return clips, mAP@3 and accuracy by part, computed row by row with the csv module alone."""
    labels = {row["fname"]: row["label"].split(" ") for row in read_csv(guesses)}
    points: dict[str, list[float]] = {"Public": [], "Private": [], "both": []}
    for row in read_csv(truth):
        if row["usage"] != "Ignored":
            best = labels[row["fname"]]
            value = 1 / (best.index(row["label"]) + 1) if row["label"] in best[:3] else 0.0
            points[row["usage"]].append(value)
            points["both"].append(value)
    return {part: (len(x), sum(x) / len(x), x.count(1.0) / len(x)) for part, x in points.items()}


@pytest.mark.parametrize("guess", ["the sample submission", "other labels", "the truth"])
def test_the_real_tables_have_the_scores_of_the_csv_module(shared: Path, tmp_path: Path, guess: str) -> None:
    folder = shared / "data" / "fsdkaggle2018"
    truth, guesses = folder / "test_post_competition.csv", folder / "sample_submission.csv"
    if guess == "other labels":  # "Laughter Hi-Hat Flute" for every clip hits little: the real label is Hi-hat
        labels = sorted({row["label"] for row in read_csv(truth)} - {"None"})
        rows = [(row["fname"], " ".join((labels * 2)[i % 41 : i % 41 + 3])) for i, row in enumerate(read_csv(guesses))]
        guesses = write_csv(tmp_path / "guesses.csv", ["fname", "label"], rows)
    elif guess == "the truth":
        guesses = truth
    result = scores_of(guesses, truth)
    assert [(part, row[0]) for part, row in result.items()] == [("Public", 301), ("Private", 1299), ("both", 1600)]
    for part, values in reference_scores(guesses, truth).items():
        assert result[part] == pytest.approx(values)
        assert result[part][1:] == (1, 1) if guess == "the truth" else 0 < result[part][1] < 0.2
