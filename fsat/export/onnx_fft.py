"""Fourier transforms of TensorFlow Lite as operators of ONNX, which has no complex numbers.

tf2onnx leaves ``RFFT2D`` and what takes its result, unless that is an absolute value, as they are. Here a complex array
becomes two, of its real and its imaginary parts. The transform computes in double precision, as TensorFlow Lite does:
networks take logarithms or small powers of the result, which make rounding errors of silent bands visible.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

DFT_OPSET = 17
"""Version of ONNX's operators that brought ``DFT``; its axis is an attribute up to 19."""

SHAPING = {"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that move values of their first input, whatever these are."""


def without_complex(model: Any, opset: int) -> None:
    """Replace transforms along the last axis, and what takes complex numbers, as far as ONNX's operators allow it.

    `opset` is the version of the model's operators, at most `fsat.export.convert.NEWEST`.
    """
    graph = model.graph
    if opset < DFT_OPSET:
        return
    parts: dict[str, tuple[str, str]] = {}  # names of both parts, by that of a complex array
    nodes = [new for node in graph.node for new in _replaced(node, graph, parts)]
    graph.ClearField("node")
    graph.node.extend(nodes)
    graph.ClearField("value_info")


def _replaced(node: Any, graph: Any, parts: dict[str, tuple[str, str]]) -> Iterator[Any]:
    """Yield the operators that take a node's place: those that are left cannot be replaced."""
    import onnx
    from onnx import helper, numpy_helper

    name = node.output[0] if node.output else ""
    real, imaginary = f"{name}/real", f"{name}/imaginary"
    if node.op_type == "RFFT2D" and (length := _length(node.input[1], graph)):
        column, spectrum = f"{name}/column", f"{name}/spectrum"
        for key, value in {"axis": [-1], "length": length, "0": 0, "1": 1}.items():
            constant = np.array(value, np.int64)
            graph.initializer.append(numpy_helper.from_array(constant, f"{name}/{key}"))
        yield helper.make_node("Cast", [node.input[0]], [f"{name}/double"], to=onnx.TensorProto.DOUBLE)
        yield helper.make_node("Unsqueeze", [f"{name}/double", f"{name}/axis"], [column])
        yield helper.make_node("DFT", [column, f"{name}/length"], [spectrum], axis=-2, onesided=1)
        yield helper.make_node("Cast", [spectrum], [f"{name}/float"], to=onnx.TensorProto.FLOAT)
        for i, part in enumerate((real, imaginary)):
            yield helper.make_node("Gather", [f"{name}/float", f"{name}/{i}"], [part], axis=-1)
        parts[name] = real, imaginary
        return
    if not node.input or node.input[0] not in parts:
        yield node
        return
    given = parts[node.input[0]]
    if node.op_type in SHAPING:
        for part, result in zip(given, (real, imaginary), strict=True):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name, copy.input[0], copy.output[0] = f"{node.name}/{result}", part, result
            yield copy
        parts[name] = real, imaginary
    elif node.op_type == "ComplexAbs":
        for part, square in zip(given, (real, imaginary), strict=True):
            yield helper.make_node("Mul", [part, part], [square])
        yield helper.make_node("Add", [real, imaginary], [f"{name}/power"])
        yield helper.make_node("Sqrt", [f"{name}/power"], [name])
    elif node.op_type in ("Cast", "Shape"):  # of a complex number, a cast to a real one takes the real part
        node.input[0] = given[0]
        yield node
    else:
        yield node


def _length(name: str, graph: Any) -> int:
    """Return the length of a transform along the last axis, given the lengths for the last two; 0 if it is another."""
    from onnx import numpy_helper

    constants = {value.name: value for value in graph.initializer}
    lengths = numpy_helper.to_array(constants[name]).tolist() if name in constants else []
    return int(lengths[1]) if len(lengths) == 2 and lengths[0] == 1 else 0
