"""The model registry: versions of a tagger, and the alias of the version to use.

The alias ``champion`` moves to a new version if its out-of-fold score (mAP@3, or lwlrap of a tagger that gives any
number of labels) is better than the champion's on the same dataset, or if the champion comes from another dataset. A
score on fewer clips, of a study that lacks folds, is never better than one on more clips.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from fsat.backbones.descriptor import Backbone
from fsat.data.audio import sine
from fsat.errors import ConfigError, RunError, printable
from fsat.metrics.class_thresholds import TagParams
from fsat.model_names import check_model_name
from fsat.options import PROMOTE
from fsat.progress import say
from fsat.tracking.client import TAG, Refused, ServerUnreachable, address, call
from fsat.tracking.model_uri import aliased, find_versions

ALIAS, LOADER = "champion", "fsat.tagging"
"""Alias of the version to use, and the module by which MLflow loads a tagger."""

REQUIREMENTS = ("tensorflow", "keras", "numpy", "scipy", "pandas", "librosa", "soundfile", "soxr", "mlflow")
"""Modules that a served tagger needs, at the versions that trained it."""

RUNTIMES: dict[str, tuple[str, ...]] = {"onnx": ("onnx", "onnxruntime"), "tflite": (), "saved_model": (), "keras": ()}
"""Further modules that a backbone of each format needs."""

SCORES = {"map3": "mAP@3", "lwlrap": "lwlrap"}
"""The scores that decide, by the end of their tags' names, in words."""

OPTIONAL = ("av",)
"""Modules that it uses if they are installed here."""


@dataclass(frozen=True)
class Score:
    """A blend's out-of-fold score, the number of training clips that it is computed on, and why it is too high.

    That `leak` is empty if each clip is apart from what the models that score it have trained on. `name` is one of
    `SCORES`.
    """

    value: float
    clips: int
    leak: str = ""
    name: str = "map3"


@dataclass(frozen=True)
class Registered:
    """A registered version; `promoted`: it is the champion; `outcome`: why, in one line."""

    name: str
    version: int
    promoted: bool
    outcome: str


def check_registration(name: str, promote: str) -> None:
    """Raise `FsatError` if a tagger cannot be registered under a name: before the work that makes one."""
    check_model_name(name)
    if promote not in PROMOTE:
        raise ConfigError(f"promote={printable(promote)}: expected one of {', '.join(PROMOTE)}")
    call(lambda: aliased(mlflow.MlflowClient(), name, ALIAS))  # a registry that cannot be used is an error here


def register(
    name: str, tagger_folder: Path, labels: Sequence[str], score: Score, dataset: str, promote: str, blend: str,
    backbones: Sequence[Backbone] = (), thresholds: Sequence[float] = (),
) -> Registered:  # fmt: skip
    """Register a tagger as a version of a model, and update the alias; a blend is registered only once.

    Args:
        name: of the registered model.
        tagger_folder, labels, score: what `fsat.tagging.write` wrote, the label order, and the score of the blend.
        dataset, blend: digests of the dataset, and of the members and the method.
        promote: ``auto``, ``always`` or ``never``.
        backbones: that the tagger's members share.
        thresholds: minimum scores of the labels, if the tagger has some.
    """
    client = mlflow.MlflowClient()
    champion = call(partial(aliased, client, name, ALIAS))
    registered = existing = call(partial(_version_of, client, name, blend))
    if registered is None:
        log = partial(mlflow.pyfunc.log_model, name="tagger", loader_module=LOADER, data_path=str(tagger_folder))
        uri = call(partial(log, **tagger_arguments(labels, backbones, thresholds))).model_uri
        facts = {f"oof_{score.name}": repr(float(score.value)), "oof_clips": score.clips, "dataset": dataset}
        facts["blend"] = blend
        facts |= {"leak": score.leak} if score.leak else {}
        if backbones:
            facts["backbones"] = ",".join(backbone.ref for backbone in backbones)
            facts["licenses"] = "; ".join(backbone.license or "unknown" for backbone in backbones)
        tags = {TAG + key: str(value) for key, value in facts.items()}
        create = partial(mlflow.register_model, uri, name, await_registration_for=60, tags=tags)
        registered = call(lambda: _version_of(client, name, blend) or create())
    number = int(registered.version)
    label = f"{name} version {number}" + (" is this blend already, and" if existing else "")
    if champion is not None and int(champion.version) == number:
        return Registered(name, number, True, f"{label} {'stays' if existing else 'is'} {ALIAS}")
    promoted, reason = _decide(champion, score, dataset, promote)
    if promoted:
        call(partial(client.set_registered_model_alias, name, ALIAS, registered.version))
    verb = f"is now {ALIAS}" if promoted else f"is not {ALIAS}"
    return Registered(name, number, promoted, f"{label} {verb}: {reason}")


