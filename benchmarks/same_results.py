"""``python -m benchmarks.same_results REF``: compare this checkout's results with those of another commit.

REF is a commit, or a JSON file of its facts that ``--record FILE`` has written before. Both sides run the same commands
on the same generated sounds, each with an empty tracking store and cache: a small study of each model, `verify`, an
ensemble of all studies, tags of clips and over time, and two exports. Compared are:

- parameters, tags, metrics of every epoch and artifact names of every run, without times, ids and addresses;
- the bytes of predictions, weights, tables and JSON files;
- tables of tags, and the scores of the exported files on seeded noise.

The exit status is 1 if anything differs, and each difference is a line. ``--ids`` also compares study ids, which change
with `RECIPE`. Results depend on the processor, so both sides must run on the same machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("dummy1d", "conv1d", "conv2d_mfcc", "cnn_logmel")
RATE = 8000
SETTINGS = {
    "sampling_rate": RATE,
    "audio_duration": 1,
    "n_folds": 2,
    "max_epochs": 3,
    "batch_size": 16,
    "unverified_weight": "0.5",
    "precision": "float32",
}
CHANGING_TAGS = ("owner", "heartbeat", "launch", "note", "checksums", "data_dir", "registered", "claim")
"""``fsat.`` tags whose values differ from run to run; that they are set is compared all the same."""
CHANGING_METRICS = ("epoch_seconds", "clips_per_second", "train_seconds", "megabytes")
COMPARED_SUFFIXES = (".npy", ".h5", ".csv", ".json", ".txt")
"""Artifacts that are compared byte by byte."""
CHANGING_FILES = ("scores.csv", "members.json", "checksums.json", "tagger.onnx.json", "tagger.tflite.json")
"""Artifacts that have run ids, times or checksums of changing files in them."""


def main() -> int:
    """Run both sides and print the differences; return 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_results", description=__doc__.split("\n")[0])
    parser.add_argument("ref", metavar="REF", help="commit to compare with, or a JSON file of its facts")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the facts of the commit REF and stop")
    parser.add_argument("--ids", action="store_true", help="compare study ids too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fsat-same-") as name:
        if Path(arguments.ref).is_file():
            expected = json.loads(Path(arguments.ref).read_text())
        else:
            expected = results_of_commit(arguments.ref, Path(name), arguments.ids)
        if arguments.record:
            arguments.record.write_text(json.dumps(expected, indent=1) + "\n")
            return 0
        received = json.loads(json.dumps(results_of(ROOT, Path(name) / "received", arguments.ids)))
    differences = [
        f"{fact}: expected {expected.get(fact)!r}, received {received.get(fact)!r}"
        for fact in sorted(expected.keys() | received.keys())
        if expected.get(fact) != received.get(fact)
    ]
    for line in differences:
        print(line[:500])
    print(f"{len(expected)} facts of {arguments.ref}, {len(received)} here: {len(differences)} differ")
    return 1 if differences else 0


def results_of_commit(ref: str, folder: Path, ids: bool) -> dict[str, Any]:
    """Run the commands with a commit's code, in a worktree that is removed afterwards; the facts as JSON has them."""
    other = folder / "other"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", other, ref], cwd=ROOT, check=True)
    try:
        return json.loads(json.dumps(results_of(other, folder / "expected", ids)))
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", other], cwd=ROOT, check=True)


