"""Models by name, and presets: sets of settings that go together. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HOP_LENGTH = 512
"""Hop length of MFCC in samples (librosa's default, as in the notebook)."""

LOGMEL_HOP = 0.016
"""Hop length of log-mel spectrograms in seconds."""


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a model, with the minimum length of its input in samples, frames and MFCC.

    Attributes:
        builder: ``module:function`` that makes the Keras model.
        features: ``waveform``, ``mfcc``, ``logmel`` or ``embedding``, the input of the model.
        bfloat16: whether ``precision=auto`` may select bfloat16, which the model gains by.
        preset: settings of the model that options override.
    """

    builder: str
    features: str = "waveform"
    min_samples: int = 1
    min_frames: int = 0
    min_mfcc: int = 0
    bfloat16: bool = True
    preset: Mapping[str, Any] = field(default_factory=dict)


LOGMEL: dict[str, Any] = {
    "sampling_rate": 32000,
    "audio_duration": 2.56,
    "batch_size": 16,
    "max_epochs": 200,
    "learning_rate": 0.002,
    "schedule": "cosine",
    "warmup": 0.1,
    "weight_decay": 0.0001,
    "checkpoint": "average",
    "mixup": 0.4,
    "gain": 12,
    "mel_shift": 6,
    "time_mask": 0.4,
    "mel_mask": 8,
    "eval_crops": 2,
    "eval_duration": 10,
}
"""Recipe of `cnn_logmel`; the benchmark `recipe` measures the effect of each part."""

EMBEDDING: dict[str, Any] = {
    "batch_size": 32,
    "max_epochs": 60,
    "learning_rate": 0.003,
    "schedule": "cosine",
    "warmup": 0.1,
    "weight_decay": 0.01,
    "checkpoint": "average",
    "head": "auto",
    "pooling": "auto",
    "dropout": 0.5,
    "eval_crops": 1,
}
"""Recipe of `embedding`; sampling rate and length of the windows are the backbone's."""

MODELS: dict[str, ModelInfo] = {
    "dummy1d": ModelInfo("fsat.models.notebook:dummy1d", bfloat16=False),
    "conv1d": ModelInfo("fsat.models.notebook:conv1d", min_samples=1616),
    "conv2d_mfcc": ModelInfo(
        "fsat.models.notebook:conv2d_mfcc",
        features="mfcc",
        min_samples=15 * HOP_LENGTH,
        min_mfcc=16,
        preset={"sampling_rate": 44100, "n_mfcc": 40},
    ),
    "cnn_logmel": ModelInfo("fsat.models.logmel:cnn_logmel", features="logmel", min_frames=15, preset=LOGMEL),
    "embedding": ModelInfo(
        "fsat.models.embedding:embedding_head", features="embedding", bfloat16=False, preset=EMBEDDING
    ),
}
"""Models by name. To add one, write a builder function and add a line here."""

PRESETS: dict[str, dict[str, Any]] = {name: {"model": name, **info.preset} for name, info in MODELS.items()}
NOTEBOOK_NETWORKS: dict[str, Any] = {
    "batch_size": 16,
    "schedule": "cosine",
    "warmup": 0.1,
    "weight_decay": 0.0001,
    "checkpoint": "average",
    "eval_crops": 5,
}
"""Common part of fsat's recipes for the notebook's networks."""

PRESETS["conv1d_fsat"] = {**PRESETS["conv1d"], **NOTEBOOK_NETWORKS, "max_epochs": 100, "mixup": 0.2}
PRESETS["conv2d_mfcc_fsat"] = {
    **PRESETS["conv2d_mfcc"],
    **NOTEBOOK_NETWORKS,
    "max_epochs": 50,
    "learning_rate": 0.003,
    "mixup": 0.5,
}
PRESETS["quick"] = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 1.0, "n_folds": 2, "max_epochs": 1}

TASKS = ("single", "multi")
"""Labels of a clip: ``single``, one each; ``multi``, any number, also none."""

BLENDS = ("geometric", "arithmetic", "weighted")
"""Methods that blend the studies of an ensemble; see `fsat.metrics.blending`."""

EXPORT_FORMATS = ("onnx", "tflite", "keras")
"""Formats of exported taggers, which are also the suffixes of the files."""
