"""What is heard: silence, cancelling and dead channels, levels off scale, in clips and windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import tone, write_wav

from fsat.data.audio import hear
from fsat.data.levels import by_kind, kind_lines
from fsat.tagging.recordings import windows

RATE = 16000
SOUND = tone(440, 3.0, RATE, amplitude=0.4)
LSB = np.random.default_rng(0).integers(-1, 2, len(SOUND)) / 32768


def stereo(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.stack([left, right], axis=1)


@pytest.mark.parametrize("rate", [RATE, 8000, 44100])
@pytest.mark.parametrize(
    ("samples", "subtype"),
    [
        (np.zeros(len(SOUND)), "PCM_16"), (LSB, "PCM_16"), (np.full(len(SOUND), 0.5), "PCM_16"),
        (0.01 + LSB, "FLOAT"), (stereo(LSB, 0 * LSB), "PCM_24"), (np.zeros(10), "PCM_16"),
        ((np.arange(len(SOUND)) % 2) / 128, "PCM_U8"),
    ],
    ids=["zeros", "noise of the lowest bit", "constant", "noise with an offset", "stereo", "short", "8 bits"],
)  # fmt: skip
def test_silence(samples: np.ndarray, subtype: str, rate: int, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "clip.wav", samples, RATE, subtype)
    heard = hear(path, [rate])
    assert heard.is_silent
    assert heard.notes[0].startswith("silent")
    assert all(window.is_silent for window in windows(path, [rate], 1.0, 0.5))


def test_quiet_sound_is_no_silence(tmp_path: Path) -> None:
    heard = hear(write_wav(tmp_path / "clip.wav", 1e-3 * SOUND, RATE, "FLOAT"), [RATE])
    assert (heard.is_silent, heard.notes) == (False, ("near silence (peak -68 dB)",))


def test_cancelling_channels_are_not_mixed(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "clip.wav", stereo(SOUND, -0.999 * SOUND), RATE, "FLOAT")
    heard = hear(path, [RATE])
    np.testing.assert_array_equal(heard.at[RATE], SOUND)
    assert heard.notes == ("channels cancel (100 % of the time): the loudest one is used there",)
    assert not any(window.is_silent for window in windows(path, [RATE], 1.0, 1.0))


def test_channels_that_cancel_for_a_while(tmp_path: Path) -> None:
    """Seconds in which the channels agree are averaged as ever."""
    other = 0.5 * SOUND
    other[RATE : 2 * RATE] = -SOUND[RATE : 2 * RATE]
    heard = hear(write_wav(tmp_path / "clip.wav", stereo(SOUND, other), RATE, "FLOAT"), [RATE])
    expected = 0.75 * SOUND
    expected[RATE : 2 * RATE] = SOUND[RATE : 2 * RATE]
    np.testing.assert_allclose(heard.at[RATE], expected, atol=1e-6)
    assert heard.notes == ("channels cancel (33 % of the time): the loudest one is used there",)


@pytest.mark.parametrize(
    ("samples", "note"),
    [
        (SOUND * 32768, "off scale (peak 1.31e+04, expected at most 1)"),
        ((4 * SOUND).clip(-1, 1), "clipped (58 % of the samples)"),
        (SOUND + 0.2, "DC offset (mean 0.20)"),
        (stereo(SOUND, 0 * SOUND), "dead channel (1 of 2)"),
        (np.stack([SOUND, SOUND, LSB], axis=1), "dead channel (1 of 3)"),
        (SOUND * 1e-3, "near silence (peak -68 dB)"),
    ],
)
def test_odd_levels_have_a_note(samples: np.ndarray, note: str, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "clip.wav", samples, RATE, "FLOAT")
    assert hear(path, [RATE]).notes == (note,)
    assert hear(path, [8000]).notes == (note,)


def test_usual_sounds_have_none(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((RATE, 2)).clip(-4, 4) / 4
    for samples in (SOUND, noise, 0.1 * noise, tone(100, 0.05, RATE, 0.9)):
        assert hear(write_wav(tmp_path / "clip.wav", samples, RATE), [RATE]).notes == ()


def test_a_silent_window_beside_a_loud_one(tmp_path: Path) -> None:
    """The resampling filter rings into the silence."""
    samples = np.concatenate([SOUND[:RATE], np.zeros(RATE), SOUND[:RATE]])
    path = write_wav(tmp_path / "clip.wav", samples, RATE, "FLOAT")
    for rate in (RATE, 11025):
        assert [window.is_silent for window in windows(path, [rate], 1.0, 1.0)] == [False, True, False]
        assert not hear(path, [rate]).is_silent


def test_clips_by_kind_of_note() -> None:
    kinds = by_kind(["a", "b", "c"], ["silent", "clipped (1 % of the samples); DC offset (mean 0.2)", "silent"])
    assert kinds == {"silent": ["a", "c"], "clipped": ["b"], "DC offset": ["b"]}
    assert kind_lines({"silent": list("abcdefg")}) == ["silent: 7 clips: a, b, c, d, e, ..."]
