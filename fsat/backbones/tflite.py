"""TensorFlow Lite files: what they contain, and their interpreters.

The flatbuffer is read before it is loaded: files with custom operators, which includes those of TensorFlow's "Flex"
delegate, and damaged files are refused. An inner tensor becomes an output by overwriting the entry of the network's
output in a copy of the file, so that the interpreter keeps computing at full speed and nothing after it is kept.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from fsat.backbones.file_facts import EXPORTED, archived_facts, tflite_facts
from fsat.backbones.network import Call, ModelFile, Signature, Tensor, input_of_dense, one_line, quiet, refuse
from fsat.errors import ConfigError, printable
from fsat.models import import_keras
from fsat.parallel.executor import cores

IDENTIFIER = b"TFL3"
DTYPES = ("float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64")
"""Types of a tensor, by number in the schema."""

CUSTOM = ("CUSTOM", "STABLEHLO_CUSTOM_CALL", "DELEGATE", "unknown")
"""Operators whose code is elsewhere."""


class TfliteFile(ModelFile):
    """A TensorFlow Lite file."""

    def __init__(self, name: str, content: bytes) -> None:
        import_keras()
        if content[4:8] != IDENTIFIER:
            raise ConfigError(f"{name}: is no TensorFlow Lite file; expected one that begins with its identifier TFL3")
        with one_line(name, "is damaged, or no TensorFlow Lite file"):
            self._model = _root(content)
            _check_bounds(self._model, len(content))
            advice = "convert the network without it: fsat runs TensorFlow Lite's own operators only"
            refuse(name, _custom_operators(self._model), advice)
            _refuse_files(name, self._model)
            signatures = {"": _signature(self._model.Subgraphs(0))} | _signatures(self._model)
            internal = _activations(self._model)
        self.content = content
        super().__init__(name, signatures, internal, tflite_facts(self._model) | archived_facts(content, EXPORTED))

    def before_classifier(self, output: Tensor) -> Tensor | None:
        """Return the vector that a fully connected layer takes in which gives an output."""
        names, graph, producers = _operator_names(), self._model.Subgraphs(0), {}
        for i in range(graph.OperatorsLength()):
            operator = graph.Operators(i)
            if operator.InputsLength() and operator.OutputsLength():
                kind = names.get(_code(self._model, operator), "unknown")
                producers[int(operator.Outputs(0))] = (kind, int(operator.Inputs(0)))
        before = input_of_dense(output.index, producers)
        return next((tensor for tensor in self.internal if tensor.index == before), None)

    def open(self, signature: str, input: Tensor, output: Tensor, n_samples: int | None) -> Call:
        """Return a function that runs one of a pool of interpreters with a thread each, made when they are needed."""
        if signature:
            return _Pool(self.name, lambda: _SignatureCall(self.content, signature, input.name, output.name))
        copy = bytearray(self.content)
        # a view of the copy: one output, and that one
        outputs = _root(copy).Subgraphs(0).OutputsAsNumpy()
        outputs[:] = output.index
        content = bytes(copy)  # which all interpreters read
        return _Pool(self.name, lambda: _PlainCall(content, input.index, output.index))


def _root(content: bytes | bytearray) -> Any:
    from tensorflow.lite.python import schema_py_generated as schema

    return schema.Model.GetRootAsModel(content, 0)


def _operator_names() -> dict[int, str]:
    from tensorflow.lite.python import schema_py_generated as schema

    return {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


def _code(model: Any, operator: Any) -> int:
    code = model.OperatorCodes(operator.OpcodeIndex())
    return max(code.BuiltinCode(), code.DeprecatedBuiltinCode())


def _check_bounds(model: Any, n_bytes: int) -> None:
    """Raise an error if any index or buffer lies outside the file: the interpreter trusts them."""
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength() and len(buffer.DataAsNumpy()) != buffer.DataLength():
            raise ValueError(f"buffer {i} is cut off")
        if buffer.Offset() > 1 and buffer.Offset() + buffer.Size() > n_bytes:
            raise ValueError(f"buffer {i} ends outside the file")
    if not model.SubgraphsLength():
        raise ValueError("it has no graph")
    for i in range(model.SubgraphsLength()):
        graph = model.Subgraphs(i)
        n_tensors = graph.TensorsLength()
        for j in range(n_tensors):
            tensor = graph.Tensors(j)
            tensor.Name(), tensor.ShapeAsNumpy(), tensor.ShapeSignatureAsNumpy()
            if tensor.Buffer() >= model.BuffersLength() or tensor.Type() < 0:
                raise ValueError(f"tensor {j} has no buffer")
        groups = [graph.InputsAsNumpy(), graph.OutputsAsNumpy()]
        for j in range(graph.OperatorsLength()):
            operator = graph.Operators(j)
            if operator.OpcodeIndex() >= model.OperatorCodesLength():
                raise ValueError(f"operator {j} is unknown")
            groups += [operator.InputsAsNumpy(), operator.OutputsAsNumpy()]
        indices = np.concatenate([np.ravel(group) for group in groups if not isinstance(group, int)])
        if len(indices) and not (indices.min() >= -1 and indices.max() < n_tensors):
            raise ValueError("an operator uses a tensor that does not exist")


def _custom_operators(model: Any) -> list[str]:
    names, custom = _operator_names(), []
    for i in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(i)
        name = names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "unknown")
        if name in CUSTOM:
            custom.append((code.CustomCode() or name.encode()).decode(errors="replace"))
    return custom


def _refuse_files(name: str, model: Any) -> None:
    """Raise an error if a file has weights in other files, which it calls groups of external buffers."""
    if model.ExternalBufferGroupsLength() or model.ExternalBuffersLength():
        groups = [model.ExternalBufferGroups(i).Name() or b"" for i in range(model.ExternalBufferGroupsLength())]
        file = printable(next(iter(groups), b"").decode(errors="replace")) or "unnamed"
        raise ConfigError(f"{name}: its weights are in another file, {file!r}; convert the network into one file")


def _tensor(graph: Any, index: int, name: str = "") -> Tensor:
    tensor = graph.Tensors(index)
    shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else np.zeros(0, int)
    free = tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else shape
    dims = tuple(None if n < 0 else int(n) for n in free)
    dtype = DTYPES[tensor.Type()] if tensor.Type() < len(DTYPES) else "another type"
    return Tensor(name or (tensor.Name() or b"").decode(errors="replace"), dims, dtype, index)


def _signature(graph: Any) -> Signature:
    def tensors(indices: Any) -> tuple[Tensor, ...]:
        return () if isinstance(indices, int) else tuple(_tensor(graph, int(index)) for index in indices)

    inputs = tuple(_free_length(tensor) for tensor in tensors(graph.InputsAsNumpy()))
    return Signature(inputs, tensors(graph.OutputsAsNumpy()))


def _free_length(tensor: Tensor) -> Tensor:
    """Return an input; one of one sample, as of files without a shape signature, can be resized to any length."""
    shape = tensor.shape or ()
    if shape[-1:] != (1,):
        return tensor
    return Tensor(tensor.name, (*shape[:-1], None), tensor.dtype, tensor.index)


def _signatures(model: Any) -> dict[str, Signature]:
    result = {}
    for i in range(model.SignatureDefsLength()):
        signature = model.SignatureDefs(i)
        graph = model.Subgraphs(signature.SubgraphIndex())

        def tensors(get: Callable, n: int, graph: Any = graph) -> tuple[Tensor, ...]:
            maps = [get(j) for j in range(n)]
            return tuple(_tensor(graph, m.TensorIndex(), m.Name().decode(errors="replace")) for m in maps)

        inputs = tensors(signature.Inputs, signature.InputsLength())
        outputs = tensors(signature.Outputs, signature.OutputsLength())
        key = (signature.SignatureKey() or b"").decode(errors="replace")
        result[key] = Signature(tuple(map(_free_length, inputs)), outputs)
    return result


def _activations(model: Any) -> tuple[Tensor, ...]:
    """Return the float32 tensors that operators of the main graph compute."""
    graph, computed = model.Subgraphs(0), []
    for i in range(graph.OperatorsLength()):
        outputs = graph.Operators(i).OutputsAsNumpy()
        computed += [] if isinstance(outputs, int) else [int(index) for index in outputs if index >= 0]
    tensors = (_tensor(graph, index) for index in dict.fromkeys(computed))
    return tuple(tensor for tensor in tensors if tensor.dtype == "float32")


class _PlainCall:
    """An interpreter of the main graph."""

    def __init__(self, content: bytes, input: int, output: int) -> None:
        self._interpreter = _interpreter(content)
        self._interpreter.allocate_tensors()  # prints the delegate's name
        self._input, self._output = input, output
        self._shape: tuple[int, ...] = ()

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        if samples.shape != self._shape:
            self._interpreter.resize_tensor_input(self._input, samples.shape)
            self._interpreter.allocate_tensors()
            self._shape = samples.shape
        self._interpreter.set_tensor(self._input, samples)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)


class _SignatureCall:
    """An interpreter of a signature."""

    def __init__(self, content: bytes, signature: str, input: str, output: str) -> None:
        self._run = _interpreter(content).get_signature_runner(signature)
        self._input, self._output = input, output

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        return self._run(**{self._input: samples})[self._output]


def _interpreter(content: bytes) -> Any:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that tf.lite is deprecated
        return tf.lite.Interpreter(model_content=content, num_threads=1)


class _Pool:
    """At most as many interpreters as there are cores, made when they are needed, for any number of threads."""

    def __init__(self, name: str, make: Callable[[], Call]) -> None:
        self._name, self._make = name, make
        self._idle = list[Call]()
        self._set_turns()

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        if self._process != os.getpid():  # after a fork, the calls of the parent's threads never end
            self._set_turns()
        with self._turns:
            call = self._take()
            try:
                with one_line(self._name, f"fails on an input of shape {samples.shape}"):
                    return call(samples)
            finally:
                self._idle.append(call)

    def __deepcopy__(self, memo: dict) -> _Pool:
        return self

    def _set_turns(self) -> None:
        self._turns, self._process = threading.Semaphore(len(cores())), os.getpid()

    def _take(self) -> Call:
        """Return an idle interpreter, or a new one."""
        with suppress(IndexError):
            return self._idle.pop()
        with quiet(self._name, "TensorFlow Lite cannot load it"):
            return self._make()
