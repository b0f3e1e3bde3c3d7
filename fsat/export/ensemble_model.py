"""A tagger as one Keras model: a waveform in, the ensemble's probabilities out.

The model consists of Keras's own layers and operations, in float32, so that its files load without fsat. Conventions:
the input is float32 (n_samples,), mono, at the members' highest rate; the output is float32 (n_classes,) and sums to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from fsat.export.crops import Crops, logmel_crops, waveform_crops
from fsat.export.formats import INPUT, OUTPUT
from fsat.export.frontend import Signal, Tensor, length_of, mfcc, resample
from fsat.export.input_checks import not_empty, spoiled
from fsat.metrics.blending import TINY
from fsat.tagging import Tagger


def ensemble_model(tagger: Tagger) -> keras.Model:
    """Build one model from `INPUT` to `OUTPUT` that scores a clip as a tagger does whose members compute in float32.

    A waveform with samples that are NaN or infinite gives scores that are not finite; one without samples is an error
    of the runtime. Raises `ConfigError` if the ratio of two members' sampling rates is not supported.
    """
    given = keras.Input(batch_shape=(None,), dtype="float32", name=INPUT)
    waveform = not_empty(given)
    signal = Signal(waveform, length_of(waveform), waveform)
    signals: dict[int, Signal] = {}
    inputs: dict[tuple[Any, ...], tuple[Tensor, Crops]] = {}  # members with the same input share it
    studies: dict[str, list[Tensor]] = {}
    for number, member in enumerate(tagger.members):
        config, rate = member.config, member.config.sampling_rate
        if rate not in signals:
            signals[rate] = resample(signal, tagger.rates[-1], rate)
        key = (rate, config.features, config.dim, config.audio_length, config.eval_crops, config.eval_frames)
        if key not in inputs and config.use_logmel:
            inputs[key] = logmel_crops(signals[rate], config)
        elif key not in inputs:
            samples, crops = waveform_crops(signals[rate], config)
            inputs[key] = mfcc(samples, config) if config.use_mfcc else ops.expand_dims(samples, -1), crops
        features, crops = inputs[key]
        predictions = to_keras(member.model, f"member{number}")(features)  # crops, classes
        studies.setdefault(member.study, []).append(crops.mean(predictions))
    scores = spoiled(_blend(studies, *tagger.blend), waveform)
    return keras.Model(given, layers.Identity(dtype="float32", name=OUTPUT)(scores), name="tagger")


def _blend(studies: Mapping[str, Sequence[Tensor]], method: str, weights: Mapping[str, float]) -> Tensor:
    """Blend vectors (n_classes,) as `fsat.metrics.blending` does."""
    total = None
    for study, members in studies.items():
        weight = weights[study] if method == "weighted" else 1 / len(studies)
        for member in members:
            clipped = ops.maximum(member, TINY)
            term = (clipped if method == "arithmetic" else ops.log(clipped)) * (weight / len(members))
            total = term if total is None else total + term
    return total / ops.sum(total) if method == "arithmetic" else ops.softmax(total)


def to_keras(model: keras.Model, name: str) -> keras.Model:
    """Copy a network with Keras's own layers in place of fsat's, and without dropout."""

    def call(layer: layers.Layer, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if hasattr(layer, "in_keras"):
            return layer.in_keras(inputs)
        if isinstance(layer, layers.Normalization):
            return (inputs - ops.convert_to_numpy(layer.mean)) / np.sqrt(ops.convert_to_numpy(layer.variance))
        if isinstance(layer, layers.Dropout):
            return inputs
        return layer(inputs, *args, **kwargs)

    copy = keras.models.clone_model(model, clone_function=_clone, call_function=call)
    result = keras.Model(copy.inputs[0], copy.outputs[0], name=name)
    new_layers = {layer.name: layer for layer in result.layers}
    for layer in model.layers:
        if layer.weights and layer.name in new_layers:
            new_layers[layer.name].set_weights(layer.get_weights())
    return result


def _clone(layer: layers.Layer) -> layers.Layer:
    """Copy a layer of Keras's in float32; return layers that `to_keras` replaces as they are."""
    if hasattr(layer, "in_keras") or isinstance(layer, layers.Normalization):
        return layer
    if not type(layer).__module__.startswith("keras."):
        raise TypeError(f"{type(layer).__name__} has no method in_keras, which an export needs; see fsat.models.layers")
    options = layer.get_config()
    return layer.__class__.from_config(options | ({"dtype": "float32"} if "dtype" in options else {}))
