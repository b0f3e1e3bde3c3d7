"""Decoding of every format, width, rate and channel count; what cannot be decoded; crops."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from helpers import error_line, tone, write_wav

from fsat.data.audio import decode, even_starts, read_header
from fsat.errors import AudioError

RATE = 16000


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(n_samples)).clip(-0.99, 0.99).astype(np.float32)


# --- decoding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "subtype", "step"),
    [
        ("WAV", "PCM_U8", 2**-7), ("WAV", "PCM_16", 2**-15), ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 2**-24),  # the resolution of float32
        ("WAV", "FLOAT", 1e-9), ("WAV", "DOUBLE", 1e-9),
        ("FLAC", "PCM_S8", 2**-7), ("FLAC", "PCM_16", 2**-15), ("FLAC", "PCM_24", 2**-23),
    ],
)  # fmt: skip
def test_lossless_formats_of_every_width(tmp_path: Path, format: str, subtype: str, step: float) -> None:
    samples, path = noise(2000), tmp_path / "clip.wav"  # whatever the format: the name does not matter
    sf.write(path, samples, RATE, subtype=subtype, format=format)
    assert read_header(path).frames == 2000
    decoded = decode(path, RATE)
    assert decoded.dtype == np.float32
    assert decoded.shape == (2000,)
    np.testing.assert_allclose(decoded, samples, atol=1.01 * step)


@pytest.mark.parametrize("suffix", [".ogg", ".mp3"])
def test_lossy_formats_keep_length_place_and_level(tmp_path: Path, suffix: str) -> None:
    samples, path, middle = tone(440, 1.0, 44100), tmp_path / f"clip{suffix}", slice(4000, -4000)
    sf.write(path, samples, 44100)
    decoded = decode(path, 44100)
    assert decoded.shape == samples.shape
    np.testing.assert_allclose(decoded[middle], samples[middle], atol=0.02)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file: run the tests as another user")
def test_a_file_without_read_permission_has_a_reason(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "secret.wav", noise(100), RATE)
    path.chmod(0)
    with pytest.raises(AudioError, match=r"^unreadable file \(Permission denied\)$"):
        decode(path, RATE)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_bytes_and_path_give_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    sf.write(path, noise(22050), 22050)
    raw = path.read_bytes()
    expected = decode(path, RATE)
    for source in (str(path), raw, bytearray(raw), memoryview(raw)):
        np.testing.assert_array_equal(decode(source, RATE), expected)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(tmp_path: Path, suffix: str, channels: int) -> None:
    parts = [tone(300 + 50 * c, 0.5, RATE, amplitude=0.1 + 0.1 * c) for c in range(channels)]
    path = tmp_path / f"clip{suffix}"
    sf.write(path, np.stack(parts, axis=1), RATE)
    header = read_header(path)
    assert (header.frames, header.samplerate) == (len(parts[0]), RATE)
    expected = sum(part.astype(float) for part in parts) / channels
    np.testing.assert_allclose(decode(path, RATE), expected, atol=0.02 if suffix == ".ogg" else 1e-4)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize(("target", "frequency"), [(16000, 440.0), (16000, 3000.0), (44100, 1000.0), (100, 10.0)])
def test_resampling_keeps_a_sine_and_its_length(tmp_path: Path, rate: int, target: int, frequency: float) -> None:
    """The samples are those of the same sine at the other rate."""
    seconds = 4.01 if target == 100 else 0.5001  # an odd number of samples
    path = write_wav(tmp_path / "clip.wav", tone(frequency, seconds, rate), rate, "FLOAT")
    decoded, expected = decode(path, target), tone(frequency, seconds + 1, target)
    assert abs(len(decoded) - round(seconds * rate) * target / rate) <= 1
    middle = slice(len(decoded) // 4, -len(decoded) // 4)  # the sine begins and ends at once, which rings
    np.testing.assert_allclose(decoded[middle], expected[: len(decoded)][middle], atol=2e-3)


@pytest.mark.parametrize(("target", "frequency"), [(16000, 12000.0), (100, 1000.0)])
def test_what_the_new_rate_cannot_hold_is_filtered_out(tmp_path: Path, target: int, frequency: float) -> None:
    path = write_wav(tmp_path / "clip.wav", tone(frequency, 2.0, 44100), 44100, "FLOAT")
    decoded = decode(path, target)
    assert np.abs(decoded[len(decoded) // 4 : -len(decoded) // 4]).max() < 1e-3


def test_a_clip_shorter_than_a_sample_of_the_new_rate_still_has_one(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "clip.wav", np.full((3, 2), [0.25, 0.75]), 44100, "FLOAT")
    decoded = decode(path, 100)
    assert decoded.shape == (1,)
    assert decoded[0] == pytest.approx(0.5, abs=0.01)  # both channels


# --- what cannot be used ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "rate", "subtype"),
    [
        ([0, np.nan, 0], RATE, "FLOAT"),
        ([[0, 0], [0, np.inf], [0, 0]], RATE, "DOUBLE"),
        ([[0, -np.inf]] * 300, 44100, "FLOAT"),
        ([0, 1e300, 0], RATE, "DOUBLE"),  # beyond float32
        (np.where(np.arange(4410) % 40 < 20, 3e38, -3e38), 44100, "FLOAT"),  # overshoots when it is resampled
    ],
    ids=["NaN", "one channel", "another rate", "beyond float32", "overshooting"],
)
def test_samples_that_are_or_become_infinite(tmp_path: Path, samples, rate: int, subtype: str) -> None:
    path = write_wav(tmp_path / "clip.wav", np.array(samples), rate, subtype)
    assert error_line(AudioError, decode, path, RATE) == "NaN or infinite samples"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("clip.wav", b"no sound, only words\n" * 50, "unreadable audio (unknown format)"),
        ("clip.wav", b"", "empty file"),
        ("clip.raw", bytes(5000), "unreadable audio"),  # libsndfile would need the layout
    ],
    ids=["text", "empty", "raw"],
)
def test_not_a_clip(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    for use in (read_header, lambda path: decode(path, RATE), lambda path: decode(path.read_bytes(), RATE)):
        message = error_line(AudioError, use, path)
        assert message.startswith(reason)
        assert str(tmp_path) not in message  # the caller names the file


def test_no_such_file(tmp_path: Path) -> None:
    for use in (read_header, lambda path: decode(path, RATE)):
        with pytest.raises(AudioError, match="missing file"):
            use(tmp_path / "gone.wav")


def test_the_header_tells_that_a_file_is_truncated(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "clip.wav", noise(44100), 44100)
    path.write_bytes(path.read_bytes()[:-1000])
    assert error_line(AudioError, read_header, path).startswith("cut off: the header promises 88200 bytes")


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_wav_from_a_pipe(tmp_path: Path, length: int) -> None:
    """ffmpeg, SoX and arecord do not know the length when they write into a pipe, and write the greatest number."""
    path = write_wav(tmp_path / "clip.wav", noise(1000), RATE)
    raw = bytearray(path.read_bytes())
    assert raw[36:40] == b"data"
    raw[4:8] = raw[40:44] = length.to_bytes(4, "little")
    path.write_bytes(raw)
    assert read_header(path).frames == 1000
    assert decode(path, RATE).shape == (1000,)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24"])
def test_wav_of_an_odd_number_of_bytes(tmp_path: Path, subtype: str) -> None:
    path = write_wav(tmp_path / "clip.wav", noise(1001), RATE, subtype)
    assert read_header(path).frames == 1001
    assert decode(path, RATE).shape == (1001,)


# --- crops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_samples", "length", "count", "starts"),
    [
        (10, 4, 3, [0, 3, 6]), (10, 4, 2, [0, 6]), (10, 4, 1, [3]), (10, 4, 4, [0, 2, 4, 6]),
        (100, 10, 10, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]),
        (4, 4, 3, [0]), (2, 4, 3, [-1]), (2, 6, 1, [-2]), (1, 1, 3, [0]), (1, 4, 1, [-1]),  # short clips once, centred
    ],
)  # fmt: skip
def test_even_crops_are_evenly_spaced(n_samples: int, length: int, count: int, starts: list[int]) -> None:
    assert even_starts(n_samples, length, count) == starts


def test_even_crops_are_within_the_clip() -> None:
    for n_samples, length, count in itertools.product(range(1, 30), range(1, 30), (1, 2, 3, 10)):
        starts = even_starts(n_samples, length, count)
        assert len(starts) == (count if n_samples > length else 1)
        assert starts == sorted(starts)
        assert min(0, n_samples - length) <= starts[0] <= starts[-1] <= max(0, n_samples - length)
