"""Exported taggers score clips as the original does, in every format, from the waveform on."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT
from helpers import error_line, read_csv, tone, write_wav
from servers import needs
from stores import artifacts

from fsat import __version__
from fsat.cli import run
from fsat.commands.export import check_output, facts_of
from fsat.config import Config
from fsat.data import audio
from fsat.data.decoded_clips import Clips
from fsat.data.mfcc import fixed_crops
from fsat.data.synth import synthesise
from fsat.errors import ConfigError, FsatError
from fsat.export.formats import EXTRA, check_packages, open_model, write_model
from fsat.metrics.blending import Blended
from fsat.metrics.scaling import UNSCALED, Scaling
from fsat.metrics.sigmoid_blending import BlendedSigmoids
from fsat.model_presets import BLENDS, EXPORT_FORMATS, MODELS
from fsat.models import build, import_keras, save_weights
from fsat.tagging import MemberFiles, Tagger, write
from fsat.tracking.registry import Score, register
from fsat.training.predict_clips import Predictor

LABELS = ["$x^2$ | `a`", "12", '<b>bold</b> & "q"', "Clock tick", "Crackle, pop", "犬 の声"]
LIMIT = 1e-3
PAGE = (ROOT / "docs" / "export.md").read_text()


def config(model: str, **options) -> Config:
    usual = {"precision": "float32", "audio_duration": 0.5, "batch_size": 8}
    return Config.resolve({"model": model, **usual, **options})


DUMMY = ("a", config("dummy1d", eval_crops=2))
TAGGERS = {
    "one member": [("a", config("cnn_logmel"))],
    "geometric": [DUMMY, ("b", config("conv2d_mfcc", eval_crops=1)), DUMMY,
                  ("c", config("cnn_logmel", eval_duration=1.7))],
    "arithmetic": [("a", config("cnn_logmel", sampling_rate=22050, eval_duration=0)),
                   ("b", config("dummy1d", eval_crops=5))],
    "weighted": [("a", config("conv1d", sampling_rate=11025)), ("b", config("conv2d_mfcc"))],
}  # fmt: skip
"""Study and Config of each member; and how they are blended, if not by the geometric mean."""
WEIGHTS = {"a": 0.8, "b": 0.2}
HOW = {"arithmetic": {"blend": "arithmetic"}, "weighted": {"blend": "weighted", "study_weights": WEIGHTS}}
SIGMOIDS = [("a", config("conv1d", sampling_rate=8000, task="multi")), ("b", config("dummy1d", task="multi"))]
PLATT = Scaling("platt", slopes=(0.5, 2.0, 1.0, 1.5, 0.8, 1.2), offsets=(1.0, -2.0, 0.0, 0.5, -0.3, 0.1))
TEMPERATURE = Scaling("temperature", 2.5)


FIFTY = {"sampling_rate": 100, "audio_duration": 0.5}
"""Of crops of 50 samples."""


class Example(NamedTuple):
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


def long_sounds_at(rate: int) -> list[np.ndarray]:
    """13.5 s of a tone with 0.5 s of noise at the start, in the middle and at the end; the same without the tone."""
    with_tone, rng = tone(440, 13.5, rate), np.random.default_rng(8)
    sounds = [with_tone, np.zeros_like(with_tone)]
    for start in (0, len(with_tone) // 2 - rate // 4, len(with_tone) - rate // 2):
        noise = rng.uniform(-0.5, 0.5, rate // 2)
        for sound in sounds:
            sound[start : start + len(noise)] = noise
    return sounds


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


def write_tagger(folder: Path, members: list[tuple[str, Config]], **blend) -> Path:
    folder.mkdir()
    files, rng = [], np.random.default_rng(3)
    for fold, (study, settings) in enumerate(members):
        model = build(settings, len(LABELS))
        make_confident(model, settings, sounds_at(settings.sampling_rate), rng)
        files.append(MemberFiles(study, fold, settings, folder.parent / f"{folder.name}{fold}.weights.h5"))
        save_weights(model, files[-1].weights)
    write(folder, files, LABELS, **blend)
    return folder


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("signals")]  # commands run in this process


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Callable[[str], Example]:
    """Make a tagger by name, once."""
    assert {member.model for members in TAGGERS.values() for _, member in members} == set(MODELS) - {"embedding"}
    root = tmp_path_factory.mktemp("taggers")

    @cache
    def make(name: str) -> Example:
        folder = write_tagger(root / name, TAGGERS[name], **HOW.get(name, {}))
        tagger = Tagger(folder)
        rate = tagger.rates[-1]
        sounds = sounds_at(rate) + long_sounds_at(rate)
        return Example(folder, tagger, rate, sounds, score_all(tagger, sounds, rate))

    return make


def score_all(tagger: Tagger, clips: list[np.ndarray], rate: int) -> np.ndarray:
    heard = [tagger.decode(wav(clip, rate)) for clip in clips]
    scores, errors = tagger.scores_of([replace(clip, is_silent=False) for clip in heard])
    assert not any(errors)
    return scores


@pytest.fixture(scope="module")
def exported(example, tmp_path_factory) -> Callable[[str, str], Path]:
    """Export a tagger by name and format, once."""
    from fsat.export.ensemble_model import ensemble_model

    root = tmp_path_factory.mktemp("exported")
    model_of = cache(lambda name: ensemble_model(example(name).tagger))

    @cache
    def export(name: str, format: str) -> Path:
        if format == "onnx":
            needs(all(map(importlib.util.find_spec, EXTRA)), ", ".join(EXTRA), "pip install '.[export]'")
        path = root / f"{name}.{format}"
        write_model(model_of(name), path, format, facts_of(example(name).tagger, format))
        return path

    return export


@pytest.mark.parametrize("format", EXPORT_FORMATS)
@pytest.mark.parametrize("name", TAGGERS)
def test_sounds_of_every_length_have_the_taggers_scores(name, format, example, exported) -> None:
    original = example(name)
    assert len(set(original.scores.argmax(axis=1).tolist())) > 1  # equal scores of all sounds would prove nothing
    assert original.scores.std(axis=0).max() > 0.05
    assert original.scores.max(axis=1).mean() > 1.5 / len(LABELS)
    assert abs(original.scores[-1] - original.scores[-2]).max() > LIMIT  # what lies between the equal parts counts
    score, facts = open_model(exported(name, format), format)
    for sound, expected in zip(original.sounds, original.scores, strict=True):
        scores = score(sound)
        assert (scores.shape, scores.dtype) == ((len(LABELS),), np.float32)
        assert abs(scores - expected).max() < LIMIT / 10, f"{len(sound)} samples"
    expected = {"labels": LABELS, "sampling_rate": original.rate, "format": format, "fsat": __version__}
    assert expected.items() <= facts.items()


@pytest.mark.parametrize("method", BLENDS)
@pytest.mark.parametrize(("blended", "scaling"), [
    (BlendedSigmoids, UNSCALED), (BlendedSigmoids, PLATT), (Blended, TEMPERATURE),
])  # fmt: skip
def test_scores_are_blended_and_scaled_as_the_tagger_does(blended, scaling, method) -> None:
    """Of three members of two studies, up to scores of 0 and 1."""
    keras = import_keras()
    from fsat.export import ensemble_model

    rng = np.random.default_rng(0)
    scores = rng.uniform(size=(3, 200, len(LABELS))) ** rng.choice([0.01, 1, 3, 20], (3, 200, 1))
    scores[0, :9] = scores[1, :5] = scores[2, 3:12] = rng.integers(0, 2, (1, len(LABELS)))
    if blended is Blended:
        scores = np.maximum(scores, 1e-30) / np.maximum(scores, 1e-30).sum(axis=2, keepdims=True)
    scores = scores.astype(np.float32)
    weights = np.array(list(WEIGHTS.values())) if method == "weighted" else None
    expected = scaling.apply(blended([[scores[0], scores[1]], [scores[2]]], method, weights).fill())

    inputs = [keras.Input((), batch_size=len(LABELS)) for _ in scores]
    blend = ensemble_model._blend if blended is Blended else ensemble_model._blend_sigmoids
    total = blend({"a": inputs[:2], "b": inputs[2:]}, method, WEIGHTS)
    model = keras.Model(inputs, ensemble_model._scale(total, scaling))
    received = np.stack([np.asarray(model(list(rows))) for rows in scores.swapaxes(0, 1)])
    assert abs(received - expected).max() < 2e-5
    assert expected.std(axis=0).min() > 0.05


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Example:
    """A tagger that gives a sound any number of labels, with scaled scores."""
    folder = tmp_path_factory.mktemp("several") / "tagger"
    thresholds = [0.1 * (1 + i) for i in range(len(LABELS))]
    tagger = Tagger(write_tagger(folder, SIGMOIDS, scaling=PLATT, thresholds=thresholds))
    rate, sounds = tagger.rates[-1], sounds_at(tagger.rates[-1])
    example, tagger.scaling = Example(folder, tagger, rate, sounds, score_all(tagger, sounds, rate)), UNSCALED
    assert abs(score_all(tagger, sounds, rate) - example.scores).max() > 0.1  # the scaling counts
    tagger.scaling = PLATT
    return example


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_scores_of_several_labels_are_those_of_the_tagger(format, several, tmp_path) -> None:
    from fsat.export.ensemble_model import ensemble_model

    if format == "onnx":
        needs(all(map(importlib.util.find_spec, EXTRA)), ", ".join(EXTRA), "pip install '.[export]'")
    path, tagger = tmp_path / f"tagger.{format}", several.tagger
    write_model(ensemble_model(tagger), path, format, facts_of(tagger, format))
    score, facts = open_model(path, format)
    received = np.stack([score(sound) for sound in several.sounds])
    assert abs(received - several.scores).max() < LIMIT / 10
    assert abs(received.sum(axis=1) - 1).max() > 0.5
    assert (facts["task"], facts["scaling"]) == ("multi", PLATT.to_dict())
    assert "do not sum to 1" in facts["output"]
    assert facts["thresholds"] == dict(zip(LABELS, tagger.thresholds.tolist(), strict=True))


def test_real_clips_have_the_taggers_scores(example, exported, shared) -> None:
    """A recording of each of five classes, and parts of them."""
    original, folder = example("geometric"), shared / "data" / "esc10"
    names, rate = {row["label"]: row["fname"] for row in read_csv(folder / "clips.csv")}, original.rate
    clips = [audio.decode(next(folder.rglob(Path(names[label]).name)), rate) for label in sorted(names)[::2]]
    clips += [clips[0][: rate // 3], clips[1][123 : 123 + rate // 2], clips[2][: 2 * rate + 7]]
    expected = score_all(original.tagger, clips, rate)
    assert expected.std(axis=0).max() > 0.02
    for format in EXPORT_FORMATS:
        score, _ = open_model(exported("geometric", format), format)
        scores = np.stack([score(clip) for clip in clips])
        assert abs(scores - expected).max() < LIMIT, format
        assert (scores.argmax(axis=1) == expected.argmax(axis=1)).all(), format


@pytest.mark.parametrize("formats", [["onnx"], ["tflite", "keras"]], ids="-".join)
def test_programs_of_the_documentation_score_clips_without_fsat(formats, example, exported, tmp_path) -> None:
    original = example("geometric")
    unwanted = {"fsat", "librosa", "mlflow", *(("keras", "tensorflow") if formats == ["onnx"] else ())}
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    texts = {format: next(text for text in programs if f"tagger.{format}" in text) for format in formats}
    code = "import sys, numpy\n"
    for format in formats:
        (tmp_path / f"tagger.{format}").symlink_to(exported("geometric", format))
        code += f"exec({texts[format]!r}, names := {{}})\nnumpy.save('{format}', names['scores'])\n"
    refused = write_bad_clips(tmp_path)
    for name, format in itertools.product(refused, formats):
        program = texts[format].replace("clip.wav", name)
        code += f"try:\n    exec({program!r}, {{}})\nexcept SystemExit as reason:\n    print(reason, file=sys.stderr)\n"
    code += f"assert not {unwanted} & set(sys.modules)\n"
    sound = original.sounds[0]
    stereo = np.stack([sound + 0.1, 0.5 * sound[::-1]], axis=1)
    (tmp_path / "clip.wav").write_bytes(wav(stereo, 48000))
    clip = audio.decode(tmp_path / "clip.wav", original.rate)
    assert len(clip) != len(sound)
    (expected,) = score_all(original.tagger, [clip], original.rate)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for format in formats:
        assert abs(np.load(tmp_path / f"{format}.npy") - expected).max() < LIMIT / 10, format
    best = [LABELS[i] for i in expected.argsort()[::-1][:3]]
    assert [line.rsplit(" ", 1)[0] for line in done.stdout.splitlines()] == best * len(formats)
    reasons = [line for line in done.stderr.splitlines() if line.partition(":")[0] in refused]
    assert [line.partition(":")[0] for line in reasons] == [name for name in refused for _ in formats]
    assert all(refused[line.partition(":")[0]] in line for line in reasons), reasons


def write_bad_clips(folder: Path) -> dict[str, str]:
    """Write clips that no tagger should be asked about; return by name what a program says of each."""
    sound = tone(440, 0.5, 44100)
    clips = {
        "nan.wav": (np.where(np.arange(len(sound)) == 7, np.nan, sound), "a peak of nan"),
        "infinite.wav": (np.where(np.arange(len(sound)) == 7, np.inf, sound), "22050 samples"),
        "integers.wav": (sound * 32768, "a peak of 1638"),
        "nothing.wav": (sound[:0], "0 samples"),
        "silence.wav": (0 * sound, "a peak of 0"),
        "last bit.wav": (np.sign(sound) / 32768, "a peak of 3"),
        "cancelled.wav": (np.stack([sound, -sound], axis=1), "a peak of 0"),
        "long.wav": (np.zeros(601 * 100, np.float32), "601 s, expected at most 600 s"),
    }
    for name, (samples, _) in clips.items():
        write_wav(folder / name, samples.astype(np.float32), 100 if name == "long.wav" else 44100, "FLOAT")
    return {name: words for name, (_, words) in clips.items()}


@pytest.mark.parametrize("format", EXPORT_FORMATS)
@pytest.mark.parametrize("name", ["one member", "geometric"])
def test_what_is_no_sound_gets_no_label(name, format, example, exported) -> None:
    """Nothing is an error, even after sounds; NaN and infinite samples reach every score."""
    score, _ = open_model(exported(name, format), format)
    original = example(name)
    sound = original.sounds[0]
    for bad in (np.full_like(sound, np.nan), np.where(np.arange(len(sound)) == 5, np.inf, sound).astype(np.float32),
                np.where(np.arange(len(sound)) == len(sound) - 1, np.nan, sound).astype(np.float32)):  # fmt: skip
        assert not np.isfinite(score(bad)).any()
    with pytest.raises(Exception, match=r"\w"):  # each runtime has its own; Keras in a graph gives NaN
        assert np.isfinite(score(np.zeros(0, np.float32))).any()
    assert abs(score(sound) - original.scores[0]).max() < LIMIT


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_tflite_has_only_built_in_operations_and_contains_its_labels(exported) -> None:
    import tensorflow as tf

    path = exported("geometric", "tflite")
    names = {detail["op_name"] for detail in tf.lite.Interpreter(str(path))._get_ops_details()}
    assert not [name for name in names if name.startswith("Flex") or name == "CUSTOM"]
    assert zipfile.ZipFile(path).read("labels.txt").decode().splitlines() == LABELS


def test_onnx_has_metadata_entries_for_labels_and_rate(exported) -> None:
    path = exported("geometric", "onnx")
    import onnx

    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    props = {prop.key: prop.value for prop in proto.metadata_props}
    assert (json.loads(props["labels"]), props["sampling_rate"]) == (LABELS, "44100")
    assert {node.domain for node in proto.graph.node} == {""}
    assert str(ROOT) not in str(proto.graph.doc_string)


@pytest.mark.parametrize(
    ("rate", "new_rate"), [(44100, 16000), (32000, 16000), (44100, 32000), (48000, 44100), (44100, 8000)]
)
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


def test_crops_start_where_numpy_rounds_to() -> None:
    keras = import_keras()
    import tensorflow as tf

    from fsat.export.crops import Crops, count_crops, even_starts
    from fsat.export.frontend import length_of, slice_first

    waveform, n_most = keras.Input(batch_shape=(None,)), 130
    zero = keras.ops.zeros_like(slice_first(waveform, 0, 1), dtype="int32")
    n, numbers = length_of(waveform), zero + np.arange(n_most, dtype=np.int32)
    all_counts = {least: count_crops(n, 50, 50, least) for least in (1, 2, 3, 4, 7, 33)}
    outputs = [[count, even_starts(n, 50, Crops(numbers, count))] for count in all_counts.values()]
    starts_of = tf.function(keras.Model(waveform, outputs), input_signature=[tf.TensorSpec([None])])
    for n_samples in (*range(1, 150), 5003, 6499):
        for least, (count, starts) in zip(all_counts, starts_of(np.zeros(n_samples, np.float32)), strict=True):
            expected = fixed_crops(np.array([n_samples]), config("dummy1d", **FIFTY, eval_crops=least)).starts.tolist()
            assert int(count) == len(expected)
            assert starts.numpy()[: len(expected)].tolist() == expected, (n_samples, least)
            assert set(starts.numpy()[len(expected) :].tolist()) <= {expected[-1]}


def test_a_member_in_bfloat16_is_exported_in_float32(example, tmp_path, monkeypatch) -> None:
    original = example("one member")
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


def test_unsupported_rates_wrong_outputs_and_a_missing_package_are_one_line(monkeypatch) -> None:
    import_keras()
    from fsat.export.frontend import measure_filter

    line = error_line(ConfigError, measure_filter, 44101, 44100)
    assert line.startswith("members at 44101 and 44100 Hz: expected sampling rates in a ratio of small ")
    line = error_line(FsatError, check_output, "mp3", Path("tagger.mp3"))
    assert line == "format=mp3: expected one of onnx, tflite, keras"
    line = error_line(FsatError, check_output, "onnx", Path("tagger.txt"))
    assert line == "output=tagger.txt: expected a name that ends in .onnx"
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else find(name))
    check_packages("tflite")
    line = error_line(FsatError, check_packages, "onnx")
    assert line == "format=onnx: tf2onnx not installed; `pip install '.[export]'` in the clone"


@pytest.fixture(scope="module")
def registered(store, tmp_path_factory) -> Path:
    """Register a tagger of three members as the champion; return the working folder, which has some clips."""
    conv1d, dummy1d = config("conv1d", sampling_rate=11025), config("dummy1d", sampling_rate=22050)
    members = [("a", conv1d), ("b", dummy1d), ("a", conv1d)]
    folder = write_tagger(tmp_path_factory.mktemp("registered") / "tagger", members)
    with mlflow.start_run():
        register("fsat", folder, LABELS, Score(0.5, 10), "dataset", "always", "blend")
    for i, sound in enumerate(sounds_at(22050)[:4]):
        write_wav(store / "clips" / f"{i}.wav", sound, 22050)
    return store


def export_runs() -> list[mlflow.entities.Run]:
    return mlflow.MlflowClient().search_runs(["0"], "tags.`fsat.stage` = 'export'", order_by=["start_time DESC"])


def test_export_leaves_a_file_its_description_and_a_run(registered, capsys) -> None:
    (registered / "clips" / "broken.wav").write_bytes(b"RIFF")
    assert run(["export", "--format", "tflite", "--output", "out/t.tflite", "--check", "clips"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "out/t.tflite"
    facts = json.loads((registered / "out" / "t.tflite.json").read_text())
    _, inside = open_model(registered / "out" / "t.tflite", "tflite")
    assert inside.items() <= facts.items()
    assert (facts["labels"], facts["members"]) == (LABELS, ["a/0", "b/1", "a/2"])
    assert (facts["source"], facts["difference"]["n_clips"]) == ("models:/fsat/1", 4)
    assert facts["difference"]["greatest"] < LIMIT / 10

    (export_run,) = export_runs()
    assert (export_run.info.run_id, export_run.info.status) == (facts["export_run"], "FINISHED")
    assert export_run.data.params["format"] == "tflite"
    assert export_run.data.tags["fsat.tagger_run"] == facts["tagger_run"] != ""
    metrics = export_run.data.metrics
    assert (metrics["difference"], metrics["n_checked"]) == (facts["difference"]["greatest"], 4)
    logged = artifacts(export_run.info.run_id) / "t.tflite"
    assert logged.read_bytes() == (registered / "out" / "t.tflite").read_bytes()


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
    from fsat.export import crops

    real = crops.even_starts
    monkeypatch.setattr(crops, "even_starts", lambda *args: real(*args) // 2)
    before = sorted(os.listdir(registered))
    assert run(["export", "--format", "tflite", "--check", "clips"]) == 1
    line = r"fsat: error: format=tflite: a score differs by \S+ on .*, expected at most 0.001; nothing was written: .*"
    assert re.fullmatch(line, capsys.readouterr().err.splitlines()[-1])
    assert sorted(os.listdir(registered)) == before
    assert export_runs()[0].info.status == "FAILED"


@pytest.mark.parametrize(("options", "message"), [
    (["--members", "c/7"], "members=c/7: no member c/7; expected a/0, b/1, a/2"),
    (["--check", "nowhere"], "check=nowhere: no such file or folder"),
    (["--check", "taggers"], "check=taggers: no audio files in it"),
    (["--check", "broken.wav"], "check=broken.wav: no usable clips, first error: broken.wav: "),
    (["--model", "models:/other@champion"], "model=models:/other@champion: cannot be loaded from "),
])  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(registered, options, message, capsys) -> None:
    (registered / "taggers").mkdir(exist_ok=True)
    (registered / "broken.wav").write_bytes(b"RIFF")
    assert run(["export", "--format", "tflite", "--output", "no.tflite", *options]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"fsat: error: {message}")
    assert not [name for name in os.listdir(registered) if "no.tflite" in name]
