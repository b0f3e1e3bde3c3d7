"""Exported taggers score clips as the original does: ONNX, TensorFlow Lite and Keras, front end included."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
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
from fsat.data.clips import Clips
from fsat.data.synth import synthesise
from fsat.errors import ConfigError, FsatError
from fsat.export.formats import EXTRA, check_packages, open_model, write_model
from fsat.models import build, import_keras, save_weights
from fsat.presets import EXPORT_FORMATS, MODELS
from fsat.tagging import MemberFiles, Tagger, write
from fsat.tracking.registry import Score, register
from fsat.training.predict import Predictor

LABELS = ["Applause", "Bark", "Cello", "Clock tick", "Crackle", "Rain"]
LIMIT = 1e-3
PAGE = (ROOT / "docs" / "export.md").read_text()


def config(model: str, **options) -> Config:
    usual = {"precision": "float32", "audio_duration": 0.5, "batch_size": 8}
    return Config.resolve({"model": model, **usual, **options})


TAGGERS = {
    "dummy1d": ([("a", config("dummy1d"))], "geometric", {}),
    "conv1d": ([("a", config("conv1d"))], "geometric", {}),
    "conv2d_mfcc": ([("a", config("conv2d_mfcc"))], "geometric", {}),
    "cnn_logmel": ([("a", config("cnn_logmel"))], "geometric", {}),
    "geometric": (
        [
            ("a", config("dummy1d", eval_crops=2)),
            ("b", config("conv2d_mfcc", eval_crops=1)),
            ("a", config("dummy1d", eval_crops=2)),
            ("c", config("cnn_logmel", eval_duration=1.7)),
        ],
        "geometric",
        {},
    ),
    "arithmetic": (
        [("a", config("cnn_logmel", sampling_rate=22050, eval_duration=0)), ("b", config("dummy1d", eval_crops=5))],
        "arithmetic",
        {},
    ),
    "weighted": (
        [("a", config("conv1d", sampling_rate=11025)), ("b", config("dummy1d", sampling_rate=44100))],
        "weighted",
        {"a": 0.8, "b": 0.2},
    ),
}
"""By name, studies with a Config for each fold, how they are blended, and what each weighs."""


@dataclass
class Made:
    """A tagger, the rate of its exports, sounds at that rate, and what it makes of them."""

    folder: Path
    tagger: Tagger
    rate: int
    sounds: list[np.ndarray]
    expected: np.ndarray


def wav(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    sf.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def sounds_at(rate: int) -> list[np.ndarray]:
    """Noise, a tone, silence and sounds, from one sample to some seconds, of lengths that nothing divides."""
    rng = np.random.default_rng(7)
    made = [synthesise(kind, 1.37, rate, rng) for kind in ("Cello", "Squeak", "Applause")]
    made += [synthesise("Flute", 0.31, rate, rng), synthesise("Bass_drum", 0.5, rate, rng)]
    made += [tone(440, 2.03, rate), np.zeros(rate, np.float32), tone(200, 3.1, rate, 1e-3)]
    return made + [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in (1, 2, 997, rate // 2 + 1)]


def confident(model, config: Config, sounds: list[np.ndarray], rng: np.random.Generator) -> None:
    """Give fresh weights scores that are sure of themselves, and not of the same label for every sound."""
    keras = import_keras()
    inputs = list(Predictor(Clips.from_arrays(sounds, config.sampling_rate), config, keep=False).batches())
    for layer in model.layers:
        if layer.name == "bands":
            layer.set_levels(np.concatenate([part.reshape(-1, config.n_mels) for part in inputs]).mean(axis=0), 15.0)
        elif isinstance(layer, keras.layers.Normalization):
            layer.adapt(np.concatenate(inputs))
        elif isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            drawn = [rng.uniform(low, high, shape) for low, high in ((0.5, 1.5), (-0.2, 0.2), (-0.1, 0.1), (0.7, 1.4))]
            layer.set_weights(drawn)
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
        confident(model, settings, sounds_at(settings.sampling_rate), rng)
        weights_file = folder.parent / f"{folder.name}{fold}.weights.h5"
        save_weights(model, weights_file)
        files.append(MemberFiles(study, fold, settings, weights_file))
    write(folder, files, LABELS, blend, weights)
    return folder


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("signals")]  # commands run in this process


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Taggers by name, each made once."""
    root, known = tmp_path_factory.mktemp("taggers"), {}

    def make(name: str) -> Made:
        if name not in known:
            members, blend, weights = TAGGERS[name]
            folder = write_tagger(root / name, members, blend, weights)
            tagger, rate = Tagger(folder), max(settings.sampling_rate for _, settings in members)
            sounds = sounds_at(rate)
            expected, errors = tagger.scores([wav(sound, rate) for sound in sounds])
            assert not any(errors)
            known[name] = Made(folder, tagger, rate, sounds, expected)
        return known[name]

    return make


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory):
    """Exported files by tagger and format, each made once."""
    root, models, known = tmp_path_factory.mktemp("exported"), {}, {}

    def export(name: str, format: str) -> Path:
        if format == "onnx":
            needs_onnx()
        if name not in models:
            from fsat.export.ensemble_model import whole_tagger

            tagger = made(name).tagger
            models[name] = whole_tagger([(m.study, m.config, m.model) for m in tagger.members], *tagger.blend)
        if (name, format) not in known:
            known[name, format] = root / f"{name}.{format}"
            facts = facts_of(made(name).tagger, format, made(name).rate)
            write_model(models[name], known[name, format], format, facts)
        return known[name, format]

    return export


