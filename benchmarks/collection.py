"""Measure the speed and memory of the command `predict` on a large collection."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults.processes import Workspace
from benchmarks.harness import Bench, Row, Samples, Section, alternate, call, samples

FILES, MEMBERS = 500, 10
SMALL, LARGE = 2_000, 20_000
SECONDS = 1.0
"""Length of the short clips for the measurement of memory."""


def run(bench: Bench) -> Section:
    """Tag the same files with `predict` and `Tagger.scores`; then a small and a large folder with the command."""
    n_files, n_members = bench.pick(FILES, 20), bench.pick(MEMBERS, 2)
    data_dir, files = str(bench.data_dir), str(bench.folder / "files")
    paths = call("benchmarks.sounds:write_files", data_dir=data_dir, folder=files, n_files=n_files)
    folder = bench.folder / "tagger"
    folder.mkdir()
    call("benchmarks.predict:write_tagger", folder=str(folder), n_members=n_members, eval_crops=3)
    workspace = Workspace(bench.folder / "workspace")
    workspace.call("benchmarks.collection:register", folder=str(folder), name="ten")
    sides = {
        "predict": partial(workspace.call, "benchmarks.collection:predict_files", folder=files),
        "scores": partial(call, "benchmarks.predict:fsat_tags", paths=paths, folder=str(folder)),
    }
    speed = alternate(bench.repeats, sides)

    def rate(who: str, side: str, *parts: str) -> Samples:
        return Samples(who, [n_files / sum(result[part] for part in parts) for result in speed[side]], "clips/s")

    scores = "`Tagger.scores`"
    rows = [
        Row("models loaded before", rate("`predict`", "predict", "tag"), rate(scores, "scores", "tag"), at_least=0.8),
        Row("with loading", rate("`predict`", "predict", "load", "tag"), rate(scores, "scores", "load", "tag")),
    ]
    sizes = bench.pick((SMALL, LARGE), (200, 2000))
    workspace.call("benchmarks.collection:register_small")
    for size in sizes:
        short = str(bench.folder / f"short{size}")
        call("benchmarks.sounds:write_short", data_dir=data_dir, folder=short, n_files=size, seconds=SECONDS)
    size_sides = {
        f"{size} files": partial(tag_folder, workspace, bench.folder / f"short{size}", size) for size in sizes
    }
    small, large = alternate(bench.repeats, size_sides).items()
    rows += [
        Row("peak memory of the command", samples(*large, "peak", "MB"), samples(*small, "peak", "MB"), at_most=1.02),
        Row(
            "clips/s of the command, with its start",
            samples(*large, "rate", "clips/s"),
            samples(*small, "rate", "clips/s"),
        ),
    ]
    notes = [
        f"Speed: {n_files} WAV files, DATA_DIR's clips repeated, no two equal, and {n_members} members of conv1d with "
        "random weights and three crops, as in the benchmark `predict`. `predict` is the command's function in a "
        "process with all imports done, with an SQLite tracking store; ledger, table and upload are timed.",
        f"Memory: `python -m fsat predict` with one member of conv1d on crops of 1 s, on files of {SECONDS:g} s cut "
        "from DATA_DIR's clips; ru_maxrss of the process.",
    ]
    return Section(rows, notes, ["tensorflow", "keras", "soundfile", "soxr", "numpy"])


def tag_folder(workspace: Workspace, folder: Path, n_files: int) -> dict[str, float]:
    """Run the command; return its peak memory in MB and its clips per second."""
    seconds, peak = workspace.start("predict", input=folder, output="tags.csv", model="small@champion").measure()
    return {"peak": peak, "rate": n_files / seconds}


def predict_files(folder: str) -> dict[str, Any]:
    """Tag a folder with the command's function.

    Returns:
        seconds to ``load`` the tagger, and to ``tag``, the rest.
    """
    from fsat.commands import predict as module
    from fsat.commands.predict import predict
    from fsat.models import import_keras

    import_keras()
    loaded = 0.0
    open_tagger = module.open_tagger

    def timed(uri: str) -> Any:
        nonlocal loaded
        start = time.perf_counter()
        tagger = open_tagger(uri)
        loaded = time.perf_counter() - start
        return tagger

    module.open_tagger = timed
    start = time.perf_counter()
    result = predict(folder, Path("tags.csv"), "ten@champion")
    seconds = time.perf_counter() - start
    if result.n_failed:
        raise RuntimeError(f"not all files were tagged: {result.failure}")
    return {"load": loaded, "tag": seconds - loaded}


def register(folder: str, name: str) -> None:
    """Register a tagger's folder as the champion in the tracking store."""
    import json

    from fsat.tracking.registry import Score
    from fsat.tracking.registry import register as register_folder

    labels = json.loads((Path(folder) / "tagger.json").read_text())["labels"]
    register_folder(name, Path(folder), labels, Score(0.5, 1), "none", "always", name)


def register_small() -> None:
    """Register a tagger with one member with random weights and crops of 1 s."""
    import tempfile

    from benchmarks.predict import CLASSES
    from fsat import tagging
    from fsat.config import Config
    from fsat.models import build, save_weights, settle_precision

    config = settle_precision(Config(audio_duration=SECONDS))
    with tempfile.TemporaryDirectory() as name:
        path, folder = Path(name) / "random.weights.h5", Path(name) / "tagger"
        folder.mkdir()
        save_weights(build(config, CLASSES), path)
        tagging.write(folder, [tagging.MemberFiles("study", 0, config, path)], [f"class{i}" for i in range(CLASSES)])
        register(str(folder), "small")
