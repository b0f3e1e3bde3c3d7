"""Exported taggers contain their backbones, and score clips as the original does."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from servers import needs
from test_export import LIMIT, score_all
from tiny_backbones import KINDS, RATE, SIZE, WINDOW, reference_embedding, tiny_backbone

from fsat.backbones.descriptor import Backbone, read_backbone
from fsat.commands.export import facts_of
from fsat.config import Config
from fsat.export.formats import EXTRA, open_model, write_model
from fsat.model_presets import EXPORT_FORMATS
from fsat.models import build, save_weights
from fsat.tagging import MemberFiles, Tagger, write

LABELS = ["bell", "dog", "rain", "sea"]
pytestmark = pytest.mark.slow


def head(backbone: Backbone, **options) -> Config:
    settled = {"backbone": backbone.ref, "embedding_size": SIZE, "window_hop": WINDOW / 2, "sampling_rate": RATE}
    return Config.resolve(
        {"model": "embedding", "precision": "float32", "audio_duration": WINDOW, **settled, **options}
    )


def other(model: str, **options) -> Config:
    usual = {"model": model, "precision": "float32", "audio_duration": 0.5}
    return Config.resolve(usual | options)


def noise_and_tones() -> list[np.ndarray]:
    """Tones, noise, silence and mixtures of them at `RATE`, from one sample to some seconds."""
    rng, n = np.random.default_rng(5), round(RATE * WINDOW)
    sounds = [0.3 * np.sin(2 * np.pi * f * np.arange(length) / RATE) for f, length in
              ((300, 2 * n), (900, n), (1800, n + 1), (3300, 5 * n + 7), (500, n // 3), (2500, 13 * n))]  # fmt: skip
    sounds += [np.zeros(n), np.concatenate([np.zeros(3 * n), sounds[0], np.zeros(n)]), 1e-3 * sounds[3] + 0.1]
    sounds += [rng.uniform(-0.5, 0.5, length) for length in (1, 2, n - 1, 2 * n + n // 2 + 1, 7 * n)]
    return [sound.astype(np.float32) for sound in sounds]


def write_tagger(folder: Path, members: Sequence[Config], backbones: Sequence[Backbone], **blend) -> Tagger:
    """Write a tagger with heads whose scores are high and differ between sounds; each member is a study."""
    folder.mkdir(parents=True)
    rng, files = np.random.default_rng(3), []
    for i, config in enumerate(members):
        model = build(config, len(LABELS))
        for layer in model.layers:
            if layer.name == "standardise":
                sounds = [sound for sound in noise_and_tones() if len(sound) > 99]
                vectors = np.stack([reference_embedding(sound, 0.25) for sound in sounds])
                layer.set_levels(vectors.mean(axis=0), vectors.std(axis=0))
            elif layer.weights:
                layer.set_weights([rng.normal(size=weights.shape) for weights in layer.get_weights()])
        path = folder.parent / f"{folder.name}{i}.weights.h5"
        save_weights(model, path)
        files.append(MemberFiles(f"s{i}", 0, config, path))
    by_ref = {backbone.ref: backbone for backbone in backbones}
    write(folder, files, LABELS, find_backbone=by_ref.__getitem__, **blend)
    return Tagger(folder)


@pytest.fixture(scope="module")
def backbone_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backbone]:
    root = tmp_path_factory.mktemp("backbones")
    return cache(lambda kind: read_backbone(tiny_backbone(root / kind, kind)))


def check(tagger: Tagger, format: str, path: Path, rate: int = RATE) -> dict:
    """Export a tagger; its scores must be the original's."""
    if format == "onnx":
        needs(all(map(importlib.util.find_spec, EXTRA)), ", ".join(EXTRA), "pip install '.[export]'")
    from fsat.export.ensemble_model import exported_model

    sounds = noise_and_tones()
    expected = score_all(tagger, sounds, rate)
    assert expected.std(axis=0).max() > 0.05
    write_model(exported_model(tagger, format), path, format, facts_of(tagger, format))
    score, facts = open_model(path, format)
    for sound, row in zip(sounds, expected, strict=True):
        assert abs(score(sound) - row).max() < LIMIT / 10, f"{len(sound)} samples"
    return facts


@pytest.mark.parametrize(("kind", "format"), [
    *[("keras", format) for format in EXPORT_FORMATS],
    *[("keras_layer", format) for format in EXPORT_FORMATS],
    *[(kind, format) for kind in KINDS for format in ("onnx", "tflite") if not kind.startswith(("keras", "onnx"))],
    *[(kind, "onnx") for kind in KINDS if kind.startswith("onnx")],
])  # fmt: skip
def test_every_kind(kind, format, backbone_of, tmp_path) -> None:
    backbone = backbone_of(kind)
    pooling = {"onnx": "mean", "tflite": "attention", "keras": "max", "saved_model": "attention"}[backbone.format]
    tagger = write_tagger(tmp_path / "t", [head(backbone, pooling=pooling)], [backbone])
    check(tagger, format, tmp_path / f"t.{format}")
