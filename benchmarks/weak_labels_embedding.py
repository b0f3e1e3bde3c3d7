"""Measure the same as `weak_labels` with the model `embedding`."""

from __future__ import annotations

from benchmarks import weak_labels
from benchmarks.harness import Bench, Section


def run(bench: Bench) -> Section:
    """Train all sides for each seed and fold."""
    return weak_labels.run(bench, "embedding", {"backbone": str(bench.require_backbone())})
