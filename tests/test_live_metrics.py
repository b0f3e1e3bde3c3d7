"""An unreachable tracking server, or lost answers, cost nothing: afterwards everything is on the server, once."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path
from unittest import mock

import mlflow
import pytest
import requests
from click.testing import CliRunner
from fsat_process import start_fsat
from helpers import make_dataset, one_line
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from servers import MlflowServer
from stores import artifacts
from taggers import register_tagger, write_tagger

from fsat.cli import cli
from fsat.commands.train import train_fold
from fsat.config import Config
from fsat.data.dataset import Source
from fsat.data.manifest import read_manifest
from fsat.errors import RunError
from fsat.options import Launch
from fsat.tracking import client, runs
from fsat.tracking.client import ServerUnreachable
from fsat.tracking.fold_artifacts import checksums, write_checksums
from fsat.tracking.live_metrics import LiveMetrics, ServerCheckpoint, sync, upload_checkpoint
from fsat.tracking.run_folder import Fold, RunFolder, run_folders
from fsat.training.checkpoint import count_epochs

TINY = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 3}
LONG = {**TINY, "max_epochs": 200, "patience": 1000}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=4, test_clips=2)


def assert_complete(store: mlflow.MlflowClient, run_id: str, folder: Path, epochs: int) -> None:
    """Check that a run is FINISHED, with each metric point once and every artifact."""
    run = store.get_run(run_id)
    assert run.info.status == "FINISHED"
    for name in ("loss", "acc", "val_loss", "learning_rate", "epoch_seconds"):
        assert [metric.step for metric in store.get_metric_history(run_id, name)] == list(range(epochs))
    for name in ("best_epoch", "best_val_loss", "train_seconds"):
        assert len(store.get_metric_history(run_id, name)) == 1
    listed, actual = json.loads((folder / "checksums.json").read_text()), checksums(folder)
    assert {name: actual[name] for name in listed} == listed


# --- a server that stops ---------------------------------------------------------------------------


@pytest.mark.server
def test_training_continues_while_the_server_is_unreachable_and_stores_results_for_sync(data, tmp_path) -> None:
    """The server is started again during the first training, and after the end of the second one."""
    options = {"fold": 0, "data_dir": data, **LONG}
    with MlflowServer(tmp_path) as server:
        first = start_fsat(tmp_path / "first", server.uri, "train_fold", **options)
        wait = {"FSAT_SERVER_WAIT": "1"}
        second = start_fsat(tmp_path / "second", server.uri, "train_fold", env=wait, **options, seed=2)
        for process in (first, second):
            process.wait_for("epoch 30/")
            process.send_signal(signal.SIGSTOP)  # so that training is in progress when the server stops
        server.kill()
        first.send_signal(signal.SIGCONT)
        first.wait_for("is unreachable; training continues")
        first.wait_for("epoch 120/")
        first.send_signal(signal.SIGSTOP)  # and when the server is started again
        second.send_signal(signal.SIGCONT)
        second.finish(1)
        server.start()
        first.send_signal(signal.SIGCONT)
        run_id, store = first.finish(), mlflow.MlflowClient(server.uri)
        assert "answers again" in first.stderr
        assert_complete(store, run_id, server.artifacts / "0" / run_id / "artifacts", 200)
        assert not list(tmp_path.glob("first/cache/runs/*"))

        last = second.stderr.splitlines()[-1]
        assert last.startswith("fsat: error: fold 0: it is trained, but the tracking server ")
        (stored,) = tmp_path.glob("second/cache/runs/*")
        assert all(text in last for text in ("has been unreachable for 1 s", "python -m fsat sync", str(stored)))
        assert store.get_run(stored.name).info.status == "RUNNING"
        line = start_fsat(tmp_path / "second", server.uri, "sync").finish()
        assert line.startswith(f"run {stored.name} (fold 0 of study ")
        assert line.endswith("uploaded, FINISHED")
        assert_complete(store, stored.name, server.artifacts / "0" / stored.name / "artifacts", 200)


# --- lost answers and refusals ---------------------------------------------------------------------


def lose_answers(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[bool]:
    """Let every other call of a method succeed, but lose its answer; return whether it was lost, by call."""
    method, lost = getattr(owner, name), []

    def unreliable(*args: object, **kwargs: object) -> object:
        answer = method(*args, **kwargs)
        lost.append(len(lost) % 2 == 0)
        if lost[-1]:
            raise requests.ConnectionError("Connection aborted")
        return answer

    monkeypatch.setattr(owner, name, unreliable)
    return lost


@pytest.fixture
def source(store, data, cache_folder, monkeypatch) -> Source:
    monkeypatch.setattr(client, "PAUSES", (0.05,))
    monkeypatch.setattr("fsat.tracking.live_metrics.PAUSES", (0.05,))
    client.call(lambda: mlflow.search_runs())
    return Source(data)


def config(seed: int) -> Config:
    return Config.resolve({**TINY, "seed": seed})


@pytest.mark.slow
def test_lost_answers_duplicate_nothing(source, monkeypatch) -> None:
    before = {run.info.run_id for run in mlflow.search_runs(output_format="list")}
    methods = ("create_run", "log_batch", "log_artifacts", "set_tag", "set_terminated")
    with monkeypatch.context() as patch:
        lost = [lose_answers(patch, mlflow.MlflowClient, name) for name in methods]
        run_id = train_fold(source, config(21), 0)
    assert all(lost)
    assert {run.info.run_id for run in mlflow.search_runs(output_format="list")} - before == {run_id}
    assert_complete(mlflow.MlflowClient(), run_id, artifacts(run_id), 3)


@pytest.mark.slow
def test_a_lost_answer_does_not_register_a_version_twice(source, tmp_path, monkeypatch) -> None:
    lost = lose_answers(monkeypatch, mlflow, "register_model")
    assert register_tagger(write_tagger(tmp_path / "tagger", n_folds=1), "lost") == 1
    assert lost
    assert len(mlflow.MlflowClient().search_model_versions("name = 'lost'")) == 1


@pytest.mark.slow
def test_refused_live_metrics_are_a_warning_and_are_uploaded_at_the_end(source, monkeypatch, capsys) -> None:
    log_batch = mlflow.MlflowClient.log_batch

    def refuse(self, run_id, metrics=(), **more) -> None:
        if metrics and max(metric.step for metric in metrics) < 3:
            raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)
        log_batch(self, run_id, metrics=metrics, **more)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", refuse)
    run_id = train_fold(source, config(23), 0)
    assert_complete(mlflow.MlflowClient(), run_id, artifacts(run_id), 3)
    assert capsys.readouterr().err.count("training continues without live metrics") == 1


def test_an_interrupted_training_sends_the_metrics_that_are_left(source, monkeypatch) -> None:
    folder, sent = RunFolder.of(mlflow.MlflowClient().create_run("0").info.run_id), []
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", lambda *_, metrics: time.sleep(0.1) or sent.extend(metrics))
    with pytest.raises(KeyboardInterrupt), LiveMetrics(folder, with_checkpoints=False) as live:
        for epoch in range(5):
            live.epoch(epoch, {"loss": 1.0}, 1000 + epoch)
        raise KeyboardInterrupt
    assert [(point.key, point.step, point.timestamp) for point in sent] == [("loss", i, 1000 + i) for i in range(5)]


def test_a_dataset_that_another_process_logs_at_the_same_time_is_logged(source, data, monkeypatch) -> None:
    taken = MlflowException("BAD_REQUEST: (sqlite3.IntegrityError) UNIQUE constraint failed: datasets.digest")
    log_input = mock.Mock(side_effect=[taken, None])
    monkeypatch.setattr(mlflow, "log_input", log_input)
    with runs.tracked("train_fold", "dataset"):
        runs.log_dataset(read_manifest(data))
    assert log_input.call_count == 2


# --- checkpoints on the server ---------------------------------------------------------------------


@pytest.mark.slow
def test_a_finished_fold_has_no_checkpoints_on_the_server(source, monkeypatch) -> None:
    uploads, log_artifact = [], mlflow.MlflowClient.log_artifact
    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", lambda *a: uploads.append(a[3]) or log_artifact(*a))
    run_id = train_fold(source, config(24), 1, Launch(checkpoint_to="server"))
    assert set(filter(None, uploads)) == {"checkpoint"}
    assert (artifacts(run_id) / "predictions" / "train.npy").is_file()
    assert not list(artifacts(run_id).glob("checkpoint/*"))
    assert "fsat.checkpoint" not in mlflow.get_run(run_id).data.tags


@pytest.mark.parametrize("damage", ["truncated", "missing", "none", "none, without hard links"])
def test_a_checkpoint_is_downloaded_only_as_it_was_uploaded(damage, source, monkeypatch, capsys) -> None:
    folder = RunFolder.of(mlflow.MlflowClient().create_run("0").info.run_id)
    folder.folder.mkdir(parents=True)
    folder.checkpoint.write_bytes(b"newer")
    if "links" in damage:
        monkeypatch.setattr(os, "link", mock.Mock(side_effect=OSError(errno.EPERM, "Operation not permitted")))
    for n_epochs in (3, 4):
        upload_checkpoint(folder, n_epochs)
    folder.checkpoint.write_bytes(b"older")
    remote = ServerCheckpoint.from_tags(mlflow.get_run(folder.run_id).data.tags)
    assert remote.n_epochs == 4
    file = artifacts(folder.run_id) / "checkpoint" / remote.name
    if damage == "truncated":
        file.write_bytes(b"newe")
    elif damage == "missing":
        file.unlink()
    usable = damage.startswith("none")
    assert remote.download(folder) == usable
    assert folder.checkpoint.read_bytes() == (b"newer" if usable else b"older")
    assert [path.name for path in folder.folder.iterdir()] == ["checkpoint"]
    assert ("it is ignored" in capsys.readouterr().err) == (not usable)


# --- stored results --------------------------------------------------------------------------------


@pytest.fixture
def stored(source) -> RunFolder:
    """The folder of a FAILED run whose results are not uploaded."""
    tags = {"fsat.study": "stored", "fsat.fold": "0", "fsat.stage": "train_fold"}
    run_id = mlflow.MlflowClient().create_run("0", tags=tags).info.run_id
    mlflow.MlflowClient().set_terminated(run_id, "FAILED")
    folder = RunFolder.of(run_id)
    folder.create(Fold(client.address(), "0", "stored", 0))
    points = [{"key": "loss", "value": 1.5, "step": step, "timestamp": 1000} for step in range(2)]
    with folder.new_results(points, "**described**") as results:
        (results / "file.txt").write_text("content")
        write_checksums(results)
    yield folder
    mlflow.MlflowClient().delete_run(run_id)


def test_sync_uploads_stored_results(stored) -> None:
    (line,) = sync(count_epochs)
    assert line.endswith("uploaded, FINISHED")
    run = mlflow.get_run(stored.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.note.content"] == "**described**"
    assert run.data.tags["fsat.checksums"] == checksums(artifacts(stored.run_id))["checksums.json"]
    assert (artifacts(stored.run_id) / "file.txt").read_text() == "content"
    assert len(mlflow.MlflowClient().get_metric_history(stored.run_id, "loss")) == 2
    assert not run_folders()
    assert sync(count_epochs) == []


@pytest.mark.parametrize("change", ["other server", "changed", "trained elsewhere"])
def test_sync_skips_what_should_not_be_uploaded(change, stored) -> None:
    if change == "other server":
        stored.create(Fold("http://elsewhere:5000", "0", "stored", 0))
        message = "belongs to http://elsewhere:5000"
    elif change == "changed":
        (stored.artifacts / "file.txt").write_text("changed")
        message = f"{stored.folder}: the results there were changed or truncated"
    else:
        own, tags = mlflow.MlflowClient(), mlflow.get_run(stored.run_id).data.tags
        run_id = own.create_run("0", tags=tags).info.run_id
        own.set_terminated(run_id, "FINISHED")
        message = f"run {run_id} has trained the fold meanwhile"
    (line,) = sync(count_epochs)
    assert message in line
    assert line.startswith(f"run {stored.run_id} ")
    assert stored.has_results
    assert mlflow.get_run(stored.run_id).info.status == "FAILED"


def test_sync_and_cache_leave_a_run_alone_that_is_used_and_cache_removes_checkpoints_only_with_all(stored) -> None:
    (stored.folder / "results").rename(stored.folder / "checkpoint")
    with stored.held():
        assert "another process on this machine is working on it" in sync(count_epochs)[0]
        assert f"{stored.folder}: in use by another process, not removed" in cache("--clear", "--all")
    assert "stopped after 0 epochs; train the fold again to resume it" in sync(count_epochs)[0]
    assert f"checkpoint after 0 epochs, in {stored.folder}" in cache("--clear")
    assert stored.folder.exists()
    assert f"{stored.folder}: removed" in cache("--clear", "--all")
    assert not stored.folder.exists()


def cache(*options: str) -> str:
    return CliRunner().invoke(cli, ["cache", *options], catch_exceptions=False).output


@pytest.mark.slow
def test_a_fold_whose_upload_failed_is_uploaded_later_without_training(source, monkeypatch) -> None:
    unreachable = mock.Mock(side_effect=ServerUnreachable("the tracking server x is unreachable; start it"))
    with monkeypatch.context() as patch, pytest.raises(RunError, match="python -m fsat sync") as caught:
        patch.setattr("fsat.commands.train.upload", unreachable)
        train_fold(source, config(31), 0)
    one_line(caught.value)
    (folder,) = run_folders()
    assert f"results, not uploaded yet, in {folder.folder}" in cache()
    cache("--clear")
    assert "not removed" in cache("--clear", "--all")

    monkeypatch.setattr("fsat.training.fold.train_fold", lambda *arguments: pytest.fail("trained"))
    assert train_fold(source, config(31), 0) == folder.run_id
    assert_complete(mlflow.MlflowClient(), folder.run_id, artifacts(folder.run_id), 3)
    description = mlflow.get_run(folder.run_id).data.tags["mlflow.note.content"]
    assert description.startswith("**dummy1d, fold 0**: `val_map3` ")
    assert not run_folders()
