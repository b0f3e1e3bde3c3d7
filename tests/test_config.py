"""Config: the notebook's values, where they come from, what is refused and how, and what makes a study."""

from __future__ import annotations

import json
import math
import re
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest
from helpers import error_line

import fsat.study
from fsat.config import EMBEDDING_ONLY, MODELS, PRESETS, SPECTROGRAM_ONLY, Config
from fsat.errors import ConfigError
from fsat.study import study_id

SETTLED = Config(precision="float32")

WHOLE, NUMBER = "a whole number", "a number"
SCHEDULE = "a weight of at least 0, or weights from epoch to epoch such as 0:1,30:0.2"
RUN_ID = "the id of a run of verify, or none"
TAGGER = (
    "models:/NAME@ALIAS, models:/NAME/VERSION, NAME@ALIAS, the id of a run of train_fold, ensemble or main, or none"
)
LOSSES, PRECISIONS = ["ce", "lq", "soft_bootstrap", "hard_bootstrap"], ["auto", "float32", "mixed_bfloat16"]
RATES = {"at least 1": [0, -16000], "at most 768000": [768001], WHOLE: [16000.5, "16k", None, True]}
SECONDS = {"more than 0": [0.0, -2.0], "at most 600": [600.5], NUMBER: ["two", math.nan, math.inf]}
SCHEDULES = ["-1", "", "much", "nan", "0:1,0:2", "30:1,0:2", "0:1,0.5", "-1:1", "0:1,30:-0.2", "0:1,", "1.5:1"]
MODELS_LISTED = "one of dummy1d, conv1d, conv2d_mfcc, cnn_logmel, embedding"

