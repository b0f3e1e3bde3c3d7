"""Compare classifiers on the embeddings of a pretrained network with networks trained from scratch.

- all clips: cross-validation over the folds of DATA_DIR, with `embedding`, with `cnn_logmel`, and their blend; the wall
  time of the command that goes from files to the FINISHED folds of `embedding`, with an empty cache folder;
- few clips: for each fold of DATA_DIR, models trained on 2, 4 and 8 clips a class of the other folds, scored on the
  clips of the fold.

No recipe chooses an epoch, and no setting was chosen by the scores of these seeds.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    ROOT,
    Bench,
    BenchmarkError,
    Row,
    Samples,
    Score,
    Section,
    alternate,
    call,
    command_seconds,
    side_by_side,
)

SEEDS = (4001, 4002, 4003)
"""Seeds of weights, batches, augmentation and of the few clips; the recipe of `embedding` was chosen on others."""

CHOSEN_ON = "2001 to 2004, in stratified folds instead of those of DATA_DIR"

CLIPS_PER_CLASS = (2, 4, 8)
SECONDS = 90
"""Maximum time of a whole study of `embedding` with its embeddings, on two cores."""

EMBEDDING, SCRATCH, LINEAR = "embedding", "cnn_logmel", "scikit-learn"
SIDES = {
    EMBEDDING: "`embedding`",
    SCRATCH: "`cnn_logmel` from scratch",
    LINEAR: "logistic regression of scikit-learn, standardised embeddings",
}
PICTURE = ROOT / "docs" / "images" / "few_clips.png"

Few = Mapping[int, Mapping[int, list[dict[str, float]]]]
"""By clips a class and seed, the accuracy of each side on each fold."""


def run(bench: Bench) -> Section:
    """Time and score studies of all clips, then score models of few clips."""
    backbone = bench.require_backbone()
    seeds = bench.pick(SEEDS, SEEDS[:1])
    studies = {EMBEDDING: {"preset": EMBEDDING, "backbone": str(backbone)}, SCRATCH: {"preset": SCRATCH}}
    seconds = alternate(1, {f"seed {seed}": partial(_command, bench, backbone, seed) for seed in seeds})
    quick = bench.pick({}, {"max_epochs": 1})
    sides = {
        f"{name}, seed {seed}": partial(
            call,
            "benchmarks.quality:study",
            data_dir=str(bench.data_dir),
            options={**options, **quick, "seed": seed},
            path=str(bench.folder / f"{name}-{seed}.npy"),
        )
        for seed in seeds
        for name, options in studies.items()
    }
    results = {name: result[0] for name, result in alternate(1, sides).items()}
    blends = [
        call(
            "benchmarks.quality:blend",
            paths=[results[f"{name}, seed {seed}"]["path"] for name in studies],
            data_dir=str(bench.data_dir),
        )
        for seed in seeds
    ]
    scores = {name: [results[f"{name}, seed {seed}"] for seed in seeds] for name in studies}
    section = _all_clips(scores, blends, [seconds[f"seed {seed}"][0] for seed in seeds])
    few = _few_clips(bench, backbone, seeds, quick)
    section.scores |= _few_scores(few)
    if not bench.quick:
        call("benchmarks.transfer:draw", few=few, path=str(PICTURE))
    facts = call("benchmarks.transfer:describe", backbone=str(backbone))
    first = scores[EMBEDDING][0]
    section.notes = [
        f"Backbone: {facts}. All clips: {first['clips']} clips of DATA_DIR in its {len(first['minutes'])} folds, each "
        "predicted by the model that did not train on its fold. Few clips: drawn for each seed and fold from the other "
        "folds, of different recordings as far as there are any; the models are scored on all clips of the fold. Seeds "
        f"{', '.join(map(str, seeds))}; the recipe of `embedding` was chosen on seeds {CHOSEN_ON}.",
        "The time of the study is that of the command `cross_validate` with an empty cache folder and a tracking "
        "server in SQLite: start of Python, decoding, tries of the backbone, embeddings, training and records.",
    ]
    return section


def _command(bench: Bench, backbone: Path, seed: int) -> float:
    """Return the wall time of `cross_validate` in seconds, with an empty cache folder and an empty tracking server."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        arguments = {"data_dir": bench.data_dir, "model": EMBEDDING, "backbone": backbone, "seed": seed}
        arguments |= bench.pick({}, {"max_epochs": 1})
        options = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
        variables = {"FSAT_CACHE_DIR": f"{folder}/cache", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        return command_seconds([sys.executable, "-m", "fsat", "cross_validate", *options], cwd=folder, env=environment)


def _all_clips(scores: Mapping[str, list[dict]], blends: list[dict[str, Any]], seconds: list[float]) -> Section:
    def values(name: str, key: str) -> list[float]:
        return [result[key] for result in scores[name]]

    section = Section(libraries=["tensorflow", "keras", "scikit-learn", "mlflow", "numpy"])
    section.rows = [
        Row("a study of `embedding`, from files to FINISHED folds", Samples("", seconds, "s"), at_most=SECONDS)
    ]
    limits: dict[str, dict[str, float]] = {"accuracy": {"at_least": 0.91, "aim": 0.93}, "map3": {}}
    for key, title in (("accuracy", "accuracy, all clips"), ("map3", "mAP@3, all clips")):
        best = [max(pair) for pair in zip(values(EMBEDDING, key), values(SCRATCH, key), strict=True)]
        blended = [blend[key]["geometric"] for blend in blends]
        gains = [blend - single for blend, single in zip(blended, best, strict=True)]
        minutes = [statistics.mean(result["minutes"]) for result in scores[SCRATCH]]
        section.scores[title] = [
            Score(SIDES[EMBEDDING], values(EMBEDDING, key), **limits[key]),
            Score(SIDES[SCRATCH], values(SCRATCH, key), remark=f"{statistics.mean(minutes):.1f} min per fold"),
            Score("blend of both, geometric mean", blended),
            Score("blend less the better one", gains, at_least=0, aim=0.015),
            Score("blend of both, cross-fitted weights", [blend[key]["weighted"] for blend in blends]),
        ]
    return section


def _few_clips(bench: Bench, backbone: Path, seeds: tuple[int, ...], quick: dict[str, int]) -> dict[int, dict]:
    """Train on few clips for each seed and fold, one training per core."""
    folds = call("benchmarks.weak_labels:folds_of", data_dir=str(bench.data_dir))
    folds, sizes = bench.pick(folds, folds[:1]), bench.pick(CLIPS_PER_CLASS, CLIPS_PER_CLASS[:1])
    jobs = {
        f"{n} clips a class, seed {seed}, fold {fold}": partial(
            call,
            "benchmarks.transfer:few_clips",
            data_dir=str(bench.data_dir),
            backbone=str(backbone),
            folder=str(bench.folder / f"{n}-{seed}-{fold}"),
            fold=fold,
            n=n,
            seed=seed,
            options=quick,
        )
        for n in sizes
        for seed in seeds
        for fold in folds
    }
    results = side_by_side(jobs)
    return {
        n: {seed: [results[f"{n} clips a class, seed {seed}, fold {fold}"] for fold in folds] for seed in seeds}
        for n in sizes
    }


def _few_scores(few: Few) -> dict[str, list[Score]]:
    return {
        f"accuracy, {n} clips a class": [
            Score(text, [statistics.mean(fold[side] for fold in folds) for folds in by_seed.values()])
            for side, text in SIDES.items()
        ]
        for n, by_seed in few.items()
    }


def few_clips(
    data_dir: str, backbone: str, folder: str, fold: str, n: int, seed: int, options: dict[str, Any]
) -> dict[str, float]:
    """Return the accuracy of each side on the clips of a fold, after training on `n` clips a class of the others."""
    from fsat.commands.backbones import resolve_config, settle_backbone
    from fsat.commands.train import prepare_dataset
    from fsat.data.dataset import Source
    from fsat.training.fold import train_fold

    write_few(data_dir, folder, fold, n, seed)
    results = {}
    for name, changes in ((EMBEDDING, {"backbone": backbone}), (SCRATCH, {})):
        config = settle_backbone(resolve_config({"seed": seed, **changes, **options}, name), store=False)
        dataset = prepare_dataset(Source(Path(folder)), config)
        with tempfile.TemporaryDirectory() as scratch:
            results[name] = train_fold(dataset, 0, Path(scratch)).scores["val_acc"]
        if name == EMBEDDING:
            results[LINEAR] = _logistic_regression(dataset)
    return results


def write_few(data_dir: str, folder: str, fold: str, n: int, seed: int) -> None:
    """Write a dataset of two folds: 0, the clips of `fold`, and 1, `n` clips a class of the others."""
    import numpy as np
    import pandas as pd

    source, out = Path(data_dir).absolute(), Path(folder)
    table = pd.read_csv(source / "train.csv", dtype=str)
    if "freesound_id" not in table:
        raise BenchmarkError(f"{data_dir}: train.csv has no column freesound_id; expected the layout of README.md")
    shuffled = table[table["fold"] != fold].sample(frac=1, random_state=np.random.default_rng([seed, int(fold)]))
    repeated = shuffled.groupby(["label", "freesound_id"]).cumcount()  # clips of another recording come first
    drawn = shuffled.assign(repeated=repeated).sort_values("repeated", kind="stable").groupby("label").head(n)
    test = table[table["fold"] == fold].assign(fold="0")
    chosen = pd.concat([test, drawn.drop(columns="repeated").assign(fold="1")])
    (out / "audio_train").mkdir(parents=True)
    for fname in chosen["fname"]:
        shutil.copyfile(source / "audio_train" / fname, out / "audio_train" / fname)
    chosen.to_csv(out / "train.csv", index=False)


def _logistic_regression(dataset: Any) -> float:
    """Return the accuracy on fold 0 of a logistic regression on the mean embedding of each clip, with defaults."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from fsat.data.embeddings import embeddings

    vectors = embeddings(dataset.train, dataset.config)
    first = np.array([0])
    means = np.stack(
        [vectors.windows(np.array([i]), first, int(n))[0].mean(axis=0) for i, n in enumerate(vectors.n_windows)]
    )
    test = dataset.folds == 0
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(model.fit(means[~test], dataset.targets[~test]).score(means[test], dataset.targets[test]))


def draw(few: dict[str, dict], path: str) -> None:
    """Draw the accuracy of each side against the number of clips a class; bars span the seeds."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    sizes = [int(n) for n in few]
    for side, text in SIDES.items():
        by_size = [[statistics.mean(fold[side] for fold in folds) for folds in few[n].values()] for n in few]
        means = [statistics.mean(values) for values in by_size]
        low = [mean - min(values) for mean, values in zip(means, by_size, strict=True)]
        high = [max(values) - mean for mean, values in zip(means, by_size, strict=True)]
        axes.errorbar(sizes, means, yerr=[low, high], marker="o", capsize=3, label=text.replace("`", ""))
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set(xlabel="training clips per class", ylabel="accuracy")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def describe(backbone: str) -> str:
    """Return name, SHA-256 and licence of a backbone."""
    from fsat.backbones.descriptor import read_backbone

    described = read_backbone(backbone)
    return f"{described.name}, SHA-256 {described.sha256[:16]}..., {described.license or 'licence unknown'}"
