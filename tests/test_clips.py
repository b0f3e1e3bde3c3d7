"""Decoded clips as a sequence, its views and crops, and the features that are kept beside them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clip_files import clip_file, clip_files, flip, fsat_cache, halve, store_of
from helpers import make_dataset, tone, write_wav

from fsat.config import Config
from fsat.data import feature_store
from fsat.data.clip_store import ClipFile, open_clips
from fsat.data.decoded_clips import ABSENT, Clips, Decoded, Floats
from fsat.data.feature_store import fixed_features
from fsat.data.mfcc import model_input
from fsat.errors import AudioError
from fsat.files import hash_file

pytestmark = pytest.mark.usefixtures("cache_folder")
RATE = 8000
MFCC = Config(model="conv2d_mfcc", sampling_rate=44100, audio_duration=0.2, n_mfcc=16)


@pytest.fixture
def files(tmp_path: Path) -> list[ClipFile]:
    return clip_files(make_dataset(tmp_path / "data", test_clips=0) / "audio_train")


# --- views and crops -------------------------------------------------------------------------------


def example_clips() -> tuple[Clips, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=n).astype(np.float32) for n in (5, 1, 30, 12)]
    arrays[1][:] = 0
    entries = [*arrays[:3], AudioError("no samples in it"), arrays[3]]
    return Clips.from_arrays(entries, RATE), [*arrays[:3], np.empty(0, np.float32), arrays[3]]


def test_clips_in_memory() -> None:
    clips, arrays = example_clips()
    assert clips.lengths.tolist() == [5, 1, 30, 0, 12]
    assert clips.lengths.dtype == np.int64
    assert clips.errors == ["", "", "", "no samples in it", ""]
    assert len(clips) == len(list(clips)) == 5
    for clip, array in zip(clips, arrays, strict=True):
        np.testing.assert_array_equal(clip, array)
        with pytest.raises(ValueError, match="read-only"):
            clip[...] = 1
    assert len(Clips.from_arrays([], RATE)) == 0
    for wrong in (np.zeros(3), np.zeros((3, 2), np.float32), np.zeros(0, np.float32)):
        with pytest.raises(ValueError, match="clip 0: got float"):
            Clips.from_arrays([wrong], RATE)


def test_views() -> None:
    clips, arrays = example_clips()
    for indices in ([4, 0, -1, 2, 2, 3], [], [-1], [0, 1, 2, 3, 4]):
        view = clips.take(np.array(indices))
        assert view.decoded is clips.decoded
        assert view.sampling_rate == RATE
        expected = [np.empty(0, np.float32) if i < 0 else arrays[i] for i in indices]
        assert view.lengths.tolist() == [len(array) for array in expected]
        assert view.errors == [clips.errors[i] if i >= 0 else ABSENT for i in indices]
        for clip, array in zip(view, expected, strict=True):
            np.testing.assert_array_equal(clip, array)
    view = clips.take(np.array([4, -1, 0])).take(np.array([2, 1, -1, 0]))
    assert view.rows.tolist() == [0, -1, -1, 4]
    masked = clips.take(np.array([True, False, True, False, False]))
    assert masked.rows.tolist() == [0, 2]
    for wrong in ([5], [-2], [True, False]):
        with pytest.raises(IndexError):
            clips.take(np.array(wrong))
    with pytest.raises(IndexError):
        clips[5]


@pytest.mark.parametrize("length", [1, 4, 12, 50])
def test_crops_are_padded_with_zeros(length: int, monkeypatch) -> None:
    clips, arrays = example_clips()
    rng, rows = np.random.default_rng(1), [2, -1, 0, 4, 1, 3]
    view, arrays = clips.take(np.array(rows)), [arrays[i] if i >= 0 else arrays[3] for i in rows]
    indices, starts = rng.integers(6, size=300), rng.integers(-60, 60, size=300)
    empty = np.empty
    with monkeypatch.context() as patch:  # memory that is not zero before
        patch.setattr(np, "empty", lambda *args, **options: np.full_like(empty(*args, **options), np.nan))
        crops = view.crops(indices, starts, length)
    assert crops.dtype == np.float32
    assert crops.flags.writeable
    assert crops.shape == (300, length)
    assert crops.ctypes.data % 64 == 0, "TensorFlow would copy it"
    for crop, i, start in zip(crops, indices, starts, strict=True):
        np.testing.assert_array_equal(crop, np.pad(arrays[i], 120)[120 + start :][:length])
    assert view.crops(np.array([], int), np.array([], int), length).shape == (0, length)


def test_memory_stays_flat(tmp_path: Path, monkeypatch) -> None:
    """A file of 400 MB is read repeatedly with 32 MB of it in memory."""
    monkeypatch.setattr("fsat.data.decoded_clips.TOUCHED_BYTES", 32 << 20)
    lengths = np.full(100, 1_000_000)
    with open(tmp_path / "samples.f32", "wb") as file:
        file.truncate(4 * int(lengths.sum()))
    samples = Floats.of_file(tmp_path / "samples.f32")
    many = Clips(Decoded(samples, lengths, [""] * 100, np.ones(100, bool), RATE))
    before = resident()
    peak = 0
    for i in range(100):
        assert not many[i].any()
        assert not many.take(np.array([i])).crops(np.zeros(4, int), np.arange(4) * 250_000, 250_000).any()
        peak = max(peak, resident() - before)
    assert peak < 64 << 20


def resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    pytest.skip("no VmRSS here")


# --- features --------------------------------------------------------------------------------------


def expected_features(clips: Clips) -> np.ndarray:
    """MFCC of three pieces of each clip that is longer than one, and of the others in the middle of zeros."""
    pieces = []
    for clip in clips:
        spare = len(clip) - MFCC.audio_length
        if spare > 0:
            pieces += [clip[start:][: MFCC.audio_length] for start in (0, round(spare / 2), spare)]
        elif len(clip):
            pieces.append(np.pad(clip, (-spare // 2, -spare - -spare // 2)))
    return model_input(np.stack(pieces), MFCC)


def reopened(clips: Clips) -> Clips:
    """The clips as another process opens them."""
    return Clips(replace(clips.decoded, features={}))


@pytest.fixture
def mixed(files, tmp_path: Path) -> Clips:
    """Clips longer and shorter than a crop, and one that is unusable."""
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    broken = ClipFile(tmp_path / "broken.wav", hash_file(tmp_path / "broken.wav"))
    short = clip_file(write_wav(tmp_path / "short.wav", tone(500, 0.1, RATE)))
    return open_clips([files[0], broken, *files[1:6], short, *files[6:]], MFCC.sampling_rate)


def test_fixed_features_are_those_of_the_fixed_crops(mixed: Clips) -> None:
    arrays = [clip if len(clip) else AudioError("bad") for clip in mixed]
    for clips in (mixed, Clips.from_arrays(arrays, MFCC.sampling_rate)):  # stored, and in memory
        features = fixed_features(clips, MFCC)
        assert features.n_crops.tolist()[:3] == [3, 0, 3]
        assert features.n_crops[7] == 1
        assert len(features) == features.n_crops.sum() == 3 * (len(mixed) - 2) + 1
        rows = features.rows(0, len(features))
        np.testing.assert_array_equal(rows, expected_features(mixed))
        assert rows.dtype == np.float32
        assert rows.shape[1:] == MFCC.dim
        for start in range(0, len(features), 10):
            stop = min(start + 10, len(features))
            np.testing.assert_array_equal(features.rows(start, stop), rows[start:stop])
        with pytest.raises(IndexError):
            features.rows(0, len(features) + 1)
    with pytest.raises(ValueError, match="expected MFCC"):
        fixed_features(mixed, replace(MFCC, model="conv1d"))


def test_fixed_features_are_computed_once_for_all_views(mixed: Clips, monkeypatch) -> None:
    fixed_features(mixed.take(np.array([3])), MFCC)
    monkeypatch.setattr(feature_store, "model_input", None)
    for indices in (np.arange(len(mixed)), np.array([7, -1, 4, 1, 4, 0]), np.array([], int), np.array([1, -1])):
        view = mixed.take(indices)
        features = fixed_features(view, MFCC)
        assert features.n_crops.tolist() == [0 if not n else 1 if n <= MFCC.audio_length else 3 for n in view.lengths]
        rows = features.rows(0, len(features))
        if len(rows):
            np.testing.assert_array_equal(rows, expected_features(view))
    monkeypatch.undo()
    fixed_features(mixed, replace(MFCC, eval_crops=2))
    fixed_features(mixed, replace(MFCC, audio_duration=0.25))
    assert len(list(store_of(mixed).glob("features-*.f32"))) == 3


def test_fixed_features_are_read_and_checked_once(mixed: Clips, monkeypatch) -> None:
    fixed_features(mixed, MFCC)
    opened = fixed_features(reopened(mixed), MFCC)
    monkeypatch.setattr(feature_store, "check_parts", None)
    features = fixed_features(mixed.take(np.array([3])), MFCC)
    np.testing.assert_array_equal(features.rows(0, 3), opened.rows(6, 9))


@pytest.mark.parametrize(
    ("suffix", "damage"), [("f32", halve), ("f32", lambda path: flip(path, 99)), ("f32", Path.unlink), ("json", halve)]
)
def test_damaged_features_are_computed_again(mixed: Clips, capsys, suffix: str, damage: Callable) -> None:
    fixed_features(mixed, MFCC)
    (path,) = store_of(mixed).glob(f"features-*.{suffix}")
    damage(path)
    capsys.readouterr()
    features = fixed_features(reopened(mixed), MFCC)
    (said,) = capsys.readouterr().err.splitlines()
    assert "the MFCC are damaged" in said
    np.testing.assert_array_equal(features.rows(0, len(features)), expected_features(mixed))


def test_features_of_clips_whose_store_was_cleared(mixed: Clips, cache_folder: Path) -> None:
    fsat_cache("--clear")
    features = fixed_features(mixed, MFCC)
    np.testing.assert_array_equal(features.rows(0, len(features)), expected_features(mixed))
    shutil.rmtree(cache_folder)
    fixed_features(mixed, MFCC)
    assert not cache_folder.exists()


def test_features_stopped_midway_leave_nothing(mixed: Clips, monkeypatch) -> None:
    before = set(store_of(mixed).iterdir())
    monkeypatch.setattr(feature_store, "model_input", lambda crops, config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fixed_features(mixed, MFCC)
    assert set(store_of(mixed).iterdir()) == before
