"""How a wrong answer is counted, of clips whose labels are trusted and of those that nobody has checked.

Where all clips count alike by cross-entropy, mixtures fold into one row of targets, because it is linear in them. Else
the parts are kept apart: targets are then (batch, 3, n_classes), the sum of what is trusted, the unverified clip,
and the unverified partner that it is mixed with, each times weight and share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fsat.config import Config

if TYPE_CHECKING:
    import tensorflow as tf

TINY = 1e-7
"""The least probability whose logarithm is taken, as in Keras."""


def is_linear(config: Config) -> bool:
    """Whether all clips count alike, by cross-entropy, so that targets are (batch, n_classes) and rows sum to 1.

    TensorFlow's cross-entropy of a softmax has a wrong gradient for rows that do not, such as weighted ones.
    """
    weighted = config.unverified_weight not in ("0", "1") or config.labels_run_id != "none"
    return config.loss == "ce" and not config.drop_losses and not weighted


def compile_arguments(config: Config, n_steps: int) -> dict[str, Any]:
    """``loss`` and ``metrics`` for `keras.Model.compile`.

    Args:
        config: gives the loss.
        n_steps: batches of the whole training.
    """
    if is_linear(config):
        return {"loss": "categorical_crossentropy", "metrics": ["acc"]}

    def acc(targets: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        return tf.cast(tf.argmax(tf.reduce_sum(targets, axis=1), -1) == tf.argmax(predictions, -1), tf.float32)

    return {"loss": robust_loss(config, n_steps), "metrics": [acc]}


def robust_loss(config: Config, n_steps: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The loss of targets (batch, 3, n_classes) and probabilities (batch, n_classes): float32 (batch,).

    With p the probability of the label: ``lq`` is (1 - p^q) / q (generalised cross entropy; Zhang and Sabuncu 2018);
    ``soft_bootstrap`` and ``hard_bootstrap`` are the cross-entropy with the label's share b and a share 1 - b of the
    prediction itself, or of its best guess (Reed et al. 2015). ``drop_losses`` leaves out the unverified clips of a
    batch with the greatest loss (small-loss selection; Han et al. 2018), a share that grows over the warm-up. Its
    attribute ``step``, a variable, counts the batches for that.
    """
    import tensorflow as tf

    steps_of_growth = max(1.0, config.warmup * n_steps)
    step = tf.Variable(0.0, trainable=False, dtype=tf.float32, name="steps_seen")

    def loss(targets: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        p = tf.clip_by_value(predictions, TINY, 1.0)
        log_p = tf.math.log(p)
        total = -tf.reduce_sum(targets[:, 0] * log_p, axis=-1)
        unverified = targets[:, 1:]  # batch, 2, classes
        weights = tf.reduce_sum(unverified, axis=-1)  # batch, 2
        labels = tf.math.divide_no_nan(unverified, weights[..., tf.newaxis])
        if config.loss == "soft_bootstrap":
            labels = config.bootstrap * labels + (1 - config.bootstrap) * p[:, tf.newaxis]
        elif config.loss == "hard_bootstrap":
            guess = tf.one_hot(tf.argmax(p, axis=-1), p.shape[-1])
            labels = config.bootstrap * labels + (1 - config.bootstrap) * guess[:, tf.newaxis]
        losses = -tf.reduce_sum(labels * log_p[:, tf.newaxis], axis=-1)
        if config.loss == "lq":
            losses = -tf.math.expm1(-config.lq * losses) / config.lq
        if config.drop_losses:
            share = config.drop_losses * tf.minimum(1.0, step / steps_of_growth)
            weights *= small_losses(losses, weights > 0, share)
            step.assign_add(1.0)
        return total + tf.reduce_sum(weights * losses, axis=-1)

    loss.step = step  # a training that goes on in another process must find it where it was
    return loss


def small_losses(losses: tf.Tensor, there: tf.Tensor, drop: tf.Tensor) -> tf.Tensor:
    """1 for the elements with the smallest losses, 0 for a share `drop` of those that are there, with the greatest.

    Args:
        losses: float32, any shape.
        there: bool, the elements that count.
        drop: scalar in [0, 1).
    """
    import tensorflow as tf

    flat = tf.where(there, losses, -1.0)  # losses are at least 0, so what is not there comes last
    ranks = tf.argsort(tf.argsort(tf.reshape(flat, [-1]), direction="DESCENDING", stable=True), stable=True)
    n_dropped = tf.cast(tf.floor(drop * tf.reduce_sum(tf.cast(there, tf.float32))), tf.int32)
    return tf.cast(tf.reshape(ranks >= n_dropped, tf.shape(losses)), tf.float32)