FIELDS: dict[str, tuple[Any, list, dict[str, list]]] = {
    "model": ("dummy1d", ["dummy1d", "conv1d"], {MODELS_LISTED: ["conv3d", ""]}),
    "task": ("multi", ["single", "multi"], {"one of single, multi": ["both"]}),
    "reject": ("auto", ["none", "auto"], {"one of none, auto": ["always"]}),
    "sampling_rate": (22050, [808, 768000], RATES),
    "audio_duration": (1.5, [0.101, 600.0], SECONDS),
    "n_mfcc": (30, [1, 128], {"at least 1": [0], "at most 128": [129]}),
    "n_mels": (40, [16, 256], {"at least 16": [15], "at most 256": [257]}),
    "n_folds": (5, [2, 1000], {"at least 2": [1], "at most 1000": [1001], WHOLE: ["abc"]}),
    "folds": ("stratified", ["auto", "column", "stratified"], {"one of auto, column, stratified": ["random"]}),
    "learning_rate": (3e-05, [1e-12, 10.0], {"more than 0": [0.0, -0.001], NUMBER: ["fast", -math.inf]}),
    "schedule": ("cosine", ["constant", "cosine"], {"one of constant, cosine": ["step"]}),
    "warmup": (0.1, [0.0, 0.99], {"at least 0": [-0.1], "less than 1": [1.0]}),
    "weight_decay": (0.01, [0.0, 1.0], {"at least 0": [-1e-4], "at most 1": [1.5]}),
    "batch_size": (32, [1, 4096], {"at least 1": [0], WHOLE: [1.5]}),
    "max_epochs": (7, [1, 100000], {"at least 1": [0]}),
    "checkpoint": ("average", ["best", "last", "average"], {"one of best, last, average": ["first"]}),
    "patience": (2, [1, 100000], {"at least 1": [0]}),
    "holdout": (0.2, [0.0, 0.5], {"at least 0": [-0.1], "at most 0.5": [0.6]}),
    "average_last": (0.5, [0.01, 1.0], {"more than 0": [0.0], "at most 1": [1.1]}),
    "mixup": (0.3, [0.0, 100.0], {"at least 0": [-1.0], "at most 100": [101.0]}),
    "gain": (6.0, [0.0, 60.0], {"at least 0": [-6.0], "at most 60": [61.0]}),
    "stretch": (0.2, [0.0, 1.0], {"at least 0": [-0.5], "at most 1": [1.5]}),
    "mel_shift": (3, [0, 64], {"at least 0": [-1], "at most 64": [65]}),
    "time_mask": (0.25, [0.0, 5.0], {"at least 0": [-0.1]}),
    "mel_mask": (8, [0, 64], {"at least 0": [-1]}),
    "label_smoothing": (0.1, [0.0, 0.99], {"at least 0": [-0.1], "less than 1": [1.0]}),
    "unverified_weight": ("0:1,30:0.2", ["0", "0.25", "1", "10", "0:0,10:1", "5:1,6:0,20:0.5"], {SCHEDULE: SCHEDULES}),
    "loss": ("lq", LOSSES, {f"one of {', '.join(LOSSES)}": ["mse"]}),
    "lq": (0.5, [0.001, 1.0], {"more than 0": [0.0], "at most 1": [1.1]}),
    "bootstrap": (0.8, [0.0, 1.0], {"at least 0": [-0.1], "at most 1": [1.1]}),
    "focal": (2.0, [0.0, 10.0], {"at least 0": [-0.1], "at most 10": [11.0]}),
    "drop_losses": (0.2, [0.0, 0.99], {"at least 0": [-0.1], "less than 1": [1.0]}),
    "labels_run_id": ("0123456789abcdef", ["none", "a1b2"], {RUN_ID: ["", "newest"]}),
    "precision": ("mixed_bfloat16", PRECISIONS, {f"one of {', '.join(PRECISIONS)}": ["float16"]}),
    "eval_crops": (1, [1, 100], {"at least 1": [0], "at most 100": [101]}),
    "eval_duration": (5.0, [0.0, 2.0, 600.0], {"at least 0": [-1.0], "at most 600": [601.0]}),
    "init_from": (
        "0123abcd",
        ["none", "models:/fsat@champion", "models:/fsat/3", "models:/m-1", "a1,b2"],
        {TAGGER: ["", "fsat", "models:/", "runs:/a1/tagger", "a1,", "x@y/z"]},
    ),
    "frozen_epochs": (1, [0, 50], {"at least 0": [-1], WHOLE: [0.5]}),
    "class_weights": ("balanced", ["none", "balanced"], {"one of none, balanced": ["auto"]}),
    "backbone": ("other@fedcba9876543210", ["none", "folder/b.json", "tiny@0123456789abcdef"], {}),
    "window_hop": (0.5, [0.0, 600.0], {"at least 0": [-1.0], "at most 600": [601.0]}),
    "embedding_size": (8, [0, 1024], {"at least 0": [-1], WHOLE: [1.5]}),
    "head": ("mlp", ["auto", "linear", "mlp"], {"one of auto, linear, mlp": ["svm"]}),
    "hidden_units": (16, [1, 65536], {"at least 1": [0], "at most 65536": [65537]}),
    "pooling": ("max", ["auto", "mean", "max", "attention"], {"one of auto, mean, max, attention": ["min"]}),
    "dropout": (0.5, [0.0, 0.99], {"at least 0": [-0.1], "less than 1": [1.0]}),
    "seed": (7, [0, 2**31 - 1], {"at least 0": [-1], "at most 2147483647": [2**31], WHOLE: [""]}),
}
"""For every field: a value that is not the default, allowed values at the ends of its range, and refused values by what
is expected instead."""

OTHER_VALUES = {name: value for name, (value, _, _) in FIELDS.items()}

WARM = {"init_from": "0123abcd"}
TOGETHER = {
    **{key: {"model": "cnn_logmel"} for key in SPECTROGRAM_ONLY},
    "frozen_epochs": WARM,
    "focal": {"reject": "auto"},
}
"""Settings that a field requires."""

EVERYWHERE = {name: value for name, value in OTHER_VALUES.items() if name not in (*SPECTROGRAM_ONLY, "holdout")}
"""Values that every model takes, all at once."""


