"""Reports of clips with any number of labels: tables by hand, suspects, sentences, figures, and the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import read_csv, tone, write_wav
from html_page import Page
from test_prediction_tables import scores_of

from fsat.commands import fold_records
from fsat.commands.analyse_blend import analyse_blend, write_blend_reports
from fsat.commands.fit_scores import Decisions
from fsat.config import Config
from fsat.data.playable_clips import ClipFolder
from fsat.metrics import multilabel
from fsat.metrics.calibration import label_reliability, reliability
from fsat.metrics.multilabel import class_average_precision, class_lwlrap
from fsat.metrics.scaling import Scaling
from fsat.reports import label_players, label_plots, label_tables, label_text, plots, report_text
from fsat.reports.label_tables import Decided, analyse_labels, given_shares, suspect_tables, write_label_reports
from fsat.reports.plots import FoldCurve
from fsat.reports.prediction_tables import Predictions, analyse, write_reports
from fsat.reports.report_page import Result, write_result_page

LABELS = ["Dog", "Heavy, rain", "Never", "Owl"]
TARGETS = np.array([
    [1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0],
], dtype=bool)  # fmt: skip
SCALED = np.array([
    [0.9, 0.2, 0.0, 0.1], [0.8, 0.7, 0.0, 0.1], [0.1, 0.8, 0.0, 0.3], [0.1, 0.1, 0.0, 0.1], [0.1, 0.9, 0.0, 0.1],
    [0.6, 0.1, 0.0, 0.0],
], dtype=np.float32)  # fmt: skip
"""Labels given from 0.5 on: rain is missed in clip 0 and wrongly given to clip 1, the owl missed in clip 2, and clip 5,
which has no label, is a dog."""

DECIDED = Decided(SCALED, SCALED >= 0.5, np.array([0.5, 0.45, 0.5, 0.4]), is_scaled=True)


def predicted(scores: np.ndarray = SCALED**2, targets: np.ndarray = TARGETS, **options: Any) -> Predictions:
    """Return predictions of clips of which every other one is verified."""
    fnames = pd.Series([f"{i}, ©.wav" for i in range(len(scores))], dtype="str").array
    options = {"verified": np.arange(len(scores)) % 2 == 0, "labels": LABELS, **options}
    return Predictions(scores=scores, targets=targets, fnames=fnames, **options)


def made(n_clips: int = 300, n_classes: int = 4) -> tuple[Predictions, Decided]:
    """Return clips with 0 to `n_classes` labels, and what is made of their scores."""
    rng = np.random.default_rng(0)
    targets = rng.random((n_clips, n_classes)) < 0.3
    scaled = 1 / (1 + np.exp(1.5 - 2.5 * targets - rng.standard_normal(targets.shape)))
    labels = [f"c{j:03d}" for j in range(n_classes)]
    clips = predicted((scaled**2).astype(np.float32), targets, labels=labels)
    return clips, Decided(scaled.astype(np.float32), scaled >= 0.5, np.full(n_classes, 0.5), is_scaled=True)


def test_class_table_by_hand() -> None:
    clips = predicted()
    table = analyse_labels(clips, DECIDED).classes
    assert table.columns.tolist() == [
        "label", "clips", "verified", "ap", "ap_low", "ap_high", "lwlrap", "auc", "d_prime", "threshold", "f1",
        "precision", "recall",
    ]  # fmt: skip
    rows = table.set_index("label")
    assert table["label"].tolist() == ["Heavy, rain", "Dog", "Owl", "Never"]  # 0.917, and 1 twice, in order
    assert rows["clips"].tolist() == [3, 2, 1, 0]
    assert rows["verified"].tolist() == [3, 1, 1, 0]
    np.testing.assert_allclose(rows["ap"], [(1 + 1 + 3 / 4) / 3, 1, 1, np.nan], atol=1e-6)
    np.testing.assert_allclose(rows["auc"], [8 / 9, 1, 1, np.nan], atol=1e-6)
    np.testing.assert_allclose(rows["d_prime"], [1.7262, np.inf, np.inf, np.nan], atol=1e-4)
    np.testing.assert_allclose(rows["lwlrap"], [1, 1, 1, np.nan], atol=1e-6)  # labels are above all others in a clip
    np.testing.assert_allclose(rows["threshold"], [0.45, 0.5, 0.4, 0.5])
    np.testing.assert_allclose(rows["precision"], [2 / 3, 2 / 3, np.nan, np.nan], atol=1e-6)
    np.testing.assert_allclose(rows["recall"], [2 / 3, 1, 0, np.nan], atol=1e-6)
    np.testing.assert_allclose(rows["f1"], [2 / 3, 4 / 5, 0, np.nan], atol=1e-6)
    large = analyse_labels(*made()).classes
    assert (large["ap_low"] < large["ap"]).all()
    assert (large["ap"] < large["ap_high"]).all()


def test_pairs_by_hand() -> None:
    pairs = analyse_labels(predicted(), DECIDED).pairs
    assert pairs.columns.tolist() == [
        "label", "other", "clips", "both", "both_share", "given", "given_share", "missed", "missed_share",
    ]  # fmt: skip
    rows = {(row.label, row.other): row[3:] for row in pairs.itertuples(index=False)}
    assert list(rows) == [
        ("Dog", "Heavy, rain"), ("Heavy, rain", "Dog"), ("Heavy, rain", "Owl"), ("Owl", "Heavy, rain"),
    ]  # fmt: skip
    assert rows["Dog", "Heavy, rain"] == (
        1,
        0.5,
        1,
        1,
        0,
        0,
    )  # the dog without rain is given rain; beside it none missed
    assert rows["Heavy, rain", "Dog"] == (1, pytest.approx(1 / 3), 0, 0, 1, 1)  # rain is missed beside the dog
    assert rows["Owl", "Heavy, rain"][:3] == (1, 1, 0)
    assert np.isnan(rows["Owl", "Heavy, rain"][3])  # no owl is without rain
    assert rows["Owl", "Heavy, rain"][4:] == (1, 1)


def test_shares_given_to_the_clips_of_others() -> None:
    shares = given_shares(DECIDED.given, TARGETS)
    nan = np.nan
    expected = [[1, 1, 0, 0], [0, 2 / 3, 0, 0], [nan] * 4, [0, nan, 0, 0], [1 / 2, 0, 0, 0]]
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    scores = given_shares(SCALED, TARGETS)
    assert scores[0, 1] == pytest.approx(0.7)  # of clip 1
    assert scores[1, 1] == pytest.approx((0.2 + 0.8 + 0.9) / 3)
    assert scores[4, 0] == pytest.approx((0.1 + 0.6) / 2)


def test_suspects_by_hand(tmp_path: Path) -> None:
    analysis = analyse_labels(predicted(), DECIDED)
    write_label_reports(predicted(), DECIDED, analysis, tmp_path)
    rows = read_csv(tmp_path / "reports" / "suspects.csv")
    assert rows[0] == {
        "fname": "0, ©.wav", "label": "Heavy, rain", "manually_verified": "1", "kind": "wrong", "score": "0.8",
        "p_label": "0.2", "labels": 'Dog,"Heavy, rain"',
    }  # fmt: skip
    assert [(row["fname"][0], row["label"], row["kind"], row["score"]) for row in rows[1:]] == [
        ("1", "Heavy, rain", "missing", "0.7"), ("2", "Owl", "wrong", "0.7"), ("5", "Dog", "missing", "0.6"),
    ]  # fmt: skip
    assert (rows[3]["manually_verified"], rows[3]["labels"]) == ("0", "")
    assert label_players.first_suspects(analysis.suspects, is_present=True).tolist() == [0, 2]
    assert label_players.first_suspects(analysis.suspects, is_present=False).tolist() == [1, 3]


def test_suspects_in_parts_are_the_suspects(monkeypatch: pytest.MonkeyPatch) -> None:
    clips, decided = made()
    suspects = analyse_labels(clips, decided).suspects
    (whole,) = suspect_tables(clips, decided, suspects)
    assert len(whole) == (decided.given != clips.targets).sum()
    assert whole["score"].is_monotonic_decreasing
    monkeypatch.setattr(label_tables, "CLIPS_AT_ONCE", 7)
    parts = list(suspect_tables(clips, decided, suspects))
    assert len(parts) > 5
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    shown = label_players.first_suspects(suspects, is_present=False)
    labels = np.bincount(suspects.label[shown])
    assert labels.max() == label_players.PER_LABEL
    assert len(shown) == 4 * label_players.PER_LABEL


def test_metrics_of_the_run(tmp_path: Path) -> None:
    clips, decided = made()
    decisions = Decisions(Scaling("platt"), decided.thresholds, {}, decided.scaled, decided.given)
    analysis = analyse_blend(clips, decisions)
    metrics = write_blend_reports(clips, decisions, analysis, tmp_path)
    scores, targets = clips.scores, clips.targets
    lwlrap, ap = multilabel.lwlrap(scores, targets), class_average_precision(scores, targets)
    assert metrics["oof_lwlrap_low"] < lwlrap < metrics["oof_lwlrap_high"]
    assert metrics["oof_map_low"] < ap.mean() < metrics["oof_map_high"]
    assert metrics["oof_map_micro"] == multilabel.micro_map(scores, targets)
    assert metrics["oof_auc"] == pytest.approx(multilabel.class_auc(scores, targets).mean())
    assert metrics["oof_d_prime"] == multilabel.d_prime(metrics["oof_auc"])
    assert metrics["oof_lwlrap_scaled"] == multilabel.lwlrap(decided.scaled, targets)
    is_none, is_tagged = ~targets.any(axis=1), decided.given.any(axis=1)
    assert metrics["oof_none_tagged"] == pytest.approx(is_tagged[is_none].mean())
    assert metrics["oof_untagged"] == pytest.approx((~is_tagged)[~is_none].mean())

    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert names == {
        "reports/classes.csv", "reports/co_occurrence.csv", "reports/suspects.csv", "reports/calibration.csv",
        "reports/calibration_scaled.csv", "plots/co_occurrence.png", "plots/confusion.png",
        "plots/class_precision.png", "plots/calibration.png",
    }  # fmt: skip
    table = pd.read_csv(tmp_path / "reports" / "classes.csv").set_index("label").loc[list(clips.labels)]
    np.testing.assert_allclose(table["lwlrap"], class_lwlrap(scores, targets)[0], atol=1e-6)
    for name, part in {"calibration": scores, "calibration_scaled": decided.scaled}.items():
        bins = pd.read_csv(tmp_path / "reports" / f"{name}.csv")
        assert bins["clips"].sum() == targets.size
        np.testing.assert_allclose(bins["accuracy"], label_reliability(part, targets)[0].accuracy, atol=1e-6)
    # without scaling there is nothing to compare, and without clips of none no share of them
    both = clips.targets.any(axis=1)
    part = predicted(scores[both], targets[both], labels=clips.labels)
    analysis = analyse_labels(part, Decided(scores[both], scores[both] >= 0.3, decided.thresholds, is_scaled=False))
    assert analysis.scaled_bins is None
    assert not {"oof_lwlrap_scaled", "oof_none_tagged"} & set(analysis.metrics)


def test_best_guesses_are_calibrated_before_and_after_scaling(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 200)
    scaled = np.exp(np.eye(3)[targets] + rng.standard_normal((200, 3)))
    scaled /= scaled.sum(axis=1, keepdims=True)
    sharp = (scaled**3 / (scaled**3).sum(axis=1, keepdims=True)).astype(np.float32)
    clips = predicted(sharp, targets, labels=LABELS[:3])
    analysis = analyse(clips, scaled.astype(np.float32))
    after = reliability(scaled.max(axis=1), scaled.argmax(axis=1) == targets)
    assert analysis.scaled_bins.expected_error == pytest.approx(after.expected_error, abs=1e-6)
    write_reports(clips, analysis, tmp_path)
    bins = pd.read_csv(tmp_path / "reports" / "calibration_scaled.csv")
    assert bins["clips"].tolist() == after.clips.tolist()
    losses = {"oof_log_loss": 1.25, "oof_log_loss_scaled": 0.75}
    page = write_page(clips, tmp_path, analysis, metrics=losses)
    text = page.sections["calibration"].text
    assert (
        f"from {analysis.bins.expected_error:.3f} to {after.expected_error:.3f}, and the log loss from 1.2500" in text
    )
    assert "rejection" not in page.sections
    facts = losses | {"oof_rejected": 0.048, "oof_right_kept": 0.9}
    page = write_page(clips, tmp_path, analysis, metrics=facts, thresholds=np.full(3, 0.25))
    assert "A clip whose best score is below 0.250 gets no label" in page.sections["rejection"].text
    assert "4.8% get none and 90.0% score high enough for the right one" in page.sections["rejection"].text


# --- sentences, figures, and the page --------------------------------------------------------------


def write_page(clips: Predictions, folder: Path, analysis: Any, **options: Any) -> Page:
    """Write the page of a blend of two studies whose figures are in ``plots/``, and parse it."""
    table = scores_of({study: [0.5, 0.6, 0.55] for study in "ab"}, (0.5, 0.5, 0.7))
    if clips.targets.ndim == 2:
        table = table.rename(columns={"map3": "lwlrap", "accuracy": "map", "map3_verified": "lwlrap_verified"})
    facts = {
        "title": "a blend", "outcome": "It is registered.", "facts": [("run", "abc")], "method": "weighted",
        "members": pd.DataFrame({"study": ["a"], "minutes": [1.0]}), "selected_on": "nothing", "scores": table,
        "curves": [FoldCurve("a", "m", 0, {0: 0.5, 1: 0.6}, {0: 2.0, 1: 1.0}, 1)], "plots": folder / "plots",
        "location": ClipFolder(None),
    }  # fmt: skip
    write_result_page(Result(**{**facts, "clips": clips, "analysis": analysis, **options}), folder / "page.html")
    return Page(folder / "page.html")


def test_sentences() -> None:
    analysis = analyse_labels(predicted(), DECIDED)
    assert label_text.describe_numbers(analysis.n_labels) == "Of 6 clips, 2 have no label, 2 have 1, 2 have 2."
    assert label_text.describe_none(analysis) == (
        "Of 2 clips without a label, 1 (50.0%) are given one. Of 4 clips with labels, 0 (0.0%) are given none."
    )
    assert label_text.describe_thresholds(analysis, {"oof_f1_macro": 0.5, "oof_f1_micro": 0.6}) == (
        "F1 is 0.500 as the mean over classes and 0.600 of all labels together. 6 labels are given to clips that have "
        "6."
    )
    assert label_text.describe_pairs(analysis) == (
        "Dog and 'Heavy, rain' are on one clip most often, once: 50% of the 2 clips of Dog."
    )
    assert label_text.describe_confusion(analysis) == (
        "Most often 'Heavy, rain' is given to clips of Dog that lack it: once, 100% of them. 'Heavy, rain' is "
        "missed most often beside Dog: on 1 of 1 clip with both."
    )
    text = label_text.describe_calibration(analysis, {})
    before, after = (part.expected_error for part in (analysis.bins, analysis.scaled_bins))
    assert f"is {before:.3f}. The tagger scales scores: " in text
    assert f"changes the error to {after:.3f}." in text
    table = scores_of({"a": [0.5, 0.7, 0.6]}, (0.65, 0.55, 0.7)).rename(columns={"map3": "lwlrap"})
    assert "out-of-fold lwlrap of 0.6500" in report_text.describe_blend(table, "geometric")
    perfect = Decided(SCALED, TARGETS, DECIDED.thresholds, is_scaled=False)
    one = analyse_labels(predicted(targets=np.eye(6, 4, dtype=bool)), replace(perfect, given=np.eye(6, 4, dtype=bool)))
    assert label_text.describe_pairs(one) == "No clip has two labels."
    assert label_text.describe_confusion(one) == "No clip with a label is given one that it lacks."
    assert label_text.describe_suspects(one, 0, True) == "No label looks wrong: all are given."


def test_the_page(tmp_path: Path) -> None:
    clips = predicted()
    analysis = analyse_labels(clips, DECIDED)
    write_label_reports(clips, DECIDED, analysis, tmp_path)
    for i in (0, 2, 5):
        write_wav(tmp_path / f"{i}, ©.wav", tone(440, 0.3, 8000))
    page = write_page(
        clips, tmp_path, analysis, decided=DECIDED, location=ClipFolder(tmp_path), metrics={"oof_map": 0.5}
    )
    sections = page.sections
    assert list(sections) == page.links == [
        "about", "scores", "curves", "classes", "thresholds", "pairs", "calibration", "wrong", "missing",
    ]  # fmt: skip
    assert sum(section.tags["img"] for section in sections.values()) == 6
    assert "The blend has an out-of-fold lwlrap of 0.7000" in sections["scores"].text
    low, high = analysis.intervals.lwlrap
    assert f"lwlrap {low:.4f} to {high:.4f}" in sections["scores"].text
    assert "mAP@3" not in (tmp_path / "page.html").read_text()
    (rows,) = sections["classes"].tables
    assert [row[0] for row in rows] == analysis.classes["label"].tolist()
    assert rows[0][3:5] == ["0.917", f"{analysis.classes['ap_low'].iloc[0]:.3f} to 1.000"]
    (rows,) = sections["thresholds"].tables
    assert [row[0] for row in rows] == ["Owl", "Heavy, rain", "Dog", "Never"]  # lowest F1 first
    assert rows[0] == ["Owl", "1", "0.000", "", "0.000", "0.400"]
    assert sections["pairs"].tables[0][0][:4] == ["Dog", "Heavy, rain", "2", "1"]
    assert [clip[0] for clip in sections["wrong"].clips] == ["Heavy, rain (verified)", "Owl (verified)"]
    assert sections["wrong"].clips[0][1:3] == [
        "labels: Dog, 'Heavy, rain'", "guesses: Dog 0.90, 'Heavy, rain' 0.20, Owl 0.10",
    ]  # fmt: skip
    assert sections["missing"].clips[1][:2] == ["Dog (not verified)", "labels: none"]
    assert (sections["wrong"].tags["audio"], sections["missing"].tags["audio"]) == (2, 1)  # clip 1 has no file


def test_figures_of_many_classes_show_those_with_most_clips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn = {}
    monkeypatch.setattr(label_plots, "draw_matrix", lambda *args: drawn.update({args[-1].name: args}))
    clips, decided = made(200, label_plots.SHOWN + 5)
    clips.targets[:, 3] = False
    clips.targets[0, 3] = True
    clips.targets[5] = False  # a clip without a label
    analysis = analyse_labels(clips, decided)
    label_plots.plot_co_occurrence(analysis.together, clips.labels, tmp_path / "together.png")
    n_clips = clips.targets.sum(axis=0)
    label_plots.plot_label_confusion(analysis.shares, n_clips, clips.labels, "title", tmp_path / "confusion.png")
    shares, texts, (rows, columns), _, title, _ = drawn["together.png"]
    assert shares.shape == (label_plots.SHOWN, label_plots.SHOWN)
    assert rows == columns == sorted(rows)
    assert "c003" not in rows
    assert title.endswith(f"({label_plots.SHOWN} of {label_plots.SHOWN + 5} classes)")
    assert texts[0, 0] == str(analysis.together[0, 0])
    shares, texts, (rows, columns), _, title, _ = drawn["confusion.png"]
    assert rows == [*columns, "(no label)"]
    assert texts[0, 0] == f"{100 * analysis.shares[0, 0]:.0f}"


def test_learning_curves_show_the_scores_of_the_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = []
    monkeypatch.setattr(plots, "save", lambda figure, _: names.extend(
        line.get_label() for axes in figure.axes for line in axes.lines if len(line.get_xdata()) == 3
    ))  # fmt: skip
    history = [{"loss": 1.0, "val_loss": 1.0, "val_lwlrap": 0.5, "val_map": 0.4}] * 3
    plots.plot_learning_curves(history, 1, "title", tmp_path / "a.png")
    assert names == ["loss", "val_loss", "val_map", "val_lwlrap"]


def test_a_fold_run_has_figures_of_its_labels(tmp_path: Path) -> None:
    dataset = SimpleNamespace(config=Config.resolve({"task": "multi"}), targets=TARGETS, labels=LABELS)
    state = SimpleNamespace(history=[{"loss": 1.0, "val_loss": 1.0, "val_lwlrap": 0.5, "val_map": 0.4}], best_epoch=0)
    result = SimpleNamespace(train=SCALED, held_out=np.arange(6) < 5, state=state)
    fold_records._plot(dataset, 0, result, tmp_path)
    names = {path.name for path in tmp_path.iterdir() if path.stat().st_size > 5000}
    assert names == {"learning_curves.png", "class_precision.png", "confusion.png"}
