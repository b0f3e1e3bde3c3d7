"""Scores of sound events against annotations are those of sed_eval and sed_scores_eval."""

import math

import numpy as np
import pytest
from sed_reference import reference_scores

from fsat.metrics.detection_curves import curve, positive_segments, segment_scores
from fsat.metrics.sound_events import Counts, Event, Scored, match, score_events, score_segments

LABELS = ["a", "b", "c", "never"]
NAMES = {"f1": "f_measure", "precision": "precision", "recall": "recall", "error_rate": "error_rate"}
CLOSE = {"rel": 1e-6, "abs": 1e-6, "nan_ok": True}


def random_recording(rng: np.random.Generator, crowded: bool) -> dict:
    seconds = float(rng.choice([7.0, 12.3, 20.0]))
    n = int(rng.integers(0, 40 if crowded else 8))

    def events(number: int, labels: list[str]) -> list[Event]:
        starts = rng.uniform(0, seconds - 0.3, number).round(int(rng.integers(0, 4)))
        ends = np.minimum(starts + rng.exponential(0.6, number).round(2) + 0.05, seconds)
        return [
            Event(*row)
            for row in zip(starts.tolist(), ends.tolist(), rng.choice(labels, number).tolist(), strict=False)
        ]

    annotated = [event for event in events(n, LABELS[:3]) if event.end > event.start]
    jitter = rng.normal(0, 0.15, (len(annotated), 2)).round(3)
    moved = [Event(max(0.0, e.start + a), max(e.start + 0.3, e.end + b), e.label) for e, (a, b) in
             zip(annotated, jitter.tolist(), strict=True)]  # fmt: skip
    kept = [event for event in moved if rng.random() < 0.8]
    wrong = [event for event in events(n // 2, LABELS) if event.end > event.start]
    return {"seconds": seconds, "annotated": annotated, "detected": sorted([*kept, *wrong])}


def assert_equal(scored: Scored, reference: dict) -> None:
    results = {"overall": scored.overall.metrics(), "macro": scored.macro()}
    for name, ours in results.items():
        assert ours == pytest.approx({key: number(reference[name][other]) for key, other in NAMES.items()}, **CLOSE)
    for label, counts in scored.classes.items():
        theirs = reference["classes"][label]
        assert counts.metrics() == pytest.approx({k: number(theirs[other]) for k, other in NAMES.items()}, **CLOSE)


def number(value: float | None) -> float:
    return math.nan if value is None else value


def score_all(recordings: list[dict], resolution=1.0, collar=0.2, share=0.5) -> tuple[Scored, Scored]:
    segments, events = Scored(), Scored()
    for item in recordings:
        segments += score_segments(item["annotated"], item["detected"], LABELS, item["seconds"], resolution)
        events += score_events(item["annotated"], item["detected"], LABELS, collar, share)
    return segments, events


@pytest.mark.process
@pytest.mark.parametrize(("seed", "options"), [
    (0, {}), (1, {"resolution": 0.1}), (2, {"resolution": 2.5, "collar": 0.5}), (3, {"share": 0.0}),
    (4, {"collar": 1.0, "share": 1.0}), (5, {"collar": 0.25, "resolution": 0.3}),
])  # fmt: skip
def test_scores_are_those_of_sed_eval(seed, options):
    rng = np.random.default_rng(seed)
    recordings = [random_recording(rng, crowded=i % 2 == 0) for i in range(20)]
    recordings += [{"seconds": 3.0, "annotated": [], "detected": []}]
    reference = reference_scores(recordings, LABELS, **options)
    segments, events = score_all(recordings, **options)
    assert_equal(segments, reference["segments"])
    assert_equal(events, reference["events"])
    assert 0 < events.overall.substitutions < events.overall.right


@pytest.mark.process
@pytest.mark.parametrize("detected", [[], [Event(0.0, 1.0, "b")]])
def test_scores_without_a_denominator_are_those_of_sed_eval(detected):
    for annotated in ([], [Event(0.0, 1.0, "a")]):
        recordings = [{"seconds": 5.0, "annotated": annotated, "detected": detected}]
        reference = reference_scores(recordings, LABELS)
        for scored, name in zip(score_all(recordings), ("segments", "events"), strict=True):
            assert_equal(scored, reference[name])


@pytest.mark.process
@pytest.mark.parametrize(("window", "hop", "resolution", "levels"), [
    (1.0, 1.0, 1.0, 0), (2.5, 0.7, 1.0, 20), (0.4, 0.2, 0.5, 3), (5.0, 5.0, 1.0, 7),
])  # fmt: skip
def test_curves_are_those_of_sed_scores_eval(window, hop, resolution, levels):
    rng = np.random.default_rng(levels)
    recordings = [random_recording(rng, crowded=False) for _ in range(6)]
    recordings.append({"seconds": 9.0, "annotated": [Event(1, 2, label) for label in LABELS[:3]], "detected": []})
    for item in recordings:
        item["edges"] = [0.0, *np.arange(window, item["seconds"] - 0.05, hop).tolist(), item["seconds"]]
        scores = rng.random((len(item["edges"]) - 1, len(LABELS)), np.float32)
        scores = np.round(scores * levels) / np.float32(levels) if levels else scores
        scores[rng.random(len(scores)) < 0.1] = np.nan
        item["scores"] = [[None if math.isnan(x) else x for x in row] for row in scores.tolist()]
        item["rows"] = segment_scores(item["edges"], scores, item["seconds"], resolution)
    plain = [{key: value for key, value in item.items() if key != "rows"} for item in recordings]
    reference = reference_scores(plain, LABELS, resolution, labels_of_curves=LABELS[:3])["curves"]
    rows = np.concatenate([item["rows"] for item in recordings])
    for j, label in enumerate(LABELS[:3]):
        positive = np.concatenate([
            positive_segments([event[:2] for event in item["annotated"] if event.label == label], item["seconds"],
                              resolution) for item in recordings
        ])  # fmt: skip
        found = curve(rows[:, j], positive)
        best = found.best()._asdict() | {"average_precision": found.average_precision}
        expected = reference[label] | {"threshold": max(0.0, reference[label]["threshold"])}
        assert best == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_threshold_calls_the_segments_that_it_was_chosen_for():
    below = np.nextafter(np.float32(0.7), np.float32(0))
    scores = np.array([0.7, below, 0.7, below], np.float32)  # nothing lies between
    best = curve(scores, np.array([True, False, True, False])).best()
    assert best.f1 == 1
    assert (scores >= np.float32(best.threshold)).tolist() == [True, False, True, False]


def test_a_class_without_annotations_has_no_curve():
    found = curve(np.array([0.1, 0.9], np.float32), np.zeros(2, bool))
    assert math.isnan(found.average_precision)
    with pytest.raises(ValueError, match="not annotated"):
        found.best()


def test_a_long_chain_is_matched_to_its_end():
    n = 3000
    pairs = [pair for i in range(n) for pair in ((i, i), (i, i + 1))]
    assert len(match(sorted(pairs, key=lambda pair: (pair[0], -pair[1])))) == n


def test_scores_of_recordings_add_up():
    one = score_events([Event(0, 1, "a")], [Event(0, 1, "a"), Event(3, 4, "b")], LABELS)
    both = one + score_events([Event(0, 1, "a")], [Event(0.1, 1, "b")], LABELS)
    assert both.overall == Counts(2, 3, 1, 1, 0, 1)
    assert both.classes["a"] == Counts(2, 1, 1, 0, 1, 0)
    assert both.macro(["a"]) == pytest.approx({"f1": 2 / 3, "precision": 1, "recall": 0.5, "error_rate": 0.5})
