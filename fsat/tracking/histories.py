"""How a fold's metrics went, epoch by epoch, as the tracking server has it."""

from __future__ import annotations

import math
from functools import partial

import mlflow

from fsat.tracking.client import UNKNOWN, Refused, ask
from fsat.tracking.fold_artifacts import FoldRun

LARGEST = 1e300
"""Databases keep an infinite value as the largest number that they have."""


def history(run_id: str, key: str) -> dict[int, float]:
    """A metric by step, which is the epoch from 0; empty where the run has none.

    What is not a finite number is left out. Of a step that was logged more than once, the newest value holds.

    Raises:
        RunError: the tracking server refused, or is away.
    """
    try:
        points = ask(partial(mlflow.MlflowClient().get_metric_history, run_id, key))
    except Refused as error:
        if error.code not in UNKNOWN:
            raise
        return {}
    points = sorted(points, key=lambda point: (point.step, point.timestamp))
    return {point.step: point.value for point in points if math.isfinite(point.value) and abs(point.value) < LARGEST}


def epochs(record: FoldRun, key: str, other: str) -> dict[int, float]:
    """A fold run's metric by epoch, without the last point, which is the score of the weights that were kept.

    Args:
        record: the fold run.
        key: the metric, such as ``val_map3``.
        other: one of the same epochs that has no such point, ``val_loss``.
    """
    known = history(record.run_id, other)
    last = max(known, default=-1)
    return known if key == other else {epoch: x for epoch, x in history(record.run_id, key).items() if epoch <= last}
