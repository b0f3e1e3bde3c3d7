"""How long the command line takes to answer, and which heavy libraries a training loads."""

from __future__ import annotations

import os
import sys
from functools import partial

from benchmarks.harness import ROOT, Bench, BenchmarkError, Row, Samples, Section, alternate, call, command_seconds

HEAVY = ("tensorflow", "mlflow", "librosa", "sklearn", "matplotlib", "scipy", "pandas", "numba")
RUNS = 15
"""Runs of each command at least."""


def run(bench: Bench) -> Section:
    """Time the commands by turns."""
    python = [sys.executable]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    timed = partial(command_seconds, cwd=bench.folder, env=environment)
    fsat = [*python, "-m", "fsat"]
    commands = {
        "help": partial(timed, [*fsat, "--help"]),
        "click": partial(timed, [*python, "-c", "import click"]),
        "error": partial(timed, [*fsat, "train_fold", "--fold", "x"], expected_code=2),
        "python": partial(timed, [*python, "-c", "pass"]),
    }
    for command in commands.values():
        command()  # compiles what has no .pyc yet
    found = alternate(bench.pick(max(RUNS, bench.repeats), 2), commands)
    slow = alternate(bench.repeats, {"tensorflow": partial(timed, [*python, "-c", "import tensorflow"])})
    loaded = call("benchmarks.startup:modules_of_a_training", data_dir=str(bench.data_dir), folder=str(bench.folder))

    def times(who: str, values: list[float]) -> Samples:
        return Samples(who, [1000 * value for value in values], "ms")

    click = times('`python -c "import click"`', found["click"])
    rows = [
        Row("the help", times("`python -m fsat --help`", found["help"]), click, at_most=2.5),
        Row("an argument error", times("`python -m fsat train_fold --fold x`", found["error"]), click),
        Row("for scale: Python alone", times("`python -c pass`", found["python"]), click),
        Row("for scale: TensorFlow", times('`python -c "import tensorflow"`', slow["tensorflow"]), click),
    ]
    there = ", ".join(name for name in HEAVY if name in loaded) or "none"
    absent = ", ".join(name for name in HEAVY if name not in loaded) or "none"
    notes = [
        f"{len(found['help'])} runs of each command, by turns, after one that is not counted; wall time of the whole "
        f"process. Of {', '.join(HEAVY)}, a process that has trained a fold (`python -m fsat train_fold`) has loaded: "
        f"{there}; not loaded: {absent}.",
    ]
    return Section(rows, notes, ["click", "tensorflow", "keras", "mlflow"])


def modules_of_a_training(data_dir: str, folder: str) -> list[str]:
    """Top-level modules that are loaded once this process has run `train_fold` from the command line."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    os.chdir(folder)
    sys.path.insert(0, str(ROOT))
    before = {name.partition(".")[0] for name in sys.modules}
    from fsat.cli import run as fsat

    options = {"fold": 0, "data_dir": data_dir, "model": "dummy1d", "max_epochs": 1}
    code = fsat(["train_fold", *(word for name, value in options.items() for word in (f"--{name}", str(value)))])
    if code:
        raise BenchmarkError(f"train_fold ended with {code}")
    after = {name.partition(".")[0] for name in sys.modules}
    return sorted(after - before)
