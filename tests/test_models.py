"""The models: the notebook's layers and parameter counts, the least input each takes, weights that travel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import make_dataset, notebooks_audio_norm, one_line

from fsat.config import HOP_LENGTH, MODELS, Config
from fsat.data.clips import Clips
from fsat.data.dataset import load_dataset
from fsat.data.logmel import spectra
from fsat.data.mfcc import model_input
from fsat.errors import ConfigError
from fsat.models import build, build_for_training, import_keras, n_threads, precision, save_weights, seed_everything

keras = import_keras()
layers = keras.layers

import tensorflow as tf  # noqa: E402  (after Keras was told to be quiet)

SMALL = {
    "dummy1d": Config(model="dummy1d", sampling_rate=100, audio_duration=1),
    "conv1d": Config(model="conv1d", sampling_rate=8000, audio_duration=0.25),
    "conv2d_mfcc": Config(model="conv2d_mfcc", sampling_rate=16000, audio_duration=0.5, n_mfcc=16),
    "cnn_logmel": Config(model="cnn_logmel", sampling_rate=8000, audio_duration=0.5, n_mels=20),
}


def trainable(model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def inputs_for(config: Config, count: int = 6, seed: int = 0) -> np.ndarray:
    crops = np.random.default_rng(seed).uniform(-1, 1, (count, config.audio_length)).astype(np.float32)
    return features_of(crops * np.linspace(0.1, 1, count, dtype=np.float32)[:, None], config)


def features_of(crops: np.ndarray, config: Config) -> np.ndarray:
    """What the model takes in for clips that are as long as a crop."""
    if not config.use_logmel:
        return model_input(crops, config)
    found = spectra(Clips.from_arrays(list(crops), config.sampling_rate), config)
    return found.crops(np.arange(len(crops)), np.zeros(len(crops), int), config.n_frames)[..., np.newaxis]


def unsettle(model) -> None:
    """Give every weight another value than a new model's, those of the running statistics included."""
    rng = np.random.default_rng(5)
    model.set_weights([(rng.uniform(0.5, 1.5, w.shape) * (0.05 if w.ndim > 1 else 1)).astype(w.dtype)
                       for w in model.get_weights()])  # fmt: skip


# --- the notebook's --------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "parameters"), [("dummy1d", 82), ("conv1d", 360513), ("conv2d_mfcc", 168361)])
def test_trainable_parameters_with_41_classes(model: str, parameters: int) -> None:
    config = Config.resolve({"model": model})
    built = build(config, 41)
    assert trainable(built) == parameters
    assert built.input_shape == (None, *config.dim)
    assert built.output_shape == (None, 41)


def notebooks_conv1d(length: int, n_classes: int):
    """`get_1d_conv_model` of the seed, line by line."""
    inp = keras.Input(shape=(length, 1))
    x = layers.Conv1D(16, 9, activation="relu", padding="valid")(inp)
    x = layers.Conv1D(16, 9, activation="relu", padding="valid")(x)
    x = layers.MaxPool1D(16)(x)
    x = layers.Dropout(rate=0.1)(x)
    x = layers.Conv1D(32, 3, activation="relu", padding="valid")(x)
    x = layers.Conv1D(32, 3, activation="relu", padding="valid")(x)
    x = layers.MaxPool1D(4)(x)
    x = layers.Dropout(rate=0.1)(x)
    x = layers.Conv1D(32, 3, activation="relu", padding="valid")(x)
    x = layers.Conv1D(32, 3, activation="relu", padding="valid")(x)
    x = layers.MaxPool1D(4)(x)
    x = layers.Dropout(rate=0.1)(x)
    x = layers.Conv1D(256, 3, activation="relu", padding="valid")(x)
    x = layers.Conv1D(256, 3, activation="relu", padding="valid")(x)
    x = layers.GlobalMaxPool1D()(x)
    x = layers.Dropout(rate=0.2)(x)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dense(1028, activation="relu")(x)
    return keras.Model(inp, layers.Dense(n_classes, activation="softmax")(x))


def notebooks_dummy1d(length: int, n_classes: int):
    """`get_1d_dummy_model` of the seed."""
    inp = keras.Input(shape=(length, 1))
    x = layers.GlobalMaxPool1D()(inp)
    return keras.Model(inp, layers.Dense(n_classes, activation="softmax")(x))


@pytest.mark.parametrize(("name", "notebooks"), [("dummy1d", notebooks_dummy1d), ("conv1d", notebooks_conv1d)])
def test_waveform_models_are_the_notebooks(name: str, notebooks) -> None:
    config = replace(SMALL[name], precision="float32")
    ours, theirs = build(config, 7), notebooks(config.audio_length, 7)
    rates = [[layer.rate for layer in m.layers if isinstance(layer, layers.Dropout)] for m in (ours, theirs)]
    assert rates[0] == rates[1]
    unsettle(ours)
    theirs.set_weights(ours.get_weights())
    inputs = inputs_for(config)
    normalised = np.stack([notebooks_audio_norm(crop) for crop in inputs.astype(np.float64)])
    np.testing.assert_allclose(ours(inputs), theirs(normalised.astype(np.float32)), atol=1e-6)


