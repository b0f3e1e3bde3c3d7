"""``report.html`` of a real ensemble: parsed as HTML, and in a browser."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from browser import Visit, chromium
from helpers import tone, write_wav
from html_page import Page
from stores import CLASSES, PLANTED

from fsat.commands.ensemble import ensemble
from fsat.data.playable_clips import Trained, find_clips
from fsat.errors import AudioError, RunError
from fsat.reports.players import encode
from fsat.tracking.fold_artifacts import is_test
from fsat.tracking.runs import epoch_history, history

SECTIONS = ["about", "scores", "curves", "classes", "confusion", "calibration", "suspects", "hardest"]


@pytest.fixture(scope="module")
def path(trained_store) -> Path:
    return fetch(trained_store.ensemble.run_id, "report.html")


def fetch(run_id: str, path: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path))


@pytest.fixture(scope="module")
def run_ids(trained_store) -> list[str]:
    return [record.run_id for record in trained_store.fold_runs]


def file_names(clips: list[list[str]]) -> list[str]:
    return [lines[-1].split(",")[0] for lines in clips]


def test_its_numbers_are_those_of_the_tables(path, run_ids, trained_store):
    page, made = Page(path), trained_store.ensemble
    sections = page.sections
    assert list(sections) == page.links == SECTIONS
    assert sum(section.tags["img"] for section in sections.values()) == 5
    assert "tones version 1 is now champion" in sections["about"].text
    assert set(run_ids) == {row[-1] for row in sections["about"].tables[1]}
    scores = pd.read_csv(fetch(made.run_id, "scores.csv"), keep_default_na=False)
    rows = sections["scores"].tables[0]
    assert [row[5] for row in rows] == [f"{value:.4f}" for value in scores["map3"]]
    assert [row[0] for row in rows] == scores["kind"].tolist()
    text = sections["scores"].text
    assert f"The blend has an out-of-fold mAP@3 of {scores['map3'].iloc[-1]:.4f} on 24 clips" in text
    assert "the same as its only study" in text
    assert "These scores are slightly optimistic" in text  # selected on its own fold
    classes = pd.read_csv(fetch(made.run_id, "reports/classes.csv"))
    rows = sections["classes"].tables[0]
    assert [row[0] for row in rows] == classes["label"].tolist()
    assert "Cel<i>lo" in classes["label"].tolist()
    assert [row[3] for row in rows] == [f"{value:.3f}" for value in classes["ap"]]

    suspects, clips = pd.read_csv(fetch(made.run_id, "reports/suspects.csv")), sections["suspects"].clips
    assert suspects["fname"][0] == PLANTED
    assert file_names(clips) == suspects["fname"].head(20).tolist()
    assert clips[0][0] == "Flute (not verified)"
    assert clips[0][1].startswith(f"guesses: {suspects['believed'][0]} {suspects['p_believed'][0]:.2f}")
    oof, clips = np.load(fetch(made.run_id, "predictions/oof.npy")), sections["hardest"].clips
    rows = pd.read_csv(fetch(run_ids[0], "predictions/clips.csv")).query("split != 'test'").reset_index(drop=True)
    p_label = oof[np.arange(len(oof)), rows["label"].map(sorted(CLASSES).index)]
    scored = rows["manually_verified"].eq(1) & ~np.isnan(p_label)
    hard = rows.assign(p=p_label)[scored].sort_values("p", kind="stable")["fname"]
    assert file_names(clips) == hard.tolist()[:20]
    assert all("(verified)" in lines[0] for lines in clips)
    assert "too few are verified for a list of 20" in sections["hardest"].text
    assert sections["suspects"].tags["audio"] + sections["hardest"].tags["audio"] == len(suspects) + len(hard)


@pytest.mark.browser
def test_in_a_browser(path, tmp_path):
    """From a disk; `test_eda_page` looks at such a page in MLflow too."""
    with chromium(write_wav(tmp_path / "a.wav", tone(440, 1, 8000))) as browser:
        visit = Visit(browser, path.as_uri(), viewport={"width": 900, "height": 800})
        assert visit.page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 300)")
        assert visit.page.evaluate("document.querySelector('audio').currentTime") == 0
        visit.page.eval_on_selector("audio", "audio => audio.play()")
        visit.page.wait_for_function("document.querySelector('audio').currentTime > 0.1")
        visit.page.set_viewport_size({"width": 360, "height": 700})
        assert visit.page.evaluate("document.documentElement.scrollWidth") == 360
        assert visit.complaints == []
        assert visit.hosts <= {""}


def test_without_the_clips_the_lists_say_why_they_have_no_players(run_ids, tmp_path):
    folder = tmp_path / "nowhere <b>"
    again = ensemble(run_ids=run_ids, register_as="tones", data_dir=folder)
    assert mlflow.get_run(again.run_id).info.status == "FINISHED"
    sections = Page(fetch(again.run_id, "report.html")).sections
    assert "tones version 1 is this blend already, and stays champion" in sections["about"].text
    assert sections["suspects"].clips[0][-1] == PLANTED
    for name in ("suspects", "hardest"):
        assert sections[name].tags["audio"] == 0
        reason = f"No players: this machine has no folder {folder} with the clips: name the folder with --data_dir DIR"
        assert reason in sections[name].text


def test_a_tagger_that_cannot_be_registered_has_a_page(run_ids, monkeypatch):
    monkeypatch.setattr("fsat.commands.ensemble.check_registration", lambda *_: None)  # only the registry refuses it
    with pytest.raises(RunError, match="refused"):
        ensemble(run_ids=run_ids, register_as="a/b")
    (run,) = mlflow.search_runs(filter_string="tags.`fsat.stage` = 'ensemble'", max_results=1, output_format="list")
    assert run.info.status == "FAILED"
    assert "The tagger is not registered: " in fetch(run.info.run_id, "report.html").read_text()


def test_clips_are_found_where_they_are_those_that_were_trained_on(trained_store, tmp_path, monkeypatch):
    record, data = trained_store.fold_runs[0], trained_store.data
    table = pd.read_csv(fetch(record.run_id, "predictions/clips.csv"), dtype=str, keep_default_na=False)
    trained = Trained(table, is_test(table), record.dataset, record.run.info.start_time / 1000)
    where = [str(data)]
    there = find_clips(trained, where)
    assert (there.folder, there.note, there.before) == (data / "audio_train", "", None)
    assert there.path(PLANTED) == data / "audio_train" / PLANTED
    for name in ("../train.csv", str(data / "train.csv"), ""):
        with pytest.raises(AudioError):
            there.path(name)

    copy = Path(shutil.copytree(data, tmp_path / "copy", copy_function=shutil.copyfile))
    corrected = (copy / "train.csv").read_text().replace(f"{PLANTED},Flute,0", f"{PLANTED},Bell,1")
    (copy / "train.csv").write_text(corrected)
    assert "Bell,1" in corrected
    moved = find_clips(trained, where, copy)
    assert (moved.folder, moved.note) == (copy / "audio_train", "")  # a label that was put right changes no sound
    names = [copy / "audio_train" / name for name in ("flute_00.wav", "flute_01.wav")]
    sounds = [path.read_bytes() for path in names]
    for path, sound in zip(names, sounds[::-1], strict=True):
        path.write_bytes(sound)
    for known in (where, [str(copy)]):
        renamed = find_clips(trained, known, copy)
        assert renamed.folder is None
        assert f"{copy} differs from what was trained on (its clips have other names)" in renamed.note
    for path, sound in zip(names, sounds, strict=True):
        path.write_bytes(sound)
    (copy / "audio_train" / PLANTED).write_bytes((copy / "audio_train" / "flute_00.wav").read_bytes())
    other = find_clips(trained, where, copy)
    assert other.folder is None
    assert f"No players: {copy} differs from what was trained on (its digest is " in other.note
    own = find_clips(trained, [str(copy)])  # as if it had been trained on: times tell
    for path in (copy / "audio_train").iterdir():
        os.utime(path, (0, trained.began + (5 if path.name == PLANTED else -5)))
    with pytest.raises(AudioError, match="the file was changed after the training"):
        own.path(PLANTED)
    assert own.path("bell_01.wav").is_file()
    assert "clips whose files were changed since then have no player" in own.note
    monkeypatch.setattr("fsat.data.playable_clips.CLIPS_CHECKED", 3)
    many = find_clips(trained, [str(copy)])
    assert "has too many clips to compare them all" in many.note
    assert many.before == trained.began
    monkeypatch.undo()
    (copy / "audio_train" / "bell_01.wav").unlink()
    own = find_clips(trained, [str(copy)])
    assert "a clip is missing or unusable" in own.note
    assert list(encode(["bell_01.wav"], own.path, 1)) == ["missing file"]
    assert find_clips(trained, [], tmp_path).note.startswith(f"No players: {tmp_path} ")
    assert "the runs do not say where the clips were" in find_clips(trained, []).note


def test_histories_are_those_of_the_epochs(trained_store):
    record = trained_store.fold_runs[0]
    losses, scores = (epoch_history(record.run_id, key) for key in ("val_loss", "val_map3"))
    assert list(losses) == list(scores) == list(range(len(losses)))
    metrics = record.run.data.metrics
    assert losses[round(metrics["best_epoch"])] == pytest.approx(metrics["best_val_loss"])
    assert len(history(record.run_id, "val_map3")) == len(scores) + 1  # the last is that of the weights kept
    with mlflow.start_run() as old:
        for step, value in enumerate((float("nan"), float("inf"), 2.5)):
            mlflow.log_metric("val_loss", value, step=step)
    assert history(old.info.run_id, "val_loss") == {2: 2.5}
    assert history(old.info.run_id, "val_map3") == {}
