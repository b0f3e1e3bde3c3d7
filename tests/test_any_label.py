"""A study of labels with spaces, separators, markup and several scripts: every step gives the labels of the table."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from helpers import make_dataset, read_csv, tone, write_csv, write_wav
from html_page import Page

from fsat.app.handlers import Limits, Sound, TagHandler
from fsat.cli import cli
from fsat.commands.predict import predict
from fsat.commands.train import prepare_dataset
from fsat.commands.verify_labels import verify
from fsat.config import Config
from fsat.data.dataset import Source
from fsat.metrics.ranking import top_k
from fsat.options import TagSettings
from fsat.tracking.registry import open_tagger

pytestmark = pytest.mark.slow

LABELS = sorted([
    "Dog bark", "Chirp, tweet", "R/C car", "犬 の声", "鳥\u3000の声", "Żaba", "$x^2$ | `a`", '<b>bold</b> & "q"', "12",
    "naïve café", "=1+1", "_hidden", "👩\u200d🚒",
])  # fmt: skip
IN_SUBMISSIONS = ["_".join(label.split()) for label in LABELS]

SETTINGS = {
    "model": "dummy1d", "sampling_rate": 8000, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 4, "batch_size": 8,
    "learning_rate": 0.003, "patience": 4, "precision": "float32",
}  # fmt: skip


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@dataclass(frozen=True)
class Study:
    """The dataset, what `main` has printed, and its run of each stage; of ``train_fold`` the last one."""

    data: Path
    main: Result
    run_ids: dict[str, str]

    def artifact(self, stage: str, name: str) -> Path:
        return Path(mlflow.artifacts.download_artifacts(run_id=self.run_ids[stage], artifact_path=name))

    def table(self, stage: str, name: str) -> list[dict[str, str]]:
        return read_csv(self.artifact(stage, name))


@pytest.fixture(scope="module")
def study(store) -> Study:
    """The study by `main`, from the table of labels to tags of the test clips."""
    data = make_dataset(store / "data", classes=LABELS, clips_per_class=4, test_clips=13, fold_column=2, unverified=0.5)
    options = [f"--{name}={value}" for name, value in SETTINGS.items()]
    result = run(
        "main",
        "--data_dir",
        data,
        "--models",
        "dummy1d",
        *options,
        "--register_as",
        "labels",
        "--output",
        store / "tags.jsonl",
    )
    return Study(
        data, result, {r.data.tags["fsat.stage"]: r.info.run_id for r in mlflow.search_runs(output_format="list")}
    )


def test_tables_have_the_labels_of_the_table(study) -> None:
    given = {row["fname"]: row["label"] for row in read_csv(study.data / "train.csv")}
    for stage in ("train_fold", "ensemble"):
        assert json.loads(study.artifact(stage, "labels.json").read_text()) == LABELS
        clips = [row for row in study.table(stage, "predictions/clips.csv") if row["split"] != "test"]
        assert {row["fname"]: row["label"] for row in clips} == given
    (header, *_), classes = (
        study.table("ensemble", "reports/confusion.csv"),
        study.table("ensemble", "reports/classes.csv"),
    )
    assert list(header) == ["label", *LABELS]
    assert sorted(row["label"] for row in classes) == LABELS
    suspects = study.table("ensemble", "reports/suspects.csv")
    assert all(given[row["fname"]] == row["label"] != row["believed"] in LABELS for row in suspects)


def test_a_submission_has_underscores_and_is_scored(study, tmp_path) -> None:
    message = "note: predictions/submission.csv has _ for the spaces in labels, such as "
    assert study.main.stderr.count(message) == 1
    table = study.table("ensemble", "predictions/submission.csv")
    best = top_k(np.load(study.artifact("ensemble", "predictions/test.npy")))
    assert [row["label"].split() for row in table] == [[IN_SUBMISSIONS[j] for j in row] for row in best]
    rows = [(row["fname"], LABELS[j]) for row, j in zip(table, best[:, 0], strict=True)]
    truth = write_csv(tmp_path / "truth.csv", ["fname", "label"], rows)
    scores = run("score", study.artifact("ensemble", "predictions/submission.csv"), truth).stdout
    assert scores.split()[-4:] == ["all", str(len(rows)), "1.0000", "1.0000"]


def test_pages_show_the_labels(study) -> None:
    for stage, name in (("eda", "eda.html"), ("ensemble", "report.html")):
        path = study.artifact(stage, name)
        page, html = Page(path), path.read_text()
        assert sorted(row[0] for row in page.sections["classes"].tables[0]) == LABELS
        assert not [text for text in ("<b>bold", "\\u", "\\x") if text in html]
    titles = {lines[0].rsplit(" (", 1)[0] for name in ("suspects", "hardest") for lines in page.sections[name].clips}
    assert titles <= set(LABELS)
    listened = Page(study.artifact("eda", "eda.html")).sections["listen"].clips
    assert {lines[0] for lines in listened} == set(LABELS)


def test_the_server_s_records_are_readable(study) -> None:
    for run_id in study.run_ids.values():
        text = mlflow.get_run(run_id).data.tags.get("mlflow.note.content", "")
        assert "<b>" not in text
    model = mlflow.models.get_model_info("models:/labels/1")
    assert model.metadata["labels"] == LABELS


def test_tags_have_the_labels(study, store, tmp_path) -> None:
    rows = [json.loads(line) for line in (store / "tags.jsonl").read_text().splitlines()]
    tagger = open_tagger("models:/labels/1")
    assert tagger.labels == LABELS
    assert all(len(row["labels"]) == 3 and set(row["labels"]) <= set(LABELS) for row in rows)
    assert all(label in study.main.stdout for label in rows[0]["labels"])
    sounds = [tone(frequency, 0.5, 8000) for frequency in np.geomspace(300, 3200, len(LABELS))]
    recording = write_wav(tmp_path / "day.wav", np.concatenate(sounds))
    predict(
        str(recording),
        tmp_path / "day.csv",
        "models:/labels/1",
        TagSettings(window=0.25),
        label_tracks=tmp_path / "tracks",
    )
    spans = read_csv(tmp_path / "day.csv")
    heard = {row["label"] for row in spans}
    assert heard <= set(LABELS)
    track = (tmp_path / "tracks" / "day.wav.txt").read_text().splitlines()
    assert [line.split("\t")[2] for line in track] == [row["label"] for row in spans]

    served = mlflow.pyfunc.load_model("models:/labels/1").predict(
        pd.DataFrame({"audio": [recording.read_bytes()]}), {"top_k": 99}
    )
    assert sorted(served["labels"][0]) == LABELS

    html = TagHandler(tagger, Limits(), 99).answer([Sound(str(recording), "day.wav")])
    assert "<b>bold" not in html
    names = re.findall(r'<th scope="row" title=".*?"><bdi>(.*?)</bdi>', html)
    assert len(names) == len(LABELS)
    assert {"Chirp, tweet", "鳥\u3000の声", "👩\u200d🚒", "_hidden"} < set(names)


def test_verified_labels_come_back(study) -> None:
    made = verify(
        run_ids=[
            r.info.run_id
            for r in mlflow.search_runs(filter_string="tags.`fsat.stage` = 'train_fold'", output_format="list")
        ]
    )
    rows = read_csv(Path(mlflow.artifacts.download_artifacts(run_id=made.run_id, artifact_path="labels.csv")))
    given = {row["fname"]: row["label"] for row in read_csv(study.data / "train.csv")}
    assert {row["fname"]: row["label"] for row in rows} == given
    config = Config.resolve({**SETTINGS, "labels_run_id": made.run_id})
    dataset = prepare_dataset(Source(study.data), config)
    new = dict(zip(dataset.manifest.train["fname"], dataset.target_classes, strict=True))
    for row in rows:
        expected = -1 if row["decision"] == "drop" else LABELS.index(row["new_label"])
        assert new[row["fname"]] == expected, row


def test_an_exported_file_has_the_labels(study, tmp_path) -> None:
    run("export", "--format", "tflite", "--model", "models:/labels/1", "--output", tmp_path / "labels.tflite")
    assert json.loads((tmp_path / "labels.tflite.json").read_text())["labels"] == LABELS
