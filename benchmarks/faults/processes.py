"""What faults are done to: `python -m fsat` in a place of its own, and a tracking server."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, BenchmarkError, call

DIRECT = {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}
NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""As docs/tracking-server.md starts a server: without seven processes that fsat does not use."""

EPOCH = re.compile(r"^fold \d+  epoch (\d+)/\d+", re.MULTILINE)
POLL_SECONDS = 0.02


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Place:
    """A working folder with a tracking store and a cache folder.

    Attributes:
        folder: made if it is not there; artifacts of an SQLite store come to lie below it.
        uri: of the tracking server; by default an SQLite store in the folder.
        cache: FSAT_CACHE_DIR; by default in the folder.
        more: further variables of the environment.
    """

    folder: Path
    uri: str = ""
    cache: Path | None = None
    more: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.uri = self.uri or f"sqlite:///{self.folder}/mlflow.db"
        self.cache = self.cache or self.folder / "cache"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of processes that work here; nothing of MLflow's or fsat's comes from outside."""
        usual = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "FSAT_"))}
        own = {"MLFLOW_TRACKING_URI": self.uri, "FSAT_CACHE_DIR": str(self.cache), "PYTHONPATH": str(ROOT)}
        return {**usual, **DIRECT, "TF_CPP_MIN_LOG_LEVEL": "3", **own, **self.more}

    def start(self, command: str, **options: Any) -> Sitting:
        """Start ``python -m fsat COMMAND --name value ...``."""
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        number = len(list(self.folder.glob("stderr-*")))
        said = self.folder / f"stderr-{number}"
        with open(said, "w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "fsat", command, *words], cwd=self.folder, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file,
            )  # fmt: skip
        return Sitting(process, said, time.monotonic())

    def call(self, target: str, **arguments: Any) -> Any:
        """Call ``module:function`` in a process of its own that works here."""
        variables = {key: value for key, value in self.environment.items() if os.environ.get(key) != value}
        return call(target, environment=variables, cwd=self.folder, **arguments)

    def ask(self, function: str, **arguments: Any) -> Any:
        """Call a function of `benchmarks.faults.found` so."""
        return self.call(f"benchmarks.faults.found:{function}", **arguments)

    def kept(self, name: str) -> list[Path]:
        """Files or folders of this name that runs keep on this machine, such as ``checkpoint`` or ``results``."""
        return sorted(self.cache.glob(f"runs/*/{name}"))


@dataclass
class Sitting:
    """A process that trains.

    Attributes:
        process: it.
        file: gets what it says.
        started: on the monotonic clock.
    """

    process: subprocess.Popen
    file: Path
    started: float

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.file.read_text(errors="replace")

    @property
    def last_line(self) -> str:
        """The last line that it has said."""
        return ["", *self.said.splitlines()][-1]

    @property
    def epochs(self) -> int:
        """The last epoch that it has told of; 0 if there is none."""
        return max((int(number) for number in EPOCH.findall(self.said)), default=0)

    def wait(self, seconds: float = 1800) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BenchmarkError(f"{self.process.args}: not done after {seconds:g} s\n{self.said[-3000:]}") from None

    def wait_until(self, reached: Callable[[], Any], seconds: float = 1800) -> bool:
        """Wait until it has come somewhere; False if it ended before."""
        until = time.monotonic() + seconds
        while not reached():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > until:
                self.kill()
                raise BenchmarkError(f"{self.process.args}: waited {seconds:g} s in vain\n{self.said[-3000:]}")
            time.sleep(POLL_SECONDS)
        return True

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


class Server:
    """`mlflow server` with an SQLite store and artifacts in a folder, on a port of its own.

    Args:
        folder: of its files.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._process = folder, None
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--workers", "1",
            "--host", "127.0.0.1", "--port", str(self._port),
            "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        with open(self.folder / "log", "a") as file:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **DIRECT, **NO_JOBS}, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + 120
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop(signal.SIGKILL)
                raise BenchmarkError(f"mlflow server does not start\n{(self.folder / 'log').read_text()[-3000:]}")
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and all that it has started."""
        if self._process is None:
            return
        for signum in (how, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, signum)
            except ProcessLookupError:
                break
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                continue
        self._process = None

    def away(self, seconds: float, how: signal.Signals) -> float:
        """Stop it for some seconds, then start it again; how long it did not answer."""
        began = time.monotonic()
        self.stop(how)
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        self.start()
        return time.monotonic() - began

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False
