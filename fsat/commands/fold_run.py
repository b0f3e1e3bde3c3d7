"""One fold in a run: taken, so that nobody else trains it; gone on with where it was stopped; kept until uploaded."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.dataset import Dataset, Source
from fsat.data.tables import write_table
from fsat.errors import RunError
from fsat.options import Launch
from fsat.progress import say
from fsat.reports.plots import plot_class_precision, plot_confusion, plot_learning_curves
from fsat.reports.submission import submission
from fsat.tracking import descriptions, ownership, runs
from fsat.tracking.client import ServerAway
from fsat.tracking.live_metrics import OnServer, Outbox
from fsat.tracking.run_folder import METRICS, Kept
from fsat.tracking.upload import upload
from fsat.training.fold import WEIGHTS, FoldResult, assign_splits, labels_without_clips
from fsat.training.fold import train_fold as train


def train_in_run(dataset: Dataset, fold: int, source: Source, launch: Launch, again: bool = True) -> str:
    """Train a fold inside the open run, or inside the one in which it was stopped, and log all that it leaves.

    Args:
        dataset: decoded clips and folds.
        fold: from 0.
        source: what the dataset was read from.
        launch: how to start it.
        again: train it although it has a FINISHED run.

    Returns:
        the run's id.

    Raises:
        FoldTaken: another process trains it, or has, and it is not to be trained again.
        RunError: the server refused something, or has been away for too long; what is trained is kept.
    """
    with _taken(dataset, fold, launch.resume, again) as kept:
        try:
            _describe(dataset, fold, source)
            if not kept.has_results:
                with (
                    Outbox(kept, launch.checkpoint_to == "server") as outbox,
                    tempfile.TemporaryDirectory(prefix="fsat-") as name,
                ):
                    result = train(dataset, fold, Path(name), outbox.epoch, kept.checkpoint)
                    _keep(dataset, fold, result, kept)
            upload(kept)
        except ServerAway as error:
            if not kept.has_results:
                raise
            raise RunError(
                f"fold {fold}: it is trained, but {error.args[0].partition(';')[0]}; its results are kept in "
                f"{kept.folder}: upload them with `python -m fsat sync` when the server is back"
            ) from error
        scores = {row["key"]: row["value"] for row in kept.metrics()}
        say(_news(dataset, fold, kept.run_id, scores))
        runs.after_finish(kept.remove)
        return kept.run_id


@contextmanager
def _taken(dataset: Dataset, fold: int, resume: bool, again: bool) -> Iterator[Kept]:
    """Take a fold, and open the run that it is to be trained in: that in which it was stopped, if there is one."""
    own, study = runs.active_run_id(), dataset.study
    ownership.claim(own, study, fold)
    if not again and (done := ownership.finished_run(study, fold)):  # while it was asked for
        raise ownership.FoldTaken(f"fold {fold} of study {study} is FINISHED in run {done}")
    earlier = _to_go_on_with(study, fold, own) if resume else None
    if earlier is None:
        with _held(own, study, fold) as kept:
            yield kept
        return
    say(f"fold {fold}: run {earlier}, which was stopped, goes on")
    ownership.hold(earlier, runs.parent_of_active())
    with runs.continued(earlier), _held(earlier, study, fold) as kept:
        runs.hand_over(own, earlier, f"{dataset.config.model} fold {fold} went on in run {earlier[:8]}")
        yield kept


@contextmanager
def _held(run_id: str, study: str, fold: int) -> Iterator[Kept]:
    kept = Kept.of(run_id)
    with kept.held():
        where = runs.as_parent().experiment_id
        kept.begin({"uri": runs.tracking_uri(), "experiment_id": where, "study": study, "fold": fold})
        try:
            yield kept
        finally:
            kept.remove_if_empty()


def _to_go_on_with(study: str, fold: int, own: str) -> str | None:
    """The id of the newest stopped run of a fold that something is kept of, here or on the server."""
    for run in ownership.earlier_runs(study, fold, but=own):
        kept, remote = Kept.of(run.info.run_id), OnServer.of(run.data.tags)
        if kept.has_results:
            return run.info.run_id
        epochs = kept.epochs()
        if remote and remote.epochs > epochs and remote.fetch(kept):
            return run.info.run_id
        if epochs:
            return run.info.run_id
        if kept.folder.is_dir():  # it was killed before its first epoch ended
            with suppress(RunError), kept.held():
                kept.remove_if_empty()
    return None


def _describe(dataset: Dataset, fold: int, source: Source) -> None:
    config, splits = dataset.config, assign_splits(dataset, fold)
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
    n_train, n_val = int((splits == "train").sum()), int((dataset.folds == fold).sum())
    facts = {"dataset_digest": dataset.manifest.digest, "n_train": n_train, "n_val": n_val}
    runs.log_params({**config.to_dict(), "fold": fold, **facts})
    runs.log_dataset(dataset.manifest)
    descriptions.give_colour(dataset.study)
    descriptions.describe_fold(runs.active_run_id())
    if missing := labels_without_clips(dataset, splits):
        say(f"warning: fold {fold}: no clip that it trains on is labelled {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}, with labels_run_id={config.labels_run_id}, "
            f"unverified_weight={config.unverified_weight} and holdout={config.holdout}")  # fmt: skip


def _news(dataset: Dataset, fold: int, run_id: str, scores: dict[str, float]) -> str:
    chosen = {"best": "best epoch", "last": "last epoch", "average": "average up to epoch"}[dataset.config.checkpoint]
    verified = scores.get("val_map3_verified")
    return (
        f"fold {fold}: run {run_id}: {chosen} {scores['best_epoch'] + 1:.0f}, val_map3 {scores['val_map3']:.4f}, "
        f"val_acc {scores['val_acc']:.4f}"
        + (f", val_map3 on verified clips {verified:.4f}" if verified is not None else "")
    )


def _keep(dataset: Dataset, fold: int, result: FoldResult, kept: Kept) -> None:
    """Lay out what a fold leaves, as it will stand on the server."""
    with kept.new_results() as results:
        _lay_out(dataset, fold, result, results / "artifacts")
        rows = [
            {"key": key, "value": value, "step": epoch, "timestamp": milliseconds}
            for epoch, (metrics, milliseconds) in enumerate(zip(result.history, result.times, strict=True))
            for key, value in metrics.items()
        ]
        final = {"best_epoch": result.best_epoch, **result.scores, "train_seconds": result.seconds}
        end, when = len(result.history), runs.now()
        rows += [{"key": key, "value": value, "step": end, "timestamp": when} for key, value in final.items()]
        (results / METRICS).write_text(json.dumps(rows))


def _lay_out(dataset: Dataset, fold: int, result: FoldResult, folder: Path) -> None:
    (folder / "weights").mkdir()
    (folder / "weights" / WEIGHTS).write_bytes((result.folder / WEIGHTS).read_bytes())
    for path in result.folder.glob("tensorboard/*/*"):
        target = folder / path.relative_to(result.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (folder / "model.txt").write_text(result.summary)
    for name, value in (("config.json", dataset.config.to_dict()), ("labels.json", dataset.labels)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")

    predictions = folder / "predictions"
    predictions.mkdir()
    np.save(predictions / "train.npy", result.train)
    np.save(predictions / "test.npy", result.test)
    write_table(clip_table(dataset, result.splits), predictions / "clips.csv")
    test_names = dataset.manifest.test["fname"].tolist()
    write_table(submission(test_names, result.test, dataset.labels), predictions / "submission.csv")

    held_out, targets = result.train[result.held_out], dataset.targets[result.held_out]
    title, plots = f"{dataset.config.model}, fold {fold}", folder / "plots"
    plot_learning_curves(result.history, result.best_epoch, title, plots / "learning_curves.png")
    title += ": validation clips"
    plot_confusion(held_out, targets, dataset.labels, title, plots / "confusion.png")
    plot_class_precision(held_out, targets, dataset.labels, title, plots / "class_precision.png")


def clip_table(dataset: Dataset, splits: np.ndarray) -> pd.DataFrame:
    """``fname,split,label,manually_verified`` in the order of the prediction arrays: training, then test clips."""
    train, test = dataset.manifest.train, dataset.manifest.test
    columns = ["fname", "split", "label", "manually_verified"]
    above = train.assign(split=splits)[columns]
    below = pd.DataFrame({"fname": test["fname"], "split": "test", "label": "", "manually_verified": ""})
    return pd.concat([above, below[columns]], ignore_index=True)
