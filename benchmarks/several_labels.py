"""Score models of clips with several labels, and of none, by cross-validation over the folds of DATA_DIR.

Each clip is predicted by the model that did not train on its fold. Scalings of scores and thresholds are fitted without
the clips that they are judged on. No choice depends on the scored clips: recipes were chosen on other mixtures.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Score, Section, alternate, call

SEEDS = (5001, 5002, 5003)
"""Seeds of weights, batches and augmentation."""

SCRATCH, EMBEDDING, LINEAR, BLEND = "cnn_logmel", "embedding", "scikit-learn", "blend"
NAMES = {
    SCRATCH: "`cnn_logmel`",
    EMBEDDING: "`embedding`",
    LINEAR: "logistic regression of scikit-learn for each class, standardised embeddings",
    BLEND: "`cnn_logmel` and `embedding`, geometric mean",
}
LIMITS = {"lwlrap": 0.82, "macro mAP": 0.72}
"""Least scores of `cnn_logmel`."""

LEAST_ERROR = 0.03
"""Calibration error that is small enough, whatever it is without scaling."""


def run(bench: Bench) -> Section:
    """Train all studies for each seed, one after the other."""
    seeds, quick = bench.pick(SEEDS, SEEDS[:1]), bench.pick({}, {"max_epochs": 1})
    studies: dict[str, dict[str, Any]] = {SCRATCH: {"preset": SCRATCH}}
    if bench.backbone:
        studies[EMBEDDING] = {"preset": EMBEDDING, "backbone": str(bench.backbone)}
    data = str(bench.data_dir)
    sides = {
        f"{name}, {seed}": partial(
            call,
            "benchmarks.several_labels:study",
            data_dir=data,
            options={**options, **quick, "seed": seed},
            path=str(bench.folder / f"{name}-{seed}.npy"),
        )
        for seed in seeds
        for name, options in studies.items()
    }
    results = {name: result[0] for name, result in alternate(1, sides).items()}
    scores = {name: [results[f"{name}, {seed}"] for seed in seeds] for name in studies}
    if bench.backbone:
        scores[BLEND] = [
            call(
                "benchmarks.several_labels:blend",
                data_dir=data,
                paths=[results[f"{name}, {seed}"]["path"] for name in studies],
            )
            for seed in seeds
        ]
        linear = call("benchmarks.several_labels:linear", data_dir=data, options=studies[EMBEDDING])
        scores[LINEAR] = [linear]
    return _section(scores, seeds)


def _section(results: dict[str, list[dict[str, Any]]], seeds: tuple[int, ...]) -> Section:
    section = Section(libraries=["tensorflow", "keras", "librosa", "soxr", "scipy", "scikit-learn", "numpy"])
    for key in ("lwlrap", "macro mAP", "micro mAP", "macro AUC", "macro F1 at fitted thresholds"):
        section.scores[key] = [
            Score(
                NAMES[name],
                [result[key] for result in side],
                at_least=LIMITS.get(key) if name == SCRATCH else None,
            )
            for name, side in results.items()
        ]
    section.scores["expected calibration error, scaled by a fit without the clip's fold"] = [
        Score(
            NAMES[name],
            [result["scaled error"] for result in side],
            at_most=max(LEAST_ERROR, sum(result["error"] for result in side) / len(side) / 2),
            remark="unscaled " + ", ".join(f"{result['error']:.3f}" for result in side),
        )
        for name, side in results.items()
        if name != LINEAR
    ]
    first = results[SCRATCH][0]
    section.notes = [
        f"{first['clips']} clips of DATA_DIR, {first['none']} of them without a label, in {first['folds']} "
        f"folds, each predicted by the model that did not train on its fold. Seeds {', '.join(map(str, seeds))}.",
    ]
    return section


def study(data_dir: str, options: dict[str, Any], path: str) -> dict[str, Any]:
    """Train every fold, write the out-of-fold predictions and score them."""
    import tempfile

    import numpy as np

    from fsat.commands.backbones import resolve_config, settle_backbone
    from fsat.commands.train import prepare_dataset
    from fsat.data.dataset import Source
    from fsat.metrics.blending import OutOfFold
    from fsat.training.fold import train_fold

    config = settle_backbone(resolve_config(options, options.pop("preset")), store=False)
    dataset = prepare_dataset(Source(Path(data_dir)), config)
    results = []
    for fold in range(dataset.config.n_folds):
        with tempfile.TemporaryDirectory() as folder:
            results.append(train_fold(dataset, fold, Path(folder)))
    oof = OutOfFold([result.train for result in results], [result.held_out for result in results])[:]
    np.save(path, oof)
    none = int((~dataset.targets.any(axis=1)).sum())
    return _scores(oof, dataset.targets, dataset.folds) | {
        "path": path, "folds": len(results), "clips": len(dataset.targets), "none": none,
    }  # fmt: skip


def blend(data_dir: str, paths: list[str]) -> dict[str, Any]:
    """Score the geometric mean of out-of-fold predictions."""
    import numpy as np

    from fsat.commands.train import prepare_dataset
    from fsat.config import Config
    from fsat.data.dataset import Source
    from fsat.metrics.sigmoid_blending import BlendedSigmoids

    dataset = prepare_dataset(Source(Path(data_dir)), Config.resolve({"model": "dummy1d"}))
    oof = BlendedSigmoids([[scores] for scores in map(np.load, paths)]).fill()
    return _scores(oof, dataset.targets, dataset.folds)


def linear(data_dir: str, options: dict[str, Any]) -> dict[str, Any]:
    """Score a logistic regression for each class on the means of a clip's embeddings."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from fsat.commands.backbones import resolve_config, settle_backbone
    from fsat.commands.train import prepare_dataset
    from fsat.data.dataset import Source
    from fsat.data.embeddings import embeddings

    config = settle_backbone(resolve_config(options, options.pop("preset")), store=False)
    dataset = prepare_dataset(Source(Path(data_dir)), config)
    stored = embeddings(dataset.train, dataset.config)
    windows = [stored.windows(np.array([i]), np.array([0]), int(n))[0] for i, n in enumerate(stored.n_windows)]
    means = np.array([part.mean(axis=0) for part in windows])
    oof = np.zeros(dataset.targets.shape, np.float32)
    for fold in range(dataset.config.n_folds):
        own = dataset.folds == fold
        for j in range(len(dataset.labels)):
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            oof[own, j] = model.fit(means[~own], dataset.targets[~own, j]).predict_proba(means[own])[:, 1]
    return _scores(oof, dataset.targets, dataset.folds)


def _scores(oof: Any, targets: Any, folds: Any) -> dict[str, Any]:
    import numpy as np

    from fsat.metrics import multilabel
    from fsat.metrics.scaling import calibrate

    calibrated = calibrate(oof, targets, folds, sigmoid=True)
    scaled = np.asarray(calibrated.scores)
    counts = multilabel.f1_at(scaled, targets, multilabel.cross_fit_thresholds(scaled, targets, folds), folds)
    aucs = [auc for auc in multilabel.class_auc(oof, targets).tolist() if not math.isnan(auc)]
    return {
        "lwlrap": multilabel.lwlrap(oof, targets),
        "macro mAP": multilabel.macro_map(oof, targets),
        "micro mAP": multilabel.micro_map(oof, targets),
        "macro AUC": sum(aucs) / len(aucs),
        "macro F1 at fitted thresholds": counts.macro()["f1"],
        "error": calibrated.before.ece,
        "scaled error": calibrated.after.ece,
    }
