"""Keras files, the format ``.keras``: their layers are checked before Keras makes any.

Only layers, operations and the like of Keras itself are made, and none that run code of the file or read other files.
Keras loads a copy of the archive with the model and its weights, without optimizers and assets.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fsat.backbones.file_facts import EXPORTED, archived_facts
from fsat.backbones.network import (
    Call,
    ModelFile,
    Signature,
    Tensor,
    check_size,
    input_of_dense,
    one_line,
    quiet,
    refuse,
)
from fsat.errors import ConfigError, printable
from fsat.files import disk_errors
from fsat.models import import_keras

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
"""Entries of the archive."""

REFUSED = {
    "Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer",  # code, or models of other libraries
    "StringLookup", "IntegerLookup", "IndexLookup", "TextVectorization", "Hashing", "HashedCrossing", "FeatureSpace",
}  # fmt: skip
"""Classes that run code of a file or read other files, and others that no network for sound needs."""

KINDS = {
    "Layer", "Operation", "DTypePolicy", "Initializer", "Regularizer", "Constraint", "Quantizer", "QuantizationConfig",
    "SeedGenerator",
}  # fmt: skip
"""Base classes of Keras of what is made."""

MODULES = (
    "keras", "keras.constraints", "keras.dtype_policies", "keras.initializers", "keras.layers", "keras.models",
    "keras.quantizers", "keras.random", "keras.regularizers", "keras.src.models.functional",
    "keras.src.models.sequential",
)  # fmt: skip
OPERATIONS = "keras.src.ops."
"""Modules of classes; operations of ``keras.ops`` in a functional model have the module that defines them."""

FUNCTIONS = {"builtins": "keras.activations", "keras.activations": "keras.activations", "keras.ops": "keras.ops"}
"""Modules of functions: as named in a file, and where they are."""

MAKERS = {"deserialize", "get", "serialize"}
"""Functions in these modules that make objects."""

SPECIAL = ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__")
"""Class names of values."""


class KerasFile(ModelFile):
    """A Keras file; the model is made when the file is read, as its inputs and outputs are known only then."""

    def __init__(self, name: str, content: bytes) -> None:
        keras = import_keras()
        with tempfile.TemporaryDirectory(prefix="fsat-backbone-") as folder:
            path = Path(folder, "network.keras")
            _write_checked(path, name, content)
            with quiet(name, "Keras cannot load it"):
                loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
        with one_line(name, "has no inputs and outputs; build the model before saving it"):
            is_sequential = isinstance(loaded, keras.Sequential)  # its outputs have no names
            self._model = keras.Model(loaded.inputs, loaded.outputs) if is_sequential else loaded
            outputs = _tensors(self._model.output_names, self._model.outputs)
            inputs = _tensors([tensor.name for tensor in self._model.inputs], self._model.inputs)
            layers = tuple(_layer_tensors(self._model))
        facts = archived_facts(content, METADATA) | archived_facts(content, EXPORTED)
        super().__init__(name, {"": Signature(inputs, outputs)}, layers, facts | {"name": self._model.name})

    def before_classifier(self, output: Tensor) -> Tensor | None:
        """Return the output of the layer before a dense layer that gives an output."""
        producers = {}
        for layer in self._model.layers:
            if (before := _layer_before(layer)) is not None:
                producers[layer.name] = (type(layer).__name__, before)
        last = self._model.outputs[output.index]._keras_history[0].name
        before = input_of_dense(last, producers)
        return next((tensor for tensor in self.internal if tensor.name == before), None)

    def model(self, output: Tensor, name: str | None = None) -> Any:
        """Return a model of the same layers with one output."""
        keras, model = import_keras(), self._model
        is_layer = output.index < 0
        tensor = _output_of(model.get_layer(output.name)) if is_layer else model.outputs[output.index]
        return keras.Model(model.inputs[0], tensor, name=name)

    def open(self, signature: str, input: Tensor, output: Tensor, n_samples: int | None) -> Call:
        """Return the compiled model, which several threads may call."""
        import tensorflow as tf

        with one_line(self.name, f"{printable(output.name)} cannot be its output"):
            inner = self.model(output)
        shape = (*(input.shape or ())[:-1], n_samples)
        spec = tf.TensorSpec(shape, tf.float32)
        function = tf.function(lambda samples: inner(samples, training=False), input_signature=[spec], autograph=False)
        with quiet(self.name, "cannot be compiled"):
            compiled = function.get_concrete_function()

        def call(samples: np.ndarray) -> np.ndarray:
            with one_line(self.name, f"fails on an input of shape {samples.shape}"):
                return compiled(tf.constant(samples)).numpy()

        return call


def _tensors(names: Any, tensors: Any) -> tuple[Tensor, ...]:
    pairs = enumerate(zip(names, tensors, strict=True))
    return tuple(Tensor(str(name), tuple(tensor.shape), str(tensor.dtype), i) for i, (name, tensor) in pairs)


def _layer_tensors(model: Any) -> Iterator[Tensor]:
    """Yield the float32 outputs of layers that have one; their index is -1."""
    for layer in model.layers[:-1]:
        nodes = layer._inbound_nodes
        if len(nodes) == 1 and len(nodes[0].output_tensors) == 1 and nodes[0].input_tensors:
            tensor = _output_of(layer)
            if str(tensor.dtype) == "float32":
                yield Tensor(layer.name, tuple(tensor.shape), "float32", -1)


def _output_of(layer: Any) -> Any:
    """Return the only output of a layer in the model; ``layer.output`` of a model in it is one of its own."""
    return layer._inbound_nodes[0].output_tensors[0]


def _layer_before(layer: Any) -> str | None:
    """Return the name of the only layer whose output a layer takes in; None if there are none or several."""
    nodes = layer._inbound_nodes
    inputs = nodes[0].input_tensors if len(nodes) == 1 else []
    return inputs[0]._keras_history[0].name if len(inputs) == 1 else None


def _write_checked(path: Path, name: str, content: bytes) -> None:
    """Write an archive with the model and its weights only; raise an error if it has code or needs other files."""
    expected = "expected a .keras file, as `model.save('NAME.keras')` writes it"
    if content.startswith(b"\x89HDF"):
        raise ConfigError(f"{name}: is an HDF5 file, which may contain code; {expected}")
    if not content.startswith(b"PK") or not zipfile.is_zipfile(io.BytesIO(content)):
        raise ConfigError(f"{name}: is no Keras file; {expected}")
    with one_line(name, "is damaged, or no Keras file"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        if missing := [entry for entry in (CONFIG, WEIGHTS) if entry not in archive.namelist()]:
            raise ConfigError(f"{name}: has no {missing[0]}; {expected}")
        check_size(name, sum(info.file_size for info in archive.infolist()))
        config, weights = json.loads(archive.read(CONFIG)), archive.read(WEIGHTS)
        _remove_training(config)
        refused, links, model = list(_code(config)), list(_links(weights)), json.dumps(config)
    advice = "build the model without it: fsat loads Keras's own layers only, and none with code or files"
    refuse(name, refused, advice)
    if links:
        fault = f"its weights are elsewhere, {printable(links[0])!r} is a link"
        raise ConfigError(f"{name}: {fault}; save the whole model again: `model.save('NAME.keras')`")
    with disk_errors(name, "cannot be copied"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr(METADATA, "{}")
        archive.writestr(CONFIG, model)
        archive.writestr(WEIGHTS, weights)


def _links(weights: bytes) -> Iterator[str]:
    """Yield the names in an HDF5 file that refer to something else in the file, or to other files."""
    import h5py  # type: ignore[import-untyped]

    with h5py.File(io.BytesIO(weights), "r") as file:
        pending, passed = [file["/"]], set()
        while pending:
            group = pending.pop()
            address = h5py.h5o.get_info(group.id).addr
            if address in passed:
                continue
            passed.add(address)
            for key in group:
                is_hard = isinstance(group.get(key, getlink=True), h5py.HardLink)
                item = group[key] if is_hard else None
                if isinstance(item, h5py.Group):
                    pending.append(item)
                elif not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
                    yield key


def _dicts(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects in JSON, at any depth."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _remove_training(config: Any) -> None:
    """Remove the optimizers, losses and metrics of compiled models."""
    for value in _dicts(config):
        value.pop("compile_config", None)


def _code(config: Any) -> Iterator[str]:
    """Yield the names of classes and functions that are refused, at any depth."""
    for value in _dicts(config):
        if value.keys() & {"class_name", "registered_name", "module"} and not _is_allowed(value):
            module, name = value.get("module"), value.get("class_name")
            shown = value.get("config") if name == "function" else name
            yield f"{module}.{shown}" if module else str(shown)


def _is_allowed(value: dict[str, Any]) -> bool:
    """Return whether a serialized object is a value, or a class or function of Keras that may be made."""
    name, module, registered = (value.get(key) for key in ("class_name", "module", "registered_name"))
    if module is None and registered is None:
        return name in SPECIAL
    if not isinstance(module, str):
        return False
    if name == "function":
        function = _found(FUNCTIONS.get(module), value.get("config"))
        return callable(function) and value["config"] not in MAKERS
    found = _found(module, name) if module in MODULES or module.startswith(OPERATIONS) else None
    names = {base.__name__ for base in getattr(found, "__mro__", ())}
    return bool(names & KINDS) and not names & REFUSED and registered in (None, name)


def _found(module: str | None, name: Any) -> Any:
    """Return what a module of Keras has under a name, which has no dots: Keras would look behind those."""
    is_name = module is not None and isinstance(name, str) and name.isidentifier()
    return getattr(sys.modules.get(module or ""), name, None) if is_name else None
