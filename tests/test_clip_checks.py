"""Files that have not changed since they were checked are not read again."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from clip_files import flip, fsat_cache, halve, in_place_of
from helpers import error_line, make_dataset, read_csv, tone, write_wav

from fsat import files
from fsat.config import Config
from fsat.data import clip_checks
from fsat.data.clip_checks import ClipFacts, check_clips
from fsat.data.dataset import load_dataset
from fsat.data.listening import listen_to_clips
from fsat.data.manifest import read_manifest
from fsat.errors import DataError

pytestmark = pytest.mark.usefixtures("cache_folder")
N_CLIPS = 18


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", test_clips=2)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed; no change is too recent to be remembered."""
    names: list[str] = []
    hash_file = clip_checks.hash_file

    def counted(path: Path) -> str:
        names.append(path.name)
        return hash_file(path)

    monkeypatch.setattr(clip_checks, "hash_file", counted)
    monkeypatch.setattr(clip_checks, "RACY_SECONDS", 0.0)
    return names


def check(folder: Path, *more: str) -> list[ClipFacts]:
    return check_clips(folder, [*sorted(path.name for path in folder.iterdir()), *more], "clips")


def test_unchanged_files_are_read_once(data: Path, reads, tmp_path: Path, monkeypatch) -> None:
    first = check(data / "audio_train")
    assert len(reads) == N_CLIPS
    monkeypatch.chdir(data)
    assert check(Path("audio_train")) == first
    assert len(reads) == N_CLIPS
    shutil.copytree(data, tmp_path / "copy", copy_function=shutil.copy2)
    copied = check(tmp_path / "copy" / "audio_train")
    assert len(reads) == 2 * N_CLIPS
    assert [facts.digest for facts in copied] == [facts.digest for facts in first]


def test_changed_files_are_read_again(data: Path, reads) -> None:
    folder = data / "audio_train"
    before = check(folder)
    reads.clear()
    path = folder / "bell_00.wav"
    times = path.stat()
    flip(path, -1)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # only ctime tells
    after = check(folder)
    assert reads == ["bell_00.wav"]
    assert after[0].digest != before[0].digest
    assert after[1:] == before[1:]
    (folder / "bell_01.wav").unlink()
    (folder / "bell_02.wav").rename(folder / "bell_01.wav")
    reads.clear()
    assert [facts.digest for facts in check(folder)] == [facts.digest for facts in (after[0], *after[2:])]
    assert reads == ["bell_01.wav"]


def test_a_file_that_was_just_changed_is_not_remembered(data: Path, reads, monkeypatch) -> None:
    monkeypatch.setattr(clip_checks, "RACY_SECONDS", 60.0)
    for _ in range(2):
        check(data / "audio_train")
    assert len(reads) == 2 * N_CLIPS
    assert not clip_checks.memo_path((data / "audio_train").resolve()).exists()


def test_unusable_clips_are_checked_every_time(data: Path, reads, tmp_path: Path) -> None:
    folder = data / "audio_train"
    (folder / "bell_00.wav").write_bytes(b"no sound")
    for _ in range(2):
        facts = check(folder, "gone.wav", "../outside.wav")
        assert [bool(fact.reason) for fact in facts] == [True, *[False] * (N_CLIPS - 1), True, True]
    write_wav(folder / "gone.wav", tone(500, 0.2, 8000))
    assert not check_clips(folder, ["gone.wav"], "clips")[0].reason
    shutil.copy2(folder / "cello_00.wav", tmp_path / "outside.wav")
    (folder / "cello_00.wav").unlink()
    (folder / "cello_00.wav").symlink_to(tmp_path / "outside.wav")
    check(folder)
    assert check_clips(folder, ["cello_00.wav"], "clips")[0].reason == "leaves the folder (a link out of it)"


@pytest.mark.parametrize(
    "spoil",
    [
        halve,
        lambda path: flip(path, 300),
        lambda path: path.write_bytes(os.urandom(500)),
        in_place_of,
        lambda path: files.write_facts(path, {"checks": 0}),
        lambda path: (shutil.rmtree(path.parent), path.parent.write_text("in the way")),
    ],
    ids=["truncated", "flipped", "garbage", "a folder", "older", "no place"],
)
def test_a_memo_that_is_damaged_is_not_used(data: Path, reads, capsys, spoil) -> None:
    folder = data / "audio_train"
    first = check(folder)
    spoil(clip_checks.memo_path(folder.resolve()))
    reads.clear()
    assert check(folder) == first
    assert len(reads) == N_CLIPS
    assert capsys.readouterr().err == ""


def test_a_dataset_is_not_read_again(data: Path, reads, cache_folder: Path) -> None:
    for _ in range(2):
        load_dataset(data, Config.resolve({}, "quick"))
    assert len(reads) == N_CLIPS + 2
    assert any(line.startswith("notes of checks: ") for line in fsat_cache())
    fsat_cache("--clear")
    assert [path.name for path in cache_folder.iterdir()] == ["clips"]


def test_a_drive_that_goes_away_is_not_the_fault_of_its_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when headers are read nor when eda listens."""
    data = make_dataset(tmp_path / "data", clips_per_class=2, test_clips=0)
    folder, names = data / "audio_train", [row["fname"] for row in read_csv(data / "train.csv")]
    manifest = read_manifest(data)
    check = clip_checks.check_clip

    def check_and_unplug(*arguments):
        facts = check(*arguments)
        with suppress(FileNotFoundError):  # another thread was faster
            folder.rename(tmp_path / "away")
        return facts

    with monkeypatch.context() as patch:
        patch.setattr(clip_checks, "check_clip", check_and_unplug)
        line = error_line(DataError, check_clips, folder, names, "clips")
    assert line.startswith(f"{folder}: the folder went away while its clips were checked")
    line = error_line(DataError, listen_to_clips, [folder], [manifest.train])
    assert "went away while the clips were read; connect its drive" in line
    (tmp_path / "away").rename(folder)
    assert not any(facts.reason for facts in check_clips(folder, names, "clips"))
