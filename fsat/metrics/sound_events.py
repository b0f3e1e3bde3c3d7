"""Scores of sound events against annotated ones: segment-based and event-based, as ``sed_eval`` 0.2.1 defines them.

A segment of `resolution` seconds counts as active for a class if an event of that class touches it. An event is right
if another one of its class begins within a collar and ends within a collar or a share of the annotated length; each
event is matched once, as many as possible. Errors of different classes at the same time are one substitution rather
than a deletion and an insertion. After A. Mesaros, T. Heittola and T. Virtanen, Metrics for polyphonic sound event
detection, Applied Sciences 6(6), 2016.

Conventions: times are in seconds. Where there is nothing to divide by, precision and recall are NaN, as is an F1 of
them; error rates are divided by a tiny number, so they are huge where nothing is annotated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

TINY = float(np.spacing(1.0))
"""Added to the number of annotated events or segments in error rates."""

RESOLUTION, COLLAR, SHARE = 1.0, 0.2, 0.5
"""Length of a segment and time by which an event may begin or end elsewhere, in seconds; share of the annotated length
by which it may end elsewhere."""


class Event(NamedTuple):
    """A sound: start and end in seconds, and its label."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Counts:
    """Numbers of annotated and of detected segments or events, of right ones, and of each kind of error."""

    n_ref: int = 0
    n_sys: int = 0
    right: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def precision(self) -> float:
        """Share of the detected ones that are right."""
        return self.right / self.n_sys if self.n_sys else math.nan

    @property
    def recall(self) -> float:
        """Share of the annotated ones that are detected."""
        return self.right / self.n_ref if self.n_ref else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        if self.precision == 0 and self.recall == 0:
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)

    @property
    def error_rate(self) -> float:
        """Errors for each annotated one; it may be more than 1."""
        return sum(number / (self.n_ref + TINY) for number in (self.substitutions, self.deletions, self.insertions))

    def metrics(self) -> dict[str, float]:
        """Return the scores by name."""
        return {name: getattr(self, name) for name in ("f1", "precision", "recall", "error_rate")}


@dataclass(frozen=True)
class Scored:
    """Counts of all classes together, and of each class."""

    overall: Counts = Counts()
    classes: Mapping[str, Counts] = field(default_factory=dict)

    def __add__(self, other: Scored) -> Scored:
        labels = dict.fromkeys([*self.classes, *other.classes])
        classes = {label: self.classes.get(label, NONE) + other.classes.get(label, NONE) for label in labels}
        return Scored(self.overall + other.overall, classes)

    def macro(self, labels: Iterable[str] | None = None) -> dict[str, float]:
        """Return the mean of each score over the classes where it is a number, NaN if there is none.

        `labels` are the classes to average over, by default all of them.
        """
        rows = [self.classes[label].metrics() for label in (self.classes if labels is None else labels)]
        means = {}
        for name in NONE.metrics():
            numbers = [row[name] for row in rows if not math.isnan(row[name])]
            means[name] = sum(numbers) / len(numbers) if numbers else math.nan
        return means


NONE = Counts()


def score_segments(
    annotated: Sequence[Event], detected: Sequence[Event], labels: Sequence[str], seconds: float,
    resolution: float = RESOLUTION,
) -> Scored:  # fmt: skip
    """Return the segment-based counts of one recording.

    Args:
        annotated, detected: events whose labels are all in `labels`.
        seconds: length of the recording, beyond which nothing counts.
        resolution: length of a segment, in seconds.
    """
    n_segments = math.ceil(seconds / resolution)
    totals = np.zeros((3, n_segments), np.int64)  # annotated, detected and right classes of each segment
    classes = {}
    by_label = _by_label(annotated), _by_label(detected)
    for label in labels:
        reference, system = (active(events.get(label, ()), n_segments, resolution) for events in by_label)
        right = reference & system
        totals += np.stack([reference, system, right])
        n_ref, n_sys, n_right = int(reference.sum()), int(system.sum()), int(right.sum())
        classes[label] = Counts(n_ref, n_sys, n_right, 0, n_ref - n_right, n_sys - n_right)
    n_ref_at, n_sys_at, right_at = totals
    swapped, rest = np.minimum(n_ref_at, n_sys_at) - right_at, n_ref_at - n_sys_at
    errors = swapped, np.maximum(0, rest), np.maximum(0, -rest)
    return Scored(Counts(*(int(part.sum()) for part in (*totals, *errors))), classes)


def active(events: Iterable[Event], n_segments: int, resolution: float) -> np.ndarray:
    """Return which segments are touched by events, bool (n_segments,)."""
    touched = np.zeros(n_segments, bool)
    for event in events:
        touched[math.floor(event.start / resolution) : math.ceil(event.end / resolution)] = True
    return touched


