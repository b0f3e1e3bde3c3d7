"""Descriptions, the shared view and the colours of runs, and that a person's own texts are never replaced."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from fsat.config import Config
from fsat.reports import run_descriptions
from fsat.text import LIMIT
from fsat.tracking import client, mlflow_ui, runs
from fsat.tracking.client import Session
from fsat.tracking.mlflow_ui import NOTE, describe


@pytest.fixture
def run_id(store):
    with runs.tracked("train_fold", "described") as run_id:
        yield run_id


def note(run_id: str) -> str:
    return mlflow.get_run(run_id).data.tags[NOTE]


def test_a_description_is_replaced_until_a_person_changes_it(run_id) -> None:
    describe("first")
    describe(lambda link: f"second {link}")
    assert note(run_id) == f"second #/experiments/0/runs/{run_id}"
    mlflow.MlflowClient().set_tag(run_id, NOTE, "a person's words")
    describe("third")
    assert note(run_id) == "a person's words"


def test_passwords_and_long_texts_are_not_stored(run_id) -> None:
    describe("see http://ann:secret@host/\n" + "a line of words\n" * 1000)
    text = note(run_id)
    assert text.startswith("see http://ann:***@host/\na line of words\n")
    assert LIMIT - 20 < len(text) <= LIMIT
    assert text.endswith("words\n…")


def test_a_version_and_its_model_are_described_once(run_id) -> None:
    own = mlflow.MlflowClient()
    own.create_registered_model("described")
    mlflow.log_text(f"run_id: {run_id}\nflavors: {{}}\n", "tagger/MLmodel")
    own.create_model_version("described", mlflow.get_artifact_uri("tagger"), run_id)
    mlflow_ui.describe_version("described", 1, "a version", "a model")
    mlflow_ui.describe_version("described", 1, "another", "another")
    assert own.get_model_version("described", "1").description == "a version"
    assert own.get_registered_model("described").description == "a model"


def test_a_view_is_stored_once_and_fits_into_a_tag(run_id, monkeypatch) -> None:
    link = mlflow_ui.share_view("an experiment")
    assert link == f"http://127.0.0.1:5000/{mlflow_ui.view_link()}"
    tags = mlflow.get_experiment("0").tags
    assert tags[NOTE] == "an experiment"
    assert len(tags[mlflow_ui.VIEW_TAG]) < 5000
    view = json.loads(tags[mlflow_ui.VIEW_TAG])
    assert view["name"] == mlflow_ui.VIEW_NAME
    assert view["state"].startswith("deflate;")
    assert view["selectedColumns"] == mlflow_ui.VIEW["selectedColumns"]
    mlflow.MlflowClient().set_experiment_tag("0", NOTE, "a person's words")
    calls = []
    monkeypatch.setattr(mlflow_ui, "call", lambda function: calls.append(function) or function())
    assert mlflow_ui.share_view("another") == link
    assert len(calls) == 1
    assert mlflow.get_experiment("0").tags[NOTE] == "a person's words"


def test_without_permission_there_is_one_warning_and_no_error(run_id, monkeypatch, capsys) -> None:
    refuse = mock.Mock(side_effect=MlflowException("Permission denied", error_code=PERMISSION_DENIED))
    session = Session(reached=set(client.SESSION.reached))
    monkeypatch.setattr(mlflow_ui, "SESSION", session)
    with monkeypatch.context() as patch:
        for name in ("get_experiment", "log_batch", "get_model_version", "search_runs"):
            patch.setattr(mlflow.MlflowClient, name, refuse)
        assert [mlflow_ui.share_view("text") for _ in range(2)] == ["", ""]
        describe("anything")
        mlflow_ui.give_colour("ab")
    lines = capsys.readouterr().err.splitlines()
    actions = ("store a view on the experiment", "describe runs", "colour runs")
    assert [line.partition(",")[0] for line in lines] == [f"warning: cannot {action}" for action in actions]
    assert all("does not permit this to" in line for line in lines)


def test_the_address_of_the_view_has_no_password(monkeypatch) -> None:
    for uri, words in {
        "http://ann:secret@host:8000/": "at http://host:8000/#/x",
        "sqlite:///mlflow.db": "with `mlflow ui`, then open http://127.0.0.1:5000/#/x",
    }.items():
        monkeypatch.setattr(mlflow, "get_tracking_uri", lambda uri=uri: uri)
        assert mlflow_ui.how_to_compare(f"{mlflow_ui.page()}#/x") == f"Compare the runs {words}"


def test_studies_share_a_colour_only_if_there_are_more_than_colours() -> None:
    taken: list[str] = []
    for study in range(len(mlflow_ui.COLOURS)):
        taken.insert(0, mlflow_ui.new_colour(f"{study % 3:x}", taken))
    assert sorted(taken) == sorted(mlflow_ui.COLOURS)
    assert mlflow_ui.new_colour("ff", taken) == taken[-1]


def test_one_of_a_kind_is_singular() -> None:
    params = {name: str(value) for name, value in Config().to_dict().items()}
    params |= {"fold": "0", "n_train": "1", "n_val": "1"}
    tags = {"fsat.study": "s", "fsat.data_dir": "/data/tones"}
    assert "1 clip to train on, 1 to validate." in run_descriptions.fold(params, tags, {}, "#run", "#view")
    decisions = {"verified": 3, "accept": 1, "relabel": 0, "drop": 0, "keep": 0}
    text = run_descriptions.verify(1, ["s"], decisions, 0.0, "", "r", "#run")
    assert "Of 1 unverified label, about 0% of them wrong: 1 accepted, 0 replaced, 0 dropped, 0 left unchanged." in text
    facts = ["conv1d"], ["s"], 1, 1, "/data/tones", "geometric", {}, "nothing", "tones", 1, "first"
    tagger = run_descriptions.Tagger(*facts)
    assert "with 1 label: a blend of 1 fold of conv1d" in run_descriptions.version(tagger, "#run")[0]


def test_descriptions_have_the_scores_of_the_task() -> None:
    params = {name: str(value) for name, value in Config.resolve({"task": "multi"}).to_dict().items()}
    params |= {"fold": "0", "n_train": "10", "n_val": "5"}
    tags = {"fsat.study": "s", "fsat.data_dir": "/data/scenes"}
    scores = {"val_lwlrap": 0.8, "val_map": 0.7, "best_epoch": 3.0, "val_loss": 0.1}
    text = run_descriptions.fold(params, tags, scores, "#run", "#view")
    assert ", fold 0**: `val_lwlrap` **0.8000**, `val_map` **0.7000**. Look at" in text
    assert "map3" not in text
    oof = {"oof_lwlrap": 0.8, "oof_map": 0.7, "oof_f1_micro": 0.6, "oof_ece": 0.1, "oof_ece_scaled": 0.02}
    facts = ["conv1d"], ["s"], 1, 1, "/data/scenes", "geometric", oof, "nothing", "scenes", 1, "first"
    tagger = run_descriptions.Tagger(*facts)
    text = run_descriptions.ensemble(tagger, "#run", "#view")
    assert [name for name, value in oof.items() if f"- `{name}` **{value:.4f}** " not in text] == []
    version, model = run_descriptions.version(tagger, "#run")
    assert "- `oof_lwlrap` **0.8000** out of fold: each clip" in version
    assert "is the best by out-of-fold lwlrap on" in model
    row = {"study": "s", "model": "m", "lwlrap": 0.8, "map": 0.7, "lwlrap_verified": 0.9, "minutes": 1.0}
    text = run_descriptions.main(Path("scenes"), ["m"], [row], "champion", "#view")
    assert "| study | model | OOF lwlrap | mAP | lwlrap verified | minutes |\n| --- |" in text
    assert "| s | m | 0.8000 | 0.7000 | 0.9000 | 1.0000 |" in text
    assert "own, the share that are its own too" in text
