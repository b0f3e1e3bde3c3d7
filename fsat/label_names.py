"""Label lists: their order, and how labels are written in tables.

A label is a word without white space, because a submission separates a clip's labels by spaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NO_LABEL = "None"
"""What FSDKaggle2018's tables write where a clip has no label."""


def label_order(labels: Iterable[str]) -> list[str]:
    """The distinct labels, sorted: column j of every prediction belongs to entry j."""
    return sorted(set(labels))


def why_not_a_label(label: str) -> str:
    """The reason why a text cannot be a label, or an empty string if it can."""
    if not label.strip():
        return "the label is empty"
    if label == NO_LABEL:
        return f"the label is {NO_LABEL}: the clip has no label"
    if label.split() != [label]:
        return f"the label {label!r} has white space, which separates labels in a submission: use _ instead"
    return ""


def join_labels(labels: Sequence[str]) -> str:
    """Labels of one clip, best first, as a submission writes them."""
    return " ".join(labels)
