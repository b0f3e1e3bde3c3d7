"""What the tracking server, its store or the network reports comes with its remedy, before the work begins."""

from __future__ import annotations

import os
import shutil
import sqlite3
import ssl
import subprocess
import tempfile
import threading
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import mlflow
import pytest
from helpers import error_line, make_dataset
from servers import OPENER, MlflowServer, needs
from stores import new_store

from fsat.cli import run
from fsat.commands import train
from fsat.errors import RunError
from fsat.tracking import client, live_metrics, remedies, runs
from fsat.tracking.client import Refused, ServerUnreachable
from fsat.tracking.run_folder import RunFolder

RESTORE = "is deleted; restore it with `mlflow experiments restore --experiment-id"


@pytest.fixture
def use(monkeypatch, tmp_path) -> Iterator[Callable[[str], None]]:
    """Use a tracking URI, as in a new process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client, "SESSION", client.Session())
    monkeypatch.setattr(runs, "SESSION", client.SESSION)
    monkeypatch.setenv("FSAT_SERVER_WAIT", "0")
    before = mlflow.get_tracking_uri()
    yield mlflow.set_tracking_uri
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


def work() -> None:
    """Open a run and log something of each kind."""
    with runs.tracked("test", "test"):
        runs.log_params({"a": 1})
        runs.log_json({}, "a.json")


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Be a user whom file permissions bind."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder(tmp_path) -> Path:
    """Return a folder with a store, below folders that every user may enter."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(Path(tempfile.gettempdir())) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o777)
    new_store(tmp_path / "store")
    (tmp_path / "store" / "mlflow.db").chmod(0o666)
    return tmp_path / "store"


@pytest.mark.parametrize(("path", "mode"), [("mlflow.db", 0o444), ("", 0o555)], ids=["file", "folder"])
def test_a_database_that_cannot_be_written_is_refused_at_once(use, open_folder, path, mode) -> None:
    (open_folder / path).chmod(mode)
    use(f"sqlite:///{open_folder}/mlflow.db")
    with ordinary_user():
        line = error_line(Refused, work)
    assert "cannot be written (attempt to write a readonly database); make " in line
    assert f"make {open_folder}/mlflow.db and its folder writable for this user, or choose another store" in line


def test_a_store_that_cannot_be_created_is_refused(use, open_folder) -> None:
    open_folder.chmod(0o555)
    use(f"sqlite:///{open_folder}/new.db")
    with ordinary_user():
        assert f"make {open_folder}/new.db and its folder writable" in error_line(Refused, work)
    use(f"sqlite:///{open_folder}")
    assert error_line(Refused, work).endswith("is a folder; expected sqlite:///FILE")


def test_a_store_opened_for_reading_is_refused(use, open_folder) -> None:
    use(f"sqlite:///file:{open_folder}/mlflow.db?mode=ro&uri=true")
    assert f"make {open_folder}/mlflow.db and its folder writable" in error_line(Refused, work)


def test_artifacts_that_cannot_be_written_are_found_before_the_work(use, open_folder) -> None:
    (open_folder / "mlruns").mkdir(mode=0o555)
    use(f"sqlite:///{open_folder}/mlflow.db")
    began = []
    with ordinary_user(), pytest.raises(Refused) as caught, runs.tracked("test", "test"):
        began.append(True)
    assert not began
    line = f"the artifact folder {open_folder}/mlruns cannot be written: no permission; make it writable, or choose an "
    assert str(caught.value).startswith(line)
    (stopped,) = mlflow.search_runs(output_format="list")
    assert stopped.info.status == "FAILED"


def test_a_schema_of_another_version_names_what_to_upgrade(use, tmp_path) -> None:
    uri = new_store(tmp_path)
    for revision, remedy in {
        "97727af70f4d": f"back it up, then run `mlflow db upgrade {uri}`",
        "feedbeef0000": f"newer than the {mlflow.__version__} here; `pip install --upgrade mlflow`",
    }.items():
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
            database.execute("UPDATE alembic_version SET version_num = ?", [revision])
        use(uri)
        line = error_line(Refused, work)
        assert line.startswith(f"the database {uri} has the schema of another version of MLflow (revision {revision})")
        assert line.endswith(remedy)


def test_addresses_of_other_kinds(use, tmp_path) -> None:
    expected = "expected http://HOST:PORT or sqlite:///FILE in MLFLOW_TRACKING_URI"
    for uri in ("localhost:5000", "htp://localhost:5000", str(tmp_path / "runs")):
        use(uri)
        assert error_line(Refused, work).endswith(expected)
    for module, package in {"psycopg": "psycopg2-binary", "google.cloud": "google-cloud-storage"}.items():
        line = remedies.missing_package(module, "postgresql://ann:***@host/x")
        assert f"needs the Python package {package}" in line
        assert f"`pip install {package}`" in line
    assert not remedies.missing_package("fsat.tagger", "sqlite:///x")


