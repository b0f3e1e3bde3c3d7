"""Compare the training speed of fsat with that of the notebook's loop.

Both train on the same files: the clips of DATA_DIR repeated to 640 rows, of which fold 0 holds out 10 %.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Row, Section, alternate, call, samples

NEEDS = ("resampy",)
ROWS, QUICK_ROWS = 640, 80
FOLD = 0
FSAT_EPOCHS, DUMMY_EPOCHS, OTHER_EPOCHS = 7, 31, 3
"""Epochs of a run; the first is not counted."""

RATE, WHOLE = "clips_per_second", "clips_per_second_whole"
NOTEBOOK, NOTEBOOK_FAST = "notebook, float32", "notebook without XLA, float32"


def run(bench: Bench) -> Section:
    """Compare the training speeds."""
    data, facts = write_clips(bench)
    section = Section(libraries=["tensorflow", "keras", "librosa", "resampy", "numpy"])
    _against_notebook(bench, data, "conv1d", bench.pick(FSAT_EPOCHS, 2), 6, section, aim=8)
    _against_notebook(bench, data, "dummy1d", bench.pick(DUMMY_EPOCHS, 2), 60, section)
    _against_notebook(bench, data, "conv2d_mfcc", bench.pick(FSAT_EPOCHS, 2), 2, section)
    section.notes += [
        f"{facts} fsat: `train_fold` on an open store, median over the epochs of the time for the training part. The "
        "notebook: its loop without validation, over all counted epochs.",
        'The notebook runs with the defaults of current Keras: `jit_compile="auto"` selects XLA, which is slow for '
        "conv1d on a CPU, and each epoch starts new worker processes, which import and compile librosa's dependencies "
        "again. Without XLA: these are also loaded before the workers are forked.",
    ]
    return section


def write_clips(bench: Bench) -> tuple[str, str]:
    """Write the training clips; return their folder and a description."""
    data = str(bench.folder / "data")
    n_rows = bench.pick(ROWS, QUICK_ROWS)
    facts = call("benchmarks.sounds:write_dataset", data_dir=str(bench.data_dir), folder=data, n_rows=n_rows)
    return data, (
        f"Clips: {facts['clips']} real clips of {facts['seconds']:g} s at {facts['samplerate']} Hz and "
        f"{facts['classes']} classes, repeated to {facts['rows']} rows; fold {FOLD} holds out a tenth. Batches of 64. "
        "Each run is a process of its own, and its first epoch is not counted."
    )


def _against_notebook(
    bench: Bench, data: str, model: str, epochs: int, least: float, section: Section, aim: float | None = None
) -> None:
    sides = {
        f"{model}: fsat": partial(train, data, model, epochs),
        f"{model}: notebook": partial(_train_notebook, bench, data, model),
        f"{model}: notebook without XLA": partial(_train_notebook, bench, data, model, fast=True),
    }
    fsat_results, notebook, notebook_fast = alternate(bench.repeats, sides).values()
    fsat = samples(f"fsat, {fsat_results[0]['precision']}", fsat_results, RATE, "clips/s")
    section.rows += [
        Row(f"{model}, training", fsat, samples(NOTEBOOK, notebook, RATE, "clips/s"), at_least=least, aim=aim),
        Row(f"{model}, training", fsat, samples(NOTEBOOK_FAST, notebook_fast, RATE, "clips/s")),
    ]


def train(data: str, model: str, epochs: int, precision: str = "auto") -> dict[str, Any]:
    """Run `fsat_fold` in a process of its own."""
    return call("benchmarks.train:fsat_fold", data_dir=data, model=model, epochs=epochs, precision=precision)


def _train_notebook(bench: Bench, data: str, model: str, fast: bool = False) -> dict[str, Any]:
    epochs = bench.pick(OTHER_EPOCHS, 2)
    return call("benchmarks.notebook:train", data_dir=data, model=model, epochs=epochs, fold=FOLD, fast=fast)


def fsat_fold(data_dir: str, model: str, epochs: int, precision: str) -> dict[str, Any]:
    """Train a fold by `fsat.training.fold.train_fold`.

    Returns:
        ``clips_per_second`` of the training part and ``clips_per_second_whole`` of whole epochs, medians over the
        epochs after the first, and the ``precision``.
    """
    from fsat.training.fold import train_fold

    dataset = load(data_dir, model, epochs, precision)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        result = train_fold(dataset, FOLD, Path(folder), lambda *epoch: ends.append(time.perf_counter()))
    n_train = int((dataset.folds != FOLD).sum())
    seconds = [end - start for start, end in pairwise(ends)]
    return {
        "clips_per_second": statistics.median(epoch["clips_per_second"] for epoch in result.state.history[1:]),
        "clips_per_second_whole": n_train / statistics.median(seconds),
        "precision": dataset.config.precision,
    }


def load(data_dir: str, model: str, epochs: int, precision: str):
    """Load the dataset with its precision settled and its store open."""
    from fsat.commands.train import prepare_dataset
    from fsat.config import Config
    from fsat.data.dataset import Source

    options = {"model": model, "max_epochs": epochs, "patience": epochs, "precision": precision}
    return prepare_dataset(Source(Path(data_dir)), Config.resolve(options), FOLD)
