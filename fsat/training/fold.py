"""Train one fold: fit, then predict every clip with the kept weights.

An interrupted training resumes after its last finished epoch and gives the same results, bit by bit. Validation uses
the same fixed crops as prediction, so ``val_map3`` of the best epoch is the score of the predictions.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsat import interrupts
from fsat.data.dataset import Dataset
from fsat.data.folds import check_fold, hold_aside
from fsat.errors import ConfigError
from fsat.metrics.task_scores import SCORE_NAMES, label_prior, log_loss, task_scores
from fsat.models import build_for_training, import_keras, save_weights, seed_everything
from fsat.progress import say
from fsat.training.batches import TrainingClips
from fsat.training.checkpoint import TrainingState, restore, write_checkpoint
from fsat.training.loop import Validation, fit
from fsat.training.predict_clips import Predictor, predict_clips
from fsat.training.targets import Targets
from fsat.training.warm_start import Earlier, describe_new, start_from

if TYPE_CHECKING:
    import keras

WEIGHTS = "best.weights.h5"


@dataclass
class FoldResult:
    """Results of a trained fold.

    Attributes:
        state: epochs, kept weights and time of the training.
        scores: of the kept weights on the validation clips: ``best_val_loss``, those of the task (``val_map3 val_acc``
            or ``val_lwlrap val_map``) and, ending in ``_verified``, those on the verified ones among them, and
            ``val_map3_single_crop`` or ``val_lwlrap_single_crop``.
        train, test: float32 (n_clips, n_classes), predictions of the training and test clips in the tables' order.
        splits: str (n_train,), see `assign_splits`.
        summary: the model, layer by layer.
        folder: contains ``best.weights.h5`` and ``tensorboard/``.
    """

    state: TrainingState
    scores: dict[str, float]
    train: np.ndarray
    test: np.ndarray
    splits: np.ndarray
    summary: str
    folder: Path

    @property
    def held_out(self) -> np.ndarray:
        """Bool (n_train,): the validation clips of the fold."""
        return np.asarray(self.splits == "val")


def train_fold(
    dataset: Dataset,
    fold: int,
    folder: Path,
    on_epoch: Callable[[int, dict[str, float], int], None] = lambda epoch, metrics, milliseconds: None,
    checkpoint: Path | None = None,
    earlier: Callable[[], Earlier] | None = None,
    on_start: Callable[[dict[str, str]], None] = lambda new_layers: None,
) -> FoldResult:
    """Train `dataset.config.model` on the fold's training clips and predict every clip with the kept weights.

    Args:
        dataset: decoded clips and folds.
        fold: from 0.
        folder: an existing folder for weights and event files.
        on_epoch: called after every epoch with its number, its metrics, and its end in milliseconds since 1970; first
            for the epochs before a resumed training.
        checkpoint: a file to resume from if it exists; it is written after every epoch, before `on_epoch` is called.
        earlier: returns the model whose weights to start from; called unless the training is resumed.
        on_start: called with the layers that are new then, as from `start_from`.

    Raises:
        ConfigError: there is no such fold, or it has no training clips.
        FsatError: the loss is not finite, or the checkpoint cannot be written.
    """
    started = time.monotonic()
    config = dataset.config
    check_fold(fold, config)
    splits = assign_splits(dataset, fold)
    seed_everything((config.seed * 1009 + fold) % 2**32)
    train = splits == "train"
    classes, trusted, certainty = dataset.target_classes[train], dataset.trusted[train], dataset.certainty[train]
    targets = Targets(classes, trusted, len(dataset.labels), certainty)
    targets = targets.for_sigmoid() if config.use_sigmoid else targets
    clips = TrainingClips(dataset.train.take(train), targets, config)
    n_steps = sum(clips.n_batches(epoch) for epoch in range(config.max_epochs))
    model = build_for_training(config, len(dataset.labels), n_steps)
    adapt_normalization(model, clips)
    limit_momentum(model, clips.n_batches(0))
    state = restore(checkpoint, model, fold) if checkpoint else TrainingState()
    if earlier and not state.history:
        state.new_layers = start_from(model, config, dataset.labels, earlier())
        origin, new = f"the weights of run {config.init_run(fold)}", describe_new(state.new_layers)
        say(f"fold {fold} starts from {origin}; new layers: {new}")
        on_start(state.new_layers)
    earlier_seconds = state.seconds

    def save_and_report() -> None:
        state.seconds = earlier_seconds + time.monotonic() - started
        if checkpoint:
            write_checkpoint(checkpoint, state, model)
        on_epoch(state.n_epochs - 1, state.history[-1], state.times[-1])

    for epoch, (metrics, milliseconds) in enumerate(zip(state.history, state.times, strict=True)):
        on_epoch(epoch, metrics, milliseconds)
    fit(model, clips, fold, Validation(dataset, splits), state, save_and_report)
    interrupts.check()

    model.set_weights(state.weights)
    save_weights(model, folder / WEIGHTS)
    write_events(state, folder / "tensorboard")
    predictions = predict_clips(model, dataset.train, config)
    test = predict_clips(model, dataset.test, config, label_prior(dataset.targets, len(dataset.labels)))
    scores = _scores(dataset, splits == "val", predictions, model)
    summary = io.StringIO()
    model.summary(print_fn=lambda line: summary.write(line + "\n"), line_length=80)
    state.seconds = earlier_seconds + time.monotonic() - started
    return FoldResult(state, scores, predictions, test, splits, summary.getvalue(), folder)


def assign_splits(dataset: Dataset, fold: int) -> np.ndarray:
    """Return the split of each training clip, str (n_train,).

    It is ``val`` for the fold's validation clips, ``train``, ``holdout`` for clips that only select the best epoch, or
    ``unused`` for clips without target class or weight.

    Raises `ConfigError` if there are no training clips.
    """
    config = dataset.config
    splits = np.where(dataset.folds == fold, "val", "train").astype("<U7")
    weights = [config.unverified_weight_at(epoch) for epoch in range(config.max_epochs)]
    trusted, used = dataset.trusted, _used(dataset)
    if config.is_multi:
        trusted, used = np.any(trusted & used, axis=1), np.any(used, axis=1)
    splits[(splits == "train") & ~used] = "unused"
    if config.holdout:
        candidates = np.flatnonzero(splits == "train")
        holdout = hold_aside(dataset.manifest.train.iloc[candidates], dataset.targets[candidates], config, fold)
        splits[candidates[holdout]] = "holdout"
    train = splits == "train"
    if not train.any() or (min(weights) == 0 and not trusted[train].any()):
        settings = f"unverified_weight={config.unverified_weight} and labels_run_id={config.labels_run_id}"
        advice = "give unverified clips a weight above 0"
        raise ConfigError(f"fold={fold}: no training clips with {settings}; {advice}")
    return splits


def _used(dataset: Dataset) -> np.ndarray:
    """Return which clips, or which of their classes in ``multi``, have a target and a weight, of the shape of targets.

    The weight of unverified labels is that of the epoch in which it is highest.
    """
    config = dataset.config
    is_weighed = max(config.unverified_weight_at(epoch) for epoch in range(config.max_epochs)) > 0
    if config.is_multi:
        return np.asarray(np.where(dataset.trusted, dataset.certainty > 0, is_weighed))
    return np.asarray((dataset.target_classes >= 0) & (dataset.trusted | is_weighed))


def labels_without_clips(dataset: Dataset, splits: np.ndarray) -> list[str]:
    """Return the labels that no clip of the split ``train`` has as target class."""
    train = splits == "train"
    there = dataset.target_classes[train]
    if dataset.config.is_multi:
        there = np.flatnonzero((there & _used(dataset)[train]).any(axis=0))
    missing = np.setdiff1d(np.arange(len(dataset.labels)), there)
    return [dataset.labels[i] for i in missing]


def adapt_normalization(model: keras.Model, clips: TrainingClips) -> None:
    """Set the statistics of normalization layers: mean and deviation of the training clips."""
    keras = import_keras()
    import tensorflow as tf

    from fsat.models.embedding import EmbeddingNorm
    from fsat.models.layers import BandNorm

    for layer in model.layers:
        if isinstance(layer, BandNorm) and clips.levels:
            layer.set_levels(*clips.levels)
        elif isinstance(layer, EmbeddingNorm) and clips.embeddings:
            layer.set_levels(*clips.embeddings.levels())
        elif isinstance(layer, keras.layers.Normalization):
            signature = tf.TensorSpec((None, *clips.config.dim), tf.float32)
            predictor = Predictor(clips.clips, clips.config)
            layer.adapt(tf.data.Dataset.from_generator(predictor.batches, output_signature=signature))


def limit_momentum(model: keras.Model, n_batches: int) -> None:
    """Limit the moving averages of batch normalization to about one epoch of `n_batches`.

    Keras's momentum of 0.99 averages over a hundred batches, which can be fifty epochs of a small dataset: early
    stopping would end the training too soon.
    """
    keras = import_keras()
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = float(min(layer.momentum, 1 - 1 / max(2, n_batches)))


def write_events(state: TrainingState, folder: Path) -> None:
    """Write TensorBoard event files, with Keras's names, in ``train/`` and ``validation/`` of a folder."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    scores = [f"val_{name}" for names in SCORE_NAMES.values() for name in reversed(names)]
    curves = {"train": ["loss", "acc", "learning_rate"], "validation": ["val_loss", *scores]}
    for name, keys in curves.items():
        writer = EventFileWriter(str(folder / name))
        for epoch, (metrics, milliseconds) in enumerate(zip(state.history, state.times, strict=True)):
            tags = {f"epoch_{key.removeprefix('val_')}": metrics[key] for key in keys if key in metrics}
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in tags.items()]
            writer.add_event(Event(wall_time=milliseconds / 1000, step=epoch, summary=Summary(value=values)))
        writer.close()


def _scores(dataset: Dataset, val: np.ndarray, predictions: np.ndarray, model: keras.Model) -> dict[str, float]:
    """Score the validation clips; see `FoldResult.scores`."""
    config = dataset.config
    scores = {"best_val_loss": log_loss(predictions[val], dataset.targets[val], config.use_sigmoid)}
    for suffix, mask in (("", val), ("_verified", val & dataset.verified)):
        if mask.any():
            values = task_scores(predictions[mask], dataset.targets[mask])
            scores |= {f"val_{name}{suffix}": value for name, value in values.items()}
    if config.eval_crops > 1 and not config.use_embedding:
        single_crop = Predictor(dataset.train.take(val), replace(config, eval_crops=1), keep=False, cover=False)
        values, first = task_scores(single_crop(model)[0], dataset.targets[val]), SCORE_NAMES[config.task][0]
        scores |= {f"val_{first}_single_crop": values[first]} if first in values else {}
    return scores
