"""What each part of cnn_logmel's recipe gives: what it scores with that part changed, all else alike.

Cross-validation over the folds of DATA_DIR as in the benchmark `quality`, with its seeds. Nothing is chosen on the
scored clips.
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
    "constant learning rate, no warm-up": {"schedule": "constant", "warmup": 0},
    "weights of the last epoch": {"checkpoint": "last"},
    "a quarter of the epochs": {"max_epochs": 50},
}

WHOLE = "the whole recipe"


def run(bench: Bench) -> Section:
    """Train every variant of every seed."""
    seeds = bench.pick(SEEDS, SEEDS[:1])
    quick = bench.pick({}, {"max_epochs": 1})
    results = side_by_side({
        f"{name}, seed {seed}": partial(
            call, "benchmarks.quality:study", data_dir=str(bench.data_dir),
            options={"preset": "cnn_logmel", **change, **quick, "seed": seed},
        )
        for seed in seeds for name, change in bench.pick({WHOLE: {}, **CHANGES}, {WHOLE: {}}).items()
    })  # fmt: skip

    def values(name: str, key: str) -> list[float]:
        return [results[f"{name}, seed {seed}"][key] for seed in seeds]

    def minutes(name: str) -> str:
        every = [minute for fold in values(name, "minutes") for minute in fold]
        return f"{sum(every) / len(every):.2f} min a fold"

    scores = {"mAP@3": [Score(WHOLE, values(WHOLE, "map3"), remark=minutes(WHOLE))]}
    scores["mAP@3 less that of the whole recipe"] = [
        Score(
            name,
            [a - b for a, b in zip(values(name, "map3"), values(WHOLE, "map3"), strict=True)],
            remark=minutes(name),
        )
        for name in bench.pick(CHANGES, {})
    ]
    notes = [
        f"`cnn_logmel` on the clips of DATA_DIR in its folds, seeds {', '.join(map(str, seeds))}; the recipe was "
        f"chosen on seeds {CHOSEN_ON} and the same clips. Below 0: worse without this part, or with this change. A "
        "mean over three seeds that is smaller than its spread may well be chance. Each training has one core and one "
        "thread, so the whole recipe differs from `quality`'s in the last digits that it computes with, and by as much "
        "as another seed would in its score."
    ]
    return Section([], notes, ["tensorflow", "keras", "librosa", "soxr", "scipy", "numpy"], scores)
