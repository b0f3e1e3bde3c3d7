"""ONNX files, computed by onnxruntime.

A file with operators of other domains than those of ONNX and onnxruntime, or with tensors in other files, is refused,
wherever in the file they are. The session is made from bytes, which onnxruntime reads as ONNX, not as its own format.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

from fsat.backbones.network import Call, ModelFile, Signature, Tensor, input_of_dense, one_line, quiet, refuse
from fsat.errors import ConfigError, printable

PACKAGES = ("onnx", "onnxruntime")

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
"""Domains of the operators that onnxruntime brings."""

REFUSED = ("EPContext", "PyOp")
"""Operators of onnxruntime that run code of a file or read other files."""

DTYPES = {1: "float32", 10: "float16", 11: "float64", 7: "int64", 6: "int32", 8: "string"}
"""Usual types of inputs and outputs, by number in the schema."""


class OnnxFile(ModelFile):
    """An ONNX file."""

    def __init__(self, name: str, content: bytes) -> None:
        if missing := [package for package in PACKAGES if importlib.util.find_spec(package) is None]:
            raise ConfigError(f"{name}: {', '.join(missing)} not installed; `pip install '.[backbones]'` in the clone")
        import onnx

        with one_line(name, "is damaged, or no ONNX file"):
            proto = onnx.load_model_from_string(content)
        if not proto.graph.node:
            raise ConfigError(f"{name}: is damaged, or no ONNX file: it has no operators")
        operators, files = _checked(proto)
        advice = "export the network without it: fsat runs the operators of ONNX and onnxruntime only"
        refuse(name, operators, advice)
        if files:
            fault = f"its weights are in another file, {printable(files[0])!r}"
            raise ConfigError(f"{name}: {fault}; save them inside the file: `onnx.save(onnx.load('FILE'), 'NEW.onnx')`")
        weights = {tensor.name for tensor in proto.graph.initializer}
        inputs = [_tensor(value, i) for i, value in enumerate(proto.graph.input) if value.name not in weights]
        outputs = [_tensor(value, i) for i, value in enumerate(proto.graph.output)]
        self.content, self._producers = content, _producers(proto, weights)
        super().__init__(name, {"": Signature(tuple(inputs), tuple(outputs))}, facts=_facts(proto))

    def before_classifier(self, output: Tensor) -> Tensor | None:
        """Return the output that a dense layer takes in which gives another output."""
        before = input_of_dense(output.name, self._producers)
        return next((tensor for tensor in self.signatures[""].outputs if tensor.name == before), None)

    def open(self, signature: str, input: Tensor, output: Tensor, n_samples: int | None) -> Call:
        """Return a function on one session, which several threads may call; each call uses one thread."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # fatal: errors are raised too
        options.add_session_config_entry("session.load_model_format", "ONNX")
        with quiet(self.name, "onnxruntime cannot load it"):
            session = onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])

        def call(samples: np.ndarray) -> np.ndarray:
            with one_line(self.name, f"fails on an input of shape {samples.shape}"):
                return session.run([output.name], {input.name: samples})[0]

        return call


def _tensor(value: Any, index: int) -> Tensor:
    kind = value.type.tensor_type
    shape = None
    if kind.HasField("shape"):
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim
        )
    return Tensor(value.name, shape, DTYPES.get(kind.elem_type, f"of ONNX type {kind.elem_type}"), index)


def _producers(proto: Any, weights: set[str]) -> dict[str, tuple[str, str]]:
    """Return the operator that gives a value, and what it takes in, for those that take in one value and weights."""
    constants = weights | {node.output[0] for node in proto.graph.node if node.op_type == "Constant"}
    producers = {}
    for node in proto.graph.node:
        sources = [name for name in node.input if name and name not in constants]
        if len(sources) == 1:
            producers[node.output[0]] = (node.op_type, sources[0])
    return producers


def _facts(proto: Any) -> dict[str, str]:
    """Return what the file says of itself."""
    own = {"description": proto.doc_string, "producer": f"{proto.producer_name} {proto.producer_version}".strip()}
    return own | {entry.key: entry.value for entry in proto.metadata_props}


def _checked(proto: Any) -> tuple[list[str], list[str]]:
    """Return the operators that are refused, and the names of the files that tensors refer to."""
    import onnx

    functions = {(function.domain, function.name) for function in proto.functions}
    operators, files = [], []
    for message in _messages(proto):
        if isinstance(message, onnx.TensorProto):
            if message.external_data or message.data_location:
                files += [entry.value for entry in message.external_data if entry.key == "location"] or ["unnamed"]
        elif isinstance(message, onnx.NodeProto):
            key = message.domain, message.op_type
            if message.op_type in REFUSED or not (message.domain in DOMAINS or key in functions):
                operators.append("::".join(filter(None, key)))
    return operators, files


def _messages(proto: Any) -> Iterator[Any]:
    """Yield a message and those in it, at any depth: graphs, functions with their defaults, tensors and more."""
    import onnx

    pending = [proto]
    while pending:
        message = pending.pop()
        yield message
        if not isinstance(message, onnx.TensorProto):  # its values would be copied
            for field, value in message.ListFields():
                if field.message_type is not None:
                    pending += [value] if hasattr(value, "ListFields") else value
