"""Reports on out-of-fold predictions: tables by hand, planted wrong labels, calibration, words, a large page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import read_csv, write_wav

from fsat.data.locate_clips import ClipFolder
from fsat.metrics import row_blocks
from fsat.metrics.calibration import reliability
from fsat.metrics.ranking import best_guesses, confusion
from fsat.reports import results_text as words
from fsat.reports import study_reports as reports
from fsat.reports.curves import FoldCurve, about_curves
from fsat.reports.listening import PLAYED_BYTES, Players, hardest, sounds
from fsat.reports.result_page import Result, write_page
from fsat.reports.study_reports import Predicted, class_table, confused_pairs, suspects, tell, write_reports

LABELS = ['Bang,_"loud"', "Cello", "None_here", "label"]
SCORES = np.array(
    [
        [0.7, 0.1, 0.1, 0.1],
        [0.2, 0.6, 0.1, 0.1],
        [0.1, 0.8, 0.0, 0.1],
        [0.4, 0.3, 0.1, 0.2],
        [0.9, 0.1, 0.0, 0.0],
        [0.1, 0.2, 0.2, 0.5],
    ],
    dtype=np.float32,
)
TARGETS = np.array([0, 0, 1, 1, 1, 3])
"""No clip of class 2; best guesses are 0, 1, 1, 0, 0, 3."""


def predicted(scores: np.ndarray = SCORES, targets: np.ndarray = TARGETS, **other) -> Predicted:
    fnames = pd.Series([f"{i}, ©.wav" for i in range(len(scores))], dtype="str").array
    verified = np.arange(len(scores)) % 2 == 0
    return Predicted(**{
        "scores": scores, "targets": targets, "verified": verified, "fnames": fnames, "labels": LABELS, **other,
    })  # fmt: skip


def random_scores(n_clips: int, n_classes: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(n_classes), n_clips).astype(np.float32)


# --- guesses and suspects ------------------------------------------------------------------------


def test_planted_wrong_labels_come_first() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 400)
    logits = rng.standard_normal((400, 4))
    logits[np.arange(400), truth] += 6
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    planted = rng.choice(400, 30, replace=False)
    given = truth.copy()
    given[planted] = (truth[planted] + rng.integers(1, 4, 30)) % 4
    first = np.argsort(scores[np.arange(400), given])[:30]
    tables = pd.concat(suspects(predicted(scores, given), best_guesses(scores, given)))
    assert tables["fname"].head(25).isin([f"{i}, ©.wav" for i in planted]).all()
    assert tables["score"].is_monotonic_decreasing
    right = tables["believed"].head(25).to_numpy() == np.array(LABELS)[truth[first[:25]]]
    assert right.all()


def test_no_bit_depends_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = random_scores(500), np.arange(500) % 4
    guesses = best_guesses(scores, targets)
    kept = scores.copy()
    for elements, threads in ((4, 1), (4 * 7, 3), (10**9, 2)):
        monkeypatch.setattr(row_blocks, "CHUNK_ELEMENTS", elements)
        monkeypatch.setattr(row_blocks, "THREADS", threads)
        again = best_guesses(scores, targets)
        for name, values in vars(guesses).items():
            assert getattr(again, name).tobytes() == values.tobytes()
    np.testing.assert_array_equal(scores, kept)


# --- calibration -----------------------------------------------------------------------------------


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


def test_guesses_that_are_right_as_often_as_they_say_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.25, 1, 20_000)
    right = rng.random(20_000) < scores
    assert reliability(scores, right).expected_error < 0.02
    assert reliability(scores**3, right).expected_error > 0.2
    assert len(reliability(scores, right).clips) == 15


def test_no_clips_have_no_calibration_error() -> None:
    assert np.isnan(reliability(np.empty(0), np.empty(0, bool)).expected_error)
    with pytest.raises(ValueError, match=r"shape \(3,\) and right \(2,\)"):
        reliability(np.ones(3), np.ones(2, bool))


# --- tables ----------------------------------------------------------------------------------------


def test_class_table_by_hand() -> None:
    table = class_table(predicted(), confusion(SCORES, TARGETS))
    # as rankings: class 0's clips are 2nd and 4th, class 1's 1st, 3rd and 6th (a tie, in order), class 3's is 1st
    assert table["label"].tolist() == ['Bang,_"loud"', "Cello", "label", "None_here"]
    assert table["clips"].tolist() == [2, 3, 1, 0]
    assert table["verified"].tolist() == [1, 2, 0, 0]
    np.testing.assert_allclose(table["ap"], [1 / 2, (1 + 2 / 3 + 3 / 6) / 3, 1, np.nan], atol=1e-6)
    np.testing.assert_allclose(table["recall"], [1 / 2, 1 / 3, 1, np.nan], atol=1e-6)
    np.testing.assert_allclose(table["precision"], [1 / 3, 1 / 2, 1, np.nan], atol=1e-6)


def test_confused_pairs_by_hand() -> None:
    pairs = confused_pairs(confusion(SCORES, TARGETS), LABELS)
    assert pairs[["label", "guess", "clips"]].to_numpy().tolist() == [
        ["Cello", 'Bang,_"loud"', 2],
        ['Bang,_"loud"', "Cello", 1],
    ]
    np.testing.assert_allclose(pairs["share"], [2 / 3, 1 / 2], atol=1e-6)
    assert confused_pairs(np.diag([3, 0, 1]), LABELS[:3]).empty


def test_every_report_is_written_and_reads_back(tmp_path: Path) -> None:
    metrics = write_reports(predicted(), tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert names == {
        "reports/classes.csv", "reports/confusion.csv", "reports/confused_pairs.csv", "reports/calibration.csv",
        "reports/suspects.csv", "plots/confusion.png", "plots/class_precision.png", "plots/calibration.png",
    }  # fmt: skip
    # each best guess is alone in its bin
    says, right = np.array([0.7, 0.6, 0.8, 0.4, 0.9, 0.5]), np.array([1, 0, 1, 0, 0, 1])
    assert metrics["oof_ece"] == pytest.approx(np.abs(says - right).mean())
    assert metrics["oof_ece_verified"] == pytest.approx(np.abs(says - right)[::2].mean())

    matrix = pd.read_csv(tmp_path / "reports" / "confusion.csv", header=None)
    assert matrix.iloc[0].tolist() == ["label", *LABELS]
    assert matrix.iloc[1:, 0].tolist() == LABELS
    np.testing.assert_array_equal(matrix.iloc[1:, 1:].to_numpy(dtype=int), confusion(SCORES, TARGETS))
    bins = pd.read_csv(tmp_path / "reports" / "calibration.csv")
    assert bins.columns.tolist() == ["low", "high", "clips", "mean_score", "accuracy"]
    assert (len(bins), bins["clips"].sum(), bins["accuracy"].isna().sum()) == (15, 6, 9)
    classes = read_csv(tmp_path / "reports" / "classes.csv")
    assert classes[-1] == {
        "label": "None_here", "clips": "0", "verified": "0", "ap": "", "recall": "", "precision": "",
    }  # fmt: skip
    doubted = read_csv(tmp_path / "reports" / "suspects.csv")
    assert doubted[0] == {
        "fname": "4, ©.wav", "label": "Cello", "manually_verified": "1", "believed": 'Bang,_"loud"', "score": "0.9",
        "p_believed": "0.9",
    }  # fmt: skip
    assert [row["fname"][0] for row in doubted] == ["4", "1", "3"]


def test_reports_without_verified_clips_or_mistakes(tmp_path: Path) -> None:
    scores, targets = np.eye(4, dtype=np.float32)[[0, 1, 1]], np.array([0, 1, 1])
    metrics = write_reports(predicted(scores, targets, verified=np.zeros(3, bool)), tmp_path)
    assert metrics == {"oof_ece": 0}
    header = "fname,label,manually_verified,believed,score,p_believed\n"
    assert (tmp_path / "reports" / "suspects.csv").read_text() == header
    assert (tmp_path / "reports" / "confused_pairs.csv").read_text() == "label,guess,clips,share\n"


def test_suspects_in_parts_are_the_suspects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = predicted(random_scores(100), np.arange(100) % 4)
    guesses = best_guesses(clips.scores, clips.targets)
    (whole,) = suspects(clips, guesses)
    monkeypatch.setattr(reports, "CLIPS_AT_ONCE", 7)
    parts = list(suspects(clips, guesses))
    assert len(parts) > 5
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)


# --- words, and the page ---------------------------------------------------------------------------


def scores_of(studies: dict[str, list[float]], blends: tuple[float, float, float]) -> pd.DataFrame:
    """A table of scores: by study its members' mAP@3 and, last, its own; and those of the three blends."""
    columns = ["kind", "study", "model", "method", "fold", "clips", "map3", "accuracy", "map3_verified", "selected_on",
               "minutes", "run_id"]  # fmt: skip
    rows = []
    for study, (*members, own) in studies.items():
        rows += [["member", study, f"m_{study}", "", i, 5, x, x, x, "holdout", 1, "r"] for i, x in enumerate(members)]
        row_blocks.append(["study", study, f"m_{study}", "", "", 10, own, own, own, "holdout", 2, ""])
    for method, x in zip(("geometric", "arithmetic", "weighted"), blends, strict=True):
        row_blocks.append(["blend", "+".join(studies), "m", method, "", 10, x, x, float("nan"), "holdout", 4, ""])
    return pd.DataFrame(rows, columns=columns)


