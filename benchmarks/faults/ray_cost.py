"""Measure how much longer a fold takes on one Ray node than without Ray, as a whole command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults.processes import Workspace, free_port
from benchmarks.harness import Bench, BenchmarkError, Row, Samples, Section, alternate

NEEDS = ("ray",)
LIMIT_SECONDS = 10.0
FOLDS = 2
SETTINGS = {
    "model": "conv1d",
    "audio_duration": 1,
    "eval_crops": 1,
    "folds": "stratified",
    "n_folds": FOLDS,
    "max_epochs": 3,
    "parallel_folds": 1,
}


def run(bench: Bench) -> Section:
    """Cross-validate alternately without Ray and on a node with all processors, one fold at a time."""
    cpus = os.cpu_count() or 1
    with _ray_node(bench.folder / "node", cpus) as address:
        on_ray = {"cluster": "ray", "ray_address": address, "ray_cpus": cpus}
        _time_cross_validate(bench, "warm", {})  # decodes the clips
        _time_cross_validate(bench, "warm", on_ray)
        sides = {
            "ray": partial(_time_cross_validate, bench, "ray", on_ray),
            "without": partial(_time_cross_validate, bench, "without", {}),
        }
        results = alternate(bench.pick(bench.repeats, 1), sides)
    differences = [(a - b) / FOLDS for a, b in zip(results["ray"], results["without"], strict=True)]
    limit = None if bench.quick else LIMIT_SECONDS
    name = f"cross_validate of {FOLDS} folds of conv1d, {SETTINGS['max_epochs']} epochs, one at a time, on one node"
    rows = [
        Row(name, Samples("with Ray", results["ray"], "s"), Samples("without", results["without"], "s")),
        Row("additional time per fold", Samples("with Ray", differences, "s"), at_most=limit),
    ]
    notes = [
        "Wall time of the whole command `python -m fsat cross_validate`, with start and imports, each on a new SQLite "
        "store; the clips are decoded before. The Ray node is started before, with `ray start --head`; each task "
        f"needs all of its {cpus} processors, so that one fold is trained at a time on both sides."
    ]
    return Section(rows, notes, ["ray", "tensorflow", "keras", "mlflow"])


def _time_cross_validate(bench: Bench, name: str, options: dict[str, Any]) -> float:
    """Return the seconds of a cross-validation on a new tracking store."""
    workspace = Workspace(bench.folder / f"{name}-{time.monotonic_ns()}", cache=bench.folder / "cache")
    start = time.perf_counter()
    workspace.run("cross_validate", data_dir=bench.data_dir, **SETTINGS, **options)
    return time.perf_counter() - start


@contextmanager
def _ray_node(folder: Path, cpus: int) -> Iterator[str]:
    """Start a Ray cluster of one node and yield its address."""
    folder.mkdir()
    port = free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
    command += [f"--port={port}", f"--num-cpus={cpus}", "--include-dashboard=false", "--disable-usage-stats"]
    environment = {**os.environ, "FSAT_CACHE_DIR": str(folder.parent / "cache")}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while "Ray runtime started" not in (folder / "log").read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"ray does not start\n{(folder / 'log').read_text()[-3000:]}")
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
