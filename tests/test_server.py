"""As a team runs it: PostgreSQL, artifacts through the server, users; machines that share nothing but the dataset."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import ROOT
from helpers import make_dataset, read_csv
from servers import MlflowServer, free_port, needs, postgres

PAGE = (ROOT / "docs" / "tracking-server.md").read_text()
ADMIN, ANN, BOB = ("admin", "admins-secret-1"), ("ann", "anns-secret-12"), ("bob", "bobs-secret-12")
TINY = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 3}
SECONDS = 30
"""In which a server that is of no use is said to be."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """MLflow's server as docs/tracking-server.md starts it, with the users ann, who may write, and bob, who may not."""
    from importlib.util import find_spec

    needs(find_spec("psycopg2") and find_spec("flask_wtf"), "what a server needs", "pip install 'fsat[server]'")
    folder = tmp_path_factory.mktemp("server")
    with postgres(tmp_path_factory.mktemp("postgres")) as database:
        (ini,) = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
        theirs = r"postgresql+psycopg2://mlflow:PASSWORD@127.0.0.1:5432"
        (folder / "auth.ini").write_text(ini.replace(theirs, database))
        start = PAGE[PAGE.index("mlflow server --host") :].partition("```")[0].replace("\\\n", " ").split()
        assert start[2:6] == ["--host", "0.0.0.0", "--port", "5000"]
        assert start[6:] == ["--app-name", "basic-auth", "--backend-store-uri", f"{theirs}/mlflow",
                             "--artifacts-destination", "ARTIFACTS"]  # fmt: skip
        secrets = {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1]}
        secrets["MLFLOW_FLASK_SERVER_SECRET_KEY"] = "signs sessions"
        assert all(f"export {name}=" in PAGE for name in secrets)
        with MlflowServer(folder, f"{database}/mlflow", ("--app-name", "basic-auth"), secrets) as started:
            os.environ.update(as_user(ADMIN))
            from mlflow.server import get_app_client

            client = get_app_client("basic-auth", tracking_uri=started.uri)
            for name, password in (ANN, BOB):
                client.create_user(name, password)
            grant = re.search(r"^client\.(grant_user_permission\(.*\))$", PAGE, re.MULTILINE).group(1)
            assert grant == 'grant_user_permission("ann", "experiment", "0", "EDIT")'
            client.grant_user_permission("ann", "experiment", "0", "EDIT")
            yield started
            for name in as_user(ADMIN):
                os.environ.pop(name)


def as_user(user: tuple[str, str]) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": user[0], "MLFLOW_TRACKING_PASSWORD": user[1]}


