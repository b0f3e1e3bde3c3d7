"""Decoded clips are stored once, whole or not at all, survive kills, and are checked before they are used."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner
from clip_files import clip_file, clip_files, flip, fsat_cache, halve, in_place_of, mounted_disk, store_of
from conftest import ROOT
from filelock import FileLock
from helpers import error_line, make_dataset, one_line, tone, wait_for, write_wav

from fsat import files as fsat_files
from fsat import interrupts
from fsat.cli import cli
from fsat.config import Config
from fsat.data import clip_store, decoded_clips
from fsat.data.audio import decode, hear
from fsat.data.clip_store import ClipFile, open_clips
from fsat.data.dataset import load_dataset
from fsat.data.decoded_clips import Clips
from fsat.data.feature_store import fixed_features
from fsat.data.synth import SAMPLE
from fsat.errors import AudioError, DataError, FsatError
from fsat.files import hash_file

pytestmark = pytest.mark.usefixtures("cache_folder")
RATE = 8000
N_CLIPS = 18
MFCC = Config(model="conv2d_mfcc", sampling_rate=44100, audio_duration=0.2, n_mfcc=16)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", test_clips=2)


@pytest.fixture
def files(data: Path) -> list[ClipFile]:
    return clip_files(data / "audio_train")


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded."""
    names: list[str] = []

    def counted(source, rates):
        names.append(Path(source).name)
        return hear(source, rates)

    monkeypatch.setattr(clip_store, "hear", counted)
    return names


def assert_decoded(clips: Clips, files: Sequence[ClipFile], rate: int = RATE) -> None:
    assert len(clips) == len(files)
    for clip, length, file in zip(clips, clips.lengths, files, strict=True):
        expected = decode(file.path, rate)
        np.testing.assert_array_equal(clip, expected)
        assert length == len(expected)
        assert clip.dtype == np.float32
        assert not clip.flags.writeable


def store_names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "clips").iterdir() if path.is_dir())


# --- a store ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [RATE, 11025])
def test_clips_are_decoded_once(files, decodes, capsys, rate: int) -> None:
    first = open_clips(files, rate)
    assert first.sampling_rate == rate
    assert first.errors == [""] * N_CLIPS
    assert not any(first.notes)
    assert sorted(decodes) == [file.path.name for file in files]
    capsys.readouterr()
    again = open_clips([replace(file, stamp=(), path=Path("elsewhere")) for file in files], rate)
    assert len(decodes) == N_CLIPS
    assert capsys.readouterr().err == ""
    assert store_of(again) == store_of(first)
    assert_decoded(again, files, rate)
    assert {path.name for path in store_of(first).iterdir()} == {"samples.f32", "index.json"}


def test_unusable_and_silent_clips_are_recorded(data: Path, files: list[ClipFile], decodes) -> None:
    folder = data / "audio_train"
    write_wav(folder / files[2].path.name, np.zeros(500))
    samples = tone(500, 0.1, RATE)
    samples[7] = np.nan
    write_wav(folder / files[5].path.name, samples, subtype="FLOAT")
    (folder / files[9].path.name).write_bytes(b"RIFF" + bytes(100))
    files = [replace(file, digest=hash_file(file.path), stamp=()) for file in files]  # as if the headers were sound
    for _ in range(2):
        clips = open_clips(files, RATE)
        assert [i for i, notes in enumerate(clips.notes) if notes] == [2]
        assert clips.notes[2] == "silent"
        assert np.flatnonzero(clips.lengths == 0).tolist() == [5, 9]
        assert clips.errors[5] == "NaN or infinite samples"
        assert clips.errors[9].startswith("unreadable audio")
        assert clips[5].shape == (0,)
    assert len(decodes) == N_CLIPS + 2  # the unusable ones twice, and none by the second run


