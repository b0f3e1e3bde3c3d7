"""Compare prediction on crops that cover a long clip with `eval_crops` crops of it, in accuracy and in cost."""

from __future__ import annotations

import csv
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, Row, Samples, Score, Section, alternate, call, samples

PRESETS = ("cnn_logmel", "conv1d_fsat")
SECONDS, CLIPS_PER_CLASS, SHORT_CLIPS = 60.0, 6, 200
LONGEST = 600.0
FOLD, SEED, GAP = 0, 1, 1.0
"""Fold whose clips are heard; seed of their order; maximum silence between two of them, in seconds."""

KINDS = {"one class": False, "another class where three crops would be": True}
"""Kinds of long clips: whether clips of another class replace the start, middle and end."""

WAYS = {"covering": True, "eval_crops": False}


def run(bench: Bench) -> Section:
    """Train a fold of each preset, write long clips of its validation clips, and tag them both ways."""
    seconds, per_class = bench.pick(SECONDS, 12.0), bench.pick(CLIPS_PER_CLASS, 1)
    data = str(bench.data_dir)
    clips = call(
        "benchmarks.long_clips:write_clips",
        **{"data_dir": data, "folder": str(bench.folder / "long"), "seconds": seconds, "per_class": per_class},
        longest=bench.pick(LONGEST, 30.0),
        n_short=bench.pick(SHORT_CLIPS, 8),
    )
    section = Section(libraries=["tensorflow", "keras", "soundfile", "soxr"])
    section.scores["accuracy on long clips, covered, less that on eval_crops crops"] = differences = []
    section.scores["accuracy on long clips"] = accuracies = []
    for preset in PRESETS:
        tagger = str(bench.folder / preset)
        options = {"preset": preset, **bench.pick({}, {"max_epochs": 1})}
        call("benchmarks.long_clips:train", data_dir=data, folder=tagger, options=options)
        sides = {
            (name, way): partial(call, "benchmarks.long_clips:tag", tagger=tagger, paths=clips[name], cover=cover)
            for name in (*KINDS, "short", "longest")
            for way, cover in WAYS.items()
        }
        results = alternate(bench.repeats, sides)
        for name in KINDS:
            right = {way: _accuracy(results[name, way][0]["labels"], clips[f"labels, {name}"]) for way in WAYS}
            at_least = 0.0 if name == "one class" else None
            difference = right["covering"] - right["eval_crops"]
            differences.append(Score(f"{preset}, {name}", [difference], at_least=at_least))
            accuracies += [Score(f"{preset}, {name}, {way}", [value]) for way, value in right.items()]
        section.rows += _rows(preset, results, seconds)
    section.notes = [
        f"Clips of {seconds:g} s at the rate of DATA_DIR: clips of one class in fold {FOLD}, which the models have not "
        f"trained on, one after the other with 0 to {GAP:g} s of silence between them; {per_class} of each class. In "
        "those of the second kind, the start, the middle and the end are of another class. One process tags all clips "
        "of a kind after one that is not timed. Short clips are those of DATA_DIR; memory is that of a clip of "
        f"{bench.pick(LONGEST, 30.0):g} s (ru_maxrss)."
    ]
    return section


def _rows(preset: str, results: dict[Any, list[dict[str, Any]]], seconds: float) -> list[Row]:
    def compare(name: str, clips: str, key: str, unit: str, **limits: float) -> Row:
        sides = [samples(f"{preset}, {way}", results[clips, way], key, unit) for way in WAYS]
        return Row(name, *sides, **limits)

    long = results["one class", "covering"]
    return [
        compare(f"crops of a clip of {seconds:g} s", "one class", "crops", "crops"),
        compare(f"clips of {seconds:g} s", "one class", "rate", "clips/s"),
        Row("crops per second", *(
            Samples(f"{preset}, {way}", [r["rate"] * r["crops"] for r in results["one class", way]], "crops/s")
            for way in WAYS
        ), at_least=0.95),
        compare("crops of a clip of DATA_DIR", "short", "crops", "crops", at_most=1),
        compare("clips of DATA_DIR", "short", "rate", "clips/s", at_least=0.95),
        Row("peak memory, longest clip", samples(f"{preset}, covering", results["longest", "covering"], "peak", "MB"),
            samples(f"{preset}, {seconds:g} s", long, "peak", "MB")),
    ]  # fmt: skip


