"""Who works on a run, and whether that process still lives.

Each open run carries ``fsat.owner``, the process that works on it, and ``fsat.heartbeat``, a time that a thread renews.
Where the owner ran on this machine, the system says whether it lives; on another one a heartbeat that has stopped does.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from fsat.errors import ConfigError, RunError, printable
from fsat.progress import say
from fsat.tracking.client import ask

OWNER, HEARTBEAT = "fsat.owner", "fsat.heartbeat"

STALE_BEATS = 6
"""A heartbeat that is late by so many beats is looked at."""

WATCHED_BEATS = 2
"""For so many more, as the clocks of two machines may differ: if it has not changed then, the owner is gone."""

_runs: set[str] = set()
_taken: set[str] = set()
_thread: threading.Thread | None = None
_lock = threading.Lock()


def beat_seconds() -> float:
    """Seconds from one heartbeat to the next: ``FSAT_HEARTBEAT``, 20 if it is not set.

    Raises:
        ConfigError: the variable is not a number above 0.
    """
    given = os.environ.get("FSAT_HEARTBEAT", "20")
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"FSAT_HEARTBEAT={printable(given)}: expected a number of seconds above 0")
    return seconds


@cache
def _me(pid: int) -> str:
    facts = {"host": platform.node(), "pid": pid, "started": _start_of(pid), "beat": beat_seconds(), **_machine()}
    if "ray" in sys.modules and (node := _ray_node()):
        facts["ray_node"] = node
    return json.dumps(facts, sort_keys=True)


def owner() -> str:
    """This process, as ``fsat.owner`` has it."""
    return _me(os.getpid())


def tags() -> dict[str, str]:
    """Tags of a run that this process works on."""
    return {OWNER: owner(), HEARTBEAT: datetime.now(UTC).isoformat(timespec="seconds")}


def start(run_id: str) -> None:
    """Renew a run's heartbeat from here on."""
    global _thread
    with _lock:
        _runs.add(run_id)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_beat, name="heartbeat", daemon=True)
            _thread.start()


def stop(run_id: str) -> None:
    """Not any more."""
    with _lock:
        _runs.discard(run_id)
        _taken.discard(run_id)


def check(run_id: str) -> None:
    """Raise `RunError` if another process has taken the run up, because it took this one for dead."""
    if run_id in _taken:
        raise RunError(
            f"run {run_id} was taken up by another process, which could not see that this one lives; it goes on there: "
            "nothing is to be done"
        )


def is_alive(run: Run) -> bool:
    """Whether the process that works on a run still does; may have to watch for some seconds.

    Args:
        run: MLflow's record.
    """
    if run.info.status != "RUNNING":
        return False
    known = _knows(run)
    if known is not None:
        return known
    facts = _facts(run)
    before, until = run.data.tags.get(HEARTBEAT, ""), time.monotonic() + WATCHED_BEATS * facts["beat"]
    say(f"run {run.info.run_id} of {who(run)} has had no heartbeat since {before}; watching whether it comes back")
    while time.monotonic() < until:
        time.sleep(min(2.0, facts["beat"] / 4))
        now = ask(lambda: mlflow.MlflowClient().get_run(run.info.run_id))
        if now.info.status != "RUNNING":
            return False
        if now.data.tags.get(HEARTBEAT, "") != before:
            return True
    return False


def is_surely_gone(run: Run) -> bool:
    """Whether a run that is RUNNING has no process any more, as far as that is known without watching it."""
    facts = _facts(run)
    return bool(facts) and run.info.status == "RUNNING" and _knows(run) is False


def who(run: Run) -> str:
    """The process that works on a run, in words."""
    facts = _facts(run)
    return f"process {facts.get('pid', '?')} on {facts.get('host', 'a machine unknown')}"


def _knows(run: Run) -> bool | None:
    """Whether the owner lives; None if only watching will tell."""
    facts = _facts(run)
    if not facts:
        return True  # nobody's that is known: not to be touched
    if {name: facts.get(name) for name in _machine()} == _machine() and all(_machine().values()):
        return facts["started"] == _start_of(facts["pid"])
    if "ray_node" in facts and "ray" in sys.modules and facts["ray_node"] in _lost_ray_nodes():
        return False
    try:
        last = datetime.fromisoformat(run.data.tags[HEARTBEAT])
    except (KeyError, ValueError):
        return None
    late = (datetime.now(UTC) - last).total_seconds()
    return True if late < STALE_BEATS * facts["beat"] else None


def _facts(run: Run) -> dict[str, Any]:
    with suppress(ValueError):
        facts = json.loads(run.data.tags.get(OWNER, "{}"))
        if isinstance(facts, dict) and {"host", "pid", "started", "beat"} <= set(facts):
            return facts
    return {}


@cache
def _machine() -> dict[str, str]:
    """What tells this machine, and this container's processes, from all others; empty texts where it cannot be told."""
    facts = {"boot": "", "processes": ""}
    with suppress(OSError):
        facts["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        facts["processes"] = os.readlink("/proc/self/ns/pid")
    return facts


def _start_of(pid: int) -> str:
    """When a process of this machine was started, in ticks since the machine was; empty if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _ray_node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def _lost_ray_nodes() -> set[str]:
    import ray

    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]} if ray.is_initialized() else set()


def _beat() -> None:
    global _thread
    while True:
        time.sleep(beat_seconds())
        with _lock:
            if not _runs:
                _thread = None  # as it may still count as alive when the next run is opened
                return
            some = sorted(_runs)
        client = mlflow.MlflowClient()
        for run_id in some:
            with suppress(MlflowException, OSError):  # the next beat will tell
                run = client.get_run(run_id)
                if run_id not in _runs:
                    continue
                its_owner = run.data.tags.get(OWNER)
                if its_owner is None:  # it is just being opened
                    continue
                if its_owner != owner():
                    _taken.add(run_id)
                    continue
                client.set_tag(run_id, HEARTBEAT, tags()[HEARTBEAT])
                if run.info.status == "KILLED" and run_id in _runs:  # someone was too quick to give it up
                    client.update_run(run_id, status="RUNNING")
