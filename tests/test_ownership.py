"""One process trains a fold at a time; what a dead one has left is recognised and taken up."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import numpy as np
import pytest
from fsat_process import FsatProcess
from helpers import make_dataset, one_line
from stores import new_store

from fsat.commands.train import train_fold
from fsat.config import Config
from fsat.data.dataset import Source
from fsat.errors import RunError
from fsat.options import Launch
from fsat.tracking import client, heartbeat, ownership, runs
from fsat.tracking.run_folder import Kept

TINY = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 2}
LONG = {**TINY, "max_epochs": 120, "patience": 1000}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=4, test_clips=2)


class Place:
    """A working folder with an SQLite store and a cache folder of its own."""

    def __init__(self, folder: Path, data: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.data = folder, data
        self.store = new_store(folder)
        self.client = mlflow.MlflowClient(self.store)

    def start(self, command: str, environment: dict[str, str] | None = None, **options: object) -> Launched:
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        variables = {"MLFLOW_TRACKING_URI": self.store, "FSAT_CACHE_DIR": str(self.folder / "cache")}
        variables |= environment or {}
        return Launched(FsatProcess([command, "--data_dir", self.data, *words], cwd=self.folder, env=variables))

    def hold_still(self, launched: Launched) -> None:
        """Stop a process where it neither reads nor writes the database: another could write nothing while it does."""
        while True:
            launched.process.stop()
            try:
                with sqlite3.connect(self.folder / "mlflow.db", timeout=0.5, isolation_level=None) as database:
                    database.execute("BEGIN EXCLUSIVE")
                    database.execute("ROLLBACK")
                return
            except sqlite3.OperationalError:
                launched.process.send_signal(signal.SIGCONT)
                time.sleep(0.02)

    def runs(self, stage: str = "train_fold") -> list:
        return self.client.search_runs(["0"], f"tags.`fsat.stage` = '{stage}'")

    def array(self, run_id: str, name: str) -> np.ndarray:
        folder = Path(self.client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
        return np.load(folder / "predictions" / f"{name}.npy")

    def steps(self, run_id: str) -> list[int]:
        return sorted(metric.step for metric in self.client.get_metric_history(run_id, "loss"))


class Launched:
    """A process, and what it says."""

    def __init__(self, process: FsatProcess) -> None:
        self.process, self.wait_for = process, process.wait_for

    @property
    def said(self) -> str:
        return self.process.stderr

    def end(self, code: int = 0) -> str:
        output = self.process.communicate(timeout=240)[0]
        assert self.process.returncode == code, self.said
        return output.strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.mark.process
def test_a_fold_in_work_is_said_to_be_and_goes_on_when_its_process_has_died(data, tmp_path) -> None:
    place, other = Place(tmp_path / "place", data), Place(tmp_path / "other", data)
    first = place.start("cross_validate", **LONG)
    first.wait_for("epoch 20/")
    place.hold_still(first)  # it lives, and is not done before the second looks
    second = place.start("train_fold", fold=0, **LONG)
    second.end(1)
    line = second.said.splitlines()[-1]
    assert line.startswith("fsat: error: fold 0 of study ")
    assert f"is being trained by process {first.process.pid} on {os.uname().nodename}" in line
    first.kill()
    (cut_off,) = [run for run in place.runs() if run.info.status == "RUNNING"]
    assert cut_off.info.run_id in line

    third = place.start("cross_validate", **LONG)
    run_ids = third.end().split(",")
    assert run_ids[0] == cut_off.info.run_id
    assert f"run {cut_off.info.run_id}, which was stopped, goes on" in third.said
    assert "(dummy1d all folds on " in third.said
    whole = other.start("cross_validate", **LONG).end().split(",")
    for run_id, undisturbed in zip(run_ids, whole, strict=True):
        assert place.steps(run_id) == list(range(120))
        for name in ("train", "test"):
            np.testing.assert_array_equal(place.array(run_id, name), other.array(undisturbed, name))
    assert sorted(run.info.status for run in place.runs()) == ["FAILED", "FINISHED", "FINISHED"]
    assert sorted(run.info.status for run in place.runs("cross_validate")) == ["FINISHED", "KILLED"]
    parents = [run.info.run_id for run in place.runs("cross_validate") if run.info.status == "FINISHED"]
    assert {place.client.get_run(run_id).data.tags["mlflow.parentRunId"] for run_id in run_ids} == set(parents)
    assert not list((place.folder / "cache" / "runs").iterdir())


@pytest.mark.process
def test_two_launches_at_once_train_each_fold_once(data, tmp_path) -> None:
    place = Place(tmp_path, data)
    both = [place.start("cross_validate", **LONG) for _ in range(2)]
    answers = [launched.end() for launched in both]
    assert answers[0] == answers[1]
    finished = [run.info.run_id for run in place.runs() if run.info.status == "FINISHED"]
    assert sorted(finished) == sorted(answers[0].split(","))
    assert len(place.runs()) == 2


@pytest.mark.process
def test_mlflows_own_run_says_where_the_fold_went_on(data, tmp_path) -> None:
    place = Place(tmp_path, data)
    first = place.start("train_fold", fold=1, **LONG)
    first.wait_for("epoch 30/")
    first.process.send_signal(signal.SIGTERM)
    first.end(143)
    (stopped,) = place.runs()
    given = place.client.create_run("0").info.run_id  # as `mlflow run` does
    second = place.start("train_fold", {"MLFLOW_RUN_ID": given}, fold=1, **LONG)
    assert second.end() == stopped.info.run_id
    run = place.client.get_run(given)
    assert (run.info.status, run.data.tags["fsat.stage"]) == ("FINISHED", "resume")
    assert run.data.tags["fsat.resumed"] == stopped.info.run_id
    assert stopped.info.run_id[:8] in run.info.run_name


# --- in this process -------------------------------------------------------------------------------


@pytest.fixture
def source(store, data) -> Source:
    return Source(data)


class Stop(Exception):
    pass


def stopped_fold(source: Source, monkeypatch: pytest.MonkeyPatch, **settings: object) -> str:
    """A run that has failed after its second epoch."""

    def fail(outbox, epoch, *more) -> None:
        if epoch == 1:
            raise Stop

    monkeypatch.setattr("fsat.tracking.live_metrics.Outbox.epoch", fail)
    with pytest.raises(Stop):
        train_fold(source, Config.resolve({**TINY, "max_epochs": 4, **settings}), 0)
    monkeypatch.undo()
    return mlflow.search_runs(output_format="list", max_results=1)[0].info.run_id


def test_a_fold_is_begun_anew_where_that_is_asked_for(source, monkeypatch) -> None:
    before = stopped_fold(source, monkeypatch, seed=11)
    config = Config.resolve({**TINY, "max_epochs": 4, "seed": 11})
    anew = train_fold(source, config, 0, Launch(resume=False))
    assert anew != before
    assert mlflow.get_run(before).info.status == "FAILED"
    steps = [metric.step for metric in mlflow.MlflowClient().get_metric_history(anew, "loss")]
    assert sorted(steps) == [0, 1, 2, 3]


def test_a_finished_fold_is_trained_anew_only_where_that_is_asked_for(source, capsys) -> None:
    config = Config.resolve({**TINY, "max_epochs": 1, "seed": 12})
    done = train_fold(source, config, 0)
    before = {run.info.run_id for run in mlflow.search_runs(output_format="list")}
    left = Kept.of(done)
    with left.held():
        left.begin({"uri": runs.tracking_uri(), "experiment_id": "0", "study": "s", "fold": 0})
    assert train_fold(source, config, 0) == done
    assert not left.folder.exists()
    assert f"run {done} is FINISHED and is not trained again; resume=false" in capsys.readouterr().err
    assert {run.info.run_id for run in mlflow.search_runs(output_format="list")} == before
    assert train_fold(source, config, 0, Launch(resume=False)) != done


def test_nor_is_one_that_was_finished_while_it_was_claimed(source, monkeypatch) -> None:
    config = Config.resolve({**TINY, "max_epochs": 1, "seed": 13})
    done, finished_run, asked = train_fold(source, config, 0), ownership.finished_run, []

    def late(*fold: object) -> str | None:
        asked.append(fold)
        return finished_run(*fold) if len(asked) > 1 else None

    monkeypatch.setattr(ownership, "finished_run", late)
    with pytest.raises(ownership.FoldTaken, match=f"is FINISHED in run {done}"):
        train_fold(source, config, 0)


def test_of_many_that_claim_a_fold_at_once_never_two_have_it(store, monkeypatch) -> None:
    """Threads in the place of processes, each with an owner's tag of its own."""
    own = json.loads(heartbeat.owner())
    here = threading.local()
    monkeypatch.setattr(heartbeat, "owner", lambda: json.dumps({**own, "thread": getattr(here, "name", "")}))
    client, winners = mlflow.MlflowClient(), []

    def one(name: str, study: str, start: threading.Barrier, won: list[str]) -> None:
        here.name = name
        run_id = client.create_run("0", tags={"fsat.stage": "train_fold"}).info.run_id
        start.wait()
        with suppress(ownership.FoldTaken):
            ownership.claim(run_id, study, 0)
            won.append(run_id)

    for i in range(6):
        won, start = [], threading.Barrier(3)
        threads = [threading.Thread(target=one, args=(str(j), f"study{i}", start, won)) for j in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) <= 1
        winners += won
        assert ownership.is_held(f"study{i}", 0) == bool(won)
    assert len(winners) >= 4