def test_conv2d_mfcc_is_the_notebooks_after_standardisation() -> None:
    config = replace(SMALL["conv2d_mfcc"], precision="float32")
    ours = build(config, 7)
    inputs = inputs_for(config, 12)
    ours.layers[1].adapt(inputs)

    inp = keras.Input(config.dim)
    x = inp
    for _ in range(4):
        x = layers.Conv2D(32, (4, 10), padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.Activation("relu")(x)
        x = layers.MaxPool2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(64)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    theirs = keras.Model(inp, layers.Dense(7, activation="softmax")(x))

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
    expected, result = exact.predict_on_batch(inputs), rough.predict_on_batch(inputs)
    assert result.dtype == np.float32
    assert 0 < np.abs(result - expected).max() < 0.02
    assert keras.config.dtype_policy().name == "float32"  # as it was


def test_auto_precision_is_settled_by_the_machine_and_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for has, expected in ((True, "mixed_bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "machine_has_bfloat16", lambda has=has: has)
        assert precision.settle_precision(Config()).precision == expected
        assert precision.settle_precision(Config(model="dummy1d")).precision == "float32"  # which would gain nothing
        assert precision.settle_precision(Config(precision="float32")).precision == "float32"
        assert precision.settle_precision(Config(precision="mixed_bfloat16")).precision == "mixed_bfloat16"
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu sse avx512_bf16 amx_tile\n")
    assert precision._cpu_flags(cpuinfo) & precision.CPU_FLAGS == {"avx512_bf16"}
    assert precision._cpu_flags(tmp_path / "none") == set()


@pytest.mark.parametrize(("given", "expected"), [(None, 4), ("1", 1), ("16", 16)])
def test_number_of_threads(given: str | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSAT_THREADS", raising=False)
    if given:
        monkeypatch.setenv("FSAT_THREADS", given)
    assert n_threads() == expected


@pytest.mark.parametrize("given", ["0", "-1", "many", "", "2.5"])
def test_a_wrong_number_of_threads_is_one_line(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSAT_THREADS", given)
    with pytest.raises(ConfigError, match="FSAT_THREADS") as caught:
        n_threads()
    one_line(caught.value)


# --- the least input -------------------------------------------------------------------------------


def at(model: str, n_samples: int, n_rows: int) -> SimpleNamespace:
    """What a builder looks at, without Config's own check; of a model on log-mel the samples are frames."""
    dim = (n_rows, 1 + n_samples // HOP_LENGTH, 1) if MODELS[model].features == "mfcc" else (n_samples, 1)
    dim = (n_samples, 16, 1) if MODELS[model].features == "logmel" else dim
    return SimpleNamespace(model=model, dim=dim, precision="float32")


@pytest.mark.parametrize("model", list(MODELS))
def test_the_least_length_is_one_that_works(model: str) -> None:
    info = MODELS[model]
    config = at(model, max(info.min_samples, info.min_frames), max(info.min_mfcc, 1))
    built = build(config, 3)
    assert np.isfinite(built(np.zeros((2, *config.dim), np.float32))).all()


@pytest.mark.parametrize("model", [name for name, info in MODELS.items() if info.min_samples + info.min_frames > 1])
def test_one_sample_less_is_too_short(model: str) -> None:
    """Keras itself says so, not fsat: what MODELS says is neither too little nor too much."""
    info = MODELS[model]
    config = at(model, max(info.min_samples, info.min_frames) - 1, 40)
    try:
        left = build(config, 3)(np.zeros((2, *config.dim), np.float32))
    except (ValueError, tf.errors.OpError):
        return
    assert not np.isfinite(left).all()  # the mean of nothing


@pytest.mark.parametrize("model", [name for name, info in MODELS.items() if info.min_mfcc > 1])
def test_one_coefficient_less_is_too_few(model: str) -> None:
    info = MODELS[model]
    build(at(model, 10 * info.min_samples, info.min_mfcc), 3)
    with pytest.raises(ValueError, match=r"dimension|negative|Computed output size"):
        build(at(model, 10 * info.min_samples, info.min_mfcc - 1), 3)


def test_cnn_logmel_is_compact() -> None:
    config = Config.resolve({}, "cnn_logmel")
    model = build(config, 10)
    assert model.count_params() < 1_000_000
    called = tf.function(lambda crops: model(crops, training=False)).get_concrete_function(
        tf.TensorSpec((1, *config.dim), tf.float32)
    )
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    cost = tf.compat.v1.profiler.profile(called.graph, options={**options, "output": "none"})
    assert 50e6 < cost.total_float_ops < 100e6


# --- what comes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("model", list(SMALL))
@pytest.mark.parametrize("n_classes", [2, 41])
def test_outputs_are_probabilities(model: str, n_classes: int) -> None:
    built = build(SMALL[model], n_classes)
    outputs = built.predict_on_batch(inputs_for(SMALL[model], 5))
    assert outputs.shape == (5, n_classes)
    assert outputs.dtype == np.float32
    assert (outputs >= 0).all()
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("model", list(SMALL))
def test_odd_but_possible_inputs_give_numbers(model: str) -> None:
    """Silence and a full-scale square wave, after the model's own features."""
    config = SMALL[model]
    square = np.where(np.arange(config.audio_length) % 40 < 20, 1, -1)
    crops = np.stack([np.zeros(config.audio_length), square]).astype(np.float32)
    assert np.isfinite(build(config, 3).predict_on_batch(features_of(crops, config))).all()


def test_training_is_compiled_as_the_notebook_has_it() -> None:
    model = build_for_training(Config(model="dummy1d", learning_rate=0.25), 3)
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert float(model.optimizer.learning_rate) == 0.25
    assert model.loss == "categorical_crossentropy"
    targets = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    inputs = np.linspace(-0.5, 0.5, 4 * 32000, dtype=np.float32).reshape(4, 32000, 1)
    logs = model.train_on_batch(inputs, targets, return_dict=True)
    assert set(logs) == {"loss", "acc"}


@pytest.mark.parametrize("model", ["conv1d", "cnn_logmel"])
def test_decay_shrinks_kernels_alone(model: str) -> None:
    """A batch without targets has no gradient, so that nothing else changes the weights."""
    config = replace(SMALL[model], weight_decay=0.5, learning_rate=0.1, precision="float32")
    seed_everything(1)
    built = build_for_training(config, 3)
    before = [weight.numpy() for weight in built.trainable_variables]
    built.train_on_batch(inputs_for(config, 4), np.zeros((4, 3), np.float32))
    names = [weight.name for weight in built.trainable_variables]
    assert {"kernel"} < set(names)
    for name, old, weight in zip(names, before, built.trainable_variables, strict=True):
        np.testing.assert_allclose(weight.numpy(), old * (0.95 if name == "kernel" else 1), rtol=1e-5, err_msg=name)


# --- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", list(SMALL))
def test_weights_travel(model: str, tmp_path: Path) -> None:
    config = SMALL[model]
    trained = build_for_training(config, 4)
    unsettle(trained)
    inputs = inputs_for(config)
    expected = trained.predict_on_batch(inputs)
    save_weights(trained, tmp_path / "best.weights.h5")

    other = build(config, 4)
    assert np.abs(other.predict_on_batch(inputs) - expected).max() > 1e-4
    other.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_array_equal(other.predict_on_batch(inputs), expected)


def test_weights_have_no_optimizers_state(tmp_path: Path) -> None:
    model = build_for_training(SMALL["conv1d"], 4)
    model.train_on_batch(inputs_for(SMALL["conv1d"], 2), np.eye(4, dtype=np.float32)[[0, 1]])
    save_weights(model, tmp_path / "best.weights.h5")
    assert (tmp_path / "best.weights.h5").stat().st_size < 2 * 4 * model.count_params()  # Adam's state is twice them


def test_statistics_of_the_training_clips_travel_with_the_weights(tmp_path: Path) -> None:
    config = SMALL["conv2d_mfcc"]
    model = build_for_training(config, 3)
    inputs = inputs_for(config, 20)
    model.layers[1].adapt(inputs)
    save_weights(model, tmp_path / "best.weights.h5")

    other = build(config, 3)
    other.load_weights(tmp_path / "best.weights.h5")
    layer = other.layers[1]
    np.testing.assert_allclose(np.ravel(layer.mean), inputs.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-4)
    np.testing.assert_allclose(np.ravel(layer.variance), inputs.var(axis=(0, 2, 3), dtype=np.float64), rtol=1e-3)
    np.testing.assert_array_equal(other.predict_on_batch(inputs), model.predict_on_batch(inputs))
    assert not layer.trainable_weights


# --- seeds -----------------------------------------------------------------------------------------


def test_weights_come_from_the_seed() -> None:
    def weights(seed: int) -> np.ndarray:
        seed_everything(seed)
        return np.concatenate([w.ravel() for w in build(SMALL["conv1d"], 4).get_weights()])

    first = weights(1)
    np.testing.assert_array_equal(weights(1), first)
    assert (weights(2) != first).any()


def test_the_greatest_seed_that_config_allows_can_be_trained_with(tmp_path: Path) -> None:
    from fsat.training.fold import train_fold

    config = Config.resolve({"seed": 2**31 - 1}, "quick")
    dataset = load_dataset(make_dataset(tmp_path / "data"), config)
    (tmp_path / "run").mkdir()
    assert train_fold(dataset, 1, tmp_path / "run").train.shape == (18, 3)
