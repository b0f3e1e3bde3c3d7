"""Training one fold: fit with early stopping on val_loss, then predict every clip with the best weights.

Validation uses the same fixed crops as prediction, so the best epoch's val_map3 is the score of the predictions that
are kept.
"""

from __future__ import annotations

import io
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fsat import interrupts
from fsat.config import Config
from fsat.data.clips import Clips
from fsat.data.dataset import Dataset
from fsat.data.folds import check_fold
from fsat.errors import FsatError
from fsat.models import build_for_training, import_keras, save_weights, seed_everything
from fsat.progress import Progress
from fsat.scoring.blend import label_prior
from fsat.scoring.metrics import accuracy, log_loss, map_at_k
from fsat.training.batches import training_batches
from fsat.training.predict import Predictor, predict_clips, predict_or_prior

keras = import_keras()

WEIGHTS = "best.weights.h5"


@dataclass
class FoldResult:
    """What a trained fold leaves.

    Attributes:
        history: per epoch ``loss acc val_loss val_acc val_map3 learning_rate epoch_seconds clips_per_second``.
        best_epoch: the epoch, from 0, with the least val_loss.
        scores: ``best_val_loss val_map3 val_acc`` of the best weights, and ``val_map3_verified`` where there are
            verified clips.
        train: float32 (n_train, n_classes), every training clip in manifest order.
        test: float32 (n_test, n_classes), the test table's order.
        held_out: bool (n_train,), the clips that this fold did not train on.
        summary: the model, layer by layer.
        folder: holds ``best.weights.h5`` and ``tensorboard/``.
    """

    history: list[dict[str, float]]
    best_epoch: int
    scores: dict[str, float]
    train: np.ndarray
    test: np.ndarray
    held_out: np.ndarray
    summary: str
    folder: Path


def train_fold(
    dataset: Dataset,
    fold: int,
    folder: Path,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, metrics: None,
) -> FoldResult:
    """Train `dataset.config.model` on all clips but the fold's own, and predict every clip with the best weights.

    Args:
        dataset: decoded clips and folds.
        fold: from 0.
        folder: an existing folder for weights and event files.
        on_epoch: called after every epoch with its number and metrics.

    Raises:
        ConfigError: there is no such fold.
        FsatError: the loss became NaN or infinite.
    """
    config = dataset.config
    check_fold(fold, config)
    seed_everything((config.seed * 1009 + fold) % 2**32)
    held_out = dataset.folds == fold
    train_clips = dataset.train.take(np.flatnonzero(~held_out))
    train_targets = dataset.targets[~held_out]
    model = build_for_training(config, len(dataset.labels))
    if config.use_mfcc:
        _standardise(model, train_clips, config)

    n_batches = math.ceil(len(train_clips) / config.batch_size)
    _follow_statistics(model, n_batches)
    with Progress(f"fold {fold} of {config.n_folds}", config.max_epochs * n_batches) as progress:
        watch = _Watch(dataset, fold, len(train_clips), progress, on_epoch)
        callbacks = [
            watch,
            keras.callbacks.EarlyStopping(monitor="val_loss", mode="min", patience=config.patience),
            _EventFiles(folder / "tensorboard", write_graph=False),
        ]
        _fit(
            keras.callbacks.CallbackList(callbacks, model=model, epochs=config.max_epochs, steps=n_batches),
            lambda epoch: training_batches(train_clips, train_targets, len(dataset.labels), config, fold, epoch),
            config.max_epochs,
        )
    interrupts.check()

    model.set_weights(watch.best_weights)
    save_weights(model, folder / WEIGHTS)
    best = watch.best_epoch
    train_predictions = predict_clips(model, dataset.train, config)
    test_predictions = predict_or_prior(model, dataset.test, config, label_prior(dataset.targets, len(dataset.labels)))
    scores = {
        "best_val_loss": watch.history[best]["val_loss"],
        "val_map3": map_at_k(train_predictions[held_out], dataset.targets[held_out]),
        "val_acc": accuracy(train_predictions[held_out], dataset.targets[held_out]),
    }
    verified = held_out & dataset.verified
    if verified.any():
        scores["val_map3_verified"] = map_at_k(train_predictions[verified], dataset.targets[verified])
    summary = io.StringIO()
    model.summary(print_fn=lambda line: summary.write(line + "\n"), line_length=80)
    return FoldResult(
        watch.history, best, scores, train_predictions, test_predictions, held_out, summary.getvalue(), folder
    )


