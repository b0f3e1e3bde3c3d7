"""PostgreSQL and MLflow's tracking server for tests, each on a free port, ended with the test.

They listen on 127.0.0.1 alone. If the tests are killed, the system tells the servers to end (on Linux).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from stores import new_store

START_SECONDS = 120.0
"""Time for a server to answer."""

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def needs(found: object, what: str, install: str) -> None:
    """Skip a test where something is not installed; where `.ci/run` should have installed it (``CI=true``), fail."""
    if found:
        return
    message = f"{what} is not installed: {install}"
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def postgres_folder() -> Path | None:
    """The folder of PostgreSQL's programs, if they are installed: the newest of Debian's, or that on PATH."""
    beside = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = beside[-1] if beside else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of its own that asks everybody for a password.

    As it refuses to run as root, root runs it as ``postgres``, or else ``nobody``, who may not look into pytest's
    folders: its files are in a folder of their own.

    Args:
        folder: for its log.

    Yields:
        the address of the superuser's database, for SQLAlchemy. MLflow can use it as it is.
    """
    programs = postgres_folder()
    needs(programs, "PostgreSQL", "apt-get install postgresql")
    password, port = "the-superuser-s", free_port()
    with tempfile.TemporaryDirectory(prefix="fsat-postgres-", ignore_cleanup_errors=True) as name:
        home, log = Path(name), folder / "postgres.log"
        (home / "password").write_text(password)
        as_user = _as_nobody(home)
        make = [*as_user, programs / "initdb", "-D", home / "data", "-U", "postgres", "--auth=scram-sha-256",
                "--pwfile", home / "password", "--no-sync", "-E", "UTF8", "--locale=C"]  # fmt: skip
        subprocess.run(make, check=True, capture_output=True, cwd=home, timeout=START_SECONDS)
        options = ["-D", home / "data", "-p", str(port), "-k", home, "-c", "listen_addresses=127.0.0.1",
                   "-c", "fsync=off", "-c", "synchronous_commit=off"]  # fmt: skip
        with open(log, "w") as said:
            server = subprocess.Popen(
                [*_mortal("QUIT", as_user), programs / "postgres", *options],
                cwd=home, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        try:
            asked = [programs / "psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c", "SELECT 1"]
            ask = {"env": {**os.environ, "PGPASSWORD": password}, "capture_output": True, "timeout": START_SECONDS}
            _wait(lambda: subprocess.run(asked, **ask).returncode == 0, server, log)
            yield f"postgresql+psycopg2://postgres:{password}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(timeout=30)


class MlflowServer:
    """`mlflow server`, with artifacts that go through it; it can be stopped, killed and started again on its port.

    Args:
        folder: of its files: ``log``, and what clients upload in ``artifacts/``.
        store: SQLAlchemy's address of its database; an SQLite file in the folder if not given.
        port: of 127.0.0.1, by default one that is free.
        command: for bash, instead of the usual one; must listen on the port, and keep artifacts where said above.
    """

    def __init__(self, folder: Path, store: str = "", port: int = 0, command: str = "") -> None:
        self.folder, self.port = folder, port or free_port()
        self.artifacts = folder / "artifacts"
        self.uri = f"http://127.0.0.1:{self.port}"
        self._own_store = f"sqlite:///{folder}/server.db"
        self._command = command or (
            f"exec {sys.executable} -m mlflow server --workers 1 --host 127.0.0.1 --port {self.port} "
            f"--backend-store-uri {store or self._own_store} --artifacts-destination {self.artifacts}"
        )
        self._process: subprocess.Popen | None = None

    def start(self) -> MlflowServer:
        """Start it, and wait until it answers."""
        if self._own_store in self._command:
            new_store(self.folder, "server.db", "mlflow-artifacts:")
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with open(self.folder / "log", "a") as log:
            self._process = subprocess.Popen(
                [*_mortal("TERM"), "bash", "-ec", self._command], cwd=self.folder, env={**os.environ, **settings},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            _wait(self._answers, self._process, self.folder / "log")
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """Kill the server and its workers at once, as a power cut does."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with OPENER.open(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> MlflowServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def _as_nobody(home: Path) -> list[str]:
    """What to put before a command so that it does not run as root; `home` and what is in it become that user's."""
    if os.geteuid() != 0:
        return []
    import pwd

    known = {user.pw_name: user for user in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    for path in (home, *home.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _mortal(name: str, before: Sequence[str] = ()) -> list[str]:
    """What to put before a command so that it gets a signal when the tests are killed."""
    if before:
        return [*before, "--pdeathsig", name]
    return ["setpriv", "--pdeathsig", name] if shutil.which("setpriv") else []


def _wait(answers: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"a server does not start: {log.read_text()[-3000:]}")
        time.sleep(0.1)
