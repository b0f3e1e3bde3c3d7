"""Readers of one audio file or part of a file: libsndfile, and FFmpeg through PyAV for what libsndfile cannot read.

Conventions: a reader yields float32 (n, channels) in about [-1, 1], at `samplerate` in Hz, from front to back. It never
prints. It ends with the audio, or raises `AudioError` with the reason where the audio becomes unreadable; what it
yielded before is right. `frames` is the number of samples per channel that the header states, 0 if unknown.

FFmpeg is optional. It is given bytes, never a name, and only formats that contain audio, so that a playlist cannot make
it open other files or addresses.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fsat.data.byte_source import ByteSource, Window
from fsat.data.mpeg import end_without_tags
from fsat.errors import AudioError

if TYPE_CHECKING:
    import av

EXTRA = 'pip install "fsat[media]"'
UNKNOWN = 1 << 50  # libsndfile's number of samples, or more, if the header does not know it
SMALL = 1 << 10  # samples of the reads that find out how far a damaged file can be read
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gsm,iff,ircam,loas,matroska,matroska,webm,"
    "mov,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,nistsphere,oga,ogg,qcp,rm,shn,sox,tak,tta,voc,w64,wav,wv"
)
"""Formats that FFmpeg may read: none that refers to other files."""

PADDING = 1 << 12  # samples that the encoder of an MP4 may have added at its end, at most

ESTIMATED = {"aac", "ac3", "amr", "amrnb", "amrwb", "eac3", "gsm", "loas", "mp3", "mpeg", "mpegts", "dts"}
"""Formats whose length FFmpeg estimates from the bit rate: it is not a promise of the header."""

SCALES = {"u8": 2**-7, "s16": 2**-15, "s32": 2**-31, "flt": 1.0, "dbl": 1.0}
"""Factors that bring FFmpeg's sample formats to [-1, 1]."""

SUBTYPES = {"u8": "PCM_U8", "s16": "PCM_16", "s32": "PCM_32"}
"""Names that soundfile has for FFmpeg's sample formats of whole numbers."""


class SoundfileReader:
    """Reads with libsndfile.

    Attributes:
        format, subtype: names as soundfile has them, such as ``WAV`` and ``PCM_16``.
    """

    def __init__(
        self,
        source: ByteSource,
        patches: Mapping[int, bytes] | None = None,
        window: Window | None = None,
        is_quiet: bool = False,
        **raw: Any,
    ) -> None:
        """Open a file.

        Args:
            source: its bytes.
            patches: bytes to read instead of those at these offsets.
            window: the part of the file to read.
            is_quiet: suppress what libsndfile's decoder of MP3 prints.
            raw: format of samples without a header, as for `soundfile.SoundFile`.
        """
        self._arguments, self._errors = (source, patches, window, is_quiet), _quiet if is_quiet else _in_our_words
        self._raw = raw
        self._handle: Any = window or Window(source, patches=patches)
        if source.descriptor is not None and source.is_whole and not (patches or window):
            source.rewind()
            self._handle = source.descriptor
        with self._errors():
            self._file = _stream_type()(self._handle, closefd=False, **raw)
        self.samplerate, self.channels = self._file.samplerate, self._file.channels
        self.format, self.subtype, self.endian = self._file.format, self._file.subtype, self._file.endian
        self.frames = 0 if self._file.frames >= UNKNOWN else self._file.frames

    def read(self, n_frames: int) -> Iterator[np.ndarray]:
        """Yield the samples, about `n_frames` at a time; where a block is faulty, what small blocks still give."""
        done = 0
        while not self.frames or done < self.frames:
            n_next = min(n_frames, self.frames - done) if self.frames else n_frames
            try:
                with self._errors():
                    block = self._file.read(n_next, dtype="float32", always_2d=True)
            except AudioError:
                if n_frames > SMALL:
                    yield from SoundfileReader(*self._arguments, **self._raw).read_after(done)
                raise
            if not len(block):
                return
            done += len(block)
            yield block

    def read_after(self, n_done: int) -> Iterator[np.ndarray]:
        """Yield the samples after `n_done` in small blocks; end without an error where they become unreadable."""
        done = 0
        with suppress(AudioError):
            for block in self.read(SMALL):
                done += len(block)
                if done > n_done:
                    yield block[-min(len(block), done - n_done) :]
        self.close()

    def read_integers(self, n_frames: int) -> Iterator[np.ndarray]:
        """Yield the samples as int32 whose highest bits are those of the file."""
        with _in_our_words():
            while len(block := self._file.read(n_frames, dtype="int32", always_2d=True)):
                yield block

    def position(self) -> int:
        """Return the number of bytes that have been read."""
        is_descriptor = isinstance(self._handle, int)
        return os.lseek(self._handle, 0, os.SEEK_CUR) if is_descriptor else int(self._handle.tell())

    def close(self) -> None:
        """Close libsndfile's file; the source stays open."""
        self._file.close()


