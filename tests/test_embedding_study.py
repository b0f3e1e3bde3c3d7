"""Studies on embeddings, from the files to a served tagger; the formats of backbones have tests of their own."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner
from clip_files import flip
from helpers import make_dataset, read_csv, write_wav
from hostile_requests import request
from stores import current_store
from test_serving import Server
from tiny_backbones import RATE, WINDOW, tiny_backbone

from fsat.app.handlers import Limits, Sound, TagHandler
from fsat.backbones.descriptor import content_sha256
from fsat.backbones.library import library_dir
from fsat.cli import cli
from fsat.commands import blend_members
from fsat.commands.backbones import find_backbone
from fsat.commands.ensemble import Ensembled, ensemble
from fsat.commands.train import cross_validate
from fsat.config import Config
from fsat.data.dataset import Source
from fsat.data.embedding_store import embeddings_dir
from fsat.errors import AudioError, ConfigError, RunError, WindowError
from fsat.tagging import PyfuncTagger
from fsat.tracking.registry import open_tagger
from fsat.tracking.select_runs import FoldRun

pytestmark = pytest.mark.slow
EPOCHS = {"max_epochs": 20, "batch_size": 8, "n_folds": 2, "seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("study")
    make_dataset(root / "tones", clips_per_class=6, test_clips=3)
    (root / "store").mkdir()
    with current_store(root / "store"):
        yield root


def config_of(descriptor: Path, **options: object) -> Config:
    windows = {"sampling_rate": RATE, "audio_duration": WINDOW}
    return Config.resolve({"model": "embedding", "backbone": str(descriptor), **windows, **EPOCHS, **options})


def fsat(*arguments: object) -> str:
    result = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


class Trained(NamedTuple):
    """A study on a backbone of ONNX, its ensemble, registered as ``tones``, and what both said."""

    descriptor: Path
    records: list[FoldRun]
    ensemble: Ensembled
    messages: str


@pytest.fixture(scope="module")
def trained(folder: Path) -> Trained:
    descriptor = tiny_backbone(folder / "onnx", "onnx")
    facts = json.loads(descriptor.read_text()) | {"license": "CC BY-NC 4.0", "source": "https://example.org/net"}
    descriptor.write_text(json.dumps(facts))
    with redirect_stderr(StringIO()) as messages:
        records = cross_validate(Source(folder / "tones"), config_of(descriptor))
        made = ensemble(run_ids=[record.run_id for record in records], register_as="tones")
    return Trained(descriptor, records, made, messages.getvalue())


def test_from_files_to_tags(folder: Path, trained: Trained) -> None:
    descriptor, records, made, messages = trained
    config = records[0].config
    assert config.backbone.startswith("onnx@")
    assert (config.embedding_size, config.window_hop) == (8, WINDOW / 2)
    again = cross_validate(Source(folder / "tones"), config_of(descriptor.parent))
    assert [record.run_id for record in again] == [record.run_id for record in records]  # the same study
    client = mlflow.MlflowClient()
    stored = client.search_runs(["0"], f"tags.`fsat.stage` = 'backbone' and tags.`fsat.backbone` = '{config.backbone}'")
    assert [(run.info.status, run.data.tags["fsat.license"]) for run in stored] == [("FINISHED", "CC BY-NC 4.0")]
    assert "licence CC BY-NC 4.0 (non-commercial use only" in messages
    assert made.scores["accuracy"].iloc[-1] > 0.8  # tones are told apart
    version = client.get_model_version("tones", "1")
    assert version.tags["fsat.backbones"] == config.backbone
    assert "CC BY-NC 4.0" in version.description
    page = Path(mlflow.artifacts.download_artifacts(run_id=made.run_id, artifact_path="report.html"))
    assert "non-commercial use only" in page.read_text()
    tagger = open_tagger("models:/tones/1")
    assert list(tagger.backbones) == [config.backbone_digest]
    files = sorted((folder / "tones" / "audio_test").glob("test_0*.wav"))
    scores, errors = tagger.scores(files)
    assert errors == [""] * len(files)
    logged = np.load(mlflow.artifacts.download_artifacts(run_id=made.run_id, artifact_path="predictions/test.npy"))
    np.testing.assert_allclose(scores, tagger.scaling.apply(logged), atol=1e-5)
    served = PyfuncTagger(tagger).predict(pd.DataFrame({"audio": [file.read_bytes() for file in files]}))
    assert [labels[0] for labels in served["labels"]] == [tagger.labels[i] for i in logged.argmax(axis=1)]


@pytest.mark.server
def test_a_clip_without_an_embedding_has_an_error_and_the_others_have_scores(
    folder: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagger = open_tagger("models:/tones/1")
    (runtime,), files = tagger.backbones.values(), sorted((folder / "tones" / "audio_test").glob("*.wav"))
    embed, expected, seen = runtime.embed, tagger.scores(files)[0], []
    monkeypatch.setattr(runtime, "embed", lambda windows: seen.append(windows) or embed(windows))
    tagger.scores(files[1:2])

    def failing(windows: np.ndarray) -> np.ndarray:
        if (windows == seen[0][0]).all(axis=1).any():
            raise WindowError("net: NaN")
        return embed(windows)

    monkeypatch.setattr(runtime, "embed", failing)
    scores, errors = tagger.scores(files)
    assert errors == ["", "net: NaN", ""]
    np.testing.assert_array_equal(scores[[0, 2]], expected[[0, 2]])
    assert np.isnan(scores[1]).all()
    served = PyfuncTagger(tagger).predict(pd.DataFrame({"audio": [file.read_bytes() for file in files]}))
    assert served["error"].tolist() == errors
    with pytest.raises(AudioError, match="net: NaN"):
        list(tagger.over_time(files[1], WINDOW, WINDOW))


def test_the_served_tagger_brings_its_backbone(folder: Path, trained: Trained, tmp_path: Path) -> None:
    """The server has another cache folder, and fsat's code and the backbone from the registered model alone."""
    files = sorted((folder / "tones" / "audio_test").glob("test_0*.wav"))
    expected = open_tagger("models:/tones/1").scores(files)[0]
    command = "mlflow models serve -m models:/tones/1 --env-manager local --port 5001"
    with Server(f"export FSAT_CACHE_DIR={tmp_path}/cache\n{command}", tmp_path, folder / "store") as server:
        rows = server.tags(request(*(file.read_bytes() for file in files), top_k=3))
    labels = sorted(rows[0]["labels"])
    received = [[dict(zip(row["labels"], row["scores"], strict=True))[label] for label in labels] for row in rows]
    np.testing.assert_allclose(received, expected, atol=1e-6)


