"""Training speed of conv1d: fsat's folds against bare Keras in memory, and against the same model in PyTorch."""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any

from benchmarks.harness import Bench, Row, Section, alternate, call, is_installed, samples
from benchmarks.train import FOLD, FSAT_EPOCHS, OTHER_EPOCHS, RATE, WHOLE, load, train, write_clips


def run(bench: Bench) -> Section:
    """Compare the trainings."""
    data, facts = write_clips(bench)
    epochs = bench.pick(FSAT_EPOCHS, 2)
    in_memory_side = partial(call, "benchmarks.frameworks:in_memory", data_dir=data, epochs=epochs)
    sides: dict[str, Any] = {
        "fsat": partial(train, data, "conv1d", epochs),
        "train_on_batch": partial(in_memory_side, deterministic=True),
        "fsat float32": partial(train, data, "conv1d", epochs, "float32"),
        "train_on_batch, any order": partial(in_memory_side, deterministic=False),
    }
    if is_installed("torch"):
        decoded = str(bench.folder / "decoded.npz")
        n_classes = call("benchmarks.sounds:write_decoded", data_dir=data, path=decoded, sampling_rate=16000, fold=FOLD)
        for bfloat16 in (False, True):
            sides[f"PyTorch, {'bfloat16' if bfloat16 else 'float32'}"] = partial(
                call, "benchmarks.torch_model:train", decoded=decoded, n_classes=n_classes,
                epochs=bench.pick(OTHER_EPOCHS, 2), bfloat16=bfloat16,
            )  # fmt: skip
    found = alternate(bench.repeats, sides)
    precision, unit = found["fsat"][0]["precision"], "clips/s"
    fsat = samples(f"fsat, {precision}", found["fsat"], RATE, unit)
    fsat_whole = samples(f"fsat, {precision}", found["fsat"], WHOLE, unit)
    memory, free = found["train_on_batch"], found["train_on_batch, any order"]
    bare, both = f"`train_on_batch`, {precision}", f"`train_on_batch` and `predict_on_batch`, {precision}"
    section = Section(libraries=["tensorflow", "keras", "torch", "numpy"])
    section.rows += [
        Row("training part of epochs", fsat, samples(bare, memory, RATE, unit), at_least=0.95),
        Row("whole epochs", fsat_whole, samples(both, memory, WHOLE, unit), at_least=0.95),
        Row("training part of epochs", fsat, samples(f"{bare}, determinism off", free, RATE, unit)),
        Row("training", fsat, samples("fsat, float32", found["fsat float32"], RATE, unit)),
    ]
    section.notes += [
        f"{facts} fsat: `train_fold` on an open store, median over the epochs of the time for the training part, or "
        "(whole epochs) from one epoch's end to the next, with validation and event files.",
        "`train_on_batch`: the same model, precision and threads, on one epoch's batches made before as arrays in "
        "memory, over and over; whole epochs add `predict_on_batch` on the crops of the held-out clips.",
    ]
    if not is_installed("torch"):
        section.notes.append("PyTorch is not installed: install PyTorch's CPU build (`pip install torch`) for its row.")
        return section
    torch = [samples(name, results, RATE, unit) for name, results in found.items() if name.startswith("PyTorch")]
    section.rows.append(Row("training", fsat, max(torch, key=lambda side: side.median), at_least=2))
    section.notes.append(
        f"PyTorch: the faster of {' and '.join(f'{side.who} ({side})' for side in torch)}; a DataLoader with two "
        "workers over decoded clips in memory, default threads and memory layout."
    )
    return section


def in_memory(data_dir: str, epochs: int, deterministic: bool) -> dict[str, Any]:
    """The same model on batches that lie in memory: what Keras can do at best; returns as `fsat_fold` does."""
    from fsat.models import build_for_training, seed_everything
    from fsat.training.batches import evaluation_batches, training_batches
    from fsat.training.predict import CROPS_PER_BATCH

    dataset = load(data_dir, "conv1d", epochs, "auto")
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
