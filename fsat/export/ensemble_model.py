"""A whole tagger as one Keras model: a waveform in, the blend's probabilities out.

Built of Keras's own layers and operations, in float32, so that a file made of it opens without fsat. Conventions: the
input is float32 (n_samples,), mono, at the highest rate of the members; the output is float32 (n_classes,), its sum 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from fsat.config import Config
from fsat.export.formats import INPUT, OUTPUT
from fsat.export.frontend import Signal, Tensor, length_of, logmel_crops, mfcc, waveform_crops
from fsat.export.resampling import resampled
from fsat.metrics.blending import TINY
from fsat.models.layers import AudioNorm, BandNorm, BatchNorm, ConvReLU1D


def whole_tagger(
    members: Sequence[tuple[str, Config, keras.Model]],
    method: str = "geometric",
    study_weights: Mapping[str, float] | None = None,
) -> keras.Model:
    """One model that scores a clip as a `fsat.tagging.Tagger` of these members does.

    Args:
        members: study, Config, and model in float32 of each.
        method: one of `fsat.presets.BLENDS`.
        study_weights: for ``weighted``, what each study weighs.

    Returns:
        a model that maps `INPUT` to `OUTPUT`.

    Raises:
        ConfigError: members differ in sampling rates that have no common measure.
    """
    rate = input_rate([config for _, config, _ in members])
    given = keras.Input(batch_shape=(None,), dtype="float32", name=INPUT)
    signal = Signal(given, length_of(given), given)
    signals: dict[int, Signal] = {}
    inputs: dict[tuple, Tensor] = {}
    studies: dict[str, list[Tensor]] = {}
    for number, (study, config, model) in enumerate(members):
        if config.sampling_rate not in signals:
            signals[config.sampling_rate] = resampled(signal, rate, config.sampling_rate)
        crops_of = (config.audio_length, config.eval_crops, config.eval_frames)
        key = (config.sampling_rate, config.features, config.dim, *crops_of)
        if key not in inputs:
            inputs[key] = _inputs(signals[config.sampling_rate], config)
        crops = plain(model, f"member{number}")(inputs[key])
        studies.setdefault(study, []).append(ops.mean(crops, axis=0))
    scores = _blend(studies, method, study_weights or {})
    return keras.Model(given, layers.Identity(dtype="float32", name=OUTPUT)(scores), name="tagger")


def input_rate(configs: Sequence[Config]) -> int:
    """The sampling rate of the exported model's input, in Hz: the members' highest."""
    return max(config.sampling_rate for config in configs)


def _inputs(signal: Signal, config: Config) -> Tensor:
    """What the network takes in for the fixed crops of a signal at its rate."""
    if config.use_logmel:
        return logmel_crops(signal, config)
    crops = waveform_crops(signal, config)
    return mfcc(crops, config) if config.use_mfcc else ops.expand_dims(crops, -1)


def _blend(studies: Mapping[str, Sequence[Tensor]], method: str, weights: Mapping[str, float]) -> Tensor:
    """As `fsat.metrics.blending.Blended`, of vectors (n_classes,)."""
    total = None
    for study, members in studies.items():
        weight = weights[study] if method == "weighted" else 1 / len(studies)
        for member in members:
            clamped = ops.maximum(member, TINY)
            share = (clamped if method == "arithmetic" else ops.log(clamped)) * (weight / len(members))
            total = share if total is None else total + share
    return total / ops.sum(total) if method == "arithmetic" else ops.softmax(total)


def plain(model: keras.Model, name: str) -> keras.Model:
    """A network with Keras's own layers in place of fsat's, which compute the same, and without dropout."""
    pools = {layer.name: layer.pool_size for layer in model.layers if isinstance(layer, ConvReLU1D)}

    def call(layer: layers.Layer, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, AudioNorm):
            low, high = ops.min(inputs, axis=1, keepdims=True), ops.max(inputs, axis=1, keepdims=True)
            return (inputs - low) / (high - low + 1e-6) - 0.5
        if isinstance(layer, BandNorm):
            return (inputs - ops.convert_to_numpy(layer.mean)) / ops.convert_to_numpy(layer.deviation)
        if isinstance(layer, layers.Normalization):
            return (inputs - ops.convert_to_numpy(layer.mean)) / np.sqrt(ops.convert_to_numpy(layer.variance))
        if isinstance(layer, layers.Dropout):
            return inputs
        outputs = layer(inputs, *args, **kwargs)
        pool = pools.get(layer.name, 0)
        if pool < 0:
            return ops.max(outputs, axis=1)
        return layers.MaxPooling1D(pool, dtype="float32")(outputs) if pool else outputs

    copy = keras.models.clone_model(model, clone_function=_twin, call_function=call)
    result = keras.Model(copy.inputs[0], copy.outputs[0], name=name)
    twins = {layer.name: layer for layer in result.layers}
    for layer in model.layers:
        if layer.weights and layer.name in twins:
            twins[layer.name].set_weights(layer.get_weights())
    return result


def _twin(layer: Any) -> Any:
    """Keras's own layer for one of a network; those without weights are replaced where they are called."""
    same = {"name": layer.name, "dtype": "float32"}
    if isinstance(layer, ConvReLU1D):
        return layers.Conv1D(layer.filters, layer.kernel_size, activation="relu", **same)
    if isinstance(layer, BatchNorm):
        return layers.BatchNormalization(epsilon=layer.epsilon, **same)
    if isinstance(layer, AudioNorm | BandNorm | layers.Normalization):
        return layer
    if not type(layer).__module__.startswith("keras."):
        raise TypeError(f"{type(layer).__name__} has no twin among Keras's own layers; say here what does the same")
    options = layer.get_config()
    return layer.__class__.from_config({**options, **({"dtype": "float32"} if "dtype" in options else {})})
