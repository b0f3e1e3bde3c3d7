"""The tagger: an ensemble's members in one folder, clips in, top-k labels with scores out.

The folder holds ``tagger.json`` (labels, how studies are blended and what each weighs, and per member its study, fold,
Config and weights file) and the members' weights. Loading it runs no code from the folder. MLflow loads it through
`_load_pyfunc` as a pyfunc model, with a copy of this package, so it needs the dependencies but no checkout.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsat.config import Config
from fsat.data.audio import decode
from fsat.data.clips import Clips
from fsat.errors import AudioError, ConfigError
from fsat.identity import RECIPE
from fsat.scoring.blend import blend_studies
from fsat.scoring.metrics import TOP_K, top_k

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd

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
        blend: one of `fsat.config.BLENDS`.
        study_weights: for ``weighted``, what each study weighs.
    """
    facts = []
    for member in members:
        if study_weights and study_weights[member.study] == 0:
            continue
        name = f"{member.study}-fold{member.fold}.weights.h5"
        shutil.copyfile(member.weights, folder / name)
        facts.append({"study": member.study, "fold": member.fold, "weights": name, "config": member.config.to_dict()})
    how = {"blend": blend, "study_weights": dict(study_weights or {})}
    whole = {"recipe": RECIPE, "labels": list(labels), **how, "members": facts}
    (folder / FACTS).write_text(json.dumps(whole, indent=2) + "\n")


class Tagger:
    """Tags clips with all members of an ensemble.

    Attributes:
        labels: label order.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        from fsat.models import build

        facts = json.loads((Path(folder) / FACTS).read_text())
        self.labels: list[str] = facts["labels"]
        self._method: str = facts.get("blend", "geometric")  # older folders say nothing
        self._study_weights: dict[str, float] = facts.get("study_weights", {})
        self._members = []
        for fact in facts["members"]:
            config = Config.from_mapping(fact["config"])
            if config.precision == "mixed_bfloat16":  # or float32, where the machine would have to imitate it
                config = replace(config, precision="auto")
            model = build(config, len(self.labels))
            model.load_weights(Path(folder) / fact["weights"])
            self._members.append((fact["study"], config, model))

    def scores(self, sources: Sequence[bytes | str | PathLike[str]]) -> tuple[np.ndarray, list[str]]:
        """Blended class probabilities of clips.

        Args:
            sources: the bytes or paths of audio files.

        Returns:
            float32 (n, n_classes), rows sum to 1, NaN where a clip cannot be used; and for each clip the reason why
            it cannot, empty where it can.
        """
        rates = sorted({config.sampling_rate for _, config, _ in self._members})
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            decoded = list(pool.map(partial(_decode, rates=rates), sources))
        errors = [str(clip) if isinstance(clip, AudioError) else "" for clip in decoded]
        usable = [i for i, error in enumerate(errors) if not error]
        result = np.full((len(sources), len(self.labels)), np.nan, dtype=np.float32)
        if usable:
            clips = {rate: Clips.from_arrays([decoded[i][rate] for i in usable], rate) for rate in rates}
            result[usable] = self._blend(clips)
        return result, errors

    def _blend(self, clips: dict[int, Clips]) -> np.ndarray:
        from fsat.training.predict import Predictor

        alike: dict[tuple, list[tuple[str, Config, Any]]] = {}  # members that take in the same
        for member in self._members:
            config = member[1]
            crops = (config.audio_length, config.eval_crops, config.eval_duration)
            key = (config.sampling_rate, config.features, config.dim, *crops)
            alike.setdefault(key, []).append(member)
        studies: dict[str, list[np.ndarray]] = {}
        for members in alike.values():
            config = members[0][1]
            predictions = Predictor(clips[config.sampling_rate], config)(*(model for _, _, model in members))
            for (study, _, _), prediction in zip(members, predictions, strict=True):
                studies.setdefault(study, []).append(prediction)
        weights = [self._study_weights[study] for study in studies] if self._method == "weighted" else None
        return blend_studies(list(studies.values()), method=self._method, weights=weights)

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Tag rows of clips; this is what MLflow calls.

        Args:
            model_input: has a column ``audio`` with the bytes of an audio file in each row.
            params: ``top_k``, how many labels a clip, 3 if not given.

        Returns:
            per row ``labels`` and ``scores``, lists of the `top_k` best, best first, and ``error``: why the clip
            could not be tagged (its lists are empty then), or an empty text.
        """
        import pandas as pd

        wanted = int((params or {}).get("top_k", TOP_K))
        if wanted < 1:
            raise ConfigError(f"top_k={wanted}: expected at least 1")
        scores, errors = self.scores(model_input["audio"].tolist())
        rows = []
        for row, ranking, error in zip(scores, top_k(scores, wanted), errors, strict=True):
            best = [] if error else ranking
            rows.append(([self.labels[j] for j in best], [float(row[j]) for j in best], error))
        return pd.DataFrame(rows, columns=["labels", "scores", "error"])


def _decode(source: bytes | str | PathLike[str], rates: Sequence[int]) -> dict[int, np.ndarray] | AudioError:
    """The clip at each rate, or why it cannot be used."""
    try:
        return {rate: decode(source, rate) for rate in rates}
    except AudioError as error:
        return error


def _load_pyfunc(data_path: str) -> Tagger:
    """What `mlflow.pyfunc.load_model` calls."""
    return Tagger(data_path)
