"""A run that is told to stop ends as KILLED wherever the signal finds it, and an error ends it as FAILED."""

import os
import pkgutil
import signal
import subprocess
import sys
import time

import mlflow
import pytest
from conftest import ROOT
from helpers import make_dataset
from warm import Warm

from fsat import interrupts
from fsat.commands import train
from fsat.commands.ensemble import ensemble
from fsat.config import Config
from fsat.data.source import Source
from fsat.errors import FsatError, RunError
from fsat.interrupts import Interrupted
from fsat.options import Launch
from fsat.tracking import runs
from fsat.tracking.live_metrics import Outbox

Popen = subprocess.Popen | Warm
TINY = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=4, test_clips=2)


def all_runs() -> list:
    return mlflow.search_runs(output_format="list")


MOMENTS = {
    "reading": ("fsat.data.source.load_dataset", "before"),
    "opened": ("fsat.tracking.runs.set_tags", "before"),
    "first epoch": ("fsat.tracking.live_metrics.Outbox.epoch", "after"),
    "building": ("fsat.training.fold.build_for_training", "after"),
    "weights": ("fsat.training.fold.save_weights", "after"),
    "results": ("fsat.commands.fold_run.plot_confusion", "after"),
    "uploading": ("mlflow.MlflowClient.log_artifacts", "before"),
    "uploaded": ("mlflow.MlflowClient.log_artifacts", "after"),
    "opening": ("mlflow.start_run", "after"),
}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_leaves_a_killed_run(moment, signum, store, data, signals, monkeypatch):
    where, when = MOMENTS[moment]
    original = pkgutil.resolve_name(where)
    fired = []

    def struck(*args, **kwargs):
        if when == "before" and not fired:
            fired.append(1)
            os.kill(os.getpid(), signum)
        result = original(*args, **kwargs)
        if when == "after" and not fired:
            fired.append(1)
            os.kill(os.getpid(), signum)
        return result

    before = {run.info.run_id for run in all_runs()}
    monkeypatch.setattr(where, struck)
    with pytest.raises(Interrupted) as caught:
        train.train_fold(Source(data), Config.resolve(TINY), 0, Launch(resume=False))
    monkeypatch.undo()
    interrupts.state.first = 0
    assert caught.value.signum == signum
    assert fired
    (run,) = [run for run in all_runs() if run.info.run_id not in before]
    assert run.info.status == "KILLED"
    with pytest.raises(RunError, match=r"KILLED|no fsat stage"):
        ensemble(run_ids=[run.info.run_id])


