"""The folder of a tagger: what it has, writing and reading it.

It holds ``tagger.json`` (labels, blending method, weights of the studies, scaling of the scores, thresholds, and for
each member its study, fold, Config, weights file and the SHA-256 of that file), the weights files, and in
``backbones/DIGEST/`` each backbone that members share. Reading runs no code from the folder and rejects a file that has
changed.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsat.backbones.descriptor import Backbone, copy_backbone, read_backbone
from fsat.config import Config
from fsat.errors import ConfigError, FsatError, RunError, count, printable
from fsat.files import sha256_of
from fsat.metrics.scaling import UNSCALED, Scaling
from fsat.study import RECIPE

if TYPE_CHECKING:
    from fsat.backbones.runtime import Runtime

FACTS, BACKBONES = "tagger.json", "backbones"
MEMBER_KEYS = {"study", "fold", "config", "weights", "sha256"}


@dataclass(frozen=True)
class MemberFiles:
    """One member as it goes into a tagger's folder."""

    study: str
    fold: int
    config: Config
    weights: Path


def no_backbone(ref: str) -> Backbone:
    """Raise `ValueError`: the backbone of a tagger was not given."""
    raise ValueError(f"a member has the backbone {ref}; expected find_backbone to return it")


def write(
    folder: Path, members: Sequence[MemberFiles], labels: Sequence[str], blend: str = "geometric",
    study_weights: Mapping[str, float] | None = None, find_backbone: Callable[[str], Backbone] = no_backbone,
    scaling: Scaling = UNSCALED, thresholds: Sequence[float] = (),
) -> None:  # fmt: skip
    """Write a tagger to an empty folder, without the members of studies with weight 0.

    `blend` is one of `fsat.model_presets.BLENDS`; ``weighted`` needs the weight of each study. `find_backbone` returns
    the backbone that a member's Config names. Blended scores are changed by `scaling`; a class whose score is below its
    threshold, in the order of the labels, is no tag by default. Without thresholds the highest scores are always tags.
    """
    weights = dict(study_weights or {})
    entries, backbones = [], dict[str, dict[str, str]]()
    for member in members:
        if weights.get(member.study) != 0:
            path = folder / f"{member.study}-fold{member.fold}.weights.h5"
            shutil.copyfile(member.weights, path)
            file = {"weights": path.name, "sha256": sha256_of(path), "config": member.config.to_dict()}
            entries.append({"study": member.study, "fold": member.fold, **file})
            digest = member.config.backbone_digest
            if digest and digest not in backbones:
                backbone = copy_backbone(find_backbone(member.config.backbone), folder / BACKBONES / digest)
                backbones[digest] = {name: getattr(backbone, name) for name in ("name", "source", "license", "sha256")}
    facts = {"recipe": RECIPE, "labels": list(labels), "blend": blend, "study_weights": weights, "members": entries}
    facts |= {"backbones": backbones} if backbones else {}
    facts |= {"scaling": scaling.to_dict()} if scaling.kind != "none" else {}
    facts |= {"thresholds": [float(threshold) for threshold in thresholds]} if len(thresholds) else {}
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n")


def read_facts(folder: Path) -> dict[str, Any]:
    """Return the facts of a tagger's folder; raise `RunError` if they are incomplete or of another `RECIPE`."""
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text())
        valid = bool(facts["members"]) and all(isinstance(label, str) for label in facts["labels"])
        for member in facts["members"]:
            valid = valid and set(member) >= MEMBER_KEYS and Path(member["weights"]).name == member["weights"]
            Config.from_mapping(member["config"])
        valid = valid and {"blend", "study_weights", "recipe"} <= set(facts)
    except (OSError, ValueError, TypeError, KeyError, FsatError) as error:
        raise RunError(f"{path}: cannot be read ({type(error).__name__}); register the tagger anew") from error
    if not valid:
        expected = f"labels, recipe, blend, study_weights and members with {', '.join(sorted(MEMBER_KEYS))}"
        raise RunError(f"{path}: expected {expected}; register the tagger anew")
    if facts["recipe"] != RECIPE:
        made = f"recipe {printable(facts['recipe'])} of fsat, whose scores differ from those of this one ({RECIPE})"
        advice = "train and register one with this version, or serve this one, with its own copy of fsat"
        raise RunError(f"{path}: made by {made}; {advice}: `mlflow models serve`")
    try:
        facts["scaling"], facts["thresholds"] = _read_scaling(facts), _read_thresholds(facts)
    except ValueError as error:
        raise RunError(f"{path}: {printable(error)}; register the tagger anew") from error
    return facts


def _read_scaling(facts: Mapping[str, Any]) -> Scaling:
    """Return the scaling of a tagger's facts; raise ValueError if it does not fit the scores of the members."""
    scaling = Scaling.from_dict(facts.get("scaling", UNSCALED.to_dict()))
    sigmoid = {Config.from_mapping(member["config"]).use_sigmoid for member in facts["members"]}
    if len(sigmoid) > 1:
        raise ValueError("members differ: some score each class by itself, others do not")
    if scaling.kind == ("temperature" if sigmoid.pop() else "platt"):
        raise ValueError(f"the kind of the scaling is {scaling.kind}, which is not one for the scores of the members")
    if scaling.kind == "platt" and len(scaling.slopes) != len(facts["labels"]):
        raise ValueError(f"the scaling has {count(len(scaling.slopes), 'slope')}, expected {len(facts['labels'])}")
    return scaling


def _read_thresholds(facts: Mapping[str, Any]) -> list[float]:
    """Return the thresholds of a tagger's facts; raise ValueError unless there is one for each label, or none."""
    thresholds, n_labels = facts.get("thresholds", []), len(facts["labels"])
    if not isinstance(thresholds, list) or len(thresholds) not in (0, n_labels):
        got = count(len(thresholds), "number") if isinstance(thresholds, list) else f"{thresholds!r:.80}"
        raise ValueError(f"thresholds are {got}, expected one for each of {count(n_labels, 'label')}")
    for threshold in thresholds:
        if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
            raise ValueError(f"thresholds have {threshold!r:.80}, expected numbers from 0 to 1")
    return [float(threshold) for threshold in thresholds]


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


def open_backbones(folder: Path, facts: Mapping[str, Mapping[str, str]]) -> dict[str, Runtime]:
    """Open the backbones of a tagger, by digest; raise `RunError` if one has changed."""
    if not facts:
        return {}
    from fsat.backbones.runtime import open_backbone

    opened = {}
    for digest in facts:
        try:
            backbone = read_backbone(folder / digest)
            if backbone.digest != digest:
                raise ConfigError(f"its descriptor has changed: its digest is {backbone.digest}")
            opened[digest] = open_backbone(backbone)
        except ConfigError as error:
            raise RunError(f"{folder / digest}: cannot be loaded ({error}); register the tagger anew") from error
    return opened
