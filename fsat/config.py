"""Settings that training, features and inference share.

Conventions: times in seconds, rates in Hz, lengths in samples. Every field of `Config` is an option of the command line
with the same name, a parameter of every run, and part of a study's id. The defaults are those of the *Beginner's Guide
to Audio Data* notebook; those of later additions leave its results unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any

from fsat.errors import ConfigError, count
from fsat.model_presets import HOP_LENGTH, LOGMEL_HOP, MODELS, PRESETS, TASKS
from fsat.options import check_options, option
from fsat.setting_texts import normalised_schedule, run_id_or_none, tagger_or_run_ids, weight_schedule

MAX_RATE, MAX_SECONDS = 768000, 600
"""Maximum of sampling_rate in Hz and of audio_duration in s."""

SPECTROGRAM_ONLY = ("gain", "stretch", "mel_shift", "time_mask", "mel_mask", "eval_duration")
"""Settings for models on log-mel spectrograms alone."""


EMBEDDING_ONLY = ("backbone", "window_hop", "embedding_size", "head", "hidden_units", "pooling", "dropout")
"""Settings of model=embedding, which other models ignore."""


def digest_of(backbone: str) -> str:
    """Return the digest of a backbone given as ``NAME@DIGEST``; an empty text for a path, or none."""
    name, _, digest = backbone.rpartition("@")
    is_digest = len(digest) == 16 and set(digest) <= set("0123456789abcdef")
    return digest if name and "/" not in name and is_digest else ""


@dataclass(frozen=True)
class Config:
    """Settings of one model; a value out of range, or a length that the model cannot take, raises `ConfigError`."""

    model: str = option("conv1d", "Model to train.", choices=tuple(MODELS))
    task: str = option("single", "Labels of a clip: one (single), or any number, also none (multi).", choices=TASKS)
    reject: str = option(
        "none",
        "Sounds of no class; auto: each class is scored by itself, the model trains on generated noise too, and a "
        "sound that no class fits has no tag; none: one class always fits, unless task=multi.",
        choices=("none", "auto"),
    )
    sampling_rate: int = option(16000, "Rate that clips are resampled to, in Hz.", least=1, most=MAX_RATE)
    audio_duration: float = option(2.0, "Length of the model's crop, in seconds.", above=0, most=MAX_SECONDS)
    n_mfcc: int = option(20, "Number of MFCC; for models on MFCC.", least=1, most=128)
    n_mels: int = option(64, "Number of mel bands; for models on log-mel spectrograms.", least=16, most=256)
    n_folds: int = option(10, "Number of folds.", least=2, most=1000)
    folds: str = option(
        "auto", "Source of folds; auto is the table's column, if it has one.", choices=("auto", "column", "stratified")
    )
    learning_rate: float = option(0.001, "Learning rate of Adam; the peak of a schedule.", above=0)
    schedule: str = option("constant", "Learning rate schedule; cosine falls to 0.", choices=("constant", "cosine"))
    warmup: float = option(0.0, "Share of the training in which the learning rate rises from 0.", least=0, below=1)
    weight_decay: float = option(0.0, "Weight decay of kernels, decoupled from the loss (AdamW).", least=0, most=1)
    batch_size: int = option(64, "Batch size, in clips.", least=1)
    max_epochs: int = option(50, "Maximum number of epochs.", least=1)
    checkpoint: str = option(
        "best",
        "Weights to keep: best (of the epoch with the least validation loss), last, or average (of the last epochs).",
        choices=("best", "last", "average"),
    )
    patience: int = option(5, "Epochs without lower validation loss before training stops (checkpoint=best).", least=1)
    holdout: float = option(
        0.0, "Share of training clips that select the epoch; 0 selects on the fold's own clips.", least=0, most=0.5
    )
    average_last: float = option(0.25, "Share of epochs, the last ones, that checkpoint=average uses.", above=0, most=1)
    mixup: float = option(
        0.0,
        "Mix pairs of clips by shares from Beta(mixup, mixup); 0 for none. With task=multi a mixture has all labels.",
        least=0,
        most=100,
    )
    gain: float = option(0.0, "Maximum random gain, up or down, in dB.", least=0, most=60)
    stretch: float = option(0.0, "Maximum random time stretch: 1 + stretch times as long or short.", least=0, most=1)
    mel_shift: int = option(0, "Maximum random pitch shift, in mel bands.", least=0, most=64)
    time_mask: float = option(0.0, "Maximum length of each of two masked time ranges, in seconds.", least=0)
    mel_mask: int = option(0, "Maximum width of each of two masked ranges, in mel bands.", least=0)
    label_smoothing: float = option(
        0.0, "Share of each label spread over all classes; only of verified labels unless loss=ce.", least=0, below=1
    )
    unverified_weight: str = option(
        "1",
        "Weight of unverified clips in the loss; or epoch:weight,... with linear interpolation, such as 0:1,30:0.2.",
        parse=normalised_schedule,
        expected="a weight of at least 0, or weights from epoch to epoch such as 0:1,30:0.2",
    )
    loss: str = option(
        "ce", "Loss on unverified clips; ce: cross-entropy.", choices=("ce", "lq", "soft_bootstrap", "hard_bootstrap")
    )
    lq: float = option(0.7, "q of loss=lq: towards 0 it is cross-entropy, at 1 mean absolute error.", above=0, most=1)
    bootstrap: float = option(0.95, "Share of the label in bootstrap losses; prediction is the rest.", least=0, most=1)
    focal: float = option(
        0.0,
        "Exponent gamma of the focal loss, which weights well-scored labels less; only for task=multi or reject=auto.",
        least=0,
        most=10,
    )
    drop_losses: float = option(
        0.0,
        "Share of a batch's unverified clips with the highest loss to ignore after warmup; with task=multi or "
        "reject=auto, of their labels.",
        least=0,
        below=1,
    )
    labels_run_id: str = option(
        "none",
        "Run of `verify` whose labels replace those of the table.",
        parse=run_id_or_none,
        expected="the id of a run of verify, or none",
    )
    precision: str = option(
        "auto", "Arithmetic of layers; auto is bfloat16 where faster.", choices=("auto", "float32", "mixed_bfloat16")
    )
    eval_crops: int = option(
        3,
        "Minimum number of evenly spaced crops of a clip, averaged at prediction; more where these leave gaps.",
        least=1,
        most=100,
    )
    eval_duration: float = option(
        0.0, "Maximum length of these crops, in seconds; at least audio_duration.", least=0, most=MAX_SECONDS
    )
    init_from: str = option(
        "none",
        "Tagger whose weights training starts from: a registered one, or the run of a fold, of ensemble or of main.",
        parse=tagger_or_run_ids,
        expected="models:/NAME@ALIAS, models:/NAME/VERSION, NAME@ALIAS, the id of a run of train_fold, ensemble or "
        "main, or none",
        metavar="URI|RUN_ID",
    )
    frozen_epochs: int = option(0, "First epochs in which only the new layers train; requires init_from.", least=0)
    class_weights: str = option(
        "none", "Weight of classes in the loss; balanced: inverse to their clips.", choices=("none", "balanced")
    )
    backbone: str = option(
        "none",
        "Pretrained network of model=embedding: its descriptor, the folder that has backbone.json, or NAME@DIGEST.",
        metavar="FILE.json|DIR|NAME@DIGEST",
    )
    window_hop: float = option(
        0.0,
        "Maximum time between windows of a backbone, in seconds.",
        least=0,
        most=MAX_SECONDS,
        shown="the descriptor's, else half a window",
    )
    embedding_size: int = option(
        0, "Number of values of an embedding, found from the backbone.", least=0, shown="the backbone's"
    )
    head: str = option(
        "linear",
        "Classifier on embeddings: a linear layer, or one hidden layer; auto is mlp if clips may have several labels.",
        choices=("auto", "linear", "mlp"),
    )
    hidden_units: int = option(256, "Width of the hidden layer of head=mlp.", least=1, most=65536)
    pooling: str = option(
        "mean",
        "How the windows of a clip become one embedding; auto is mean if clips may have several labels, else max.",
        choices=("auto", "mean", "max", "attention"),
    )
    dropout: float = option(0.0, "Share of the head's inputs to drop at random.", least=0, below=1)
    seed: int = option(1001, "Seed of folds, weights, shuffling, crops and dropout.", least=0, most=2**31 - 1)

    def __post_init__(self) -> None:
        check_options(self)
        if self.n_mfcc < (minimum := MODELS[self.model].min_mfcc):
            raise ConfigError(f"n_mfcc={self.n_mfcc}: {self.model} needs at least {minimum} MFCC; raise n_mfcc")
        self._check_length()
        for name in () if self.use_logmel else SPECTROGRAM_ONLY:
            if getattr(self, name):
                reason = f"{self.model} does not take it, only models on log-mel spectrograms do (cnn_logmel)"
                raise ConfigError(f"{name}={getattr(self, name):g}: {reason}; leave it at 0")
        if self.holdout and self.checkpoint != "best":
            fault = f"holdout={self.holdout:g}: checkpoint={self.checkpoint} selects no epoch"
            raise ConfigError(f"{fault}; leave it at 0, or use checkpoint=best")
        if self.frozen_epochs and self.init_from == "none":
            fault = f"frozen_epochs={self.frozen_epochs}: without init_from all layers are new, and none is frozen"
            raise ConfigError(f"{fault}; leave it at 0, or name an earlier tagger with init_from")
        if self.frozen_epochs > self.max_epochs:
            fault = f"frozen_epochs={self.frozen_epochs}: training has max_epochs={self.max_epochs}"
            raise ConfigError(f"{fault}; expected at most as many frozen epochs")

    def _check_length(self) -> None:
        """Raise `ConfigError` if the model cannot take the configured length."""
        least = self.min_samples
        if self.audio_length >= least:
            return
        seconds = math.ceil(1000 * least / self.sampling_rate) / 1000
        advice = f"audio_duration={seconds:g} at this rate"
        if seconds > MAX_SECONDS:
            rate = math.ceil(least / self.audio_duration)
            advice = f"sampling_rate={rate} for this duration"
            if rate > MAX_RATE:
                rate = math.ceil(least / MAX_SECONDS)
                advice = f"sampling_rate={rate} and audio_duration={MAX_SECONDS}"
        given = f"sampling_rate={self.sampling_rate} Hz, audio_duration={self.audio_duration:g} s"
        fault = f"{self.model} cannot take {count(self.audio_length, 'sample')} ({given})"
        raise ConfigError(f"{fault}: it needs at least {count(least, 'sample')}, that is {advice}")

    @property
    def audio_length(self) -> int:
        """Length of the crop in samples."""
        return max(1, round(self.sampling_rate * self.audio_duration))

    def for_task(self, task: str) -> Config:
        """Return the settings for clips of a task, with the ``auto`` of `head` and `pooling` settled.

        Raises `ConfigError` if `focal` is given for a model whose outputs are a softmax.
        """
        if self.focal and task != "multi" and self.reject != "auto":
            fault = f"focal={self.focal:g}: expected clips of several labels (task=multi), or reject=auto"
            raise ConfigError(f"{fault}; leave it at 0")
        settled = {"task": task}
        if self.head == "auto":
            settled["head"] = "mlp" if task == "multi" else "linear"
        if self.pooling == "auto":
            settled["pooling"] = "mean" if task == "multi" else "max"
        return replace(self, **settled)  # type: ignore[arg-type]

    @property
    def is_multi(self) -> bool:
        """Whether a clip has any number of labels, rather than one."""
        return self.task == "multi"

    @property
    def use_sigmoid(self) -> bool:
        """Whether each class has a probability of its own, rather than all together the sum 1."""
        return self.is_multi or self.reject == "auto"

    @property
    def activation(self) -> str:
        """Activation of the last layer: ``softmax`` or ``sigmoid``."""
        return "sigmoid" if self.use_sigmoid else "softmax"

    @property
    def features(self) -> str:
        """``waveform``, ``mfcc``, ``logmel`` or ``embedding``."""
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
    def use_embedding(self) -> bool:
        """Whether the model takes embeddings of a backbone."""
        return self.features == "embedding"

    @property
    def backbone_digest(self) -> str:
        """Digest of the backbone, once it is settled to ``NAME@DIGEST``; else an empty text."""
        return digest_of(self.backbone)

    @property
    def min_samples(self) -> int:
        """Minimum length in samples of a crop that the model can take."""
        return max(MODELS[self.model].min_samples, MODELS[self.model].min_frames * self.hop_length)

    @property
    def hop_length(self) -> int:
        """Hop length in samples between frames of the features."""
        return max(1, round(LOGMEL_HOP * self.sampling_rate)) if self.use_logmel else HOP_LENGTH

    @property
    def n_frames(self) -> int:
        """Number of frames of MFCC or of a spectrogram in a crop."""
        return 1 + self.audio_length // self.hop_length

    @property
    def eval_frames(self) -> int:
        """Number of frames of the longest crop at prediction."""
        return 1 + round(self.sampling_rate * max(self.audio_duration, self.eval_duration)) // self.hop_length

    @property
    def dim(self) -> tuple[int, ...]:
        """Shape of the model's input; spectrograms may have more frames at prediction, embeddings have more windows."""
        mfcc, logmel = (self.n_mfcc, self.n_frames, 1), (self.n_frames, self.n_mels, 1)
        shapes = {"waveform": (self.audio_length, 1), "mfcc": mfcc, "logmel": logmel}
        return (1, self.embedding_size) if self.use_embedding else shapes[self.features]

    @property
    def selected_on(self) -> str:
        """Clips that the weights were selected on: ``own fold``, ``holdout`` or ``nothing``; then ``, labels``.

        Scores on them are slightly too high. So are those after training on labels of `verify`, whose models have seen
        the clips that the fold is scored on.
        """
        weights = "nothing" if self.checkpoint != "best" else "holdout" if self.holdout else "own fold"
        return weights if self.labels_run_id == "none" else f"{weights}, labels"

    @property
    def init_runs(self) -> list[str]:
        """Ids of the fold runs to start from, one for all folds or one for each; empty without a settled init_from."""
        is_settled = self.init_from != "none" and ":" not in self.init_from
        return self.init_from.split(",") if is_settled else []

    def init_run(self, fold: int) -> str:
        """Return the id of the run whose weights a fold, from 0, starts from; empty without a settled init_from."""
        ids = self.init_runs
        return ids[fold if len(ids) > 1 else 0] if ids else ""

    def unverified_weight_at(self, epoch: int) -> float:
        """Return the weight of an unverified clip in the loss of an epoch, counted from 0."""
        pairs = weight_schedule(self.unverified_weight)
        for (start, low), (stop, high) in pairwise(pairs):
            if start <= epoch < stop:
                return low + (high - low) * (epoch - start) / (stop - start)
        return pairs[0][1] if epoch < pairs[0][0] else pairs[-1][1]

    @classmethod
    def resolve(cls, options: Mapping[str, Any], preset: str | None = None) -> Config:
        """Return the Config of a preset, by default the model's, and the options that override it unless None."""
        given = {name: value for name, value in options.items() if value is not None}
        preset = given.get("model", cls.model) if preset is None else preset
        if preset not in PRESETS:
            name, known = ("model", MODELS) if preset == given.get("model") else ("preset", PRESETS)
            raise ConfigError(f"{name}={preset}: expected one of {', '.join(known)}")
        return cls.from_mapping({**PRESETS[preset], **given})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Config:
        """Return the Config of values or their texts, such as a run's parameters."""
        names = [spec.name for spec in fields(cls)]
        if unknown := sorted(set(values) - set(names)):
            raise ConfigError(f"{unknown[0]}: unknown setting; expected one of {', '.join(names)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return values by field name, in the order of the fields."""
        return asdict(self)

    def options(self) -> dict[str, Any]:
        """Return the fewest options that make this Config: the model, and differences from its preset."""
        preset = Config.resolve({}, preset=self.model)
        return {"model": self.model} | {k: v for k, v in self.to_dict().items() if v != getattr(preset, k)}
