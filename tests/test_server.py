"""A team's server with PostgreSQL, artifacts and users, and machines that share only the dataset.

The tests run the blocks of docs/tracking-server.md, with this machine's ports and folders filled in.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import numpy as np
import pytest
import requests
from conftest import ROOT
from fsat_process import FsatProcess
from helpers import make_dataset, read_csv, wait_for
from servers import MlflowServer, free_port, needs, postgres, postgres_folder
from stores import new_store

pytestmark = pytest.mark.server

PAGE = (ROOT / "docs" / "tracking-server.md").read_text()
FILLED = {
    "PASSWORD": "databases-secret", "ADMIN_PASSWORD": "admins-first-secret", "NEW_PASSWORD": "admins-next-secret",
    "SECRET": "signs-sessions", "ANNS_PASSWORD": "anns-secret-12", "BOBS_PASSWORD": "bobs-secret-12",
    "CYS_PASSWORD": "cys-secret-123",
}  # fmt: skip
"""Values for the placeholders of the page."""

TINY = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 3}
TRAIN = "python -m fsat train_fold --fold 0"


def block(about: str, kind: str = "") -> str:
    """Return the only fenced block of the page, in a language, that contains a text."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (code,) = (text for language, text in blocks if language == kind and about in text)
    return code


def line(start: str) -> str:
    """Return the first command of the page with this beginning."""
    return re.search(rf"^{start}\b.*$", PAGE, re.MULTILINE)[0]


def filled(text: str, more: Mapping[str, object]) -> str:
    """Fill in the placeholders of a text of the page."""
    values = {**FILLED, **more}
    words = "|".join(re.escape(word) for word in sorted(values, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{words})(?!\w)", lambda match: str(values[match[0]]), text)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Start the server of the page, with its users ann and bob, and with cy, who has no permission."""
    from importlib.util import find_spec

    needs(find_spec("psycopg2") and find_spec("flask_wtf"), "what a server needs", "pip install '.[server]'")
    folder = tmp_path_factory.mktemp("server")
    with postgres(tmp_path_factory.mktemp("postgres")) as address:
        database, programs = urlsplit(address), postgres_folder()
        make = block("sudo -u postgres createuser").replace("sudo -u postgres ", f"{shlex.quote(str(programs))}/")
        superuser = {"PGHOST": database.hostname, "PGPORT": str(database.port), "PGUSER": database.username}
        subprocess.run(
            ["bash", "-ec", make], env={**os.environ, **superuser, "PGPASSWORD": database.password}, check=True,
            input=f"{FILLED['PASSWORD']}\n" * 2, text=True, start_new_session=True, timeout=60,
        )  # fmt: skip
        port = free_port()
        here = {"/srv/mlflow": folder, "5432": database.port, "5000": port}
        here |= dict.fromkeys(["0.0.0.0", "SERVER"], "127.0.0.1")
        (folder / "auth.ini").write_text(filled(block("[mlflow]", "ini"), here))
        start = filled(block("--app-name basic-auth"), here).replace("mlflow server", "exec mlflow server")
        start = start.replace("--workers 2", "--workers 1")  # only to make the test faster
        with MlflowServer(folder, port=port, command=start) as started:
            users = filled(block("create_user", "python"), here)
            users += f"client.create_user('cy', {FILLED['CYS_PASSWORD']!r})"
            environment = {**os.environ, "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini")}
            subprocess.run([sys.executable, "-c", users], env=environment, cwd=folder, check=True, timeout=120)
            yield started


def test_the_simplest_server_keeps_runs_and_their_artifacts(tmp_path) -> None:
    port = free_port()
    start, export = (block(about).strip().replace("5055", str(port)) for about in ("sqlite:///", ":5055\n"))
    new_store(tmp_path, artifacts="mlflow-artifacts:")
    start = f"exec {start} --workers 1"  # like the copied store, only to make the test faster
    with MlflowServer(tmp_path, port=port, command=start) as server:
        assert export == f"export MLFLOW_TRACKING_URI={server.uri}"
        client = mlflow.MlflowClient(server.uri)
        run_id = client.create_run("0").info.run_id
        client.log_text(run_id, "kept by the server", "note.txt")
        (note,) = server.artifacts.rglob("note.txt")
        assert note.read_text() == "kept by the server"
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("SELECT run_uuid FROM runs").fetchall() == [(run_id,)]