def _standardise(model: keras.Model, clips: Clips, config: Config) -> None:
    """Give the model the mean and deviation of each coefficient over the training clips' fixed crops."""
    import tensorflow as tf

    from fsat.models.mfcc import STANDARDISE

    crops = tf.data.Dataset.from_generator(
        Predictor(clips, config).batches,
        output_signature=tf.TensorSpec((None, *config.dim), tf.float32),
    )
    model.get_layer(STANDARDISE).adapt(crops)


def _follow_statistics(model: keras.Model, n_batches: int) -> None:
    """Let batch normalisation average over about one epoch.

    Keras's momentum of 0.99 averages over a hundred batches. A small dataset has two batches an epoch, so validation
    would see the statistics of fifty epochs ago, and early stopping would end the training before it began.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, 1 - 1 / max(2, n_batches))


def _fit(
    callbacks: keras.callbacks.CallbackList,
    batches: Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]],
    max_epochs: int,
) -> None:
    """Keras's `fit` for batches that threads make ahead; its own puts a tf.data pipeline between, which costs time.

    Args:
        callbacks: with the model to train.
        batches: of an epoch: inputs and targets.
        max_epochs: unless a callback stops the training.
    """
    model = callbacks.model
    model.stop_training = False
    callbacks.on_train_begin()
    for epoch in range(max_epochs):
        callbacks.on_epoch_begin(epoch)
        sums, n_clips = Counter(), 0
        with closing(batches(epoch)) as of_epoch:
            for i, (inputs, targets) in enumerate(of_epoch):
                logs = model.train_on_batch(inputs, targets, return_dict=True)
                sums.update({name: value * len(targets) for name, value in logs.items()})
                n_clips += len(targets)
                callbacks.on_train_batch_end(i, logs)
        callbacks.on_epoch_end(epoch, {name: total / n_clips for name, total in sums.items()})
        if model.stop_training:
            break
    callbacks.on_train_end()


class _EventFiles(keras.callbacks.TensorBoard):
    """TensorBoard's event files, an entry an epoch; without the hooks around each batch, which cost time."""

    on_train_batch_begin = keras.callbacks.Callback.on_train_batch_begin
    on_train_batch_end = keras.callbacks.Callback.on_train_batch_end


@dataclass
class _Watch(keras.callbacks.Callback):
    """Validates after each epoch, before the callbacks that look at val_loss; keeps history and best weights."""

    dataset: Dataset
    fold: int
    n_train: int
    progress: Progress
    on_epoch: Callable[[int, dict[str, float]], None]
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        held_out = np.flatnonzero(self.dataset.folds == self.fold)
        self.targets = self.dataset.targets[held_out]
        self.predictor = Predictor(self.dataset.train.take(held_out), self.dataset.config)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stop here if a signal has come."""
        interrupts.check()
        self.progress.advance()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Validate, and put the scores where the next callbacks look for them."""
        trained = time.perf_counter() - self.started
        (scores,) = self.predictor(self.model)
        logs["val_loss"] = log_loss(scores, self.targets)
        logs["val_acc"] = accuracy(scores, self.targets)
        logs["val_map3"] = map_at_k(scores, self.targets)
        if not (math.isfinite(logs["loss"]) and np.isfinite(scores).all()):
            rate = self.dataset.config.learning_rate
            raise FsatError(f"the loss became {logs['loss']} in epoch {epoch}; lower learning_rate (it is {rate:g})")
        metrics = {name: float(logs[name]) for name in ("loss", "acc", "val_loss", "val_acc", "val_map3")}
        metrics["learning_rate"] = float(self.model.optimizer.learning_rate)
        metrics["epoch_seconds"] = time.perf_counter() - self.started
        metrics["clips_per_second"] = self.n_train / trained
        self.history.append(metrics)
        best = epoch == 0 or metrics["val_loss"] < self.history[self.best_epoch]["val_loss"]
        if best:
            self.best_epoch, self.best_weights = epoch, self.model.get_weights()
        self.progress.say(
            f"fold {self.fold}  epoch {epoch + 1}/{self.dataset.config.max_epochs}  loss {metrics['loss']:.3f}  "
            f"val_loss {metrics['val_loss']:.3f}  val_map3 {metrics['val_map3']:.3f}  "
            f"{metrics['clips_per_second']:.0f} clips/s{'  best so far' if best else ''}"
        )
        self.on_epoch(epoch, metrics)
