"""Tags of recordings are scored against annotations, and thresholds are chosen and used."""

from __future__ import annotations

import json
import math
import os
import re
from itertools import pairwise
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from audio_bytes import make
from click.testing import CliRunner
from helpers import error_line, read_csv, tone, write_wav
from html_page import Page
from sed_reference import reference_scores
from stores import artifacts
from taggers import TINY, register_tagger, write_tagger

from fsat.cli import cli
from fsat.commands.evaluate import evaluate
from fsat.commands.predict import predict
from fsat.data.annotation_files import USUAL_COLUMNS
from fsat.data.audio import decode
from fsat.errors import ConfigError, DataError, FsatError, RunError
from fsat.options import EvaluateSettings, TagSettings
from fsat.reports.excerpts import clock, cut
from fsat.reports.players import MP3_RATE
from fsat.tagging import Tagger
from fsat.tracking.registry import open_tagger

pytestmark = pytest.mark.slow

RATE, MINUTES = 8000, 10
LABELS = ("Dog_bark", "Rain", "Rooster")
WINDOWS = TagSettings(window=5, hop=2.5)
RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAnnotation\n"


@pytest.fixture(scope="module")
def tagger(store) -> Tagger:
    """The champion, which knows three of the classes of ESC-10."""
    register_tagger(write_tagger(store / "tagger", [TINY], labels=LABELS))
    return open_tagger("models:/fsat@champion")


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory) -> Path:
    """A recording of ten minutes made of real clips, annotated in Audacity's and in Raven's format."""
    folder = tmp_path_factory.mktemp("real")
    clips = pd.read_csv(shared / "data/esc10/clips.csv")
    clips = clips[clips["label"].isin(LABELS)].sample(frac=1, random_state=0)
    rng = np.random.default_rng(0)
    samples, events = np.zeros(60 * MINUTES * RATE, np.float32), []
    starts = 2 + 8 * np.arange(len(clips)) + rng.uniform(0, 5, len(clips))  # some overlap
    for start, clip in zip(starts.round(3).tolist(), clips.itertuples(), strict=True):
        sound = decode(shared / "data/esc10/clips" / clip.fname, RATE)[: int(rng.integers(2, 6)) * RATE]
        at = round(start * RATE)
        samples[at : at + len(sound)] += 0.5 * sound
        events.append((start, start + len(sound) / RATE, clip.label))
    write_wav(folder / "sounds/day.wav", samples.clip(-1, 1), RATE)
    write_audacity(folder / "audacity/day.txt", events)
    rows = [f"{i}\t{view} 1\t1\t{start:.9f}\t{end:.9f}\t0.0\t4000.0\t{label}\n"
            for i, (start, end, label) in enumerate(events, 1) for view in ("Waveform", "Spectrogram")]  # fmt: skip
    (folder / "raven").mkdir()
    (folder / "raven/day.Table.1.selections.txt").write_text(RAVEN + "".join(rows))
    return folder


def write_audacity(path: Path, events) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{start:.6f}\t{end:.6f}\t{label}\n" for start, end, label in events))
    return path


def run_evaluate(input: Path, annotations: Path, output: Path, *options: str):
    """Run the command, and return its result and the newest run."""
    arguments = ["evaluate", "--input", input, "--annotations", annotations, "--output", output, *options]
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    runs = mlflow.search_runs(filter_string="tags.`fsat.stage` = 'evaluate'", output_format="list")
    return result, runs[0] if runs else None


def read_annotated(folder: Path) -> list[tuple[float, float, str]]:
    rows = (line.split("\t") for line in (folder / "day.txt").read_text().splitlines())
    return [(float(start), float(end), label) for start, end, label in rows]


@pytest.fixture(scope="module")
def evaluated(tagger, real, tmp_path_factory):
    """The folder and the run of the recording against its label track."""
    output = tmp_path_factory.mktemp("evaluated") / "evaluation"
    result, run = run_evaluate(real / "sounds", real / "audacity", output, "--hop", "2.5")
    assert result.exit_code == 0, result.output
    return output, run


