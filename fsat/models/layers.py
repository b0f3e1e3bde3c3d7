"""Layers that the models share: forms of the usual ones that a CPU runs several times faster.

Conventions: batches of sequences are (batch, steps, channels). What the layers compute is what Keras's own compute, up
to rounding; `benchmarks/` has what the form gives.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers


class AudioNorm(layers.Layer):
    """Scale each crop to [-0.5, 0.5] by its own least and greatest sample, as the notebook does.

    Input and output are float32 (batch, samples, 1), whatever the precision of the layers that follow.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(dtype="float32", **options)

    def call(self, crops: tf.Tensor) -> tf.Tensor:
        """Normalise a batch of crops."""
        low = tf.reduce_min(crops, axis=1, keepdims=True)
        high = tf.reduce_max(crops, axis=1, keepdims=True)
        return (crops - low) / (high - low + 1e-6) - 0.5


class BandNorm(layers.Layer):
    """Take from each mel band its mean over the training clips, and divide all by one deviation.

    One deviation for all, because a band that was always silent in training has none of its own. Both are weights, so
    that they travel with the rest. Input and output are float32 (batch, frames, mels, 1), whatever the precision of the
    layers that follow.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(dtype="float32", **options)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights."""
        self.mean = self.add_weight(name="mean", shape=(input_shape[2], 1), initializer="zeros", trainable=False)
        self.deviation = self.add_weight(name="deviation", shape=(), initializer="ones", trainable=False)

    def settle(self, mean: np.ndarray, deviation: float) -> None:
        """Set the weights: the bands' means, float (mels,), and the deviation, in dB; of silence it is taken as 1."""
        self.mean.assign(mean[:, np.newaxis])
        self.deviation.assign(deviation or 1.0)

    def call(self, decibels: tf.Tensor) -> tf.Tensor:
        """Normalise a batch of spectrograms in decibels."""
        return (decibels - self.mean) / self.deviation


class ConvReLU1D(layers.Conv1D):
    """``Conv1D(activation="relu")``, and the maximum over `pool_size` steps after it if that is given.

    The weights are those of `keras.layers.Conv1D`. Three things are done otherwise:

    - The convolution is two-dimensional with a height of 1, because TensorFlow fuses bias and ReLU into that alone.
    - Pooling comes before bias and ReLU. Both are monotonic in each channel, so the result is the same, on a
      `pool_size`-th of the elements.
    - The bias gradient is summed by a matrix product. In bfloat16 TensorFlow sums it in bfloat16, which stops
      growing at 256 times an addend: of two million addends next to nothing is left.

    Args:
        filters, kernel_size: as for Conv1D.
        pool_size: steps that each output is the greatest of; 0 for no pooling, -1 for all steps, which leaves
            (batch, filters).
    """

    def __init__(self, filters: int, kernel_size: int, pool_size: int = 0, **options: Any) -> None:
        super().__init__(filters, kernel_size, padding="valid", **options)
        self.pool_size = pool_size

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """(batch, steps, channels) to (batch, steps left, filters), or (batch, filters) with ``pool_size=-1``."""
        x = tf.nn.conv2d(tf.expand_dims(inputs, 1), tf.expand_dims(self.kernel, 0), strides=1, padding="VALID")
        if self.pool_size < 0:
            x = tf.reduce_max(x, axis=2, keepdims=True)
        elif self.pool_size:
            x = tf.nn.max_pool2d(x, (1, self.pool_size), (1, self.pool_size), "VALID")
        x = tf.nn.relu(bias_add(x, tf.convert_to_tensor(self.bias)))
        return tf.squeeze(x, axis=(1, 2) if self.pool_size < 0 else 1)  # a slice would cost a copy in the gradient

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the output for a shape of the input."""
        batch, steps, filters = super().compute_output_shape(input_shape)
        if self.pool_size < 0:
            return batch, filters
        return batch, steps and steps // (self.pool_size or 1), filters

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        return {
            "filters": self.filters,
            "kernel_size": self.kernel_size[0],
            "pool_size": self.pool_size,
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
        }


class BatchNorm(layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the last axis, as one operation.

    Keras puts it together from several, and its gradient is a sum of three parts that TensorFlow adds in the order in
    which they get ready: the last digits differ from run to run.

    Input and output are (..., channels) in the layer's precision; mean and variance are float32.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Normalise by the batch, and follow its statistics, or by the statistics that were followed."""
        learn = bool(training and self.trainable)
        flat = inputs if inputs.shape.rank == 4 else tf.reshape(inputs, (-1, 1, 1, inputs.shape[-1]))
        none = tf.zeros((0,), tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=flat,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=none if learn else tf.convert_to_tensor(self.moving_mean),
            variance=none if learn else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=learn,
        )
        if learn:
            n = tf.cast(tf.size(flat, tf.int64) // flat.shape[-1], tf.float32)
            variance *= tf.maximum(n - 1, 1) / n  # the operation's is that of a sample, over n - 1
            for kept, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
                kept.assign(kept * self.momentum + new * (1 - self.momentum))
        return outputs if inputs.shape.rank == 4 else tf.reshape(outputs, tf.shape(inputs))


@tf.custom_gradient
def bias_add(values: tf.Tensor, bias: tf.Tensor):
    """``values + bias`` along the last axis, with a bias gradient that is summed in float32.

    Args:
        values: (..., steps, channels), the two last known.
        bias: (channels,).
    """

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        steps, channels = upstream.shape[-2:]
        side_by_side = next(n for n in (16, 8, 4, 2, 1) if steps % n == 0)  # a wide matrix is summed faster
        rows = tf.reshape(upstream, (-1, side_by_side * channels))
        ones = tf.ones((1, tf.shape(rows)[0]), rows.dtype)
        sums = tf.cast(tf.reshape(tf.matmul(ones, rows), (side_by_side, channels)), tf.float32)
        return upstream, tf.cast(tf.reduce_sum(sums, axis=0), bias.dtype)

    return tf.nn.bias_add(values, bias), gradient
