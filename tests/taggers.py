"""A tagger that needs no training: fresh models, of which only the last layer is fitted, to tell some tones apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from helpers import CLASSES, tone

from fsat import tagging
from fsat.config import Config
from fsat.data.mfcc import model_input
from fsat.metrics.scaling import Scaling
from fsat.models import build, import_keras, save_weights

FREQUENCIES = (300, 450, 700, 1000, 1600, 2500, 3500)
"""Of tones, in Hz, whose classes take turns."""

TINY = {"model": "conv1d", "sampling_rate": 8000, "audio_duration": 0.25, "eval_crops": 2}
SEVERAL = {**TINY, "task": "multi"}
ONE_OF_EACH = (
    TINY,
    {"model": "cnn_logmel", "n_mels": 16, "sampling_rate": 8000, "audio_duration": 0.25, "eval_duration": 1.0},
    {"model": "conv2d_mfcc", "n_mfcc": 16, "sampling_rate": 8000, "audio_duration": 1.0},
)
"""Settings of a small model of each kind; `SEVERAL` are of one that gives a sound any number of labels."""

PLATT = Scaling("platt", slopes=(0.5, 1.2, 0.8), offsets=(0.3, -0.2, 0.1))
THRESHOLDS = (0.85, 0.8, 0.94)
"""Of a tagger of `CLASSES` with `SEVERAL`: a tone of 300 Hz is a Bell, 350 Hz Bell and Cello, 900 Hz nothing."""


def write_tagger(
    folder: Path,
    settings: Sequence[Mapping[str, Any]] = (TINY,),
    n_folds: int = 2,
    labels: Sequence[str] = CLASSES,
    **facts: Any,
) -> Path:
    """Write a tagger's folder: a study for each of the settings, `n_folds` members each. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    members = []
    for i, options in enumerate(settings):
        config = Config.resolve({**options, "precision": "float32"})
        for fold in range(n_folds):
            import_keras().utils.set_random_seed(1 + 100 * i + fold)
            model = build(config, len(labels))
            _fit_last_layer(model, config, len(labels))
            path = folder.parent / f"{folder.name}-{i}-{fold}.weights.h5"
            save_weights(model, path)
            members.append(tagging.MemberFiles(f"study{i}", fold, config, path))
    tagging.write(folder, members, labels, **facts)
    return folder


def _fit_last_layer(model: Any, config: Config, n_classes: int) -> None:
    """Give the last layer, a Dense one, the weights that tell the tones apart best, by least squares."""
    tones = [tone(frequency, config.audio_duration, config.sampling_rate) for frequency in FREQUENCIES]
    last = next(layer for layer in reversed(model.layers) if layer.weights)
    features = import_keras().Model(model.input, last.input)(model_input(np.stack(tones), config))
    logits = 4 * np.eye(n_classes)[np.arange(len(tones)) % n_classes]
    weights = np.linalg.lstsq(np.hstack([features, np.ones((len(tones), 1))]), logits, rcond=1e-4)[0]
    last.set_weights([weights[:-1], weights[-1]])


def register_tagger(folder: Path, name: str = "fsat", blend: str = "one", promote: str = "always") -> int:
    """Make it the champion of the store that MLflow is set to; its version."""
    from fsat.tracking.registry import Score, register

    facts = json.loads((folder / "tagger.json").read_text())
    more = {"labels": facts["labels"], "thresholds": facts.get("thresholds", [])}
    return register(name, folder, score=Score(0.5, 10), dataset="dataset", promote=promote, blend=blend, **more).version
