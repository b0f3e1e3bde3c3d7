"""The models: the notebook's layers and parameter counts, minimum inputs, precision, weights and seeds."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import error_line, notebooks_audio_norm

from fsat.config import Config
from fsat.data.decoded_clips import Clips
from fsat.errors import ConfigError
from fsat.model_presets import HOP_LENGTH, MODELS
from fsat.models import build, build_for_training, import_keras, keras_setup, n_threads, save_weights, seed_everything
from fsat.training.predict_clips import Predictor

keras = import_keras()
layers = keras.layers

import tensorflow as tf  # noqa: E402  (after Keras was set up)

SMALL = {
    "dummy1d": Config(model="dummy1d", sampling_rate=100, audio_duration=1),
    "conv1d": Config(model="conv1d", sampling_rate=8000, audio_duration=0.25),
    "conv2d_mfcc": Config(model="conv2d_mfcc", sampling_rate=16000, audio_duration=0.5, n_mfcc=16),
    "cnn_logmel": Config(model="cnn_logmel", sampling_rate=8000, audio_duration=0.5, n_mels=20),
}


def inputs_for(config: Config, count: int = 6) -> np.ndarray:
    crops = np.random.default_rng(0).uniform(-1, 1, (count, config.audio_length)).astype(np.float32)
    return features_of(crops * np.linspace(0.1, 1, count, dtype=np.float32)[:, None], config)


def features_of(crops: np.ndarray, config: Config) -> np.ndarray:
    """Return the model's input for clips that are as long as a crop."""
    clips = Clips.from_arrays(list(crops), config.sampling_rate)
    (batch,) = Predictor(clips, replace(config, eval_duration=0), keep=False).batches()
    return batch


def randomize(model: keras.Model) -> None:
    """Change every weight, moving statistics included."""
    rng, weights = np.random.default_rng(5), model.get_weights()
    model.set_weights([(rng.uniform(0.5, 1.5, w.shape) * (0.05 if w.ndim > 1 else 1)).astype(w.dtype) for w in weights])


# --- the notebook's --------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "parameters"), [("dummy1d", 82), ("conv1d", 360513), ("conv2d_mfcc", 168361)])
def test_trainable_parameters_with_41_classes(model: str, parameters: int) -> None:
    config = Config.resolve({"model": model})
    built = build(config, 41)
    assert sum(weight.value.shape.num_elements() for weight in built.trainable_weights) == parameters
    assert built.input_shape == (None, *config.dim)
    assert built.output_shape == (None, 41)


