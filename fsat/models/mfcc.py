"""Models on MFCC, as the notebook has them.

Input float32 (batch, n_mfcc, n_frames, 1), output probabilities (batch, n_classes). The first layer standardises each
coefficient with the mean and deviation of the training clips; they are weights, so that they travel with the rest.
"""

from __future__ import annotations

import keras
from keras import layers

from fsat.config import Config
from fsat.models.layers import BatchNorm

STANDARDISE = "standardise"
"""Name of the layer that is adapted to the training clips before training."""


def conv2d_mfcc(config: Config, n_classes: int) -> keras.Model:
    """Four blocks of 2D convolution and pooling; 168,361 trainable parameters with 41 classes at (40, 173, 1)."""
    inputs = keras.Input(config.dim)  # batch, coefficients, frames, 1
    x = layers.Normalization(axis=1, name=STANDARDISE, dtype="float32")(inputs)
    for _ in range(4):
        x = layers.Conv2D(32, (4, 10), padding="same")(x)
        x = BatchNorm()(x)
        x = layers.MaxPool2D()(x)  # halves coefficients and frames
        x = layers.ReLU()(x)  # after pooling, which gives the same from a quarter of the elements
    x = layers.Flatten()(x)
    x = layers.Dense(64, dtype="float32")(x)  # batch, 64
    x = BatchNorm(dtype="float32")(x)
    x = layers.ReLU(dtype="float32")(x)
    return keras.Model(inputs, layers.Dense(n_classes, activation="softmax", dtype="float32")(x), name="conv2d_mfcc")
