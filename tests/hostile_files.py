"""Files that a folder of clips may contain: most are not usable clips, some only look unusable."""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf
from helpers import tone

RATE = 8000
USABLE = ""
SOUND = (32767 * tone(440, 0.3, RATE)).astype("<i2")


def wav(
    samples: np.ndarray | bytes = SOUND, channels: int = 1, rate: int = RATE, bits: int = 16, kind: int = 1,
    claim: int | None = None, align: int | None = None, riff: bytes = b"RIFF", before: bytes = b"", after: bytes = b"",
) -> bytes:  # fmt: skip
    """Return a WAV file with any header.

    Args:
        samples: what follows the header.
        kind: 1 for PCM, 3 for float.
        claim: bytes of samples by the header.
        align: bytes of a frame, as the header has it.
        before, after: chunks before and after the samples.
    """
    data = samples if isinstance(samples, bytes) else samples.tobytes()
    size = len(data) if claim is None else claim
    align = channels * bits // 8 if align is None else align
    form = struct.pack("<HHIIHH", kind, channels % 65536, rate, rate * align % 2**32, align % 65536, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + before + b"data" + struct.pack("<I", size) + data + after
    return riff + struct.pack("<I", min(len(body) + max(0, size - len(data)), 2**32 - 1)) + body


def encoded(form: str, samples: np.ndarray | None = None, rate: int = RATE, **options: str) -> bytes:
    """Return a file as libsndfile writes it."""
    buffer = io.BytesIO()
    sf.write(buffer, tone(440, 2, rate) if samples is None else samples, rate, format=form, **options)
    return buffer.getvalue()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    """Invert each byte of the middle third."""
    third = len(data) // 3
    return data[:third] + bytes(byte ^ 255 for byte in data[third : 2 * third]) + data[2 * third :]


def without_length(flac: bytes) -> bytes:
    """Set the length in a FLAC's header to 0, as in one that was written to a pipe."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


FLOATS = tone(440, 0.3, RATE).astype("<f4")
NO_NUMBER = np.where(np.arange(len(FLOATS)) == 99, np.nan, FLOATS).astype("<f4")
INFINITE = np.where(np.arange(len(FLOATS)) == 99, np.inf, FLOATS).astype("<f4")
LONG = np.zeros(100 * 3700, np.float32)
CHUNK = b"LIST" + struct.pack("<I", 26) + b"INFO" + b"x" * 22

FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "right.wav": (wav, USABLE),
    "empty.wav": (bytes, "empty file"),
    "text.wav": (lambda: b"no sound, only words\n" * 50, "unreadable audio"),
    "page.mp3": (lambda: b"<!DOCTYPE html><title>404</title>" + b" " * 2000, "unreadable audio"),
    "zeros.wav": (lambda: bytes(5000), "unreadable audio"),
    "pickle.wav": (lambda: pickle.dumps(np.zeros(1000)), "unreadable audio"),
    "riff.wav": (lambda: b"RIFF\x04\0\0\0WAVE", "unreadable audio"),
    "header.wav": (lambda: wav(b""), "no samples in it"),
    "no_data.wav": (lambda: wav()[:36], "unreadable audio"),
    "no_format.wav": (lambda: b"RIFF" + struct.pack("<I", 1012) + b"WAVEdata" + struct.pack("<I", 1000) + bytes(1000),
                      "unreadable audio"),
    "half.wav": (lambda: half(wav()), "cut off"),
    "half.flac": (lambda: half(encoded("FLAC")), "cut off after 0.51 s of 2.00 s"),
    "half.mp3": (lambda: half(encoded("MP3")), "cut off after 0.7"),
    "start_of.ogg": (lambda: encoded("OGG")[:2000], "unreadable audio"),
    "flipped.flac": (lambda: flipped(encoded("FLAC")), "cut off after 0.51 s of 2.00 s"),
    "ten_hours_claimed.wav": (lambda: wav(claim=36000 * RATE * 2), "cut off"),
    "from_a_pipe.wav": (lambda: wav(claim=2**32 - 1), USABLE),
    "from_a_pipe.flac": (lambda: without_length(encoded("FLAC")), USABLE),
    "ten_hours_from_a_pipe.flac": (lambda: without_length(encoded("FLAC", np.zeros(100 * 36000, np.float32), 100)),
                                   "longer than max_seconds="),
    "half_from_a_pipe.flac": (lambda: half(without_length(encoded("FLAC"))), "cut off after 0.51 s"),
    "ten_hours.flac": (lambda: encoded("FLAC", np.zeros(100 * 36000, np.float32), 100), "longer than max_seconds="),
    "an_hour.wav": (lambda: encoded("WAV", LONG, 100), "longer than max_seconds="),
    "96_channels.wav": (lambda: wav(np.repeat(SOUND, 96), channels=96), USABLE),
    "60000_channels.wav": (lambda: wav(channels=60000), "unreadable audio"),
    "no_channels.wav": (lambda: wav(channels=0, align=2), "unreadable audio"),
    "no_rate.wav": (lambda: wav(rate=0), "unreadable audio"),
    "1_hz.wav": (lambda: wav(SOUND[:20], rate=1), USABLE),
    "1_hz_for_hours.wav": (lambda: wav(np.zeros(20000, "<i2"), rate=1), "longer than max_seconds="),
    "10_mhz.wav": (lambda: wav(rate=10_000_000), USABLE),
    "4_ghz.wav": (lambda: wav(rate=2**32 - 1), "unreadable audio"),
    "no_bits.wav": (lambda: wav(bits=0), "unreadable audio"),
    "57_bits.wav": (lambda: wav(bits=57, align=8), "unreadable audio"),
    "17_bits.wav": (lambda: wav(bits=17, align=3), USABLE),
    "unknown_kind.wav": (lambda: wav(kind=0x9999), "unreadable audio"),
    "nan.wav": (lambda: wav(NO_NUMBER, kind=3, bits=32), "NaN or infinite samples"),
    "infinite.wav": (lambda: wav(INFINITE, kind=3, bits=32), "NaN or infinite samples"),
    "beyond_float32.wav": (lambda: wav(np.full(999, 1e300), kind=3, bits=64), "NaN or infinite samples"),
    "one_sample.wav": (lambda: wav(SOUND[50:51]), USABLE),
    "half_a_sample.wav": (lambda: wav(b"\x01"), "no samples in it"),
    "silence.wav": (lambda: wav(np.zeros(999, "<i2")), USABLE),
    "odd.wav": (lambda: wav(SOUND.tobytes() + b"\x01"), USABLE),
    "notes_before_and_after.wav": (lambda: wav(before=CHUNK, after=CHUNK), USABLE),
    "junk_after.wav": (lambda: wav(after=b"\xff" * 777), USABLE),
    "endless_note.wav": (lambda: wav(before=b"LIST\xff\xff\xff\xff"), "unreadable audio"),
    "big_endian.wav": (lambda: wav(riff=b"RIFX"), "unreadable audio"),
    "an_aiff.wav": (lambda: encoded("AIFF"), USABLE),
    "an_rf64.wav": (lambda: encoded("RF64"), USABLE),
    "aiff_of_2_gb.wav": (lambda: b"FORM\x7f\xff\xff\xffAIFFCOMM\x7f\xff\xff\xff" + bytes(100), "unreadable audio"),
    "opus.ogg": (lambda: encoded("OGG", rate=48000, subtype="OPUS"), USABLE),
    "endless_tag.mp3": (lambda: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + encoded("MP3"), "unreadable audio"),
    "größe – 音.wav": (wav, USABLE),
    "new\nline.wav": (wav, USABLE),
    "quote\",'.wav": (wav, USABLE),
    os.fsdecode(b"not utf-8 \xff.wav"): (wav, USABLE),
}  # fmt: skip
"""For each name, what makes the bytes, and the start of the reason why the file cannot be used."""

OTHERS = {
    "fifo.wav": "not a regular file", "socket.wav": "not a regular file", "device.wav": "not a regular file",
    "gone.wav": "missing file", "itself.wav": "unreadable file", "link.wav": USABLE,
}  # fmt: skip
"""Entries of the folder that are not regular files, and the start of the reason."""

LEADS_OUT = {"device.wav", "gone.wav", "link.wav"}
"""Links out of the folder, which a training set may not have."""


def write_all(folder: Path) -> dict[str, str]:
    """Write every file to an empty folder; return the start of the reason of each."""
    for name, (make, _) in FILES.items():
        (folder / name).write_bytes(make())
    os.mkfifo(folder / "fifo.wav")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(folder)  # a socket's name must be short
        listener.bind("socket.wav")
        os.chdir(before)
    outside = folder.parent / f"{folder.name} outside.wav"
    outside.write_bytes(wav())
    for name, target in {"device.wav": Path("/dev/zero"), "gone.wav": folder.parent / "nowhere.wav",
                         "itself.wav": folder / "itself.wav", "link.wav": outside}.items():  # fmt: skip
        (folder / name).symlink_to(target)
    return {**{name: reason for name, (_, reason) in FILES.items()}, **OTHERS}
