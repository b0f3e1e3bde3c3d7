"""Sentences about the scores, learning curves, classes, confusions and calibration of a blend, computed from them.

Conventions: mAP@3 and lwlrap in [0, 1] have four decimals; shares are in per cent; epochs count from 1, as in every
text for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fsat.errors import count
from fsat.metrics.task_scores import SCORE_WORDS, score_names_of
from fsat.reports.plots import FoldCurve
from fsat.reports.prediction_tables import Analysis, Predictions
from fsat.text import named

CALIBRATED, RISE = 0.02, 0.01
"""Largest difference between mean score and accuracy for scores to be called right on the whole, and smallest relative
rise of a loss after its best epoch that is reported."""

METHODS = {
    "geometric": "the geometric mean of the studies, with equal weights",
    "arithmetic": "the arithmetic mean of the studies, with equal weights",
    "weighted": "the geometric mean of the studies with fitted weights",
}


def describe_blend(scores: pd.DataFrame, method: str) -> str:
    """Describe the blend's score and its gain over the best study."""
    first, _ = score_names_of(scores.columns)
    blend = scores[scores["method"] == method].iloc[0]
    studies = scores[scores["kind"] == "study"]
    best = studies.loc[studies[first].idxmax()]
    clips = count(int(blend["clips"]), "clip")
    text = f"The blend has an out-of-fold {SCORE_WORDS[first]} of {blend[first]:.4f} on {clips}"
    if len(studies) == 1:
        return f"{text}, the same as its only study, {best['model']} ({best['study']})."
    gain = blend[first] - best[first]
    compared = f"{abs(gain):.4f} {'more' if gain > 0 else 'less'} than" if round(abs(gain), 4) else "as much as"
    text += f", {compared} the best study, {best['model']} ({best['study']}), with {best[first]:.4f}"
    if best["clips"] != blend["clips"]:
        text += f" on {count(int(best['clips']), 'clip')}"
    return f"{text}."


def describe_alternatives(scores: pd.DataFrame, method: str) -> str:
    """Describe the best member, the blend on verified clips, and a better way to blend if there is one."""
    first, _ = score_names_of(scores.columns)
    blend, members = scores[scores["method"] == method].iloc[0], scores[scores["kind"] == "member"]
    member = members.loc[members[first].idxmax()]
    text = f"The best member is fold {member['fold']} of {member['model']} ({member['study']})"
    text += f", with {member[first]:.4f} on its own fold."
    if pd.notna(blend[f"{first}_verified"]):
        text += f" On verified clips alone the blend has {blend[f'{first}_verified']:.4f}."
    better = scores[(scores["kind"] == "blend") & (scores[first] > blend[first])]
    if len(better):
        best = better.loc[better[first].idxmax()]
        text += f" Blended with blend={best['method']} it would have {best[first]:.4f}."
    return text


def selection_warning(selected_on: str, leak: str = "") -> str:
    """Return a warning if weights or labels were chosen by the scored clips, or folds leak; else an empty string."""
    sources = {word.strip() for part in selected_on.split("+") for word in part.split(",")}
    reasons = {
        "own fold": "the epoch whose weights are used was chosen on the very clips that are scored "
        "(checkpoint=last, checkpoint=average and holdout=0.1 avoid this)",
        "labels": "labels that were trained on were chosen by models that had seen the clips of other folds",
    }
    text = "; and ".join(reason for source, reason in reasons.items() if source in sources)
    slightly = f"These scores are slightly optimistic: {text}." if text else ""
    return " ".join(filter(None, [leak and f"These scores are too high ({leak}).", slightly]))


def describe_curves(curves: Sequence[FoldCurve]) -> list[str]:
    """Describe each study's curves in a sentence: the best epochs, and whether the loss rises after them."""
    sentences = []
    for study, model in dict.fromkeys((curve.study, curve.model) for curve in curves):
        losses = [curve.val_loss for curve in curves if curve.study == study and curve.val_loss]
        if not losses:
            continue
        lengths = [max(loss) + 1 for loss in losses]
        best = [min(loss, key=loss.__getitem__) + 1 for loss in losses]
        text = f"{model} ({study}): {count(len(losses), 'fold')} of {_range(lengths)} epoch{'s' * (max(lengths) > 1)}"
        text += f"; the loss is lowest at epoch {_range(best)}"
        rising = sum(_rise(loss) > RISE for loss in losses)
        if best == lengths and max(lengths) > 1:
            text += ", the last one: more epochs might help"
        elif rising:
            text += f", and rises after that in {rising} of {len(losses)}"
        sentences.append(f"{text}.")
    return sentences


