"""What a blend's scores, classes, confusions and calibration say, in words that are computed from them.

Conventions: scores of clips are mAP@3 in [0, 1], with four decimals; shares are in per cent.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fsat.errors import count
from fsat.reports.study_reports import Predicted, Told

SURE = 0.02
"""How far mean score and accuracy may be apart for scores to be called right on the whole."""

METHODS = {
    "geometric": "the geometric mean of the studies, each alike",
    "arithmetic": "the arithmetic mean of the studies, each alike",
    "weighted": "the geometric mean of the studies with fitted weights",
}


def about_blend(scores: pd.DataFrame, method: str) -> str:
    """The blend's score, and what it adds to the best study's."""
    blend = scores[scores["method"] == method].iloc[0]
    studies = scores[scores["kind"] == "study"]
    best = studies.loc[studies["map3"].idxmax()]
    text = f"The blend has an out-of-fold mAP@3 of {blend['map3']:.4f} on {count(int(blend['clips']), 'clip')}"
    if len(studies) == 1:
        text += f": that of its one study, {best['model']} ({best['study']}), which a blend adds nothing to"
    else:
        gain = blend["map3"] - best["map3"]
        more = f"{abs(gain):.4f} {'more' if gain > 0 else 'less'} than" if round(abs(gain), 4) else "as much as"
        text += f", {more} the best study, {best['model']} ({best['study']}), with {best['map3']:.4f}"
        if best["clips"] != blend["clips"]:
            text += f" on {count(int(best['clips']), 'clip')}"
    return f"{text}."


def about_others(scores: pd.DataFrame, method: str) -> str:
    """Which member is best, the blend on verified clips, and whether another way to blend would score better."""
    blend, members = scores[scores["method"] == method].iloc[0], scores[scores["kind"] == "member"]
    member = members.loc[members["map3"].idxmax()]
    text = f"The best member is fold {member['fold']} of {member['model']} ({member['study']}), with "
    text += f"{member['map3']:.4f} on its own fold."
    if pd.notna(blend["map3_verified"]):
        text += f" On verified clips alone the blend has {blend['map3_verified']:.4f}."
    others = scores[(scores["kind"] == "blend") & (scores["map3"] > blend["map3"])]
    if len(others):
        other = others.loc[others["map3"].idxmax()]
        text += f" Blended with blend={other['method']} it would have {other['map3']:.4f}."
    return text


def about_selection(selected_on: str) -> str:
    """A warning where the scores are a little too good, by what weights or labels were chosen on; else empty."""
    chosen = {word.strip() for part in selected_on.split("+") for word in part.split(",")}
    reasons = []
    if "own fold" in chosen:
        reasons.append(
            "which epoch's weights are kept was decided on the very clips that they are scored on "
            "(checkpoint=last, checkpoint=average or holdout=0.1 do without)"
        )
    if "labels" in chosen:
        reasons.append("labels that were trained on were chosen by models that had seen the clips of other folds")
    return f"These scores are a little too good: {'; and '.join(reasons)}." if reasons else ""


def about_classes(told: Told) -> str:
    """Which classes are told best and worst."""
    there = told.classes[told.classes["ap"].notna()]
    worst, best = there.iloc[0], there.iloc[-1]
    text = f"{worst['label']} is told worst from the others (average precision {worst['ap']:.3f} of "
    text += f"{count(int(worst['clips']), 'clip')}), {best['label']} best ({best['ap']:.3f})."
    return text + f" The mean over {len(there)} class{'' if len(there) == 1 else 'es'} is {there['ap'].mean():.3f}."


def class_rows(told: Told) -> pd.DataFrame:
    """The table of classes, worst first, with what each is most often taken for, in words."""
    first = told.pairs.drop_duplicates("label").set_index("label")

    def words(label: str, clips: int) -> str:
        if label not in first.index:
            return ""
        pair = first.loc[label]
        return f"{pair['guess']}, {pair['clips']} of {clips} clips"

    table = told.classes.rename(columns={"ap": "average precision"})
    taken = [words(row.label, row.clips) for row in told.classes.itertuples(index=False)]
    return table.assign(**{"most often taken for": taken})


def about_confusion(told: Told, labels: list[str]) -> str:
    """How many best guesses are wrong, and which two classes are mixed up most, both ways together."""
    n_clips, wrong = int(told.counts.sum()), int(told.counts.sum() - np.trace(told.counts))
    if not wrong:
        return f"All {n_clips} best guesses are right."
    text = f"{wrong} of {n_clips} best guesses are wrong ({wrong / n_clips:.0%})."
    pair = told.pairs.iloc[0]
    text += f" Most often {pair['label']} is taken for {pair['guess']}: {pair['clips']} of its "
    text += f"{round(pair['clips'] / pair['share'])} clips."
    both = np.triu(told.counts + told.counts.T, 1)
    i, j = np.unravel_index(both.argmax(), both.shape)
    if both[i, j] > pair["clips"]:
        text += f" Both ways together {labels[i]} and {labels[j]} are mixed up most, {both[i, j]} times."
    return text


def about_calibration(told: Told, clips: Predicted) -> str:
    """Whether best guesses are as often right as their scores say."""
    right, said = (
        float((told.guesses.guess == clips.targets).mean()),
        float(told.guesses.p_guess.mean(dtype=np.float64)),
    )
    text = f"Best guesses have a mean score of {said:.3f}, and {right:.1%} of them are right: "
    if abs(said - right) <= SURE:
        text += "on the whole they are as sure as they should be."
    else:
        text += (
            f"they are {'too sure' if said > right else 'right more often than they say'}, by {abs(said - right):.3f}."
        )
    return text + f" Over bins of scores the two are {told.bins.expected_error:.3f} apart (expected calibration error)."
