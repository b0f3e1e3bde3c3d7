"""`mlflow models serve` on a registered tagger: the commands of docs/serving.md, many clients, and hostile ones."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import hostile_requests as hostile
import numpy as np
import pytest
from conftest import ROOT
from hostile_requests import JSON, MARKER, Hostile, request, silence, wav
from servers import START_SECONDS, free_port, needs

from fsat import tagging as tagger_module
from fsat.config import Config
from fsat.serving import server as scoring_server
from fsat.serving.limits import VARIABLES, Limits
from fsat.tagging import MemberFiles, Tagger

pytestmark = pytest.mark.server

PAGE = (ROOT / "docs" / "serving.md").read_text()
LABELS = ["Bell", "Cello", "Flute", "Gong"]
SHARED = {"sampling_rate": 8000, "audio_duration": 0.25, "precision": "float32"}
CONFIGS = [
    Config(model="conv1d", **SHARED),
    Config(model="cnn_logmel", n_mels=16, eval_duration=1.0, **SHARED),
    Config(model="conv2d_mfcc", n_mfcc=16, **{**SHARED, "audio_duration": 1.0}),
]
SPARE_KB = 64_000
"""What a request of 2 MB may need for a while, and what the allocator may keep of it."""


def blocks(kind: str = "") -> list[str]:
    """The page's fenced blocks of a kind."""
    return [text for its, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) if its == kind]


def block(about: str, kind: str = "") -> str:
    """The first of them with this text."""
    return next(text for text in blocks(kind) if about in text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tagger's: a model of each kind, with fresh weights."""
    from fsat.models import build, save_weights, seed_everything

    seed_everything(7)
    weights, made = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("tagger")
    members = []
    for config in CONFIGS:
        path = weights / f"{config.model}.weights.h5"
        save_weights(build(config, len(LABELS)), path)
        members.append(MemberFiles(config.model, 0, config, path))
    tagger_module.write(made, members, LABELS)
    return made


@pytest.fixture(scope="module")
def alone(folder) -> Tagger:
    """The tagger in this process, asked by one caller."""
    tagger = Tagger(folder)
    tagger.warm_up()
    return tagger


class Server:
    """What `mlflow models serve` runs.

    Attributes:
        port: that it listens on.
        pid: of the process that has the tagger.
    """

    def __init__(self, port: int, process: subprocess.Popen, log: Path) -> None:
        self.port, self.process, self._log = port, process, log
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self.pid = int(children[0])

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(self, case: Hostile) -> tuple[int, str]:
        """Status and text of the answer to one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(case.method, case.path, case.body, case.headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def tags(self, body: bytes) -> list[dict]:
        """The rows of the answer to a right request."""
        status, text = self.ask(Hostile("right", body))
        assert status == 200, text
        return json.loads(text)["predictions"]

    def raw(self, *parts: bytes) -> tuple[int, str]:
        """Status and text of the answer to these bytes, sent as they are."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            for part in parts:
                connection.sendall(part)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read().decode()

    def memory(self, name: str) -> int:
        """VmRSS or VmHWM of the process, in kB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE).group(1))

    def forget_peak(self) -> None:
        """Have VmHWM begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@contextmanager
def running(command: str, folder: Path, store: Path, tls: Path | None = None, **more: str) -> Iterator[Server]:
    """Run a command of the page, in a folder without a checkout, until it answers."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db", **more}
    environment["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            ["bash", "-ec", command.replace("5001", str(port)).replace("mlflow models", "exec mlflow models")],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    address = f"{'https' if tls else 'http'}://127.0.0.1:{port}/ping"
    context = ssl.create_default_context(cafile=str(tls)) if tls else None
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(address, timeout=5, context=context).read()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()[-3000:]
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.1)
        yield Server(port, process, folder / "log")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def registered(folder, store) -> Path:
    """The store in which the tagger is champion."""
    from fsat.tracking.registry import Score, register

    register("fsat", folder, LABELS, Score(0.5, 10), "dataset", "always", "blend")
    return store


@pytest.fixture(scope="module")
def server(registered, tmp_path_factory) -> Iterator[Server]:
    """The page's first command, with the page's limits for short clips."""
    command = block("FSAT_SERVE_MAX_MB=") + block("mlflow models serve")
    with running(command, tmp_path_factory.mktemp("served"), registered) as started:
        yield started


def sounds() -> list[bytes]:
    """Clips of 12 pitches, of lengths that take one crop, three, and everything between."""
    return [wav(0.1 + 0.23 * i, frequency=200 + 150 * i) for i in range(12)]


def assert_clean(text: str) -> None:
    """One line, with nothing in it of the server's insides or of the request."""
    assert "\n" not in text
    assert len(text) < 400
    for word in (MARKER[:40], "Traceback", "stack_trace", ".py", "/tmp", "/home", "site-packages", "0x", str(ROOT)):
        assert word not in text, text


def test_200_requests_by_8_clients_at_once_get_the_tags_of_the_tagger_alone(server, alone) -> None:
    """To the last bit; and within float32's last digits what the clip gets in other company."""
    clips = sounds()
    rng = np.random.default_rng(0)
    chosen = [rng.choice(len(clips), rng.integers(1, 4)).tolist() for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda some: server.tags(request(*(clips[i] for i in some), top_k=99)), chosen))
    singly, _ = alone.scores(clips)
    for some, rows in zip(chosen, answers, strict=True):
        scores, errors = alone.scores([clips[i] for i in some])
        assert errors == [row["error"] for row in rows] == [""] * len(some)
        for i, expected, row in zip(some, scores, rows, strict=True):
            assert row["labels"] == [LABELS[j] for j in np.argsort(-expected, kind="stable")]
            assert row["scores"] == [float(score) for score in -np.sort(-expected)]
            np.testing.assert_allclose(expected, singly[i], atol=1e-6)


