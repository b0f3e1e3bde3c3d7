"""Compare the tags of recordings over time with annotations: scores, curves, thresholds, and the worst mistakes.

Conventions: classes are those of the tagger. A recording has windows with scores, of which `Tag` makes tags. Segments
and events are those of `fsat.metrics.sound_events`, curves those of `fsat.metrics.detection_curves`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from fsat.metrics.detection_curves import Curve, Point, curve, positive_segments, segment_scores
from fsat.metrics.rejection import false_alarms_per_hour
from fsat.metrics.sound_events import COLLAR, RESOLUTION, SHARE, Event, Scored, score_events, score_segments

N_FOLDS = 5
"""Largest number of parts that recordings are divided into, to choose thresholds on some and score them on others."""


@dataclass(frozen=True)
class TaggedRecording:
    """A recording with its annotations and its scores over time.

    Attributes:
        name: as its folder has it.
        seconds: length.
        annotated: events, within the length, of classes that the tagger knows.
        windows: starts and ends, float64 (n, 2), in seconds.
        edges: where one window's time ends and the next one's begins, float64 (n + 1,), in seconds.
        scores: of the windows, float32 (n, n_classes), NaN for silence.
    """

    name: str
    seconds: float
    annotated: Sequence[Event]
    windows: np.ndarray
    edges: np.ndarray
    scores: np.ndarray


Tag = Callable[[TaggedRecording, np.ndarray | None], list[Event]]
"""Makes the tags of a recording: those to score, or those at a threshold of each class, float32 (n_classes,)."""


@dataclass(frozen=True)
class Measures:
    """How events are compared: see `score_segments` and `score_events`."""

    resolution: float = RESOLUTION
    collar: float = COLLAR
    share: float = SHARE


class Scores(NamedTuple):
    """Segment-based and event-based scores."""

    segments: Scored
    events: Scored


class Mistake(NamedTuple):
    """An annotated event that no tag of its class overlaps, or a tag that no annotation of its class overlaps.

    `score` is the highest one of the class during it; `instead` are the labels of the tags, or of the annotations,
    that overlap it.
    """

    recording: str
    event: Event
    score: float
    instead: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """A threshold of each annotated class, and one of all of them together for the other classes."""

    points: Mapping[str, Point]
    default: Point

    def minimum(self, labels: Sequence[str]) -> np.ndarray:
        """Return the threshold of each label, float32 (n_labels,)."""
        return np.array([self.points.get(label, self.default).threshold for label in labels], np.float32)


@dataclass(frozen=True)
class Unannotated:
    """What is tagged where no class of the tagger is annotated: noise, silence, and sounds that it does not know.

    Attributes:
        seconds: time without an annotation.
        tagged: the part of that time with a tag, in seconds.
        alarms: by class, tags that overlap no annotation, of whatever class.
    """

    seconds: float
    tagged: float
    alarms: Mapping[str, int]

    @property
    def share(self) -> float:
        """Share of the unannotated time that has a tag; NaN if there is no such time."""
        return self.tagged / self.seconds if self.seconds else math.nan

    def per_hour(self, label: str | None = None) -> float:
        """Return the alarms of a class, or of all, in an hour of unannotated time; NaN if there is no such time."""
        alarms = sum(self.alarms.values()) if label is None else self.alarms.get(label, 0)
        return false_alarms_per_hour(alarms, self.seconds)


@dataclass
class Evaluation:
    """Scores of tagged recordings.

    Args:
        recordings: in any order, at least one of them with an annotation.
        labels: classes of the tagger.
        tag: makes tags.
        only_annotated: whether tags of classes that are never annotated are left out.
    """

    recordings: Sequence[TaggedRecording]
    labels: Sequence[str]
    tag: Tag
    measures: Measures = field(default_factory=Measures)
    only_annotated: bool = False

    @cached_property
    def annotated(self) -> list[str]:
        """The classes that are annotated at least once, in label order."""
        used = {event.label for recording in self.recordings for event in recording.annotated}
        return [label for label in self.labels if label in used]

    @cached_property
    def tags(self) -> list[list[Event]]:
        """The tags of each recording."""
        return [self._tags(recording) for recording in self.recordings]

    @cached_property
    def each(self) -> list[Scores]:
        """The scores of each recording."""
        return [self._score(*pair) for pair in zip(self.recordings, self.tags, strict=True)]

    @cached_property
    def total(self) -> Scores:
        """The scores of all recordings together."""
        return add(self.each)

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """The curve of each annotated class."""
        return self._curves(range(len(self.recordings)))[0]

    @cached_property
    def chosen(self) -> Chosen:
        """The thresholds with the highest F1 of segments, on all recordings."""
        return self._choose(range(len(self.recordings)))

    @cached_property
    def at_chosen(self) -> Scores:
        """The scores at the chosen thresholds on the recordings that they were chosen on, which flatters them."""
        return self._score_all(range(len(self.recordings)), self.chosen)

    @property
    def n_folds(self) -> int:
        """Number of parts for `cross_validated`; 0 if there are too few recordings with annotations."""
        n_annotated = sum(bool(recording.annotated) for recording in self.recordings)
        return min(N_FOLDS, n_annotated) if n_annotated > 1 else 0

    @cached_property
    def cross_validated(self) -> Scores | None:
        """The scores at thresholds that were chosen on other recordings; None if there is only one."""
        parts = []
        for fold in range(self.n_folds):
            ours = self._numbers[fold :: self.n_folds]
            others = sorted(set(self._numbers) - set(ours))
            parts.append(self._score_all(ours, self._choose(others)))
        return add(parts) if parts else None

    @cached_property
    def _numbers(self) -> list[int]:
        """The numbers of the recordings, those with annotations first, so that each part has some."""
        return sorted(range(len(self.recordings)), key=lambda i: not self.recordings[i].annotated)

    @cached_property
    def _segments(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each recording the scores of its segments, (n, n_annotated), and which are positive."""
        columns = [self.labels.index(label) for label in self.annotated]
        pairs = []
        for item in self.recordings:
            scores = segment_scores(item.edges, item.scores[:, columns], item.seconds, self.measures.resolution)
            spans: dict[str, list[tuple[float, float]]] = {label: [] for label in self.annotated}
            for event in item.annotated:
                spans[event.label].append((event.start, event.end))
            positive = [positive_segments(own, item.seconds, self.measures.resolution) for own in spans.values()]
            pairs.append((scores, np.stack(positive, axis=1)))
        return pairs

    def _curves(self, numbers: Iterable[int]) -> tuple[dict[str, Curve], Curve]:
        """Return the curve of each annotated class on some recordings, and that of all classes together."""
        scores, positive = (np.concatenate(part) for part in zip(*(self._segments[i] for i in numbers), strict=True))
        curves = {label: curve(scores[:, j], positive[:, j]) for j, label in enumerate(self.annotated)}
        return curves, curve(scores.ravel(), positive.ravel())

    def _choose(self, numbers: Iterable[int]) -> Chosen:
        curves, pooled = self._curves(numbers)
        return Chosen({label: own.best() for label, own in curves.items() if own.n_positive}, pooled.best())

    def _tags(self, recording: TaggedRecording, thresholds: np.ndarray | None = None) -> list[Event]:
        tags = self.tag(recording, thresholds)
        return [tag for tag in tags if tag.label in self.annotated] if self.only_annotated else tags

    def _score(self, recording: TaggedRecording, tags: Sequence[Event]) -> Scores:
        labels = self.annotated if self.only_annotated else self.labels
        measures, pair = self.measures, (recording.annotated, tags)
        segments = score_segments(*pair, labels, recording.seconds, measures.resolution)
        return Scores(segments, score_events(*pair, labels, measures.collar, measures.share))

    def _score_all(self, numbers: Iterable[int], chosen: Chosen) -> Scores:
        recordings = [self.recordings[i] for i in numbers]
        thresholds = chosen.minimum(self.labels)
        return add([self._score(item, self._tags(item, thresholds)) for item in recordings])

    @cached_property
    def unannotated(self) -> Unannotated:
        """What is tagged where nothing is annotated."""
        seconds, tagged, alarms = 0.0, 0.0, Counter[str]()
        for item, tags in zip(self.recordings, self.tags, strict=True):
            spans = union((event.start, event.end) for event in item.annotated)
            both = union([*spans, *((tag.start, min(tag.end, item.seconds)) for tag in tags)])
            covered = _length(spans)
            seconds, tagged = seconds + item.seconds - covered, tagged + _length(both) - covered
            starts, ends = (np.array(edges) for edges in (zip(*spans, strict=True) if spans else ((), ())))
            for tag in tags:
                alarms[tag.label] += np.searchsorted(ends, tag.start, "right") == np.searchsorted(starts, tag.end)
        return Unannotated(seconds, tagged, alarms)

    def misses(self) -> list[Mistake]:
        """Return the annotated events that no tag of their class overlaps, that of the lowest score first."""
        mistakes = self._mistakes([item.annotated for item in self.recordings], self.tags)
        return sorted(mistakes, key=lambda mistake: (mistake.score, mistake.recording, mistake.event))

    def false_alarms(self) -> list[Mistake]:
        """Return the tags that no annotation of their class overlaps, that of the highest score first."""
        mistakes = self._mistakes(self.tags, [item.annotated for item in self.recordings])
        return sorted(mistakes, key=lambda mistake: (-mistake.score, mistake.recording, mistake.event))

    def _mistakes(self, events: Sequence[Sequence[Event]], others: Sequence[Sequence[Event]]) -> list[Mistake]:
        found = []
        columns = {label: j for j, label in enumerate(self.labels)}
        for item, own, against in zip(self.recordings, events, others, strict=True):
            by_start = sorted(against)
            starts = np.array([event.start for event in by_start])
            latest = np.maximum.accumulate([event.end for event in by_start]) if by_start else starts
            for event in own:
                first, last = np.searchsorted(latest, event.start, "right"), np.searchsorted(starts, event.end)
                overlapping = [other for other in by_start[first:last] if other.end > event.start]
                if any(other.label == event.label for other in overlapping):
                    continue
                i, j = np.searchsorted(item.edges, event.start, "right") - 1, np.searchsorted(item.edges, event.end)
                during = np.nan_to_num(item.scores[max(0, i) : max(j, i + 1), columns[event.label]])
                score = float(during.max()) if during.size else 0.0
                instead = tuple(dict.fromkeys(other.label for other in overlapping))
                found.append(Mistake(item.name, event, score, instead))
        return found


