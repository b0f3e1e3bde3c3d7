"""What stands before Gradio's server, which can do more than the page needs.

Gradio answers addresses that describe an API, fetch from elsewhere, hand out files or change the page. `Gate` lets
through what the page's own script asks for and nothing else. It also tells the browser to load nothing from any other
place.
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
"""Paths that the page's script asks for."""

PROGRESS = "/gradio_api/upload_progress"
"""Where Gradio's script asks how far an upload has come, even one that it has refused itself because it is too large.
That is no error, and need not look like one in the browser's console."""

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
    """ASGI middleware that answers 404 to what is not in `OPEN`, and adds `HEADERS`.

    Args:
        app: what stands behind it.
        folder: of the uploaded files, which Gradio hands out to whoever knows the hash of one.
    """

    def __init__(self, app: ASGIApp, folder: str) -> None:
        self._app = app
        self._file = re.compile(rf"/gradio_api/file={re.escape(folder)}/[0-9a-f]{{32,}}/[^/]+")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
                if scope["path"] == PROGRESS and message["status"] == 404:
                    message["status"] = 200
            await send(message)

        if scope["type"] == "http" and (OPEN.fullmatch(scope["path"]) or self._file.fullmatch(scope["path"])):
            await self._app(scope, receive, send_with_headers)
        elif scope["type"] == "http":
            await send_with_headers({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"not found"})
        else:
            await send({"type": "websocket.close", "code": 1008})
