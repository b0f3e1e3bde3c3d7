"""A signal at any moment ends a run as KILLED, and an error ends it as FAILED."""

import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import mlflow
import pytest
from conftest import ROOT
from fsat_process import FsatProcess
from helpers import make_dataset, wait_for
from stores import new_store

from fsat import interrupts
from fsat.commands import train
from fsat.commands.ensemble import ensemble
from fsat.config import Config
from fsat.data.dataset import Source
from fsat.errors import FsatError, RunError
from fsat.interrupts import Interrupted
from fsat.options import Launch
from fsat.tracking import runs
from fsat.tracking.live_metrics import LiveMetrics

TINY = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=4, test_clips=2)


@pytest.fixture
def new_runs(store) -> Callable[[], list]:
    """Return the runs created during the test."""

    def search() -> list:
        return mlflow.search_runs(output_format="list")

    before = {run.info.run_id for run in search()}
    return lambda: [run for run in search() if run.info.run_id not in before]


MOMENTS = {
    "reading": ("fsat.commands.train.load_dataset", "before"),
    "opened": ("fsat.tracking.runs.set_tags", "before"),
    "first epoch": ("fsat.tracking.live_metrics.LiveMetrics.epoch", "after"),
    "building": ("fsat.training.fold.build_for_training", "after"),
    "weights": ("fsat.training.fold.save_weights", "after"),
    "results": ("fsat.commands.train.plot_confusion", "after"),
    "uploading": ("mlflow.MlflowClient.log_artifacts", "before"),
    "uploaded": ("mlflow.MlflowClient.log_artifacts", "after"),
    "opening": ("mlflow.start_run", "after"),
}


@pytest.mark.parametrize(
    ("moment", "signum"),
    [*((moment, signal.SIGTERM) for moment in MOMENTS), ("first epoch", signal.SIGINT), ("uploading", signal.SIGINT)],
)
def test_a_signal_at_any_moment_leaves_a_killed_run(moment, signum, new_runs, data, signals, monkeypatch):
    path, when = MOMENTS[moment]
    original = pkgutil.resolve_name(path)
    fired = []

    def strike(*args, **kwargs):
        result = original(*args, **kwargs) if when == "after" else None
        if not fired:
            fired.append(1)
            os.kill(os.getpid(), signum)
        return result if when == "after" else original(*args, **kwargs)

    monkeypatch.setattr(path, strike)
    with pytest.raises(Interrupted) as caught:
        train.train_fold(Source(data), Config.resolve(TINY), 0, Launch(resume=False))
    monkeypatch.undo()
    interrupts.state.first = 0
    assert caught.value.signum == signum
    assert fired
    (run,) = new_runs()
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


@pytest.mark.parametrize(("grace", "seconds"), [(5, 0), (0.2, 30)], ids=["to the end", "but not for ever"])
def test_a_signal_waits_for_an_exchange(grace, seconds, signals, monkeypatch):
    monkeypatch.setattr(interrupts, "GRACE_SECONDS", grace)
    done = []
    with pytest.raises(Interrupted), interrupts.shielded():
        with interrupts.shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("inner")
        time.sleep(seconds)
        done.append("outer")
    assert done == (["inner"] if seconds else ["inner", "outer"])


