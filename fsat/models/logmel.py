"""A compact convolutional network on log-mel spectrograms at two resolutions.

Input float32 (batch, frames, n_mels, 1), crops of spectrograms in decibels above the floor; the first layer normalizes
the bands. Output probabilities (batch, n_classes). The convolutions compute in the configured precision, all other
layers in float32.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from fsat.config import Config
from fsat.models.layers import BandNorm, BatchNorm

FILTERS = (16, 32, 64, 128)
"""Filters of both convolutions of each block."""

POOLS = ((2, 1), (1, 2))
"""Average pooling (frames, bands) before each branch: one has the finer bands, the other the finer frames."""

DROPOUT = 0.3


def cnn_logmel(config: Config, n_classes: int) -> keras.Model:
    """Build two branches of four blocks each and average their logits; 591,989 weights with 10 classes.

    The branches are trained together. A crop of 2.56 s, 161 frames of 64 bands, takes 84 MFLOP: 42 million products and
    as many sums.
    """
    inputs = keras.Input((None, *config.dim[1:]))  # batch, frames, mels, 1; more frames at prediction
    x = BandNorm(name="bands")(inputs)
    logits = layers.Average(dtype="float32")([_branch(x, pool, n_classes) for pool in POOLS])
    last = layers.Activation("sigmoid", dtype="float32") if config.use_sigmoid else layers.Softmax(dtype="float32")
    return keras.Model(inputs, last(logits), name="cnn_logmel")


def _branch(x: keras.KerasTensor, pool: tuple[int, int], n_classes: int) -> keras.KerasTensor:
    """Return logits from four blocks of two 3 x 3 convolutions, and the mean and maximum over time.

    Max pooling between blocks halves frames and bands, except the last, which pools the axis that `pool` left.
    """
    x = layers.AveragePooling2D(pool, dtype="float32")(x)
    for block, filters in enumerate(FILTERS):
        if block:
            x = layers.MaxPool2D(pool[::-1] if block == len(FILTERS) - 1 else 2)(x)
        for strides in (1 if block else 2, 1):
            x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
            x = BatchNorm()(x)
            x = layers.ReLU()(x)
    x = ops.mean(ops.cast(x, "float32"), axis=2)  # batch, frames, filters
    x = ops.mean(x, axis=1) + ops.max(x, axis=1)  # batch, filters
    x = layers.Dropout(DROPOUT, dtype="float32")(x)
    return layers.Dense(n_classes, dtype="float32")(x)
