"""Tags over time: an hour of real clips at known times, by a model that has not heard them."""

from __future__ import annotations

import csv
import os
import random
from functools import partial
from pathlib import Path

from benchmarks.faults.processes import Place
from benchmarks.harness import Bench, BenchmarkError, Row, Samples, Score, Section, alternate, call, samples

MINUTES = 60
SEEDS = (1, 2, 3)
FOLD = 0
GAP = 1.0
"""Seconds of silence between two clips, at most."""

WINDOWS = ((5.0, 1.0), (2.56, 1.28), (5.0, 5.0))
"""Window and hop, in seconds."""


def run(bench: Bench) -> Section:
    """Train a fold, make recordings of its validation clips, tag them."""
    minutes, seeds = bench.pick(MINUTES, 2), bench.pick(SEEDS, SEEDS[:1])
    place = Place(bench.folder / "place")
    options = {"data_dir": bench.data_dir, "fold": FOLD, "model": "cnn_logmel", **bench.pick({}, {"max_epochs": 4})}
    _end(place.start("train_fold", **options))
    _end(place.start("ensemble", allow_incomplete="true", register_as="small"))
    section = Section(libraries=["tensorflow", "keras", "soundfile", "soxr"])
    by_window: dict[tuple[float, float], list[float]] = {window: [] for window in WINDOWS}
    clip_scores, clips = [], 0
    for seed in seeds:
        path = bench.folder / f"hour{seed}.wav"
        truth = call("benchmarks.recording:write_recording", data_dir=str(bench.data_dir), path=str(path),
                     minutes=minutes, seed=seed)  # fmt: skip
        clips = len(truth)
        clip_scores.append(_clip_accuracy(place, bench.data_dir, [name for name, _, _ in truth]))
        for window, hop in WINDOWS:
            output = bench.folder / f"tags{seed}-{window:g}.csv"
            _end(place.start("predict", input=path, output=output, model="small@champion", window=window, hop=hop))
            by_window[window, hop].append(_accuracy(output, truth))
    section.scores["share of clips whose middle has the right tag, less the model's accuracy on the same clips"] = [
        Score(f"window={window:g} s, hop={hop:g} s", [a - b for a, b in zip(found, clip_scores, strict=True)],
              at_least=-0.03 if hop < window else None)
        for (window, hop), found in by_window.items()
    ]  # fmt: skip
    section.scores["share of clips with the right tag"] = [
        Score("clip by clip", clip_scores),
        *(Score(f"window={window:g} s, hop={hop:g} s", found) for (window, hop), found in by_window.items()),
    ]
    short = bench.folder / "short.wav"
    call("benchmarks.recording:write_recording", data_dir=str(bench.data_dir), path=str(short), minutes=minutes / 10,
         seed=9)  # fmt: skip
    long = bench.folder / f"hour{seeds[0]}.wav"
    found = alternate(bench.repeats, {
        f"{length:g} minutes": partial(_peak, place, path) for length, path in ((minutes, long), (minutes / 10, short))
    })  # fmt: skip
    (large, first), (small, second) = found.items()
    section.rows = [
        Row("peak memory of the command", samples(large, first, "peak", "MB"), samples(small, second, "peak", "MB"),
            at_most=1.02),
        Row("minutes of sound a second", Samples(large, [minutes / one["seconds"] for one in first], "min/s")),
    ]  # fmt: skip
    section.notes = [
        f"Recordings of {minutes:g} minutes at 44.1 kHz: the {clips} clips of fold {FOLD} of DATA_DIR in random order, "
        f"over and over, with 0 to {GAP:g} s of silence between them; the member of that fold of cnn_logmel has not "
        "heard them. `python -m fsat predict --window W --hop H`; a clip's tag is that of the segment that holds at "
        "its middle. Windows that do not overlap mostly have parts of two clips in them. Seeds are those of the order. "
        "Memory: ru_maxrss of the "
        f"command with window={WINDOWS[1][0]:g} s, start included in the time."
    ]
    return section


def _end(sitting) -> None:
    if code := sitting.wait():
        raise BenchmarkError(f"{sitting.process.args} ended with {code}\n{sitting.said[-3000:]}")


def _peak(place: Place, path: Path) -> dict[str, float]:
    import time

    window, hop = WINDOWS[1]
    sitting = place.start("predict", input=path, output="peak.csv", model="small@champion", window=window, hop=hop)
    _, status, usage = os.wait4(sitting.process.pid, 0)
    if status:
        raise BenchmarkError(f"predict ended with {os.waitstatus_to_exitcode(status)}\n{sitting.said[-3000:]}")
    return {"peak": usage.ru_maxrss * 1024 / 1e6, "seconds": time.monotonic() - sitting.started}


def _accuracy(output: Path, truth: list[tuple[str, str, float]]) -> float:
    """Share of the clips whose label is that of the segment at their middle."""
    with open(output, newline="") as file:
        spans = [(float(row["start"]), float(row["end"]), row["label"]) for row in csv.DictReader(file)]
    right = 0
    for _, label, middle in truth:
        right += next((tag for start, end, tag in spans if start <= middle < end), "") == label
    return right / len(truth)


def _clip_accuracy(place: Place, data_dir: Path, names: list[str]) -> float:
    """Share of these clips, each as often as it is named, that the tagger tags rightly by themselves."""
    listed = place.folder / "clips.txt"
    listed.write_text("".join(f"{data_dir / 'audio_train' / name}\n" for name in sorted(set(names))))
    _end(place.start("predict", input=listed, output="clips.csv", model="small@champion", top_k=1))
    with open(place.folder / "clips.csv", newline="") as file:
        tags = {Path(row["fname"]).name: row["label"] for row in csv.DictReader(file)}
    labels = _labels(data_dir)
    return sum(tags[name] == labels[name] for name in names) / len(names)


def _labels(data_dir: Path) -> dict[str, str]:
    with open(data_dir / "train.csv", newline="") as file:
        return {row["fname"]: row["label"] for row in csv.DictReader(file)}


def write_recording(data_dir: str, path: str, minutes: float, seed: int) -> list[tuple[str, str, float]]:
    """Write the clips of a fold one after the other.

    Returns:
        name, label and middle, in seconds, of each.
    """
    import numpy as np
    import soundfile as sf

    with open(Path(data_dir) / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    folds = sorted({row["fold"] for row in rows})
    clips = [row for row in rows if row["fold"] == folds[FOLD]]
    chance, truth, at = random.Random(seed), [], 0
    rate = sf.info(Path(data_dir) / "audio_train" / clips[0]["fname"]).samplerate
    with sf.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        while at < minutes * 60 * rate:
            for row in chance.sample(clips, len(clips)):
                samples, _ = sf.read(Path(data_dir) / "audio_train" / row["fname"], dtype="int16", always_2d=True)
                silence = np.zeros(round(chance.uniform(0, GAP) * rate), "int16")
                if at + len(samples) + len(silence) > minutes * 60 * rate:
                    at = int(minutes * 60 * rate)
                    break
                truth.append((row["fname"], row["label"], (at + len(samples) / 2) / rate))
                file.write(samples[:, 0])
                file.write(silence)
                at += len(samples) + len(silence)
    return truth
