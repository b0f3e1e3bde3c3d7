"""Archives that nobody has to trust: each kind of hostile zip is refused in one line, before anything is written."""

import os
import random
import stat
import struct
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from helpers import error_line, one_line
from hypothesis import example, given, settings
from hypothesis import strategies as st
from zip_server import files_of, noise, zipped

from fsat.download.unpack import unpack, why_unsafe
from fsat.errors import FsatError

TARGETS = {"top/": "audio/", "top/meta.csv": "meta.csv"}
GOOD = {"top/meta.csv": b"table", "top/a.wav": b"sound", "top/deep/b.wav": b"more"}


def try_to_unpack(tmp_path: Path, data: bytes, most_bytes: int = 1_000_000) -> list[str]:
    (tmp_path / "x.zip").write_bytes(data)
    return unpack(tmp_path / "x.zip", tmp_path / "out", TARGETS, most_bytes)


def refusal(tmp_path: Path, data: bytes, most_bytes: int = 1_000_000) -> str:
    """The message; nothing is written, except for archives that turn out to be damaged."""
    line = error_line(FsatError, try_to_unpack, tmp_path, data, most_bytes)
    assert {path.name for path in tmp_path.iterdir()} <= {"x.zip", "out"}
    return line


def entry(name: str, mode: int = 0, **attributes: object) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename, info.external_attr = name, mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


def test_a_good_archive_with_ordinary_names_goes_where_it_should(tmp_path):
    extra = {"__MACOSX/top/._a.wav": b"x", "top/._a.wav": b"x", "topper/c.wav": b"x", "top/zip.zip": zipped(GOOD)}
    left_out = try_to_unpack(tmp_path, zipped({"top/": b"", **GOOD, **extra}))
    unpacked = {"audio/a.wav": b"sound", "audio/deep/b.wav": b"more", "meta.csv": b"table"}
    assert files_of(tmp_path / "out") == {**unpacked, "audio/zip.zip": zipped(GOOD)}
    assert left_out == ["__MACOSX/top/._a.wav", "top/._a.wav", "topper/c.wav"]
    for name in ("1-100032-A-0.wav", "FSDKaggle2018.audio_train/", "top/.gitignore", "a b/ü (1).wav", "..a/b"):
        assert why_unsafe(name) == "", name


@pytest.mark.parametrize(("name", "expected"), [
    ("../evil.wav", "leads out of the folder"),
    ("top/../../evil.wav", "leads out of the folder"),
    ("/etc/evil", "is an absolute path"),
    ("//server/share/evil", "has an empty name"),
    ("C:/evil.wav", "is an absolute path"),
    ("top\\..\\evil.wav", r"has a \ or : in it"),
    ("top/a.wav:stream", r"has a \ or : in it"),
    ("top/a\0.txt", "has control characters"),
    ("top/\u202eevil", "has control characters"),
    ("top//evil.wav", "has an empty name"),
    ("top/evil.", "begins or ends with a blank or dot"),
    ("top/ evil", "begins or ends with a blank or dot"),
    ("top/" + "x" * 300, "is too long"),
    ("top/" + "ä" * 200, "is too long"),
    ("x/" * 600 + "x", "is too long"),
])  # fmt: skip
def test_names_that_lead_elsewhere(tmp_path, name, expected):
    assert expected in refusal(tmp_path, zipped([*GOOD.items(), (entry(name), b"evil")]))
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("info", "expected"), [
    (entry("top/link", stat.S_IFLNK | 0o777), "is a link, a device"),
    (entry("top/pipe", stat.S_IFIFO | 0o666), "is a link, a device"),
    (entry("top/folder", stat.S_IFDIR | 0o777), "or not what its name says"),
    (entry("top/odd", compress_type=zipfile.ZIP_BZIP2), "compressed in an unexpected way (type 12)"),
    (entry("top/A.wav"), "would be the same file"),
    (entry("top/a.wav"), "would be the same file"),
    (entry("top/a.wav/b.wav"), "is a file and a folder"),
    (entry("TOP/A.WAV/b.wav"), "is a file and a folder"),
])  # fmt: skip
def test_entries_that_are_not_plain_files(tmp_path, info, expected):
    assert expected in refusal(tmp_path, zipped([*GOOD.items(), (info, b"/etc/passwd")]))
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_an_encrypted_entry(tmp_path):
    data = bytearray(zipped(GOOD))
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    assert "its entry 'top/meta.csv' is encrypted" in refusal(tmp_path, bytes(data))


