"""Files are written whole or not at all, locks are exclusive, and disk errors are one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from clip_files import flip
from helpers import error_line, one_line

from fsat.errors import FsatError
from fsat.files import (
    Damaged,
    check_writable,
    copy_folder,
    disk_errors,
    format_bytes,
    held_lock,
    new_folder,
    read_facts,
    replace_whole,
    sha256_of,
    try_lock,
    write_facts,
    write_whole,
)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    write_whole(path, lambda unfinished: unfinished.write_text("old"))
    with pytest.raises(KeyboardInterrupt), replace_whole(path) as unfinished:
        assert unfinished.suffix == ".csv"
        unfinished.write_text("half")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with replace_whole(path) as unfinished:
        unfinished.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["table.csv"]


def test_a_folder_is_copied_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "source" / "inner").mkdir(parents=True)
    (tmp_path / "source" / "inner" / "file").write_text("content")
    with new_folder(tmp_path / "made") as unfinished:
        copy_folder(tmp_path / "source", unfinished / "copy")
    assert (tmp_path / "made" / "copy" / "inner" / "file").read_text() == "content"
    (tmp_path / "source" / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(FsatError) as caught, disk_errors("x"), new_folder(tmp_path / "failed") as unfinished:
        copy_folder(tmp_path / "source", unfinished / "copy")
    assert one_line(caught.value) == "x: cannot be written: No such file or directory"
    assert sorted(os.listdir(tmp_path)) == ["made", "source"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, message in (
        (tmp_path, "is a folder; expected the name of a file to write"),
        (tmp_path / "file" / "x.csv", "cannot be written: File exists; choose another file"),
        (tmp_path / ("x" * 240 + ".csv"), "cannot be written: File name too long; choose another file"),
    ):
        assert error_line(FsatError, check_writable, path) == f"{path}: {message}"
        assert error_line(FsatError, write_whole, path, lambda new: new.write_text("x")) == f"{path}: {message}"


def test_disk_errors_say_what_to_do() -> None:
    for number, message in (
        (errno.EACCES, "x: cannot be written: Permission denied; choose another folder"),
        (errno.ENOSPC, "x: no space left (No space left on device); make room"),
    ):
        with pytest.raises(FsatError) as caught, disk_errors("x", advice="choose another folder", full="make room"):
            raise OSError(number, os.strerror(number))
        assert one_line(caught.value) == message


def test_a_lock_is_exclusive(tmp_path: Path) -> None:
    with held_lock(tmp_path / "lock", "busy"):
        with try_lock(tmp_path / "lock") as held:
            assert not held
        with pytest.raises(FsatError, match="busy"), held_lock(tmp_path / "lock", "busy"):
            pytest.fail("two locks are held")
    with try_lock(tmp_path / "lock") as held:
        assert held


def test_facts_have_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    assert read_facts(path) is None
    write_facts(path, {"a": [1, 2.5, "ä"]})
    assert read_facts(path) == {"a": [1, 2.5, "ä"]}
    path.rename(tmp_path / "other.json")
    with pytest.raises(Damaged, match="does not have its checksum"):
        read_facts(tmp_path / "other.json")
    (tmp_path / "other.json").rename(path)
    flip(path, 40)
    with pytest.raises(Damaged, match="does not have its checksum"):
        read_facts(path)


def test_hashes_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert sha256_of(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert [format_bytes(n) for n in (0, 312, 38_140_000, 1_200_000_000)] == ["0.0 kB", "0.3 kB", "38.1 MB", "1.2 GB"]
