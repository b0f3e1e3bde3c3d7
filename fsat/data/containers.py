"""What the headers of audio files promise, compared with the bytes that are there.

Decoders believe a header: they stop where it says, or deliver fewer samples without a word. The functions here find
out, without decoding, whether the sizes in a file agree with its length. Offsets and sizes are in bytes.

Sources: RIFF/WAVE (Microsoft 1991), RF64 (EBU Tech 3306), Sony Wave64, AIFF/AIFC (Apple 1989, 1991), CAF (Apple 2006),
AU (Sun 1992), Ogg (RFC 3533), FLAC (RFC 9639).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fsat.data.byte_source import SEARCHED, TAIL, ByteSource
from fsat.data.mpeg import id3_size

Order = Literal["little", "big"]

W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
PIPE = 0x7FFFF000  # sizes of 32 bits from here on stand for "unknown", as written into a pipe
MAX_CHUNKS = 100_000
MIN_HIDDEN = 1024  # bytes after the samples that count as samples, if they are nothing else
STARTS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b".snd", W64_RIFF)
CHUNKS = frozenset(
    (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"smpl", b"JUNK", b"junk", b"free", b"COMT", b"NAME")
)
"""Chunks that may stand after the samples even if they are cut off."""

FOREIGN = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN", b"3DI", b"PK\3\4", b"\xff\xd8\xff", b"\x89PNG", b"%PDF")
"""Beginnings of tags and of files of other kinds that stand after the samples."""


@dataclass(frozen=True)
class Layout:
    """Where a file whose header has a size has its samples.

    Attributes:
        start, end: of the samples that are there.
        promised: bytes of samples by the header; None if it does not know.
        size_at, size_bytes, order: offset, width and byte order of that number in the header.
        extra: bytes that this number counts besides the samples.
        following: offset of another file that was joined to this one; 0 if there is none.
    """

    start: int
    end: int
    promised: int | None
    size_at: int
    size_bytes: int
    order: Order
    extra: int = 0
    following: int = 0

    @property
    def is_cut(self) -> bool:
        """Whether the header promises more samples than there are."""
        return self.promised is not None and self.promised > self.end - self.start

    @property
    def is_wrong(self) -> bool:
        """Whether there are more samples than the header promises."""
        return self.promised is not None and self.promised < self.end - self.start

    def size_field(self, size: int) -> bytes | None:
        """Return the number in the header for `size` bytes of samples; None if it has too few bits."""
        value = size + self.extra
        return value.to_bytes(self.size_bytes, self.order) if value < 1 << 8 * self.size_bytes else None


@dataclass(frozen=True)
class _Chunks:
    """How a container is made of chunks: a name, a size and a body, whose end is aligned."""

    first: int
    name_bytes: int
    size_bytes: int
    order: Order
    align: int
    data: bytes
    own: int = 0  # bytes of name and size that the size counts
    before: int = 0  # bytes between the size of the data chunk and the samples


_RIFF = _Chunks(12, 4, 4, "little", 2, b"data")
_CONTAINERS = {
    b"RIFF": _RIFF,
    b"RF64": _RIFF,
    b"BW64": _RIFF,
    b"RIFX": _Chunks(12, 4, 4, "big", 2, b"data"),
    b"FORM": _Chunks(12, 4, 4, "big", 2, b"SSND", before=8),
    b"caff": _Chunks(8, 4, 8, "big", 1, b"data", before=4),
    b"riff": _Chunks(40, 16, 8, "little", 8, b"data", own=24),
}


def find_layout(source: ByteSource) -> Layout | None:
    """Return where the samples of a WAV, RF64, W64, AIFF, CAF or AU file are; None for other or unreadable files."""
    layout = _find_layout(source)
    return layout if layout is not None and 0 <= layout.start <= layout.end else None


def _find_layout(source: ByteSource) -> Layout | None:
    start = source.read_at(0, 16)
    if start[:4] in (b".snd", b"dns."):
        return _au_layout(source, start)
    chunks = _CONTAINERS.get(start[:4])
    if chunks is None or (start[:4] == b"riff" and start != W64_RIFF):
        return None
    if start[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and start[8:12] != b"WAVE":
        return None
    if start[:4] == b"FORM" and start[8:12] in (b"8SVX", b"16SV"):
        chunks = replace(chunks, data=b"BODY", before=0)
    elif start[:4] == b"FORM" and start[8:12] not in (b"AIFF", b"AIFC"):
        return None
    return _chunk_layout(source, chunks)


def _au_layout(source: ByteSource, start: bytes) -> Layout:
    order: Order = "big" if start[:1] == b"." else "little"
    first, size = (int.from_bytes(start[i : i + 4], order) for i in (4, 8))
    return _with_tail(source, Layout(first, source.size, None if size >= PIPE else size, 8, 4, order), first + size)


def _chunk_layout(source: ByteSource, chunks: _Chunks) -> Layout | None:
    position, header = chunks.first, chunks.name_bytes + chunks.size_bytes
    size_of_ds64: tuple[int, int] | None = None
    for _ in range(MAX_CHUNKS):
        head = source.read_at(position, header + 16)
        if len(head) < header:
            return None
        name, size = head[:4], int.from_bytes(head[chunks.name_bytes : header], chunks.order) - chunks.own
        if name == chunks.data:
            break
        if name == b"ds64":
            size_of_ds64 = position + header + 8, int.from_bytes(head[header + 8 : header + 16], "little")
        if size < 0:
            return None
        position += header + size + -(header + size) % chunks.align
    else:
        return None
    before = chunks.before + (int.from_bytes(head[header : header + 4], "big") if chunks.data == b"SSND" else 0)
    start, promised = position + header + before, max(0, size - before)
    size_at, size_bytes, is_unknown = position + chunks.name_bytes, chunks.size_bytes, False
    if size_of_ds64 and size == 0xFFFFFFFF:
        (size_at, promised), size_bytes = size_of_ds64, 8
        is_unknown = promised == 0xFFFFFFFFFFFFFFFF
    elif size_bytes == 4:
        is_unknown = size >= PIPE and start + promised > source.size
    elif chunks.data == b"data" and chunks.order == "big":
        is_unknown = size == 0xFFFFFFFFFFFFFFFF  # CAF's -1
    end = start + promised + -promised % chunks.align
    layout = Layout(
        start, source.size, None if is_unknown else promised, size_at, size_bytes, chunks.order, before + chunks.own
    )
    return _with_tail(source, layout, end, chunks)


def _with_tail(source: ByteSource, layout: Layout, after: int, chunks: _Chunks | None = None) -> Layout:
    """Return the layout with the end of the samples, for a header by which other bytes begin at `after`."""
    if layout.promised is None:
        return layout
    end = layout.start + layout.promised
    if after >= source.size:
        return replace(layout, end=min(end, source.size))
    rest = _after_chunks(source, after, chunks) if chunks else after
    head = source.read_at(rest, 20)
    for padding in range(4):
        if head.startswith(STARTS, padding):
            return replace(layout, end=end, following=rest + padding)
    is_short = source.size - rest < MIN_HIDDEN
    return replace(layout, end=end) if is_short or head.startswith(FOREIGN) or _is_filling(source, rest) else layout


def _after_chunks(source: ByteSource, position: int, chunks: _Chunks) -> int:
    """Return the offset after the chunks that begin at `position`, which is that itself if the bytes are none."""
    header = chunks.name_bytes + chunks.size_bytes
    for _ in range(MAX_CHUNKS):
        head = source.read_at(position, header)
        if position >= source.size or len(head) < header or head.startswith(STARTS):
            return min(position, source.size)
        size = int.from_bytes(head[chunks.name_bytes : header], chunks.order) - chunks.own
        if size < 0 or not all(32 <= byte < 127 for byte in head[:4]):
            return position
        following = position + header + size + -(header + size) % chunks.align
        if following > source.size + 1 and head[:4] not in CHUNKS:
            return position
        position = following
    return position


def _is_filling(source: ByteSource, position: int) -> bool:
    """Return whether the bytes from `position` on are all equal, or text."""
    sample = source.read_at(position, TAIL)
    is_text = sum(byte in b"\t\n\r" or 32 <= byte < 127 for byte in sample) > 0.95 * len(sample)
    if not is_text and len(set(sample)) > 1:
        return False
    last = source.read_at(max(position, source.size - TAIL), TAIL)
    return is_text or set(last) == set(sample)


def ogg_has_end(source: ByteSource) -> bool:
    """Return whether the last page of an Ogg file is whole and ends the stream."""
    tail = source.read_at(max(0, source.size - 2 * TAIL), 2 * TAIL)
    position = tail.rfind(b"OggS")
    size = _page_size(tail[position:]) if position >= 0 else 0
    return 0 < size <= len(tail) - position and bool(tail[position + 5] & 4)


def _page_size(page: bytes) -> int:
    """Return the size of an Ogg page; 0 if its header is not whole."""
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return 27 + len(segments) + sum(segments) if len(page) > 26 and len(segments) == page[26] else 0


def find_following(source: ByteSource, thorough: bool = True) -> int:
    """Return the offset of the second of several Ogg, MP4 or FLAC files that were joined; 0 if there is none.

    Unless `thorough`, FLAC files are not searched, which takes long for their size.
    """
    start = source.read_at(0, 12)
    if start[:4] == b"OggS":
        position = 0
        while (page := source.read_at(position, 300))[:6] == b"OggS\0\2" and (size := _page_size(page)):
            position += size  # the first pages of streams that are played together
        return find_bytes(source, b"OggS\0\2", max(1, position))
    if start[:4] in (b"fLaC", b"TTA1", b"FLV\1", b"#!AM") and (thorough or start[:4] != b"fLaC"):
        return find_bytes(source, start[:6], 6)
    return _find_mp4(source) if start[4:8] == b"ftyp" else 0


def _find_mp4(source: ByteSource) -> int:
    """Return the offset of the second MP4 in a file, 0 if there is none: its boxes follow those of the first."""
    position = 0
    for _ in range(MAX_CHUNKS):
        head = source.read_at(position, 16)
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:16], "big") if size == 1 else size
        if position and head[4:8] == b"ftyp":
            return position
        if len(head) < 8 or size < 8:
            return 0
        position += size
    return 0


def find_bytes(source: ByteSource, text: bytes, start: int) -> int:
    """Return the first offset of some bytes from `start` on; 0 if they are not there."""
    while start < source.size:
        block = source.read_at(start, SEARCHED)
        if (position := block.find(text)) >= 0:
            return start + position
        if len(block) < SEARCHED:
            return 0
        start += SEARCHED - len(text)
    return 0


@dataclass(frozen=True)
class StreamInfo:
    """What the header of a FLAC says: bits of a sample, number of samples (0 if unknown), and MD5 of all samples."""

    bits: int
    frames: int
    md5: bytes


def find_stream_info(source: ByteSource) -> StreamInfo | None:
    """Return the STREAMINFO block of a FLAC; None for other files."""
    start = id3_size(source)
    head = source.read_at(start, 42)
    if head[:4] != b"fLaC" or len(head) < 42:
        return None
    facts = int.from_bytes(head[18:26], "big")
    return StreamInfo((facts >> 36 & 31) + 1, facts & (1 << 36) - 1, head[26:42])
