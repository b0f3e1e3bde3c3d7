"""Heads on the embeddings of a backbone.

Input float32 (batch, windows, size), the embeddings of each clip's windows; the clips of a batch have equally many. A
window whose embedding is 0 throughout counts as absent. The first layer standardises the values and scales each window
to a length. Output probabilities (batch, n_classes). Everything computes in float32.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from fsat.config import Config
from fsat.errors import ConfigError

ATTENTION_UNITS = 64
"""Width of the hidden layer that weights the windows of pooling=attention."""

EPSILON = 1e-6
"""Added to the mean square of a vector."""


def embedding_head(config: Config, n_classes: int) -> keras.Model:
    """Build a linear layer, or one hidden layer and a linear one, on the pooled windows of a clip.

    Raises `ConfigError` if the backbone is not settled, so that the size of its embeddings is unknown, nor the rest.
    """
    for name in ("head", "pooling"):
        if getattr(config, name) == "auto":
            raise ConfigError(f"{name}=auto: expected it to be settled by Config.for_task")
    if not config.embedding_size:
        raise ConfigError(f"backbone={config.backbone}: expected embedding_size to be settled")
    inputs = keras.Input((None, config.embedding_size))  # batch, windows, size
    present = PresentWindows(name="present")(inputs)  # batch, windows, 1
    x = EmbeddingNorm(name="standardise")(inputs)
    x = _pool(x, present, config.pooling)  # batch, size
    x = layers.Dropout(config.dropout)(x)
    if config.head == "mlp":
        x = layers.Dense(config.hidden_units, activation="relu", name="hidden")(x)
        x = layers.Dropout(config.dropout)(x)
    return keras.Model(
        inputs,
        layers.Dense(n_classes, activation=config.activation, kernel_initializer="zeros", name="classes")(x),
        name="embedding",
    )


class PresentWindows(layers.Layer):
    """Return 1 for each window with an embedding and 0 for an absent one, float32 (batch, windows, 1)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(dtype="float32", **options)

    def call(self, embeddings: tf.Tensor) -> tf.Tensor:
        """Find the windows with an embedding."""
        return ops.cast(ops.max(ops.abs(embeddings), axis=-1, keepdims=True) > 0, "float32")

    in_keras = call


class EmbeddingNorm(layers.Layer):
    """Standardise the values of embeddings, then scale each window's vector to a mean square of 1.

    Mean and deviation of each value are those over the windows of the training clips. They are weights, so they are
    saved with the model. A value that is constant becomes 0.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(dtype="float32", **options)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        shape = (input_shape[-1],)
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", trainable=False)
        self.scale = self.add_weight(name="scale", shape=shape, initializer="ones", trainable=False)

    def set_levels(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        """Set mean and deviation of each value, float (size,)."""
        smallest = 1e-6 * max(float(np.max(deviation)), 1e-30)
        self.mean.assign(mean)
        self.scale.assign(np.where(deviation > smallest, 1 / np.maximum(deviation, smallest), 0))

    def call(self, embeddings: tf.Tensor) -> tf.Tensor:
        """Standardise embeddings."""
        return _scaled((embeddings - self.mean) * self.scale)

    def in_keras(self, inputs: Any) -> Any:
        """Compute the same with Keras's operations."""
        return _scaled((inputs - ops.convert_to_numpy(self.mean)) * ops.convert_to_numpy(self.scale))


def _scaled(x: Any) -> Any:
    """Scale vectors, along the last axis, to a mean square of 1."""
    return x / ops.sqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + EPSILON)


def _pool(x: keras.KerasTensor, present: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    """Return one vector (batch, size) of the windows that are present; 0 if none is."""
    if pooling == "max":
        lowest = ops.min(x, axis=1, keepdims=True)
        highest = ops.max(present * x + (1 - present) * lowest, axis=1)
        return highest * ops.max(present, axis=1)
    weights = present
    if pooling == "attention":
        hidden = layers.Dense(ATTENTION_UNITS, activation="tanh", name="attention_hidden")(x)
        logits = layers.Dense(1, use_bias=False, name="attention")(hidden)
        weights = present * ops.exp(logits - ops.max(logits, axis=1, keepdims=True))
    return ops.sum(weights * x, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1e-6)
