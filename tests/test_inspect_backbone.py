"""A descriptor that is made of a network's file gives the reference's embeddings; what is unknown is asked for."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_backbones import windows_of
from tiny_backbones import KINDS, N_CLASSES, N_SAMPLES, RATE, SIZE, WINDOW, reference_embedding, tiny_backbone

from fsat.backbones.descriptor import DESCRIPTOR, Backbone, Output, read_backbone, write_backbone
from fsat.backbones.inspect import Inspection, Request, check_request, find_network, inspect_here
from fsat.backbones.runtime import open_backbone
from fsat.cli import run
from fsat.errors import ConfigError

pytestmark = pytest.mark.slow

GIVEN = {"onnx": {"scaling": {"peak": 0.25}}, "onnx_frames": {"output": Output(name="frames")}}
"""What the file of a kind cannot say, apart from its rate."""


def inspected(path: Path, **given: Any) -> Inspection:
    return inspect_here(Request(find_network(path), path.absolute().parent / DESCRIPTOR, given))


def described(path: Path, **given: Any) -> Backbone:
    inspection = inspected(path, **given)
    assert inspection.backbone is not None, inspection.error
    return inspection.backbone


def fault(path: Path, **given: Any) -> str:
    """What is wrong with a file that can be read."""
    inspection = inspected(path, **given)
    assert inspection.backbone is None
    assert "\n" not in inspection.error
    assert inspection.lines[0].startswith(f"{path}: ")
    return inspection.error


@pytest.mark.parametrize("kind", KINDS)
def test_the_descriptor_of_a_file_gives_the_embeddings_of_the_reference(kind: str, tmp_path: Path) -> None:
    original = read_backbone(tiny_backbone(tmp_path, kind))
    backbone = described(original.path, sampling_rate=RATE, license="CC0", **GIVEN.get(kind, {}))
    write_backbone(backbone, tmp_path / "new" / "backbone.json")
    again = read_backbone(tmp_path / "new")
    assert again == backbone
    assert (again.window, again.size, again.license, again.sha256) == (original.window, SIZE, "CC0", original.sha256)
    windows = windows_of(kind)
    expected = np.stack([reference_embedding(window, original.input.peak) for window in windows])
    np.testing.assert_allclose(open_backbone(again).embed(windows), expected, rtol=1e-4, atol=1e-6)


def test_the_rate_is_asked_for_or_follows_from_the_window(tmp_path: Path) -> None:
    path = read_backbone(tiny_backbone(tmp_path, "onnx")).path
    message = "does not say its sampling rate; its 3200 samples are 0.4 s at 8000 Hz, 0.2 s at 16000 Hz, 0.1 s at"
    assert message in fault(path)
    assert fault(path, window=0.3).endswith("; give --sampling_rate")
    assert described(path, window=0.4).sampling_rate == RATE
    assert "set window to 0.4" in fault(path, sampling_rate=RATE, window=0.5)
    free = read_backbone(tiny_backbone(tmp_path / "free", "onnx_rank1_free")).path
    assert fault(free, window=0.4).endswith(": does not say its sampling rate; give --sampling_rate")


def test_metadata_gives_rate_license_and_source(tmp_path: Path) -> None:
    import onnx

    path = read_backbone(tiny_backbone(tmp_path / "onnx", "onnx")).path
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"sample_rate": "8000", "License": "MIT\nLicense", "url": "https://example.org"})
    onnx.save(model, path)
    inspection = inspected(path)
    backbone = inspection.backbone
    assert (backbone.sampling_rate, backbone.license, backbone.source) == (8000, "MIT License", "https://example.org")
    assert "  License: MIT License" in inspection.lines
    assert any("8000 Hz (as the file says)" in line for line in inspection.lines)
    given = inspected(path, sampling_rate=16000, license="other")
    assert (given.backbone.window, given.backbone.license) == (0.2, "other")
    assert any("16000 Hz (as given, while the file says 8000 Hz)" in line for line in given.lines)
    for kind in ("tflite", "keras"):  # as fsat's exports have it
        path = read_backbone(tiny_backbone(tmp_path / kind, kind)).path
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("fsat.json", json.dumps({"sampling_rate": 8000, "labels": ["a"]}))
        assert described(path).sampling_rate == RATE


def test_metadata_of_tensorflow_lite_is_read(tmp_path: Path) -> None:
    path = read_backbone(tiny_backbone(tmp_path, "tflite")).path
    whole = path.read_bytes()
    path.write_bytes(with_metadata(whole, metadata_buffer()))
    backbone = described(path)
    assert (backbone.sampling_rate, backbone.license) == (RATE, "Apache 2.0")
    for damaged in (b"", b"\xff" * 40, metadata_buffer()[:60], metadata_buffer()[60:]):
        path.write_bytes(with_metadata(whole, damaged))
        assert "give --sampling_rate" in fault(path)


def metadata_buffer() -> bytes:
    """Metadata as TensorFlow Lite's support library writes it: a license, and audio of 8 kHz as the input."""
    import flatbuffers

    builder = flatbuffers.Builder(0)
    license = builder.CreateString("Apache 2.0")

    def table(n_fields: int, fields: dict[int, int], **numbers: int) -> int:
        builder.StartObject(n_fields)
        for number, value in fields.items():
            builder.PrependUOffsetTRelativeSlot(number, value, 0)
        if "rate" in numbers:
            builder.PrependUint32Slot(0, numbers["rate"], 0)
        if "type" in numbers:
            builder.PrependUint8Slot(0, numbers["type"], 0)
        return builder.EndObject()

    def vector(item: int) -> int:
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(item)
        return builder.EndVector()

    audio = table(2, {}, rate=RATE)
    tensor = table(7, {3: table(3, {1: audio}, type=4)})
    graph = table(7, {2: vector(tensor)})
    builder.Finish(table(8, {3: vector(graph), 5: license}), b"M001")
    return bytes(builder.Output())


