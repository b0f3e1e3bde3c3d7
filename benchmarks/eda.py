"""Measure time, memory and page size of `eda` for a tenth and all of FSDKaggle2018's tables."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

from benchmarks.faults.processes import Workspace
from benchmarks.harness import Bench, BenchmarkError, Row, Section, alternate, call, samples

SHARES = (0.1, 1.0)
LIMIT_SECONDS, LIMIT_MB, LIMIT_GROWTH = 180.0, 25.0, 1.5


def run(bench: Bench) -> Section:
    """Run the command on both alternately, each time with an empty cache folder and tracking store."""
    if not (bench.data_dir / "sample_submission.csv").is_file():
        raise BenchmarkError(f"{bench.data_dir}: expected train.csv and sample_submission.csv of FSDKaggle2018")
    shares = bench.pick(SHARES, (0.01, 0.02))
    datasets = {
        share: call(
            "benchmarks.eda:write", tables=str(bench.data_dir), folder=str(bench.folder / f"{share:g}"), share=share
        )
        for share in shares
    }
    sides = {
        f"{clips['train']} + {clips['test']} clips": partial(_measure, bench.folder, bench.folder / f"{share:g}")
        for share, clips in datasets.items()
    }
    small, large = alternate(bench.repeats, sides).items()
    seconds, size, peak = ("seconds", "s"), ("size", "MB"), ("peak", "MB")
    rows = [
        Row("time of the command", samples(*large, *seconds), at_most=LIMIT_SECONDS),
        Row("size of eda.html", samples(*large, *size), at_most=LIMIT_MB),
        Row("time of the command", samples(*large, *seconds), samples(*small, *seconds)),
        Row("size of eda.html", samples(*large, *size), samples(*small, *size)),
        Row("peak memory of the command", samples(*large, *peak), samples(*small, *peak), at_most=LIMIT_GROWTH),
    ]
    hours = datasets[shares[-1]]
    notes = [
        "DATA_DIR: the tables of FSDKaggle2018, with generated sounds of realistic lengths in place of the recordings "
        f"(`benchmarks/fsdkaggle2018.py`): {hours['train_hours']:.1f} h of training and {hours['test_hours']:.1f} h of "
        "test clips, 44.1 kHz, 16 bits. `python -m fsat eda`, with its start, an empty cache folder, so that every "
        f"file is hashed, and an empty SQLite tracking store; on {os.cpu_count()} cores. The files may be in the page "
        "cache. Memory: ru_maxrss, which grows with the tables of the clips.",
    ]
    return Section(rows, notes, ["numpy", "pandas", "soundfile", "matplotlib", "mlflow"])


def write(tables: str, folder: str, share: float) -> dict[str, float]:
    """Write the dataset."""
    from benchmarks import fsdkaggle2018

    return fsdkaggle2018.write(Path(tables), Path(folder), share)


def _measure(folder: Path, data_dir: Path) -> dict[str, float]:
    """Run the command once; return its seconds, and the MB of its page and of its peak memory."""
    workspace = Workspace(folder / "workspace")
    seconds, peak = workspace.start("eda", data_dir=data_dir).measure()
    (page,) = workspace.folder.glob("mlruns/*/*/artifacts/eda.html")
    size = page.stat().st_size / 1e6
    shutil.rmtree(workspace.folder)
    return {"seconds": seconds, "size": size, "peak": peak}
