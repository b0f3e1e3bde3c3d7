"""Compare the training speed of conv1d in fsat with bare Keras in memory, and with the same model in PyTorch."""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Row, Section, alternate, call, is_installed, samples
from benchmarks.train import FOLD, FSAT_EPOCHS, OTHER_EPOCHS, RATE, WHOLE, load, train, write_clips


def run(bench: Bench) -> Section:
    """Compare the training speeds."""
    data, facts = write_clips(bench)
    epochs = bench.pick(FSAT_EPOCHS, 2)
    memory = partial(call, "benchmarks.frameworks:in_memory", data_dir=data, epochs=epochs)
    sides: dict[str, Any] = {
        "alternating": partial(
            call, "benchmarks.frameworks:alternate_epochs", data_dir=data, epochs=bench.pick(3 * FSAT_EPOCHS, 2)
        ),
        "fsat": partial(train, data, "conv1d", epochs),
        "train_on_batch": partial(memory, deterministic=True),
        "fsat float32": partial(train, data, "conv1d", epochs, "float32"),
        "train_on_batch, any order": partial(memory, deterministic=False),
    }
    if is_installed("torch"):
        decoded = str(bench.folder / "decoded.npz")
        n_classes = call("benchmarks.sounds:write_decoded", data_dir=data, path=decoded, sampling_rate=16000, fold=FOLD)
        for bfloat16 in (False, True):
            sides[f"PyTorch, {'bfloat16' if bfloat16 else 'float32'}"] = partial(
                call,
                "benchmarks.torch_model:train",
                decoded=decoded,
                n_classes=n_classes,
                epochs=bench.pick(OTHER_EPOCHS, 2),
                bfloat16=bfloat16,
            )
    results = alternate(bench.repeats, sides)
    precision, unit = results["fsat"][0]["precision"], "clips/s"
    fsat = samples(f"fsat, {precision}", results["fsat"], RATE, unit)
    fsat_whole = samples(f"fsat, {precision}", results["fsat"], WHOLE, unit)
    ordered, any_order = results["train_on_batch"], results["train_on_batch, any order"]
    bare, both = f"`train_on_batch`, {precision}", f"`train_on_batch` and `predict_on_batch`, {precision}"
    section = Section(libraries=["tensorflow", "keras", "torch", "numpy"])
    for key, name, second in ((RATE, "training part of epochs", bare), (WHOLE, "whole epochs", both)):
        sides_of = [[result[side] for result in results["alternating"]] for side in ("fold", "memory")]
        pair = [samples(who, values, key, unit) for who, values in zip((fsat.who, second), sides_of, strict=True)]
        section.rows.append(Row(f"{name}, alternating", *pair, at_least=0.95))
    section.rows += [
        Row("training part of epochs", fsat, samples(bare, ordered, RATE, unit), at_least=0.95),
        Row("whole epochs", fsat_whole, samples(both, ordered, WHOLE, unit), at_least=0.95),
        Row("training part of epochs", fsat, samples(f"{bare}, determinism off", any_order, RATE, unit)),
        Row("training", fsat, samples("fsat, float32", results["fsat float32"], RATE, unit)),
    ]
    section.notes += [
        f"{facts} fsat: `train_fold` on an open store, median over the epochs of the time for the training part, or "
        "(whole epochs) from one epoch's end to the next, with validation and event files.",
        "`train_on_batch`: the same model, precision and threads, repeatedly on the batches of one epoch, prepared as "
        "arrays in memory; whole epochs add `predict_on_batch` on the crops of the held-out clips.",
        "Alternating: both in one process, epoch by epoch, so that other load on the machine affects both alike; the "
        "ranges of the other rows show its effect.",
    ]
    if not is_installed("torch"):
        section.notes.append("PyTorch is not installed: install PyTorch's CPU build (`pip install torch`) for its row.")
        return section
    torch = [samples(name, values, RATE, unit) for name, values in results.items() if name.startswith("PyTorch")]
    section.rows.append(Row("training", fsat, max(torch, key=lambda side: side.median), at_least=2))
    section.notes.append(
        f"PyTorch: the faster of {' and '.join(f'{side.who} ({side})' for side in torch)}; a DataLoader with two "
        "workers over decoded clips in memory, default threads and memory layout."
    )
    return section


def in_memory(data_dir: str, epochs: int, deterministic: bool) -> dict[str, Any]:
    """Train the same model on batches in memory, the upper limit of Keras; return the same as `fsat_fold`."""
    dataset = load(data_dir, "conv1d", epochs, "auto")
    in_memory_model = _InMemory(dataset, deterministic)
    return _rates(dataset, [in_memory_model.epoch() for _ in range(epochs)])


def alternate_epochs(data_dir: str, epochs: int) -> dict[str, dict[str, Any]]:
    """Alternate epochs of `train_fold` and `in_memory` in one process.

    Returns:
        results of `in_memory` for ``fold`` and ``memory``.
    """
    from fsat.training.fold import train_fold

    dataset = load(data_dir, "conv1d", epochs, "auto")
    in_memory_model = _InMemory(dataset, deterministic=True)
    memory: list[tuple[float, float]] = []
    fold: list[tuple[float, float]] = []
    started = time.perf_counter()

    def on_epoch(epoch: int, metrics: dict[str, float], milliseconds: int) -> None:
        nonlocal started
        fold.append((len(in_memory_model.targets) / metrics["clips_per_second"], time.perf_counter() - started))
        memory.append(in_memory_model.epoch())
        started = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        train_fold(dataset, FOLD, Path(folder), on_epoch)
    return {"fold": _rates(dataset, fold), "memory": _rates(dataset, memory)}


class _InMemory:
    """The model, and the batches of one epoch as arrays."""

    def __init__(self, dataset: Any, deterministic: bool) -> None:
        import numpy as np

        from fsat.models import build_for_training, seed_everything
        from fsat.training.batches import TrainingClips
        from fsat.training.predict_clips import Predictor
        from fsat.training.targets import Targets

        config, n_classes, held_out = dataset.config, len(dataset.labels), dataset.folds == FOLD
        if deterministic:
            seed_everything(config.seed)
        self.network = build_for_training(config, n_classes)
        self.targets = dataset.targets[~held_out]
        clips = dataset.train.take(~held_out)
        targets = Targets(self.targets, np.ones(len(clips), dtype=bool), n_classes)
        self.batches = list(TrainingClips(clips, targets, config).batches(FOLD, 0))
        self.validation = list(Predictor(dataset.train.take(held_out), config).batches())

    def epoch(self) -> tuple[float, float]:
        """Return the seconds of the training part, and of the whole epoch with predictions of the held-out clips."""
        start = time.perf_counter()
        for inputs, one_hot in self.batches:
            self.network.train_on_batch(inputs, one_hot)
        trained = time.perf_counter() - start
        for inputs in self.validation:
            self.network.predict_on_batch(inputs)
        return trained, time.perf_counter() - start


def _rates(dataset: Any, epochs: list[tuple[float, float]]) -> dict[str, Any]:
    """Return clips per second from the medians of all epochs but the first."""
    n_train = int((dataset.folds != FOLD).sum())
    trained, whole = (n_train / statistics.median(seconds) for seconds in zip(*epochs[1:], strict=True))
    return {RATE: trained, WHOLE: whole, "precision": dataset.config.precision}
