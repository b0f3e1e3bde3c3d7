"""Backbones that would run code, write files or read other files are refused in one line; ordinary files still load."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_backbones import describe, refusal
from tiny_backbones import FRAME, N_SAMPLES, SIZE, reference_embedding, tiny_backbone

from fsat.backbones.descriptor import read_backbone
from fsat.backbones.network import open_network
from fsat.backbones.runtime import open_backbone, read_model
from fsat.models import import_keras

pytestmark = pytest.mark.slow

SERVING = {"signature": "serving_default", "key": "embedding"}
WINDOWS = np.random.default_rng(0).uniform(-0.5, 0.5, (2, N_SAMPLES)).astype(np.float32)
REFERENCE = np.stack([reference_embedding(window) for window in WINDOWS])


def tiny(folder: Path, kind: str) -> Path:
    return read_backbone(tiny_backbone(folder, kind)).path


def edit_graph(folder: Path, change: Callable[[Any], None]) -> Path:
    """Change the graph of a SavedModel; return its descriptor."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(proto.meta_graphs[0])
    path.write_bytes(proto.SerializeToString())
    return describe(folder, "saved_model", output=SERVING)


def save(folder: Path, operation: Callable[[Any], Any], **members: Any) -> Path:
    """Write a SavedModel whose embedding an operation computes of waveforms, (batch, N_SAMPLES)."""
    import tensorflow as tf

    module = tf.Module()
    for name, member in members.items():
        setattr(module, name, member)
    spec = tf.TensorSpec([None, N_SAMPLES], tf.float32, name="waveform")
    module.embed = tf.function(lambda waveform: {"embedding": operation(waveform)}, input_signature=[spec])
    tf.saved_model.save(module, str(folder), {"serving_default": module.embed})
    return folder


@pytest.mark.parametrize("reference", ["bare_concrete_function", "function", "captured_tensor", "gradient"])
def test_a_saver_that_the_program_calls_is_refused(reference: str, tmp_path: Path) -> None:
    """The initializer of a table is a function that writes a file, which the graph calls as its saver."""
    import tensorflow as tf

    marker = tmp_path / "written"

    @tf.function(input_signature=[])
    def evil() -> None:
        tf.raw_ops.SaveV2(prefix=str(marker), tensor_names=["x"], shape_and_slices=[""], tensors=[tf.constant("x")])

    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [3]), 0)
    folder = save(tmp_path / "network", lambda waveform: tf.abs(waveform[:, :4]), table=table, evil=evil)

    def hide(graph: Any) -> None:
        library, program = graph.graph_def.library, graph.object_graph_def
        functions = {function.signature.name: function for function in library.function}
        name, save = (next(key for key in functions if part in key) for part in ("_evil_", "_traced_save_"))
        library.function.remove(functions[save])
        for node in graph.graph_def.node:
            if node.attr["f"].func.name == save:
                node.attr["f"].func.name = name
        del program.concrete_functions[name]
        for node in program.nodes:
            if name in (node.bare_concrete_function.concrete_function_name, *node.function.concrete_functions):
                node.user_object.identifier = "_generic_user_object"
                node.ClearField("children")
        children = [child for node in program.nodes for child in node.children if child.local_name == "_initialize"]
        node = program.nodes[children[0].node_id]
        node.ClearField("children")
        if reference == "gradient":
            library.registered_gradients.add(gradient_func=name, registered_op_type="CustomGradient-1")
        elif reference == "function":
            node.function.concrete_functions[:] = [name]
        elif reference == "captured_tensor":
            node.captured_tensor.concrete_function = name
        else:
            node.bare_concrete_function.concrete_function_name = name

    assert "1 operator refused: SaveV2; save the network without it" in refusal(edit_graph(folder, hide))
    assert not list(tmp_path.glob("written*"))


