"""What tracking and checkpoints cost an epoch, with the tracking server in another process."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.faults.processes import Place, Server
from benchmarks.harness import Bench, Row, Samples, Section, alternate, call, number

SETTINGS = {"model": "conv1d", "audio_duration": 2, "eval_crops": 1, "folds": "column", "precision": "float32"}
AT_MOST = 1.02
ROWS = 1600
"""That DATA_DIR's clips are repeated to, so that an epoch takes 5 s or more."""


def run(bench: Bench) -> Section:
    """Train by turns with and without tracking, in processes of their own."""
    n_rows, n_epochs = bench.pick(ROWS, 240), bench.pick(9, 3)
    data = bench.folder / "data"
    call("benchmarks.sounds:write_dataset", data_dir=str(bench.data_dir), folder=str(data), n_rows=n_rows)
    cache = bench.folder / "cache"
    settings = {**SETTINGS, "max_epochs": n_epochs, "patience": n_epochs}
    with Server(bench.folder / "server") as server:
        place = Place(bench.folder / "place", server.uri, cache)
        variables = {key: value for key, value in place.environment.items() if os.environ.get(key) != value}
        side = partial(call, environment=variables, cwd=place.folder, data_dir=str(data), settings=settings)
        side("benchmarks.faults.overhead:plain", settings={**settings, "max_epochs": 1})  # decodes the clips
        sides = {
            "without": partial(side, "benchmarks.faults.overhead:plain"),
            "tracked": partial(side, "benchmarks.faults.overhead:tracked"),
            "without, again": partial(side, "benchmarks.faults.overhead:plain"),
        }
        found = alternate(max(bench.pick(3, 1), bench.pick(bench.repeats, 1)), sides)
    epochs = {name: Samples(name, [result["epoch"] for result in each], "s") for name, each in found.items()}
    limit = None if bench.quick else AT_MOST
    what = f"an epoch of conv1d on {n_rows} clips"
    rows = [
        Row(f"{what}, `mlflow server` in another process", epochs["tracked"], epochs["without"], at_most=limit),
        Row("for scale: the same code twice", epochs["without, again"], epochs["without"]),
    ]
    for key, part in (("writing", "its checkpoint is written"), ("logging", "its metrics are handed over")):
        times = Samples("the training waits while", [1000 * result[key] for result in found["tracked"]], "ms")
        rows.append(Row(part, times))
    least = min(epochs["without"].values)
    notes = [
        f"{n_epochs} epochs in a process of its own each time, by turns; of each process the median of its epochs "
        "after the first, from the end of one epoch to the end of the next, and of these the median over the "
        "repeats. Without: `fsat.training.fold.train_fold`, which then writes no checkpoint and logs nothing. "
        "Tracked: `fsat.pipeline.training.train_fold`, with checkpoints, heartbeats, metrics and artifacts. The "
        "server and its SQLite store are on the same machine, so what they compute counts too. An epoch takes "
        f"{number(least)} s or more; all metrics of an epoch are sent by a thread while the next one is trained."
    ]
    return Section(rows, notes, ["tensorflow", "keras", "mlflow"])


def plain(data_dir: str, settings: dict[str, Any]) -> dict[str, float]:
    """Train a fold without tracking and checkpoint; seconds of an epoch."""
    from fsat.config import Config
    from fsat.data.dataset import load_dataset
    from fsat.training.fold import train_fold

    config = Config.resolve(settings)
    with tempfile.TemporaryDirectory(prefix="fsat-bench-") as name:
        return {"epoch": _epoch(train_fold(load_dataset(Path(data_dir), config), 0, Path(name)).times)}


def tracked(data_dir: str, settings: dict[str, Any]) -> dict[str, float]:
    """Train a fold as the command line does.

    Returns:
        seconds of an epoch (``epoch``), and how many of them the training waits for its checkpoint (``writing``) and
        for its metrics to be taken (``logging``).
    """
    import mlflow

    from fsat.config import Config
    from fsat.pipeline.source import Source
    from fsat.pipeline.training import train_fold
    from fsat.tracking.outbox import Outbox
    from fsat.training.checkpoint import Checkpoint

    writing, logging = _timed(Checkpoint, "write"), _timed(Outbox, "epoch")
    run_id = train_fold(Source(Path(data_dir)), Config.resolve(settings), 0)
    times = [metric.timestamp for metric in mlflow.MlflowClient().get_metric_history(run_id, "loss")]
    return {
        "epoch": _epoch(sorted(times)), "writing": statistics.median(writing), "logging": statistics.median(logging),
    }  # fmt: skip


def _timed(owner: type, name: str) -> list[float]:
    """The seconds that each call of a method takes from here on."""
    method, seconds = getattr(owner, name), []

    def timed(*args: Any) -> Any:
        begun = time.perf_counter()
        try:
            return method(*args)
        finally:
            seconds.append(time.perf_counter() - begun)

    setattr(owner, name, timed)
    return seconds


def _epoch(times: list[int]) -> float:
    """Seconds from the end of an epoch to the end of the next, the median after the first epoch; ends are in ms."""
    between = [(after - before) / 1000 for before, after in pairwise(times)]
    return statistics.median(between) if between else 0.0
