"""Measure how long a gradient step of a model takes on this machine."""

from __future__ import annotations

import time

import numpy as np

from fsat.config import Config
from fsat.data.mfcc import model_input
from fsat.models import build, seed_everything

MEASURED_STEPS, MEASURED_SECONDS = 5, 2.0
"""Maximum number of steps that are measured after the first, and time after which no other begins."""


def step_seconds(config: Config, n_classes: int) -> float:
    """Return the least seconds of a step of ``batch_size`` random inputs, after the first, which traces the model."""
    seed_everything(config.seed)
    model = build(config, n_classes)
    model.compile("adam", "categorical_crossentropy", jit_compile=False)
    rng = np.random.default_rng(config.seed)
    takes_samples = not (config.use_logmel or config.use_embedding)
    shape = (config.audio_length,) if takes_samples else config.dim
    inputs = rng.standard_normal((config.batch_size, *shape), dtype=np.float32)
    targets = np.eye(n_classes, dtype=np.float32)[np.arange(config.batch_size) % n_classes]
    times, began = list[float](), time.perf_counter()
    for step in range(1 + MEASURED_STEPS):
        started = time.perf_counter()
        model.train_on_batch(model_input(inputs, config) if takes_samples else inputs, targets)
        times += [time.perf_counter() - started] * bool(step)
        began = began if step else time.perf_counter()
        if times and time.perf_counter() - began > MEASURED_SECONDS:
            break
    return min(times)
