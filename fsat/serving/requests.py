"""What a request to a served tagger must look like; whatever does not is refused here, before MLflow parses it.

Conventions: a request is JSON, ``{"dataframe_records": [{"audio": BASE64}, ...], "params": {...}}`` or the same as
``dataframe_split``. What is wrong with the request raises `RequestError`, a 4xx, base64 that is none included; what is
wrong with the sound in a row is that row's error, and not found here. A message repeats a few characters of a request
at most.
"""

from __future__ import annotations

import binascii
import json
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

from fsat.errors import ConfigError, FsatError, count, printable
from fsat.metrics.ranking import TOP_K

COLUMN = "audio"
EXPECTED = 'expected {"dataframe_records": [{"audio": "BASE64"}, ...]}, and "params" if you like'
MOST_TOP_K = 2**31 - 1
"""MLflow's integers have 32 bits. More labels than there are is no fault: it asks for all."""


class RequestError(FsatError):
    """A request that is refused.

    Attributes:
        status: HTTP's.
        code: in words.
    """

    def __init__(self, message: str, status: int = 400, code: str = "BAD_REQUEST") -> None:
        super().__init__(message)
        self.status, self.code = status, code


def check_headers(headers: Mapping[str, str], max_bytes: int) -> None:
    """Refuse a request by its headers.

    Args:
        headers: names in small letters.
        max_bytes: size of the body.

    Raises:
        RequestError: the body is not said to be plain JSON in UTF-8, or is said to be too large.
    """
    kind, *parameters = (part.strip().lower() for part in headers.get("content-type", "").split(";"))
    if kind != "application/json":
        got = f"Content-Type {_short(kind)}" if kind else "no Content-Type"
        raise _unsupported(f"{got}: expected Content-Type: application/json")
    for parameter in filter(None, parameters):
        name, _, value = parameter.partition("=")
        if name.strip() != "charset" or value.strip(' "') not in ("utf-8", "utf8"):
            raise _unsupported(f"Content-Type with {_short(parameter)}: expected JSON in UTF-8")
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise _unsupported(f"Content-Encoding {_short(encoding)}: expected a body that is not compressed")
    declared = headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise too_large(max_bytes)


def too_large(max_bytes: int) -> RequestError:
    """The error of a body that is larger than allowed."""
    return RequestError(
        f"the request is larger than {max_bytes / 1e6:g} MB (FSAT_SERVE_MAX_MB): send fewer clips at once, or FLAC",
        413,
        "REQUEST_TOO_LARGE",
    )


def check_body(body: bytes, max_clips: int) -> None:
    """Refuse a body that is not a request.

    Args:
        body: as received.
        max_clips: clips in a request.

    Raises:
        RequestError: it is not JSON, has not the expected shape, has too many clips, or one that is not base64.
    """
    request = _parsed(body, max_clips)
    if not isinstance(request, dict):
        raise RequestError(f"the body is {_kind(request)}: {EXPECTED}")
    forms = [name for name in request if name in ("dataframe_records", "dataframe_split")]
    for name in request:
        if name in ("instances", "inputs"):
            raise RequestError(f"{name} cannot carry sounds: {EXPECTED}")
        if name not in (*forms, "params"):
            raise RequestError(f"unknown field {_short(name)}: {EXPECTED}")
    if len(forms) != 1:
        raise RequestError(f"{'two tables' if forms else 'no table'} in the body: {EXPECTED}")
    rows = list((_records if forms[0] == "dataframe_records" else _split)(request[forms[0]]))
    if not rows:
        raise RequestError(f"no clips in {forms[0]}: {EXPECTED}")
    if len(rows) > max_clips:
        raise _too_many(max_clips)
    try:
        tag_params(request.get("params"))
    except ConfigError as error:
        raise RequestError(str(error)) from None
    for i, value in enumerate(rows):
        if not isinstance(value, str):
            raise RequestError(f"row {i}: {COLUMN} is {_kind(value)}: expected base64 of an audio file")
        if not _is_base64(value):
            raise RequestError(f"row {i}: {COLUMN} is not base64: expected base64 of an audio file, with its padding")


