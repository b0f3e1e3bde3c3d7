"""Tags of recordings for other programs: label tracks for Audacity and selection tables for Raven, one per recording.

Conventions: times are in seconds. A recording without tags has an empty track, or a table that is a header only.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath

from fsat.data.audio import rate_of
from fsat.data.clip_names import stored_name
from fsat.errors import AudioError, StorageError, count, printable
from fsat.files import write_whole
from fsat.tagging.tables import Span, Tags, shown

BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")
"""Matches what would end a cell or a line."""

RAVEN_COLUMNS = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Begin File",
    "Annotation", "Score", "Begin Path", "File Offset (s)",
)  # fmt: skip
"""Raven Pro's own columns, and ``Annotation`` and ``Score``, which it shows as annotations. By the last two it opens
the recording itself, if the table is opened as a sound selection table."""

RAVEN_VIEW = "Spectrogram 1"
"""Name of a sound window's first spectrogram."""


class Tracks:
    """Files with the tags of recordings in and below a folder, in the subfolders that a recording's name has.

    Attributes:
        what: a noun for such a file.
        renamed: recordings whose file has a number, as that of another has the same name, and the paths.
    """

    what, ending = "", ""

    def __init__(self, folder: Path) -> None:
        self._folder, self._given = folder, set[str]()
        self.renamed: list[tuple[str, Path]] = []

    def write(self, fname: str, rows: Sequence[Tags | Span]) -> None:
        """Write the file of another recording."""
        text = self.text_of(fname, [row for row in rows if isinstance(row, Span) and row.label])
        write_whole(self._path_of(fname), lambda unfinished: unfinished.write_text(text, encoding="utf-8"))

    def text_of(self, fname: str, spans: Sequence[Span]) -> str:
        """Return the text of a recording's file, given its tags."""
        raise NotImplementedError

    def stem_of(self, name: str) -> str:
        """Return the name of a recording's file without its ending, given the recording's."""
        return name

    def _path_of(self, fname: str) -> Path:
        """Return a path that was not given before; names that differ in case alone may be one file elsewhere."""
        parts = [part for part in PurePath(fname).parts if part not in ("..", os.sep, PurePath(fname).anchor)] or ["_"]
        stem, number = self.stem_of(parts[-1]), 1
        path = self._folder.joinpath(*parts[:-1], f"{stem}{self.ending}")
        while (key := unicodedata.normalize("NFC", str(path)).casefold()) in self._given:
            number += 1
            path = path.with_name(f"{stem} ({number}){self.ending}")
        self._given.add(key)
        if number > 1:
            self.renamed.append((fname, path))
        return path

    def warning(self) -> str:
        """Return a line about the files that have a number; empty if none has."""
        if not self.renamed:
            return ""
        name, path = self.renamed[0]
        numbered = f"{count(len(self.renamed), self.what)} with a number, as another has the same name"
        return f"warning: {numbered}; first that of {printable(name)}, {printable(path)}"


class LabelTracks(Tracks):
    """Label tracks for Audacity, ``day.wav.txt`` for ``day.wav``: start, end and label, separated by tabs."""

    what, ending = "label track", ".txt"

    def text_of(self, fname: str, spans: Sequence[Span]) -> str:
        """See `Tracks.text_of`."""
        return "".join(f"{span.start:.6f}\t{span.end:.6f}\t{BREAKS.sub(' ', span.label)}\n" for span in spans)


class RavenTables(Tracks):
    """Selection tables for Raven, ``day.Table.1.selections.txt`` for ``day.wav``, as Raven Pro names them.

    A table is tab-separated text. It has the columns that Raven Pro saves and BirdNET-Analyzer writes for it
    (github.com/birdnet-team/BirdNET-Analyzer, pull requests 188 and 306). A selection is a box in the first channel,
    from 0 Hz to the highest frequency that the tagger hears of the recording: half the lower of their sampling rates.

    Args:
        folder: where the tables go.
        root: folder that the recordings' names are relative to.
        highest_rate: the highest sampling rate of the tagger's models, in Hz.
    """

    what, ending = "Raven table", ".Table.1.selections.txt"

    def __init__(self, folder: Path, root: Path, highest_rate: int) -> None:
        super().__init__(folder)
        self._root, self._rate = root, highest_rate

    def stem_of(self, name: str) -> str:
        """See `Tracks.stem_of`."""
        return PurePath(name).stem

    def text_of(self, fname: str, spans: Sequence[Span]) -> str:
        """See `Tracks.text_of`."""
        rate, path = self._rate, self._root / stored_name(self._root, fname)
        with suppress(AudioError, StorageError):  # the recording may have gone since it was tagged
            rate = min(rate, rate_of(path))
        file = shown(path.name)
        lines = [RAVEN_COLUMNS]
        for number, span in enumerate(spans, 1):
            start = f"{span.start:.6f}"
            box = start, f"{span.end:.6f}", "0.0", f"{rate / 2:.1f}"
            tag = span.label, f"{span.score:.6f}", shown(str(path)), start
            lines.append((str(number), RAVEN_VIEW, "1", *box, file, *tag))
        return "".join("\t".join(BREAKS.sub(" ", cell) for cell in line) + "\n" for line in lines)
