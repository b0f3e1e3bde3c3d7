"""Write and open taggers as ONNX, TensorFlow Lite and Keras files.

Conventions: the model has one input, ``waveform``, float32 (n_samples,), and one output, ``scores``, float32
(n_classes,). Its facts (labels, sampling rate, ...) are JSON values stored in the file under the name `EXPORTED`: in
ONNX's metadata, where ``labels`` and ``sampling_rate`` are entries too; in Keras's ZIP archive; and in one at the end
of a TensorFlow Lite file, as its own metadata would be. The archives also contain ``labels.txt``.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from fsat.backbones.file_facts import EXPORTED
from fsat.config import Config
from fsat.data.audio import decode
from fsat.data.audio_files import walk
from fsat.data.synth import SYNTHESISERS, synthesise
from fsat.errors import AudioError, DataError, FsatError, count, printable
from fsat.export.convert import Function, to_onnx, to_tflite
from fsat.export.networks import INPUT, OUTPUT, Halves
from fsat.models import import_keras, quiet_stderr
from fsat.options import LONGEST_CLIP
from fsat.tagging import Tagger

EXTRA = ("onnx", "onnxruntime", "tf2onnx")
"""Packages that ONNX needs."""

Scorer = Callable[[np.ndarray], np.ndarray]
"""Maps a waveform, float32 (n_samples,), to scores, float32 (n_classes,)."""


def check_packages(format: str) -> None:
    """Raise `FsatError` if a package that the format needs is missing."""
    missing = [name for name in EXTRA if format == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise FsatError(f"format=onnx: {', '.join(missing)} not installed; `pip install '.[export]'` in the clone")


def write_model(model: Any, path: Path, format: str, facts: Mapping[str, Any]) -> None:
    """Write what `fsat.export.ensemble_model.exported_model` returns for one of `fsat.model_presets.EXPORT_FORMATS`.

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
        archive.writestr(EXPORTED, json.dumps(facts, indent=2) + "\n")
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in facts["labels"]))


def _write_onnx(model: Any, path: Path, facts: Mapping[str, Any]) -> None:
    import onnx

    if isinstance(model, Halves):
        from fsat.export.merge_onnx import merge

        proto = merge(model)
    else:
        proto = to_onnx(whole(model), {INPUT: (None,)})
    proto.producer_name, proto.producer_version = "fsat", str(facts.get("fsat", ""))
    entries = {name: json.dumps(facts[name]) for name in ("labels", "sampling_rate")}
    onnx.helper.set_model_props(proto, entries | {EXPORTED: json.dumps(facts)})
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _write_tflite(model: Any, path: Path) -> None:
    if isinstance(model, Halves):
        from fsat.export.merge_tflite import merge

        path.write_bytes(merge(model))
    else:
        path.write_bytes(to_tflite(whole(model), {INPUT: (None,)}))


def whole(model: Any) -> Function:
    """Return a model from a waveform to scores as a function."""
    return lambda waveform: {OUTPUT: model(waveform, training=False)}


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
        facts = json.loads(session.get_modelmeta().custom_metadata_map[EXPORTED])
        return lambda waveform: session.run([OUTPUT], {INPUT: waveform})[0], facts
    score = _open_tflite(path, threads) if format == "tflite" else _open_keras(path)
    with zipfile.ZipFile(path) as archive:
        return score, json.loads(archive.read(EXPORTED))


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


LIMIT, MAX_FILES, MAX_SECONDS = 1e-3, 200, 30.0
"""Maximum difference of a score; number of files of a folder, evenly spaced in larger ones; length of a clip."""

Clip = tuple[str, np.ndarray]
"""A clip's name and its samples, float32 (n_samples,)."""


@dataclass(frozen=True)
class Difference:
    """Differences between the scores of an export and of its tagger.

    Attributes:
        greatest, mean, clip: absolute difference of a score, and name of the clip with the greatest one.
        same_best: share of clips with the same top label.
        as_tagged_here: greatest difference between the tagger on this machine, possibly in bfloat16, and in float32.
    """

    greatest: float
    mean: float
    clip: str
    same_best: float
    as_tagged_here: float
    n_clips: int


