"""Entry points `train_fold` and `cross_validate`."""

from __future__ import annotations

import tempfile
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.config import Config
from fsat.data.dataset import Dataset
from fsat.data.tables import write_table
from fsat.pipeline.source import Source
from fsat.pipeline.workers import n_workers, train_side_by_side
from fsat.progress import say
from fsat.reports.plots import plot_class_precision, plot_confusion, plot_learning_curves
from fsat.reports.submission import submission
from fsat.tracking import runs
from fsat.tracking.members import FoldRun, by_run_ids, finished_folds, newest_per_fold
from fsat.training.fold import WEIGHTS, FoldResult, split, untaught
from fsat.training.fold import train_fold as train


def train_fold(source: Source, config: Config, fold: int) -> str:
    """Train one fold in a run of its own.

    Args:
        source: the dataset.
        config: the settings.
        fold: from 0.

    Returns:
        the run's id.
    """
    with runs.tracked("train_fold", f"{config.model} fold {fold}"):
        return _train_in_run(source.load(config, fold), fold, source)


def cross_validate(source: Source, config: Config, parallel_folds: str = "auto") -> list[FoldRun]:
    """Train every fold of a study that has no FINISHED run yet, each in a run nested in this one.

    Args:
        source: the dataset.
        config: the settings.
        parallel_folds: how many folds are trained at the same time; ``auto`` for what is quickest here.

    Returns:
        one FINISHED run a fold, in order.
    """
    with runs.tracked("cross_validate", f"{config.model} all folds"):
        dataset = source.load(config)
        config = dataset.config
        runs.set_tags({"study": dataset.study, "model": config.model})
        runs.log_params(config.to_dict())
        runs.log_dataset(dataset.manifest)
        done = newest_per_fold(finished_folds(dataset.study))
        for fold, record in done.items():
            say(f"fold {fold}: run {record.run_id} is FINISHED and is not trained again")
        run_ids = {fold: record.run_id for fold, record in done.items()}
        run_ids |= _train_missing(source, dataset, [k for k in range(config.n_folds) if k not in done], parallel_folds)
        records = by_run_ids([run_ids[fold] for fold in range(config.n_folds)])
        metrics = [record.run.data.metrics for record in records]
        means = {f"mean_{name}": float(np.mean([row[name] for row in metrics])) for name in ("val_map3", "val_acc")}
        runs.log_metrics(means)
        say(f"study {dataset.study} ({config.model}) has all {config.n_folds} folds: mean val_map3 "
            f"{means['mean_val_map3']:.4f}, mean val_acc {means['mean_val_acc']:.4f}")  # fmt: skip
        return records


def _train_missing(source: Source, dataset: Dataset, folds: list[int], parallel_folds: str) -> dict[int, str]:
    """Train these folds, one after the other or side by side; the run's id by fold."""
    count = n_workers(parallel_folds, dataset.config, len(folds), len(dataset.train))
    if count > 1:
        say(f"training {len(folds)} folds, {count} at a time")
        one = partial(_train_in_worker, source, dataset.config, runs.as_parent())
        return train_side_by_side(one, folds, count)
    run_ids = {}
    for fold in folds:
        with runs.tracked("train_fold", f"{dataset.config.model} fold {fold}"):
            run_ids[fold] = _train_in_run(dataset, fold, source)
    return run_ids


def _train_in_worker(source: Source, config: Config, parent: runs.Parent, fold: int) -> str:
    """Train a fold in a process of its own, in a run nested in that of the process that asked."""
    with runs.tracked("train_fold", f"{config.model} fold {fold}", parent):
        return _train_in_run(_read_once(source, config), fold, source)


@lru_cache(maxsize=1)
def _read_once(source: Source, config: Config) -> Dataset:
    return source.read(config)


def _train_in_run(dataset: Dataset, fold: int, source: Source) -> str:
    """Train a fold inside the open run and log all that it leaves."""
    config = dataset.config
    run_id = runs.active_run_id()
    runs.set_tags(
        {
            "study": dataset.study,
            "fold": fold,
            "model": config.model,
            "folds": config.folds,
            "precision": config.precision,
            "selected_on": config.selected_on,
            "on_bad_clip": source.on_bad_clip,
        }
    )
    n_val = int((dataset.folds == fold).sum())
    splits = split(dataset, fold)
    n_train = int((splits == "train").sum())
    facts = {"dataset_digest": dataset.manifest.digest, "n_train": n_train, "n_val": n_val}
    runs.log_params({**config.to_dict(), "fold": fold, **facts})
    runs.log_dataset(dataset.manifest)
    if missing := untaught(dataset, splits):
        say(f"warning: fold {fold}: no clip that it trains on is labelled {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}, with labels_run_id={config.labels_run_id}, "
            f"unverified_weight={config.unverified_weight} and holdout={config.holdout}")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="fsat-") as name:
        result = train(dataset, fold, Path(name), runs.log_metrics_of_epoch)
        runs.log_metrics({"best_epoch": result.best_epoch, **result.scores}, step=len(result.history))
        _log_artifacts(dataset, fold, result)
    verified = result.scores.get("val_map3_verified")
    kept = {"best": "best epoch", "last": "last epoch", "average": "average up to epoch"}[config.checkpoint]
    say(f"fold {fold}: run {run_id}: {kept} {result.best_epoch + 1}, val_map3 {result.scores['val_map3']:.4f}, "
        f"val_acc {result.scores['val_acc']:.4f}"
        + (f", val_map3 on verified clips {verified:.4f}" if verified is not None else ""))  # fmt: skip
    return run_id


def _log_artifacts(dataset: Dataset, fold: int, result: FoldResult) -> None:
    """Lay the run's artifacts out in a folder as they will stand on the server, and upload it."""
    with tempfile.TemporaryDirectory(prefix="fsat-") as name:
        folder = Path(name)
        (folder / "weights").mkdir()
        (result.folder / WEIGHTS).rename(folder / "weights" / WEIGHTS)
        (result.folder / "tensorboard").rename(folder / "tensorboard")
        (folder / "model.txt").write_text(result.summary)

        predictions = folder / "predictions"
        predictions.mkdir()
        np.save(predictions / "train.npy", result.train)
        np.save(predictions / "test.npy", result.test)
        write_table(clip_table(dataset, result.splits), predictions / "clips.csv")
        test_names = dataset.manifest.test["fname"].tolist()
        write_table(submission(test_names, result.test, dataset.labels), predictions / "submission.csv")

        held_out, targets = result.train[result.held_out], dataset.targets[result.held_out]
        title = f"{dataset.config.model}, fold {fold}"
        plot_learning_curves(result.history, result.best_epoch, title, folder / "plots" / "learning_curves.png")
        plot_confusion(
            held_out, targets, dataset.labels, f"{title}: validation clips", folder / "plots" / "confusion.png"
        )
        plot_class_precision(
            held_out, targets, dataset.labels, f"{title}: validation clips", folder / "plots" / "class_precision.png"
        )
        runs.log_json(dataset.config.to_dict(), "config.json")
        runs.log_json(dataset.labels, "labels.json")
        runs.log_folder(folder)


def clip_table(dataset: Dataset, splits: np.ndarray) -> pd.DataFrame:
    """``fname,split,label,manually_verified`` in the order of the prediction arrays: training, then test clips."""
    train, test = dataset.manifest.train, dataset.manifest.test
    columns = ["fname", "split", "label", "manually_verified"]
    above = train.assign(split=splits)[columns]
    below = pd.DataFrame({"fname": test["fname"], "split": "test", "label": "", "manually_verified": ""})
    return pd.concat([above, below[columns]], ignore_index=True)
