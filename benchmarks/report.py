"""Write RESULTS.md: one section per benchmark between markers, so that a run replaces only its own sections."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import fsat
from benchmarks.harness import Row, Samples, Score, Section, number

HEAD = """\
# Results of the benchmarks

Written by `python -m benchmarks DATA_DIR`; see [README.md](README.md) for what each one measures. Each section says on
which machine, when and with what it was made. A cell holds the median of the repeats, with the least and greatest in
parentheses; the ratio is that of the medians, left by right. Where there is no right side, the left median is held
against the limit. Tables of scores have means over seeds, and as spread the standard deviation.
"""

SECTION = re.compile(r"<!-- (\w+): begin -->.*?<!-- \1: end -->", re.DOTALL)

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Instruction sets that determine the speed of float32 and bfloat16."""


def machine() -> str:
    """Return processor, cores, memory and instruction sets in one line."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    flags = set(re.search(r"^flags\s*: (.*)$", cpuinfo, re.MULTILINE).group(1).split()) if "flags" in cpuinfo else set()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    has = ", ".join(f"{'has' if flag in flags else 'lacks'} {flag}" for flag in CPU_FLAGS)
    processor = " ".join(model.group(1).split()) if model else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB of memory; {has}"


def versions(libraries: Sequence[str]) -> str:
    """Return the versions of Python and of the installed libraries."""
    texts = [f"Python {platform.python_version()}"]
    for name in libraries:
        try:
            texts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            texts.append(f"{name} not installed")
    return ", ".join(texts)


def commit() -> str:
    """Return the commit of the code and whether files differ from it; empty outside a git checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        status = [*git, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/benchmarks/RESULTS.md"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"commit {head.stdout.strip()}{', changed' if changed.stdout.strip() else ''}"


def cpu_times() -> tuple[int, int, int]:
    """Return the ticks since the start of the machine: all, busy, and stolen by other virtual machines."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4] - ticks[7], ticks[7]


def busy_share(seconds: float = 2.0) -> float:
    """Return the share of the cores that other processes use while this one sleeps."""
    before = cpu_times()
    time.sleep(seconds)
    after = cpu_times()
    return (after[1] - before[1]) / max(1, after[0] - before[0])


def render(name: str, section: Section, command: str, commit: str, quiet: str) -> str:
    """Return a section as Markdown with its markers.

    Args:
        name: of the benchmark.
        section: its results.
        command: the command line, with DATA_DIR for the folder.
        commit: the code's at the start, from `commit`.
        quiet: other load on the machine meanwhile.
    """
    lines = [
        f"<!-- {name}: begin -->",
        f"## {name}",
        "",
        ", ".join(filter(None, [f"{datetime.now():%Y-%m-%d %H:%M}", f"`{command}`", commit])) + "  ",
        f"{machine()}  ",
        f"fsat {fsat.__version__}, {versions(section.libraries)}  ",
        quiet,
        "",
    ]
    if section.rows:
        lines += ["| measured | this side | other side | ratio | to reach | |", "| --- | --- | --- | --- | --- | --- |"]
        lines += [_row_cells(row) for row in section.rows]
        lines.append("")
    if section.checks:
        lines += ["| done | must hold | found | |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {check.action} | {check.required} | {check.result} | {check.verdict} |" for check in section.checks
        ]
        lines.append("")
    for title, scores in section.scores.items():
        lines += [
            f"| {title} | mean | spread | each seed | to reach | | |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [_score_cells(score) for score in scores]
        lines.append("")
    for note in section.notes:
        lines += [note, ""]
    return "\n".join([*lines, f"<!-- {name}: end -->"])


def update(path: Path, sections: dict[str, str], order: Sequence[str]) -> None:
    """Replace sections of RESULTS.md and leave the others unchanged.

    Args:
        path: the file, created if missing.
        sections: Markdown by name, from `render`.
        order: names in the order of the file.
    """
    before = path.read_text() if path.exists() else ""
    texts = {match.group(1): match.group(0) for match in SECTION.finditer(before)} | sections
    path.write_text("\n\n".join([HEAD.rstrip(), *(texts[name] for name in order if name in texts)]) + "\n")


def _row_cells(row: Row) -> str:
    ratio = "" if row.second is None else number(row.judged)
    cells = [row.name, _cell(row.first), _cell(row.second), ratio, _goal(row), row.verdict]
    return "| " + " | ".join(cells) + " |"


def _score_cells(score: Score) -> str:
    each = ", ".join(f"{value:.4g}" for value in score.values) if len(score.values) > 1 else ""
    spread = f"{score.spread:.2g}" if each else ""
    cells = [score.name, f"{score.mean:.4g}", spread, each, _goal(score), score.verdict, score.remark]
    return "| " + " | ".join(cells) + " |"


def _cell(side: Samples | None) -> str:
    if side is None:
        return ""
    return f"{side.who}: {side}" if side.who else str(side)


def _goal(row: Row | Score) -> str:
    goals = []
    if row.at_least is not None:
        goals.append(f"≥ {row.at_least:g}")
    if row.at_most is not None:
        goals.append(f"≤ {row.at_most:g}")
    if row.aim is not None:
        goals.append(f"(aim {row.aim:g})")
    return " ".join(goals)
