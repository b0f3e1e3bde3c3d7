"""In front of an ASGI application that is MLflow's scoring server: bodies of bounded size, and errors of one line.

MLflow (3.17) holds a request's body in memory however large it is, answers some mistakes with a traceback, and repeats
the request in others. The `Guard` looks at ``POST /invocations`` alone. It refuses by headers, while the body comes in,
and by what is in the body; what it lets through, MLflow answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from fsat.errors import printable
from fsat.progress import say
from fsat.serving.cancellation import answering
from fsat.serving.clips import first_request
from fsat.serving.limits import Limits
from fsat.serving.requests import RequestError, check_body, check_headers, too_large

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

PATH = "/invocations"
HELD = 8
"""Times the size of a request: what all bodies that are held at the same time may have."""

DISCARD, DISCARD_SECONDS = 8, 30
"""Times the size of a request, and how long: what is still received of one that is refused, and thrown away."""


class Guard:
    """Stands between the clients and an ASGI application.

    Args:
        limits: of a request.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._held = 0  # bytes of all bodies
        self._turns = asyncio.Semaphore(max(2, os.cpu_count() or 1))  # each takes several times its body's size

    async def __call__(self, app: App, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, by `app` if it can be."""
        if scope["type"] == "lifespan":
            await self._ask_once(app)
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(PATH):
            await app(scope, receive, send)
            return
        taken = 0

        def take(n_bytes: int) -> None:
            nonlocal taken
            if self._held + n_bytes > HELD * self.limits.max_bytes:
                raise RequestError("the server is busy: try again in a second", 503, "TEMPORARILY_UNAVAILABLE")
            taken += n_bytes
            self._held += n_bytes

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        incoming = _Incoming(receive, self.limits.max_bytes)
        try:
            check_headers(headers, self.limits.max_bytes)
            body = await incoming.read(take)
            await self._serve(app, _plain(scope), body, receive, send)
        except RequestError as error:
            self._held, taken = self._held - taken, 0
            if incoming.size or "expect" not in headers:  # who expects an answer has sent nothing yet
                await incoming.discard()
            await _answer(send, error.status, error.code, str(error))
        except _HungUp:
            pass
        finally:
            self._held -= taken

    async def _ask_once(self, app: App) -> None:
        """Ask before anybody else can: what MLflow, FastAPI and pandas do the first time takes longer."""
        body = first_request(self.limits)
        whole = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return whole.pop() if whole else await asyncio.Event().wait()

        async def send(message: Message) -> None:
            if message.get("status", 200) != 200:
                say(f"fsat: warning: a tagger that has just been loaded answers with {message['status']}")

        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": PATH, "raw_path": PATH.encode(), "query_string": b"", "root_path": "", "headers": headers,
            "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 0),
        }  # fmt: skip
        await self(app, scope, receive, send)

    async def _serve(self, app: App, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        """Answer a request that has come in, when it is its turn; not if its client has hung up by then."""
        gone, over = answering(), asyncio.Event()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()
            over.set()

        watching = asyncio.create_task(watch())
        try:
            async with self._turns:
                if not gone.is_set():
                    await asyncio.to_thread(check_body, body, self.limits.max_clips)
                    await app(scope, _replay(body, over), _Errors(send, gone))
        finally:
            gone.set()
            watching.cancel()


class _HungUp(Exception):
    """There is nobody any more to answer."""


class _Incoming:
    """The body of a request as it comes in.

    Attributes:
        size: bytes that have come.
    """

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive, self._max_bytes = receive, max_bytes
        self.size, self._more = 0, True

    async def read(self, take: Callable[[int], None]) -> bytes:
        """All of it; `take` is told of each piece before it is kept."""
        parts = []
        while self._more:
            part = await self._next()
            if self.size > self._max_bytes:
                raise too_large(self._max_bytes)
            take(len(part))
            parts.append(part)
        return b"".join(parts)

    async def discard(self) -> None:
        """Take in what is left, within reason: many clients look for an answer only when they have sent everything."""
        with suppress(TimeoutError, _HungUp):
            async with asyncio.timeout(DISCARD_SECONDS):
                while self._more and self.size < DISCARD * self._max_bytes:
                    await self._next()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _HungUp
        part, self._more = message.get("body", b""), message.get("more_body", False)
        self.size += len(part)
        return part


def _plain(scope: Message) -> Message:
    """The request with its content type in the one way of writing it that MLflow knows."""
    others = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/json")]}


def _replay(body: bytes, over: asyncio.Event) -> Receive:
    """A body that has been read, once more; after it, nothing but the end."""
    whole = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        if whole:
            return whole.pop()
        await over.wait()
        return {"type": "http.disconnect"}

    return again


class _Errors:
    """Sends what the application sends, but errors in one line; what they said goes to the server's log.

    Once the client is `gone`, giving up is no error.
    """

    def __init__(self, send: Send, gone: threading.Event) -> None:
        self._send, self._gone, self._status, self._said = send, gone, 0, b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._status = message["status"]
        elif not self._status:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._said += message.get("body", b"")[:100_000]
            if not message.get("more_body", False) and not self._gone.is_set():
                await self._replace()

    async def _replace(self) -> None:
        text = self._said.decode("utf-8", "replace")
        news = text if len(text) < 3000 else f"{text[:500]} ... {text[-2000:]}"  # a traceback's end says most
        say(f"fsat: warning: a request was answered with {self._status}: {printable(news)}")
        if self._status == 504:
            how = "send fewer clips at once, or start the server with a longer --timeout"
            await _answer(self._send, 504, "DEADLINE_EXCEEDED", f"tagging took longer than the server allows: {how}")
        elif self._status >= 500 or '"stack_trace"' in text:
            await _answer(self._send, 500, "INTERNAL_ERROR", "the server failed: its log says how")
        else:
            await _answer(self._send, self._status, "BAD_REQUEST", "MLflow refuses it: the server's log says why")


async def _answer(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"error_code": code, "message": message}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
