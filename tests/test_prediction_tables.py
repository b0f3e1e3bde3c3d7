"""Reports on out-of-fold predictions: tables, suspects, calibration, sentences, and a large page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import read_csv, write_wav
from html_page import Page

from fsat.data.playable_clips import ClipFolder
from fsat.metrics.calibration import reliability
from fsat.metrics.ranking import best_guesses, confusion
from fsat.reports import prediction_tables, report_text
from fsat.reports.players import REPORT_BYTES, PlayerMaker, first_suspects, hardest_clips
from fsat.reports.plots import FoldCurve
from fsat.reports.prediction_tables import Analysis, Predictions, analyse, suspect_tables, write_reports
from fsat.reports.report_page import Result, write_result_page

LABELS = ['Bang,_"loud"', "Cello", "None_here", "label"]
SCORES = np.array([
    [0.7, 0.1, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1], [0.1, 0.8, 0.0, 0.1],
    [0.4, 0.3, 0.1, 0.2], [0.9, 0.1, 0.0, 0.0], [0.1, 0.2, 0.2, 0.5],
], dtype=np.float32)  # fmt: skip
TARGETS = np.array([0, 0, 1, 1, 1, 3])
"""No clip is of class 2; best guesses are 0, 1, 1, 0, 0, 3."""


def predicted(scores: np.ndarray = SCORES, targets: np.ndarray = TARGETS, **options: Any) -> Predictions:
    """Return predictions of clips of which every other one is verified."""
    fnames = pd.Series([f"{i}, ©.wav" for i in range(len(scores))], dtype="str").array
    options = {"verified": np.arange(len(scores)) % 2 == 0, "labels": LABELS, **options}
    return Predictions(scores=scores, targets=targets, fnames=fnames, **options)


def test_calibration_error_by_hand() -> None:
    scores = np.array([0.15, 0.1, 0.55, 0.6, 0.95, 1.0, 0.91])
    right = np.array([False, True, True, False, True, True, True])
    bins = reliability(scores, right, bins=10)
    np.testing.assert_allclose(bins.low, np.arange(10) / 10)
    np.testing.assert_allclose(bins.high, np.arange(1, 11) / 10)
    assert bins.clips.tolist() == [1, 1, 0, 0, 0, 2, 0, 0, 0, 3]  # 0.1 and 0.6 are the upper edges of their bins
    np.testing.assert_allclose(bins.mean_score[[0, 1, 5, 9]], [0.1, 0.15, 0.575, 2.86 / 3])
    np.testing.assert_allclose(bins.accuracy[[0, 1, 5, 9]], [1, 0, 0.5, 1])
    assert np.isnan(bins.accuracy[2])
    expected = (1 * abs(1 - 0.1) + 1 * abs(0 - 0.15) + 2 * abs(0.5 - 0.575) + 3 * abs(1 - 2.86 / 3)) / 7
    assert bins.expected_error == pytest.approx(expected)


def test_calibration_error_of_random_guesses_and_of_none() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.25, 1, 20_000)
    right = rng.random(20_000) < scores
    assert reliability(scores, right).expected_error < 0.02
    assert reliability(scores**3, right).expected_error > 0.2
    assert len(reliability(scores, right).clips) == 15
    assert np.isnan(reliability(np.empty(0), np.empty(0, bool)).expected_error)
    with pytest.raises(ValueError, match=r"shape \(3,\) and right \(2,\)"):
        reliability(np.ones(3), np.ones(2, bool))


def test_class_table_by_hand() -> None:
    table = prediction_tables.class_table(predicted(), confusion(SCORES, TARGETS))
    # as rankings: class 0's clips are 2nd and 4th, class 1's 1st, 3rd and 6th (a tie, in order), class 3's is 1st
    assert table["label"].tolist() == ['Bang,_"loud"', "Cello", "label", "None_here"]
    assert table["clips"].tolist() == [2, 3, 1, 0]
    assert table["verified"].tolist() == [1, 2, 0, 0]
    np.testing.assert_allclose(table["ap"], [1 / 2, (1 + 2 / 3 + 3 / 6) / 3, 1, np.nan], atol=1e-6)
    np.testing.assert_allclose(table["recall"], [1 / 2, 1 / 3, 1, np.nan], atol=1e-6)
    np.testing.assert_allclose(table["precision"], [1 / 3, 1 / 2, 1, np.nan], atol=1e-6)


def test_confused_pairs_by_hand() -> None:
    pairs = prediction_tables.confused_pairs(confusion(SCORES, TARGETS), LABELS)
    expected = [["Cello", 'Bang,_"loud"', 2], ['Bang,_"loud"', "Cello", 1]]
    assert pairs[["label", "guess", "clips"]].to_numpy().tolist() == expected
    np.testing.assert_allclose(pairs["share"], [2 / 3, 1 / 2], atol=1e-6)
    assert prediction_tables.confused_pairs(np.diag([3, 0, 1]), LABELS[:3]).empty


def test_every_report_is_written_and_reads_back(tmp_path: Path) -> None:
    metrics = write_reports(predicted(), analyse(predicted()), tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert names == {
        "reports/classes.csv", "reports/confusion.csv", "reports/confused_pairs.csv", "reports/calibration.csv",
        "reports/suspects.csv", "plots/confusion.png", "plots/class_precision.png", "plots/calibration.png",
    }  # fmt: skip
    # each best guess is alone in its bin
    score, correct = np.array([0.7, 0.6, 0.8, 0.4, 0.9, 0.5]), np.array([1, 0, 1, 0, 0, 1])
    assert metrics["oof_ece"] == pytest.approx(np.abs(score - correct).mean())
    assert metrics["oof_ece_verified"] == pytest.approx(np.abs(score - correct)[::2].mean())

    matrix = pd.read_csv(tmp_path / "reports" / "confusion.csv", header=None)
    assert matrix.iloc[0].tolist() == matrix[0].tolist() == ["label", *LABELS]
    np.testing.assert_array_equal(matrix.iloc[1:, 1:].astype(int), confusion(SCORES, TARGETS))
    bins = pd.read_csv(tmp_path / "reports" / "calibration.csv")
    assert bins.columns.tolist() == ["low", "high", "clips", "mean_score", "accuracy"]
    assert (len(bins), bins["clips"].sum(), bins["accuracy"].isna().sum()) == (15, 6, 9)
    classes = (tmp_path / "reports" / "classes.csv").read_text().splitlines()
    assert (classes[0], classes[-1]) == ("label,clips,verified,ap,recall,precision", "None_here,0,0,,,")
    suspects = read_csv(tmp_path / "reports" / "suspects.csv")
    assert suspects[0] == {
        "fname": "4, ©.wav", "label": "Cello", "manually_verified": "1", "believed": 'Bang,_"loud"', "score": "0.9",
        "p_believed": "0.9",
    }  # fmt: skip
    assert [row["fname"][0] for row in suspects] == ["4", "1", "3"]


def test_reports_without_verified_clips_or_mistakes(tmp_path: Path) -> None:
    scores, targets = np.eye(4, dtype=np.float32)[[0, 1, 1]], np.array([0, 1, 1])
    clips = predicted(scores, targets, verified=np.zeros(3, bool))
    assert write_reports(clips, analyse(clips), tmp_path) == {"oof_ece": 0}
    header = "fname,label,manually_verified,believed,score,p_believed\n"
    assert (tmp_path / "reports" / "suspects.csv").read_text() == header
    assert (tmp_path / "reports" / "confused_pairs.csv").read_text() == "label,guess,clips,share\n"
    page = write_page(clips, tmp_path, location=ClipFolder(None))
    assert "No label looks wrong: every best guess is the label." in page.sections["suspects"].text
    assert "No label is verified" in page.sections["hardest"].text
    assert "no metrics by epoch of these fold runs" in page.sections["curves"].text
    assert page.sections["suspects"].clips == page.sections["hardest"].clips == []


def test_suspects_in_parts_are_the_suspects(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).dirichlet(np.ones(4), 100).astype(np.float32)
    clips = predicted(scores, np.arange(100) % 4)
    guesses = best_guesses(clips.scores, clips.targets)
    (whole,) = suspect_tables(clips, guesses)
    monkeypatch.setattr(prediction_tables, "CLIPS_AT_ONCE", 7)
    parts = list(suspect_tables(clips, guesses))
    assert len(parts) > 5
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)


# --- sentences, and the page ------------------------------------------------------------------------


def scores_of(studies: dict[str, list[float]], blends: tuple[float, float, float]) -> pd.DataFrame:
    """Return a table of scores: for each study its members' mAP@3 and, last, its own; and those of the three blends."""
    columns = ["kind", "study", "model", "method", "fold", "clips", "map3", "accuracy", "map3_verified", "selected_on",
               "minutes", "run_id"]  # fmt: skip
    rows = []
    for study, (*members, own) in studies.items():
        rows += [["member", study, f"m_{study}", "", i, 5, x, x, x, "holdout", 1, "r"] for i, x in enumerate(members)]
        rows.append(["study", study, f"m_{study}", "", "", 10, own, own, own, "holdout", 2, ""])
    for method, x in zip(("geometric", "arithmetic", "weighted"), blends, strict=True):
        rows.append(["blend", "+".join(studies), "m", method, "", 10, x, x, float("nan"), "holdout", 4, ""])
    return pd.DataFrame(rows, columns=columns)