def describe_classes(analysis: Analysis) -> str:
    """Describe the classes that are recognised best and worst."""
    scored = analysis.classes[analysis.classes["ap"].notna()]
    worst, best = scored.iloc[0], scored.iloc[-1]
    return (
        f"{named(worst['label'])} is recognised worst (average precision {worst['ap']:.3f} on "
        f"{count(int(worst['clips']), 'clip')}), {named(best['label'])} best ({best['ap']:.3f}). The mean over "
        f"{count(len(scored), 'class')} is {scored['ap'].mean():.3f}."
    )


def class_rows(analysis: Analysis) -> pd.DataFrame:
    """Return the table of classes, worst first, with each class's most frequent wrong guess in words."""
    worst = analysis.pairs.drop_duplicates("label").set_index("label")

    def guess(label: str, n_clips: int) -> str:
        wrong = worst.loc[label] if label in worst.index else None
        return "" if wrong is None else f"{named(wrong['guess'])}, {wrong['clips']} of {count(n_clips, 'clip')}"

    guesses = list(map(guess, analysis.classes["label"], analysis.classes["clips"]))
    return analysis.classes.rename(columns={"ap": "average precision"}).assign(**{"most often taken for": guesses})


def describe_confusion(analysis: Analysis, labels: Sequence[str]) -> str:
    """Describe the number of wrong best guesses, and the two classes that are confused most, in both directions."""
    counts, pairs = analysis.counts, analysis.pairs
    n_clips, wrong = int(counts.sum()), int(counts.sum() - np.trace(counts))
    if not wrong:
        return f"All best guesses are correct ({count(n_clips, 'clip')})."
    pair = pairs.iloc[0]
    text = (
        f"The best guess is wrong for {wrong} of {count(n_clips, 'clip')} ({wrong / n_clips:.0%}). Most often "
        f"{named(pair['label'])} is taken for {named(pair['guess'])}: {pair['clips']} of its "
        f"{count(round(pair['clips'] / pair['share']), 'clip')}."
    )
    both = np.triu(counts + counts.T, 1)
    i, j = np.unravel_index(both.argmax(), both.shape)
    if both[i, j] > pair["clips"]:
        two = f"{named(labels[i])} and {named(labels[j])}"
        text += f" In both directions together {two} are confused most, {both[i, j]} times."
    return text


def describe_calibration(analysis: Analysis, clips: Predictions) -> str:
    """Describe whether best guesses are correct as often as their scores say."""
    accuracy = float((analysis.guesses.guess == clips.targets).mean())
    score = float(analysis.guesses.p_guess.mean(dtype=np.float64))
    verdict = f"the scores are too {'high' if score > accuracy else 'low'}, by {abs(score - accuracy):.3f}"
    if abs(score - accuracy) <= CALIBRATED:
        verdict = "on the whole the scores are right"
    return (
        f"Best guesses have a mean score of {score:.3f}, and {accuracy:.1%} of them are correct: {verdict}. The "
        f"expected calibration error, the mean difference over bins of scores, is {analysis.bins.expected_error:.3f}."
    )


def describe_scaling(analysis: Analysis, metrics: Mapping[str, float]) -> str:
    """Describe the calibration of the scaled scores of a tagger; `metrics` are those of the run."""
    assert analysis.scaled_bins is not None
    text = "The tagger scales scores: fitted without a clip's fold, that changes the error from "
    text += f"{analysis.bins.expected_error:.3f} to {analysis.scaled_bins.expected_error:.3f}"
    return f"{text}{losses_in_words(metrics)}."


def losses_in_words(metrics: Mapping[str, float]) -> str:
    """Return how the log loss changes by scaling, as the end of a sentence; empty if that is unknown."""
    before, after = metrics.get("oof_log_loss"), metrics.get("oof_log_loss_scaled")
    return "" if before is None or after is None else f", and the log loss from {before:.4f} to {after:.4f}"


def describe_rejection(thresholds: np.ndarray, metrics: Mapping[str, float]) -> str:
    """Describe the threshold below which a tagger gives a clip no label, and how many known clips that loses."""
    text = f"A clip whose best score is below {thresholds[0]:.3f} gets no label (min_score=auto)."
    if "oof_rejected" in metrics:
        text += f" Of the clips of known classes, {metrics['oof_rejected']:.1%} get none and "
        text += f"{metrics['oof_right_kept']:.1%} score high enough for the right one, by thresholds that were fitted "
        text += "without a clip's fold."
    return text


def _rise(loss: dict[int, float]) -> float:
    """Return how much the last loss exceeds the lowest one, relative to that."""
    lowest = min(loss.values())
    return (loss[max(loss)] - lowest) / max(abs(lowest), np.finfo(float).tiny)


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
