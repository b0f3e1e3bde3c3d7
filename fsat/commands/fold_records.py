"""What is recorded of a fold: parameters, tags and description of its run, and its results in the run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fsat.commands.warm_start import new_layer_tags, start_tags
from fsat.data.dataset import Dataset, Source
from fsat.metrics.ranking import top_k
from fsat.metrics.task_scores import SCORE_NAMES
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.reports.label_plots import plot_label_confusion
from fsat.reports.label_tables import given_shares, plot_label_precision
from fsat.reports.plots import plot_class_precision, plot_confusion, plot_learning_curves
from fsat.reports.prediction_tables import announce_submission, score_table, submission
from fsat.study import RECIPE
from fsat.text import named
from fsat.tracking import mlflow_ui, runs
from fsat.tracking.fold_artifacts import (
    CONFIG,
    PLOTS,
    SUBMISSION,
    Predictions,
    clip_table,
    write_artifacts,
    write_checksums,
)
from fsat.tracking.run_folder import RunFolder
from fsat.training import fold as training


def log_facts(dataset: Dataset, fold: int, source: Source) -> dict[str, Any]:
    """Log parameters, tags, dataset and description of the open run; return the arguments of its description."""
    config, splits = dataset.config, training.assign_splits(dataset, fold)
    names = ("model", "task", "folds", "precision", "selected_on", "backbone")
    tags = {"study": dataset.study, "fold": fold, **{name: getattr(config, name) for name in names}}
    tags |= {"layout": json.dumps(source.layout.given)}  # none replace those of a run that is resumed
    tags |= {"on_bad_clip": source.on_bad_clip, "recipe": RECIPE, **start_tags(dataset, fold), **dataset.marks}
    runs.set_tags(tags)
    n_train, n_val = int((splits == "train").sum()), int((dataset.folds == fold).sum())
    counts = {"dataset_digest": dataset.manifest.digest, "n_train": n_train, "n_val": n_val}
    params = {**config.to_dict(), "fold": fold, **counts}
    runs.log_params(params)
    runs.log_json(config.to_dict(), CONFIG)  # an artifact store that takes nothing ends the run before the training
    runs.log_dataset(dataset.manifest)
    mlflow_ui.give_colour(dataset.study)
    if missing := training.labels_without_clips(dataset, splits):
        labels = ", ".join([*map(named, missing[:5]), *["..."] * (len(missing) > 5)])
        settings = f"labels_run_id={config.labels_run_id}, unverified_weight={config.unverified_weight}"
        reason = f"with {settings} and holdout={config.holdout}"
        say(f"warning: fold {fold}: no clip that it trains on is labelled {labels}, {reason}")
    tags = {f"fsat.{name}": str(value) for name, value in {**tags, "data_dir": source.data_dir.absolute()}.items()}
    facts = {"params": {name: str(value) for name, value in params.items()}, "tags": tags}
    mlflow_ui.describe(_description(facts, {}))
    return facts


def _description(facts: dict[str, Any], scores: dict[str, float]) -> str:
    """Return the description of the open run; `scores` are empty while it trains."""
    links = mlflow_ui.run_link(runs.experiment_id(), runs.active_run_id()), mlflow_ui.view_link()
    return run_descriptions.fold(facts["params"], facts["tags"], scores, *links)


def store_results(
    dataset: Dataset, fold: int, result: training.FoldResult, facts: dict[str, Any], folder: RunFolder
) -> None:
    """Write metrics, description and artifacts of a trained fold into its run folder."""
    points = [
        {"key": key, "value": value, "step": epoch, "timestamp": milliseconds}
        for epoch, (metrics, milliseconds) in enumerate(zip(result.state.history, result.state.times, strict=True))
        for key, value in metrics.items()
    ]
    final = {"best_epoch": result.state.best_epoch, **result.scores, "train_seconds": result.state.seconds}
    last = {"step": len(result.state.history), "timestamp": runs.now()}
    points += [{"key": key, "value": value, **last} for key, value in final.items()]
    facts["tags"] |= {f"fsat.{name}": text for name, text in new_layer_tags(result.state.new_layers).items()}
    train, test = dataset.manifest.train, dataset.manifest.test
    names, is_multi = test["fname"].tolist(), dataset.config.is_multi
    table = submission(names, top_k(result.test), dataset.labels)
    if is_multi:
        table = score_table(names, result.test, dataset.labels)
    elif len(table):
        announce_submission(SUBMISSION, dataset.labels)
    predictions = Predictions(result.train, result.test, clip_table(train, result.splits, test), table)
    with folder.new_results(points, _description(facts, final)) as artifacts:
        files = result.folder / training.WEIGHTS, result.summary, result.folder / "tensorboard"
        write_artifacts(artifacts, dataset.config.to_dict(), dataset.labels, predictions, *files)
        _plot(dataset, fold, result, artifacts / PLOTS)
        write_checksums(artifacts)


def _plot(dataset: Dataset, fold: int, result: training.FoldResult, folder: Path) -> None:
    held_out, targets = result.train[result.held_out], dataset.targets[result.held_out]
    title = f"{dataset.config.model}, fold {fold}"
    plot_learning_curves(result.state.history, result.state.best_epoch, title, folder / "learning_curves.png")
    title += ": validation clips"
    if dataset.config.is_multi:
        plot_label_precision(held_out, targets, dataset.labels, title, folder / "class_precision.png")
        shares, n_clips = given_shares(held_out, targets), targets.sum(axis=0)
        plot_label_confusion(shares, n_clips, dataset.labels, title, folder / "confusion.png", scores=True)
        return
    plot_confusion(held_out, targets, dataset.labels, title, folder / "confusion.png")
    plot_class_precision(held_out, targets, dataset.labels, title, folder / "class_precision.png")


def summarise(dataset: Dataset, fold: int, folder: RunFolder) -> str:
    """Return the scores of a trained fold in one line."""
    scores = {point["key"]: point["value"] for point in folder.metrics()}
    chosen = {"best": "best epoch", "last": "last epoch", "average": "average up to epoch"}[dataset.config.checkpoint]
    first, second = (f"val_{name}" for name in SCORE_NAMES[dataset.config.task])
    names = {first: first, second: second, f"{first}_verified": f"{first} on verified clips"}
    text = "".join(f", {words} {scores[name]:.4f}" for name, words in names.items() if name in scores)
    text += f"; these are too high ({dataset.leak})" if dataset.leak else ""
    return f"fold {fold}: run {folder.run_id}: {chosen} {scores['best_epoch'] + 1:.0f}{text}"