def needs_onnx() -> None:
    found = all(importlib.util.find_spec(name) for name in EXTRA)
    needs(found, ", ".join(EXTRA), "pip install '.[export]'")


@pytest.fixture(scope="module")
def recordings(shared) -> list[Path]:
    """A real recording of each of five classes, about 5 s at 44.1 kHz."""
    folder = shared / "data" / "esc10"
    with open(folder / "clips.csv", newline="") as table:
        rows = {row["label"]: row["fname"] for row in csv.DictReader(table)}
    names = [rows[label] for label in sorted(rows)[::2]]
    found = [next(folder.rglob(Path(name).name)) for name in names]
    assert len(found) == 5
    return found


def check_meaningful(expected: np.ndarray) -> None:
    """Scores that are all alike would agree with anything."""
    assert len(set(expected.argmax(axis=1).tolist())) > 1
    assert expected.std(axis=0).max() > 0.05
    assert expected.max(axis=1).mean() > 1.5 / len(LABELS)


def test_every_model_is_among_these_taggers() -> None:
    assert {settings.model for members, *_ in TAGGERS.values() for _, settings in members} == set(MODELS)


@pytest.mark.parametrize("format", EXPORT_FORMATS)
@pytest.mark.parametrize("name", TAGGERS)
def test_sounds_of_every_length_get_the_originals_scores(name, format, made, exported) -> None:
    one = made(name)
    check_meaningful(one.expected)
    score, facts = open_model(exported(name, format), format)
    for sound, expected in zip(one.sounds, one.expected, strict=True):
        scores = score(sound)
        assert scores.shape == (len(LABELS),)
        assert scores.dtype == np.float32
        assert abs(scores - expected).max() < LIMIT / 10, f"{len(sound)} samples"
    assert facts["labels"] == LABELS
    assert facts["sampling_rate"] == one.rate
    assert facts["format"] == format
    assert facts["fsat"] == __version__