def write_page(clips: Predictions, folder: Path, analysis: Analysis | None = None, **options: Any) -> Page:
    """Write the page of a blend of two studies whose figures are in ``plots/``, and parse it."""
    facts = {
        "title": "a blend", "outcome": "It is registered.", "facts": [("run", "abc")], "method": "weighted",
        "members": pd.DataFrame({"study": ["a"] * 20, "minutes": [1.0] * 20}), "selected_on": "nothing", "curves": [],
        "scores": scores_of({study: [0.5] * 11 for study in "ab"}, (0.5, 0.5, 0.5)), "plots": folder / "plots",
    }  # fmt: skip
    result = Result(**{**facts, "clips": clips, "analysis": analysis or analyse(clips), **options})
    write_result_page(result, folder / "page.html")
    return Page(folder / "page.html")


def test_sentences_about_scores() -> None:
    table = scores_of({"a": [0.5, 0.7, 0.6], "b": [0.2, 0.4, 0.3]}, (0.65, 0.55, 0.7))
    assert report_text.describe_blend(table, "geometric") == (
        "The blend has an out-of-fold mAP@3 of 0.6500 on 10 clips, 0.0500 more than the best study, m_a (a), with "
        "0.6000."
    )
    assert "0.0500 less than the best study" in report_text.describe_blend(table, "arithmetic")
    assert report_text.describe_alternatives(table, "geometric") == (
        "The best member is fold 1 of m_a (a), with 0.7000 on its own fold. Blended with blend=weighted it would have "
        "0.7000."
    )
    assert "Blended with" not in report_text.describe_alternatives(table, "weighted")
    assert report_text.selection_warning("holdout+nothing") == ""
    both = report_text.selection_warning("holdout+own fold, labels")
    assert "was chosen on the very clips that are scored" in both
    assert "labels that were trained on were chosen by models" in both


