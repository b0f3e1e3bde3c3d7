"""The learning curves of all folds of all studies in one picture, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsat.errors import count
from fsat.reports.style import BLUE, ORANGE, lettering, plt, save

COLOURS = (BLUE, ORANGE, "#4b8b3b", "#8b3a62", "#b8860b", "#5c5c9a", "#00868b", "#a0522d", "#c2509a", "#55606a")
"""Of studies, in their order; further ones begin anew."""

FLAT = 0.01
"""Share of its own size that a loss must have risen by after the best epoch, to speak of a rise."""


@dataclass(frozen=True)
class FoldCurve:
    """How one fold's training went.

    Attributes:
        study, model, fold: which it is.
        val_map3, val_loss: by epoch, from 0; empty where the tracking server has none.
        best_epoch: whose weights are kept; None where that is not known.
    """

    study: str
    model: str
    fold: int
    val_map3: dict[int, float]
    val_loss: dict[int, float]
    best_epoch: int | None

    @property
    def is_there(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self.val_map3 or self.val_loss)


def plot_curves(curves: Sequence[FoldCurve], path: Path) -> None:
    """Validation mAP@3 and loss over the epochs: a colour for each study, a line for each fold, a dot where it is best.

    Args:
        curves: at least one that has points.
        path: of the PNG.
    """
    studies = list(dict.fromkeys((curve.study, curve.model) for curve in curves))
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.6, 6), sharex=True, gridspec_kw={"hspace": 0.08})
    for number, (study, model) in enumerate(studies):
        colour = COLOURS[number % len(COLOURS)]
        for axes in (above, below):
            axes.plot([], [], color=colour, label=f"{lettering(model)} {study}")
        for curve in curves:
            if curve.study != study:
                continue
            for axes, points in ((above, curve.val_map3), (below, curve.val_loss)):
                few = "." if len(points) == 1 else None
                numbers, values = [epoch + 1 for epoch in points], list(points.values())
                axes.plot(numbers, values, color=colour, linewidth=0.8, alpha=0.8, marker=few)
                if curve.best_epoch in points:
                    axes.plot(curve.best_epoch + 1, points[curve.best_epoch], "o", color=colour, markersize=5,
                              markeredgecolor="white", zorder=3)  # fmt: skip
    above.set_ylim(0, 1)
    above.set_ylabel("mAP@3 on the fold's clips")
    below.set_ylabel("loss on the fold's clips (nats)")
    below.set_xlabel("epoch")
    last = max(
        (epoch for curve in curves for points in (curve.val_map3, curve.val_loss) for epoch in points), default=0
    )
    below.set_xlim(0.5, last + 1.5)
    below.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    above.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    save(figure, path)


def about_curves(curves: Sequence[FoldCurve]) -> list[str]:
    """What the curves say of each study, in a sentence each: where the folds were best, and what came after.

    As in all that people read, the first epoch is epoch 1.
    """
    said = []
    for study, model in dict.fromkeys((curve.study, curve.model) for curve in curves):
        folds = [curve for curve in curves if curve.study == study and curve.val_loss]
        if not folds:
            continue
        lengths = [max(curve.val_loss) + 1 for curve in folds]
        best = [min(curve.val_loss, key=curve.val_loss.__getitem__) + 1 for curve in folds]
        rose = sum(_rise(curve) > FLAT for curve in folds)
        text = (
            f"{model} ({study}): {count(len(folds), 'fold')} of {_span(lengths)} epochs; the loss is least at epoch "
            f"{_span(best)}"
        )
        at_end = sum(place >= length for place, length in zip(best, lengths, strict=True))
        if at_end == len(folds) and max(lengths) > 1:
            text += ", the last one: more epochs might help"
        elif rose:
            text += f", and rises after that in {rose} of {len(folds)}"
        said.append(text + ".")
    return said


def _rise(curve: FoldCurve) -> float:
    """How much more the last loss is than the least one, as a share of that."""
    least = min(curve.val_loss.values())
    return (curve.val_loss[max(curve.val_loss)] - least) / max(abs(least), np.finfo(float).tiny)


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
