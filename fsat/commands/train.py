"""Entry points `train_fold` and `cross_validate`."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from fsat.commands.fold_run import train_in_run
from fsat.config import Config
from fsat.data.dataset import Dataset, Source, load_dataset
from fsat.errors import DataError, RunError
from fsat.models import n_threads, settle_precision
from fsat.options import Launch
from fsat.parallel.processes import Processes, n_workers
from fsat.parallel.ray_cluster import RayCluster, check_installed
from fsat.progress import say
from fsat.reports import run_descriptions
from fsat.text import dataset_name, fold_name
from fsat.tracking import client, descriptions, ownership, runs
from fsat.tracking.fold_artifacts import FoldRun, by_run_ids, finished_folds, newest_per_fold
from fsat.tracking.run_folder import forget
from fsat.tracking.shared_view import link
from fsat.tracking.verified_labels import fetch_labels

WAIT_SECONDS = 5.0
"""How often a fold that another launch trains is looked at."""

NEWS_SECONDS = 600.0
"""How often it is said that it is waited for."""

SAMPLES_WORTH_A_PROCESS = 1_000_000_000
"""Audio samples that conv1d trains on in a minute on a processor of 2023; a process takes ten seconds to start."""

USUAL = Launch()


def prepare_dataset(source: Source, config: Config, fold: int | None = None, quiet: bool = False) -> Dataset:
    """Load a dataset with the labels of ``labels_run_id``, with the precision settled for this machine.

    Args:
        source: the dataset options.
        config: the settings.
        fold: a fold that must exist.
        quiet: do not print a summary.

    Raises:
        DataError: the dataset has problems.
        RunError: the labels cannot be fetched, or are of another dataset.
    """
    labels = fetch_labels(config.labels_run_id) if config.labels_run_id != "none" else None
    dataset = load_dataset(source.data_dir, settle_precision(config), source.on_bad_clip, source.n_folds_given, fold)
    if labels is not None:
        digest = dataset.manifest.digest
        if labels.dataset != digest:
            raise RunError(
                f"labels_run_id={labels.run_id}: its labels are of another dataset (digest {labels.dataset}) than "
                f"{source.data_dir} (digest {digest}); run verify on a study of this one"
            )
        dataset = dataset.relabelled(labels.new_labels, labels.certainty)
    for line in () if quiet else dataset.summary():
        say(line)
    return dataset


def train_fold(source: Source, config: Config, fold: int, launch: Launch = USUAL) -> str:
    """Train one fold in a run of its own, or go on with the run in which it was stopped, if it is not FINISHED.

    Args:
        source: the dataset.
        config: the settings.
        fold: from 0.
        launch: how to start it.

    Returns:
        the run's id.

    Raises:
        FoldTaken: another process trains it.
    """
    with runs.tracked("train_fold", fold_name(config.model, fold, source.data_dir)) as own:
        ownership.sweep()
        dataset = prepare_dataset(source, config, fold)
        done = ownership.finished_run(dataset.study, fold) if launch.resume else None
        if done is None:
            return train_in_run(dataset, fold, source, launch, again=not launch.resume)
        forget(done)
        say(f"fold {fold}: run {done} is FINISHED and is not trained again; resume=false trains it anew")
        runs.hand_over(own, done, f"{config.model} fold {fold} is FINISHED in run {done[:8]}")
        return done


def cross_validate(source: Source, config: Config, launch: Launch = USUAL) -> list[FoldRun]:
    """Train every fold of a study that has no FINISHED run yet, each in a run nested in this one.

    Folds that another launch of the same study is training are left to it, and waited for.

    Args:
        source: the dataset.
        config: the settings.
        launch: how to start the folds.

    Returns:
        one FINISHED run a fold, in order.
    """
    check_installed(launch.cluster)
    with runs.tracked("cross_validate", f"{config.model} all folds on {dataset_name(source.data_dir)}"):
        ownership.sweep()
        dataset = prepare_dataset(source, config)
        config = dataset.config
        runs.set_tags({"study": dataset.study, "model": config.model})
        descriptions.give_colour(dataset.study)
        runs.log_params(config.to_dict())
        runs.log_dataset(dataset.manifest)
        describe = partial(
            run_descriptions.study, config, dataset.study, source.data_dir, view_link=link(runs.experiment_id())
        )
        descriptions.describe(describe({}))
        descriptions.share_view()
        run_ids: dict[int, str] = {}
        while missing := [fold for fold in range(config.n_folds) if fold not in run_ids]:
            done = newest_per_fold(finished_folds(dataset.study))
            for fold in [fold for fold in missing if fold in done]:
                run_ids[fold] = done[fold].run_id
                forget(run_ids[fold])
                say(f"fold {fold}: run {done[fold].run_id} is FINISHED and is not trained again")
            if missing := [fold for fold in missing if fold not in run_ids]:
                run_ids |= _train_free(source, dataset, missing, launch)
        records = by_run_ids([run_ids[fold] for fold in range(config.n_folds)])
        metrics = [record.run.data.metrics for record in records]
        means = {f"mean_{name}": float(np.mean([row[name] for row in metrics])) for name in ("val_map3", "val_acc")}
        runs.log_metrics(means)
        descriptions.describe(describe(means))
        say(f"study {dataset.study} ({config.model}) has all {config.n_folds} folds: mean val_map3 "
            f"{means['mean_val_map3']:.4f}, mean val_acc {means['mean_val_acc']:.4f}")  # fmt: skip
        return records


def _train_free(source: Source, dataset: Dataset, missing: list[int], launch: Launch) -> dict[int, str]:
    """Train those of the missing folds that no other launch does, or else wait for a moment.

    Returns:
        the run's id by fold, of those that were trained.
    """
    held = [fold for fold in missing if ownership.is_held(dataset.study, fold)]
    if free := [fold for fold in missing if fold not in held]:
        return _train(source, dataset, free, launch) or time.sleep(WAIT_SECONDS) or {}
    say(f"fold{'s' if len(held) > 1 else ''} {', '.join(map(str, held))}: trained by another launch; waiting")
    until = time.monotonic() + NEWS_SECONDS
    while time.monotonic() < until and all(ownership.is_held(dataset.study, fold) for fold in held):
        time.sleep(WAIT_SECONDS)
    return {}


def _train(source: Source, dataset: Dataset, folds: list[int], launch: Launch) -> dict[int, str]:
    """Train these folds, one after the other or side by side; the run's id by fold, of those that were not taken."""
    if launch.cluster.kind == "ray":
        on_node = partial(_train_on_node, replace(source, data_dir=source.data_dir.absolute()), dataset.config, launch)
        train_one = partial(on_node, runs.as_parent(), dataset.study)
        executor = RayCluster(launch.cluster, n_threads(), client.absolute_uri(), client.is_remote())
        run_ids = executor.map(train_one, folds, "fold")
    elif (count := folds_at_once(launch.parallel_folds, dataset.config, len(folds), len(dataset.train))) > 1:
        say(f"training {len(folds)} folds, {count} at a time")
        train_one = partial(_train_in_worker, source, dataset.config, launch, runs.as_parent())
        processes = Processes(count, "if memory ran out, use a smaller batch_size or parallel_folds=1")
        run_ids = processes.map(train_one, folds, "fold")
    else:
        run_ids = (_train_unless_taken(dataset, fold, source, launch) for fold in folds)
    return {fold: run_id for fold, run_id in zip(folds, run_ids, strict=True) if run_id}


