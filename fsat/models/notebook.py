"""The notebook's models.

Input float32 (batch, *config.dim): crops of the decoded waveform (batch, samples, 1), or their MFCC (batch, n_mfcc,
frames, 1). The first layer normalizes them. Output probabilities (batch, n_classes). The convolutions compute in the
configured precision, all other layers in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from fsat.config import Config
from fsat.models.layers import AudioNorm, BatchNorm, ConvReLU1D

# filters, kernel size, pooling after two convolutions (-1: over all steps), dropout
CONV1D_BLOCKS = [(16, 9, 16, 0.1), (32, 3, 4, 0.1), (32, 3, 4, 0.1), (256, 3, -1, 0.2)]


def dummy1d(config: Config, n_classes: int) -> keras.Model:
    """Build the baseline: the maximum of the crop and a softmax; 82 parameters with 41 classes."""
    inputs = keras.Input(config.dim)  # batch, samples, 1
    x = AudioNorm()(inputs)
    x = layers.GlobalMaxPool1D(dtype="float32")(x)  # batch, 1
    return keras.Model(inputs, _head(x, [], n_classes, config), name="dummy1d")


def conv1d(config: Config, n_classes: int) -> keras.Model:
    """Build eight convolutions in four blocks and two dense layers; 360,513 parameters with 41 classes."""
    inputs = keras.Input(config.dim)  # batch, samples, 1
    x = AudioNorm()(inputs)
    for filters, size, pool, rate in CONV1D_BLOCKS:
        x = ConvReLU1D(filters, size)(x)
        x = ConvReLU1D(filters, size, pool_size=pool)(x)
        x = layers.Dropout(rate)(x)
    return keras.Model(inputs, _head(x, [64, 1028], n_classes, config), name="conv1d")  # x: batch, 256


def conv2d_mfcc(config: Config, n_classes: int) -> keras.Model:
    """Build four blocks of 2D convolution and pooling; 168,361 trainable parameters with 41 classes at (40, 173, 1)."""
    inputs = keras.Input(config.dim)  # batch, coefficients, frames, 1
    x = layers.Normalization(axis=1, name="standardise", dtype="float32")(inputs)
    for _ in range(4):
        x = layers.Conv2D(32, (4, 10), padding="same")(x)
        x = BatchNorm()(x)
        x = layers.MaxPool2D()(x)  # halves coefficients and frames
        x = layers.ReLU()(x)  # after pooling: the same result from a quarter of the elements
    x = layers.Flatten()(x)
    x = layers.Dense(64, dtype="float32")(x)  # batch, 64
    x = BatchNorm(dtype="float32")(x)
    x = layers.ReLU(dtype="float32")(x)
    return keras.Model(inputs, _head(x, [], n_classes, config), name="conv2d_mfcc")


def _head(x: keras.KerasTensor, widths: Sequence[int], n_classes: int, config: Config) -> keras.KerasTensor:
    """Apply dense layers and a softmax or sigmoid in float32."""
    for width in widths:
        x = layers.Dense(width, activation="relu", dtype="float32")(x)
    return layers.Dense(n_classes, activation=config.activation, dtype="float32")(x)
