"""The training loop, and what watches it: validation, history, and the weights that are kept."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fsat import interrupts
from fsat.config import Config
from fsat.data.clips import Clips
from fsat.errors import FsatError
from fsat.metrics.ranking import accuracy, log_loss, map_at_k
from fsat.models import import_keras
from fsat.progress import Progress
from fsat.training.predict import Predictor

keras = import_keras()

VALIDATIONS = 20
"""How often a training that chooses nothing is validated: enough for a curve."""


def learning_rate(config: Config, step: int, n_steps: int) -> float:
    """The learning rate of a step: it rises in a line over the warm-up, then stays, or falls as a half cosine.

    Loshchilov and Hutter 2017, without restarts.

    Args:
        config: gives peak, schedule and warm-up.
        step: from 0.
        n_steps: of the whole training.
    """
    warm = config.warmup * n_steps
    if step < warm:
        return config.learning_rate * (step + 1) / (warm + 1)
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, n_steps - warm)))


@dataclass(frozen=True)
class Before:
    """The epochs of earlier sittings.

    Attributes:
        history: metrics of each.
        n_steps: batches of all of them.
    """

    history: Sequence[dict[str, float]] = ()
    n_steps: int = 0

    def tell(self, callbacks: keras.callbacks.CallbackList) -> None:
        """Let what stops early see them: it keeps no other state."""
        for callback in callbacks.callbacks:
            if isinstance(callback, keras.callbacks.EarlyStopping):
                for epoch, metrics in enumerate(self.history):
                    callback.on_epoch_end(epoch, metrics)


def fit(
    callbacks: keras.callbacks.CallbackList,
    batches: Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]],
    config: Config,
    n_steps: int,
    before: Before = Before(),
    after_epoch: Callable[[], None] = lambda: None,
) -> None:
    """Keras's `fit` for batches that threads make ahead; its own puts a tf.data pipeline between, which costs time.

    Args:
        callbacks: with the model to train.
        batches: of an epoch: inputs and targets.
        config: gives epochs and learning rate.
        n_steps: batches of all epochs.
        before: the epochs that were trained in an earlier sitting.
        after_epoch: called when an epoch is over, the callbacks included.
    """
    model, step = callbacks.model, before.n_steps
    changing = config.schedule != "constant" or config.warmup > 0
    model.stop_training = False
    callbacks.on_train_begin()
    before.tell(callbacks)
    for epoch in range(len(before.history), config.max_epochs):
        if model.stop_training:
            break
        callbacks.on_epoch_begin(epoch)
        sums, n_clips = Counter(), 0
        with closing(batches(epoch)) as of_epoch:
            for i, (inputs, targets) in enumerate(of_epoch):
                if changing:
                    model.optimizer.learning_rate = learning_rate(config, step, n_steps)
                logs = model.train_on_batch(inputs, targets, return_dict=True)
                sums.update({name: value * len(targets) for name, value in logs.items()})
                n_clips += len(targets)
                step += 1
                callbacks.on_train_batch_end(i, logs)
        callbacks.on_epoch_end(epoch, {name: total / n_clips for name, total in sums.items()})
        after_epoch()
    callbacks.on_train_end()


def callbacks_of(watch: Watch, config: Config) -> list[keras.callbacks.Callback]:
    """The watch, and what stops early where that is asked for."""
    if config.checkpoint != "best":
        return [watch]
    return [watch, keras.callbacks.EarlyStopping(monitor=watch.monitor, mode="min", patience=config.patience)]


def write_events(history: Sequence[dict[str, float]], times: Sequence[int], folder: Path) -> None:
    """TensorBoard's event files, with the names that Keras gives: one value an epoch, however often it was interrupted.

    Args:
        history: metrics of each epoch.
        times: when each of them ended, in milliseconds since 1970.
        folder: gets ``train/`` and ``validation/``.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for part, prefix, names in (
        ("train", "", ("loss", "acc", "learning_rate")), ("validation", "val_", ("loss", "acc", "map3")),
    ):  # fmt: skip
        writer = EventFileWriter(str(folder / part))
        for epoch, (metrics, milliseconds) in enumerate(zip(history, times, strict=True)):
            values = [
                Summary.Value(tag=f"epoch_{name}", simple_value=metrics[prefix + name])
                for name in names
                if prefix + name in metrics
            ]
            writer.add_event(Event(wall_time=milliseconds / 1000, step=epoch, summary=Summary(value=values)))
        writer.close()


