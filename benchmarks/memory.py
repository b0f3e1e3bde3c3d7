"""Compare the memory of training on a small and on a ten times larger store of decoded clips."""

from __future__ import annotations

import statistics
import tempfile
import threading
from functools import partial
from pathlib import Path

from benchmarks.harness import Bench, Row, Section, alternate, call, number, samples

CLIP_SECONDS, RATE, BATCH = 2.5, 16000, 128
LIMIT_MB = 1500
"""Limit of a training process (RLIMIT_DATA): less than the larger store's samples."""

SAMPLE_SECONDS = 0.01


def run(bench: Bench) -> Section:
    """Write two datasets of noise, build their stores, train an epoch on each."""
    facts, builds, limit = [], [], LIMIT_MB if max(bench.store_mb) > LIMIT_MB else 0
    for i, megabytes in enumerate(bench.store_mb):
        folder = str(bench.folder / f"noise{i}")
        size = {"megabytes": megabytes, "seconds": CLIP_SECONDS, "samplerate": RATE}
        facts.append(call("benchmarks.sounds:write_noise", folder=folder, **size))
        builds.append(call("benchmarks.memory:build_store", folder=folder))
    sizes = [f"{fact['megabytes']:.0f} MB, {fact['rows']} clips" for fact in facts]
    sides = {
        size: partial(call, "benchmarks.memory:train_epoch", folder=str(bench.folder / f"noise{i}"), limit_mb=limit)
        for i, size in enumerate(sizes)
    }
    small, large = alternate(bench.repeats, sides).values()
    quantities = {
        "peak_rss": "resident, peak (VmHWM)",
        "steady_rss": "resident, steady (VmRSS)",
        "peak_anon": "anonymous, peak (RssAnon)",
        "steady_anon": "anonymous, steady (RssAnon)",
    }
    rows = [
        Row(
            name,
            samples(sizes[1], large, key, "MB"),
            samples(sizes[0], small, key, "MB"),
            at_most=1.1 if "rss" in key else None,
        )
        for key, name in quantities.items()
    ]
    build_samples = [samples(sizes[i], builds[i : i + 1], "peak_rss", "MB") for i in (1, 0)]
    rows.append(Row("building the store, resident, peak (VmHWM)", *build_samples))
    limit_text = (
        f"The process may not allocate more than {limit} MB (RLIMIT_DATA), less than the larger store."
        if limit
        else "The process had no limit, because the larger store is smaller than the limit."
    )
    notes = [
        f"`train_fold` of dummy1d, one epoch, batches of {BATCH} crops of 2 s ({number(BATCH * 2 * RATE * 4 / 1e6)} MB "
        f"each), then its predictions for every clip, on stores of {sizes[0]} and {sizes[1]} (white noise, "
        f"{CLIP_SECONDS:g} s at {RATE} Hz, written as WAV and decoded before by fsat in another process). Peak: of the "
        f"whole process; steady: median of readings every {1000 * SAMPLE_SECONDS:g} ms during the training. Resident "
        "memory includes pages of the mapped store, which the system reclaims when needed; anonymous memory does not. "
        f"{limit_text}",
    ]
    return Section(rows, notes, ["tensorflow", "keras", "numpy"])


def _load(folder: str):
    from fsat.commands.train import prepare_dataset
    from fsat.config import Config
    from fsat.data.dataset import Source

    return prepare_dataset(Source(Path(folder)), Config(model="dummy1d", batch_size=BATCH, max_epochs=1), 0)


def _status() -> dict[str, float]:
    """Return the memory of this process in MB (10⁶ bytes) from /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return {name: int(values[name].split()[0]) * 1024 / 1e6 for name in ("VmHWM", "VmRSS", "RssAnon")}


def build_store(folder: str) -> dict[str, float]:
    """Decode a dataset into fsat's cache; return the peak of resident memory in MB."""
    _load(folder)
    return {"peak_rss": _status()["VmHWM"]}


def train_epoch(folder: str, limit_mb: int) -> dict[str, float]:
    """Train a fold for one epoch on an existing store.

    Args:
        folder: the dataset.
        limit_mb: limit of the process's data, 0 for none.

    Returns:
        peak and steady resident and anonymous memory in MB.
    """
    import resource

    from fsat.training.fold import train_fold

    if limit_mb:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_mb * 10**6, limit_mb * 10**6))
    dataset = _load(folder)
    readings, done = [], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            readings.append(_status())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with tempfile.TemporaryDirectory() as out:
            train_fold(dataset, 0, Path(out))
    finally:
        done.set()
        watcher.join()
    return {
        "peak_rss": _status()["VmHWM"],
        "steady_rss": statistics.median(reading["VmRSS"] for reading in readings),
        "peak_anon": max(reading["RssAnon"] for reading in readings),
        "steady_anon": statistics.median(reading["RssAnon"] for reading in readings),
    }
