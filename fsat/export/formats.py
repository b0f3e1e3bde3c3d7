"""Write and open taggers as ONNX, TensorFlow Lite and Keras files.

Conventions: the model has one input, ``waveform``, float32 (n_samples,), and one output, ``scores``, float32
(n_classes,). Its facts (labels, sampling rate, ...) are JSON values stored in the file as `FACTS`: in ONNX's metadata,
where ``labels`` and ``sampling_rate`` are entries too; in Keras's ZIP archive; and in one at the end of a TensorFlow
Lite file, as its own metadata would be. The archives also contain ``labels.txt``.
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

OPSET, EXTRA = 17, ("onnx", "onnxruntime", "tf2onnx")
"""ONNX operator set, supported by onnxruntime since 1.13 (2022); and packages that ONNX needs."""

Scorer = Callable[[np.ndarray], np.ndarray]
"""Maps a waveform, float32 (n_samples,), to scores, float32 (n_classes,)."""


def check_packages(format: str) -> None:
    """Raise `FsatError` if a package that the format needs is missing."""
    missing = [name for name in EXTRA if format == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise FsatError(f"format=onnx: {', '.join(missing)} not installed; `pip install '.[export]'` in the clone")


def write_model(model: Any, path: Path, format: str, facts: Mapping[str, Any]) -> None:
    """Write a model of `fsat.export.ensemble_model` in one of `fsat.presets.EXPORT_FORMATS`.

    A Keras file's name must end in ``.keras``; `facts` contain ``labels``, a list of strings, and ``sampling_rate``.
    """
    if format == "onnx":
        _write_onnx(model, path, facts)
        return
    if format == "tflite":
        _write_tflite(model, path)
    else:
        model.save(path, overwrite=True)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(FACTS, json.dumps(facts, indent=2) + "\n")
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in facts["labels"]))


def _write_onnx(model: Any, path: Path, facts: Mapping[str, Any]) -> None:
    import onnx
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function, signature = _function(model)
    with quiet_stderr():
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    proto.producer_name, proto.producer_version = "fsat", str(facts.get("fsat", ""))
    proto.graph.doc_string = ""  # it contains names of local files
    entries = {name: json.dumps(facts[name]) for name in ("labels", "sampling_rate")}
    onnx.helper.set_model_props(proto, entries | {FACTS: json.dumps(facts)})
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _write_tflite(model: Any, path: Path) -> None:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function, signature = _function(model)
    with quiet_stderr():
        frozen = convert_variables_to_constants_v2(function.get_concrete_function())
        named = tf.function(lambda waveform: {OUTPUT: frozen(waveform)[0]}, input_signature=signature)
        concrete = named.get_concrete_function()
        path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module()).convert())


def _function(model: Any) -> tuple[Any, list[Any]]:
    """Return the model as a TensorFlow function, and its signature."""
    import tensorflow as tf

    signature = [tf.TensorSpec([None], tf.float32, name=INPUT)]
    return tf.function(lambda waveform: {OUTPUT: model(waveform, training=False)}, input_signature=signature), signature


def open_model(path: Path, format: str, threads: int | None = None) -> tuple[Scorer, dict[str, Any]]:
    """Open an exported model with its format's own library; return a function that scores a waveform, and the facts.

    `threads` is the number of threads of one operation for ONNX and TensorFlow Lite, by default the number of cores.
    """
    threads = threads or os.cpu_count() or 1
    if format == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        facts = json.loads(session.get_modelmeta().custom_metadata_map[FACTS])
        return lambda waveform: session.run([OUTPUT], {INPUT: waveform})[0], facts
    score = _open_tflite(path, threads) if format == "tflite" else _open_keras(path)
    with zipfile.ZipFile(path) as archive:
        return score, json.loads(archive.read(FACTS))


def _open_tflite(path: Path, threads: int) -> Scorer:
    import tensorflow as tf

    with warnings.catch_warnings(), quiet_stderr():
        warnings.simplefilter("ignore", UserWarning)  # that tf.lite is deprecated
        score = tf.lite.Interpreter(str(path), num_threads=threads).get_signature_runner()
        score(**{INPUT: np.zeros(1, np.float32)})  # the first call prints the delegate's name
    return lambda waveform: score(**{INPUT: waveform})[OUTPUT]


def _open_keras(path: Path) -> Scorer:
    import tensorflow as tf

    model = import_keras().saving.load_model(path, compile=False)
    signature = [tf.TensorSpec([None], tf.float32)]
    score = tf.function(lambda waveform: model(waveform, training=False), input_signature=signature)
    return lambda waveform: score(waveform).numpy()
