"""Measure tags over time on an hour of real clips at known times, with a model that has not trained on them."""

from __future__ import annotations

import csv
import random
from functools import partial
from pathlib import Path

from benchmarks.faults.processes import Workspace
from benchmarks.harness import Bench, Row, Samples, Score, Section, alternate, call, samples

MINUTES = 60
SEEDS = (1, 2, 3)
FOLD = 0
GAP = 1.0
"""Maximum silence between two clips, in seconds."""

WINDOWS = ((5.0, 1.0), (2.56, 1.28), (5.0, 5.0))
"""Window and hop in seconds."""


def run(bench: Bench) -> Section:
    """Train a fold, write recordings of its validation clips, and tag them."""
    minutes, seeds = bench.pick(MINUTES, 2), bench.pick(SEEDS, SEEDS[:1])
    workspace = Workspace(bench.folder / "workspace")
    options = {"data_dir": bench.data_dir, "fold": FOLD, "model": "cnn_logmel", **bench.pick({}, {"max_epochs": 4})}
    workspace.run("train_fold", **options)
    workspace.run("ensemble", allow_incomplete="true", register_as="small")
    section = Section(libraries=["tensorflow", "keras", "soundfile", "soxr"])
    by_window: dict[tuple[float, float], list[float]] = {window: [] for window in WINDOWS}
    clip_scores, clips = [], 0
    for seed in seeds:
        path = bench.folder / f"hour{seed}.wav"
        truth = _write_recording(bench.data_dir, path, minutes, seed)
        clips = len(truth)
        clip_scores.append(_clip_accuracy(workspace, bench.data_dir, [name for name, _, _ in truth]))
        for window, hop in WINDOWS:
            output = bench.folder / f"tags{seed}-{window:g}.csv"
            workspace.run("predict", input=path, output=output, model="small@champion", window=window, hop=hop)
            by_window[window, hop].append(_accuracy(output, truth))
    section.scores["share of clips with the right tag at their centre, less the accuracy on the single clips"] = [
        Score(
            f"window={window:g} s, hop={hop:g} s",
            [a - b for a, b in zip(values, clip_scores, strict=True)],
            at_least=-0.03 if hop < window else None,
        )
        for (window, hop), values in by_window.items()
    ]
    section.scores["share of clips with the right tag"] = [
        Score("clip by clip", clip_scores),
        *(Score(f"window={window:g} s, hop={hop:g} s", values) for (window, hop), values in by_window.items()),
    ]
    short, long = bench.folder / "short.wav", bench.folder / f"hour{seeds[0]}.wav"
    _write_recording(bench.data_dir, short, minutes / 10, seed=9)
    sides = {
        f"{length:g} minutes": partial(_measure, workspace, path)
        for length, path in ((minutes, long), (minutes / 10, short))
    }
    large, small = alternate(bench.repeats, sides).items()
    section.rows = [
        Row("peak memory of the command", samples(*large, "peak", "MB"), samples(*small, "peak", "MB"), at_most=1.02),
        Row("minutes of sound per second", Samples(large[0], [minutes / run["seconds"] for run in large[1]], "min/s")),
    ]
    section.notes = [
        f"Recordings of {minutes:g} minutes at 44.1 kHz: the {clips} clips of fold {FOLD} of DATA_DIR in random order, "
        f"repeatedly, with 0 to {GAP:g} s of silence between them; the cnn_logmel member of that fold has not trained "
        "on them. `python -m fsat predict --window W --hop H`; the tag of a clip is that of the segment at its centre. "
        "Windows that do not overlap mostly contain parts of two clips. Seeds are those of the order. Memory: "
        f"ru_maxrss of the command with window={WINDOWS[1][0]:g} s; the time includes its start."
    ]
    return section


def _write_recording(data_dir: Path, path: Path, minutes: float, seed: int) -> list[tuple[str, str, float]]:
    arguments = {"data_dir": str(data_dir), "path": str(path), "minutes": minutes, "seed": seed}
    return call("benchmarks.recording:write_recording", **arguments)


def _measure(workspace: Workspace, path: Path) -> dict[str, float]:
    window, hop = WINDOWS[1]
    options = {"input": path, "output": "peak.csv", "model": "small@champion", "window": window, "hop": hop}
    seconds, peak = workspace.start("predict", **options).measure()
    return {"peak": peak, "seconds": seconds}


def _accuracy(output: Path, truth: list[tuple[str, str, float]]) -> float:
    """Return the share of clips whose label is that of the segment at their centre."""
    with open(output, newline="") as file:
        spans = [(float(row["start"]), float(row["end"]), row["label"]) for row in csv.DictReader(file)]
    correct = 0
    for _, label, centre in truth:
        correct += next((tag for start, end, tag in spans if start <= centre < end), "") == label
    return correct / len(truth)


def _clip_accuracy(workspace: Workspace, data_dir: Path, names: list[str]) -> float:
    """Return the share of clips in `names` that the tagger tags correctly one by one; names may repeat."""
    listing = workspace.folder / "clips.txt"
    listing.write_text("".join(f"{data_dir / 'audio_train' / name}\n" for name in sorted(set(names))))
    workspace.run("predict", input=listing, output="clips.csv", model="small@champion", top_k=1)
    with open(workspace.folder / "clips.csv", newline="") as file:
        tags = {Path(row["fname"]).name: row["label"] for row in csv.DictReader(file)}
    labels = _labels(data_dir)
    return sum(tags[name] == labels[name] for name in names) / len(names)


def _labels(data_dir: Path) -> dict[str, str]:
    with open(data_dir / "train.csv", newline="") as file:
        return {row["fname"]: row["label"] for row in csv.DictReader(file)}


def write_recording(data_dir: str, path: str, minutes: float, seed: int) -> list[tuple[str, str, float]]:
    """Write the clips of a fold one after the other.

    Returns:
        name, label and centre in seconds of each.
    """
    import numpy as np
    import soundfile as sf

    with open(Path(data_dir) / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    folds = sorted({row["fold"] for row in rows})
    clips = [row for row in rows if row["fold"] == folds[FOLD]]
    rng, truth, position = random.Random(seed), [], 0
    rate = sf.info(Path(data_dir) / "audio_train" / clips[0]["fname"]).samplerate
    with sf.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        while position < minutes * 60 * rate:
            for row in rng.sample(clips, len(clips)):
                samples, _ = sf.read(Path(data_dir) / "audio_train" / row["fname"], dtype="int16", always_2d=True)
                silence = np.zeros(round(rng.uniform(0, GAP) * rate), "int16")
                if position + len(samples) + len(silence) > minutes * 60 * rate:
                    position = int(minutes * 60 * rate)
                    break
                truth.append((row["fname"], row["label"], (position + len(samples) / 2) / rate))
                file.write(samples[:, 0])
                file.write(silence)
                position += len(samples) + len(silence)
    return truth
