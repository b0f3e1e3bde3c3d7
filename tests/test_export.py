"""Exported taggers score clips as the original does, in every format, from the waveform on."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mlflow
import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT
from helpers import one_line, tone, write_wav
from servers import needs

from fsat import __version__
from fsat.cli import run
from fsat.commands.export import check_output, facts_of
from fsat.config import Config
from fsat.data import audio
from fsat.data.decoded_clips import Clips
from fsat.data.synth import synthesise
from fsat.errors import ConfigError, FsatError
from fsat.export.formats import EXTRA, check_packages, open_model, write_model
from fsat.model_presets import EXPORT_FORMATS, MODELS
from fsat.models import build, import_keras, save_weights
from fsat.tagging import MemberFiles, Tagger, write
from fsat.tracking.registry import Score, register
from fsat.training.predict_clips import Predictor

LABELS = ["Applause", "Bark", "Cello", "Clock tick", "Crackle", "Rain"]
LIMIT = 1e-3
PAGE = (ROOT / "docs" / "export.md").read_text()


def config(model: str, **options) -> Config:
    usual = {"precision": "float32", "audio_duration": 0.5, "batch_size": 8}
    return Config.resolve({"model": model, **usual, **options})


DUMMY = ("a", config("dummy1d", eval_crops=2))
TAGGERS = {
    **{name: ([("a", config(name))], "geometric", {}) for name in MODELS},
    "geometric": ([
        DUMMY, ("b", config("conv2d_mfcc", eval_crops=1)), DUMMY, ("c", config("cnn_logmel", eval_duration=1.7)),
    ], "geometric", {}),
    "arithmetic": ([
        ("a", config("cnn_logmel", sampling_rate=22050, eval_duration=0)), ("b", config("dummy1d", eval_crops=5)),
    ], "arithmetic", {}),
    "weighted": ([
        ("a", config("conv1d", sampling_rate=11025)), ("b", config("dummy1d", sampling_rate=44100)),
    ], "weighted", {"a": 0.8, "b": 0.2}),
}  # fmt: skip
"""Study and Config of each member, blending method, and weights of the studies."""


@dataclass
class Example:
    """A tagger, its folder, the rate of its exports, sounds at that rate, and their scores."""

    folder: Path
    tagger: Tagger
    rate: int
    sounds: list[np.ndarray]
    scores: np.ndarray


def wav(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    sf.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def sounds_at(rate: int) -> list[np.ndarray]:
    """Noise, tones, silence and sounds, from one sample to some seconds."""
    rng = np.random.default_rng(7)
    sounds = [synthesise(kind, 1.37, rate, rng) for kind in ("Cello", "Squeak", "Applause")]
    sounds += [synthesise("Flute", 0.31, rate, rng), synthesise("Bass_drum", 0.5, rate, rng)]
    sounds += [tone(440, 2.03, rate), np.zeros(rate, np.float32), tone(200, 3.1, rate, 1e-3)]
    return sounds + [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in (1, 2, 997, rate // 2 + 1)]


def make_confident(model, config: Config, sounds: list[np.ndarray], rng: np.random.Generator) -> None:
    """Set weights such that scores are high and the top labels differ between sounds."""
    keras = import_keras()
    inputs = list(Predictor(Clips.from_arrays(sounds, config.sampling_rate), config, keep=False).batches())
    for layer in model.layers:
        if layer.name == "bands":
            layer.set_levels(np.concatenate([part.reshape(-1, config.n_mels) for part in inputs]).mean(axis=0), 15.0)
        elif isinstance(layer, keras.layers.Normalization):
            layer.adapt(np.concatenate(inputs))
        elif isinstance(layer, keras.layers.BatchNormalization):
            ranges = (0.5, 1.5), (-0.2, 0.2), (-0.1, 0.1), (0.7, 1.4)
            layer.set_weights([rng.uniform(low, high, layer.gamma.shape) for low, high in ranges])
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense) and layer.units == len(LABELS):
            before = keras.Model(model.input, layer.input)
            features = np.concatenate([np.asarray(before(part)) for part in inputs])
            kernel = rng.normal(size=(features.shape[1], len(LABELS)))
            kernel *= 3 / ((features @ kernel).std(axis=0) + 1e-9)
            layer.set_weights([kernel, -(features @ kernel).mean(axis=0)])


def write_tagger(folder: Path, members: list[tuple[str, Config]], blend: str = "geometric", weights=None) -> Path:
    folder.mkdir()
    files = []
    rng = np.random.default_rng(3)
    for fold, (study, settings) in enumerate(members):
        model = build(settings, len(LABELS))
        make_confident(model, settings, sounds_at(settings.sampling_rate), rng)
        weights_file = folder.parent / f"{folder.name}{fold}.weights.h5"
        save_weights(model, weights_file)
        files.append(MemberFiles(study, fold, settings, weights_file))
    write(folder, files, LABELS, blend, weights)
    return folder


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("signals")]  # commands run in this process


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Callable[[str], Example]:
    """Make a tagger by name, once."""
    root = tmp_path_factory.mktemp("taggers")

    @cache
    def make(name: str) -> Example:
        folder = write_tagger(root / name, *TAGGERS[name])
        tagger = Tagger(folder)
        rate, sounds = tagger.rates[-1], sounds_at(tagger.rates[-1])
        return Example(folder, tagger, rate, sounds, score_all(tagger, sounds, rate))

    return make


def score_all(tagger: Tagger, clips: list[np.ndarray], rate: int) -> np.ndarray:
    scores, errors = tagger.scores([wav(clip, rate) for clip in clips])
    assert not any(errors)
    return scores


@pytest.fixture(scope="module")
def exported(example, tmp_path_factory) -> Callable[[str, str], Path]:
    """Export a tagger by name and format, once."""
    root = tmp_path_factory.mktemp("exported")

    @cache
    def model_of(name: str):
        from fsat.export.ensemble_model import ensemble_model

        return ensemble_model(example(name).tagger)

    @cache
    def export(name: str, format: str) -> Path:
        if format == "onnx":
            needs_onnx()
        path = root / f"{name}.{format}"
        write_model(model_of(name), path, format, facts_of(example(name).tagger, format))
        return path

    return export


def needs_onnx() -> None:
    needs(all(map(importlib.util.find_spec, EXTRA)), ", ".join(EXTRA), "pip install '.[export]'")


@pytest.fixture(scope="module")
def recordings(shared) -> list[Path]:
    """A real recording of each of five classes, about 5 s at 44.1 kHz."""
    folder = shared / "data" / "esc10"
    with open(folder / "clips.csv", newline="") as table:
        rows = {row["label"]: row["fname"] for row in csv.DictReader(table)}
    names = [rows[label] for label in sorted(rows)[::2]]
    paths = [next(folder.rglob(Path(name).name)) for name in names]
    assert len(paths) == 5
    return paths


@pytest.mark.parametrize("format", EXPORT_FORMATS)
@pytest.mark.parametrize("name", TAGGERS)
def test_sounds_of_every_length_have_the_taggers_scores(name, format, example, exported) -> None:
    original = example(name)
    assert len(set(original.scores.argmax(axis=1).tolist())) > 1  # scores that are all alike would prove nothing
    assert original.scores.std(axis=0).max() > 0.05
    assert original.scores.max(axis=1).mean() > 1.5 / len(LABELS)
    score, facts = open_model(exported(name, format), format)
    for sound, expected in zip(original.sounds, original.scores, strict=True):
        scores = score(sound)
        assert (scores.shape, scores.dtype) == ((len(LABELS),), np.float32)
        assert abs(scores - expected).max() < LIMIT / 10, f"{len(sound)} samples"
    expected = {"labels": LABELS, "sampling_rate": original.rate, "format": format, "fsat": __version__}
    assert expected.items() <= facts.items()


@pytest.mark.parametrize("name", TAGGERS)
def test_real_clips_have_the_taggers_scores(name, example, exported, recordings) -> None:
    original = example(name)
    rate = original.rate
    clips = [audio.decode(path, rate) for path in recordings]
    clips += [clips[0][: rate // 3], clips[1][123 : 123 + rate // 2], clips[2][: 2 * rate + 7]]
    expected = score_all(original.tagger, clips, rate)
    assert expected.std(axis=0).max() > 0.02
    for format in EXPORT_FORMATS:
        score, _ = open_model(exported(name, format), format)
        scores = np.stack([score(clip) for clip in clips])
        assert abs(scores - expected).max() < LIMIT, format
        assert (scores.argmax(axis=1) == expected.argmax(axis=1)).all(), format


@pytest.mark.parametrize(("format", "unwanted"), [
    ("onnx", {"fsat", "keras", "tensorflow", "librosa", "mlflow"}), ("tflite", {"fsat", "librosa", "mlflow"}),
    ("keras", {"fsat", "librosa", "mlflow"}),
])  # fmt: skip
def test_programs_of_the_documentation_score_clips_without_fsat(format, unwanted, example, exported, tmp_path) -> None:
    original = example("geometric")
    program = next(text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"tagger.{format}" in text)
    (tmp_path / f"tagger.{format}").symlink_to(exported("geometric", format))
    sound = original.sounds[0]
    stereo = np.stack([sound + 0.1, 0.5 * sound[::-1]], axis=1)
    (tmp_path / "clip.wav").write_bytes(wav(stereo, 48000))
    clip = audio.decode(tmp_path / "clip.wav", original.rate)
    assert len(clip) != len(sound)
    (expected,) = score_all(original.tagger, [clip], original.rate)
    program += f"\nimport sys, numpy\nnumpy.save('scores', scores)\nassert not {unwanted} & set(sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert abs(np.load(tmp_path / "scores.npy") - expected).max() < LIMIT / 10
    best = expected.argsort()[::-1][:3]
    assert [line.rsplit(" ", 1)[0] for line in done.stdout.splitlines()] == [LABELS[i] for i in best]


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_tflite_has_only_built_in_operations_and_contains_its_labels(exported) -> None:
    import zipfile

    import tensorflow as tf

    path = exported("geometric", "tflite")
    names = {detail["op_name"] for detail in tf.lite.Interpreter(str(path))._get_ops_details()}
    assert not [name for name in names if name.startswith("Flex") or name == "CUSTOM"]
    assert zipfile.ZipFile(path).read("labels.txt").decode().splitlines() == LABELS


def test_onnx_has_metadata_entries_for_labels_and_rate(exported) -> None:
    needs_onnx()
    import onnx

    proto = onnx.load(exported("geometric", "onnx"))
    onnx.checker.check_model(proto, full_check=True)
    props = {prop.key: prop.value for prop in proto.metadata_props}
    assert json.loads(props["labels"]) == LABELS
    assert props["sampling_rate"] == "44100"
    assert {node.domain for node in proto.graph.node} == {""}
    assert str(ROOT) not in str(proto.graph.doc_string)


RATES = [(44100, 16000), (32000, 16000), (44100, 32000), (48000, 44100), (44100, 8000)]


@pytest.mark.parametrize(("rate", "new_rate"), RATES)
def test_resampling_is_soxrs(rate, new_rate) -> None:
    keras = import_keras()
    import soxr

    from fsat.export.frontend import Signal, length_of, resample

    waveform = keras.Input(batch_shape=(None,))
    signal = resample(Signal(waveform, length_of(waveform), waveform), rate, new_rate)
    model = keras.Model(waveform, [signal.samples, signal.n])
    rng = np.random.default_rng(0)
    for n in (7, 100, 777, 30001):
        noise = rng.uniform(-1, 1, n).astype(np.float32)
        samples, length = (np.asarray(output) for output in model(noise))
        expected = soxr.resample(noise, rate, new_rate, quality="HQ")
        assert length == len(expected), n
        assert abs(samples[:length] - expected).max() < 1e-5, n
        assert not samples[length:].any()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 33])
def test_crops_start_where_numpy_rounds_to(count) -> None:
    keras = import_keras()
    from fsat.export.frontend import even_starts, length_of, slice_first

    waveform = keras.Input(batch_shape=(None,))
    crops = keras.ops.zeros_like(slice_first(waveform, 0, 1), dtype="int32") + np.arange(count, dtype=np.int32)
    model = keras.Model(waveform, even_starts(length_of(waveform), 50, crops, count))
    for n in (*range(1, 150), 12345, 99991):
        starts = audio.even_starts(n, 50, count)
        expected = starts if len(starts) == count else starts * count
        assert np.asarray(model(np.zeros(n, np.float32))).tolist() == expected, n


def test_a_member_in_bfloat16_is_exported_in_float32(example, tmp_path, monkeypatch) -> None:
    original = example("conv2d_mfcc")
    folder = shutil.copytree(original.folder, tmp_path / "tagger")
    facts = json.loads((folder / "tagger.json").read_text())
    facts["members"][0]["config"]["precision"] = "auto"
    (folder / "tagger.json").write_text(json.dumps(facts))
    monkeypatch.setattr("fsat.models.keras_setup.machine_has_bfloat16", lambda: True)
    tagger = Tagger(folder)
    assert any("bfloat16" in layer.dtype_policy.name for layer in tagger.members[0].model.layers)
    exact = tagger.in_float32()
    assert {layer.compute_dtype for layer in exact.members[0].model.layers} == {"float32"}
    np.testing.assert_array_equal(score_all(exact, original.sounds, original.rate), original.scores)


def test_unsupported_ratios_of_rates_are_one_line() -> None:
    import_keras()
    from fsat.export.frontend import measure_filter

    with pytest.raises(ConfigError) as error:
        measure_filter(44101, 44100)
    assert one_line(error.value).startswith(
        "members at 44101 and 44100 Hz: expected sampling rates in a ratio of small "
    )


@pytest.mark.parametrize(("format", "name", "message"), [
    ("mp3", "tagger.mp3", "format=mp3: expected one of onnx, tflite, keras"),
    ("onnx", "tagger.txt", "output=tagger.txt: expected a name that ends in .onnx"),
])  # fmt: skip
def test_wrong_outputs_are_one_line(format, name, message) -> None:
    with pytest.raises(FsatError) as error:
        check_output(format, Path(name))
    assert one_line(error.value) == message


def test_a_missing_package_is_one_line(monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else find(name))
    check_packages("tflite")
    with pytest.raises(FsatError) as error:
        check_packages("onnx")
    assert one_line(error.value) == "format=onnx: tf2onnx not installed; `pip install '.[export]'` in the clone"


@pytest.fixture(scope="module")
def registered(store, tmp_path_factory) -> Path:
    """Register a tagger of three members as the champion; return the working folder."""
    members = [("a", config("conv1d")), ("b", config("dummy1d", sampling_rate=22050)), ("a", config("conv1d"))]
    folder = write_tagger(tmp_path_factory.mktemp("registered") / "tagger", members)
    with mlflow.start_run():
        register("fsat", folder, LABELS, Score(0.5, 10), "dataset", "always", "blend")
    return store


def runs_of_export() -> list[mlflow.entities.Run]:
    return mlflow.MlflowClient().search_runs(["0"], "tags.`fsat.stage` = 'export'", order_by=["start_time DESC"])


def test_export_leaves_a_file_what_it_is_and_a_run(registered, capsys) -> None:
    clips = registered / "clips"
    for i, sound in enumerate(sounds_at(22050)[:4]):
        write_wav(clips / f"{i}.wav", sound, 22050)
    (clips / "broken.wav").write_bytes(b"RIFF")
    assert run(["export", "--format", "tflite", "--output", "out/t.tflite", "--check", str(clips)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "out/t.tflite"
    facts = json.loads((registered / "out" / "t.tflite.json").read_text())
    score, inside = open_model(registered / "out" / "t.tflite", "tflite")
    assert inside.items() <= facts.items()
    assert (facts["labels"], facts["members"]) == (LABELS, ["a/0", "b/1", "a/2"])
    assert (facts["source"], facts["difference"]["n_clips"]) == ("models:/fsat/1", 4)
    assert facts["difference"]["greatest"] < LIMIT / 10

    (tagged,) = runs_of_export()
    assert (tagged.info.run_id, tagged.info.status) == (facts["export_run"], "FINISHED")
    assert tagged.data.params["format"] == "tflite"
    assert tagged.data.tags["fsat.tagger_run"] == facts["tagger_run"] != ""
    metrics = tagged.data.metrics
    assert (metrics["difference"], metrics["n_checked"]) == (facts["difference"]["greatest"], 4)
    kept = mlflow.artifacts.download_artifacts(run_id=tagged.info.run_id, artifact_path="t.tflite")
    assert Path(kept).read_bytes() == (registered / "out" / "t.tflite").read_bytes()

    sound = sounds_at(22050)[0]
    expected, _ = mlflow.pyfunc.load_model("models:/fsat@champion").get_raw_model().scores([wav(sound, 22050)])
    assert abs(score(sound) - expected[0]).max() < LIMIT


def test_one_member_is_exported_alone(registered) -> None:
    assert run(["export", "--format", "keras", "--model", "champion", "--members", "b/1"]) == 0
    facts = json.loads((registered / "tagger.keras.json").read_text())
    assert (facts["members"], facts["sampling_rate"]) == (["b/1"], 22050)
    assert facts["difference"]["n_clips"] > 8
    tagger = mlflow.pyfunc.load_model("models:/fsat/1").get_raw_model().only("b/1")
    sound = sounds_at(22050)[1]
    score, _ = open_model(registered / "tagger.keras", "keras")
    assert abs(score(sound) - tagger.scores([wav(sound, 22050)])[0][0]).max() < LIMIT


def test_an_export_that_scores_otherwise_is_not_left(registered, capsys, monkeypatch) -> None:
    from fsat.export import frontend

    real = frontend.even_starts
    monkeypatch.setattr(frontend, "even_starts", lambda *args: real(*args) // 2)
    before = sorted(os.listdir(registered))
    assert run(["export", "--format", "tflite"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    words = r"fsat: error: format=tflite: a score differs by \S+ on .*, expected at most 0.001; nothing was written: .*"
    assert re.fullmatch(words, error)
    assert sorted(os.listdir(registered)) == before
    assert runs_of_export()[0].info.status == "FAILED"


@pytest.mark.parametrize(("options", "message"), [
    (["--members", "c/7"], "members=c/7: no member c/7; expected a/0, b/1, a/2"),
    (["--check", "nowhere"], "check=nowhere: no such file or folder"),
    (["--check", "taggers"], "check=taggers: no .wav, .flac, .ogg, .mp3 files in it"),
    (["--check", "broken.wav"], "check=broken.wav: no usable clips, first error: broken.wav: "),
    (["--model", "models:/other@champion"], "model=models:/other@champion: cannot be loaded from "),
])  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(registered, options, message, capsys) -> None:
    (registered / "taggers").mkdir(exist_ok=True)
    (registered / "broken.wav").write_bytes(b"RIFF")
    assert run(["export", "--format", "tflite", "--output", "no.tflite", *options]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"fsat: error: {message}")
    assert not [name for name in os.listdir(registered) if "no.tflite" in name]
