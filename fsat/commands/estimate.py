"""Estimate how long the steps of `main` take on this machine, from short measurements on the user's own clips."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import numpy as np

from fsat.config import Config
from fsat.data.audio import hear
from fsat.data.clip_names import stored_name
from fsat.data.dataset import Source, check_labels
from fsat.data.folds import resolve_folds, settle_folds
from fsat.data.manifest import Manifest, read_manifest
from fsat.errors import AudioError, count
from fsat.models import settle_precision
from fsat.training.step_time import step_seconds

DECODED_CLIPS, DECODED_SECONDS = 16, 3.0
"""Clips that are decoded to measure the speed, evenly spread over the table, and time after which no other is."""

PREDICTION_SHARE = 1 / 3
"""Time of a prediction as a share of that of a gradient step on the same crop."""


def describe_steps(source: Source, configs: Sequence[Config], warn: bool = True) -> Iterator[str]:
    """Yield what is in the data folder, with warnings if asked, then about how long each step takes, a line each.

    Early stopping makes a training shorter; clips that were decoded and folds that were trained before take no time.
    Raises `DataError` if the clips cannot be trained on, as far as that is known without decoding them.
    """
    manifest = read_manifest(source.data_dir, source.on_bad_clip, layout=source.layout)
    yield manifest.describe()
    yield from (f"warning: {warning}" for warning in manifest.warnings if warn)
    if rate := _decoding_rate(manifest, configs[0].sampling_rate):
        tables = manifest.train, manifest.test
        lengths = [(table["frames"] / table["samplerate"].clip(lower=1)).sum() for table in tables]
        decoding = float(sum(lengths)) / rate / (os.cpu_count() or 1)
        yield f"decoding: {in_words(decoding)} for each sampling rate, once; eda: {in_words(10 + 2 * decoding)}"
    check_labels(manifest)
    for config in configs:
        resolved = resolve_folds(manifest.train, config.for_task(manifest.task), source.n_folds_given)
        settled, _, remark = settle_folds(manifest.train, manifest.targets, resolved)
        yield _training(manifest, settled) + (f" ({remark})" if remark else "")


def _decoding_rate(manifest: Manifest, sampling_rate: int) -> float:
    """Return how many seconds of sound are decoded in one second by one core; 0 if no clip can be decoded."""
    train, seconds, began = manifest.train, 0.0, time.perf_counter()
    for i in np.unique(np.linspace(0, len(train) - 1, DECODED_CLIPS).astype(int)):
        folder, fname = manifest.train_folder, train["fname"].iloc[i]
        try:
            hear(folder / stored_name(folder, fname), [sampling_rate])
        except AudioError:
            continue
        seconds += train["frames"].iloc[i] / train["samplerate"].iloc[i]
        if time.perf_counter() - began > DECODED_SECONDS:
            break
    return seconds / (time.perf_counter() - began)


def _training(manifest: Manifest, config: Config) -> str:
    """Return the time that the folds of a study take, in words."""
    if config.use_embedding:
        return f"{config.model}: a few seconds for each fold, once the embeddings of the clips are computed"
    n_clips, n_folds = len(manifest.train), config.n_folds
    lengths = manifest.train["frames"] / manifest.train["samplerate"]
    n_crops = np.maximum(config.eval_crops, np.ceil(lengths / config.audio_duration)).mean()
    predicted = PREDICTION_SHARE * n_crops * (n_clips / n_folds * config.max_epochs + n_clips)
    n_steps = (n_clips * (1 - 1 / n_folds) * config.max_epochs + predicted) / config.batch_size
    seconds = n_steps * step_seconds(settle_precision(config), len(manifest.labels))
    most = "at most " if config.checkpoint == "best" else ""
    folds = f"{count(n_folds, 'fold')} of {most}{in_words(seconds)}"
    return f"{config.model}: {folds}, {most}{in_words(n_folds * seconds)} together"


def in_words(seconds: float) -> str:
    """Return a duration with one unit and at most two digits of precision."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (float("inf"), 3600, "h")):
        if seconds < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 3 else f"{value:.0f} {unit}"
    raise AssertionError(seconds)
