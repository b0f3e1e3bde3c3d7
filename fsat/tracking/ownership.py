"""Ownership of runs: which process trains a fold, and whether it is still alive.

Each open run carries the tag ``fsat.owner``, the process that writes to it, and ``fsat.heartbeat``, a time that a
thread renews. On the owner's machine the system says whether the process is alive; on another machine, a heartbeat that
has stopped says that it is not.

A fold is claimed by a file lock, which excludes processes that share the cache folder, and by the tags of the claiming
run, which other machines see. Two launches that claim a fold on different machines within milliseconds may both train
it; the newest FINISHED run counts.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from fsat.errors import FsatError, RunError
from fsat.progress import say
from fsat.tracking.client import SESSION, TAG, call, discard, search_runs, seconds_from_environment
from fsat.tracking.run_folder import Fold, held_fold

STAGE = "train_fold"
OWNER, HEARTBEAT = TAG + "owner", TAG + "heartbeat"

STALE_BEATS, WATCHED_BEATS = 6, 2
"""Missed heartbeats after which a run is watched, and for how many more, as the clocks of two machines may differ."""


class FoldTaken(RunError):
    """Another process trains the fold, or has finished it."""


@contextmanager
def claimed(run_id: str, fold: Fold) -> Iterator[None]:
    """Claim a fold for an open run of this process; raise `FoldTaken` if another process trains it."""
    with ExitStack() as stack:
        message = f"fold {fold.fold} of study {fold.study} is being trained by "
        advice, busy = "wait for it, or stop it and try again", None
        try:
            stack.enter_context(held_fold(fold, f"{message}another process on this machine; {advice}"))
        except FsatError as error:
            busy = error
        if run := running_elsewhere(fold.study, fold.fold):
            since = datetime.fromtimestamp(run.info.start_time / 1000).isoformat(sep=" ", timespec="seconds")
            raise FoldTaken(f"{message}{owner_of(run)} in run {run.info.run_id} since {since}; {advice}")
        if busy:
            raise FoldTaken(str(busy)) from busy
        take_over(run_id, {TAG + "study": fold.study, TAG + "fold": str(fold.fold)})
        yield


def take_over(run_id: str, tags: Mapping[str, str]) -> None:
    """Make this process the owner of a run, and set further tags of it."""
    all_tags = [RunTag(name, value) for name, value in {**owner_tags(), **tags}.items()]
    call(lambda: mlflow.MlflowClient().log_batch(run_id, tags=all_tags))


def running_elsewhere(study: str, fold: int) -> Run | None:
    """Return a run of the fold by another process that is alive; mark runs of dead processes as KILLED."""
    for run in search_runs(f"{_of_fold(study, fold)} and attributes.status = 'RUNNING'"):
        if run.data.tags.get(OWNER) == owner():
            continue
        if is_alive(run):
            return run
        _mark_killed(run)
    return None


def finished_run(study: str, fold: int, experiment: str | None = None) -> str | None:
    """Return the id of the newest FINISHED run of a fold; by default in the experiment of the active run."""
    runs = search_runs(f"{_of_fold(study, fold)} and attributes.status = 'FINISHED'", experiment)
    return runs[0].info.run_id if runs else None


def stopped_runs(study: str, fold: int) -> list[Run]:
    """Return the KILLED and FAILED runs of a fold, the last to end first."""
    runs = [run for run in search_runs(_of_fold(study, fold)) if run.info.status in ("KILLED", "FAILED")]
    return sorted(runs, key=lambda run: run.info.end_time or run.info.start_time, reverse=True)


def sweep() -> None:
    """Mark RUNNING runs of this experiment as KILLED if their process is known to be dead without watching it."""
    for run in search_runs(f"attributes.status = 'RUNNING' and tags.`{OWNER}` != ''"):
        if _facts(run) and _is_known_alive(run) is False:
            _mark_killed(run)


def check_owner(run_id: str) -> None:
    """Raise `RunError` if another process has taken the run over because it took this one for dead."""
    if run_id in SESSION.lost:
        reason = "to which this one seemed dead; it continues there, and nothing needs to be done"
        raise RunError(f"run {run_id} was taken over by another process, {reason}")


def confirm_owner(run_id: str) -> None:
    """Check with the server, as `check_owner` does with what the last heartbeat saw."""
    if call(lambda: mlflow.MlflowClient().get_run(run_id)).data.tags.get(OWNER) != owner():
        SESSION.lost.add(run_id)
    check_owner(run_id)


def is_alive(run: Run) -> bool:
    """Return whether the process that owns a RUNNING run is alive; may watch its heartbeat for some seconds."""
    if (known := _is_known_alive(run)) is not None:
        return known
    last, beat = run.data.tags.get(HEARTBEAT, ""), _facts(run)["beat"]
    say(f"run {run.info.run_id} of {owner_of(run)} has had no heartbeat since {last}; waiting for the next one")
    deadline = time.monotonic() + WATCHED_BEATS * beat
    while time.monotonic() < deadline:
        time.sleep(min(2.0, beat / 4))
        current = call(lambda: mlflow.MlflowClient().get_run(run.info.run_id))
        if current.info.status != "RUNNING":
            return False
        if current.data.tags.get(HEARTBEAT, "") != last:
            return True
    return False


def owner_of(run: Run) -> str:
    """Return the process that owns a run, in words."""
    facts = _facts(run)
    return f"process {facts.get('pid', '?')} on {facts.get('host', 'an unknown machine')}"


def owner_tags() -> dict[str, str]:
    """Return the tags of a run that this process owns."""
    return {OWNER: owner(), HEARTBEAT: datetime.now(UTC).isoformat(timespec="seconds")}


def owner() -> str:
    """Return this process as the tag ``fsat.owner`` has it."""
    return _describe_process(os.getpid())


def beat_seconds() -> float:
    """Return the seconds between heartbeats: ``FSAT_HEARTBEAT``, by default 20."""
    return seconds_from_environment("FSAT_HEARTBEAT", 20, positive=True)


@contextmanager
def heartbeat(run_id: str) -> Iterator[None]:
    """Renew the heartbeat of a run."""
    with SESSION.lock:
        SESSION.beating.add(run_id)
        if SESSION.beat_thread is None or not SESSION.beat_thread.is_alive():
            SESSION.beat_thread = threading.Thread(target=_beat, name="heartbeat", daemon=True)
            SESSION.beat_thread.start()
    try:
        yield
    finally:
        with SESSION.lock:
            SESSION.beating.discard(run_id)
            SESSION.lost.discard(run_id)


def _beat() -> None:
    while True:
        time.sleep(beat_seconds())
        with SESSION.lock:
            if not SESSION.beating:
                SESSION.beat_thread = None  # this thread may still count as alive when the next run is opened
                return
            run_ids = sorted(SESSION.beating)
        for run_id in run_ids:
            with suppress(MlflowException, OSError):  # the next beat tries again
                _renew(run_id)


def _renew(run_id: str) -> None:
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    if run_id not in SESSION.beating or OWNER not in run.data.tags:  # closed meanwhile, or not yet fully opened
        return
    if run.data.tags[OWNER] != owner():
        SESSION.lost.add(run_id)
        return
    client.set_tag(run_id, HEARTBEAT, owner_tags()[HEARTBEAT])
    if run.info.status == "KILLED" and run_id in SESSION.beating:  # another process gave it up too early
        client.update_run(run_id, status="RUNNING")


def _mark_killed(run: Run) -> None:
    run_id = run.info.run_id
    name = run.data.tags.get("mlflow.runName", run_id)
    say(f"run {run_id} ({name}) was left RUNNING when {owner_of(run)} died; it is marked as KILLED")
    call(lambda: mlflow.MlflowClient().set_terminated(run_id, "KILLED"))
    if run.data.tags.get(TAG + "spare"):
        discard(run_id)


def _of_fold(study: str, fold: int) -> str:
    return f"tags.`{TAG}stage` = '{STAGE}' and tags.`{TAG}study` = '{study}' and tags.`{TAG}fold` = '{fold}'"


def _is_known_alive(run: Run) -> bool | None:
    """Return whether the owner is alive; None if only its next heartbeat can tell."""
    facts = _facts(run)
    if not facts:
        return True  # fsat does not own the run
    machine = _machine()
    if all(machine.values()) and {name: facts.get(name) for name in machine} == machine:
        return facts["started"] == _start_of(facts["pid"])
    ray = _ray() if "ray_node" in facts else None
    if ray and any(node["NodeID"] == facts["ray_node"] and not node["Alive"] for node in ray.nodes()):
        return False
    with suppress(KeyError, ValueError):
        last = datetime.fromisoformat(run.data.tags[HEARTBEAT])
        if (datetime.now(UTC) - last).total_seconds() < STALE_BEATS * facts["beat"]:
            return True
    return None


def _facts(run: Run) -> dict[str, Any]:
    """Return the owner of a run as `_describe_process` wrote it; empty if the run has none."""
    with suppress(ValueError):
        facts = json.loads(run.data.tags.get(OWNER, "{}"))
        if isinstance(facts, dict) and {"host", "pid", "started", "beat"} <= set(facts):
            return facts
    return {}


@cache
def _describe_process(pid: int) -> str:
    facts = {"host": platform.node(), "pid": pid, "started": _start_of(pid), "beat": beat_seconds(), **_machine()}
    if ray := _ray():
        facts["ray_node"] = ray.get_runtime_context().get_node_id()
    return json.dumps(facts, sort_keys=True)


@cache
def _machine() -> dict[str, str]:
    """Return what identifies this machine and this container's processes; empty strings where the system does not."""
    facts = {"boot": "", "processes": ""}
    with suppress(OSError):
        facts["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        facts["processes"] = os.readlink("/proc/self/ns/pid")
    return facts


def _start_of(pid: int) -> str:
    """Return when a process of this machine started, in ticks since the machine did; empty if it does not exist."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""


def _ray() -> Any:
    """Return Ray if this process is connected to a cluster."""
    ray = sys.modules.get("ray")
    return ray if ray and ray.is_initialized() else None
