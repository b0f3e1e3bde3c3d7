"""The page of a large dataset: time, size and memory of `eda` for FSDKaggle2018's tables, a tenth and the whole."""

from __future__ import annotations

import os
import shutil
import time
from functools import partial
from pathlib import Path

from benchmarks.faults.processes import Place
from benchmarks.harness import Bench, BenchmarkError, Row, Section, alternate, call, samples

SHARES = (0.1, 1.0)
LIMIT_SECONDS, LIMIT_MB, LIMIT_GROWTH = 180.0, 25.0, 1.5


def run(bench: Bench) -> Section:
    """Run the command on both, by turns, each time with an empty cache folder and tracking store."""
    if not (bench.data_dir / "sample_submission.csv").is_file():
        raise BenchmarkError(f"{bench.data_dir}: expected train.csv and sample_submission.csv of FSDKaggle2018")
    shares = bench.pick(SHARES, (0.01, 0.02))
    made = {
        share: call("benchmarks.eda:write", tables=str(bench.data_dir), folder=str(bench.folder / f"{share:g}"),
                    share=share)
        for share in shares
    }  # fmt: skip
    found = alternate(bench.repeats, {
        f"{clips['train']} + {clips['test']} clips": partial(_look, bench.folder, bench.folder / f"{share:g}")
        for share, clips in made.items()
    })  # fmt: skip
    (small, few), (large, many) = found.items()
    rows = [
        Row("time of the command", samples(large, many, "seconds", "s"), at_most=LIMIT_SECONDS),
        Row("size of eda.html", samples(large, many, "size", "MB"), at_most=LIMIT_MB),
        Row("time of the command", samples(large, many, "seconds", "s"), samples(small, few, "seconds", "s")),
        Row("size of eda.html", samples(large, many, "size", "MB"), samples(small, few, "size", "MB")),
        Row("peak memory of the command", samples(large, many, "peak", "MB"), samples(small, few, "peak", "MB"),
            at_most=LIMIT_GROWTH),
    ]  # fmt: skip
    whole = made[shares[-1]]
    notes = [
        "DATA_DIR: the tables of FSDKaggle2018, whose recordings are replaced by generated sounds of realistic lengths "
        f"(`benchmarks/fsdkaggle2018.py`): {whole['train_hours']:.1f} h of training and {whole['test_hours']:.1f} h of "
        "test clips, 44.1 kHz, 16 bit. `python -m fsat eda`, start included, with an empty cache folder, so that every "
        f"file is hashed, and an empty SQLite tracking store; on {os.cpu_count()} cores. The files may be in the "
        "system's cache. Memory: ru_maxrss. What grows with the clips are their tables.",
    ]
    return Section(rows, notes, ["numpy", "pandas", "soundfile", "matplotlib", "mlflow"])


def write(tables: str, folder: str, share: float) -> dict[str, float]:
    """Write the dataset, in a process of its own."""
    from benchmarks import fsdkaggle2018

    return fsdkaggle2018.write(Path(tables), Path(folder), share)


def _look(folder: Path, data_dir: Path) -> dict[str, float]:
    """Run the command once; seconds, and MB of its page and of its peak memory."""
    place = Place(folder / "place")
    sitting = place.start("eda", data_dir=data_dir)
    _, status, usage = os.wait4(sitting.process.pid, 0)
    seconds = time.monotonic() - sitting.started
    if status:
        raise BenchmarkError(f"eda ended with {os.waitstatus_to_exitcode(status)}\n{sitting.said[-3000:]}")
    (page,) = place.folder.glob("mlruns/*/*/artifacts/eda.html")
    size = page.stat().st_size / 1e6
    shutil.rmtree(place.folder)
    return {"seconds": seconds, "size": size, "peak": usage.ru_maxrss * 1024 / 1e6}
