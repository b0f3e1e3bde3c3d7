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

    Raises:
        ConfigError: the precision is ``auto``, which depends on the machine.
    """
    if config.precision == "auto":
        raise ConfigError("precision=auto: expected float32 or mixed_bfloat16 in the id of a study")
    is_used = {  # settings that have no effect without others
        "n_mfcc": config.use_mfcc,
        "n_mels": config.use_logmel,
        "patience": config.checkpoint == "best",
        "average_last": config.checkpoint == "average",
        "lq": config.loss == "lq",
        "bootstrap": config.loss.endswith("bootstrap"),
    }
    settings = {name: value for name, value in config.to_dict().items() if is_used.get(name, True)}
    facts = [settings, dataset_digest, list(labels), RECIPE]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
