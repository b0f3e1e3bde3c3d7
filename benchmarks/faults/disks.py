"""Small disks, which fill up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoDisk(Exception):
    """Nothing may be mounted here."""


class Disk:
    """A small disk, which can be filled and enlarged.

    Attributes:
        place: where it is mounted.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    def resize(self, size: int) -> None:
        """Make it larger, or smaller; `size` in bytes."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.place)], check=True)

    def fill(self, but: int = 0) -> None:
        """Write a file that leaves `but` bytes free."""
        with open(self.place / "filler", "ab", buffering=0) as file:
            while (room := self.free() - but) > 0:
                try:
                    file.write(bytes(min(room, 2**20)))
                except OSError:  # full
                    return

    def make_room(self) -> None:
        """Remove that file."""
        (self.place / "filler").unlink(missing_ok=True)

    def free(self) -> int:
        """Free bytes."""
        facts = os.statvfs(self.place)
        return facts.f_bavail * facts.f_frsize


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Disk]:
    """Mount a disk of `size` bytes.

    Raises:
        NoDisk: that is not permitted.
    """
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        raise NoDisk(str(error)) from error
    if done.returncode:
        raise NoDisk(done.stderr.strip())
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
