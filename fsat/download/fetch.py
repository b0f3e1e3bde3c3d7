"""Fetching one large zip over HTTP: what has come is kept as ``NAME.part``, and an interrupted download goes on there.

pooch checks the checksum and puts the file in its place; `Resuming` is the downloader that it is given. Beside the part
lies ``NAME.part.json``: how long the file is, and the ETag or date by which the server can tell that it is still the
same (If-Range, RFC 9110, 13.1.5). Without it the part is not used. Proxies are those of the environment.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from fsat import __version__, interrupts
from fsat.download.answers import BrokenOff, no_zip, of_status, range_of, shown, why
from fsat.errors import FsatError
from fsat.files import format_bytes, write_all
from fsat.progress import Progress, say

PART, NOTE = ".part", ".part.json"

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before each new attempt, and the last of them from there on; less than the server asks for, at most 60."""

SLOWEST = 500
"""Bytes a second below which a connection counts as stalled."""

_BLOCK_BYTES = 1 << 18


def fetch(url: str, path: Path, checksum: str, about: int, most: int, retries: int = 5, timeout: float = 30.0) -> None:
    """Have a file with this checksum at `path`: as it is there, or downloaded, going on with a part of it.

    Args:
        url: where it is.
        path: where it goes; its folder must be there, and is used by nobody else.
        checksum: ``algorithm:hex``.
        about: its size in bytes, as far as known.
        most: bytes that it may have.
        retries: attempts without progress after the first one.
        timeout: seconds to wait for a connection, and for the next bytes.

    Raises:
        FsatError: it cannot be had; what has come is kept unless it is of no use.
        OSError: it cannot be written.
    """
    import pooch

    for stray in path.parent.glob("tmp*"):  # pooch's own, of a process that was killed
        stray.unlink()
    logger = pooch.get_logger()
    level, part = logger.level, path.with_name(path.name + PART)
    logger.setLevel("ERROR")
    try:
        pooch.retrieve(url, checksum, path.name, path.parent, downloader=Resuming(part, about, most, retries, timeout))
    except ValueError as error:  # pooch's word for a wrong checksum
        _forget(part)
        algorithm, _, expected = checksum.partition(":")
        received = re.search(r"but got (\w+)", str(error))
        raise FsatError(
            f"{shown(url)}: wrong checksum: received {algorithm} {received[1] if received else '(unknown)'}, expected "
            f"{expected}; the download was removed: try again, and if it is so again, the server has another file"
        ) from error
    finally:
        logger.setLevel(level)
    _forget(part)