@pytest.mark.process
def test_scores_of_real_clips_are_those_of_sed_eval_on_the_tags_of_predict(evaluated, real, tagger, tmp_path):
    output, run = evaluated
    predict(str(real / "sounds"), tmp_path / "tags.csv", "champion", WINDOWS)
    tags = pd.read_csv(tmp_path / "tags.csv").dropna(subset=["label"])
    assert tags["label"].nunique() > 1
    windows = list(tagger.over_time(real / "sounds/day.wav", 5, 2.5))
    middles = [(sum(before[:2]) + sum(after[:2])) / 4 for before, after in pairwise(windows)]
    scores = [[None if math.isnan(x) else float(x) for x in row] for _, _, row in windows]
    recording = {
        "seconds": 60.0 * MINUTES,
        "annotated": read_annotated(real / "audacity"),
        "detected": tags[["start", "end", "label"]].values.tolist(),
        "edges": [0.0, *middles, windows[-1][1]],
        "scores": scores,
    }
    reference = reference_scores([recording], list(LABELS), labels_of_curves=LABELS)
    metrics, names = run.data.metrics, {"f1": "f_measure", "precision": "precision", "recall": "recall",
                                        "error_rate": "error_rate"}  # fmt: skip
    for kind in ("segment", "event"):
        for name, other in names.items():
            for part, prefix in (("overall", ""), ("macro", "macro_")):
                expected = reference[f"{kind}s"][part][other]
                assert metrics.get(f"{kind}_{prefix}{name}") == pytest.approx(expected, rel=1e-6, abs=1e-6)
    classes = pd.read_csv(output / "tables/classes.csv").set_index("label")
    assert sorted(classes.index) == list(LABELS)
    for label, row in classes.iterrows():
        for kind in ("segment", "event"):
            expected = {
                f"{kind}_{name}": reference[f"{kind}s"]["classes"][label][other] for name, other in names.items()
            }
            expected = {name: math.nan if value is None else value for name, value in expected.items()}
            assert row[list(expected)].to_dict() == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)
        curve = reference["curves"][label]
        chosen = {name: row[f"chosen_{name}"] for name in ("threshold", "f1", "precision", "recall")}
        chosen["average_precision"] = row["average_precision"]
        assert chosen == pytest.approx(curve | {"threshold": max(0, curve["threshold"])}, rel=1e-6, abs=1e-6)
    precisions = [curve["average_precision"] for curve in reference["curves"].values()]
    assert metrics["segment_map"] == pytest.approx(np.mean(precisions), rel=1e-6)


def test_raven_tables_give_the_same_scores_without_tagging_again(evaluated, real, monkeypatch):
    output, run = evaluated
    monkeypatch.setattr(Tagger, "over_time", None)
    result, other = run_evaluate(real / "sounds", real / "raven", output, "--hop", "2.5")
    assert result.exit_code == 0, result.output
    assert other.info.run_id != run.info.run_id
    assert other.data.metrics == run.data.metrics


def test_the_page_has_curves_and_mistakes_to_listen_to(evaluated):
    output, run = evaluated
    page = Page(output / "evaluation.html")
    assert [*page.sections] == ["scores", "classes", "thresholds", "misses", "false-alarms", "recordings", "remarks"]
    misses, alarms = (pd.read_csv(output / f"tables/{name}.csv") for name in ("misses", "false_alarms"))
    for section, mistakes in (("misses", misses), ("false-alarms", alarms)):
        assert page.sections[section].tags["audio"] == min(20, len(mistakes)) > 0
    title, place, note = page.sections["misses"].clips[0]
    first = misses.iloc[0]
    assert (title, place) == (
        first["label"],
        f"day.wav at {clock(first['start'])}, {first['end'] - first['start']:.1f} s",
    )
    assert note.startswith(f"score {first['score']:.2f}; tagged: ")
    assert page.sections["thresholds"].tags["img"] == 2
    assert "flatter the tagger" in page.sections["scores"].text
    names = {
        path.relative_to(artifacts(run.info.run_id)).as_posix() for path in artifacts(run.info.run_id).rglob("*.*")
    }
    assert {"evaluation.html", "thresholds.json", "plots/thresholds.png", "tables/curves.csv"} <= names


