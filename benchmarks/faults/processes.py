"""Run `python -m fsat` in a workspace of its own, and a tracking server that can be stopped."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, BenchmarkError, call

NO_PROXY = {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}
NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""As in docs/tracking-server.md: saves seven processes that fsat does not use."""

EPOCH = re.compile(r"^fold \d+  epoch (\d+)/\d+", re.MULTILINE)
POLL_SECONDS = 0.02


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Workspace:
    """A working folder with a tracking store and a cache folder.

    Attributes:
        folder: created if missing; contains the artifacts of an SQLite store.
        uri: tracking store; by default an SQLite store in the folder.
        cache: FSAT_CACHE_DIR; by default in the folder.
        variables: further environment variables.
    """

    folder: Path
    uri: str = ""
    cache: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.uri = self.uri or f"sqlite:///{self.folder}/mlflow.db"
        self.cache = self.cache or self.folder / "cache"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of processes in this workspace, without MLflow's and fsat's variables of this process."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "FSAT_"))}
        own = {"MLFLOW_TRACKING_URI": self.uri, "FSAT_CACHE_DIR": str(self.cache), "PYTHONPATH": str(ROOT)}
        return {**inherited, **NO_PROXY, "TF_CPP_MIN_LOG_LEVEL": "3", **own, **self.variables}

    def start(self, name: str, **options: Any) -> Command:
        """Start ``python -m fsat NAME --option value ...``."""
        arguments = [word for option, value in options.items() for word in (f"--{option}", str(value))]
        log = self.folder / f"stderr-{len(list(self.folder.glob('stderr-*')))}"
        with open(log, "w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "fsat", name, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
        return Command(process, log, time.monotonic())

    def run(self, name: str, **options: Any) -> Command:
        """Run ``python -m fsat NAME --option value ...``; raise `BenchmarkError` if it fails."""
        command = self.start(name, **options)
        if code := command.wait():
            raise BenchmarkError(f"{name}: exit code {code}\n{command.stderr[-3000:]}")
        return command

    def call(self, target: str, **arguments: Any) -> Any:
        """Call ``module:function`` in a new process in this workspace."""
        variables = {key: value for key, value in self.environment.items() if os.environ.get(key) != value}
        return call(target, environment=variables, cwd=self.folder, **arguments)

    def describe_store(self, **arguments: Any) -> dict[str, Any]:
        """Return what `benchmarks.faults.fold_checks.describe_store` returns for this workspace."""
        return self.call("benchmarks.faults.fold_checks:describe_store", **arguments)

    def run_files(self, name: str) -> list[Path]:
        """Return the files or folders of unfinished runs in the cache with a name such as ``checkpoint``."""
        assert self.cache is not None
        return sorted(self.cache.glob(f"runs/*/{name}"))


@dataclass
class Command:
    """A running fsat command.

    Attributes:
        process: its process.
        log: file with its standard error.
        started: time of the start, in seconds of the monotonic clock.
    """

    process: subprocess.Popen[bytes]
    log: Path
    started: float

    @property
    def stderr(self) -> str:
        """Its standard error so far."""
        return self.log.read_text(errors="replace")

    @property
    def last_line(self) -> str:
        """The last line of its standard error."""
        return ["", *self.stderr.splitlines()][-1]

    @property
    def errors(self) -> list[str]:
        """The error messages in its standard error."""
        return [line for line in self.stderr.splitlines() if line.startswith("fsat: error")]

    @property
    def epochs(self) -> int:
        """The last finished epoch; 0 if there is none."""
        return max((int(number) for number in EPOCH.findall(self.stderr)), default=0)

    def wait(self, seconds: float = 1800) -> int:
        """Wait until it ends, and return its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BenchmarkError(f"{self.process.args}: no end after {seconds:g} s\n{self.stderr[-3000:]}") from None

    def wait_until(self, condition: Callable[[], Any], seconds: float = 1800) -> bool:
        """Wait until a condition holds; return False if the command ends first."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                self.kill()
                raise BenchmarkError(f"{self.process.args}: waited {seconds:g} s in vain\n{self.stderr[-3000:]}")
            time.sleep(POLL_SECONDS)
        return True

    def wait_for_epoch(self, epoch: int) -> bool:
        """Wait until an epoch has ended; return False if the command ends first."""
        return self.wait_until(lambda: self.epochs >= epoch)

    def measure(self) -> tuple[float, float]:
        """Wait until it ends; return its seconds and its peak memory in MB, or raise `BenchmarkError` if it fails."""
        _, status, usage = os.wait4(self.process.pid, 0)
        seconds = time.monotonic() - self.started
        if status:
            code = os.waitstatus_to_exitcode(status)
            raise BenchmarkError(f"{self.process.args}: exit code {code}\n{self.stderr[-3000:]}")
        return seconds, usage.ru_maxrss * 1024 / 1e6

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait()


class Server:
    """`mlflow server` on a free port, with an SQLite store and artifacts in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with open(self.folder / "log", "a") as file:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **NO_PROXY, **NO_JOBS},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                raise BenchmarkError(f"mlflow server does not start\n{(self.folder / 'log').read_text()[-3000:]}")
            time.sleep(0.1)

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server and all its processes."""
        if self._process is None:
            return
        for number in (signum, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                continue
        self._process = None

    def restart_after(self, seconds: float, signum: signal.Signals) -> float:
        """Stop the server for some seconds and start it again; return the seconds without answers."""
        start = time.monotonic()
        self.stop(signum)
        time.sleep(max(0.0, seconds - (time.monotonic() - start)))
        self.start()
        return time.monotonic() - start

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False