def test_what_the_server_takes(server, alone) -> None:
    """Rows with errors beside others, both kinds of table, parameters, MLflow's own example."""
    good, also = sounds()[:2]
    rows = server.tags(request(good, b"nothing", also, silence(31)))
    assert [bool(row["labels"]) for row in rows] == [True, False, True, False]
    assert rows[1] == {"labels": [], "scores": [], "error": "unreadable audio (Format not recognised)"}
    assert "31 s" in rows[3]["error"]
    expected = alone.scores([good, also])[0]
    assert [row["labels"][0] for row in (rows[0], rows[2])] == [LABELS[j] for j in expected.argmax(axis=1)]

    (best,) = server.tags(request(good, top_k=1))
    assert len(best["labels"]) == len(best["scores"]) == 1
    (every,) = server.tags(request(good, top_k=2**31 - 1))
    assert sorted(every["labels"]) == LABELS
    (some,) = server.tags(request(good, top_k=4, min_score=every["scores"][1]))
    assert some["labels"] == every["labels"][:2]
    (none,) = server.tags(request(good, min_score=1))
    assert none == {"labels": [], "scores": [], "error": ""}

    text = base64.encodebytes(good).decode()
    assert server.tags(json.dumps({"dataframe_split": {"columns": ["audio"], "data": [[text]]}}).encode()) == [
        {key: every[key][:3] for key in ("labels", "scores")} | {"error": ""}
    ]
    (example,) = Path.cwd().glob("mlruns/**/serving_input_example.json")
    (row,) = server.tags(example.read_bytes())
    assert len(row["labels"]) == 3


def test_hostile_requests_are_refused_in_one_line_and_leave_nothing_behind(server) -> None:
    right = request(*sounds()[:3])
    before = server.tags(right)
    memory, told = server.memory("VmRSS"), 0
    server.forget_peak()
    assert len(hostile.ALL) >= 40
    for case in hostile.ALL:
        status, text = server.ask(case)
        assert status == case.status, f"{case.name}: {status} {text}"
        assert_clean(text)
        if status == 200:
            (row,) = json.loads(text)["predictions"]
            assert (row["labels"], row["scores"]) == ([], []), case.name
            assert case.words in row["error"], f"{case.name}: {text}"
        else:
            answer = json.loads(text)
            assert case.words in answer.get("message", answer.get("detail")), f"{case.name}: {text}"
            told += "message" in answer
    assert told > 60
    assert server.memory("VmHWM") < memory + SPARE_KB
    assert server.memory("VmRSS") < memory + SPARE_KB / 2
    assert server.tags(right) == before
    assert "Traceback" not in server.log
    assert "fsat: warning" not in server.log  # MLflow was never asked what it would have refused


