"""The notebook's way, ported only as far as today's Keras demands: what fsat is measured against.

Every epoch, and at prediction every member, decodes and resamples every file again (librosa, kaiser_fast), crops at
random, scales with audio_norm or makes MFCC with librosa, clip after clip, in six worker processes with a queue of 20
batches, in float32. Nothing here imports fsat. For conv1d and dummy1d `train` does what seed_pipeline.py does, the
yardstick that this project was given: same clips, loop, settings and way of timing, so their numbers should agree.

Faults of the notebook that cost time are kept, and so is what today's Keras makes of it: a new pool of worker
processes each epoch, which import and compile anew what librosa needs, and XLA (``jit_compile="auto"``), which runs
conv1d at a third of the speed on a CPU. ``best=True`` leaves those two out, so that both can be shown.
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
    """The notebook's Config, as far as it matters here: rate in Hz, length in seconds, MFCC (0: the waveform)."""

    sampling_rate: int = 16000
    audio_duration: int = 2
    n_mfcc: int = 0

    @property
    def audio_length(self) -> int:
        """Length of the crop in samples."""
        return self.sampling_rate * self.audio_duration

    @property
    def dim(self) -> tuple[int, ...]:
        """Shape of the model's input for one clip."""
        return (self.n_mfcc, 1 + self.audio_length // 512, 1) if self.n_mfcc else (self.audio_length, 1)


SETTINGS = {"conv1d": Settings(), "dummy1d": Settings(), "conv2d_mfcc": Settings(44100, 2, 40)}


def audio_norm(data: np.ndarray) -> np.ndarray:
    """Scale one crop to [-0.5, 0.5]."""
    low, high = np.min(data), np.max(data)
    return (data - low) / (high - low + 1e-6) - 0.5


class DataGenerator(keras.utils.PyDataset):
    """Batches of random crops of files that are decoded when they are asked for."""

    def __init__(
        self, settings: Settings, paths: Sequence[str], batch_size: int, targets: np.ndarray | None = None,
        n_classes: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(**WORKERS)
        self.settings, self.paths, self.batch_size = settings, list(paths), batch_size
        self.targets, self.n_classes = targets, n_classes

    def __len__(self) -> int:
        return int(np.ceil(len(self.paths) / self.batch_size))

    def __getitem__(self, index: int):
        part = slice(index * self.batch_size, (index + 1) * self.batch_size)
        batch = np.empty((len(self.paths[part]), *self.settings.dim))
        for i, path in enumerate(self.paths[part]):
            batch[i] = self._one(path)
        if self.targets is None:
            return (batch,)
        return batch, keras.utils.to_categorical(self.targets[part], self.n_classes)

    def _one(self, path: str) -> np.ndarray:
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
    """get_1d_dummy_model."""
    inputs = keras.Input(settings.dim)
    return keras.Model(inputs, layers.Dense(n_classes, activation="softmax")(layers.GlobalMaxPool1D()(inputs)))


def conv1d(settings: Settings, n_classes: int) -> keras.Model:
    """get_1d_conv_model."""
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
    """get_2d_conv_model."""
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
    """When each epoch ended."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Nothing has ended yet."""
        self.ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Read the clock."""
        self.ends.append(time.perf_counter())


def train(data_dir: str, model: str, epochs: int, fold: int = 0, best: bool = False) -> dict[str, float]:
    """Train on all clips but the fold's own.

    Args:
        data_dir: has train.csv with a column ``fold``, and audio_train/.
        model: a name in `MODELS`.
        epochs: how many, the first of which is not counted.
        fold: the fold that is left out.
        best: as fast as this loop can be today: without XLA, and with one file loaded before, so that the worker
            processes need not import and compile again each epoch what librosa needs.

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
        optimizer=keras.optimizers.Adam(1e-3), loss="categorical_crossentropy", metrics=["acc"],
        jit_compile=False if best else "auto",
    )  # fmt: skip
    if best:
        _load_all(settings, paths[0])
    clock = Clock()
    generator = DataGenerator(settings, paths, TRAIN_BATCH, targets, len(labels))
    network.fit(generator, epochs=epochs, callbacks=[clock], verbose=0)
    return {"clips_per_second": len(paths) * (epochs - 1) / (clock.ends[-1] - clock.ends[0])}


def _load_all(settings: Settings, path: str) -> None:
    """Import and compile in this process all that its workers will need."""
    DataGenerator(settings, [path], 1)[0]


def write_members(folder: str, n_members: int, n_classes: int) -> None:
    """Weights of freshly made conv1d models, one file a member."""
    for i in range(n_members):
        conv1d(SETTINGS["conv1d"], n_classes).save_weights(Path(folder) / f"{i}.weights.h5")


def predict(paths: Sequence[str], folder: str, n_members: int, n_classes: int) -> dict[str, float]:
    """Tag files with an ensemble: member after member over all files, geometric mean, three best labels.

    Returns:
        seconds: ``load`` the members, and ``tag`` from the paths to the labels; and ``clips``.
    """
    settings = SETTINGS["conv1d"]
    names = np.array([f"class{i}" for i in range(n_classes)])
    _load_all(settings, paths[0])
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
