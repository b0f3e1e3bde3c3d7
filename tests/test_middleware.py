"""What `fsat.serving` decides by itself, without a server: limits, requests, groups, who is still waited for."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import threading

import hostile_requests as hostile
import numpy as np
import pytest
import soundfile as sf
from helpers import one_line
from hostile_requests import MARKER, request, silence, wav

from fsat.config import Config
from fsat.errors import ConfigError
from fsat.serving import cancellation, middleware, server
from fsat.serving.clips import first_sounds, groups
from fsat.serving.limits import Limits
from fsat.serving.requests import RequestError, check_body, check_headers, tag_params

LIMITS = Limits(max_mb=2, max_seconds=30, max_clips=8)
SCOPE = {"type": "http", "method": "POST", "path": "/invocations", "headers": [(b"Content-Type", b"application/json")]}


def test_limits_come_from_the_environment() -> None:
    assert Limits.from_environment({}) == Limits()
    given = {"FSAT_SERVE_MAX_MB": "0.5", "FSAT_SERVE_MAX_SECONDS": "1e3", "FSAT_SERVE_MAX_CLIPS": " 7 "}
    limits = Limits.from_environment(given)
    assert limits == Limits(0.5, 1000.0, 7)
    assert limits.max_bytes == 500_000


@pytest.mark.parametrize(
    "given",
    ["MAX_MB=big", "MAX_MB=0.0", "MAX_MB=inf", "MAX_SECONDS=-1.0", "MAX_SECONDS=nan", "MAX_CLIPS=0", "MAX_CLIPS=1.5"],
)
def test_a_wrong_limit_is_named(given) -> None:
    name, _, text = f"FSAT_SERVE_{given}".partition("=")
    with pytest.raises(ConfigError) as error:
        Limits.from_environment({name: text})
    assert one_line(error.value).startswith(f"{name}={text}: expected ")


@pytest.mark.parametrize("case", [*hostile.TEXTS, *hostile.BODIES], ids=lambda case: case.name)
def test_a_body_that_is_no_request_is_refused(case) -> None:
    with pytest.raises(RequestError) as error:
        check_body(case.body, LIMITS.max_clips)
    assert case.words in one_line(error.value)
    assert error.value.status == case.status
    assert MARKER not in str(error.value)


@pytest.mark.parametrize("case", hostile.SOUNDS, ids=lambda case: case.name)
def test_a_sound_that_is_none_is_not_the_requests_fault(case) -> None:
    check_body(case.body, LIMITS.max_clips)


def test_right_requests_pass() -> None:
    text = hostile.CLIP
    lines = "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76))  # as MLflow's own clients write it
    check_body(request(*[wav()] * 8, top_k=2**31 - 1, min_score=0), 8)
    for audio in (text, lines, f" {text}\n"):
        check_body(json.dumps({"dataframe_records": [{"audio": audio}], "params": None}).encode(), 1)
        for index in ({}, {"index": [0]}, {"index": ["a"]}):
            table = {"columns": ["audio"], "data": [[audio]], **index}
            check_body(json.dumps({"dataframe_split": table, "params": {}}, indent=1).encode(), 1)


@pytest.mark.parametrize(
    "kind",
    ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"', "application/json;"],
)
def test_content_types_of_json_pass(kind) -> None:
    check_headers({"content-type": kind, "content-length": "2000000", "content-encoding": "identity"}, 2_000_000)
    for length in ("2000001", "1" * 5000):
        with pytest.raises(RequestError) as error:
            check_headers({"content-type": kind, "content-length": length}, 2_000_000)
        assert error.value.status == 413


def test_parameters_of_tags() -> None:
    assert tag_params(None) == tag_params({}) == (3, 0.0)
    assert tag_params({"top_k": np.int32(5), "min_score": 1}) == (5, 1.0)


def test_groups_last_no_longer_than_the_longest_clip() -> None:
    """By headers, whatever they say; what has none lasts no time."""
    clips = [wav(1), wav(1), b"nothing", wav(1), "a path", wav(5), wav(1), silence(1, total=2**36 - 1)]
    lengths = [[clips[i] for i in range(len(clips))[part]] for part in groups(clips, 2.5)]
    assert [len(group) for group in lengths] == [3, 2, 1, 1, 1]
    assert list(groups(clips, 1e12)) == [slice(0, len(clips))]
    assert list(groups([], 1)) == []


def test_first_sounds_are_a_short_and_a_long_one() -> None:
    configs = [Config(audio_duration=2.0), Config(model="cnn_logmel", audio_duration=1.0, eval_duration=5.0)]
    assert [sf.info(io.BytesIO(sound)).duration for sound in first_sounds(configs)] == pytest.approx([0.5, 6.0])


class Client:
    """Sends a body in pieces and keeps the answer; hangs up where told to.

    Attributes:
        sent: what the application has answered.
        asked: how many pieces were asked for.
    """

    def __init__(self, *parts: bytes, hang_up: bool = False) -> None:
        more = [True] * (len(parts) - 1) + [hang_up]
        self._parts = [
            {"type": "http.request", "body": part, "more_body": m} for part, m in zip(parts, more, strict=True)
        ]
        self._hang_up, self.gone = hang_up, asyncio.Event()
        self.sent: list[dict] = []
        self.asked = 0

    async def receive(self) -> dict:
        self.asked += 1
        if self._parts:
            return self._parts.pop(0)
        if not self._hang_up:
            await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def answer(self) -> dict:
        return json.loads(b"".join(message.get("body", b"") for message in self.sent[1:]))


class App:
    """Takes in the body and answers with a status and a text; keeps what it was given."""

    def __init__(self, status: int = 200, text: bytes = b"{}") -> None:
        self.status, self.text = status, text
        self.bodies: list[bytes] = []

    async def __call__(self, scope, receive, send) -> None:
        self.scope = scope
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": self.text[:5], "more_body": True})
        await send({"type": "http.response.body", "body": self.text[5:]})


def serve(client: Client, app: App, scope: dict = SCOPE, limits: Limits = LIMITS) -> middleware.Guard:
    made = middleware.Guard(limits)
    asyncio.run(made(app, scope, client.receive, client.send))
    assert made._held == 0
    return made


def test_a_right_request_reaches_the_application_whole() -> None:
    body, app = request(wav()), App(text=b'{"predictions": []}')
    client = Client(body[:100], body[100:200], b"", body[200:])
    serve(client, app)
    assert app.bodies == [body]
    assert dict(app.scope["headers"]) == {b"content-type": b"application/json"}
    assert (client.status, client.answer) == (200, {"predictions": []})


def test_other_requests_are_not_looked_at() -> None:
    app, client = App(404, b"gone"), Client(MARKER.encode())
    serve(client, app, {**SCOPE, "method": "GET", "path": "/ping"})
    assert app.bodies == [MARKER.encode()]
    assert client.sent[0]["status"] == 404


@pytest.mark.parametrize("limits", [Limits(), LIMITS, Limits(0.01, 0.02, 1)])
def test_the_first_request_is_the_guard_s_own(limits, capfd) -> None:
    """Before uvicorn, which asks for the lifespan first, lets anybody in."""
    app, asked = App(), []

    async def both(scope, receive, send) -> None:
        asked.append(scope["type"])
        if scope["type"] == "http":
            await app(scope, receive, send)

    asyncio.run(middleware.Guard(limits)(both, {"type": "lifespan"}, Client(b"").receive, Client(b"").send))
    assert asked == ["http", "lifespan"]
    (body,) = app.bodies
    check_body(body, limits.max_clips)
    assert len(body) <= limits.max_bytes
    sound = base64.b64decode(json.loads(body)["dataframe_records"][0]["audio"])
    assert 0.01 < sf.info(io.BytesIO(sound)).duration <= min(5, limits.max_seconds)
    assert capfd.readouterr().err == ""


def test_a_body_is_given_up_once_it_is_too_large() -> None:
    """Nothing is kept; what still comes is taken in, within reason, so that the client gets to its answer."""
    app, pieces = App(), [b"a" * 500_000] * 10
    client = Client(*pieces)
    serve(client, app)
    assert (client.status, client.asked) == (413, 10)
    client = Client(*[b"a" * 500_000] * 100)
    serve(client, app)
    assert (client.status, client.asked) == (413, 32)  # 8 times 2 MB
    client = Client(*pieces)
    serve(client, app, {**SCOPE, "headers": [*SCOPE["headers"], (b"content-length", b"5000000")]})
    assert (client.status, client.asked) == (413, 10)
    client = Client(*pieces)
    told = [(b"content-length", b"5000000"), (b"expect", b"100-continue")]
    serve(client, app, {**SCOPE, "headers": [*SCOPE["headers"], *told]})
    assert (client.status, client.asked) == (413, 0)
    assert app.bodies == []


def test_bodies_that_are_too_many_at_once_are_put_off() -> None:
    """Of all that are on their way together, only so much is held."""
    made, app = middleware.Guard(Limits(max_mb=0.001)), App()
    clients = [Client(b"{" * 900, b"", hang_up=True) for _ in range(12)]
    ready = asyncio.Event()

    async def slow(client: Client) -> dict:
        if client.asked == 1:
            await ready.wait()
        return await Client.receive(client)

    async def all_at_once() -> None:
        tasks = [asyncio.create_task(made(app, SCOPE, lambda c=c: slow(c), c.send)) for c in clients]
        while not all(client.asked for client in clients):
            await asyncio.sleep(0)
        held = made._held
        ready.set()
        await asyncio.gather(*tasks)
        assert held <= 9 * 900

    asyncio.run(all_at_once())
    refused = [client for client in clients if client.sent]
    assert len(refused) == 4
    for client in refused:
        assert client.status == 503
        assert (b"retry-after", b"1") in client.sent[0]["headers"]
    assert made._held == 0
    assert app.bodies == []


@pytest.mark.parametrize(
    ("status", "said", "becomes", "words"),
    [
        (400, {"error_code": "BAD_REQUEST", "message": MARKER, "stack_trace": "Traceback"}, 500, "failed"),
        (400, {"error_code": "INVALID", "message": MARKER}, 400, "refuses"),
        (500, "Internal Server Error", 500, "failed"),
        (504, "Request processing time exceeded limit", 504, "--timeout"),
    ],
)
def test_what_mlflow_says_of_errors_goes_to_the_log(status, said, becomes, words, capfd) -> None:
    client = Client(request(wav()))
    serve(client, App(status, json.dumps(said, indent=1).encode()))
    assert client.status == becomes
    assert words in client.answer["message"]
    assert MARKER not in client.answer["message"]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"fsat: warning: a request was answered with {status}: ")
    assert (said if isinstance(said, str) else said["message"]) in line


def test_who_hangs_up_is_not_served() -> None:
    """Not while the body comes in, not while it waits for its turn; a tagger that is at work can find out."""
    app = App()
    client = Client(request(wav())[:50], hang_up=True)
    serve(client, app)
    assert (app.bodies, client.sent) == ([], [])

    made, found = middleware.Guard(LIMITS), []
    served, waiting = Client(request(wav())), Client(request(wav()))

    def look() -> None:
        with pytest.raises(cancellation.GivenUp):
            cancellation.check_wanted()
        found.append(True)

    async def work(scope, receive, send) -> None:
        await receive()
        cancellation.check_wanted()
        waiting.gone.set()
        served.gone.set()
        assert (await receive())["type"] == "http.disconnect"
        await asyncio.to_thread(look)

    async def both() -> None:
        for _ in range(made._turns._value - 1):
            await made._turns.acquire()
        first = asyncio.create_task(made(work, SCOPE, served.receive, served.send))
        second = asyncio.create_task(made(app, SCOPE, waiting.receive, waiting.send))
        await asyncio.gather(first, second)

    asyncio.run(both())
    assert found == [True]
    assert app.bodies == []
    cancellation.check_wanted()  # here nobody waits for anything


def test_a_request_of_one_context_is_not_that_of_another() -> None:
    over = []

    def work() -> None:
        cancellation.answering().set()
        with pytest.raises(cancellation.GivenUp):
            cancellation.check_wanted()
        over.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    cancellation.check_wanted()
    assert over == [True]


def test_without_fastapi_there_is_a_warning(monkeypatch, capfd) -> None:
    import sys

    assert not server.in_server()
    monkeypatch.setitem(sys.modules, "fastapi", None)
    server.install(LIMITS)
    (line,) = capfd.readouterr().err.splitlines()
    assert "FSAT_SERVE_MAX_MB" in line


def test_a_wrong_limit_ends_the_server_in_one_line(monkeypatch, capfd) -> None:
    monkeypatch.setenv("FSAT_SERVE_MAX_MB", "many")
    with pytest.raises(SystemExit) as left, server.starting():
        Limits.from_environment(os.environ)
    assert left.value.code == 3
    assert capfd.readouterr().err.splitlines() == [
        "fsat: error: FSAT_SERVE_MAX_MB=many: expected a number; unset it for the default, 64.0"
    ]
