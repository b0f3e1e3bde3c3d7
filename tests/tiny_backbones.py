"""Tiny networks of each format that turn a waveform into an embedding, with their descriptors.

All compute the same: windows are cut into frames of `FRAME` samples, each frame is multiplied with `SIZE` fixed filters
(cosines of different frequencies), and the embedding is the mean absolute value over frames of each filter. A tone is
told from another by the filters that answer. `reference_embedding` is the same in NumPy.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from fsat.backbones.descriptor import DESCRIPTOR, Backbone, Input, Output, content_sha256, read_backbone, write_backbone

RATE, WINDOW = 8000, 0.4
FRAME, SIZE, N_CLASSES = 64, 8, 3
N_SAMPLES = round(RATE * WINDOW)

FREQUENCIES = np.geomspace(200, 3600, SIZE)
FILTERS = np.cos(2 * np.pi * np.arange(FRAME)[:, None] * FREQUENCIES / RATE).astype(np.float32) / FRAME
CLASSIFIER = np.random.default_rng(0).standard_normal((SIZE, N_CLASSES)).astype(np.float32)


def reference_embedding(window: np.ndarray, peak: float | None = None) -> np.ndarray:
    """The embedding of a window, float32 (n_samples,) -> float64 (SIZE,)."""
    window = window.astype(np.float64)
    if peak is not None:
        window = window - window.mean()
        window = window * (peak / (np.abs(window).max() or 1))
    frames = window[: len(window) // FRAME * FRAME].reshape(-1, FRAME)
    return np.abs(frames @ FILTERS.astype(np.float64)).mean(axis=0)


KINDS = {
    "tflite": ("tflite", {"output": Output(index=0)}),
    "tflite_rank1_free": ("tflite", {"output": Output(index=0), "input": Input(rank=1), "window": None}),
    "tflite_fixed_batch": ("tflite", {"output": Output(index=0)}),
    "tflite_tensor": ("tflite", {"output": Output(tensor=0)}),
    "tflite_signature": ("tflite", {"output": Output(signature="embed", key="embedding")}),
    "onnx": ("onnx", {"output": Output(name="embedding"), "input": Input("waveform", 2, 0.25)}),
    "onnx_rank1_free": ("onnx", {"output": Output(index=0), "input": Input("waveform", 1), "window": None}),
    "onnx_frames": ("onnx", {"output": Output(name="frames")}),
    "saved_model": ("saved_model", {"output": Output(signature="serving_default", key="embedding")}),
    "saved_model_rank1_free": (
        "saved_model",
        {"output": Output(signature="embed", key="embedding"), "input": Input(rank=1), "window": None},
    ),
    "keras": ("keras", {"output": Output(index=0)}),
    "keras_layer": ("keras", {"output": Output(name="embedding"), "window": None}),
}
"""Format of each kind, and the fields of its descriptor that are not the defaults."""


def tiny_backbone(folder: Path, kind: str) -> Path:
    """Write a network of one of `KINDS` and its descriptor to a folder, which is made; return the descriptor's path.

    Windows have `WINDOW` seconds at `RATE` Hz, or any length. A kind is built once per process.
    """
    shutil.copytree(_built(kind), folder, dirs_exist_ok=True)
    return folder / DESCRIPTOR


@functools.cache
def _built(kind: str) -> Path:
    from fsat.models import import_keras, quiet_stderr

    import_keras()
    format, fields = KINDS[kind]
    folder = Path(_folder().name, kind)
    folder.mkdir()
    path = folder / ("network" if format == "saved_model" else f"network.{format}")
    with quiet_stderr():
        tensor = BUILDERS[format](path, kind)
    facts = {"window": WINDOW, "license": "CC0", "source": "tests/tiny_backbones.py", "size": SIZE} | fields
    backbone = Backbone(path, format, RATE, sha256=content_sha256(path), name=kind, **facts)
    if kind == "tflite_tensor":
        backbone = replace(backbone, output=Output(tensor=tensor))
    write_backbone(backbone, folder / DESCRIPTOR)
    return read_backbone(folder).path.parent


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="fsat-tiny-")


def _function(kind: str):
    """The network as a TensorFlow function of one waveform or a batch."""
    import tensorflow as tf

    rank1 = "rank1" in kind
    n_samples = None if "free" in kind else N_SAMPLES
    batch = 1 if "fixed_batch" in kind else None
    spec = tf.TensorSpec([n_samples] if rank1 else [batch, n_samples], tf.float32, name="waveform")

    def embed(waveform):
        samples = waveform[tf.newaxis] if rank1 else waveform
        n_frames = tf.shape(samples)[1] // FRAME
        frames = tf.reshape(samples[:, : n_frames * FRAME], [tf.shape(samples)[0], n_frames, FRAME])
        embedding = tf.reduce_mean(tf.abs(frames @ tf.constant(FILTERS)), axis=1)
        return embedding[0] if rank1 else embedding

    return embed, spec


def _build_tflite(path: Path, kind: str) -> int:
    import tensorflow as tf

    embed, spec = _function(kind)

    class Network(tf.Module):
        @tf.function(input_signature=[spec])
        def embed(self, waveform):
            return {"embedding": embed(waveform)}

        @tf.function(input_signature=[spec])
        def classify(self, waveform):
            return {"scores": tf.nn.softmax(embed(waveform) @ tf.constant(CLASSIFIER))}

    module = Network()
    if kind == "tflite_signature":
        saved = path.with_suffix(".saved")
        tf.saved_model.save(module, str(saved), {"classify": module.classify, "embed": module.embed})
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=["classify", "embed"])
        path.write_bytes(converter.convert())
        shutil.rmtree(saved)
        return 0
    function = module.classify if kind == "tflite_tensor" else module.embed
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    path.write_bytes(converter.convert())
    if kind != "tflite_tensor":
        return 0
    interpreter = tf.lite.Interpreter(str(path))
    dense = [op for op in interpreter._get_ops_details() if op["op_name"] == "FULLY_CONNECTED"][-1]
    return int(dense["inputs"][0])


def _build_keras(path: Path, kind: str) -> None:
    from fsat.models import import_keras

    keras = import_keras()
    n_samples = None if kind == "keras_layer" else N_SAMPLES
    waveform = keras.Input((n_samples,), name="waveform")
    frames = keras.layers.Reshape((-1, 1))(waveform)
    filters = keras.layers.Conv1D(SIZE, FRAME, strides=FRAME, use_bias=False, name="filters")
    answers = keras.ops.abs(filters(frames))
    embedding = keras.layers.GlobalAveragePooling1D(name="embedding")(answers)
    classifier = keras.layers.Dense(N_CLASSES, activation="softmax", use_bias=False, name="scores")
    scores = classifier(embedding)
    model = keras.Model(waveform, scores if kind == "keras_layer" else embedding)
    filters.set_weights([FILTERS[:, None, :]])
    classifier.set_weights([CLASSIFIER])
    model.save(path)


def _build_saved_model(path: Path, kind: str) -> None:
    import tensorflow as tf

    embed, spec = _function(kind)

    class Network(tf.Module):
        def __init__(self):
            self.gain = tf.Variable(1.0)

        @tf.function(input_signature=[spec])
        def embed(self, waveform):
            return {"embedding": self.gain * embed(waveform), "level": tf.reduce_max(tf.abs(waveform), axis=-1)}

    module = Network()
    key = "embed" if kind == "saved_model_rank1_free" else "serving_default"
    tf.saved_model.save(module, str(path), {key: module.embed})


def _build_onnx(path: Path, kind: str) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rank1 = "rank1" in kind
    n_samples = "n_samples" if "free" in kind else N_SAMPLES
    shape = [n_samples] if rank1 else ["batch", n_samples]
    constants = {
        "filters": FILTERS.T[:, None, :].copy(),
        "with_channel": np.array([1, 1, -1] if rank1 else [0, 1, -1], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["waveform", "with_channel"], ["channel"]),
        helper.make_node("Conv", ["channel", "filters"], ["answers"], strides=[FRAME]),
        helper.make_node("Abs", ["answers"], ["levels"]),
        helper.make_node("Transpose", ["levels"], ["frames"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["frames"], ["embedding"], axes=[1], keepdims=0),
    ]
    outputs = [
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1 if rank1 else "batch", SIZE]),
        helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1 if rank1 else "batch", "n_frames", SIZE]),
    ]
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, shape)], outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


BUILDERS = {"tflite": _build_tflite, "onnx": _build_onnx, "saved_model": _build_saved_model, "keras": _build_keras}