def test_sentences_about_classes_confusions_and_calibration() -> None:
    clips, analysis = predicted(), analyse(predicted())
    text = report_text.describe_classes(analysis)
    assert text.startswith(
        "'Bang,_\"loud\"' is recognised worst (average precision 0.500 on 2 clips), label best (1.000)."
    )
    assert report_text.class_rows(analysis)["most often taken for"].tolist() == [
        "Cello, 1 of 2 clips", '\'Bang,_"loud"\', 2 of 3 clips', "", ""
    ]  # fmt: skip
    assert report_text.describe_confusion(analysis, LABELS) == (
        "The best guess is wrong for 3 of 6 clips (50%). Most often Cello is taken for 'Bang,_\"loud\"': 2 of its "
        "3 clips. In both directions together 'Bang,_\"loud\"' and Cello are confused most, 3 times."
    )
    text = report_text.describe_calibration(analysis, clips)
    assert "0.650, and 50.0% of them are correct: the scores are too high, by 0.150." in text
    perfect = predicted(np.eye(4, dtype=np.float32)[[0, 1]], np.array([0, 1]))
    assert report_text.describe_confusion(analyse(perfect), LABELS) == "All best guesses are correct (2 clips)."
    assert "on the whole the scores are right" in report_text.describe_calibration(analyse(perfect), perfect)


