"""Fetching from servers that break off, lie, stall, trickle, go away and come back: it goes on, or says why not."""

import hashlib
import re

import pytest
from helpers import error_line
from zip_server import ZipServer, noise, zipped

from fsat import progress
from fsat.download import fetch as fetch_module
from fsat.download.fetch import fetch
from fsat.errors import FsatError

BIG = "big.zip"
BIG_BYTES = zipped({"a.bin": noise(600_000)})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch_module, "WAITS", (0.0,))
    server = ZipServer({BIG: BIG_BYTES}).start()
    yield server
    server.stop()


def get_big(server, folder, **options) -> None:
    """Fetch the big file into the folder."""
    checksum, options = f"sha256:{hashlib.sha256(BIG_BYTES).hexdigest()}", {"retries": 2, "timeout": 5.0, **options}
    fetch(f"{server.url}/{BIG}", folder / BIG, checksum, len(BIG_BYTES), 2_000_000, **options)
    assert (folder / BIG).read_bytes() == BIG_BYTES
    assert [path.name for path in folder.iterdir()] == [BIG]


def refusal(server, folder, **options) -> str:
    """The message if the big file cannot be fetched; no file of its name is left."""
    line = error_line(FsatError, get_big, server, folder, **options)
    assert not (folder / BIG).exists()
    return line


def test_a_download_goes_on_where_it_broke_off(server, tmp_path):
    server.faults = [{"cut": 200_000}, {"cut": 300_000}]
    get_big(server, tmp_path)
    assert [asked.range for asked in server.asked] == ["", "bytes=200000-", "bytes=500000-"]
    assert server.asked[1].if_range == f'"{hashlib.md5(BIG_BYTES).hexdigest()}"'
    assert sum(asked.sent for asked in server.asked) == len(BIG_BYTES)
    get_big(server, tmp_path)
    assert len(server.asked) == 3  # it has the right checksum: nothing more is asked for


def test_it_says_how_far_it_has_come(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0)
    server.faults = [{"cut": 200_000}]
    get_big(server, tmp_path)
    first, *lines, last = capsys.readouterr().err.splitlines()
    assert first == f"downloading {server.url}/{BIG}"
    assert "big.zip: the connection was broken off; retrying in 0 s, after 200.0 kB" in lines
    assert re.fullmatch(r"downloading big.zip, MB: 1 of 1, \S+/s, 0:00:00 left", lines[-1])
    assert last == "big.zip: 600.3 kB received; checking the checksum"


def test_progress_starts_the_counting_of_attempts_anew(server, tmp_path):
    server.faults = [{"cut": 290_000}, {"cut": 0}, {"cut": 270_000}, {"cut": 0}]
    get_big(server, tmp_path, retries=2)
    (tmp_path / BIG).unlink()
    server.asked.clear()
    server.always = {"cut": 10}
    assert "the connection was broken off; 0.0 kB are kept" in refusal(server, tmp_path, retries=2)
    assert len(server.asked) == 3


CUT = {"cut": 200_000}


@pytest.mark.parametrize(("faults", "requests"), [
    ([CUT, {"no_range": True}], 2),  # 200: the whole file from the start
    ([CUT, {"status": 416, "body": b"", "headers": {"Content-Range": "bytes */17"}}], 3),
    ([CUT, {"headers": {"Content-Range": f"bytes 7-{len(BIG_BYTES) - 1}/{len(BIG_BYTES)}"}}], 3),  # another part
    ([CUT, {"headers": {"Content-Range": "bytes 200000-200099/200100"}}], 3),  # of another file
    ([CUT, {"headers": {"Content-Range": "nonsense"}}], 3),
    ([CUT, {"status": 503, "headers": {"Retry-After": "0"}}], 3),
    ([CUT, {"cut": 0}], 3),
    ([CUT, {"chunked": True, "no_range": True}], 2),
    ([{"chunked": True, "cut": 3000}, {"chunked": True, "no_range": True}], 2),  # the end is known without a length
    ([{"headers": {"Content-Length": "900000"}}], 2),  # too long; the next answer corrects it
])  # fmt: skip
def test_servers_that_answer_otherwise(server, tmp_path, faults, requests):
    server.faults = list(faults)
    get_big(server, tmp_path)
    assert len(server.asked) == requests