def generate_clips(configs: Sequence[Config], rate: int) -> Iterator[Clip]:
    """Generate noise, tones, sounds and silence, of lengths around those of the members' crops, at `rate` Hz."""
    longest = round(MAX_SECONDS * rate)
    lengths = {1, rate // 2 + 1, min(12 * rate + 7, longest)}
    for config in configs:
        for seconds in (config.audio_duration, max(config.audio_duration, config.eval_duration)):
            crop = round(seconds * rate)
            long = round((config.eval_crops + 1.5) * crop)  # needs more than `eval_crops`
            lengths |= {crop // 3, crop - 1, crop, crop + 1, 2 * crop + 1, round(3.7 * crop), long}
    rng = np.random.default_rng(1001)
    kinds = cycle(["noise", "tone", *(SYNTHESISERS if rate >= 8000 else ())])
    for n, kind in zip(sorted(min(max(n, 1), longest) for n in lengths), kinds, strict=False):
        clip: np.ndarray
        if kind == "noise" or n <= rate // 10:
            kind, clip = "noise", rng.uniform(-0.5, 0.5, n)
        elif kind == "tone":
            clip = 0.5 * np.sin(2 * np.pi * 440 * np.arange(n) / rate)
        else:
            clip = synthesise(kind, n / rate, rate, rng)
        yield f"{kind}, {count(n, 'sample')}", clip.astype(np.float32)
    yield "silence", np.zeros(rate, np.float32)


def find_files(path: Path) -> list[Path]:
    """Return a file, or at most `MAX_FILES` audio files of a folder and its subfolders; raise `DataError` if none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"check={printable(path)}: no such file or folder")
    files = sorted(path / name for name in walk(path))
    if not files:
        raise DataError(f"check={printable(path)}: no audio files in it")
    return files[:: -(-len(files) // MAX_FILES)]


def read_clips(path: Path, rate: int) -> Iterator[Clip]:
    """Decode the clips of `find_files` at `rate` Hz, without unusable ones; raise `DataError` if none is usable."""
    errors, files = list[str](), find_files(path)
    for file in files:
        try:
            yield printable(file.name), decode(file, rate, LONGEST_CLIP)
        except AudioError as error:
            errors.append(f"{printable(file.name)}: {error}")
    if len(errors) == len(files):
        raise DataError(f"check={printable(path)}: no usable clips, first error: {errors[0]}")


def compare(score: Scorer, exact: Tagger, tagger: Tagger, clips: Iterable[Clip], rate: int) -> Difference:
    """Compare the scores of an exported model with those of the tagger in float32 (`exact`) and on this machine.

    `clips` has at least one clip; their rate is in Hz.
    """
    import soundfile as sf

    rows, names = [], []
    for name, clip in clips:
        wav = io.BytesIO()
        sf.write(wav, clip, rate, format="WAV", subtype="FLOAT")
        expected, here = _score(exact, wav.getvalue()), _score(tagger, wav.getvalue())
        received = score(clip)
        errors = np.abs(received.astype(np.float64) - expected)
        greatest = np.inf if np.isnan(errors).any() else errors.max()
        same_best = received.argmax() == expected.argmax()
        rows.append((greatest, errors.mean(), same_best, np.abs(here - expected).max()))
        names.append(name)
    greatest, means, best, heres = np.array(rows, dtype=np.float64).T
    worst = int(greatest.argmax())
    facts = float(means.mean()), names[worst], float(best.mean()), float(heres.max()), len(rows)
    return Difference(float(greatest[worst]), *facts)


def _score(tagger: Tagger, wav: bytes) -> np.ndarray:
    """Return the scores of a clip, also of a silent one: an exported model has scores for silence too."""
    clip = tagger.decode(wav)
    if isinstance(clip, AudioError):
        raise ValueError(f"the tagger cannot score a decoded clip: {clip}")
    (scores,), _ = tagger.scores_of([replace(clip, is_silent=False)])
    return scores