def test_headers_that_lie_take_no_memory(server) -> None:
    """Sounds that can be used all the same, or not, whatever they promise."""
    memory = server.memory("VmRSS")
    server.forget_peak()
    endless = hostile.header(claim=2**32 - 1, data=hostile.SAMPLES)  # as a recorder writes it into a pipe
    channels = hostile.header(channels=1000, data=bytes(400_000))
    fast = hostile.header(rate=2_000_000_000, data=hostile.SAMPLES)
    short = silence(3600, total=8000)
    slow = hostile.header(rate=1, data=bytes(58))
    rows = [server.tags(request(clip))[0] for clip in (endless, channels, fast, short, slow)]
    assert [row["error"] for row in rows] == [""] * 5
    longest = [server.tags(request(*[silence(30)] * 8)) for _ in range(3)]
    assert all(not row["error"] for rows in longest for row in rows)
    assert server.memory("VmHWM") < memory + SPARE_KB


def test_bodies_that_do_not_end_well(server) -> None:
    """Larger than is said, larger than is allowed and of no length at all, cut off; and HTTP that is none."""
    start = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    memory = server.memory("VmRSS")
    server.forget_peak()
    piece = b"40000\r\n" + b"A" * 0x40000 + b"\r\n"
    status, text = server.raw(start + b"Transfer-Encoding: chunked\r\n\r\n", *[piece] * 20, b"0\r\n\r\n")
    assert (status, "FSAT_SERVE_MAX_MB" in text) == (413, True)
    status, text = server.raw(start + b"Content-Length: 10000000000\r\nExpect: 100-continue\r\n\r\n")
    assert (status, "FSAT_SERVE_MAX_MB" in text) == (413, True)  # nothing has to be sent for it
    for length in (b"-1", b"1e3", b"5, 6"):
        status, text = server.raw(start + b"Content-Length: " + length + b"\r\n\r\n")
        assert status == 400
        assert_clean(text)
    status, text = server.raw(b"\x16\x03\x01 HTTP? no\r\n\r\n")
    assert status == 400
    assert_clean(text)

    whole = request(sounds()[0])
    for sent in (b"", whole[: len(whole) // 2], whole):  # hangs up before, amid, and after it
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.sendall(start + b"Content-Length: " + str(len(whole)).encode() + b"\r\n\r\n" + sent)
    assert server.tags(whole)
    assert server.memory("VmHWM") < memory + SPARE_KB
    assert "Traceback" not in server.log


def test_the_page_s_clients(server, tmp_path) -> None:
    """curl and Python print what the page says they do."""
    needs(shutil.which("curl"), "curl", "apt-get install curl")
    (tmp_path / "clip.wav").write_bytes(sounds()[4])
    (tmp_path / "text.wav").write_text("no sound")
    expected = server.tags(request(sounds()[4]))

    def run(command: list[str]) -> str:
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60).stdout

    here = {"5001": str(server.port)}
    assert json.loads(run(["bash", "-ec", filled(block("curl"), here)])) == {"predictions": expected}
    client = filled(block("urllib", "python"), here)
    assert len([line for line in client.splitlines() if line]) <= 10
    printed = run([sys.executable, "-c", client, "clip.wav", "text.wav"])
    labels = " ".join(expected[0]["labels"])
    assert printed.splitlines() == [f"clip.wav {labels}", "text.wav unreadable audio (Format not recognised)"]

    shown = json.loads(block("predictions", "json"))["predictions"]
    rows = server.tags(request(sounds()[4], b"no sound"))
    assert [[(key, type(value)) for key, value in row.items()] for row in rows] == [
        [(key, type(value)) for key, value in row.items()] for row in shown
    ]
    assert rows[1] == shown[1]
    refused = server.ask(Hostile("not base64", request(sounds()[4], "?")))
    assert refused == (400, block("error_code", "json").rstrip("\n"))


def filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def test_the_page_names_every_limit_with_its_default() -> None:
    for name, variable in VARIABLES.items():
        assert re.search(rf"\| `{variable}` \| {getattr(Limits(), name):g} \|", PAGE), variable
    assert set(re.findall(r"FSAT_\w+", PAGE)) == {*VARIABLES.values(), "FSAT_THREADS"}


def test_workers_and_https(registered, tmp_path) -> None:
    """Two processes with a certificate; and one line, not one after the other for ever, where a limit is none."""
    needs(shutil.which("openssl"), "openssl", "apt-get install openssl")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    command = block("--workers 2")
    with running(block("SSL") + command, tmp_path, registered, tmp_path / "cert.pem") as server:
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        address = f"https://127.0.0.1:{server.port}/invocations"
        asked = urllib.request.Request(address, request(wav()), dict(JSON))
        assert json.load(urllib.request.urlopen(asked, timeout=60, context=context))["predictions"][0]["labels"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{registered}/mlflow.db", "FSAT_SERVE_MAX_MB": "all"}
    done = subprocess.run(
        ["bash", "-ec", command.replace("5001", str(free_port()))],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=START_SECONDS,
    )  # fmt: skip
    assert "Application startup complete" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("fsat: ")]
    assert said
    assert set(said) == {"fsat: error: FSAT_SERVE_MAX_MB=all: expected a number; unset it for the default, 64.0"}


def test_after_loading_in_a_server_nothing_is_compiled_any_more(folder, monkeypatch) -> None:
    """Whatever number of clips of whatever length comes: a model that was traced again would take a second for it."""
    from fastapi import FastAPI

    monkeypatch.setattr(FastAPI, "__call__", FastAPI.__call__)  # put back afterwards
    monkeypatch.setitem(sys.modules, scoring_server.SERVER, object())
    monkeypatch.setenv("FSAT_SERVE_MAX_SECONDS", "5")
    served = tagger_module._load_pyfunc(str(folder))
    assert served.max_seconds == 5
    assert FastAPI.__call__.__name__ == "guarded"

    before = traces(served)
    assert before == [1, 1, 1]
    for clips in ([wav(0.01)], [wav(0.25)], [wav(3)], [wav(0.4)] * 5, [wav(0.1 + 0.3 * i) for i in range(9)]):
        served.scores(clips)
    assert traces(served) == before
    monkeypatch.delitem(sys.modules, scoring_server.SERVER)
    assert traces(tagger_module._load_pyfunc(str(folder))) == [0, 0, 0]  # elsewhere that would only take time


def traces(tagger: Tagger) -> list[int]:
    """How often each model was compiled."""
    return [member.model.predict_function.experimental_get_tracing_count() for member in tagger.members]


def test_threads_get_from_a_fresh_tagger_what_they_would_alone(folder, alone) -> None:
    """All at once at its very first tagging."""
    fresh, clips = Tagger(folder), sounds()
    begin = threading.Barrier(8)
    assert traces(fresh) == [0, 0, 0]

    def work(first: int) -> list[np.ndarray]:
        begin.wait(60)
        return [fresh.scores([clips[i]])[0] for i in range(first, 12, 4)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, [0, 1, 2, 3] * 2))
    for first, scores in zip([0, 1, 2, 3] * 2, found, strict=True):
        for i, score in zip(range(first, 12, 4), scores, strict=True):
            np.testing.assert_array_equal(score, alone.scores([clips[i]])[0])


def test_only_bytes_are_decoded(alone, tmp_path) -> None:
    """A path in a row is that row's error, though the file is there."""
    import pandas as pd

    path = tmp_path / "clip.wav"
    path.write_bytes(sounds()[0])
    values = [str(path), path.read_bytes(), path, None, bytearray(path.read_bytes())]
    result = alone.predict(pd.DataFrame({"audio": pd.Series(values, dtype=object)}))
    assert [bool(labels) for labels in result["labels"]] == [False, True, False, False, True]
    assert result["error"][0] == "audio is str: expected the bytes of an audio file"
