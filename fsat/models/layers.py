"""Layers that the models share: equivalents of Keras's own that run several times faster on a CPU.

Conventions: sequences are (batch, steps, channels). Results equal those of Keras's layers up to rounding. Each layer
has a method ``in_keras(inputs)`` that computes the same with Keras's own layers and operations in float32, weights
included: exported models are made of these, so that they load without fsat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops


class AudioNorm(layers.Layer):
    """Scale each crop to [-0.5, 0.5] by its own minimum and maximum, as the notebook does.

    Input and output are float32 (batch, samples, 1), whatever the precision of the following layers.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(dtype="float32", **options)

    def call(self, crops: tf.Tensor) -> tf.Tensor:
        """Normalize a batch of crops."""
        low, high = (find(crops, axis=1, keepdims=True) for find in (ops.min, ops.max))
        return (crops - low) / (high - low + 1e-6) - 0.5

    in_keras = call


class BandNorm(layers.Layer):
    """Subtract each mel band's mean over the training clips, and divide all bands by one standard deviation.

    There is one deviation for all bands because a band that is silent in all training clips has none of its own. Mean
    and deviation are weights, so they are saved with the model. Input and output are float32 (batch, frames, mels, 1),
    whatever the precision of the following layers.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(dtype="float32", **options)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        self.mean = self.add_weight(name="mean", shape=(input_shape[2], 1), initializer="zeros", trainable=False)
        self.deviation = self.add_weight(name="deviation", shape=(), initializer="ones", trainable=False)

    def set_levels(self, mean: np.ndarray, deviation: float) -> None:
        """Set the weights: means float (mels,) and the deviation, both in dB; a deviation of 0 counts as 1."""
        self.mean.assign(mean[:, np.newaxis])
        self.deviation.assign(deviation or 1.0)

    def call(self, decibels: tf.Tensor) -> tf.Tensor:
        """Normalize a batch of spectrograms in decibels."""
        return (decibels - self.mean) / self.deviation

    def in_keras(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Normalize with constants."""
        return (inputs - ops.convert_to_numpy(self.mean)) / ops.convert_to_numpy(self.deviation)


class ConvReLU1D(layers.Conv1D):
    """``Conv1D(activation="relu")``, optionally followed by max pooling.

    The weights are those of `keras.layers.Conv1D`. Three things differ:

    - The convolution is two-dimensional with a height of 1, because TensorFlow fuses bias and ReLU only into that.
    - Pooling comes before bias and ReLU. Both are monotonic in each channel, so the result is the same, on a
      `pool_size`-th of the elements.
    - The bias gradient is summed by a matrix product. TensorFlow sums it in bfloat16 if the layer computes in bfloat16,
      which stops growing at 256 times an addend.

    Args:
        filters, kernel_size: as for Conv1D.
        pool_size: steps per pooling window; 0 for no pooling, -1 for all steps, which gives (batch, filters).
    """

    def __init__(self, filters: int, kernel_size: int, pool_size: int = 0, **options: Any) -> None:
        super().__init__(filters, kernel_size, padding="valid", **options)
        self.pool_size = pool_size

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Map (batch, steps, channels) to (batch, output steps, filters), or (batch, filters) with ``pool_size=-1``."""
        x = tf.nn.conv2d(tf.expand_dims(inputs, 1), tf.expand_dims(self.kernel, 0), strides=1, padding="VALID")
        if self.pool_size < 0:
            x = tf.reduce_max(x, axis=2, keepdims=True)
        elif self.pool_size:
            x = tf.nn.max_pool2d(x, (1, self.pool_size), (1, self.pool_size), "VALID")
        x = tf.nn.relu(bias_add(x, tf.convert_to_tensor(self.bias)))
        return tf.squeeze(x, axis=(1, 2) if self.pool_size < 0 else 1)  # a slice would cost a copy in the gradient

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the output's shape."""
        batch, steps, filters = super().compute_output_shape(input_shape)
        return (batch, filters) if self.pool_size < 0 else (batch, steps and steps // (self.pool_size or 1), filters)

    def in_keras(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Apply Conv1D and max pooling."""
        conv = layers.Conv1D(self.filters, self.kernel_size, activation="relu", name=self.name, dtype="float32")
        outputs = conv(inputs)
        conv.set_weights(self.get_weights())
        if self.pool_size < 0:
            return ops.max(outputs, axis=1)
        return layers.MaxPooling1D(self.pool_size, dtype="float32")(outputs) if self.pool_size else outputs


class BatchNorm(layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the last axis, as one operation.

    Keras composes it of several, and the gradient is a sum of three parts that TensorFlow adds in the order in which
    they are computed: the last digits differ from run to run.

    Input and output are (..., channels) in the layer's precision; mean and variance are float32.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Normalize by the batch and update the moving statistics, or normalize by the moving statistics."""
        use_batch = bool(training and self.trainable)
        flat = inputs if inputs.shape.rank == 4 else tf.reshape(inputs, (-1, 1, 1, inputs.shape[-1]))
        empty = tf.zeros((0,), tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=flat,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=empty if use_batch else tf.convert_to_tensor(self.moving_mean),
            variance=empty if use_batch else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=use_batch,
        )
        if use_batch:
            n = tf.cast(tf.size(flat, tf.int64) // flat.shape[-1], tf.float32)
            variance *= tf.maximum(n - 1, 1) / n  # the operation returns the sample variance, over n - 1
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs if inputs.shape.rank == 4 else tf.reshape(outputs, tf.shape(inputs))

    def in_keras(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Apply Keras's batch normalization."""
        norm = layers.BatchNormalization(epsilon=self.epsilon, name=self.name, dtype="float32")
        outputs = norm(inputs)
        norm.set_weights(self.get_weights())
        return outputs


@tf.custom_gradient
def bias_add(values: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, tf.Tensor]]]:
    """Add a bias to values (..., steps, channels), with a bias gradient that is summed in float32."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        steps, channels = upstream.shape[-2:]
        n_columns = next(n for n in (16, 8, 4, 2, 1) if steps % n == 0)  # a wide matrix is summed faster
        rows = tf.reshape(upstream, (-1, n_columns * channels))
        ones = tf.ones((1, tf.shape(rows)[0]), rows.dtype)
        sums = tf.cast(tf.reshape(tf.matmul(ones, rows), (n_columns, channels)), tf.float32)
        return upstream, tf.cast(tf.reduce_sum(sums, axis=0), bias.dtype)

    return tf.nn.bias_add(values, bias), gradient
