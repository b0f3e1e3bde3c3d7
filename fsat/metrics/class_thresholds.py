"""Thresholds of classes: the minimum scores of tags that `evaluate` has chosen for a tagger; and those of a call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from fsat.errors import RunError
from fsat.metrics.ranking import TOP_K
from fsat.options import TagSettings

FILE = "thresholds.json"

BY_CLASS = -1.0
"""Minimum score in a call of a tagger through MLflow, whose parameters have one type: the threshold of each class."""


class TagParams(NamedTuple):
    """The parameters of such a call: the most labels of a clip, and their minimum score, in [0, 1] or `BY_CLASS`."""

    top_k: int
    min_score: float

    @classmethod
    def of(cls, n_labels: int, has_thresholds: bool) -> TagParams:
        """Return the defaults for a tagger: all labels that reach its thresholds, if it has any; else the best."""
        return cls(n_labels, BY_CLASS) if has_thresholds else PARAMS


PARAMS = TagParams(TOP_K, 0.0)
"""Defaults for a tagger without thresholds."""


@dataclass(frozen=True)
class ClassThresholds:
    """Minimum scores of tags, and what they were chosen with.

    Attributes:
        thresholds: of the annotated classes, by label, in [0, 1].
        default: of the other classes.
        tagger: digest of the tagger.
        members, window, hop: settings of the tags, as in `TagSettings`.
    """

    thresholds: Mapping[str, float]
    default: float
    tagger: str
    members: str
    window: float
    hop: float

    def minimum(self, labels: Sequence[str]) -> np.ndarray:
        """Return the minimum score of each label, float32 (n_labels,)."""
        return np.array([self.thresholds.get(label, self.default) for label in labels], np.float32)

    def differences(self, settings: TagSettings) -> list[str]:
        """Return what to say of settings under which scores differ from those that the thresholds were chosen on."""
        chosen = {"window": f"{self.window:g}", "hop": f"{self.hop:g}", "members": self.members}
        used = {"window": f"{settings.window:g}", "hop": f"{settings.step:g}", "members": settings.members}
        wrong = [name for name in chosen if chosen[name] != used[name]]
        if not wrong:
            return []
        then, now = (" ".join(f"{name}={values[name]}" for name in wrong) for values in (chosen, used))
        return [f"min_score=auto: the thresholds were chosen with {then}, and scores with {now} may be others"]

    def to_json(self) -> str:
        """Return the thresholds as text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hex digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def read_thresholds(text: str) -> ClassThresholds:
    """Return the thresholds of a text; raise `RunError` if it is not one that `to_json` wrote."""
    try:
        facts = json.loads(text)
        thresholds = ClassThresholds(**facts)
        numbers = [float(value) for value in (*thresholds.thresholds.values(), thresholds.default)]
        if not all(0 <= number <= 1 for number in numbers):
            raise ValueError("a threshold is not from 0 to 1")
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{FILE}: cannot be read ({error}); run `evaluate` again") from error
    return thresholds