def results_of(checkout: Path, folder: Path, ids: bool) -> dict[str, Any]:
    """Run the commands with a checkout's code in a new folder; every fact to compare, by name."""
    folder.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("FSAT_", "MLFLOW_"))}
    env |= {
        "PYTHONPATH": str(checkout),
        "FSAT_CACHE_DIR": str(folder / "cache"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }

    def fsat(*words: object) -> None:
        print(f"{checkout.name}: fsat {' '.join(map(str, words))}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "fsat", *map(str, words)], cwd=folder, env=env, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{checkout}: fsat {words[0]} ended with {done.returncode}:\n{done.stderr[-3000:]}")

    data = folder / "sounds"
    fsat("sample", data, "--clips_per_class", 10)
    fsat("eda", "--data_dir", data)
    settings = [word for name, value in SETTINGS.items() for word in (f"--{name}", value)]
    for model in MODELS:
        fsat("cross_validate", "--data_dir", data, "--model", model, *settings)
    studies = ",".join(dict.fromkeys(run.data.tags["fsat.study"] for run in runs_in(folder, "train_fold")))
    fsat("verify", "--studies", studies)
    fsat("ensemble", "--studies", studies, "--blend", "weighted")
    fsat("predict", "--input", data / "audio_test", "--output", "clips.csv")
    fsat("predict", "--input", data / "audio_test", "--output", "windows.csv", "--window", 0.5, "--hop", 0.25)
    for kind in ("onnx", "tflite"):
        fsat("export", "--format", kind, "--output", f"tagger.{kind}")
    facts = dict(run_facts(folder, ids))
    facts |= {name: digest(folder / name) for name in ("clips.csv", "windows.csv")}
    return facts | {kind: exported_scores(folder / f"tagger.{kind}") for kind in ("onnx", "tflite")}


def runs_in(folder: Path, stage: str | None = None) -> list[Any]:
    """All runs of a store, oldest first; of one stage if it is given."""
    import mlflow

    query = f"tags.`fsat.stage` = '{stage}'" if stage else ""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return client.search_runs(["0"], query, order_by=["attributes.start_time ASC"])


def run_facts(folder: Path, ids: bool) -> Iterator[tuple[str, Any]]:
    """What every run of a store says and has, by the run's stage, model and fold."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    replaced = {run.info.run_id: "RUN" for run in runs_in(folder)}
    for run in runs_in(folder, "train_fold"):
        replaced[run.data.tags["fsat.study"]] = run.data.tags["fsat.study" if ids else "fsat.model"]

    def stable(text: str) -> str:
        for old, new in replaced.items():
            text = text.replace(old, new)
        return text.replace(str(folder), "FOLDER")

    for run in runs_in(folder):
        tags = {key.removeprefix("fsat."): value for key, value in run.data.tags.items() if key.startswith("fsat.")}
        name = " ".join(tags[key] for key in ("stage", "model", "fold") if key in tags)
        yield f"{name} status", run.info.status
        yield f"{name} tags", sorted(tags)
        yield f"{name} params", {key: stable(value) for key, value in sorted(run.data.params.items())}
        for key, value in tags.items():
            if key not in CHANGING_TAGS:
                yield f"{name} tag {key}", stable(value)
        for key in run.data.metrics:
            if key not in CHANGING_METRICS:
                points = sorted(client.get_metric_history(run.info.run_id, key), key=lambda point: point.step)
                yield f"{name} metric {stable(key)}", [(point.step, point.value) for point in points]
        artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
        for path in sorted(path for path in artifacts.rglob("*") if path.is_file()):
            relative = path.relative_to(artifacts).as_posix()
            if "tensorboard" in relative:
                continue
            same = path.suffix in COMPARED_SUFFIXES and path.name not in CHANGING_FILES
            yield f"{name} artifact {relative}", digest(path, stable) if same else "there"


def digest(path: Path, stable: Any = str) -> str:
    """SHA-256 of a file's bytes; of a text without what changes from run to run."""
    data = path.read_bytes()
    if path.suffix in (".csv", ".json", ".txt"):
        data = stable(data.decode()).encode()
    return hashlib.sha256(data).hexdigest()


def exported_scores(path: Path) -> list[float]:
    """Scores that an exported tagger gives for a second of seeded noise."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(["scores"], {"waveform": noise})[0].tolist()
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(path), num_threads=1)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, noise.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, noise)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist()


if __name__ == "__main__":
    sys.exit(main())
