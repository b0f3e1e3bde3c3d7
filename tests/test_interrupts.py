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
from fsat_process import start_fsat
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

TINY = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "tones", clips_per_class=4, test_clips=2)


@pytest.fixture
def new_runs(store) -> Callable[[], list]:
    """Return the runs created during the test."""
    n_before = len(mlflow.search_runs(output_format="list"))
    return lambda: mlflow.search_runs(output_format="list")[: -n_before or None]


def strike(monkeypatch, path: str, when: str = "before", signum: int = signal.SIGTERM) -> None:
    """Send this process a signal before or after each call of a function."""
    original = pkgutil.resolve_name(path)

    def struck(*args, **kwargs):
        if when == "before":
            os.kill(os.getpid(), signum)
        result = original(*args, **kwargs)
        if when == "after":
            os.kill(os.getpid(), signum)
        return result

    monkeypatch.setattr(path, struck)


MOMENTS = {
    "reading": ("fsat.commands.train.load_dataset", "before", signal.SIGTERM),
    "opened": ("fsat.tracking.runs.set_tags", "before", signal.SIGTERM),
    "results": ("fsat.commands.fold_records.plot_confusion", "after", signal.SIGTERM),
    "uploading": ("mlflow.MlflowClient.log_artifacts", "before", signal.SIGINT),
    "opening": ("mlflow.start_run", "after", signal.SIGTERM),
}


@pytest.mark.parametrize(("path", "when", "signum"), MOMENTS.values(), ids=MOMENTS)
def test_a_signal_at_any_moment_leaves_a_killed_run(path, when, signum, new_runs, data, signals, monkeypatch):
    strike(monkeypatch, path, when, signum)
    with pytest.raises(Interrupted) as caught:
        train.train_fold(Source(data), Config.resolve(TINY), 0, Launch(resume=False))
    monkeypatch.undo()
    interrupts.state.first = 0
    assert caught.value.signum == signum
    (run,) = new_runs()
    assert run.info.status == "KILLED"
    with pytest.raises(RunError, match=r"KILLED|no fsat stage"):
        ensemble(run_ids=[run.info.run_id])


def test_a_signal_after_all_is_uploaded_changes_nothing(store, data, signals, monkeypatch):
    strike(monkeypatch, "mlflow.end_run")
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
    strike(monkeypatch, "mlflow.end_run")
    with pytest.raises(Interrupted), runs.tracked("train_fold", "twice") as run_id:
        os.kill(os.getpid(), signal.SIGINT)
    assert mlflow.get_run(run_id).info.status == "KILLED"


@pytest.mark.slow
def test_a_killed_cross_validation_kills_its_fold_too(new_runs, data, signals, monkeypatch):
    strike(monkeypatch, "fsat.tracking.live_metrics.LiveMetrics.epoch", "after")
    with pytest.raises(Interrupted):
        train.cross_validate(Source(data), Config.resolve({**TINY, "seed": 5}))
    statuses = [(run.data.tags["fsat.stage"], run.info.status) for run in new_runs()]
    assert sorted(statuses) == [("cross_validate", "KILLED"), ("train_fold", "KILLED")]


def test_an_error_ends_a_run_as_failed(store):
    with pytest.raises(FsatError), runs.tracked("train_fold", "wrong") as run_id:
        raise FsatError("wrong")
    assert mlflow.get_run(run_id).info.status == "FAILED"


def test_training_continues_when_nobody_reads_its_messages(store, data, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stderr", open(writer, "w"))  # noqa: SIM115
    run_id = train.train_fold(Source(data), Config.resolve({**TINY, "seed": 6}), 0)
    assert mlflow.get_run(run_id).info.status == "FINISHED"


# --- processes ---


@pytest.mark.process
def test_a_killed_process_prints_one_line(data, tmp_path):
    process = start_fsat(tmp_path, new_store(tmp_path), "train_fold", **endless(data))
    process.wait_for("epoch 2/")
    process.send_signal(signal.SIGINT)
    process.finish(130)
    assert process.stderr.splitlines()[-1] == "fsat: error: stopped by SIGINT"
    assert "Traceback" not in process.stderr
    assert statuses(tmp_path) == ["KILLED"]


@pytest.mark.process
def test_killing_mlflow_run_while_fsat_is_imported_closes_the_run(data, tmp_path):
    """`mlflow run` creates the run and cannot close it once it is killed."""
    command = [sys.executable, "-m", "mlflow", "run", ROOT, "--env-manager", "local", "-e", "train_fold"]
    command += [word for name, value in endless(data).items() for word in ("-P", f"{name}={value}")]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": new_store(tmp_path)}
    with open(tmp_path / "stderr", "w") as file:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=file)
    wait_for(lambda: "=== Running command" in (tmp_path / "stderr").read_text(), 120)
    time.sleep(1.5)
    process.kill()
    process.wait()
    wait_for(lambda: statuses(tmp_path) != ["RUNNING"], 60)
    assert statuses(tmp_path) == ["KILLED"]


def endless(data) -> dict[str, object]:
    """Return the options of a training that does not end."""
    return {"fold": 0, "data_dir": data, **TINY, "max_epochs": 100000, "patience": 100000}


def statuses(folder) -> list[str]:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    return [run.info.status for run in client.search_runs(["0"])]
