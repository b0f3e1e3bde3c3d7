"""Requests that a served tagger must refuse: files that are not sounds, and bodies that are not requests.

No answer may quote `MARKER`, which many of them contain.
"""

from __future__ import annotations

import base64
import io
import json
from typing import NamedTuple

import numpy as np
import soundfile as sf
from helpers import tone
from hostile_files import wav as wav_file

MARKER = "hunter2-" * 8
JSON = {"Content-Type": "application/json"}


class Hostile(NamedTuple):
    """A request and its answer: the status, which is 200 for an error of the row, and words of the message."""

    name: str
    body: bytes
    status: int = 400
    words: str = ""
    headers: dict[str, str] = JSON
    method: str = "POST"
    path: str = "/invocations"


def wav(seconds: float = 0.3, rate: int = 8000, frequency: float = 440.0) -> bytes:
    """Return a sine as a WAV file."""
    buffer = io.BytesIO()
    sf.write(buffer, tone(frequency, seconds, rate), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def request(*clips: object, **params: object) -> bytes:
    """Return a valid request, if the clips are bytes; other values go in as they are."""
    rows = [{"audio": base64.b64encode(clip).decode() if isinstance(clip, bytes) else clip} for clip in clips]
    return json.dumps({"dataframe_records": rows, **({"params": params} if params else {})}).encode()


def silence(seconds: float, rate: int = 8000, total: int | None = None) -> bytes:
    """Return silence as FLAC (an hour has 90 kB), with `total` as the number of samples in its header."""
    buffer = io.BytesIO()
    with sf.SoundFile(buffer, "w", rate, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(round(seconds)):
            file.write(np.zeros(rate, np.int16))
    data = bytearray(buffer.getvalue())
    if total is not None:
        facts = int.from_bytes(data[18:26], "big")  # STREAMINFO: the lowest 36 bits
        data[18:26] = (facts >> 36 << 36 | total).to_bytes(8, "big")
    return bytes(data)


def of_json(name: str, value: object, words: str = "", status: int = 400) -> Hostile:
    """Return a body that is JSON, but not a request."""
    return Hostile(name, json.dumps(value).encode(), status, words)


def of_row(name: str, clip: object, words: str) -> Hostile:
    """Return a request with a clip that gets an error in its row, or, unless it is bytes, has the request refused."""
    return Hostile(name, request(clip), 200 if isinstance(clip, bytes) else 400, words)


SAMPLES = (tone(300, 1, 8000) * 20000).astype("<i2").tobytes()
CLIP = base64.b64encode(wav()).decode()
EXPECTED = "expected"
SPLIT = {"columns": ["audio"], "data": [[CLIP]]}
NAN = np.full(800, np.nan, "<f4").tobytes()
INFINITE = np.full(800, -np.inf, "<f4").tobytes()

SOUNDS = [
    of_row("no bytes", b"", "empty file"),
    of_row("text", MARKER.encode(), "unreadable"),
    of_row("WAV without samples", wav_file(b""), "no samples"),
    of_row("WAV that broke off", wav_file(SAMPLES, claim=2**30), "cut off"),
    of_row("WAV of NaN", wav_file(NAN, bits=32, kind=3), "NaN"),
    of_row("WAV of infinite samples", wav_file(INFINITE, bits=32, kind=3), "NaN or infinite"),
    of_row("an hour of silence in 90 kB", silence(3600), "longer than"),
    of_row("FLAC that promises two years", silence(1, total=2**36 - 1), "longer than"),
]
"""Each is the only row of a valid request. `hostile_files` has more for the decoder."""

TEXTS = [
    of_row("null", None, "row 0: audio is null"),
    of_row("a number", 1e9, "row 0: audio is a number"),
    of_row("an object", {"path": MARKER}, "row 0: audio is an object"),
    of_row("a list of samples", [0.1, -0.1], "row 0: audio is a list"),
    of_row("true", True, "row 0: audio is true or false"),
    of_row("a data URL", f"data:audio/wav;base64,{CLIP}", "row 0: audio is not base64"),
    of_row("base64 with an end inside", f"{CLIP[:6]}=={CLIP[8:]}", "not base64"),
    of_row("padding alone", "====", "not base64"),
    of_row("percent signs", CLIP.replace("A", "%41", 1), "not base64"),
    of_row("half a character", "\ud800", "not base64"),
    of_row("a path", "/etc/hostname.", "row 0: audio is not base64"),
    of_row("a URL", f"http://127.0.0.1:9/{MARKER}.wav", "not base64"),
    of_row("base64 for URLs", "_-8=", "not base64"),
    of_row("base64 without padding", CLIP.rstrip("=") + "A" * (5 - len(CLIP.rstrip("=")) % 4), "not base64"),
    of_row("base64 after its end", f"{CLIP}====", "not base64"),
    of_row("letters that are not ASCII", "é" * 40, "not base64"),
    of_row("a NUL", "AAAA\0AAA", "not base64"),
]
"""Values of a clip that are refused."""

BODIES = [
    Hostile("nothing", b"", 400, "empty"),
    Hostile("half of it", b'{"dataframe_records": [', 400, "not JSON"),
    Hostile("words", MARKER.encode(), 400, "not JSON"),
    Hostile("bytes", bytes(range(128, 256)) * 10, 400, "not UTF-8"),
    Hostile("a byte order mark", b"\xef\xbb\xbf" + request(wav()), 400, "not JSON"),
    Hostile("NaN for a clip", b'{"dataframe_records": [{"audio": NaN}]}', 400, "NaN"),
    Hostile("100,000 brackets", b"[" * 100_000, 413, "more than"),
    Hostile("a million lists", b'{"dataframe_records": [' + b"[]," * 600_000 + b"[]]}", 413, "more than"),
    Hostile("a number of 100,000 digits", b'{"params": ' + b"9" * 100_000 + b"}", 400, "cannot be read"),
    of_json("null", None, "the body is null"),
    of_json("an empty object", {}, "no table"),
    of_json("two tables", {"dataframe_records": [], "dataframe_split": {}}, "two tables"),
    of_json("instances", {"instances": [{"audio": CLIP}]}, "instances"),
    of_json("inputs", {"inputs": {"audio": [CLIP]}}, "inputs"),
    of_json("another field", {"dataframe_records": [{"audio": CLIP}], MARKER: 1}, "unknown field"),
    of_json("records in a text", {"dataframe_records": CLIP}, "is a text"),
    of_json("no records", {"dataframe_records": []}, "no clips"),
    of_json("texts for records", {"dataframe_records": [MARKER]}, "row 0 is a text"),
    of_json("an empty record", {"dataframe_records": [{"audio": CLIP}, {}]}, "row 1 has no audio"),
    of_json("another column", {"dataframe_records": [{"audio": CLIP, "path": MARKER}]}, "unknown column 'path'"),
    of_json("9 clips", {"dataframe_records": [{"audio": CLIP}] * 9}, "FSAT_SERVE_MAX_CLIPS", 413),
    of_json("split with others", {"dataframe_split": {"columns": ["path"], "data": [[MARKER]]}}, EXPECTED),
    of_json("split, ragged", {"dataframe_split": {**SPLIT, "data": [[CLIP], [CLIP, 1]]}}, "row 1"),
    of_json("split, index too long", {"dataframe_split": {**SPLIT, "index": [0, 1]}}, "index"),
    of_json("records in an object", {"dataframe_records": {"audio": CLIP}}, "dataframe_records is an object"),
    of_json("a row in a list", {"dataframe_records": [[CLIP]]}, "row 0 is a list"),
    of_json("split, column as text", {"dataframe_split": {**SPLIT, "columns": "audio"}}, EXPECTED),
    of_json("split, half a character", {"dataframe_split": {**SPLIT, "index": ["\ud800"]}}, "index"),
    of_json("params in a text", {"dataframe_records": [{"audio": CLIP}], "params": "top_k"}, "params is a text"),
    of_json("split, odd index", {"dataframe_split": {**SPLIT, "index": [[0]]}}, "index"),
    of_json("params in a list", {"dataframe_records": [{"audio": CLIP}], "params": [3]}, "params is a list"),
    Hostile("another parameter", request(wav(), **{MARKER: 3}), 400, "unknown parameter"),
    Hostile("top_k of 0", request(wav(), top_k=0), 400, "top_k=0"),
    Hostile("top_k of 10^30", request(wav(), top_k=10**30), 400, "top_k=a huge number"),
    Hostile("top_k of 1e400", request(wav(), top_k=0).replace(b"0}", b"1e400}"), 400, "top_k=inf"),
    Hostile("top_k of null", request(wav(), top_k=None), 400, "top_k=null"),
    Hostile("top_k of 3.0", request(wav(), top_k=3.0), 400, "top_k=3.0"),
    Hostile("min_score of true", request(wav(), min_score=True), 400, "min_score=true or false"),
    Hostile("top_k in a text", request(wav(), top_k="3"), 400, "top_k='3'"),
    Hostile("top_k of true", request(wav(), top_k=True), 400, "top_k=true or false"),
    Hostile("min_score in a text", request(wav(), min_score=MARKER), 400, "min_score="),
    Hostile("thresholds that the tagger lacks", request(wav(), min_score=-1), 400, "a number from 0 to 1"),
    Hostile("min_score of 2", request(wav(), min_score=2), 400, "min_score=2"),
]

HEADERS = [
    Hostile("no content type", request(wav()), 415, "no Content-Type", {}),
    Hostile("a form", b"audio=" + MARKER.encode(), 415, EXPECTED, {"Content-Type": "multipart/form-data"}),
    Hostile("CSV with a path", b"audio\n/etc/passwd\n", 415, "text/csv", {"Content-Type": "text/csv"}),
    Hostile("another charset", request(wav()), 415, "UTF-8", {"Content-Type": "application/json; charset=latin-1"}),
    Hostile("another parameter", request(wav()), 415, "UTF-8", {"Content-Type": f"application/json; {MARKER}=1"}),
    Hostile("gzip", b"\x1f\x8b" + bytes(50), 415, "gzip", {**JSON, "Content-Encoding": "gzip"}),
    Hostile("2 MB and more", b'{"dataframe_records": "' + b"A" * 2_100_000 + b'"}', 413, "FSAT_SERVE_MAX_MB"),
    Hostile("GET", b"", 405, "Not Allowed", {}, "GET"),
    Hostile("another path", request(wav()), 404, "Not Found", JSON, "POST", "/predict"),
    Hostile("a file's path", b"", 404, "Not Found", {}, "GET", "/../../etc/passwd"),
]

ALL = [*SOUNDS, *TEXTS, *BODIES, *HEADERS]