def test_a_signal_after_all_is_uploaded_changes_nothing(store, data, signals, monkeypatch):
    end_run = mlflow.end_run

    def struck(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return end_run(*args, **kwargs)

    monkeypatch.setattr("mlflow.end_run", struck)
    run_id = train.train_fold(Source(data), Config.resolve(TINY), 0)
    assert mlflow.get_run(run_id).info.status == "FINISHED"


def test_a_signal_waits_for_the_end_of_an_exchange(signals):
    done = []
    with pytest.raises(Interrupted), interrupts.shielded():
        with interrupts.shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


def test_but_not_for_ever(signals, monkeypatch):
    monkeypatch.setattr(interrupts, "GRACE_SECONDS", 0.2)
    done = []
    with pytest.raises(Interrupted), interrupts.shielded():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        done.append("waited to the end")
    assert not done


def test_a_second_signal_does_not_stop_the_closing(store, data, signals, monkeypatch):
    end_run = mlflow.end_run

    def strike_again(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return end_run(*args, **kwargs)

    monkeypatch.setattr("mlflow.end_run", strike_again)
    with pytest.raises(Interrupted), runs.tracked("train_fold", "twice") as run_id:
        os.kill(os.getpid(), signal.SIGINT)
    assert mlflow.get_run(run_id).info.status == "KILLED"


def test_a_killed_cross_validation_kills_its_fold_too(store, data, signals, monkeypatch):
    before = {run.info.run_id for run in all_runs()}
    log = Outbox.epoch

    def strike(*arguments):
        log(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("fsat.tracking.live_metrics.Outbox.epoch", strike)
    with pytest.raises(Interrupted):
        train.cross_validate(Source(data), Config.resolve({**TINY, "seed": 5}))
    new = [run for run in all_runs() if run.info.run_id not in before]
    assert {run.data.tags["fsat.stage"]: run.info.status for run in new} == {
        "cross_validate": "KILLED", "train_fold": "KILLED",
    }  # fmt: skip


def test_an_error_ends_a_run_as_failed(store, data):
    before = {run.info.run_id for run in all_runs()}
    with pytest.raises(FsatError, match="lower learning_rate"):
        train.train_fold(Source(data), Config.resolve({**TINY, "learning_rate": 1e38}), 0)
    (run,) = [run for run in all_runs() if run.info.run_id not in before]
    assert run.info.status == "FAILED"


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_killed_process_says_so_in_one_line(how, code, data, tmp_path):
    """The real thing: a process of its own, killed in mid-training."""
    process = start(["-m", "fsat", "train_fold"], data, tmp_path)
    wait_for("epoch 2/", process, tmp_path)
    process.send_signal(how)
    assert process.wait(timeout=60) == code
    said = (tmp_path / "stderr").read_text()
    assert said.splitlines()[-1] == f"fsat: error: stopped by {how.name}"
    assert "Traceback" not in said
    assert statuses(tmp_path) == ["KILLED"]


@pytest.mark.parametrize(
    ("said", "seconds_later", "how"),
    [("epoch 2/", 0, signal.SIGKILL), ("=== Running command", 1.5, signal.SIGTERM)],
    ids=["in mid-training", "while the training still imports"],
)
def test_killing_mlflow_run_stops_the_training_that_it_started(said, seconds_later, how, data, tmp_path):
    """`mlflow run` made the run, and does not live to close it."""
    command = ["-m", "mlflow", "run", str(ROOT), "--env-manager", "local", "-e", "train_fold"]
    process = start(command, data, tmp_path, "-P")
    wait_for(said, process, tmp_path)
    time.sleep(seconds_later)
    process.send_signal(how)
    process.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and statuses(tmp_path) == ["RUNNING"]:
        time.sleep(0.5)
    assert statuses(tmp_path) == ["KILLED"]


@pytest.mark.parametrize("seconds", [0, 0.6])
def test_a_kill_while_the_tables_of_a_new_store_are_made_costs_nothing(seconds, data, tmp_path):
    process = start(["-m", "fsat", "train_fold"], data, tmp_path)
    while not list(tmp_path.glob("mlflow.db*")):
        assert process.poll() is None, (tmp_path / "stderr").read_text()
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.wait()
    again = start(["-m", "fsat", "train_fold"], data, tmp_path, max_epochs=1)
    assert again.wait(timeout=120) == 0, (tmp_path / "stderr").read_text()
    assert "FINISHED" in statuses(tmp_path)
    assert not list(tmp_path.glob("mlflow.db?*"))


def test_a_run_killed_before_its_first_epoch_leaves_nothing_in_the_cache(data, tmp_path, monkeypatch):
    monkeypatch.setenv("FSAT_CACHE_DIR", str(tmp_path / "cache"))
    process = start(["-m", "fsat", "train_fold"], data, tmp_path, max_epochs=2)
    while not list(tmp_path.glob("cache/runs/*/run.json")):
        assert process.poll() is None, (tmp_path / "stderr").read_text()
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert start(["-m", "fsat", "train_fold"], data, tmp_path, max_epochs=2).wait(timeout=120) == 0
    assert sorted(statuses(tmp_path)) == ["FINISHED", "KILLED"]
    assert not list(tmp_path.glob("cache/runs/*"))


def test_training_goes_on_when_nobody_reads_its_news(data, tmp_path):
    process = start(["-m", "fsat", "train_fold"], data, tmp_path, stderr=subprocess.PIPE, max_epochs=20)
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert statuses(tmp_path) == ["FINISHED"]


def start(command: list[str], data, folder, flag: str = "", stderr: int | None = None, **more) -> Popen:
    options = {"fold": 0, "data_dir": data, **TINY, "max_epochs": 100000, "patience": 100000, **more}
    for name, value in options.items():
        command = [*command, flag, f"{name}={value}"] if flag else [*command, f"--{name}", str(value)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    with open(folder / "stderr", "w") as file:
        streams = {"stdout": subprocess.DEVNULL, "stderr": stderr or file}
        if "fsat" in command:
            return Warm(command, cwd=folder, env=environment, **streams)
        return subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, **streams)


def wait_for(text: str, process: Popen, folder) -> None:
    while text not in (folder / "stderr").read_text():
        assert process.poll() is None, (folder / "stderr").read_text()
        time.sleep(0.2)


def statuses(folder) -> list[str]:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    return [run.info.status for run in client.search_runs(["0"])]
