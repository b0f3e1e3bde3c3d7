"""Put backbones between the two halves of a tagger, in one TensorFlow Lite file; see `fsat.export.networks.Halves`.

The halves come from TensorFlow's converter. A backbone's operators and weights are copied as they are, without those
that its embedding does not need, into a loop that embeds one window after another, so that memory suffices for many.
The words of the file format: a graph is a "subgraph", a weight is a "buffer", and an operator refers to a "code" that
has its name and version.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np

from fsat.backbones.network import one_line
from fsat.export.convert import EMBEDDING, WINDOW, Function, Shape, embed, halves_functions, to_tflite
from fsat.export.networks import INPUT, OUTPUT, Halves, Network, Slot

IDENTIFIER, ALIGNMENT = b"TFL3", 16
"""Of TensorFlow Lite files: their first letters, and the alignment of weights in bytes."""

MIN_VERSION = b"min_runtime_version"
"""Name of metadata of converted models: the oldest version of the runtime that has all operators, as text."""


@dataclass(frozen=True)
class Part:
    """A graph of a file (`model`, a ``ModelT``), and tensors of it by name."""

    model: Any
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    graph_index: int = 0

    @property
    def graph(self) -> Any:
        """The graph, a ``SubGraphT``."""
        return self.model.subgraphs[self.graph_index]


def merge(halves: Halves) -> bytes:
    """Return a file with the signature of fsat's exports; raise `ConfigError` if a backbone cannot be converted."""
    (front_function, windows), (back_function, embeddings) = halves_functions(halves)
    front, back = _convert(front_function, windows), _convert(back_function, embeddings)
    slots = [(slot, _part(slot.network)) for slot in halves.slots]
    target = Target()
    main = target.add_graph("main")
    tensors = target.append(main, front, {})
    wires = {INPUT: tensors[INPUT]}
    for slot, part in slots:
        wires[slot.embeddings] = _loop(target, main, slot, part, tensors[slot.windows])
    scores = target.append(main, back, wires)[OUTPUT]
    target.add_version([front.model, back.model, *(part.model for _, part in slots)])
    return target.content({INPUT: tensors[INPUT]}, {OUTPUT: scores})


def alone(network: Network) -> bytes:
    """Return a TensorFlow Lite backbone in a file of its own, with one window as input, `WINDOW`, and one output."""
    part, target = _part(network), Target()
    main = target.add_graph("main")
    tensors = target.append(main, part, {})
    given = main.tensors[tensors[WINDOW]]
    given.shape, given.shapeSignature, given.name = np.array(network.shape, np.int32), None, WINDOW
    main.tensors[tensors[EMBEDDING]].name = EMBEDDING
    target.store_empty_constants(main)
    return target.content({WINDOW: tensors[WINDOW]}, {EMBEDDING: tensors[EMBEDDING]})


def _part(network: Network) -> Part:
    """Return a backbone, which is converted if it is a Keras file or a SavedModel."""
    if network.backbone.format != "tflite":
        with one_line(f"format=tflite: {network.name}", "TensorFlow's converter refuses it"):
            return _convert(embed(network), {WINDOW: network.shape})
    model = _read(network.file.content)  # type: ignore[attr-defined]
    key = network.signature.encode()
    index = next((s.subgraphIndex for s in model.signatureDefs or () if key and s.signatureKey == key), 0)
    return Part(model, {WINDOW: network.input.index}, {EMBEDDING: network.output.index}, index)


def _convert(function: Function, signature: Mapping[str, Shape]) -> Part:
    """Convert a function of TensorFlow's tensors to a graph."""
    model = _read(to_tflite(function, signature))
    (defined,) = model.signatureDefs
    inputs, outputs = ({t.name.decode(): t.tensorIndex for t in ends} for ends in (defined.inputs, defined.outputs))
    return Part(model, inputs, outputs, defined.subgraphIndex)


def _read(content: bytes) -> Any:
    from tensorflow.lite.tools.flatbuffer_utils import read_model_from_bytearray

    return read_model_from_bytearray(bytearray(content))


def _loop(target: Target, graph: Any, slot: Slot, backbone: Part, windows: int) -> int:
    """Append a loop in which each window goes through the backbone; return the tensor of the embeddings."""
    from tensorflow.lite.python import schema_py_generated as schema

    network = slot.network
    start, test, take, store = _loop_parts(network.batch, network.n_samples, network.size)
    condition, body = target.add_graph(f"has more {slot.windows}"), target.add_graph(f"embeds {slot.windows}")
    for inner in (condition, body):
        like = (take.graph.tensors[take.inputs["i"]], graph.tensors[windows], store.graph.tensors[store.inputs["some"]])
        inner.inputs = [_add_tensor(inner, tensor) for tensor in like]
    state = dict(zip(("i", "x"), condition.inputs, strict=False))
    condition.outputs = [target.append(condition, test, state)["goes_on"]]
    state = dict(zip(("i", "x", "some"), body.inputs, strict=True))
    window = target.append(body, take, {name: state[name] for name in ("i", "x")})["window"]
    answer = target.append(body, backbone, {WINDOW: window})[EMBEDDING]
    stored = target.append(body, store, {"i": state["i"], "some": state["some"], "answer": answer})
    body.outputs = [stored["next"], state["x"], stored["embeddings"]]

    started = target.append(graph, start, {"x": windows})
    before = [started["i"], windows, started["some"]]
    after = [_add_tensor(graph, graph.tensors[tensor]) for tensor in before]
    options = schema.WhileOptionsT(target.index_of(condition), target.index_of(body))
    loop = schema.BuiltinOperator.WHILE
    code = target.code_index(schema.OperatorCodeT(deprecatedBuiltinCode=loop, builtinCode=loop))
    graph.operators.append(schema.OperatorT(code, before, after, schema.BuiltinOptions.WhileOptions, options))
    return after[2]


