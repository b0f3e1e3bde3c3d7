"""Tagging a large collection: as many clips a second as the tagger by itself, in memory that does not grow."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults.processes import Place
from benchmarks.harness import Bench, BenchmarkError, Row, Samples, Section, alternate, call, samples

FILES, MEMBERS = 500, 10
SMALL, LARGE = 2_000, 20_000
SECONDS = 1.0
"""Of the short clips, for memory."""


def run(bench: Bench) -> Section:
    """Tag the same files by `predict` and by `Tagger.scores`; then a small and a large folder by the command."""
    n_files, n_members = bench.pick(FILES, 20), bench.pick(MEMBERS, 2)
    paths = call("benchmarks.sounds:write_files", data_dir=str(bench.data_dir), folder=str(bench.folder / "files"),
                 n_files=n_files)  # fmt: skip
    folder = bench.folder / "tagger"
    folder.mkdir()
    call("benchmarks.predict:write_tagger", folder=str(folder), n_members=n_members, eval_crops=3)
    place = Place(bench.folder / "place")
    place.call("benchmarks.collection:register", folder=str(folder), name="ten")
    speed = alternate(bench.repeats, {
        "predict": partial(place.call, "benchmarks.collection:predict_files", folder=str(bench.folder / "files")),
        "scores": partial(call, "benchmarks.predict:fsat_tags", paths=paths, folder=str(folder)),
    })  # fmt: skip

    def rate(who: str, side: str, *parts: str) -> Samples:
        return Samples(who, [n_files / sum(found[part] for part in parts) for found in speed[side]], "clips/s")

    scores = "`Tagger.scores`"
    rows = [
        Row("models loaded before", rate("`predict`", "predict", "tag"), rate(scores, "scores", "tag"), at_least=0.8),
        Row("loading included", rate("`predict`", "predict", "load", "tag"), rate(scores, "scores", "load", "tag")),
    ]
    sizes = bench.pick((SMALL, LARGE), (200, 2000))
    place.call("benchmarks.collection:register_small")
    found = {}
    for size in sizes:
        many = bench.folder / f"short{size}"
        call("benchmarks.sounds:write_short", data_dir=str(bench.data_dir), folder=str(many), n_files=size,
             seconds=SECONDS)  # fmt: skip
    for side, values in alternate(bench.repeats, {
        f"{size} files": partial(tag_folder, place, bench.folder / f"short{size}") for size in sizes
    }).items():  # fmt: skip
        found[side] = values
    small, large = found.items()
    rows += [
        Row("peak memory of the command", samples(large[0], large[1], "peak", "MB"),
            samples(small[0], small[1], "peak", "MB"), at_most=1.02),
        Row("clips/s of the command, start included", samples(large[0], large[1], "rate", "clips/s"),
            samples(small[0], small[1], "rate", "clips/s")),
    ]  # fmt: skip
    notes = [
        f"Speed: {n_files} WAV files of DATA_DIR's clips, repeated, no two alike, and {n_members} members of conv1d "
        "with fresh weights and three crops, as in the benchmark `predict`, whose side `Tagger.scores` is. `predict`: "
        "the entry point, in a process that has imported everything, with an SQLite tracking store; the ledger, the "
        "table and its upload are in the time.",
        f"Memory: `python -m fsat predict` of one member of conv1d on crops of 1 s, on files of {SECONDS:g} s cut from "
        "DATA_DIR's clips; the process's ru_maxrss.",
    ]
    return Section(rows, notes, ["tensorflow", "keras", "soundfile", "soxr", "numpy"])


def tag_folder(place: Place, folder: Path, output: str = "tags.csv") -> dict[str, float]:
    """Run the command; its peak memory in MB, and clips a second."""
    sitting = place.start("predict", input=folder, output=output, model="small@champion")
    _, status, usage = os.wait4(sitting.process.pid, 0)
    seconds = time.monotonic() - sitting.started
    if status:
        raise BenchmarkError(f"predict ended with {os.waitstatus_to_exitcode(status)}\n{sitting.said[-3000:]}")
    return {"peak": usage.ru_maxrss * 1024 / 1e6, "rate": len(list(folder.iterdir())) / seconds}


def predict_files(folder: str) -> dict[str, Any]:
    """Tag a folder by the entry point.

    Returns:
        seconds: ``load`` the tagger, and ``tag``, which is all else.
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
    """Make a tagger's folder the champion of this process's tracking store."""
    import json

    from fsat.tracking.registry import Score
    from fsat.tracking.registry import register as register_folder

    labels = json.loads((Path(folder) / "tagger.json").read_text())["labels"]
    register_folder(name, Path(folder), labels, Score(0.5, 1), "none", "always", name)


def register_small() -> None:
    """A tagger with one member, which takes in a second of sound."""
    import tempfile

    from benchmarks.predict import CLASSES
    from fsat import tagging
    from fsat.config import Config
    from fsat.models import build, save_weights, settle_precision

    config = settle_precision(Config(audio_duration=SECONDS))
    with tempfile.TemporaryDirectory() as name:
        path, folder = Path(name) / "fresh.weights.h5", Path(name) / "tagger"
        folder.mkdir()
        save_weights(build(config, CLASSES), path)
        tagging.write(folder, [tagging.MemberFiles("study", 0, config, path)], [f"class{i}" for i in range(CLASSES)])
        register(str(folder), "small")
