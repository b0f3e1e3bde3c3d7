"""A tagger as one Keras model: a waveform in, the ensemble's probabilities out.

The model consists of Keras's own layers and operations, in float32, so that its files load without fsat. A backbone is
a layer of it, or stands between two halves. Conventions: the input is float32 (n_samples,), mono, at the members'
highest rate; the output is float32 (n_classes,), with sum 1 unless the classes are scored by themselves (sigmoids).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import layers, ops

from fsat.backbones.network import one_line
from fsat.config import Config
from fsat.export.crops import Crops, backbone_windows, logmel_crops, one_crop, waveform_crops
from fsat.export.embedding import apply, scaled
from fsat.export.frontend import Signal, Tensor, length_of, mfcc, resample
from fsat.export.input_checks import not_empty, spoiled
from fsat.export.networks import INPUT, OUTPUT, Halves, Network, Slot, backbones_of, read_network
from fsat.metrics import blending, multilabel, scaling
from fsat.metrics.scaling import Scaling
from fsat.tagging import Tagger

Embed: TypeAlias = Callable[[str, Tensor], Tensor]
"""Maps the digest of a backbone and windows, float32 (m, n_samples), to embeddings, float32 (m, size)."""

Key: TypeAlias = tuple[Any, ...]
"""Settings of a network's input: members with equal ones share it."""


def exported_model(tagger: Tagger, format: str) -> keras.Model | Halves:
    """Return a model that `fsat.export.formats.write_model` takes; in halves if its backbones are no layers of it.

    Raises `ConfigError` as `ensemble_model` does, and if a backbone has changed.
    """
    return ensemble_model(tagger) if format == "keras" or not backbones_of(tagger) else halves(tagger)


def ensemble_model(tagger: Tagger) -> keras.Model:
    """Build one model from `INPUT` to `OUTPUT` that scores a clip as a tagger does whose members compute in float32.

    A waveform with samples that are NaN or infinite gives scores that are not finite; one without samples is an error
    of the runtime. Backbones must be Keras files, and become layers. Raises `ConfigError` if the ratio of two members'
    sampling rates is not supported.
    """
    models: dict[str, keras.Model] = {}

    def embed(digest: str, windows: Tensor) -> Tensor:
        network = _network(tagger, digest, windows)
        if digest not in models:
            models[digest] = network.keras_model(f"backbone{len(models)}")
        with one_line(f"format=keras: {network.name}", "takes a batch of one size only; use format=onnx or tflite"):
            return apply(models[digest], windows, network.size)

    given = keras.Input(batch_shape=(None,), dtype="float32", name=INPUT)
    return keras.Model(given, _scores(tagger, given, embed), name="tagger")


def halves(tagger: Tagger) -> Halves:
    """Build the model of `ensemble_model` in two halves, with backbones of any format between them."""
    slots, windows, embeddings = list[Slot](), list[Tensor](), list[Tensor]()

    def embed(digest: str, samples: Tensor) -> Tensor:
        network, number = _network(tagger, digest, samples), len(slots)
        slots.append(Slot(f"windows{number}", f"embeddings{number}", network))
        windows.append(samples)
        embeddings.append(keras.Input((network.size,), dtype="float32", name=slots[-1].embeddings))
        return embeddings[-1]

    given = keras.Input(batch_shape=(None,), dtype="float32", name=INPUT)
    scores = _scores(tagger, given, embed)
    front = keras.Model(given, windows if len(windows) > 1 else windows[0])
    return Halves(front, keras.Model([given, *embeddings], scores), slots)


def _network(tagger: Tagger, digest: str, windows: Tensor) -> Network:
    runtime = tagger.backbones[digest]
    return read_network(runtime.backbone, windows.shape[1], runtime.size)


def _scores(tagger: Tagger, given: Tensor, embed: Embed) -> Tensor:
    """Return the scores of a waveform."""
    waveform = not_empty(given)
    signal = Signal(waveform, length_of(waveform), waveform)
    signals = {rate: resample(signal, tagger.rates[-1], rate) for rate in tagger.rates}
    configs = {_key(member.config): member.config for member in tagger.members}
    inputs = {key: _input(signals[config.sampling_rate], config) for key, config in configs.items()}
    inputs |= _embedded(tagger, configs, inputs, signal, embed)
    studies: dict[str, list[Tensor]] = {}
    for number, member in enumerate(tagger.members):
        features, crops = inputs[_key(member.config)]
        predictions = to_keras(member.model, f"member{number}")(features)  # crops, classes
        studies.setdefault(member.study, []).append(crops.mean(predictions))
    blend = _blend_sigmoids if tagger.use_sigmoid else _blend
    scores = spoiled(_scale(blend(studies, *tagger.blend), tagger.scaling), waveform)
    return layers.Identity(dtype="float32", name=OUTPUT)(scores)


