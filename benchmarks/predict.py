"""Compare the tagging speed of `fsat.tagging.Tagger` with the notebook's, for an ensemble of ten conv1d."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Row, Samples, Section, alternate, call

FILES, MEMBERS, CLASSES = 500, 10, 41
DEFAULT_CROPS = 3
NEEDS = ("resampy",)


def run(bench: Bench) -> Section:
    """Tag the same files with both."""
    n_files, n_members = bench.pick(FILES, 20), bench.pick(MEMBERS, 2)
    files = str(bench.folder / "files")
    paths = call("benchmarks.sounds:write_files", data_dir=str(bench.data_dir), folder=files, n_files=n_files)
    weights = bench.folder / "notebook"
    weights.mkdir()
    members = {"folder": str(weights), "n_members": n_members, "n_classes": CLASSES}
    call("benchmarks.notebook:write_members", **members)
    sides: dict[str, Any] = {"notebook": partial(call, "benchmarks.notebook:predict", paths=paths, **members)}
    for crops in (DEFAULT_CROPS, 1):
        folder = bench.folder / f"tagger{crops}"
        folder.mkdir()
        call("benchmarks.predict:write_tagger", folder=str(folder), n_members=n_members, eval_crops=crops)
        options = {"paths": paths, "folder": str(folder), "single_crop": crops == 1}
        sides[f"fsat {crops}"] = partial(call, "benchmarks.predict:fsat_tags", **options)
    results = alternate(bench.repeats, sides)

    def rate(who: str, side: str, *parts: str) -> Samples:
        return Samples(who, [n_files / sum(result[part] for part in parts) for result in results[side]], "clips/s")

    precision = results[f"fsat {DEFAULT_CROPS}"][0]["precision"]
    rows = []
    for name, parts, limit in (("models loaded before", ("tag",), 15), ("with loading", ("load", "tag"), None)):
        notebook = rate("notebook, 1 crop, float32", "notebook", *parts)
        default = rate(f"fsat, {DEFAULT_CROPS} crops, {precision}", f"fsat {DEFAULT_CROPS}", *parts)
        rows.append(Row(name, default, notebook, at_least=limit))
        rows.append(Row(name, rate(f"fsat, 1 crop, {precision}", "fsat 1", *parts), notebook))
    notes = [
        f"{n_files} WAV files (the clips of DATA_DIR repeated, no two equal), {n_members} members with random weights, "
        f"{CLASSES} classes; from the list of paths to the three best labels of every clip. Imports and numba's "
        "compilation are not timed; the tracing of each member's graph at its first batch is. The notebook runs member "
        "by member, each over a generator that decodes every file again, in six worker processes."
    ]
    return Section(rows, notes, ["tensorflow", "keras", "librosa", "resampy", "numpy"])


def write_tagger(folder: str, n_members: int, eval_crops: int) -> None:
    """Write a tagger's folder with random weights."""
    import tempfile

    from fsat import tagging
    from fsat.config import Config
    from fsat.models import build, save_weights, settle_precision

    config = settle_precision(Config(eval_crops=eval_crops))
    with tempfile.TemporaryDirectory() as name:
        members = []
        for fold in range(n_members):
            path = Path(name) / f"{fold}.weights.h5"
            save_weights(build(config, CLASSES), path)
            members.append(tagging.MemberFiles("study", fold, config, path))
        tagging.write(Path(folder), members, [f"class{i}" for i in range(CLASSES)])


def fsat_tags(paths: Sequence[str], folder: str, single_crop: bool = False) -> dict[str, Any]:
    """Tag files with `Tagger.scores`; with `single_crop` on one crop of each, as the notebook does.

    Returns:
        seconds to ``load`` the members and to ``tag`` the files, and the ``precision``.
    """
    from fsat.config import Config
    from fsat.metrics.ranking import top_k
    from fsat.models import import_keras, settle_precision
    from fsat.tagging import Tagger
    from fsat.training import predict_clips

    import_keras()
    if single_crop:
        fixed_crops = predict_clips.fixed_crops
        predict_clips.fixed_crops = lambda lengths, config, crops, _: fixed_crops(lengths, config, crops, cover=False)
    precision = settle_precision(Config()).precision
    start = time.perf_counter()
    tagger = Tagger(folder)
    loaded = time.perf_counter()
    scores, errors = tagger.scores(paths)
    tags = [" ".join(tagger.labels[j] for j in row) for row in top_k(scores)]
    done = time.perf_counter()
    if any(errors) or len(tags) != len(paths):
        raise RuntimeError(f"not all files were tagged: {next(filter(None, errors), '')}")
    return {"load": loaded - start, "tag": done - loaded, "precision": precision}
