"""Orderly stop on SIGINT, SIGTERM and SIGHUP: the first signal raises `Interrupted`, later ones are ignored.

A run that is stopped must still be marked KILLED on the tracking server, so a second signal (the terminal sends SIGINT
to every process, and `mlflow run` then adds a SIGTERM) must not interrupt that. A signal during an exchange with the
server takes effect at its end, after `GRACE_SECONDS` at the latest. An exception raised while foreign code runs may be
lost there: `check` raises it again at the next safe point.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that stop a process. Windows, where a served tagger imports this module too, has no SIGHUP."""

GRACE_SECONDS = 5.0


@dataclass
class State:
    """Signals of this process: whether handlers are installed, the first signal or 0, and open blocks.

    A `deferred` block counts as shield too.
    """

    installed: bool = False
    first: int = 0
    shields: int = 0
    deferrals: int = 0


state = State()


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


def install() -> None:
    """Turn signals into `Interrupted`; to be called from the main thread of fsat's own programs."""
    state.installed = True
    for signum in SIGNALS:  # SIGHUP stays ignored where it is, as under nohup
        if signum is signal.SIGINT or signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _on_signal)
    signal.signal(signal.SIGALRM, _on_alarm)


def received() -> signal.Signals | None:
    """Return the first signal received."""
    return signal.Signals(state.first) if state.first else None


@contextmanager
def shielded() -> Iterator[None]:
    """Let an exchange with a server or a database finish, for at most `GRACE_SECONDS` after a signal."""
    state.shields += 1
    try:
        yield
    finally:
        state.shields -= 1
        if state.installed and not state.shields:
            signal.setitimer(signal.ITIMER_REAL, 0)
    if not state.shields:
        check()


@contextmanager
def deferred() -> Iterator[None]:
    """Let a few lines finish, such as those that close a run: a signal is recorded but does not raise."""
    state.shields += 1
    state.deferrals += 1
    try:
        yield
    finally:
        state.shields -= 1
        state.deferrals -= 1


def check() -> None:
    """Raise `Interrupted` if a signal was received, even where the first exception was lost."""
    if state.first:
        raise Interrupted(state.first)


def ignore() -> None:
    """Ignore signals from here on, and the last one, if `install` was called: the work is complete."""
    if state.installed:
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)
        state.first = 0


def follow_parent(poll_seconds: float = 1.0) -> None:
    """Stop this process when its parent ends, such as a killed `mlflow run`."""
    parent, gone = os.getppid(), False
    with suppress(OSError):  # process 1 may be `mlflow run` in a container; otherwise the parent has ended
        gone = parent == 1 and b"mlflow" not in Path("/proc/1/cmdline").read_bytes()

    def watch() -> None:
        while os.getppid() == parent and not gone:
            time.sleep(poll_seconds)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


def _on_signal(signum: int, frame: FrameType | None) -> None:
    if state.first:
        return
    state.first = signum
    if not state.shields:
        raise Interrupted(signum)
    signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)


def _on_alarm(signum: int, frame: FrameType | None) -> None:
    if state.first and state.shields and not state.deferrals:
        raise Interrupted(state.first)