def _key(config: Config) -> Key:
    crops = config.audio_length, config.eval_crops, config.eval_frames
    return config.sampling_rate, config.features, config.dim, *crops, config.backbone_digest, config.window_hop


def _input(signal: Signal, config: Config) -> tuple[Tensor, Crops]:
    """Return crops, and a network's input made of them, (m, ...); for a head, the windows of its backbone."""
    if config.use_logmel:
        return logmel_crops(signal, config)
    if config.use_embedding:
        return backbone_windows(signal, config)
    samples, crops = waveform_crops(signal, config)
    return mfcc(samples, config) if config.use_mfcc else ops.expand_dims(samples, -1), crops


def _embedded(
    tagger: Tagger,
    configs: Mapping[Key, Config],
    inputs: Mapping[Key, tuple[Tensor, Crops]],
    signal: Signal,
    embed: Embed,
) -> dict[Key, tuple[Tensor, Crops]]:
    """Return inputs of the heads, float32 (1, m, size), with one crop: all windows of the clip.

    A backbone gets its windows of one length at once. Those that do not count become absent: 0.
    """
    result, same_network = {}, dict[Key, list[Key]]()
    for key, config in configs.items():
        if config.use_embedding:
            same_network.setdefault((config.backbone_digest, config.audio_length), []).append(key)
    for (digest, _), keys in same_network.items():
        windows = [inputs[key][0] for key in keys]
        samples = windows[0] if len(keys) == 1 else ops.concatenate(windows)
        embeddings = embed(digest, scaled(samples, tagger.backbones[digest].backbone.input.peak))
        first: int | Tensor = 0
        for key in keys:
            crops = inputs[key][1]
            rows = ops.take(embeddings, first + crops.numbers, axis=0)
            first = first + length_of(crops.numbers)
            counts = ops.cast(ops.less(crops.numbers, crops.n), "float32")
            result[key] = ops.expand_dims(rows * ops.expand_dims(counts, 1), 0), one_crop(signal)
    return result


def _blend(studies: Mapping[str, Sequence[Tensor]], method: str, weights: Mapping[str, float]) -> Tensor:
    """Blend vectors (n_classes,) as `fsat.metrics.blending` does."""
    is_mean = method == "arithmetic"

    def change(scores: Tensor) -> Tensor:
        clipped = ops.maximum(scores, blending.TINY)
        return clipped if is_mean else ops.log(clipped)

    total = _mean(studies, method, weights, change)
    return total / ops.sum(total) if is_mean else ops.softmax(total)


def _blend_sigmoids(studies: Mapping[str, Sequence[Tensor]], method: str, weights: Mapping[str, float]) -> Tensor:
    """Blend vectors (n_classes,) as `fsat.metrics.sigmoid_blending` does."""
    if method == "arithmetic":
        return _mean(studies, method, weights, lambda scores: scores)
    tiny = multilabel.EPSILON
    return ops.sigmoid(_mean(studies, method, weights, lambda scores: _logits(scores, tiny, tiny)))


def _mean(
    studies: Mapping[str, Sequence[Tensor]],
    method: str,
    weights: Mapping[str, float],
    change: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the mean over studies, weighted or not, of the means over their members of what `change` makes of them."""
    total = None
    for study, members in studies.items():
        weight = weights[study] if method == "weighted" else 1 / len(studies)
        for member in members:
            term = change(member) * (weight / len(members))
            total = term if total is None else total + term
    return total


def _logits(scores: Tensor, lowest: float, highest: float) -> Tensor:
    """Return log(p / (1 - p)), where `lowest` is the smallest p, and `highest` the smallest 1 - p.

    In float32, 1 - p is exact for p above a half, but the largest p below 1 is not 1 - `highest`.
    """
    return ops.log(ops.maximum(scores, lowest)) - ops.log(ops.maximum(1.0 - scores, highest))


def _scale(scores: Tensor, change: Scaling) -> Tensor:
    """Scale a vector (n_classes,) as `Scaling.apply` does."""
    if change.kind == "temperature":
        return ops.softmax(ops.log(ops.maximum(scores, scaling.LOWEST)) / change.temperature)
    if change.kind == "platt":
        slopes, offsets = (np.array(numbers, np.float32) for numbers in (change.slopes, change.offsets))
        return ops.sigmoid(_logits(scores, scaling.LOWEST, 1 - scaling.HIGHEST) * slopes + offsets)
    return scores


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
