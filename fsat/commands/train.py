"""Entry points `train_fold` and `cross_validate`.

A fold is trained in a run of its own. The process that trains it holds a claim, so that no other one does; a fold that
was stopped is resumed in its own run; and a trained fold is stored on this machine until it is uploaded.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from fsat.commands.backbones import embed_dataset, settle_backbone
from fsat.commands.fold_records import log_facts, store_results, summarise
from fsat.commands.warm_start import describe_start, earlier_model, new_layer_tags, settle_start, start_tags
from fsat.config import Config
from fsat.data.dataset import Dataset, Source, Start, load_dataset
from fsat.errors import DataError, RunError, count
from fsat.metrics.task_scores import SCORE_NAMES
from fsat.models import n_threads, settle_precision
from fsat.options import Launch
from fsat.parallel.executor import Processes, n_workers
from fsat.parallel.ray_cluster import RayCluster, check_installed
from fsat.progress import say, say_once
from fsat.reports import run_descriptions
from fsat.text import dataset_name, fold_name
from fsat.tracking import mlflow_ui, ownership, runs
from fsat.tracking.client import Refused, ServerUnreachable, absolute_uri, address, discard, is_remote
from fsat.tracking.live_metrics import LiveMetrics, ServerCheckpoint, upload
from fsat.tracking.run_folder import Fold, RunFolder, remove_finished
from fsat.tracking.select_runs import (
    FoldRun,
    VerifiedLabels,
    by_run_ids,
    fetch_labels,
    finished_folds,
    newest_per_fold,
)
from fsat.tracking.warm_start import find_earlier
from fsat.training import fold as training
from fsat.training.checkpoint import count_epochs

POLL_SECONDS = 5.0
"""How often to check on a fold that another launch trains."""

REPORT_SECONDS = 600.0
"""How often to say that it is waited for."""

SAMPLES_WORTH_A_PROCESS = 1_000_000_000
"""Audio samples that conv1d trains on in a minute on a processor of 2023; a process takes ten seconds to start."""

DEFAULT_LAUNCH = Launch()


def prepare_dataset(
    source: Source,
    config: Config,
    fold: int | None = None,
    quiet: bool = False,
    embed: bool = True,
    start: Start | None = None,
) -> Dataset:
    """Load a dataset with the labels of ``labels_run_id``, with precision and backbone settled, and its embeddings.

    A given fold must exist. A run must be open if the backbone is given by its path. If `embed` is not set,
    `embed_dataset` adds the embeddings later. Without a `start`, ``init_from`` is settled.

    Raises:
        DataError: the dataset has problems.
        RunError: the labels cannot be fetched, or are of another dataset; ``init_from`` names nothing that fits.
    """
    n_threads()  # a wrong FSAT_THREADS is an error now, not when all clips are decoded
    labels = fetch_labels(config.labels_run_id) if config.labels_run_id != "none" else None
    earlier = find_earlier(config) if start is None and config.init_from != "none" else None
    config = settle_backbone(settle_precision(config))
    tell = (lambda line: None) if quiet else say_once
    dataset = load_dataset(source.data_dir, config, source.on_bad_clip, source.n_folds_given, fold, source.layout, tell)
    if labels is not None:
        if labels.dataset != (digest := dataset.manifest.digest):
            other = f"of another dataset (digest {labels.dataset}) than {source.data_dir} (digest {digest})"
            raise RunError(f"labels_run_id={labels.run_id}: its labels are {other}; run verify on a study of this one")
        dataset = _relabelled(dataset, labels)
    if earlier:
        start = settle_start(earlier, dataset)
    if start:
        dataset = dataset.starting_from(start)
    for line in () if quiet else dataset.summary():
        say(line)
    if embed:
        embed_dataset(dataset)
    return dataset


def _relabelled(dataset: Dataset, labels: VerifiedLabels) -> Dataset:
    """Return the dataset with the labels of a run of `verify` on it, whatever names its clips had then."""
    fnames = dataset.manifest.train["fname"]
    if len(labels.fnames) != len(fnames):
        fault = f"its table has {count(len(labels.fnames), 'clip')}, expected {len(fnames)}"
        raise RunError(f"labels_run_id={labels.run_id}: {fault}; run verify again")
    if labels.pairs is not None:  # in the same order
        return dataset.relabelled_pairs(labels.pairs)
    now = dict(zip(labels.fnames, fnames, strict=True))
    new_labels = {now[fname]: label for fname, label in labels.new_labels.items()}
    return dataset.relabelled(new_labels, {now[fname]: score for fname, score in labels.certainty.items()})


_read_once = lru_cache(maxsize=1)(prepare_dataset)


def train_fold(source: Source, config: Config, fold: int, launch: Launch = DEFAULT_LAUNCH) -> str:
    """Train one fold in a run of its own, or resume the run in which it was stopped; return the run's id.

    If ``launch.resume`` is set, a fold with a FINISHED run is not trained.

    Raises:
        FoldTaken: another process trains the fold.
        RunError: the server refused something or did not answer; a trained fold is stored on this machine.
    """
    with runs.tracked("train_fold", fold_name(config.model, fold, source.data_dir)) as run_id:
        ownership.sweep()
        dataset = prepare_dataset(source, config, fold, embed=False)
        finished = ownership.finished_run(dataset.study, fold) if launch.resume else None
        if finished is None:
            return _train(dataset, fold, source, launch, repeat=not launch.resume)
        remove_finished(finished)
        say(f"fold {fold}: run {finished} is FINISHED and is not trained again; resume=false trains it anew")
        runs.supersede(run_id, finished, f"{config.model} fold {fold} is FINISHED in run {finished[:8]}")
        return finished


def cross_validate(source: Source, config: Config, launch: Launch = DEFAULT_LAUNCH) -> list[FoldRun]:
    """Train every fold of a study that has no FINISHED run yet, each in a nested run; return a run of each, in order.

    Folds that another launch of the same study trains are waited for.
    """
    check_installed(launch.cluster)
    with runs.tracked("cross_validate", f"{config.model} all folds on {dataset_name(source.data_dir)}"):
        ownership.sweep()
        dataset = prepare_dataset(source, config, embed=False)
        config, study = dataset.config, dataset.study
        runs.set_tags({"study": study, "model": config.model} | start_tags(dataset) | dataset.marks)
        mlflow_ui.give_colour(study)
        runs.log_params(config.to_dict())
        runs.log_dataset(dataset.manifest)
        view = mlflow_ui.view_link()
        remarks = view, dataset.leak, describe_start(start_tags(dataset))
        mlflow_ui.describe(run_descriptions.study(config, study, source.data_dir, {}, *remarks))
        mlflow_ui.share_view(run_descriptions.experiment(view))
        run_ids = _train_missing(source, dataset, launch)
        records = by_run_ids([run_ids[fold] for fold in range(config.n_folds)])
        fold_runs = [record.run for record in records]
        names = [f"val_{name}" for name in SCORE_NAMES[config.task]]
        scores = {name: [run.data.metrics[name] for run in fold_runs if name in run.data.metrics] for name in names}
        means = {f"mean_{name}": float(np.mean(values)) for name, values in scores.items() if values}
        runs.log_metrics(means)
        mlflow_ui.describe(run_descriptions.study(config, study, source.data_dir, means, *remarks))
        text = ", ".join(f"{name.replace('_', ' ', 1)} {mean:.4f}" for name, mean in means.items())
        text += f"; these are too high ({dataset.leak})" if dataset.leak else ""
        say(f"study {study} ({config.model}) has all {config.n_folds} folds: {text}")
        return records


def _train_missing(source: Source, dataset: Dataset, launch: Launch) -> dict[int, str]:
    """Train the folds that no other launch trains, until all are FINISHED; return the run ids by fold."""
    run_ids: dict[int, str] = {}
    while missing := set(range(dataset.config.n_folds)) - run_ids.keys():
        finished = newest_per_fold(finished_folds(dataset.study))
        for fold in sorted(missing & finished.keys()):
            run_ids[fold] = finished[fold].run_id
            remove_finished(run_ids[fold])
            say(f"fold {fold}: run {run_ids[fold]} is FINISHED and is not trained again")
        missing -= run_ids.keys()
        taken = {fold for fold in missing if ownership.running_elsewhere(dataset.study, fold)}
        if free := sorted(missing - taken):
            trained = _train_folds(source, dataset, free, launch)
            run_ids |= trained
            if not trained:
                time.sleep(POLL_SECONDS)
        elif taken:
            _wait_for(dataset.study, sorted(taken))
    return run_ids


def _wait_for(study: str, folds: list[int]) -> None:
    """Wait until another launch has ended one of the folds, or until the next report."""
    say(f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}: trained by another launch; waiting")
    deadline = time.monotonic() + REPORT_SECONDS
    while time.monotonic() < deadline and all(ownership.running_elsewhere(study, fold) for fold in folds):
        time.sleep(POLL_SECONDS)


def _train_folds(source: Source, dataset: Dataset, folds: list[int], launch: Launch) -> dict[int, str]:
    """Train folds one after the other, in processes, or on a cluster; return run ids, without folds that were taken."""
    embed_dataset(dataset)
    config, parent = dataset.config, runs.Parent(runs.active_run_id(), runs.experiment_id())
    absolute = replace(source, data_dir=source.data_dir.absolute())
    train_one = partial(_train_elsewhere, absolute, config, launch, parent, dataset.study, dataset.start)
    if launch.cluster.kind == "ray":
        run_ids = RayCluster(launch.cluster, n_threads(), absolute_uri(), is_remote()).map(train_one, folds, "fold")
    elif (count := folds_at_once(launch.parallel_folds, config, len(folds), len(dataset.train))) > 1:
        say(f"training {len(folds)} folds, {count} at a time")
        processes = Processes(count, "if memory ran out, use a smaller batch_size or parallel_folds=1")
        run_ids = processes.map(train_one, folds, "fold")
    else:
        run_ids = (_train_unless_taken(dataset, fold, source, launch) for fold in folds)
    return {fold: run_id for fold, run_id in zip(folds, run_ids, strict=True) if run_id}


def folds_at_once(parallel_folds: str, config: Config, n_folds: int, n_clips: int) -> int:
    """Return how many folds are trained at the same time on this machine.

    ``auto`` is one fold for every `n_threads` cores, or one alone if a fold, of `n_clips` training clips, takes less
    than about a minute, as every head on embeddings does.
    """
    samples = n_clips * config.max_epochs * config.audio_length
    if parallel_folds == "auto" and (config.use_embedding or samples < SAMPLES_WORTH_A_PROCESS):
        return 1
    return max(1, min(n_workers(parallel_folds, n_threads()), n_folds))


def _train_elsewhere(
    source: Source, config: Config, launch: Launch, parent: runs.Parent, study: str, start: Start | None, fold: int
) -> str:
    """Train a fold in another process, maybe on another machine, whose dataset must be the same."""
    if not source.data_dir.is_dir():
        advice = "the dataset must be under the same path on each node"
        raise DataError(f"{source.data_dir}: no such folder there; {advice}")
    dataset = _read_once(source, config, quiet=True, start=start)
    if dataset.study != study:
        fault = "its clips, labels or folds, which scikit-learn draws, are not those of the machine that started"
        known, advice = f"study {dataset.study}, expected {study}", "copy the dataset, or install the same packages"
        raise DataError(f"{source.data_dir}: {fault} ({known}); {advice}")
    return _train_unless_taken(dataset, fold, source, launch, parent)


def _train_unless_taken(
    dataset: Dataset, fold: int, source: Source, launch: Launch, parent: runs.Parent | None = None
) -> str:
    """Train a fold in a nested run; return its id, or an empty string if another launch has taken the fold."""
    try:
        with runs.tracked("train_fold", fold_name(dataset.config.model, fold, source.data_dir), parent) as run_id:
            return _train(dataset, fold, source, launch, repeat=False)
    except ownership.FoldTaken as taken:
        say(str(taken))
        discard(run_id)
        return ""


def _train(dataset: Dataset, fold: int, source: Source, launch: Launch, repeat: bool) -> str:
    """Train a fold in the open run, or in the one in which it was stopped, and upload it; return the run's id.

    A fold with a FINISHED run is trained only if `repeat` is set.
    """
    with _claimed_run(dataset, fold, launch.resume, repeat) as folder:
        facts = log_facts(dataset, fold, source)
        live = LiveMetrics(folder, launch.checkpoint_to == "server")
        try:
            if not folder.has_results:
                embed_dataset(dataset)
                with live, tempfile.TemporaryDirectory(prefix="fsat-") as name:
                    earlier = partial(earlier_model, dataset.config.init_run(fold)) if dataset.start else None
                    arguments = dataset, fold, Path(name), live.epoch, folder.checkpoint, earlier
                    result = training.train_fold(*arguments, lambda new: runs.set_tags(new_layer_tags(new)))
                    store_results(dataset, fold, result, facts, folder)
            ownership.confirm_owner(folder.run_id)
            upload(folder)
        except (ServerUnreachable, Refused) as error:
            if not folder.has_results:
                raise
            fault, _, remedy = str(error).partition("; ")
            place = f"its results are stored in {folder.folder}"
            first = "when the server answers again" if isinstance(error, ServerUnreachable) else f"after this: {remedy}"
            advice = f"upload them with `python -m fsat sync` {first}"
            raise RunError(f"fold {fold}: it is trained, but {fault}; {place}: {advice}") from error
        say(summarise(dataset, fold, folder))
        runs.after_finish(folder.remove)
        return folder.run_id


@contextmanager
def _claimed_run(dataset: Dataset, fold: int, resume: bool, repeat: bool) -> Iterator[RunFolder]:
    """Claim a fold, open the run to train it in (the last stopped one, or the open one), and yield its folder."""
    run_id, study = runs.active_run_id(), dataset.study
    key = Fold(address(), runs.experiment_id(), study, fold)
    with ownership.claimed(run_id, key), ExitStack() as stack:
        if not repeat and (finished := ownership.finished_run(study, fold)):  # since the caller looked
            raise ownership.FoldTaken(f"fold {fold} of study {study} is FINISHED in run {finished}")
        stopped = _find_resumable(study, fold) if resume else None
        if stopped:
            say(f"fold {fold}: resuming run {stopped}, which was stopped")
            parent = runs.parent_of_active()
            ownership.take_over(stopped, {"mlflow.parentRunId": parent} if parent else {})
            stack.enter_context(runs.resumed(stopped))
            runs.supersede(run_id, stopped, f"{dataset.config.model} fold {fold} resumed in run {stopped[:8]}")
        folder = RunFolder.of(stopped or run_id)
        folder.create(key)
        stack.callback(folder.remove_if_empty)
        yield folder


def _find_resumable(study: str, fold: int) -> str | None:
    """Return the last stopped run of a fold with results or a checkpoint, on this machine or on the server."""
    for run in ownership.stopped_runs(study, fold):
        folder, remote = RunFolder.of(run.info.run_id), ServerCheckpoint.from_tags(run.data.tags)
        n_epochs = 0 if folder.has_results else count_epochs(folder.checkpoint)
        if folder.has_results or (remote and remote.n_epochs > n_epochs and remote.download(folder)) or n_epochs:
            return folder.run_id
        folder.remove_if_empty()  # killed before its first epoch ended
    return None