def test_a_constant_of_another_file_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")

    def read(waveform: Any) -> Any:
        content = tf.raw_ops.ImmutableConst(dtype=tf.uint8, shape=[6], memory_region_name=str(secret))
        return waveform[:, :6] + tf.cast(content, tf.float32)

    assert "ImmutableConst" in refusal(describe(save(tmp_path / "n", read), "saved_model", output=SERVING))


def test_other_operators_with_effects_are_refused(tmp_path: Path) -> None:
    folder = tiny(tmp_path, "saved_model")
    for name in ("Abort", "Copy", "CopyHost", "MlirPassthroughOp", "PrintV2", "SaveV2", "RestoreV2", "DecodeProtoV2"):

        def rename(graph: Any, name: str = name) -> None:
            nodes = [node for function in graph.graph_def.library.function for node in function.node_def]
            next(node for node in nodes if node.name == "Abs").op = name

        assert f"1 operator refused: {name}; save the network without it" in refusal(edit_graph(folder, rename))


def test_only_what_was_checked_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what has been put into the folder since, nor the functions that save and restore."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    folder, graphs, load = tiny(tmp_path, "saved_model"), [], tf.saved_model.load

    def watched(path: str) -> Any:
        graphs.append(saved_model_pb2.SavedModel.FromString(Path(path, "saved_model.pb").read_bytes()).meta_graphs[0])
        return load(path)

    monkeypatch.setattr(tf.saved_model, "load", watched)
    file, backbone = read_model("saved_model", "network", folder), read_backbone(tmp_path)
    (folder / "saved_model.pb").write_bytes(b"something else")
    np.testing.assert_allclose(open_network(file, backbone).call(WINDOWS)[:, :SIZE], REFERENCE, rtol=1e-4, atol=1e-6)
    functions = graphs[0].graph_def.library.function
    operators = {node.op for function in functions for node in function.node_def}
    assert "Abs" in operators
    assert not operators & {"SaveV2", "RestoreV2", "MergeV2Checkpoints"}
    assert {node.op for node in graphs[0].graph_def.node} == {"Const"}


def test_ordinary_saved_models_load(tmp_path: Path) -> None:
    """With tables, gradients of their own, and branches; and one that Keras exported."""
    import tensorflow as tf

    keras = import_keras()

    @tf.custom_gradient
    def twice(x: Any) -> Any:
        return 2 * x, lambda gradient: 2 * gradient

    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([0, 1], [0.0, 1.0]), 0.0)
    changing = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)

    def embed(waveform: Any) -> Any:
        factor = table.lookup(tf.constant(1)) + changing.lookup(tf.constant(5, tf.int64))
        return tf.cond(tf.reduce_max(waveform) > 9, lambda: waveform, lambda: twice(waveform) * factor)[:, :4]

    folder = save(tmp_path / "network", embed, table=table, changing=changing)
    runtime = open_backbone(read_backbone(describe(folder, "saved_model", output=SERVING)))
    np.testing.assert_allclose(runtime.embed(WINDOWS), 2 * WINDOWS[:, :4], rtol=1e-6)
    model = keras.saving.load_model(tiny(tmp_path / "keras", "keras"))
    model.export(tmp_path / "exported" / "network", verbose=False)
    output = {"signature": "serving_default", "key": "output_0"}
    runtime = open_backbone(read_backbone(describe(tmp_path / "exported" / "network", "saved_model", output=output)))
    np.testing.assert_allclose(runtime.embed(WINDOWS), REFERENCE, rtol=1e-4, atol=1e-6)


def external(path: Path) -> Any:
    """A tensor of ONNX whose values are in another file."""
    import onnx

    tensor = onnx.TensorProto(name="v", data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(path))
    return tensor


def in_default(model: Any, tensor: Any) -> None:
    """In the default of an attribute of a function, which onnxruntime puts into the graph."""
    from onnx import helper

    constant = helper.make_node("Constant", [], ["k"])
    constant.attribute.add(name="value", type=4, ref_attr_name="val")
    default = helper.make_attribute("val", tensor)
    nodes = [constant, helper.make_node("Add", ["x", "k"], ["y"])]
    imports = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "AddOther", ["x"], ["y"], nodes, imports, attribute_protos=[default])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[2].CopyFrom(helper.make_node("AddOther", ["answers"], ["levels"], domain="own"))


