"""Measure the start of the command line, and list the heavy libraries that training loads."""

from __future__ import annotations

import os
import sys
from functools import partial

from benchmarks.harness import ROOT, Bench, BenchmarkError, Row, Samples, Section, alternate, call, command_seconds

HEAVY = ("tensorflow", "mlflow", "librosa", "sklearn", "matplotlib", "scipy", "pandas", "numba")
RUNS = 15
"""Minimum number of runs of each command."""


def run(bench: Bench) -> Section:
    """Time the commands alternately."""
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
        command()  # writes missing .pyc files
    results = alternate(bench.pick(max(RUNS, bench.repeats), 2), commands)
    slow = alternate(bench.repeats, {"tensorflow": partial(timed, [*python, "-c", "import tensorflow"])})
    loaded = call("benchmarks.startup:modules_after_training", data_dir=str(bench.data_dir), folder=str(bench.folder))

    def times(who: str, values: list[float]) -> Samples:
        return Samples(who, [1000 * value for value in values], "ms")

    click = times('`python -c "import click"`', results["click"])
    rows = [
        Row("help", times("`python -m fsat --help`", results["help"]), click, at_most=2.5),
        Row("an argument error", times("`python -m fsat train_fold --fold x`", results["error"]), click),
        Row("for scale: Python alone", times("`python -c pass`", results["python"]), click),
        Row("for scale: TensorFlow", times('`python -c "import tensorflow"`', slow["tensorflow"]), click),
    ]
    present = ", ".join(name for name in HEAVY if name in loaded) or "none"
    absent = ", ".join(name for name in HEAVY if name not in loaded) or "none"
    notes = [
        f"{len(results['help'])} alternating runs of each command, after one that is not counted; wall time of the "
        f"whole process. Of {', '.join(HEAVY)}, a process that has trained a fold (`python -m fsat train_fold`) has "
        f"loaded: {present}; not loaded: {absent}.",
    ]
    return Section(rows, notes, ["click", "tensorflow", "keras", "mlflow"])


def modules_after_training(data_dir: str, folder: str) -> list[str]:
    """Return the top-level modules that `train_fold` has loaded into this process."""
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
