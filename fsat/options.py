"""Options beside `Config`: how they are checked, and how folds are started, files tagged and labels decided on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Cluster:
    """The machines that work is spread over.

    Attributes:
        kind: ``none`` for this machine alone, or ``ray``.
        address: of the Ray cluster, ``HOST:PORT``; ``auto`` for the one that this machine belongs to, or else one that
            is started here for as long as the command takes.
        cpus: that each task needs; ``auto`` for the threads that a fold uses, or fewer where no node has as many.
        gpus: that each task needs; ``auto`` for one where the cluster has any.

    Raises:
        ConfigError: a value is not allowed.
    """

    kind: str = "none"
    address: str = "auto"
    cpus: str = "auto"
    gpus: str = "auto"

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if self.address != "auto" and not (host and port.isdecimal() and "/" not in host):
            raise ConfigError(f"ray_address={printable(self.address)}: expected auto or HOST:PORT")
        for name in ("cpus", "gpus"):
            given = getattr(self, name)
            try:
                fine = given == "auto" or 0 <= float(given) < float("inf")
            except ValueError:
                fine = False
            if not fine:
                raise ConfigError(f"ray_{name}={printable(given)}: expected auto or a number of at least 0")


ALONE = Cluster()
"""This machine."""


@dataclass(frozen=True)
class Launch:
    """How folds are started; it changes none of their results.

    Attributes:
        resume: go on with a fold that was stopped, rather than begin it again; and do not train one by itself anew that
            is FINISHED.
        checkpoint_to: ``local``, or ``server`` to keep checkpoints there too, so that another machine can go on.
        parallel_folds: how many folds are trained at the same time on this machine; ``auto`` for what is quickest here.
        cluster: the machines to train on; with Ray, it places as many folds at a time as there is room for.
    """

    resume: bool = True
    checkpoint_to: str = "local"
    parallel_folds: str = "auto"
    cluster: Cluster = ALONE


LONGEST_CLIP = 600.0
"""Seconds of the longest clip that is tagged as one, unless more is asked for."""


@dataclass(frozen=True)
class TagSettings:
    """How files are tagged.

    Attributes:
        top_k: tags of a clip, or of a window, at most; 0 for 3 of a clip and 1 of a window.
        min_score: the least score of a tag.
        members: which of the tagger's to use, as `fsat.tagging.Tagger.only` takes it.
        window: seconds, for tags over time; 0 for tags of clips.
        hop: seconds from window to window; 0 for `window`.
        max_seconds: length of the longest file that is tagged; 0 for `LONGEST_CLIP`, or any with `window`.

    Raises:
        ConfigError: a value is not allowed.
    """

    top_k: int = 0
    min_score: float = 0.0
    members: str = "all"
    window: float = 0.0
    hop: float = 0.0
    max_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("window", "hop", "max_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name):g}: expected a number of seconds, at least 0")
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"min_score={self.min_score:g}: expected 0 to 1")
        if self.hop and not self.window:
            raise ConfigError(f"hop={self.hop:g}: is the step from window to window; give window=SECONDS too")
        if self.hop > self.window:
            raise ConfigError(f"hop={self.hop:g}: expected at most window={self.window:g}, so that nothing is left out")
        if 0 < self.window < SHORTEST_WINDOW or 0 < self.hop < SHORTEST_WINDOW:
            raise ConfigError(f"window={self.window:g} and hop={self.hop:g}: expected at least {SHORTEST_WINDOW:g} s")

    @property
    def tags(self) -> int:
        """Tags of a clip or a window at most."""
        return self.top_k or (1 if self.window else 3)

    @property
    def step(self) -> float:
        """Seconds from window to window."""
        return self.hop or self.window

    @property
    def longest(self) -> float:
        """Length of the longest file, in seconds."""
        return self.max_seconds or (float("inf") if self.window else LONGEST_CLIP)


SHORTEST_WINDOW = 0.01
"""Seconds."""

CLIPS = TagSettings()
"""As clips are tagged if nothing else is asked for."""


@dataclass(frozen=True)
class Thresholds:
    """Probabilities, in [0, 1], from which something is done about an unverified clip; in this order.

    Attributes:
        accept: the likeliest class is the label, with at least this probability: it is accepted.
        relabel: the likeliest class is another, with at least this probability: it becomes the label.
        drop: the label has less than this probability: the clip is dropped. Otherwise it stays as it is.
    """

    accept: float = 0.4
    relabel: float = 0.4
    drop: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ConfigError(f"{name}_at={value:g}: expected a probability from 0 to 1")
