"""Calls to the tracking server: what is retried, for how long, and what a refusal says."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from unittest import mock

import mlflow
import pytest
from conftest import ROOT
from helpers import error_line, one_line
from stores import new_store

from fsat.errors import ConfigError
from fsat.tracking import client, ownership


@pytest.fixture
def use():
    before = mlflow.get_tracking_uri()
    yield mlflow.set_tracking_uri
    mlflow.set_tracking_uri(before)


def test_a_database_that_another_process_writes_to_is_retried(use, tmp_path, monkeypatch, capsys) -> None:
    use(f"{new_store(tmp_path)}?timeout=0.1")
    writer = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN EXCLUSIVE")
    pause = mock.Mock(side_effect=lambda seconds: writer.execute("ROLLBACK"))
    monkeypatch.setattr(client, "_pause", pause)
    assert client.call(lambda: len(mlflow.MlflowClient().search_experiments())) == 1
    writer.close()
    assert pause.call_count == 1
    assert "is locked by another process; retrying for up to 600 s" in capsys.readouterr().err


def test_a_store_whose_creation_was_killed_is_created_again(tmp_path, use) -> None:
    for name in (".1.unfinished.mlflow.db", ".1.unfinished.mlflow.db-journal"):
        (tmp_path / name).write_text("half a store")
    uri = f"sqlite:///{tmp_path}/mlflow.db?timeout=5"
    use(uri)
    assert client.call(lambda: len(mlflow.MlflowClient(uri).search_experiments())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_an_unreachable_server_is_called_once_with_the_timeouts_of_a_first_call(use, monkeypatch) -> None:
    for name, value in client.LATER_CALLS.items():
        monkeypatch.setenv(name, value)  # a parent process has left its own
    monkeypatch.setenv("FSAT_SERVER_WAIT", "0")
    monkeypatch.setattr(client, "FIRST_CALL", {**client.FIRST_CALL, "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(client.ServerUnreachable, match="timed out"):
            client.call(lambda: None)
        silent.settimeout(10)
        silent.accept()[0].close()
        silent.settimeout(0.2)
        with pytest.raises(TimeoutError):
            silent.accept()


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", "", "0"])
def test_a_variable_that_is_no_number_of_seconds_is_refused(value, monkeypatch) -> None:
    for name, read in (("FSAT_HEARTBEAT", ownership.beat_seconds), ("FSAT_SERVER_WAIT", client.patience)):
        monkeypatch.setenv(name, value)
        if (name, value) != ("FSAT_SERVER_WAIT", "0"):
            assert f"{name}={value}: expected a number of seconds" in error_line(ConfigError, read)


def test_passwords_are_not_shown(use) -> None:
    use("https://ann:secret@host:5000/x")
    assert client.address() == "https://ann:***@host:5000/x"
    refused = client.refusal(mlflow.MlflowException("no: postgresql://u:secret@db/x"))
    assert "secret" not in one_line(refused)


def test_artifacts_can_be_deleted_although_mlflows_client_cannot(store) -> None:
    """`delete_folder` uses an internal module of MLflow."""
    own = mlflow.MlflowClient()
    run = own.create_run("0")
    for folder in ("checkpoint", "other"):
        own.log_text(run.info.run_id, "x", f"{folder}/file.txt")
    client.delete_folder(run, "checkpoint")
    assert [file.path for file in own.list_artifacts(run.info.run_id)] == ["other"]
    assert not hasattr(own, "delete_artifacts"), "use MLflow's own"


@pytest.mark.process
def test_mlflow_is_quiet_in_whatever_order_it_is_imported(tmp_path: Path) -> None:
    code = (
        "import os, logging, fsat.tracking.registry, mlflow;"
        "assert os.environ['MLFLOW_DISABLE_TELEMETRY'] == 'true';"
        "assert logging.getLogger('mlflow').level == logging.WARNING"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