def test_words_about_scores() -> None:
    table = scores_of({"a": [0.5, 0.7, 0.6], "b": [0.2, 0.4, 0.3]}, (0.65, 0.55, 0.7))
    assert words.about_blend(table, "geometric") == (
        "The blend has an out-of-fold mAP@3 of 0.6500 on 10 clips, 0.0500 more than the best study, m_a (a), with "
        "0.6000."
    )
    assert "0.0500 less than the best study" in words.about_blend(table, "arithmetic")
    assert words.about_others(table, "geometric") == (
        "The best member is fold 1 of m_a (a), with 0.7000 on its own fold. Blended with blend=weighted it would have "
        "0.7000."
    )
    assert "Blended with" not in words.about_others(table, "weighted")
    assert words.about_selection("holdout+nothing") == ""
    both = words.about_selection("holdout+own fold, labels")
    assert "very clips that they are scored on" in both
    assert "labels that were trained on were chosen by models" in both


def test_words_about_classes_confusions_and_calibration() -> None:
    told = tell(predicted())
    assert words.about_classes(told).startswith('Bang,_"loud" is told worst from the others (average precision 0.500')
    assert words.class_rows(told)["most often taken for"].tolist() == [
        "Cello, 1 of 2 clips", 'Bang,_"loud", 2 of 3 clips', "", ""
    ]  # fmt: skip
    assert words.about_confusion(told, LABELS) == (
        '3 of 6 best guesses are wrong (50%). Most often Cello is taken for Bang,_"loud": 2 of its 3 clips. Both ways '
        'together Bang,_"loud" and Cello are mixed up most, 3 times.'
    )
    assert "0.650, and 50.0% of them are right: they are too sure, by 0.150." in words.about_calibration(
        told, predicted()
    )
    perfect = predicted(np.eye(4, dtype=np.float32)[[0, 1]], np.array([0, 1]))
    assert words.about_confusion(tell(perfect), LABELS) == "All 2 best guesses are right."
    assert "as sure as they should be" in words.about_calibration(tell(perfect), perfect)


