"""Studies: the id that the folds of one study share, and the recipe of results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from fsat.config import EMBEDDING_ONLY, Config
from fsat.errors import ConfigError

RECIPE = 5
"""Number that increases whenever results change for the same Config and dataset."""


def study_id(config: Config, dataset_digest: str, labels: Sequence[str], folds_digest: str) -> str:
    """Return the hash that the folds of one study share: of settings, dataset, label order, folds and recipe.

    The folds count because versions of scikit-learn may split the same dataset differently. Raises `ConfigError` if the
    precision is ``auto``, which depends on the machine, or if `init_from` or the backbone are not settled.
    """
    if config.precision == "auto":
        raise ConfigError("precision=auto: expected float32 or mixed_bfloat16 in the id of a study")
    if config.init_from != "none" and not config.init_runs:
        raise ConfigError(f"init_from={config.init_from}: expected ids of fold runs in the id of a study")
    if config.use_embedding and not config.backbone_digest:
        raise ConfigError(f"backbone={config.backbone}: expected NAME@DIGEST in the id of a study")
    is_used = {  # settings that have no effect without others
        "task": config.is_multi,
        "reject": config.reject == "auto" and not config.is_multi,
        "n_mfcc": config.use_mfcc,
        "n_mels": config.use_logmel,
        "patience": config.checkpoint == "best",
        "average_last": config.checkpoint == "average",
        "lq": config.loss == "lq",
        "bootstrap": config.loss.endswith("bootstrap"),
        "focal": config.focal > 0,
        "init_from": config.init_from != "none",
        "frozen_epochs": config.frozen_epochs > 0,
        "class_weights": config.class_weights != "none",
        **dict.fromkeys(EMBEDDING_ONLY, config.use_embedding),
        "hidden_units": config.use_embedding and config.head == "mlp",
    }
    settings = {name: value for name, value in config.to_dict().items() if is_used.get(name, True)}
    if config.use_embedding:
        settings["backbone"] = config.backbone_digest  # whatever it is called
    facts = [settings, dataset_digest, list(labels), folds_digest, RECIPE]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
