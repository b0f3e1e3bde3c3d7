"""Limits of a served tagger, and the checks that a request passes before MLflow parses it.

Conventions: a request is JSON, ``{"dataframe_records": [{"audio": BASE64}, ...], "params": {...}}`` or the same as
``dataframe_split``. A fault of the request raises `RequestError`, a 4xx; that includes invalid base64. A clip that
cannot be decoded is not a fault of the request: it becomes the error of its row. A message quotes at most a few
characters of the request.
"""

from __future__ import annotations

import binascii
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from fsat.errors import ConfigError, FsatError, count
from fsat.metrics.class_thresholds import PARAMS, TagParams
from fsat.options import checked, option
from fsat.tagging.pyfunc import json_type, quoted, tag_params

COLUMN = "audio"
EXPECTED = 'expected {"dataframe_records": [{"audio": "BASE64"}, ...]}, and optionally "params"'
RECORD = 'expected {"audio": "BASE64"}'
SPLIT = 'expected {"columns": ["audio"], "data": [["BASE64"], ...]}'

TOO_LARGE, UNSUPPORTED = (413, "REQUEST_TOO_LARGE"), (415, "UNSUPPORTED_MEDIA_TYPE")

VARIABLES = {
    "max_mb": "FSAT_SERVE_MAX_MB", "max_seconds": "FSAT_SERVE_MAX_SECONDS", "max_clips": "FSAT_SERVE_MAX_CLIPS",
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """Limits of a request and its clips."""

    max_mb: float = option(64.0, "Size of a request, in MB of 1,000,000 bytes", above=0)
    max_seconds: float = option(600.0, "Length of a clip, in seconds", above=0)
    max_clips: int = option(64, "Clips in a request", least=1)

    @property
    def max_bytes(self) -> int:
        """Size of a request, in bytes."""
        return round(self.max_mb * 1e6)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Limits:
        """Return the limits that `VARIABLES` set; raise `ConfigError` if one is not a number or out of bounds."""
        limits = {}
        for spec in fields(cls):
            name = VARIABLES[spec.name]
            if text := environment.get(name, "").strip():
                try:
                    limits[spec.name] = checked(spec, text, name)
                except ConfigError as error:
                    raise ConfigError(f"{error}; unset it for the default, {spec.default}") from None
        return cls(**limits)


class RequestError(FsatError):
    """A request that is refused, with the `status` and `code` of the answer."""

    def __init__(self, message: str, status: int = 400, code: str = "BAD_REQUEST") -> None:
        super().__init__(message)
        self.status, self.code = status, code


def check_headers(headers: Mapping[str, str], max_bytes: int) -> None:
    """Raise `RequestError` unless the headers, named in lower case, announce JSON in UTF-8 of at most `max_bytes`."""
    kind, *parameters = (part.strip().lower() for part in headers.get("content-type", "").split(";"))
    if kind != "application/json":
        got = f"Content-Type {quoted(kind)}" if kind else "no Content-Type"
        raise RequestError(f"{got}: expected Content-Type: application/json", *UNSUPPORTED)
    for parameter in filter(None, parameters):
        name, _, value = parameter.partition("=")
        if name.strip() != "charset" or value.strip(' "') not in ("utf-8", "utf8"):
            raise RequestError(f"Content-Type with {quoted(parameter)}: expected JSON in UTF-8", *UNSUPPORTED)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        message = f"Content-Encoding {quoted(encoding)}: expected a body that is not compressed"
        raise RequestError(message, *UNSUPPORTED)
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise too_large(max_bytes)


def check_body(body: bytes, max_clips: int, defaults: TagParams = PARAMS) -> None:
    """Raise `RequestError` unless a body is a request of at most `max_clips` clips, each of them base64.

    `defaults` are those of the tagger's parameters.
    """
    request = _parse(body, max_clips)
    _require(isinstance(request, dict), f"the body is {json_type(request)}: {EXPECTED}")
    tables = [name for name in request if name in ("dataframe_records", "dataframe_split")]
    for name in request:
        _require(name not in ("instances", "inputs"), f"{name} cannot carry sounds: {EXPECTED}")
        _require(name in (*tables, "params"), f"unknown field {quoted(name)}: {EXPECTED}")
    _require(len(tables) == 1, f"{'two tables' if tables else 'no table'} in the body: {EXPECTED}")
    read_column = _records_column if tables[0] == "dataframe_records" else _split_column
    clips = list(read_column(request[tables[0]]))
    _require(bool(clips), f"no clips in {tables[0]}: {EXPECTED}")
    if len(clips) > max_clips:
        raise _too_many(max_clips)
    try:
        tag_params(request.get("params"), defaults)
    except ConfigError as error:
        raise RequestError(str(error)) from None
    for i, clip in enumerate(clips):
        expected = "expected base64 of an audio file"
        _require(isinstance(clip, str), f"row {i}: {COLUMN} is {json_type(clip)}: {expected}")
        _require(_is_base64(clip), f"row {i}: {COLUMN} is not base64: {expected}, with its padding")


def too_large(max_bytes: int) -> RequestError:
    """Return the error of a body that is larger than allowed."""
    limit = f"{max_bytes / 1e6:g} MB (FSAT_SERVE_MAX_MB)"
    return RequestError(f"the request is larger than {limit}: send fewer clips at once, or FLAC", *TOO_LARGE)


def _too_many(max_clips: int) -> RequestError:
    limit = f"{count(max_clips, 'clip')} in the request (FSAT_SERVE_MAX_CLIPS)"
    return RequestError(f"more than {limit}: send fewer at once", *TOO_LARGE)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise RequestError(message)


def _parse(body: bytes, max_clips: int) -> Any:
    """Return the body's JSON.

    A few MB of ``[],[],`` would become GBs of Python objects. Every value but the first follows a comma or a bracket,
    and base64 contains neither, so their number bounds the number of values before anything is parsed.
    """
    _require(bool(body.strip()), f"the body is empty: {EXPECTED}")
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > 64 + 4 * max_clips:
        raise _too_many(max_clips)
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8 (byte {error.start}): {EXPECTED}") from None
    except json.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON ({error.msg}, character {error.pos}): {EXPECTED}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits; deeply nested brackets
        raise RequestError(f"the body cannot be read as JSON: {EXPECTED}") from None


def _refuse_constant(name: str) -> None:
    raise RequestError(f"the body is not JSON ({name} in it): {EXPECTED}")


def _records_column(rows: Any) -> Iterator[Any]:
    """Yield the values of ``[{"audio": ...}, ...]``."""
    _require(isinstance(rows, list), f"dataframe_records is {json_type(rows)}: {EXPECTED}")
    for i, row in enumerate(rows):
        _require(isinstance(row, dict), f"row {i} is {json_type(row)}: {RECORD}")
        for name in row:
            _require(name == COLUMN, f"row {i}: unknown column {quoted(name)}: expected {COLUMN} alone")
        _require(COLUMN in row, f"row {i} has no {COLUMN}: {RECORD}")
        yield row[COLUMN]


def _split_column(table: Any) -> Iterator[Any]:
    """Yield the values of ``{"columns": ["audio"], "data": [[...], ...]}``."""
    _require(isinstance(table, dict), f"dataframe_split is {json_type(table)}: {SPLIT}")
    for name in table:
        _require(name in ("columns", "data", "index"), f"unknown field {quoted(name)} in dataframe_split: {SPLIT}")
    rows, index = table.get("data"), table.get("index")
    valid = table.get("columns") == [COLUMN] and isinstance(rows, list)
    _require(valid, f"dataframe_split has other columns or no data: {SPLIT}")
    if index is not None:
        valid = isinstance(index, list) and len(index) == len(rows)
        _require(valid, f"index of dataframe_split is not a list of {count(len(rows), 'value')}")
        valid = all(isinstance(key, int | str) and str(key).isprintable() for key in index)
        _require(valid, "index of dataframe_split: expected whole numbers or printable texts")
    for i, row in enumerate(rows):
        valid = isinstance(row, list) and len(row) == 1
        _require(valid, f"row {i} of dataframe_split is not a list of one value: {SPLIT}")
        yield row[0]


def _is_base64(text: str) -> bool:
    """Return whether a text is base64 (RFC 4648, section 4), in one or several lines; MLflow would drop other bytes."""
    try:
        binascii.a2b_base64(text.encode("ascii").translate(None, b" \t\r\n"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        return False
    return True
