"""Decoding every format, width, rate and channel count to what it should sound like; crops; normalisation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from helpers import error_line, tone, write_wav

from fsat.data.audio import decode, even_starts, read_header
from fsat.errors import AudioError

RATE = 16000
RATES = [8000, 16000, 22050, 44100, 48000, 96000]


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(n_samples)).clip(-0.99, 0.99).astype(np.float32)


# --- decoding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "subtype", "step"),
    [
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "PCM_32", 2**-24),  # the resolution of float32
        ("WAV", "FLOAT", 1e-9),
        ("WAV", "DOUBLE", 1e-9),
        ("FLAC", "PCM_S8", 2**-7),
        ("FLAC", "PCM_16", 2**-15),
        ("FLAC", "PCM_24", 2**-23),
    ],
)
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
    samples = tone(440, 1.0, 44100)
    path = tmp_path / f"clip{suffix}"
    sf.write(path, samples, 44100)
    decoded = decode(path, 44100)
    assert decoded.shape == samples.shape
    middle = slice(4000, -4000)
    np.testing.assert_allclose(decoded[middle], samples[middle], atol=0.02)


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


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("target", "frequency"), [(16000, 440.0), (16000, 3000.0), (44100, 1000.0), (100, 10.0)])
def test_resampling_keeps_a_sine(tmp_path: Path, rate: int, target: int, frequency: float) -> None:
    """The samples are those of the same sine at the other rate."""
    seconds = 4.0 if target == 100 else 0.5
    path = write_wav(tmp_path / "clip.wav", tone(frequency, seconds, rate), rate, "FLOAT")
    decoded = decode(path, target)
    assert len(decoded) == round(seconds * target)
    expected = tone(frequency, seconds, target)
    middle = slice(len(expected) // 4, -len(expected) // 4)  # the sine begins and ends at once, which rings
    np.testing.assert_allclose(decoded[middle], expected[middle], atol=2e-3)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("n_samples", [1000, 1001, 9999])
def test_resampling_keeps_the_length(tmp_path: Path, rate: int, n_samples: int) -> None:
    path = write_wav(tmp_path / "clip.wav", noise(n_samples), rate)
    assert abs(len(decode(path, RATE)) - n_samples * RATE / rate) <= 1


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


def test_silence_is_a_clip(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "clip.wav", np.zeros(500), 8000)
    decoded = decode(path, RATE)
    assert decoded.shape == (1000,)
    assert not decoded.any()


# --- what cannot be used ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("subtype", "channels", "rate"), [("FLOAT", 1, RATE), ("DOUBLE", 2, RATE), ("FLOAT", 2, 44100)]
)
def test_a_sample_that_is_no_number(tmp_path: Path, value: float, subtype: str, channels: int, rate: int) -> None:
    samples = np.zeros((300, channels))
    samples[200, -1] = value
    path = write_wav(tmp_path / "clip.wav", samples, rate, subtype)
    assert error_line(AudioError, decode, path, RATE) == "NaN or infinite samples"


def test_samples_that_become_infinite(tmp_path: Path) -> None:
    beyond_float32 = np.array([0.0, 1e300, 0.0]), RATE, "DOUBLE"
    overshooting = np.where(np.arange(4410) % 40 < 20, 3e38, -3e38), 44100, "FLOAT"  # when it is resampled
    for clip in (beyond_float32, overshooting):
        path = write_wav(tmp_path / "clip.wav", *clip)
        assert error_line(AudioError, decode, path, RATE) == "NaN or infinite samples"


def header_only(path: Path) -> None:
    write_wav(path, noise(1000), RATE)
    path.write_bytes(path.read_bytes()[:20])


def half_an_ogg(path: Path) -> None:
    sf.write(path, noise(44100), 44100, format="OGG")
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_text("no sound, only words\n" * 50), "unreadable audio (Format not recognised)"),
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_bytes(bytes(5000)), "unreadable audio (Format not recognised)"),
        (lambda path: write_wav(path, np.zeros(0), RATE), "no samples in it"),
        (header_only, "unreadable audio"),
        (half_an_ogg, "unreadable audio"),
    ],
    ids=["text", "empty", "zeros", "no samples", "header only", "half an ogg"],
)
@pytest.mark.parametrize("suffix", [".wav", ".raw"])
def test_not_a_clip(tmp_path: Path, make: Callable[[Path], None], reason: str, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    make(path)
    for use in (read_header, lambda path: decode(path, RATE), lambda path: decode(path.read_bytes(), RATE)):
        message = error_line(AudioError, use, path)
        if suffix == ".wav":  # libsndfile needs the layout of .raw
            assert message.startswith(reason)
        assert str(tmp_path) not in message  # the caller names the file


def test_no_such_file(tmp_path: Path) -> None:
    for use in (read_header, lambda path: decode(path, RATE)):
        with pytest.raises(AudioError, match="missing file"):
            use(tmp_path / "gone.wav")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_files(tmp_path: Path, share: float) -> None:
    path = tmp_path / "clip.flac"
    sf.write(path, noise(44100), 44100)
    raw = path.read_bytes()
    with pytest.raises(AudioError, match=r"^unreadable audio \(.+\)$"):
        decode(raw[: int(share * len(raw))], RATE)
    path = write_wav(tmp_path / "clip.wav", noise(44100), 44100)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for use in (read_header, lambda path: decode(path, RATE)):
        with pytest.raises(AudioError, match="truncated"):
            use(path)


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
        (10, 4, 3, [0, 3, 6]),
        (10, 4, 2, [0, 6]),
        (10, 4, 1, [3]),
        (10, 4, 4, [0, 2, 4, 6]),
        (11, 4, 3, [0, None, 7]),  # 3 or 4
        (5, 4, 3, [0, None, 1]),
        (100, 10, 10, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]),
    ],
)
def test_even_crops_are_evenly_spaced(n_samples: int, length: int, count: int, starts: list[int | None]) -> None:
    result = even_starts(n_samples, length, count)
    assert len(result) == count
    assert [start if wanted is not None else None for start, wanted in zip(result, starts, strict=True)] == starts
    assert result == sorted(result)
    assert result[-1] + length <= n_samples


@pytest.mark.parametrize(("n_samples", "length", "start"), [(4, 4, 0), (2, 4, -1), (2, 6, -2), (1, 1, 0), (1, 4, -1)])
@pytest.mark.parametrize("count", [1, 3])
def test_even_crops_centre_a_short_clip_once(n_samples: int, length: int, start: int, count: int) -> None:
    assert even_starts(n_samples, length, count) == [start]


def test_even_crops_are_within_the_clip() -> None:
    for n_samples, length, count in itertools.product(range(1, 30), range(1, 30), (1, 2, 3, 10)):
        starts = even_starts(n_samples, length, count)
        assert len(starts) == (count if n_samples > length else 1)
        assert min(0, n_samples - length) <= min(starts) <= max(starts) <= max(0, n_samples - length)
