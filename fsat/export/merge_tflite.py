"""Put TensorFlow Lite backbones between the two halves of a tagger, in one file; see `fsat.export.halves`.

The halves come from TensorFlow's converter; a backbone's operators and weights are copied as they are, without those
that its embedding does not need. The words of the file format: a graph is a "subgraph", a weight is a "buffer", and an
operator refers to a "code" that has its name and version.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np

from fsat.export.halves import INPUT, OUTPUT, SAMPLES, Slot
from fsat.models import quiet_stderr

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


def read_part(content: bytes, choose: Callable[[Any], tuple[int, int, int]] | None = None) -> Part:
    """Read a file.

    Args:
        content: the file's bytes.
        choose: returns the index of a graph, and those of its input and output, for a ``ModelT``; by default the inputs
            and outputs are those of the only signature.
    """
    from tensorflow.lite.tools.flatbuffer_utils import read_model_from_bytearray

    model = read_model_from_bytearray(bytearray(content))
    if choose:
        index, given, result = choose(model)
        return Part(model, {"": given}, {"": result}, index)
    (signature,) = model.signatureDefs
    inputs, outputs = ({t.name.decode(): t.tensorIndex for t in ends} for ends in (signature.inputs, signature.outputs))
    return Part(model, inputs, outputs, signature.subgraphIndex)


def convert(function: Callable[..., Mapping[str, Any]], **signature: Any) -> Part:
    """Convert a function of TensorFlow's tensors to a graph; `signature` has a ``TensorSpec`` for each argument."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = [tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in signature.items()]
    with quiet_stderr():
        concrete = tf.function(lambda *arrays: function(*arrays), input_signature=specs).get_concrete_function()
        frozen, names = convert_variables_to_constants_v2(concrete), sorted(concrete.structured_outputs)
        named = tf.function(lambda *arrays: dict(zip(names, frozen(*arrays), strict=True)), input_signature=specs)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([named.get_concrete_function()], tf.Module())
        return read_part(converter.convert())


def merge(front: Part, slots: Sequence[Slot], back: Part) -> bytes:
    """Return a file with the signature of fsat's exports; each slot's backbone is a `Part` with one input and output."""
    from tensorflow.lite.python import schema_py_generated as schema

    target = schema.ModelT(version=3, description="fsat", operatorCodes=[], buffers=[schema.BufferT()], subgraphs=[])
    main = _new_graph(target, "main")
    tensors = _append(target, main, front, {})
    wires = {SAMPLES: tensors[SAMPLES]}
    for slot in slots:
        wires[slot.embeddings] = _loop(target, main, slot, tensors[slot.windows])
    scores = _append(target, main, back, wires)[OUTPUT]
    main.inputs, main.outputs = [tensors[INPUT]], [scores]
    ends = ([schema.TensorMapT(INPUT, tensors[INPUT])], [schema.TensorMapT(OUTPUT, scores)])
    target.signatureDefs = [schema.SignatureDefT(*ends, "serving_default", 0)]
    _add_version(target, [front.model, back.model, *(slot.network.part.model for slot in slots)])
    return _pack(target)


def _loop(target: Any, graph: Any, slot: Slot, windows: int) -> int:
    """Append a loop in which each window goes through the backbone; return the tensor of the embeddings."""
    import tensorflow as tf
    from tensorflow.lite.python import schema_py_generated as schema

    n_samples, size, batch = int(graph.tensors[windows].shape[-1]), slot.network.size, slot.network.batch
    i, x = tf.TensorSpec([], tf.int32), tf.TensorSpec([None, n_samples])
    some, answer = tf.TensorSpec([None, size]), tf.TensorSpec([None])  # an answer of any rank is only reshaped

    def keep(i: Any, some: Any, answer: Any) -> dict[str, Any]:
        embedding = tf.reduce_mean(tf.reshape(answer, [max(batch, 1), -1, size])[0], axis=0)
        is_here = tf.equal(tf.range(tf.shape(some)[0]), i)
        return {"next": i + 1, "embeddings": tf.where(is_here[:, tf.newaxis], embedding, some)}

    start = convert(lambda x: {"i": 0 * tf.shape(x)[0], "none": tf.zeros([tf.shape(x)[0], size])}, x=x)
    test = convert(lambda i, x: {"goes_on": tf.less(i, tf.shape(x)[0])}, i=i, x=x)
    take = convert(lambda i, x: {"window": tf.gather(x, tf.fill([batch], i) if batch else i)}, i=i, x=x)
    store = convert(keep, i=i, some=some, answer=answer)

    condition, body = _new_graph(target, "has_more"), _new_graph(target, "embed")
    for inner in (condition, body):
        like = (take.graph.tensors[take.inputs["i"]], graph.tensors[windows], store.graph.tensors[store.inputs["some"]])
        inner.inputs = [_add_tensor(inner, tensor) for tensor in like]
    state = dict(zip(("i", "x"), condition.inputs, strict=False))
    condition.outputs = [_append(target, condition, test, state)["goes_on"]]
    state = dict(zip(("i", "x", "some"), body.inputs, strict=True))
    window = _append(target, body, take, {name: state[name] for name in take.inputs})["window"]
    (given,), (result,) = slot.network.part.inputs, slot.network.part.outputs
    result_here = _append(target, body, slot.network.part, {given: window})[result]
    stored = _append(target, body, store, {"i": state["i"], "some": state["some"], "answer": result_here})
    body.outputs = [stored["next"], state["x"], stored["embeddings"]]

    started = _append(target, graph, start, {"x": windows})
    before = [started["i"], windows, started["none"]]
    after = [_add_tensor(graph, graph.tensors[tensor]) for tensor in before]
    options = schema.WhileOptionsT(target.subgraphs.index(condition), target.subgraphs.index(body))
    loop = schema.BuiltinOperator.WHILE
    code = _code_index(target, schema.OperatorCodeT(deprecatedBuiltinCode=loop, builtinCode=loop))
    kind = schema.BuiltinOptions.WhileOptions
    graph.operators.append(schema.OperatorT(code, before, after, kind, options))
    return after[2]