@dataclass
class Watch(keras.callbacks.Callback):
    """Validates after each epoch, before the callbacks that look at the loss; keeps history and weights.

    Attributes:
        config: the settings.
        fold: its number.
        own: the fold's own clips and their classes.
        holdout: those that the best epoch is chosen by, if they are others.
        n_train: clips in an epoch.
        progress: told of each batch.
        history: metrics of each epoch.
        times: when each of them ended, in milliseconds since 1970.
        kept_epoch: the epoch whose weights are kept, or the last of those that are averaged.
        kept_weights: the weights.
        n_averaged: how many epochs they are the mean of, where they are one.
    """

    config: Config
    fold: int
    own: tuple[Clips, np.ndarray]
    holdout: tuple[Clips, np.ndarray] | None
    n_train: int
    progress: Progress
    history: list[dict[str, float]] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    kept_epoch: int = 0
    kept_weights: list[np.ndarray] = field(default_factory=list)
    n_averaged: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self.monitor = "holdout_loss" if self.holdout else "val_loss"
        self._predictors = [Predictor(clips, self.config) for clips, _ in filter(None, (self.own, self.holdout))]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stop here if a signal has come."""
        interrupts.check()
        self.progress.advance()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Validate, and put the scores where the next callbacks look for them."""
        trained = time.perf_counter() - self._started
        finite = math.isfinite(logs["loss"]) and self._validate(epoch, logs)
        if not finite:
            rate = self.config.learning_rate
            raise FsatError(f"the loss became {logs['loss']} in epoch {epoch}; lower learning_rate (it is {rate:g})")
        names = ("loss", "acc", "val_loss", "val_acc", "val_map3", "holdout_loss")
        metrics = {name: float(logs[name]) for name in names if name in logs}
        metrics["learning_rate"] = float(self.model.optimizer.learning_rate)
        metrics["epoch_seconds"] = time.perf_counter() - self._started
        metrics["clips_per_second"] = self.n_train / trained
        self.history.append(metrics)
        self.times.append(time.time_ns() // 1_000_000)
        news = self._keep(epoch)
        shown = "".join(
            f"  {name} {metrics[name]:.3f}" for name in ("loss", "val_loss", "val_map3", "holdout_loss")
            if name in metrics
        )  # fmt: skip
        self.progress.say(
            f"fold {self.fold}  epoch {epoch + 1}/{self.config.max_epochs}{shown}  "
            f"{metrics['clips_per_second']:.0f} clips/s{news}"
        )

    def _validate(self, epoch: int, logs: dict) -> bool:
        """Score the fold's own clips and those held aside, where this epoch asks for it; False if not finite."""
        last = epoch == self.config.max_epochs - 1
        chosen_by_own = self.config.checkpoint == "best" and not self.holdout
        finite = True
        if chosen_by_own or last or epoch % -(-self.config.max_epochs // VALIDATIONS) == 0:
            (scores,), targets = self._predictors[0](self.model), self.own[1]
            logs["val_loss"] = log_loss(scores, targets)
            logs["val_acc"] = accuracy(scores, targets)
            logs["val_map3"] = map_at_k(scores, targets)
            finite = bool(np.isfinite(scores).all())
        if self.holdout:
            (scores,) = self._predictors[1](self.model)
            logs["holdout_loss"] = log_loss(scores, self.holdout[1])
            finite = finite and bool(np.isfinite(scores).all())
        return finite

    def _keep(self, epoch: int) -> str:
        """Keep this epoch's weights if they are better, or as a part of the mean; what is to be said of it."""
        config = self.config
        if config.checkpoint == "best":
            if epoch and not self.history[-1][self.monitor] < self.history[self.kept_epoch][self.monitor]:
                return ""
            self.kept_epoch, self.kept_weights = epoch, self.model.get_weights()
            return "  best so far"
        self.kept_epoch = epoch
        if config.checkpoint == "last":
            if epoch == config.max_epochs - 1:
                self.kept_weights = self.model.get_weights()
            return ""
        n_averaged = max(1, round(config.average_last * config.max_epochs))
        if epoch >= config.max_epochs - n_averaged:
            self.n_averaged += 1
            weights = self.model.get_weights()
            if self.n_averaged == 1:
                self.kept_weights = weights
            self.kept_weights = [
                mean + (new - mean) / self.n_averaged if new.dtype.kind == "f" else new
                for mean, new in zip(self.kept_weights, weights, strict=True)
            ]
            return f"  averaged {self.n_averaged}/{n_averaged}"
        return ""