def test_a_file_that_changed_meanwhile_is_begun_anew(server, tmp_path):
    server.files[BIG] = b"PK" + noise(700_000)
    server.faults = [{"cut": 200_000}]
    refusal(server, tmp_path, retries=0)
    assert (tmp_path / f"{BIG}.part").stat().st_size == 200_000
    server.files[BIG] = BIG_BYTES
    get_big(server, tmp_path)
    assert server.asked[1].range == "bytes=200000-"  # refused by If-Range
    assert server.asked[1].sent == len(BIG_BYTES)


def test_what_is_kept_outlives_an_answer_that_is_no_zip(server, tmp_path):
    server.faults = [CUT, {"status": 200, "body": b"<html>log in", "headers": {"Content-Type": "text/html"}}]
    assert "the server sent a web page" in refusal(server, tmp_path)
    get_big(server, tmp_path)
    assert server.asked[-1].range == "bytes=200000-"


@pytest.mark.parametrize(("part", "note", "ranges"), [
    (b"something else", None, [""]), (b"something else", '{"size": ', [""]),
    (BIG_BYTES, f'{{"size": {len(BIG_BYTES)}, "same": ""}}', []),  # as a kill leaves it during the checksum
], ids=["no note", "half a note", "complete"])  # fmt: skip
def test_a_part_is_used_with_its_note_only(server, tmp_path, part, note, ranges):
    (tmp_path / f"{BIG}.part").write_bytes(part)
    if note:
        (tmp_path / f"{BIG}.part.json").write_text(note)
    get_big(server, tmp_path)
    assert [asked.range for asked in server.asked] == ranges


@pytest.mark.parametrize(("fault", "expected"), [
    ({"body": b"PK" + bytes(1000)}, r"received sha256 \w{64}, expected \w{64}; the download was removed"),
    ({"headers": {"Content-Length": "5000"}, "cut": 5000}, "wrong checksum: received sha256"),
    ({"headers": {"Content-Length": "900000"}, "no_range": True}, "was broken off; 600.3 kB are kept"),
    ({"body": b"PK" + bytes(3_000_000)}, r"sends more than 2\.\d MB, expected about 600.3 kB; the download was"),
    ({"body": b"<html>please log in", "headers": {"Content-Type": "text/html"}}, "sent a web page, expected a zip"),
    ({"body": b"garbage"}, "sent something else, expected a zip"),
    ({"status": 404}, r"the server does not have it \(status 404\)"),
    ({"status": 302, "body": b"", "headers": {"Location": f"/{BIG}"}}, "too many redirects"),
    ({"status": 500}, "the server answered 500; try again later"),
])  # fmt: skip
def test_servers_that_never_answer_well(server, tmp_path, fault, expected):
    server.always = fault
    assert re.search(expected, refusal(server, tmp_path, retries=1))
    server.always = {}
    get_big(server, tmp_path)


def test_silence_and_a_trickle_are_stalls(server, tmp_path):
    server.always = {"cut": 100_000, "stall": 9}
    line = refusal(server, tmp_path, retries=0, timeout=0.5)
    assert "nothing came for 0.5 s; 100.0 kB are kept; the same command resumes there" in line
    server.always = {"cut": 100_000, "trickle": 0.1}
    line = refusal(server, tmp_path, retries=0, timeout=0.5)
    assert re.search(r"only \d+ bytes came in 0.5 s; \d\d\d.\d kB are kept", line)
    server.always = {}
    get_big(server, tmp_path)
    assert int(server.asked[-1].range.strip("bytes=-")) >= 200_000


def test_a_server_that_is_gone_and_comes_back(server, tmp_path):
    server.faults = [{"cut": 100_000}]
    refusal(server, tmp_path, retries=0)
    server.stop()
    line = refusal(server, tmp_path, retries=0)
    assert "the connection was refused; 100.0 kB are kept; the same command resumes there" in line
    server.start()
    get_big(server, tmp_path)
    assert server.asked[-1].range == "bytes=100000-"
