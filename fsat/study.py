"""The id of a study: a hash of everything that its fold runs share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from fsat.config import Config
from fsat.errors import ConfigError

RECIPE = 3
"""Number that increases whenever results change for the same Config and dataset."""


def study_id(config: Config, dataset_digest: str, labels: Sequence[str]) -> str:
    """Return the hash that the folds of one study share: of settings, dataset, label order and recipe.

    Args:
        config: settings, with a settled precision.
        dataset_digest: digest of the clips and their labels.
        labels: label order.

    Raises:
        ConfigError: the precision is ``auto``, which depends on the machine.
    """
    if config.precision == "auto":
        raise ConfigError("precision=auto: expected float32 or mixed_bfloat16 in the id of a study")
    unused = _unused(config)
    settings = {name: value for name, value in config.to_dict().items() if name not in unused}
    facts = [settings, dataset_digest, list(labels), RECIPE]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]


def _unused(config: Config) -> list[str]:
    """Return the settings that have no effect with the others."""
    used = {
        "n_mfcc": config.use_mfcc,
        "n_mels": config.use_logmel,
        "patience": config.checkpoint == "best",
        "average_last": config.checkpoint == "average",
        "lq": config.loss == "lq",
        "bootstrap": config.loss.endswith("bootstrap"),
    }
    return [name for name, is_used in used.items() if not is_used]
