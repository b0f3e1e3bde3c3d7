"""Training speed: fsat's folds against the notebook's loop, against bare Keras, and against PyTorch.

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

from benchmarks.harness import Bench, Row, Section, alternate, call, is_installed, samples

NEEDS = ("resampy",)
ROWS, QUICK_ROWS = 640, 80
FOLD = 0
FSAT_EPOCHS, DUMMY_EPOCHS, OTHER_EPOCHS = 7, 31, 3
"""Epochs of a run, the first of which is not counted."""

RATE, WHOLE = "clips_per_second", "clips_per_second_whole"
NOTEBOOK, NOTEBOOK_BEST = "notebook, float32", "notebook at its best, float32"


def run(bench: Bench) -> Section:
    """Compare the trainings."""
    data = str(bench.folder / "data")
    facts = call("benchmarks.sounds:write_dataset", data_dir=str(bench.data_dir), folder=data,
                 n_rows=bench.pick(ROWS, QUICK_ROWS))  # fmt: skip
    section = Section(libraries=["tensorflow", "keras", "librosa", "resampy", "torch", "numpy"])
    _conv1d(bench, data, facts["classes"], section)
    _against_notebook(bench, data, "dummy1d", bench.pick(DUMMY_EPOCHS, 2), 60, section)
    _against_notebook(bench, data, "conv2d_mfcc", bench.pick(FSAT_EPOCHS, 2), 2, section)
    section.notes += [
        f"Clips: {facts['clips']} real clips of {facts['seconds']:g} s at {facts['samplerate']} Hz, repeated to "
        f"{facts['rows']} rows; fold {FOLD} holds out a tenth. Batches of 64. Each run is a process of its own, and "
        "its first epoch is not counted. fsat: `train_fold` on an open store, median over the epochs of the time for "
        "the training part, or (whole epochs) from one epoch's end to the next, with validation, checkpoint and event "
        "files. The notebook: its loop without validation, over all counted epochs.",
        "`train_on_batch`: the same model, precision and threads, on one epoch's batches made before as arrays in "
        "memory, over and over; whole epochs add `predict_on_batch` on the crops of the held-out clips.",
        'The notebook is run as today\'s Keras takes it: `jit_compile="auto"` means XLA, which is slow for conv1d on a '
        "CPU, and each epoch has new worker processes, which import and compile anew what librosa needs. At its best "
        "means without XLA, and with all that loaded before the workers are forked.",
    ]
    return section


def _against_notebook(bench: Bench, data: str, model: str, epochs: int, least: float, section: Section) -> None:
    found = alternate(bench.repeats, {
        f"{model}: fsat": partial(_fsat, data, model, epochs),
        f"{model}: notebook": partial(_notebook, bench, data, model),
        f"{model}: notebook at its best": partial(_notebook, bench, data, model, best=True),
    })  # fmt: skip
    ours, theirs, best = found.values()
    fsat = samples(f"fsat, {ours[0]['precision']}", ours, RATE, "clips/s")
    section.rows += [
        Row(f"{model}, training", fsat, samples(NOTEBOOK, theirs, RATE, "clips/s"), at_least=least),
        Row(f"{model}, training", fsat, samples(NOTEBOOK_BEST, best, RATE, "clips/s")),
    ]


def _conv1d(bench: Bench, data: str, n_classes: int, section: Section) -> None:
    ours, others = bench.pick(FSAT_EPOCHS, 2), bench.pick(OTHER_EPOCHS, 2)
    sides: dict[str, Any] = {
        "fsat": partial(_fsat, data, "conv1d", ours),
        "notebook": partial(_notebook, bench, data, "conv1d"),
        "fsat float32": partial(_fsat, data, "conv1d", ours, "float32"),
        "notebook at its best": partial(_notebook, bench, data, "conv1d", best=True),
        "train_on_batch": partial(_in_memory, data, "conv1d", ours),
        "train_on_batch, any order": partial(_in_memory, data, "conv1d", ours, deterministic=False),
    }
    if is_installed("torch"):
        decoded = str(bench.folder / "decoded.npz")
        call("benchmarks.sounds:write_decoded", data_dir=data, path=decoded, sampling_rate=16000, fold=FOLD)
        for bfloat16 in (False, True):
            sides[f"PyTorch, {'bfloat16' if bfloat16 else 'float32'}"] = partial(
                call, "benchmarks.torch_model:train", decoded=decoded, n_classes=n_classes, epochs=others,
                bfloat16=bfloat16,
            )  # fmt: skip
    found = alternate(bench.repeats, sides)
    precision, unit = found["fsat"][0]["precision"], "clips/s"
    fsat = samples(f"fsat, {precision}", found["fsat"], RATE, unit)
    fsat32 = samples("fsat, float32", found["fsat float32"], RATE, unit)
    fsat_whole = samples(f"fsat, {precision}", found["fsat"], WHOLE, unit)
    notebook = samples(NOTEBOOK, found["notebook"], RATE, unit)
    notebook_best = samples(NOTEBOOK_BEST, found["notebook at its best"], RATE, unit)
    memory, free = found["train_on_batch"], found["train_on_batch, any order"]
    bare, both = f"`train_on_batch`, {precision}", f"`train_on_batch` and `predict_on_batch`, {precision}"
    section.rows += [
        Row("conv1d, training", fsat, notebook, at_least=6, aim=8),
        Row("conv1d, training", fsat32, notebook),
        Row("conv1d, training", fsat, notebook_best),
        Row("conv1d, training part of epochs", fsat, samples(bare, memory, RATE, unit), at_least=0.95),
        Row("conv1d, whole epochs", fsat_whole, samples(both, memory, WHOLE, unit), at_least=0.95),
        Row("conv1d, training part of epochs", fsat, samples(f"{bare}, determinism off", free, RATE, unit)),
    ]
    if not is_installed("torch"):
        section.notes.append("PyTorch is not installed: install PyTorch's CPU build (`pip install torch`) for its row.")
        return
    torch = [samples(name, results, RATE, unit) for name, results in found.items() if name.startswith("PyTorch")]
    best = max(torch, key=lambda side: side.median)
    section.rows.append(Row("conv1d, training", fsat, best, at_least=2))
    section.notes.append(
        f"PyTorch: the faster of {' and '.join(f'{side.who} ({side})' for side in torch)}; a DataLoader with two "
        "workers over decoded clips in memory, default threads and memory layout."
    )


def _fsat(data: str, model: str, epochs: int, precision: str = "auto") -> dict[str, Any]:
    return call("benchmarks.train:fsat_fold", data_dir=data, model=model, epochs=epochs, precision=precision)


def _notebook(bench: Bench, data: str, model: str, best: bool = False) -> dict[str, Any]:
    return call("benchmarks.notebook:train", data_dir=data, model=model, epochs=bench.pick(OTHER_EPOCHS, 2), fold=FOLD,
                best=best)  # fmt: skip


def _in_memory(data: str, model: str, epochs: int, deterministic: bool = True) -> dict[str, Any]:
    return call("benchmarks.train:in_memory", data_dir=data, model=model, epochs=epochs, deterministic=deterministic)


def fsat_fold(data_dir: str, model: str, epochs: int, precision: str) -> dict[str, Any]:
    """Train a fold by `fsat.training.fold.train_fold`.

    Returns:
        ``clips_per_second`` of the training part and ``clips_per_second_whole`` of whole epochs, medians over the
        epochs after the first, and the ``precision`` that was used.
    """
    from fsat.training.fold import train_fold

    dataset = _load(data_dir, model, epochs, precision)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        result = train_fold(dataset, FOLD, Path(folder), lambda epoch, metrics: ends.append(time.perf_counter()))
    n_train = int((dataset.folds != FOLD).sum())
    seconds = [end - start for start, end in pairwise(ends)]
    return {
        "clips_per_second": statistics.median(epoch["clips_per_second"] for epoch in result.history[1:]),
        "clips_per_second_whole": n_train / statistics.median(seconds),
        "precision": dataset.config.precision,
    }


def in_memory(data_dir: str, model: str, epochs: int, deterministic: bool) -> dict[str, Any]:
    """The same model on batches that lie in memory: what Keras can do at best; returns as `fsat_fold` does."""
    from fsat.models import build_for_training, seed_everything
    from fsat.training.batches import evaluation_batches, training_batches
    from fsat.training.predict import CROPS_PER_BATCH

    dataset = _load(data_dir, model, epochs, "auto")
    config, n_classes, held_out = dataset.config, len(dataset.labels), dataset.folds == FOLD
    if deterministic:
        seed_everything(config.seed)
    network = build_for_training(config, n_classes)
    targets = dataset.targets[~held_out]
    batches = list(training_batches(dataset.train.take(~held_out), targets, n_classes, config, FOLD, 0))
    validation = list(evaluation_batches(dataset.train.take(held_out), config, CROPS_PER_BATCH))
    trained, whole = [], []
    for _ in range(epochs):
        start = time.perf_counter()
        for inputs, one_hot in batches:
            network.train_on_batch(inputs, one_hot)
        trained.append(time.perf_counter() - start)
        for inputs in validation:
            network.predict_on_batch(inputs)
        whole.append(time.perf_counter() - start)
    return {
        "clips_per_second": len(targets) / statistics.median(trained[1:]),
        "clips_per_second_whole": len(targets) / statistics.median(whole[1:]),
    }


def _load(data_dir: str, model: str, epochs: int, precision: str):
    from fsat.config import Config
    from fsat.pipeline.source import Source

    options = {"model": model, "max_epochs": epochs, "patience": epochs, "precision": precision}
    return Source(Path(data_dir)).load(Config.resolve(options), FOLD)
