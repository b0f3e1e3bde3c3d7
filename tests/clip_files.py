"""Helpers for the tests of decoded and checked clips."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from fsat.cli import cli
from fsat.data.clip_checks import check_clip
from fsat.data.clip_store import ClipFile
from fsat.data.decoded_clips import Clips


def clip_files(folder: Path) -> list[ClipFile]:
    return [clip_file(path) for path in sorted(folder.iterdir())]


def clip_file(path: Path) -> ClipFile:
    facts = check_clip(path.parent.resolve(), path.name)
    return ClipFile(path, facts.digest or "?", facts.stamp, facts.frames, facts.samplerate)


def store_of(clips: Clips) -> Path:
    assert clips.decoded.folder is not None
    return clips.decoded.folder


def flip(path: Path, offset: int) -> None:
    """Change a bit of the byte at an offset, from the end if negative."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def in_place_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


@contextmanager
def mounted_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of a given size, such as 2m; skips the test without permission to mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no permission to mount a small disk: run the tests as root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fsat_cache(*arguments: str) -> list[str]:
    result = CliRunner().invoke(cli, ["cache", *arguments])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()
