"""Compare the out-of-fold mAP@3 of conv1d in float32 and in mixed_bfloat16, over eight seeds."""

from __future__ import annotations

import math
import statistics
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.harness import Bench, Row, Samples, Section, alternate, call, number, samples

SEEDS = tuple(range(2001, 2009))
"""Seeds that no choice of the models depended on."""

PRECISIONS = ("float32", "mixed_bfloat16")


def run(bench: Bench) -> Section:
    """Train every fold for each seed and precision."""
    seeds = bench.pick(SEEDS, SEEDS[:2])
    sides = {
        f"{precision}, seed {seed}": partial(
            call,
            "benchmarks.precision:out_of_fold_scores",
            data_dir=str(bench.data_dir),
            precision=precision,
            seed=seed,
            max_epochs=bench.pick(50, 1),
        )
        for seed in seeds
        for precision in PRECISIONS
    }
    results = alternate(1, sides)
    by_precision = {name: [results[f"{name}, seed {seed}"][0] for seed in seeds] for name in PRECISIONS}
    scores = {name: [result["map3"] for result in of_seeds] for name, of_seeds in by_precision.items()}
    float32, bfloat16 = scores.values()
    difference = statistics.mean(bfloat16) - statistics.mean(float32)
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in scores.values()))
    ratio = abs(difference) / error if error else 0.0 if difference == 0 else math.inf
    rows = [
        Row("OOF mAP@3", Samples(PRECISIONS[1], bfloat16, ""), Samples(PRECISIONS[0], float32, "")),
        Row("difference of the means, over its standard error", Samples("", [ratio], ""), at_most=2.0),
    ]
    for quantity, key in (("OOF accuracy", "accuracy"), ("best epoch, mean of the folds", "best_epoch")):
        rows.append(Row(quantity, *(samples(name, by_precision[name], key, "") for name in reversed(PRECISIONS))))
    means = "; ".join(
        f"{name}: mean {statistics.mean(values):.4f}, standard deviation {statistics.stdev(values):.4f} "
        f"({', '.join(f'{value:.4f}' for value in values)})"
        for name, values in scores.items()
    )
    within = "it is" if abs(difference) < 2 * error else "it is not"
    notes = [
        f"conv1d on the clips of DATA_DIR with their folds, preset settings, seeds {', '.join(map(str, seeds))}. "
        f"mAP@3 over all out-of-fold predictions: {means}. Difference of the means, bfloat16 less float32: "
        f"{difference:+.4f}; standard error of the difference: {number(error)}. Within noise means that the difference "
        f"is smaller than twice its standard error: {within}."
    ]
    return Section(rows, notes, ["tensorflow", "keras", "numpy"])


def out_of_fold_scores(data_dir: str, precision: str, seed: int, max_epochs: int) -> dict[str, float]:
    """Train every fold and score the out-of-fold predictions."""
    import numpy as np

    from fsat.commands.train import prepare_dataset
    from fsat.config import Config
    from fsat.data.dataset import Source
    from fsat.metrics.blending import OutOfFold
    from fsat.metrics.ranking import accuracy, map_at_k
    from fsat.training.fold import train_fold

    config = Config.resolve({"model": "conv1d", "precision": precision, "seed": seed, "max_epochs": max_epochs})
    dataset = prepare_dataset(Source(Path(data_dir)), config)
    results = []
    for fold in range(dataset.config.n_folds):
        with tempfile.TemporaryDirectory() as folder:
            results.append(train_fold(dataset, fold, Path(folder)))
    oof = OutOfFold([result.train for result in results], [result.held_out for result in results])[:]
    return {
        "map3": map_at_k(oof, dataset.targets),
        "accuracy": accuracy(oof, dataset.targets),
        "best_epoch": float(np.mean([result.state.best_epoch + 1 for result in results])),
    }
