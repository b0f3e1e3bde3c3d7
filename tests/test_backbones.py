"""Pretrained networks of each format give the embeddings of a NumPy reference; wrong and hostile files are one line."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import resource
import signal
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_files import flip
from tiny_backbones import KINDS, N_SAMPLES, RATE, SIZE, reference_embedding, tiny_backbone

from fsat.backbones import probe
from fsat.backbones.descriptor import content_sha256, copy_backbone, read_backbone
from fsat.backbones.library import keep, kept
from fsat.backbones.network import read_file
from fsat.backbones.runtime import open_backbone
from fsat.errors import ConfigError, FsatError, RunError

pytestmark = pytest.mark.slow


def windows_of(kind: str) -> np.ndarray:
    n_samples = 1000 if KINDS[kind][1].get("window", 0.4) is None else N_SAMPLES
    return np.random.default_rng(3).uniform(-0.5, 0.5, (7, n_samples)).astype(np.float32)


def change(descriptor: Path, **changes: Any) -> Path:
    """Change entries of a descriptor; None removes one."""
    facts = json.loads(descriptor.read_text()) | changes
    descriptor.write_text(
        json.dumps({key: value for key, value in facts.items() if key not in changes or value != "-"})
    )
    return descriptor


def describe(path: Path, format: str, **facts: Any) -> Path:
    """Write the descriptor of a file, with a window of 0.4 s and the first output unless given."""
    common = {"window": 0.4, "output": {"index": 0}, "sha256": content_sha256(path)}
    descriptor = path.parent / "backbone.json"
    descriptor.write_text(json.dumps({"file": path.name, "format": format, "sampling_rate": RATE, **common, **facts}))
    return descriptor


def refusal(descriptor: Path, check: Callable[[Any], object] = open_backbone) -> str:
    with pytest.raises(FsatError) as error:
        check(read_backbone(descriptor))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_the_reference(kind: str, tmp_path: Path) -> None:
    runtime, windows = open_backbone(read_backbone(tiny_backbone(tmp_path / kind, kind))), windows_of(kind)
    expected = np.stack([reference_embedding(window, runtime.backbone.input.peak) for window in windows])
    embeddings = runtime.embed(windows)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(runtime.embed(windows[2:3])[0], embeddings[2])  # whatever else is in the call
    with ThreadPoolExecutor(4) as pool:
        for received in pool.map(runtime.embed, [windows] * 4):
            np.testing.assert_array_equal(received, embeddings)
    assert probe.check(runtime) == SIZE


def test_a_copy_is_the_same_backbone(tmp_path: Path, cache_folder: Path) -> None:
    for kind in ("tflite", "saved_model"):
        backbone = read_backbone(tiny_backbone(tmp_path / kind, kind))
        copy = copy_backbone(backbone, tmp_path / f"copy of {kind}")
        assert (copy.ref, copy.license) == (backbone.ref, backbone.license)
        assert read_backbone(tmp_path / f"copy of {kind}").ref == f"{kind}@{backbone.digest}"
        assert keep(backbone).path != backbone.path
        assert kept(backbone.digest).ref == backbone.ref
        (path,) = [path for path in [keep(backbone).path] if path.is_file()] or [keep(backbone).path / "saved_model.pb"]
        path.write_bytes(path.read_bytes() + b"x")
        assert "its SHA-256 is " in refusal(path.parent if kind == "tflite" else path.parent.parent)


@pytest.mark.parametrize(("changes", "words"), [
    ({"sampling_rate": "8k"}, 'sampling_rate is "8k"; expected a whole number of Hz'),
    ({"window": 0.5}, "the input is "),
    ({"window": None}, "a window of null, which is any length; set window to 0.4"),
    ({"input": {"rank": 3}}, "rank is 3; expected 1 for (samples,) or 2 for (batch, samples)"),
    ({"input": {"rank": 1}}, "but the descriptor has rank 1; expected rank 2"),
    ({"input": {"name": "audio"}}, "has no input audio; it has "),
    ({"output": {"name": "scores"}}, "has no output scores; it has "),
    ({"output": {"index": 4}}, "has no output 4; it has "),
    ({"output": {"signature": "a", "key": "b"}}, "has no signature a; it has "),
    ({"output": {"tensor": 9999}}, "has no tensor 9999 that can be an output"),
    ({"output": {}}, "output is {}; expected one of "),
    ({"format": "torch"}, 'format is "torch"; expected one of tflite, onnx, saved_model, keras'),
    ({"file": "elsewhere.tflite"}, "but there is no "),
    ({"sha256": 64 * "0"}, "its SHA-256 is "),
    ({"size": 9}, "an embedding of 3200 samples has 8 values, expected 9"),
    ({"speed": 1}, "unknown key speed; expected name, file, "),
    ({"license": "two\nlines"}, "expected a text of one line"),
])  # fmt: skip
def test_a_wrong_descriptor_is_one_line(changes: dict, words: str, tmp_path: Path) -> None:
    assert words in refusal(change(tiny_backbone(tmp_path, "tflite"), **changes))


def test_what_is_no_descriptor_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("no JSON")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "twice.json").write_text('{"window": 1, "input": {"rank": 1, "rank": 2}}')
    faults = {
        "": "no backbone.json",
        "text.json": "is not JSON",
        "list.json": "expected a JSON object; `python -m fsat backbone inspect FILE`",
        "twice.json": "rank is given twice",
        300 * "a": "cannot be read: File name too long",
        "missing.json": "no such file",
    }
    for name, words in faults.items():
        assert words in refusal(tmp_path / name)
    for path, words in {"none": "expected the descriptor", "~no-such-user/backbone.json": "no such file"}.items():
        with pytest.raises(ConfigError, match=f"backbone={path}: {words}"):
            read_backbone(path)


def test_what_has_no_end_is_refused(tmp_path: Path) -> None:
    folder = read_backbone(tiny_backbone(tmp_path / "saved_model", "saved_model")).path
    for pipe in (tmp_path / "pipe.onnx", folder / "pipe"):
        os.mkfifo(pipe)
        with pytest.raises(ConfigError, match=r"pipe.*: is no regular file"):
            read_file(pipe) if pipe.suffix else content_sha256(folder)


@pytest.mark.parametrize("format", ["tflite", "onnx", "keras"])
@pytest.mark.parametrize(
    "content", [b"", b"some text, and no network at all", pickle.dumps({"a": 1}), b"\x89HDF\r\n\x1a\n"]
)
def test_a_file_that_is_no_network_is_one_line(format: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"network.{format}"
    path.write_bytes(content)
    assert str(path) in refusal(describe(path, format))


@pytest.mark.parametrize("kind", ["tflite", "onnx", "keras"])
def test_a_truncated_network_is_one_line(kind: str, tmp_path: Path) -> None:
    path = read_backbone(tiny_backbone(tmp_path, kind)).path
    whole = path.read_bytes()
    for n_bytes in (40, len(whole) // 2, len(whole) - 7):
        path.write_bytes(whole[:n_bytes])
        refusal(describe(path, kind))


def keras_file(path: Path, marker: Path) -> None:
    """A Lambda layer that writes a file when its code runs."""
    import keras

    inputs = keras.Input((N_SAMPLES,))
    write = keras.layers.Lambda(lambda x, touch=marker.touch: (touch(), x)[1], output_shape=(N_SAMPLES,))
    keras.Model(inputs, write(inputs)).save(path)
    marker.unlink(missing_ok=True)


def test_code_in_a_keras_file_never_runs(tmp_path: Path) -> None:
    marker, path = tmp_path / "it ran", tmp_path / "network.keras"
    keras_file(path, marker)
    assert "Lambda" in refusal(describe(path, "keras"))
    tiny = read_backbone(tiny_backbone(tmp_path / "tiny", "keras")).path
    with zipfile.ZipFile(tiny) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"][0] |= {"module": "os", "class_name": "system", "registered_name": None}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, json.dumps(config) if name == "config.json" else content)
    assert "os.system" in refusal(describe(path, "keras"))
    assert not marker.exists()


def embedding_by(operation: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda waveform: {"embedding": operation(waveform)[:, :4]}


def test_a_saved_model_with_python_or_files_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    marker = tmp_path / "it ran"
    operations = {
        "EagerPyFunc": lambda x: tf.py_function(lambda y: (marker.write_text("x"), y)[1], [x], tf.float32),
        "WriteFile": lambda x: (tf.io.write_file(str(marker), "x"), x)[1],
        "ReadFile": lambda x: x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32),
    }
    for name, operation in operations.items():
        module, spec = tf.Module(), tf.TensorSpec([None, N_SAMPLES], tf.float32, name="waveform")
        module.f = tf.function(embedding_by(operation), input_signature=[spec])
        tf.saved_model.save(module, str(tmp_path / name / "network"), {"serving_default": module.f})
        output = {"signature": "serving_default", "key": "embedding"}
        assert name in refusal(describe(tmp_path / name / "network", "saved_model", output=output))
    assert not marker.exists()


def test_operators_and_files_of_others_are_refused(tmp_path: Path) -> None:
    import onnx

    descriptor = tiny_backbone(tmp_path / "custom", "onnx")
    path = read_backbone(descriptor).path
    model = onnx.load(path)
    model.graph.node[2].domain = "com.someone"
    path.write_bytes(model.SerializeToString())
    assert "com.someone::Abs" in refusal(change(descriptor, sha256=content_sha256(path)))
    path = read_backbone(tiny_backbone(tmp_path / "external", "onnx")).path
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")
    path.write_bytes(model.SerializeToString())
    assert "another file, '../../secret'" in refusal(describe(path, "onnx", output={"name": "embedding"}))


def test_custom_operators_of_tensorflow_lite_are_refused(tmp_path: Path) -> None:
    from tensorflow.lite.python import schema_py_generated as schema

    path = read_backbone(tiny_backbone(tmp_path, "tflite")).path
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    code = model.operatorCodes[0]
    code.builtinCode, code.customCode = schema.BuiltinOperator.CUSTOM, b"FlexEvil"
    code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    assert "FlexEvil" in refusal(describe(path, "tflite"))


def onnx_network(path: Path, nodes: list, constants: dict[str, np.ndarray]) -> Path:
    """Write a network with the input waveform (batch, samples) and the output embedding; return its descriptor."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shapes = (("waveform", ["batch", N_SAMPLES]), ("embedding", None))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return describe(path, "onnx", output={"name": "embedding"})


