"""One process trains a fold at a time; the runs of dead processes are recognised and resumed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import mlflow
import pytest
from fsat_process import FsatProcess, start_fsat
from helpers import make_dataset, one_line, wait_for
from stores import new_store, predictions

from fsat.commands.train import prepare_dataset, train_fold
from fsat.config import Config
from fsat.data.dataset import Source
from fsat.errors import RunError
from fsat.layout_options import LayoutOptions
from fsat.options import Launch
from fsat.tracking import ownership, runs
from fsat.tracking.client import SESSION, address
from fsat.tracking.run_folder import Fold, RunFolder
from fsat.tracking.select_runs import by_run_ids

TINY = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 2}
LONG = {**TINY, "max_epochs": 120, "patience": 1000}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=4, test_clips=2)


# --- processes -------------------------------------------------------------------------------------


class Workspace:
    """A working folder with an SQLite store and a cache folder of its own."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data, self.store = folder, data, new_store(folder)
        self.client = mlflow.MlflowClient(self.store)

    def start(self, command: str, **options: object) -> FsatProcess:
        return start_fsat(self.folder, self.store, command, data_dir=self.data, **LONG, **options)

    def pause(self, process: FsatProcess) -> None:
        """Stop a process while it does not use the database, where a stopped process would block all others."""
        while True:
            process.stop()
            try:
                with sqlite3.connect(self.folder / "mlflow.db", timeout=0.5, isolation_level=None) as database:
                    database.execute("BEGIN EXCLUSIVE")
                    database.execute("ROLLBACK")
                return
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
                time.sleep(0.02)

    def runs(self, stage: str = "train_fold") -> list:
        return self.client.search_runs(["0"], f"tags.`fsat.stage` = '{stage}'")


@pytest.fixture(scope="module")
def twice(data, tmp_path_factory) -> tuple[Workspace, list[str]]:
    """Two launches of a study at once: their workspace, and the run ids that each has printed."""
    workspace = Workspace(tmp_path_factory.mktemp("twice"), data)
    return workspace, [process.finish() for process in [workspace.start("cross_validate") for _ in range(2)]]


@pytest.mark.process
def test_two_launches_at_once_train_each_fold_once(twice) -> None:
    workspace, outputs = twice
    assert outputs[0] == outputs[1]
    statuses = {run.info.run_id: run.info.status for run in workspace.runs()}
    assert statuses == dict.fromkeys(outputs[0].split(","), "FINISHED")


@pytest.mark.process
def test_a_running_fold_is_refused_and_resumed_when_its_process_has_died(twice, data, tmp_path) -> None:
    workspace, (reference, outputs) = Workspace(tmp_path, data), twice
    first = workspace.start("cross_validate")
    first.wait_for("epoch 20/")
    workspace.pause(first)  # alive, and not finished before the second looks
    second = workspace.start("train_fold", fold=0)
    second.finish(1)
    line = second.stderr.splitlines()[-1]
    assert line.startswith("fsat: error: fold 0 of study ")
    assert f"is being trained by process {first.pid} on {os.uname().nodename}" in line
    first.kill()
    first.communicate()
    (killed,) = [run for run in workspace.runs() if run.info.status == "RUNNING"]
    assert killed.info.run_id in line

    third = workspace.start("cross_validate")
    run_ids = third.finish().split(",")
    assert run_ids[0] == killed.info.run_id
    assert f"resuming run {killed.info.run_id}, which was stopped" in third.stderr
    assert "(dummy1d all folds on " in third.stderr
    for run_id, reference_id in zip(run_ids, outputs[0].split(","), strict=True):
        assert [point.step for point in workspace.client.get_metric_history(run_id, "loss")] == list(range(120))
        assert predictions(run_id, workspace.client) == predictions(reference_id, reference.client)
    assert sorted(run.info.status for run in workspace.runs()) == ["FAILED", "FINISHED", "FINISHED"]
    parents = {run.info.status: run.info.run_id for run in workspace.runs("cross_validate")}
    assert set(parents) == {"FINISHED", "KILLED"}
    tags = [workspace.client.get_run(run_id).data.tags for run_id in run_ids]
    assert {tag["mlflow.parentRunId"] for tag in tags} == {parents["FINISHED"]}
    assert not list((workspace.folder / "cache" / "runs").iterdir())


# --- which run trains a fold -----------------------------------------------------------------------


@pytest.fixture
def source(store, data) -> Source:
    return Source(data)


def config(seed: int, max_epochs: int = 1) -> Config:
    return Config.resolve({**TINY, "max_epochs": max_epochs, "seed": seed})


