"""What makes folds one study: the short id that all of its runs carry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields

from fsat.config import Config
from fsat.errors import ConfigError

RECIPE = 2
"""Raised whenever the code's results change for the same Config and dataset."""


def study_id(config: Config, dataset_digest: str, labels: Sequence[str]) -> str:
    """Short hash that all folds of one study share: settings, dataset, label order and recipe.

    Args:
        config: with a settled precision.
        dataset_digest: of the clips and their labels.
        labels: label order.

    Raises:
        ConfigError: the precision is ``auto``, which means this on one machine and that on another.
    """
    if config.precision == "auto":
        raise ConfigError("precision=auto: expected float32 or mixed_bfloat16 when a study is named")
    settings = {
        spec.name: getattr(config, spec.name)
        for spec in fields(config)
        if not (spec.metadata["later"] and getattr(config, spec.name) == spec.default)
    }
    for name in _unused(config):
        settings.pop(name, None)
    facts = [settings, dataset_digest, list(labels), RECIPE]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]


def _unused(config: Config) -> list[str]:
    """Settings that change no prediction beside the others."""
    used = {
        "n_mfcc": config.use_mfcc,
        "n_mels": config.use_logmel,
        "patience": config.checkpoint == "best",
        "average_last": config.checkpoint == "average",
        "lq": config.loss == "lq",
        "bootstrap": config.loss.endswith("bootstrap"),
    }
    return [name for name, is_used in used.items() if not is_used]