@pytest.fixture
def far(store, monkeypatch):
    """A RUNNING run whose owner is on another machine, and how to renew its heartbeat."""
    monkeypatch.setenv("FSAT_HEARTBEAT", "0.2")
    client = mlflow.MlflowClient()
    facts = {**json.loads(heartbeat.owner()), "boot": "another", "host": "far", "pid": 1, "beat": 0.2}

    def beat(seconds_ago: float) -> str:
        return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="microseconds")

    tags = {"fsat.stage": "train_fold", "fsat.owner": json.dumps(facts), "fsat.heartbeat": beat(600)}
    run_id = client.create_run("0", tags=tags).info.run_id
    yield run_id, lambda ago=0.0: client.set_tag(run_id, "fsat.heartbeat", beat(ago))
    client.set_terminated(run_id, "KILLED")


def test_a_heartbeat_that_has_stopped_is_watched_and_then_given_up(far, capsys) -> None:
    run_id, _ = far
    assert not heartbeat.is_alive(mlflow.get_run(run_id))
    assert "process 1 on far" in capsys.readouterr().err


def test_one_that_is_late_by_another_clock_lives(far) -> None:
    run_id, renew = far
    run = mlflow.get_run(run_id)
    timer = threading.Timer(0.1, renew, [500.0])
    timer.start()
    assert heartbeat.is_alive(run)
    timer.join()


