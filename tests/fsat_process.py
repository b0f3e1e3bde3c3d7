"""`python -m fsat` in processes that are forked from one with TensorFlow and MLflow imported, which takes seconds.

Python's own fork server starts them. Each has its own arguments, folder, environment, signals and exit code. Commands
that a shell, MLflow or Ray starts are ordinary processes.
"""

from __future__ import annotations

import functools
import gc
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRELOADED = ("tensorflow", "mlflow", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "librosa", "pandas",
             "matplotlib.pyplot", "sklearn.metrics", "sklearn.model_selection", "soxr", "soundfile")  # fmt: skip
SETTINGS = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "Agg"}
"""Environment of the fork server, as `fsat.models.import_keras` and `fsat.reports` set it before they import these."""


class FsatProcess:
    """A running `python -m fsat`, with the part of `subprocess.Popen`'s interface that tests use.

    Args:
        arguments: command and options.
        cwd: working folder.
        env: variables to add to those of the tests.
    """

    def __init__(self, arguments: Sequence[object], *, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self.args = ["fsat", *map(str, arguments)]
        self._folder = tempfile.TemporaryDirectory(prefix="fsat-process-")
        self._output = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        for path in self._output:
            path.touch()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        self._process = _context().Process(target=_run, args=(self.args, cwd, environment, self._output))
        self._process.start()
        self.pid = self._process.pid

    @property
    def stdout(self) -> str:
        """Output so far."""
        return self._output[0].read_text()

    @property
    def stderr(self) -> str:
        """Messages so far."""
        return self._output[1].read_text()

    @property
    def returncode(self) -> int | None:
        """Exit code, as `subprocess` has it, or None while the process runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once the process has ended; raise `subprocess.TimeoutExpired` if it does not."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; return the whole output and all messages."""
        self.wait(timeout)
        return self.stdout, self.stderr

    def finish(self, code: int = 0) -> str:
        """Wait for the end, check the exit code, and return the output."""
        assert self.wait(timeout=240) == code, self.stderr
        return self.stdout.strip()

    def wait_for(self, text: str) -> None:
        """Wait until a message has this text; fail if the process ends first."""
        while text not in self.stderr:
            assert self.returncode is None or text in self.stderr, self.stderr
            time.sleep(0.05)

    def send_signal(self, signum: int) -> None:
        """Send a signal to the process if it is running."""
        if self.returncode is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """Send SIGSTOP and wait until each thread has stopped."""
        self.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.pid}/task")
        while any((task / "stat").read_text().rpartition(")")[2].split()[0] not in "TZX" for task in tasks.iterdir()):
            time.sleep(0.001)


def start_fsat(
    folder: Path, uri: str, *arguments: object, env: Mapping[str, str] | None = None, **options: object
) -> FsatProcess:
    """Start a command with options in a folder, which is made if missing, with a cache folder in it."""
    folder.mkdir(exist_ok=True)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    variables = {"MLFLOW_TRACKING_URI": uri, "FSAT_CACHE_DIR": str(folder / "cache"), **(env or {})}
    return FsatProcess([*arguments, *words], cwd=folder, env=variables)


@functools.cache
def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        multiprocessing.forkserver.ensure_running()
    return context


def _run(arguments: list[str], cwd: Path, environment: dict[str, str], output: list[Path]) -> None:
    """Run the command in a forked process."""
    gc.freeze()
    for number, path in enumerate(output, start=1):
        with open(path, "a") as file:
            os.dup2(file.fileno(), number)
        setattr(sys, path.name, open(number, "w", closefd=False, buffering=1))  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # TMPDIR may differ
    sys.modules.pop("keras", None)  # `fsat.models.import_keras` sets TensorFlow's threads before the first import
    sys.argv = arguments
    sys.path.insert(0, str(ROOT))
    runpy.run_module("fsat", run_name="__main__", alter_sys=True)
