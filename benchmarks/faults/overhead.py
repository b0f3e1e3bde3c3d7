"""Measure the cost of tracking and checkpoints per epoch, with the tracking server in another process."""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.faults.processes import Server, Workspace
from benchmarks.harness import Bench, Row, Section, alternate, call, number, samples

SETTINGS = {"model": "conv1d", "audio_duration": 2, "eval_crops": 1, "folds": "column", "precision": "float32"}
LIMIT = 1.02
ROWS = 2400
"""Rows after repeating DATA_DIR's clips, so that an epoch takes at least 5 s."""


def run(bench: Bench) -> Section:
    """Train alternately with and without tracking, in separate processes, then within one process."""
    n_rows, n_epochs, n_turns = bench.pick(ROWS, 240), bench.pick(9, 3), bench.pick(21, 5)
    data = bench.folder / "data"
    call("benchmarks.sounds:write_dataset", data_dir=str(bench.data_dir), folder=str(data), n_rows=n_rows)
    cache = bench.folder / "cache"
    settings = {**SETTINGS, "max_epochs": n_epochs, "patience": n_epochs}
    with Server(bench.folder / "server") as server:
        workspace = Workspace(bench.folder / "workspace", server.uri, cache)
        side = partial(workspace.call, data_dir=str(data), settings=settings)
        side("benchmarks.faults.overhead:plain", settings={**settings, "max_epochs": 1})  # decodes the clips
        sides = {
            "without": partial(side, "benchmarks.faults.overhead:plain"),
            "tracked": partial(side, "benchmarks.faults.overhead:tracked"),
            "without, again": partial(side, "benchmarks.faults.overhead:plain"),
        }
        repeats = bench.pick(max(3, bench.repeats), 1)
        results = alternate(repeats, sides)
        long = {**settings, "max_epochs": n_turns, "patience": n_turns}
        turns = [side("benchmarks.faults.overhead:alternate_epochs", settings=long) for _ in range(repeats)]
    epochs = {name: samples(name, values, "epoch", "s") for name, values in results.items()}
    limit = None if bench.quick else LIMIT
    name = f"an epoch of conv1d on {n_rows} clips"
    on, off = (samples(side_name, turns, side_name, "s") for side_name in ("tracked", "without"))
    rows = [
        Row(f"{name}, alternating within one process", on, off, at_most=limit),
        Row(f"{name}, in separate processes", epochs["tracked"], epochs["without"], at_most=limit),
        Row("for scale: the same code twice", epochs["without, again"], epochs["without"]),
    ]
    for key, quantity in (("writing", "copying its checkpoint"), ("logging", "queueing its metrics")):
        rows.append(Row(f"training waits for {quantity}", samples("tracked", results["tracked"], key, "ms", 1000)))
    least = min(*epochs["without"].values, *off.values)
    notes = [
        f"{n_epochs} epochs in a new process each time, alternating; median of the epochs after the first, from the "
        "end of one epoch to the end of the next, and of these the median over the repeats. Without: "
        "`fsat.training.fold.train_fold` without checkpoints and logging. Tracked: "
        "`fsat.commands.train.train_fold`, with checkpoints, heartbeats, metrics and artifacts. The server and its "
        f"SQLite store are on the same machine, so their load counts too. An epoch takes at least {number(least)} s; a "
        "thread sends the metrics of an epoch while the next one is trained.",
        f"Alternating within one process: {n_turns} epochs of a tracked training, of which every second one neither "
        "writes its checkpoint nor queues its metrics. The cost at the end of an epoch counts in the time from there "
        "to the end of the next epoch, when it is written and sent. This comparison excludes the heartbeat, every "
        "20 s.",
    ]
    return Section(rows, notes, ["tensorflow", "keras", "mlflow"])


def plain(data_dir: str, settings: dict[str, Any]) -> dict[str, float]:
    """Train a fold without tracking and checkpoints; return the seconds of an epoch."""
    from fsat.config import Config
    from fsat.data.dataset import load_dataset
    from fsat.training.fold import train_fold

    config = Config.resolve(settings)
    with tempfile.TemporaryDirectory(prefix="fsat-bench-") as name:
        return {"epoch": _epoch(train_fold(load_dataset(Path(data_dir), config), 0, Path(name)).state.times)}


def tracked(data_dir: str, settings: dict[str, Any]) -> dict[str, float]:
    """Train a fold as the command line does.

    Returns:
        seconds of an ``epoch``, and of waiting for its checkpoint (``writing``) and its metrics (``logging``).
    """
    import mlflow

    from fsat.commands.train import train_fold
    from fsat.config import Config
    from fsat.data.dataset import Source
    from fsat.options import Launch
    from fsat.tracking.live_metrics import LiveMetrics
    from fsat.training import fold

    writing, logging = _record_times(fold, "write_checkpoint"), _record_times(LiveMetrics, "epoch")
    run_id = train_fold(Source(Path(data_dir)), Config.resolve(settings), 0, Launch(resume=False))
    times = [metric.timestamp for metric in mlflow.MlflowClient().get_metric_history(run_id, "loss")]
    return {
        "epoch": _epoch(sorted(times)),
        "writing": statistics.median(writing),
        "logging": statistics.median(logging),
    }


def alternate_epochs(data_dir: str, settings: dict[str, Any]) -> dict[str, float]:
    """Train a fold as the command line does, without checkpoint and metrics of every second epoch.

    Returns:
        seconds from the end of an epoch that writes and sends to the end of the next one (``tracked``), and from the
        end of an epoch that does not (``without``).
    """
    from fsat.commands.train import train_fold
    from fsat.config import Config
    from fsat.data.dataset import Source
    from fsat.options import Launch
    from fsat.tracking.live_metrics import LiveMetrics
    from fsat.training import fold

    ends: list[int] = []
    write, send = fold.write_checkpoint, LiveMetrics.epoch

    def is_tracked() -> bool:
        return len(ends) % 2 == 0

    def epoch(live: LiveMetrics, number: int, metrics: dict[str, float], milliseconds: int) -> None:
        if is_tracked():
            send(live, number, metrics, milliseconds)
        ends.append(milliseconds)

    fold.write_checkpoint = lambda *args: write(*args) if is_tracked() else None
    LiveMetrics.epoch = epoch
    train_fold(Source(Path(data_dir)), Config.resolve(settings), 0, Launch(resume=False))
    between = [(after - before) / 1000 for before, after in pairwise(ends)]
    return {"tracked": statistics.median(between[0::2]), "without": statistics.median(between[1::2])}


def _record_times(owner: Any, name: str) -> list[float]:
    """Return a list that receives the seconds of each later call of a method."""
    method, seconds = getattr(owner, name), []

    def timed(*args: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args)
        finally:
            seconds.append(time.perf_counter() - start)

    setattr(owner, name, timed)
    return seconds


def _epoch(times: list[int]) -> float:
    """Return the median seconds from the end of an epoch to the end of the next; times are in ms."""
    between = [(after - before) / 1000 for before, after in pairwise(times)]
    return statistics.median(between) if between else 0.0
