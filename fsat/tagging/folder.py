"""A tagger's folder: what is written when an ensemble is registered, and read when it is loaded.

It holds ``tagger.json`` (labels, how studies are blended and what each weighs, and per member its study, fold, Config,
weights file and the SHA-256 of that) and the members' weights. Loading it runs no code from the folder, and takes no
file that is not as it was written.
"""

from __future__ import annotations

import hashlib
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
from fsat.study import RECIPE

FACTS = "tagger.json"


@dataclass(frozen=True)
class MemberFiles:
    """One member as it goes into a tagger's folder."""

    study: str
    fold: int
    config: Config
    weights: Path


def write(
    folder: Path,
    members: Sequence[MemberFiles],
    labels: Sequence[str],
    blend: str = "geometric",
    study_weights: Mapping[str, float] | None = None,
) -> None:
    """Write a tagger's folder.

    Args:
        folder: must exist and be empty.
        members: all of the blend's; those of a study that weighs 0 are left out, for they change nothing.
        labels: label order.
        blend: one of `fsat.presets.BLENDS`.
        study_weights: for ``weighted``, what each study weighs.
    """
    facts = []
    for member in members:
        if study_weights and study_weights[member.study] == 0:
            continue
        name = f"{member.study}-fold{member.fold}.weights.h5"
        shutil.copyfile(member.weights, folder / name)
        who = {"study": member.study, "fold": member.fold, "weights": name, "sha256": _hash(folder / name)}
        facts.append({**who, "config": member.config.to_dict()})
    how = {"blend": blend, "study_weights": dict(study_weights or {})}
    whole = {"recipe": RECIPE, "labels": list(labels), **how, "members": facts}
    (folder / FACTS).write_text(json.dumps(whole, indent=2) + "\n")


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of a tagger's folder, those checked that must be there; `RunError` if they are not."""
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text())
        names = [fact["weights"] for fact in facts["members"] if {"study", "fold", "config"} <= set(fact)]
        fine = len(facts["members"]) == len(names) > 0 and all(Path(name).name == name for name in names)
        fine = fine and all(isinstance(label, str) for label in facts["labels"])
        for fact in facts["members"]:
            Config.from_mapping(fact["config"])
    except (OSError, ValueError, TypeError, KeyError, FsatError) as error:
        raise RunError(f"{path}: cannot be read ({type(error).__name__}); register the tagger anew") from error
    if not fine:
        raise RunError(
            f"{path}: lacks members with study, fold, config and weights beside it; register the tagger anew"
        )
    return facts


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_weights(model: Any, path: Path, digest: str | None) -> None:
    """Fill a model's weights from a file; `RunError` if it is not one of such a model, or is not what it was."""
    try:
        if digest not in (None, _hash(path)):
            raise ValueError("it was altered since the tagger was made")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras warns of weights that it leaves as they are
            model.load_weights(path)
    except Exception as error:  # h5py and Keras raise whatever they come upon
        what = " ".join(str(error).split())[:150]
        raise RunError(f"{path}: cannot be loaded ({what}); register the tagger anew") from error
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise RunError(f"{path}: has weights that are no numbers; register the tagger anew")
