"""Compare trainings that start from a tagger of other classes with trainings from scratch, on few clips a class.

For each seed the labels of DATA_DIR are drawn into two halves. The earlier tagger is one fold of `cnn_logmel` on the
clips of the first half. Then, for each fold of DATA_DIR, a model is trained on that fold's clips of the other half and
scored on those of all other folds: from scratch, from the weights of the earlier tagger, and from these with all layers
but the new ones frozen at first.
"""

from __future__ import annotations

import shutil
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Score, Section, call, side_by_side

SEEDS = (501, 502, 503)
"""Seeds of the halves of the labels, and of weights, batches and augmentation; no setting was chosen on them."""

PRESET = "cnn_logmel"
EARLIER = {"n_folds": 6, "folds": "stratified"}
"""The earlier tagger trains on five sixths of the clips of its labels."""

FROZEN = 20
"""Epochs in which only the new layers train: a tenth of the preset's."""

SCRATCH, WARM, FROZEN_WARM = "from scratch", "warm start", f"warm start, {FROZEN} epochs frozen"
SIDES = (SCRATCH, WARM, FROZEN_WARM)

Results = dict[str, dict[int, list[dict[str, float]]]]
"""By side and seed, the scores of each fold."""


def run(bench: Bench) -> Section:
    """Train the earlier tagger of each seed, then all sides for each seed and fold."""
    folds = call("benchmarks.warm_start:folds_of", data_dir=str(bench.data_dir))
    seeds, folds = bench.pick(SEEDS, SEEDS[:1]), bench.pick(folds, folds[:1])
    quick = bench.pick({}, {"max_epochs": 2})
    common = {seed: {"data_dir": str(bench.data_dir), "seed": seed, "options": quick} for seed in seeds}
    earlier = side_by_side({f"earlier tagger, {seed}": _job(bench, "earlier", **common[seed]) for seed in seeds})
    run_ids = dict(zip(seeds, earlier.values(), strict=True))
    jobs = {}
    for seed in seeds:
        frozen = {"frozen_epochs": bench.pick(FROZEN, 1)}
        start = {"init_from": run_ids[seed]}
        for side, changes in ((SCRATCH, {}), (WARM, start), (FROZEN_WARM, start | frozen)):
            for fold in folds:
                arguments = {**common[seed], "options": quick | changes, "fold": fold}
                jobs[f"{side}, {seed}, {fold}"] = _job(bench, "later", **arguments)
    scores = side_by_side(jobs)
    results = {side: {seed: [scores[f"{side}, {seed}, {fold}"] for fold in folds] for seed in seeds} for side in SIDES}
    return _section(results, folds)


def _job(bench: Bench, function: str, seed: int, **arguments: Any) -> Any:
    """Return a call of a function of this module, with a tracking store for each seed."""
    folder = bench.folder / f"{function}-{seed}-{arguments.get('fold', '')}-{len(arguments['options'])}"
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{bench.folder}/{seed}.db"}
    target, others = f"benchmarks.warm_start:{function}", {"seed": seed, "folder": str(folder), **arguments}
    return partial(call, target, environment=environment, cwd=bench.folder, **others)


