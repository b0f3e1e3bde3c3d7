"""How sure one must be before a label that nobody has checked is accepted, replaced or given up."""

from __future__ import annotations

from dataclasses import dataclass

from fsat.errors import ConfigError


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