def open_tagger(model_uri: str) -> Any:
    """Load the tagger behind a URI such as ``models:/fsat@champion``; raise `RunError` if it is not one of fsat's."""
    path = list(sys.path)
    try:
        model = call(lambda: mlflow.pyfunc.load_model(model_uri))
    except Refused as error:
        cause = f"cannot be loaded from {address()} ({' '.join(str(error.__cause__).split())[:200]})"
        raise RunError(f"model={model_uri}: {cause}; register one with `mlflow run . -e ensemble`") from error
    except ServerUnreachable:
        raise
    except RunError as error:
        raise RunError(f"model={model_uri}: {error}") from error
    except (ModuleNotFoundError, AttributeError) as error:  # the loader of a tagger of 0.1.0, for one
        cause = f"registered by another version of fsat or needs a missing package ({error})"
        raise RunError(f"model={model_uri}: {cause}; register one with `mlflow run . -e ensemble`") from error
    sys.path[:] = path  # MLflow adds the code logged with the model, which child processes would import
    if model.loader_module != LOADER:
        raise RunError(f"model={model_uri}: not a tagger of fsat; register one with `mlflow run . -e ensemble`")
    return model.get_raw_model()


def run_of(model_uri: str) -> str:
    """Return the id of the run that logged a model; an empty string if it is unknown."""
    return call(lambda: mlflow.models.get_model_info(model_uri)).run_id or ""


def tagger_arguments(
    labels: Sequence[str], backbones: Sequence[Backbone] = (), thresholds: Sequence[float] = ()
) -> dict[str, Any]:
    """Return the arguments of `log_model` for every tagger: signature, example, code, packages, and what it knows.

    By default a tagger with thresholds returns all labels that reach theirs, another one the best.
    """
    text, number = DataType.string, DataType.double
    outputs = [
        ColSpec(Array(text), "labels"),
        ColSpec(Array(number), "scores"),
        ColSpec(text, "error"),
        ColSpec(text, "note"),
    ]
    defaults = TagParams.of(len(labels), has_thresholds=bool(thresholds))
    params = [ParamSpec("top_k", DataType.integer, defaults.top_k), ParamSpec("min_score", number, defaults.min_score)]
    own = {"thresholds": dict(zip(labels, map(float, thresholds), strict=True))} if thresholds else {}
    inputs = Schema([ColSpec(DataType.binary, "audio")])
    return {
        "signature": ModelSignature(inputs, Schema(outputs), ParamSchema(params)),
        "input_example": pd.DataFrame({"audio": [sine(0.1, 16000)]}),
        "code_paths": [str(Path(__file__).parents[1])],
        "pip_requirements": requirements([module for backbone in backbones for module in RUNTIMES[backbone.format]]),
        "metadata": {"labels": list(labels)} | own,
    }


def requirements(others: Sequence[str] = ()) -> list[str]:
    """Return pip's requirements for `REQUIREMENTS` and other modules.

    They are the distributions that have the modules here, and their versions. A version is that of the package index,
    without what a builder has added (``2.4.6+cluster``).
    """
    distributions = packages_distributions()
    optional = [module for module in OPTIONAL if module in distributions]
    return [_requirement(module, distributions) for module in dict.fromkeys((*REQUIREMENTS, *others, *optional))]


def _requirement(module: str, distributions: Mapping[str, Sequence[str]]) -> str:
    """Return the requirement of a module, without a version if no metadata states it."""
    names = sorted(distributions.get(module, [module]), key=lambda name: (name != module, name))
    for name in names:
        with suppress(PackageNotFoundError):
            if number := version(name):
                return f"{name}=={number.partition('+')[0]}"
    say(f"warning: no package metadata states the version of {module}; the tagger's requirements leave it open")
    return names[0]


def _version_of(client: mlflow.MlflowClient, name: str, blend: str) -> ModelVersion | None:
    """Return the first complete version of a registered model that is this blend, if any."""
    versions = find_versions(client, name, f"tags.`{TAG}blend` = '{blend}'")
    ready = [version for version in versions if version.status == "READY"]
    return min(ready, key=lambda version: int(version.version), default=None)


def _decide(champion: ModelVersion | None, score: Score, dataset: str, promote: str) -> tuple[bool, str]:
    """Return whether a version becomes champion, and why."""
    if promote != "auto":
        return promote == "always", f"promote={promote}"
    own, value = f"its OOF {SCORES[score.name]}", _told(score.value, score.leak)
    if champion is None:
        return True, f"there was none; {own} is {value}"
    own = f"{own} {value}"
    name, before = f"version {champion.version}", float(champion.tags.get(f"{TAG}oof_{score.name}", "nan"))
    if champion.tags.get(TAG + "dataset") != dataset:
        return True, f"{name} came from another dataset"
    if score.clips < int(champion.tags.get(TAG + "oof_clips", 0)):
        return False, f"{own} is computed on fewer clips than the {before:.4f} of {name}"
    leak = champion.tags.get(TAG + "leak", "")
    if bool(leak) != bool(score.leak):
        return bool(leak), f"{own} cannot be compared with the {_told(before, leak)} of {name}"
    verb = "beats" if score.value > before else "does not beat"
    return score.value > before, f"{own} {verb} the {before:.4f} of {name}"


def _told(score: float, leak: str) -> str:
    return f"{score:.4f}" + (f" (too high: {leak})" if leak else "")
