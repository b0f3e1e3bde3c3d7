"""Compare the time to compute embeddings of clips with that of the bare runtime on the same windows.

Needs a backbone in TensorFlow Lite's format. The bare runtime is TensorFlow Lite's interpreter on windows in memory:
one on each core, or one that uses all cores; the faster counts.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Row, Samples, Section, alternate, call

BARE = {"an interpreter on each core": True, "one interpreter on all cores": False}


def run(bench: Bench) -> Section:
    """Compute the embeddings of DATA_DIR's clips by each side alternately."""
    common = {"data_dir": str(bench.data_dir), "backbone": str(bench.require_backbone())}
    call("benchmarks.embed:fsat", **common, times=1)  # decodes the clips, and fills the page cache
    times = bench.pick(3, 1)
    sides = {"fsat": partial(call, "benchmarks.embed:fsat", **common, times=times)}
    for name, per_core in BARE.items():
        sides[name] = partial(call, "benchmarks.embed:bare", **common, times=times, per_core=per_core)
    results = alternate(bench.repeats, sides)
    speeds = {
        name: Samples(name, [result["windows"] / result["seconds"] for result in values], "windows/s")
        for name, values in results.items()
    }
    faster = max(BARE, key=lambda name: speeds[name].median)
    slower = next(name for name in BARE if name != faster)
    from_files = Samples(
        "fsat", [result["windows"] / result["with_decoding"] for result in results["fsat"]], "windows/s"
    )
    rows = [
        Row("embeddings of decoded clips", speeds["fsat"], speeds[faster], at_least=0.9),
        Row("embeddings of files: decoding, then the same", from_files, speeds[faster]),
        Row("the other way to use the runtime", speeds[slower], speeds[faster]),
    ]
    notes = [
        f"{results['fsat'][0]['windows']} windows of DATA_DIR's clips by {Path(common['backbone']).name}. Opening the "
        "network is not included on either side. fsat: `embed_clips`, with the embeddings written to an empty cache "
        "folder. The bare runtime computes the outputs of the file, window by window, of samples in memory.",
    ]
    return Section(rows, notes, ["tensorflow", "numpy"])


def fsat(data_dir: str, backbone: str, times: int) -> dict[str, float]:
    """Compute the embeddings of all clips in an empty cache folder; return the best time."""
    import numpy as np

    from fsat.backbones.runtime import open_backbone
    from fsat.data.embeddings import embed_clips, embeddings

    seconds, decoding = [], []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as cache:
            os.environ["FSAT_CACHE_DIR"] = cache
            start = time.perf_counter()
            dataset, described = _dataset(data_dir, backbone)
            decoding.append(time.perf_counter() - start)
            runtime = open_backbone(described)
            start = time.perf_counter()
            embed_clips(dataset.train, dataset.config, lambda runtime=runtime: runtime.embed)
            seconds.append(time.perf_counter() - start)
            windows = int(np.sum(embeddings(dataset.train, dataset.config).n_windows))
    return {"windows": windows, "seconds": min(seconds), "with_decoding": min(seconds) + min(decoding)}


def bare(data_dir: str, backbone: str, times: int, per_core: bool) -> dict[str, float]:
    """Compute the same embeddings by TensorFlow Lite's interpreter alone; return the best time."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import tensorflow as tf

    from fsat.data.embeddings import window_crops

    dataset, described = _dataset(data_dir, backbone)
    crops = window_crops(dataset.train.lengths, dataset.config)
    windows = dataset.train.crops(crops.clips, crops.starts, dataset.config.audio_length)
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def interpret(part: np.ndarray) -> list[np.ndarray]:
        interpreter, input, output = opened.pop()
        answers = []
        for window in part:
            interpreter.set_tensor(input, window.reshape(shape))
            interpreter.invoke()
            answers.append(interpreter.get_tensor(output))
        return answers

    workers, threads = (n_cores, 1) if per_core else (1, n_cores)
    shape = (1, -1) if described.input.rank == 2 else (-1,)
    seconds = []
    for _ in range(times):
        opened = [_interpreter(tf, described, threads) for _ in range(workers)]
        start = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(interpret, np.array_split(windows, workers)))
        seconds.append(time.perf_counter() - start)
    return {"windows": len(windows), "seconds": min(seconds)}


def _interpreter(tf: Any, described: Any, threads: int) -> tuple[Any, int, int]:
    """Return an interpreter with the indices of its input and of its first output."""
    interpreter = tf.lite.Interpreter(str(described.path), num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter, interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]


def _dataset(data_dir: str, backbone: str) -> tuple[Any, Any]:
    """Return the decoded dataset, with the settings of the backbone, and the backbone."""
    from fsat.backbones.descriptor import read_backbone
    from fsat.backbones.probe import checked_size
    from fsat.config import Config
    from fsat.data.dataset import load_dataset

    described = read_backbone(backbone)
    size = described.size or checked_size(described)
    options = {
        "model": "embedding",
        "backbone": described.ref,
        "embedding_size": size,
        "sampling_rate": described.sampling_rate,
        "window_hop": described.hop or (described.window or 1.0) / 2,
        "precision": "float32",
    }
    if described.window is not None:
        options["audio_duration"] = described.window
    return load_dataset(data_dir, Config.resolve(options)), described