class Resuming:
    """A downloader for pooch that goes on with what is kept in a part.

    Args:
        part: the file that is kept.
        about, most, retries, timeout: as `fetch` takes them.
    """

    def __init__(self, part: Path, about: int, most: int, retries: int, timeout: float) -> None:
        self.part, self.about, self.most = part, about, most
        self.retries, self.timeout = retries, timeout
        self.name = part.name.removesuffix(PART)

    def __call__(self, url: str, output_file: str, pooch: object = None) -> None:
        """Download, and give the file the name `output_file` too; the part stays until its checksum is known."""
        import requests
        import urllib3

        failures, furthest = 0, self._size()
        say(f"downloading {shown(url)}{f', from {format_bytes(furthest)} on' if furthest else ''}")
        mb = math.ceil(self.about / 1e6)
        with requests.Session() as session, Progress(f"downloading {self.name}, MB", mb) as self._progress:
            try:
                while True:
                    interrupts.check()
                    try:
                        self._attempt(session, url)
                        break
                    except (requests.RequestException, urllib3.exceptions.HTTPError, BrokenOff) as error:
                        if self._size() > furthest + _BLOCK_BYTES:
                            failures, furthest = 0, self._size()
                        failures += 1
                        self._decide(url, error, failures)
            except KeyboardInterrupt:
                kept = format_bytes(self._size())
                self._progress.say(f"{self.name}: {kept} are kept; the same command goes on there")
                raise
        say(f"{self.name}: {format_bytes(self._size())} have come; taking their checksum")
        Path(output_file).unlink(missing_ok=True)
        try:
            os.link(self.part, output_file)
        except OSError:  # a file system without links
            os.replace(self.part, output_file)

    def _decide(self, url: str, error: Exception, failures: int) -> None:
        """Wait before another attempt, or give up."""
        import requests

        what, kept = why(error, self.timeout), self._size()
        lasting = (requests.TooManyRedirects, requests.exceptions.SSLError, ValueError)
        if isinstance(error, lasting) or failures > self.retries:
            again = f"{format_bytes(kept)} are kept, and the same command goes on there" if kept else "try again later"
            raise FsatError(
                f"{shown(url)}: cannot be downloaded: {what}; {again}, "
                f"or put {self.name} into {self.part.parent}/ yourself"
            ) from error
        wait = getattr(error, "wait", 0.0) or WAITS[min(failures, len(WAITS)) - 1]
        self._progress.say(f"{self.name}: {what}; trying again in {wait:g} s, after {format_bytes(kept)}")
        time.sleep(wait)

    def _attempt(self, session: Any, url: str) -> None:
        """One request; returns once the part is whole."""
        note, kept = self._note(), self._size()
        if kept and note["size"] == kept:
            return
        headers = {"Accept-Encoding": "identity", "User-Agent": f"fsat/{__version__}"}
        if kept:
            headers["Range"] = f"bytes={kept}-"
            headers |= {"If-Range": note["same"]} if note["same"] else {}
        with session.get(url, headers=headers, stream=True, timeout=self.timeout) as answer:
            status, start, size = answer.status_code, *range_of(answer.headers.get("Content-Range", ""))
            if kept and status == 416:
                if size != kept:
                    _forget(self.part)
                    raise BrokenOff(f"the server has {size} bytes where {kept} are kept, which begins anew")
                self._write_note(kept, note["same"])
            elif kept and status == 206:
                if start != kept or (note["size"] and size and size != note["size"]):
                    _forget(self.part)
                    raise BrokenOff("the server sent another part than was asked for, which begins anew")
                self._receive(answer, kept, size or note["size"], note["same"])
            elif status == 200:
                length = answer.headers.get("Content-Length", "")
                tag, date = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
                same = tag if tag.startswith('"') else date  # a weak ETag, W/"...", says nothing of bytes
                self._receive(answer, 0, int(length) if length.isdigit() else 0, same)
            else:
                raise of_status(url, status, answer)

    def _receive(self, answer: Any, kept: int, size: int, same: str) -> None:
        """Append what the server sends to the bytes that are kept; where these are 0, it begins anew.

        `size` is that of the whole file, 0 where the server does not say it.
        """
        blocks = iter(lambda: answer.raw.read1(_BLOCK_BYTES, decode_content=False) or b"", b"")
        first = next(blocks, b"")
        if not kept:
            if not first.startswith(b"PK"[: len(first)]):
                page = "html" in answer.headers.get("Content-Type", "")
                raise no_zip(answer.url, "a web page" if page else "something else")
            _forget(self.part)
            self._write_note(size, same)
        total = math.ceil((size or max(self.about, kept)) / 1e6)
        self._progress.expect(total, kept // 10**6)
        since, came = time.monotonic(), 0
        with open(self.part, "ab", buffering=0) as file:
            for block in chain([first], blocks):
                write_all(file, block)
                kept += len(block)
                came += len(block)
                done = total if kept == size else min(total, kept // 10**6)
                self._progress.advance(done - self._progress.done)
                if kept > self.most:
                    _forget(self.part)
                    raise FsatError(f"{shown(answer.url)}: sends more than {format_bytes(kept)}, expected about "
                                    f"{format_bytes(self.about)}; the download was removed: check the address")  # fmt: skip
                if time.monotonic() - since > self.timeout:
                    if came < SLOWEST * self.timeout:
                        raise BrokenOff(f"only {came} bytes came in {self.timeout:g} s")
                    since, came = time.monotonic(), 0
        if size and kept != size:
            raise BrokenOff(f"the server ended after {kept} of {size} bytes")
        self._write_note(kept, same)

    def _size(self) -> int:
        """Bytes that are kept and can be used."""
        try:
            return self.part.stat().st_size if self._note_path.exists() else 0
        except FileNotFoundError:
            return 0

    @property
    def _note_path(self) -> Path:
        return self.part.with_name(self.name + NOTE)

    def _note(self) -> dict[str, Any]:
        """What is known of the file that the part is of; a part that is not of it, or without a note, is removed."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            note = json.loads(self._note_path.read_text())
            note = {"size": int(note["size"]), "same": str(note["same"])}
            if not note["size"] or self._size() <= note["size"]:
                return note
        _forget(self.part)
        return {"size": 0, "same": ""}

    def _write_note(self, size: int, same: str) -> None:
        unfinished = self._note_path.with_suffix(".new")
        unfinished.write_text(json.dumps({"size": size, "same": same}))
        os.replace(unfinished, self._note_path)


def _forget(part: Path) -> None:
    """Remove a part and what is known of it, in this order, so that a note never speaks of another part."""
    for path in (part, part.with_name(part.name.removesuffix(PART) + NOTE)):
        path.unlink(missing_ok=True)
