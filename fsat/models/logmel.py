"""A compact convolutional network on log-mel spectrograms, which it looks at in two ways.

Input float32 (batch, n_frames, n_mels, 1), crops of spectrograms in decibels above the floor; the first layer
normalises their bands. Output probabilities (batch, n_classes). The convolutions compute in the Config's precision, all
else in float32.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from fsat.config import Config
from fsat.models.layers import BandNorm, BatchNorm

FILTERS = (16, 32, 64, 128)
"""Of the two convolutions of each block."""

VIEWS = ((2, 1), (1, 2))
"""Frames and bands that are averaged before the convolutions: one half sees finer bands, the other finer frames."""

DROPOUT = 0.3

BANDS = "bands"
"""Name of the layer that is given the training clips' levels before training."""


def cnn_logmel(config: Config, n_classes: int) -> keras.Model:
    """Two halves of four blocks each, whose logits are averaged; 591,989 weights with 10 classes.

    The halves are trained together. A crop of 2.56 s, 161 frames of 64 bands, takes 84 MFLOP: 42 million products and
    as many sums.
    """
    inputs = keras.Input((None, *config.dim[1:]))  # batch, frames, mels, 1; more frames at prediction
    x = BandNorm(name=BANDS)(inputs)
    logits = layers.Average(dtype="float32")([_half(x, view, n_classes) for view in VIEWS])
    return keras.Model(inputs, layers.Softmax(dtype="float32")(logits), name="cnn_logmel")


def _half(x: keras.KerasTensor, view: tuple[int, int], n_classes: int) -> keras.KerasTensor:
    """Logits, from four blocks of two 3 x 3 convolutions and the mean and maximum over time.

    Every halving of frames and bands but one is common to both views; the last evens them out.
    """
    x = layers.AveragePooling2D(view, dtype="float32")(x)
    for block, filters in enumerate(FILTERS):
        if block:
            x = layers.MaxPool2D(view[::-1] if block == len(FILTERS) - 1 else 2)(x)
        for strides in (1 if block else 2, 1):
            x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
            x = BatchNorm()(x)
            x = layers.ReLU()(x)
    x = ops.mean(ops.cast(x, "float32"), axis=2)  # batch, frames, filters
    x = ops.mean(x, axis=1) + ops.max(x, axis=1)  # batch, filters
    x = layers.Dropout(DROPOUT, dtype="float32")(x)
    return layers.Dense(n_classes, dtype="float32")(x)