def check_deleted(use: Callable[[str], None], uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete experiments and runs before and during the work."""
    use(uri)
    own = mlflow.MlflowClient()
    number = own.create_experiment("gone")
    own.delete_experiment(number)
    for name, value in {"MLFLOW_EXPERIMENT_NAME": "gone", "MLFLOW_EXPERIMENT_ID": number}.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
            patch.setenv(name, value)
            line = error_line(Refused, work)
        assert line.startswith(f"the experiment {number} {RESTORE} {number}`, or choose another one with ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        patch.setenv("MLFLOW_EXPERIMENT_ID", "777")
        assert "there is no experiment 777 on " in error_line(Refused, work)
        patch.setenv("MLFLOW_EXPERIMENT_ID", own.create_experiment("later"))

        def delete_experiment() -> None:
            with runs.tracked("test", "test"):
                own.delete_experiment(runs.experiment_id())
                runs.log_json({}, "artifacts are written all the same.json")
                runs.log_metrics({"a": 1})

        assert RESTORE in error_line(Refused, delete_experiment)
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)

    def delete_run() -> None:
        with runs.tracked("test", "test") as run_id:
            own.delete_run(run_id)
            runs.log_metrics({"a": 1})

    assert "restore it with `mlflow runs restore --run-id " in error_line(Refused, delete_run)


def test_a_deleted_experiment_or_run_is_to_be_restored(use, tmp_path, monkeypatch) -> None:
    check_deleted(use, new_store(tmp_path), monkeypatch)


class Answer(NamedTuple):
    """What a server that is not MLflow's answers to every request."""

    status: int
    body: bytes = b""
    kind: str = "text/html"
    version: bytes = b""  # for /version


@contextmanager
def answering(answer: Answer, certificate: tuple[Path, Path] | None = None) -> Iterator[int]:
    """Start an HTTP server that answers every request in the same way; yield its port."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = answer.version if answer.version and self.path == "/version" else answer.body
            self.send_response(answer.status)
            self.send_header("content-type", answer.kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_CONNECT = _answer

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


HTTPS = "write https:// in MLFLOW_TRACKING_URI"
EXPERIMENTS = b'{"experiments": [{"experiment_id": "0", "name": "Default", "lifecycle_stage": "active"}]}'
OTHER = "not as an MLflow tracking server does; another program listens there: check host, port and path"


@pytest.mark.parametrize(("answer", "remedy"), [
    (Answer(404, b"<html>Not here</html>"), OTHER),
    (Answer(404), OTHER),
    (Answer(405), OTHER),
    (Answer(403, b"<html>nginx</html>"), OTHER),
    (Answer(501, b"<!DOCTYPE html><html>Unsupported method</html>"), OTHER),
    (Answer(200, b"<html>Welcome</html>"), OTHER),
    (Answer(200, b"[]", "application/json"), OTHER),
    (Answer(200, b'{"ok": 1}', "application/json"), OTHER),
    (Answer(200), OTHER),
    (Answer(400, b"Client sent an HTTP request to an HTTPS server.", "text/plain"), HTTPS),
    (Answer(400, b"<html>The plain HTTP request was sent to HTTPS port</html>"), HTTPS),
    (Answer(401, b"<html>who?</html>"), "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    (Answer(403, b"Permission denied", "text/plain"), "ask its administrator for EDIT"),
    (Answer(403, b"Cross-origin request blocked", "text/plain"), "with --cors-allowed-origins ORIGIN"),
    (Answer(407), "or set NO_PROXY=127.0.0.1"),
    (Answer(413, b"<html>too large</html>"), "client_max_body_size"),
    (Answer(502, b"<html>Bad gateway</html>"), "cannot be reached (it answers with error 502); read the server's log"),
    (Answer(200, EXPERIMENTS, "application/json", b"2.9.2"), "runs MLflow 2.9.2, which cannot hold fsat's taggers"),
])  # fmt: skip
def test_an_answer_that_is_not_mlflows_says_so(use, answer, remedy) -> None:
    with answering(answer) as port:
        use(f"http://127.0.0.1:{port}")
        assert remedy in error_line(RunError, work)


def test_an_endpoint_that_an_older_server_lacks_is_named() -> None:
    """As MLflow's client of 3.17 reports what a server of 2.9 answered."""
    text = "API request to endpoint /api/2.0/mlflow/logged-models failed with error code 404 != 200. Response body: '"
    line = remedies.remedy(f"{text}<!doctype html>'", "http://host:1", is_reached=True)
    assert line.endswith("its MLflow is older than the " + mlflow.__version__ + " here; upgrade the server")


@pytest.mark.parametrize(("names", "days", "trusted", "remedy"), [
    ("IP:127.0.0.1", 1, False, "self-signed certificate); set MLFLOW_TRACKING_SERVER_CERT_PATH to the certificate of"),
    ("IP:127.0.0.2", 1, True, "write the name that the certificate is for in MLFLOW_TRACKING_URI"),
])  # fmt: skip
def test_certificates(use, tmp_path, monkeypatch, names, days, trusted, remedy) -> None:
    needs(shutil.which("openssl"), "openssl", "apt-get install openssl")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
               "key.pem", "-out", "cert.pem", "-subj", "/CN=x", "-addext", f"subjectAltName={names}"]  # fmt: skip
    subprocess.run([*command, "-days", str(days)], check=True, capture_output=True, cwd=tmp_path)
    if trusted:
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "cert.pem"))
    with answering(Answer(404), (tmp_path / "cert.pem", tmp_path / "key.pem")) as port:
        use(f"https://127.0.0.1:{port}")
        assert remedy in error_line(ServerUnreachable, work)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "nowhere.pem")
        assert "there is no file nowhere.pem); correct MLFLOW_TRACKING_SERVER" in error_line(ServerUnreachable, work)
        use(f"http://127.0.0.1:{port}")
        assert "it may expect https://" in error_line(ServerUnreachable, work)
    with answering(Answer(404)) as port:
        monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        use(f"https://127.0.0.1:{port}")
        assert "(it does not speak https); write http:// in" in error_line(ServerUnreachable, work)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxies_are_named(use, monkeypatch, scheme) -> None:
    variable = f"{scheme.upper()}_PROXY"
    with answering(Answer(407)) as port:
        for proxy in ("http://127.0.0.1:9", f"http://127.0.0.1:{port}"):
            for name in (variable, variable.lower()):
                monkeypatch.setenv(name, proxy)
            use(f"{scheme}://tracking.example:5000")
            line = error_line(RunError, work)
            assert f"correct {variable}, with user and password if it asks for them" in line
            assert line.endswith("or set NO_PROXY=tracking.example")
    with answering(Answer(403, b"<html>Blocked</html>")) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        use("http://tracking.example:5000")
        assert "it may be the proxy of the environment: set NO_PROXY=tracking.example" in error_line(RunError, work)


