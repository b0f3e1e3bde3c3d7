"""Fields of a dataclass of settings: their limits, and how a value, or its text, is checked against them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from itertools import pairwise
from typing import Any

from fsat.errors import ConfigError, printable


def setting(
    default: Any, help: str, *, least: float | None = None, above: float | None = None, most: float | None = None,
    below: float | None = None, choices: Sequence[str] = (), later: bool = False,
) -> Any:  # fmt: skip
    """A dataclass field with limits.

    Args:
        default: its default.
        help: one sentence, with the unit.
        least, above, most, below: the value must be at least, more than, at most, less than these.
        choices: the words allowed; any if empty.
        later: the field came after studies were made whose ids do not have it: they are as if it had its default.
    """
    limits = {"least": least, "above": above, "most": most, "below": below, "choices": tuple(choices)}
    return field(default=default, metadata={"help": help, "later": later, **limits})


def checked(spec: Any, value: Any) -> Any:
    """`value` in the type of the field `spec`.

    Raises:
        ConfigError: it is of the wrong kind or outside the limits.
    """
    kind = {"int": int, "float": float, "str": str}[spec.type]
    words = {int: "a whole number", float: "a number", str: "a word"}[kind]
    try:
        if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
            raise ValueError
        value = kind(value)
        if kind is float and not math.isfinite(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{spec.name}={printable(value)}: expected {words}") from None
    limits = spec.metadata
    if limits["choices"] and value not in limits["choices"]:
        raise ConfigError(f"{spec.name}={printable(value)}: expected one of {', '.join(limits['choices'])}")
    for what, words, wrong in (
        ("least", "at least", lambda limit: value < limit),
        ("above", "more than", lambda limit: value <= limit),
        ("most", "at most", lambda limit: value > limit),
        ("below", "less than", lambda limit: value >= limit),
    ):
        if limits[what] is not None and wrong(limits[what]):
            raise ConfigError(f"{spec.name}={printable(value)}: expected {words} {limits[what]}")
    return value


def weight_schedule(name: str, text: str) -> list[tuple[float, float]]:
    """A weight that changes over the epochs: ``0.5``, or ``epoch:weight`` pairs such as ``0:1,30:0.2``.

    Args:
        name: of the setting, for the error.
        text: as typed.

    Returns:
        (epoch, weight) pairs in order; between them the weight goes in a straight line.

    Raises:
        ConfigError: it is neither, a weight is below 0, or the epochs do not rise.
    """
    pairs = []
    try:
        for part in text.split(","):
            epoch, colon, weight = part.rpartition(":")
            if not colon and "," in text:
                raise ValueError
            pairs.append((float(int(epoch)) if colon else 0.0, float(weight)))
    except ValueError:
        pairs = []
    epochs = [epoch for epoch, _ in pairs]
    rising = bool(pairs) and epochs[0] >= 0 and all(a < b for a, b in pairwise(epochs))
    if not rising or not all(math.isfinite(weight) and weight >= 0 for _, weight in pairs):
        raise ConfigError(
            f"{name}={printable(text)}: expected a weight of at least 0, or weights from epoch to epoch such as "
            "0:1,30:0.2"
        )
    return pairs