@pytest.mark.parametrize("name", TAGGERS)
def test_real_clips_get_the_originals_scores(name, made, exported, recordings) -> None:
    one = made(name)
    clips = [audio.decode(path, one.rate) for path in recordings]
    clips += [clips[0][: one.rate // 3], clips[1][123 : 123 + one.rate // 2], clips[2][: 2 * one.rate + 7]]
    expected, errors = one.tagger.scores([wav(clip, one.rate) for clip in clips])
    assert not any(errors)
    assert expected.std(axis=0).max() > 0.02
    for format in EXPORT_FORMATS:
        score, _ = open_model(exported(name, format), format)
        found = np.stack([score(clip) for clip in clips])
        assert abs(found - expected).max() < LIMIT, format
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).all(), format


@pytest.mark.parametrize(("format", "unwanted"), [
    ("onnx", {"fsat", "keras", "tensorflow", "librosa", "mlflow"}), ("tflite", {"fsat", "librosa", "mlflow"}),
    ("keras", {"fsat", "librosa", "mlflow"}),
])  # fmt: skip
def test_the_documentations_program_scores_any_clip_without_fsat(format, unwanted, made, exported, tmp_path) -> None:
    one = made("geometric")
    program = next(text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"tagger.{format}" in text)
    (tmp_path / f"tagger.{format}").symlink_to(exported("geometric", format))
    sound = one.sounds[0]
    stereo = np.stack([sound + 0.1, 0.5 * sound[::-1]], axis=1)
    (tmp_path / "clip.wav").write_bytes(wav(stereo, 48000))
    read = audio.decode(tmp_path / "clip.wav", one.rate)
    assert len(read) != len(sound)
    (expected,), _ = one.tagger.scores([wav(read, one.rate)])
    program += f"\nimport sys, numpy\nnumpy.save('scores', scores)\nassert not {unwanted} & set(sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scores = np.load(tmp_path / "scores.npy")
    assert abs(scores - expected).max() < LIMIT / 10
    best = expected.argsort()[::-1][:3]
    assert [line.rsplit(" ", 1)[0] for line in done.stdout.splitlines()] == [LABELS[i] for i in best]


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_tflite_has_no_operation_that_phones_lack_and_says_its_labels(exported) -> None:
    import zipfile

    import tensorflow as tf

    path = exported("geometric", "tflite")
    names = {detail["op_name"] for detail in tf.lite.Interpreter(str(path))._get_ops_details()}
    assert not [name for name in names if name.startswith("Flex") or name == "CUSTOM"]
    assert zipfile.ZipFile(path).read("labels.txt").decode().splitlines() == LABELS


def test_onnx_says_its_labels_and_rate_on_their_own(exported) -> None:
    needs_onnx()
    import onnx

    proto = onnx.load(exported("geometric", "onnx"))
    onnx.checker.check_model(proto, full_check=True)
    props = {prop.key: prop.value for prop in proto.metadata_props}
    assert json.loads(props["labels"]) == LABELS
    assert props["sampling_rate"] == "44100"
    assert {node.domain for node in proto.graph.node} == {""}
    assert str(ROOT) not in str(proto.graph.doc_string)


@pytest.mark.parametrize(
    ("rate", "new_rate"), [(44100, 16000), (32000, 16000), (44100, 32000), (48000, 44100), (44100, 8000)]
)
def test_resampling_is_soxrs(rate, new_rate) -> None:
    keras = import_keras()
    import soxr

    from fsat.export.frontend import Signal, length_of
    from fsat.export.resampling import resampled

    given = keras.Input(batch_shape=(None,))
    signal = resampled(Signal(given, length_of(given), given), rate, new_rate)
    model = keras.Model(given, [signal.samples, signal.n])
    rng = np.random.default_rng(0)
    for n in (7, 100, 777, 30001):
        noise = rng.uniform(-1, 1, n).astype(np.float32)
        samples, length = (np.asarray(part) for part in model(noise))
        expected = soxr.resample(noise, rate, new_rate, quality="HQ")
        assert length == len(expected), n
        assert abs(samples[:length] - expected).max() < 1e-5, n
        assert not samples[length:].any()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 33])
def test_crops_start_where_numpy_rounds_to(count) -> None:
    keras = import_keras()
    from fsat.export.frontend import even_starts, length_of, part

    given = keras.Input(batch_shape=(None,))
    which = keras.ops.zeros_like(part(given, 0, 1), dtype="int32") + np.arange(count, dtype=np.int32)
    model = keras.Model(given, even_starts(length_of(given), 50, which, count))
    for n in (*range(1, 150), 12345, 99991):
        starts = audio.even_starts(n, 50, count)
        expected = starts if len(starts) == count else starts * count
        assert np.asarray(model(np.zeros(n, np.float32))).tolist() == expected, n


def test_a_member_in_bfloat16_is_exported_as_it_is_in_float32(made, tmp_path, monkeypatch) -> None:
    one = made("conv2d_mfcc")
    facts = json.loads((one.folder / "tagger.json").read_text())
    facts["members"][0]["config"]["precision"] = "auto"
    (one.folder / "tagger.json").rename(one.folder / "kept.json")
    try:
        monkeypatch.setattr("fsat.models.precision.machine_has_bfloat16", lambda: True)
        (one.folder / "tagger.json").write_text(json.dumps(facts))
        tagger = Tagger(one.folder)
    finally:
        (one.folder / "kept.json").rename(one.folder / "tagger.json")
    assert any("bfloat16" in layer.dtype_policy.name for layer in tagger.members[0].model.layers)
    exact = tagger.in_float32()
    assert {layer.compute_dtype for layer in exact.members[0].model.layers} == {"float32"}
    scores, _ = exact.scores([wav(sound, one.rate) for sound in one.sounds])
    np.testing.assert_array_equal(scores, one.expected)