def test_a_player_has_the_sound_of_its_time(real, tmp_path):
    path = write_wav(tmp_path / "a.wav", np.concatenate([np.zeros(3 * RATE), tone(440, 2, RATE), np.zeros(4 * RATE)]))
    silent, sounding, late = cut(path, [(0, 2.5), (3.5, 4.5), (8.5, 12)])
    assert [len(part) for part in (silent, sounding, late)] == [110250, 44100, 22050]
    assert abs(silent).max() < 1e-3
    assert abs(late).max() < 1e-3
    assert np.sqrt(np.mean(sounding**2)) == pytest.approx(0.5 / math.sqrt(2), rel=0.01)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])  # cut off after 6 s
    readable, cut_off, missing = cut(path, [(3.5, 4.5), (5, 8), (7, 8)])
    assert [len(part) / MP3_RATE for part in (readable, cut_off, missing)] == pytest.approx([1, 1, 0], abs=0.01)


@pytest.fixture(scope="module")
def tones(tagger, tmp_path_factory) -> Path:
    """Three recordings of tones of two classes, with tracks of what sounds in them."""
    folder = tmp_path_factory.mktemp("tones")
    for number, (low, high) in enumerate([(300, 450), (310, 460), (295, 440)]):
        parts = [tone(frequency, 2, RATE) for frequency in (low, high, low, low, high)]
        write_wav(folder / f"sounds/{number}.wav", np.concatenate(parts), RATE)
        labels = [LABELS[0], LABELS[1], LABELS[0], LABELS[0], LABELS[1]]
        write_audacity(folder / f"labels/{number}.txt", [(2 * i, 2 * i + 2, label) for i, label in enumerate(labels)])
    return folder


def test_thresholds_are_chosen_on_other_recordings_stored_and_used(tones, tagger, tmp_path):
    options = ["--window", "1", "--model", "models:/fsat/1"]
    result, run = run_evaluate(tones / "sounds", tones / "labels", tmp_path / "a", *options)
    assert "thresholds are stored with models:/fsat/1" in result.output
    assert run.data.metrics["cv_segment_f1"] > 0.7
    stored = json.loads((tmp_path / "a/thresholds.json").read_text())
    assert sorted(stored["thresholds"]) == [*LABELS[:2]]
    settings = TagSettings(window=1, min_score="auto")
    predict(str(tones / "sounds"), tmp_path / "tags.csv", "models:/fsat/1", settings)
    tags = pd.read_csv(tmp_path / "tags.csv").dropna(subset=["label"])
    expected = [
        (f"{number}.wav", label)
        for number in range(3)
        for _, _, row in tagger.over_time(tones / f"sounds/{number}.wav", 1, 1)
        for label, score in zip(LABELS, row, strict=True)
        if score >= np.float32(stored["thresholds"].get(label, stored["default"]))
    ]
    assert set(zip(tags["fname"], tags["label"], strict=True)) == set(expected)
    n_windows = (tags["end"] - tags["start"]).sum()
    assert n_windows == pytest.approx(len(expected))  # segments of windows of 1 s
    result, again = run_evaluate(tones / "sounds", tones / "labels", tmp_path / "a", *options, "--min_score", "auto")
    assert "stored with" not in result.output
    assert again.data.metrics["segment_f1"] == run.data.metrics["chosen_segment_f1"]
    assert again.data.metrics["n_tags"] == len(tags)


