"""Warm start: begin a training with the weights of an earlier model, and freeze them for the first epochs.

Weights are copied layer by layer, where the shapes are the same: between layers of the same name, if the builder of the
model named them, else between layers of the same type, in order. The last layers have a row for each label: rows of
labels that both models have are copied, by label; ``Dog bark`` is the same as ``Dog_bark``. All other weights are new,
as the seed draws them.

The statistics of normalization layers are copied like other weights, and so replace those of the training clips: the
earlier weights belong to inputs that were normalized by them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsat.config import Config
from fsat.errors import ConfigError, count
from fsat.models import build, import_keras
from fsat.progress import say
from fsat.text import named, submitted

if TYPE_CHECKING:
    import keras

Role = tuple[type, str, bool]
"""Of a layer: its type, the name that the builder of the model gave it, and whether it is among the last ones."""

FEATURE_SETTINGS = ("sampling_rate", "n_mels", "n_mfcc", "pooling")
"""Settings that decide what the inputs of a network mean."""

HEAD_SETTINGS = ("head", "hidden_units")
"""Settings that decide which layers a head on embeddings has; ``head=auto`` depends on the task."""


@dataclass(frozen=True)
class Earlier:
    """A trained model: its settings, its label order, and the file of its weights, which loads without running code."""

    config: Config
    labels: list[str]
    weights: Path


def start_from(model: keras.Model, config: Config, labels: Sequence[str], earlier: Earlier) -> dict[str, str]:
    """Copy the weights of an earlier model of the same name into a model of `config` and `labels`.

    Returns the layers with new weights by name, in order, and what is new: ``all``, or ``N of M labels``. Raises
    `ConfigError` if no layer that trains fits.
    """
    source = build(replace(earlier.config, precision=config.precision), len(earlier.labels))
    source.load_weights(earlier.weights)
    last = _last_layers(model, len(labels))
    partners = _partners(source, _last_layers(source, len(earlier.labels)))
    new = {}
    for layer in model.layers:
        if not layer.weights:
            continue
        partner = next(partners[_role(layer, layer in last)], None)
        if layer in last:
            n_new = _copy_rows(layer, labels, partner, earlier.labels)
            if n_new:
                new[layer.name] = "all" if n_new == len(labels) else f"{n_new} of {count(len(labels), 'label')}"
        elif partner is None or _shapes(layer) != _shapes(partner):
            new[layer.name] = "all"
        else:
            layer.set_weights(partner.get_weights())
    use_statistics(model)
    trained = [layer.name for layer in model.layers if layer.trainable_variables]
    if all(new.get(name) == "all" for name in trained):
        differing = [name for name in HEAD_SETTINGS if getattr(config, name) != getattr(earlier.config, name)]
        heads = [", ".join(f"{name}={getattr(each, name)}" for name in differing) for each in (earlier.config, config)]
        theirs, ours = (f"{head}, " if head and config.use_embedding else "" for head in heads)
        theirs, ours = (
            f"{theirs}inputs {earlier.config.dim}, {_few(earlier.labels)}",
            f"{ours}{config.dim}, {_few(labels)}",
        )
        fault = f"no layer of the earlier {config.model} fits: it has {theirs}; this model has {ours}"
        advice = f"use {heads[0]}, " if differing and config.use_embedding else ""
        raise ConfigError(f"init_from={config.init_from}: {fault}; {advice}name another tagger, or leave init_from out")
    _warn(config, earlier.config, has_new=any(name in new for name in trained))
    return new


def describe_new(layers: dict[str, str]) -> str:
    """Return the new layers, as from `start_from`, in words; ``none`` if there are none."""
    parts = [name if what == "all" else f"{name} ({what})" for name, what in layers.items()]
    return ", ".join(parts) or "none"


def freeze(model: keras.Model, new: dict[str, str]) -> None:
    """Keep all layers but the `new` ones from training; batch normalization among them uses its moving statistics."""
    for layer in _earlier_layers(model, new):
        layer.trainable = False
    model.make_train_function(force=True)


def unfreeze(model: keras.Model, new: dict[str, str]) -> None:
    """Let all layers train, with an optimizer that starts anew.

    Adam divides by the root of a mean of squared gradients, which for layers that were frozen is 0 at first, without
    the correction of the first steps: these would be several times as long.
    """
    layers = _earlier_layers(model, new)
    for layer in layers:
        layer.trainable = True
    for variable in model.optimizer.variables if layers else ():  # the loop sets the learning rate at each step
        variable.assign(np.zeros(variable.shape, variable.dtype))
    model.make_train_function(force=True)


def use_statistics(model: keras.Model) -> None:
    """Have Keras's normalization layers use the statistics that their weights now have."""
    for layer in model.layers:
        if isinstance(layer, import_keras().layers.Normalization):
            layer.finalize_state()