def test_rates_without_a_common_measure_are_one_line() -> None:
    import_keras()
    from fsat.export.resampling import measured_filter

    with pytest.raises(ConfigError) as error:
        measured_filter(44101, 44100)
    assert one_line(error.value) == (
        "members at 44101 and 44100 Hz: the rates have no common measure that a model could resample by; export one "
        "member alone (members=STUDY/FOLD)"
    )


@pytest.mark.parametrize(("format", "name", "message"), [
    ("mp3", "tagger.mp3", "format=mp3: no such format; there are onnx, tflite, keras"),
    ("onnx", "tagger.txt", "output=tagger.txt: expected a name that ends in .onnx"),
])  # fmt: skip
def test_what_cannot_be_written_is_said_at_once(format, name, message) -> None:
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
    """A tagger of three members as the champion in a store of its own; the folder that it is worked in."""
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
    assert facts["labels"] == LABELS
    assert facts["members"] == ["a/0", "b/1", "a/2"]
    assert facts["source"] == "models:/fsat/1"
    assert facts["difference"]["n_clips"] == 4
    assert facts["difference"]["greatest"] < LIMIT / 10

    (tagged,) = runs_of_export()
    assert tagged.info.run_id == facts["export_run"]
    assert tagged.info.status == "FINISHED"
    assert tagged.data.params["format"] == "tflite"
    assert tagged.data.tags["fsat.tagger_run"] == facts["tagger_run"] != ""
    assert tagged.data.metrics["difference"] == facts["difference"]["greatest"]
    assert tagged.data.metrics["n_checked"] == 4
    kept = mlflow.artifacts.download_artifacts(run_id=tagged.info.run_id, artifact_path="t.tflite")
    assert Path(kept).read_bytes() == (registered / "out" / "t.tflite").read_bytes()

    sound = sounds_at(22050)[0]
    expected, _ = mlflow.pyfunc.load_model("models:/fsat@champion").get_raw_model().scores([wav(sound, 22050)])
    assert abs(score(sound) - expected[0]).max() < LIMIT


def test_one_member_is_exported_alone(registered) -> None:
    assert run(["export", "--format", "keras", "--model", "champion", "--members", "b/1"]) == 0
    facts = json.loads((registered / "tagger.keras.json").read_text())
    assert facts["members"] == ["b/1"]
    assert facts["sampling_rate"] == 22050
    assert facts["difference"]["n_clips"] > 8
    tagger = mlflow.pyfunc.load_model("models:/fsat/1").get_raw_model().only("b/1")
    sound = sounds_at(22050)[1]
    score, _ = open_model(registered / "tagger.keras", "keras")
    assert abs(score(sound) - tagger.scores([wav(sound, 22050)])[0][0]).max() < LIMIT


def test_an_export_that_scores_otherwise_is_not_left(registered, capsys, monkeypatch) -> None:
    from fsat.export import frontend

    real = frontend.even_starts
    monkeypatch.setattr(frontend, "even_starts", lambda n, length, which, count: real(n, length, which, count) // 2)
    before = sorted(os.listdir(registered))
    assert run(["export", "--format", "tflite"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"fsat: error: format=tflite: a score is off by \S+ on .*, expected at most 0.001; nothing was written: .*",
        error,
    )
    assert sorted(os.listdir(registered)) == before
    assert runs_of_export()[0].info.status == "FAILED"


@pytest.mark.parametrize(("options", "message"), [
    (["--members", "c/7"], "members=c/7: no member c/7; there are a/0, b/1, a/2"),
    (["--check", "nowhere"], "check=nowhere: no such file or folder"),
    (["--check", "taggers"], "check=taggers: no .wav, .flac, .ogg, .mp3 files in it"),
    (["--check", "broken.wav"], "check=broken.wav: no clip in it can be used, first broken.wav: "),
    (["--model", "models:/other@champion"], "model=models:/other@champion: cannot be loaded from "),
])  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(registered, options, message, capsys) -> None:
    (registered / "taggers").mkdir(exist_ok=True)
    (registered / "broken.wav").write_bytes(b"RIFF")
    assert run(["export", "--format", "tflite", "--output", "no.tflite", *options]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"fsat: error: {message}")
    assert not [name for name in os.listdir(registered) if "no.tflite" in name]