@functools.cache
def _loop_parts(batch: int, n_samples: int, size: int) -> tuple[Part, Part, Part, Part]:
    """Return graphs that start a loop, test whether it goes on, take a window, and store its embedding.

    The loop's state is the number of a window, float32 (), the windows, and the embeddings.
    """
    import tensorflow as tf

    def start(x: Any) -> dict[str, Any]:
        n_windows = tf.shape(x)[0]
        return {"i": tf.cast(0 * n_windows, tf.float32), "some": tf.zeros([n_windows, size])}

    def test(i: Any, x: Any) -> dict[str, Any]:
        return {"goes_on": tf.less(tf.cast(i, tf.int32), tf.shape(x)[0])}

    def take(i: Any, x: Any) -> dict[str, Any]:
        number = tf.cast(i, tf.int32)
        return {"window": tf.gather(x, tf.fill([batch], number) if batch else number)}

    def store(i: Any, some: Any, answer: Any) -> dict[str, Any]:  # an answer of any rank is only reshaped
        embedding = tf.reduce_mean(tf.reshape(answer, [max(batch, 1), -1, size])[0], axis=0)
        is_here = tf.equal(tf.range(tf.shape(some)[0]), tf.cast(i, tf.int32))
        return {"next": i + 1, "embeddings": tf.where(is_here[:, tf.newaxis], embedding, some)}

    i: dict[str, Shape] = {"i": ()}
    x: dict[str, Shape] = {"x": (None, n_samples)}
    stored: dict[str, Shape] = {"some": (None, size), "answer": (None,)}
    return _convert(start, x), _convert(test, i | x), _convert(take, i | x), _convert(store, i | stored)


def _add_tensor(graph: Any, like: Any, buffer: int = 0) -> int:
    """Add a tensor that has the type and the shape of another; return its index."""
    tensor = copy.copy(like)
    tensor.buffer = buffer
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