def _earlier_layers(model: keras.Model, new: dict[str, str]) -> list[keras.Layer]:
    """Return the layers without new weights; none if then no weight would train."""
    if not any(layer.trainable_variables for layer in model.layers if layer.name in new):
        return []
    return [layer for layer in model.layers if layer.weights and layer.name not in new]


def _last_layers(model: keras.Model, n_classes: int) -> list[keras.Layer]:
    """Return the layers with a value for each class and no layer with weights behind them."""
    fitting = [layer for layer in model.layers if layer.weights and {s[-1:] for s in _shapes(layer)} == {(n_classes,)}]
    before = set()
    for layer in fitting:
        path = import_keras().Model(model.inputs, layer.output).layers
        before |= {id(other) for other in path if other is not layer}
    return [layer for layer in fitting if id(layer) not in before]


def _role(layer: keras.Layer, is_last: bool) -> Role:
    """Return type and name of a layer, without a name that Keras has made of the type and a number."""
    automatic = re.sub(r"(_\d+)?$", "", layer.name, count=1).replace("_", "") == type(layer).__name__.lower()
    return type(layer), "" if automatic else layer.name, is_last


def _partners(model: keras.Model, last: Sequence[keras.Layer]) -> defaultdict[Role, Iterator[keras.Layer]]:
    """Return iterators over the layers with weights by role."""
    layers = defaultdict(list)
    for layer in model.layers:
        if layer.weights:
            layers[_role(layer, layer in last)].append(layer)
    return defaultdict(lambda: iter(()), {key: iter(found) for key, found in layers.items()})


def _shapes(layer: keras.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]


def _copy_rows(
    layer: keras.Layer, labels: Sequence[str], partner: keras.Layer | None, earlier_labels: Sequence[str]
) -> int:
    """Copy the weights of the labels that both layers have, along the last axis; return how many labels are new."""
    if partner is None or [shape[:-1] for shape in _shapes(layer)] != [shape[:-1] for shape in _shapes(partner)]:
        return len(labels)
    row_of = {submitted(label): row for row, label in enumerate(earlier_labels)}
    shared = [i for i, label in enumerate(labels) if submitted(label) in row_of]
    rows = [row_of[submitted(labels[i])] for i in shared]
    weights = layer.get_weights()
    for weight, source in zip(weights, partner.get_weights(), strict=True):
        weight[..., shared] = source[..., rows]
    layer.set_weights(weights)
    return len(labels) - len(shared)


def _few(labels: Sequence[str]) -> str:
    return f"{count(len(labels), 'label')} ({', '.join(map(named, labels[:3]))}{', ...' if len(labels) > 3 else ''})"


def _warn(config: Config, earlier: Config, has_new: bool) -> None:
    """Warn if the earlier model had other inputs, or if layers are to be frozen and none that trains is new."""
    settings = [name for name in FEATURE_SETTINGS if getattr(config, name) != getattr(earlier, name)]
    unused = {"n_mels": not config.use_logmel, "n_mfcc": not config.use_mfcc, "pooling": not config.use_embedding}
    if differing := [f"{name}={getattr(earlier, name)}" for name in settings if not unused.get(name)]:
        say(f"warning: the earlier model was trained with {' and '.join(differing)}: its weights fit such inputs best")
    if config.frozen_epochs and not has_new:
        say(f"warning: frozen_epochs={config.frozen_epochs} has no effect: no layer that trains is new")
