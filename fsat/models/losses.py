"""Losses for clips whose labels are trusted and for clips whose labels are unverified.

If all clips count equally by cross-entropy, targets are (batch, n_classes): cross-entropy is linear in them, so a
mixture of clips is one row. Otherwise targets are (batch, 3, n_classes): the sum of the trusted labels, the unverified
clip, and its unverified mixup partner, each times weight and share.

Where each class has an output of its own (a sigmoid), targets are (batch, 3, 2, n_classes): the same three, each with
the weight of the presence and of the absence of every class. A weight of 0 of both leaves the class out of the loss,
which is the mean over classes, as Keras's binary cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fsat.config import Config

if TYPE_CHECKING:
    import tensorflow as tf

TINY = 1e-7
"""Probabilities are clipped to this minimum before the logarithm, as in Keras."""


def is_linear(config: Config) -> bool:
    """Return whether all clips count equally by cross-entropy: targets are (batch, n_classes), rows sum to 1.

    Weighted rows do not sum to 1; TensorFlow's cross-entropy of a softmax has a wrong gradient for these.
    """
    weighted = config.unverified_weight not in ("0", "1") or config.labels_run_id != "none"
    return config.loss == "ce" and not config.drop_losses and not weighted


def compile_arguments(config: Config, n_steps: int) -> dict[str, Any]:
    """Return ``loss`` and ``metrics`` for `keras.Model.compile`; `n_steps` is as for `robust_loss`."""
    if config.use_sigmoid:
        return {"loss": binary_loss(config, n_steps), "metrics": [_binary_accuracy]}
    if is_linear(config):
        return {"loss": "categorical_crossentropy", "metrics": ["acc"]}

    def acc(targets: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        return tf.cast(tf.argmax(tf.reduce_sum(targets, axis=1), -1) == tf.argmax(predictions, -1), tf.float32)

    return {"loss": robust_loss(config, n_steps), "metrics": [acc]}


def target_shape(config: Config, n_classes: int) -> tuple[int, ...]:
    """Return the shape of the targets of a clip."""
    if config.use_sigmoid:
        return 3, 2, n_classes
    return (n_classes,) if is_linear(config) else (3, n_classes)


def _binary_accuracy(targets: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
    """Return the share of a clip's classes that are scored on the right side of 0.5, of those with a weight."""
    import tensorflow as tf

    present, absent = tf.unstack(tf.reduce_sum(targets, axis=1), axis=1)
    right, known = (present > absent) == (predictions > 0.5), present + absent > 0
    n_right, n_known = (tf.reduce_sum(tf.cast(mask, tf.float32), axis=-1) for mask in (right & known, known))
    return tf.math.divide_no_nan(n_right, n_known)


_binary_accuracy.__name__ = "acc"  # Keras's name of the metric


def binary_loss(config: Config, n_steps: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return the loss of targets (batch, 3, 2, n_classes) and probabilities (batch, n_classes): float32 (batch,).

    It is the binary cross-entropy of each class. Unverified labels have the losses of `robust_loss` for two classes,
    presence and absence. ``focal`` weights the loss of either by (1 - p)^gamma, with p its probability (Lin et al.
    2017). ``drop_losses`` ignores single labels rather than clips, since a missing label is wrong by itself (Kim et
    al. 2022, "Large loss matters in weakly supervised multi-label classification").
    """
    import tensorflow as tf

    warmup_steps = max(1.0, config.warmup * n_steps)
    step = tf.Variable(0.0, trainable=False, dtype=tf.float32, name="steps_seen")

    def loss(targets: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
        p = tf.stack([predictions, 1 - predictions], axis=1)  # batch, 2, classes: of presence and absence
        p = tf.clip_by_value(p, TINY, 1.0)
        losses = -tf.math.log(p)
        focus = tf.maximum(1 - p, TINY) ** config.focal if config.focal else 1.0  # finite gradient at 1
        robust = -tf.math.expm1(-config.lq * losses) / config.lq if config.loss == "lq" else losses
        losses, robust = losses * focus, robust * focus
        total = tf.reduce_sum(targets[:, 0] * losses, axis=1)  # batch, classes
        if config.loss == "ce" and not config.drop_losses:
            return tf.reduce_mean(total, axis=-1)
        unverified = targets[:, 1:]  # batch, 2, 2, classes
        weights = tf.reduce_sum(unverified, axis=2)  # batch, 2, classes
        labels = tf.math.divide_no_nan(unverified, weights[:, :, tf.newaxis])
        if config.loss == "soft_bootstrap":
            labels = config.bootstrap * labels + (1 - config.bootstrap) * p[:, tf.newaxis]
        elif config.loss == "hard_bootstrap":
            sides = tf.cast(tf.stack([predictions > 0.5, predictions <= 0.5], axis=1), tf.float32)
            labels = config.bootstrap * labels + (1 - config.bootstrap) * sides[:, tf.newaxis]
        each = tf.reduce_sum(labels * robust[:, tf.newaxis], axis=2)  # batch, 2, classes
        if config.drop_losses:
            share = config.drop_losses * tf.minimum(1.0, step / warmup_steps)
            weights *= small_losses(each, weights > 0, share)
            step.assign_add(1.0)
        return tf.reduce_mean(total + tf.reduce_sum(weights * each, axis=1), axis=-1)

    loss.step = step  # type: ignore[attr-defined]
    return loss


def robust_loss(config: Config, n_steps: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return the loss of targets (batch, 3, n_classes) and probabilities (batch, n_classes): float32 (batch,).

    With p the probability of the label: ``lq`` is (1 - p^q) / q (generalized cross entropy; Zhang and Sabuncu 2018);
    ``soft_bootstrap`` and ``hard_bootstrap`` are the cross-entropy with a mixture of the label, weight b, and the
    prediction or its top class, weight 1 - b (Reed et al. 2015). ``drop_losses`` ignores the unverified clips with the
    largest losses of a batch (small-loss selection; Han et al. 2018); their share grows during the warm-up.

    The loss's attribute ``step``, a variable, counts the batches; `n_steps` is their number in the whole training.
    """
    import tensorflow as tf

    warmup_steps = max(1.0, config.warmup * n_steps)
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
            top = tf.one_hot(tf.argmax(p, axis=-1), p.shape[-1])
            labels = config.bootstrap * labels + (1 - config.bootstrap) * top[:, tf.newaxis]
        losses = -tf.reduce_sum(labels * log_p[:, tf.newaxis], axis=-1)
        if config.loss == "lq":
            losses = -tf.math.expm1(-config.lq * losses) / config.lq
        if config.drop_losses:
            share = config.drop_losses * tf.minimum(1.0, step / warmup_steps)
            weights *= small_losses(losses, weights > 0, share)
            step.assign_add(1.0)
        return total + tf.reduce_sum(weights * losses, axis=-1)

    loss.step = step  # type: ignore[attr-defined]
    return loss


def small_losses(losses: tf.Tensor, valid: tf.Tensor, drop: tf.Tensor) -> tf.Tensor:
    """Return a float32 mask: 0 for the share `drop` of the valid elements with the largest losses, 1 elsewhere."""
    import tensorflow as tf

    flat = tf.where(valid, losses, -1.0)  # invalid elements sort last
    ranks = tf.argsort(tf.argsort(tf.reshape(flat, [-1]), direction="DESCENDING", stable=True), stable=True)
    n_dropped = tf.cast(tf.floor(drop * tf.reduce_sum(tf.cast(valid, tf.float32))), tf.int32)
    return tf.cast(tf.reshape(ranks >= n_dropped, tf.shape(losses)), tf.float32)
