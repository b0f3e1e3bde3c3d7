"""A small dataset laid out as FSDKaggle2019: curated and noisy clips of any number of tones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers import CLASSES, tone, write_csv, write_wav

WRONG, MISSING = 0.3, 0.4
"""Share of the noisy clips without a sound that have its label; share of those with a sound that lack it."""


def make_mixtures(folder: Path, n_curated: int = 12, n_noisy: int = 24, seed: int = 0) -> tuple[Path, np.ndarray]:
    """Write clips of 0.3 to 0.5 s at 8000 Hz, each of up to three tones, some of none.

    Returns the folder and the truth: bool (n_clips, 3), which of `CLASSES` the clips have, by the order of their names
    ``train_curated/00.wav``, ..., then ``train_noisy/00.wav``, ...
    """
    rng = np.random.default_rng(seed)
    frequencies, n_clips = np.geomspace(300, 3200, len(CLASSES)), n_curated + n_noisy
    truth = np.array([[bool(i >> j & 1) for j in range(len(CLASSES))] for i in range(1, 9)] * -(-n_clips // 8))[
        :n_clips
    ]
    flips = rng.random(truth.shape) < np.where(truth, MISSING, WRONG)
    flips[:n_curated] = False
    given = truth ^ flips
    for name, rows in (("curated", range(n_curated)), ("noisy", range(n_curated, n_clips))):
        table = []
        for number, i in enumerate(rows):
            seconds = rng.uniform(0.3, 0.5)
            samples = 0.01 * rng.standard_normal(round(seconds * 8000))
            for frequency in frequencies[truth[i]]:
                samples += tone(frequency * rng.uniform(0.97, 1.03), seconds, 8000, 0.3)
            write_wav(folder / f"train_{name}" / f"{number:02d}.wav", samples.astype(np.float32))
            table.append((f"{number:02d}.wav", ",".join(np.array(CLASSES)[given[i]])))
        write_csv(folder / f"train_{name}.csv", ["fname", "labels"], table)
    return folder, truth
