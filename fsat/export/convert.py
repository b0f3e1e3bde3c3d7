"""Convert functions of TensorFlow's tensors to ONNX and TensorFlow Lite.

A function takes tensors and returns tensors by name. Its signature has the shape of each argument, float32, by the name
that the argument gets.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from fsat.export.networks import INPUT, OUTPUT, Halves, Network
from fsat.models import quiet_stderr

OPSET, NEWEST = 17, 18
"""ONNX operator sets: that of exports, supported by onnxruntime since 1.13 (2022), and the newest that tf2onnx has."""

WINDOW, EMBEDDING = "window", "embedding"
"""Names of input and output of a backbone that is converted."""

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


def tflite_to_onnx(content: bytes, opset: int) -> Any:
    """Convert a TensorFlow Lite file to an ONNX model; operators that it lacks keep their names."""
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="fsat-export-") as folder, quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that tf.lite is deprecated
        path = Path(folder, "backbone.tflite")
        path.write_bytes(content)
        proto, _ = tf2onnx.convert.from_tflite(str(path), opset=opset)
    return proto


def _compiled(function: Function, signature: Mapping[str, Shape]) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, tf.float32, name) for name, shape in signature.items()]
    return tf.function(lambda *arrays: dict(function(*arrays)), input_signature=specs, autograph=False), specs


def embed(network: Network) -> Function:
    """Return a function that maps the input of a backbone, Keras or SavedModel, to `EMBEDDING`."""
    if network.backbone.format == "keras":
        model = network.keras_model()
        return lambda window: {EMBEDDING: model(window, training=False)}
    function = network.file.function(network.signature, network.input, network.output)  # type: ignore[attr-defined]
    return lambda window: {EMBEDDING: function(window)}


def halves_functions(halves: Halves) -> tuple[tuple[Function, dict[str, Shape]], tuple[Function, dict[str, Shape]]]:
    """Return both halves as functions, each with its signature."""
    names = [slot.windows for slot in halves.slots]

    def front(waveform: Any) -> dict[str, Any]:
        windows = halves.front(waveform, training=False)
        return dict(zip(names, windows if len(names) > 1 else [windows], strict=True))

    def back(*arrays: Any) -> dict[str, Any]:
        return {OUTPUT: halves.back(list(arrays), training=False)}

    waveform: dict[str, Shape] = {INPUT: (None,)}
    embeddings = {slot.embeddings: (None, slot.network.size) for slot in halves.slots}
    return (front, waveform), (back, waveform | embeddings)
