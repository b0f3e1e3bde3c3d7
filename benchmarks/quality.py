"""What the models and their blends score on clips that they were not trained on.

Cross-validation over the folds of DATA_DIR, from scratch: each clip is predicted by the one model that did not train on
its fold. Nothing is chosen on the scored clips, except where a row says so.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Score, Section, alternate, call

SEEDS = (3001, 3002, 3003)
"""Of weights, batches and augmentation; the recipes were chosen on others."""

CHOSEN_ON = "1 to 4"

LIMITS = {"accuracy": {"at_least": 0.85, "aim": 0.91}, "map3": {"at_least": 0.90, "aim": 0.94}}
MINUTES = 6.0
"""A fold of cnn_logmel may train at most so long on two cores."""

MEMBERS = ("conv1d_fsat", "conv2d_mfcc_fsat", "cnn_logmel")
NOTEBOOK = {"conv1d_fsat": "conv1d", "conv2d_mfcc_fsat": "conv2d_mfcc"}
"""The notebook's own recipe for the same network. It keeps the best epoch by the scored fold itself."""

PREDICTIONS: dict[str, dict[str, Any]] = {
    "one crop of 2.56 s": {"eval_duration": 0, "eval_crops": 1},
    "five crops of 2.56 s": {"eval_duration": 0, "eval_crops": 5},
    "one crop of up to 10 s": {"eval_crops": 1},
}
"""Other ways to predict with cnn_logmel's weights."""


def own_choice(name: str) -> str:
    """What the notebook's recipe is called where it chooses the epoch by a tenth of the training clips instead."""
    return f"{name}, epoch chosen on a tenth of the training clips"


def run(bench: Bench) -> Section:
    """Train every study of every seed, one after the other."""
    seeds = bench.pick(SEEDS, SEEDS[:1])
    quick, data = bench.pick({}, {"max_epochs": 1}), str(bench.data_dir)
    studies = {name: {"preset": name} for name in (*MEMBERS, *NOTEBOOK.values())}
    studies |= {own_choice(name): {"preset": name, "holdout": 0.1} for name in NOTEBOOK.values()}
    sides = {
        f"{name}, seed {seed}": partial(
            call, "benchmarks.quality:study", data_dir=data, options={**options, **quick, "seed": seed},
            path=str(bench.folder / f"{name}-{seed}.npy".replace(" ", "_")),
            ways=PREDICTIONS if name == "cnn_logmel" else {},
        )
        for seed in seeds for name, options in studies.items()
    }  # fmt: skip
    results = alternate(1, sides)
    found = {name: [results[f"{name}, seed {seed}"][0] for seed in seeds] for name in studies}
    blends = [
        call(
            "benchmarks.quality:blend", paths=[found[name][i]["path"] for name in MEMBERS], data_dir=str(bench.data_dir)
        )
        for i in range(len(seeds))
    ]
    return _section(found, blends, seeds)


