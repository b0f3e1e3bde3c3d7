"""Options as dataclasses: each field has a help text and limits, and is checked when the dataclass is made.

`fsat.config.Config` has the settings that define a study. The dataclasses here say where and how to work, and change no
result of a training. `fsat.cli.shared_options` makes the options of the command line from the same fields.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields, replace
from functools import partial
from typing import Any

from fsat.errors import ConfigError, printable

KINDS = {"int": "a whole number", "float": "a number", "str": "a word", "bool": "true or false"}
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "least": ("at least", lambda value, limit: value >= limit),
    "above": ("more than", lambda value, limit: value > limit),
    "most": ("at most", lambda value, limit: value <= limit),
    "below": ("less than", lambda value, limit: value < limit),
}

NO_METADATA: dict[str, Any] = {
    **dict.fromkeys((*LIMITS, "parse")),
    **dict.fromkeys(("name", "expected", "metavar", "shown"), ""),
    "choices": (),
}

PROMOTE = ("auto", "always", "never")
"""When the alias champion moves to a new version of a tagger."""

LONGEST_CLIP = 600.0
"""Length of the longest clip that is tagged as a whole by default, in seconds."""

LONGEST_SEGMENT = 30.0
"""Length of the longest segment that is cut out of a recording by default, in seconds."""

NEAR_DUPLICATE = 0.98
"""Cosine of the embeddings of two clips from which on `eda` calls them near-duplicates, by default."""

AUTO, DEFAULT, ANY = "auto", "default", 1_000_000
"""Values of `TagSettings.min_score` for the thresholds of the tagger, and for these if it was trained to give no tag to
some sounds, else 0; and the number of tags that is no limit."""

SHORTEST_WINDOW = 0.01
"""Shortest window of tags over time, in seconds."""


def option(default: Any, help: str, **metadata: Any) -> Any:
    """Return a dataclass field that is an option.

    Args:
        default: its default, which is always allowed.
        help: a noun phrase or an imperative sentence, with the unit.
        metadata: ``name`` on the command line; limits of a number, ``least``, ``above``, ``most`` and ``below``; the
            allowed words, ``choices``; ``parse``, which returns the value of a text or raises `ValueError`, and the
            texts ``expected`` by it, in words; ``metavar`` of ``--help``, and the default ``shown`` there.
    """
    return field(default=default, metadata={**NO_METADATA, "help": help, **metadata})


def option_name(spec: Field[Any]) -> str:
    """Return the name of an option on the command line."""
    return spec.metadata["name"] or spec.name


def check_options(options: Any) -> None:
    """Check each option of a frozen dataclass, and convert it to the type of its field; raise `ConfigError`."""
    for spec in fields(options):
        if spec.metadata:
            object.__setattr__(options, spec.name, checked(spec, getattr(options, spec.name)))


class Checked:
    """Base of dataclasses whose options are checked when they are made."""

    def __post_init__(self) -> None:
        check_options(self)


def checked(spec: Field[Any], value: Any, name: str = "") -> Any:
    """Return a value, or that of its text, in the type of its field; `name` is its name in errors.

    Raises `ConfigError` if the value is of another type or outside the limits.
    """
    if type(value) is type(spec.default) and value == spec.default:
        return value
    limits, prefix = spec.metadata, f"{name or option_name(spec)}={printable(value)}: expected"
    try:
        value = (limits["parse"] or CONVERTERS[spec.type])(value)
    except (TypeError, ValueError, OverflowError, AttributeError):
        raise ConfigError(f"{prefix} {limits['expected'] or KINDS[str(spec.type)]}") from None
    if limits["choices"] and value not in limits["choices"]:
        raise ConfigError(f"{prefix} one of {', '.join(limits['choices'])}")
    for key, (words, is_within) in LIMITS.items():
        if limits[key] is not None and not isinstance(value, str) and not is_within(value, limits[key]):
            raise ConfigError(f"{prefix} {words} {limits[key]}")
    return value


def _whole_number(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(value := float(value)):
        raise ValueError
    return value


def _truth(value: Any) -> bool:
    try:
        return value if isinstance(value, bool) else TRUTHS[value.strip().lower()]
    except KeyError:
        raise ValueError from None


CONVERTERS: dict[Any, Callable[[Any], Any]] = {"int": _whole_number, "float": _number, "str": str, "bool": _truth}


def _auto_or(is_valid: Callable[[str], object], expected: str, metavar: str = "N|auto") -> dict[str, Any]:
    """Return the metadata of an option that takes ``auto`` or a valid text."""

    def parse(text: str) -> str:
        if text != "auto" and not is_valid(text):
            raise ValueError
        return text

    return {"parse": parse, "expected": f"auto or {expected}", "metavar": metavar}


def _auto_or_number(value: Any) -> float | str:
    """Return ``auto`` or ``default``, or the number of a text."""
    return value if value in (AUTO, DEFAULT) else _number(value)


AUTO_OR_COUNT = _auto_or(partial(re.fullmatch, "0*[1-9][0-9]*"), "a whole number of at least 1")
AUTO_OR_AMOUNT = _auto_or(lambda text: 0 <= float(text) < math.inf, "a number of at least 0")
AUTO_OR_ADDRESS = _auto_or(partial(re.fullmatch, r"[^/]+:\d+"), "HOST:PORT", "auto|HOST:PORT")
METAVAR: dict[str, Any] = {"metavar": "SECONDS"}
SECONDS: dict[str, Any] = {"least": 0, **METAVAR}


@dataclass(frozen=True)
class Cluster(Checked):
    """Machines that work is spread over."""

    kind: str = option("none", "Cluster to work on; ray requires fsat[ray].", name="cluster", choices=("none", "ray"))
    address: str = option(
        "auto",
        "Address of the Ray cluster; auto is that of this machine's cluster, or else of one started for the command.",
        name="ray_address",
        **AUTO_OR_ADDRESS,
    )
    cpus: str = option(
        "auto",
        "Number of processors that each task needs; auto is the threads of a fold, or fewer if no node has as many.",
        name="ray_cpus",
        **AUTO_OR_AMOUNT,
    )
    gpus: str = option(
        "auto", "Number of GPUs that each task needs; auto is one if there are any.", name="ray_gpus", **AUTO_OR_AMOUNT
    )


ALONE = Cluster()
"""This machine alone."""


@dataclass(frozen=True)
class Launch(Checked):
    """How folds are started, and on which machines; Ray trains as many folds at a time as it has room for."""

    resume: bool = option(True, "Resume interrupted folds and skip FINISHED ones; false trains them again.")
    checkpoint_to: str = option(
        "local", "Where to store checkpoints; server lets other machines resume.", choices=("local", "server")
    )
    parallel_folds: str = option("auto", "Number of folds to train at once, each in its own process.", **AUTO_OR_COUNT)
    cluster: Cluster = ALONE


@dataclass(frozen=True)
class TagSettings(Checked):
    """How files are tagged."""

    top_k: int = option(
        0,
        "Maximum number of tags of a clip or window.",
        least=1,
        shown="3 of a clip, 1 of a window; any number if clips may have several labels or none, or with min_score=auto",
    )
    min_score: float | str = option(
        DEFAULT,
        "Minimum score of a tag; auto is the threshold of each class, which evaluate or ensemble chose.",
        least=0,
        most=1,
        parse=_auto_or_number,
        expected="a number, or auto",
        metavar="NUMBER|auto",
        shown="auto if clips may have several labels or none, else 0",
    )
    members: str = option("all", "Members of the ensemble to use; fewer are faster.", metavar="all|N|STUDY/FOLD,...")
    window: float = option(
        0.0, "Length of the windows of tags over time, in seconds.", **SECONDS, shown="0, one set of tags for each file"
    )
    hop: float = option(0.0, "Time from one window to the next, in seconds.", **SECONDS, shown="the length of a window")
    max_seconds: float = option(
        0.0, "Maximum length of a file, in seconds.", **SECONDS, shown=f"{LONGEST_CLIP:.0f}, any length with window"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        window, hop = f"window={self.window:g}", f"hop={self.hop:g}"
        if self.hop and not self.window:
            raise ConfigError(f"{hop}: expected window=SECONDS too, as hop is the time between windows")
        if self.hop > self.window:
            raise ConfigError(f"{hop}: expected at most {window}, so that windows cover the file")
        if 0 < self.window < SHORTEST_WINDOW or 0 < self.hop < SHORTEST_WINDOW:
            raise ConfigError(f"{window} and {hop}: expected at least {SHORTEST_WINDOW:g} s")

    def settled(self, has_thresholds: bool) -> TagSettings:
        """Return the settings for a tagger that has thresholds of its own, or none, without ``min_score=default``."""
        return replace(self, min_score=AUTO if has_thresholds else 0.0) if self.min_score == DEFAULT else self

    @property
    def tags(self) -> int:
        """Maximum number of tags of a clip or a window."""
        return self.top_k or (ANY if self.is_auto else 1 if self.window else 3)

    @property
    def is_auto(self) -> bool:
        """Whether each class has a minimum score of its own, which is stored with the tagger."""
        return self.min_score == AUTO

    @property
    def step(self) -> float:
        """Time from one window to the next, in seconds."""
        return self.hop or self.window

    @property
    def longest(self) -> float:
        """Maximum length of a file, in seconds."""
        return self.max_seconds or (math.inf if self.window else LONGEST_CLIP)


CLIPS = TagSettings()
"""Default settings: one set of tags for each clip."""


@dataclass(frozen=True)
class TableOptions(Checked):
    """Form of a table of tags, beside its format."""

    long: bool = option(False, "Write a row for each label of a clip; recordings always have a row for each tag.")
    excel: bool = option(False, "Write CSV or TSV that Excel shows rightly: all letters, and no cell as a formula.")


PLAIN = TableOptions()
"""Default form: a row for each clip, in UTF-8."""


@dataclass(frozen=True)
class SegmentOptions(Checked):
    """What is cut out of recordings."""

    per_class: int = option(20, "Maximum number of segments of a class.", least=1)
    min_score: float = option(0.0, "Minimum score of a segment.", least=0, most=1)
    padding: float = option(0.0, "Time to add before and after a segment, in seconds.", **SECONDS)
    max_seconds: float = option(
        0.0,
        "Maximum length of a segment without padding, in seconds; the middle of a longer one is cut out.",
        **SECONDS,
        shown=f"{LONGEST_SEGMENT:.0f}, any length of a clip that was tagged as a whole",
    )

    def longest(self, is_clip: bool) -> float:
        """Return the maximum length of a segment, or of a clip that was tagged as a whole, in seconds."""
        return self.max_seconds or (math.inf if is_clip else LONGEST_SEGMENT)


@dataclass(frozen=True)
class Thresholds(Checked):
    """Probabilities, in [0, 1], that decide on the label of an unverified clip, in the order of the fields.

    A label that no threshold applies to stays as it is. Where a clip has any number of labels, these decide on each of
    them, and on each that it does not have: of presence and absence the more probable one is the best guess.
    """

    accept: float = option(
        0.4, "Minimum probability of a label to accept it, if it is the best guess.", name="accept_at", least=0, most=1
    )
    relabel: float = option(
        0.4,
        "Minimum probability of another best guess to relabel; with task=multi, to add or remove a label.",
        name="relabel_at",
        least=0,
        most=1,
    )
    drop: float = option(
        0.5,
        "Probability of a label below which the clip is dropped, else unchanged; with task=multi, only that label.",
        name="drop_at",
        least=0,
        most=1,
    )


@dataclass(frozen=True)
class EvaluateSettings(Checked):
    """How tags over time are compared with annotations."""

    resolution: float = option(1.0, "Length of a segment of segment-based scores, in seconds.", least=0.01, **METAVAR)
    collar: float = option(
        0.2, "Time by which a right event may begin or end before or after the annotated one, in seconds.", above=0,
        **METAVAR,
    )  # fmt: skip
    offset_share: float = option(
        0.5, "Share of the annotated length by which it may end before or after, if that is longer.", least=0, most=1
    )
    classes: str = option(
        "all", "Whether tags of classes that are never annotated are false alarms (all), or are left out (annotated).",
        choices=("all", "annotated"),
    )  # fmt: skip
    point_seconds: float = option(
        0.0, "Length of annotations that have none, around their time, in seconds.", **SECONDS,
        shown="0: each is an error",
    )  # fmt: skip
