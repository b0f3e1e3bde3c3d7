"""A tagger's folder: written when an ensemble is registered, read when it is loaded.

It holds ``tagger.json`` (labels, blending method, weights of the studies, and for each member its study, fold, Config,
weights file and the SHA-256 of that file) and the weights files. Loading runs no code from the folder and rejects a
weights file that has changed.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsat.config import Config
from fsat.errors import FsatError, RunError
from fsat.files import sha256_of
from fsat.study import RECIPE

FACTS = "tagger.json"
MEMBER_KEYS = {"study", "fold", "config", "weights", "sha256"}


@dataclass(frozen=True)
class MemberFiles:
    """One member as it goes into a tagger's folder."""

    study: str
    fold: int
    config: Config
    weights: Path


def write(
    folder: Path, members: Sequence[MemberFiles], labels: Sequence[str], blend: str = "geometric",
    study_weights: Mapping[str, float] | None = None,
) -> None:  # fmt: skip
    """Write a tagger to an empty folder, without the members of studies with weight 0.

    `blend` is one of `fsat.presets.BLENDS`; ``weighted`` needs the weight of each study.
    """
    weights = dict(study_weights or {})
    entries = []
    for member in members:
        if weights.get(member.study) != 0:
            path = folder / f"{member.study}-fold{member.fold}.weights.h5"
            shutil.copyfile(member.weights, path)
            file = {"weights": path.name, "sha256": sha256_of(path), "config": member.config.to_dict()}
            entries.append({"study": member.study, "fold": member.fold, **file})
    facts = {"recipe": RECIPE, "labels": list(labels), "blend": blend, "study_weights": weights, "members": entries}
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n")


def read_facts(folder: Path) -> dict[str, Any]:
    """Return the facts of a tagger's folder; raise `RunError` if they are incomplete."""
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text())
        valid = bool(facts["members"]) and all(isinstance(label, str) for label in facts["labels"])
        for member in facts["members"]:
            valid = valid and set(member) >= MEMBER_KEYS and Path(member["weights"]).name == member["weights"]
            Config.from_mapping(member["config"])
        valid = valid and {"blend", "study_weights"} <= set(facts)
    except (OSError, ValueError, TypeError, KeyError, FsatError) as error:
        raise RunError(f"{path}: cannot be read ({type(error).__name__}); register the tagger anew") from error
    if not valid:
        expected = f"labels, blend, study_weights and members with {', '.join(sorted(MEMBER_KEYS))}"
        raise RunError(f"{path}: expected {expected}; register the tagger anew")
    return facts


def load_weights(model: Any, path: Path, sha256: str) -> None:
    """Load a model's weights; raise `RunError` if the file has changed or does not fit the model."""
    try:
        if sha256_of(path) != sha256:
            raise ValueError("it has changed since the tagger was registered")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns of layers that the file lacks
            model.load_weights(path)
    except Exception as error:  # h5py and Keras raise many types
        reason = " ".join(str(error).split())[:150]
        raise RunError(f"{path}: cannot be loaded ({reason}); register the tagger anew") from error
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise RunError(f"{path}: has weights that are NaN or infinite; register the tagger anew")