def test_a_store_without_usable_clips(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    file = replace(clip_file(tmp_path / "bad.wav"), digest=hash_file(tmp_path / "bad.wav"))
    for files in ([], [], [file], [file]):
        clips = open_clips(files, MFCC.sampling_rate)
        assert len(clips) == len(files)
        assert not clips.lengths.any()
        assert fixed_features(clips, MFCC).rows(0, 0).shape == (0, *MFCC.dim)


# --- the clips of a dataset change -----------------------------------------------------------------


def test_a_store_depends_on_content_order_and_rate_and_takes_over_equal_clips(files, decodes, data) -> None:
    open_clips(files, RATE)
    open_clips([replace(file, path=file.path.with_name("renamed.wav")) for file in files], RATE)
    assert_decoded(open_clips(files[::-1], RATE), files[::-1])
    assert len(decodes) == N_CLIPS
    open_clips(files, 4000)
    assert len(decodes) == 2 * N_CLIPS

    decodes.clear()
    write_wav(files[3].path, tone(700, 0.2, RATE))
    changed = [clip_file(file.path) for file in files]
    added = [clip_file(write_wav(data / "audio_train" / "a new one.wav", tone(900, 0.2, RATE))), *changed]
    for version in (changed, added, changed[1:]):
        assert_decoded(open_clips(version, RATE), version)
    assert decodes == [files[3].path.name, "a new one.wav"]


def test_a_damaged_clip_is_not_taken_over(files, decodes) -> None:
    flip(store_of(open_clips(files, RATE)) / "samples.f32", 4)
    decodes.clear()
    assert_decoded(open_clips(files[:5], RATE), files[:5])
    assert decodes == [files[0].path.name]


def test_a_clip_that_is_replaced_during_the_build(files, monkeypatch) -> None:
    def replacing(source, rates):
        heard = hear(source, rates)
        if Path(source) == files[4].path:
            write_wav(files[4].path, tone(700, 0.2, RATE))
        return heard

    monkeypatch.setattr(clip_store, "hear", replacing)
    message = error_line(DataError, open_clips, files, RATE)
    assert message.startswith(f"{files[4].path}: was changed while")
    assert "run again" in message
    monkeypatch.setattr(clip_store, "hear", hear)
    changed = [clip_file(file.path) for file in files]
    assert_decoded(open_clips(changed, RATE), changed)


@pytest.mark.parametrize("stamped", [True, False])
def test_a_file_that_fails_to_be_read_is_not_an_unusable_clip(files, monkeypatch, stamped: bool) -> None:
    if not stamped:
        files = [replace(file, stamp=()) for file in files]
    files[4].path.unlink()
    assert "was changed while" in error_line(DataError, open_clips, files, RATE)
    files[4].path.mkdir()
    line = error_line(FsatError, open_clips, files, RATE)
    assert f"{files[4].path}: cannot be read: Is a directory" in line


def test_too_little_memory_does_not_make_a_clip_unusable(files, monkeypatch) -> None:
    def starved(source, rates):
        raise AudioError("unreadable audio (Unable to allocate 8 GiB)") from MemoryError()

    monkeypatch.setattr(clip_store, "hear", starved)
    with pytest.raises(FsatError, match="Unable to allocate 8 GiB"):
        open_clips(files, RATE)


# --- a builder is stopped --------------------------------------------------------------------------

BUILDER = """
import itertools, sys, time
from pathlib import Path
from clip_files import clip_files
from fsat import interrupts
from fsat.data import clip_store

folder, log, rate, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
hear, numbers = clip_store.hear, itertools.count(1)

def counted(path, rates):
    with open(log, "a") as file:
        file.write(f"{Path(path).name}\\n")
    time.sleep(0.02)
    number = next(numbers)
    while number > last and not interrupts.received():
        time.sleep(0.01)
    return hear(path, rates)

clip_store.hear = counted
interrupts.install()
print(clip_store.open_clips(clip_files(folder), rate).decoded.folder)
"""
WAITING = "waiting for another process that is decoding these clips\n"


def builder(data: Path, log: Path, last: int = N_CLIPS) -> subprocess.Popen:
    """Start a process that opens the training clips, writes the names of those it decodes, and waits after `last`."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, data / "audio_train", log, str(RATE), str(last)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )  # fmt: skip


def content(folder: Path) -> dict[str, object]:
    return {**fsat_files.read_facts(folder / "index.json"), "made": 0, "samples": (folder / "samples.f32").read_bytes()}


@pytest.fixture
def undisturbed(files, tmp_path: Path, monkeypatch) -> dict[str, object]:
    """The content of a store after an undisturbed build."""
    with monkeypatch.context() as patch:
        patch.setenv("FSAT_CACHE_DIR", str(tmp_path / "undisturbed"))
        return content(store_of(open_clips(files, RATE)))


def stop_before_the_last_step(files, monkeypatch) -> None:
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(os, "rename", mock.Mock(side_effect=KeyboardInterrupt))
        open_clips(files, RATE)


@pytest.fixture
def unfinished(files, undisturbed, monkeypatch, cache_folder) -> Path:
    """A store whose build was stopped just before the last step."""
    stop_before_the_last_step(files, monkeypatch)
    return next((cache_folder / "clips").glob("*.unfinished"))


def test_a_build_continues_wherever_it_was_killed(files, decodes, cache_folder, tmp_path, monkeypatch) -> None:
    """What is on the disk before, in the middle of and after every write and rename is copied, and continued."""
    files, names = files[:6], [file.path.name for file in files[:6]]
    copies, write_all, rename = [], fsat_files.write_all, os.rename

    def copy() -> None:
        copies.append(shutil.copytree(cache_folder, tmp_path / f"copy {len(copies)}"))

    def writing(file: BinaryIO, data: Any) -> None:
        raw = memoryview(data).cast("B")
        copy()
        write_all(file, raw[: len(raw) // 2])
        copy()
        write_all(file, raw[len(raw) // 2 :])

    def renaming(*paths: Path) -> None:
        copy()
        rename(*paths)
        copy()

    with monkeypatch.context() as patch:
        patch.setattr(clip_store, "write_all", writing)
        patch.setattr(os, "rename", renaming)
        expected = content(store_of(open_clips(files, RATE)))
    assert len(copies) == 2 * (1 + 2 * len(files)) + 2
    for i, copied in enumerate(copies):
        monkeypatch.setenv("FSAT_CACHE_DIR", str(copied))
        decodes.clear()
        stop_before_the_last_step(files, monkeypatch)
        assert sorted(decodes) == names[max(0, i - 2) // 4 :]  # a clip is two writes, after that of the header
        decodes.clear()
        store = store_of(open_clips(files, RATE))
        assert decodes == []
        assert content(store) == expected
        assert store_names(copied) == [store.name]


def test_the_samples_of_an_unfinished_store_are_checked(files, unfinished, undisturbed, decodes) -> None:
    flip(unfinished / "samples.f32", 4 * sum(undisturbed["lengths"][:6]) + 5)
    decodes.clear()
    assert content(store_of(open_clips(files, RATE))) == undisturbed
    assert sorted(decodes) == [file.path.name for file in files[6:]]


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"?" * 500), lambda path: flip(path, 40), Path.unlink])
def test_a_damaged_journal_starts_the_build_again(files, unfinished, undisturbed, spoil) -> None:
    spoil(unfinished / "journal.txt")
    assert content(store_of(open_clips(files, RATE))) == undisturbed


# --- several processes -----------------------------------------------------------------------------


@pytest.mark.process
def test_several_processes_decode_each_clip_once(data, files, undisturbed, tmp_path) -> None:
    processes = [builder(data, tmp_path / "log") for _ in range(3)]
    for process in processes:
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert content(Path(out.strip())) == undisturbed
        assert errors in ("", WAITING)
    assert sorted((tmp_path / "log").read_text().split()) == [file.path.name for file in files]


@pytest.mark.process
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_waiting_process_continues_for_one_that_is_stopped(data, undisturbed, tmp_path, signum) -> None:
    stopped = builder(data, tmp_path / "log", 8)
    wait_for((tmp_path / "log").exists)
    heir = builder(data, tmp_path / "heir")
    assert heir.stderr.readline() == WAITING
    stopped.send_signal(signum)
    errors = stopped.communicate(timeout=60)[1]
    assert ("Interrupted: stopped by SIGTERM" in errors) == (signum == signal.SIGTERM)
    out, errors = heir.communicate(timeout=60)
    assert heir.returncode == 0, errors
    assert content(Path(out.strip())) == undisturbed
    assert len((tmp_path / "heir").read_text().splitlines()) == N_CLIPS - 8


def test_a_signal_ends_the_waiting(files, decodes, signals, capsys, monkeypatch) -> None:
    monkeypatch.setattr(fsat_files, "WAIT_SECONDS", 0.02)
    shutil.rmtree(folder := store_of(open_clips(files, RATE)))
    decodes.clear()
    capsys.readouterr()
    timer = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT])
    with FileLock(fsat_files.lock_path(folder)), pytest.raises(interrupts.Interrupted, match="SIGINT"):
        timer.start()
        open_clips(files, RATE)
        timer.cancel()
    assert capsys.readouterr().err == WAITING  # once
    assert decodes == []


# --- damage ----------------------------------------------------------------------------------------


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated samples": (lambda folder: halve(folder / "samples.f32"), r"samples.f32 has \d+ bytes, expected \d+"),
    "longer samples": (lambda folder: os.truncate(folder / "samples.f32", 1 << 20), "samples.f32 has"),
    "no samples": (lambda folder: (folder / "samples.f32").unlink(), "samples.f32 cannot be read: No such file"),
    "first byte": (lambda folder: flip(folder / "samples.f32", 0), "part 1 of 18 of samples.f32"),
    "last byte": (lambda folder: flip(folder / "samples.f32", -1), "part 18 of 18 of samples.f32"),
    "truncated index": (lambda folder: halve(folder / "index.json"), "index.json does not have its checksum"),
    "flipped index": (lambda folder: flip(folder / "index.json", 300), "index.json does not have its checksum"),
    "foreign index": (lambda folder: (folder / "index.json").write_text('{"format": 1}\n'), "its checksum"),
    "foreign facts": (lambda folder: fsat_files.write_facts(folder / "index.json", {"format": 1}), "of other clips"),
    "no index": (lambda folder: (folder / "index.json").unlink(), "index.json is missing"),
    "index is a folder": (lambda folder: in_place_of(folder / "index.json"), "index.json cannot be read: Is a dir"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_store_is_reported_and_built_again(files, capsys, undisturbed, cache_folder, name: str) -> None:
    damage, words = DAMAGE[name]
    store = store_of(clips := open_clips(files, RATE))
    damage(store)
    capsys.readouterr()
    again = open_clips(files, RATE)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{store}: the decoded clips are damaged (")
    assert line.endswith("decoding them again")
    assert re.search(words, line)
    assert content(store) == undisturbed
    assert_decoded(again, files)
    assert store_names(cache_folder) == [store.name]
    open_clips(files, RATE)
    assert capsys.readouterr().err == ""
    if name == "no index":  # an open store stays usable while another process builds it again
        assert_decoded(clips, files)


def test_evenly_spaced_parts_of_a_large_file_are_checked(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "samples.f32").write_bytes(bytes(4 * N_CLIPS))
    monkeypatch.setattr(decoded_clips, "CHECKED_BYTES", 4 * N_CLIPS // 3)
    checked = []
    for i in range(N_CLIPS):
        crcs = [zlib.crc32(bytes(4)) + (part == i) for part in range(N_CLIPS)]
        with suppress(fsat_files.Damaged):
            decoded_clips.check_parts(tmp_path / "samples.f32", np.full(N_CLIPS, 4), crcs)
            continue
        checked.append(i)
    assert len(checked) == N_CLIPS // 3
    assert (checked[0], checked[-1]) == (0, N_CLIPS - 1)
    assert max(np.diff(checked)) <= 4


# --- disks -----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A disk of 2 MB, as the cache folder."""
    with mounted_disk(tmp_path / "small", "2m") as disk:
        monkeypatch.setenv("FSAT_CACHE_DIR", str(disk))
        yield disk


def long_clips(folder: Path, seconds: float = 2.0) -> list[ClipFile]:
    """Ten clips that take 0.64 MB each at 80 kHz."""
    for i in range(10):
        write_wav(folder / f"{i}.wav", tone(200 + i, seconds, 4000), 4000)
    return clip_files(folder)


def test_too_little_space_is_an_error_and_decoded_clips_are_kept(small_disk: Path, tmp_path: Path, decodes) -> None:
    files = long_clips(tmp_path / "long")
    message = error_line(FsatError, open_clips, files, 80000)
    assert "no space left in the cache: 6.4 MB more needed, 2.1 MB free; set FSAT_CACHE_DIR=DIR" in message
    assert "`python -m fsat cache --clear`" in message
    assert decodes == []
    files = [replace(file, frames=0, samplerate=0) for file in files]  # by the size of the files there seems to be room
    message = error_line(FsatError, open_clips, files, 80000)
    assert re.search(r"no space left in the cache: .*, 0\.0 kB free", message)
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    decodes.clear()
    assert_decoded(open_clips(files, 80000), files, 80000)
    assert len(decodes) == 7


def test_a_full_disk_has_no_space_for_features(small_disk: Path, tmp_path: Path) -> None:
    clips = open_clips(long_clips(tmp_path / "long", 0.5), 44100)
    (small_disk / "filler").write_bytes(bytes(1_100_000))
    line = error_line(FsatError, fixed_features, clips, replace(MFCC, n_mfcc=128, eval_crops=10))
    assert "no space left in the cache" in line


def test_a_read_only_cache_folder(small_disk: Path, files) -> None:
    folder = store_of(open_clips(files, RATE))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert_decoded(open_clips(files, RATE), files)
    assert "the cache cannot be used: Read-only file system" in error_line(FsatError, open_clips, files, 4000)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    flip(folder / "samples.f32", 0)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "Read-only file system" in error_line(FsatError, open_clips, files, RATE)
    result = CliRunner().invoke(cli, ["cache", "--clear"])
    assert "Read-only file system" in one_line(result.exception)


@pytest.mark.parametrize("name", ["/proc/nowhere", "file", "file/below"])
def test_a_cache_folder_that_cannot_be_made(files, tmp_path: Path, monkeypatch, name: str) -> None:
    (tmp_path / "file").write_text("words")
    monkeypatch.setenv("FSAT_CACHE_DIR", str(tmp_path / name))
    message = error_line(FsatError, open_clips, files, RATE)
    assert str(tmp_path / name) in message
    assert "FSAT_CACHE_DIR=DIR" in message


def test_a_disk_that_loses_written_bytes(files, monkeypatch) -> None:
    def forgetful(file, data):
        fsat_files.write_all(file, bytes(memoryview(data).nbytes) if file.name.endswith(".f32") else data)

    monkeypatch.setattr(clip_store, "write_all", forgetful)
    with pytest.raises(FsatError, match="cannot be read back as it was written"):
        open_clips(files, RATE)


# --- a dataset -------------------------------------------------------------------------------------


def test_a_dataset_is_decoded_once_whatever_its_labels(data: Path, decodes) -> None:
    config = Config.resolve({}, "quick")
    dataset = load_dataset(data, config)
    assert len(decodes) == N_CLIPS + 2
    (data / "train.csv").write_text((data / "train.csv").read_text().replace(",Bell,", ",Gong,"))
    again = load_dataset(data, replace(config, n_folds=3))
    assert again.labels != dataset.labels
    assert len(decodes) == N_CLIPS + 2
    assert store_of(again.train) == store_of(dataset.train) == store_of(dataset.test)


# --- the command -----------------------------------------------------------------------------------


def test_the_command_lists_the_cache(files, cache_folder: Path, unfinished: Path) -> None:
    with open(unfinished / "journal.txt", "rb+") as journal:
        journal.truncate(sum(map(len, journal.readlines()[:5])))
    store = store_of(open_clips(files[2:], RATE))
    (cache_folder / SAMPLE).mkdir()
    (cache_folder / SAMPLE / "train.csv").write_bytes(bytes(1200))
    broken = store_of(open_clips(files[1:], RATE))
    (broken / "index.json").unlink()
    head, *stores, generated, total = fsat_cache()
    assert head.split() == ["rate", "clips", "size", "made", "last", "used", "folder"]
    lines = {line.partition(str(cache_folder))[2].partition("  ")[0]: line for line in stores}
    assert len(stores) == 3
    cells = lines[f"/clips/{store.name}"].split()
    assert cells[:3] == ["8000", "Hz", "16"]
    assert cells[4] == "kB"
    assert cells[5] == cells[7] == time.strftime("%Y-%m-%d")
    line = lines[f"/clips/{unfinished.name}"]
    assert line.split()[:3] == ["8000", "Hz", "4"]
    assert line.endswith("(unfinished: 4 of 18 clips)")
    assert lines[f"/clips/{broken.name}"].endswith("(damaged)")
    assert generated == f"generated sounds: 1.2 kB in {cache_folder / SAMPLE}"
    assert total.endswith(f"in {cache_folder}")


def test_the_command_clears_stores_and_nothing_else(files, cache_folder: Path, tmp_path, unfinished) -> None:
    kept = store_of(open_clips(files[1:], RATE))
    open_clips(files[2:], RATE)
    others = [cache_folder / name for name in (f"{SAMPLE}/train.csv", "clips/mine/notes", "notes", "../outside")]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("words")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "index.json").write_text("words")
    (cache_folder / "clips" / ("0" * 20)).symlink_to(tmp_path / "elsewhere")
    with FileLock(fsat_files.lock_path(kept)):
        *lines, freed = fsat_cache("--clear")
        assert f"{kept}: kept, because another process is building it" in lines
        assert sum(line.endswith(": removed") for line in lines) == 2
        assert freed.startswith("freed: ")
    assert_decoded(open_clips(files[1:], RATE), files[1:])
    fsat_cache("--clear")
    assert store_names(cache_folder) == ["0" * 20, "mine"]
    assert all(path.read_text() == "words" for path in others)
    assert (tmp_path / "elsewhere" / "index.json").read_text() == "words"
    result = CliRunner().invoke(cli, ["cache", "--all"])
    assert (result.exit_code, "--all requires --clear" in result.output) == (2, True)
    fsat_cache("--clear", "--all")
    assert not (cache_folder / SAMPLE).exists()
    assert all(path.read_text() == "words" for path in others[1:])


def test_links_out_of_the_cache_are_left_alone(files, cache_folder: Path, tmp_path: Path) -> None:
    store = store_of(open_clips(files, RATE))
    (cache_folder / "clips").rename(tmp_path / "elsewhere")
    (cache_folder / "clips").symlink_to(tmp_path / "elsewhere")
    assert fsat_cache("--clear") == [f"freed: 0.0 kB in {cache_folder}"]
    assert (tmp_path / "elsewhere" / store.name / "samples.f32").exists()
