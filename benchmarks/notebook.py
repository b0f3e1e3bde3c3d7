"""The notebook's training and prediction, ported to current Keras, for comparison with fsat.

Every epoch, and every member at prediction, decodes and resamples every file again (librosa, kaiser_fast), takes random
crops, and applies audio_norm or librosa's MFCC clip by clip, in six worker processes with a queue of 20 batches, in
float32. Nothing here imports fsat.

The port keeps the notebook's inefficiencies and Keras's defaults: a new pool of worker processes each epoch, which
import and compile librosa's dependencies again, and XLA (``jit_compile="auto"``), which runs conv1d at a third of the
speed on a CPU. ``fast=True`` avoids these two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import librosa
import numpy as np
import pandas as pd
from keras import layers

WORKERS = {"workers": 6, "use_multiprocessing": True, "max_queue_size": 20}
TRAIN_BATCH, PREDICT_BATCH = 64, 128


@dataclass(frozen=True)
class Settings:
    """The notebook's Config: rate in Hz, length in seconds, number of MFCC (0: waveform)."""

    sampling_rate: int = 16000
    audio_duration: int = 2
    n_mfcc: int = 0

    @property
    def audio_length(self) -> int:
        """Length of a crop in samples."""
        return self.sampling_rate * self.audio_duration

    @property
    def dim(self) -> tuple[int, ...]:
        """Input shape of the model for one clip."""
        return (self.n_mfcc, 1 + self.audio_length // 512, 1) if self.n_mfcc else (self.audio_length, 1)


SETTINGS = {"conv1d": Settings(), "dummy1d": Settings(), "conv2d_mfcc": Settings(44100, 2, 40)}


def audio_norm(data: np.ndarray) -> np.ndarray:
    """Scale a crop to [-0.5, 0.5]."""
    low, high = np.min(data), np.max(data)
    return (data - low) / (high - low + 1e-6) - 0.5


class DataGenerator(keras.utils.PyDataset):
    """Batches of random crops, decoded on demand."""

    def __init__(
        self,
        settings: Settings,
        paths: Sequence[str],
        batch_size: int,
        targets: np.ndarray | None = None,
        n_classes: int = 0,
    ) -> None:
        super().__init__(**WORKERS)
        self.settings, self.paths, self.batch_size = settings, list(paths), batch_size
        self.targets, self.n_classes = targets, n_classes

    def __len__(self) -> int:
        return int(np.ceil(len(self.paths) / self.batch_size))

    def __getitem__(self, index: int):
        part = slice(index * self.batch_size, (index + 1) * self.batch_size)
        batch = np.empty((len(self.paths[part]), *self.settings.dim))
        for i, path in enumerate(self.paths[part]):
            batch[i] = self._load(path)
        if self.targets is None:
            return (batch,)
        return batch, keras.utils.to_categorical(self.targets[part], self.n_classes)

    def _load(self, path: str) -> np.ndarray:
        settings = self.settings
        data, _ = librosa.load(path, sr=settings.sampling_rate, res_type="kaiser_fast")
        spare = len(data) - settings.audio_length
        if spare > 0:
            offset = np.random.randint(spare)
            data = data[offset : offset + settings.audio_length]
        else:
            offset = np.random.randint(-spare) if spare else 0
            data = np.pad(data, (offset, -spare - offset))
        if settings.n_mfcc:
            return librosa.feature.mfcc(y=data, sr=settings.sampling_rate, n_mfcc=settings.n_mfcc)[..., np.newaxis]
        return audio_norm(data)[:, np.newaxis]


def dummy1d(settings: Settings, n_classes: int) -> keras.Model:
    """Build the notebook's get_1d_dummy_model."""
    inputs = keras.Input(settings.dim)
    return keras.Model(inputs, layers.Dense(n_classes, activation="softmax")(layers.GlobalMaxPool1D()(inputs)))


def conv1d(settings: Settings, n_classes: int) -> keras.Model:
    """Build the notebook's get_1d_conv_model."""
    x = inputs = keras.Input(settings.dim)
    for filters, size, pool, rate in [(16, 9, 16, 0.1), (32, 3, 4, 0.1), (32, 3, 4, 0.1), (256, 3, None, 0.2)]:
        x = layers.Conv1D(filters, size, activation="relu", padding="valid")(x)
        x = layers.Conv1D(filters, size, activation="relu", padding="valid")(x)
        x = layers.MaxPool1D(pool)(x) if pool else layers.GlobalMaxPool1D()(x)
        x = layers.Dropout(rate)(x)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dense(1028, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(n_classes, activation="softmax")(x))


def conv2d_mfcc(settings: Settings, n_classes: int) -> keras.Model:
    """Build the notebook's get_2d_conv_model."""
    x = inputs = keras.Input(settings.dim)
    for _ in range(4):
        x = layers.Conv2D(32, (4, 10), padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.Activation("relu")(x)
        x = layers.MaxPool2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(64)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    return keras.Model(inputs, layers.Dense(n_classes, activation="softmax")(x))


MODELS = {"dummy1d": dummy1d, "conv1d": conv1d, "conv2d_mfcc": conv2d_mfcc}


class Clock(keras.callbacks.Callback):
    """Record the time at the end of each epoch."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Start with no times."""
        self.ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Record the time."""
        self.ends.append(time.perf_counter())


def train(data_dir: str, model: str, epochs: int, fold: int = 0, fast: bool = False) -> dict[str, float]:
    """Train on the clips of all other folds.

    Args:
        data_dir: folder with train.csv, which has a column ``fold``, and audio_train/.
        model: name in `MODELS`.
        epochs: number of epochs; the first is not counted.
        fold: the fold to leave out.
        fast: train without XLA, and load one file first, so that the worker processes inherit librosa's compiled
            dependencies.

    Returns:
        ``clips_per_second`` over the epochs after the first.
    """
    table = pd.read_csv(Path(data_dir) / "train.csv")
    labels = sorted(table["label"].unique())
    table = table[table["fold"] != fold]
    paths = [str(Path(data_dir) / "audio_train" / name) for name in table["fname"]]
    targets = table["label"].map(labels.index).to_numpy()
    settings = SETTINGS[model]
    network = MODELS[model](settings, len(labels))
    network.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss="categorical_crossentropy",
        metrics=["acc"],
        jit_compile=False if fast else "auto",
    )
    if fast:
        _warm_up(settings, paths[0])
    clock = Clock()
    generator = DataGenerator(settings, paths, TRAIN_BATCH, targets, len(labels))
    network.fit(generator, epochs=epochs, callbacks=[clock], verbose=0)
    return {"clips_per_second": len(paths) * (epochs - 1) / (clock.ends[-1] - clock.ends[0])}


def _warm_up(settings: Settings, path: str) -> None:
    """Import and compile librosa's dependencies in this process."""
    DataGenerator(settings, [path], 1)[0]


def write_members(folder: str, n_members: int, n_classes: int) -> None:
    """Write random weights of conv1d, one file per member."""
    for i in range(n_members):
        conv1d(SETTINGS["conv1d"], n_classes).save_weights(Path(folder) / f"{i}.weights.h5")


def predict(paths: Sequence[str], folder: str, n_members: int, n_classes: int) -> dict[str, float]:
    """Tag files with an ensemble: member by member over all files, geometric mean, three best labels.

    Returns:
        seconds to ``load`` the members and to ``tag`` the files, and the number of ``clips``.
    """
    settings = SETTINGS["conv1d"]
    names = np.array([f"class{i}" for i in range(n_classes)])
    _warm_up(settings, paths[0])
    start = time.perf_counter()
    members = []
    for i in range(n_members):
        member = conv1d(settings, n_classes)
        member.load_weights(Path(folder) / f"{i}.weights.h5")
        members.append(member)
    loaded = time.perf_counter()
    product = np.ones((len(paths), n_classes), dtype=np.float32)
    for member in members:
        product = product * member.predict(DataGenerator(settings, paths, PREDICT_BATCH), verbose=0)
    product = product ** (1.0 / n_members)
    tags = [" ".join(row) for row in names[np.argsort(-product, axis=1)[:, :3]]]
    return {"load": loaded - start, "tag": time.perf_counter() - loaded, "clips": len(tags)}
