"""The training loop: gradient steps, validation, history and the weights to keep."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from fsat import interrupts
from fsat.config import Config
from fsat.data.dataset import Dataset
from fsat.errors import FsatError
from fsat.metrics.task_scores import SCORE_NAMES, log_loss, task_scores
from fsat.progress import Progress
from fsat.training.batches import TrainingClips
from fsat.training.checkpoint import TrainingState
from fsat.training.predict_clips import Predictor
from fsat.training.warm_start import freeze, unfreeze

if TYPE_CHECKING:
    import keras

VALIDATIONS = 20
"""Number of validations of a training that does not select the best epoch: enough for a learning curve."""


def fit(
    model: keras.Model,
    clips: TrainingClips,
    fold: int,
    validation: Validation,
    state: TrainingState,
    on_epoch: Callable[[], None] = lambda: None,
) -> None:
    """Train a compiled model until the last epoch or until the loss no longer improves.

    Training starts after the epochs of `state`, which is updated after each epoch; then `on_epoch` is called. Raises
    `FsatError` if the loss is not finite.
    """
    config = clips.config
    steps = [clips.n_batches(epoch) for epoch in range(config.max_epochs)]
    n_steps, step = sum(steps), sum(steps[: state.n_epochs])
    if state.n_epochs < config.frozen_epochs:
        freeze(model, state.new_layers)
    with Progress(f"fold {fold} of {config.n_folds}", n_steps, step) as progress:
        while (epoch := state.n_epochs) < config.max_epochs:
            waited_since = max(state.best_epoch, config.frozen_epochs - 1)  # the loss may stand still while layers are
            if config.checkpoint == "best" and epoch - 1 - waited_since >= config.patience:
                break
            if config.frozen_epochs and epoch == config.frozen_epochs:
                unfreeze(model, state.new_layers)
            started = time.perf_counter()
            rates = [learning_rate(config, step + i, n_steps) for i in range(steps[epoch])]
            with closing(clips.batches(fold, epoch)) as batches:
                metrics = train_epoch(model, batches, rates, progress.advance)
            check_finite(metrics, epoch, config)
            trained = time.perf_counter() - started
            step += len(rates)
            metrics |= validation(model, epoch)
            check_finite(metrics, epoch, config)
            metrics["learning_rate"] = float(model.optimizer.learning_rate)
            metrics["epoch_seconds"] = time.perf_counter() - started
            metrics["clips_per_second"] = len(clips.clips) / trained
            state.history.append(metrics)
            state.times.append(time.time_ns() // 1_000_000)
            note = keep_weights(state, model, config)
            shown = ("loss", "val_loss", f"val_{SCORE_NAMES[config.task][0]}", "holdout_loss")
            names = [name for name in shown if name in metrics]
            scores = "".join(f"  {name} {metrics[name]:.3f}" for name in names)
            rate = f"  {metrics['clips_per_second']:.0f} clips/s"
            progress.say(f"fold {fold}  epoch {epoch + 1}/{config.max_epochs}{scores}{rate}{note}")
            on_epoch()


def train_epoch(
    model: keras.Model,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    rates: Sequence[float],
    on_step: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Take a gradient step for each batch, with the learning rate of that step; return the clips' mean loss and acc."""
    sums, n_clips = Counter[str](), 0
    for rate, (inputs, targets) in zip(rates, batches, strict=True):
        model.optimizer.learning_rate = rate
        metrics = model.train_on_batch(inputs, targets, return_dict=True)
        sums.update({name: value * len(targets) for name, value in metrics.items()})
        n_clips += len(targets)
        interrupts.check()
        on_step()
    return {name: float(sums[name] / n_clips) for name in ("loss", "acc")}


def learning_rate(config: Config, step: int, n_steps: int) -> float:
    """Return the learning rate of a step, from 0, of `n_steps`: a linear warm-up, then constant or half a cosine to 0.

    The cosine is that of Loshchilov and Hutter 2017, without restarts.
    """
    warmup_steps = config.warmup * n_steps
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / (warmup_steps + 1)
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - warmup_steps) / max(1.0, n_steps - warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class Validation:
    """Score the validation clips and, if configured, the holdout clips of a fold with these splits after an epoch."""

    def __init__(self, dataset: Dataset, splits: np.ndarray) -> None:
        config, val, holdout = dataset.config, splits == "val", splits == "holdout"
        self._val = Predictor(dataset.train.take(val), config), dataset.targets[val]
        self._holdout: tuple[Predictor, np.ndarray] | None = None
        if config.holdout:
            self._holdout = Predictor(dataset.train.take(holdout), config), dataset.targets[holdout]
        self._sigmoid = config.use_sigmoid
        self._last = config.max_epochs - 1
        selects = config.checkpoint == "best" and not config.holdout
        self._interval = 1 if selects else -(-config.max_epochs // VALIDATIONS)

    def __call__(self, model: keras.Model, epoch: int) -> dict[str, float]:
        """Return ``val_loss`` and the task's scores in epochs that are validated, and ``holdout_loss``."""
        metrics = {}
        if epoch == self._last or epoch % self._interval == 0:
            predictor, classes = self._val
            (scores,) = predictor(model)
            metrics["val_loss"] = log_loss(scores, classes, self._sigmoid)
            metrics |= {f"val_{name}": value for name, value in task_scores(scores, classes).items()}
        if self._holdout:
            predictor, classes = self._holdout
            metrics["holdout_loss"] = log_loss(predictor(model)[0], classes, self._sigmoid)
        return metrics


def check_finite(metrics: dict[str, float], epoch: int, config: Config) -> None:
    """Raise `FsatError` if a metric is not finite."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            advice = f"lower learning_rate (it is {config.learning_rate:g})"
            raise FsatError(f"epoch {epoch + 1}: {name} is {value}, expected a finite number; {advice}")


def keep_weights(state: TrainingState, model: keras.Model, config: Config) -> str:
    """Keep the model's weights if this epoch is better, or average them; return a note for the log."""
    epoch = state.n_epochs - 1
    if config.checkpoint == "best":
        monitor = "holdout_loss" if config.holdout else "val_loss"
        if epoch and not state.history[-1][monitor] < state.history[state.best_epoch][monitor]:
            return ""
        state.best_epoch, state.weights = epoch, model.get_weights()
        return "  best so far"
    state.best_epoch = epoch
    n_averaged = max(1, round(config.average_last * config.max_epochs)) if config.checkpoint == "average" else 1
    if epoch < config.max_epochs - n_averaged:
        return ""
    if config.checkpoint == "last":
        state.weights = model.get_weights()
        return ""
    state.n_averaged += 1
    weights = model.get_weights()
    pairs = zip(state.weights or weights, weights, strict=True)
    state.weights = [old + (new - old) / state.n_averaged if new.dtype.kind == "f" else new for old, new in pairs]
    return f"  averaged {state.n_averaged}/{n_averaged}"
