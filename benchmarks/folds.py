"""Compare `cross_validate` with ``parallel_folds=2`` and 1, as a whole command."""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from pathlib import Path

from benchmarks.harness import ROOT, Bench, Row, Samples, Section, alternate, call, command_seconds

CASES = (("dummy1d", 4, 10, 0), ("conv1d", 2, 3, 0), ("conv1d", 2, 30, 640))
"""Model, folds, epochs, and number of rows after repeating the clips; 0 for DATA_DIR unchanged."""


def run(bench: Bench) -> Section:
    """Time cross-validations, each on a new tracking store."""
    start = bench.folder / "start"
    start.mkdir()
    # create the tables of an empty tracking store once, and decode the clips
    _time_command(bench.data_dir, start, "dummy1d", 2, 1, epochs=1, experiment="warm")
    shutil.rmtree(start / "mlruns", ignore_errors=True)
    long = bench.folder / "long"
    rows = []
    for model, n_folds, epochs, n_rows in bench.pick(CASES, CASES[:1]):
        data = bench.data_dir
        if n_rows:
            data = long
            call("benchmarks.sounds:write_dataset", data_dir=str(bench.data_dir), folder=str(long), n_rows=n_rows)
            _time_command(data, start, "conv1d", 2, 1, epochs=1, experiment="warm")
        name = f"{model}, {n_folds} folds, {epochs} epochs{f' of {n_rows} clips' if n_rows else ''}"
        sides = {
            f"{name}, {parallel} at a time": partial(
                _time_on_copy, bench, data, start, model, n_folds, parallel, bench.pick(epochs, 1)
            )
            for parallel in (1, 2)
        }
        one, two = alternate(bench.repeats, sides).values()
        rows.append(Row(name, Samples("parallel_folds=1", one, "s"), Samples("parallel_folds=2", two, "s")))
    notes = [
        "Wall time of the whole command `python -m fsat cross_validate`, with start and imports, on the clips of "
        "DATA_DIR, repeated where the table says so, with stratified folds, decoded before; each run has a new SQLite "
        "store with its tables created before. A ratio above 1 means that two folds at a time are faster, on "
        f"{os.cpu_count()} cores."
    ]
    return Section(rows, notes, ["tensorflow", "keras", "mlflow"])


def _time_on_copy(bench: Bench, data: Path, start: Path, model: str, n_folds: int, parallel: int, epochs: int) -> float:
    """Return the seconds of a cross-validation on a temporary copy of the tracking store."""
    folder = bench.folder / "run"
    shutil.copytree(start, folder)
    try:
        return _time_command(data, folder, model, n_folds, parallel, epochs)
    finally:
        shutil.rmtree(folder)


def _time_command(
    data: Path, folder: Path, model: str, n_folds: int, parallel: int, epochs: int, experiment: str = "timed"
) -> float:
    """Return the seconds of `python -m fsat cross_validate` in a working folder."""
    options = {
        "data_dir": data,
        "model": model,
        "folds": "stratified",
        "n_folds": n_folds,
        "max_epochs": epochs,
        "patience": epochs,
        "parallel_folds": parallel,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_EXPERIMENT_NAME": experiment,
    }
    return command_seconds([sys.executable, "-m", "fsat", "cross_validate", *words], cwd=folder, env=environment)