def _accuracy(received: list[str], expected: list[str]) -> float:
    return sum(a == b for a, b in zip(received, expected, strict=True)) / len(expected)


def write_clips(
    data_dir: str, folder: str, seconds: float, per_class: int, longest: float, n_short: int
) -> dict[str, list[str]]:
    """Write long clips of the validation clips of a fold.

    Returns:
        the paths of each of `KINDS`, and their labels as ``labels, KIND``; those of ``short`` and ``longest`` clips.
    """
    import numpy as np
    import soundfile as sf

    with open(Path(data_dir) / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    first_fold = sorted({row["fold"] for row in rows})[FOLD]
    by_class: dict[str, list[np.ndarray]] = {}
    for row in rows:
        if row["fold"] == first_fold:
            clip, rate = sf.read(Path(data_dir) / "audio_train" / row["fname"], dtype="float32", always_2d=True)
            by_class.setdefault(row["label"], []).append(clip[:, 0])
    rng, out = random.Random(SEED), Path(folder)
    out.mkdir()

    def fill(label: str, length: float) -> np.ndarray:
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < length * rate:
            parts += [rng.choice(by_class[label]), np.zeros(round(rng.uniform(0, GAP) * rate), np.float32)]
        return np.concatenate(parts)[: round(length * rate)]

    def write(name: str, clip: np.ndarray) -> str:
        sf.write(out / name, clip, rate, "PCM_16")
        return str(out / name)

    result: dict[str, list[str]] = {}
    for i, (kind, with_others) in enumerate(KINDS.items()):
        labels = [label for label in sorted(by_class) for _ in range(per_class)]
        paths = []
        for j, label in enumerate(labels):
            clip = fill(label, seconds)
            if with_others:
                other = fill(rng.choice([name for name in by_class if name != label]), seconds / 12)
                for start in (0, (len(clip) - len(other)) // 2, len(clip) - len(other)):
                    clip[start : start + len(other)] = other
            paths.append(write(f"{i}-{j}.wav", clip))
        result |= {kind: paths, f"labels, {kind}": labels}
    result["short"] = [str(Path(data_dir) / "audio_train" / row["fname"]) for row in rows[:n_short]]
    result["longest"] = [write("longest.wav", fill(sorted(by_class)[0], longest))]
    return result


def train(data_dir: str, folder: str, options: dict[str, Any]) -> None:
    """Train a fold, and write a tagger of it."""
    from fsat import tagging
    from fsat.commands.train import prepare_dataset
    from fsat.config import Config
    from fsat.data.dataset import Source
    from fsat.training.fold import WEIGHTS, train_fold

    preset = options.pop("preset")
    dataset = prepare_dataset(Source(Path(data_dir)), Config.resolve(options, preset))
    work = Path(f"{folder}-work")
    work.mkdir()
    Path(folder).mkdir()
    train_fold(dataset, FOLD, work)
    tagging.write(
        Path(folder), [tagging.MemberFiles("study", FOLD, dataset.config, work / WEIGHTS)], list(dataset.labels)
    )


def tag(tagger: str, paths: list[str], cover: bool) -> dict[str, Any]:
    """Tag clips one by one, on crops that cover them, or on `eval_crops` crops of each.

    Returns:
        ``labels``, the best of each clip; the ``rate`` in clips per second; ``crops`` of a clip, the mean; the ``peak``
        of the process's memory in MB.
    """
    import resource

    import numpy as np

    from fsat.models import import_keras
    from fsat.tagging import Tagger
    from fsat.training import predict_clips

    import_keras()
    fixed_crops, counts = predict_clips.fixed_crops, list[int]()

    def counted(lengths: np.ndarray, config: Any, crops: np.ndarray | None, _cover: bool) -> Any:
        result = fixed_crops(lengths, config, crops, cover)
        counts.append(int(result.counts.sum()))
        return result

    predict_clips.fixed_crops = counted
    model = Tagger(tagger)
    model.scores(paths[:1])
    counts.clear()
    start = time.perf_counter()
    scores = np.concatenate([model.scores([path])[0] for path in paths])
    rate = len(paths) / (time.perf_counter() - start)
    labels = [model.labels[i] for i in scores.argmax(axis=1)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"labels": labels, "rate": rate, "crops": sum(counts) / len(paths), "peak": peak}