def in_branch(model: Any, tensor: Any) -> None:
    from onnx import helper

    branch = helper.make_graph([helper.make_node("Identity", ["v"], ["b"])], "branch", [], [], [tensor])
    node = helper.make_node("If", ["condition"], ["unused"], then_branch=branch, else_branch=branch)
    model.graph.node.append(node)


def in_sparse(model: Any, tensor: Any) -> None:
    model.graph.sparse_initializer.add().indices.CopyFrom(tensor)


def in_training(model: Any, tensor: Any) -> None:
    model.training_info.add().algorithm.initializer.append(tensor)


@pytest.mark.parametrize("put", [in_default, in_branch, in_sparse, in_training])
def test_tensors_in_other_files_are_refused_wherever_they_are(put: Callable, tmp_path: Path) -> None:
    import onnx

    path = tiny(tmp_path, "onnx")
    model = onnx.load(path)
    put(model, external(tmp_path / "secret"))
    path.write_bytes(model.SerializeToString())
    words = f"its weights are in another file, '{tmp_path}/secret'; save them inside the file"
    assert words in refusal(describe(path, "onnx", output={"name": "embedding"}))


def test_an_operator_in_a_branch_of_a_function_is_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    path = tiny(tmp_path, "onnx")
    model = onnx.load(path)
    in_default(model, onnx.numpy_helper.from_array(np.zeros(1, np.float32)))
    branch = helper.make_graph([helper.make_node("EPContext", [], ["b"], domain="com.microsoft")], "branch", [], [])
    node = helper.make_node("If", ["x"], ["unused"], then_branch=branch, else_branch=branch)
    model.functions[0].node.append(node)
    path.write_bytes(model.SerializeToString())
    words = "1 operator refused: com.microsoft::EPContext; export the network without it"
    assert words in refusal(describe(path, "onnx", output={"name": "embedding"}))
    del model.functions[0].node[-1]
    model.graph.node[2].CopyFrom(helper.make_node("Abs", ["answers"], ["levels"]))
    path.write_bytes(model.SerializeToString())
    open_backbone(read_backbone(describe(path, "onnx", output={"name": "embedding"})))


def test_a_file_that_begins_like_onnxruntimes_own_format_is_read_as_onnx(tmp_path: Path) -> None:
    path = tiny(tmp_path, "onnx")
    producer = b"..ORTM"  # at byte 4 is what tells the formats apart
    path.write_bytes(b"\x12" + bytes([len(producer)]) + producer + path.read_bytes())
    runtime = open_backbone(read_backbone(describe(path, "onnx", output={"name": "embedding"})))
    np.testing.assert_allclose(runtime.embed(WINDOWS), REFERENCE, rtol=1e-4, atol=1e-6)


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture(scope="module")
def keras_members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The entries of a Keras archive."""
    return members(tiny(tmp_path_factory.mktemp("keras"), "keras"))


def archive(path: Path, entries: dict[str, bytes]) -> Path:
    """Write a Keras archive; return its descriptor."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return describe(path, "keras")


def test_a_compiled_keras_model_loads_without_its_optimizer_and_assets(tmp_path: Path) -> None:
    path = tiny(tmp_path, "keras")
    model = import_keras().saving.load_model(path)
    model.compile("adam", "mse", metrics=["mae"])
    model.save(path)
    assert b"Adam" in members(path)["config.json"]
    runtime = open_backbone(read_backbone(archive(path, members(path) | {"assets/a.txt": b"a"})))
    np.testing.assert_allclose(runtime.embed(WINDOWS), REFERENCE, rtol=1e-4, atol=1e-6)


RELU = {"class_name": "function", "config": "relu", "module": "builtins", "registered_name": "relu"}