def test_sentences_about_curves() -> None:
    falling = FoldCurve("a", "m", 0, {}, {0: 2.0, 1: 1.0, 2: 0.5}, 2)
    rising = FoldCurve("a", "m", 1, {}, {0: 2.0, 1: 1.0, 2: 3.0}, 1)
    assert report_text.describe_curves([falling]) == [
        "m (a): 1 fold of 3 epochs; the loss is lowest at epoch 3, the last one: more epochs might help."
    ]
    (both,) = report_text.describe_curves([falling, rising])
    assert both.endswith("the loss is lowest at epoch 2 to 3, and rises after that in 1 of 2.")
    assert report_text.describe_curves([FoldCurve("a", "m", 0, {}, {}, None)]) == []


def test_hardest_clips_are_verified_and_a_clip_without_player_says_why(tmp_path: Path) -> None:
    clips = predicted()
    indices = hardest_clips(clips, analyse(clips))
    assert indices.tolist() == [4, 0, 2]  # of clips 0, 2 and 4
    write_wav(tmp_path / "0, ©.wav", np.zeros(80_000, np.float32) + 0.1)
    write_wav(tmp_path / "2, ©.wav", np.zeros(8_000, np.float32) + 0.1)
    (tmp_path / "4, ©.wav").write_text("no sound")
    sounds = PlayerMaker(ClipFolder(tmp_path).path).sounds(clips, indices)
    assert [sound.mp3 is None for sound in sounds] == [True, False, False]
    assert sounds[0].notes[:2] == ["guesses: 'Bang,_\"loud\"' 0.90, Cello 0.10, None_here 0.00", "4, ©.wav"]
    assert "cannot be played: unreadable audio" in sounds[0].notes[2]
    assert sounds[2].notes[-1] == "2, ©.wav, 1.0 s"
    sounds = PlayerMaker(ClipFolder(tmp_path).path, free_bytes=len(sounds[1].mp3)).sounds(clips, indices)
    assert [sound.mp3 is None for sound in sounds] == [True, False, True]
    assert "the page would be too large" in sounds[2].notes[-1]


@pytest.mark.slow
def test_a_page_of_41_classes_and_20_members_is_limited(tmp_path: Path) -> None:
    rng, labels = np.random.default_rng(0), [f"Class_{j}_$x^" for j in range(41)]
    targets = rng.integers(0, 41, 2000)
    scores = (0.8 * np.eye(41)[(targets + (rng.random(2000) < 0.05)) % 41] + 0.2 / 41).astype(np.float32)
    clips = predicted(scores, targets, labels=labels)
    analysis = analyse(clips)
    write_reports(clips, analysis, tmp_path)
    noise = write_wav(tmp_path / "noise.wav", rng.uniform(-1, 1, 44_100).astype(np.float32), 44100)
    for i in {*first_suspects(clips, analysis).tolist(), *hardest_clips(clips, analysis).tolist()}:
        (tmp_path / f"{i}, ©.wav").hardlink_to(noise)
    steps = {epoch: 1 / (1 + epoch) for epoch in range(300)}
    curves = [FoldCurve(study, "conv1d", fold, steps, steps, 299) for study in "ab" for fold in range(10)]
    page = write_page(clips, tmp_path, analysis, curves=curves, location=ClipFolder(tmp_path))
    assert page.sections["suspects"].tags["audio"] + page.sections["hardest"].tags["audio"] == 40
    html = (tmp_path / "page.html").read_text()
    without_sounds = re.sub('data:audio/mpeg;base64,[^"]*', "", html)
    assert len(without_sounds.encode()) + REPORT_BYTES * 4 / 3 < 10_000_000

    curves = [curves[0], FoldCurve("a", "m", 1, {}, {}, None)]
    page = write_page(clips, tmp_path, analysis, curves=curves, location=ClipFolder(None))
    html = (tmp_path / "page.html").read_bytes()
    assert "The tracking server has no such metrics for 1 of 2 fold runs." in page.sections["curves"].text
    write_page(clips, tmp_path, analysis, curves=curves, location=ClipFolder(None))
    assert (tmp_path / "page.html").read_bytes() == html
