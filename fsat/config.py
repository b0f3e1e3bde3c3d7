"""The settings that training, features and inference share, and the models that they can name.

Conventions: times in seconds, rates in Hz, lengths in samples. Every field of `Config` is an option of the command
line under the same name, a parameter of every run, and part of a study's id. The defaults are those of the
*Beginner's Guide to Audio Data* notebook.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from fsat.errors import ConfigError, printable

RECIPE = 2
"""Raised whenever the code's results change for the same Config and dataset."""

MAX_RATE, MAX_SECONDS = 768000, 600
"""Greatest sampling_rate in Hz and audio_duration in s that make sense for a clip."""

HOP_LENGTH = 512
"""Samples between two MFCC frames (librosa's default, as in the notebook)."""


@dataclass(frozen=True)
class ModelInfo:
    """What fsat knows of a model without importing TensorFlow.

    Attributes:
        builder: ``module:function`` that makes the Keras model.
        features: ``waveform`` or ``mfcc``, what the model takes in.
        min_samples: the shortest input in samples that its layers can take.
        min_mfcc: the fewest MFCC that its layers can take; 0 where it takes none.
        bfloat16: whether ``precision=auto`` may choose bfloat16: the model has arithmetic that gains by it.
        preset: Config values that go with the model unless an option says otherwise.
    """

    builder: str
    features: str = "waveform"
    min_samples: int = 1
    min_mfcc: int = 0
    bfloat16: bool = True
    preset: Mapping[str, Any] = field(default_factory=dict)


MODELS: dict[str, ModelInfo] = {
    "dummy1d": ModelInfo("fsat.models.waveform:dummy1d", bfloat16=False),
    "conv1d": ModelInfo("fsat.models.waveform:conv1d", min_samples=1616),
    "conv2d_mfcc": ModelInfo(
        "fsat.models.mfcc:conv2d_mfcc",
        features="mfcc",
        min_samples=15 * HOP_LENGTH,
        min_mfcc=16,
        preset={"sampling_rate": 44100, "n_mfcc": 40},
    ),
}
"""Every model by name. A new one is a builder function and a line here."""

PRESETS: dict[str, dict[str, Any]] = {name: {"model": name, **info.preset} for name, info in MODELS.items()}
PRESETS["quick"] = {"model": "dummy1d", "sampling_rate": 100, "audio_duration": 1.0, "n_folds": 2, "max_epochs": 1}

BLENDS = ("geometric", "arithmetic", "weighted")
"""How an ensemble may blend its studies; see `fsat.scoring.blend`."""