@pytest.mark.slow
def test_a_stopped_fold_is_resumed_unless_resume_is_false(source, monkeypatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(ArithmeticError):
        fails = mock.Mock(side_effect=[None, ArithmeticError])  # after the second epoch
        patch.setattr("fsat.tracking.live_metrics.LiveMetrics.epoch", fails)
        train_fold(replace(source, layout=LayoutOptions(layout="fsdkaggle2018")), config(11, 4), 0)
    stopped = mlflow.search_runs(output_format="list", max_results=1)[0]
    assert stopped.info.status == "FAILED"
    assert stopped.data.tags["mlflow.note.content"].startswith("**dummy1d, fold 0** is not finished")
    assert json.loads(stopped.data.tags["fsat.layout"]) == {"layout": "fsdkaggle2018"}

    anew = train_fold(source, config(11, 4), 0, Launch(resume=False))
    assert anew != stopped.info.run_id
    assert mlflow.get_run(anew).data.tags["mlflow.note.content"].startswith("**dummy1d, fold 0**: `val_map3` ")
    assert sorted(runs.history(anew, "loss")) == [0, 1, 2, 3]
    client = mlflow.MlflowClient()
    client.delete_run(anew)

    created = client.create_run("0").info.run_id  # as `mlflow run` does
    monkeypatch.setenv("MLFLOW_RUN_ID", created)
    assert train_fold(source, config(11, 4), 0) == stopped.info.run_id
    assert by_run_ids([stopped.info.run_id])[0].layout.given == {}
    run = mlflow.get_run(created)
    assert (run.info.status, run.data.tags["fsat.stage"]) == ("FINISHED", "resume")
    assert run.data.tags["fsat.resumed"] == stopped.info.run_id
    assert stopped.info.run_id[:8] in run.info.run_name


def test_a_run_that_was_killed_before_its_first_epoch_leaves_nothing_in_the_cache(source) -> None:
    study = prepare_dataset(source, config(13), 0).study
    folder = RunFolder.of(create_run(study, started="another time"))
    folder.create(Fold(address(), "0", study, 0))
    train_fold(source, config(13), 0)
    assert mlflow.get_run(folder.run_id).info.status == "KILLED"
    assert not folder.folder.exists()


@pytest.mark.slow
def test_a_finished_fold_is_trained_again_only_if_resume_is_false(source, capsys) -> None:
    finished = train_fold(source, config(12), 0)
    n_runs = len(mlflow.search_runs())
    leftover = RunFolder.of(finished)
    leftover.create(Fold(address(), "0", "s", 0))
    assert train_fold(source, config(12), 0) == finished
    assert not leftover.folder.exists()
    assert f"run {finished} is FINISHED and is not trained again; resume=false" in capsys.readouterr().err
    assert len(mlflow.search_runs()) == n_runs
    again = train_fold(source, config(12), 0, Launch(resume=False))
    assert again != finished
    assert predictions(again) == predictions(finished) != predictions(train_fold(source, config(13), 0))


def test_a_fold_that_was_finished_during_the_claim_is_not_trained_again(source, monkeypatch) -> None:
    finished, finished_run, calls = train_fold(source, config(13), 0), ownership.finished_run, []

    def late(*fold: object) -> str | None:
        calls.append(fold)
        return finished_run(*fold) if len(calls) > 1 else None

    monkeypatch.setattr(ownership, "finished_run", late)
    with pytest.raises(ownership.FoldTaken, match=f"is FINISHED in run {finished}"):
        train_fold(source, config(13), 0)


# --- claims and heartbeats -------------------------------------------------------------------------


def create_run(study: str, **facts: object) -> str:
    """A RUNNING run of fold 0 whose owner differs from this process in `facts`, with a heartbeat 600 s ago."""
    tags = {"fsat.stage": "train_fold", "fsat.study": study, "fsat.fold": "0", "fsat.heartbeat": heartbeat(600)}
    tags["fsat.owner"] = json.dumps({**json.loads(ownership.owner()), **facts})
    return mlflow.MlflowClient().create_run("0", tags=tags).info.run_id


def heartbeat(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="microseconds")


@pytest.fixture
def far(store, monkeypatch):
    """A run whose owner is on another machine, and a function that renews its heartbeat."""
    monkeypatch.setenv("FSAT_HEARTBEAT", "0.2")
    client, run_id = mlflow.MlflowClient(), create_run("far", boot="another", host="far", pid=1, beat=0.2)
    yield run_id, lambda seconds_ago=0.0: client.set_tag(run_id, "fsat.heartbeat", heartbeat(seconds_ago))
    client.set_terminated(run_id, "KILLED")


def claim(study: str) -> str:
    with runs.tracked("train_fold", "claim") as run_id, ownership.claimed(run_id, Fold(address(), "0", study, 0)):
        assert mlflow.get_run(run_id).data.tags["fsat.study"] == study
    return run_id


def test_a_claim_excludes_others_on_this_machine_until_it_ends(store) -> None:
    with ownership.claimed(create_run("other"), Fold(address(), "0", "mine", 0)):
        with pytest.raises(ownership.FoldTaken, match="another process on this machine") as caught:
            claim("mine")
        claim("another")
    one_line(caught.value)
    claim("mine")


def test_a_claim_respects_a_running_fold_on_another_machine(far, capsys) -> None:
    run_id, renew = far
    renew()
    with pytest.raises(ownership.FoldTaken, match=f"is being trained by process 1 on far in run {run_id} since"):
        claim("far")
    assert mlflow.get_run(run_id).info.status == "RUNNING"
    assert "waiting for the next" not in capsys.readouterr().err  # a fresh heartbeat is not watched


def test_a_claim_marks_the_run_of_a_dead_process_as_killed(store, capsys) -> None:
    dead = create_run("dead", started="another time")
    claim("dead")
    assert f"run {dead} " in capsys.readouterr().err
    assert [run.info.run_id for run in ownership.stopped_runs("dead", 0)] == [dead]


def test_a_sweep_marks_only_runs_of_dead_processes(store, far) -> None:
    dead, unowned = create_run("swept", started="another time"), mlflow.MlflowClient().create_run("0").info.run_id
    ownership.sweep()
    statuses = [mlflow.get_run(run_id).info.status for run_id in (dead, unowned, far[0])]
    assert statuses == ["KILLED", "RUNNING", "RUNNING"]
    mlflow.MlflowClient().set_terminated(unowned)


@pytest.mark.parametrize("moves", [False, True], ids=["stopped", "moves by a late clock"])
def test_an_old_heartbeat_is_watched_before_its_process_counts_as_dead(moves, far, capsys) -> None:
    run_id, renew = far
    run, timer = mlflow.get_run(run_id), threading.Timer(0.1, renew, [500.0])
    if moves:
        timer.start()
    assert ownership.is_alive(run) == moves
    timer.cancel()
    assert "process 1 on far has had no heartbeat since" in capsys.readouterr().err


@pytest.fixture
def quick_beats(store, monkeypatch):
    monkeypatch.setenv("FSAT_HEARTBEAT", "0.1")
    monkeypatch.setattr(SESSION, "beat_thread", None)  # that of earlier runs may sleep for 20 s
    ownership._describe_process.cache_clear()
    yield
    ownership._describe_process.cache_clear()


@pytest.mark.parametrize("check", [ownership.check_owner, ownership.confirm_owner], ids=["heartbeat", "before upload"])
def test_a_process_stops_when_another_one_has_taken_its_run_over(check, quick_beats) -> None:
    lost = pytest.raises(RunError, match="taken over by another process")
    with lost as caught, runs.tracked("train_fold", "taken") as run_id:
        mlflow.MlflowClient().set_tag(run_id, "fsat.owner", "{}")
        wait_for(lambda: check(run_id))
    one_line(caught.value)


def test_a_run_that_is_slow_to_open_does_not_count_as_taken_over(quick_beats, monkeypatch) -> None:
    """On a busy server the first heartbeat comes before the owner's tag."""
    set_tags, get_run, beats = runs.set_tags, mlflow.MlflowClient.get_run, []

    def counted(client: mlflow.MlflowClient, run_id: str):
        beats.append(run_id)
        return get_run(client, run_id)

    def slow(*tags) -> None:
        wait_for(lambda: len(beats) >= 2)
        set_tags(*tags)

    monkeypatch.setattr(mlflow.MlflowClient, "get_run", counted)
    monkeypatch.setattr(runs, "set_tags", slow)
    with runs.tracked("train_fold", "slow") as run_id:
        assert run_id in beats
        ownership.check_owner(run_id)


def test_a_run_that_was_marked_killed_too_early_is_running_again(quick_beats) -> None:
    client = mlflow.MlflowClient()
    with runs.tracked("train_fold", "alive") as run_id:
        before = client.get_run(run_id).data.tags["fsat.heartbeat"]
        client.set_terminated(run_id, "KILLED")
        wait_for(lambda: client.get_run(run_id).info.status == "RUNNING")
        wait_for(lambda: client.get_run(run_id).data.tags["fsat.heartbeat"] != before)
    assert client.get_run(run_id).info.status == "FINISHED"
