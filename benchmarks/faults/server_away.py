"""Stop the tracking server repeatedly while a fold is trained: nothing is lost, nothing is recorded twice."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.faults.fold_checks import compare_stores, count_statuses, summarise
from benchmarks.faults.processes import Server, Workspace
from benchmarks.harness import Bench, BenchmarkError, Check, Section, number, say

STOPS = 5
STOP_SECONDS = 60.0
START_SECONDS = 12.0
"""Upper estimate of the time that the server needs to start."""

SEED = 1001
OPTIONS = {"fold": 1, "model": "conv1d", "audio_duration": 2, "eval_crops": 2}
REQUIRED = (
    "exit code 0; one FINISHED run, none RUNNING; every epoch's metrics once, with the undisturbed values; all "
    "artifacts match checksums.json, predictions and weights are byte-equal"
)
REQUIRED_AFTER_FAILURE = (
    "exit code 1 and one last line that names `fsat sync`; after that command one FINISHED run, nothing lost or twice"
)
TRAINING, END = "during training", "at the last epoch"


def run(bench: Bench) -> Section:
    """Train undisturbed, then with a server that stops for some time, then with one that stays unreachable."""
    seconds, n_stops, n_few = bench.pick(STOP_SECONDS, 4.0), bench.pick(STOPS, 2), bench.pick(20, 5)
    few = {**OPTIONS, "data_dir": bench.data_dir, "max_epochs": n_few, "patience": n_few}
    cache = bench.folder / "cache"
    checks = []
    with Server(bench.folder / "server few") as server:
        expected_few, training = _train_undisturbed(Workspace(bench.folder / "few", server.uri, cache), few)
    stopped = (n_stops - 1) * (seconds + START_SECONDS)
    n_epochs = round((stopped + bench.pick(150, 10)) / training * (n_few - 1))
    options = {**few, "max_epochs": n_epochs, "patience": n_epochs}
    with Server(bench.folder / "server undisturbed") as server:
        expected, training = _train_undisturbed(Workspace(bench.folder / "undisturbed", server.uri, cache), options)
    say(f"  undisturbed: {n_epochs} epochs in {training:.1f} s")
    with Server(bench.folder / "server") as server:
        workspace = Workspace(bench.folder / "stops", server.uri, cache)
        checks.append(_stop_repeatedly(workspace, server, options, expected, training, n_stops, seconds))
    for moment in bench.pick((TRAINING, END), (END,)):
        with Server(bench.folder / f"server {moment}") as server:
            workspace = Workspace(bench.folder / moment, server.uri, cache, {"FSAT_SERVER_WAIT": "5"})
            checks.append(_stop_for_good(workspace, server, few, expected_few, moment))
    notes = [
        f"`python -m fsat train_fold` of conv1d on DATA_DIR, {n_epochs} epochs of crops of 2 s in {number(training)} "
        "s, with a `mlflow server` with an SQLite store, its own artifacts and no passwords. All of its processes are "
        f"stopped by SIGTERM and SIGKILL alternately, {n_stops} times for {number(seconds)} s plus the time to start, "
        f"at random moments (seed {SEED}) of the training, the last time right after the last epoch, before "
        "predictions and upload. Results are compared with the same fold and a server that does not stop. In the last "
        "rows FSAT_SERVER_WAIT is 5 s, and the server stays stopped until the process has ended."
    ]
    return Section(notes=notes, libraries=["tensorflow", "keras", "mlflow"], checks=checks)


def _train_undisturbed(workspace: Workspace, options: Mapping[str, Any]) -> tuple[dict, float]:
    """Train a fold without faults; return the description of the store, and the seconds of the epochs."""
    command = workspace.start("train_fold", **options)
    command.wait_for_epoch(1)
    start = time.monotonic()
    command.wait_for_epoch(options["max_epochs"])
    seconds = time.monotonic() - start
    if code := command.wait():
        raise BenchmarkError(f"the undisturbed fold ended with {code}\n{command.stderr[-3000:]}")
    return workspace.describe_store(), seconds


def _stop_repeatedly(
    workspace: Workspace,
    server: Server,
    options: Mapping[str, Any],
    expected: dict,
    training: float,
    n_stops: int,
    seconds: float,
) -> Check:
    """Stop the server at random moments of the training, the last time after the last epoch."""
    rng = random.Random(SEED)
    spare = max(0.0, training - (n_stops - 1) * (seconds + START_SECONDS))  # seconds between the stops
    offsets = sorted(rng.uniform(0, spare) for _ in range(n_stops - 1))
    times = [offset + i * (seconds + START_SECONDS) for i, offset in enumerate(offsets)]
    command = workspace.start("train_fold", **options)
    moments: list[str] = []
    stopped: list[float] = []
    command.wait_for_epoch(1)
    start = time.monotonic()
    for i in range(n_stops):
        last = i == n_stops - 1
        if last:
            alive = command.wait_for_epoch(options["max_epochs"])
        else:
            alive = command.wait_until(lambda moment=start + times[i]: time.monotonic() >= moment)
        if not alive:
            break
        signum = (signal.SIGTERM, signal.SIGKILL)[i % 2]
        epoch = command.epochs
        stopped.append(server.restart_after(seconds, signum))
        moments.append(f"epoch {epoch}{', at the end' if last else ''} ({signum.name})")
        say(f"  stopped for {stopped[-1]:.1f} s from {moments[-1]}")
    code, store = command.wait(), workspace.describe_store()
    problems = [f"exit code {code}: {command.last_line}"] if code else []
    problems += compare_stores(store, expected)
    if len(moments) < n_stops:
        problems.append(f"it ended after {len(moments)} stops")
    times_text = f"for {min(stopped):.0f} to {max(stopped):.0f} s" if stopped else ""
    action = f"stopped {len(moments)} times {times_text}: {'; '.join(moments)}"
    return Check(action, REQUIRED, summarise(problems) or f"as required; runs: {count_statuses(store)}", not problems)


def _stop_for_good(
    workspace: Workspace, server: Server, options: Mapping[str, Any], expected: dict, moment: str
) -> Check:
    """Stop the server until the command has failed; then start it again and run `sync`."""
    command = workspace.start("train_fold", **options)
    command.wait_for_epoch(1 if moment == TRAINING else options["max_epochs"])
    server.stop()
    code, errors = command.wait(), command.errors
    server.start()
    problems = [] if code == 1 else [f"exit code {code}"]
    if len(errors) != 1 or "fsat sync" not in errors[0] or "Traceback" in command.stderr:
        problems.append(f"message: {' / '.join(errors)[:300]}")
    sync = workspace.start("sync")
    if sync_code := sync.wait():
        problems.append(f"sync: exit code {sync_code}: {sync.last_line}")
    problems += compare_stores(workspace.describe_store(sweep=True), expected)
    if remaining := workspace.run_files("*"):
        problems.append(f"the cache still has {len(remaining)} files of runs")
    action = f"stopped {moment}, for longer than FSAT_SERVER_WAIT; started again, then `python -m fsat sync`"
    message = errors[0].replace(str(workspace.cache), "CACHE") if errors else ""
    result = summarise(problems) or f"as required; message: {message}"
    return Check(action, REQUIRED_AFTER_FAILURE, result, not problems)