@cache
def _stream_type() -> Any:
    import soundfile as sf

    class Stream(sf.SoundFile):  # type: ignore[misc]  # soundfile has no types
        """Read from front to back: soundfile seeks after every read of a seekable file, which not every file can."""

        def seekable(self) -> bool:
            return False

    return Stream


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Turn the errors of libsndfile into an `AudioError`."""
    import soundfile as sf

    try:
        yield
    except (sf.SoundFileError, OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        reasons = {1: "unknown format", 2: "it cannot be read", 4: "unknown encoding"}
        reason = (
            "too little memory" if isinstance(error, MemoryError) else reasons.get(getattr(error, "code", 0), "damaged")
        )
        raise AudioError(f"unreadable audio ({reason})") from error


_QUIET_LOCK = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress standard error, C code's included, as well; only for files that libsndfile prints about."""
    with _QUIET_LOCK, open(os.devnull, "wb") as nothing:
        stderr = os.dup(2)
        os.dup2(nothing.fileno(), 2)
        try:
            with _in_our_words():
                yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def has_ffmpeg() -> bool:
    """Return whether PyAV is installed."""
    try:
        import av
    except ImportError:
        return False
    return bool(av.__version__)


class FfmpegReader:
    """Reads the first audio stream of a file with FFmpeg.

    Attributes:
        subtype: the name of its whole numbers in soundfile, such as ``PCM_16``; empty if they are floats.
        is_damaged: what follows the samples so far could not be decoded.
        n_skipped: places where packets of a stream without times could not be decoded and were left out.
    """

    def __init__(self, source: ByteSource) -> None:
        import av

        self._window = Window(source, end=end_without_tags(source))
        self.is_damaged, self.n_skipped = False, 0
        self._container: av.container.InputContainer
        try:
            self._container = av.open(self._window, "r", options={"format_whitelist": FORMATS})
        except (av.FFmpegError, ValueError, OSError, RuntimeError, MemoryError) as error:
            is_cut = source.read_at(4, 4) == b"ftyp"
            reason = "cut off: its index, which is at the end, is missing" if is_cut else "unknown format"
            raise AudioError(f"unreadable audio ({reason})") from error
        if not self._container.streams.audio:
            raise AudioError("no audio in it, only other streams")
        stream = self._stream = self._container.streams.audio[0]
        if stream.codec_context is None:
            raise AudioError("unreadable audio (unknown encoding)")
        if stream.codec_context.name == "flac":
            stream.codec_context.options = {"err_detect": "crccheck+explode"}  # or it decodes damaged frames to noise
        self.samplerate, self.channels = stream.codec_context.sample_rate, stream.codec_context.channels
        self.format, self.n_streams = self._container.format.name, len(self._container.streams.audio)
        if not self.samplerate or not self.channels:
            raise AudioError("unreadable audio (damaged)")
        sample_format = stream.codec_context.format
        self.subtype = SUBTYPES.get(sample_format.name.removesuffix("p") if sample_format else "", "")
        self.frames = 0
        if not ESTIMATED & set(self.format.split(",")):
            seconds = self._container.duration / 1e6 if self._container.duration else 0.0
            if stream.duration is not None and stream.time_base is not None:
                seconds = float(stream.duration * stream.time_base)
            self.frames = max(0, round(seconds * self.samplerate))

    def read(self, n_frames: int) -> Iterator[np.ndarray]:
        """Yield the samples, about `n_frames` at a time.

        Raises `AudioError` where packets that cannot be decoded are followed by others, or the stream changes.
        """
        parts: list[np.ndarray] = []
        size = done = 0
        fault = ""
        for frame in self._decoded():
            if fault := self._fault_of(frame, done + size):
                break
            parts.append(_to_float(frame))
            size += len(parts[-1])
            if size >= n_frames + PADDING:
                block = np.concatenate(parts)
                yield block[:-PADDING]
                done, parts, size = done + size - PADDING, [block[-PADDING:]], PADDING
        if size:
            block = np.concatenate(parts)
            excess = done + size - self.frames if "mp4" in self.format else 0
            yield block[:-excess] if 0 < excess < min(PADDING, size) else block
        if fault:
            raise AudioError(fault)

    def _decoded(self) -> Iterator[av.AudioFrame]:
        """Yield the frames; `is_damaged` is set while packets cannot be decoded."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except (av.FFmpegError, OSError, ValueError) as error:
                self.is_damaged = True
                if isinstance(error, av.InvalidDataError):
                    continue
                return
            yield from frames

    def _fault_of(self, frame: av.AudioFrame, n_before: int) -> str:
        """Return why the samples from a frame on cannot be used; an empty text if they can."""
        if frame.sample_rate != self.samplerate:
            return f"its sampling rate changes from {self.samplerate} to {frame.sample_rate} Hz"
        if len(frame.layout.channels) != self.channels:
            return f"its number of channels changes from {self.channels} to {len(frame.layout.channels)}"
        was_damaged, self.is_damaged = self.is_damaged and n_before > 0, False
        if was_damaged and ESTIMATED & set(self.format.split(",")):
            self.n_skipped += 1
            return ""
        return "damaged" if was_damaged else ""

    def position(self) -> int:
        """Return the number of bytes that have been read."""
        return self._window.tell()

    def close(self) -> None:
        """Release FFmpeg's memory; the source stays open."""
        self._container.close()


def _to_float(frame: av.AudioFrame) -> np.ndarray:
    """Return the samples of a frame, float32 (n, channels); raise `AudioError` if NumPy has no such numbers."""
    try:
        samples, name = frame.to_ndarray(), frame.format.name
    except ValueError as error:
        raise AudioError("unreadable audio (unknown encoding)") from error
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, len(frame.layout.channels))
    name = name.removesuffix("p")
    if name == "u8":
        samples = samples.astype(np.float32) - 128
    with np.errstate(all="ignore"):  # damaged samples may be anything
        return samples.astype(np.float32, copy=False) * np.float32(SCALES[name])
