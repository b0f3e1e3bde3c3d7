"""Windows of recordings, and segments made of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from helpers import tone, write_wav

from fsat.data import audio
from fsat.data.audio import blocks, decode, decode_at
from fsat.errors import AudioError
from fsat.metrics.segments import Segment, segments, without_overlap
from fsat.tagging.recordings import windows

RATE = 8000


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "BLOCK", 5000)


def noise(n_samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (n_samples, channels)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 7])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize("n_samples", [1, 4999, 5000, 5001, 44100])
def test_block_by_block_gives_the_same_bits(tmp_path: Path, monkeypatch, channels, suffix, n_samples) -> None:
    if suffix == ".mp3" and channels > 2:
        channels = 2
    path = tmp_path / f"clip{suffix}"
    sf.write(path, noise(n_samples, channels), 44100)
    rates = [8000, 16000, 44100]
    whole = decode_at(path, rates)
    monkeypatch.setattr(audio, "BLOCK", 5000)
    assert len(list(blocks(path, rates))) == max(1, -(-n_samples // (5000 // channels)))
    for rate, samples in decode_at(path, rates).items():
        np.testing.assert_array_equal(samples, whole[rate])
        np.testing.assert_array_equal(decode(path, rate), whole[rate])


@pytest.mark.parametrize(("window", "hop"), [(1.0, 1.0), (1.0, 0.25), (0.5, 0.3), (0.123, 0.1)])
@pytest.mark.parametrize("seconds", [3.0, 3.37, 1.0])
def test_windows_are_pieces_of_the_decoded_recording(tmp_path: Path, small_blocks, window, hop, seconds) -> None:
    path = write_wav(tmp_path / "r.wav", noise(round(seconds * 44100)), 44100, "FLOAT")
    rates = [8000, 16000, 44100]
    whole = decode_at(path, rates)
    found = list(windows(path, rates, window, hop))
    *regular, last = found
    assert [round(one.start / hop, 6) for one in regular] == list(range(len(regular)))
    assert last.end == pytest.approx(seconds, abs=0.011)
    assert all(one.end - one.start == pytest.approx(window) for one in found)
    assert all(a.end >= b.start for a, b in pairwise(found))  # nothing is left out
    for one in found:
        for rate in rates:
            first = round(one.start * rate)
            expected = whole[rate][first : first + round(window * rate)]
            assert abs(len(one.samples[rate]) - round(window * rate)) <= 1
            np.testing.assert_array_equal(one.samples[rate][: len(expected)], expected[: len(one.samples[rate])])


def test_a_recording_shorter_than_a_window_is_one(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "r.wav", tone(400, 0.3, RATE), RATE)
    (one,) = windows(path, [RATE], 2, 1)
    assert (one.start, one.end, len(one.samples[RATE])) == (0, pytest.approx(0.3), 2400)


def test_one_sample_at_a_rate_that_cannot_hold_it(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "r.wav", np.ones(1), 44100)
    (one,) = windows(path, [100], 2, 1)
    assert len(one.samples[100]) >= 1


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
        for place, letter in enumerate(text):
            row["abcd".index(letter)] = 0.9 - 0.2 * place
        made.append((float(i), float(i + 2), row))
    return made


def test_consecutive_equal_tags_are_one_segment() -> None:
    found = list(segments(rows("a", "a", "b", "a"), "abcd"))
    assert [(s.start, s.end, s.label) for s in found] == [(0, 2.5, "a"), (2.5, 3.5, "b"), (3.5, 5, "a")]
    assert all(s.score == pytest.approx(0.9) for s in found)


def test_simultaneous_tags_are_separate_segments() -> None:
    found = list(segments(rows("ab", "ba", "bc", "cd"), "abcd", top_k=2))
    assert [(s.start, s.end, s.label) for s in found] == [
        (0, 2.5, "a"), (0, 3.5, "b"), (2.5, 5, "c"), (3.5, 5, "d"),
    ]  # fmt: skip
    assert found[1].score == pytest.approx((0.7 + 0.9 + 0.9) / 3)


def test_a_score_below_the_minimum_ends_a_segment() -> None:
    assert list(segments(rows("ab", "b"), "abcd", top_k=2, min_score=0.8)) == [
        Segment(0, 1.5, "a", pytest.approx(0.9)), Segment(1.5, 3, "b", pytest.approx(0.9)),
    ]  # fmt: skip
    assert list(segments(rows("a", "b"), "abcd", min_score=0.95)) == []
    assert list(segments([], "abcd")) == []
