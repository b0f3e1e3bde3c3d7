"""Exported taggers, ONNX and TensorFlow Lite, against `fsat.tagging.Tagger`: clips scored one by one."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Row, Section, alternate, call, samples

CLIPS, FOLDS, CLASSES = 100, 3, 41
WARM_UP = 3
"""Clips scored before the time counts: functions are traced and memory is planned at the first ones."""

TAGGERS = {
    "conv1d": ("conv1d",),
    "conv2d_mfcc": ("conv2d_mfcc",),
    "cnn_logmel": ("cnn_logmel",),
    "all three": ("conv1d", "conv2d_mfcc", "cnn_logmel"),
}
"""Models whose studies of `FOLDS` folds each make a tagger; the last one's members differ in sampling rate."""

LIMIT = 1e-3
NEEDS = ("onnx", "onnxruntime", "tf2onnx")


def run(bench: Bench) -> Section:
    """Score the same clips by each."""
    n_clips, folds = bench.pick(CLIPS, 4), bench.pick(FOLDS, 1)
    rows: list[Row] = []
    for name, models in bench.pick(TAGGERS, {"all three": TAGGERS["all three"]}).items():
        folder = bench.folder / name.replace(" ", "_")
        made = call("benchmarks.export:make", data_dir=str(bench.data_dir), folder=str(folder), models=models,
                    folds=folds, n_clips=n_clips)  # fmt: skip
        sides = {
            side: partial(call, f"benchmarks.export:{function}", folder=str(folder), rate=made["rate"], kind=side)
            for side, function in (("fsat", "original"), ("onnx", "exported"), ("tflite", "exported"))
        }
        found = alternate(bench.repeats, sides)
        fsat = f"fsat, {found['fsat'][0]['precision']}"
        for side in ("onnx", "tflite"):
            first, second = (
                samples(side, found[side], "rate", "clips/s"),
                samples(fsat, found["fsat"], "rate", "clips/s"),
            )
            rows.append(Row(f"{name}: clips one by one", first, second))
        for side in ("onnx", "tflite"):
            first, second = samples(side, found[side], "load", "s"), samples(fsat, found["fsat"], "load", "s")
            rows.append(Row(f"{name}: opening it", first, second))
        for side in ("onnx", "tflite"):
            off = samples(side, found[side], "difference", "")
            rows.append(Row(f"{name}: greatest difference of a score", off, at_most=LIMIT))
    notes = [
        f"{made['n_clips']} real clips of about 5 s; taggers of {folds} folds a study with weights of chance, whose "
        f"last layer is scaled so that scores are sure of themselves, {CLASSES} classes. All sides are given the same "
        "samples, at the highest rate of the members, and score one clip after the other: decoding is in no side's "
        "time, resampling for members at lower rates in every side's. fsat takes the samples as a WAV file in memory, "
        f"which it reads in less than a millisecond. {WARM_UP} clips are scored before. Exports use as many threads as "
        "there are cores. Differences are from fsat in float32."
    ]
    return Section(rows, notes, ["tensorflow", "onnxruntime", "tf2onnx", "numpy"])


