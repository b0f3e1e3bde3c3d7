"""What all benchmarks share: sides in processes of their own, run by turns, and the rows that come of them.

Only the standard library is imported here, so the process that starts the sides stays small and idle.
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
"""The repository's folder."""

T = TypeVar("T")


class BenchmarkError(Exception):
    """A benchmark cannot go on; the message says why."""


@dataclass(frozen=True)
class Bench:
    """What a benchmark is told.

    Attributes:
        data_dir: real clips laid out as fsat reads them.
        folder: the benchmark's own, empty, deleted afterwards.
        repeats: how often each side is run.
        quick: only see whether it runs; the numbers mean nothing.
        store_mb: sizes in MB of the decoded clips that `memory` compares.
    """

    data_dir: Path
    folder: Path
    repeats: int = 3
    quick: bool = False
    store_mb: tuple[int, int] = (400, 4000)

    def pick(self, usual: T, quick: T) -> T:
        """`usual`, or `quick` in a quick run."""
        return quick if self.quick else usual


@dataclass(frozen=True)
class Samples:
    """What one side measured, once a repeat.

    >>> str(Samples("fsat", (3.0, 1.0, 2.0), "s"))
    '2.00 s (1.00 to 3.00)'
    """

    who: str
    values: Sequence[float]
    unit: str

    @property
    def median(self) -> float:
        """The middle value."""
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
    """One line of a benchmark's table.

    What is judged is the ratio of the medians, first by second; without a second side it is the first one's median.

    Attributes:
        what: what was measured.
        first, second: the two sides; `second` is None where a value is held against a limit.
        at_least, at_most: the limit, if there is one.
        aim: a higher limit that is only wished for.
    """

    what: str
    first: Samples
    second: Samples | None = None
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None

    @property
    def judged(self) -> float:
        """The value that the limit is for."""
        return self.first.median if self.second is None else self.first.median / self.second.median

    @property
    def verdict(self) -> str:
        """``reached``, ``MISSED``, or nothing where there is no limit."""
        return _verdict(self.judged, self.at_least, self.at_most)


@dataclass(frozen=True)
class Score:
    """A line of a table of scores: values over seeds, judged by their mean.

    Attributes:
        what: what was measured.
        values: one a seed.
        at_least, at_most: the limit of the mean, if there is one.
        aim: a further limit that is only wished for.
        remark: anything else, such as wall time.
    """

    what: str
    values: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None
    remark: str = ""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.mean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; 0 for one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def verdict(self) -> str:
        """``reached``, ``MISSED``, or nothing where there is no limit."""
        return _verdict(self.mean, self.at_least, self.at_most)


@dataclass(frozen=True)
class Check:
    """A line of a table of faults.

    Attributes:
        what: what was done.
        must: what must hold then.
        found: what did.
        held: whether it is as it must be.
    """

    what: str
    must: str
    found: str
    held: bool

    @property
    def verdict(self) -> str:
        """``holds`` or ``BROKEN``."""
        return "holds" if self.held else "BROKEN"


@dataclass
class Section:
    """What a benchmark found.

    Attributes:
        rows: its table of comparisons.
        notes: what a reader must know to judge the table, a paragraph each.
        libraries: distributions whose versions matter here.
        scores: its tables of scores, by title.
        checks: its table of faults.
    """

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    libraries: Sequence[str] = ("numpy",)
    scores: dict[str, list[Score]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)


def call(
    target: str, /, *, environment: Mapping[str, str] | None = None, core: int | None = None, cwd: Path = ROOT,
    **arguments: Any,
) -> Any:  # fmt: skip
    """Run ``module:function`` in a fresh process.

    Args:
        target: what to call.
        environment: variables to add.
        core: the only core that it and its children may use; None for all.
        cwd: its working folder, where MLflow keeps artifacts if it is told no other place.
        arguments: its keyword arguments, as far as JSON can hold them.

    Raises:
        BenchmarkError: it failed; the end of what it wrote is in the message.
    """
    alone = {} if core is None else {"FSAT_THREADS": "1", "OMP_NUM_THREADS": "1", "FSAT_BENCH_CORE": str(core)}
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **alone, **(environment or {})}
    with tempfile.TemporaryDirectory(prefix="fsat-bench-") as name:
        result = Path(name) / "result.json"
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.side", target, str(result)],
            input=json.dumps(arguments), cwd=cwd, env=variables,
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode or not result.exists():
            raise BenchmarkError(f"{target}: exit code {done.returncode}\n{done.stderr[-3000:]}")
        return json.loads(result.read_text())


def command_seconds(arguments: Sequence[str], *, expected_code: int = 0, **options: Any) -> float:
    """Wall time of a command, its start included.

    Raises:
        BenchmarkError: it ended with another code than `expected_code`.
    """
    start = time.perf_counter()
    done = subprocess.run(arguments, capture_output=True, text=True, **options)
    seconds = time.perf_counter() - start
    if done.returncode != expected_code:
        raise BenchmarkError(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return seconds


def alternate(repeats: int, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Run the sides by turns, A B A B ..., so that a slow spell of the machine hits them alike.

    Returns:
        per side what it returned, once a repeat.
    """
    results: dict[str, list[T]] = {name: [] for name in sides}
    for i in range(repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            results[name].append(side())
            say(f"  {i + 1}/{repeats} {name}: {time.perf_counter() - start:.1f} s")
    return results


def side_by_side(jobs: Mapping[str, Callable[..., T]]) -> dict[str, T]:
    """Run jobs whose results are scores and not times: each on a core of its own, as many at once as there are cores.

    Args:
        jobs: by name; called with ``core=``, as `call` takes it.

    Returns:
        what each has returned, in the order of `jobs`.
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
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def samples(who: str, results: Sequence[Mapping[str, Any]], key: str, unit: str, scale: float = 1.0) -> Samples:
    """The values under `key` of what a side returned each time."""
    return Samples(who, tuple(result[key] * scale for result in results), unit)


def is_installed(module: str) -> bool:
    """Whether a module can be imported; it is not imported."""
    return importlib.util.find_spec(module) is not None


def number(value: float) -> str:
    """Three significant digits, without an exponent unless it is tiny.

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
