"""Fetch one large file over HTTP. An interrupted download is kept as ``NAME.part`` and resumes there.

Beside the part lies ``NAME.part.json`` with the file's size, and the ETag or date by which the server can tell that the
file is still the same (If-Range, RFC 9110, 13.1.5). Without it the part is not used. Proxies are those of the
environment.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from fsat import __version__, interrupts
from fsat.errors import FsatError, count, printable
from fsat.files import format_bytes, hash_file, replace_whole, write_all
from fsat.progress import Progress, say

PART, NOTE = ".part", ".part.json"

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before each new attempt, the last of them repeated; longer if the server asks for it, at most 60."""

SLOWEST = 500  # bytes per second below which a connection counts as stalled
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # status codes that are worth another attempt
STATUS = {401: "asks for a login", 403: "refuses it", 404: "does not have it", 407: "is a proxy that asks for a login"}
_BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class FileKind:
    """A kind of file, told by the bytes `magic` from byte `start` on."""

    title: str
    start: int
    magic: bytes

    def may_begin(self, first: bytes) -> bool:
        """Return whether a file of this kind may begin with these bytes."""
        return self.magic.startswith(first[self.start : self.start + len(self.magic)])


ZIP = FileKind("a zip file", 0, b"PK")
TFLITE = FileKind("a TensorFlow Lite model", 4, b"TFL3")
ONNX = FileKind("an ONNX model", 0, b"\x08")


class Interrupted(Exception):
    """An attempt that is worth another one; `wait` is the time that the server asks to wait, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def fetch(
    url: str,
    path: Path,
    checksum: str,
    about: int,
    most: int,
    retries: int = 5,
    timeout: float = 30.0,
    kind: FileKind = ZIP,
) -> None:
    """Download a file unless `path` has its checksum; resume an interrupted download.

    Args:
        url: its address.
        path: its path; the folder must exist and be used by no other process.
        checksum: ``algorithm:hex``.
        about, most: expected and maximum size in bytes.
        retries: attempts without progress after the first one.
        timeout: seconds to wait for a connection, and for the next bytes.
        kind: what the file must begin as.

    Raises `FsatError` if the download failed, and OSError; what was received is kept unless it is of no use.
    """
    algorithm, _, expected = checksum.partition(":")
    if path.exists() and hash_file(path, algorithm) == expected:
        return
    download = Download(path, about, most, retries, timeout, kind)
    download.run(url)
    if (received := hash_file(download.part, algorithm)) != expected:
        download.forget()
        fault = f"wrong checksum: received {algorithm} {received}, expected {expected}"
        advice = "the download was removed: try again; if this repeats, the server has another file"
        raise FsatError(f"{shown(url)}: {fault}; {advice}")
    os.replace(download.part, path)
    download.forget()


class Download:
    """A download into a part beside `path`, which it resumes; arguments as for `fetch`."""

    def __init__(self, path: Path, about: int, most: int, retries: int, timeout: float, kind: FileKind) -> None:
        self.name, self.about, self.most = path.name, about, most
        self.retries, self.timeout, self.kind = retries, timeout, kind
        self.part, self._note_path = path.with_name(path.name + PART), path.with_name(path.name + NOTE)

    def run(self, url: str) -> None:
        """Download until the part is whole."""
        import requests

        start = self._size()
        say(f"downloading {shown(url)}{f', from {format_bytes(start)} on' if start else ''}")
        mb = math.ceil(self.about / 1e6)
        with requests.Session() as session, Progress(f"downloading {self.name}, MB", mb) as self._progress:
            try:
                self._retry(session, url)
            except KeyboardInterrupt:
                size = format_bytes(self._size())
                self._progress.say(f"{self.name}: {size} are kept; the same command resumes there")
                raise
        say(f"{self.name}: {format_bytes(self._size())} received; checking the checksum")

    def forget(self) -> None:
        """Remove the part and then its note, so that a note never describes another part."""
        self.part.unlink(missing_ok=True)
        self._note_path.unlink(missing_ok=True)

    def _retry(self, session: Any, url: str) -> None:
        """Make attempts until the part is whole, or `retries` in a row have brought nothing."""
        import requests
        import urllib3

        failures, furthest = 0, self._size()
        while True:
            interrupts.check()
            try:
                return self._attempt(session, url)
            except (requests.RequestException, urllib3.exceptions.HTTPError, Interrupted) as error:
                if self._size() > furthest + _BLOCK_BYTES:
                    failures, furthest = 0, self._size()
                failures += 1
                self._wait_or_raise(url, error, failures)

    def _wait_or_raise(self, url: str, error: Exception, failures: int) -> None:
        """Wait before another attempt; raise `FsatError` if there were too many, or the error is permanent."""
        import requests

        reason, size = _reason(error, self.timeout), self._size()
        permanent = (requests.TooManyRedirects, requests.exceptions.SSLError, ValueError)
        if isinstance(error, permanent) or failures > self.retries:
            advice = f"{format_bytes(size)} are kept; the same command resumes there" if size else "try again later"
            advice += f", or put {self.name} into {self.part.parent}/ yourself"
            raise FsatError(f"{shown(url)}: cannot be downloaded: {reason}; {advice}") from error
        wait = getattr(error, "wait", 0.0) or WAITS[min(failures, len(WAITS)) - 1]
        self._progress.say(f"{self.name}: {reason}; retrying in {wait:g} s, after {format_bytes(size)}")
        time.sleep(wait)

    def _attempt(self, session: Any, url: str) -> None:
        """Make one request; return if the part is whole."""
        note, done = self._read_note(), self._size()
        if done and note["size"] == done:
            return
        headers = {"Accept-Encoding": "identity", "User-Agent": f"fsat/{__version__}"}
        if done:
            headers["Range"] = f"bytes={done}-"
            headers |= {"If-Range": note["same"]} if note["same"] else {}
        with session.get(url, headers=headers, stream=True, timeout=self.timeout) as response:
            status, (start, size) = response.status_code, _parse_range(response.headers.get("Content-Range", ""))
            if done and status == 416:
                if size != done:
                    self.forget()
                    raise Interrupted(
                        f"the server has {count(size, 'byte')}, less than the {done} received; starting again"
                    )
                self._write_note(done, note["same"])
            elif done and status == 206:
                if start != done or (note["size"] and size and size != note["size"]):
                    self.forget()
                    raise Interrupted("the server sent another part than requested; starting again")
                self._receive(response, done, size or note["size"], note["same"])
            elif status == 200:
                length = response.headers.get("Content-Length", "")
                tag, date = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
                same = tag if tag.startswith('"') else date  # a weak ETag, W/"...", does not identify the bytes
                self._receive(response, 0, int(length) if length.isdigit() else 0, same)
            else:
                raise _status_error(url, status, response)

    def _receive(self, response: Any, done: int, size: int, same: str) -> None:
        """Append the response to the `done` bytes of the part, of `size` in all; 0 if the server does not say it."""
        blocks = iter(lambda: response.raw.read1(_BLOCK_BYTES, decode_content=False) or b"", b"")
        first = next(blocks, b"")
        if not done:
            if not self.kind.may_begin(first):
                sent = "a web page" if "html" in response.headers.get("Content-Type", "") else "something else"
                advice = "perhaps because of a proxy or a login: open the address in a browser, or check --base_url"
                raise FsatError(f"{shown(response.url)}: the server sent {sent}, expected {self.kind.title}, {advice}")
            self.forget()
            self._write_note(size, same)
        total = math.ceil((size or max(self.about, done)) / 1e6)
        self._progress.expect(total, done // 10**6)
        since, recent = time.monotonic(), 0
        with open(self.part, "ab", buffering=0) as file:
            for block in chain([first], blocks):
                write_all(file, block)
                done += len(block)
                recent += len(block)
                self._progress.advance((total if done == size else min(total, done // 10**6)) - self._progress.done)
                if done > self.most:
                    self.forget()
                    fault = f"sends more than {format_bytes(done)}, expected about {format_bytes(self.about)}"
                    raise FsatError(f"{shown(response.url)}: {fault}; the download was removed: check the address")
                if time.monotonic() - since > self.timeout:
                    if recent < SLOWEST * self.timeout:
                        raise Interrupted(f"only {count(recent, 'byte')} came in {self.timeout:g} s")
                    since, recent = time.monotonic(), 0
        if size and done != size:
            raise Interrupted(f"the server ended after {done} of {count(size, 'byte')}")
        self._write_note(done, same)

    def _size(self) -> int:
        """Return the number of bytes that can be resumed from."""
        try:
            return self.part.stat().st_size if self._note_path.exists() else 0
        except FileNotFoundError:
            return 0

    def _read_note(self) -> dict[str, Any]:
        """Return size and identity of the part's file; remove a part that does not fit them."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            note = json.loads(self._note_path.read_text())
            note = {"size": int(note["size"]), "same": str(note["same"])}
            if not note["size"] or self._size() <= note["size"]:
                return note
        self.forget()
        return {"size": 0, "same": ""}

    def _write_note(self, size: int, same: str) -> None:
        with replace_whole(self._note_path) as unfinished:
            unfinished.write_text(json.dumps({"size": size, "same": same}))


