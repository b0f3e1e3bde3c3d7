"""The layers that the models share: equal to Keras's own, and reproducible bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import notebooks_audio_norm, tone

from fsat.config import Config
from fsat.model_presets import MODELS
from fsat.models import build_for_training, import_keras, seed_everything

keras = import_keras()
layers = keras.layers

import tensorflow as tf  # noqa: E402  (after Keras was set up)

from fsat.models.layers import AudioNorm, BandNorm, BatchNorm, ConvReLU1D, bias_add  # noqa: E402
from fsat.models.losses import is_linear  # noqa: E402


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)


CROPS = {
    "noise": noise(1000), "quiet": 0.001 * noise(1000), "offset": tone(50, 0.2, 8000) + np.float32(0.3),
    "silence": np.zeros(100, np.float32), "constant": np.full(100, 0.7, np.float32),
    "two": np.array([-1, 1], np.float32), "one": np.array([0.25], np.float32), "near silence": 1e-7 * noise(100),
}  # fmt: skip


@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS)
def test_audio_norm_is_the_notebooks(crop: np.ndarray) -> None:
    expected = notebooks_audio_norm(crop.astype(np.float64))
    result = np.asarray(AudioNorm()(crop[np.newaxis, :, np.newaxis]))
    assert result.dtype == np.float32
    assert result.shape == (1, len(crop), 1)
    np.testing.assert_allclose(result[0, :, 0], expected, atol=1e-6)
    assert result.min() >= -0.5
    assert result.max() <= 0.5


def test_band_norm_subtracts_means_and_divides_by_one_deviation() -> None:
    decibels = np.random.default_rng(0).uniform(0, 90, (5, 7, 3, 1)).astype(np.float32)
    layer = BandNorm()
    np.testing.assert_array_equal(layer(decibels), decibels)  # before levels are set
    layer.set_levels(np.array([50.0, 0.0, 10.5]), 20.0)
    expected = (decibels - np.array([50, 0, 10.5])[:, np.newaxis]) / 20
    np.testing.assert_allclose(layer(decibels), expected, rtol=1e-6, atol=1e-6)
    assert np.asarray(layer(decibels)).dtype == np.float32
    assert (len(layer.weights), len(layer.trainable_weights)) == (2, 0)
    layer.set_levels(np.zeros(3), 0.0)  # all clips were silent
    np.testing.assert_array_equal(layer(decibels), decibels)


@pytest.mark.parametrize("pool", [0, 2, 4, -1])
@pytest.mark.parametrize("steps", [9, 41, 64])
def test_conv_relu_is_keras_own(pool: int, steps: int) -> None:
    """Compare outputs and gradients with Conv1D, ReLU and pooling."""
    inputs = tf.constant(np.random.default_rng(1).standard_normal((3, steps, 5)).astype(np.float32))
    ours, conv = ConvReLU1D(6, 3, pool_size=pool), layers.Conv1D(6, 3, activation="relu")
    pooling = {0: lambda x: x, -1: layers.GlobalMaxPool1D()}.get(pool) or layers.MaxPool1D(pool)
    ours.build(inputs.shape)
    conv.build(inputs.shape)
    weights = [np.random.default_rng(2).standard_normal(w.shape) for w in ours.get_weights()]
    results = []
    for layer, after in ((ours, lambda x: x), (conv, pooling)):
        layer.set_weights(weights)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = after(layer(inputs))
            loss = tf.reduce_sum(outputs**2)
        results.append([outputs, *tape.gradient(loss, [inputs, layer.kernel.value, layer.bias.value])])
    assert ours.compute_output_shape(inputs.shape) == tuple(results[0][0].shape)
    for received, expected in zip(*results, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


def test_bias_gradients_in_bfloat16_are_summed_in_float32() -> None:
    """A plain bfloat16 sum of these 320,000 ones stops at 256."""
    values = tf.ones((10, 1, 32000, 4), tf.bfloat16)
    bias = tf.zeros(4, tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch(bias)
        outputs = bias_add(values, bias)
    np.testing.assert_allclose(tf.cast(tape.gradient(outputs, bias), tf.float32), 320000, rtol=0.01)


@pytest.mark.parametrize("shape", [(6, 5, 7, 3), (6, 3), (1, 3), (1, 1, 1, 3)])
@pytest.mark.parametrize(("training", "trainable"), [(True, True), (False, True), (True, False)])
def test_batch_norm_is_keras_own(shape: tuple[int, ...], training: bool, trainable: bool) -> None:
    """Compare outputs, gradients and moving statistics."""
    rng = np.random.default_rng(4)
    inputs = tf.constant(rng.normal(2, 3, shape).astype(np.float32))
    weights = [rng.uniform(0.5, 1.5, 3).astype(np.float32) for _ in range(4)]
    factors = tf.constant(rng.normal(size=shape).astype(np.float32))
    results = []
    for layer in (norm(momentum=0.7, trainable=trainable) for norm in (BatchNorm, layers.BatchNormalization)):
        layer.build(shape)
        layer.set_weights(weights)
        sources = [inputs, layer.gamma.value, layer.beta.value]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs = layer(inputs, training=training)
            loss = tf.reduce_sum(outputs * factors)
        results.append([outputs, *tape.gradient(loss, sources), *layer.get_weights()])
    for received, expected in zip(*results, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_in_bfloat16_keeps_its_statistics_in_float32() -> None:
    inputs = np.random.default_rng(4).normal(0.5, 2, (64, 20, 43, 4)).astype(np.float32)
    results = []
    for layer in (BatchNorm, layers.BatchNormalization):
        layer = layer(momentum=0, dtype="mixed_bfloat16")
        results.append([tf.cast(layer(tf.cast(inputs, tf.bfloat16), training=True), tf.float32), *layer.get_weights()])
        assert layer.dtype == "float32"
    for received, expected, tolerance in zip(*results, (0.02, 1e-4, 1e-4, 1e-4, 1e-4), strict=True):
        np.testing.assert_allclose(received, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layer", [
    AudioNorm(), BandNorm(), ConvReLU1D(6, 3), ConvReLU1D(6, 3, pool_size=4), ConvReLU1D(6, 3, pool_size=-1),
    BatchNorm(),
], ids=lambda layer: layer.name)  # fmt: skip
def test_layers_in_keras_compute_the_same(layer: layers.Layer) -> None:
    """What exported models consist of."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(3, 41, 5, 1) if isinstance(layer, BandNorm) else (3, 41, 5)).astype(np.float32)
    layer(inputs)  # creates the weights
    layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    expected = np.asarray(layer(inputs))
    first = keras.Input(inputs.shape[1:])
    model = keras.Model(first, layer.in_keras(first))
    assert all(type(part).__module__.startswith("keras.") for part in model.layers)
    for part in model.layers:
        if part.name == layer.name:
            part.set_weights(layer.get_weights())
    np.testing.assert_allclose(model.predict_on_batch(inputs), expected, rtol=1e-5, atol=1e-5)


