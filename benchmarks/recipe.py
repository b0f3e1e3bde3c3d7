"""What each part of cnn_logmel's recipe gives: what it scores with that part changed, all else alike.

Cross-validation over the folds of DATA_DIR as in the benchmark `quality`, with its seeds. Nothing is chosen on the
scored clips. The same models are also scored on the same clips at a lower level.
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

WHOLE = "the whole recipe"

SOFTER = 20
"""By how many dB the clips are softer that the models are scored on too."""


def run(bench: Bench) -> Section:
    """Train every variant of every seed."""
    seeds = bench.pick(SEEDS, SEEDS[:1])
    quick = bench.pick({}, {"max_epochs": 1})
    softer = call(
        "benchmarks.sounds:write_softer", data_dir=str(bench.data_dir), folder=str(bench.folder / "softer"),
        decibels=SOFTER,
    )  # fmt: skip
    results = side_by_side({
        f"{name}, seed {seed}": partial(
            call, "benchmarks.quality:study", data_dir=str(bench.data_dir),
            options={"preset": "cnn_logmel", **change, **quick, "seed": seed}, copies={"softer": softer},
        )
        for seed in seeds for name, change in bench.pick({WHOLE: {}, **CHANGES}, {WHOLE: {}}).items()
    })  # fmt: skip

    def values(name: str, key: str) -> list[float]:
        return [{**result, **result["others"]}[key] for result in (results[f"{name}, seed {seed}"] for seed in seeds)]

    def minutes(name: str, key: str) -> str:
        if key != "map3":
            return ""
        every = [minute for fold in values(name, "minutes") for minute in fold]
        return f"{sum(every) / len(every):.2f} min a fold"

    scores = {}
    for title, key in (
        ("mAP@3", "map3"), ("accuracy", "accuracy"), (f"mAP@3 of the same clips, {SOFTER} dB softer", "softer"),
    ):  # fmt: skip
        whole = values(WHOLE, key)
        scores[title] = [Score(WHOLE, whole, remark=minutes(WHOLE, key))]
        scores[f"{title}: less that of the whole recipe"] = [
            Score(name, [a - b for a, b in zip(values(name, key), whole, strict=True)], remark=minutes(name, key))
            for name in bench.pick(CHANGES, {})
        ]
    notes = [
        f"`cnn_logmel` on the clips of DATA_DIR in its folds, seeds {', '.join(map(str, seeds))}; the recipe was "
        f"chosen on seeds {CHOSEN_ON} and the same clips. Below 0: worse without this part, or with this change. A "
        "mean over three seeds that is smaller than its spread may well be chance. Each training has one core and one "
        "thread, so the whole recipe differs from `quality`'s in the last digits that it computes with, and by as much "
        "as another seed would in its score.",
        f"Softer clips: the same weights on the same clips, {SOFTER} dB below their level in DATA_DIR.",
    ]
    return Section([], notes, ["tensorflow", "keras", "librosa", "soxr", "scipy", "numpy"], scores)
