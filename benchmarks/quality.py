"""Score the models and their blends by cross-validation over the folds of DATA_DIR.

Each clip is predicted by the model that did not train on its fold. No choice depends on the scored clips, except where
a row says so.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Score, Section, alternate, call

SEEDS = (3001, 3002, 3003)
"""Seeds of weights, batches and augmentation; the recipes were chosen on others."""

CHOSEN_ON = "1 to 4"

LIMITS = {"accuracy": {"at_least": 0.85, "aim": 0.91}, "map3": {"at_least": 0.90, "aim": 0.94}}
MINUTES = 6.0
"""Maximum training time of a fold of cnn_logmel on two cores."""

MEMBERS = ("conv1d_fsat", "conv2d_mfcc_fsat", "cnn_logmel")
NOTEBOOK = {"conv1d_fsat": "conv1d", "conv2d_mfcc_fsat": "conv2d_mfcc"}
"""The notebook's recipe for the same network, which chooses the epoch on the scored fold."""

PREDICTIONS: dict[str, dict[str, Any]] = {
    "the fewest crops of 2.56 s": {"eval_duration": 0, "eval_crops": 1},
    "five crops of 2.56 s": {"eval_duration": 0, "eval_crops": 5},
    "the fewest crops of up to 10 s": {"eval_crops": 1},
}
"""Other settings of prediction with the weights of cnn_logmel."""


def with_holdout(name: str) -> str:
    """Return the name of the notebook's recipe with the epoch chosen on a tenth of the training clips."""
    return f"{name}, epoch chosen on a tenth of the training clips"


def run(bench: Bench) -> Section:
    """Train all studies for each seed, one after the other."""
    seeds = bench.pick(SEEDS, SEEDS[:1])
    quick, data = bench.pick({}, {"max_epochs": 1}), str(bench.data_dir)
    studies = {name: {"preset": name} for name in (*MEMBERS, *NOTEBOOK.values())}
    studies |= {with_holdout(name): {"preset": name, "holdout": 0.1} for name in NOTEBOOK.values()}
    sides = {
        f"{name}, seed {seed}": partial(
            call,
            "benchmarks.quality:study",
            data_dir=data,
            options={**options, **quick, "seed": seed},
            path=str(bench.folder / f"{name}-{seed}.npy".replace(" ", "_")),
            predictions=PREDICTIONS if name == "cnn_logmel" else {},
        )
        for seed in seeds
        for name, options in studies.items()
    }
    side_results = alternate(1, sides)
    results = {name: [side_results[f"{name}, seed {seed}"][0] for seed in seeds] for name in studies}
    blends = [
        call("benchmarks.quality:blend", paths=[results[name][i]["path"] for name in MEMBERS], data_dir=data)["map3"]
        for i in range(len(seeds))
    ]
    return _section(results, blends, seeds)


def _section(results: dict[str, list[dict]], blends: list[dict[str, float]], seeds: tuple[int, ...]) -> Section:
    def values(name: str, key: str) -> list[float]:
        return [result[key] for result in results[name]]

    def score(label: str, name: str, key: str, **limits: Any) -> Score:
        minutes = [minute for result in results[name] for minute in result["minutes"]]
        return Score(label, values(name, key), remark=f"at most {max(minutes):.2f} min per fold", **limits)

    def difference(label: str, first: list[float], second: list[float], **limits: Any) -> Score:
        return Score(label, [a - b for a, b in zip(first, second, strict=True)], **limits)

    best = [max(results[name][i]["map3"] for name in MEMBERS) for i in range(len(seeds))]
    section = Section(libraries=["tensorflow", "keras", "librosa", "soxr", "scipy", "scikit-learn", "numpy"])
    section.scores["accuracy"] = [
        score("cnn_logmel", "cnn_logmel", "accuracy", **LIMITS["accuracy"]),
        *(score(name, name, "accuracy") for name in (*MEMBERS[:2], *map(with_holdout, NOTEBOOK.values()))),
    ]
    section.scores["mAP@3"] = [
        score("cnn_logmel", "cnn_logmel", "map3", **LIMITS["map3"]),
        *(score(name, name, "map3") for name in (*MEMBERS[:2], *map(with_holdout, NOTEBOOK.values()))),
        *(score(f"{name}, epoch chosen on the scored fold", name, "map3") for name in NOTEBOOK.values()),
        *(
            difference(f"{name} less {other}", values(name, "map3"), values(other, "map3"), at_least=0)
            for name, notebook in NOTEBOOK.items()
            for other in (with_holdout(notebook), notebook)
        ),
        Score("blend of the three, geometric mean", [blend["geometric"] for blend in blends]),
        difference("blend less its best member", [blend["geometric"] for blend in blends], best, at_least=0, aim=0.01),
        Score("blend of the three, arithmetic mean", [blend["arithmetic"] for blend in blends]),
        Score("blend of the three, cross-fitted weights", [blend["weighted"] for blend in blends]),
    ]
    section.scores["minutes of training, the slowest fold"] = [
        Score("cnn_logmel", [max(result["minutes"]) for result in results["cnn_logmel"]], at_most=MINUTES)
    ]
    section.scores["mAP@3 of cnn_logmel with other settings of prediction, less that of the recipe"] = [
        difference(name, [result["others"][name] for result in results["cnn_logmel"]], values("cnn_logmel", "map3"))
        for name in PREDICTIONS
    ]
    first = results["cnn_logmel"][0]
    section.notes = [
        f"{first['clips']} clips of DATA_DIR in its {len(first['minutes'])} folds, each predicted by the model that "
        "did not train on its fold. Seeds "
        f"{', '.join(map(str, seeds))}; the recipes were chosen on seeds {CHOSEN_ON} and the same clips. Minutes are "
        "the wall time of `train_fold` with its last validation and all predictions.",
    ]
    return section


