"""An HTTP server of archives that can break off, lie, stall and stop, and small archives for it.

Each request takes the next fault of `ZipServer.faults`; without one the server answers correctly, with ETag and Range.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from helpers import CLASSES, make_dataset, make_zenodo, tone, write_csv, write_wav
from servers import free_port

from fsat.download.published import Published
from fsat.download.published_backbones import BACKBONES
from fsat.download.published_datasets import DATASETS, ESC50_COMMIT, Dataset


@dataclass
class Asked:
    """One request, and what was sent: bytes of the body."""

    name: str
    range: str
    if_range: str
    sent: int = 0


class ZipServer:
    """Serves `files` by name, on a port of its own; it can be stopped and started again there.

    A fault is a mapping with some of: ``status``, ``headers``, ``body`` (instead of the file's), ``cut`` (bytes after
    which the connection breaks off), ``stall`` (seconds of silence after them), ``slow`` (seconds for each 1,000
    bytes), ``trickle`` (seconds for each of them after `cut`), ``no_range`` (Range is not known), ``chunked`` (no
    length).
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files, self.port = dict(files), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.asked: list[Asked] = []
        self.faults: list[dict[str, Any]] = []
        self.always: dict[str, Any] = {}
        self.gone = threading.Event()

    def start(self) -> ZipServer:
        self.gone.clear()
        handler = type("Handler", (_Handler,), {"zips": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        self.gone.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    zips: ZipServer

    def do_GET(self) -> None:
        self.close_connection = True
        zips = self.zips
        name = self.path.partition("?")[0].rpartition("/")[2]
        asked = Asked(name, self.headers.get("Range", ""), self.headers.get("If-Range", ""))
        zips.asked.append(asked)
        fault = zips.always | (zips.faults.pop(0) if zips.faults else {})
        if name not in zips.files:
            fault = {"status": 404, "body": b"no such file", **fault}
        whole = zips.files.get(name, b"")
        tag = f'"{hashlib.md5(whole).hexdigest()}"'
        status, body, headers = 200, whole, {"ETag": tag, "Content-Type": "application/zip"}
        if asked.range and not fault.get("no_range") and asked.if_range in ("", tag):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked.range)[1])
            status, body = (206, whole[start:]) if start < len(whole) else (416, b"")
            at = f"{start}-{len(whole) - 1}" if body else "*"
            headers["Content-Range"] = f"bytes {at}/{len(whole)}"
        status, body = fault.get("status", status), fault.get("body", body)
        headers |= {"Content-Length": str(len(body))} | fault.get("headers", {})
        if fault.get("chunked"):
            headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/zip"}
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:5000], body[5000:])) + b"0\r\n\r\n"
        self.send_response(status)
        self.send_header("Connection", "close")
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        stop = fault.get("cut", len(body))
        parts = ((body[at : min(at + 1000, stop)], fault.get("slow", 0)) for at in range(0, stop, 1000))
        rest = range(stop, len(body) if "trickle" in fault else stop)
        with suppress(OSError):  # the client has gone
            for part, seconds in chain(parts, ((body[at : at + 1], fault["trickle"]) for at in rest)):
                self.wfile.write(part)
                asked.sent += len(part)
                if zips.gone.wait(seconds):
                    return
            zips.gone.wait(fault.get("stall", 0))

    def log_message(self, *_: object) -> None:
        pass


