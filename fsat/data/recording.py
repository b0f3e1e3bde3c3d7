"""An audio file from front to back: all of it, also where its header is wrong, and a word where something is missing.

libsndfile reads first. Where it stops before the end of the bytes, or fails, FFmpeg goes on if it is installed. What
the header promises is compared with what was read; see `fsat.data.containers`. So a file is either whole, or whole with
a note that its header is wrong, or it ends with `CutOff`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import numpy as np

from fsat.data import containers, mpeg
from fsat.data.byte_source import TAIL, ByteSource, Window
from fsat.data.decoders import EXTRA, FfmpegReader, SoundfileReader, has_ffmpeg
from fsat.data.levels import QUIET
from fsat.errors import AudioError, count

ENCODER_DELAY = 3 * 1152  # samples by which decoders may differ at the ends of a stream
TOLERANCE = 0.05  # seconds by which a file may be shorter than its header says
MAX_LEFT = 512  # unread bytes at the end that are not worth a second look

DAMAGED = re.compile(r"(unreadable audio \()?damaged\)?$")

PROMISES: dict[str, Callable[[bytes, int], int]] = {
    "AVR": lambda head, _: int.from_bytes(head[26:30], "big"),
    "HTK": lambda head, _: int.from_bytes(head[:4], "big"),
    "MPC2K": lambda head, _: int.from_bytes(head[30:34], "little"),
    "NIST": lambda head, _: int((re.search(rb"sample_count -i (\d+)", head) or [0, 0])[1]),
    "WVE": lambda head, _: int.from_bytes(head[18:22], "big"),
    "VOC": lambda head, width: (int.from_bytes(head[27:30], "little") - (12 if head[26] == 9 else 2)) // width,
}
"""Samples per channel that the headers of rare formats promise, by the header and the bytes of a sample; libsndfile
does not compare them with the file."""

UNCHECKED = {"MAT4", "MAT5", "SD2", "SDS", "XI"}
"""Formats in which a missing part cannot be noticed."""


class CutOff(AudioError):
    """The rest of a recording is missing or damaged; the samples so far are right."""


class Recording:
    """An open audio file, or several that were joined to one.

    Attributes:
        samplerate, channels: of the file; the rate is in Hz.
        frames: samples per channel that the header states; 0 if unknown.
        quiet: half of the range of samples that are silent, by the number of bits.
        subtype: how samples are stored, as soundfile names it, such as ``PCM_16``; empty if compressed or unknown.
        notes: what is odd about the file, complete when all of it was read.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source, self.notes = source, list[str]()
        self._part = _Part(source)
        reader = self._part.reader
        self.samplerate, self.channels = reader.samplerate, reader.channels
        self.frames = 0 if self._part.rest else reader.frames
        if isinstance(reader, FfmpegReader) and reader.n_streams > 1:
            self.notes.append(f"several audio streams: the first of {reader.n_streams} is used")
        self.subtype = reader.subtype
        is_coarse = isinstance(reader, SoundfileReader) and reader.subtype in ("PCM_U8", "PCM_S8")
        self.quiet = 1.5 / 128 if is_coarse else QUIET

    def fault_of_header(self) -> str:
        """Return why the file is incomplete, as far as that is known without decoding it; empty if it is whole."""
        return self._part.fault_of_header()

    def read(self, n_frames: int) -> Iterator[np.ndarray]:
        """Yield the samples, float32 (n, channels), about `n_frames` at a time; raise `CutOff` if some are missing."""
        n_parts, done = 1, 0
        while True:
            part, seen = self._part, 0
            try:
                for block in part.read(n_frames):
                    seen += len(block)
                    yield block
            except AudioError as error:
                self.check(part.reader.position())
                if not done + seen:
                    raise
                reason = "" if DAMAGED.match(str(error)) else f": {error}"
                raise CutOff(f"damaged after {_seconds(done + seen, self.samplerate)}{reason}") from error
            done += seen
            fault, note = part.verdict(seen) if seen else ("", "")
            self.notes += [note] if note else []
            if fault:
                self.check(part.reader.position())
                raise CutOff(f"cut off after {_seconds(done, self.samplerate)}{fault}")
            self._source.raise_failures()
            if isinstance(part.reader, FfmpegReader) and part.reader.n_skipped:
                self.notes.append(f"damaged in {count(part.reader.n_skipped, 'place')}: the rest is used")
            if part.rest is None:
                break
            self._part, n_parts = self._following(part.rest, done), n_parts + 1
            part.close()
        if n_parts > 1:
            self.notes.append(f"header wrong: {n_parts} recordings are joined in the file")

    def _following(self, rest: ByteSource, n_done: int) -> _Part:
        """Return the recording that follows in the file; raise `CutOff` if it does not fit."""
        where = f"another recording, which follows after {_seconds(n_done, self.samplerate)}"
        try:
            following = _Part(rest)
        except AudioError as error:
            raise CutOff(f"{where}, cannot be read: {error}") from error
        reader = following.reader
        if (reader.samplerate, reader.channels) != (self.samplerate, self.channels):
            what = f"{reader.samplerate} Hz and {reader.channels} channels"
            raise CutOff(f"{where}, has {what}, not {self.samplerate} Hz and {self.channels}: split the file")
        return following

    def check(self, position: int = 0) -> None:
        """Raise `StorageError` if the machine failed, rather than the file."""
        self._source.check(position)

    def close(self) -> None:
        """Close the decoders; the source stays open."""
        self._part.close()


