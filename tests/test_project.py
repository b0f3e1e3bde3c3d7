"""`mlflow run` as a new user types it, in a fresh clone."""

import os
import re
import shutil
import subprocess
import sys

import mlflow
import pytest
from conftest import ROOT
from fsat_process import FsatProcess

from fsat.data.synth import SAMPLE, cache_dir

pytestmark = pytest.mark.process
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY")
QUICK = "-P sampling_rate=8000 -P audio_duration=1 -P max_epochs=1".split()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The working tree as a fresh clone would have it: tracked files and new ones, nothing that git ignores."""
    folder = tmp_path_factory.mktemp("clone") / "fsat"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def mlflow_run(clone, manager: str, *arguments: str, env=os.environ) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", manager, *arguments]
    return subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True)


def runs_of(clone, stage: str) -> list:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{clone}/mlflow.db")
    return client.search_runs(["0"], f"tags.`fsat.stage` = '{stage}'")


def test_a_fresh_clone_trains_a_fold(clone):
    done = mlflow_run(clone, "local", "-e", "train_fold", "-P", "fold=3", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "generating sounds in" in done.stderr
    (run,) = runs_of(clone, "train_fold")
    assert run.info.status == "FINISHED"
    assert run.data.tags["fsat.fold"] == "3"
    assert run.data.params["n_folds"] == "10"
    assert run.data.tags["mlflow.project.entryPoint"] == "train_fold"
    assert f"{clone}/mlruns/" in run.info.artifact_uri


@pytest.mark.network
def test_real_recordings_with_a_stratified_split_in_an_environment_built_by_uv(clone, shared, tmp_path_factory):
    """Builds the environment of conda.yaml, so it needs uv and a package index."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed: pip install uv")
    data = tmp_path_factory.mktemp("esc10") / "data"
    subprocess.run([sys.executable, shared / "tools" / "esc10_dataset.py", data], check=True)
    env = {name: value for name, value in os.environ.items() if name not in PROXIES}
    env["MLFLOW_ENV_ROOT"] = str(tmp_path_factory.mktemp("envs"))
    options = ["-P", "fold=3", "-P", f"data_dir={data}", "-P", "folds=stratified", *QUICK]
    done = mlflow_run(clone, "uv", "-e", "train_fold", *options, env=env)
    if done.returncode and "CI" not in os.environ and re.search("error sending request|dns error", done.stderr):
        pytest.skip("uv cannot reach a package index: needs a network")
    assert done.returncode == 0, done.stderr[-3000:]
    newest = runs_of(clone, "train_fold")[0]
    assert newest.info.status == "FINISHED"
    assert newest.data.params["folds"] == "stratified"
    n_train, n_val = (int(newest.data.params[name]) for name in ("n_train", "n_val"))
    assert n_train + n_val == 160
    assert 12 <= n_val <= 20  # recordings of several clips are not divided


def test_the_demo_looks_at_the_data_trains_registers_and_tags(clone):
    """The command of `make demo` with fewer epochs; the scores that the README promises come of all of them."""
    options = re.search(r"^DEMO := (.*)$", (clone / "Makefile").read_text(), re.MULTILINE).group(1)
    assert "max_epochs=50" in options
    done = mlflow_run(clone, "local", *options.replace("max_epochs=50", "max_epochs=12").split())
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {line.split()[1]: line.split() for line in done.stdout.splitlines() if re.match(r"\s*[0-9a-f]{10}", line)}
    conv1d, dummy1d = float(rows["conv1d"][2]), float(rows["dummy1d"][2])
    assert conv1d > 0.5
    assert dummy1d < conv1d - 0.2
    assert "fsat version 1 is now champion" in done.stdout
    assert (
        len(re.findall(r"^  [0-9a-f]{8}\.wav  \w\S* 0\.\d+, \w\S* 0\.\d+, \w\S* 0\.\d+$", done.stdout, re.MULTILINE))
        == 3
    )
    assert "mlflow ui" in done.stdout
    for stage, count in {"main": 1, "eda": 1, "cross_validate": 2, "ensemble": 1, "predict": 1}.items():
        finished = [run for run in runs_of(clone, stage) if run.info.status == "FINISHED"]
        assert len(finished) == count, stage

    (run,), client = runs_of(clone, "eda"), mlflow.MlflowClient(tracking_uri=f"sqlite:///{clone}/mlflow.db")
    for folder, count in {"plots": 5, "tables": 5}.items():
        files = client.list_artifacts(run.info.run_id, folder)
        assert len(files) == count
        assert all(file.file_size > 100 for file in files if file.path.endswith("png"))
    assert "eda.html" in [file.path for file in client.list_artifacts(run.info.run_id)]
    assert run.data.metrics["n_classes"] >= 10

    sounds = cache_dir() / SAMPLE / "audio_test"
    FsatProcess(["predict", "--input", sounds, "--output", "again.csv"], cwd=clone).finish()
    assert (clone / "again.csv").read_text() == (clone / "tags.csv").read_text()
