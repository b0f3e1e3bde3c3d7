"""Fit what a tagger does with blended scores: how they are scaled, and which of them are tags.

Both are fitted on out-of-fold predictions and kept with the tagger. What they are worth is measured cross-fitted: on
each fold by a fit without its clips. Predictions of the folds and of the blend, such as ``oof.npy``, stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fsat.commands.blend_members import Blend, chosen_rows
from fsat.metrics import multilabel
from fsat.metrics.rejection import LOST, fit_rejection
from fsat.metrics.scaling import UNSCALED, Scaling, calibrate, calibration_of


@dataclass(frozen=True)
class Decisions:
    """How a tagger scales scores and decides on tags.

    Attributes:
        scaling: of blended scores.
        thresholds: minimum score of a tag of each class, float64 (n_classes,); empty if the best are always tags.
        metrics: of the run: what scaling and thresholds are worth, cross-fitted.
        scaled: out-of-fold scores of the covered clips, each scaled by a fit without its fold; float32 (n, n_classes).
        given: bool (n, n_classes), the labels that cross-fitted thresholds give these clips; None without thresholds.
    """

    scaling: Scaling = UNSCALED
    thresholds: np.ndarray = field(default_factory=lambda: np.empty(0))
    metrics: dict[str, float] = field(default_factory=dict)
    scaled: np.ndarray | None = None
    given: np.ndarray | None = None


def fit_scores(blend: Blend, scale: bool = True) -> Decisions:
    """Return the scaling and the thresholds of a blend.

    Scores are scaled only if that lowers their cross-fitted log loss, and `scale` is set.
    """
    covered = blend.covered
    oof = blend.oof if covered.all() else chosen_rows(blend.oof, covered)
    targets, folds = blend.targets[covered], blend.folds[covered]
    calibrated = calibrate(oof, targets, folds, blend.sigmoid)
    before, after = calibrated.before, calibrated.after
    metrics = {"oof_ece": before.ece, "oof_log_loss": before.log_loss}
    scaling, scaled = (calibrated.scaling, np.asarray(calibrated.scores)) if scale else (UNSCALED, oof)
    if scaling.kind != "none":
        metrics |= {"oof_ece_scaled": after.ece, "oof_log_loss_scaled": after.log_loss}
    if not blend.sigmoid:
        return Decisions(scaling, metrics=metrics, scaled=scaled)
    verified = blend.verified[covered]
    if verified.any():  # of pairs of a clip and a class, as `oof_ece`
        metrics["oof_ece_verified"] = calibration_of(oof[verified], targets[verified], sigmoid=True).ece
    final = scaling.apply(oof)
    if blend.task == "multi":
        thresholds = multilabel.fit_thresholds(final, targets)
        by_fold = multilabel.cross_fit_thresholds(scaled, targets, folds)
        given, counts = scaled >= by_fold[folds], multilabel.f1_at(scaled, targets, by_fold, folds)
        metrics |= {"oof_f1_macro": counts.macro()["f1"], "oof_f1_micro": counts.micro()["f1"]}
    else:
        right = multilabel.one_hot(targets, oof.shape[1])
        best, is_right = scaled.max(axis=1), scaled.argmax(axis=1) == targets
        others = [folds != fold for fold in range(folds.max() + 1)]
        limits = [fit_rejection(best[mask], is_right[mask], LOST) for mask in others]
        thresholds = np.full(oof.shape[1], fit_rejection(final.max(axis=1), final.argmax(axis=1) == targets, LOST))
        given = scaled >= np.array(limits)[folds, np.newaxis]
        metrics["oof_rejected"] = float((~given.any(axis=1)).mean())
        metrics["oof_right_kept"] = float((given & right).any(axis=1).mean())
    return Decisions(scaling, thresholds, metrics, scaled, given)
