"""Training speed: fsat's folds against the notebook's loop.

All train on the same files: the clips of DATA_DIR repeated to 640 rows, of which fold 0 holds out 10 %.
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
"""Epochs of a run, the first of which is not counted."""

RATE, WHOLE = "clips_per_second", "clips_per_second_whole"
NOTEBOOK, NOTEBOOK_BEST = "notebook, float32", "notebook at its best, float32"


def run(bench: Bench) -> Section:
    """Compare the trainings."""
    data, facts = write_clips(bench)
    section = Section(libraries=["tensorflow", "keras", "librosa", "resampy", "numpy"])
    _against_notebook(bench, data, "conv1d", bench.pick(FSAT_EPOCHS, 2), 6, section, aim=8)
    _against_notebook(bench, data, "dummy1d", bench.pick(DUMMY_EPOCHS, 2), 60, section)
    _against_notebook(bench, data, "conv2d_mfcc", bench.pick(FSAT_EPOCHS, 2), 2, section)
    section.notes += [
        f"{facts} fsat: `train_fold` on an open store, median over the epochs of the time for the training part. The "
        "notebook: its loop without validation, over all counted epochs.",
        'The notebook is run as today\'s Keras takes it: `jit_compile="auto"` means XLA, which is slow for conv1d on a '
        "CPU, and each epoch has new worker processes, which import and compile anew what librosa needs. At its best "
        "means without XLA, and with all that loaded before the workers are forked.",
    ]
    return section


def write_clips(bench: Bench) -> tuple[str, str]:
    """Write the clips that are trained on; their folder, and what a reader must know of them."""
    data = str(bench.folder / "data")
    facts = call("benchmarks.sounds:write_dataset", data_dir=str(bench.data_dir), folder=data,
                 n_rows=bench.pick(ROWS, QUICK_ROWS))  # fmt: skip
    return data, (
        f"Clips: {facts['clips']} real clips of {facts['seconds']:g} s at {facts['samplerate']} Hz and "
        f"{facts['classes']} classes, repeated to {facts['rows']} rows; fold {FOLD} holds out a tenth. Batches of 64. "
        "Each run is a process of its own, and its first epoch is not counted."
    )


def _against_notebook(
    bench: Bench, data: str, model: str, epochs: int, least: float, section: Section, aim: float | None = None
) -> None:
    found = alternate(bench.repeats, {
        f"{model}: fsat": partial(train, data, model, epochs),
        f"{model}: notebook": partial(_notebook, bench, data, model),
        f"{model}: notebook at its best": partial(_notebook, bench, data, model, best=True),
    })  # fmt: skip
    ours, theirs, best = found.values()
    fsat = samples(f"fsat, {ours[0]['precision']}", ours, RATE, "clips/s")
    section.rows += [
        Row(f"{model}, training", fsat, samples(NOTEBOOK, theirs, RATE, "clips/s"), at_least=least, aim=aim),
        Row(f"{model}, training", fsat, samples(NOTEBOOK_BEST, best, RATE, "clips/s")),
    ]


def train(data: str, model: str, epochs: int, precision: str = "auto") -> dict[str, Any]:
    """`fsat_fold` in a process of its own."""
    return call("benchmarks.train:fsat_fold", data_dir=data, model=model, epochs=epochs, precision=precision)


def _notebook(bench: Bench, data: str, model: str, best: bool = False) -> dict[str, Any]:
    return call("benchmarks.notebook:train", data_dir=data, model=model, epochs=bench.pick(OTHER_EPOCHS, 2), fold=FOLD,
                best=best)  # fmt: skip


def fsat_fold(data_dir: str, model: str, epochs: int, precision: str) -> dict[str, Any]:
    """Train a fold by `fsat.training.fold.train_fold`.

    Returns:
        ``clips_per_second`` of the training part and ``clips_per_second_whole`` of whole epochs, medians over the
        epochs after the first, and the ``precision`` that was used.
    """
    from fsat.training.fold import train_fold

    dataset = load(data_dir, model, epochs, precision)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        result = train_fold(dataset, FOLD, Path(folder), lambda *epoch: ends.append(time.perf_counter()))
    n_train = int((dataset.folds != FOLD).sum())
    seconds = [end - start for start, end in pairwise(ends)]
    return {
        "clips_per_second": statistics.median(epoch["clips_per_second"] for epoch in result.history[1:]),
        "clips_per_second_whole": n_train / statistics.median(seconds),
        "precision": dataset.config.precision,
    }


def load(data_dir: str, model: str, epochs: int, precision: str):
    """The dataset, its precision settled and its store open."""
    from fsat.commands.train import prepare_dataset
    from fsat.config import Config
    from fsat.data.dataset import Source

    options = {"model": model, "max_epochs": epochs, "patience": epochs, "precision": precision}
    return prepare_dataset(Source(Path(data_dir)), Config.resolve(options), FOLD)
