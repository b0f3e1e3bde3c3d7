"""Convert functions of TensorFlow's tensors to ONNX and TensorFlow Lite.

A function takes tensors and returns tensors by name. Its signature has the shape of each argument, float32, by the name
that the argument gets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fsat.export.networks import Network
from fsat.models import quiet_stderr

OPSET, NEWEST = 17, 18
"""ONNX operator sets: that of exports, supported by onnxruntime since 1.13 (2022), and the newest that tf2onnx has."""

Function: TypeAlias = Callable[..., Mapping[str, Any]]
Shape: TypeAlias = tuple[int | None, ...]


def to_onnx(function: Function, signature: Mapping[str, Shape], opset: int = OPSET) -> Any:
    """Return an ONNX model, a ``ModelProto``."""
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    compiled, specs = _compiled(function, signature)
    with quiet_stderr():
        proto, _ = tf2onnx.convert.from_function(compiled, input_signature=specs, opset=opset)
    proto.graph.doc_string = ""  # it contains names of local files
    return proto


def to_tflite(function: Function, signature: Mapping[str, Shape]) -> bytes:
    """Return a TensorFlow Lite file with one signature."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    compiled, specs = _compiled(function, signature)
    with quiet_stderr():
        concrete = compiled.get_concrete_function()
        frozen, names = convert_variables_to_constants_v2(concrete), sorted(concrete.structured_outputs)
        named = tf.function(lambda *arrays: dict(zip(names, frozen(*arrays), strict=True)), input_signature=specs)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([named.get_concrete_function()], tf.Module())
        return bytes(converter.convert())


def _compiled(function: Function, signature: Mapping[str, Shape]) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, tf.float32, name) for name, shape in signature.items()]
    return tf.function(lambda *arrays: dict(function(*arrays)), input_signature=specs, autograph=False), specs


def embed(network: Network) -> Function:
    """Return a function that maps the input of a backbone, Keras or SavedModel, to ``embedding``."""
    if network.backbone.format == "keras":
        model = network.keras_model()
        return lambda window: {"embedding": model(window, training=False)}
    function = network.file.function(network.signature, network.input, network.output)  # type: ignore[attr-defined]
    return lambda window: {"embedding": function(window)}