def test_networks_that_give_nothing_are_refused_by_the_probe(tmp_path: Path) -> None:
    from onnx import helper

    node = helper.make_node
    networks = {
        "answers the same": ([node("Mul", ["waveform", "zero"], ["embedding"])], {"zero": np.zeros(1, np.float32)}),
        "NaN or infinite": ([node("Log", ["waveform"], ["embedding"])], {}),
        "depends on the other windows": (
            [node("ReduceMean", ["waveform"], ["mean"], axes=[0]), node("Sub", ["waveform", "half"], ["less"]),
             node("Add", ["less", "mean"], ["embedding"])], {"half": np.full(1, 0.5, np.float32)},
        ),
    }  # fmt: skip
    for i, (words, (nodes, constants)) in enumerate(networks.items()):
        descriptor = onnx_network(tmp_path / f"{i}.onnx", nodes, constants)
        assert words in refusal(descriptor, probe.check_backbone)


def test_a_network_that_needs_too_much_memory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    """It wants 8 GB, in a process of its own; what is small passes under the same limit and is remembered."""
    from onnx import helper

    monkeypatch.setenv("FSAT_BACKBONE_GB", "1")
    nodes = [
        helper.make_node("Tile", ["waveform", "times"], ["huge"]),
        helper.make_node("ReduceSum", ["huge", "axis"], ["embedding"]),
    ]
    times = {"times": np.array([8_000_000_000 // (4 * N_SAMPLES), 1], np.int64), "axis": np.zeros(1, np.int64)}
    backbone = read_backbone(onnx_network(tmp_path / "huge.onnx", nodes, times))
    with pytest.raises((ConfigError, RunError)) as error:
        probe.checked_size(backbone)
    assert "\n" not in str(error.value)
    small = read_backbone(tiny_backbone(tmp_path / "small", "onnx"))
    assert probe.checked_size(small) == SIZE
    monkeypatch.setattr(probe, "probe", lambda backbone: pytest.fail("it was probed before"))
    assert probe.checked_size(small) == SIZE


def test_interpreters_that_cannot_be_made_leave_no_thread_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsat.backbones import tflite

    monkeypatch.setattr(tflite, "cores", lambda: [0, 1])
    all_wait, faults = threading.Event(), [MemoryError("no memory")] * 2

    def make() -> Callable[[np.ndarray], np.ndarray]:
        all_wait.wait(10)
        if faults:
            raise faults.pop()
        return np.negative

    def call() -> None:
        try:
            answers.append(pool(np.ones(2, np.float32)).tolist())
        except ConfigError as error:
            answers.append(str(error))

    pool, answers = tflite._Pool("net.tflite", make), list[Any]()
    threads = [threading.Thread(target=call, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)  # two make interpreters, and two wait for those
    all_wait.set()
    for thread in threads:
        thread.join(10)
    refused = "net.tflite: TensorFlow Lite cannot load it: MemoryError: no memory"
    assert sorted(answers, key=str) == [[-1, -1], [-1, -1], refused, refused]


def test_interpreters_share_the_bytes_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsat.backbones import tflite

    contents, interpreter = [], tflite._interpreter
    monkeypatch.setattr(tflite, "_interpreter", lambda content: (contents.append(content), interpreter(content))[1])
    for kind in ("tflite", "tflite_signature"):
        contents.clear()
        runtime = open_backbone(read_backbone(tiny_backbone(tmp_path / kind, kind)))
        runtime._network.call._make()  # as a second thread does
        assert len(contents) == 2
        assert contents[0] is contents[1]


def answers_in_a_fork(call: Callable[[], np.ndarray], expected: np.ndarray) -> bool:
    """Return whether a call in a child of this process, which has one thread, gives the expected array in 20 s."""
    if (pid := os.fork()) == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            os._exit(int(not np.array_equal(call(), expected)))
        finally:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_forked_process_embeds_too(kind: str, tmp_path: Path) -> None:
    runtime, windows = open_backbone(read_backbone(tiny_backbone(tmp_path, kind)), workers=2), windows_of(kind)
    embeddings = runtime.embed(windows)
    assert answers_in_a_fork(lambda: runtime.embed(windows), embeddings)
    np.testing.assert_array_equal(copy.deepcopy(runtime).embed(windows), embeddings)


def test_a_process_that_is_forked_during_calls_embeds_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsat.backbones import tflite

    monkeypatch.setattr(tflite, "cores", lambda: [0])
    begun, end, samples = threading.Event(), threading.Event(), np.ones(3, np.float32)

    def call(samples: np.ndarray) -> np.ndarray:
        begun.set()
        end.wait(30)
        return -samples

    pool = tflite._Pool("net.tflite", lambda: call)
    thread = threading.Thread(target=pool, args=[samples])
    thread.start()
    begun.wait(10)
    monkeypatch.setattr(pool, "_make", lambda: np.negative)
    assert answers_in_a_fork(lambda: pool(samples), -samples)
    end.set()
    thread.join(10)


@pytest.mark.parametrize("kind", ["onnx", "saved_model"])
def test_a_damaged_copy_in_the_cache_is_replaced(
    kind: str, tmp_path: Path, cache_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    backbone = read_backbone(tiny_backbone(tmp_path / "original", kind))
    folder = keep(backbone).path.parent
    for name in ("backbone.json", "saved_model.pb" if kind == "saved_model" else backbone.path.name):
        (path,) = folder.rglob(name)
        flip(path, 0)
        capsys.readouterr()
        copy = keep(backbone)
        assert capsys.readouterr().err.count(f"{folder}: this copy of a backbone is damaged") == 1
        assert content_sha256(copy.path) == backbone.sha256
        assert (kept(backbone.digest), copy.path.parent) == (copy, folder)
        assert capsys.readouterr().err == ""
    flip(path, 20)
    assert kept(backbone.digest) is None
    assert f"{folder}/" in refusal(folder, keep)  # a damaged copy is not its own original, and stays
    assert path.exists()
    assert sorted(path.name for path in (cache_folder / "backbones").iterdir()) == [folder.name, f"{folder.name}.lock"]


@pytest.mark.parametrize("kind", ["onnx", "saved_model"])
def test_a_disk_that_is_full_is_one_line_and_leaves_no_half_copy(
    kind: str, tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = tiny_backbone(tmp_path / "original", kind)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        line = refusal(descriptor, keep)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert re.search(
        r"no space left in the cache: (?!0.0)[0-9.]+ [kM]B more needed, .* free; set FSAT_CACHE_DIR=DIR", line
    )
    assert [path.suffix for path in (cache_folder / "backbones").iterdir()] == [".lock"]
    assert keep(read_backbone(descriptor)).path.exists()
