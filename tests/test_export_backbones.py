"""Exported taggers contain their backbones, and score clips as the original does."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from helpers import error_line
from servers import needs
from test_export import LIMIT, score_all
from tiny_backbones import CLASSIFIER, FILTERS, RATE, SIZE, WINDOW, reference_embedding, tiny_backbone

from fsat.backbones.descriptor import Backbone, Input, read_backbone
from fsat.commands.export import facts_of
from fsat.config import Config
from fsat.errors import ConfigError
from fsat.export.formats import EXTRA, open_model, write_model
from fsat.export.networks import check_backbones, formats_of
from fsat.model_presets import EXPORT_FORMATS
from fsat.models import build, save_weights
from fsat.tagging import MemberFiles, Tagger, write

LABELS = ["bell", "dog", "rain", "sea"]
pytestmark = pytest.mark.slow

FITTING = {
    "onnx": ["onnx", "onnx_rank1_free", "onnx_frames", "tflite_tensor", "tflite_rank1_free", "saved_model", "keras"],
    "tflite": ["tflite_rank1_free", "tflite_fixed_batch", "tflite_tensor", "tflite_signature", "saved_model_rank1_free",
               "keras_layer"],
    "keras": ["keras", "keras_layer"],
}  # fmt: skip
"""Kinds of backbones that fit into a format."""


def head(backbone: Backbone, **options) -> Config:
    settled = {"backbone": backbone.ref, "embedding_size": SIZE, "window_hop": WINDOW / 2, "sampling_rate": RATE}
    return Config.resolve(
        {"model": "embedding", "precision": "float32", "audio_duration": WINDOW, **settled, **options}
    ).for_task("single")


def noise_and_tones(rate: int = RATE) -> list[np.ndarray]:
    """Tones, noise, silence and mixtures of them, from one sample to some seconds."""
    rng, n = np.random.default_rng(5), round(rate * WINDOW)
    sounds = [0.3 * np.sin(2 * np.pi * f * np.arange(length) / rate) for f, length in
              ((300, 2 * n), (900, n), (1800, n + 1), (3300, 5 * n + 7), (500, n // 3), (2500, 13 * n))]  # fmt: skip
    sounds += [np.zeros(n), np.concatenate([np.zeros(3 * n), sounds[0], np.zeros(n)]), 1e-3 * sounds[3] + 0.1]
    sounds += [rng.uniform(-0.5, 0.5, length) for length in (1, 2, n - 1, 2 * n + n // 2 + 1, 7 * n)]
    return [sound.astype(np.float32) for sound in sounds]


def write_tagger(folder: Path, members: Sequence[Config], backbones: Sequence[Backbone], **blend) -> Tagger:
    """Write a tagger with heads whose scores are high and differ between sounds; each member is a study."""
    folder.mkdir(parents=True)
    rng, files = np.random.default_rng(3), []
    for i, config in enumerate(members):
        model = build(config, len(LABELS))
        for layer in model.layers:
            if layer.name == "standardise":
                sounds = [sound for sound in noise_and_tones() if len(sound) > 99]
                vectors = np.stack([reference_embedding(sound, 0.25) for sound in sounds])
                layer.set_levels(vectors.mean(axis=0), vectors.std(axis=0))
            elif layer.weights and (config.use_embedding or layer is model.layers[-1]):
                layer.set_weights([rng.normal(size=weights.shape) for weights in layer.get_weights()])
        path = folder.parent / f"{folder.name}{i}.weights.h5"
        save_weights(model, path)
        files.append(MemberFiles(f"s{i}", 0, config, path))
    by_ref = {backbone.ref: backbone for backbone in backbones}
    write(folder, files, LABELS, find_backbone=by_ref.__getitem__, **blend)
    return Tagger(folder)


@pytest.fixture(scope="module")
def backbone_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backbone]:
    root = tmp_path_factory.mktemp("backbones")
    return cache(lambda kind: read_backbone(tiny_backbone(root / kind, kind)))


@pytest.fixture(scope="module")
def mixed(backbone_of, tmp_path_factory) -> Callable[[str], Tagger]:
    """Make a tagger of backbones of each kind of `FITTING`, two heads on one of them, and a dummy1d."""
    root = tmp_path_factory.mktemp("taggers")

    @cache
    def make(format: str) -> Tagger:
        backbones = [backbone_of(kind) for kind in FITTING[format]]
        pooling = cycle(["mean", "max", "attention"])
        heads = [head(backbone, pooling=next(pooling)) for backbone in backbones]
        heads.append(head(backbones[0], window_hop=0.13, eval_crops=4, head="mlp", hidden_units=16))
        network = Config.resolve({"model": "dummy1d", "sampling_rate": 16000, "audio_duration": 0.5})
        return write_tagger(root / format, [*heads, network], backbones, blend="arithmetic")

    return make


@pytest.fixture(scope="module")
def exported(mixed, tmp_path_factory) -> Callable[[str], Path]:
    """Export the mixed tagger in a format, once."""
    from fsat.export.ensemble_model import exported_model

    @cache
    def export(format: str) -> Path:
        if format == "onnx":
            needs(all(map(importlib.util.find_spec, EXTRA)), ", ".join(EXTRA), "pip install '.[export]'")
        path, tagger = tmp_path_factory.mktemp("exported") / f"tagger.{format}", mixed(format)
        write_model(exported_model(tagger, format), path, format, facts_of(tagger, format))
        return path

    return export


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_sounds_of_every_length_have_the_taggers_scores(format, mixed, exported) -> None:
    score, facts = open_model(exported(format), format)
    tagger = mixed(format)
    assert [entry["name"] for entry in facts["backbones"]] == FITTING[format]
    assert {entry["license"] for entry in facts["backbones"]} == {"CC0"}
    sounds = noise_and_tones(facts["sampling_rate"])
    expected = score_all(tagger, sounds, facts["sampling_rate"])
    assert expected.std(axis=0).max() > 0.05
    for sound, row in zip(sounds, expected, strict=True):
        assert abs(score(sound) - row).max() < LIMIT / 3, f"{len(sound)} samples"
    spoiled = np.where(np.arange(9000) == 5, np.inf, sounds[0][0]).astype(np.float32)
    for bad in (np.full(9000, np.nan, np.float32), spoiled):
        assert not np.isfinite(score(bad)).any()
    with pytest.raises(Exception, match=r"\w"):  # each runtime has its own; Keras in a graph gives NaN
        assert np.isfinite(score(np.zeros(0, np.float32))).any()
    assert abs(score(sounds[0]) - expected[0]).max() < LIMIT / 3


def test_onnx_files_pass_the_checker(exported) -> None:
    path = exported("onnx")
    import onnx

    onnx.checker.check_model(onnx.load(path), full_check=True)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_tflite_files_have_built_in_operations_only(exported) -> None:
    import tensorflow as tf

    names = {detail["op_name"] for detail in tf.lite.Interpreter(str(exported("tflite")))._get_ops_details()}
    assert "WHILE" in names
    assert not [name for name in names if name.startswith("Flex") or name == "CUSTOM"]


@pytest.mark.parametrize(("format", "n_times"), [("onnx", 2), ("tflite", 1), ("keras", 2)])
def test_weights_are_in_the_file_once(format, n_times, exported) -> None:
    """Whatever the number of heads: ONNX and Keras have them in two shapes. None that an embedding does not need."""
    content = exported(format).read_bytes()
    if format == "keras":
        with zipfile.ZipFile(exported(format)) as archive:
            content = archive.read("model.weights.h5")
    assert max(content.count(array.tobytes()) for array in (FILTERS, FILTERS.T.copy())) == n_times
    assert content.count(CLASSIFIER.tobytes()) == content.count(CLASSIFIER.T.tobytes()) == 0


def test_formats_that_cannot_hold_a_backbone_are_refused(backbone_of, tmp_path) -> None:
    onnx, keras, saved = (backbone_of(kind) for kind in ("onnx", "keras", "saved_model"))
    tagger = write_tagger(
        tmp_path / "tagger", [head(backbone) for backbone in (onnx, keras, saved)], [onnx, keras, saved]
    )
    check_backbones(tagger, "onnx")
    line = "format=tflite: the backbone onnx (onnx) fits into onnx only; use format=onnx, or other members (members="
    assert error_line(ConfigError, check_backbones, tagger, "tflite").startswith(line)
    check_backbones(tagger.only("s1/0,s2/0"), "tflite")
    line = error_line(ConfigError, check_backbones, tagger.only("s1/0,s2/0"), "keras")
    assert line.startswith("format=keras: the backbone saved_model (saved_model) fits into onnx or tflite only; use ")
    check_backbones(tagger.only("s1/0"), "keras")
    rank1 = replace(keras, input=Input(rank=1))
    assert formats_of(rank1) == ["onnx", "tflite"]


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_fourier_transforms_of_tflite_become_those_of_onnx() -> None:
    """Quiet bands agree, too. A transform of two axes keeps its name, and is refused."""
    needs(all(map(importlib.util.find_spec, EXTRA)), ", ".join(EXTRA), "pip install '.[export]'")
    import onnx
    import onnxruntime
    import tensorflow as tf

    from fsat.export.convert import tflite_to_onnx, to_tflite
    from fsat.export.onnx_fft import without_complex

    def spectra(window: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"out": tf.cast(tf.signal.stft(window, 128, 64), tf.float32) ** 2}

    def convert(content: bytes) -> onnx.ModelProto:
        model = tflite_to_onnx(content, 17)
        without_complex(model, 17)
        return model

    content = to_tflite(spectra, {"window": (1000,)})
    model = convert(content)
    tone = (0.5 + 0.1 * np.sin(np.arange(1000))).astype(np.float32)
    expected = tf.lite.Interpreter(model_content=content).get_signature_runner()(window=tone)["out"]
    for proto in (model, onnx.version_converter.convert_version(model, 21)):
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        (received,) = session.run(None, {session.get_inputs()[0].name: tone})
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-10)
    function = lambda window: {"out": tf.math.real(tf.signal.rfft2d(tf.reshape(window, [1, 25, 40])))}  # noqa: E731
    both = convert(to_tflite(function, {"window": (1000,)}))
    assert "RFFT2D" in {node.op_type for node in both.graph.node}
