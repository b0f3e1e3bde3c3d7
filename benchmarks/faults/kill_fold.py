"""Kill a fold at random moments and start it again each time: it ends with the results of an undisturbed fold."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.faults.fold_checks import compare_stores, count_statuses, summarise
from benchmarks.faults.processes import Command, Workspace
from benchmarks.harness import Bench, BenchmarkError, Check, Section, number, say

KILLS = 20
"""Kills of one fold, which completes about a twentieth each time."""

MORE_KILLS, KILLS_PER_FOLD = 10, 5
"""Kills at any moment of the remaining work; after every five, another fold on a new store."""

SEED = 1001
OPTIONS = {"fold": 1, "model": "conv1d", "audio_duration": 1, "eval_crops": 2}
REQUIRED = (
    "one FINISHED run, the same from its first checkpoint on, none RUNNING; predictions and weights byte-equal; "
    "metrics have every epoch once, with the undisturbed values"
)


@dataclass
class Durations:
    """Seconds of an undisturbed fold: in all, until the first epoch ended, per later epoch, and after the last one."""

    total: float
    first: float
    epoch: float
    end: float

    def remaining(self, epochs_done: int, n_epochs: int) -> float:
        """Return the seconds that a process needs which resumes after `epochs_done`."""
        return self.first + self._training(epochs_done, n_epochs) + self.end

    def share(self, epochs_done: int, n_epochs: int, n_kills: int) -> float:
        """Return the seconds within which to kill the process, so that `n_kills` spread over the remaining epochs."""
        return self.first + 2 * self._training(epochs_done, n_epochs) / n_kills

    def _training(self, epochs_done: int, n_epochs: int) -> float:
        return max(0, n_epochs - max(1, epochs_done)) * self.epoch


@dataclass
class Kills:
    """The kills of one fold.

    Attributes:
        moments: what the process was doing at each.
        run_ids: runs that had checkpoints.
    """

    moments: list[str] = field(default_factory=list)
    run_ids: set[str] = field(default_factory=set)


def run(bench: Bench) -> Section:
    """Train undisturbed once, then kill."""
    n_spread, n_more, n_epochs = bench.pick(KILLS, 2), bench.pick(MORE_KILLS, 1), bench.pick(150, 8)
    options = {**OPTIONS, "data_dir": bench.data_dir, "max_epochs": n_epochs, "patience": n_epochs}
    expected, durations = train_undisturbed(Workspace(bench.folder / "undisturbed"), options)
    say(f"  undisturbed: {durations.total:.1f} s; first epoch {durations.first:.1f} s, others {durations.epoch:.3f} s")
    rng = random.Random(SEED)
    checks: list[Check] = []
    moments: list[str] = []
    while len(moments) < n_spread + n_more:
        workspace = Workspace(bench.folder / f"fold {len(checks)}")
        spread = len(moments) < n_spread
        limit = n_spread - len(moments) if spread else min(KILLS_PER_FOLD, n_spread + n_more - len(moments))
        kills = _kill_until_finished(workspace, options, durations, rng, limit, spread)
        checks.append(_check(workspace, kills, expected))
        moments += kills.moments
        say(f"  {checks[-1].action}: {checks[-1].result}")
    notes = [
        f"`python -m fsat train_fold` of conv1d on DATA_DIR, {n_epochs} epochs of crops of 1 s, "
        f"{number(durations.total)} s undisturbed. {len(moments)} times SIGKILL, at random moments (seed {SEED}): "
        f"{_count_phases(moments)}. After each kill the same command was run again; after the last one of a row it ran "
        "to its end, and the next row began with an empty cache folder and tracking store. "
        f"{n_spread} moments are spread over a fold; the others are drawn from all remaining work of the process: "
        "start, epochs, predictions, uploads."
    ]
    return Section(notes=notes, libraries=["tensorflow", "keras", "mlflow"], checks=checks)


def train_undisturbed(workspace: Workspace, options: dict) -> tuple[dict, Durations]:
    """Train a fold without faults; return the description of the store, and the durations."""
    command = workspace.start("train_fold", **options)
    command.wait_for_epoch(1)
    first = time.monotonic()
    command.wait_for_epoch(options["max_epochs"])
    last = time.monotonic()
    if code := command.wait():
        raise BenchmarkError(f"the undisturbed fold ended with {code}\n{command.stderr[-3000:]}")
    end, start = time.monotonic(), command.started
    epoch = (last - first) / max(1, options["max_epochs"] - 1)
    return workspace.describe_store(), Durations(end - start, first - start, epoch, end - last)


def _kill_until_finished(
    workspace: Workspace, options: dict, durations: Durations, rng: random.Random, limit: int, spread: bool
) -> Kills:
    """Kill a fold up to `limit` times, until it is FINISHED."""
    kills, epochs_done, n_epochs = Kills(), 0, options["max_epochs"]
    while True:
        command = workspace.start("train_fold", **options)
        if len(kills.moments) < limit:
            seconds = (
                durations.share(epochs_done, n_epochs, limit - len(kills.moments))
                if spread
                else durations.remaining(epochs_done, n_epochs)
            )
            deadline = command.started + rng.uniform(0, seconds)
            if command.wait_until(lambda deadline=deadline: time.monotonic() >= deadline):
                command.kill()
                kills.moments.append(_phase(command, workspace, n_epochs))
                kills.run_ids |= {path.parent.name for path in workspace.run_files("checkpoint")}
                epochs_done = max(epochs_done, command.epochs)
                continue
        if code := command.wait():
            raise BenchmarkError(f"run again after {kills.moments}: exit code {code}\n{command.stderr[-3000:]}")
        return kills


def _check(workspace: Workspace, kills: Kills, expected: dict) -> Check:
    store = workspace.describe_store()
    problems = compare_stores(store, expected)
    if len(kills.run_ids | set(store["folds"])) > 1:
        problems.append(f"{len(kills.run_ids)} runs had checkpoints")
    if remaining := workspace.run_files("*"):
        problems.append(f"the cache still has {len(remaining)} files of runs")
    n_kills = len(kills.moments)
    action = f"{n_kills} kill{'s' if n_kills != 1 else ''}: {', '.join(kills.moments)}"
    return Check(action, REQUIRED, summarise(problems) or f"as required; runs: {count_statuses(store)}", not problems)


def _phase(command: Command, workspace: Workspace, n_epochs: int) -> str:
    """Return what a killed process was doing."""
    if workspace.run_files("results"):
        return "upload"
    if workspace.run_files("results.unfinished"):
        return "results"
    if command.epochs >= n_epochs:
        return "prediction" if workspace.run_files("run.json") else "end"
    if command.epochs:
        return f"epoch {command.epochs + 1}"
    phase = "resuming" if RESUMED.search(command.stderr) else "start"
    return f"{phase} ({time.monotonic() - command.started:.1f} s)"


RESUMED = re.compile("resumes after epoch")
"""Message of a resumed fold."""


def _count_phases(moments: Sequence[str]) -> str:
    names = [re.sub(r"[ \d.()s]*$", "", moment) for moment in moments]
    return ", ".join(f"{names.count(name)} in {name}" for name in dict.fromkeys(names))