def test_defaults_and_presets_are_the_notebooks() -> None:
    config = Config()
    assert (config.model, config.sampling_rate, config.audio_duration, config.n_folds) == ("conv1d", 16000, 2, 10)
    assert (config.learning_rate, config.max_epochs, config.n_mfcc) == (0.001, 50, 20)
    assert (config.batch_size, config.patience, config.seed) == (64, 5, 1001)
    assert Config.resolve({}, "conv1d") == config
    assert Config.resolve({}, "conv2d_mfcc") == Config(model="conv2d_mfcc", sampling_rate=44100, n_mfcc=40)
    quick = Config(model="dummy1d", sampling_rate=100, audio_duration=1, n_folds=2, max_epochs=1)
    assert Config.resolve({}, "quick") == quick
    for name, preset in PRESETS.items():
        assert preset.items() <= Config.resolve({}, name).to_dict().items()


@pytest.mark.parametrize(("model", "rate", "duration", "n_mfcc", "hop", "dim"), [
    ("conv1d", 16000, 2.0, 20, 512, (32000, 1)),
    ("dummy1d", 44100, 0.3, 20, 512, (13230, 1)),
    ("dummy1d", 100, 0.016, 20, 512, (2, 1)),
    ("dummy1d", 1, 0.01, 20, 512, (1, 1)),
    ("conv2d_mfcc", 44100, 2.0, 40, 512, (40, 173, 1)),  # the notebook's
    ("conv2d_mfcc", 44100, 0.5, 128, 512, (128, 44, 1)),  # 22050 samples: 43 hops and a bit
    ("conv2d_mfcc", 512, 16.0, 20, 512, (20, 17, 1)),
    ("cnn_logmel", 8000, 0.5, 20, 128, (32, 64, 1)),
    ("cnn_logmel", 44100, 1.0, 20, 706, (63, 64, 1)),  # of 705.6
    ("cnn_logmel", 22050, 1.0, 20, 353, (63, 64, 1)),  # of 352.8
    ("cnn_logmel", 10, 1.6, 20, 1, (17, 64, 1)),
])  # fmt: skip
def test_shape_of_the_input(model: str, rate: int, duration: float, n_mfcc: int, hop: int, dim: tuple) -> None:
    config = Config(model=model, sampling_rate=rate, audio_duration=duration, n_mfcc=n_mfcc)
    assert (config.hop_length, config.dim) == (hop, dim)
    features = {"conv2d_mfcc": "mfcc", "cnn_logmel": "logmel"}.get(model, "waveform")
    assert (config.features, config.use_mfcc, config.use_logmel) == (features, features == "mfcc", features == "logmel")
    if features == "waveform":
        assert config.audio_length == dim[0]
    else:
        assert config.n_frames == dim[1 if config.use_mfcc else 0]
    if config.use_logmel:
        assert replace(config, n_mels=40).dim == (dim[0], 40, 1)


def test_options_go_before_presets() -> None:
    assert Config.resolve({}) == Config.resolve({"model": "conv1d"}) == Config()
    assert Config.resolve({"model": "conv2d_mfcc"}) == Config.resolve({}, "conv2d_mfcc")  # the model's preset
    config = Config.resolve({"model": "conv2d_mfcc", "sampling_rate": 22050, "n_mfcc": None, "seed": "3"})
    assert (config.sampling_rate, config.n_mfcc, config.seed) == (22050, 40, 3)
    config = Config.resolve({"max_epochs": 9}, "quick")
    assert (config.max_epochs, config.n_folds, config.sampling_rate) == (9, 2, 100)
    config = Config.resolve({"model": "dummy1d"}, "conv2d_mfcc")
    assert (config.model, config.sampling_rate, config.n_mfcc) == ("dummy1d", 44100, 40)


@pytest.mark.parametrize(("options", "preset", "line"), [
    ({"model": "conv9"}, None, f"model=conv9: expected {MODELS_LISTED}"),
    ({}, "slow", f"preset=slow: expected {MODELS_LISTED}, conv1d_fsat, conv2d_mfcc_fsat, quick"),
    ({"model": "quick"}, None, f"model=quick: expected {MODELS_LISTED}"),
    ({"model": "conv9"}, "quick", f"model=conv9: expected {MODELS_LISTED}"),
    ({"learning_rat": 0.1}, None, f"learning_rat: unknown setting; expected one of {', '.join(FIELDS)}"),
])  # fmt: skip
def test_unknown_models_presets_and_settings(options: dict, preset: str | None, line: str) -> None:
    assert error_line(ConfigError, Config.resolve, options, preset) == line


