"""All members of an ensemble at work: clips in, scores or labels out."""

from __future__ import annotations

import copy
import math
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fsat.config import Config
from fsat.data.audio import LONGEST, Source, decode_at
from fsat.data.clips import Clips
from fsat.errors import AudioError, ConfigError, printable
from fsat.metrics.blending import blend_studies
from fsat.metrics.ranking import top_k
from fsat.serving.cancellation import check_wanted
from fsat.serving.clips import first_sounds, groups
from fsat.serving.requests import tag_params
from fsat.tagging.folder import load_weights, read_facts
from fsat.tagging.recordings import windows

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd

WINDOWS_AT_ONCE = 64
"""Of a recording, that are tagged together."""


class Member(NamedTuple):
    """One trained Keras model of a tagger; its name is ``STUDY/FOLD``."""

    study: str
    fold: int
    config: Config
    model: Any

    @property
    def name(self) -> str:
        """Study and fold."""
        return f"{self.study}/{self.fold}"


class Tagger:
    """Tags clips with all members of an ensemble. Several threads may use it at once; each gets what it would alone.

    Attributes:
        labels: label order.
        members: its models, study after study.
        max_seconds: length of the longest clip that `predict` takes; a server sets it.
    """

    max_seconds = LONGEST

    def __init__(self, folder: str | PathLike[str]) -> None:
        from fsat.models import build, compile_predictions

        facts = read_facts(Path(folder))
        self.labels: list[str] = facts["labels"]
        self._method: str = facts.get("blend", "geometric")  # older folders say nothing
        self._study_weights: dict[str, float] = facts.get("study_weights", {})
        self._lock = threading.Lock()  # of the models: clips are decoded side by side, and tagged one after the other
        self.members: list[Member] = []
        for fact in facts["members"]:
            config = Config.from_mapping(fact["config"])
            if config.precision == "mixed_bfloat16":  # or float32, where the machine would have to imitate it
                config = replace(config, precision="auto")
            model = build(config, len(self.labels))
            load_weights(model, Path(folder) / fact["weights"], fact.get("sha256"))
            compile_predictions(model)
            self.members.append(Member(fact["study"], fact["fold"], config, model))

    @property
    def rates(self) -> list[int]:
        """The sampling rates of the members, in Hz, ascending."""
        return sorted({member.config.sampling_rate for member in self.members})

    @property
    def blend(self) -> tuple[str, dict[str, float]]:
        """How studies are blended, one of `fsat.presets.BLENDS`, and for ``weighted`` what each weighs."""
        return self._method, dict(self._study_weights)

    def in_float32(self) -> Tagger:
        """A tagger with copies of the members that compute in float32, whatever this machine would choose."""
        from fsat.models import in_float32

        exact = copy.copy(self)
        exact.members = [
            Member(study, fold, replace(config, precision="float32"), in_float32(model, config))
            for study, fold, config, model in self.members
        ]
        return exact

    def only(self, names: str) -> Tagger:
        """The tagger with some of its members; it shares their models.

        Args:
            names: ``all``; a number, which takes the first fold of each study, then the second, until there are as
                many; or names of members, separated by commas. Weights of studies are scaled to sum to 1.

        Raises:
            ConfigError: there are no such members.
        """
        if names == "all":
            return self
        there = ", ".join(member.name for member in self.members)
        if names.isascii() and names.isdecimal():
            if not 1 <= int(names) <= len(self.members):
                raise ConfigError(f"members={names}: the tagger has {len(self.members)}: {there}")
            place = {member.name: sum(m.study == member.study for m in self.members[:i])
                     for i, member in enumerate(self.members)}  # fmt: skip
            wanted = {member.name for member in sorted(self.members, key=lambda m: place[m.name])[: int(names)]}
        else:
            wanted = {name.strip() for name in names.split(",")}
            if unknown := wanted - {member.name for member in self.members}:
                raise ConfigError(f"members={printable(names)}: no member {printable(min(unknown))}; there are {there}")
        some = copy.copy(self)
        some.members = [member for member in self.members if member.name in wanted]
        left = {member.study for member in some.members}
        total = sum(weight for study, weight in self._study_weights.items() if study in left)
        some._study_weights = {study: weight / total for study, weight in self._study_weights.items() if study in left}
        return some

    def scores(self, sources: Sequence[Source], max_seconds: float = LONGEST) -> tuple[np.ndarray, list[str]]:
        """Blended class probabilities of clips.

        Args:
            sources: the bytes or paths of audio files.
            max_seconds: length of the longest clip that is taken.

        Returns:
            float32 (n, n_classes), rows sum to 1, NaN where a clip cannot be used; and for each clip the reason why
            it cannot, empty where it can.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return self.scores_of(list(pool.map(lambda source: self.decode(source, max_seconds), sources)))

    def decode(self, source: Source, max_seconds: float = LONGEST) -> dict[int, np.ndarray] | AudioError:
        """The clip at each of the members' rates, float32 (n_samples,), or why it cannot be used."""
        try:
            return decode_at(source, self.rates, max_seconds)
        except AudioError as error:
            return error

    def scores_of(self, decoded: Sequence[dict[int, np.ndarray] | AudioError]) -> tuple[np.ndarray, list[str]]:
        """As `scores`, of what `decode` has made."""
        errors = [str(clip) if isinstance(clip, AudioError) else "" for clip in decoded]
        usable = [i for i, error in enumerate(errors) if not error]
        result = np.full((len(decoded), len(self.labels)), np.nan, dtype=np.float32)
        if usable:
            clips = {rate: Clips.from_arrays([decoded[i][rate] for i in usable], rate) for rate in self.rates}
            with self._lock:
                result[usable] = self._blend(clips)
        return result, errors

    def over_time(
        self, source: Source, window: float, hop: float, max_seconds: float = math.inf
    ) -> Iterator[tuple[float, float, np.ndarray]]:
        """Class probabilities of a recording, window after window, each taken as a clip of its own.

        Args:
            source: the bytes or the path of an audio file.
            window: length of a window, in seconds.
            hop: seconds from one window's start to the next's, at most `window`.
            max_seconds: length of the longest recording that is taken.

        Yields:
            start and end of the window, in seconds, and float32 (n_classes,), which sums to 1.

        Raises:
            AudioError: the recording cannot be used, or no further.
        """
        failure = None
        with closing(windows(source, self.rates, window, hop, max_seconds)) as all_windows:
            while failure is None:
                some = []
                try:
                    some.extend(islice(all_windows, WINDOWS_AT_ONCE))  # it keeps those before an error
                except AudioError as error:
                    failure = error
                if not some:
                    break
                scores, _ = self.scores_of([one.at for one in some])
                for one, row in zip(some, scores, strict=True):
                    yield one.start, one.end, row
        if failure is not None:
            raise failure

    def _blend(self, clips: dict[int, Clips]) -> np.ndarray:
        from fsat.training.predict import Predictor

        alike: dict[tuple, list[Member]] = {}  # members that take in the same
        for member in self.members:
            config = member.config
            crops = (config.audio_length, config.eval_crops, config.eval_duration)
            key = (config.sampling_rate, config.features, config.dim, *crops)
            alike.setdefault(key, []).append(member)
        studies: dict[str, list[np.ndarray]] = {}
        for members in alike.values():
            config = members[0].config
            predictions = Predictor(clips[config.sampling_rate], config)(*(member.model for member in members))
            for member, prediction in zip(members, predictions, strict=True):
                studies.setdefault(member.study, []).append(prediction)
        weights = [self._study_weights[study] for study in studies] if self._method == "weighted" else None
        return blend_studies(list(studies.values()), method=self._method, weights=weights)

    def get_raw_model(self) -> Tagger:
        """What MLflow's ``PyFuncModel.get_raw_model`` gives: this tagger."""
        return self

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Tag rows of clips; this is what MLflow calls.

        Args:
            model_input: has a column ``audio`` with the bytes of an audio file in each row. A path is not opened.
            params: ``top_k``, how many labels a clip, 3 if not given; ``min_score``, the least score of a label, 0 if
                not given.

        Returns:
            per row ``labels`` and ``scores``, lists of the `top_k` best, best first, and ``error``: why the clip
            could not be tagged (its lists are empty then), or an empty text.

        Raises:
            ConfigError: a parameter is unknown or out of bounds.
            GivenUp: a server does not need the answer any more.
        """
        import pandas as pd

        wanted, least = tag_params(params)
        sources = model_input["audio"].tolist()
        rows = []
        for some in groups(sources, self.max_seconds):
            check_wanted()
            scores, errors = self._scores_of_bytes(sources[some])
            for row, ranking, error in zip(scores, top_k(scores, wanted), errors, strict=True):
                best = [] if error else [j for j in ranking if row[j] >= least]
                rows.append(([self.labels[j] for j in best], [float(row[j]) for j in best], error))
        return pd.DataFrame(rows, columns=["labels", "scores", "error"])

    def _scores_of_bytes(self, sources: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
        """As `scores`, of bytes alone: whoever sends a path to a server must not have it read."""
        result = np.full((len(sources), len(self.labels)), np.nan, dtype=np.float32)
        errors = [f"audio is {type(source).__name__}: expected the bytes of an audio file" for source in sources]
        places = [i for i, source in enumerate(sources) if isinstance(source, bytes | bytearray | memoryview)]
        result[places], found = self.scores([sources[i] for i in places], self.max_seconds)
        for i, error in zip(places, found, strict=True):
            errors[i] = error
        return result, errors

    def warm_up(self) -> None:
        """Have all loaded and compiled that the first clips would otherwise wait for."""
        import pandas  # noqa: F401  (which `predict` needs)

        for sound in first_sounds([member.config for member in self.members]):
            self.scores([sound])  # alone, as most clips will come: oneDNN makes code for every number of crops
