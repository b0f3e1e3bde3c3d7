"""The model registry: a tagger's versions, and the alias of the one to use.

The alias ``champion`` moves to a new version when its out-of-fold mAP@3 beats the holder's on the same dataset, or
when the holder came from another dataset. A score on fewer clips, of a study that lacks folds, beats none on more.
"""

from __future__ import annotations

import importlib.metadata
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from fsat.errors import RunError
from fsat.metrics.ranking import TOP_K
from fsat.tagging import Tagger
from fsat.tracking.client import UNKNOWN, Refused, address, ask
from fsat.tracking.runs import TAG

ALIAS = "champion"
REQUIREMENTS = ("tensorflow", "keras", "numpy", "scipy", "pandas", "librosa", "soundfile", "soxr", "mlflow")
"""Packages that a served tagger needs, at the versions that trained it."""


@dataclass(frozen=True)
class Score:
    """A blend's out-of-fold mAP@3, and the number of training clips that it is made on."""

    map3: float
    clips: int


@dataclass(frozen=True)
class Registered:
    """A new version and what became of the alias; `news` says it in one line."""

    name: str
    version: int
    promoted: bool
    news: str


def register(
    name: str, tagger_folder: Path, labels: Sequence[str], score: Score, dataset: str, promote: str, blend: str
) -> Registered:
    """Make a tagger a version of a registered model, and settle the alias; a blend that is one already stays that.

    Args:
        name: of the registered model.
        tagger_folder: what `fsat.tagging.write` wrote.
        labels: label order.
        score: the blend's.
        dataset: the dataset's digest.
        promote: ``auto``, ``always`` or ``never``.
        blend: digest of what was blended, and how.
    """
    client = mlflow.MlflowClient()
    holder = ask(partial(_aliased, client, name))
    version = ask(partial(_version_of, client, name, blend))
    there = version is not None
    if version is None:
        log = partial(
            mlflow.pyfunc.log_model, name="tagger", loader_module="fsat.tagging", data_path=str(tagger_folder)
        )
        uri = ask(partial(log, **tagger_arguments(labels))).model_uri
        facts = {"oof_map3": repr(float(score.map3)), "oof_clips": score.clips, "dataset": dataset, "blend": blend}
        tags = {TAG + key: str(value) for key, value in facts.items()}
        create = partial(mlflow.register_model, uri, name, await_registration_for=60, tags=tags)
        version = ask(lambda: _version_of(client, name, blend) or create())
    which = f"{name} version {version.version}" + (" is this blend already, and" if there else "")
    if holder is not None and int(holder.version) == int(version.version):
        return Registered(name, int(version.version), True, f"{which} {'stays' if there else 'is'} {ALIAS}")
    promoted, why = _decide(holder, score, dataset, promote)
    if promoted:
        ask(partial(client.set_registered_model_alias, name, ALIAS, version.version))
    verb = f"is now {ALIAS}" if promoted else f"is not {ALIAS}"
    return Registered(name, int(version.version), promoted, f"{which} {verb}: {why}")


def _version_of(client: mlflow.MlflowClient, name: str, blend: str) -> Any | None:
    """The version of a registered model that is this blend, if there is one that is whole."""
    wanted = f"name = {_quoted(name)} and tags.`{TAG}blend` = '{blend}'"
    found = [version for version in client.search_model_versions(wanted) if version.status == "READY"]
    return min(found, key=lambda version: int(version.version), default=None)


def _quoted(name: str) -> str:
    """A name as MLflow's filters take it."""
    quote = '"' if "'" in name else "'"
    return f"{quote}{name}{quote}"


def pinned(model_uri: str) -> str:
    """The URI of the version that an alias stands for now, so that all load the same; others as they are."""
    name, at, alias = model_uri.removeprefix("models:/").partition("@")
    if not (at and model_uri.startswith("models:/")):
        return model_uri
    version = ask(partial(_aliased, mlflow.MlflowClient(), name, alias))
    return f"models:/{name}/{version.version}" if version is not None else model_uri


