"""ASGI middleware in front of MLflow's scoring server: bodies of bounded size, and errors of one line.

MLflow (3.17) holds a request's body in memory however large it is, answers some mistakes with a traceback, and repeats
the request in others. `Guard` handles ``POST /invocations`` only. It refuses requests by their headers, while the body
arrives, and by the content of the body; MLflow answers the others.

MLflow builds its FastAPI application after it has loaded the model and offers no hook to add middleware. So `install`
wraps `FastAPI.build_middleware_stack`, the one private interface that `fsat.serving` depends on.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from fsat.data.audio import SINE_RATE, sine
from fsat.errors import FsatError, printable
from fsat.metrics.class_thresholds import PARAMS, TagParams
from fsat.progress import say
from fsat.serving.requests import Limits, RequestError, check_body, check_headers, too_large
from fsat.tagging import PyfuncTagger, Tagger
from fsat.tagging.pyfunc import cancelled

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

PATH = "/invocations"
JSON = (b"content-type", b"application/json")

HELD, DISCARDED, DISCARD_SECONDS = 8, 8, 30
"""Bytes of all bodies that are held at the same time, and how much of a refused request is still received, in multiples
of the size limit; and for how long."""


class Guard:
    """Middleware that checks requests before the application sees them; `defaults` are of the tagger's parameters."""

    def __init__(self, app: App, limits: Limits, defaults: TagParams = PARAMS) -> None:
        self.app, self.limits, self.defaults = app, limits, defaults
        self._held = 0  # bytes of all bodies
        self._turns = asyncio.Semaphore(max(2, os.cpu_count() or 1))  # checking takes several times the body's size

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            await self._warm_up(scope)
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(PATH):
            await self.app(scope, receive, send)
            return
        body = _Body(receive, self.limits.max_bytes)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            check_headers(headers, self.limits.max_bytes)
            content = await body.read(self._hold)
            await self._serve(scope, content, receive, send)
        except RequestError as error:
            self._release(body)
            if body.size or "expect" not in headers:  # a client that expects "100 Continue" has sent nothing yet
                await body.discard()
            await _answer(send, error.status, error.code, str(error))
        except _Disconnected:
            pass
        finally:
            self._release(body)

    def _hold(self, body: _Body, n_bytes: int) -> None:
        """Count bytes that are kept in memory; raise `RequestError` if there are too many."""
        if self._held + n_bytes > HELD * self.limits.max_bytes:
            raise RequestError("the server is busy: try again in a second", 503, "TEMPORARILY_UNAVAILABLE")
        body.held, self._held = body.held + n_bytes, self._held + n_bytes

    def _release(self, body: _Body) -> None:
        body.held, self._held = 0, self._held - body.held

    async def _warm_up(self, lifespan: Message) -> None:
        """Send the first request before a client can: MLflow, FastAPI and pandas take longer for it."""
        limits = self.limits
        seconds = min(5, limits.max_seconds, limits.max_bytes / (4 * SINE_RATE))  # base64 has 2.7 bytes per sample
        body = json.dumps({"dataframe_records": [{"audio": base64.b64encode(sine(seconds)).decode()}]}).encode()
        headers = [JSON, (b"content-length", str(len(body)).encode())]
        scope = {
            **lifespan, "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": PATH,
            "raw_path": PATH.encode(), "query_string": b"", "root_path": "", "headers": headers,
            "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 0),
        }  # fmt: skip

        async def send(message: Message) -> None:
            if message.get("status", 200) != 200:
                say(f"fsat: warning: the first request to the tagger was answered with {message['status']}")

        await self(scope, _receive(body, asyncio.Event()), send)

    async def _serve(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        """Answer a complete request when it is its turn, unless its client has disconnected by then."""
        is_cancelled, disconnected = threading.Event(), asyncio.Event()
        cancelled.set(is_cancelled)

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            is_cancelled.set()
            disconnected.set()

        watcher = asyncio.create_task(watch())
        try:
            async with self._turns:
                if not is_cancelled.is_set():
                    await asyncio.to_thread(check_body, body, self.limits.max_clips, self.defaults)
                    others = [header for header in scope["headers"] if header[0].lower() != JSON[0]]
                    scope = {**scope, "headers": [*others, JSON]}  # MLflow accepts this spelling only
                    await self.app(scope, _receive(body, disconnected), _ErrorSender(send, is_cancelled))
        finally:
            is_cancelled.set()
            watcher.cancel()


class _Disconnected(Exception):
    """The client has closed the connection."""


class _Body:
    """The body of a request as it arrives: `size` bytes received, of which the `Guard` has counted `held`."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive, self._max_bytes = receive, max_bytes
        self.size, self.held, self._more = 0, 0, True

    async def read(self, hold: Callable[[_Body, int], None]) -> bytes:
        """Return the whole body; `hold` counts each part."""
        parts = []
        while self._more:
            parts.append(await self._next())
            if self.size > self._max_bytes:
                raise too_large(self._max_bytes)
            hold(self, len(parts[-1]))
        return b"".join(parts)

    async def discard(self) -> None:
        """Receive the rest, up to a limit: many clients read the answer only after sending everything."""
        with suppress(TimeoutError, _Disconnected):
            async with asyncio.timeout(DISCARD_SECONDS):
                while self._more and self.size < DISCARDED * self._max_bytes:
                    await self._next()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        part, self._more = message.get("body", b""), message.get("more_body", False)
        self.size += len(part)
        return part


class _ErrorSender:
    """Sends the answer, but an error as one line, with the original in the server's log unless it is cancelled."""

    def __init__(self, send: Send, is_cancelled: threading.Event) -> None:
        self._send, self._is_cancelled, self._status, self._text = send, is_cancelled, 0, b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._status = message["status"]
        elif not self._status:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._text += message.get("body", b"")[:100_000]
            if not message.get("more_body", False) and not self._is_cancelled.is_set():
                await self._replace(self._text.decode("utf-8", "replace"))

    async def _replace(self, text: str) -> None:
        shown = text if len(text) < 3000 else f"{text[:500]} ... {text[-2000:]}"  # a traceback's end says most
        say(f"fsat: warning: a request was answered with {self._status}: {printable(shown)}")
        if self._status == 504:
            advice = "send fewer clips at once, or start the server with a longer --timeout"
            await _answer(self._send, 504, "DEADLINE_EXCEEDED", f"tagging took longer than the server allows: {advice}")
        elif self._status >= 500 or '"stack_trace"' in text:
            await _answer(self._send, 500, "INTERNAL_ERROR", "the server failed: see its log")
        else:
            await _answer(self._send, self._status, "BAD_REQUEST", "MLflow refuses it: see the server's log")


def _receive(body: bytes, disconnected: asyncio.Event) -> Receive:
    """Return an ASGI `receive` that gives a whole body, then waits for the client to disconnect."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await disconnected.wait()
        return {"type": "http.disconnect"}

    return receive


async def _answer(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"error_code": code, "message": message}, ensure_ascii=False).encode()
    retry = [(b"retry-after", b"1")] if status == 503 else []
    headers = [JSON, (b"content-length", str(len(body)).encode()), *retry]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


STARTUP_FAILURE = 3
"""Exit code of uvicorn's workers that are not worth restarting."""


def load_served(data_path: str) -> PyfuncTagger:
    """Load a tagger for the scoring server, compile it, and install the `Guard`; exit after an error, in one line."""
    try:
        limits = Limits.from_environment()
        model = PyfuncTagger(Tagger(data_path), limits.max_seconds)
        model.warm_up()
    except FsatError as error:
        say(f"fsat: error: {error}")
        sys.exit(STARTUP_FAILURE)
    install(limits, model.defaults)
    return model


def install(limits: Limits, defaults: TagParams = PARAMS) -> None:
    """Make a `Guard` the outermost middleware of the application that this process is about to build."""
    try:
        from fastapi import FastAPI
    except ImportError:
        say("fsat: warning: this MLflow does not serve with FastAPI: FSAT_SERVE_MAX_MB and _MAX_CLIPS have no effect")
        return
    build = FastAPI.build_middleware_stack
    FastAPI.build_middleware_stack = lambda app: Guard(build(app), limits, defaults)
