"""Compare exported taggers, ONNX and TensorFlow Lite, with `fsat.tagging.Tagger`, clip by clip."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Row, Section, alternate, call, samples

CLIPS, FOLDS, CLASSES = 100, 3, 41
WARM_UP = 3
"""Clips scored before timing: functions are traced and memory is planned at the first ones."""

TAGGERS = {
    "conv1d": ("conv1d",),
    "conv2d_mfcc": ("conv2d_mfcc",),
    "cnn_logmel": ("cnn_logmel",),
    "all three": ("conv1d", "conv2d_mfcc", "cnn_logmel"),
}
"""Models of each tagger, with `FOLDS` folds each; the members of the last one differ in sampling rate."""

LIMIT = 1e-3
NEEDS = ("onnx", "onnxruntime", "tf2onnx")


def run(bench: Bench) -> Section:
    """Score the same clips with each."""
    n_clips, folds = bench.pick(CLIPS, 4), bench.pick(FOLDS, 1)
    rows: list[Row] = []
    for name, models in bench.pick(TAGGERS, {"all three": TAGGERS["all three"]}).items():
        folder = bench.folder / name.replace(" ", "_")
        arguments = {"data_dir": str(bench.data_dir), "folder": str(folder), "models": models}
        tagger = call("benchmarks.export:make", **arguments, folds=folds, n_clips=n_clips)
        sides = {
            side: partial(call, f"benchmarks.export:{function}", folder=str(folder), rate=tagger["rate"], kind=side)
            for side, function in (("fsat", "original"), ("onnx", "exported"), ("tflite", "exported"))
        }
        results = alternate(bench.repeats, sides)
        fsat = f"fsat, {results['fsat'][0]['precision']}"
        for quantity, key, unit in (("clips one by one", "rate", "clips/s"), ("loading", "load", "s")):
            original_samples = samples(fsat, results["fsat"], key, unit)
            for side in ("onnx", "tflite"):
                rows.append(Row(f"{name}: {quantity}", samples(side, results[side], key, unit), original_samples))
        for side in ("onnx", "tflite"):
            difference = samples(side, results[side], "difference", "")
            rows.append(Row(f"{name}: maximum difference of a score", difference, at_most=LIMIT))
    notes = [
        f"{tagger['n_clips']} real clips of about 5 s; taggers of {folds} folds per study with random weights, whose "
        f"last layer is scaled for confident scores, {CLASSES} classes. All sides receive the same samples at the "
        "highest rate of the members and score clip by clip: decoding is not timed, resampling for members at lower "
        "rates is. fsat reads the samples from a WAV file in memory, in less than a millisecond. "
        f"{WARM_UP} clips are scored before. Exports use as many threads as there are cores. Differences are from fsat "
        "in float32."
    ]
    return Section(rows, notes, ["tensorflow", "onnxruntime", "tf2onnx", "numpy"])


def make(data_dir: str, folder: str, models: list[str], folds: int, n_clips: int) -> dict[str, Any]:
    """Write a tagger, its exports, the clips, and their scores by the tagger in float32.

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
        network = build(config, CLASSES)
        _scale_last_layer(network, config, [decode(path, config.sampling_rate) for path in paths[:10]], fold)
        path = root / f"{fold}.weights.h5"
        save_weights(network, path)
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
    """Measure the tagger with the precision of this machine."""
    from fsat.models import import_keras, settle_precision
    from fsat.tagging import Tagger

    import_keras()
    start = time.perf_counter()
    tagger = Tagger(Path(folder) / "tagger")
    load = time.perf_counter() - start
    precisions = sorted({settle_precision(member.config).precision for member in tagger.members})
    result = _measure(folder, lambda file: tagger.scores([file])[0][0], lambda clip: _wav(clip, rate))
    return {"load": load, "precision": " and ".join(precisions), **result}


def exported(folder: str, rate: int, kind: str) -> dict[str, Any]:
    """Measure an export, with as many threads as there are cores."""
    from fsat.export.formats import open_model

    if kind == "onnx":
        import onnxruntime  # noqa: F401  (not timed)
    else:
        import tensorflow  # noqa: F401
    start = time.perf_counter()
    score, _ = open_model(Path(folder) / f"tagger.{kind}", kind)
    load = time.perf_counter() - start
    return {"load": load, **_measure(folder, score, lambda clip: clip)}


def _measure(folder: str, score: Any, prepare: Any) -> dict[str, float]:
    """Return clips per second, and the maximum difference from the original scores."""
    import numpy as np

    expected = np.load(Path(folder) / "scores.npy")
    with np.load(Path(folder) / "clips.npz") as archive:
        clips = [prepare(archive[f"arr_{i}"]) for i in range(len(expected))]
    for clip in clips[:WARM_UP]:
        score(clip)
    start = time.perf_counter()
    scores = np.stack([score(clip) for clip in clips])
    seconds = time.perf_counter() - start
    return {"rate": len(clips) / seconds, "difference": float(abs(scores - expected).max())}


def _scale_last_layer(model: Any, config: Any, clips: list[Any], seed: int) -> None:
    """Scale the last layers so that scores differ from clip to clip."""
    import keras
    import numpy as np

    from fsat.data.decoded_clips import Clips
    from fsat.training.predict_clips import Predictor

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