def with_metadata(content: bytes, metadata: bytes) -> bytes:
    """Return a TensorFlow Lite file with metadata of the support library."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(metadata)
    entry.name, entry.buffer = b"TFLITE_METADATA", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def onnx_classifier(path: Path, embedding: bool, name: str = "Identity_1") -> Path:
    """Write a network with the output scores, and with what its dense layer takes in as another one."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {"w": (N_SAMPLES, SIZE), "c": (SIZE, N_CLASSES), "b": (N_CLASSES,)}
    initializers = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights.items()]
    nodes = [
        helper.make_node("MatMul", ["waveform", "w"], ["projected"]),
        helper.make_node("Abs", ["projected"], [name]),
        helper.make_node("MatMul", [name, "c"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["Identity"]),
    ]
    sizes = {"Identity": N_CLASSES, "logits": N_CLASSES} | ({name: SIZE} if embedding else {})
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in sizes.items()]
    inputs = [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["n", N_SAMPLES])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_the_embedding_among_several_outputs(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    assert described(onnx_classifier(path, True), window=WINDOW).output == Output(index=2)  # into the dense layer
    assert described(onnx_classifier(path, True, "embeddings"), window=WINDOW).output == Output(index=2)
    message = fault(onnx_classifier(path, False), window=WINDOW)
    expected = (
        "which output is the embedding: Identity (?, 3) (--output_index 0), logits (?, 3) (--output_index 1); give"
    )
    assert expected in message
    assert described(path, window=WINDOW, output=Output(name="logits")).output == Output(name="logits")
    assert "has no output 7; it has " in fault(path, window=WINDOW, output=Output(index=7))


def test_a_keras_model_around_another_one(tmp_path: Path) -> None:
    import keras

    waveform = keras.Input((N_SAMPLES,), name="waveform")
    frames = keras.layers.Reshape((-1, 64))(waveform)
    inner = keras.Model(waveform, keras.layers.GlobalMaxPooling1D()(keras.layers.Dense(SIZE)(frames)), name="features")
    outer = keras.Input((N_SAMPLES,))
    scores = keras.layers.Dense(N_CLASSES, activation="softmax")(keras.layers.Dropout(0.5)(inner(outer)))
    keras.Model(outer, scores).save(tmp_path / "network.keras")
    for layer in ("dropout", "features"):
        given = {"output": Output(name=layer)} if layer == "features" else {}
        backbone = described(tmp_path / "network.keras", sampling_rate=RATE, **given)
        assert (backbone.output.name.startswith(layer), backbone.size) == (True, SIZE)
        windows = windows_of("keras")
        np.testing.assert_allclose(open_backbone(backbone).embed(windows), inner(windows), rtol=1e-4, atol=1e-5)


def test_an_input_that_is_no_waveform_is_refused_before_its_rate_is_asked_for(tmp_path: Path) -> None:
    import keras

    image = keras.Input((64, 64, 1))
    keras.Model(image, keras.layers.Flatten()(image)).save(tmp_path / "network.keras")
    assert fault(tmp_path / "network.keras").endswith("(?, 64, 64, 1); expected (samples,) or (batch, samples)")


def test_a_network_that_the_probe_refuses_is_shown_and_refused(tmp_path: Path) -> None:
    path = read_backbone(tiny_backbone(tmp_path, "onnx")).path
    fault(path, sampling_rate=RATE, rank=1)
    wrong = {"sampling_rate": (-1, 0), "window": (-0.4, float("inf"), float("nan")), "hop": (0.0, float("nan"))}
    for name, values in wrong.items():
        for value in values:
            assert "; expected " in fault(path, **{"sampling_rate": RATE, name: value})
            fault(path, **{"window": WINDOW, name: value})
    assert 'license is "a\\nb"; expected a text of one line' in fault(path, sampling_rate=RATE, license="a\nb")
    assert "answers the same" in fault(path, sampling_rate=RATE, scaling={"peak": 1e-6}, output=silent(path))


def silent(path: Path) -> Output:
    """Add an output that is zero for all sounds."""
    import onnx

    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Sub", ["embedding", "embedding"], ["nothing"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("nothing", onnx.TensorProto.FLOAT, ["batch", SIZE]))
    onnx.save(model, path)
    return Output(name="nothing")


def test_files_that_are_no_networks_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    faults = {
        "missing.tflite": (None, "no such file; expected a .tflite, .onnx or .keras file, the folder of a SavedModel"),
        "folder": (None, "no saved_model.pb and no backbone.json in this folder"),
        "weights.pt": (b"x", ".pt files cannot be used: export the network as ONNX"),
        "network.h5": (b"\x89HDF", ".h5 files cannot be used: save the network as .keras"),
        "network": (b"some text", "is of an unknown format"),
        "empty.onnx": (b"", "is empty"),
        "text.onnx": (b"some text", "no ONNX file"),
        "text.tflite": (b"some text", "is no TensorFlow Lite file"),
        "archive.keras": (b"PK\x03\x04 and no more", "is no Keras file"),
    }
    for name, (content, words) in faults.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError) as error:
            inspected(path)
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_a_network_is_checked_against_its_descriptor(tmp_path: Path) -> None:
    descriptor = tiny_backbone(tmp_path, "saved_model")
    inspection = inspect_here(check_request(find_network(tmp_path)))
    assert inspection.backbone == read_backbone(descriptor)
    facts = json.loads(descriptor.read_text())
    for changes, words in (({"window": 0.5}, "set window to 0.4"), ({"sha256": 64 * "0"}, "its SHA-256 is"),
                           ({"size": 9}, "expected 9")):  # fmt: skip
        descriptor.write_text(json.dumps(facts | changes))
        inspection = inspect_here(check_request(descriptor))
        assert (inspection.backbone, words in inspection.error) == (None, True)