def refusal(**settings: Any) -> str:
    return error_line(ConfigError, Config, **settings)


@pytest.mark.parametrize("name", FIELDS)
def test_limits(name: str) -> None:
    _, allowed, refused = FIELDS[name]
    for value in allowed:
        assert getattr(Config(**TOGETHER.get(name, {}), **{name: value}), name) == value
    for expected, values in refused.items():
        for value in values:
            assert refusal(**{name: value}) == f"{name}={value}: expected {expected}"


def test_every_field_is_tested() -> None:
    assert [spec.name for spec in fields(Config)] == list(FIELDS)


@pytest.mark.parametrize(("settings", "given", "least", "advice"), [
    ({"sampling_rate": 100, "audio_duration": 1}, "100 samples (sampling_rate=100 Hz, ", 1616, 16.16),
    ({"audio_duration": 0.1}, "1600 samples (sampling_rate=16000 Hz, ", 1616, 0.101),
    ({"model": "conv2d_mfcc", "audio_duration": 0.4}, "6400 samples (sampling_rate=16000 Hz, ", 7680, 0.48),
    ({"model": "cnn_logmel", "audio_duration": 0.2}, "3200 samples (sampling_rate=16000 Hz, ", 3840, 0.24),
])  # fmt: skip
def test_clips_too_short_for_a_model(settings: dict, given: str, least: int, advice: float) -> None:
    line = f"{settings.get('model', 'conv1d')} cannot take {given}audio_duration={settings['audio_duration']:g} s)"
    needed = f"it needs at least {least} samples, that is audio_duration={advice:g} at this rate"
    assert refusal(**settings) == f"{line}: {needed}"


@pytest.mark.parametrize(("settings", "line"), [
    ({"model": "conv2d_mfcc", "n_mfcc": 15}, "n_mfcc=15: conv2d_mfcc needs at least 16 MFCC; raise n_mfcc"),
    ({"checkpoint": "last", "holdout": 0.2}, "holdout=0.2: checkpoint=last selects no epoch"),
    ({"checkpoint": "average", "holdout": 0.2}, "holdout=0.2: checkpoint=average selects no epoch"),
    ({"model": "conv1d\nand more"}, "model=conv1d\\nand more: expected one of"),
    *(({name: OTHER_VALUES[name]}, "conv1d does not take it, only models on log-mel") for name in SPECTROGRAM_ONLY),
])  # fmt: skip
def test_settings_that_do_not_go_together(settings: dict, line: str) -> None:
    assert line in refusal(**settings)


@pytest.mark.parametrize("model", ["conv1d", "conv2d_mfcc", "cnn_logmel"])
@pytest.mark.parametrize("rate", [2, 100, 1001, 8000, 11025, 16000, 44100, 96000, 768000])
def test_the_length_that_the_error_names_is_one_that_works(model: str, rate: int) -> None:
    message = refusal(model=model, sampling_rate=rate, audio_duration=0.001)
    advice = dict(re.findall(r"(audio_duration|sampling_rate)=([\d.]+)", message.partition("it needs")[2]))
    assert advice
    fixed = Config.from_mapping({"model": model, "sampling_rate": rate, **advice})
    assert fixed.audio_length >= max(MODELS[model].min_samples, fixed.min_samples)
    assert fixed.n_frames >= MODELS[model].min_frames


@pytest.mark.parametrize("settings", [
    {}, EVERYWHERE, {**EVERYWHERE, "model": "conv2d_mfcc"},
    {**OTHER_VALUES, "model": "cnn_logmel", "checkpoint": "best"},
    {"learning_rate": 0.1 + 0.2, "audio_duration": 1 / 3}, {"learning_rate": 1e-12, "seed": 2**31 - 1},
])  # fmt: skip
def test_values_come_back_from_their_texts(settings: dict) -> None:
    config = Config(**settings)
    texts = {name: str(value) for name, value in config.to_dict().items()}  # as MLflow keeps them
    assert Config.from_mapping(texts) == config
    assert Config.from_mapping(json.loads(json.dumps(config.to_dict()))) == config