def test_thresholds_of_clips_and_of_other_windows(tones, tmp_path, capfd):
    run_evaluate(tones / "sounds", tones / "labels", tmp_path / "a", "--window", "1")
    predict(str(tones / "sounds"), tmp_path / "tags.csv", "champion", TagSettings(min_score="auto"))
    assert "thresholds were chosen with window=1 hop=1, and scores with window=0 hop=0" in capfd.readouterr().err
    stored = json.loads((tmp_path / "a/thresholds.json").read_text())
    for row in read_csv(tmp_path / "tags.csv"):
        for end in ("", "_2", "_3"):
            if label := row[f"label{end}"]:
                assert float(row[f"score{end}"]) >= stored["thresholds"].get(label, stored["default"]) - 1e-6


def test_thresholds_that_are_missing_or_changed_are_errors(tones, tmp_path, store):
    version = register_tagger(write_tagger(store / "other", [TINY], n_folds=1, labels=LABELS), "fsat", "other", "never")
    settings = TagSettings(min_score="auto")
    arguments = str(tones / "sounds"), tmp_path / "tags.csv", f"models:/fsat/{version}", settings
    message = error_line(RunError, predict, *arguments)
    assert f"models:/fsat/{version} has no thresholds; choose them with `mlflow run . -e evaluate" in message
    _, first = run_evaluate(tones / "sounds", tones / "labels", tmp_path / "a", "--model", str(version))
    predict(*arguments)
    result, run = run_evaluate(tones / "sounds", tones / "labels", tmp_path / "a", "--model", str(version))
    assert f"stored with models:/fsat/{version} in place of those of run {first.info.run_id}" in result.output
    predict(*arguments)
    path = artifacts(run.info.run_id) / "thresholds.json"
    path.write_text(path.read_text().replace('"members": "all"', '"members": "1"'))
    assert "has changed since it was made" in error_line(RunError, predict, *arguments)
    path.unlink()
    assert "thresholds.json of run" in error_line(RunError, predict, *arguments)
    message = error_line(RunError, predict, *arguments[:2], artifacts_of_version(version), settings)
    assert "is no registered version, and only these have thresholds" in message


def artifacts_of_version(version: int) -> str:
    return mlflow.artifacts.download_artifacts(f"models:/fsat/{version}")


def test_labels_that_the_tagger_lacks_are_counted(tones, tmp_path):
    events = [(0, 2, "dog bark"), (0, 2, "Dog_bark"), (2, 4, "Wren"), (4, 5, "Wren"), (5, 6, "Owl")]
    write_audacity(tmp_path / "labels/0.txt", events)
    result, run = run_evaluate(tones / "sounds", tmp_path / "labels", tmp_path / "out", "--window", "1")
    assert "3 annotations of 2 labels that the tagger does not know left out: Wren (2), Owl (1)" in result.output
    assert "1 label written otherwise than the tagger's: 'dog bark' is taken as 'Dog_bark'" in result.output
    assert "2 recordings without annotations: 1.wav, 2.wav" in result.output
    assert "that are never annotated count as false alarms: Rain" in result.output
    assert run.data.metrics["n_annotated"] == 1
    assert "Wren (2)" in Page(tmp_path / "out/evaluation.html").sections["remarks"].text
    result, other = run_evaluate(tones / "sounds", tmp_path / "labels", tmp_path / "out", "--window", "1", "--classes",
                                 "annotated")  # fmt: skip
    assert other.data.metrics["n_tags"] < run.data.metrics["n_tags"]
    assert other.data.metrics["segment_recall"] == run.data.metrics["segment_recall"]


