"""Measure serving: the first request and later ones, many clients at once, and the memory of large requests."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from benchmarks.faults.processes import free_port
from benchmarks.harness import Bench, BenchmarkError, Row, Samples, Section, alternate, call, samples

MEMBERS, CROPS, CLASSES = 3, 3, 41
CLIENTS, AT_ONCE = 8, 64
"""Number of clients, and of clips in a large request, which is the default limit."""

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def run(bench: Bench) -> Section:
    """Start a server and send requests, alternating with the tagger alone."""
    n_requests, n_large = bench.pick(400, 16), bench.pick(AT_ONCE, 4)
    files, n_files = str(bench.folder / "files"), max(n_requests, n_large)
    paths = call("benchmarks.sounds:write_files", data_dir=str(bench.data_dir), folder=files, n_files=n_files)
    folder = bench.folder / "tagger"
    folder.mkdir()
    call("benchmarks.predict:write_tagger", folder=str(folder), n_members=MEMBERS, eval_crops=CROPS)
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{bench.folder}/mlflow.db"}
    call("benchmarks.serve:register", environment=store, cwd=bench.folder, folder=str(folder))
    sides = {
        "served": partial(_measure_server, bench.folder, store, paths, n_requests, n_large),
        "alone": partial(call, "benchmarks.serve:alone", folder=str(folder), paths=paths[: n_requests // 4]),
    }
    results = alternate(bench.repeats, sides)
    served, alone = results["served"], results["alone"]
    clients = f"{CLIENTS} clients at once"

    def milliseconds(who: str, side: list[dict[str, float]], key: str) -> Samples:
        return samples(who, side, key, "ms", 1e3)

    rows = [
        Row(
            "request of one clip",
            milliseconds("the first", served, "first"),
            milliseconds("later ones", served, "next"),
            at_most=None if bench.quick else 1.5,
        ),
        Row(
            "the same without warm-up",
            milliseconds("`Tagger.predict`, the first", alone, "first"),
            milliseconds("later ones", alone, "next"),
        ),
        Row(
            "one clip at a time",
            milliseconds("served", served, "next"),
            milliseconds("`Tagger.predict`", alone, "next"),
        ),
        Row(
            "requests of one clip",
            samples(clients, served, "parallel", "requests/s"),
            samples("one client", served, "sequential", "requests/s"),
        ),
        Row(f"95th percentile of their times, {clients}", milliseconds("served", served, "slow")),
        Row(f"clips, {n_large} per request", samples(clients, served, "large", "clips/s")),
        Row(
            "memory of the server",
            samples(f"maximum, {clients} with {n_large} clips each", served, "peak", "MB"),
            samples("warmed up", served, "memory", "MB"),
        ),
    ]
    notes = [
        f"`mlflow models serve` on a registered tagger of {MEMBERS} conv1d with random weights, {CROPS} crops and "
        f"{CLASSES} classes; clips of DATA_DIR as WAV, base64, no two equal; {n_requests} requests by one client and "
        f"as many by {CLIENTS}. Server and clients share the machine. Times are those of the client; each repeat "
        "starts a server, and the first request is the first after `/ping` answers. Later ones: median of all others "
        "by one client. Without warm-up, the first request includes compiling and loading, but not imports."
    ]
    return Section(rows, notes, ["mlflow", "tensorflow", "keras", "uvicorn", "fastapi"])


def _measure_server(
    folder: Path, store: dict[str, str], paths: Sequence[str], n_requests: int, n_large: int
) -> dict[str, float]:
    """Start a server and send requests.

    Returns:
        ``first``, ``next`` and ``slow`` in seconds; ``sequential``, ``parallel`` and ``large`` in requests or clips per
        second; ``memory`` and ``peak`` in MB.
    """
    bodies = [_encode([path]) for path in paths[:n_requests]]
    with _server(folder, store) as (port, pid):
        first = _request(port, bodies[0])
        later = [_request(port, body) for body in bodies[1:]]
        memory = _memory(pid, "VmRSS")
        with ThreadPoolExecutor(CLIENTS) as pool:
            start = time.perf_counter()
            times = list(pool.map(partial(_request, port), bodies))
            parallel = len(bodies) / (time.perf_counter() - start)
            large = _encode(paths[:n_large])
            start = time.perf_counter()
            list(pool.map(partial(_request, port), [large] * CLIENTS))
            clips = n_large * CLIENTS / (time.perf_counter() - start)
        return {
            "first": first,
            "next": statistics.median(later),
            "sequential": len(later) / sum(later),
            "parallel": parallel,
            "slow": statistics.quantiles(times, n=20)[-1],
            "large": clips,
            "memory": memory,
            "peak": _memory(pid, "VmHWM"),
        }


def _encode(paths: Sequence[str]) -> bytes:
    clips = [base64.b64encode(Path(path).read_bytes()).decode() for path in paths]
    return json.dumps({"dataframe_records": [{"audio": clip} for clip in clips]}).encode()


def _request(port: int, body: bytes) -> float:
    """Send a request and return the seconds until its answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
    start = time.perf_counter()
    with OPENER.open(request, timeout=600) as answer:
        rows = json.load(answer)["predictions"]
    seconds = time.perf_counter() - start
    if not all(row["labels"] for row in rows):
        raise BenchmarkError(f"not all clips were tagged: {rows}")
    return seconds


def _memory(pid: int, name: str) -> float:
    """Return VmRSS or VmHWM of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE).group(1)) / 1e3


@contextmanager
def _server(folder: Path, store: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Run `mlflow models serve` and yield its port and the id of the process with the tagger."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/fsat@champion"]
    command += ["--env-manager", "local", "--port", str(port), "--timeout", "600"]
    environment = {**os.environ, **store, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with open(folder / "serve.log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                OPENER.open(f"http://127.0.0.1:{port}/ping", timeout=5).read()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BenchmarkError((folder / "serve.log").read_text()[-3000:]) from None
                time.sleep(0.2)
        yield port, int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def register(folder: str) -> str:
    """Register a tagger's folder as champion."""
    from fsat.tagging import Tagger
    from fsat.tracking.registry import Score, register

    labels = Tagger(folder).labels
    return register("fsat", Path(folder), labels, Score(0.5, 1), "benchmark", "always", "benchmark").outcome


def alone(folder: str, paths: Sequence[str]) -> dict[str, float]:
    """Tag clips one by one in this process.

    Returns:
        ``first`` in seconds, and ``next``, the median of the others.
    """
    import pandas as pd

    from fsat.tagging import PyfuncTagger, Tagger

    tagger = PyfuncTagger(Tagger(folder))
    seconds = []
    for path in paths:
        frame = pd.DataFrame({"audio": [Path(path).read_bytes()]})
        start = time.perf_counter()
        tagger.predict(frame)
        seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], "next": statistics.median(seconds[1:])}