class Target:
    """A file in the making; `model` is a ``ModelT``."""

    def __init__(self) -> None:
        from tensorflow.lite.python import schema_py_generated as schema

        empty = schema.BufferT()
        self.model = schema.ModelT(version=3, description="fsat", operatorCodes=[], buffers=[empty], subgraphs=[])
        self._buffers: dict[bytes, int] = {}

    def append(self, graph: Any, part: Part, wires: Mapping[str, int]) -> dict[str, int]:
        """Append a part to a graph, whose tensors `wires` are inputs; return its inputs and outputs there."""
        given = {part.inputs[name]: tensor for name, tensor in wires.items()}
        ends, outputs = {**part.inputs, **part.outputs}, list(part.outputs.values())
        tensors = _Copier(part.model, self).append(part.graph, list(ends.values()), outputs, graph, given)
        return {name: tensors[tensor] for name, tensor in ends.items()}

    def add_graph(self, name: str | bytes) -> Any:
        """Add an empty graph."""
        from tensorflow.lite.python import schema_py_generated as schema

        self.model.subgraphs.append(schema.SubGraphT(tensors=[], inputs=[], outputs=[], operators=[], name=name))
        return self.model.subgraphs[-1]

    def index_of(self, graph: Any) -> int:
        """Return the index of a graph."""
        return int(self.model.subgraphs.index(graph))

    def code_index(self, code: Any) -> int:
        """Return the index of an operator code, which is added if it is new."""
        known = [vars(other) for other in self.model.operatorCodes]
        if vars(code) not in known:
            self.model.operatorCodes.append(code)
            return len(known)
        return known.index(vars(code))

    def buffer_index(self, buffer: Any) -> int:
        """Return the index of a weight, which is added if it is new; 0 for none."""
        if buffer.data is None or not len(buffer.data):
            return 0
        content = hashlib.sha256(np.asarray(buffer.data, np.uint8).tobytes()).digest()
        if content not in self._buffers:
            self._buffers[content] = len(self.model.buffers)
            self.model.buffers.append(buffer)
        return self._buffers[content]

    def store_empty_constants(self, graph: Any) -> None:
        """Give constants without elements a weight of no bytes, without which tf2onnx does not know them."""
        from tensorflow.lite.python import schema_py_generated as schema

        computed = {index for operator in graph.operators for index in operator.outputs}
        for index, tensor in enumerate(graph.tensors):
            if index not in computed and tensor.shape is not None and 0 in tensor.shape:
                tensor.buffer = len(self.model.buffers)
                self.model.buffers.append(schema.BufferT(np.zeros(0, np.uint8)))

    def add_version(self, models: Sequence[Any]) -> None:
        """Add the oldest version of the runtime that has the operators of all parts, as far as they say."""
        from tensorflow.lite.python import schema_py_generated as schema

        entries = [(model, entry) for model in models for entry in model.metadata or () if entry.name == MIN_VERSION]
        texts = [bytes(model.buffers[entry.buffer].data).rstrip(b"\0") for model, entry in entries]
        newest = max(texts, key=lambda text: [int(number) for number in text.split(b".") if number.isdigit()])
        self.model.metadata = [schema.MetadataT(MIN_VERSION, len(self.model.buffers))]
        self.model.buffers.append(schema.BufferT(np.frombuffer(newest.ljust(16, b"\0"), np.uint8)))

    def content(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bytes:
        """Return the bytes of the file, whose first graph has these inputs and outputs."""
        from tensorflow.lite.python import schema_py_generated as schema

        main = self.model.subgraphs[0]
        main.inputs, main.outputs = list(inputs.values()), list(outputs.values())
        ends = ([schema.TensorMapT(name, tensor) for name, tensor in named.items()] for named in (inputs, outputs))
        self.model.signatureDefs = [schema.SignatureDefT(*ends, "serving_default", 0)]
        builder = _Builder(1024 + sum(len(buffer.data) for buffer in self.model.buffers if buffer.data is not None))
        builder.Finish(self.model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())


class _Builder(flatbuffers.Builder):
    """Aligns weights; the library would align bytes to 4."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        """Begin an array."""
        return super().StartVector(elemSize, numElems, ALIGNMENT if elemSize == 1 else alignment)


@dataclass
class _Copier:
    """Copies graphs of one model into another, with the weights and the further graphs that they use."""

    source: Any
    target: Target
    graphs: dict[int, int] = field(default_factory=dict)

    def append(
        self, source: Any, ends: Sequence[int], outputs: Sequence[int], graph: Any, given: Mapping[int, int]
    ) -> dict[int, int]:
        """Append the operators of a graph that `outputs` need to another graph.

        Args:
            ends: tensors that are copied even if no operator uses them.
            given: tensors of that graph in place of tensors of `source`.

        Returns:
            tensors of that graph by tensors of `source`.
        """
        operators, tensors = needed(source, outputs, set(given)), dict(given)
        used = [_indices(getattr(operator, name)) for operator in operators for name in TENSORS]
        for index in sorted({*ends}.union(*used) - {-1} - set(given)):
            tensor = source.tensors[index]
            tensors[index] = _add_tensor(graph, tensor, self.target.buffer_index(self.source.buffers[tensor.buffer]))
        graph.operators += [self._operator(operator, tensors) for operator in operators]
        return tensors

    def _operator(self, operator: Any, tensors: Mapping[int, int]) -> Any:
        new = copy.copy(operator)
        new.opcodeIndex = self.target.code_index(self.source.operatorCodes[operator.opcodeIndex])
        for name in TENSORS:
            setattr(new, name, [tensors.get(index, -1) for index in _indices(getattr(operator, name))])
        for name in ("builtinOptions", "builtinOptions2"):
            options = copy.copy(getattr(operator, name))
            for key, value in list(vars(options).items()) if options else ():
                if key.endswith("SubgraphIndex") or key == "subgraph":
                    setattr(options, key, self._graph(value))
                elif key == "branchSubgraphIndices":
                    setattr(options, key, [self._graph(int(index)) for index in value])
            setattr(new, name, options)
        return new

    def _graph(self, index: int) -> int:
        """Copy a graph that an operator calls; return its index."""
        if index >= 0 and index not in self.graphs:
            source = self.source.subgraphs[index]
            graph = self.target.add_graph(source.name)
            self.graphs[index] = self.target.index_of(graph)
            inputs, outputs = _indices(source.inputs), _indices(source.outputs)
            tensors = self.append(source, [*inputs, *outputs], outputs, graph, {})
            graph.inputs, graph.outputs = ([tensors[tensor] for tensor in ends] for ends in (inputs, outputs))
        return self.graphs.get(index, index)


TENSORS = ("inputs", "outputs", "intermediates")
"""Attributes of an operator that have indices of tensors, -1 for none."""


def needed(graph: Any, outputs: Sequence[int], given: set[int]) -> list[Any]:
    """Return the operators, in order, that compute `outputs` from the tensors `given`.

    Operators without outputs count as needed: they set variables.
    """
    wanted, result = set(outputs) - given, []
    for operator in reversed(graph.operators):
        computed = _indices(operator.outputs)
        if not computed or wanted.intersection(computed):
            result.append(operator)
            wanted |= set(_indices(operator.inputs)) - given
    return result[::-1]


def _indices(values: Any) -> list[int]:
    """Return a list of the file format, which is None or an array."""
    return [] if values is None else [int(value) for value in values]