def tag_params(params: Mapping[str, Any] | None) -> tuple[int, float]:
    """What a caller wants of the tags, checked.

    Args:
        params: ``top_k``, labels a clip, 3 if not given; ``min_score``, the least score of a label, 0 if not given.

    Returns:
        `top_k` and `min_score`.

    Raises:
        ConfigError: a parameter is unknown or out of bounds.
    """
    if params is None:
        params = {}
    if not isinstance(params, Mapping):
        raise ConfigError(f'params is {_kind(params)}: expected an object, such as {{"top_k": {TOP_K}}}')
    for name in params:
        if name not in ("top_k", "min_score"):
            raise ConfigError(f"unknown parameter {_short(str(name))}: expected top_k or min_score")
    top_k, min_score = params.get("top_k", TOP_K), params.get("min_score", 0.0)
    if isinstance(top_k, bool) or not isinstance(top_k, numbers.Integral) or not 1 <= top_k <= MOST_TOP_K:
        raise ConfigError(f"top_k={_value(top_k)}: expected a whole number from 1 to {MOST_TOP_K}")
    if isinstance(min_score, bool) or not isinstance(min_score, numbers.Real) or not 0 <= min_score <= 1:
        raise ConfigError(f"min_score={_value(min_score)}: expected a number from 0 to 1")
    return int(top_k), float(min_score)


def _parsed(body: bytes, max_clips: int) -> Any:
    """The body's JSON.

    A few MB of ``[],[],`` would become GBs of Python objects. But every value beyond the first has a comma or a bracket
    before it, and base64 has none: so their number says, before anything is parsed, whether there are too many.
    """
    if not body.strip():
        raise RequestError(f"the body is empty: {EXPECTED}")
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > 64 + 4 * max_clips:
        raise _too_many(max_clips)
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8 (byte {error.start}): {EXPECTED}") from None
    except json.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON ({error.msg}, character {error.pos}): {EXPECTED}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits; brackets in brackets
        raise RequestError(f"the body cannot be read as JSON: {EXPECTED}") from None


def _no_constant(name: str) -> None:
    raise RequestError(f"the body is not JSON ({name} in it): {EXPECTED}")


def _records(rows: Any) -> Iterator[Any]:
    """The column of ``[{"audio": ...}, ...]``."""
    if not isinstance(rows, list):
        raise RequestError(f"dataframe_records is {_kind(rows)}: {EXPECTED}")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise RequestError(f'row {i} is {_kind(row)}: expected {{"audio": "BASE64"}}')
        for name in row:
            if name != COLUMN:
                raise RequestError(f"row {i}: unknown column {_short(name)}: expected {COLUMN} alone")
        if COLUMN not in row:
            raise RequestError(f'row {i} has no {COLUMN}: expected {{"audio": "BASE64"}}')
        yield row[COLUMN]


def _split(table: Any) -> Iterator[Any]:
    """The column of ``{"columns": ["audio"], "data": [[...], ...]}``."""
    expected = 'expected {"columns": ["audio"], "data": [["BASE64"], ...]}'
    if not isinstance(table, dict):
        raise RequestError(f"dataframe_split is {_kind(table)}: {expected}")
    for name in table:
        if name not in ("columns", "data", "index"):
            raise RequestError(f"unknown field {_short(name)} in dataframe_split: {expected}")
    if table.get("columns") != [COLUMN] or not isinstance(table.get("data"), list):
        raise RequestError(f"dataframe_split has other columns or no data: {expected}")
    index = table.get("index")
    if index is not None and (not isinstance(index, list) or len(index) != len(table["data"])):
        raise RequestError(f"index of dataframe_split is not a list of {count(len(table['data']), 'entry')}")
    if index is not None and not all(isinstance(key, int | str) for key in index):
        raise RequestError("index of dataframe_split: expected whole numbers or texts")
    for i, row in enumerate(table["data"]):
        if not isinstance(row, list) or len(row) != 1:
            raise RequestError(f"row {i} of dataframe_split is not a list of one value: {expected}")
        yield row[0]


def _is_base64(text: str) -> bool:
    """Whether a text is base64 (RFC 4648, 4), perhaps over several lines; MLflow would drop any other character."""
    try:
        binascii.a2b_base64(text.encode("ascii").translate(None, b" \t\r\n"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        return False
    return True


def _unsupported(message: str) -> RequestError:
    return RequestError(message, 415, "UNSUPPORTED_MEDIA_TYPE")


def _too_many(max_clips: int) -> RequestError:
    return RequestError(
        f"more than {count(max_clips, 'clip')} in the request (FSAT_SERVE_MAX_CLIPS): send fewer at once",
        413,
        "REQUEST_TOO_LARGE",
    )


def _kind(value: object) -> str:
    """What a value is, in JSON's words."""
    words = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return words.get(type(value), "a number" if isinstance(value, numbers.Number) else type(value).__name__)


def _short(text: str) -> str:
    return repr(printable(text[:32] + ("..." if len(text) > 32 else "")))


def _value(value: object) -> str:
    """A parameter as received, if it is short."""
    if isinstance(value, numbers.Number) and not isinstance(value, bool):
        return str(value) if isinstance(value, float) or abs(value) < 10**15 else "a huge number"
    return _short(value) if isinstance(value, str) else _kind(value)