def _append(target: Any, graph: Any, part: Part, wires: Mapping[str, int]) -> dict[str, int]:
    """Append a part to a graph of the target, whose tensors `wires` are inputs; return inputs and outputs there."""
    copier = _Copier(part.model, target)
    given = {part.inputs[name]: tensor for name, tensor in wires.items()}
    tensors = copier.append(part.graph, list(part.inputs.values()), list(part.outputs.values()), graph, given)
    return {name: tensors[tensor] for name, tensor in {**part.inputs, **part.outputs}.items()}


def _new_graph(target: Any, name: str | bytes) -> Any:
    from tensorflow.lite.python import schema_py_generated as schema

    target.subgraphs.append(schema.SubGraphT(tensors=[], inputs=[], outputs=[], operators=[], name=name))
    return target.subgraphs[-1]


def _add_tensor(graph: Any, like: Any, buffer: int = 0) -> int:
    """Add a tensor that has the type and the shape of another; return its index."""
    tensor = copy.copy(like)
    tensor.buffer = buffer
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _code_index(target: Any, code: Any) -> int:
    """Return the index of an operator code, which is added if it is new."""
    known = [vars(other) for other in target.operatorCodes]
    if vars(code) not in known:
        target.operatorCodes.append(code)
        return len(known)
    return known.index(vars(code))


@dataclass
class _Copier:
    """Copies graphs of one model into another, with the weights and the further graphs that they use, each once."""

    source: Any
    target: Any
    buffers: dict[int, int] = field(default_factory=lambda: {0: 0})
    graphs: dict[int, int] = field(default_factory=dict)

    def append(
        self, source: Any, inputs: Sequence[int], outputs: Sequence[int], graph: Any, given: Mapping[int, int]
    ) -> dict[int, int]:
        """Append the operators of a graph that `outputs` need to another graph.

        Args:
            given: tensors of that graph in place of tensors of `source`.

        Returns:
            tensors of that graph by tensors of `source`.
        """
        operators, tensors = needed(source, outputs, set(given)), dict(given)
        ends = [_indices(getattr(operator, name)) for operator in operators for name in TENSORS]
        for index in sorted({*inputs, *outputs}.union(*ends) - {-1} - set(given)):
            tensor = source.tensors[index]
            tensors[index] = _add_tensor(graph, tensor, self._buffer(tensor.buffer))
        graph.operators += [self._operator(operator, tensors) for operator in operators]
        return tensors

    def _operator(self, operator: Any, tensors: Mapping[int, int]) -> Any:
        new = copy.copy(operator)
        new.opcodeIndex = _code_index(self.target, self.source.operatorCodes[operator.opcodeIndex])
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
            graph = _new_graph(self.target, source.name)
            self.graphs[index] = len(self.target.subgraphs) - 1
            inputs, outputs = _indices(source.inputs), _indices(source.outputs)
            tensors = self.append(source, inputs, outputs, graph, {})
            graph.inputs, graph.outputs = ([tensors[tensor] for tensor in ends] for ends in (inputs, outputs))
        return self.graphs.get(index, index)

    def _buffer(self, index: int) -> int:
        if index not in self.buffers:
            self.buffers[index] = len(self.target.buffers)
            self.target.buffers.append(self.source.buffers[index])
        return self.buffers[index]


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


def _add_version(target: Any, models: Sequence[Any]) -> None:
    """Add the oldest version of the runtime that has the operators of all parts, as far as they say."""
    from tensorflow.lite.python import schema_py_generated as schema

    entries = [(model, entry) for model in models for entry in model.metadata or () if entry.name == MIN_VERSION]
    texts = [bytes(model.buffers[entry.buffer].data).rstrip(b"\0") for model, entry in entries]
    newest = max(texts, key=lambda text: [int(part) for part in text.split(b".") if part.isdigit()])
    target.metadata = [schema.MetadataT(MIN_VERSION, len(target.buffers))]
    target.buffers.append(schema.BufferT(np.frombuffer(newest.ljust(16, b"\0"), np.uint8)))


class _Builder(flatbuffers.Builder):
    """Aligns weights; the library would align bytes to 4."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        """Begin an array."""
        return super().StartVector(elemSize, numElems, ALIGNMENT if elemSize == 1 else alignment)


def _pack(model: Any) -> bytes:
    """Return the bytes of a file."""
    builder = _Builder(1024 + sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None))
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())
