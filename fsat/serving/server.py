"""Setting up MLflow's scoring server, from inside the model that it loads.

MLflow (3.x) builds its FastAPI application after it has loaded the model and offers no hook to add middleware. So
`install` wraps `FastAPI.build_middleware_stack`, the one private interface that `fsat.serving` depends on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fsat.errors import FsatError
from fsat.progress import say
from fsat.serving.middleware import Guard
from fsat.serving.requests import Limits
from fsat.tagging import PyfuncTagger, Tagger

STARTUP_FAILURE = 3
"""Exit code of uvicorn's workers that are not worth restarting."""


def load_served(data_path: str) -> PyfuncTagger:
    """Load a tagger for the scoring server, compile it, and install the `Guard`."""
    with exit_on_error():
        limits = Limits.from_environment()
        model = PyfuncTagger(Tagger(data_path), limits.max_seconds)
        model.warm_up()
    install(limits)
    return model


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn an `FsatError` into one line and the exit code `STARTUP_FAILURE`."""
    try:
        yield
    except FsatError as error:
        say(f"fsat: error: {error}")
        sys.exit(STARTUP_FAILURE)


def install(limits: Limits) -> None:
    """Make a `Guard` the outermost middleware of the application that this process is about to build."""
    try:
        from fastapi import FastAPI
    except ImportError:
        say("fsat: warning: this MLflow does not serve with FastAPI: FSAT_SERVE_MAX_MB and _MAX_CLIPS have no effect")
        return
    build = FastAPI.build_middleware_stack
    FastAPI.build_middleware_stack = lambda app: Guard(build(app), limits)
