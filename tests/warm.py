"""Processes of fsat that need not import TensorFlow and MLflow first: forked from one that has done so.

Half of what a short command costs is importing these two, and tests start it a hundred times. `Warm` has the part of
`subprocess.Popen`'s interface that tests use; the process is one of its own in every respect that they look at: its
arguments, folder, environment, streams, signals and exit. Nothing of fsat itself is imported before it is forked.
What a shell, MLflow or Ray starts, and commands in `test_cli` and `test_project`, are processes that were not forked.

Run as a program, with a socket's number, this module is the process that forks.
"""

from __future__ import annotations

import array
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

HEAVY = ("tensorflow", "mlflow", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "librosa", "pandas",
         "matplotlib.pyplot", "sklearn.metrics", "sklearn.model_selection", "soxr", "soundfile")  # fmt: skip
"""What is imported beforehand, with the settings that `fsat.models.import_keras` makes."""

STREAMS = ("stdin", "stdout", "stderr")

_forker: Forker | None = None


class Warm:
    """A process ``python ARGUMENTS``, of which `arguments` begin with ``-m MODULE``.

    Args:
        arguments: what stands after the interpreter in a command.
        cwd: its folder.
        env: its environment.
        stdin, stdout, stderr: as `subprocess.Popen` takes them; ``stdin`` is empty by default. Pipes are of text.
        start_new_session: put it in a session, and so in a group, of its own.
    """

    def __init__(
        self, arguments: Sequence[object], *, cwd: Path, env: Mapping[str, str], stdin: int | IO | None = None,
        stdout: int | IO | None = None, stderr: int | IO | None = None, start_new_session: bool = False,
    ) -> None:  # fmt: skip
        global _forker
        if _forker is None:
            _forker = Forker()
        self.args = [sys.executable, *map(str, arguments)]
        self.returncode: int | None = None
        given: list[int] = []
        for number, (name, stream) in enumerate(zip(STREAMS, (stdin, stdout, stderr), strict=True)):
            ours, theirs = _stream(stream, number)
            setattr(self, name, ours)
            given.append(theirs)
        request = {"arguments": self.args[1:], "cwd": str(cwd), "env": dict(env), "session": start_new_session}
        self._ended = _forker.ask(request, given)
        for fd in given:
            os.close(fd)
        self.pid = int(self._line())

    def _line(self, timeout: float | None = None) -> str:
        self._ended.settimeout(timeout)
        try:
            text = self._ended.recv(64).decode()
        except TimeoutError:
            raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
        assert text, "the process that forks has died"
        return text

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status as `subprocess` has it, once it has ended; `subprocess.TimeoutExpired` if it has not."""
        if self.returncode is None:
            self.returncode = int(self._line(timeout))
            self._ended.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit status, or None while it lives."""
        if self.returncode is None:
            self._ended.settimeout(0)
            try:
                self._ended.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return None
            return self.wait()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str | None]:
        """All that it writes to pipes, once it has ended."""
        texts: dict[str, str | None] = {"stdout": None, "stderr": None}
        deadline = None if timeout is None else time.monotonic() + timeout

        def read(name: str) -> None:
            texts[name] = getattr(self, name).read()

        readers = [threading.Thread(target=read, args=(name,), daemon=True) for name in texts if getattr(self, name)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(None if deadline is None else max(deadline - time.monotonic(), 0))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if deadline is None else max(deadline - time.monotonic(), 0.1))
        return texts["stdout"], texts["stderr"]

    def send_signal(self, signum: int) -> None:
        """As `os.kill`, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """Send SIGSTOP, and wait until each of its threads has stopped."""
        self.send_signal(signal.SIGSTOP)
        while any(state not in "TZX" for state in self._states()):
            time.sleep(0.001)

    def _states(self) -> list[str]:
        tasks = Path(f"/proc/{self.pid}/task")
        return [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks.iterdir()]


def run(arguments: Sequence[object], *, cwd: Path, env: Mapping[str, str], timeout: float | None = None):
    """As `subprocess.run(..., capture_output=True, text=True)`."""
    process = Warm(arguments, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        output, said = process.communicate(timeout)
    except BaseException:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, said)


def _stream(stream: int | IO | None, number: int) -> tuple[IO | None, int]:
    """Our end of a stream, if it is a pipe, and a descriptor of theirs, to be closed."""
    if stream == subprocess.PIPE:
        reading, writing = os.pipe()
        return (open(writing, "w"), reading) if number == 0 else (open(reading), writing)
    if stream == subprocess.DEVNULL or (stream is None and number == 0):
        return None, os.open(os.devnull, os.O_RDWR)
    return None, os.dup(number if stream is None else stream if isinstance(stream, int) else stream.fileno())


class Forker:
    """The process that forks, as these tests see it. It ends, and all that it has forked, when they do."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                cwd="/", start_new_session=True,
                env={**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "Agg"},
            )  # fmt: skip

    def ask(self, request: dict, fds: list[int]) -> socket.socket:
        """Have a process made; what is read from the socket is its id, and later how it ended."""
        ours, theirs = socket.socketpair()
        body = json.dumps(request).encode()
        with theirs:
            descriptors = array.array("i", [theirs.fileno(), *fds])
            head = len(body).to_bytes(4, "big")
            self._socket.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
            self._socket.sendall(body)
        return ours


# --- in the process that forks --------------------------------------------------------------------


def serve(requests: socket.socket) -> None:
    """Fork until there are no more tests. In this process there is one thread alone."""
    living: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is requests:
                    head, fds, _, _ = socket.recv_fds(requests, 4, 4)
                    if not head:
                        for pid, _ in living.values():
                            os.kill(pid, signal.SIGKILL)
                        return
                    size, body = int.from_bytes(head, "big"), b""
                    while len(body) < size:
                        body += requests.recv(size - len(body))
                    request = json.loads(body)
                    pid = os.fork()
                    if pid == 0:
                        selector.close()
                        requests.close()
                        for _, other in living.values():
                            other.close()
                        become(request, fds)
                    answers = socket.socket(fileno=fds[0])
                    for fd in fds[1:]:
                        os.close(fd)
                    answers.send(str(pid).encode())
                    watched = os.pidfd_open(pid)
                    living[watched] = (pid, answers)
                    selector.register(watched, selectors.EVENT_READ)
                else:
                    selector.unregister(key.fd)
                    pid, answers = living.pop(key.fd)
                    os.close(key.fd)
                    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with answers:
                        try:
                            answers.send(str(status).encode())
                        except OSError:  # nobody waits for it
                            continue


def become(request: dict, fds: list[int]) -> None:
    """Be the process that was asked for. Does not return."""
    os.close(fds[0])
    for number, fd in enumerate(fds[1:]):
        os.dup2(fd, number)
        os.close(fd)
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    del sys.modules["keras"]  # as if it were not loaded: fsat sets TensorFlow's threads before it loads it
    _, module, *arguments = request["arguments"]
    sys.argv = [module, *arguments]
    sys.path[:0] = [request["cwd"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    for stream, number in zip(STREAMS, range(3), strict=True):
        setattr(sys, stream, open(number, "w" if number else "r", closefd=False, buffering=1))  # noqa: SIM115
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


def _main() -> None:
    sys.path.remove(str(Path(__file__).resolve().parent))
    for name in HEAVY:
        __import__(name)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        serve(requests)


if __name__ == "__main__":
    _main()
