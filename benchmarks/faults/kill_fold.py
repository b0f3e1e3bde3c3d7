"""A fold that is killed at random moments and asked for again each time leaves what an undisturbed one does."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.faults.found import faults_of, statuses, verdict
from benchmarks.faults.processes import Place, Sitting
from benchmarks.harness import Bench, BenchmarkError, Check, Section, number, say

KILLS = 20
"""Of one fold, which gets on by about a twentieth each time."""

MORE_KILLS, KILLS_PER_FOLD = 10, 5
"""At any moment of all that is left, with another fold, on a new store, after five."""

SEED = 1001
OPTIONS = {"fold": 1, "model": "conv1d", "audio_duration": 1, "eval_crops": 2}
MUST = (
    "one FINISHED run, the same from its first checkpoint on, none RUNNING; predictions and weights byte-equal; "
    "metrics have every epoch once, with the undisturbed values"
)


@dataclass
class Life:
    """How long the undisturbed fold took: all in all, until the first epoch ended, and for each later one."""

    seconds: float
    first: float
    epoch: float
    end: float

    def left(self, epochs_done: int, n_epochs: int) -> float:
        """Seconds that a process still has to live which goes on after `epochs_done`."""
        return self.first + self._training(epochs_done, n_epochs) + self.end

    def share(self, epochs_done: int, n_epochs: int, n_kills: int) -> float:
        """Seconds within which a process may be killed, so that `n_kills` are spread over what is left."""
        return self.first + 2 * self._training(epochs_done, n_epochs) / n_kills

    def _training(self, epochs_done: int, n_epochs: int) -> float:
        return max(0, n_epochs - max(1, epochs_done)) * self.epoch


@dataclass
class Story:
    """What happened to one fold.

    Attributes:
        moments: where each kill found it.
        ids: of the runs that checkpoints were seen of.
    """

    moments: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


def run(bench: Bench) -> Section:
    """Train undisturbed once, then kill."""
    n_spread, n_more, n_epochs = bench.pick(KILLS, 2), bench.pick(MORE_KILLS, 1), bench.pick(150, 8)
    options = {**OPTIONS, "data_dir": bench.data_dir, "max_epochs": n_epochs, "patience": n_epochs}
    whole, life = undisturbed(Place(bench.folder / "undisturbed"), options)
    say(f"  undisturbed: {life.seconds:.1f} s, first epoch after {life.first:.1f} s, then {life.epoch:.3f} s each")
    chance, checks, done, all_moments = random.Random(SEED), [], 0, []
    while done < n_spread + n_more:
        place = Place(bench.folder / f"fold {len(checks)}")
        spread = done < n_spread
        most = n_spread - done if spread else min(KILLS_PER_FOLD, n_spread + n_more - done)
        story = _torment(place, options, life, chance, most, spread)
        done += len(story.moments)
        found = place.ask("look")
        wrong = faults_of(found, whole)
        if len(story.ids | set(found["folds"])) > 1:
            wrong.append(f"{len(story.ids)} runs had checkpoints")
        if left := place.kept("*"):
            wrong.append(f"the cache still keeps {len(left)} files of runs")
        kills = f"{len(story.moments)} kill{'s' if len(story.moments) != 1 else ''}: {', '.join(story.moments)}"
        checks.append(Check(kills, MUST, verdict(wrong) or f"so it is; runs: {statuses(found)}", not wrong))
        all_moments += story.moments
        say(f"  {kills}: {verdict(wrong) or 'sound'}")
    notes = [
        f"`python -m fsat train_fold` of conv1d on DATA_DIR, {n_epochs} epochs of crops of 1 s, "
        f"{number(life.seconds)} s undisturbed. {done} times SIGKILL, at random moments (seed {SEED}): "
        f"{_phases(all_moments)}. After each kill the same command was given again; after the last of a row it was "
        f"left to finish, and another one was begun with an empty cache folder and without a tracking store. "
        f"{n_spread} moments are drawn so that they spread over a fold; those after that, from all that the process "
        "still had to live: starts, epochs, predictions, uploads."
    ]
    return Section(notes=notes, libraries=["tensorflow", "keras", "mlflow"], checks=checks)


def undisturbed(place: Place, options: dict) -> tuple[dict, Life]:
    """Train a fold in peace: what the store then has, and how long everything took."""
    sitting = place.start("train_fold", **options)
    sitting.wait_until(lambda: sitting.epochs >= 1)
    first = time.monotonic()
    sitting.wait_until(lambda: sitting.epochs >= options["max_epochs"])
    last = time.monotonic()
    if code := sitting.wait():
        raise BenchmarkError(f"the undisturbed fold ended with {code}\n{sitting.said[-3000:]}")
    over, begun = time.monotonic(), sitting.started
    each = (last - first) / max(1, options["max_epochs"] - 1)
    return place.ask("look"), Life(over - begun, first - begun, each, over - last)


def _torment(place: Place, options: dict, life: Life, chance: random.Random, most: int, spread: bool) -> Story:
    """Kill a fold, at most so many times, until it is FINISHED."""
    story, done = Story(), 0
    while True:
        sitting = place.start("train_fold", **options)
        if len(story.moments) < most:
            n_epochs = options["max_epochs"]
            left = life.share(done, n_epochs, most - len(story.moments)) if spread else life.left(done, n_epochs)
            until = sitting.started + chance.uniform(0, left)
            if sitting.wait_until(lambda until=until: time.monotonic() >= until):
                sitting.kill()
                story.moments.append(_moment(sitting, place, n_epochs))
                story.ids |= {path.parent.name for path in place.kept("checkpoint")}
                done = max(done, sitting.epochs)
                continue
        if code := sitting.wait():
            raise BenchmarkError(f"asked for again after {story.moments}: exit code {code}\n{sitting.said[-3000:]}")
        return story


def _moment(sitting: Sitting, place: Place, n_epochs: int) -> str:
    """Where a kill has found a process, in words."""
    if place.kept("results"):
        return "upload"
    if place.kept("results.unfinished"):
        return "results"
    if sitting.epochs >= n_epochs:
        return "prediction" if place.kept("run.json") else "end"
    if sitting.epochs:
        return f"epoch {sitting.epochs + 1}"
    seconds = f"{time.monotonic() - sitting.started:.1f} s"
    return f"{'going on' if re.search('goes on after', sitting.said) else 'start'} ({seconds})"


def _phases(moments: Sequence[str]) -> str:
    names = [re.sub(r"[ \d.()s]*$", "", moment) for moment in moments]
    return ", ".join(f"{names.count(name)} in {name}" for name in dict.fromkeys(names))
