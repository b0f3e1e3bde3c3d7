"""A compact convolutional network on log-mel spectrograms.

Input float32 (batch, n_frames, n_mels, 1), crops of spectrograms in decibels above the floor; the first layer
normalises their bands. Output probabilities (batch, n_classes). The convolutions compute in the Config's precision, all
else in float32.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from fsat.config import Config
from fsat.models.layers import BandNorm, BatchNorm

# filters, stride of the first of two convolutions; each block but the last ends by halving frames and bands
LOGMEL_BLOCKS = [(16, 2), (32, 1), (64, 1), (128, 1)]
DROPOUT = 0.3

BANDS = "bands"
"""Name of the layer that is given the training clips' levels before training."""


def cnn_logmel(config: Config, n_classes: int) -> keras.Model:
    """Four blocks of two 3 x 3 convolutions, then mean and maximum over time; 295,962 weights with 10 classes."""
    inputs = keras.Input((None, *config.dim[1:]))  # batch, frames, mels, 1; more frames at prediction
    x = BandNorm(name=BANDS)(inputs)
    for i, (filters, stride) in enumerate(LOGMEL_BLOCKS):
        if i:
            x = layers.MaxPool2D()(x)
        for strides in (stride, 1):
            x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
            x = BatchNorm()(x)
            x = layers.ReLU()(x)
    x = ops.mean(ops.cast(x, "float32"), axis=2)  # batch, frames, filters
    x = ops.mean(x, axis=1) + ops.max(x, axis=1)  # batch, filters
    x = layers.Dropout(DROPOUT, dtype="float32")(x)
    return keras.Model(inputs, layers.Dense(n_classes, activation="softmax", dtype="float32")(x), name="cnn_logmel")