def _section(found: dict[str, list[dict]], blends: list[dict[str, float]], seeds: tuple[int, ...]) -> Section:
    def values(name: str, key: str) -> list[float]:
        return [result[key] for result in found[name]]

    def line(what: str, name: str, key: str, **limits: Any) -> Score:
        minutes = [minute for result in found[name] for minute in result["minutes"]]
        return Score(what, values(name, key), remark=f"{max(minutes):.2f} min a fold at most", **limits)

    def gain(what: str, ours: list[float], theirs: list[float], **limits: Any) -> Score:
        return Score(what, [a - b for a, b in zip(ours, theirs, strict=True)], **limits)

    best = [max(found[name][i]["map3"] for name in MEMBERS) for i in range(len(seeds))]
    section = Section(libraries=["tensorflow", "keras", "librosa", "soxr", "scipy", "scikit-learn", "numpy"])
    section.scores["accuracy"] = [
        line("cnn_logmel", "cnn_logmel", "accuracy", **LIMITS["accuracy"]),
        *(line(name, name, "accuracy") for name in (*MEMBERS[:2], *map(own_choice, NOTEBOOK.values()))),
    ]
    section.scores["mAP@3"] = [
        line("cnn_logmel", "cnn_logmel", "map3", **LIMITS["map3"]),
        *(line(name, name, "map3") for name in (*MEMBERS[:2], *map(own_choice, NOTEBOOK.values()))),
        *(line(f"{name}, epoch chosen on the scored fold itself", name, "map3") for name in NOTEBOOK.values()),
        *(gain(f"{ours} less {what}", values(ours, "map3"), values(what, "map3"), at_least=0)
          for ours, theirs in NOTEBOOK.items() for what in (own_choice(theirs), theirs)),
        Score("blend of the three, geometric mean", [blend["geometric"] for blend in blends]),
        gain("blend less its best member", [blend["geometric"] for blend in blends], best, at_least=0, aim=0.01),
        Score("blend of the three, arithmetic mean", [blend["arithmetic"] for blend in blends]),
        Score("blend of the three, cross-fitted weights", [blend["weighted"] for blend in blends]),
    ]  # fmt: skip
    section.scores["minutes of training, the slowest fold"] = [
        Score("cnn_logmel", [max(result["minutes"]) for result in found["cnn_logmel"]], at_most=MINUTES)
    ]
    section.scores["cnn_logmel's mAP@3 with the same weights, predicted otherwise, less that of the whole"] = [
        gain(way, [result["others"][way] for result in found["cnn_logmel"]], values("cnn_logmel", "map3"))
        for way in PREDICTIONS
    ]
    section.notes = [
        f"Clips of DATA_DIR in its {len(found['cnn_logmel'][0]['minutes'])} folds; {found['cnn_logmel'][0]['clips']} "
        "clips in all, each predicted by the model that did not train on its fold. Seeds "
        f"{', '.join(map(str, seeds))}; the recipes were chosen on seeds {CHOSEN_ON} and the same clips, so the clips "
        "are not fresh. Minutes are the wall time of `train_fold` with its last validation and all predictions.",
    ]
    return section


def study(
    data_dir: str,
    options: dict[str, Any],
    path: str | None = None,
    ways: dict[str, dict[str, Any]] | None = None,
    copies: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Train every fold and score the out-of-fold predictions, which are kept in the file `path` if it is given.

    `ways` has settings of other predictions by the same weights, `copies` the folders of other copies of the clips that
    they predict; these are scored too.
    """
    import tempfile
    import time
    from dataclasses import replace

    import numpy as np

    from fsat.commands.train import prepare_dataset
    from fsat.config import Config
    from fsat.data.dataset import Source
    from fsat.metrics.blending import OutOfFold
    from fsat.metrics.ranking import accuracy, map_at_k
    from fsat.models import build
    from fsat.training.fold import WEIGHTS, train_fold
    from fsat.training.predict import predict_clips

    preset = options.pop("preset")
    dataset = prepare_dataset(Source(Path(data_dir)), Config.resolve(options, preset))
    others = {way: (dataset.train, replace(dataset.config, **changes)) for way, changes in (ways or {}).items()}
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
        "others": {name: map_at_k(predictions, dataset.targets) for name, predictions in predicted.items()},
        "minutes": minutes,
        "clips": len(dataset.targets),
    }


def blend(paths: list[str], data_dir: str) -> dict[str, float]:
    """mAP@3 of each way to blend some studies' out-of-fold predictions; weights are fitted on other folds."""
    import numpy as np

    from fsat.commands.train import prepare_dataset
    from fsat.config import Config
    from fsat.data.dataset import Source
    from fsat.metrics.blending import Blended, OutOfFold, cross_fit
    from fsat.metrics.ranking import map_at_k

    dataset = prepare_dataset(Source(Path(data_dir)), Config.resolve({"model": "dummy1d"}))
    masks = [dataset.folds == fold for fold in range(dataset.config.n_folds)]
    studies = [OutOfFold([predictions] * len(masks), masks) for predictions in map(np.load, paths)]
    everywhere = np.ones(len(dataset.targets), dtype=bool)
    weights = cross_fit(studies, dataset.targets, dataset.verified, everywhere).by_fold
    blends = {name: Blended([[study] for study in studies], name) for name in ("geometric", "arithmetic")}
    blends["weighted"] = Blended([[study] for study in studies], "weighted", weights, dataset.folds)
    return {name: map_at_k(rows, dataset.targets) for name, rows in blends.items()}