def serialized(module: Any, name: Any, config: Any = None, registered: Any = None) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config or {}, "registered_name": registered}


@pytest.mark.parametrize(("entry", "words"), [
    (serialized("keras", "layers.Lambda", {"name": "absolute", "function": RELU}), "keras.layers.Lambda"),
    (serialized("keras", "layers.Hashing", {"name": "absolute", "num_bins": 3}), "keras.layers.Hashing"),
    (serialized("keras", "layers.StringLookup", {"vocabulary": "/etc/passwd"}), "keras.layers.StringLookup"),
    (serialized("keras.src.ops.numpy", "backend.numpy.Add"), "keras.src.ops.numpy.backend.numpy.Add"),
    (serialized("keras.layers", "deserialize"), "keras.layers.deserialize"),
    (serialized("keras.models", "clone_model"), "keras.models.clone_model"),
    (serialized("keras.layers", ["Dense"]), "keras.layers.['Dense']"),
    (serialized(["keras"], "Dense"), "['keras'].Dense"),
    (serialized("keras", "function", "utils.get_file", "get_file"), "keras.utils.get_file"),
    (serialized("keras.activations", "function", "get", "get"), "keras.activations.get"),
    (serialized("keras.layers", "function", "deserialize", "deserialize"), "keras.layers.deserialize"),
    (serialized("keras.models", "function", "model_from_json", "model_from_json"), "keras.models.model_from_json"),
    (serialized("builtins", "function", "eval", "eval"), "builtins.eval"),
])  # fmt: skip
def test_what_keras_would_make_of_a_name_is_refused(
    entry: dict, words: str, keras_members: dict, tmp_path: Path
) -> None:
    config = json.loads(keras_members["config.json"])
    layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Absolute")
    layer |= entry
    message = refusal(archive(tmp_path / "n.keras", keras_members | {"config.json": json.dumps(config).encode()}))
    assert f"1 operator refused: {words};" in message


def linked_weights(folder: Path) -> Iterator[tuple[str, Callable[[Any], object]]]:
    """Ways in which an HDF5 file refers to other files, by the name that an error has."""
    import h5py

    other = folder / "other.h5"
    layout = h5py.VirtualLayout((FRAME, 1, SIZE), "float32")
    layout[:] = h5py.VirtualSource(str(other), "data", (FRAME, 1, SIZE))
    yield "group", lambda file: file.__setitem__("layers/group", h5py.ExternalLink(str(other), "/data"))
    yield "soft", lambda file: file.__setitem__("soft", h5py.SoftLink("/layers"))
    yield "raw", lambda file: file.create_dataset("layers/raw", (4,), "u1", external=[(str(other), 0, 4)])
    yield "virtual", lambda file: file.create_virtual_dataset("layers/virtual", layout)


def test_keras_weights_in_other_files_are_refused(keras_members: dict, tmp_path: Path) -> None:
    import h5py

    for name, put in linked_weights(tmp_path):
        weights = io.BytesIO(keras_members["model.weights.h5"])
        with h5py.File(weights, "r+") as file:
            file["layers/again"] = file["layers"]  # a circle of links is no fault
            put(file)
        descriptor = archive(tmp_path / "n.keras", keras_members | {"model.weights.h5": weights.getvalue()})
        assert f"its weights are elsewhere, '{name}' is a link; save the whole model again" in refusal(descriptor)


def test_files_that_tensorflow_lite_would_look_for_are_refused(tmp_path: Path) -> None:
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    path = tiny(tmp_path, "tflite")
    whole = path.read_bytes()

    def change(change: Callable[[Any], object]) -> str:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(whole))
        change(model)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return refusal(describe(path, "tflite"))

    group = schema.ExternalBufferGroupT(name="/etc/passwd")
    words = "its weights are in another file, '/etc/passwd'; convert the network into one file"
    assert words in change(lambda model: setattr(model, "externalBufferGroups", [group]))
    assert "DELEGATE" in change(lambda model: setattr(model.operatorCodes[0], "builtinCode", 51))
