"""A tagger: its members at work on clips or recordings, loaded from its folder (`fsat.tagging.tagger_folder`)."""

from __future__ import annotations

import copy
import math
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fsat.config import Config
from fsat.data.audio import LONGEST, Heard, Report, hear
from fsat.data.byte_source import AudioSource
from fsat.data.decoded_clips import Clips
from fsat.data.embeddings import Embed, embed_clips
from fsat.data.levels import NO_LABEL
from fsat.errors import AudioError, ConfigError, WindowError, printable
from fsat.files import sha256_of
from fsat.metrics.blending import Blended
from fsat.metrics.scaling import Scaling
from fsat.metrics.sigmoid_blending import BlendedSigmoids
from fsat.options import LONGEST_CLIP, TagSettings
from fsat.tagging.recordings import ScoredWindow, Window, windows
from fsat.tagging.tagger_folder import BACKBONES, FACTS, load_weights, open_backbones, read_facts
from fsat.user_folders import settle_folders

if TYPE_CHECKING:
    from os import PathLike

WINDOW_BATCH = 64
"""Windows of a recording that are tagged together, unless they are longer than `LONGEST_CLIP` together."""

Decoded = Heard | AudioError
"""A clip at each of a tagger's rates, or why it cannot be used."""


class Member(NamedTuple):
    """One trained Keras model of a tagger."""

    study: str
    fold: int
    config: Config
    model: Any

    @property
    def name(self) -> str:
        """Study and fold, as ``STUDY/FOLD``."""
        return f"{self.study}/{self.fold}"