def notebooks_model(name: str, length: int, n_classes: int) -> keras.Model:
    """Build `get_1d_dummy_model` or `get_1d_conv_model` of the seed."""
    inputs = x = keras.Input(shape=(length, 1))
    blocks = () if name == "dummy1d" else ((16, 9, 16, 0.1), (32, 3, 4, 0.1), (32, 3, 4, 0.1), (256, 3, None, 0.2))
    for filters, size, pool, rate in blocks:
        for _ in range(2):
            x = layers.Conv1D(filters, size, activation="relu", padding="valid")(x)
        x = layers.MaxPool1D(pool)(x) if pool else layers.GlobalMaxPool1D()(x)
        x = layers.Dropout(rate=rate)(x)
    if name == "dummy1d":
        x = layers.GlobalMaxPool1D()(x)
    else:
        x = layers.Dense(1028, activation="relu")(layers.Dense(64, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(n_classes, activation="softmax")(x))


@pytest.mark.parametrize("name", ["dummy1d", "conv1d"])
def test_waveform_models_are_the_notebooks(name: str) -> None:
    config = replace(SMALL[name], precision="float32")
    ours, theirs = build(config, 7), notebooks_model(name, config.audio_length, 7)
    rates = [[layer.rate for layer in m.layers if isinstance(layer, layers.Dropout)] for m in (ours, theirs)]
    assert rates[0] == rates[1]
    randomize(ours)
    theirs.set_weights(ours.get_weights())
    inputs = inputs_for(config)
    normalised = np.stack([notebooks_audio_norm(crop) for crop in inputs.astype(np.float64)])
    np.testing.assert_allclose(ours(inputs), theirs(normalised.astype(np.float32)), atol=1e-6)


def test_conv2d_mfcc_is_the_notebooks_after_standardisation() -> None:
    config = replace(SMALL["conv2d_mfcc"], precision="float32")
    ours = build(config, 7)
    inputs = inputs_for(config, 12)
    ours.layers[1].adapt(inputs)

    first = x = keras.Input(config.dim)
    for _ in range(4):
        x = layers.Conv2D(32, (4, 10), padding="same")(x)
        x = layers.MaxPool2D()(layers.Activation("relu")(layers.BatchNormalization()(x)))
    x = layers.Dense(64)(layers.Flatten()(x))
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    theirs = keras.Model(first, layers.Dense(7, activation="softmax")(x))

    theirs.set_weights(ours.get_weights()[3:])  # mean, variance and count come first
    mean = inputs.mean(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    deviation = inputs.std(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    standardised = ((inputs - mean) / deviation).astype(np.float32)
    np.testing.assert_allclose(standardised.std(axis=(0, 2, 3)), 1, rtol=1e-4)
    np.testing.assert_allclose(ours(inputs), theirs(standardised), atol=1e-4)


# --- precision and threads --------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["conv1d", "conv2d_mfcc"])
def test_bfloat16_gives_nearly_what_float32_gives(model: str) -> None:
    seed_everything(3)
    exact = build(replace(SMALL[model], precision="float32"), 5)
    rough = build(replace(SMALL[model], precision="mixed_bfloat16"), 5)
    rough.set_weights(exact.get_weights())
    assert {layer.compute_dtype for layer in rough.layers} >= {"bfloat16", "float32"}
    assert {weight.dtype for weight in rough.weights if "seed" not in weight.path} <= {"float32", "int64"}
    inputs = inputs_for(SMALL[model])
    expected, result = np.asarray(exact(inputs)), np.asarray(rough(inputs))
    assert result.dtype == np.float32
    assert 0 < np.abs(result - expected).max() < 0.02
    assert keras.config.dtype_policy().name == "float32"  # as it was


def test_auto_precision_depends_on_machine_and_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for has_bfloat16, expected in ((True, "mixed_bfloat16"), (False, "float32")):
        monkeypatch.setattr(keras_setup, "machine_has_bfloat16", lambda result=has_bfloat16: result)
        for config, precision in (
            (Config(), expected),
            (Config(model="dummy1d"), "float32"),  # it has no use for bfloat16
            (Config(precision="float32"), "float32"),
            (Config(precision="mixed_bfloat16"), "mixed_bfloat16"),
        ):
            assert keras_setup.settle_precision(config).precision == precision
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu sse avx512_bf16 amx_tile\n")
    assert keras_setup._cpu_flags(cpuinfo) & keras_setup.CPU_FLAGS == {"avx512_bf16"}
    assert keras_setup._cpu_flags(tmp_path / "none") == set()


def test_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSAT_THREADS", raising=False)
    assert n_threads() == 4
    for text in ("1", "16"):
        monkeypatch.setenv("FSAT_THREADS", text)
        assert n_threads() == int(text)
    for text in ("0", "-1", "many", "", "2.5"):
        monkeypatch.setenv("FSAT_THREADS", text)
        assert "FSAT_THREADS" in error_line(ConfigError, n_threads)


# --- minimum inputs --------------------------------------------------------------------------------


def config_of(model: str, n_samples: int, n_rows: int) -> SimpleNamespace:
    """Return what a builder uses, without Config's own checks; of a log-mel model, the samples are frames."""
    dim = {"mfcc": (n_rows, 1 + n_samples // HOP_LENGTH, 1), "logmel": (n_samples, 16, 1), "waveform": (n_samples, 1)}
    last = {"activation": "softmax", "use_sigmoid": False}
    return SimpleNamespace(model=model, dim=dim[MODELS[model].features], precision="float32", **last)


@pytest.mark.parametrize("model", [name for name, info in MODELS.items() if info.features != "embedding"])
def test_the_minimum_length_is_exact(model: str) -> None:
    info = MODELS[model]
    length = max(info.min_samples, info.min_frames)
    config = config_of(model, length, max(info.min_mfcc, 1))
    assert np.isfinite(build(config, 3)(np.zeros((2, *config.dim), np.float32))).all()
    if length == 1:
        return
    config = config_of(model, length - 1, 40)
    with suppress(ValueError, tf.errors.OpError):  # from Keras itself
        outputs = build(config, 3)(np.zeros((2, *config.dim), np.float32))
        assert not np.isfinite(outputs).all()  # the mean of no frames


@pytest.mark.parametrize("model", [name for name, info in MODELS.items() if info.min_mfcc > 1])
def test_the_minimum_number_of_mfcc_is_exact(model: str) -> None:
    info = MODELS[model]
    build(config_of(model, 10 * info.min_samples, info.min_mfcc), 3)
    with pytest.raises(ValueError, match=r"dimension|negative|Computed output size"):
        build(config_of(model, 10 * info.min_samples, info.min_mfcc - 1), 3)


def test_cnn_logmel_is_compact() -> None:
    config = Config.resolve({}, "cnn_logmel")
    model = build(config, 10)
    assert model.count_params() < 1_000_000
    signature = tf.TensorSpec((1, *config.dim), tf.float32)
    called = tf.function(lambda crops: model(crops, training=False)).get_concrete_function(signature)
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    cost = tf.compat.v1.profiler.profile(called.graph, options={**options, "output": "none"})
    assert 50e6 < cost.total_float_ops < 100e6


# --- training --------------------------------------------------------------------------------------


def test_training_is_compiled_as_in_the_notebook() -> None:
    model = build_for_training(Config(model="dummy1d", learning_rate=0.25), 3)
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert float(model.optimizer.learning_rate) == 0.25
    assert model.loss == "categorical_crossentropy"


@pytest.mark.parametrize("model", ["conv1d", "cnn_logmel"])
def test_weight_decay_is_on_kernels_only(model: str) -> None:
    built = build_for_training(replace(SMALL[model], weight_decay=0.5, learning_rate=0.1, precision="float32"), 3)
    weights = built.trainable_variables
    before = [weight.numpy() for weight in weights]
    built.optimizer.apply([tf.zeros(weight.shape) for weight in weights], weights)
    assert {weight.name for weight in weights} > {"kernel"}
    for old, weight in zip(before, weights, strict=True):
        expected = old * (0.95 if weight.name == "kernel" else 1)
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5, err_msg=weight.name)


# --- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [*list(SMALL)[:3], pytest.param("cnn_logmel", marks=pytest.mark.slow)])
def test_saved_weights_give_the_same_probabilities(model: str, tmp_path: Path) -> None:
    config = SMALL[model]
    square = np.where(np.arange(config.audio_length) % 40 < 20, 1, -1)
    odd = features_of(np.stack([np.zeros(config.audio_length), square]).astype(np.float32), config)  # silence too
    inputs = np.concatenate([inputs_for(config), odd])
    trained = build_for_training(config, 4)
    trained.optimizer.build(trained.trainable_variables)
    randomize(trained)
    expected = np.asarray(trained(inputs))
    assert (expected.shape, expected.dtype) == ((8, 4), np.float32)
    assert (expected >= 0).all()
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-5)
    save_weights(trained, tmp_path / "best.weights.h5")
    size = (tmp_path / "best.weights.h5").stat().st_size
    assert model != "conv1d" or size < 2 * 4 * trained.count_params()  # without Adam's two values per weight
    other = build(config, 4)
    assert np.abs(np.asarray(other(inputs)) - expected).max() > 1e-4
    other.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_array_equal(other(inputs), expected)


# --- seeds -----------------------------------------------------------------------------------------


def test_weights_come_from_the_seed() -> None:
    def weights(seed: int) -> np.ndarray:
        seed_everything(seed)
        return np.concatenate([w.ravel() for w in build(SMALL["conv1d"], 4).get_weights()])

    first = weights(1)
    np.testing.assert_array_equal(weights(1), first)
    assert (weights(2) != first).any()