@pytest.mark.process
def test_the_command(
    tmp_path: Path, signals: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes a descriptor, from a process with limits, but not over another one; and it checks one."""

    def backbone_inspect(*arguments: object) -> tuple[int, str, str]:
        status = run(["backbone", "inspect", *map(str, arguments)])
        return status, *capsys.readouterr()

    path = read_backbone(tiny_backbone(tmp_path / "a", "tflite_tensor")).path
    descriptor = tmp_path / "new" / "backbone.json"
    arguments = [path, "--output", descriptor, "--license", "CC0", "--scaling", "0.25"]
    status, output, _ = backbone_inspect(*arguments, "--sampling_rate", RATE, "--hop", 0.1)
    assert status == 0
    assert "8 values, what the last dense layer takes in" in output
    assert output.endswith(f"wrote {descriptor}\n")
    backbone = read_backbone(descriptor)
    assert (backbone.hop, backbone.license, backbone.input.peak, backbone.path) == (0.1, "CC0", 0.25, path)
    monkeypatch.setattr("fsat.backbones.inspect.inspect", inspect_here)  # without another process
    status, output, error = backbone_inspect(*arguments, "--overwrite")
    assert status == 1
    assert "  output 0: " in output
    assert error.startswith("fsat: error: ")
    assert error.endswith("; give --sampling_rate\n")
    assert backbone_inspect(descriptor)[1].endswith(f"{descriptor}: is right\n")
    wrong = {
        (): f"{descriptor}: exists; `python -m fsat backbone inspect {descriptor}` checks it, --overwrite replaces it",
        ("--output_key", "a"): "--output_key: expected one of --output_name, --output_index",
        ("--scaling", "loud"): "loud: expected none, or a peak such as 0.25",
        ("--output", tmp_path): "is a folder; expected the name of a file to write",
    }
    for options, words in wrong.items():
        status, output, error = backbone_inspect(*arguments, *options)
        assert (status > 0, output, words in error) == (True, "", True)
    assert "is a descriptor, which is checked; expected no other options" in backbone_inspect(descriptor, "--hop", 1)[2]
