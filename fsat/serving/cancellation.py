"""Whether anybody still waits for the answer: threads cannot be stopped from outside, but they can ask."""

from __future__ import annotations

import threading
from contextvars import ContextVar

from fsat.errors import FsatError

_gone: ContextVar[threading.Event | None] = ContextVar("fsat_gone", default=None)


class GivenUp(FsatError):
    """Nobody waits for the answer any more: the client has hung up, or the server's time is up."""


def answering() -> threading.Event:
    """Begin a request, in this context and in the threads that it is handed on to; set the event when it is over."""
    gone = threading.Event()
    _gone.set(gone)
    return gone


def check_wanted() -> None:
    """Go on with the request of this context, or with work that belongs to none.

    Raises:
        GivenUp: it is over.
    """
    gone = _gone.get()
    if gone is not None and gone.is_set():
        raise GivenUp("nobody waits for these tags any more")
