"""The served model's limits, request checks and middleware, without a server."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import sys

import hostile_requests as hostile
import pytest
import soundfile as sf
from helpers import one_line
from hostile_requests import MARKER, request, wav

from fsat.serving import middleware
from fsat.serving.middleware import Guard
from fsat.serving.requests import VARIABLES, Limits, RequestError, check_body, check_headers
from fsat.tagging.pyfunc import cancelled

LIMITS = Limits(max_mb=2, max_seconds=30, max_clips=8)
SCOPE = {"type": "http", "method": "POST", "path": "/invocations", "headers": [(b"Content-Type", b"application/json")]}


def test_limits_come_from_the_environment() -> None:
    assert Limits.from_environment({}) == Limits()
    limits = Limits.from_environment(dict(zip(VARIABLES.values(), ("0.5", "1e3", " 7 "), strict=True)))
    assert (limits, limits.max_bytes) == (Limits(0.5, 1000.0, 7), 500_000)


@pytest.mark.parametrize(
    "setting",
    ["MAX_MB=big", "MAX_MB=0.0", "MAX_MB=inf", "MAX_SECONDS=-1.0", "MAX_SECONDS=nan", "MAX_CLIPS=0", "MAX_CLIPS=1.5"],
)
def test_a_wrong_limit_ends_the_server_in_one_line(setting, monkeypatch, capfd) -> None:
    name, _, text = f"FSAT_SERVE_{setting}".partition("=")
    monkeypatch.setenv(name, text)
    with pytest.raises(SystemExit) as stopped:
        middleware.load_served("nowhere")
    assert stopped.value.code == 3
    line = re.escape(f"fsat: error: {name}={text}: expected ") + ".*; unset it for the default, 6.*\n"
    assert re.fullmatch(line, capfd.readouterr().err)


@pytest.mark.parametrize("case", [*hostile.TEXTS, *hostile.BODIES], ids=lambda case: case.name)
def test_a_body_that_is_not_a_request_is_refused(case) -> None:
    with pytest.raises(RequestError) as error:
        check_body(case.body, LIMITS.max_clips)
    message = one_line(error.value)
    assert (case.words in message, MARKER in message, error.value.status) == (True, False, case.status)


def test_valid_requests_and_those_with_undecodable_clips_pass() -> None:
    for case in hostile.SOUNDS:
        check_body(case.body, LIMITS.max_clips)
    text = hostile.CLIP
    lines = "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76))  # as MLflow's clients write it
    check_body(request(*[wav()] * 8, top_k=2**31 - 1, min_score=0), 8)
    for audio in (text, lines, f" {text}\n"):
        check_body(json.dumps({"dataframe_records": [{"audio": audio}], "params": None}).encode(), 1)
        for index in ({}, {"index": [0]}, {"index": ["a"]}):
            table = {"columns": ["audio"], "data": [[audio]], **index}
            check_body(json.dumps({"dataframe_split": table, "params": {}}, indent=1).encode(), 1)


def test_content_types_of_json_pass_up_to_the_maximum_length() -> None:
    for kind in ("application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"',
                 "application/json;"):  # fmt: skip
        check_headers({"content-type": kind, "content-length": "2000000", "content-encoding": "identity"}, 2_000_000)
    for length in ("2000001", "1" * 5000):
        with pytest.raises(RequestError, match="larger than 2 MB"):
            check_headers({"content-type": kind, "content-length": length}, 2_000_000)


class Client:
    """Sends a body in parts and keeps the answer; disconnects after the last part if `hang_up`, else at `gone`."""

    def __init__(self, *parts: bytes, hang_up: bool = False) -> None:
        self._parts = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        self._parts[-1]["more_body"] = hang_up
        self.hang_up, self.gone, self.n_received, self.sent = hang_up, asyncio.Event(), 0, []

    async def receive(self) -> dict:
        self.n_received += 1
        if self._parts:
            return self._parts.pop(0)
        if not self.hang_up:
            await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict) -> None:
        self.sent.append(message)

    @property
    def answer(self) -> tuple[int, dict]:
        """Status and content of the answer."""
        return self.sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in self.sent[1:]))


class App:
    """Receives a body and answers with a status and a text; keeps scopes and bodies."""

    def __init__(self, status: int = 200, text: bytes = b"{}") -> None:
        self.status, self.text, self.scopes, self.bodies = status, text, [], []

    async def __call__(self, scope, receive, send) -> None:
        self.scopes.append(scope)
        if scope["type"] != "http":
            return
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": self.text[:5], "more_body": True})
        await send({"type": "http.response.body", "body": self.text[5:]})


def serve(client: Client, app: App, scope: dict = SCOPE, limits: Limits = LIMITS) -> None:
    guard = Guard(app, limits)
    asyncio.run(guard(scope, client.receive, client.send))
    assert guard._held == 0


def test_valid_requests_and_other_paths_reach_the_application_whole() -> None:
    body, app = request(wav()), App(text=b'{"predictions": []}')
    client = Client(body[:100], body[100:200], b"", body[200:])
    serve(client, app)
    assert app.bodies == [body]
    assert app.scopes[0]["headers"] == [(b"content-type", b"application/json")]
    assert client.answer == (200, {"predictions": []})
    app, client = App(404, b'"gone"'), Client(MARKER.encode())
    serve(client, app, {**SCOPE, "method": "GET", "path": "/ping"})
    assert (app.bodies, client.answer) == ([MARKER.encode()], (404, "gone"))


@pytest.mark.parametrize("limits", [Limits(), LIMITS, Limits(0.01, 0.02, 1)])
def test_the_guard_sends_the_first_request_itself(limits, capfd) -> None:
    """uvicorn sends the lifespan before it accepts connections."""
    app = App()
    serve(Client(b""), app, {"type": "lifespan"}, limits)
    assert [scope["type"] for scope in app.scopes] == ["http", "lifespan"]
    (body,) = app.bodies
    check_body(body, limits.max_clips)
    assert len(body) <= limits.max_bytes
    sound = base64.b64decode(json.loads(body)["dataframe_records"][0]["audio"])
    assert 0.01 < sf.info(io.BytesIO(sound)).duration <= min(5, limits.max_seconds)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("n_parts", "headers", "n_received"), [
    (10, {}, 10),  # the rest is received too, so that the client reads its answer
    (100, {}, 32),  # up to 8 times 2 MB
    (10, {b"content-length": b"5000000"}, 10),
    (10, {b"content-length": b"5000000", b"expect": b"100-continue"}, 0),
])  # fmt: skip
def test_a_body_that_is_too_large_is_refused(n_parts, headers, n_received) -> None:
    app, client = App(), Client(*[b"a" * 500_000] * n_parts)
    serve(client, app, {**SCOPE, "headers": [*SCOPE["headers"], *headers.items()]})
    assert (client.answer[0], client.n_received, app.bodies) == (413, n_received, [])


def test_too_many_bodies_at_the_same_time_are_refused_for_now() -> None:
    app = App()
    guard = Guard(app, Limits(max_mb=0.001))
    clients = [Client(b"{" * 900, b"", hang_up=True) for _ in range(12)]
    ready = asyncio.Event()

    async def receive_slowly(client: Client) -> dict:
        if client.n_received == 1:
            await ready.wait()
        return await Client.receive(client)

    async def serve_all() -> None:
        tasks = [asyncio.create_task(guard(SCOPE, lambda c=c: receive_slowly(c), c.send)) for c in clients]
        while not all(client.n_received for client in clients):
            await asyncio.sleep(0)
        held = guard._held
        ready.set()
        await asyncio.gather(*tasks)
        assert held <= 9 * 900

    asyncio.run(serve_all())
    refused = [client for client in clients if client.sent]
    assert [client.answer[0] for client in refused] == [503] * 4
    assert all((b"retry-after", b"1") in client.sent[0]["headers"] for client in refused)
    assert (guard._held, app.bodies) == (0, [])


@pytest.mark.parametrize(("status", "content", "answered", "words"), [
    (400, {"message": MARKER, "stack_trace": "Traceback"}, 500, "failed"),
    (400, {"message": MARKER}, 400, "refuses"),
    (500, {"message": "Internal Server Error"}, 500, "failed"),
    (504, {"message": "Request processing time exceeded limit"}, 504, "--timeout"),
])  # fmt: skip
def test_errors_of_mlflow_go_to_the_log(status, content, answered, words, capfd) -> None:
    client = Client(request(wav()))
    serve(client, App(status, json.dumps(content, indent=1).encode()))
    sent, answer = client.answer
    assert (sent, words in answer["message"], MARKER in answer["message"]) == (answered, True, False)
    line = f"fsat: warning: a request was answered with {status}: .*{content['message']}.*\n"
    assert re.fullmatch(line, capfd.readouterr().err)


def test_a_disconnected_client_is_not_served() -> None:
    """Neither while its body arrives nor while it waits for its turn; a tagger at work is cancelled."""
    app, client = App(), Client(request(wav())[:50], hang_up=True)
    serve(client, app)
    assert (app.bodies, client.sent) == ([], [])

    served, waiting = Client(request(wav())), Client(request(wav()))
    cancellations = []

    async def work(scope, receive, send) -> None:
        if scope["client"] is waiting:
            await app(scope, receive, send)
        await receive()
        cancellations.append(cancelled.get().is_set())
        waiting.gone.set()
        served.gone.set()
        assert (await receive())["type"] == "http.disconnect"
        cancellations.append(await asyncio.to_thread(lambda: cancelled.get().is_set()))

    async def serve_both() -> None:
        guard = Guard(work, LIMITS)
        for _ in range(guard._turns._value - 1):
            await guard._turns.acquire()
        await asyncio.gather(*(guard({**SCOPE, "client": c}, c.receive, c.send) for c in (served, waiting)))

    asyncio.run(serve_both())
    assert (cancellations, app.bodies) == ([False, True], [])
    assert cancelled.get() is None  # each request has a context of its own


def test_without_fastapi_a_warning_names_the_limits_without_effect(monkeypatch, capfd) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    middleware.install(LIMITS)
    assert re.fullmatch("fsat: warning: .*FSAT_SERVE_MAX_MB.*\n", capfd.readouterr().err)
