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
ROWS = 2400
"""That DATA_DIR's clips are repeated to, so that an epoch takes 5 s or more."""


def run(bench: Bench) -> Section:
    """Train by turns with and without tracking, in processes of their own, then within one process."""
    n_rows, n_epochs, n_turns = bench.pick(ROWS, 240), bench.pick(9, 3), bench.pick(21, 5)
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
        repeats = bench.pick(max(3, bench.repeats), 1)
        found = alternate(repeats, sides)
        many = partial(
            side,
            "benchmarks.faults.overhead:by_turns",
            settings={**settings, "max_epochs": n_turns, "patience": n_turns},
        )
        turns = alternate(repeats, {"by turns": many})["by turns"]
    epochs = {name: Samples(name, [result["epoch"] for result in each], "s") for name, each in found.items()}
    limit = None if bench.quick else AT_MOST
    what = f"an epoch of conv1d on {n_rows} clips"
    on, off = (Samples(name, [each[name] for each in turns], "s") for name in ("tracked", "without"))
    rows = [
        Row(f"{what}, by turns within one process", on, off, at_most=limit),
        Row(f"{what}, in processes of their own", epochs["tracked"], epochs["without"], at_most=limit),
        Row("for scale: the same code twice", epochs["without, again"], epochs["without"]),
    ]
    for key, part in (("writing", "its checkpoint is written"), ("logging", "its metrics are handed over")):
        times = Samples("the training waits while", [1000 * result[key] for result in found["tracked"]], "ms")
        rows.append(Row(part, times))
    least = min(*epochs["without"].values, *off.values)
    notes = [
        f"{n_epochs} epochs in a process of its own each time, by turns; of each process the median of its epochs "
        "after the first, from the end of one epoch to the end of the next, and of these the median over the "
        "repeats. Without: `fsat.training.fold.train_fold`, which then writes no checkpoint and logs nothing. "
        "Tracked: `fsat.commands.train.train_fold`, with checkpoints, heartbeats, metrics and artifacts. The "
        "server and its SQLite store are on the same machine, so what they compute counts too. An epoch takes "
        f"{number(least)} s or more; all metrics of an epoch are sent by a thread while the next one is trained.",
        f"By turns within one process: {n_turns} epochs of a tracked training, of which every second one neither "
        "writes its checkpoint nor hands its metrics over. What an epoch's end costs counts for the time from there "
        "to the next epoch's end, in which it is written and sent. What is left out of this comparison is the "
        "heartbeat, every 20 s.",
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

    from fsat.commands.train import train_fold
    from fsat.config import Config
    from fsat.data.source import Source
    from fsat.options import Launch
    from fsat.tracking.live_metrics import Outbox
    from fsat.training import fold

    writing, logging = _timed(fold, "write_checkpoint"), _timed(Outbox, "epoch")
    run_id = train_fold(Source(Path(data_dir)), Config.resolve(settings), 0, Launch(resume=False))
    times = [metric.timestamp for metric in mlflow.MlflowClient().get_metric_history(run_id, "loss")]
    return {
        "epoch": _epoch(sorted(times)), "writing": statistics.median(writing), "logging": statistics.median(logging),
    }  # fmt: skip


def by_turns(data_dir: str, settings: dict[str, Any]) -> dict[str, float]:
    """Train a fold as the command line does, but leave out what every second epoch writes and sends.

    Returns:
        seconds from the end of an epoch that writes and sends to the next one's (``tracked``), and of one that does
        not (``without``).
    """
    from fsat.commands.train import train_fold
    from fsat.config import Config
    from fsat.data.source import Source
    from fsat.options import Launch
    from fsat.tracking.live_metrics import Outbox
    from fsat.training import fold

    ends: list[int] = []
    write, send = fold.write_checkpoint, Outbox.epoch

    def is_tracked() -> bool:
        return len(ends) % 2 == 0

    def epoch(outbox: Outbox, number: int, metrics: dict[str, float], milliseconds: int) -> None:
        if is_tracked():
            send(outbox, number, metrics, milliseconds)
        ends.append(milliseconds)

    fold.write_checkpoint = lambda *args: write(*args) if is_tracked() else None
    Outbox.epoch = epoch
    train_fold(Source(Path(data_dir)), Config.resolve(settings), 0, Launch(resume=False))
    between = [(after - before) / 1000 for before, after in pairwise(ends)]
    return {"tracked": statistics.median(between[0::2]), "without": statistics.median(between[1::2])}


def _timed(owner: Any, name: str) -> list[float]:
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