def test_values_have_the_type_of_their_field() -> None:
    config = Config.from_mapping({"sampling_rate": "8000", "audio_duration": 1, "seed": 5.0, "learning_rate": "1e-3"})
    assert config.to_dict() | {"sampling_rate": 8000, "audio_duration": 1.0, "seed": 5} == config.to_dict()
    assert [type(value) for value in (config.sampling_rate, config.seed)] == [int, int]
    assert [type(value) for value in (config.audio_duration, config.learning_rate)] == [float, float]
    assert type(replace(config, batch_size=np.int64(8)).batch_size) is int
    with pytest.raises(FrozenInstanceError):
        config.seed = 2


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("name", [name for name in EVERYWHERE if name not in ("model", "sampling_rate")])
def test_options_give_the_config_back(preset: str, name: str) -> None:
    needed = TOGETHER[name] if name in ("frozen_epochs", "focal") else {}
    config = Config.resolve({**needed, name: OTHER_VALUES[name]}, preset)
    options = config.options()
    assert Config.resolve(options) == config
    assert next(iter(options)) == "model"
    assert options.get(name, getattr(Config.resolve({}, config.model), name)) == OTHER_VALUES[name]


def test_options_are_the_fewest() -> None:
    assert Config().options() == {"model": "conv1d"}
    assert Config.resolve({"seed": 3}, "conv2d_mfcc").options() == {"model": "conv2d_mfcc", "seed": 3}
    assert Config(model="conv2d_mfcc").options() == {"model": "conv2d_mfcc", "sampling_rate": 16000, "n_mfcc": 20}


IN_USE = {
    "frozen_epochs": WARM, "focal": {"reject": "auto"},
    **{key: {"model": "embedding", "backbone": "tiny@0123456789abcdef", "head": "mlp"} for key in EMBEDDING_ONLY},
    "head": {"model": "embedding", "backbone": "tiny@0123456789abcdef"},
    **{key: {"model": "cnn_logmel"} for key in (*SPECTROGRAM_ONLY, "n_mels")}, "n_mfcc": {"model": "conv2d_mfcc"},
    "average_last": {"checkpoint": "average"}, "lq": {"loss": "lq"}, "bootstrap": {"loss": "soft_bootstrap"},
}  # fmt: skip
"""Settings that a field requires to change predictions."""


FACTS = ("digest", ["a", "b"], "folds")


@pytest.mark.parametrize("name", list(OTHER_VALUES))
def test_study_changes_with_every_setting(name: str) -> None:
    config = replace(SETTLED, **IN_USE.get(name, {}))
    assert study_id(replace(config, **{name: OTHER_VALUES[name]}), *FACTS) != study_id(config, *FACTS)


def test_a_study_is_not_named_before_its_precision_is_settled() -> None:
    with pytest.raises(ConfigError, match="precision=auto"):
        study_id(Config(), *FACTS)


def test_studies_without_a_warm_start_have_the_ids_that_they_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsat.study, "RECIPE", 4)
    assert study_id(SETTLED, "digest", ["a", "b"], "folds") == "e70d29b6c1"
    assert study_id(Config.resolve({"precision": "float32"}, "cnn_logmel"), *FACTS) == "c7e18e1868"


def test_a_study_is_not_named_before_its_start_is_settled() -> None:
    config = Config(precision="float32", init_from=" birds@champion ")
    assert config == replace(config, init_from="models:/birds@champion")
    with pytest.raises(ConfigError, match="init_from=models:/birds@champion"):
        study_id(config, *FACTS)
    assert (config.init_runs, config.init_run(1)) == ([], "")


def test_the_run_that_a_fold_starts_from() -> None:
    one, each = Config(init_from="A1"), Config(init_from="a1, b2")
    assert [one.init_run(fold) for fold in range(2)] == ["a1", "a1"]
    assert [each.init_run(fold) for fold in range(2)] == ["a1", "b2"]
    assert (Config().init_runs, each.init_from) == ([], "a1,b2")


def test_frozen_epochs_need_an_earlier_model() -> None:
    line = error_line(ConfigError, Config, frozen_epochs=3)
    assert line.startswith("frozen_epochs=3: without init_from all layers are new")
    line = error_line(ConfigError, Config, frozen_epochs=3, max_epochs=2, **WARM)
    assert line == "frozen_epochs=3: training has max_epochs=2; expected at most as many frozen epochs"


