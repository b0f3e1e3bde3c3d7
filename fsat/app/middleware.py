"""ASGI middleware in front of Gradio's server, which can do more than the page needs.

Gradio answers paths that describe an API, fetch web addresses, serve files or change the page. `Gate` lets the requests
of the page's own script through and no others. Its headers tell the browser to load nothing from other hosts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

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
