"""What a fold costs more on one Ray node than without Ray, the whole command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.processes import Place, free_port
from benchmarks.harness import Bench, BenchmarkError, Row, Samples, Section, alternate

NEEDS = ("ray",)
AT_MOST_SECONDS = 10.0
FOLDS = 2
SETTINGS = {
    "model": "conv1d", "audio_duration": 1, "eval_crops": 1, "folds": "stratified", "n_folds": FOLDS, "max_epochs": 3,
    "parallel_folds": 1,
}  # fmt: skip


def run(bench: Bench) -> Section:
    """Cross-validate by turns without Ray and on a node with all processors, one fold at a time."""
    cpus = os.cpu_count() or 1
    with _node(bench.folder / "node", cpus) as address:
        on_ray = {"cluster": "ray", "ray_address": address, "ray_cpus": cpus}
        _seconds(bench, "warm", {})  # decodes the clips
        _seconds(bench, "warm", on_ray)
        sides = {
            "ray": lambda: _seconds(bench, "ray", on_ray), "without": lambda: _seconds(bench, "without", {}),
        }  # fmt: skip
        found = alternate(bench.pick(bench.repeats, 1), sides)
    more = [(a - b) / FOLDS for a, b in zip(found["ray"], found["without"], strict=True)]
    limit = None if bench.quick else AT_MOST_SECONDS
    rows = [
        Row(f"cross_validate of {FOLDS} folds of conv1d, {SETTINGS['max_epochs']} epochs, one at a time, on one node",
            Samples("with Ray", found["ray"], "s"), Samples("without", found["without"], "s")),
        Row("a fold costs more, by", Samples("with Ray", more, "s"), at_most=limit),
    ]  # fmt: skip
    notes = [
        "Wall time of the whole command `python -m fsat cross_validate`, start and imports included, each on an SQLite "
        "store of its own; the clips are decoded before. The Ray node is started before, with `ray start --head`, and "
        f"all of its {cpus} processors are what one task needs, so that one fold is trained at a time on both sides."
    ]
    return Section(rows, notes, ["ray", "tensorflow", "keras", "mlflow"])


def _seconds(bench: Bench, name: str, options: dict) -> float:
    """How long a cross-validation takes on a new tracking store."""
    place = Place(bench.folder / f"{name}-{time.monotonic_ns()}", cache=bench.folder / "cache")
    begun = time.perf_counter()
    sitting = place.start("cross_validate", data_dir=bench.data_dir, **SETTINGS, **options)
    if sitting.wait():
        raise BenchmarkError(sitting.said[-3000:])
    return time.perf_counter() - begun


@contextmanager
def _node(folder: Path, cpus: int) -> Iterator[str]:
    """A Ray cluster of one node; its address."""
    folder.mkdir()
    port = free_port()
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address=127.0.0.1",
        f"--port={port}", f"--num-cpus={cpus}", "--include-dashboard=false", "--disable-usage-stats",
    ]  # fmt: skip
    environment = {**os.environ, "FSAT_CACHE_DIR": str(folder.parent / "cache")}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while "Ray runtime started" not in (folder / "log").read_text():
            if process.poll() is not None or time.monotonic() > until:
                raise BenchmarkError(f"ray does not start\n{(folder / 'log').read_text()[-3000:]}")
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
