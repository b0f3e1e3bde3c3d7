"""The server of the page: from options to a port that answers, until a signal ends it."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from typing import Any

from fsat.app.handlers import Limits, TagHandler
from fsat.app.middleware import Gate
from fsat.app.page import build, import_gradio, mount
from fsat.errors import FsatError
from fsat.interrupts import Interrupted
from fsat.progress import say

CLOSE_SECONDS = 5
"""Time to finish requests after a signal."""


def serve(
    model: str, host: str, port: int, limits: Limits, top_k: int, ready: Callable[[str], object] = lambda address: None
) -> None:
    """Serve the page until a signal comes; raise `FsatError`.

    The model is given as for `fsat.commands.predict.predict`. Port 0 selects a free one. `ready` is called with the
    page's address when it answers.
    """
    folder = os.path.realpath(tempfile.mkdtemp(prefix="fsat-app-"))
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        import_gradio()
        with listening(host, port) as listener:
            from fsat.commands.predict import uri_of  # imports MLflow and TensorFlow, which takes seconds
            from fsat.tracking.registry import open_tagger, pinned

            model = pinned(uri_of(model))
            page = build(TagHandler(open_tagger(model), limits, top_k), model)
            app, close_streams = mount(page, limits.max_mb)
            address = _address(host, listener.getsockname()[1])
            _run(Gate(app, folder), listener, lambda: ready(address), close_streams)
    except Interrupted as stop:
        say(f"app: {stop}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a port, before anything slow is done; raise `FsatError` if that fails."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen()  # early clients wait
            return listener
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FsatError(
            f"host={host}, port={port}: cannot be listened on ({reason}); choose another port, or 0 for any free one"
        ) from error


def _run(app: Gate, listener: socket.socket, ready: Callable[[], object], close_streams: Callable[[], None]) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, *args: Any, **kwargs: Any) -> None:
            await super().startup(*args, **kwargs)
            if self.started:
                ready()

        async def shutdown(self, *args: Any, **kwargs: Any) -> None:
            close_streams()  # every open page has one, which uvicorn would wait for
            await super().shutdown(*args, **kwargs)

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=CLOSE_SECONDS)
    Server(config).run(sockets=[listener])


def _address(host: str, port: int) -> str:
    """Return the page's address for a browser on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host and "[" not in host else f"http://{host}:{port}/"