class Machine:
    """An empty working folder and cache folder, as on another machine, and the variables that the page exports."""

    def __init__(self, folder: Path, uri: str, user: str = "ann", password: str = "") -> None:
        self.working, self.uri, self.user = folder / "here", uri, user
        self.password = password or FILLED[f"{user.upper()}S_PASSWORD"]
        folders = {"FSAT_CACHE_DIR": folder / "cache", "TMPDIR": folder / "temporary"}
        self.variables = {"FSAT_HEARTBEAT": "0.5", **{name: str(path) for name, path in folders.items()}}
        for path in (self.working, *folders.values()):
            path.mkdir(parents=True)

    def exports(self) -> str:
        """Return the lines of the page that set the variables."""
        values = {"ann": self.user, "ANNS_PASSWORD": self.password, "http://SERVER:5000": self.uri}
        return filled(block("export MLFLOW_TRACKING_USERNAME"), values)

    def start(self, command: str, **options: object) -> FsatProcess:
        """Start a command of the page, with more options."""
        variables = self.variables | dict(re.findall(r"^export (\w+)=(.*)$", self.exports(), re.MULTILINE))
        words = [*shlex.split(command.removeprefix("python -m fsat ")), *(f"--{k}={v}" for k, v in options.items())]
        return FsatProcess(words, cwd=self.working, env=variables)

    def run(self, command: str, **options: object) -> str:
        """Return the output of a command that succeeds."""
        process = self.start(command, **options)
        output, self.messages = process.finish(), process.stderr
        assert_no_secret(output + self.messages)
        return output


def error_of(process: FsatProcess) -> str:
    """Return the error of a process, which is one line."""
    try:
        assert process.wait(timeout=120) == 1, process.stderr
    finally:
        process.kill()
    lines = [line for line in process.stderr.splitlines() if line.startswith("fsat: error: ")]
    assert lines == process.stderr.splitlines()[-1:], process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    assert_no_secret(process.stdout + process.stderr)
    return lines[0]


def assert_no_secret(text: str) -> None:
    assert not [name for name, value in FILLED.items() if value in text]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tones"
    return make_dataset(folder, clips_per_class=6, unverified=0.5, test_clips=3)


