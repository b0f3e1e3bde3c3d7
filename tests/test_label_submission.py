"""Scores of submissions with a column for each class, against truth tables as FSDKaggle2019 has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import error_line, write_csv
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

from fsat.cli import cli
from fsat.errors import DataError
from fsat.reports.label_submission import score_label_submission
from fsat.reports.prediction_tables import score_table

CLASSES = ["Bell", "Chirp, tweet", "Dog"]
TRUTH = [("a.wav", "Dog", "Public"), ("b.wav", 'Bell,"Chirp, tweet"', "Private"), ("c.wav", "", "Private"),
         ("d.wav", "Dog,Bell", "Public")]  # fmt: skip
SCORES = [("a.wav", 0.1, 0.2, 0.9), ("b.wav", 0.7, 0.3, 0.5), ("c.wav", 0.2, 0.1, 0.8), ("d.wav", 0.1, 0.6, 0.4)]


def tables(folder: Path, scores: list[tuple] = SCORES, truth: list[tuple] = TRUTH, header=("fname", *CLASSES)):
    names = ["fname", "labels", "usage"][: len(truth[0])]
    return write_csv(folder / "submission.csv", header, scores), write_csv(folder / "truth.csv", names, truth)


def test_scores_by_hand_and_by_usage(tmp_path: Path) -> None:
    table = score_label_submission(*tables(tmp_path))
    assert table.columns.tolist() == ["part", "clips", "lwlrap", "map"]
    rows = {row.part: row[2:] for row in table.itertuples()}
    assert list(rows) == ["Public", "Private", "both"]
    # precision at the labels: a 1; b 1 and 2/3; d 1/2 and 2/3
    assert rows["Public"][:2] == (2, pytest.approx((1 + 1 / 2 + 2 / 3) / 3))
    assert rows["Private"][:2] == (2, pytest.approx((1 + 2 / 3) / 2))
    assert rows["both"][:2] == (4, pytest.approx((1 + 1 + 2 / 3 + 1 / 2 + 2 / 3) / 5))
    # bells are 1st and, with equal scores, last of 4; the chirp 2nd; dogs 1st and last
    assert rows["both"][2] == pytest.approx(((1 + 2 / 4) / 2 + 1 / 2 + (1 + 2 / 4) / 2) / 3)


def test_scores_are_those_of_scikit_learn_whatever_the_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    targets, scores = rng.random((60, 5)) < 0.3, rng.random((60, 5)).round(6)
    names, labels = [f"{i}.wav" for i in range(60)], [f"c{j}" for j in range(5)]
    order, columns = rng.permutation(60), rng.permutation(5)
    submission = score_table([names[i] for i in order], scores[order][:, columns], [labels[j] for j in columns])
    submission.assign(unused=0.5).to_csv(tmp_path / "submission.csv", index=False)  # a class that no clip has
    truth = [(name, ",".join(np.array(labels)[row])) for name, row in zip(names, targets, strict=True)]
    path = write_csv(tmp_path / "truth.csv", ["fname", "labels"], truth)
    (row,) = score_label_submission(tmp_path / "submission.csv", path).itertuples(index=False)
    has_label = targets.any(axis=1)
    weights = targets[has_label].sum(axis=1)
    padded = np.column_stack([scores, np.full(60, 0.5)])[has_label]
    wide = np.column_stack([targets, np.zeros(60, bool)])[has_label]
    lwlrap = label_ranking_average_precision_score(wide, padded, sample_weight=weights)
    assert row == ("all", 60, pytest.approx(lwlrap), pytest.approx(average_precision_score(targets, scores)))


@pytest.mark.parametrize(("scores", "truth", "message"), [
    (SCORES[:2], TRUTH, "submission.csv: 2 of 4 clips have no row, first c.wav; expected a row for every clip"),
    (SCORES, [("a.wav", "Cat,Dog"), ("b.wav", "Owl")], "submission.csv: no column for 2 of 3 classes, first Cat; its "
     "columns are Bell, Chirp, tweet, Dog; expected fname and a column of scores for each class"),
    (SCORES, [("a.wav", ""), ("b.wav", "")], "truth.csv: no clip has a label; expected a truth table"),
    ([*SCORES, SCORES[0]], TRUTH, "submission.csv: 1 bad row; expected one row per clip"),
    (SCORES, [*TRUTH, TRUTH[1]], "truth.csv: 1 bad row; expected one row per clip"),
    ([("a.wav", 0.1, "high", 0.9), ("b.wav", "", 0.3, "nan"), *SCORES[2:]], TRUTH, "submission.csv: 3 bad scores; "
     "expected a number in every cell"),
    (SCORES, [("a.wav", "Dog,,Bell")], "truth.csv: 1 bad row; expected labels separated by ,"),
])  # fmt: skip
def test_faults_are_one_line(tmp_path: Path, scores: list[tuple], truth: list[tuple], message: str) -> None:
    assert message in error_line(DataError, score_label_submission, *tables(tmp_path, scores, truth))


def test_faults_of_scores_have_their_line(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        score_label_submission(*tables(tmp_path, [SCORES[0], ("b.wav", 0.1, "high", 0.9), *SCORES[2:]]))
    assert [str(problem) for problem in caught.value.problems] == [
        "submission.csv:3: b.wav: the score of Chirp, tweet is 'high', expected a number"
    ]


def test_the_command_knows_the_task_by_the_truth(tmp_path: Path) -> None:
    submission, truth = map(str, tables(tmp_path))
    result = CliRunner().invoke(cli, ["score", submission, truth], catch_exceptions=False)
    lines = [line.split() for line in result.output.splitlines()]
    assert (lines[0], lines[-1]) == (["part", "clips", "lwlrap", "map"], ["both", "4", "0.7667", "0.6667"])
    guesses = write_csv(tmp_path / "guesses.csv", ["fname", "label"], [("a.wav", "Dog")])
    single = write_csv(tmp_path / "single.csv", ["fname", "label"], [("a.wav", "Dog")])
    result = CliRunner().invoke(cli, ["score", str(guesses), str(single)], catch_exceptions=False)
    assert result.output.split()[:4] == ["part", "clips", "map3", "accuracy"]
    result = CliRunner().invoke(cli, ["score", str(guesses), truth])
    assert result.exit_code == 1
    assert "no column for 3 of 3 classes, first Bell; its columns are label" in str(result.exception or result.output)
