"""Real servers for tests: PostgreSQL, and MLflow's tracking server, on ports of their own, gone with the test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

START_SECONDS = 120.0


def needs(found: object, what: str, install: str) -> None:
    """Skip a test where something is not installed; where `.ci/run` should have installed it, fail."""
    if found:
        return
    message = f"{what} is not installed: {install}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def postgres_folder() -> Path | None:
    """The folder of PostgreSQL's server programs, if they are installed."""
    beside = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = beside[-1] if beside else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL server with an empty database.

    Args:
        folder: an empty one, for its files.

    Yields:
        SQLAlchemy's address of the database, without its name: ``/mlflow`` and ``/auth`` are there.
    """
    programs = postgres_folder()
    needs(programs, "PostgreSQL", "apt-get install postgresql")
    as_user: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        shutil.chown(folder, "nobody", "nogroup")
        for parent in folder.parents:
            if parent != Path("/") and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    port, data = free_port(), folder / "data"
    make = [*as_user, programs / "initdb", "-D", data, "-U", "mlflow", "--auth=trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(make, check=True, capture_output=True, cwd=folder)
    options = ["-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen([*as_user, programs / "postgres", *options], cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        for name in ("mlflow", "auth"):
            create = [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", name]
            while subprocess.run(create, capture_output=True).returncode:
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait()


class MlflowServer:
    """`mlflow server`, with artifacts that go through it.

    Args:
        folder: of its files.
        store: SQLAlchemy's address of its database; an SQLite file in the folder if not given.
        options: more of its options.
        environment: more variables.
    """

    def __init__(
        self, folder: Path, store: str = "", options: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.port = folder, free_port()
        self.artifacts = folder / "artifacts"
        self.uri = f"http://127.0.0.1:{self.port}"
        store = store or f"sqlite:///{folder}/server.db"
        self._command = [
            sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(self.port),
            "--backend-store-uri", store, "--artifacts-destination", str(self.artifacts), *options,
        ]  # fmt: skip
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen | None = None

    def start(self) -> MlflowServer:
        """Start it, and wait until it answers."""
        with open(self.folder / "log", "a") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"mlflow server does not start: {(self.folder / 'log').read_text()[-3000:]}")
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        """Kill it, and all that it has started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> MlflowServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
