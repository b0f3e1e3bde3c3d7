"""Windows of recordings, and segments made of them."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from helpers import tone, write_wav

from fsat.data import audio
from fsat.data.audio import blocks, decode, hear
from fsat.errors import AudioError
from fsat.tagging.recordings import BLOCK_WINDOWS, Segment, segments, windows, without_overlap

RATE = 8000


def noise(n_samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (n_samples, channels)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 7])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize("n_samples", [1, 4999, 5000, 5001, 44100])
def test_block_by_block_gives_the_same_bits(tmp_path: Path, monkeypatch, channels, suffix, n_samples) -> None:
    channels = min(channels, 2) if suffix == ".mp3" else channels
    path = tmp_path / f"clip{suffix}"
    sf.write(path, noise(n_samples, channels), 44100)
    rates = [8000, 16000, 44100]
    whole = hear(path, rates).at
    monkeypatch.setattr(audio, "BLOCK", 5000)
    assert len(list(blocks(path, rates))) == max(1, -(-n_samples // (5000 // channels)))
    for rate, samples in hear(path, rates).at.items():
        np.testing.assert_array_equal(samples, whole[rate])
        np.testing.assert_array_equal(decode(path, rate), whole[rate])


@pytest.mark.parametrize(("window", "hop"), [(1.0, 1.0), (1.0, 0.25), (0.5, 0.3), (0.123, 0.1)])
@pytest.mark.parametrize("seconds", [3.0, 3.37, 1.0])
def test_windows_are_pieces_of_the_decoded_recording(tmp_path: Path, monkeypatch, window, hop, seconds) -> None:
    path = write_wav(tmp_path / "r.wav", noise(round(seconds * 44100)), 44100, "FLOAT")
    rates = [8000, 16000, 44100]
    whole = hear(path, rates).at
    monkeypatch.setattr(audio, "BLOCK", 5000)
    pieces = list(windows(path, rates, window, hop))
    *regular, last = pieces
    assert [round(piece.start / hop, 6) for piece in regular] == list(range(len(regular)))
    assert last.end == pytest.approx(seconds, abs=0.011)
    assert all(piece.end - piece.start == pytest.approx(window) for piece in pieces)
    assert all(a.end >= b.start for a, b in pairwise(pieces))  # nothing is left out
    for piece in pieces:
        for rate, samples in piece.samples.items():
            first, length = round(piece.start * rate), round(window * rate)
            expected = whole[rate][first : first + length]
            assert abs(len(samples) - length) <= 1
            np.testing.assert_array_equal(samples[: len(expected)], expected[: len(samples)])


@pytest.mark.parametrize(("samples", "rate", "n_samples"), [(tone(400, 0.3, RATE), RATE, 2400), (np.ones(1), 100, 1)])
def test_a_recording_shorter_than_a_window_is_one(tmp_path: Path, samples, rate, n_samples) -> None:
    """Even one sample at a rate that is too low for it."""
    path = write_wav(tmp_path / "r.wav", samples, 44100 if rate == 100 else rate)
    (window,) = windows(path, [rate], 2, 1)
    assert (window.start, len(window.samples[rate])) == (0, n_samples)
    assert window.end == pytest.approx(n_samples / rate, abs=0.01)


def test_too_long(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "r.wav", tone(400, 3, RATE), RATE)
    with pytest.raises(AudioError, match="longer than max_seconds=2: 3 s"):
        list(windows(path, [RATE], 1, 1, max_seconds=2))
    with pytest.raises(ValueError, match="expected 0 < hop <= window"):
        list(windows(path, [RATE], 1, 2))


def test_overlapping_windows_count_for_the_time_nearest_to_their_middles() -> None:
    given = [(0.0, 4.0, "a"), (2.0, 6.0, "b"), (4.0, 8.0, "c"), (5.0, 9.0, "d")]
    assert list(without_overlap(given)) == [(0, 3, "a"), (3, 5, "b"), (5, 6.5, "c"), (6.5, 9, "d")]
    assert list(without_overlap([(0.0, 5.0, "a"), (5.0, 10.0, "b")])) == [(0, 5, "a"), (5, 10, "b")]
    assert list(without_overlap([(0.0, 0.3, "a")])) == [(0, 0.3, "a")]
    assert list(without_overlap([])) == []


def rows(*best: str) -> list[tuple[float, float, np.ndarray]]:
    """Windows of 2 s every second, whose best labels, in order, are the letters of each text."""
    made = []
    for i, text in enumerate(best):
        row = np.full(4, 0.01)
        for rank, letter in enumerate(text):
            row["abcd".index(letter)] = 0.9 - 0.2 * rank
        made.append((float(i), float(i + 2), row))
    return made


def test_consecutive_equal_tags_are_one_segment() -> None:
    score = pytest.approx(0.9)
    expected = [Segment(0, 2.5, "a", score), Segment(2.5, 3.5, "b", score), Segment(3.5, 5, "a", score)]
    assert list(segments(rows("a", "a", "b", "a"), "abcd")) == expected


def test_simultaneous_tags_are_separate_segments() -> None:
    tags = list(segments(rows("ab", "ba", "bc", "cd"), "abcd", top_k=2))
    assert [tag[:3] for tag in tags] == [(0, 2.5, "a"), (0, 3.5, "b"), (2.5, 5, "c"), (3.5, 5, "d")]
    assert tags[1].score == pytest.approx((0.7 + 0.9 + 0.9) / 3)


def test_a_score_below_the_minimum_ends_a_segment() -> None:
    expected = [Segment(0, 1.5, "a", pytest.approx(0.9)), Segment(1.5, 3, "b", pytest.approx(0.9))]
    assert list(segments(rows("ab", "b"), "abcd", top_k=2, min_score=0.8)) == expected
    assert list(segments(rows("a", "b"), "abcd", min_score=0.95)) == []
    assert list(segments([], "abcd")) == []


def wandering(n_windows: int, n_classes: int, seed: int = 0, every: int = 1):
    """Yield windows of 2.5 s, one a second, whose scores wander, one in twenty of them silent.

    Scores are made for 1000 windows, which take turns, each `every` times.
    """
    rng = np.random.default_rng(seed)
    made = np.abs(np.cumsum(rng.normal(0, 0.2, (1000, n_classes)), axis=0) % 2 - 1).astype(np.float32)
    made[rng.uniform(size=1000) < 0.05] = np.nan
    for i in range(n_windows):
        yield float(i), i + 2.5, made[i // every % 1000]


@pytest.mark.parametrize(("n_classes", "top_k", "minimum"), [
    (1, 1, 0.0), (6, 1, 0.4), (6, 2, 0.5), (6, 99, np.linspace(0.2, 0.9, 6, dtype=np.float32)),
])  # fmt: skip
@pytest.mark.parametrize("n_windows", [1, BLOCK_WINDOWS, 2 * BLOCK_WINDOWS + 1])
def test_segments_are_runs_of_windows_with_a_tag(n_windows, n_classes, top_k, minimum) -> None:
    """Class by class, window by window; scores are added one after the other."""
    labels, parts = "abcdef"[:n_classes], list(without_overlap(wandering(n_windows, n_classes)))
    minimum, expected = np.broadcast_to(np.float32(minimum), n_classes), []
    for j in range(-1, n_classes):  # silence first
        run: list[tuple[float, float, float]] = []
        for start, end, row in [*parts, (0.0, 0.0, np.zeros(n_classes) - 1)]:
            best = np.argsort(-row, kind="stable")[:top_k]
            has_tag = np.isnan(row[0]) if j < 0 else not np.isnan(row[0]) and j in best and row[j] >= minimum[j]
            if has_tag:
                run.append((start, end, float(row[j])))
            elif run:
                start, end, score = run[0][0], run[-1][1], sum((score for *_, score in run), 0.0) / len(run)
                expected.append(
                    (end, start, j, Segment(start, end, labels[j], score) if j >= 0 else (start, end, "", None))
                )
                run = []
    given = list(segments(wandering(n_windows, n_classes), labels, top_k, minimum))
    assert given == [segment for *_, segment in sorted(expected, key=lambda item: item[:3])]
    assert n_windows == 1 or n_classes == 1 or len(given) > 100


def test_windows_of_many_classes_stream_in_flat_memory() -> None:
    """100,000 windows of 50 classes, any number of which are tags: 20 MB of scores."""
    labels, minimum = [f"class{j}" for j in range(50)], np.full(50, 0.6, np.float32)
    n_tags, peaks = [], []
    for n_windows in (5_000, 100_000):
        tracemalloc.start()
        n_tags.append(sum(1 for _ in segments(wandering(n_windows, 50, every=50), labels, 50, minimum)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert n_tags[1] > 10 * n_tags[0] > 1000
    assert peaks[1] < peaks[0] + 1_000_000
