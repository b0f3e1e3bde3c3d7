"""`mlflow run` as a new user types it, in a fresh clone."""

import os
import re
import shutil
import subprocess
import sys

import mlflow
import pytest

pytestmark = pytest.mark.process
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY")


def mlflow_run(clone, *arguments, network=False, **environment) -> subprocess.CompletedProcess:
    env = {**os.environ, **environment}
    if network:
        env = {name: value for name, value in env.items() if name not in PROXIES}
    return subprocess.run(
        [sys.executable, "-m", "mlflow", "run", ".", *arguments], cwd=clone, env=env, capture_output=True, text=True
    )


def local(clone, *arguments) -> subprocess.CompletedProcess:
    return mlflow_run(clone, "--env-manager", "local", *arguments)


def runs_of(clone, stage: str) -> list:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{clone}/mlflow.db")
    return client.search_runs(["0"], f"tags.`fsat.stage` = '{stage}'")


def test_a_fresh_clone_trains_a_fold_and_reports_mistakes_in_one_line(clone):
    done = local(clone, "-e", "train_fold", "-P", "fold=3", "-P", "max_epochs=1")
    assert done.returncode == 0, done.stderr
    assert "generating sounds in" in done.stderr
    (run,) = runs_of(clone, "train_fold")
    assert run.info.status == "FINISHED"
    assert run.data.tags["fsat.fold"] == "3"
    assert run.data.params["n_folds"] == "10"
    assert run.data.tags["mlflow.project.entryPoint"] == "train_fold"
    assert run.info.artifact_uri.startswith(f"{clone}/mlruns/") or f"{clone}/mlruns/" in run.info.artifact_uri

    missing = local(clone, "-e", "ensemble")
    assert missing.returncode != 0
    (line,) = [line for line in missing.stderr.splitlines() if line.startswith("fsat: ")]
    assert "lacks folds 0, 1, 2, 4, 5, 6, 7, 8, 9 of 10; train what is missing with `mlflow run . -e cross" in line
    assert "Traceback" not in missing.stderr
    assert [run.info.status for run in runs_of(clone, "ensemble")] == ["FAILED"]


@pytest.mark.network
def test_real_recordings_with_a_stratified_split_in_an_environment_built_by_uv(clone, esc10, tmp_path_factory):
    """Builds the environment of conda.yaml, so it needs uv and a package index."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed: pip install uv")
    done = mlflow_run(
        clone, "--env-manager", "uv", "-e", "train_fold", "-P", "fold=3", "-P", f"data_dir={esc10}",
        "-P", "folds=stratified", "-P", "max_epochs=1",
        network=True, MLFLOW_ENV_ROOT=str(tmp_path_factory.mktemp("envs")),
    )  # fmt: skip
    if done.returncode and "CI" not in os.environ and re.search("error sending request|dns error", done.stderr):
        pytest.skip("uv cannot reach a package index: needs a network")
    assert done.returncode == 0, done.stderr[-3000:]
    newest = runs_of(clone, "train_fold")[0]
    assert newest.info.status == "FINISHED"
    assert newest.data.params["folds"] == "stratified"
    assert (newest.data.params["n_train"], newest.data.params["n_val"]) == ("144", "16")


@pytest.fixture(scope="module")
def whole_job(clone) -> str:
    """Run the command of `make demo` with fewer epochs. The scores that the README promises come of all of them."""
    options = re.search(r"^DEMO := (.*)$", (clone / "Makefile").read_text(), re.MULTILINE).group(1)
    assert "max_epochs=50" in options
    done = local(clone, *options.replace("max_epochs=50", "max_epochs=12").split())
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_main_does_all_of_it(whole_job, clone):
    rows = {line.split()[1]: line.split() for line in whole_job.splitlines() if re.match(r"\s*[0-9a-f]{10}", line)}
    conv1d, dummy1d = float(rows["conv1d"][2]), float(rows["dummy1d"][2])
    assert conv1d > 0.5
    assert dummy1d < conv1d - 0.2
    assert "fsat version 1 is now champion" in whole_job
    assert len(re.findall(r"^  [0-9a-f]{8}\.wav  \w\S* \S+ \S+  \(", whole_job, re.MULTILINE)) == 3
    assert "mlflow ui" in whole_job
    for stage, count in {"main": 1, "eda": 1, "cross_validate": 2, "ensemble": 1, "predict": 1}.items():
        finished = [run for run in runs_of(clone, stage) if run.info.status == "FINISHED"]
        assert len(finished) == count, stage


def test_the_eda_of_main_is_on_the_server(whole_job, clone):
    (run,) = runs_of(clone, "eda")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{clone}/mlflow.db")
    for folder, count in {"plots": 5, "tables": 3}.items():
        files = client.list_artifacts(run.info.run_id, folder)
        assert len(files) == count
        assert all(file.file_size > 100 for file in files if file.path.endswith("png"))
    assert "eda.html" in [file.path for file in client.list_artifacts(run.info.run_id)]
    assert run.data.metrics["n_classes"] >= 10


def test_predict_with_the_champion_gives_the_tags_of_main(whole_job, clone):
    from fsat.data.synth import SAMPLE, cache_dir

    folder = cache_dir() / SAMPLE / "audio_test"
    done = local(clone, "-e", "predict", "-P", f"input={folder}", "-P", "output=again.csv")
    assert done.returncode == 0, done.stderr
    assert (clone / "again.csv").read_text() == (clone / "tags.csv").read_text()