def union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the time that spans cover together, as spans in order that do not touch."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        elif end > start:
            merged.append((start, end))
    return merged


def _length(spans: Iterable[tuple[float, float]]) -> float:
    return math.fsum(end - start for start, end in spans)


def add(scores: Iterable[Scores]) -> Scores:
    """Return the scores of several recordings together."""
    segments, events = Scored(), Scored()
    for item in scores:
        segments, events = segments + item.segments, events + item.events
    return Scores(segments, events)


def metrics_of(evaluation: Evaluation) -> dict[str, float]:
    """Return the scores by name, without those that are not defined.

    Means over classes (``macro``, ``map``) are over those that are annotated.
    """
    named = {"": evaluation.total, "chosen_": evaluation.at_chosen, "cv_": evaluation.cross_validated}
    metrics: dict[str, float] = {}
    for prefix, scores in named.items():
        for kind, scored in zip(Scores._fields, scores or (), strict=False):
            kind = kind.removesuffix("s")
            metrics |= {f"{prefix}{kind}_{name}": value for name, value in scored.overall.metrics().items()}
            macro = scored.macro(evaluation.annotated)
            metrics |= {f"{prefix}{kind}_macro_{name}": value for name, value in macro.items()}
    precisions = [own.average_precision for own in evaluation.curves.values()]
    metrics["segment_map"] = sum(precisions) / len(precisions)
    unannotated = evaluation.unannotated
    metrics["unannotated_hours"] = unannotated.seconds / 3600
    metrics["unannotated_tagged"] = unannotated.share
    metrics["false_alarms_per_hour"] = unannotated.per_hour()
    metrics["n_recordings"] = len(evaluation.recordings)
    metrics["n_annotated"] = evaluation.total.events.overall.n_ref
    metrics["n_tags"] = evaluation.total.events.overall.n_sys
    metrics["n_annotated_classes"] = len(evaluation.annotated)
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