@pytest.fixture
def store(server, monkeypatch):
    """Connect this process to the server as admin."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", FILLED["NEW_PASSWORD"])
    mlflow.set_tracking_uri(server.uri)
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


def test_machines_that_share_only_the_dataset_work_together(server, store, data, tmp_path) -> None:
    here = {"DIR": shlex.quote(str(data)), "5001": free_port()}
    first, second = Machine(tmp_path / "first", server.uri), Machine(tmp_path / "second", server.uri, "bob")
    first.run(filled(line("python -m fsat eda"), here))
    run_ids = first.run(filled(line("python -m fsat cross_validate"), here), **TINY).split(",")
    assert len(run_ids) == 2
    assert "is now champion" in second.run(line("python -m fsat ensemble"))
    second.uri = server.uri.replace("//", f"//bob:{second.password}@")  # as some write it
    second.run(filled(line("python -m fsat predict"), {"DIR": data / "audio_train"}))
    tags = read_csv(second.working / "tags.csv")
    assert len(tags) == 18
    assert not any(row["error"] for row in tags)

    every = store.search_runs(["0"])
    stages = sorted(run.data.tags["fsat.stage"] for run in every)
    assert stages == ["cross_validate", "eda", "ensemble", "predict", "train_fold", "train_fold"]
    assert {run.info.status for run in every} == {"FINISHED"}
    assert not list(first.working.iterdir())
    assert [path.name for path in second.working.iterdir()] == ["tags.csv"]
    assert not list((tmp_path / "first" / "cache" / "runs").iterdir())
    arrays = list(server.artifacts.glob("0/*/artifacts/predictions/train.npy"))
    assert sorted(path.parts[-4] for path in arrays) == sorted(run_ids)
    assert all(run.info.artifact_uri.startswith("mlflow-artifacts:") for run in every)
    assert_no_secret(json.dumps([run.to_dictionary() for run in every]))
    for path in server.artifacts.rglob("*"):
        assert_no_secret(path.read_text(errors="ignore") if path.is_file() else path.name)

    third = Machine(tmp_path / "third", server.uri, "ann")  # who may write to the experiment, not to bob's model
    refused = third.start("python -m fsat ensemble", blend="arithmetic")
    serve = f"{second.exports()}exec {filled(line('mlflow models serve'), here)}"
    with MlflowServer(second.working, port=here["5001"], command=serve) as serving:
        clip = data / "audio_train" / tags[0]["fname"]
        body = {"dataframe_records": [{"audio": base64.b64encode(clip.read_bytes()).decode()}]}
        (answer,) = requests.post(f"{serving.uri}/invocations", json=body, timeout=60).json()["predictions"]
    assert_no_secret((second.working / "log").read_text())
    assert answer["labels"] == [tags[0][name] for name in ("label", "label_2", "label_3")]
    scores = [float(tags[0][name]) for name in ("score", "score_2", "score_3")]
    np.testing.assert_allclose(answer["scores"], scores, atol=1e-6)

    message = error_of(refused)
    assert "does not permit this to ann" in message
    assert "registered model" in message


def test_another_machine_continues_from_the_checkpoint_on_the_server(server, store, data, tmp_path) -> None:
    """The first machine is killed, as by a power cut; the second one has never seen the run."""
    options = {"data_dir": data, **TINY, "max_epochs": 100, "patience": 1000, "seed": 7}
    first, second = (Machine(tmp_path / name, server.uri) for name in ("first", "second"))
    process = first.start(TRAIN, **options, checkpoint_to="server")

    def with_checkpoint() -> list[str]:
        running = store.search_runs(["0"], "attributes.status = 'RUNNING' and tags.`fsat.checkpoint` != ''")
        return [run.info.run_id for run in running if int(run.data.tags["fsat.checkpoint"].split()[1]) >= 20]

    wait_for(with_checkpoint, 120)
    process.kill()
    assert_no_secret("".join(process.communicate()))
    (run_id,) = with_checkpoint()
    assert second.run(TRAIN, **options) == run_id
    assert int(re.search(r"resumes after epoch (\d+)", second.messages).group(1)) >= 20
    assert "is marked as KILLED" in second.messages
    run = store.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "fsat.checkpoint" not in run.data.tags
    (spare,) = store.search_runs(["0"], f"tags.`fsat.resumed` = '{run_id}'")
    assert spare.info.status == "FINISHED"  # EDIT is not enough to delete it
    for name in ("loss", "val_loss", "epoch_seconds"):
        assert sorted(metric.step for metric in store.get_metric_history(run_id, name)) == list(range(100))


def test_a_server_that_cannot_be_used_is_one_line(server, data, tmp_path) -> None:
    options = {"data_dir": data, **TINY}
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        machine = Machine(tmp_path / "silent", f"http://127.0.0.1:{silent.getsockname()[1]}")
        never = machine.start("python -m fsat ensemble")
        message = error_of(Machine(tmp_path / "wrong", server.uri, "ann", "wrong").start(TRAIN, **options))
        assert "does not know this user or password" in message
        assert "MLFLOW_TRACKING_PASSWORD" in message

        message = error_of(Machine(tmp_path / "denied", server.uri, "cy").start(TRAIN, **options))
        assert "does not permit this to cy" in message
        assert "EDIT" in message

        uri = f"http://ann:{FILLED['ANNS_PASSWORD']}@127.0.0.1:{free_port()}"
        message = error_of(Machine(tmp_path / "closed", uri).start(TRAIN, **options))
        assert "http://ann:***@127.0.0.1" in message
        assert "cannot be reached (connection refused)" in message
        assert "MLFLOW_TRACKING_URI" in message

        assert "cannot be reached (timed out)" in error_of(never)


@pytest.mark.parametrize(("ci", "how"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_missing_programs_skip_a_test_but_fail_it_under_ci(ci, how, monkeypatch) -> None:
    monkeypatch.setenv("CI", ci)
    needs(True, "PostgreSQL", "apt-get install postgresql")
    with pytest.raises(how, match="PostgreSQL is not installed: apt-get install postgresql"):
        needs(None, "PostgreSQL", "apt-get install postgresql")


def test_the_variables_of_the_page_exist() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "fsat").rglob("*.py"))
    for name in set(re.findall(r"FSAT_\w+", PAGE)):
        assert f'"{name}"' in code, name
