"""MLflow's scoring server, seen from a model that it loads: whether this is it, and how to get in front of it.

It builds its FastAPI application after it has loaded the model, so that loading one is the time for both.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from fsat.errors import FsatError
from fsat.progress import say
from fsat.serving.limits import Limits
from fsat.serving.middleware import Guard, Message, Receive, Send

SERVER = "mlflow.pyfunc.scoring_server.app"
"""The module that MLflow's scoring server is; it loads the model while it is imported."""

STARTUP_FAILURE = 3
"""The exit code by which uvicorn's workers say that another try would fail as well."""


def in_server() -> bool:
    """Whether this process is MLflow's scoring server."""
    return SERVER in sys.modules


@contextmanager
def starting() -> Iterator[None]:
    """While the server starts: what a user can mend ends it, in one line."""
    try:
        yield
    except FsatError as error:
        say(f"fsat: error: {error}")
        raise SystemExit(STARTUP_FAILURE) from None


def install(limits: Limits) -> None:
    """Put a `Guard` in front of the application that this process is about to build.

    Where MLflow has no FastAPI any more, tagging works all the same, and a warning says what is missing.
    """
    try:
        from fastapi import FastAPI
    except ImportError:
        say("fsat: warning: this MLflow does not serve by FastAPI: FSAT_SERVE_MAX_MB and _MAX_CLIPS are not in force")
        return
    guard, inner = Guard(limits), FastAPI.__call__

    async def guarded(app: FastAPI, scope: Message, receive: Receive, send: Send) -> None:
        await guard(partial(inner, app), scope, receive, send)

    FastAPI.__call__ = guarded