def test_a_second_signal_does_not_stop_the_closing(store, data, signals, monkeypatch):
    end_run = mlflow.end_run

    def strike_again(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return end_run(*args, **kwargs)

    monkeypatch.setattr("mlflow.end_run", strike_again)
    with pytest.raises(Interrupted), runs.tracked("train_fold", "twice") as run_id:
        os.kill(os.getpid(), signal.SIGINT)
    assert mlflow.get_run(run_id).info.status == "KILLED"


def test_a_killed_cross_validation_kills_its_fold_too(new_runs, data, signals, monkeypatch):
    log = LiveMetrics.epoch

    def strike(*arguments):
        log(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("fsat.tracking.live_metrics.LiveMetrics.epoch", strike)
    with pytest.raises(Interrupted):
        train.cross_validate(Source(data), Config.resolve({**TINY, "seed": 5}))
    statuses = [(run.data.tags["fsat.stage"], run.info.status) for run in new_runs()]
    assert sorted(statuses) == [("cross_validate", "KILLED"), ("train_fold", "KILLED")]


def test_an_error_ends_a_run_as_failed(new_runs, data):
    with pytest.raises(FsatError, match="lower learning_rate"):
        train.train_fold(Source(data), Config.resolve({**TINY, "learning_rate": 1e38}), 0)
    (run,) = new_runs()
    assert run.info.status == "FAILED"


# --- processes ---


@pytest.mark.process
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_killed_process_prints_one_line(signum, code, data, tmp_path):
    process = start(data, tmp_path)
    process.wait_for("epoch 2/")
    process.send_signal(signum)
    assert process.wait(timeout=60) == code
    assert process.stderr.splitlines()[-1] == f"fsat: error: stopped by {signum.name}"
    assert "Traceback" not in process.stderr
    assert statuses(tmp_path) == ["KILLED"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("message", "seconds_later", "signum"),
    [("epoch 2/", 0, signal.SIGKILL), ("=== Running command", 1.5, signal.SIGTERM)],
    ids=["while it trains", "while it imports"],
)
def test_killing_mlflow_run_stops_the_training_that_it_started(message, seconds_later, signum, data, tmp_path):
    """`mlflow run` creates the run and cannot close it once it is killed."""
    new_store(tmp_path)
    command = ["-m", "mlflow", "run", ROOT, "--env-manager", "local", "-e", "train_fold"]
    options = iter(words(data))
    command += [word for name, value in zip(options, options, strict=True) for word in ("-P", f"{name[2:]}={value}")]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    with open(tmp_path / "stderr", "w") as file:
        process = subprocess.Popen([sys.executable, *command], cwd=tmp_path, env=environment, stderr=file)
    wait_for(lambda: message in (tmp_path / "stderr").read_text(), 120)
    time.sleep(seconds_later)
    process.send_signal(signum)
    process.wait()
    wait_for(lambda: statuses(tmp_path) != ["RUNNING"], 60)
    assert statuses(tmp_path) == ["KILLED"]


@pytest.mark.process
def test_a_kill_while_a_new_store_creates_its_tables_is_recovered_from(data, tmp_path):
    process = start(data, tmp_path)
    wait_for(lambda: list(tmp_path.glob("*mlflow.db*")), 60)
    time.sleep(0.5)
    process.kill()
    process.wait()
    again = start(data, tmp_path, max_epochs=1)
    assert again.wait(timeout=120) == 0, again.stderr
    assert "FINISHED" in statuses(tmp_path)
    assert [path.name for path in tmp_path.glob("*mlflow.db*")] == ["mlflow.db"]


@pytest.mark.process
def test_a_run_killed_before_its_first_epoch_leaves_nothing_in_the_cache(data, tmp_path, monkeypatch):
    new_store(tmp_path)
    monkeypatch.setenv("FSAT_CACHE_DIR", str(tmp_path / "cache"))
    process = start(data, tmp_path, max_epochs=2)
    wait_for(lambda: list(tmp_path.glob("cache/runs/*/run.json")), 60)
    process.kill()
    process.wait()
    assert start(data, tmp_path, max_epochs=2).wait(timeout=120) == 0
    assert sorted(statuses(tmp_path)) == ["FINISHED", "KILLED"]
    assert not list(tmp_path.glob("cache/runs/*"))


@pytest.mark.process
def test_training_continues_when_nobody_reads_its_messages(data, tmp_path):
    store = new_store(tmp_path)
    command = [sys.executable, "-m", "fsat", "train_fold", *words(data, max_epochs=5)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": store}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert statuses(tmp_path) == ["FINISHED"]


def words(data, **changes) -> list[str]:
    """Return the options of a training that does not end, with changes."""
    options = {"fold": 0, "data_dir": data, **TINY, "max_epochs": 100000, "patience": 100000, **changes}
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def start(data, folder, **changes) -> FsatProcess:
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    return FsatProcess(["train_fold", *words(data, **changes)], cwd=folder, env=environment)


def statuses(folder) -> list[str]:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    return [run.info.status for run in client.search_runs(["0"])]
