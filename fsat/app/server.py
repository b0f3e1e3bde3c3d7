"""The server of the page: from options to a port that answers, until a signal ends it.

Gradio answers paths that describe an API, fetch web addresses, serve files or change the page. `Gate`, ASGI middleware,
lets the requests of the page's own script through and no others. Its headers tell the browser to load nothing from
other hosts.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fsat.app.handlers import Limits, TagHandler
from fsat.app.page import build, import_gradio, mount
from fsat.errors import FsatError
from fsat.interrupts import Interrupted
from fsat.progress import say

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static)/.+"
    r"|/gradio_api/(upload|upload_progress|queue/join|queue/data|cancel|reset|app_id|startup-events|heartbeat/\w+)/?"
)
"""Paths that the page's script requests."""

PROGRESS = "/gradio_api/upload_progress"
"""Requested for every upload, even for one that Gradio's script refused itself as too large: a 404 becomes 200, so that
the browser's console shows no error."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
        "connect-src 'self' data: blob:; object-src 'none'; frame-ancestors 'self'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Gate:
    """Middleware that answers 404 to paths outside of `OPEN` and of the folder of uploaded files, and adds `HEADERS`.

    Gradio serves an uploaded file to clients that know its hash.
    """

    def __init__(self, app: ASGIApp, folder: str) -> None:
        self._app = app
        self._upload = re.compile(rf"/gradio_api/file={re.escape(folder)}/[0-9a-f]{{32,}}/[^/]+")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                status = 200 if (scope["path"], message["status"]) == (PROGRESS, 404) else message["status"]
                message = {**message, "status": status, "headers": [*message.get("headers", []), *added]}
            await send(message)

        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif OPEN.fullmatch(scope["path"]) or self._upload.fullmatch(scope["path"]):
            await self._app(scope, receive, send_with_headers)
        else:
            await send_with_headers({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"not found"})


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
            from fsat.tracking.model_uri import pinned
            from fsat.tracking.registry import open_tagger

            model = pinned(uri_of(model))
            say(f"app: the tagger is {model}")
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
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(where, family=family, dualstack_ipv6=family == socket.AF_INET6)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while ")[0]  # without the address again
        fault = f"cannot be listened on ({reason})"
        raise FsatError(f"host={host}, port={port}: {fault}; choose another port, or 0 for any free one") from error


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