def _section(results: Results, folds: list[str]) -> Section:
    def means(side: str, key: str) -> list[float]:
        """Return means over the folds, one per seed."""
        return [statistics.mean(score[key] for score in scores) for scores in results[side].values()]

    def gains(side: str, key: str, **limits: float) -> Score:
        pairs = zip(means(side, key), means(SCRATCH, key), strict=True)
        values = [warm - scratch for warm, scratch in pairs]
        remark = f"by seed {', '.join(f'{value:+.3f}' for value in values)}"
        return Score(f"{side} less {SCRATCH}", values, remark=remark, **limits)

    section = Section(libraries=["tensorflow", "keras", "mlflow", "scikit-learn", "numpy"])
    for name, key in (("accuracy", "val_acc"), ("mAP@3", "val_map3")):
        section.scores[f"{name} on clips of the new labels"] = [
            *(
                Score(side, means(side, key), remark=f"{statistics.mean(means(side, 'minutes')):.2f} min")
                for side in SIDES
            ),
            gains(WARM, key, **({"at_least": 0.0} if key == "val_acc" else {})),
            gains(FROZEN_WARM, key),
        ]
    first = next(iter(results[WARM].values()))[0]
    earlier = " ".join(f"{name}={value}" for name, value in EARLIER.items())
    section.notes = [
        f"For each of seeds {', '.join(map(str, results[WARM]))}, half of the labels of DATA_DIR, drawn by the seed, "
        f"are those of the earlier tagger: fold 0 of `{PRESET}` with {earlier}. The others are new: a model is trained "
        f"on {first['n_train']:.0f} clips, {first['n_per_class']:.0f} of each, which are those of one fold of "
        f"DATA_DIR, and scored on the {first['n_val']:.0f} clips of its other folds. Values are means over "
        f"{len(folds)} such folds; minutes are those of one training, on one core.",
        f"All sides have the preset of `{PRESET}` ({first['max_epochs']:.0f} epochs), which keeps the average of the "
        "last epochs: nothing is selected on the scored clips.",
    ]
    return section


def folds_of(data_dir: str) -> list[str]:
    """Return the values of the column ``fold``."""
    import pandas as pd

    return sorted(pd.read_csv(Path(data_dir) / "train.csv", dtype=str)["fold"].unique())


def write_half(data_dir: str, seed: int, new: bool, folder: Path, fold: str = "") -> None:
    """Write a dataset of half of the labels; with a `fold`, its clips are fold 2 and all others fold 1."""
    import numpy as np
    import pandas as pd

    source = Path(data_dir)
    table = pd.read_csv(source / "train.csv", dtype=str)
    labels = np.random.default_rng(seed).permutation(sorted(table["label"].unique()))
    half = len(labels) // 2
    table = table[table["label"].isin(labels[half:] if new else labels[:half])]
    (folder / "audio_train").mkdir(parents=True)
    for fname in table["fname"]:
        shutil.copyfile(source / "audio_train" / fname, folder / "audio_train" / fname)
    table = table.assign(fold=np.where(table["fold"] == fold, "2", "1")) if fold else table.drop(columns="fold")
    table.to_csv(folder / "train.csv", index=False)


def earlier(data_dir: str, seed: int, folder: str, options: dict[str, Any]) -> str:
    """Train the earlier tagger; return its run id."""
    write_half(data_dir, seed, False, Path(folder))
    return _train(folder, {**EARLIER, **options, "seed": seed})


def later(data_dir: str, seed: int, folder: str, fold: str, options: dict[str, Any]) -> dict[str, float]:
    """Train on a fold's clips of the new labels; return the scores on the other folds' clips."""
    import mlflow

    write_half(data_dir, seed, True, Path(folder), fold)
    started = time.perf_counter()
    run = mlflow.get_run(_train(folder, {**options, "folds": "column", "seed": seed}))
    minutes = (time.perf_counter() - started) / 60
    if "fsat.leak" in run.data.tags:
        raise RuntimeError(f"scores of run {run.info.run_id} are too high: {run.data.tags['fsat.leak']}")
    numbers = {name: float(run.data.params[name]) for name in ("n_train", "n_val", "max_epochs")}
    numbers["n_per_class"] = numbers["n_train"] / len(
        mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/labels.json")
    )
    return {name: run.data.metrics[name] for name in ("val_acc", "val_map3")} | numbers | {"minutes": minutes}


def _train(folder: str, options: dict[str, Any]) -> str:
    from fsat.commands.train import train_fold
    from fsat.config import Config
    from fsat.data.dataset import Source

    return train_fold(Source(Path(folder)), Config.resolve(options, PRESET), 0)
