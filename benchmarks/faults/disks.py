"""Small disks that can be filled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MountError(Exception):
    """A disk cannot be mounted here."""


class Disk:
    """A small disk that can be filled and resized.

    Attributes:
        path: mount point.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, size: int) -> None:
        """Change the size to `size` bytes."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], check=True)

    def fill(self, spare: int = 0) -> None:
        """Write a file that leaves `spare` bytes free."""
        with open(self.path / "filler", "ab", buffering=0) as file:
            while (free := self.free_bytes() - spare) > 0:
                try:
                    file.write(bytes(min(free, 2**20)))
                except OSError:  # full
                    return

    def clear(self) -> None:
        """Remove the file that `fill` has written."""
        (self.path / "filler").unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Return the number of free bytes."""
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Disk]:
    """Mount a disk of `size` bytes at `path`; raise `MountError` if that is not permitted."""
    path.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        raise MountError(str(error)) from error
    if done.returncode:
        raise MountError(done.stderr.strip())
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