@pytest.mark.parametrize(("unused", "settings"), [
    *((name, {"model": "conv1d"}) for name in ("n_mfcc", "n_mels", "average_last", "lq", "bootstrap")),
    ("patience", {"checkpoint": "last"}),
])  # fmt: skip
def test_study_does_not_change_with_a_setting_that_changes_no_prediction(unused: str, settings: dict) -> None:
    config = replace(SETTLED, **settings)
    assert study_id(replace(config, **{unused: OTHER_VALUES[unused]}), *FACTS) == study_id(config, *FACTS)


@pytest.mark.parametrize(("text", "weights"), [
    ("0.5", {0: 0.5, 99: 0.5}), ("0:1,30:0.2", {0: 1, 15: 0.6, 30: 0.2, 99: 0.2}),
    ("5:0,10:1", {0: 0, 5: 0, 6: 0.2, 10: 1, 50: 1}),
])  # fmt: skip
def test_weight_of_unverified_clips_by_epoch(text: str, weights: dict[int, float]) -> None:
    config = Config(unverified_weight=text)
    assert {epoch: pytest.approx(config.unverified_weight_at(epoch)) for epoch in weights} == weights


def test_equal_values_are_equal_however_they_are_written() -> None:
    assert {Config(unverified_weight=text) for text in ("1", "1.0", " 1", "1e0")} == {Config()}
    assert Config(unverified_weight="0:1.0, 30:0.20") == Config(unverified_weight="0:1,30:0.2")
    assert Config(labels_run_id=" 0123ABCDEF ") == Config(labels_run_id="0123abcdef")
    assert Config(labels_run_id="None") == Config()


@pytest.mark.parametrize("text", ["0.1234567", "0:1,1234567:0.5", "0:1e-07,9:12345678", "0:0.3333333333333333,5:0"])
def test_weights_of_many_digits_are_kept(text: str) -> None:
    config = Config(unverified_weight=text)
    assert config.unverified_weight == text
    assert Config.from_mapping(config.to_dict()) == config
    last = text.split(",")[-1].split(":")[-1]
    assert config.unverified_weight_at(10**9) == float(last)


def test_crops_for_prediction_are_not_shorter_than_those_of_training() -> None:
    frames = [Config(model="cnn_logmel", audio_duration=2, eval_duration=s).eval_frames for s in (0, 1.5, 2, 10)]
    assert frames == [126, 126, 126, 626]


def test_what_the_weights_were_chosen_on() -> None:
    assert Config().selected_on == "own fold"
    assert Config(holdout=0.2).selected_on == "holdout"
    assert Config(checkpoint="last").selected_on == Config(checkpoint="average").selected_on == "nothing"
    assert Config(labels_run_id="0" * 32).selected_on == "own fold, labels"


def test_study_changes_with_dataset_labels_folds_and_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SETTLED
    study = study_id(config, "digest", ("a", "b"), "folds")
    assert re.fullmatch(r"[0-9a-f]{8,16}", study)
    assert study_id(config, "digest", ["a", "b"], "folds") == study
    facts = [("other", ["a", "b"], "folds"), ("digest", ["b", "a"], "folds"), ("digest", ["a"], "folds"),
             ("digest", ["ab"], "folds"), ("digest", ["a", "b"], "others")]  # fmt: skip
    assert len({study, *(study_id(config, *fact) for fact in facts)}) == 6
    monkeypatch.setattr(fsat.study, "RECIPE", fsat.study.RECIPE + 1)
    assert study_id(config, "digest", ["a", "b"], "folds") != study


def test_a_setting_for_several_labels_waits_for_the_task_of_the_data() -> None:
    config = Config(focal=2.0)  # from the command line, before the table says how many labels a clip has
    assert config.for_task("multi").focal == replace(config, reject="auto").for_task("single").focal == 2
    with pytest.raises(ConfigError, match=r"focal=2: expected .* \(task=multi\), or reject=auto; leave it at 0"):
        config.for_task("single")
