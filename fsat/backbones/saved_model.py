"""SavedModels of TensorFlow 2: folders with a graph, whose operators are checked before TensorFlow loads it.

Operators that run Python, use files or a network, or are unknown to TensorFlow are refused. TensorFlow marks operators
with side effects as stateful: of those only the ones in `STATEFUL` are allowed. TensorFlow loads a copy of the graph
without the functions that the program never calls. Those by which a SavedModel saves and restores its variables are
among them, and may use files.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fsat.backbones.network import Call, ModelFile, Signature, Tensor, check_size, one_line, quiet, read_file, refuse
from fsat.errors import ConfigError, printable
from fsat.files import disk_errors
from fsat.models import import_keras

GRAPH, VARIABLES = "saved_model.pb", "variables"

STATEFUL = {
    "Assert", "AssignAddVariableOp", "AssignSubVariableOp", "AssignVariableOp", "Case", "CheckNumerics",
    "CheckNumericsV2", "DisableCopyOnRead", "Empty", "GuaranteeConst", "HashTableV2", "If", "InitializeTableV2",
    "IsResourceHandleRefCounting", "LookupTableExportV2", "LookupTableFindV2", "LookupTableImportV2",
    "LookupTableInsertV2", "LookupTableSizeV2", "Multinomial", "MutableHashTableV2", "ParameterizedTruncatedNormal",
    "RandomGamma", "RandomPoissonV2", "RandomShuffle", "RandomStandardNormal", "RandomUniform", "RandomUniformInt",
    "ReadVariableOp", "ResourceGather", "ResourceGatherNd", "StatefulPartitionedCall", "StatefulStandardNormalV2",
    "StatefulUniform", "StatelessRandomGetAlg", "TensorArrayCloseV3", "TensorArrayConcatV3", "TensorArrayGatherV3",
    "TensorArrayReadV3", "TensorArrayScatterV3", "TensorArraySizeV3", "TensorArraySplitV3", "TensorArrayV3",
    "TensorArrayWriteV3", "TruncatedNormal", "VarHandleOp", "VarIsInitializedOp", "VariableShape", "While",
    "XlaCallModule", "XlaIf", "XlaWhile", "_Arg", "_Retval",
}  # fmt: skip
"""Stateful operators that compute, or keep their state in memory."""

REFUSED = re.compile(
    "PyFunc|File|Dataset|Reader|Proto|Queue|Barrier|Vocab|Custom|Launch|TPU|Tpu|Debug|Iterator|Dump"
    "|^Abort$|^Copy|ImmutableConst|MlirPassthrough|RemoteFused"
)
"""In the names of operators that are not marked as stateful, but run code or use files."""

SAVER = {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename", "ShardedFilespec"}
"""Operators by which variables are saved and restored."""


class SavedModelFolder(ModelFile):
    """A folder with a SavedModel of TensorFlow 2."""

    def __init__(self, name: str, path: Path) -> None:
        import_keras()
        from tensorflow.core.protobuf import saved_model_pb2

        self._path = path
        if not path.is_dir() or not (path / GRAPH).is_file():
            raise ConfigError(f"{name}: is no SavedModel; expected a folder with {GRAPH} and variables/")
        with disk_errors(name, "cannot be read"):
            files = [file for file in path.rglob("*") if file.is_file()]
            check_size(name, sum(file.stat().st_size for file in files))
        if others := [file.name for file in files if file.name.startswith("saved_model.") and file.name != GRAPH]:
            raise ConfigError(f"{name}: has {printable(others[0])} beside {GRAPH}; expected one graph")
        proto = saved_model_pb2.SavedModel()
        with one_line(name, f"{GRAPH} is damaged, or no SavedModel"):
            proto.ParseFromString(read_file(path / GRAPH))
        if len(proto.meta_graphs) != 1 or not proto.meta_graphs[0].object_graph_def.nodes:
            raise ConfigError(f"{name}: expected a SavedModel of TensorFlow 2, as `tf.saved_model.save` writes it")
        (graph,) = proto.meta_graphs
        called = _called_functions(graph)
        advice = "save the network without it: fsat runs TensorFlow's own operators only, and none with code or files"
        refuse(name, list(_refused_operators(graph, called)), advice)
        signatures = {
            key: Signature(_tensors(signature.inputs), _tensors(signature.outputs))
            for key, signature in sorted(graph.signature_def.items())
            if not key.startswith("__")
        }
        if not signatures:
            raise ConfigError(f"{name}: has no signatures; save it with `tf.saved_model.save(m, DIR, signatures=...)`")
        _keep_program(graph, called)
        self._graph = proto.SerializeToString()
        super().__init__(name, signatures, facts={"TensorFlow": graph.meta_info_def.tensorflow_version})

    def open(self, signature: str, input: Tensor, output: Tensor, n_samples: int | None) -> Call:
        """Return a signature's function, which several threads may call."""
        import tensorflow as tf

        function = self.function(signature, input, output)

        def call(samples: np.ndarray) -> np.ndarray:
            with one_line(self.name, f"fails on an input of shape {samples.shape}"):
                return function(tf.constant(samples)).numpy()

        return call

    def function(self, signature: str, input: Tensor, output: Tensor) -> Callable[[Any], Any]:
        """Return a function of TensorFlow's tensors that maps one input of a signature to one output."""
        import tensorflow as tf

        with (
            quiet(self.name, "TensorFlow cannot load it"),
            tempfile.TemporaryDirectory(prefix="fsat-backbone-") as copy,
        ):
            Path(copy, GRAPH).write_bytes(self._graph)
            Path(copy, VARIABLES).symlink_to((self._path / VARIABLES).resolve())
            loaded = tf.saved_model.load(copy)
            named = loaded.signatures[signature]

        def function(samples: Any) -> Any:
            return named(**{input.name: samples})[output.name]

        function.loaded = loaded  # type: ignore[attr-defined]  # signatures do not keep their variables
        return function


