"""Training speed of conv1d: fsat's folds against bare Keras in memory, and against the same model in PyTorch."""

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
    """Compare the trainings."""
    data, facts = write_clips(bench)
    epochs = bench.pick(FSAT_EPOCHS, 2)
    in_memory_side = partial(call, "benchmarks.frameworks:in_memory", data_dir=data, epochs=epochs)
    sides: dict[str, Any] = {
        "by turns": partial(
            call, "benchmarks.frameworks:by_turns", data_dir=data, epochs=bench.pick(3 * FSAT_EPOCHS, 2)
        ),
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
    for key, what, second in ((RATE, "training part of epochs", bare), (WHOLE, "whole epochs", both)):
        sides_of = [[result[side] for result in found["by turns"]] for side in ("fold", "memory")]
        pair = [samples(who, results, key, unit) for who, results in zip((fsat.who, second), sides_of, strict=True)]
        section.rows.append(Row(f"{what}, by turns", *pair, at_least=0.95))
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
        "By turns: both in one process, an epoch of the one after an epoch of the other, so that what the machine's "
        "neighbours do hits both alike; the ranges of the other rows show how much that is.",
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
    dataset = load(data_dir, "conv1d", epochs, "auto")
    bare = _Bare(dataset, deterministic)
    return _rates(dataset, [bare.epoch() for _ in range(epochs)])


def by_turns(data_dir: str, epochs: int) -> dict[str, dict[str, Any]]:
    """An epoch of `train_fold`, an epoch of `in_memory`, and so on, in one process.

    Returns:
        under ``fold`` and ``memory`` what `in_memory` returns.
    """
    from fsat.training.fold import train_fold

    dataset = load(data_dir, "conv1d", epochs, "auto")
    bare = _Bare(dataset, deterministic=True)
    memory: list[tuple[float, float]] = []
    fold: list[tuple[float, float]] = []
    started = time.perf_counter()

    def on_epoch(epoch: int, metrics: dict[str, float], milliseconds: int) -> None:
        nonlocal started
        fold.append((len(bare.targets) / metrics["clips_per_second"], time.perf_counter() - started))
        memory.append(bare.epoch())
        started = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        train_fold(dataset, FOLD, Path(folder), on_epoch)
    return {"fold": _rates(dataset, fold), "memory": _rates(dataset, memory)}


class _Bare:
    """The model, and all that one epoch needs as arrays."""

    def __init__(self, dataset: Any, deterministic: bool) -> None:
        import numpy as np

        from fsat.models import build_for_training, seed_everything
        from fsat.training.batches import TrainingClips
        from fsat.training.predict import Predictor
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
        """Seconds of the training part, and of all with the held-out clips predicted."""
        start = time.perf_counter()
        for inputs, one_hot in self.batches:
            self.network.train_on_batch(inputs, one_hot)
        trained = time.perf_counter() - start
        for inputs in self.validation:
            self.network.predict_on_batch(inputs)
        return trained, time.perf_counter() - start


def _rates(dataset: Any, epochs: list[tuple[float, float]]) -> dict[str, Any]:
    """Clips/s by the medians of all epochs but the first."""
    n_train = int((dataset.folds != FOLD).sum())
    trained, whole = (n_train / statistics.median(seconds) for seconds in zip(*epochs[1:], strict=True))
    return {RATE: trained, WHOLE: whole, "precision": dataset.config.precision}
