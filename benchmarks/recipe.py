"""Measure the effect of each part of cnn_logmel's recipe on its scores.

Cross-validation over the folds of DATA_DIR as in the benchmark `quality`, with the same seeds. The models are also
scored on the same clips at a lower level.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.harness import Bench, Score, Section, call, side_by_side
from benchmarks.quality import CHOSEN_ON, SEEDS

CHANGES: dict[str, dict[str, Any]] = {
    "without mixup": {"mixup": 0},
    "without gain": {"gain": 0},
    "without mel_shift": {"mel_shift": 0},
    "without masks": {"time_mask": 0, "mel_mask": 0},
    "with stretch=0.2": {"stretch": 0.2},
    "crops of 5 s, not 2.56 s": {"audio_duration": 5.0},
    "with label_smoothing=0.1": {"label_smoothing": 0.1},
    "constant learning rate, no warm-up": {"schedule": "constant", "warmup": 0},
    "weights of the last epoch": {"checkpoint": "last"},
    "a quarter of the epochs": {"max_epochs": 50},
}

COMPLETE = "the complete recipe"

SOFTER = 20
"""Reduction of the level of the softer clips, in dB."""


def run(bench: Bench) -> Section:
    """Train every variant for each seed."""
    seeds = bench.pick(SEEDS, SEEDS[:1])
    quick = bench.pick({}, {"max_epochs": 1})
    data_dir, folder = str(bench.data_dir), str(bench.folder / "softer")
    softer = call("benchmarks.sounds:write_softer", data_dir=data_dir, folder=folder, decibels=SOFTER)
    jobs = {
        f"{name}, seed {seed}": partial(
            call,
            "benchmarks.quality:study",
            data_dir=data_dir,
            options={"preset": "cnn_logmel", **change, **quick, "seed": seed},
            copies={"softer": softer},
        )
        for seed in seeds
        for name, change in bench.pick({COMPLETE: {}, **CHANGES}, {COMPLETE: {}}).items()
    }
    results = side_by_side(jobs)

    def values(name: str, key: str) -> list[float]:
        return [{**result, **result["others"]}[key] for result in (results[f"{name}, seed {seed}"] for seed in seeds)]

    def minutes(name: str, key: str) -> str:
        if key != "map3":
            return ""
        all_minutes = [minute for folds in values(name, "minutes") for minute in folds]
        return f"{sum(all_minutes) / len(all_minutes):.2f} min per fold"

    scores = {}
    softer_title = f"mAP@3 of the same clips, {SOFTER} dB softer"
    for title, key in (("mAP@3", "map3"), ("accuracy", "accuracy"), (softer_title, "softer")):
        complete = values(COMPLETE, key)
        scores[title] = [Score(COMPLETE, complete, remark=minutes(COMPLETE, key))]
        scores[f"{title}: difference from the complete recipe"] = [
            Score(name, [a - b for a, b in zip(values(name, key), complete, strict=True)], remark=minutes(name, key))
            for name in bench.pick(CHANGES, {})
        ]
    notes = [
        f"`cnn_logmel` on the clips of DATA_DIR in its folds, seeds {', '.join(map(str, seeds))}; the recipe was "
        f"chosen on seeds {CHOSEN_ON} and the same clips. Negative: worse without this part, or with this change. "
        "A mean over three seeds below its spread may be due to chance. Each training has one core and one thread, so "
        "the complete recipe differs from that of `quality` in the last digits of its computations, and as much as "
        "with another seed in its score.",
        f"Softer clips: the same weights on the same clips, {SOFTER} dB below their level in DATA_DIR.",
    ]
    return Section([], notes, ["tensorflow", "keras", "librosa", "soxr", "scipy", "numpy"], scores)
