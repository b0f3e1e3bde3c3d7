"""Decoding every format, width, rate and channel count to what it should sound like; crops; normalisation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from helpers import one_line, tone, write_wav

from fsat.data.audio import audio_norm, decode, even_crops, n_even_crops, random_crop, read_header
from fsat.errors import AudioError

RATE = 16000
RATES = [8000, 16000, 22050, 44100, 48000, 96000]


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(n_samples)).clip(-0.99, 0.99).astype(np.float32)


# --- decoding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subtype", "step"),
    [
        ("PCM_U8", 2**-7),
        ("PCM_16", 2**-15),
        ("PCM_24", 2**-23),
        ("PCM_32", 2**-24),  # as fine as float32 can tell
        ("FLOAT", 1e-9),
        ("DOUBLE", 1e-9),
    ],
)
def test_wav_of_every_width(tmp_path: Path, subtype: str, step: float) -> None:
    samples = noise(2000)
    path = write_wav(tmp_path / "clip.wav", samples, RATE, subtype)
    decoded = decode(path, RATE)
    assert decoded.dtype == np.float32
    assert decoded.shape == (2000,)
    np.testing.assert_allclose(decoded, samples, atol=1.01 * step)


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_flac_gives_back_its_samples(tmp_path: Path, subtype: str) -> None:
    samples = noise(2000)
    path = tmp_path / "clip.flac"
    sf.write(path, samples, RATE, subtype=subtype)
    step = {"PCM_S8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-23}[subtype]
    np.testing.assert_allclose(decode(path, RATE), samples, atol=1.01 * step)


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


def test_the_name_says_nothing_about_the_format(tmp_path: Path) -> None:
    samples = noise(1000)
    sf.write(tmp_path / "clip.flac", samples, RATE)
    path = (tmp_path / "clip.flac").rename(tmp_path / "clip.wav")
    assert decode(path, RATE).shape == (1000,)
    assert read_header(path).frames == 1000


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(tmp_path: Path, suffix: str, channels: int) -> None:
    parts = [tone(300 + 50 * c, 0.5, RATE, amplitude=0.1 + 0.1 * c) for c in range(channels)]
    path = tmp_path / f"clip{suffix}"
    sf.write(path, np.stack(parts, axis=1), RATE)
    expected = sum(part.astype(float) for part in parts) / channels
    np.testing.assert_allclose(decode(path, RATE), expected, atol=0.02 if suffix == ".ogg" else 1e-4)


def test_opposite_channels_cancel(tmp_path: Path) -> None:
    left = noise(500)
    path = write_wav(tmp_path / "clip.wav", np.stack([left, -left], axis=1), RATE, "FLOAT")
    assert not decode(path, RATE).any()


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("target", "frequency"), [(16000, 440.0), (16000, 3000.0), (44100, 1000.0), (100, 10.0)])
def test_resampling_keeps_a_sine(tmp_path: Path, rate: int, target: int, frequency: float) -> None:
    """Its frequency, amplitude, place and length: the samples are those of the same sine at the other rate."""
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


def test_header(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "clip.wav", np.zeros((123, 6)), 22050)
    header = read_header(path)
    assert (header.frames, header.samplerate) == (123, 22050)


# --- what cannot be used ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [RATE, 44100])
def test_one_sample_that_is_no_number(tmp_path: Path, value: float, subtype: str, channels: int, rate: int) -> None:
    samples = np.zeros((300, channels))
    samples[200, -1] = value
    path = write_wav(tmp_path / "clip.wav", samples, rate, subtype)
    with pytest.raises(AudioError) as caught:
        decode(path, RATE)
    assert one_line(caught.value) == "NaN or infinite samples"


def test_a_float64_sample_beyond_float32_is_infinite(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "clip.wav", np.array([0.0, 1e300, 0.0]), RATE, "DOUBLE")
    with pytest.raises(AudioError, match="NaN or infinite samples"):
        decode(path, RATE)


def test_samples_that_resampling_makes_infinite(tmp_path: Path) -> None:
    square = np.where(np.arange(4410) % 40 < 20, 3e38, -3e38)  # finite, but it overshoots
    path = write_wav(tmp_path / "clip.wav", square, 44100, "FLOAT")
    with pytest.raises(AudioError, match="NaN or infinite samples"):
        decode(path, RATE)


def _text(path: Path) -> None:
    path.write_text("no sound, only words\n" * 50)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(5000))


def _no_samples(path: Path) -> None:
    write_wav(path, np.zeros(0), RATE)


def _header_only(path: Path) -> None:
    write_wav(path, noise(1000), RATE)
    path.write_bytes(path.read_bytes()[:20])


def _half_an_ogg(path: Path) -> None:
    sf.write(path, noise(44100), 44100, format="OGG")
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_text, "unreadable audio (Format not recognised)"),
        (_empty, "unreadable audio"),
        (_zeros, "unreadable audio (Format not recognised)"),
        (_no_samples, "no samples in it"),
        (_header_only, "unreadable audio"),
        (_half_an_ogg, "unreadable audio"),
    ],
)
@pytest.mark.parametrize("suffix", [".wav", ".raw"])
def test_not_a_clip(tmp_path: Path, make: Callable[[Path], None], reason: str, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    make(path)
    for use in (read_header, lambda path: decode(path, RATE), lambda path: decode(path.read_bytes(), RATE)):
        with pytest.raises(AudioError) as caught:
            use(path)
        message = one_line(caught.value)
        if suffix == ".wav":  # libsndfile asks for the layout of .raw
            assert message.startswith(reason)
        assert str(tmp_path) not in message  # the caller names the file


def test_no_such_file(tmp_path: Path) -> None:
    for use in (read_header, lambda path: decode(path, RATE)):
        with pytest.raises(AudioError, match="unreadable audio"):
            use(tmp_path / "gone.wav")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_flac(tmp_path: Path, share: float) -> None:
    path = tmp_path / "clip.flac"
    sf.write(path, noise(44100), 44100)
    raw = path.read_bytes()
    with pytest.raises(AudioError, match=r"^unreadable audio \(.+\)$"):
        decode(raw[: int(share * len(raw))], RATE)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_wav(tmp_path: Path, share: float) -> None:
    """A download that broke off: the header promises more samples than the file has."""
    path = write_wav(tmp_path / "clip.wav", noise(44100), 44100)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(AudioError, match="truncated"):
        read_header(path)
    with pytest.raises(AudioError, match="truncated"):
        decode(path, RATE)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_wav_from_a_pipe(tmp_path: Path, length: int) -> None:
    """ffmpeg, SoX and arecord cannot know the length when they write into a pipe, and promise the most there can be."""
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


def test_random_crop_reaches_every_place() -> None:
    clip = np.arange(10, dtype=np.float32)
    rng = np.random.default_rng(0)
    crops = [random_crop(clip, 7, rng) for _ in range(200)]
    for crop in crops:
        np.testing.assert_array_equal(crop, np.arange(crop[0], crop[0] + 7))
    assert {int(crop[0]) for crop in crops} == {0, 1, 2, 3}


def test_random_crop_puts_a_short_clip_at_every_place_in_zeros() -> None:
    clip = np.array([1, 2, 3], dtype=np.float32)
    rng = np.random.default_rng(0)
    crops = {tuple(random_crop(clip, 5, rng).tolist()) for _ in range(200)}
    assert crops == {(1, 2, 3, 0, 0), (0, 1, 2, 3, 0), (0, 0, 1, 2, 3)}


@pytest.mark.parametrize("length", [5, 20, 21, 40])
def test_random_crop_has_the_length_asked_for(length: int) -> None:
    crop = random_crop(noise(20), length, np.random.default_rng(0))
    assert crop.shape == (length,)
    assert crop.dtype == np.float32


def test_random_crop_takes_its_place_from_the_generator_alone() -> None:
    clip = np.arange(1000, dtype=np.float32)

    def starts(seed: int) -> list[float]:
        rng = np.random.default_rng(seed)
        return [float(random_crop(clip, 10, rng)[0]) for _ in range(10)]

    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first = starts(1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert starts(1) == first
    assert starts(2) != first


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
    crops = even_crops(np.arange(n_samples, dtype=np.float32), length, count)
    assert crops.shape == (count, length)
    assert crops.dtype == np.float32
    for crop, start in zip(crops, starts, strict=True):
        np.testing.assert_array_equal(crop, np.arange(crop[0], crop[0] + length))
        if start is not None:
            assert crop[0] == start


@pytest.mark.parametrize(
    ("clip", "length", "expected"),
    [
        ([1, 2, 3, 4], 4, [1, 2, 3, 4]),
        ([1, 2], 4, [0, 1, 2, 0]),
        ([1, 2], 6, [0, 0, 1, 2, 0, 0]),
        ([5], 1, [5]),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_even_crops_centre_a_short_clip_once(clip: list[int], length: int, expected: list[int], count: int) -> None:
    crops = even_crops(np.array(clip, dtype=np.float32), length, count)
    assert crops.tolist() == [expected]


def test_even_crops_of_an_odd_gap_are_centred_to_a_sample() -> None:
    assert even_crops(np.array([7.0], dtype=np.float32), 4, 3).tolist() in ([[0, 7, 0, 0]], [[0, 0, 7, 0]])


def test_number_of_even_crops_agrees() -> None:
    for n_samples in range(1, 30):
        for length in range(1, 30):
            for count in (1, 2, 3, 10):
                crops = even_crops(np.zeros(n_samples, np.float32), length, count)
                assert crops.shape == (n_even_crops(n_samples, length, count), length)


# --- normalisation ---------------------------------------------------------------------------------


def notebooks_audio_norm(data: np.ndarray) -> np.ndarray:
    """As the notebook has it (`seed/beginners-guide.txt`), in float64."""
    max_data = np.max(data)
    min_data = np.min(data)
    data = (data - min_data) / (max_data - min_data + 1e-6)
    return data - 0.5


@pytest.mark.parametrize(
    "crop",
    [
        noise(1000),
        0.001 * noise(1000),
        tone(50, 0.2, 8000) + np.float32(0.3),
        np.zeros(100, np.float32),
        np.full(100, 0.7, np.float32),
        np.array([-1, 1], np.float32),
        np.array([0.25], np.float32),
        1e-7 * noise(100),
    ],
    ids=["noise", "quiet", "offset", "silence", "constant", "two", "one", "near silence"],
)
def test_audio_norm_is_the_notebooks(crop: np.ndarray) -> None:
    expected = notebooks_audio_norm(crop.astype(np.float64))
    result = audio_norm(crop[np.newaxis])
    assert result.dtype == np.float32
    assert result.shape == (1, len(crop))
    np.testing.assert_allclose(result[0], expected, atol=1e-6)
    assert result.min() >= -0.5
    assert result.max() <= 0.5


def test_audio_norm_treats_every_crop_by_itself() -> None:
    crops = np.stack([noise(50, seed=1), 0.01 * noise(50, seed=2), np.zeros(50, np.float32)])
    together = audio_norm(crops)
    for crop, result in zip(crops, together, strict=True):
        np.testing.assert_array_equal(audio_norm(crop[np.newaxis])[0], result)
        np.testing.assert_array_equal(audio_norm(crop), result)
