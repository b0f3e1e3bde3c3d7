"""Files that hold a whole tagger for other programs: ONNX, TensorFlow Lite and Keras, written and opened again.

Conventions: the model has one input, ``waveform``, float32 (n_samples,), and one output, ``scores``, float32
(n_classes,). What a program must know besides, its facts, are a dictionary of JSON values, kept in the file by
the name of `FACTS`: in ONNX among the metadata, with ``labels`` and ``sampling_rate`` on their own too; in Keras's ZIP
archive; in a ZIP archive at the end of TFLite's file, where its own metadata would be. The archives also have a
``labels.txt``.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fsat.errors import FsatError
from fsat.models import import_keras, quiet_stderr

INPUT, OUTPUT = "waveform", "scores"
FACTS = "fsat.json"

OPSET = 17
"""Of ONNX: onnxruntime has it since 1.13 (2022)."""

EXTRA = ("onnx", "onnxruntime", "tf2onnx")
"""Packages that ONNX needs; the others need nothing beside what fsat does."""

Scorer = Callable[[np.ndarray], np.ndarray]
"""Takes a waveform, float32 (n_samples,), and gives its scores, float32 (n_classes,)."""


def check_packages(format: str) -> None:
    """Raise `FsatError` where a package is missing that the format needs."""
    missing = [name for name in EXTRA if format == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise FsatError(f"format=onnx: {', '.join(missing)} not installed; `pip install '.[export]'` in the clone")


def write_model(model: Any, path: Path, format: str, facts: Mapping[str, Any]) -> None:
    """Write a model that `fsat.export.ensemble_model.whole_tagger` has made.

    Args:
        model: the Keras model.
        path: of the file; for Keras it must end in ``.keras``.
        format: one of `fsat.presets.EXPORT_FORMATS`.
        facts: have among them ``labels``, a list of texts, and ``sampling_rate``.
    """
    {"onnx": _write_onnx, "tflite": _write_tflite, "keras": _write_keras}[format](model, path, facts)


def open_model(path: Path, format: str, threads: int | None = None) -> tuple[Scorer, dict[str, Any]]:
    """Open such a file with the library that its users will take, without anything of fsat's.

    Args:
        path: the file.
        format: one of `fsat.presets.EXPORT_FORMATS`.
        threads: for ONNX and TFLite, of one operation; by default as many as there are cores.

    Returns:
        what scores a waveform, and the facts.
    """
    threads = threads or os.cpu_count() or 1
    return {"onnx": _open_onnx, "tflite": _open_tflite, "keras": _open_keras}[format](path, threads)


def _write_onnx(model: Any, path: Path, facts: Mapping[str, Any]) -> None:
    import onnx
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function, signature = _function(model)
    with quiet_stderr():
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    proto.producer_name, proto.producer_version = "fsat", str(facts.get("fsat", ""))
    proto.graph.doc_string = ""  # names of files on this machine
    shown = {name: json.dumps(facts[name]) for name in ("labels", "sampling_rate")}
    onnx.helper.set_model_props(proto, {**shown, FACTS: json.dumps(facts)})
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _write_tflite(model: Any, path: Path, facts: Mapping[str, Any]) -> None:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function, signature = _function(model)
    with quiet_stderr():
        frozen = convert_variables_to_constants_v2(function.get_concrete_function())
        named = tf.function(lambda waveform: {OUTPUT: frozen(waveform)[0]}, input_signature=signature)
        concrete = named.get_concrete_function()
        path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module()).convert())
    _append(path, facts)


def _write_keras(model: Any, path: Path, facts: Mapping[str, Any]) -> None:
    model.save(path, overwrite=True)
    _append(path, facts)


def _function(model: Any) -> tuple[Any, list[Any]]:
    """The model as a function of TensorFlow's, and its signature."""
    import tensorflow as tf

    signature = [tf.TensorSpec([None], tf.float32, name=INPUT)]
    return tf.function(lambda waveform: {OUTPUT: model(waveform, training=False)}, input_signature=signature), signature


def _append(path: Path, facts: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(FACTS, json.dumps(facts, indent=2) + "\n")
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in facts["labels"]))


def _appended(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(FACTS))


def _open_onnx(path: Path, threads: int) -> tuple[Scorer, dict[str, Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map[FACTS])
    return lambda waveform: session.run([OUTPUT], {INPUT: waveform})[0], facts


def _open_tflite(path: Path, threads: int) -> tuple[Scorer, dict[str, Any]]:
    import tensorflow as tf

    with warnings.catch_warnings(), quiet_stderr():
        warnings.simplefilter("ignore", UserWarning)  # of the library that will take its place
        score = tf.lite.Interpreter(str(path), num_threads=threads).get_signature_runner()
        score(**{INPUT: np.zeros(1, np.float32)})  # says which delegate it takes
    return lambda waveform: score(**{INPUT: waveform})[OUTPUT], _appended(path)


def _open_keras(path: Path, threads: int) -> tuple[Scorer, dict[str, Any]]:
    import tensorflow as tf

    keras = import_keras()
    model = keras.saving.load_model(path, compile=False)
    score = tf.function(
        lambda waveform: model(waveform, training=False), input_signature=[tf.TensorSpec([None], tf.float32)]
    )
    return lambda waveform: score(waveform).numpy(), _appended(path)