def _setting(default: Any, help: str, *, least: float | None = None, above: float | None = None,
             most: float | None = None, choices: Sequence[str] = ()) -> Any:  # fmt: skip
    metadata = {"help": help, "least": least, "above": above, "most": most, "choices": tuple(choices)}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """One model's settings, checked when made.

    Raises:
        ConfigError: a value is of the wrong kind or out of range, or the model cannot take the configured length.
    """

    model: str = _setting("conv1d", "Model to train.", choices=tuple(MODELS))
    sampling_rate: int = _setting(16000, "Rate that clips are resampled to, in Hz.", least=1, most=MAX_RATE)
    audio_duration: float = _setting(
        2.0, "Length of the crop that the model sees, in seconds.", above=0, most=MAX_SECONDS
    )
    n_mfcc: int = _setting(20, "Number of MFCC; used by models on MFCC.", least=1, most=128)
    n_folds: int = _setting(10, "Number of folds.", least=2, most=1000)
    folds: str = _setting(
        "auto",
        "Where folds come from: the table's fold column, a stratified split, or auto (the column if there is one).",
        choices=("auto", "column", "stratified"),
    )
    learning_rate: float = _setting(0.001, "Learning rate of Adam.", above=0)
    batch_size: int = _setting(64, "Clips in a batch.", least=1)
    max_epochs: int = _setting(50, "Epochs at most.", least=1)
    patience: int = _setting(5, "Epochs without a better val_loss before training stops.", least=1)
    precision: str = _setting(
        "auto",
        "Arithmetic of the layers: auto is bfloat16 where processor or GPU have it and the model gains by it.",
        choices=("auto", "float32", "mixed_bfloat16"),
    )
    eval_crops: int = _setting(3, "Evenly spaced crops of a longer clip, averaged at prediction.", least=1, most=100)
    seed: int = _setting(1001, "Seed of folds, weights, shuffling, crops and dropout.", least=0, most=2**31 - 1)

    def __post_init__(self) -> None:
        for spec in fields(self):
            object.__setattr__(self, spec.name, _checked(spec, getattr(self, spec.name)))
        info = MODELS[self.model]
        if self.n_mfcc < info.min_mfcc:
            raise ConfigError(f"n_mfcc={self.n_mfcc}: {self.model} needs at least {info.min_mfcc} MFCC; raise n_mfcc")
        if self.audio_length < info.min_samples:
            seconds = math.ceil(1000 * info.min_samples / self.sampling_rate) / 1000
            way_out = f"audio_duration={seconds:g} at this rate"
            if seconds > MAX_SECONDS:
                rate = math.ceil(info.min_samples / self.audio_duration)
                way_out = f"sampling_rate={rate} for this duration"
                if rate > MAX_RATE:
                    rate = math.ceil(info.min_samples / MAX_SECONDS)
                    way_out = f"sampling_rate={rate} and audio_duration={MAX_SECONDS}"
            raise ConfigError(
                f"{self.model} cannot take {self.audio_length} samples (sampling_rate={self.sampling_rate} Hz, "
                f"audio_duration={self.audio_duration:g} s): it needs at least {info.min_samples} samples, that is "
                f"{way_out}"
            )

    @property
    def audio_length(self) -> int:
        """Length of the crop in samples."""
        return max(1, round(self.sampling_rate * self.audio_duration))

    @property
    def features(self) -> str:
        """``waveform`` or ``mfcc``."""
        return MODELS[self.model].features

    @property
    def use_mfcc(self) -> bool:
        """Whether the model takes MFCC instead of the waveform."""
        return self.features == "mfcc"

    @property
    def n_frames(self) -> int:
        """MFCC frames in a crop."""
        return 1 + self.audio_length // HOP_LENGTH

    @property
    def dim(self) -> tuple[int, ...]:
        """Shape of the model's input for one clip: (audio_length, 1) or (n_mfcc, n_frames, 1)."""
        return (self.n_mfcc, self.n_frames, 1) if self.use_mfcc else (self.audio_length, 1)

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

    def to_dict(self) -> dict[str, Any]:
        """Values by field name, in the order of the fields."""
        return asdict(self)

    def options(self) -> dict[str, Any]:
        """The fewest options that give this Config back: the model, and what departs from its preset."""
        usual = Config.resolve({}, preset=self.model)
        return {"model": self.model} | {
            name: value for name, value in self.to_dict().items() if value != getattr(usual, name)
        }

    def study_id(self, dataset_digest: str, labels: Sequence[str]) -> str:
        """Short hash that all folds of one study share: settings, dataset, label order and recipe.

        Raises:
            ConfigError: the precision is ``auto``, which means this on one machine and that on another.
        """
        settings = self.to_dict()
        if self.precision == "auto":
            raise ConfigError("precision=auto: expected float32 or mixed_bfloat16 when a study is named")
        if not self.use_mfcc:
            del settings["n_mfcc"]  # changes no prediction
        facts = [settings, dataset_digest, list(labels), RECIPE]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]


def _checked(spec: Any, value: Any) -> Any:
    """`value` in the field's type and within its limits."""
    kind = {"int": int, "float": float, "str": str}[spec.type]
    words = {int: "a whole number", float: "a number", str: "a word"}[kind]
    try:
        if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
            raise ValueError
        value = kind(value)
        if kind is float and not math.isfinite(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{spec.name}={printable(value)}: expected {words}") from None
    limits = spec.metadata
    if limits["choices"] and value not in limits["choices"]:
        raise ConfigError(f"{spec.name}={printable(value)}: expected one of {', '.join(limits['choices'])}")
    low, above, high = limits["least"], limits["above"], limits["most"]
    if low is not None and value < low:
        raise ConfigError(f"{spec.name}={printable(value)}: expected at least {low}")
    if above is not None and value <= above:
        raise ConfigError(f"{spec.name}={printable(value)}: expected more than {above}")
    if high is not None and value > high:
        raise ConfigError(f"{spec.name}={printable(value)}: expected at most {high}")
    return value
