"""Put ONNX backbones between the two halves of a tagger, in one ONNX model; see `fsat.export.halves`.

The nodes of all parts stand in one graph, with names that tell the parts apart. (`onnx.compose` does not give new names
to what the bodies of loops and branches take from the graph around them.) A backbone is the body of a `Scan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fsat.errors import ConfigError
from fsat.export.halves import OUTPUT, Slot

OLDEST, IR_VERSION = 13, 8
"""Oldest version of operators in a merged model, to which older backbones are converted, and of the file format."""

OWN_DOMAINS = {"", "ai.onnx"}
"""Both names of the domain of ONNX's own operators."""

AXES_ARE_INPUTS = 18
"""Version of operators from which on the axes of a mean are an input and no attribute."""


@dataclass(frozen=True)
class Part:
    """A model, a ``ModelProto``, and the names of one input and one output."""

    model: Any
    input: str
    output: str


def opset_of(model: Any) -> int:
    """Return the version of ONNX's own operators in a model."""
    return int(max(entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS))


def merge(convert: Callable[[str, int], Any], slots: Sequence[Slot]) -> Any:
    """Return a model from a waveform to scores; each slot's backbone is a `Part`.

    Args:
        convert: returns the ``front`` or the ``back`` half, with ONNX's own operators of at most a version.

    Raises:
        ConfigError: a backbone cannot be converted to the operators that the others have.
    """
    import onnx

    opset = max(OLDEST, *(opset_of(slot.network.part.model) for slot in slots))
    front, back = (_at_opset(convert(half, opset), opset) for half in ("front", "back"))
    backbones = [_backbone(slot, f"backbone{number}", opset) for number, slot in enumerate(slots)]
    ends = {value.name for value in (*back.graph.input, *back.graph.output)}
    _rename(back.graph, lambda name: name if name in ends else f"back/{name}")
    scans = [
        _scan(slot, model.graph, f"backbone{n}", opset)
        for n, (slot, model) in enumerate(zip(slots, backbones, strict=True))
    ]
    nodes = [*front.graph.node, *scans, *back.graph.node]
    initializers = [*front.graph.initializer, *back.graph.initializer]
    graph = onnx.helper.make_graph(nodes, "tagger", front.graph.input, back.graph.output, initializers)
    versions = {entry.domain: entry.version for model in backbones for entry in model.opset_import}
    versions = versions | dict.fromkeys(versions.keys() & OWN_DOMAINS | {""}, opset)
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()]
    ir_version = max(IR_VERSION, *(model.ir_version for model in (front, back, *backbones)))
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def _at_opset(model: Any, opset: int) -> Any:
    """Return a copy of a model with ONNX's own operators of a version that is not older than its own."""
    import onnx
    from onnx import inliner, version_converter

    if model.functions:
        model = inliner.inline_local_functions(model)
    if opset_of(model) < opset:
        model = version_converter.convert_version(model, opset)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def _backbone(slot: Slot, prefix: str, opset: int) -> Any:
    """Return a slot's backbone with names that begin with a prefix, without what its embedding does not need."""
    part = slot.network.part
    try:
        model = _at_opset(part.model, opset)
    except RuntimeError as error:
        fault = f"ONNX cannot convert the backbone's operators of version {opset_of(part.model)} to {opset}"
        raise ConfigError(f"format=onnx: {fault}: {str(error).splitlines()[0]}") from None
    _keep_needed(model.graph, part.output)
    _rename(model.graph, lambda name: f"{prefix}/{name}")
    return model


def _scan(slot: Slot, graph: Any, prefix: str, opset: int) -> Any:
    """Return the node from a slot's windows to its embeddings; `graph` is the backbone's."""
    from onnx import TensorProto, helper

    part, batch, size = slot.network.part, slot.network.batch, slot.network.size
    window, answer, first, embedding = (f"{prefix}:{name}" for name in ("window", "answer", "first", "embedding"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (window, embedding)]
    constants = {"batch": [batch, 1] if batch else [1], "frames": [max(batch, 1), -1, size], "0": [0], "axes": [0, 1]}
    weights = [helper.make_tensor(f"{prefix}:{name}", TensorProto.INT64, [len(v)], v) for name, v in constants.items()]
    axes = {"axes": constants["axes"]} if opset < AXES_ARE_INPUTS else {}
    nodes = [
        helper.make_node("Expand", [window, f"{prefix}:batch"], [f"{prefix}/{part.input}"]),
        *graph.node,
        helper.make_node("Reshape", [f"{prefix}/{part.output}", f"{prefix}:frames"], [answer]),
        helper.make_node("Gather", [answer, f"{prefix}:0"], [first]),
        helper.make_node("ReduceMean", [first] if axes else [first, f"{prefix}:axes"], [embedding], keepdims=0, **axes),
    ]
    body = helper.make_graph(nodes, prefix, ends[:1], ends[1:], [*graph.initializer, *weights])
    body.sparse_initializer.extend(graph.sparse_initializer)
    return helper.make_node("Scan", [slot.windows], [slot.embeddings], prefix, body=body, num_scan_inputs=1)


def _keep_needed(graph: Any, output: str) -> None:
    """Remove from a graph what one of its values does not need, and what it says of shapes in between."""
    wanted, nodes = {output}, list[Any]()
    for node in reversed(graph.node):
        if wanted & set(node.output):
            nodes.append(node)
            wanted |= set(_names_in(node)) - {""}
    nodes.reverse()
    initializers = [value for value in graph.initializer if value.name in wanted]
    sparse = [value for value in graph.sparse_initializer if value.values.name in wanted]
    constants = {value.name for value in initializers} | {value.values.name for value in sparse}
    inputs = [value for value in graph.input if value.name in wanted - constants]
    outputs = [value for value in graph.output if value.name == output]
    for name, values in (("node", nodes), ("initializer", initializers), ("sparse_initializer", sparse),
                         ("input", inputs), ("output", outputs), ("value_info", [])):  # fmt: skip
        graph.ClearField(name)
        getattr(graph, name).extend(values)
    graph.ClearField("quantization_annotation")


def _names_in(node: Any) -> Iterator[str]:
    """Return the values that a node, and the graphs in its attributes, take."""
    yield from node.input
    for graph in _graphs_of(node):
        for inner in graph.node:
            yield from _names_in(inner)
        yield from (value.name for value in graph.output)


def _graphs_of(node: Any) -> list[Any]:
    """Return the graphs in a node's attributes."""
    attributes = node.attribute
    return [a.g for a in attributes if a.HasField("g")] + [graph for a in attributes for graph in a.graphs]


def _rename(graph: Any, new_name: Callable[[str], str]) -> None:
    """Give new names to all values and nodes of a graph and of the graphs in it."""
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = new_name(value.name)
    for value in graph.sparse_initializer:
        value.values.name = new_name(value.values.name)
    for node in graph.node:
        node.name = new_name(node.name) if node.name else ""
        for names in (node.input, node.output):
            names[:] = [new_name(name) if name else "" for name in names]
        for inner in _graphs_of(node):
            _rename(inner, new_name)