def test_words_about_curves() -> None:
    falling = FoldCurve("a", "m", 0, {}, {0: 2.0, 1: 1.0, 2: 0.5}, 2)
    rising = FoldCurve("a", "m", 1, {}, {0: 2.0, 1: 1.0, 2: 3.0}, 1)
    assert about_curves([falling]) == [
        "m (a): 1 fold of 3 epochs; the loss is least at epoch 3, the last one: more epochs might help."
    ]
    (both,) = about_curves([falling, rising])
    assert both.endswith("the loss is least at epoch 2 to 3, and rises after that in 1 of 2.")
    assert about_curves([FoldCurve("a", "m", 0, {}, {}, None)]) == []


def test_hardest_are_verified_and_a_clip_that_cannot_be_played_is_named(tmp_path: Path) -> None:
    clips = predicted()
    told = tell(clips)
    assert hardest(clips, told).tolist() == [4, 0, 2]  # of clips 0, 2 and 4
    write_wav(tmp_path / "0, ©.wav", np.zeros(80_000, np.float32) + 0.1)
    write_wav(tmp_path / "2, ©.wav", np.zeros(8_000, np.float32) + 0.1)
    (tmp_path / "4, ©.wav").write_text("no sound")
    players = Players(ClipFolder(tmp_path).path)
    made = sounds(clips, hardest(clips, told), players)
    assert [sound.mp3 is None for sound in made] == [True, False, False]
    assert "cannot be played: unreadable audio" in made[0].note
    assert made[0].note.startswith('guesses: Bang,_"loud" 0.90, Cello 0.10, None_here 0.00\n4, ©.wav')
    assert made[2].note.endswith("2, ©.wav, 1.0 s")
    small = sounds(clips, hardest(clips, told), Players(ClipFolder(tmp_path).path, room=len(made[1].mp3)))
    assert [sound.mp3 is None for sound in small] == [True, False, True]
    assert "the page would be too large" in small[2].note


