"""Names of files to tag, from folders with anything in them."""

from __future__ import annotations

import io
import os
import tracemalloc
from pathlib import Path

import pytest
from helpers import error_line

from fsat.errors import DataError
from fsat.tagging.input_files import read_input, walk


def listed(data: bytes) -> list[str]:
    return list(read_input("-", io.BytesIO(data)).names)


def test_links_are_followed_once_and_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "clip.WAV").touch()
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self.wav").symlink_to(tmp_path / "a" / "self.wav")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.ogg").touch()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "none.txt").touch()
    (tmp_path / "a" / "secret").mkdir()
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: scandir("/gone" if folder.endswith("secret") else folder))
    assert sorted(walk(tmp_path / "a")) == ["b/clip.WAV", "link/far.ogg", "secret", "self.wav"]


def test_any_name_can_be_listed() -> None:
    names = ["a b.wav", " leading.wav", "größe.wav", os.fsdecode(b"\xff\xfe.wav"), 'quo"te.wav', "-.wav"]
    assert listed("\n".join(names).encode("utf-8", "surrogateescape")) == names
    assert listed(b"\0".join(os.fsencode(name) for name in [*names, "new\nline.wav"])) == [*names, "new\nline.wav"]
    assert listed(b'x,fname\n1,"new\nline.wav"\n\n2,"a,b.wav"\n') == ["new\nline.wav", "a,b.wav"]
    assert listed(b"") == listed(b"\n\r\n") == []


def test_folders_globs_and_lists_name_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["c.wav", "b/a.flac", "a.wav"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("label,fname\n" + "".join(f'?,"{name}"\n' for name in names))
    (tmp_path / "list.txt").write_text("\n".join(names) + "\n")
    monkeypatch.chdir(tmp_path)
    assert sorted(read_input(".").names) == sorted(read_input("**/*.[wf]*").names) == sorted(names)
    for path in (tmp_path / "list.csv", tmp_path / "list.txt"):
        files = read_input(str(path))
        assert (list(files.names), files.root, files.ordered) == (names, tmp_path, True)
    assert listed("\ufefffname,x\r\n".encode() + b"".join(b"%s,1\r\n" % name.encode() for name in names)) == names
    assert list(read_input(str(tmp_path / "c.wav")).names) == ["c.wav"]


def test_a_folder_or_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    (tmp_path / "[take 1]").mkdir()
    (tmp_path / "[take 1]" / "a*.wav").touch()
    assert list(read_input(str(tmp_path / "[take 1]")).names) == ["a*.wav"]
    assert list(read_input(str(tmp_path / "[take 1]" / "a*.wav")).names) == ["a*.wav"]
    assert len(list(read_input(str(tmp_path / "*")).names)) == 1


def test_brackets_of_a_folder_in_a_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data loggers name folders after coordinates."""
    for folder in ("Site [-37.5 141.3]", "deep/Site [2]/[a] b", "1", "Site 3"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.wav").touch()
    (tmp_path / "Site [-37.5 141.3]" / "x[1]y.wav").touch()
    monkeypatch.chdir(tmp_path)
    expected = {
        "Site [-37.5 141.3]/*.wav": ["Site [-37.5 141.3]/x.wav", "Site [-37.5 141.3]/x[1]y.wav"],
        "Site [-37.5 141.3]/x[1]*": ["Site [-37.5 141.3]/x[1]y.wav"],
        "deep/Site [2]/[a] b/?.wav": ["deep/Site [2]/[a] b/x.wav"],
        "d*/Site [2]/[a] b/?.wav": ["deep/Site [2]/[a] b/x.wav"],
        "[0-9]/*.wav": ["1/x.wav"],
        "Site [0-9]/*": ["Site 3/x.wav"],
        "**/[x].wav": ["1/x.wav", "Site 3/x.wav", "Site [-37.5 141.3]/x.wav", "deep/Site [2]/[a] b/x.wav"],
        "gone/[x].wav": [],
    }
    for pattern, names in expected.items():
        assert sorted(read_input(pattern).names) == names
        absolute = read_input(str(tmp_path / pattern)).names
        assert sorted(absolute) == [str(tmp_path / name) for name in names]


def test_a_list_from_a_spreadsheet() -> None:
    assert listed(b"x,fname,,\n1,a.wav,,\n2,b.wav\n3,c.wav,,,\n") == ["a.wav", "b.wav", "c.wav"]
    assert listed(b",fname\n0,a.wav\n") == ["a.wav"]


def test_faulty_lists(tmp_path: Path) -> None:
    for data, message in {
        b"\xff\xfef\0n\0": "wrong encoding: UTF-16",
        b'fname\n"a.wav': "line 2: not CSV",
        b"fname,x\na.wav\n": "line 2: 1 cell in a table of 2 columns",
        b"x,fname,y\n1,2\n": "line 2: 2 cells in a table of 3 columns",
    }.items():
        assert message in error_line(DataError, listed, data)
    (tmp_path / "bad.csv").write_text("name\na.wav\n")
    message = "bad.csv: got columns 'name'; expected a CSV table with a column fname"
    assert message in error_line(DataError, read_input, str(tmp_path / "bad.csv"))


@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_memory_does_not_grow_with_a_list(end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"".join(b"some/folder/%07d.wav" % i + end for i in range(60_000)))
    tracemalloc.start()
    with open(path, "rb") as file:
        assert sum(1 for _ in read_input("-", file).names) == 60_000
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
