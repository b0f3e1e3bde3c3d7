"""Frames, tags and the Xing header of MPEG audio (MP3, MP2), without decoding.

Offsets and sizes are in bytes. Sources: ISO 11172-3 and 13818-3, the Xing/Info frame of LAME, ID3v1 and ID3v2, APEv2,
Lyrics3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from fsat.data.byte_source import SEARCHED, TAIL, ByteSource


@dataclass(frozen=True)
class Xing:
    """What the first frame of an MP3 says of the file: frames, and bytes from `start` on; 0 where it does not say."""

    frames: int
    size: int
    size_at: int
    start: int
    samples_per_frame: int


def find_xing(source: ByteSource) -> Xing | None:
    """Return the Xing or Info header of an MP3; None if it has none."""
    start = id3_size(source)
    head = source.read_at(start, 4096)
    skipped = next((i for i in range(len(head) - 1) if head[i] == 0xFF and head[i + 1] >= 0xE0), 0)
    position = max(head.find(b"Xing", 0, skipped + 200), head.find(b"Info", 0, skipped + 200))
    if position < 0:
        return None
    flags = int.from_bytes(head[position + 4 : position + 8], "big")
    frames, size, at = 0, 0, position + 8
    if flags & 1:
        frames, at = int.from_bytes(head[at : at + 4], "big"), at + 4
    size_at = start + at
    if flags & 2:
        size = int.from_bytes(head[at : at + 4], "big")
    is_mpeg1 = head[skipped + 1] >> 3 & 3 == 3
    return Xing(frames, size, size_at, start + skipped, 1152 if is_mpeg1 else 576)


def id3_size(source: ByteSource) -> int:
    """Return the size of the ID3v2 tag that a file begins with, 0 if there is none."""
    head = source.read_at(0, 10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 127) << 7 * i for i, byte in enumerate(reversed(head[6:]))) + 10 * bool(head[5] & 16)


def end_without_tags(source: ByteSource) -> int:
    """Return the offset after the audio of an MP3 or a FLAC: before ID3v1, Lyrics3 and APEv2 tags."""
    end = source.size
    for _ in range(4):
        tail = source.read_at(max(0, end - 128), 128)
        if len(tail) == 128 and tail.startswith(b"TAG"):
            end -= 128
        elif tail[-32:-24] == b"APETAGEX":
            size = int.from_bytes(tail[-20:-16], "little")
            end -= size + 32 * bool(int.from_bytes(tail[-12:-8], "little") >> 31)
        elif tail.endswith(b"LYRICS200"):
            end -= int(tail[-15:-9]) + 15 if tail[-15:-9].isdigit() else 0
        else:
            break
    return max(0, end)


BIT_RATES = {
    (1, 3): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 1): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates of MPEG audio in kbit/s, by MPEG-1 or later, and by the layer's bits: 3, 2, 1 for layers I, II, III."""


def frame_size(head: bytes) -> int:
    """Return the size of a frame of MPEG audio from its first four bytes (ISO 11172-3, 13818-3); 0 if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return 0
    version, layer, bit_rate, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or not layer or bit_rate in (0, 15) or rate == 3:
        return 0
    kbits = BIT_RATES[1 if version == 3 else 2, layer][bit_rate]
    hertz = (44100, 48000, 32000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    padding = head[2] >> 1 & 1
    if layer == 3:
        return (12000 * kbits // hertz + padding) * 4
    return (72000 if layer == 1 and version != 3 else 144000) * kbits // hertz + padding


@cache
def _sizes() -> list[int]:
    """Return `frame_size` by the second and third byte of a frame."""
    return [frame_size(bytes([0xFF, number >> 8, number & 255, 0])) for number in range(1 << 16)]


def has_frames(data: bytes) -> bool:
    """Return whether bytes contain two frames of MPEG audio in a row."""
    sizes = (frame_size(data[i : i + 4]) for i in range(len(data)) if data[i] == 0xFF)
    starts = (i for i in range(len(data)) if data[i] == 0xFF)
    return any(size and frame_size(data[i + size :][:4]) for i, size in zip(starts, sizes, strict=True))


class Frames(NamedTuple):
    """What a walk along the frames of an MP3 or MP2 found.

    There is nothing but frames, apart from other bytes at the end; the last frame is incomplete.
    """

    are_clean: bool
    end_early: bool


def walk_frames(source: ByteSource) -> Frames:
    """Walk along the frames of MPEG audio, from the ID3v2 tag to the tags at the end, by their headers."""
    sizes, position, end = _sizes(), id3_size(source), end_without_tags(source)
    while position < end:
        block = source.read_at(position, min(SEARCHED, end - position))
        at, last = 0, len(block) - 4
        while at <= last and block[at] == 0xFF and (size := sizes[block[at + 1] << 8 | block[at + 2]]):
            at += size
        if at == 0 or (at <= last and position + at < end):
            is_tail = position + at > id3_size(source) and not has_frames(source.read_at(position + at, TAIL))
            return Frames(is_tail, not is_tail and _ends_early(source, end))
        position += at
    return Frames(position >= end > id3_size(source), position > end)


def _ends_early(source: ByteSource, end: int) -> bool:
    """Return whether the last frame of MPEG audio with other bytes among its frames is incomplete."""
    tail, sizes = source.read_at(max(0, end - TAIL), min(TAIL, end)), _sizes()
    for first in range(max(0, len(tail) - 3)):
        at, n_frames, size = first, 0, 0
        while at + 4 <= len(tail) and tail[at] == 0xFF and (size := sizes[tail[at + 1] << 8 | tail[at + 2]]):
            at, n_frames = at + size, n_frames + 1
        if n_frames >= 4:
            return at > len(tail) or (0 < len(tail) - at < 4 and tail[at] == 0xFF)
    return False