def test_a_page_of_41_classes_and_20_members_is_bounded(tmp_path: Path) -> None:
    rng, labels = np.random.default_rng(0), [f"Class_{j}_$x^" for j in range(41)]
    targets = rng.integers(0, 41, 2000)
    scores = (0.8 * np.eye(41)[(targets + (rng.random(2000) < 0.05)) % 41] + 0.2 / 41).astype(np.float32)
    clips = predicted(scores, targets, labels=labels)
    noise = write_wav(tmp_path / "noise.wav", rng.uniform(-1, 1, 44_100).astype(np.float32), 44100)
    told = tell(clips)
    write_reports(clips, tmp_path, told)
    for place in (*reports.doubted(clips, told.guesses)[:20], *hardest(clips, told)):
        (tmp_path / f"{place}, ©.wav").unlink(missing_ok=True)
        (tmp_path / f"{place}, ©.wav").hardlink_to(noise)
    steps = {epoch: 1 / (1 + epoch) for epoch in range(300)}
    curves = [FoldCurve(study, "conv1d", fold, steps, steps, 299) for study in "ab" for fold in range(10)]
    table = scores_of({study: [0.5] * 11 for study in "ab"}, (0.5, 0.5, 0.5))
    members = pd.DataFrame({"study": ["a"] * 20, "minutes": [1.0] * 20})
    result = Result("large", [], members, table, "weighted", "nothing", clips, told, curves, tmp_path / "plots",
                    ClipFolder(tmp_path))  # fmt: skip
    write_page(result, "It is registered.", tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert html.count("<audio") == 40
    without_sounds = re.sub('data:audio/mpeg;base64,[^"]*', "", html)
    assert len(without_sounds.encode()) + PLAYED_BYTES * 4 / 3 < 10_000_000

    bare = Result("bare", [], members, table, "weighted", "nothing", clips, told, [curves[0], FoldCurve("a", "m", 1, {},
                  {}, None)], tmp_path / "plots", ClipFolder(None, "No players: it is a test."))  # fmt: skip
    write_page(bare, "It is registered.", tmp_path / "bare.html")
    html = (tmp_path / "bare.html").read_text()
    write_page(bare, "It is registered.", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == html
    assert "Of 1 of 2 fold runs the tracking server has no such metrics." in html
    assert "<audio" not in html
    assert html.count("No players: it is a test.") == 2