def score_events(
    annotated: Sequence[Event], detected: Sequence[Event], labels: Sequence[str], collar: float = COLLAR,
    share: float = SHARE,
) -> Scored:  # fmt: skip
    """Return the event-based counts of one recording.

    Args:
        annotated, detected: events whose labels are all in `labels`.
        collar: time by which an event may begin or end before or after the annotated one, in seconds.
        share: of the annotated length, by which it may end before or after, if that is more than `collar`.
    """
    pairs = _close_pairs(annotated, detected, collar, share)
    alike = [(i, j) for i, j in pairs if annotated[i].label == detected[j].label]
    matched = match(alike)
    used = set(matched.values())
    n_substitutions = 0
    for i, j in pairs:  # by annotated event, then by detected one
        if i not in matched and j not in used:
            matched[i] = j
            used.add(j)
            n_substitutions += 1
    n_right = len(matched) - n_substitutions
    missed, wrong = len(annotated) - len(matched), len(detected) - len(matched)
    overall = Counts(len(annotated), len(detected), n_right, n_substitutions, missed, wrong)
    right = Counter(annotated[i].label for i, j in matched.items() if annotated[i].label == detected[j].label)
    n_ref, n_sys = (Counter(event.label for event in events) for events in (annotated, detected))
    classes = {
        label: Counts(n_ref[label], n_sys[label], n, 0, n_ref[label] - n, n_sys[label] - n)
        for label in labels
        for n in [right[label]]
    }
    return Scored(overall, classes)


def _by_label(events: Iterable[Event]) -> dict[str, list[Event]]:
    groups: dict[str, list[Event]] = {}
    for event in events:
        groups.setdefault(event.label, []).append(event)
    return groups


def _close_pairs(
    annotated: Sequence[Event], detected: Sequence[Event], collar: float, share: float
) -> list[tuple[int, int]]:
    """Return the pairs of events, whatever their labels, that begin and end at about the same time, in order."""
    starts = np.array([event.start for event in detected])
    order = np.argsort(starts, kind="stable")
    in_order = starts[order]
    pairs = []
    for i, event in enumerate(annotated):
        edges = np.searchsorted(in_order, [event.start - 2 * collar, event.start + 2 * collar])
        for j in sorted(order[slice(*edges)].tolist()):
            longest = max(collar, share * (event.end - event.start))
            is_close = abs(event.start - detected[j].start) <= collar
            if is_close and abs(event.end - detected[j].end) <= longest:
                pairs.append((i, j))
    return pairs


def match(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return a matching with the largest number of pairs, none of which share an element: the algorithm of Hopcroft
    and Karp, SIAM Journal on Computing 2(4), 1973.

    Of the matchings of that size it is the one that ``sed_eval`` finds: elements are visited in the order of `pairs`.
    """
    graph: dict[int, list[int]] = {}
    for i, j in pairs:
        graph.setdefault(j, []).append(i)
    matched: dict[int, int] = {}
    for j, neighbours in graph.items():
        free = next((i for i in neighbours if i not in matched), None)
        if free is not None:
            matched[free] = j
    while True:
        ends, reached_by, via = _layers(graph, matched)
        if not ends:
            return matched
        for end in ends:
            _augment(end, reached_by, via, matched)


def _layers(
    graph: Mapping[int, Sequence[int]], matched: Mapping[int, int]
) -> tuple[list[int], dict[int, list[int]], dict[int, int | None]]:
    """Return the free left elements that the shortest alternating paths reach, and the layers of these paths.

    The layers are, for each left element, the right ones of the layer before it; and for each right one, the left one
    that it is matched with, None for the free ones where paths begin.
    """
    taken = set(matched.values())
    via: dict[int, int | None] = {j: None for j in graph if j not in taken}
    layer, ends = list(via), list[int]()
    reached_by: dict[int, list[int]] = {}
    while layer and not ends:
        reached: dict[int, list[int]] = {}
        for j in layer:
            for i in graph[j]:
                if i not in reached_by:
                    reached.setdefault(i, []).append(j)
        reached_by |= reached
        layer = [matched[i] for i in reached if i in matched]
        via |= {matched[i]: i for i in reached if i in matched}
        ends = [i for i in reached if i not in matched]
    return ends, reached_by, via


def _augment(end: int, reached_by: dict[int, list[int]], via: dict[int, int | None], matched: dict[int, int]) -> None:
    """Follow the layers back from a free left element, and swap the pairs of the path, if there is one."""
    path, chosen = [(end, iter(reached_by.pop(end, ())))], list[int]()
    while path:
        j = next((j for j in path[-1][1] if j in via), None)
        if j is None:
            path.pop()
            if chosen:
                chosen.pop()
            continue
        before = via.pop(j)
        chosen.append(j)
        if before is None:
            matched |= {i: j for (i, _), j in zip(path, chosen, strict=True)}
            return
        path.append((before, iter(reached_by.pop(before, ()))))