# --- reproducible gradients ------------------------------------------------------------------------


def summed_gradients(config: Config) -> list[tuple[str, int]]:
    """Return the sums of more than two tensors in the gradient's graph, and their number of inputs."""
    gradients, inputs, targets = gradients_of(config, 2)
    operations = gradients.get_concrete_function(inputs, targets).graph.get_operations()
    return [(op.name, len(op.inputs)) for op in operations if op.type == "AddN" and len(op.inputs) > 2]


def gradients_of(config: Config, batch_size: int):
    """Return a compiled function from inputs and targets to the gradients of a new model, and its arguments."""
    seed_everything(5)
    model = build_for_training(config, 10)

    @tf.function
    def gradients(inputs: tf.Tensor, targets: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(inputs, targets, model(inputs, training=True))
        return tape.gradient(loss, model.trainable_variables)

    rng = np.random.default_rng(6)
    inputs = tf.constant(rng.uniform(-1, 1, (batch_size, *config.dim)).astype(np.float32))
    targets = np.eye(10, dtype=np.float32)[np.arange(batch_size) % 10]
    targets = tf.constant(targets if is_linear(config) else np.stack([targets, targets, targets], axis=1))
    for layer in model.layers:
        if isinstance(layer, layers.Dropout):
            layer.rate = 0  # otherwise each call drops other elements
    return gradients, inputs, targets


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("model", sorted(MODELS))
def test_no_gradient_of_a_model_is_a_sum_of_three_parts(model: str, precision: str) -> None:
    """TensorFlow adds three in the order in which they are computed; of two, the order does not matter."""
    size = {"embedding_size": 16} if model == "embedding" else {}
    config = Config.resolve({"model": model, "precision": precision, **size})
    assert not summed_gradients(config.for_task("single"))


@pytest.mark.parametrize(("loss", "drop_losses"), [("lq", 0.2), ("soft_bootstrap", 0), ("hard_bootstrap", 0.2)])
def test_no_gradient_of_a_loss_is_a_sum_of_three_parts(loss: str, drop_losses: float) -> None:
    config = Config(model="dummy1d", sampling_rate=100, loss=loss, drop_losses=drop_losses, precision="float32")
    assert not summed_gradients(config)


@pytest.mark.slow
def test_gradients_of_a_batch_are_the_same_every_time() -> None:
    config = Config.resolve({"model": "conv2d_mfcc", "precision": "float32"})
    gradients, inputs, targets = gradients_of(config, 16)
    results = {b"".join(part.numpy().tobytes() for part in gradients(inputs, targets)) for _ in range(10)}
    assert len(results) == 1
