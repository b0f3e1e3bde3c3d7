"""A tracking server that is away for a minute, again and again, costs a fold nothing: nothing is lost or doubled."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.faults.found import faults_of, statuses, verdict
from benchmarks.faults.processes import Place, Server, Sitting
from benchmarks.harness import Bench, BenchmarkError, Check, Section, number, say

STOPS = 5
AWAY_SECONDS = 60.0
START_SECONDS = 12.0
"""About what a server takes until it answers, or a little more."""

SEED = 1001
OPTIONS = {"fold": 1, "model": "conv1d", "audio_duration": 2, "eval_crops": 2}
MUST = (
    "exit code 0; one FINISHED run, none RUNNING; every epoch's metrics once, with the undisturbed values; every "
    "artifact there and as checksums.json says, predictions and weights byte-equal"
)
TOO_LONG = (
    "exit code 1, one last line that names `fsat sync`; after that command one FINISHED run, nothing lost or doubled"
)
MIDDLE, END = "mid-training", "the last epoch"
STOPPED = {signal.SIGTERM: "SIGTERM", signal.SIGKILL: "SIGKILL"}


def run(bench: Bench) -> Section:
    """Train undisturbed, then with a server that comes and goes, then with one that is away for too long."""
    seconds, n_stops, n_few = bench.pick(AWAY_SECONDS, 4.0), bench.pick(STOPS, 2), bench.pick(20, 5)
    few = {**OPTIONS, "data_dir": bench.data_dir, "max_epochs": n_few, "patience": n_few}
    cache = bench.folder / "cache"
    checks = []
    with Server(bench.folder / "server of the few") as server:
        little, training = _undisturbed(Place(bench.folder / "few", server.uri, cache), few)
    all_away = (n_stops - 1) * (seconds + START_SECONDS)
    n_epochs = round((all_away + bench.pick(150, 10)) / training * (n_few - 1))
    options = {**few, "max_epochs": n_epochs, "patience": n_epochs}
    with Server(bench.folder / "server of the undisturbed") as server:
        whole, training = _undisturbed(Place(bench.folder / "undisturbed", server.uri, cache), options)
    say(f"  undisturbed: {n_epochs} epochs in {training:.1f} s")
    with Server(bench.folder / "server") as server:
        place = Place(bench.folder / "stops", server.uri, cache)
        checks.append(_come_and_go(place, server, options, whole, training, n_stops, seconds))
    for when in bench.pick((MIDDLE, END), (END,)):
        with Server(bench.folder / f"server {when}") as server:
            place = Place(bench.folder / when, server.uri, cache, {"FSAT_SERVER_WAIT": "5"})
            checks.append(_too_long(place, server, few, little, when))
    notes = [
        f"`python -m fsat train_fold` of conv1d on DATA_DIR, {n_epochs} epochs of crops of 2 s in {number(training)} "
        "s, with a `mlflow server` that has an SQLite store and artifacts of its own and asks for no password. All "
        f"of its processes are stopped by SIGTERM and SIGKILL by turns, {n_stops} times for {number(seconds)} s and "
        f"then for as long as it takes to start, at random moments (seed {SEED}) of the training, the last time "
        "right after the last epoch, when predictions and the upload are to come. What must hold is held against "
        "the same fold with a server that stays. In the last rows FSAT_SERVER_WAIT is 5 s, and the server stays "
        "away until the process has ended."
    ]
    return Section(notes=notes, libraries=["tensorflow", "keras", "mlflow"], checks=checks)


def _undisturbed(place: Place, options: Mapping[str, Any]) -> tuple[dict, float]:
    """Train a fold in peace: what the server then has, and how many seconds the epochs took."""
    sitting = place.start("train_fold", **options)
    sitting.wait_until(lambda: sitting.epochs >= 1)
    begun = time.monotonic()
    sitting.wait_until(lambda: sitting.epochs >= options["max_epochs"])
    seconds = time.monotonic() - begun
    if code := sitting.wait():
        raise BenchmarkError(f"the undisturbed fold ended with {code}\n{sitting.said[-3000:]}")
    return place.ask("look"), seconds


def _come_and_go(
    place: Place, server: Server, options: Mapping[str, Any], whole: dict, training: float, n_stops: int, seconds: float
) -> Check:
    """Train while the server stops at random moments, the last time when the epochs are over."""
    chance = random.Random(SEED)
    spare = max(0.0, training - (n_stops - 1) * (seconds + START_SECONDS))  # what is left between the stops
    marks = sorted(chance.uniform(0, spare) for _ in range(n_stops - 1))
    sitting, moments, away = place.start("train_fold", **options), [], []
    sitting.wait_until(lambda: sitting.epochs >= 1)
    begun = time.monotonic()
    for i in range(n_stops):
        how = (signal.SIGTERM, signal.SIGKILL)[i % 2]
        last = i == n_stops - 1
        after = begun + (0 if last else marks[i] + i * (seconds + START_SECONDS))
        wanted = options["max_epochs"] if last else 0
        if not sitting.wait_until(lambda after=after, n=wanted: time.monotonic() >= after and sitting.epochs >= n):
            break
        at = sitting.epochs
        away.append(server.away(seconds, how))
        moments.append(f"epoch {at}{', at the end' if last else ''} ({STOPPED[how]})")
        say(f"  away for {away[-1]:.1f} s from {moments[-1]}")
    code = sitting.wait()
    found = place.ask("look")
    wrong = faults_of(found, whole)
    if code:
        wrong.insert(0, f"exit code {code}: {sitting.last_line}")
    if len(moments) < n_stops:
        wrong.append(f"it ended after {len(moments)} stops")
    done = f"stopped {len(moments)} times, away for {min(away):.0f} to {max(away):.0f} s: {'; '.join(moments)}"
    return Check(done, MUST, verdict(wrong) or f"so it is; runs: {statuses(found)}", not wrong)


def _too_long(place: Place, server: Server, options: Mapping[str, Any], whole: dict, when: str) -> Check:
    """Stop the server for good; start it again when the training has given up; then sync."""
    sitting = place.start("train_fold", **options)
    wanted = 1 if when == MIDDLE else options["max_epochs"]
    sitting.wait_until(lambda: sitting.epochs >= wanted)
    server.stop()
    code = sitting.wait()
    server.start()
    wrong = [] if code == 1 else [f"exit code {code}"]
    errors = _errors(sitting)
    if len(errors) != 1 or "fsat sync" not in errors[0] or "Traceback" in sitting.said:
        wrong.append(f"it said: {' / '.join(errors)[:300]}")
    sync = place.start("sync")
    if sync_code := sync.wait():
        wrong.append(f"sync: exit code {sync_code}: {sync.last_line}")
    found = place.ask("look", sweep=True)
    wrong += faults_of(found, whole)
    if left := place.kept("*"):
        wrong.append(f"the cache still keeps {len(left)} files of runs")
    done = f"away from {when} on, for longer than FSAT_SERVER_WAIT; back, then `python -m fsat sync`"
    return Check(
        done,
        TOO_LONG,
        verdict(wrong) or f"so it is; it said: {errors[0].replace(str(place.cache), 'CACHE')}",
        not wrong,
    )


def _errors(sitting: Sitting) -> list[str]:
    return [line for line in sitting.said.splitlines() if line.startswith("fsat: error")]
