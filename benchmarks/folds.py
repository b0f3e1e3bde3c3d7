"""Folds at the same time: `cross_validate` with ``parallel_folds=2`` against 1, the whole command."""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from pathlib import Path

from benchmarks.harness import ROOT, Bench, Row, Samples, Section, alternate, command_seconds

EPOCHS = {"conv1d": 3, "dummy1d": 10}


def run(bench: Bench) -> Section:
    """Time cross-validations of 2 and 4 folds, each on a tracking store of its own."""
    start = bench.folder / "start"
    start.mkdir()
    # an empty tracking store's tables are made once and copied, and the clips are decoded once
    _command(bench, start, "dummy1d", 2, 1, epochs=1, experiment="warm")
    shutil.rmtree(start / "mlruns", ignore_errors=True)
    rows = []
    for model in EPOCHS:
        for n_folds in bench.pick((2, 4), (2,)):
            epochs = bench.pick(EPOCHS[model], 1)
            sides = {
                f"{model}, {n_folds} folds, {parallel} at a time": partial(
                    _fresh, bench, start, model, n_folds, parallel, epochs
                )
                for parallel in (1, 2)
            }
            one, two = alternate(bench.repeats, sides).values()
            rows.append(Row(f"{model}, {n_folds} folds, {epochs} epochs", Samples("parallel_folds=1", one, "s"),
                            Samples("parallel_folds=2", two, "s")))  # fmt: skip
    notes = [
        "Wall time of the whole command `python -m fsat cross_validate`, start and imports included, on the clips of "
        "DATA_DIR with stratified folds, decoded before; each run has an SQLite tracking store of its own whose tables "
        f"are made before. A ratio above 1 means that two folds at a time are faster, on {os.cpu_count()} cores."
    ]
    return Section(rows, notes, ["tensorflow", "keras", "mlflow"])


def _fresh(bench: Bench, start: Path, model: str, n_folds: int, parallel: int, epochs: int) -> float:
    """Seconds of a cross-validation on a copy of the tracking store, which is deleted afterwards."""
    folder = bench.folder / "run"
    shutil.copytree(start, folder)
    try:
        return _command(bench, folder, model, n_folds, parallel, epochs)
    finally:
        shutil.rmtree(folder)


def _command(
    bench: Bench, folder: Path, model: str, n_folds: int, parallel: int, epochs: int, experiment: str = "timed"
) -> float:
    """Seconds of `python -m fsat cross_validate` with `folder` as the working folder."""
    options = {
        "data_dir": bench.data_dir, "model": model, "folds": "stratified", "n_folds": n_folds, "max_epochs": epochs,
        "patience": epochs, "parallel_folds": parallel,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_EXPERIMENT_NAME": experiment,
    }  # fmt: skip
    return command_seconds([sys.executable, "-m", "fsat", "cross_validate", *words], cwd=folder, env=environment)