def study(
    data_dir: str,
    options: dict[str, Any],
    path: str | None = None,
    predictions: dict[str, dict[str, Any]] | None = None,
    copies: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Train every fold and score the out-of-fold predictions.

    Args:
        data_dir: the dataset.
        options: settings, with ``preset``.
        path: file for the predictions, if any.
        predictions: by name, other settings of prediction, scored with the same weights.
        copies: by name, folders with other versions of the clips, scored with the same weights.
    """
    import tempfile
    import time
    from dataclasses import replace

    import numpy as np

    from fsat.commands.backbones import resolve_config, settle_backbone
    from fsat.commands.train import prepare_dataset
    from fsat.data.dataset import Source
    from fsat.metrics.blending import OutOfFold
    from fsat.metrics.ranking import accuracy, map_at_k
    from fsat.models import build
    from fsat.training.fold import WEIGHTS, train_fold
    from fsat.training.predict_clips import predict_clips

    preset = options.pop("preset")
    config = settle_backbone(resolve_config(options, preset), store=False)
    dataset = prepare_dataset(Source(Path(data_dir)), config)
    others = {
        name: (dataset.train, replace(dataset.config, **changes)) for name, changes in (predictions or {}).items()
    }
    for name, folder in (copies or {}).items():
        others[name] = prepare_dataset(Source(Path(folder)), dataset.config).train, dataset.config
    predicted = {name: np.zeros((len(dataset.targets), len(dataset.labels)), np.float32) for name in others}
    results, minutes = [], []
    for fold in range(dataset.config.n_folds):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            results.append(train_fold(dataset, fold, Path(folder)))
            minutes.append((time.perf_counter() - start) / 60)
            own = np.flatnonzero(dataset.folds == fold)
            model = build(dataset.config, len(dataset.labels))
            model.load_weights(Path(folder) / WEIGHTS)
            for name, (clips, config) in others.items():
                predicted[name][own] = predict_clips(model, clips.take(own), config)
    oof = OutOfFold([result.train for result in results], [result.held_out for result in results])[:]
    if path:
        np.save(path, oof)
    return {
        "path": path,
        "map3": map_at_k(oof, dataset.targets),
        "accuracy": accuracy(oof, dataset.targets),
        "others": {name: map_at_k(scores, dataset.targets) for name, scores in predicted.items()},
        "minutes": minutes,
        "clips": len(dataset.targets),
    }


def blend(paths: list[str], data_dir: str) -> dict[str, dict[str, float]]:
    """Return ``map3`` and ``accuracy`` of blends of out-of-fold predictions, with weights fitted on other folds."""
    import numpy as np

    from fsat.commands.train import prepare_dataset
    from fsat.config import Config
    from fsat.data.dataset import Source
    from fsat.metrics.blending import Blended, OutOfFold, cross_fit
    from fsat.metrics.ranking import accuracy, map_at_k

    dataset = prepare_dataset(Source(Path(data_dir)), Config.resolve({"model": "dummy1d"}))
    masks = [dataset.folds == fold for fold in range(dataset.config.n_folds)]
    studies = [OutOfFold([predictions] * len(masks), masks) for predictions in map(np.load, paths)]
    everywhere = np.ones(len(dataset.targets), dtype=bool)
    weights = cross_fit(studies, dataset.targets, dataset.verified, everywhere).by_fold
    blends = {name: Blended([[study] for study in studies], name) for name in ("geometric", "arithmetic")}
    blends["weighted"] = Blended([[study] for study in studies], "weighted", weights, dataset.folds)
    measures = {"map3": map_at_k, "accuracy": accuracy}
    return {
        key: {name: measure(rows[:], dataset.targets) for name, rows in blends.items()}
        for key, measure in measures.items()
    }
