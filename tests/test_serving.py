"""`mlflow models serve` on a registered tagger: the commands of docs/serving.md, many clients, hostile requests."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import hostile_requests as hostile
import numpy as np
import pytest
from conftest import ROOT
from helpers import CLASSES
from hostile_requests import JSON, MARKER, Hostile, request, silence, wav
from servers import START_SECONDS, MlflowServer, free_port, needs
from taggers import ONE_OF_EACH, PLATT, SEVERAL, THRESHOLDS, register_tagger, write_tagger

from fsat.serving.requests import VARIABLES, Limits
from fsat.tagging import Tagger

pytestmark = pytest.mark.server

PAGE = (ROOT / "docs" / "serving.md").read_text()
SPARE_KB = 64_000
"""What a request of 2 MB may need, and what the allocator may keep of it."""


def block(text: str, kind: str = "") -> str:
    """The page's first fenced block of a kind that contains a text."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return next(content for its, content in blocks if its == kind and text in content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tagger(tmp_path_factory.mktemp("taggers") / "tagger", ONE_OF_EACH, n_folds=1)


@pytest.fixture(scope="module")
def alone(folder) -> Tagger:
    return Tagger(folder)


class Server(MlflowServer):
    """`mlflow models serve` by a command of the page, in a folder without a checkout.

    The machine is an unkind one: it has no home folder, and a keras.json that changes scores.
    """

    def __init__(self, command: str, folder: Path, store: Path, tls: Path | None = None) -> None:
        port = free_port()
        command = command.replace("5001", str(port)).replace("mlflow models", "exec mlflow models")
        settings = f"MLFLOW_TRACKING_URI=sqlite:///{store}/mlflow.db MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false"
        (folder / "keras.json").write_text(json.dumps({"floatx": "float16", "epsilon": 0.1}))
        settings += f" HOME={folder}/missing KERAS_HOME={folder} TMPDIR={folder} KERAS_BACKEND=jax"
        super().__init__(folder, port=port, command=f"export PYTHONPATH= {settings}\n{command}")
        self.tls = {"context": ssl.create_default_context(cafile=str(tls))} if tls else {}
        self.address = f"{'https' if tls else 'http'}://127.0.0.1:{port}"

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.address}/ping", timeout=5, **self.tls) as answer:
            return answer.status == 200
        return False

    @property
    def pid(self) -> int:
        """The process that has the tagger."""
        return int(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()[0])

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def ask(self, case: Hostile) -> tuple[int, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(case.method, case.path, case.body, case.headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def tags(self, body: bytes) -> list[dict]:
        status, text = self.ask(Hostile("valid", body))
        assert status == 200, text
        return json.loads(text)["predictions"]

    def raw(self, *parts: bytes) -> tuple[int, str]:
        """Return the status and the text of the answer to bytes that are sent as they are."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            for part in parts:
                connection.sendall(part)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read().decode()

    def memory(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE).group(1))

    @contextmanager
    def bounded_memory(self) -> Iterator[None]:
        """Check that the peak of the memory rises by less than `SPARE_KB`."""
        before = self.memory("VmRSS")
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # resets the peak
        yield
        assert self.memory("VmHWM") < before + SPARE_KB


@pytest.fixture(scope="module")
def registered(folder, store) -> Path:
    register_tagger(folder)
    return store


@pytest.fixture(scope="module")
def server(registered, tmp_path_factory) -> Iterator[Server]:
    """The page's first command, with the page's limits for short clips."""
    command = block("FSAT_SERVE_MAX_MB=") + block("mlflow models serve")
    with Server(command, tmp_path_factory.mktemp("served"), registered) as started:
        yield started


SOUNDS = [wav(0.1 + 0.23 * i, frequency=200 + 150 * i) for i in range(12)]
"""Clips of 12 pitches, of lengths that take one crop, three, and everything between."""


def assert_clean(text: str) -> None:
    """One line, with nothing in it of the server's insides or of the request."""
    assert "\n" not in text
    assert len(text) < 400
    for word in (MARKER[:40], "Traceback", "stack_trace", ".py", "/tmp", "/home", "site-packages", "0x", str(ROOT)):
        assert word not in text, text


def test_64_requests_by_8_clients_get_the_scores_of_the_tagger(server, alone) -> None:
    """To the last bit; and within float32's precision those that a clip gets with other clips."""
    rng = np.random.default_rng(0)
    chosen = [rng.choice(len(SOUNDS), rng.integers(1, 4)).tolist() for _ in range(64)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda items: server.tags(request(*(SOUNDS[i] for i in items), top_k=99)), chosen))
    singly, _ = alone.scores(SOUNDS)
    for items, rows in zip(chosen, answers, strict=True):
        scores, errors = alone.scores([SOUNDS[i] for i in items])
        assert errors == [row["error"] for row in rows] == [""] * len(items)
        for i, expected, row in zip(items, scores, rows, strict=True):
            assert row["labels"] == [CLASSES[j] for j in np.argsort(-expected, kind="stable")]
            assert row["scores"] == [float(score) for score in -np.sort(-expected)]
            np.testing.assert_allclose(expected, singly[i], atol=1e-6)


def test_what_the_server_takes(server) -> None:
    """Rows with errors beside others, both kinds of table, parameters, MLflow's example."""
    rows = server.tags(request(SOUNDS[0], b"nothing", SOUNDS[1], silence(31)))
    assert [bool(row["labels"]) for row in rows] == [True, False, True, False]
    assert "31 s" in rows[3]["error"]
    (ranked,) = server.tags(request(SOUNDS[0], top_k=2**31 - 1))
    assert sorted(ranked["labels"]) == sorted(CLASSES)
    (high,) = server.tags(request(SOUNDS[0], top_k=4, min_score=ranked["scores"][1]))
    assert high["labels"] == ranked["labels"][:2]
    text = base64.encodebytes(SOUNDS[0]).decode()
    assert server.tags(json.dumps({"dataframe_split": {"columns": ["audio"], "data": [[text]]}}).encode()) == [ranked]
    (example,) = Path.cwd().glob("mlruns/**/serving_input_example.json")
    assert len(server.tags(example.read_bytes())[0]["labels"]) == 3


def test_hostile_requests_are_refused_in_one_line_and_leave_nothing_behind(server) -> None:
    valid = request(*SOUNDS[:3])
    before, memory = server.tags(valid), server.memory("VmRSS")
    with server.bounded_memory():
        for case in hostile.ALL:
            status, text = server.ask(case)
            assert status == case.status, f"{case.name}: {status} {text}"
            assert_clean(text)
            answer = json.loads(text)
            if status == 200:
                (row,) = answer["predictions"]
                message = row["error"]
                assert bool(row["labels"]) == bool(row["scores"]) == message.startswith("cut off after"), case.name
            else:
                message = answer.get("message", answer.get("detail"))
            assert case.words in message, f"{case.name}: {text}"
    assert server.memory("VmRSS") < memory + SPARE_KB / 2
    assert server.tags(valid) == before
    assert "Traceback" not in server.log
    assert "fsat: warning" not in server.log  # no request that MLflow would have refused has reached it


def test_malformed_bodies_and_http(server) -> None:
    """Larger than announced, larger than allowed without a length, cut off; and invalid HTTP."""
    start = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    part = b"40000\r\n" + b"A" * 0x40000 + b"\r\n"
    with server.bounded_memory():
        for sent in (
            [start + b"Transfer-Encoding: chunked\r\n\r\n", *[part] * 20, b"0\r\n\r\n"],
            [start + b"Content-Length: 10000000000\r\nExpect: 100-continue\r\n\r\n"],
        ):
            status, text = server.raw(*sent)
            assert (status, "FSAT_SERVE_MAX_MB" in text) == (413, True)
        lengths = [start + b"Content-Length: " + length + b"\r\n\r\n" for length in (b"-1", b"1e3", b"5, 6")]
        for sent in (*lengths, b"\x16\x03\x01 HTTP? no\r\n\r\n"):
            status, text = server.raw(sent)
            assert status == 400
            assert_clean(text)
        whole = request(SOUNDS[0])
        for sent in (b"", whole[: len(whole) // 2], whole):  # disconnects before, within and after the body
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
                connection.sendall(start + b"Content-Length: " + str(len(whole)).encode() + b"\r\n\r\n" + sent)
        assert server.tags(whole)
    assert "Traceback" not in server.log


def test_the_page_s_clients_print_what_it_says(server, tmp_path) -> None:
    needs(shutil.which("curl"), "curl", "apt-get install curl")
    (tmp_path / "clip.wav").write_bytes(SOUNDS[4])
    (tmp_path / "text.wav").write_text("no sound")
    rows = server.tags(request(SOUNDS[4], b"no sound"))

    def run(command: list[str]) -> str:
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60).stdout

    curl, client = (text.replace("5001", str(server.port)) for text in (block("curl"), block("urllib", "python")))
    assert json.loads(run(["bash", "-ec", curl])) == {"predictions": server.tags(request(SOUNDS[4]))}
    assert len([line for line in client.splitlines() if line]) <= 10
    printed = run([sys.executable, "-c", client, "clip.wav", "text.wav"])
    labels = ", ".join(rows[0]["labels"])
    assert printed.splitlines() == [f"clip.wav {labels}", "text.wav unreadable audio (unknown format)"]

    shown = json.loads(block("predictions", "json"))["predictions"]
    types = [[[(key, type(value)) for key, value in row.items()] for row in table] for table in (rows, shown)]
    assert types[0] == types[1]
    assert rows[1] == shown[1]
    refused = server.ask(Hostile("not base64", request(SOUNDS[4], "?")))
    assert refused == (400, block("error_code", "json").rstrip("\n"))


def test_the_page_names_every_limit_with_its_default() -> None:
    for name, variable in VARIABLES.items():
        assert re.search(rf"\| `{variable}` \| {getattr(Limits(), name):g} \|", PAGE), variable
    assert set(re.findall(r"FSAT_\w+", PAGE)) == {*VARIABLES.values(), "FSAT_THREADS"}


def test_workers_and_https_and_any_number_of_labels(registered, tmp_path) -> None:
    """Two processes with a certificate; and one line, instead of restarts for ever, where a limit is no number.

    They serve a tagger with thresholds.
    """
    needs(shutil.which("openssl"), "openssl", "apt-get install openssl")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    several = write_tagger(tmp_path / "several", [SEVERAL], scaling=PLATT, thresholds=THRESHOLDS)
    register_tagger(several, "several")
    command, sounds = block("--workers 2"), [wav(0.5, frequency=frequency) for frequency in (300, 350, 900)]
    shown = command.replace("models:/fsat@", "models:/several@")
    with Server(block("SSL") + shown, tmp_path, registered, tmp_path / "cert.pem") as server:

        def ask(**params: float) -> list[dict]:
            asked = urllib.request.Request(f"{server.address}/invocations", request(*sounds, **params), dict(JSON))
            return json.load(urllib.request.urlopen(asked, timeout=60, **server.tls))["predictions"]

        rows = ask()
        assert [sorted(row["labels"]) for row in rows] == [["Bell"], ["Bell", "Cello"], []]
        assert [row["note"] for row in rows] == ["", "", "no label"]
        assert ask(min_score=-1) == rows
        assert [len(row["labels"]) for row in ask(min_score=0)] == [3, 3, 3]
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(min_score=-0.5)
        message = json.load(refused.value)["message"]
        assert message == "min_score=-0.5: expected a number from 0 to 1, or -1 for the threshold of each class"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{registered}/mlflow.db", "FSAT_SERVE_MAX_MB": "all"}
    done = subprocess.run(
        ["bash", "-ec", command.replace("5001", str(free_port()))],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=START_SECONDS,
    )  # fmt: skip
    assert "Application startup complete" not in done.stderr
    lines = {line for line in done.stderr.splitlines() if line.startswith("fsat: ")}
    assert lines == {"fsat: error: FSAT_SERVE_MAX_MB=all: expected a number; unset it for the default, 64.0"}
