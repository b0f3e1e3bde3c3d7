"""Files that lie (cut off, joined, wrong headers): nothing is heard that is not there, or missing without a word."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from audio_bytes import MAKERS, NEED_FFMPEG, RATE, SECONDS, by_libsndfile, make, noise
from helpers import error_line, read_csv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsat.data import decoders
from fsat.data.audio import Heard, hear, read_header
from fsat.data.byte_source import ByteSource
from fsat.data.containers import find_layout
from fsat.errors import AudioError

FORMATS = list(MAKERS)
TOLERANCE = 0.1
"""Seconds by which lossy formats may be longer or shorter."""

SIZED = ["wav", "wav24", "wavex", "rf64", "w64", "aiff", "au", "caf"]
"""Formats whose header has the size of the samples, which are not compressed."""


def seconds_of(data: bytes) -> float:
    return len(hear(data, [RATE]).at[RATE]) / RATE


def heard_or_error(data: bytes) -> tuple[float, str, str]:
    """Return the seconds that are heard, the fault and the notes."""
    try:
        heard = hear(data, [RATE], 1e6)
    except AudioError as error:
        return 0.0, str(error), ""
    return len(heard.at[RATE]) / RATE, heard.fault, "; ".join(heard.notes)


@pytest.fixture
def without_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if PyAV were not installed."""
    monkeypatch.setitem(sys.modules, "av", None)


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_is_heard_without_a_word(name: str, tmp_path: Path, capfd) -> None:
    data = make(name)
    (tmp_path / "clip.wav").write_bytes(data)  # the name does not matter
    for source in (data, tmp_path / "clip.wav"):
        heard = hear(source, [RATE])
        assert (heard.notes, heard.fault) == ((), "")
        assert abs(len(heard.at[RATE]) / RATE - SECONDS) < 0.05
    header = read_header(tmp_path / "clip.wav")
    assert abs(header.frames / header.samplerate - SECONDS) < 0.06
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", FORMATS)
def test_half_a_file_is_cut_off(name: str, capfd) -> None:
    data = make(name)
    seconds, fault, _ = heard_or_error(data[: len(data) // 2 + 1])
    assert "cut off" in fault
    if name not in ("m4a", "alac", "wv"):  # of which nothing can be decoded without the rest
        assert 0.2 * SECONDS < seconds < 0.7 * SECONDS
        assert fault.startswith(f"cut off after {seconds:.2f} s")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", FORMATS)
def test_joined_files_are_heard_whole(name: str) -> None:
    """What `cat` makes of two recordings."""
    seconds, fault, notes = heard_or_error(make(name) * 2)
    if name == "wv":
        assert "bytes that follow cannot be read" in fault
        return
    assert fault == ""
    assert abs(seconds - 2 * SECONDS) < TOLERANCE
    assert "header wrong" in notes or name in ("aac", "mpegts")  # which have no header of the whole


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("said", ["a third", 44, 0])
def test_a_header_with_too_small_a_size(name: str, said: str | int) -> None:
    data = bytearray(make(name))
    layout = find_layout(ByteSource(data))
    assert layout is not None
    size = layout.end - layout.start
    field = layout.size_field(size // 3 // 4 * 4 if isinstance(said, str) else said)
    assert field is not None
    data[layout.size_at : layout.size_at + layout.size_bytes] = field
    heard = hear(bytes(data), [RATE])
    np.testing.assert_array_equal(heard.at[RATE], hear(make(name), [RATE]).at[RATE])
    assert heard.fault == ""
    assert heard.notes[0].startswith("header wrong: it says ")
    assert heard.notes[0].endswith(f"the file has {SECONDS:.2f} s")


TAILS = {
    "LIST": b"LIST" + struct.pack("<I", 26) + b"INFO" + b"x" * 22,
    "a long id3 chunk": b"id3 " + struct.pack("<I", 5000) + bytes(range(250)) * 20,
    "ID3v1": b"TAG" + bytes(125),
    "zeros": bytes(50_000),
    "text": b"<?xml version='1.0'?><meta>" + b"a note\n" * 1000,
    "a cut chunk": b"LIST" + struct.pack("<I", 10**6) + bytes(range(256)) * 10,
    "a pad byte": b"\0",
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize("name", ["wav", "wav24", "aiff", "flac", "mp3", "ogg"])
def test_what_follows_the_samples_is_no_sound(name: str, tail: bytes, capfd) -> None:
    heard = hear(make(name) + tail, [RATE])
    np.testing.assert_array_equal(heard.at[RATE], hear(make(name), [RATE]).at[RATE])
    assert capfd.readouterr().err == ""
    assert (heard.notes, heard.fault) == ((), "")


def test_a_wav_of_more_than_4_gb_is_heard_to_its_end(tmp_path: Path) -> None:
    """A sparse file whose size is given modulo 2^32, as recorders write it."""
    path, header = tmp_path / "long.wav", bytearray(make("wav")[:44])
    n_bytes = (1 << 32) + 40 * RATE
    header[40:44] = (n_bytes % (1 << 32)).to_bytes(4, "little")
    with open(path, "wb") as file:
        file.write(header + b"\1\2" * 2000)
        file.seek(44 + n_bytes - 4000)
        file.write(b"\1\2" * 2000)
    assert path.stat().st_size == 44 + n_bytes
    layout = find_layout(ByteSource(path))
    assert layout is not None
    assert (layout.is_wrong, layout.end - layout.start) == (True, n_bytes)
    assert read_header_frames(path) == n_bytes // 2


def read_header_frames(path: Path) -> int:
    from fsat.data.recording import Recording

    return Recording(ByteSource(path)).frames


def test_a_flac_whose_header_promises_more_or_less() -> None:
    data = make("flac")
    facts = int.from_bytes(data[18:26], "big")
    n_frames = facts & (1 << 36) - 1
    for promised, says in ((2 * n_frames, "8.00 s"), (n_frames // 4, "1.00 s")):
        lying = data[:18] + ((facts >> 36 << 36) | promised).to_bytes(8, "big") + data[26:]
        seconds, fault, notes = heard_or_error(lying)
        assert (seconds, fault) == (SECONDS, "")
        assert notes == f"header wrong: it says {says}, the file has 4.00 s"


def test_a_flac_that_ends_between_two_frames_is_cut_off() -> None:
    """Its frames are whole, but not its MD5."""
    data = make("flac")
    sizes = [size for size in range(len(data) - 9000, len(data)) if data[size : size + 2] in (b"\xff\xf8", b"\xff\xf9")]
    results = {heard_or_error(data[:size])[1] for size in sizes}
    assert results
    assert all(fault.startswith("cut off after 3.") for fault in results)


def test_an_mp3_of_variable_rate_without_a_xing_frame() -> None:
    """libsndfile estimates the length from the first frame's rate, and stops there."""
    quiet, loud = noise() * 0, noise()
    data = by_libsndfile("MP3", samples=np.concatenate([quiet, loud, loud]))
    start = data.find(b"Info") if b"Info" in data[:200] else data.find(b"Xing")
    for name in (b"Xing", b"Info"):
        data = data.replace(name, b"XXXX") if start > 0 else data
    seconds, fault, _ = heard_or_error(data)
    assert fault == ""
    assert abs(seconds - 3 * SECONDS) < TOLERANCE


def test_odd_mp3s_print_nothing(capfd) -> None:
    """A tag alone, a file of a few frames, and bytes of other kinds between frames."""
    data = make("mp3")
    tag = b"ID3\3\0\0\0\0\x0f\x76" + bytes(2038)
    tiny = by_libsndfile("MP3", samples=noise(0.02))
    assert heard_or_error(tag)[0] == 0
    assert heard_or_error(tag + tiny)[1:] == ("", "")
    assert 0 < heard_or_error(tag + tiny)[0] < 0.1
    half = len(data) // 2
    assert abs(heard_or_error(data[:half] + b"\x93\x2b no frame" * 300 + data[half:])[0] - SECONDS) < TOLERANCE
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["m4a", "webm", "aac", "wv"])
def test_without_ffmpeg_a_file_that_needs_it_names_the_extra(name: str, without_ffmpeg: None) -> None:
    assert 'pip install "fsat[media]"' in error_line(AudioError, hear, make(name), [RATE])


@pytest.mark.parametrize("name", sorted(set(FORMATS) - NEED_FFMPEG))
def test_without_ffmpeg_nothing_is_missing_in_silence(name: str, without_ffmpeg: None, capfd) -> None:
    data = make(name)
    seconds, fault, notes = heard_or_error(data)
    assert (fault, notes) == ("", "")
    assert abs(seconds - SECONDS) < 0.05
    seconds, fault, notes = heard_or_error(data + data)
    assert fault or (abs(seconds - 2 * SECONDS) < TOLERANCE and "header wrong" in notes)
    if fault:
        assert 'pip install "fsat[media]"' in fault
        assert seconds >= SECONDS
    seconds, fault, _ = heard_or_error(data[: len(data) // 2])
    assert "cut off" in fault or "damaged" in fault
    assert seconds > 0.2 * SECONDS
    assert capfd.readouterr().err == ""


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    """FFmpeg follows playlists to other files and addresses, if it may."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(make("wav"))
    for text in (f"#EXTM3U\n#EXTINF:2,\n{secret}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile '{secret}'\n"):
        assert error_line(AudioError, hear, text.encode(), [RATE]).startswith("unreadable audio")


def test_another_rate_in_the_middle_is_said() -> None:
    other = by_libsndfile("WAV", samples=noise(1, 8000), rate=8000)
    seconds, fault, _ = heard_or_error(make("wav") + other)
    assert seconds == SECONDS
    assert fault.startswith("another recording, which follows after 4.00 s, has 8000 Hz")


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_nothing_is_missing_in_silence(data: st.DataObject) -> None:
    """Cut, join or patch any file: what is heard is at most what is there, and at least that, or there is a word."""
    name = data.draw(st.sampled_from(FORMATS))
    raw = make(name)
    change = data.draw(st.sampled_from(["cut", "join", "patch"]))
    if change == "cut":
        size = data.draw(st.integers(1, len(raw) - 1))
        seconds, fault, notes = heard_or_error(raw[:size])
        assert seconds <= SECONDS * size / len(raw) * 1.3 + 0.6
        assert fault or notes or seconds > SECONDS * size / len(raw) - 0.1
    elif change == "join":
        size = data.draw(st.integers(len(raw) // 2, len(raw)))
        seconds, fault, notes = heard_or_error(raw + raw[:size])
        assert seconds <= 2 * SECONDS + TOLERANCE
        assert fault or notes or abs(seconds - SECONDS * (1 + size / len(raw))) < 0.2
    else:
        at, value = data.draw(st.integers(0, min(200, len(raw) - 1))), data.draw(st.integers(0, 255))
        seconds, fault, notes = heard_or_error(raw[:at] + bytes([value]) + raw[at + 1 :])
        assert fault or notes or seconds > 0


def test_bytes_that_cannot_be_read_are_the_machine_s_fault(tmp_path: Path, monkeypatch) -> None:
    from fsat.data import byte_source
    from fsat.errors import StorageError

    path = tmp_path / "clip.flac"
    path.write_bytes(make("flac"))
    monkeypatch.setattr(byte_source, "PAUSES", ())

    def failing(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.pread", failing)
    assert error_line(StorageError, hear, path, [RATE]) == "the file system failed (Input/output error)"
    monkeypatch.undo()
    monkeypatch.setattr(byte_source, "PAUSES", (0, 0))
    opened, failures = (
        __import__("os").open,
        iter([OSError(24, "Too many open files"), OSError(116, "Stale file handle")]),
    )

    def flaky(*arguments: object) -> int:
        if failure := next(failures, None):
            raise failure
        return opened(*arguments)

    monkeypatch.setattr("os.open", flaky)
    assert isinstance(hear(path, [RATE]), Heard)
    assert decoders.has_ffmpeg()


def test_files_that_recorders_and_uploads_leave(shared: Path, tmp_path: Path) -> None:
    """Ten files with what is in them; a header that lies has a note, a file that is cut off an error."""
    subprocess.run([sys.executable, shared / "cases" / "make_files.py", tmp_path], check=True)
    for row in read_csv(tmp_path / "expected.csv"):
        seconds, fault, notes = heard_or_error((tmp_path / row["fname"]).read_bytes())
        assert abs(seconds - float(row["seconds"])) < (0.1 if row["whole"] == "1" else 0.2), row
        assert bool(fault) == (row["whole"] == "0"), row
        assert bool(notes) == (row["whole"] == "1" and row["note"] != "nothing wrong"), row
