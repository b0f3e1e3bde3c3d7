"""Cut pieces out of a recording of any length, as WAV files with its very samples.

Conventions: a piece has the recording's sampling rate and channels. Samples of 8, 16 and 24 bits stay as they are,
those of 32 bits or floating point become 32-bit floats, and those of compressed formats, such as MP3, 16 bits. The
recording is read once, from front to back in blocks, up to the end of its last piece. Times are in seconds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsat import interrupts
from fsat.data.audio import BLOCK
from fsat.data.byte_source import AudioSource, ByteSource
from fsat.data.recording import Recording
from fsat.errors import AudioError, FsatError
from fsat.files import disk_errors, replace_whole

WAV_SUBTYPES = {
    **dict.fromkeys(("PCM_U8", "PCM_S8", "DPCM_8"), "PCM_U8"),
    **dict.fromkeys(("PCM_24", "ALAC_20", "ALAC_24", "DWVW_24"), "PCM_24"),
    **dict.fromkeys(("PCM_32", "ALAC_32", "FLOAT", "DOUBLE"), "FLOAT"),
}
"""How the samples of a piece are stored, by those of the recording; 16 bits for all others."""

BITS = {"PCM_U8": (8, np.int16), "PCM_16": (16, np.int16), "PCM_24": (24, np.int32)}
"""Bits of a sample, and the type in which libsndfile takes it, in the highest bits."""

LARGEST_WAV = 4_000_000_000
"""Bytes of samples above which a WAV file is an RF64, whose header has room for more."""

HEADER_BYTES = 256
"""Bytes of a WAV file that have the chunks before its samples."""

ROUNDING = 0.05
"""Seconds by which a recording may end before a piece does: times in tables are rounded."""


@dataclass(frozen=True)
class Piece:
    """A part of a recording to cut out.

    Attributes:
        path: WAV file to write, in a folder that exists.
        start, end: in seconds; the end may be infinite, for that of the recording.
        longest: maximum length; the middle of a longer piece is cut out.
        padding: time to add on either side, as far as the recording has it.
    """

    path: Path
    start: float = 0.0
    end: float = math.inf
    longest: float = math.inf
    padding: float = 0.0


@dataclass(frozen=True)
class Pieces:
    """What was cut out of a recording.

    Attributes:
        spans: start and end of the content of each file; None for a piece that could not be cut out.
        fault: why pieces are missing; empty if none is.
    """

    spans: list[tuple[float, float] | None]
    fault: str = ""


def middle_of(start: float, end: float, longest: float) -> tuple[float, float]:
    """Return start and end of the middle of a span that is longer than `longest`, of unknown length its beginning."""
    if end - start <= longest:
        return start, end
    first = start if math.isinf(end) else start + (end - start - longest) / 2
    return first, first + longest


def cut_pieces(source: AudioSource, pieces: Sequence[Piece]) -> Pieces:
    """Write pieces of a recording, each whole or not at all.

    A piece without an end is what there is of the recording; another is not written if a part of it is missing.

    Raises `AudioError` if the recording cannot be read at all, `StorageError` if the machine fails, and `FsatError` if
    a file cannot be written.
    """
    with closing(ByteSource(source)) as opened, closing(Recording(opened)) as recording, ExitStack() as unfinished:
        cuts = [_Cut(piece, recording) for piece in pieces]
        for cut in cuts:
            unfinished.callback(cut.abandon)
        waiting = sorted(cuts, key=lambda cut: cut.first)
        fault, n_done = "", 0
        try:
            for block in recording.read(max(1, BLOCK // recording.channels)):
                interrupts.check()
                for cut in waiting:
                    if cut.first >= n_done + len(block):
                        break
                    cut.take(block, n_done)
                n_done += len(block)
                waiting = [cut for cut in waiting if not cut.is_whole]
                if not waiting:
                    break
        except AudioError as error:
            if not n_done:
                raise
            fault = str(error)
        for cut in waiting:
            cut.end_early(n_done)
        if not fault and any(cut.span is None for cut in cuts):
            fault = f"the recording ends at {n_done / recording.samplerate:.2f} s"
        return Pieces([cut.span for cut in cuts], fault)


class _Cut:
    """A piece while it is written; `first` and `last` are its samples, the latter not included.

    Attributes:
        span: start and end in seconds once the file is there.
    """

    def __init__(self, piece: Piece, recording: Recording) -> None:
        self._path, self._rate, self._channels = piece.path, recording.samplerate, recording.channels
        length = recording.frames / self._rate or math.inf
        end = length if math.isinf(piece.end) else piece.end
        start, end = middle_of(piece.start, end, piece.longest)
        self.first = max(0, round((start - piece.padding) * self._rate))
        self.last = math.inf  # the header may be wrong about the end
        if math.isfinite(min(piece.end, piece.longest)):
            self.last = max(self.first + 1, round((end + piece.padding) * self._rate))
        self._needed = self.first + 1 if math.isinf(piece.end) else round((end - ROUNDING) * self._rate)
        self._subtype = WAV_SUBTYPES.get(recording.subtype, "PCM_16")
        self._open_file: ExitStack | None = None
        self._unfinished = piece.path
        self._n_written = 0
        self.span: tuple[float, float] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all samples are in the file."""
        return self.span is not None

    def take(self, block: np.ndarray, n_before: int) -> None:
        """Write the samples of a block, which come after `n_before` others, that belong to the piece."""
        begin, end = max(0, self.first - n_before), int(min(len(block), self.last - n_before))
        if begin < end:
            self._write(block[begin:end])
        if n_before + len(block) >= self.last:
            self._finish()

    def end_early(self, n_samples: int) -> None:
        """Finish the file of a recording that ends after `n_samples`, if it has what is needed."""
        if self._n_written and n_samples >= self._needed:
            self._finish()

    def abandon(self) -> None:
        """Remove the file unless it is finished."""
        if self._open_file is not None:
            with suppress(_Abandoned), self._open_file:
                raise _Abandoned

    def _write(self, samples: np.ndarray) -> None:
        import soundfile as sf

        with disk_errors(self._path):
            if self._open_file is None:
                self._open_file = ExitStack()
                self._unfinished = self._open_file.enter_context(replace_whole(self._path))
            try:
                with self._opened() as file:
                    file.seek(0, sf.SEEK_END)
                    file.write(self._converted(samples))
            except sf.SoundFileError as error:
                raise FsatError(f"{self._path}: cannot be written: {error}; free disk space") from error
        self._n_written += len(samples)

    def _opened(self) -> Any:
        """Open the unfinished file, a new one for the first samples, and no longer than for one block."""
        import soundfile as sf

        path = os.fsencode(self._unfinished)  # soundfile does not take a text that is not UTF-8
        if self._n_written:
            return sf.SoundFile(path, "r+")
        n_bytes = (self.last - self.first) * self._channels * 4
        format = "RF64" if LARGEST_WAV < n_bytes < math.inf else "WAV"
        return sf.SoundFile(path, "w", self._rate, self._channels, self._subtype, format=format)

    def _converted(self, samples: np.ndarray) -> np.ndarray:
        """Return float32 samples as whole numbers where the file has these; libsndfile would scale them by 32767."""
        if self._subtype not in BITS:
            return samples
        bits, kind = BITS[self._subtype]
        top = 1 << bits - 1
        whole = np.clip(np.rint(np.nan_to_num(samples) * np.float32(top)), -top, top - 1).astype(kind)
        return np.asarray(whole << (8 * whole.itemsize - bits))

    def _finish(self) -> None:
        assert self._open_file is not None
        with disk_errors(self._path):
            _clear_time(self._unfinished)
            self._open_file.close()
        self._open_file = None
        self.span = self.first / self._rate, (self.first + self._n_written) / self._rate


def _clear_time(path: Path) -> None:
    """Clear the time in the PEAK chunk that libsndfile writes with floats: the same piece is the same file."""
    with open(path, "rb+") as file:
        at = file.read(HEADER_BYTES).find(b"PEAK")
        if at >= 0:
            file.seek(at + 12)
            file.write(bytes(4))


class _Abandoned(Exception):
    """A piece is not finished."""
