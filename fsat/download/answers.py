"""What servers and connections do, in words, and whether it is worth another attempt."""

from __future__ import annotations

import re
from typing import Any

from fsat.errors import FsatError, printable

TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class BrokenOff(Exception):
    """An attempt that is worth another one; `wait` is how long the server asks to wait, in seconds."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


def shown(url: str) -> str:
    """An address as it may be printed: without a password."""
    return printable(re.sub(r"//[^/@]*@", "//", url))


def range_of(header: str) -> tuple[int, int]:
    """Start and whole size of ``bytes 5-9/10``, ``bytes 5-9/*`` or ``bytes */10``; what is not said is 0."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", header.strip())
    return (int(found[1] or 0), int(found[2]) if found[2] != "*" else 0) if found else (0, 0)


def no_zip(url: str, what: str) -> FsatError:
    """What to say when the server sent something else."""
    return FsatError(
        f"{shown(url)}: the server sent {what}, expected a zip file; a proxy or a login may stand in between: open the "
        "address in a browser, or check --base_url"
    )


def of_status(url: str, status: int, answer: Any) -> Exception:
    """What to raise at a status other than 200 and 206: `BrokenOff` if it may pass, else `FsatError`."""
    if status in TRANSIENT:
        asked = answer.headers.get("Retry-After", "")
        return BrokenOff(f"the server answered {status}", min(60.0, float(asked)) if asked.isdigit() else 0.0)
    meaning = {
        401: "asks for a login",
        403: "refuses it",
        404: "does not have it",
        407: "is a proxy that asks for a login",
    }
    return FsatError(f"{shown(url)}: the server {meaning.get(status, 'cannot give it')} (status {status}); check "
                     "--base_url, or whether the address opens in a browser")  # fmt: skip


def why(error: Exception, timeout: float) -> str:
    """An error of requests or urllib3 in words."""
    chain, cause = "", error
    while cause is not None and len(chain) < 2000:
        chain += f" {type(cause).__name__}: {cause}"
        cause = getattr(cause, "reason", None) if isinstance(getattr(cause, "reason", None), Exception) else next(
            (part for part in cause.args if isinstance(part, Exception)), cause.__cause__)  # fmt: skip
    for word, meaning in (
        ("TooManyRedirects", "it is redirected without end"),
        ("NameResolutionError", "there is no such host, or no network"),
        ("ProxyError", "the proxy of the environment (https_proxy) cannot be used, or there is no network"),
        ("SSLError", "its certificate is not trusted"),
        ("ConnectTimeout", f"no connection within {timeout:g} s"),
        ("ReadTimeout", f"nothing came for {timeout:g} s"),
        ("refused", "the connection is refused"),
        ("unreachable", "the network is unreachable"),
        ("IncompleteRead", "the connection broke off"),
        ("ConnectionReset", "the connection broke off"),
        ("RemoteDisconnected", "the connection broke off"),
        ("ProtocolError", "the connection broke off"),
    ):
        if word in chain:
            return meaning
    return printable(str(error))[:300]