def folds_at_once(parallel_folds: str, config: Config, n_folds: int, n_clips: int) -> int:
    """Return how many folds are trained at the same time on this machine.

    ``auto`` is one fold for every `n_threads` cores, and one alone where a fold takes less than about a minute. The
    benchmark `folds` compares two at a time with one.

    Args:
        parallel_folds: a number, or ``auto``.
        config: settings of the folds.
        n_folds: number of folds to train.
        n_clips: number of training clips of a fold.
    """
    samples = n_clips * config.max_epochs * config.audio_length
    if parallel_folds == "auto" and samples < SAMPLES_WORTH_A_PROCESS:
        return 1
    return max(1, min(n_workers(parallel_folds, n_threads()), n_folds))


def _train_in_worker(source: Source, config: Config, launch: Launch, parent: runs.Parent, fold: int) -> str:
    """Train a fold in a process of its own, in a run nested in that of the process that asked."""
    return _train_unless_taken(_read_once(source, config), fold, source, launch, parent)


def _train_unless_taken(
    dataset: Dataset, fold: int, source: Source, launch: Launch, parent: runs.Parent | None = None
) -> str:
    """Train a fold in a nested run; its id, or an empty text if another launch has begun or finished it meanwhile."""
    try:
        with runs.tracked("train_fold", fold_name(dataset.config.model, fold, source.data_dir), parent) as own:
            return train_in_run(dataset, fold, source, launch, again=False)
    except ownership.FoldTaken as taken:
        say(str(taken))
        runs.discard(own)
        return ""


def _train_on_node(source: Source, config: Config, launch: Launch, parent: runs.Parent, study: str, fold: int) -> str:
    """As `_train_in_worker`, on another machine, whose dataset must be the same."""
    if not source.data_dir.is_dir():
        raise DataError(
            f"{source.data_dir}: no such folder there; the dataset must be under the same path on each node"
        )
    dataset = _read_once(source, config)
    if dataset.study != study:
        raise DataError(
            f"{source.data_dir}: its clips or labels are not those of the machine that asked (study {dataset.study}, "
            f"expected {study}); copy the dataset anew"
        )
    return _train_unless_taken(dataset, fold, source, launch, parent)


@lru_cache(maxsize=1)
def _read_once(source: Source, config: Config) -> Dataset:
    return prepare_dataset(source, config, quiet=True)
