"""SIGINT, SIGTERM and SIGHUP end a run in order: the first one raises `Interrupted`, later ones are ignored.

A run that is told to stop must still be marked KILLED on the tracking server, so a second signal (the terminal
sends SIGINT to every process, and `mlflow run` then adds a SIGTERM) must not cut that short. A signal that comes in an
exchange with the server waits for its end, `GRACE_SECONDS` at most. An exception that is raised while foreign code
runs may be lost there: `check` raises it again at the next safe place.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Windows has no SIGHUP; a tagger that is served there imports this module too."""

GRACE_SECONDS = 5.0

_received: list[int] = []
_shields = 0  # how many `shielded` and `deferred` are open
_deferrals = 0  # how many of them are `deferred`
_installed = False


class Interrupted(KeyboardInterrupt):
    """The process was told to stop by a signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


def install() -> None:
    """Turn signals into `Interrupted`; must be called from the main thread, by a program of its own.

    SIGHUP stays ignored where it is, as under nohup.
    """
    global _installed
    _installed = True
    for signum in SIGNALS:
        if signum is signal.SIGINT or signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _on_signal)
    signal.signal(signal.SIGALRM, _on_alarm)


def reinstall() -> None:
    """Take signals back from a library that has put its own handlers in place, if they were fsat's."""
    if _installed:
        install()


def received() -> signal.Signals | None:
    """The first signal that has come."""
    return signal.Signals(_received[0]) if _received else None


@contextmanager
def shielded() -> Iterator[None]:
    """Let an exchange with a server or a database finish; a signal is raised at its end, or when the grace is over."""
    global _shields
    _shields += 1
    try:
        yield
    finally:
        _shields -= 1
        if _installed and not _shields:
            signal.setitimer(signal.ITIMER_REAL, 0)
    if not _shields:
        check()


@contextmanager
def deferred() -> Iterator[None]:
    """Let a few lines finish, such as those that close a run: a signal is noted, and nothing is raised."""
    global _shields, _deferrals
    _shields += 1
    _deferrals += 1
    try:
        yield
    finally:
        _shields -= 1
        _deferrals -= 1


def check() -> None:
    """Raise `Interrupted` if a signal has come, even where the first exception was lost."""
    if _received:
        raise Interrupted(_received[0])


def ignore() -> None:
    """From here on the work is complete: a late signal, or one that has just come, must not turn it into a failure.

    Does nothing where `install` was not called, so that a caller's own handling of signals stays.
    """
    if _installed:
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)
        _received.clear()


def follow_parent(poll_seconds: float = 1.0) -> None:
    """Stop when the process that started this one has gone, as `mlflow run` does when it is killed."""
    parent = os.getppid()
    gone = parent == 1 and not _is_mlflow(parent)  # it went before this process could look

    def watch() -> None:
        while os.getppid() == parent and not gone:
            time.sleep(poll_seconds)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


def _is_mlflow(pid: int) -> bool:
    """Whether that process is `mlflow run`, which may be process 1 in a container."""
    try:
        return b"mlflow" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def _on_signal(signum: int, frame: FrameType | None) -> None:
    _received.append(signum)
    if len(_received) > 1:
        return
    if not _shields:
        raise Interrupted(signum)
    signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)


def _on_alarm(signum: int, frame: FrameType | None) -> None:
    if _received and _shields and not _deferrals:
        raise Interrupted(_received[0])
