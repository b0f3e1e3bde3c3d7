"""Models on the waveform, as the notebook has them.

Input float32 (batch, audio_length, 1), crops as they were decoded; the first layer normalises them. Output
probabilities (batch, n_classes). The convolutions compute in the Config's precision, all else in float32.
"""

from __future__ import annotations

import keras
from keras import layers

from fsat.config import Config
from fsat.models.layers import AudioNorm, ConvReLU1D

# filters, kernel size, pooling after two convolutions (-1: over all steps), dropout
CONV1D_BLOCKS = [(16, 9, 16, 0.1), (32, 3, 4, 0.1), (32, 3, 4, 0.1), (256, 3, -1, 0.2)]


def dummy1d(config: Config, n_classes: int) -> keras.Model:
    """The notebook's baseline: the greatest sample of the crop, and a softmax on it."""
    inputs = keras.Input(config.dim)  # batch, samples, 1
    x = AudioNorm()(inputs)
    x = layers.GlobalMaxPool1D(dtype="float32")(x)  # batch, 1
    return keras.Model(inputs, _head(x, [], n_classes), name="dummy1d")


def conv1d(config: Config, n_classes: int) -> keras.Model:
    """Eight convolutions in four blocks, then two dense layers; 360,513 parameters with 41 classes."""
    inputs = keras.Input(config.dim)  # batch, samples, 1
    x = AudioNorm()(inputs)
    for filters, size, pool, rate in CONV1D_BLOCKS:
        x = ConvReLU1D(filters, size)(x)
        x = ConvReLU1D(filters, size, pool_size=pool)(x)
        x = layers.Dropout(rate)(x)
    return keras.Model(inputs, _head(x, [64, 1028], n_classes), name="conv1d")  # x: batch, 256


def _head(x: keras.KerasTensor, widths: list[int], n_classes: int) -> keras.KerasTensor:
    """Dense layers and a softmax, in float32."""
    for width in widths:
        x = layers.Dense(width, activation="relu", dtype="float32")(x)
    return layers.Dense(n_classes, activation="softmax", dtype="float32")(x)
