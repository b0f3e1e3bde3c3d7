"""Embeddings of clips: computed once, kept by content, whatever happens to the process or the files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clip_files import clip_files, flip, fsat_cache
from helpers import tone, write_wav

from fsat.config import Config
from fsat.data.clip_store import open_clips
from fsat.data.decoded_clips import Clips
from fsat.data.embedding_store import VECTORS, embeddings_dir
from fsat.data.embeddings import Embeddings, embed_clips, embeddings, window_crops
from fsat.errors import AudioError
from fsat.files import JOURNAL

pytestmark = pytest.mark.usefixtures("cache_folder")
RATE, SECONDS = 4000, (0.1, 0.25, 0.5, 0.75, 1.3)
CONFIG = Config.resolve(
    {
        "model": "embedding",
        "backbone": "tiny@0123456789abcdef",
        "sampling_rate": RATE,
        "audio_duration": 0.25,
        "window_hop": 0.125,
        "embedding_size": 3,
    }
)


def embedded(windows: np.ndarray) -> np.ndarray:
    """An embedding that depends on every sample of a window and its place."""
    basis = np.random.default_rng(0).normal(size=(windows.shape[1], CONFIG.embedding_size))
    return np.asarray(np.abs(windows @ basis), np.float32)


class Counting:
    """A backbone that counts the windows it embeds; `stop_after` of them it raises."""

    def __init__(self, stop_after: float = float("inf")) -> None:
        self.n_windows, self.stop_after = 0, stop_after

    def __call__(self) -> Callable[[np.ndarray], np.ndarray]:
        return self.embed

    def embed(self, windows: np.ndarray) -> np.ndarray:
        self.n_windows += len(windows)
        if self.n_windows > self.stop_after:
            raise KeyboardInterrupt
        return embedded(windows)


def never() -> Callable[[np.ndarray], np.ndarray]:
    raise AssertionError("the embeddings are there")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, seconds in enumerate(SECONDS):
        write_wav(tmp_path / "clips" / f"{i}.wav", tone(200 + 100 * i, seconds, RATE), RATE)
    return tmp_path / "clips"


def expected_of(clip: np.ndarray) -> np.ndarray:
    crops = window_crops(np.array([len(clip)]), CONFIG)
    one = Clips.from_arrays([clip], RATE)
    return embedded(one.crops(crops.clips, crops.starts, CONFIG.audio_length))


def check(clips: Clips) -> Embeddings:
    result = embeddings(clips, CONFIG)
    for i, clip in enumerate(clips):
        n = int(result.n_windows[i])
        np.testing.assert_allclose(result.windows(np.array([i]), np.array([0]), n)[0], expected_of(clip), rtol=1e-5)
    return result


def only_store() -> Path:
    (folder,) = [path for path in embeddings_dir().iterdir() if path.is_dir()]
    return folder


def test_windows_cover_a_clip_and_are_at_most_a_hop_apart() -> None:
    lengths = np.array([1, 400, 1000, 1001, 1500, 1501, 5200])
    crops = window_crops(lengths, CONFIG)
    assert crops.counts.tolist() == [1, 1, 1, 2, 2, 3, 10]
    for i, length in enumerate(lengths.tolist()):
        starts = np.sort(crops.starts[crops.clips == i])
        assert np.diff(starts).max(initial=0) <= round(CONFIG.window_hop * RATE)
        assert starts[0] <= 0
        assert starts[-1] + CONFIG.audio_length >= length


def test_embeddings_are_those_of_each_clips_windows_in_memory_and_stored(folder: Path) -> None:
    stored = open_clips(clip_files(folder), RATE)
    embed_clips(stored, CONFIG, Counting())
    found = check(stored)
    silent = AudioError("not usable")
    in_memory = Clips.from_arrays([stored[0], silent, *[stored[i] for i in range(1, len(stored))]], RATE)
    embed_clips(in_memory, CONFIG, Counting())
    result = embeddings(in_memory, CONFIG)
    assert result.n_windows.tolist() == [1, 0, *found.n_windows.tolist()[1:]]
    usable = np.array([0, 2, 3, 4, 5])
    received = result.windows(usable, np.zeros(5, int), 4)
    np.testing.assert_array_equal(received, found.windows(np.arange(5), np.zeros(5, int), 4))
    check(stored.take(np.array([3, 1])))  # a view has the rows of its clips


def test_windows_repeat_from_any_start(folder: Path) -> None:
    clips = open_clips(clip_files(folder), RATE)
    embed_clips(clips, CONFIG, Counting())
    result = embeddings(clips, CONFIG)
    n = int(result.n_windows[4])
    once = result.windows(np.array([4]), np.array([0]), n)[0]
    np.testing.assert_array_equal(
        result.windows(np.array([4]), np.array([2]), n + 3)[0], once[(2 + np.arange(n + 3)) % n]
    )
    every = np.concatenate(
        [result.windows(np.array([i]), np.array([0]), int(result.n_windows[i]))[0] for i in range(5)]
    )
    mean, deviation = result.levels()
    np.testing.assert_allclose([mean, deviation], [every.mean(axis=0), every.std(axis=0)], rtol=1e-5)


def test_every_dataset_shares_what_is_computed(folder: Path, tmp_path: Path) -> None:
    clips, first = open_clips(clip_files(folder), RATE), Counting()
    embed_clips(clips, CONFIG, first)
    assert first.n_windows == window_crops(clips.lengths, CONFIG).counts.sum()
    again = open_clips(clip_files(folder), RATE)
    embed_clips(again, CONFIG, never)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "0.wav").rename(other / "renamed.wav")
    shutil.copy(other / "1.wav", other / "copy.wav")
    write_wav(other / "new.wav", tone(999, 0.25, RATE), RATE)
    clips, more = open_clips(clip_files(other), RATE), Counting()
    embed_clips(clips, CONFIG, more)
    assert more.n_windows == 1
    check(clips)


def test_a_computation_continues_where_it_was_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsat.data.embeddings.BATCH_BYTES", 4 * CONFIG.audio_length)  # one window a batch
    monkeypatch.setattr("fsat.data.embeddings.AT_ONCE", 1)
    clips, stopped = open_clips(clip_files(folder), RATE), Counting(stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        embed_clips(clips, CONFIG, stopped)
    store = only_store()
    n_lines = len((store / JOURNAL).read_bytes().splitlines())
    assert 2 <= n_lines <= 1 + len(SECONDS)
    with open(store / VECTORS, "ab") as vectors, open(store / JOURNAL, "ab") as journal:
        vectors.write(b"half a row")
        journal.write(b'00000000 ["half a line')
    rest, clips = Counting(), open_clips(clip_files(folder), RATE)
    embed_clips(clips, CONFIG, rest)
    check(clips)
    assert 0 < rest.n_windows < window_crops(clips.lengths, CONFIG).counts.sum()
    assert (store / VECTORS).stat().st_size == 12 * window_crops(clips.lengths, CONFIG).counts.sum()


@pytest.mark.parametrize("damage", ["a vector", "the journal", "both files gone", "vectors cut"])
def test_damaged_embeddings_are_computed_again(folder: Path, damage: str) -> None:
    clips = open_clips(clip_files(folder), RATE)
    embed_clips(clips, CONFIG, Counting())
    store = only_store()
    if damage == "a vector":
        flip(store / VECTORS, 5)
    elif damage == "the journal":
        flip(store / JOURNAL, -20)
    elif damage == "vectors cut":
        (store / VECTORS).write_bytes((store / VECTORS).read_bytes()[:30])
    else:
        shutil.rmtree(store)
    clips, again = open_clips(clip_files(folder), RATE), Counting()
    embed_clips(clips, CONFIG, again)
    assert again.n_windows
    check(clips)
    embed_clips(open_clips(clip_files(folder), RATE), CONFIG, never)


@pytest.mark.parametrize("line", range(1 + len(SECONDS)))
@pytest.mark.parametrize("place", [12, -1], ids=["in it", "its end"])
def test_a_damaged_line_loses_no_other_clip(folder: Path, line: int, place: int) -> None:
    """One line without its end is two damaged ones. Rows that another process has mapped stay where they are."""
    clips = open_clips(clip_files(folder), RATE)
    embed_clips(clips, CONFIG, Counting())
    store, mapped = only_store(), check(clips)
    size, lines = (store / VECTORS).stat().st_size, (store / JOURNAL).read_bytes().splitlines(keepends=True)
    flip(store / JOURNAL, sum(map(len, lines[: line + (place < 0)])) + place)
    new, again = write_wav(folder / "new.wav", tone(999, 0.25, RATE), RATE), Counting()
    clips = open_clips(clip_files(folder), RATE)
    embed_clips(clips, CONFIG, again)
    lost = [] if line == 0 else [line - 1]
    lost += [line] if place < 0 and line < len(SECONDS) else []
    assert again.n_windows == sum(mapped.n_windows[lost]) + 1
    assert (store / VECTORS).stat().st_size == size + 12 * again.n_windows
    check(clips)
    for i in range(len(SECONDS)):
        assert mapped.windows(np.array([i]), np.array([0]), int(mapped.n_windows[i])).any()
    new.unlink()
    embed_clips(open_clips(clip_files(folder), RATE), CONFIG, never)


def test_embeddings_are_used_while_another_process_appends(folder: Path) -> None:
    embed_clips(open_clips(clip_files(folder), RATE), CONFIG, Counting())
    with open(only_store() / VECTORS, "ab") as vectors:
        vectors.write(b"half a row")
    clips = open_clips(clip_files(folder), RATE)
    embed_clips(clips, CONFIG, never)
    check(clips)


def test_the_command_lists_and_clears_embeddings(folder: Path) -> None:
    embed_clips(open_clips(clip_files(folder), RATE), CONFIG, Counting())
    store = only_store()
    assert any(line.startswith("embeddings by tiny@0123456789abcdef: ") and str(store) in line for line in fsat_cache())
    assert f"{store}: removed" in fsat_cache("--clear")
    assert not store.exists()


def test_other_backbones_and_windows_have_embeddings_of_their_own(folder: Path) -> None:
    from dataclasses import replace

    clips = open_clips(clip_files(folder), RATE)
    embed_clips(clips, CONFIG, Counting())
    others = {"backbone": "tiny@ffffffffffffffff", "window_hop": 0.2, "audio_duration": 0.2, "eval_crops": 4}
    for name, value in others.items():
        counting = Counting()
        embed_clips(open_clips(clip_files(folder), RATE), replace(CONFIG, **{name: value}), counting)
        assert counting.n_windows, name
    embed_clips(open_clips(clip_files(folder), RATE), replace(CONFIG, backbone="new-name@0123456789abcdef"), never)
    with pytest.raises(ValueError, match="call embed_clips first"):
        embeddings(open_clips(clip_files(folder), RATE), CONFIG)