def load_tagger(model_uri: str) -> Any:
    """The pyfunc model behind a URI such as ``models:/fsat@champion``.

    Raises:
        RunError: there is no such model.
    """
    try:
        return ask(lambda: mlflow.pyfunc.load_model(model_uri))
    except Refused as error:
        cause = " ".join(str(error.__cause__).split())[:200]
        raise RunError(
            f"model={model_uri}: cannot be loaded from {address()} ({cause}); register one with "
            "`mlflow run . -e ensemble`"
        ) from error


def open_tagger(model_uri: str) -> Tagger:
    """The tagger itself behind a URI.

    Raises:
        RunError: there is no such model, or it is not one of fsat's.
    """
    before = list(sys.path)
    model = load_tagger(model_uri)
    sys.path[:] = before  # MLflow adds the code that came with the model, which processes started here would import
    try:
        tagger = model.get_raw_model()
    except NotImplementedError:
        tagger = None
    if not isinstance(tagger, Tagger):
        raise RunError(f"model={model_uri}: is no tagger of fsat's; register one with `mlflow run . -e ensemble`")
    return tagger


def run_of(model_uri: str) -> str:
    """Id of the run that made the model behind a URI; an empty text where that is not known."""
    return ask(lambda: mlflow.models.get_model_info(model_uri)).run_id or ""


def _aliased(client: mlflow.MlflowClient, name: str, alias: str = ALIAS) -> Any | None:
    """The version with an alias, if there is one."""
    if not client.search_registered_models(filter_string=f"name = {_quoted(name)}"):
        return None  # a server with users would refuse to say more of a model that is not there
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in UNKNOWN:
            raise
        return None


def _decide(holder: Any | None, score: Score, dataset: str, promote: str) -> tuple[bool, str]:
    if promote == "never":
        return False, "promote=never"
    if promote == "always":
        return True, "promote=always"
    if holder is None:
        return True, f"there was none; its OOF mAP@3 is {score.map3:.4f}"
    before = f"version {holder.version}"
    if holder.tags.get(TAG + "dataset") != dataset:
        return True, f"{before} came from another dataset"
    held = float(holder.tags.get(TAG + "oof_map3", "nan"))
    if score.clips < int(holder.tags.get(TAG + "oof_clips", 0)):
        return False, f"its OOF mAP@3 {score.map3:.4f} is made on fewer clips than the {held:.4f} of {before}"
    if score.map3 > held:
        return True, f"its OOF mAP@3 {score.map3:.4f} beats the {held:.4f} of {before}"
    return False, f"its OOF mAP@3 {score.map3:.4f} does not beat the {held:.4f} of {before}"


def tagger_arguments(labels: Sequence[str]) -> dict[str, Any]:
    """What MLflow is told of every tagger: signature, an example, the code and the packages that it needs."""
    import fsat

    text = DataType.string
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "audio")]),
        outputs=Schema(
            [ColSpec(Array(text), "labels"), ColSpec(Array(DataType.double), "scores"), ColSpec(text, "error")]
        ),
        params=ParamSchema([ParamSpec("top_k", DataType.integer, TOP_K), ParamSpec("min_score", DataType.double, 0.0)]),
    )
    return {
        "signature": signature,
        "input_example": pd.DataFrame({"audio": [_example_clip()]}),
        "code_paths": [str(Path(fsat.__file__).parent)],
        "pip_requirements": [f"{name}=={importlib.metadata.version(name)}" for name in REQUIREMENTS],
        "metadata": {"labels": list(labels)},
    }


def _example_clip() -> bytes:
    """A tenth of a second of a 440 Hz sine as a WAV file."""
    import soundfile as sf

    buffer = io.BytesIO()
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(1600) / 16000)
    sf.write(buffer, samples, 16000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
