"""Put backbones between the two halves of a tagger, in one ONNX model; see `fsat.export.networks.Halves`.

The nodes of all parts stand in one graph, with names that tell the parts apart. (`onnx.compose` does not give new names
to what the bodies of loops and branches take from the graph around them.) A backbone is the body of a ``Scan``, which
embeds one window after another, so that memory suffices for many. Its weights stand outside of it, once in the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fsat.backbones.network import one_line
from fsat.errors import ConfigError
from fsat.export.convert import EMBEDDING, NEWEST, OPSET, WINDOW, embed, halves_functions, tflite_to_onnx, to_onnx
from fsat.export.networks import Halves, Network, Slot
from fsat.export.onnx_fft import without_complex

OLDEST, IR_VERSION = 13, 8
"""Oldest version of operators in a merged model, to which older backbones are converted, and of the file format."""

OWN_DOMAINS = {"", "ai.onnx"}
"""Both names of the domain of ONNX's own operators."""

AXES_ARE_INPUTS = 18
"""Version of operators from which on the axes of a mean are an input and no attribute."""


@dataclass(frozen=True)
class Part:
    """A backbone as a model, a ``ModelProto``, and the names of its input and output."""

    model: Any
    input: str
    output: str


def opset_of(model: Any) -> int:
    """Return the version of ONNX's own operators in a model."""
    return int(max(entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS))


def merge(halves: Halves) -> Any:
    """Return a model from a waveform to scores, a ``ModelProto``.

    Its operators have the version of the newest ONNX backbone, else that of other exports. Raises `ConfigError` if a
    backbone cannot be converted.
    """
    import onnx

    networks = [slot.network for slot in halves.slots]
    files = {network.backbone.digest: _read(network) for network in networks if network.backbone.format == "onnx"}
    opset = max(OLDEST, *(opset_of(part.model) for part in files.values())) if files else OPSET
    parts = [_at(opset, network, files.get(network.backbone.digest)) for network in networks]
    front, back = _halves(halves, opset)
    weights: dict[bytes, Any] = {}
    for number, part in enumerate(parts):
        _keep_needed(part.model.graph, part.output)
        _take_weights(part.model.graph, f"window{number}/", weights)
    scans = [
        _scan(slot, part, number, opset) for number, (slot, part) in enumerate(zip(halves.slots, parts, strict=True))
    ]
    graph = onnx.helper.make_graph(
        [*front.graph.node, *scans, *back.graph.node],
        "tagger",
        front.graph.input,
        back.graph.output,
        [*front.graph.initializer, *back.graph.initializer, *weights.values()],
    )
    versions = {entry.domain: entry.version for part in parts for entry in part.model.opset_import}
    versions = versions | dict.fromkeys((versions.keys() & OWN_DOMAINS) | {""}, opset)
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()]
    ir_version = max(IR_VERSION, *(part.model.ir_version for part in parts))
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def _halves(halves: Halves, opset: int) -> list[Any]:
    """Return the halves as ONNX models whose values have different names, apart from those that they share."""
    functions = halves_functions(halves)
    front, back = (_at_opset(to_onnx(*function, opset=min(opset, NEWEST)), opset) for function in functions)
    shared = {value.name for value in (*back.graph.input, *back.graph.output)}
    _rename(back.graph, lambda name: name if name in shared else f"back/{name}")
    return [front, back]


def _read(network: Network) -> Part:
    """Return an ONNX backbone."""
    import onnx

    model = onnx.load_model_from_string(network.file.content)  # type: ignore[attr-defined]
    return Part(model, network.input.name, network.output.name)


def _at(opset: int, network: Network, part: Part | None) -> Part:
    """Return a backbone with operators of a version: `part`, or one converted from another format."""
    name = f"format=onnx: {network.name}"
    if part is None:
        with one_line(name, "tf2onnx cannot convert it"):
            part = Part(_converted(network, min(opset, NEWEST)), WINDOW, EMBEDDING)
    with one_line(name, f"ONNX cannot convert its operators of version {opset_of(part.model)} to {opset}"):
        return Part(_at_opset(part.model, opset), part.input, part.output)


def _converted(network: Network, opset: int) -> Any:
    """Convert a backbone of another format, for one window."""
    import onnx

    if network.backbone.format == "tflite":
        from fsat.export.merge_tflite import alone

        model = tflite_to_onnx(alone(network), opset)
        without_complex(model, opset)
    else:
        model = to_onnx(embed(network), {WINDOW: network.shape}, opset)
    operators = sorted({node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, node.domain)})
    if operators:
        fault = f"ONNX, as tf2onnx converts to it, has no operators for {', '.join(operators)[:200]}"
        raise ConfigError(f"format=onnx: {network.name}: {fault}; use format=tflite")
    return model


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


def _scan(slot: Slot, part: Part, number: int, opset: int) -> Any:
    """Return the node from a slot's windows to its embeddings."""
    from onnx import TensorProto, helper

    network, graph, prefix = slot.network, part.model.graph, f"window{number}"
    batch, size = network.batch, network.size
    window, answer, first, embedding = (f"{prefix}:{name}" for name in ("window", "answer", "first", "embedding"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (window, embedding)]
    constants = {"batch": [batch, 1] if batch else [1], "frames": [max(batch, 1), -1, size], "0": [0]}
    axes = {"axes": [0, 1]}
    if opset >= AXES_ARE_INPUTS:
        constants, axes = constants | axes, {}
    weights = [helper.make_tensor(f"{prefix}:{name}", TensorProto.INT64, [len(v)], v) for name, v in constants.items()]
    nodes = [
        helper.make_node("Expand", [window, f"{prefix}:batch"], [graph.input[0].name]),
        *graph.node,
        helper.make_node("Reshape", [graph.output[0].name, f"{prefix}:frames"], [answer]),
        helper.make_node("Gather", [answer, f"{prefix}:0"], [first]),
        helper.make_node("ReduceMean", [first] if axes else [first, f"{prefix}:axes"], [embedding], keepdims=0, **axes),
    ]
    body = helper.make_graph(nodes, prefix, ends[:1], ends[1:], weights)
    body.sparse_initializer.extend(graph.sparse_initializer)
    return helper.make_node("Scan", [slot.windows], [slot.embeddings], prefix, body=body, num_scan_inputs=1)


def _take_weights(graph: Any, prefix: str, weights: dict[bytes, Any]) -> None:
    """Move a graph's weights to `weights`, by content, unless they are there, and begin other names with a prefix."""
    import onnx

    names = {}
    for value in graph.initializer:
        weight = onnx.TensorProto()
        weight.CopyFrom(value)
        weight.name = ""
        content = hashlib.sha256(weight.SerializeToString(deterministic=True)).digest()
        weight.name = prefix + value.name
        names[value.name] = weights.setdefault(content, weight).name
    graph.ClearField("initializer")
    _rename(graph, lambda name: names.get(name, prefix + name))


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