def _tensors(entries: Any) -> tuple[Tensor, ...]:
    """Return the tensors of a signature, sorted by name."""
    import tensorflow as tf

    result = []
    for i, (key, info) in enumerate(sorted(entries.items())):
        known = info.WhichOneof("encoding") == "name" and not info.tensor_shape.unknown_rank
        shape = tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim) if known else None
        dtype = tf.dtypes.as_dtype(info.dtype).name if info.dtype else "another type"
        result.append(Tensor(key, shape, dtype, i))
    return tuple(result)


def _refused_operators(meta_graph: Any, called: set[str]) -> Iterator[str]:
    """Yield the operators of a graph and its functions that are refused; `called` are those of the program."""
    names = {function.signature.name for function in meta_graph.graph_def.library.function}
    yield from (op for op in _refused(meta_graph.graph_def.node, names) if op not in SAVER)
    for function in meta_graph.graph_def.library.function:
        is_called = function.signature.name in called
        yield from (op for op in _refused(function.node_def, names) if is_called or op not in SAVER)


def _refused(nodes: Any, functions: set[str]) -> Iterator[str]:
    from tensorflow.python.framework import op_def_registry

    for op in {node.op for node in nodes}:
        definition = op_def_registry.get(op)
        if definition is None:
            if op not in functions:
                yield op
        elif REFUSED.search(op) or (definition.is_stateful and op not in STATEFUL):
            yield op


def _called_functions(meta_graph: Any) -> set[str]:
    """Return the names of the functions that the program may call when it is loaded or run."""
    library, program = meta_graph.graph_def.library, meta_graph.object_graph_def
    calls: dict[str, set[str]] = {}
    for function in library.function:
        calls.setdefault(function.signature.name, set()).update(*map(_called, function.node_def))
    pending = {*program.concrete_functions, *(gradient.gradient_func for gradient in library.registered_gradients)}
    for node in program.nodes:
        pending |= {node.bare_concrete_function.concrete_function_name, node.captured_tensor.concrete_function}
        pending |= set(node.function.concrete_functions)
    called = set[str]()
    while pending := (pending & calls.keys()) - called:
        called |= pending
        pending = set[str]().union(*(calls[name] for name in pending))
    return called


def _called(node: Any) -> set[str]:
    """Return the functions that a node calls."""
    names = {node.op}
    for value in node.attr.values():
        names |= {value.func.name, *(function.name for function in value.list.func)}
    return names


def _keep_program(meta_graph: Any, called: set[str]) -> None:
    """Remove all that TensorFlow 2 does not run: of the graph all but constants, and the functions that are not called.

    A call of a function that is missing is an error, so that nothing unchecked can run.
    """
    graph = meta_graph.graph_def
    constants = [node for node in graph.node if node.op == "Const"]
    functions = [function for function in graph.library.function if function.signature.name in called]
    for entries, kept in ((graph.node, constants), (graph.library.function, functions)):
        del entries[:]
        entries.extend(kept)
    for message, field in ((graph.library, "gradient"), (meta_graph, "saver_def"), (meta_graph, "collection_def")):
        message.ClearField(field)
