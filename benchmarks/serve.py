"""Serving: the first request against the next ones, many clients at once, and the memory that large requests take."""

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
from benchmarks.harness import Bench, BenchmarkError, Row, Section, alternate, call, samples

MEMBERS, CROPS, CLASSES = 3, 3, 41
CLIENTS, AT_ONCE = 8, 64
"""Clients, and the clips of a large request: as many as are allowed by default."""

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def run(bench: Bench) -> Section:
    """Serve a tagger anew each time, and ask it; by turns with the tagger alone."""
    n_requests, n_large = bench.pick(400, 16), bench.pick(AT_ONCE, 4)
    paths = call("benchmarks.sounds:write_files", data_dir=str(bench.data_dir), folder=str(bench.folder / "files"),
                 n_files=max(n_requests, n_large))  # fmt: skip
    folder = bench.folder / "tagger"
    folder.mkdir()
    call("benchmarks.predict:write_tagger", folder=str(folder), n_members=MEMBERS, eval_crops=CROPS)
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{bench.folder}/mlflow.db"}
    call("benchmarks.serve:register", environment=store, cwd=bench.folder, folder=str(folder))
    found = alternate(bench.repeats, {
        "served": partial(_served, bench.folder, store, paths, n_requests, n_large),
        "alone": partial(call, "benchmarks.serve:alone", folder=str(folder), paths=paths[: n_requests // 4]),
    })  # fmt: skip
    served, alone = found["served"], found["alone"]
    many = f"{CLIENTS} clients at once"
    rows = [
        Row("a request of one clip", samples("the first", served, "first", "ms", 1e3),
            samples("the next ones", served, "next", "ms", 1e3), at_most=None if bench.quick else 1.5),
        Row("the same, not warmed up", samples("`Tagger.predict`, the first", alone, "first", "ms", 1e3),
            samples("the next ones", alone, "next", "ms", 1e3)),
        Row("a clip, one after the other", samples("served", served, "next", "ms", 1e3),
            samples("`Tagger.predict`", alone, "next", "ms", 1e3)),
        Row("requests of one clip", samples(many, served, "at_once", "requests/s"),
            samples("one client", served, "by_turns", "requests/s")),
        Row(f"the slowest 5 % of them take longer than, {many}", samples("served", served, "slow", "ms", 1e3)),
        Row(f"clips, {n_large} a request", samples(many, served, "large", "clips/s")),
        Row("memory of the server", samples(f"at most, {many} with {n_large} clips each", served, "peak", "MB"),
            samples("warmed up", served, "memory", "MB")),
    ]  # fmt: skip
    notes = [
        f"`mlflow models serve` on a registered tagger of {MEMBERS} conv1d with fresh weights, {CROPS} crops and "
        f"{CLASSES} classes; clips of DATA_DIR as WAV, base64, no two alike; {n_requests} requests by one client and "
        f"as many by {CLIENTS}. Server and clients share the machine. Times are those that a client sees; each repeat "
        "starts a server, and the first request is the first after `/ping` answers. The next ones are the median of "
        "all later ones by one client. Without warm-up, imports are done before, but compiling and loading are in the "
        "time of the first."
    ]
    return Section(rows, notes, ["mlflow", "tensorflow", "keras", "uvicorn", "fastapi"])


def _served(folder: Path, store: dict[str, str], paths: Sequence[str], n_requests: int, n_large: int) -> dict:
    """Start a server and ask it.

    Returns:
        in seconds ``first``, ``next`` and ``slow``; requests or clips a second ``by_turns``, ``at_once`` and ``large``;
        in MB ``memory`` and ``peak``.
    """
    bodies = [_request([path]) for path in paths[:n_requests]]
    with _server(folder, store) as (port, pid):
        first = _ask(port, bodies[0])
        later = [_ask(port, body) for body in bodies[1:]]
        memory = _memory(pid, "VmRSS")
        with ThreadPoolExecutor(CLIENTS) as pool:
            begun = time.perf_counter()
            many = list(pool.map(partial(_ask, port), bodies))
            at_once = len(bodies) / (time.perf_counter() - begun)
            large = _request(paths[:n_large])
            begun = time.perf_counter()
            list(pool.map(partial(_ask, port), [large] * CLIENTS))
            clips = n_large * CLIENTS / (time.perf_counter() - begun)
        return {
            "first": first, "next": statistics.median(later), "by_turns": len(later) / sum(later), "at_once": at_once,
            "slow": statistics.quantiles(many, n=20)[-1], "large": clips, "memory": memory,
            "peak": _memory(pid, "VmHWM"),
        }  # fmt: skip


def _request(paths: Sequence[str]) -> bytes:
    clips = [base64.b64encode(Path(path).read_bytes()).decode() for path in paths]
    return json.dumps({"dataframe_records": [{"audio": clip} for clip in clips]}).encode()


def _ask(port: int, body: bytes) -> float:
    """Seconds until the tags of a request are there."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
    begun = time.perf_counter()
    with OPENER.open(asked, timeout=600) as answer:
        rows = json.load(answer)["predictions"]
    seconds = time.perf_counter() - begun
    if not all(row["labels"] for row in rows):
        raise BenchmarkError(f"not all clips were tagged: {rows}")
    return seconds


def _memory(pid: int, name: str) -> float:
    """VmRSS or VmHWM of a process, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE).group(1)) / 1e3


@contextmanager
def _server(folder: Path, store: dict[str, str]) -> Iterator[tuple[int, int]]:
    """`mlflow models serve`; its port, and the process that has the tagger."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/fsat@champion", "--env-manager",
               "local", "--port", str(port), "--timeout", "600"]  # fmt: skip
    environment = {**os.environ, **store, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with open(folder / "serve.log", "w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while True:
            try:
                OPENER.open(f"http://127.0.0.1:{port}/ping", timeout=5).read()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise BenchmarkError((folder / "serve.log").read_text()[-3000:]) from None
                time.sleep(0.2)
        yield port, int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def register(folder: str) -> str:
    """Register a tagger's folder as champion; the alias is what is served."""
    from fsat.tagging import Tagger
    from fsat.tracking.registry import Score, register

    labels = Tagger(folder).labels
    return register("fsat", Path(folder), labels, Score(0.5, 1), "benchmark", "always", "benchmark").outcome


def alone(folder: str, paths: Sequence[str]) -> dict[str, float]:
    """Tag clip after clip in this process.

    Returns:
        in seconds ``first``, and ``next``, the median of the later ones.
    """
    import pandas as pd

    from fsat.tagging import Tagger

    tagger = Tagger(folder)
    seconds = []
    for path in paths:
        frame = pd.DataFrame({"audio": [Path(path).read_bytes()]})
        begun = time.perf_counter()
        tagger.predict(frame)
        seconds.append(time.perf_counter() - begun)
    return {"first": seconds[0], "next": statistics.median(seconds[1:])}