class Machine:
    """A working folder and a cache folder with nothing in them, as on another machine."""

    def __init__(self, folder: Path, uri: str, user: tuple[str, str] = ANN) -> None:
        self.folder, self.here = folder, folder / "here"
        self.here.mkdir(parents=True)
        self.environment = {
            **os.environ, **as_user(user), "MLFLOW_TRACKING_URI": uri, "FSAT_CACHE_DIR": str(folder / "cache"),
            "PYTHONPATH": str(ROOT), "FSAT_HEARTBEAT": "0.5",
        }  # fmt: skip

    def start(self, *words: object, **options: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "fsat", *map(str, words)]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        return subprocess.Popen(
            command, cwd=self.here, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *words: object, **options: object) -> str:
        process = self.start(*words, **options)
        output, self.said = process.communicate(timeout=240)
        assert process.returncode == 0, self.said
        return output.strip()

    def fails(self, *words: object, **options: object) -> str:
        """The one line of the error."""
        process = self.start(*words, **options)
        try:
            output, said = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        assert process.returncode == 1, said
        lines = [line for line in said.splitlines() if line.startswith("fsat: error: ")]
        assert lines == said.splitlines()[-1:], said
        assert "Traceback" not in said
        assert not any(secret in output + said for _, secret in (ADMIN, ANN, BOB))
        return lines[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tones"
    return make_dataset(folder, clips_per_class=6, unverified=0.5, test_clips=3)


@pytest.fixture
def store(server, monkeypatch):
    """MLflow's client in this process, as admin."""
    mlflow.set_tracking_uri(server.uri)
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


def test_machines_that_share_the_dataset_alone_do_all_of_it_together(server, store, data, tmp_path) -> None:
    first, second = (Machine(tmp_path / name, server.uri) for name in ("first", "second"))
    first.run("eda", data_dir=data)
    run_ids = first.run("cross_validate", data_dir=data, **TINY).split(",")
    assert len(run_ids) == 2
    assert "is now champion" in second.run("ensemble")
    second.run("predict", input=data / "audio_train")
    tags = read_csv(second.here / "tags.csv")
    assert len(tags) == 18
    assert not any(row["error"] for row in tags)

    stages = sorted(run.data.tags["fsat.stage"] for run in store.search_runs(["0"]))
    assert stages == ["cross_validate", "eda", "ensemble", "predict", "train_fold", "train_fold"]
    assert {run.info.status for run in store.search_runs(["0"])} == {"FINISHED"}
    assert not list(first.here.iterdir())
    assert [path.name for path in second.here.iterdir()] == ["tags.csv"]
    assert not list((tmp_path / "first" / "cache" / "runs").iterdir())
    arrays = list(server.artifacts.glob("0/*/artifacts/predictions/train.npy"))
    assert sorted(path.parts[-4] for path in arrays) == sorted(run_ids)
    assert all(run.info.artifact_uri.startswith("mlflow-artifacts:") for run in store.search_runs(["0"]))

    port = free_port()
    model = re.search(r"mlflow models serve (.*)", PAGE).group(1).split()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", "serve", *model, "--port", str(port)],
        cwd=second.here, env=second.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        clip = data / "audio_train" / tags[0]["fname"]
        body = {"dataframe_records": [{"audio": base64.b64encode(clip.read_bytes()).decode()}]}
        (answer,) = ask(port, body, process)["predictions"]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert answer["labels"] == tags[0]["label"].split()
    np.testing.assert_allclose(answer["scores"], [float(text) for text in tags[0]["scores"].split()], atol=1e-6)


def ask(port: int, body: dict, process: subprocess.Popen) -> dict:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        assert process.poll() is None
        try:
            with opener.open(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.URLError:
            time.sleep(0.2)
    raise AssertionError("no answer")


def test_another_machine_goes_on_from_the_checkpoint_on_the_server(server, store, data, tmp_path) -> None:
    """Killed with its power, so that nothing is said to anyone; the other one has never seen the run."""
    options = {"fold": 0, "data_dir": data, **TINY, "max_epochs": 300, "patience": 1000, "seed": 7}
    first, second, alone = (Machine(tmp_path / name, server.uri) for name in ("first", "second", "alone"))
    process = first.start("train_fold", **options, checkpoint_to="server")
    run_id = wait_for_checkpoint(store, 20)
    process.kill()
    process.communicate()
    resumed = second.run("train_fold", **options)
    assert resumed == run_id
    after = int(re.search(r"goes on after epoch (\d+)/300", second.said).group(1))
    assert after >= 20
    assert "is marked KILLED" in second.said
    run = store.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "fsat.checkpoint" not in run.data.tags
    for name in ("loss", "val_loss", "epoch_seconds"):
        assert sorted(metric.step for metric in store.get_metric_history(run_id, name)) == list(range(300))

    whole = alone.run("train_fold", **options)
    assert whole != run_id
    for name in ("train", "test"):
        a, b = (server.artifacts / "0" / each / "artifacts" / "predictions" / f"{name}.npy" for each in (whole, run_id))
        assert a.read_bytes() == b.read_bytes()


def wait_for_checkpoint(store: mlflow.MlflowClient, epochs: int) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for run in store.search_runs(["0"], "attributes.status = 'RUNNING'"):
            if int(run.data.tags.get("fsat.checkpoint", "- 0 -").split()[1]) >= epochs:
                return run.info.run_id
        time.sleep(0.1)
    raise AssertionError("no checkpoint on the server")


def test_a_wrong_password_is_one_line(server, data, tmp_path) -> None:
    line = Machine(tmp_path, server.uri, ("ann", "wrong")).fails("train_fold", fold=0, data_dir=data, **TINY)
    assert "does not know this user or password" in line
    assert "MLFLOW_TRACKING_PASSWORD" in line


def test_a_permission_that_is_missing_is_one_line(server, data, tmp_path) -> None:
    line = Machine(tmp_path, server.uri, BOB).fails("train_fold", fold=0, data_dir=data, **TINY)
    assert "does not permit this to bob" in line
    assert "EDIT" in line


def test_a_server_that_is_not_there_is_one_line(data, tmp_path) -> None:
    uri = f"http://ann:{ANN[1]}@127.0.0.1:{free_port()}"
    line = Machine(tmp_path, uri).fails("train_fold", fold=0, data_dir=data, **TINY)
    assert "cannot be reached (connection refused)" in line
    assert "MLFLOW_TRACKING_URI" in line


def test_a_server_that_never_answers_is_one_line(data, tmp_path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        machine = Machine(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        line = machine.fails("ensemble")
    assert "cannot be reached (timed out)" in line


def test_the_page_names_what_there_is() -> None:
    """Its commands are fsat's own, and its variables are read."""
    code = "\n".join(path.read_text() for path in (ROOT / "fsat").rglob("*.py"))
    for name in set(re.findall(r"FSAT_\w+", PAGE)):
        assert f'"{name}"' in code, name
    from fsat.cli import cli

    assert set(re.findall(r"python -m fsat (\w+)", PAGE)) <= set(cli.commands)
