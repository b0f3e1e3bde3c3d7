"""Training one fold: fit, then predict every clip with the weights that are kept.

A training that was stopped goes on after its last finished epoch, and leaves the same, bit for bit.

Validation uses the same fixed crops as prediction, so where the best epoch's weights are kept, its val_map3 is the
score of the predictions.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fsat import interrupts
from fsat.data.dataset import Dataset
from fsat.data.folds import check_fold, hold_aside
from fsat.errors import ConfigError
from fsat.metrics.blending import label_prior
from fsat.metrics.ranking import accuracy, log_loss, map_at_k
from fsat.models import build_for_training, import_keras, save_weights, seed_everything
from fsat.progress import Progress
from fsat.training.batches import TrainingClips
from fsat.training.checkpoint import Checkpoint, restore, variables_of
from fsat.training.loop import Before, Watch, callbacks_of, fit, write_events
from fsat.training.predict import Predictor, predict_clips, predict_or_prior
from fsat.training.targets import Lessons

keras = import_keras()

WEIGHTS = "best.weights.h5"


@dataclass
class FoldResult:
    """What a trained fold leaves.

    Attributes:
        history: per epoch ``loss acc learning_rate epoch_seconds clips_per_second``, ``val_loss val_acc val_map3`` in
            the epochs that were validated, and ``holdout_loss`` where clips were held aside.
        times: when each epoch ended, in milliseconds since 1970.
        best_epoch: the epoch, from 0, whose weights are kept: the one with the least loss, or the last.
        scores: of the kept weights on the fold's own clips: ``best_val_loss val_map3 val_acc``, the last two with
            ``_verified`` on the verified clips alone where there are any, and ``val_map3_single_crop``.
        train: float32 (n_train, n_classes), every training clip in manifest order.
        test: float32 (n_test, n_classes), the test table's order.
        splits: str (n_train,): ``val`` for the fold's own clips, ``train``, ``holdout`` for those that only chose the
            epoch, and ``unused`` for those that took no part.
        summary: the model, layer by layer.
        folder: holds ``best.weights.h5`` and ``tensorboard/``.
        seconds: how long it took, in all sittings.
    """

    history: list[dict[str, float]]
    times: list[int]
    best_epoch: int
    scores: dict[str, float]
    train: np.ndarray
    test: np.ndarray
    splits: np.ndarray
    summary: str
    folder: Path
    seconds: float

    @property
    def held_out(self) -> np.ndarray:
        """Bool (n_train,): the fold's own clips, which it did not train on."""
        return self.splits == "val"


def train_fold(
    dataset: Dataset,
    fold: int,
    folder: Path,
    on_epoch: Callable[[int, dict[str, float], int], None] = lambda epoch, metrics, milliseconds: None,
    checkpoint: Path | None = None,
) -> FoldResult:
    """Train `dataset.config.model` on all clips but the fold's own, and predict every clip with the weights kept.

    Args:
        dataset: decoded clips and folds.
        fold: from 0.
        folder: an existing folder for weights and event files.
        on_epoch: called after every epoch with its number, its metrics, and when it ended in milliseconds since 1970;
            those of an earlier sitting come again first, all the same.
        checkpoint: a file that is written after every epoch, before `on_epoch` is called. If it is there, the training
            goes on from it.

    Raises:
        ConfigError: there is no such fold, or no clip is left to train on.
        FsatError: the loss became NaN or infinite, or the checkpoint cannot be written.
    """
    started = time.monotonic()
    config, n_classes = dataset.config, len(dataset.labels)
    check_fold(fold, config)
    splits = split(dataset, fold)
    seed_everything((config.seed * 1009 + fold) % 2**32)
    taught = splits == "train"
    lessons = Lessons(dataset.target_classes[taught], dataset.trusted[taught], n_classes, dataset.certainty[taught])
    clips = TrainingClips(dataset.train.take(taught), lessons, config)
    steps = [clips.n_batches(epoch) for epoch in range(config.max_epochs)]
    n_steps = sum(steps)
    model = build_for_training(config, n_classes, n_steps)
    _standardise(model, clips)
    _follow_statistics(model, clips.n_batches(0))
    with Progress(f"fold {fold} of {config.n_folds}", n_steps) as progress:
        own, aside = (
            (dataset.train.take(splits == name), dataset.targets[splits == name]) for name in ("val", "holdout")
        )
        watch = Watch(config, fold, own, aside if len(aside[1]) else None, int(taught.sum()), progress)
        earlier = restore(checkpoint, model, watch) if checkpoint else 0.0
        n_before = len(watch.history)
        before = Before(tuple(watch.history), sum(steps[:n_before]))
        progress.advance(before.n_steps)
        for epoch in range(n_before):
            on_epoch(epoch, watch.history[epoch], watch.times[epoch])

        def after_epoch() -> None:
            if checkpoint:
                seconds = earlier + time.monotonic() - started
                Checkpoint(
                    variables_of(model), watch.kept_weights, watch.kept_epoch, watch.n_averaged, watch.history,
                    watch.times, seconds,
                ).write(checkpoint)  # fmt: skip
            on_epoch(len(watch.history) - 1, watch.history[-1], watch.times[-1])

        callbacks = keras.callbacks.CallbackList(
            callbacks_of(watch, config), model=model, epochs=config.max_epochs, steps=steps[0]
        )
        fit(callbacks, lambda epoch: clips.batches(fold, epoch), config, n_steps, before, after_epoch)
    interrupts.check()

    model.set_weights(watch.kept_weights)
    save_weights(model, folder / WEIGHTS)
    write_events(watch.history, watch.times, folder / "tensorboard")
    train_predictions = predict_clips(model, dataset.train, config)
    test_predictions = predict_or_prior(model, dataset.test, config, label_prior(dataset.targets, n_classes))
    scores = _scores(dataset, splits == "val", train_predictions)
    if config.eval_crops > 1:
        single = Predictor(own[0], replace(config, eval_crops=1), keep=False)
        scores["val_map3_single_crop"] = map_at_k(single(model)[0], own[1])
    summary = io.StringIO()
    model.summary(print_fn=lambda line: summary.write(line + "\n"), line_length=80)
    seconds = earlier + time.monotonic() - started
    return FoldResult(
        watch.history, watch.times, watch.kept_epoch, scores, train_predictions, test_predictions, splits,
        summary.getvalue(), folder, seconds,
    )  # fmt: skip


