"""The settings that training, features and inference share.

Conventions: times in seconds, rates in Hz, lengths in samples. Every field of `Config` is an option of the command
line under the same name, a parameter of every run, and part of a study's id. The defaults are those of the
*Beginner's Guide to Audio Data* notebook; those of what it did not have leave everything as it was there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from fsat.errors import ConfigError, printable
from fsat.options import checked, setting, weight_schedule
from fsat.presets import HOP_LENGTH, LOGMEL_HOP, MODELS, PRESETS

MAX_RATE, MAX_SECONDS = 768000, 600
"""Greatest sampling_rate in Hz and audio_duration in s that make sense for a clip."""

SPECTROGRAM_ONLY = ("gain", "stretch", "mel_shift", "time_mask", "mel_mask", "eval_duration")
"""Settings that only models on log-mel spectrograms take."""


@dataclass(frozen=True)
class Config:
    """One model's settings, checked when made.

    Raises:
        ConfigError: a value is of the wrong kind or out of range, or the model cannot take the configured length.
    """

    model: str = setting("conv1d", "Model to train.", choices=tuple(MODELS))
    sampling_rate: int = setting(16000, "Rate that clips are resampled to, in Hz.", least=1, most=MAX_RATE)
    audio_duration: float = setting(
        2.0, "Length of the crop that the model sees, in seconds.", above=0, most=MAX_SECONDS
    )
    n_mfcc: int = setting(20, "Number of MFCC; used by models on MFCC.", least=1, most=128)
    n_mels: int = setting(
        64, "Number of mel bands; used by models on log-mel spectrograms.", least=16, most=256, later=True
    )
    n_folds: int = setting(10, "Number of folds.", least=2, most=1000)
    folds: str = setting(
        "auto",
        "Where folds come from: the table's fold column, a stratified split, or auto (the column if there is one).",
        choices=("auto", "column", "stratified"),
    )
    learning_rate: float = setting(0.001, "Learning rate of Adam; its peak if it changes.", above=0)
    schedule: str = setting(
        "constant",
        "How the learning rate goes: constant, or cosine, which falls to 0 over max_epochs.",
        choices=("constant", "cosine"),
        later=True,
    )
    warmup: float = setting(
        0.0, "Share of the training over which the learning rate rises from 0.", least=0, below=1, later=True
    )
    weight_decay: float = setting(
        0.0, "Weight decay of kernels, apart from the loss (AdamW).", least=0, most=1, later=True
    )
    batch_size: int = setting(64, "Clips in a batch.", least=1)
    max_epochs: int = setting(50, "Epochs at most.", least=1)
    checkpoint: str = setting(
        "best",
        "Weights to keep: best (of the epoch with the least validation loss), last, or average (of the last epochs).",
        choices=("best", "last", "average"),
        later=True,
    )
    patience: int = setting(5, "Epochs without a better loss before training stops; used by checkpoint=best.", least=1)
    holdout: float = setting(
        0.0,
        "Share of the training clips held aside to choose the best epoch by; 0 chooses on the fold's own clips.",
        least=0,
        most=0.5,
        later=True,
    )
    average_last: float = setting(
        0.25, "Share of the epochs, at the end, that checkpoint=average averages.", above=0, most=1, later=True
    )
    mixup: float = setting(
        0.0, "Mixes pairs of clips in shares from Beta(mixup, mixup); 0 mixes none.", least=0, most=100, later=True
    )
    gain: float = setting(0.0, "Greatest random gain, up or down, in dB.", least=0, most=60, later=True)
    stretch: float = setting(
        0.0, "Random length of crops: up to 1 + stretch times as long or as short.", least=0, most=1, later=True
    )
    mel_shift: int = setting(0, "Greatest random shift of the pitch, in mel bands.", least=0, most=64, later=True)
    time_mask: float = setting(0.0, "Greatest length of each of two masked times, in seconds.", least=0, later=True)
    mel_mask: int = setting(0, "Greatest width of each of two masked ranges of mel bands.", least=0, later=True)
    label_smoothing: float = setting(
        0.0,
        "Share of each label that is spread over all classes; of checked labels alone where others count otherwise.",
        least=0,
        below=1,
        later=True,
    )
    unverified_weight: str = setting(
        "1",
        "Weight of unverified clips in the loss; or epoch:weight,... with straight lines between, as 0:1,30:0.2.",
        later=True,
    )
    loss: str = setting(
        "ce",
        "Loss on unverified clips: ce (cross-entropy), lq, soft_bootstrap or hard_bootstrap.",
        choices=("ce", "lq", "soft_bootstrap", "hard_bootstrap"),
        later=True,
    )
    lq: float = setting(0.7, "q of loss=lq: near 0 it is cross-entropy, at 1 mean absolute error.", above=0, most=1,
                        later=True)  # fmt: skip
    bootstrap: float = setting(
        0.95, "Share of the label in the bootstrap losses; the model's own belief is the rest.", least=0, most=1,
        later=True,
    )  # fmt: skip
    drop_losses: float = setting(
        0.0, "Share of the unverified clips of a batch, those with the greatest loss, that do not count after warmup.",
        least=0, below=1, later=True,
    )  # fmt: skip
    labels_run_id: str = setting("none", "Run of `verify` whose labels to train on instead of the table's.", later=True)
    precision: str = setting(
        "auto",
        "Arithmetic of the layers: auto is bfloat16 where processor or GPU have it and the model gains by it.",
        choices=("auto", "float32", "mixed_bfloat16"),
    )
    eval_crops: int = setting(3, "Evenly spaced crops of a longer clip, averaged at prediction.", least=1, most=100)
    eval_duration: float = setting(
        0.0,
        "Greatest length of these crops, in seconds: they are as long as the clip up to this, never less than "
        "audio_duration.",
        least=0,
        most=MAX_SECONDS,
        later=True,
    )
    seed: int = setting(1001, "Seed of folds, weights, shuffling, crops and dropout.", least=0, most=2**31 - 1)

    def __post_init__(self) -> None:
        for spec in fields(self):
            object.__setattr__(self, spec.name, checked(spec, getattr(self, spec.name)))
        pairs = weight_schedule("unverified_weight", self.unverified_weight)
        weights = [repr(weight).removesuffix(".0") for _, weight in pairs]
        text = ",".join(f"{epoch:.0f}:{weight}" for (epoch, _), weight in zip(pairs, weights, strict=True))
        object.__setattr__(self, "unverified_weight", weights[0] if len(pairs) == 1 else text)
        info = MODELS[self.model]
        if self.n_mfcc < info.min_mfcc:
            raise ConfigError(f"n_mfcc={self.n_mfcc}: {self.model} needs at least {info.min_mfcc} MFCC; raise n_mfcc")
        self._check_length()
        if not self.use_logmel:
            for name in SPECTROGRAM_ONLY:
                if getattr(self, name):
                    raise ConfigError(
                        f"{name}={getattr(self, name):g}: {self.model} does not take it, only models on log-mel "
                        "spectrograms do (cnn_logmel); leave it at 0"
                    )
        object.__setattr__(self, "labels_run_id", self.labels_run_id.strip().lower())
        if (
            self.labels_run_id != "none" and not set(self.labels_run_id) <= set("0123456789abcdef")
        ) or not self.labels_run_id:
            raise ConfigError(
                f"labels_run_id={printable(self.labels_run_id)}: expected the id of a run of verify, or none"
            )
        if self.holdout and self.checkpoint != "best":
            raise ConfigError(
                f"holdout={self.holdout:g}: checkpoint={self.checkpoint} chooses nothing; leave it at 0, or use "
                "checkpoint=best"
            )

    def _check_length(self) -> None:
        """Raise `ConfigError` where the model cannot take the configured length."""
        least = self.min_samples
        if self.audio_length >= least:
            return
        seconds = math.ceil(1000 * least / self.sampling_rate) / 1000
        way_out = f"audio_duration={seconds:g} at this rate"
        if seconds > MAX_SECONDS:
            rate = math.ceil(least / self.audio_duration)
            way_out = f"sampling_rate={rate} for this duration"
            if rate > MAX_RATE:
                rate = math.ceil(least / MAX_SECONDS)
                way_out = f"sampling_rate={rate} and audio_duration={MAX_SECONDS}"
        raise ConfigError(
            f"{self.model} cannot take {self.audio_length} samples (sampling_rate={self.sampling_rate} Hz, "
            f"audio_duration={self.audio_duration:g} s): it needs at least {least} samples, that is {way_out}"
        )

    @property
    def audio_length(self) -> int:
        """Length of the crop in samples."""
        return max(1, round(self.sampling_rate * self.audio_duration))

    @property
    def features(self) -> str:
        """``waveform``, ``mfcc`` or ``logmel``."""
        return MODELS[self.model].features

    @property
    def use_mfcc(self) -> bool:
        """Whether the model takes MFCC instead of the waveform."""
        return self.features == "mfcc"

    @property
    def use_logmel(self) -> bool:
        """Whether the model takes log-mel spectrograms."""
        return self.features == "logmel"

    @property
    def min_samples(self) -> int:
        """The shortest crop in samples that the model can take."""
        info = MODELS[self.model]
        return max(info.min_samples, info.min_frames * self.hop_length)

    @property
    def hop_length(self) -> int:
        """Samples from one frame of the features to the next."""
        return max(1, round(LOGMEL_HOP * self.sampling_rate)) if self.use_logmel else HOP_LENGTH

    @property
    def n_frames(self) -> int:
        """Frames of MFCC or of a spectrogram in a crop."""
        return 1 + self.audio_length // self.hop_length

    @property
    def eval_frames(self) -> int:
        """Frames of the longest crop for prediction."""
        return 1 + round(self.sampling_rate * max(self.audio_duration, self.eval_duration)) // self.hop_length

    @property
    def dim(self) -> tuple[int, ...]:
        """Shape of the model's input for one clip; at prediction spectrograms may have more frames.

        It is (audio_length, 1), (n_mfcc, n_frames, 1), or (n_frames, n_mels, 1) for log-mel.
        """
        if self.use_logmel:
            return (self.n_frames, self.n_mels, 1)
        return (self.n_mfcc, self.n_frames, 1) if self.use_mfcc else (self.audio_length, 1)

    @property
    def selected_on(self) -> str:
        """What the kept weights were chosen on: ``own fold``, ``holdout`` or ``nothing``; and ``labels``.

        A score on clips that the weights were chosen on is a little too good. So it is where labels of `verify` were
        trained on, as its models have seen the clips that the fold is scored on: ``nothing, labels`` and so on.
        """
        weights = "nothing" if self.checkpoint != "best" else "holdout" if self.holdout else "own fold"
        return weights if self.labels_run_id == "none" else f"{weights}, labels"

    def unverified_weight_at(self, epoch: int) -> float:
        """Weight of an unverified clip in the loss of an epoch, counted from 0."""
        pairs = weight_schedule("unverified_weight", self.unverified_weight)
        for (start, low), (stop, high) in pairwise(pairs):
            if start <= epoch < stop:
                return low + (high - low) * (epoch - start) / (stop - start)
        return pairs[0][1] if epoch < pairs[0][0] else pairs[-1][1]

    @classmethod
    def resolve(cls, options: Mapping[str, Any], preset: str | None = None) -> Config:
        """Make a Config from a preset and the options that override it.

        Args:
            options: values by field name; None means not given.
            preset: a name in `PRESETS`; by default that of the model.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if preset is None:
            preset = given.get("model", cls.model)
        if preset not in PRESETS:
            what = "preset" if preset != given.get("model") else "model"
            known = PRESETS if what == "preset" else MODELS
            raise ConfigError(f"{what}={preset}: no such {what}; there are {', '.join(known)}")
        return cls.from_mapping({**PRESETS[preset], **given})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Config:
        """Make a Config from values or their texts, such as a run's parameters.

        Raises:
            ConfigError: there is a name that is not a field.
        """
        names = [spec.name for spec in fields(cls)]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise ConfigError(f"{unknown[0]}: no such setting; there are {', '.join(names)}")
        return cls(**values)

    @classmethod
    def names(cls, given: Mapping[str, Any]) -> list[str]:
        """The fields that a record of settings must have, and those that it has of the ones that came later."""
        return [spec.name for spec in fields(cls) if not spec.metadata["later"] or spec.name in given]

    def to_dict(self) -> dict[str, Any]:
        """Values by field name, in the order of the fields."""
        return asdict(self)

    def options(self) -> dict[str, Any]:
        """The fewest options that give this Config back: the model, and what departs from its preset."""
        usual = Config.resolve({}, preset=self.model)
        return {"model": self.model} | {
            name: value for name, value in self.to_dict().items() if value != getattr(usual, name)
        }
