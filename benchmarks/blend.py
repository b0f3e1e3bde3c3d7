"""Compare the time to blend ten large prediction files with that to read them, and measure the peak memory."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from benchmarks.harness import Bench, Row, Section, alternate, call, samples

FILES, CLIPS, CLASSES = 10, 1_000_000, 41


def run(bench: Bench) -> Section:
    """Write the files, then read and blend them alternately."""
    n_clips = bench.pick(CLIPS, 20_000)
    paths = [str(bench.folder / f"{i}.npy") for i in range(FILES)]
    call("benchmarks.blend:write_predictions", paths=paths, n_clips=n_clips)
    outputs = {"out": str(bench.folder / "out.npy"), "best": str(bench.folder / "best.npy")}
    sides = {
        "np.load": partial(call, "benchmarks.blend:load_files", paths=paths),
        "fsat": partial(call, "benchmarks.blend:fsat_blend", paths=paths, **outputs),
    }
    results = alternate(bench.repeats, sides)
    fsat, numpy = results["fsat"], results["np.load"]
    rows = [
        Row(
            "blend, take the three best, write both",
            samples("fsat", fsat, "seconds", "s"),
            samples("`np.load` of each file", numpy, "seconds", "s"),
            at_most=5,
        ),
        Row("peak memory above the imports", samples("fsat", fsat, "megabytes", "MB"), at_most=300),
        Row("the same of `np.load`", samples("`np.load` of each file", numpy, "megabytes", "MB")),
    ]
    notes = [
        f"{FILES} arrays of {n_clips} x {CLASSES} float32 ({n_clips * CLASSES * 4 / 1e6:.0f} MB each), read from the "
        "page cache on both sides, each in a new process. Peak memory is VmHWM, the maximum resident size, less "
        "that after the imports; unlike ru_maxrss it does not include the parent's. fsat writes the blend and the "
        "three best classes of every clip to files, without waiting for the disk; the first rows are compared with the "
        "definition.",
    ]
    return Section(rows, notes, ["numpy"])


def write_predictions(paths: list[str], n_clips: int) -> None:
    """Write random probabilities, one array per file; the first rows contain a 0."""
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
    """Write the blend of the files to `out`, and the three best classes of every clip to `best`."""
    import numpy as np

    from fsat.metrics.blending import Blended
    from fsat.metrics.ranking import TOP_K
    from fsat.metrics.row_blocks import create_rows, open_rows

    before, start = _peak_mb(), time.perf_counter()
    blend = Blended([[open_rows(Path(path)) for path in paths]])
    blend.fill(create_rows(Path(out), blend.shape), create_rows(Path(best), (blend.shape[0], TOP_K), np.int32))
    result = {"seconds": time.perf_counter() - start, "megabytes": _peak_mb() - before}
    _check(paths, out, best)
    return result


def _check(paths: list[str], out: str, best: str) -> None:
    """Raise an AssertionError if the first rows differ from the definition."""
    import numpy as np

    tiny = np.finfo(np.float32).tiny
    rows = [np.maximum(np.load(path, mmap_mode="r")[:1000].astype(np.float64), tiny) for path in paths]
    mean = np.exp(np.mean(np.log(rows), axis=0))
    mean /= mean.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(out, mmap_mode="r")[:1000], mean, rtol=1e-5, atol=1e-30)
    ranked = np.take_along_axis(mean, np.load(best, mmap_mode="r")[:1000].astype(np.int64), axis=1)
    np.testing.assert_allclose(ranked, np.sort(mean, axis=1)[:, :-4:-1], rtol=1e-5)


def _peak_mb() -> float:
    """Return the maximum resident size of this process so far, in MB (10⁶ bytes)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6
