"""How folds are started: on what, how many at a time, and where they can go on from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """How folds are started; it changes none of their results.

    Attributes:
        resume: go on with a fold that was stopped, rather than begin it again.
        checkpoint_to: ``local``, or ``server`` to keep checkpoints there too, so that another machine can go on.
        parallel_folds: how many folds are trained at the same time; ``auto`` for what is quickest here.
    """

    resume: bool = True
    checkpoint_to: str = "local"
    parallel_folds: str = "auto"
