"""Find the audio files in a folder, and count what is left out."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fsat.data.byte_source import OWN_FAULTS
from fsat.errors import StorageError, count

SUFFIXES = (
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".spx", ".mp3", ".mp2", ".mpga",
    ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".aac",
    ".adts", ".ac3", ".eac3", ".amr", ".webm", ".weba", ".mka", ".mkv", ".wma", ".asf", ".wmv", ".wv", ".ape", ".tta",
    ".tak", ".mpc", ".dts", ".dsf", ".dff", ".flv", ".avi", ".mts", ".m2ts", ".mpg", ".mpeg", ".sph", ".nist", ".voc",
    ".avr", ".8svx",
)  # fmt: skip
"""Suffixes of files that may contain sound."""

APPLE_DOUBLE = "._"
"""Beginning of the names of files in which macOS keeps what other file systems cannot, beside the real file."""

SYSTEM_FOLDERS = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found")
"""Folders that systems and archives add, whose files are no clips."""

N_SUFFIXES = 5
"""Suffixes that are named."""


@dataclass
class LeftOut:
    """Files in a folder that are no clips: the number by suffix, and of macOS's companions of other files."""

    suffixes: Counter[str] = field(default_factory=Counter)
    n_companions: int = 0

    def add(self, name: str) -> None:
        """Count a file."""
        if name.startswith(APPLE_DOUBLE):
            self.n_companions += 1
        else:
            self.suffixes[os.path.splitext(name)[1].lower() or "no suffix"] += 1

    def lines(self) -> list[str]:
        """Return what was left out in words, a line for each kind."""
        lines = []
        if self.suffixes:
            names = [f"{number} {suffix}" for suffix, number in self.suffixes.most_common(N_SUFFIXES)]
            ellipsis = ", ..." if len(self.suffixes) > N_SUFFIXES else ""
            lines.append(
                f"left out: {count(self.suffixes.total(), 'file')} without sound: {', '.join(names)}{ellipsis}"
            )
        if self.n_companions:
            lines.append(f"left out: {count(self.n_companions, 'file')} ._* in which macOS keeps its own notes")
        return lines


def is_audio_file(name: str) -> bool:
    """Return whether a file's name is that of a file that may contain sound."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(APPLE_DOUBLE)


def walk(root: Path, left_out: LeftOut | None = None) -> Iterator[str]:
    """Yield the names of the audio files in and below a folder, relative to it; count the others in `left_out`.

    Links are followed, but no folder is entered twice. An unreadable folder is yielded as a name itself.
    """
    left_out = left_out or LeftOut()
    entered: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        folder = pending.pop()
        path, subfolders = os.path.join(root, folder), []
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    name = os.path.join(folder, entry.name)
                    if os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
                        subfolders.append(name)
                    elif is_audio_file(entry.name):
                        yield name
                    else:
                        left_out.add(entry.name)
            pending += sorted(subfolders, reverse=True)
        except OSError as error:
            if error.errno not in (*OWN_FAULTS, errno.ENOENT):
                raise StorageError(f"{path}: the file system failed ({error.strerror}); run again") from error
            yield folder or "."