def shown(url: str) -> str:
    """Return an address without a password, on one line."""
    return printable(re.sub(r"//[^/@]*@", "//", url))


def _parse_range(header: str) -> tuple[int, int]:
    """Return start and whole size of ``bytes 5-9/10``, ``bytes 5-9/*`` or ``bytes */10``; 0 if not known."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", header.strip())
    return (int(match[1] or 0), int(match[2]) if match[2] != "*" else 0) if match else (0, 0)


def _status_error(url: str, status: int, response: Any) -> Exception:
    """Return the error for a status other than 200 and 206."""
    if status in TRANSIENT:
        wait = response.headers.get("Retry-After", "")
        return Interrupted(f"the server answered {status}", min(60.0, float(wait)) if wait.isdigit() else 0.0)
    refusal = f"the server {STATUS.get(status, 'cannot send it')} (status {status})"
    return FsatError(f"{shown(url)}: {refusal}; check --base_url, or whether the address opens in a browser")


def _reason(error: Exception, timeout: float) -> str:
    """Return an error of requests or urllib3, and its causes, in words."""
    texts = ""
    cause: Exception | None = error
    while cause is not None and len(texts) < 2000:
        texts += f" {type(cause).__name__}: {cause}"
        causes = (getattr(cause, "reason", None), *cause.args, cause.__cause__)
        cause = next((cause for cause in causes if isinstance(cause, Exception)), None)
    for words, meaning in (
        ("TooManyRedirects", "too many redirects"),
        ("NameResolutionError", "unknown host, or no network"),
        ("ProxyError", "the proxy of the environment (https_proxy) cannot be used, or there is no network"),
        ("SSLError", "its certificate is not trusted"),
        ("ConnectTimeout", f"no connection within {timeout:g} s"),
        ("ReadTimeout", f"nothing came for {timeout:g} s"),
        ("refused", "the connection was refused"),
        ("unreachable", "the network is unreachable"),
        ("IncompleteRead|ConnectionReset|RemoteDisconnected|ProtocolError", "the connection was broken off"),
    ):
        if re.search(words, texts):
            return meaning
    return printable(error)[:300]