def test_bombs(tmp_path, monkeypatch):
    assert "would become 3.0 MB in 1 file" in refusal(tmp_path, zipped({"top/a.wav": bytes(3_000_000)}), 1 << 40)
    monkeypatch.setattr("fsat.download.unpack.MOST_RATIO", 1e9)
    assert "expected 1.0 MB at most" in refusal(tmp_path, zipped({"top/a.wav": bytes(1_000_001)}))
    monkeypatch.setattr("fsat.download.unpack.MOST_ENTRIES", 50)
    many = zipped({f"top/{i}": b"" for i in range(51)})
    assert "it has 51 entries, expected 50 at most" in refusal(tmp_path, many)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.parametrize("claimed", [1, 100_000])
def test_sizes_that_lie(tmp_path, monkeypatch, claimed):
    """No more is ever written than the table of contents says, and less is damage."""
    data = bytearray(zipped({"top/a.wav": bytes(5000), "top/meta.csv": b"table"}))
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", claimed)
    monkeypatch.setattr("fsat.download.unpack.MOST_RATIO", 1e9)
    assert "cannot be unpacked" in refusal(tmp_path, bytes(data))
    assert sum(map(len, files_of(tmp_path / "out").values())) <= 5000


def test_damage(tmp_path):
    whole = zipped({**GOOD, "top/c.wav": noise(10_000)})
    at = whole.index(b"top/c.wav") + 3000
    changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    line = refusal(tmp_path, changed)
    assert "cannot be unpacked" in line
    assert "remove it, and give the same command again" in line
    for broken in (b"", b"PK\x03\x04", whole[:-30], b"<html>", whole[:5000]):
        (tmp_path / "new").mkdir(exist_ok=True)
        assert "cannot be unpacked" in refusal(tmp_path / "new", broken)


def test_an_archive_of_something_else(tmp_path):
    assert "it has no top/, expected as audio/" in refusal(tmp_path, zipped({"other/a.wav": b"sound"}))
    assert "it has no top/, expected as audio/" in refusal(tmp_path, zipped({}))


def test_any_damage_is_said_in_one_line_and_nothing_else_is_written(tmp_path):
    whole, rng, lines = zipped({**GOOD, "top/c.wav": noise(300)}), random.Random(3), []
    good = {"meta.csv": b"table", "audio/a.wav": b"sound", "audio/deep/b.wav": b"more", "audio/c.wav": noise(300)}
    for i in range(300):
        folder = tmp_path / str(i)
        folder.mkdir()
        data = bytearray(whole)
        data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            try_to_unpack(folder, bytes(data))
        except FsatError as error:
            lines.append(one_line(error))
        else:
            found = files_of(folder / "out")
            assert {name: good.get(name, found[name]) for name in found} == found
        assert {path.name for path in folder.iterdir()} <= {"x.zip", "out"}
    assert len(lines) > 100


PIECES = ["..", ".", "", "a", "b.wav", "C:", "\\", "..\\", "\0", " ", "con", "...", "~", "ä", "\n", "/"]
LISTS = st.lists(st.sampled_from(PIECES), max_size=6)


@given(st.one_of(LISTS.map("/".join), LISTS.map("".join), st.text(max_size=30)))
@example("a/../../b")
@example("/")
@settings(max_examples=200, deadline=None)
def test_a_name_that_is_taken_stays_inside_on_every_system(name):
    if why_unsafe(name):
        return
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(name)
        assert (path.is_absolute(), path.drive, path.root, ".." in path.parts) == (False, "", "", False)
        assert list(path.parts) == name.removesuffix("/").split("/")
    assert os.path.normpath(os.path.join("/base", name)).startswith("/base/")
    assert name.isprintable()