class Tagger:
    """Tags clips with all members of an ensemble, from a folder that `fsat.tagging.write` wrote.

    Thread-safe: results do not depend on other threads. `labels` is the label order; `members` go study after study;
    `blend` is the method, one of `fsat.model_presets.BLENDS`, and for ``weighted`` the weight of each study;
    `backbones` are the networks of members on embeddings, by digest. `digest` identifies the tagger with all of its
    members, whatever it is called. `task` is ``single`` or ``multi``; `use_sigmoid`: rows of scores do not sum to 1, as
    each class has a probability of its own. `thresholds` are the minimum scores of tags, float32 (n_classes,), or None.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        from fsat.models import build, compile_predictions

        settle_folders()
        facts = read_facts(Path(folder))
        self.digest = sha256_of(Path(folder) / FACTS)[:16]  # the file has the SHA-256 of the weights
        self.labels: list[str] = facts["labels"]
        self.blend: tuple[str, dict[str, float]] = facts["blend"], facts["study_weights"]
        self.scaling: Scaling = facts["scaling"]
        self.thresholds = np.array(facts["thresholds"], np.float32) if facts["thresholds"] else None
        self._lock = threading.Lock()  # of the models; decoding runs in parallel
        self.backbones = open_backbones(Path(folder) / BACKBONES, facts.get("backbones", {}))
        self.members: list[Member] = []
        for member in facts["members"]:
            config = Config.from_mapping(member["config"])
            if config.precision == "mixed_bfloat16":  # "auto" is float32 on machines that would emulate bfloat16
                config = replace(config, precision="auto")
            model = build(config, len(self.labels))
            load_weights(model, Path(folder) / member["weights"], member["sha256"])
            compile_predictions(model)
            self.members.append(Member(member["study"], member["fold"], config, model))
        self.task, self.use_sigmoid = config.task, config.use_sigmoid

    @property
    def rates(self) -> list[int]:
        """Sampling rates of the members, in Hz, ascending."""
        return sorted({member.config.sampling_rate for member in self.members})

    def in_float32(self) -> Tagger:
        """Return a tagger with copies of the members that compute in float32 on any machine."""
        from fsat.models import in_float32

        tagger = copy.copy(self)
        tagger.members = [
            Member(study, fold, replace(config, precision="float32"), in_float32(model, config))
            for study, fold, config, model in self.members
        ]
        return tagger

    def only(self, names: str) -> Tagger:
        """Return a tagger with some of the members, sharing their models; study weights are scaled to sum to 1.

        `names` is ``all``; a number, which takes the first fold of each study, then the second, up to that many
        members; or names of members, separated by commas. Raises `ConfigError`.
        """
        if names == "all":
            return self
        selected, tagger = self._selected(names), copy.copy(self)
        tagger.members = [member for member in self.members if member.name in selected]
        studies = {member.study for member in tagger.members}
        weights = {study: weight for study, weight in self.blend[1].items() if study in studies}
        total = sum(weights.values())
        tagger.blend = self.blend[0], {study: weight / total for study, weight in weights.items()}
        return tagger

    def _selected(self, names: str) -> set[str]:
        """Return the names of the members that `only` keeps."""
        all_names = [member.name for member in self.members]
        if names.isascii() and names.isdecimal():
            if not 1 <= int(names) <= len(all_names):
                raise ConfigError(f"members={names}: the tagger has {len(all_names)}: {', '.join(all_names)}")
            studies = [member.study for member in self.members]
            by_turns = sorted(range(len(studies)), key=lambda i: studies[:i].count(studies[i]))
            return {all_names[i] for i in by_turns[: int(names)]}
        selected = {name.strip() for name in names.split(",")}
        if unknown := selected - set(all_names):
            problem = f"no member {printable(min(unknown))}; expected {', '.join(all_names)}"
            raise ConfigError(f"members={printable(names)}: {problem}")
        return selected

    def most_tags(self, settings: TagSettings) -> int:
        """Return the maximum number of tags of a clip or window: any, by default, if the tagger has thresholds."""
        return settings.top_k or (len(self.labels) if self.thresholds is not None else settings.tags)

    def notes_of(self, clip: Decoded, scores: np.ndarray, tags: Sequence[Any]) -> list[str]:
        """Return what is odd about a clip, given its scores, NaN if it was not heard, and its tags."""
        notes = [] if isinstance(clip, AudioError) else list(clip.notes)
        return notes + self.note_without(tags, not np.isnan(scores[0]))

    def note_without(self, tags: Sequence[Any], is_heard: bool) -> list[str]:
        """Return a note if a sound that was heard has no tag, and the classes are scored by themselves."""
        return [NO_LABEL] if self.use_sigmoid and is_heard and not tags else []

    def scores(self, sources: Sequence[AudioSource], max_seconds: float = LONGEST) -> tuple[np.ndarray, list[str]]:
        """Return the blended class probabilities of clips, given as bytes or paths of audio files, and their errors.

        Scores are float32 (n, n_classes). Rows sum to 1 unless `use_sigmoid`; they are NaN for a clip that cannot be
        used, whose error says why, and for a silent one. A clip that is cut off has an error, and the scores of what
        is there.
        """
        return self.scores_of(self.decode_all(sources, [max_seconds] * len(sources)))

    def decode_all(self, sources: Sequence[AudioSource], max_seconds: Sequence[float]) -> list[Decoded]:
        """Return what `decode` returns for each clip, in order, using all cores."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self.decode, sources, max_seconds))

    def decode(self, source: AudioSource, max_seconds: float = LONGEST) -> Decoded:
        """Return the clip at each of the members' rates, or why it cannot be used."""
        try:
            return hear(source, self.rates, max_seconds)
        except AudioError as error:
            return error

    def scores_of(self, decoded: Sequence[Decoded]) -> tuple[np.ndarray, list[str]]:
        """Return what `scores` returns, for clips from `decode`."""
        errors = [str(clip) if isinstance(clip, AudioError) else clip.fault for clip in decoded]
        heard = {i: clip.at for i, clip in enumerate(decoded) if isinstance(clip, Heard) and not clip.is_silent}
        scores = np.full((len(decoded), len(self.labels)), np.nan, dtype=np.float32)
        while heard:
            clips = {rate: Clips.from_arrays([at[rate] for at in heard.values()], rate) for rate in self.rates}
            try:
                with self._lock:
                    scores[list(heard)] = self._blend(clips)
                break
            except WindowError as error:  # the others are scored without it
                i = list(heard)[error.index]
                errors[i] = str(error)
                del heard[i]
        return scores, errors

    def over_time(
        self,
        source: AudioSource,
        window: float,
        hop: float,
        max_seconds: float = math.inf,
        report: Report | None = None,
    ) -> Iterator[ScoredWindow]:
        """Yield start and end of each window of a recording, in seconds, and its scores, float32 (n_classes,).

        The scores of a silent window are NaN. See `windows` for the arguments, and for the errors that may end it.
        """
        failure, n_windows = None, max(1, min(WINDOW_BATCH, int(LONGEST_CLIP // window)))
        with closing(windows(source, self.rates, window, hop, max_seconds, report)) as all_windows:
            while failure is None:
                batch: list[Window] = []
                try:
                    batch.extend(islice(all_windows, n_windows))  # keeps the windows before an error
                except AudioError as error:
                    failure = error
                if not batch:
                    break
                scores, errors = self.scores_of([Heard(item.samples, is_silent=item.is_silent) for item in batch])
                for item, row, reason in zip(batch, scores, errors, strict=True):
                    if reason:
                        raise AudioError(reason)
                    yield item.start, item.end, row
        if failure is not None:
            raise failure

    def _embed_by(self, digest: str) -> Embed:
        """Return the function that embeds windows by a backbone."""
        return self.backbones[digest].embed

    def _blend(self, clips: dict[int, Clips]) -> np.ndarray:
        """Return the blended class probabilities of clips by rate, float32 (n, n_classes)."""
        from fsat.training.predict_clips import Predictor

        same_input: dict[tuple, list[Member]] = {}
        for member in self.members:
            config = member.config
            crops = (config.audio_length, config.eval_crops, config.eval_duration)
            windows_of = (config.backbone_digest, config.window_hop)
            key = (config.sampling_rate, config.features, config.dim, *crops, *windows_of)
            same_input.setdefault(key, []).append(member)
        studies: dict[str, list[np.ndarray]] = {}
        for members in same_input.values():
            config = members[0].config
            if config.use_embedding:
                embed_clips(clips[config.sampling_rate], config, partial(self._embed_by, config.backbone_digest))
            predictor = Predictor(clips[config.sampling_rate], config, keep=False)
            predictions = predictor(*(member.model for member in members))
            for member, prediction in zip(members, predictions, strict=True):
                studies.setdefault(member.study, []).append(prediction)
        method, by_study = self.blend
        weights = np.array([by_study[study] for study in studies]) if method == "weighted" else None
        blended = BlendedSigmoids if self.use_sigmoid else Blended
        return self.scaling.apply(blended(list(studies.values()), method, weights).fill())