def split(dataset: Dataset, fold: int) -> np.ndarray:
    """What each training clip is to a fold: str (n_train,), see `FoldResult.splits`.

    Raises:
        ConfigError: no clip is left to train on.
    """
    config = dataset.config
    splits = np.where(dataset.folds == fold, "val", "train").astype("<U7")
    weights = [config.unverified_weight_at(epoch) for epoch in range(config.max_epochs)]
    unused = (dataset.target_classes < 0) | (~dataset.trusted & (max(weights) == 0))
    splits[(splits == "train") & unused] = "unused"
    if config.holdout:
        candidates = splits == "train"
        aside = hold_aside(dataset.manifest.train[candidates], dataset.targets[candidates], config, fold)
        splits[np.flatnonzero(candidates)[aside]] = "holdout"
    train = splits == "train"
    if not train.any() or (min(weights) == 0 and not dataset.trusted[train].any()):
        raise ConfigError(
            f"fold={fold}: no clip is left to train on with unverified_weight={config.unverified_weight} and "
            f"labels_run_id={config.labels_run_id}; give unverified clips a weight above 0"
        )
    return splits


def untaught(dataset: Dataset, splits: np.ndarray) -> list[str]:
    """Labels that no clip of the split ``train`` is taught as: all of theirs are left out, replaced or held aside."""
    taught = np.unique(dataset.target_classes[splits == "train"])
    return [label for i, label in enumerate(dataset.labels) if i not in taught]


def _scores(dataset: Dataset, own: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    scores = {"best_val_loss": log_loss(predictions[own], dataset.targets[own])}
    for suffix, mask in (("", own), ("_verified", own & dataset.verified)):
        if mask.any():
            scores["val_map3" + suffix] = map_at_k(predictions[mask], dataset.targets[mask])
            scores["val_acc" + suffix] = accuracy(predictions[mask], dataset.targets[mask])
    return scores


def _standardise(model: keras.Model, clips: TrainingClips) -> None:
    """Give the model the mean and deviation of each coefficient or band over the training clips, if it takes them."""
    if clips.levels:
        from fsat.models.logmel import BANDS

        model.get_layer(BANDS).settle(*clips.levels)
    elif clips.config.use_mfcc:
        import tensorflow as tf

        from fsat.models.mfcc import STANDARDISE

        crops = tf.data.Dataset.from_generator(
            Predictor(clips.clips, clips.config).batches,
            output_signature=tf.TensorSpec((None, *clips.config.dim), tf.float32),
        )
        model.get_layer(STANDARDISE).adapt(crops)


def _follow_statistics(model: keras.Model, n_batches: int) -> None:
    """Let batch normalisation average over about one epoch.

    Keras's momentum of 0.99 averages over a hundred batches. A small dataset has two batches an epoch, so validation
    would see the statistics of fifty epochs ago, and early stopping would end the training before it began.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = float(min(layer.momentum, 1 - 1 / max(2, n_batches)))
