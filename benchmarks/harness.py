"""Run the sides of a comparison alternately, each in a process of its own, and collect the results in rows.

This module imports only the standard library, so that the process that starts the sides stays small and idle.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
"""Folder of the repository."""

T = TypeVar("T")


class BenchmarkError(Exception):
    """A benchmark cannot continue."""


@dataclass(frozen=True)
class Bench:
    """The input of a benchmark.

    Attributes:
        data_dir: real clips in fsat's layout.
        folder: empty working folder, deleted afterwards.
        repeats: number of runs of each side.
        quick: only test that the benchmark runs; the numbers have no meaning.
        store_mb: sizes in MB of the decoded clips that `memory` compares.
        backbone: descriptor of the pretrained network that `transfer`, `embed` and `weak_labels` use, if any.
    """

    data_dir: Path
    folder: Path
    repeats: int = 3
    quick: bool = False
    store_mb: tuple[int, int] = (400, 4000)
    backbone: Path | None = None

    def pick(self, usual: T, quick: T) -> T:
        """Return `usual`, or `quick` in a quick run."""
        return quick if self.quick else usual

    def require_backbone(self) -> Path:
        """Return the backbone; raise `BenchmarkError` without one."""
        if self.backbone is None:
            raise BenchmarkError("no backbone; name its descriptor with --backbone, or use --download")
        return self.backbone


@dataclass(frozen=True)
class Samples:
    """The measurements of one side, one per repeat.

    >>> str(Samples("fsat", (3.0, 1.0, 2.0), "s"))
    '2.00 s (1.00 to 3.00)'
    """

    who: str
    values: Sequence[float]
    unit: str

    @property
    def median(self) -> float:
        """Median of the values."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        low, high = number(min(self.values)), number(max(self.values))
        spread = f" ({low} to {high})" if len(self.values) > 1 else ""
        return f"{number(self.median)} {self.unit}".strip() + spread


def _verdict(value: float, at_least: float | None, at_most: float | None) -> str:
    if at_least is None and at_most is None:
        return ""
    low = -float("inf") if at_least is None else at_least
    high = float("inf") if at_most is None else at_most
    return "reached" if low <= value <= high else "MISSED"


@dataclass(frozen=True)
class Row:
    """A row of a benchmark's table.

    The limits apply to the ratio of the medians, first by second, or to the first median if there is no second side.

    Attributes:
        name: the quantity.
        first, second: the two sides; `second` is None if there is no comparison.
        at_least, at_most: limits, if any.
        aim: a stricter limit that need not be reached.
    """

    name: str
    first: Samples
    second: Samples | None = None
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None

    @property
    def judged(self) -> float:
        """The value that the limits apply to."""
        return self.first.median if self.second is None else self.first.median / self.second.median

    @property
    def verdict(self) -> str:
        """``reached``, ``MISSED``, or empty without a limit."""
        return _verdict(self.judged, self.at_least, self.at_most)


@dataclass(frozen=True)
class Score:
    """A row of a table of scores: values over seeds, whose mean the limits apply to.

    Attributes:
        name: the quantity.
        values: one per seed.
        at_least, at_most: limits of the mean, if any.
        aim: a stricter limit that need not be reached.
        remark: further information, such as wall time.
    """

    name: str
    values: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None
    remark: str = ""

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.mean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; 0 for one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def verdict(self) -> str:
        """``reached``, ``MISSED``, or empty without a limit."""
        return _verdict(self.mean, self.at_least, self.at_most)


@dataclass(frozen=True)
class Check:
    """A row of a table of faults.

    Attributes:
        action: what was done.
        required: what must hold afterwards.
        result: what was observed.
        passed: whether the result is as required.
    """

    action: str
    required: str
    result: str
    passed: bool

    @property
    def verdict(self) -> str:
        """``holds`` or ``BROKEN``."""
        return "holds" if self.passed else "BROKEN"


@dataclass
class Section:
    """The results of a benchmark.

    Attributes:
        rows: table of comparisons.
        notes: paragraphs that explain the tables.
        libraries: distributions whose versions matter.
        scores: tables of scores by title.
        checks: table of faults.
    """

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    libraries: Sequence[str] = ("numpy",)
    scores: dict[str, list[Score]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)


def call(
    target: str,
    /,
    *,
    environment: Mapping[str, str] | None = None,
    core: int | None = None,
    cwd: Path = ROOT,
    **arguments: Any,
) -> Any:
    """Call ``module:function`` in a new process and return its result.

    Args:
        target: function to call.
        environment: variables to add.
        core: the only core that it and its children may use; None for all.
        cwd: working folder, the default location of MLflow's artifacts.
        arguments: keyword arguments that JSON can represent.

    Raises:
        BenchmarkError: it failed; the message has the end of its standard error.
    """
    one_core = {} if core is None else {"FSAT_THREADS": "1", "OMP_NUM_THREADS": "1", "FSAT_BENCH_CORE": str(core)}
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **one_core, **(environment or {})}
    with tempfile.TemporaryDirectory(prefix="fsat-bench-") as name:
        result = Path(name) / "result.json"
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.side", target, str(result)],
            input=json.dumps(arguments),
            cwd=cwd,
            env=variables,
            capture_output=True,
            text=True,
        )
        if done.returncode or not result.exists():
            raise BenchmarkError(f"{target}: exit code {done.returncode}\n{done.stderr[-3000:]}")
        return json.loads(result.read_text())


def command_seconds(arguments: Sequence[str], *, expected_code: int = 0, **options: Any) -> float:
    """Return the wall time of a command in seconds; raise `BenchmarkError` if its exit code is not `expected_code`."""
    start = time.perf_counter()
    done = subprocess.run(arguments, capture_output=True, text=True, **options)
    seconds = time.perf_counter() - start
    if done.returncode != expected_code:
        raise BenchmarkError(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return seconds


def alternate(repeats: int, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Run the sides alternately, A B A B ..., so that variations of the machine affect them alike.

    Returns:
        the results of each side, one per repeat.
    """
    results: dict[str, list[T]] = {name: [] for name in sides}
    for i in range(repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            results[name].append(side())
            say(f"  {i + 1}/{repeats} {name}: {time.perf_counter() - start:.1f} s")
    return results


def side_by_side(jobs: Mapping[str, Callable[..., T]]) -> dict[str, T]:
    """Run jobs that measure scores, not times, in parallel, each on a core of its own.

    Args:
        jobs: by name; called with ``core=``, as for `call`.

    Returns:
        the result of each job, in the order of `jobs`.
    """
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in cores():
        free.put(core)

    def run(name: str) -> T:
        start, core = time.perf_counter(), free.get()
        try:
            return jobs[name](core=core)
        finally:
            free.put(core)
            say(f"  {name}: {time.perf_counter() - start:.1f} s")

    pool = ThreadPoolExecutor(free.qsize())
    try:
        return dict(zip(jobs, pool.map(run, jobs), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def samples(who: str, results: Sequence[Mapping[str, Any]], key: str, unit: str, scale: float = 1.0) -> Samples:
    """Return the values under `key` in the results of a side."""
    return Samples(who, tuple(result[key] * scale for result in results), unit)


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def number(value: float) -> str:
    """Format with three significant digits, without an exponent unless the value is tiny.

    >>> [number(value) for value in (1234.5, 12.34, 0.5, 1e-6, 0)]
    ['1234', '12.3', '0.500', '1e-06', '0']
    """
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:#.3g}"


def say(message: str) -> None:
    """Print a line of progress to standard error."""
    print(message, file=sys.stderr, flush=True)