class _Part:
    """One recording of a file, which may be followed by another one.

    Attributes:
        source: its bytes.
        rest: the bytes of the recordings that follow; None if there are none.
        reader: its decoder.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.rest: ByteSource | None = None
        self.layout = containers.find_layout(source)
        self._is_ogg = source.read_at(0, 4) == b"OggS"
        self._more: FfmpegReader | None = None
        self._ends_damaged = False
        if self.layout is None or self.layout.following:
            self._bound(self.layout.following if self.layout else containers.find_following(source, thorough=False))
        is_mp3 = self.layout is None and _may_be_mp3(self.source)
        self.xing = mpeg.find_xing(self.source) if is_mp3 else None
        self._frames = mpeg.walk_frames(self.source) if is_mp3 else None
        self._is_odd_mp3 = self._frames is not None and not self._frames.are_clean
        is_known = self.layout is not None or self.source.read_at(0, 4) in (b"OggS", b"fLaC")
        is_tiny = mpeg.end_without_tags(self.source) - mpeg.id3_size(self.source) < 1 << 12
        self._is_quiet = self._is_odd_mp3 or (not is_known and (is_tiny or not is_mp3))
        self.reader = self._open()

    def _bound(self, following: int) -> bool:
        """Leave the bytes from an offset on to the next recording, if it is not 0."""
        if following:
            self.source, self.rest = self.source.part(0, following), self.source.part(following)
        return bool(following)

    def _open(self) -> SoundfileReader | FfmpegReader:
        if self._is_odd_mp3 and has_ffmpeg():  # libsndfile's decoder prints what it skips
            return FfmpegReader(self.source)
        try:
            return self._open_with_libsndfile()
        except AudioError as error:
            self.source.check()
            if not has_ffmpeg():
                raise AudioError(f"{error}; more formats are read after {EXTRA}") from error
            try:
                return FfmpegReader(self.source)
            except AudioError as other:
                raise (other if "unknown" in str(error) else error) from error

    def _open_with_libsndfile(self) -> SoundfileReader:
        layout, source = self.layout, self.source
        if layout is not None and (layout.is_wrong or layout.is_cut):
            size = layout.end - layout.start
            field = layout.size_field(size)
            if field is not None and (layout.size_bytes > 4 or size < containers.PIPE):
                return SoundfileReader(source, {layout.size_at: field})
            header = SoundfileReader(source, {layout.size_at: layout.size_field(TAIL) or b""})
            kind = {"format": "RAW", "subtype": header.subtype, "endian": layout.order.upper()}
            shape = {"samplerate": header.samplerate, "channels": header.channels}
            return SoundfileReader(source, window=Window(source, layout.start, layout.end), **kind, **shape)
        if self.xing is not None and self.xing.size:
            actual = mpeg.end_without_tags(source) - self.xing.start
            if abs(actual - self.xing.size) > 0.005 * actual:  # libsndfile's decoder prints a warning otherwise
                patches = {self.xing.size_at: actual.to_bytes(4, "big")}
                return SoundfileReader(source, patches, is_quiet=self._is_quiet)
        reader = SoundfileReader(source, is_quiet=self._is_quiet)
        if reader.format == "W64" and layout is not None and layout.end < source.size:  # whose size it ignores
            reader = SoundfileReader(source, window=Window(source, end=layout.end))
        if reader.format in UNCHECKED:
            raise AudioError(f"unreadable audio (a missing part of a {reader.format} file is not noticed: convert it)")
        return reader

    def read(self, n_frames: int) -> Iterator[np.ndarray]:
        """Yield the samples; raise `AudioError` where they become unreadable."""
        reader, seen, fault = self.reader, 0, None
        if isinstance(reader, FfmpegReader):
            yield from reader.read(n_frames)
            self._ends_damaged = reader.is_damaged
            n_left = self.source.size - reader.position()
            if n_left > MAX_LEFT and reader.format in ("wv", "ape"):
                raise AudioError(f"{n_left} bytes that follow cannot be read")
            return
        n_frames = min(n_frames, reader.frames) if reader.frames else n_frames
        try:
            for block in reader.read(n_frames):
                seen += len(block)
                yield block
        except AudioError as error:
            fault = error
        n_left = 0 if self.layout else mpeg.end_without_tags(self.source) - reader.position()
        if fault or not seen or n_left > MAX_LEFT or (reader.format == "FLAC" and self.source.size < TAIL):
            yield from self._read_on(seen, n_frames, fault, n_left)

    def _read_on(self, n_done: int, n_frames: int, fault: AudioError | None, n_left: int) -> Iterator[np.ndarray]:
        """Yield what is still there after the first samples; raise `AudioError` if it cannot be read."""
        if self._bound(containers.find_following(self.source)):
            yield from SoundfileReader(self.source).read_after(n_done)
            return
        if n_done >= self.reader.frames > 0 and n_left <= MAX_LEFT:
            return
        if not has_ffmpeg():
            if fault or self._has_audio(n_left):
                raise AudioError(f"{fault or f'{n_left} bytes that follow were not read'}; more is read after {EXTRA}")
            return
        with suppress(AudioError):
            self._more = FfmpegReader(self.source)
        reader = self._more
        if reader is None or (reader.samplerate, reader.channels) != (self.reader.samplerate, self.reader.channels):
            if fault or self._has_audio(n_left):
                raise fault or AudioError(f"{n_left} bytes that follow cannot be read")
            return
        seen, least = 0, n_done if fault or not n_done or n_done < self.reader.frames else n_done + ENCODER_DELAY
        pending: list[np.ndarray] = []
        for block in reader.read(n_frames):
            seen += len(block)
            if seen > n_done:
                pending.append(block[-min(len(block), seen - n_done) :])
            if seen > least:
                yield from pending
                pending = []
        self._ends_damaged = fault is not None and (reader.is_damaged or seen <= n_done)

    def _has_audio(self, n_left: int) -> bool:
        """Return whether the unread bytes contain frames of MPEG audio or the start of another file."""
        rest = self.source.read_at(self.source.size - n_left, TAIL)
        if self.source.read_at(0, 4) in rest:
            return True
        return mpeg.has_frames(rest)

    def fault_of_header(self) -> str:
        """See `Recording.fault_of_header`."""
        layout = self.layout
        if layout is not None and layout.is_cut and layout.promised is not None:
            n_missing = layout.promised - (layout.end - layout.start)
            return f"cut off: the header promises {layout.promised} bytes of samples, {n_missing} are missing"
        return "cut off: the stream has no end" if self._has_no_end() else ""

    def _has_no_end(self) -> bool:
        return self._is_ogg and not containers.ogg_has_end(self.source)

    def verdict(self, n_read: int) -> tuple[str, str]:
        """Return what is missing after `n_read` samples, and what is wrong with the header; empty texts if nothing."""
        rate, promised = self.reader.samplerate, self._promised(n_read)
        if self._has_no_end():
            return ": the stream has no end", ""
        is_short = promised is None or n_read < promised
        if self._is_cut() or (self._ends_damaged and is_short):
            return f" of {_seconds(promised, rate)}" if promised and is_short else ": its last part is incomplete", ""
        tolerance = 0 if self.reader.format == "FLAC" else TOLERANCE * rate
        if promised is None or (n_read and abs(n_read - promised) <= tolerance):
            return "", ""
        if n_read < promised and not self._is_whole():
            return f" of {_seconds(promised, rate)}", ""
        return "", f"header wrong: it says {_seconds(promised, rate)}, the file has {_seconds(n_read, rate)}"

    def _is_cut(self) -> bool:
        """Return whether the file ends within one of its frames or packets."""
        name, source = self.reader.format.lower(), self.source
        if name == "mpegts":
            return mpeg.end_without_tags(source) % 188 > 0
        if name == "avi":
            return int.from_bytes(source.read_at(4, 4), "little") + 8 > source.size
        return name == "mp3" and self._frames is not None and self._frames.end_early

    def _promised(self, n_read: int) -> int | None:
        """Return the samples per channel that the header promises; None if it does not know."""
        layout, reader = self.layout, self.reader
        if layout is not None:
            share = 1.0 if layout.promised is None else layout.promised / max(1, layout.end - layout.start)
            return round(n_read * share)
        if self._frames is not None:
            if self.xing is None or not self.xing.frames:
                return None
            is_trimmed = isinstance(reader, SoundfileReader)  # by what the encoder has added
            samples = reader.frames if is_trimmed else self.xing.frames * self.xing.samples_per_frame
            return n_read if abs(samples - n_read) <= (0 if is_trimmed else ENCODER_DELAY) else samples
        if isinstance(reader, SoundfileReader) and reader.format in PROMISES:
            width = 1 if reader.subtype in ("PCM_U8", "PCM_S8", "ULAW", "ALAW") else 2
            return PROMISES[reader.format](self.source.read_at(0, 1 << 12), width) or None
        return reader.frames or None

    def _is_whole(self) -> bool:
        """Return whether a file with fewer samples than its header promises has all that it ever had."""
        if self.xing is not None and self.xing.size:
            return mpeg.end_without_tags(self.source) - self.xing.start >= self.xing.size - 1
        info = containers.find_stream_info(self.source)
        return info is not None and any(info.md5) and info.md5 == self._md5(info.bits)

    def _md5(self, bits: int) -> bytes:
        """Return the MD5 of the samples of a FLAC as its header has it."""
        digest, size = hashlib.md5(usedforsecurity=False), -(-bits // 8)
        reader = SoundfileReader(self.source)
        with closing(reader), suppress(AudioError):  # after an error the digest is that of fewer samples
            for block in reader.read_integers(1 << 20):
                samples = (block >> 32 - bits).astype("<i4").view(np.uint8).reshape(-1, 4)
                digest.update(samples[:, :size].tobytes())
        return digest.digest()

    def close(self) -> None:
        """Close the decoders."""
        self.reader.close()
        if self._more is not None:
            self._more.close()


def _may_be_mp3(source: ByteSource) -> bool:
    head = source.read_at(0, 2)
    return head == b"ID" or (len(head) == 2 and head[0] == 0xFF and head[1] >= 0xE0)


def _seconds(n_samples: int, samplerate: int) -> str:
    return f"{n_samples / samplerate:.2f} s"