class Refusing(MlflowServer):
    """A server that refuses requests for its address; started when it answers anything."""

    def _answers(self) -> bool:
        try:
            return super()._answers() or OPENER.open(f"{self.uri}/version", timeout=2).status == 200
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False


@pytest.mark.server
def test_a_server_for_other_hosts_names_the_option(use, tmp_path) -> None:
    server = Refusing(tmp_path)
    server._command += " --allowed-hosts other:1"
    with server:
        use(server.uri)
        host = urlsplit(server.uri).netloc
        line = error_line(Refused, work)
        assert line.endswith(f"does not accept requests for {host}; start `mlflow server` with --allowed-hosts {host}")


@pytest.mark.server
def test_a_server_whose_experiment_is_deleted_or_whose_artifacts_are_full(use, tmp_path, monkeypatch) -> None:
    with MlflowServer(tmp_path) as server:
        check_deleted(use, server.uri, monkeypatch)
        shutil.rmtree(server.artifacts, ignore_errors=True)
        server.artifacts.write_text("not a folder")
        line = error_line(RunError, work)
        assert "artifact" in line
        assert "read the server's log" in line


@pytest.mark.slow
def test_commands_end_before_their_work(use, tmp_path, monkeypatch, capsys, signals) -> None:
    """No clip is read, and no fold trained, for a store that will not take the result."""
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    use(new_store(tmp_path))
    own = mlflow.MlflowClient()
    own.delete_experiment(own.create_experiment("gone"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "gone")
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.csv").write_text("nothing that could be read")
    for words in (["main", "--output", "t.csv"], ["train_fold", "--fold", "0"], ["cross_validate"], ["eda"]):
        assert run([*words, "--data_dir", str(data)]) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"fsat: error: the experiment 1 {RESTORE} 1`, or choose another one with MLFLOW_EXPERI")
    with answering(Answer(404, b"<html>Not here</html>")) as port:
        use(f"http://127.0.0.1:{port}")
        assert run(["ensemble"]) == 1
    assert OTHER in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_fold_whose_experiment_is_deleted_meanwhile_is_kept(use, tmp_path, monkeypatch, capsys, signals) -> None:
    """The command says what to do first, and `sync` uploads the fold after it."""
    monkeypatch.setenv("FSAT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tones")
    use(new_store(tmp_path))
    own = mlflow.MlflowClient()

    def delete_first(folder: RunFolder) -> None:
        own.delete_experiment(runs.experiment_id())
        live_metrics.upload(folder)

    data = make_dataset(tmp_path / "data", clips_per_class=4, test_clips=0)
    options = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 0.25, "n_folds": 2, "max_epochs": 1}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with monkeypatch.context() as patch:
        patch.setattr(train, "upload", delete_first)
        assert run(["train_fold", "--fold", "0", "--data_dir", str(data), *words]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "it is trained, but the experiment 1 is deleted; its results are stored in " in line
    assert "`python -m fsat sync` after this: restore it with `mlflow experiments restore --experiment-id 1`" in line
    own.restore_experiment("1")
    (stopped,) = own.search_runs(["1"])
    own.set_terminated(stopped.info.run_id, "KILLED")  # as the end of the process would have it
    assert run(["sync"]) == 0
    assert "uploaded, FINISHED" in capsys.readouterr().out