def test_the_page_tags_a_recording_over_time(folder: Path, trained: Trained, tmp_path: Path) -> None:
    names = [folder / "tones" / "audio_train" / f"{name}_00.wav" for name in ("bell", "cello", "flute")]
    clips = [soundfile.read(name)[0] for name in names]
    path = tmp_path / "recording.wav"
    write_wav(path, np.tile(np.concatenate(clips), 3), RATE)
    html = TagHandler(open_tagger("models:/tones/1"), Limits(), 3).answer([Sound(str(path), path.name)])
    spans = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", html)
    assert {label for _, _, label in spans} == {f"<bdi>{label}</bdi>" for label in ("Bell", "Cello", "Flute")}


def test_the_command_line_takes_rate_and_windows_from_the_backbone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = tiny_backbone(folder / "commands", "tflite_tensor")
    options = [word for name, value in EPOCHS.items() for word in (f"--{name}", value)]
    data = ["--data_dir", folder / "tones"]
    one = fsat("cross_validate", *data, "--model", "embedding", "--backbone", descriptor, *options, "--head", "mlp")
    other = fsat("cross_validate", *data, "--model", "dummy1d", "--max_epochs", 1, "--n_folds", 2, "--seed", 1)
    runs = f"{one.strip()},{other.strip()}"
    fsat("ensemble", "--run_ids", runs, "--register_as", "mixed")
    stored = mlflow.get_run(one.strip().split(",")[0]).data.params["backbone"]
    shutil.rmtree(embeddings_dir())
    again = fsat("cross_validate", *data, "--model", "embedding", "--backbone", stored, *options, "--head", "mlp")
    assert again == one  # by its name and digest it is the same study
    assert not embeddings_dir().exists()  # a FINISHED fold needs none
    fit = blend_members.cross_fit
    monkeypatch.setattr(blend_members, "cross_fit", lambda *parts: replace(fit(*parts), final=np.array([0.0, 1.0])))
    fsat("ensemble", "--run_ids", runs, "--register_as", "mixed", "--blend", "weighted")
    versions = [mlflow.MlflowClient().get_model_version("mixed", number) for number in ("1", "2")]
    assert ["fsat.backbones" in version.tags for version in versions] == [True, False]  # as its study has weight 0
    assert ["licence" in version.description for version in versions] == [True, False]
    table = folder / "tags.csv"
    clip = folder / "tones" / "audio_train" / "bell_00.wav"
    fsat("predict", "--input", clip, "--model", "models:/mixed/1", "--window", 0.2, "--output", table)
    assert {row["error"] for row in read_csv(table)} == {""}
    exported = folder / "tagger.tflite"
    result = CliRunner().invoke(cli, ["export", "--format", "tflite", "--model", "models:/mixed/1",
                                      "--output", str(exported)], catch_exceptions=False)  # fmt: skip
    assert "backbone tflite_tensor from tests/tiny_backbones.py: licence CC0" in result.stderr
    about = json.loads((folder / "tagger.tflite.json").read_text())
    assert [(entry["license"], len(entry["sha256"])) for entry in about["backbones"]] == [("CC0", 64)]
    assert about["difference"]["greatest"] < 1e-4
    note = mlflow.get_run(about["export_run"]).data.tags["mlflow.note.content"]
    assert "- backbone tflite_tensor from tests/tiny_backbones.py: licence CC0 (it holds for the tagger too)" in note
    arguments = ["export", "--format", "keras", "--model", "models:/mixed/1", "--output", str(folder / "no.keras")]
    refused = str(CliRunner().invoke(cli, arguments).exception)
    assert "(tflite) fits into onnx or tflite only; use format=onnx, or other members" in refused
    for wrong in (["--sampling_rate", "16000"], ["--audio_duration", "1"], ["--embedding_size", "5"]):
        arguments = ["--model", "embedding", "--backbone", str(descriptor), *map(str, options), *wrong]
        result = CliRunner().invoke(cli, ["train_fold", "--fold", "0", *map(str, data), *arguments])
        assert isinstance(result.exception, ConfigError)
        assert str(result.exception).startswith(f"{wrong[0][2:]}={wrong[1]}")
    result = CliRunner().invoke(cli, ["train_fold", "--fold", "0", *map(str, data), "--model", "embedding"])
    assert "backbone=none: expected the descriptor" in str(result.exception)


def test_a_study_continues_with_the_backbone_of_the_server(folder: Path) -> None:
    """Its name and digest are enough: the cache folder may be empty, as on another machine."""
    descriptor = tiny_backbone(folder / "attention", "keras_layer")
    options = {"pooling": "attention", "class_weights": "balanced"}
    records = cross_validate(Source(folder / "tones"), config_of(descriptor, **options))
    settled = records[0].config
    shutil.rmtree(library_dir())
    shutil.rmtree(descriptor.parent)
    again = cross_validate(Source(folder / "tones"), settled)
    assert [record.run_id for record in again] == [record.run_id for record in records]
    flip(copy := library_dir() / settled.backbone_digest / "network.keras", 50)
    assert find_backbone(settled.backbone).path == copy  # fetched again, as the copy is damaged
    assert content_sha256(copy) == find_backbone(settled.backbone).sha256
    with pytest.raises(RunError, match="neither in the cache folder nor in a run on "):
        cross_validate(Source(folder / "tones"), config_of(Path("tiny@0123456789abcdef")))
