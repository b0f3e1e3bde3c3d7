"""Values of settings that are texts of their own kind: schedules, ids of runs, and taggers to start from."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any


def weight_schedule(text: str) -> list[tuple[float, float]]:
    """Return the (epoch, weight) pairs of a schedule, in order; weights are interpolated linearly between them.

    The text is one weight, such as ``0.5``, or pairs, such as ``0:1,30:0.2``; `ValueError` if it is neither, a weight
    is negative, or the epochs do not increase.
    """
    pairs = []
    for part in text.split(","):
        epoch, colon, weight = part.rpartition(":")
        if not colon and "," in text:
            raise ValueError
        pairs.append((float(int(epoch)) if colon else 0.0, float(weight)))
    epochs = [epoch for epoch, _ in pairs]
    is_increasing = epochs[0] >= 0 and all(a < b for a, b in pairwise(epochs))
    if not is_increasing or not all(math.isfinite(weight) and weight >= 0 for _, weight in pairs):
        raise ValueError
    return pairs


def normalised_schedule(value: Any) -> str:
    """Return the one text of equal schedules."""
    pairs = weight_schedule(str(value))
    weights = [repr(weight).removesuffix(".0") for _, weight in pairs]
    if len(pairs) == 1:
        return weights[0]
    return ",".join(f"{epoch:.0f}:{weight}" for (epoch, _), weight in zip(pairs, weights, strict=True))


def run_id_or_none(text: str) -> str:
    """Return ``none`` or the id of a run in lower case; else `ValueError`."""
    run_id = text.strip().lower()
    if run_id != "none" and not (run_id and set(run_id) <= set("0123456789abcdef")):
        raise ValueError
    return run_id


def tagger_or_run_ids(text: str) -> str:
    """Return ``none``, ids of runs separated by commas, or the URI of a registered tagger; else `ValueError`."""
    text = text.strip()
    ids = [part.strip().lower() for part in text.split(",")]
    if ids == ["none"] or all(re.fullmatch("[0-9a-f]+", run_id) for run_id in ids):
        return ",".join(ids)
    if re.fullmatch("[^:/]+@[^:/@]+", text):
        return f"models:/{text}"
    if not re.fullmatch("models:/[^/].*", text):
        raise ValueError
    return text