def make(data_dir: str, folder: str, models: list[str], folds: int, n_clips: int) -> dict[str, Any]:
    """Write a tagger, its exports, the clips, and what the tagger makes of them in float32.

    Returns:
        ``rate`` of the exports in Hz, and ``n_clips``.
    """
    import numpy as np

    from fsat.config import Config
    from fsat.data.audio import decode
    from fsat.models import build, import_keras, save_weights
    from fsat.tagging import MemberFiles, Tagger, write

    import_keras()
    from fsat.export.ensemble_model import ensemble_model
    from fsat.export.formats import write_model

    root = Path(folder)
    (root / "tagger").mkdir(parents=True)
    paths = sorted((Path(data_dir) / "audio_train").glob("*.wav"))[:n_clips]
    configs = [Config.resolve({"model": name}) for name in models for _ in range(folds)]
    rate = max(config.sampling_rate for config in configs)
    clips = [decode(path, rate) for path in paths]
    files = []
    for fold, config in enumerate(configs):
        model = build(config, CLASSES)
        _make_sure(model, config, [decode(path, config.sampling_rate) for path in paths[:10]], fold)
        path = root / f"{fold}.weights.h5"
        save_weights(model, path)
        files.append(MemberFiles(config.model, fold, config, path))
    labels = [f"class{i}" for i in range(CLASSES)]
    write(root / "tagger", files, labels)
    original = Tagger(root / "tagger").in_float32()
    scores, errors = original.scores([_wav(clip, rate) for clip in clips])
    if any(errors):
        raise RuntimeError(f"not all clips were scored: {next(filter(None, errors))}")
    model = ensemble_model(original)
    for format in ("onnx", "tflite"):
        write_model(model, root / f"tagger.{format}", format, {"labels": labels, "sampling_rate": rate})
    np.savez(root / "clips.npz", *clips)
    np.save(root / "scores.npy", scores)
    return {"rate": rate, "n_clips": len(clips)}


def original(folder: str, rate: int, kind: str) -> dict[str, Any]:
    """The tagger as it computes on this machine."""
    from fsat.models import import_keras, settle_precision
    from fsat.tagging import Tagger

    import_keras()
    start = time.perf_counter()
    tagger = Tagger(Path(folder) / "tagger")
    load = time.perf_counter() - start
    found = sorted({settle_precision(member.config).precision for member in tagger.members})
    result = _timed(folder, lambda file: tagger.scores([file])[0][0], lambda clip: _wav(clip, rate))
    return {"load": load, "precision": " and ".join(found), **result}


def exported(folder: str, rate: int, kind: str) -> dict[str, Any]:
    """An export, on as many threads as there are cores."""
    from fsat.export.formats import open_model

    if kind == "onnx":
        import onnxruntime  # noqa: F401  (before the time counts)
    else:
        import tensorflow  # noqa: F401
    start = time.perf_counter()
    score, _ = open_model(Path(folder) / f"tagger.{kind}", kind)
    load = time.perf_counter() - start
    return {"load": load, **_timed(folder, score, lambda clip: clip)}


def _timed(folder: str, score: Any, prepared: Any) -> dict[str, float]:
    """Clips a second, and the greatest difference from the original."""
    import numpy as np

    expected = np.load(Path(folder) / "scores.npy")
    with np.load(Path(folder) / "clips.npz") as archive:
        clips = [prepared(archive[f"arr_{i}"]) for i in range(len(expected))]
    for clip in clips[:WARM_UP]:
        score(clip)
    start = time.perf_counter()
    scores = np.stack([score(clip) for clip in clips])
    seconds = time.perf_counter() - start
    return {"rate": len(clips) / seconds, "difference": float(abs(scores - expected).max())}


def _make_sure(model: Any, config: Any, clips: list[Any], seed: int) -> None:
    """Scale the last layers so that scores differ from clip to clip."""
    import keras
    import numpy as np

    from fsat.data.clips import Clips
    from fsat.training.predict import Predictor

    inputs = list(Predictor(Clips.from_arrays(clips, config.sampling_rate), config, keep=False).batches())
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.name == "bands":
            layer.set_levels(np.concatenate([part.reshape(-1, config.n_mels) for part in inputs]).mean(axis=0), 15.0)
        elif isinstance(layer, keras.layers.Normalization):
            layer.adapt(np.concatenate(inputs))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense) and layer.units == CLASSES:
            before = keras.Model(model.input, layer.input)
            features = np.concatenate([np.asarray(before(part)) for part in inputs])
            kernel = rng.normal(size=(features.shape[1], CLASSES))
            kernel *= 3 / ((features @ kernel).std(axis=0) + 1e-9)
            layer.set_weights([kernel, -(features @ kernel).mean(axis=0)])


def _wav(clip: Any, rate: int) -> bytes:
    import io

    import soundfile as sf

    file = io.BytesIO()
    sf.write(file, clip, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()
