"""Sentences about the results where a clip has any number of labels, computed from them.

Conventions: as in `fsat.reports.report_text`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fsat.errors import count
from fsat.reports.label_tables import LabelAnalysis
from fsat.reports.report_text import losses_in_words
from fsat.text import named


def describe_ranking(analysis: LabelAnalysis, metrics: Mapping[str, float]) -> str:
    """Describe lwlrap and mAP with their intervals, and the other scores of the ranking."""
    (low, high), (map_low, map_high) = analysis.intervals.lwlrap, analysis.intervals.macro_map
    text = f"Intervals of 95 %, by resampling clips: lwlrap {low:.4f} to {high:.4f}, mAP {map_low:.4f} to "
    text += f"{map_high:.4f}. "
    names = {"oof_map": "mAP", "oof_map_micro": "micro mAP", "oof_auc": "AUC", "oof_d_prime": "d'"}
    scores = [f"{name} {metrics[key]:.4f}" for key, name in names.items() if key in metrics]
    return f"{text}The blend has {', '.join(scores)}; mAP and AUC are means over classes, micro mAP is of all labels."


def describe_numbers(n_labels: np.ndarray) -> str:
    """Describe how many labels clips have; `n_labels` is int (n_clips,)."""
    numbers = np.bincount(n_labels)
    parts = [f"{n} {'has' if n == 1 else 'have'} {number or 'no'}" for number, n in enumerate(numbers) if n]
    first, *others = parts
    noun = "label" if int(np.flatnonzero(numbers)[0]) < 2 else "labels"
    return f"Of {count(len(n_labels), 'clip')}, {', '.join([f'{first} {noun}', *others])}."


def describe_thresholds(analysis: LabelAnalysis, metrics: Mapping[str, float]) -> str:
    """Describe F1 at the thresholds, and how many labels are given."""
    scores = [f"{metrics[f'oof_f1_{kind}']:.3f} {words}" for kind, words in (
        ("macro", "as the mean over classes"), ("micro", "of all labels together"),
    ) if f"oof_f1_{kind}" in metrics]  # fmt: skip
    text = f"{int(analysis.n_given.sum())} labels are given to clips that have {int(analysis.n_labels.sum())}."
    return f"F1 is {' and '.join(scores)}. {text}" if scores else text


def describe_none(analysis: LabelAnalysis) -> str:
    """Describe how many clips without a label are given one, and how many clips with labels are given none."""
    is_none, is_tagged = analysis.n_labels == 0, analysis.n_given > 0
    n_none, n_tagged = int(is_none.sum()), int((is_none & is_tagged).sum())
    n_labelled, n_left = int((~is_none).sum()), int((~is_none & ~is_tagged).sum())
    none = "No clip is without a label, so false alarms on other sounds are not known."
    if n_none:
        none = f"Of {count(n_none, 'clip')} without a label, {n_tagged} ({n_tagged / n_none:.1%}) are given one."
    labelled = (
        f"Of {count(n_labelled, 'clip')} with labels, {n_left} ({n_left / max(1, n_labelled):.1%}) are given none."
    )
    return f"{none} {labelled}"


def describe_pairs(analysis: LabelAnalysis) -> str:
    """Describe which two labels are most often on one clip."""
    pairs = analysis.pairs[analysis.pairs["both"] > 0]
    if pairs.empty:
        return "No clip has two labels."
    row = pairs.loc[pairs["both"].idxmax()]
    return (
        f"{named(row['label'])} and {named(row['other'])} are on one clip most often, {_times(row['both'])}: "
        f"{row['both_share']:.0%} of the {count(int(row['clips']), 'clip')} of {named(row['label'])}."
    )


def describe_confusion(analysis: LabelAnalysis) -> str:
    """Describe which label is given most often to clips of another that lack it, and which is missed beside another."""
    confused = analysis.pairs[analysis.pairs["given"] > 0]
    if confused.empty:
        text = "No clip with a label is given one that it lacks."
    else:
        row = confused.iloc[0]
        text = (
            f"Most often {named(row['other'])} is given to clips of {named(row['label'])} that lack it: "
            f"{_times(row['given'])}, {row['given_share']:.0%} of them."
        )
    missed = analysis.pairs[analysis.pairs["missed"] > 0]
    if len(missed):
        row = missed.loc[missed["missed"].idxmax()]
        text += (
            f" {named(row['label'])} is missed most often beside {named(row['other'])}: on {row['missed']} of "
            f"{count(int(row['both']), 'clip')} with both."
        )
    return text


def describe_calibration(analysis: LabelAnalysis, metrics: Mapping[str, float]) -> str:
    """Describe whether labels are right as often as their scores say, before and after scaling."""
    text = "The expected calibration error of all pairs of a clip and a class, the mean difference over bins between "
    text += f"the score and the share that are labels, is {analysis.bins.expected_error:.3f}."
    if analysis.scaled_bins is None:
        return f"{text} The tagger does not scale scores."
    text += " The tagger scales scores: fitted without a clip's fold, that changes the error to "
    return f"{text}{analysis.scaled_bins.expected_error:.3f}{losses_in_words(metrics)}."


def describe_suspects(analysis: LabelAnalysis, n_shown: int, wrong: bool) -> str:
    """Describe how many labels may be wrong, or missing; `n_shown` of them are played."""
    number = int((analysis.suspects.is_present == wrong).sum())
    if not number:
        return f"No label looks {'wrong: all are given' if wrong else 'missing: no other is given'}."
    are = "is" if number == 1 else "are"
    what = f"{are} not given to clips that have them" if wrong else f"{are} given to clips that lack them"
    shown = "this is it" if number == n_shown == 1 else f"these are {'all' if number == n_shown else n_shown} of them"
    listen = "Listen whether the sound is there" if wrong else "Listen whether the sound is there after all"
    return f"{count(number, 'label')} {what}; {shown}, the most suspicious first. {listen}."


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
