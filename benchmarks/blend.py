"""Blending ten large prediction files: time against only reading them, and peak memory."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from benchmarks.harness import Bench, Row, Section, alternate, call, samples

FILES, CLIPS, CLASSES = 10, 1_000_000, 41


def run(bench: Bench) -> Section:
    """Write the files, then read and blend them by turns."""
    n_clips = bench.pick(CLIPS, 20_000)
    paths = [str(bench.folder / f"{i}.npy") for i in range(FILES)]
    call("benchmarks.blend:write_predictions", paths=paths, n_clips=n_clips)
    found = alternate(bench.repeats, {
        "np.load": partial(call, "benchmarks.blend:load_files", paths=paths),
        "fsat": partial(call, "benchmarks.blend:fsat_blend", paths=paths, out=str(bench.folder / "out.npy"),
                        best=str(bench.folder / "best.npy")),
    })  # fmt: skip
    ours, theirs = found["fsat"], found["np.load"]
    rows = [
        Row("blend, take the three best, write both", samples("fsat", ours, "seconds", "s"),
            samples("`np.load` of each file", theirs, "seconds", "s"), at_most=5),
        Row("peak memory above the imports", samples("fsat", ours, "megabytes", "MB"), at_most=300),
        Row("the same of `np.load`", samples("`np.load` of each file", theirs, "megabytes", "MB")),
    ]  # fmt: skip
    notes = [
        f"{FILES} arrays of {n_clips} x {CLASSES} float32 ({n_clips * CLASSES * 4 / 1e6:.0f} MB each), read from the "
        "system's cache on both sides, each in a fresh process. Peak memory is VmHWM, the greatest resident size, less "
        "that after the imports; unlike ru_maxrss it does not begin with the parent's. fsat: `Blended.fill`, which "
        "writes the blend and the three best classes of every clip to files (not waiting for the disk); the first "
        "rows are checked against the definition.",
    ]
    return Section(rows, notes, ["numpy"])


def write_predictions(paths: list[str], n_clips: int) -> None:
    """Random probabilities, one array a file; the first rows have a 0."""
    import numpy as np

    rng = np.random.default_rng(1001)
    for path in paths:
        scores = rng.random((n_clips, CLASSES), dtype=np.float32) ** 4
        scores[: min(100, n_clips), 0] = 0
        scores /= scores.sum(axis=1, keepdims=True)
        np.save(path, scores)


def load_files(paths: list[str]) -> dict[str, float]:
    """Read each file once."""
    import numpy as np

    before, start = _peak_mb(), time.perf_counter()
    for path in paths:
        np.load(path)
    return {"seconds": time.perf_counter() - start, "megabytes": _peak_mb() - before}


def fsat_blend(paths: list[str], out: str, best: str) -> dict[str, float]:
    """Blend the files into one and take the three best labels of every clip into another."""
    import numpy as np

    from fsat.metrics.blending import Blended
    from fsat.metrics.ranking import TOP_K
    from fsat.metrics.row_blocks import create_rows, open_rows

    before, start = _peak_mb(), time.perf_counter()
    blend = Blended([[open_rows(Path(path)) for path in paths]])
    blend.fill(create_rows(Path(out), blend.shape), create_rows(Path(best), (blend.shape[0], TOP_K), np.int32))
    found = {"seconds": time.perf_counter() - start, "megabytes": _peak_mb() - before}
    _check(paths, out, best)
    return found


def _check(paths: list[str], out: str, best: str) -> None:
    """Raise unless the first rows are what the definition says, in the notebook's order of labels."""
    import numpy as np

    tiny = np.finfo(np.float32).tiny
    rows = [np.maximum(np.load(path, mmap_mode="r")[:1000].astype(np.float64), tiny) for path in paths]
    mean = np.exp(np.mean(np.log(rows), axis=0))
    mean /= mean.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(out, mmap_mode="r")[:1000], mean, rtol=1e-5, atol=1e-30)
    ranked = np.take_along_axis(mean, np.load(best, mmap_mode="r")[:1000].astype(np.int64), axis=1)
    np.testing.assert_allclose(ranked, np.sort(mean, axis=1)[:, :-4:-1], rtol=1e-5)


def _peak_mb() -> float:
    """Greatest resident size of this process so far, in MB (10⁶ bytes)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6