def test_one_that_has_just_come_needs_no_watching(far, monkeypatch) -> None:
    run_id, renew = far
    renew()
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("watched"))
    assert heartbeat.is_alive(mlflow.get_run(run_id))


def test_runs_without_an_owner_are_left_alone(store) -> None:
    run_id = mlflow.MlflowClient().create_run("0", tags={"fsat.stage": "train_fold"}).info.run_id
    ownership.sweep()
    assert mlflow.get_run(run_id).info.status == "RUNNING"
    mlflow.MlflowClient().set_terminated(run_id)


@pytest.fixture
def quick_beats(monkeypatch):
    monkeypatch.setenv("FSAT_HEARTBEAT", "0.1")
    heartbeat._me.cache_clear()
    yield
    heartbeat._me.cache_clear()


def test_a_process_whose_run_was_taken_up_by_another_stops(store, quick_beats) -> None:
    with pytest.raises(RunError) as caught, runs.tracked("train_fold", "taken") as run_id:
        mlflow.MlflowClient().set_tag(run_id, "fsat.owner", "{}")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            heartbeat.check(run_id)
            time.sleep(0.05)
    assert "taken up by another process" in one_line(caught.value)


def test_a_run_that_is_slow_to_open_is_not_taken_for_one_that_another_process_has_taken_up(
    store, quick_beats, monkeypatch
) -> None:
    """A busy server: the heartbeat comes before the tag of the run's owner."""
    describe, beats = runs.set_tags, []
    get_run = mlflow.MlflowClient.get_run

    def counted(client: mlflow.MlflowClient, run_id: str):
        beats.append(run_id)
        return get_run(client, run_id)

    def slow(*tags) -> None:
        deadline = time.monotonic() + 20
        while len(beats) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        describe(*tags)

    monkeypatch.setattr(mlflow.MlflowClient, "get_run", counted)
    monkeypatch.setattr(runs, "set_tags", slow)
    with runs.tracked("train_fold", "slow") as run_id:
        assert run_id in beats
        heartbeat.check(run_id)


def test_a_run_that_was_given_up_too_soon_is_running_again(store, quick_beats) -> None:
    client = mlflow.MlflowClient()
    with runs.tracked("train_fold", "alive") as run_id:
        before = client.get_run(run_id).data.tags["fsat.heartbeat"]
        client.set_terminated(run_id, "KILLED")
        deadline = time.monotonic() + 20
        while client.get_run(run_id).info.status != "RUNNING":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        while client.get_run(run_id).data.tags["fsat.heartbeat"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_database_that_another_process_is_writing_to_is_waited_for(tmp_path, monkeypatch, capsys) -> None:
    """At the first exchange of a process too."""
    path = tmp_path / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN EXCLUSIVE")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{path}?timeout=0.1")
    asked = []

    def experiments() -> int:
        return len(mlflow.MlflowClient().search_experiments())

    def pause(seconds: float) -> None:
        asked.append(seconds)
        writer.execute("ROLLBACK")

    monkeypatch.setattr(client, "_pause", pause)
    try:
        assert client.ask(experiments) == 1
    finally:
        mlflow.set_tracking_uri(before)
        writer.close()
    assert len(asked) == 1
    assert "is locked by another process; it is asked again for 600 s" in capsys.readouterr().err