def zipped(files: Mapping[str, bytes] | Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    """A zip file of these entries, in order."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in files.items() if isinstance(files, Mapping) else files:
            opened.writestr(name, data)
    return target.getvalue()


def files_of(folder: Path) -> dict[str, bytes]:
    """Content of all files below a folder, by their paths in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def with_archives(dataset: Published, zips: Mapping[str, bytes], **changes: Any) -> Any:
    """A published dataset or backbone with these archives instead of its own."""
    archives = tuple(
        replace(archive, checksum=f"sha256:{hashlib.sha256(zips[archive.name]).hexdigest()}",
                fetched_bytes=len(zips[archive.name]), unpacked_bytes=10 * len(zips[archive.name]))
        for archive in dataset.archives
    )  # fmt: skip
    return replace(dataset, archives=archives, **changes)


def small_fsdkaggle2018(folder: Path) -> tuple[Dataset, dict[str, bytes], dict[str, bytes]]:
    """FSDKaggle2018 with a few clips: the dataset, its archives by name, and the files that it becomes."""
    files = files_of(make_zenodo(make_dataset(folder, clips_per_class=2, test_clips=2)))
    real = DATASETS["fsdkaggle2018"]
    zips = {
        archive.name: zipped({name: data for name, data in files.items() if name.startswith(top)})
        for archive in real.archives
        for top in archive.targets
    }
    return with_archives(real, zips, counts=dict(zip(real.tables, (2 * len(CLASSES), 2), strict=True))), zips, files


def small_esc50(folder: Path) -> tuple[Dataset, dict[str, bytes], dict[str, bytes]]:
    """ESC-50 with 4 clips of 0.1 s in 2 folds, as `small_fsdkaggle2018`; one recording has clips in both folds."""
    rows = [
        ("1-100-A-0.wav", 1, 0, "dog", "True", 100, "A"),
        ("1-101-A-1.wav", 1, 1, "door_wood_knock", "False", 101, "A"),
        ("2-102-A-0.wav", 2, 0, "dog", "True", 102, "A"),
        ("2-101-B-1.wav", 2, 1, "door_wood_knock", "False", 101, "B"),
    ]
    for i, row in enumerate(rows):
        write_wav(folder / "audio" / row[0], tone(300 + 100 * i, 0.1, 8000))
    write_csv(folder / "meta" / "esc50.csv", "filename fold target category esc10 src_file take".split(), rows)
    (folder / "LICENSE").write_text("who recorded what")
    (folder / "README.md").write_text("# ESC-50")
    (folder / "tests").mkdir()
    (folder / "tests" / "test_dataset.py").write_text("raise SystemExit")
    files = files_of(folder)
    real = DATASETS["esc50"]
    zips = {real.archives[0].name: zipped({f"ESC-50-{ESC50_COMMIT}/{name}": data for name, data in files.items()})}
    del files["tests/test_dataset.py"]
    expected = {name.replace("audio/", "audio_train/"): data for name, data in files.items()}
    table = [f"{row[0]},{row[3]},1,{row[1]},{row[5]}" for row in rows]
    header = "fname,label,manually_verified,fold,freesound_id"
    expected["train.csv"] = "".join(f"{line}\n" for line in [header, *table]).encode()
    dataset = with_archives(real, zips, counts={"train.csv": 4}, wav=(800, 8000), n_folds=2)
    return dataset, zips, expected


def small_backbone(name: str) -> tuple[Published, dict[str, bytes], dict[str, bytes]]:
    """A known backbone with a file that is no network, as `small_fsdkaggle2018`."""
    real = BACKBONES[name]
    archive = real.archives[0]
    model = (b"\x1c\0\0\0TFL3" if real.format == "tflite" else b"\x08\x08") + noise(5000)
    named = {source: model if target == real.file else target.encode() for source, target in archive.targets.items()}
    zips = {
        archive.name: zipped({**named, "other/code.py": b"raise SystemExit"}) if archive.name not in named else model
    }
    backbone = with_archives(real, zips, sha256=hashlib.sha256(model).hexdigest())
    files = {archive.targets[source]: data for source, data in named.items()}
    files["backbone.json"] = (json.dumps(backbone.descriptor, indent=2) + "\n").encode()
    return backbone, zips, files


def kill_downloads(name: str, url: str, folder: Path, small: tuple[Published, Any, Any], share: float) -> list[int]:
    """Run ``kill_steps.py`` on what a `small_...` function returned: the numbers of kills and of steps."""
    known = folder / "known"
    known.write_bytes(pickle.dumps(small))
    script = Path(__file__).with_name("kill_steps.py")
    environment = {**os.environ, "PYTHONPATH": str(script.parent.parent)}
    arguments = map(str, [script, name, url, folder, known, share])
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [int(number) for number in done.stdout.split()]


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that cannot be compressed."""
    return np.random.default_rng(seed).bytes(size)
