"""A tracking server that is away, or whose answers get lost, costs nothing: all is there afterwards, once."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
from click.testing import CliRunner
from fsat_process import FsatProcess, fsat_run
from helpers import make_dataset, one_line
from servers import MlflowServer

from fsat.cli import cli
from fsat.commands.ensemble import ensemble
from fsat.commands.train import cross_validate, train_fold
from fsat.config import Config
from fsat.data.dataset import Source
from fsat.errors import ConfigError, RunError
from fsat.tracking import client, heartbeat
from fsat.tracking.client import ServerAway
from fsat.tracking.live_metrics import OnServer, upload_checkpoint
from fsat.tracking.run_folder import Kept, checksums, every_kept
from fsat.tracking.upload import sync

TINY = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 3}
LONG = {**TINY, "max_epochs": 300, "patience": 1000}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=4, test_clips=2)


# --- a server that stops ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    with MlflowServer(tmp_path_factory.mktemp("server")) as started:
        yield started


def start(folder: Path, data: Path, uri: str, seed: int, **environment: str) -> FsatProcess:
    words = [str(word) for name, value in {**LONG, "seed": seed}.items() for word in (f"--{name}", value)]
    environment |= {"MLFLOW_TRACKING_URI": uri, "FSAT_CACHE_DIR": str(folder / "cache")}
    return FsatProcess(["train_fold", "--fold", 0, "--data_dir", data, *words], cwd=folder, env=environment)


def assert_whole(store: mlflow.MlflowClient, run_id: str, folder: Path, epochs: int) -> None:
    run = store.get_run(run_id)
    assert run.info.status == "FINISHED"
    names = [name for name in run.data.metrics if name in ("loss", "acc", "val_loss", "learning_rate", "epoch_seconds")]
    assert len(names) == 5
    for name in names:
        assert [metric.step for metric in store.get_metric_history(run_id, name)] == list(range(epochs))
    for name in ("best_epoch", "best_val_loss", "train_seconds"):
        assert len(store.get_metric_history(run_id, name)) == 1
    listed = json.loads((folder / "checksums.json").read_text())
    found = checksums(folder)
    assert {name: found[name] for name in listed} == listed


@pytest.mark.server
def test_a_training_goes_on_while_the_server_is_away(remote, data, tmp_path) -> None:
    process = start(tmp_path, data, remote.uri, 1)
    process.wait_for("epoch 30/")
    process.send_signal(signal.SIGSTOP)  # so that it is in mid-training when the server goes
    remote.kill()
    process.send_signal(signal.SIGCONT)
    process.wait_for("is away; the training goes on")
    process.wait_for("epoch 120/")
    process.send_signal(signal.SIGSTOP)  # nor is it done when the server comes back
    remote.start()
    process.send_signal(signal.SIGCONT)
    run_id = process.communicate(timeout=240)[0].strip()
    assert process.returncode == 0, process.stderr
    assert_whole(mlflow.MlflowClient(remote.uri), run_id, remote.artifacts / "0" / run_id / "artifacts", 300)
    assert "is back" in process.stderr
    assert not list((tmp_path / "cache" / "runs").iterdir())


@pytest.mark.server
def test_one_that_stays_away_leaves_the_results_here_and_sync_uploads_them(remote, data, tmp_path) -> None:
    process = start(tmp_path, data, remote.uri, 2, FSAT_SERVER_WAIT="1")
    process.wait_for("epoch 30/")
    remote.kill()
    try:
        process.communicate(timeout=240)
    finally:
        remote.start()
    assert process.returncode == 1
    last = process.stderr.splitlines()[-1]
    assert last.startswith("fsat: error: fold 0: it is trained, but the tracking server ")
    assert "has been away for 1 s" in last
    assert "python -m fsat sync" in last
    (kept,) = (tmp_path / "cache" / "runs").iterdir()
    assert str(kept) in last
    client = mlflow.MlflowClient(remote.uri)
    assert client.get_run(kept.name).info.status == "RUNNING"

    environment = {"MLFLOW_TRACKING_URI": remote.uri, "FSAT_CACHE_DIR": str(tmp_path / "cache")}
    answers = [fsat_run(["sync"], cwd=tmp_path, env=environment) for _ in range(2)]
    assert [answer.returncode for answer in answers] == [0, 0], answers[0].stderr
    assert f"run {kept.name} (fold 0 of study " in answers[0].stdout
    assert answers[0].stdout.strip().endswith("uploaded, FINISHED")
    assert answers[1].stdout == ""
    assert_whole(client, kept.name, remote.artifacts / "0" / kept.name / "artifacts", 300)


@pytest.mark.server
def test_checkpoints_on_the_server_are_gone_when_the_fold_is_finished(remote, data, tmp_path) -> None:
    words = [str(word) for name, value in TINY.items() for word in (f"--{name}", value)]
    command = ["train_fold", "--fold", "1", "--data_dir", str(data), *words, "--checkpoint_to", "server"]
    done = fsat_run(command, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": remote.uri})
    assert done.returncode == 0, done.stderr
    folder = remote.artifacts / "0" / done.stdout.strip() / "artifacts"
    assert (folder / "predictions" / "train.npy").is_file()
    assert not list(folder.glob("checkpoint/*"))


def refuse(*args: object) -> None:
    """As disks do that have no links."""
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("damage", ["cut", "gone", "none", "no links"])
def test_a_checkpoint_on_the_server_is_fetched_only_as_it_was_uploaded(damage, store, tmp_path, monkeypatch, capsys):
    """Also where an older one is on this machine."""
    monkeypatch.setenv("FSAT_CACHE_DIR", str(tmp_path))
    client = mlflow.MlflowClient()
    kept = Kept.of(client.create_run("0").info.run_id)
    kept.folder.mkdir(parents=True)
    kept.checkpoint.write_bytes(b"newer")
    if damage == "no links":
        monkeypatch.setattr(os, "link", refuse)
        damage = "none"
    upload_checkpoint(kept, 3)
    upload_checkpoint(kept, 4)
    kept.checkpoint.write_bytes(b"older")
    run = client.get_run(kept.run_id)
    there = OnServer.of(run.data.tags)
    assert there.epochs == 4
    file = Path(run.info.artifact_uri.removeprefix("file://")) / "checkpoint" / there.name
    if damage == "cut":
        file.write_bytes(b"newe")
    elif damage == "gone":
        file.unlink()
    assert there.fetch(kept) == (damage == "none")
    assert kept.checkpoint.read_bytes() == (b"newer" if damage == "none" else b"older")
    assert [path.name for path in kept.folder.iterdir()] == ["checkpoint"]
    assert ("it is not gone on from" in capsys.readouterr().err) == (damage != "none")


# --- answers that get lost -------------------------------------------------------------------------


def losing(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[str]:
    """Let every first answer of a method be lost, when all has been done."""
    method, lost = getattr(owner, name), []

    def deaf(*args: object, **kwargs: object) -> object:
        answer = method(*args, **kwargs)
        if len(lost) % 2 == 0:
            lost.append(name)
            raise requests.ConnectionError("Connection aborted")
        lost.append("")
        return answer

    monkeypatch.setattr(owner, name, deaf)
    return lost


@pytest.fixture
def source(store, data, monkeypatch) -> Source:
    monkeypatch.setattr(client, "PAUSES", (0.05,))
    monkeypatch.setattr("fsat.tracking.live_metrics.PAUSES", (0.05,))
    mlflow.search_runs()
    client._met.add(mlflow.get_tracking_uri())
    return Source(data)


def test_answers_that_get_lost_double_nothing(source, monkeypatch) -> None:
    before = {run.info.run_id for run in mlflow.search_runs(output_format="list")}
    lost = [
        losing(monkeypatch, mlflow.MlflowClient, name)
        for name in ("create_run", "log_batch", "log_artifacts", "set_tag", "set_terminated")
    ]
    run_id = train_fold(source, Config.resolve({**TINY, "seed": 21}), 0)
    assert all(lost)
    monkeypatch.undo()
    new = {run.info.run_id for run in mlflow.search_runs(output_format="list")} - before
    assert new == {run_id}
    folder = Path(mlflow.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    assert_whole(mlflow.MlflowClient(), run_id, folder, 3)


def test_nor_a_version_of_the_tagger(source, monkeypatch) -> None:
    cross_validate(source, Config.resolve({**TINY, "seed": 22}))
    lost = losing(monkeypatch, mlflow, "register_model")
    made = ensemble(register_as="lost")
    assert lost
    assert made.registered.version == 1
    assert len(mlflow.MlflowClient().search_model_versions("name = 'lost'")) == 1


# --- what is kept ----------------------------------------------------------------------------------


@pytest.fixture
def kept(source, monkeypatch, tmp_path) -> Callable[[int], Kept]:
    """Trains a fold whose results cannot be uploaded."""
    monkeypatch.setenv("FSAT_CACHE_DIR", str(tmp_path / "cache"))

    def away(kept: Kept) -> None:
        raise ServerAway("the tracking server x has been away for 1 s; start it")

    def train(seed: int) -> Kept:
        monkeypatch.setattr("fsat.commands.fold_run.upload", away)
        with pytest.raises(RunError, match="python -m fsat sync") as caught:
            train_fold(source, Config.resolve({**TINY, "seed": seed}), 0)
        one_line(caught.value)
        monkeypatch.undo()
        monkeypatch.setenv("FSAT_CACHE_DIR", str(tmp_path / "cache"))
        (found,) = every_kept()
        return found

    return train


def test_asked_for_again_a_kept_fold_is_uploaded_without_training(kept, source, monkeypatch) -> None:
    before = kept(31)
    monkeypatch.setattr("fsat.commands.fold_run.train", lambda *arguments: pytest.fail("trained"))
    assert train_fold(source, Config.resolve({**TINY, "seed": 31}), 0) == before.run_id
    assert mlflow.get_run(before.run_id).info.status == "FINISHED"
    assert not every_kept()


def test_sync_leaves_alone_what_belongs_to_another_server(kept) -> None:
    before = kept(32)
    before.begin({**before.facts, "uri": "http://elsewhere:5000"})
    (line,) = sync()
    assert "belongs to http://elsewhere:5000" in line
    assert before.has_results


def test_sync_leaves_alone_a_fold_that_was_trained_elsewhere_meanwhile(kept, source) -> None:
    from fsat.options import Launch

    before = kept(33)
    other = train_fold(source, Config.resolve({**TINY, "seed": 33}), 0, Launch(resume=False))
    (line,) = sync()
    assert f"run {other} has trained the fold meanwhile" in line
    assert before.has_results
    assert mlflow.get_run(before.run_id).info.status != "FINISHED"


def test_results_that_were_altered_are_not_uploaded(kept) -> None:
    before = kept(34)
    path = before.artifacts / "predictions" / "test.npy"
    array = np.load(path)
    np.save(path, array + 1)
    (line,) = sync()
    assert "altered or cut" in line
    assert str(before.folder) in line
    assert mlflow.get_run(before.run_id).info.status != "FINISHED"


def test_sync_uploads(kept) -> None:
    before = kept(35)
    (line,) = sync()
    assert line.endswith("uploaded, FINISHED")
    assert not every_kept()
    run = mlflow.get_run(before.run_id)
    assert run.data.tags["mlflow.note.content"].startswith("**dummy1d, fold 0**: `val_map3` ")
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert_whole(mlflow.MlflowClient(), before.run_id, folder, 3)
    assert sync() == []


def fsat_cache(*options: str) -> str:
    result = CliRunner().invoke(cli, ["cache", *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_cache_lists_what_is_kept_and_never_removes_results(kept, source, monkeypatch) -> None:
    before = kept(36)
    assert f"results, not uploaded yet, in {before.folder}" in fsat_cache()
    fsat_cache("--clear")
    assert "it stays" in fsat_cache("--clear", "--all")
    assert before.is_whole()


def test_the_cache_lists_checkpoints_and_removes_them_with_all(kept) -> None:
    before = kept(37)
    (before.folder / "results").rename(before.folder / "gone")
    assert f"checkpoint after 3 epochs, in {before.folder}" in fsat_cache()
    fsat_cache("--clear")
    assert before.checkpoint.exists()
    assert f"{before.folder}: removed" in fsat_cache("--clear", "--all")
    assert not before.folder.exists()


# --- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["soon", "-1", "nan", "inf", ""])
def test_a_wait_that_is_no_number_is_one_line(given, monkeypatch) -> None:
    monkeypatch.setenv("FSAT_SERVER_WAIT", given)
    with pytest.raises(ConfigError, match="FSAT_SERVER_WAIT") as caught:
        client.patience()
    one_line(caught.value)


@pytest.mark.parametrize("given", ["often", "0", "-1", "nan", ""])
def test_so_is_a_heartbeat(given, monkeypatch) -> None:
    monkeypatch.setenv("FSAT_HEARTBEAT", given)
    with pytest.raises(ConfigError, match="FSAT_HEARTBEAT") as caught:
        heartbeat.beat_seconds()
    one_line(caught.value)


def test_passwords_are_not_shown(monkeypatch) -> None:
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "https://ann:secret@host:5000/x")
    assert client.address() == "https://ann:***@host:5000/x"
    refused = client.refusal(mlflow.MlflowException("no: postgresql://u:secret@db/x"))
    assert "secret" not in one_line(refused)


def test_what_a_process_waits_for_at_first_is_not_what_the_one_that_started_it_waits_for_later(monkeypatch) -> None:
    for name, value in client.LATER.items():
        monkeypatch.setenv(name, value)  # as a process that has met its server leaves it to those that it starts
    monkeypatch.setenv("FSAT_SERVER_WAIT", "0")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(client, "FIRST", {**client.FIRST, "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"})
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(f"http://127.0.0.1:{silent.getsockname()[1]}")
        try:
            with pytest.raises(ServerAway, match="timed out"):
                client.ask(lambda: None)
        finally:
            mlflow.set_tracking_uri(before)
        silent.settimeout(10)
        silent.accept()[0].close()
        silent.settimeout(1)
        with pytest.raises(TimeoutError):  # it was asked once
            silent.accept()
