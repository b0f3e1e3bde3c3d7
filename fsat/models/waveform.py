"""Models on the normalised waveform, as the notebook has them.

Input float32 (batch, audio_length, 1) in [-0.5, 0.5], output probabilities (batch, n_classes).
"""

from __future__ import annotations

import keras
from keras import layers

from fsat.config import Config

# filters, kernel size, pooling after two convolutions (None: global), dropout
CONV1D_BLOCKS = [(16, 9, 16, 0.1), (32, 3, 4, 0.1), (32, 3, 4, 0.1), (256, 3, None, 0.2)]


def dummy1d(config: Config, n_classes: int) -> keras.Model:
    """The notebook's baseline: the greatest sample of the crop, and a softmax on it."""
    inputs = keras.Input(config.dim)  # batch, samples, 1
    x = layers.GlobalMaxPool1D()(inputs)  # batch, 1
    return keras.Model(inputs, layers.Dense(n_classes, activation="softmax")(x), name="dummy1d")


def conv1d(config: Config, n_classes: int) -> keras.Model:
    """Eight convolutions in four blocks, then two dense layers; 360,513 parameters with 41 classes."""
    x = inputs = keras.Input(config.dim)  # batch, samples, 1
    for filters, size, pool, rate in CONV1D_BLOCKS:
        x = layers.Conv1D(filters, size, activation="relu", padding="valid")(x)
        x = layers.Conv1D(filters, size, activation="relu", padding="valid")(x)
        x = layers.MaxPool1D(pool)(x) if pool else layers.GlobalMaxPool1D()(x)
        x = layers.Dropout(rate)(x)
    x = layers.Dense(64, activation="relu")(x)  # batch, 64
    x = layers.Dense(1028, activation="relu")(x)  # batch, 1028
    return keras.Model(inputs, layers.Dense(n_classes, activation="softmax")(x), name="conv1d")