def test_faults_of_annotations_have_file_and_line_and_nothing_is_tagged(tones, tmp_path, monkeypatch):
    monkeypatch.setattr(Tagger, "over_time", None)
    write_audacity(tmp_path / "labels/0.txt", [(0, 2, "Rain"), (3, 1, "Rain"), (9, 12, "Rain")])
    arguments = str(tones / "sounds"), tmp_path / "labels", tmp_path / "out", "champion", WINDOWS
    with pytest.raises(DataError) as caught:
        evaluate(*arguments, EvaluateSettings(), USUAL_COLUMNS)
    assert "2 faults; fix the rows listed above" in str(caught.value)
    assert [str(problem) for problem in caught.value.problems] == [
        "0.txt:2: 0.wav: end=1: before start=3",
        "0.txt:3: 0.wav: 9 to 12 s: the recording ends at 10 s",
    ]
    write_audacity(tmp_path / "labels/0.txt", [(0, 2, "Wren")])
    message = error_line(DataError, evaluate, *arguments, EvaluateSettings(), USUAL_COLUMNS)
    assert "no annotation has a label of the tagger (Dog_bark, Rain, Rooster)" in message
    (tmp_path / "link").symlink_to(tmp_path / "labels")
    for folder in ("labels/out", "sounds/../labels/out", "link/out"):
        message = error_line(
            ConfigError, evaluate, *arguments[:2], tmp_path / folder, *arguments[3:], EvaluateSettings(), USUAL_COLUMNS
        )
        assert "where its tables would be read as annotations; expected another folder" in message
    result, _ = run_evaluate(tones / "sounds", tmp_path / "none", tmp_path / "out")
    assert isinstance(result.exception, FsatError)
    assert "no such file or folder" in str(result.exception)


def test_what_cannot_be_read_is_left_out_with_a_word(tones, tmp_path):
    for name in ("0.wav", "1.wav"):
        (tmp_path / "sounds").mkdir(exist_ok=True)
        (tmp_path / f"sounds/{name}").write_bytes((tones / f"sounds/{name}").read_bytes())
    data = (tmp_path / "sounds/0.wav").read_bytes()
    (tmp_path / "sounds/0.wav").write_bytes(data[: len(data) // 2])
    (tmp_path / "sounds/2.wav").write_bytes(b"no sound")
    result, run = run_evaluate(tmp_path / "sounds", tones / "labels", tmp_path / "out", "--window", "1")
    assert result.exit_code == 0, result.output
    assert "warning: 0.wav: cut off after 5.00 s of 10.00 s; annotations of what cannot be read" in result.output
    assert run.data.metrics["n_annotated"] == 3 + 5
    table = pd.read_csv(tmp_path / "out/tables/recordings.csv").set_index("recording")
    assert table.loc["0.wav", "seconds"] == pytest.approx(5.0, abs=0.01)
    assert table["fault"].notna().tolist() == [name != "1.wav" for name in table.index]


def test_annotations_after_the_end_of_a_recording_of_unknown_length_are_left_out_with_a_word(tones, tmp_path):
    """The header of an AAC stream has no length, so the end is known when it is tagged."""
    pytest.importorskip("av")
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds/0.aac").write_bytes(make("aac"))
    write_audacity(tmp_path / "labels/0.txt", [(0, 2, "Rain"), (20, 22, "Rain"), (30, 31, "Wren")])
    result, run = run_evaluate(tmp_path / "sounds", tmp_path / "labels", tmp_path / "out", "--window", "1")
    assert result.exit_code == 0, result.output
    assert re.search(r"warning: 0.aac: ends at 4\.\d+ s, before 2 annotations; annotations of what", result.output)
    assert run.data.metrics["n_annotated"] == 1


def test_folders_whose_names_are_not_text(tones, tmp_path):
    folder, labels = tmp_path / os.fsdecode(b"sounds\xff"), tmp_path / os.fsdecode(b"labels\xff")
    folder.symlink_to(tones / "sounds")
    labels.symlink_to(tones / "labels")
    result, run = run_evaluate(folder, labels, tmp_path / "out", "--window", "1")
    assert result.exit_code == 0, result.output
    assert [Path(run.data.params[name]).name for name in ("input", "annotations")] == ["sounds\\xff", "labels\\xff"]
