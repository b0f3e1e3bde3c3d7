"""What a file says of itself: metadata of TensorFlow Lite files, and JSON in ZIP archives.

The metadata of TensorFlow Lite's support library is a flatbuffer of its own, in a buffer of the file. It is read by the
numbers of its fields in the published schema, metadata_schema.fbs of tensorflow/tflite-support.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from typing import Any

EXPORTED = "fsat.json"
"""Entry of the archive in, or at the end of, a file that fsat has exported."""

METADATA = b"TFLITE_METADATA"

TEXTS = {"name": 0, "description": 1, "version": 2, "author": 4, "license": 5}
SUBGRAPHS, INPUTS, CONTENT = 3, 2, 3
"""Fields of ModelMetadata, SubGraphMetadata and TensorMetadata."""

PROPERTIES_TYPE, PROPERTIES, AUDIO, SAMPLE_RATE = 0, 1, 4, 0
"""Fields of Content, the number of AudioProperties among its types, and a field of those."""

DAMAGED = (struct.error, IndexError, ValueError, TypeError, OverflowError)
"""Errors of reading a damaged flatbuffer."""

MAX_BYTES = 1_000_000
"""Maximum size of JSON in an archive."""


def tflite_facts(model: Any) -> dict[str, str]:
    """Return what a TensorFlow Lite file says of itself, by name: texts, and the ``sampling_rate`` of its input."""
    facts = {"description": (model.Description() or b"").decode(errors="replace")}
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name() == METADATA and entry.Buffer() < model.BuffersLength():
            buffer = model.Buffers(entry.Buffer())
            content = buffer.DataAsNumpy().tobytes() if buffer.DataLength() else b""
            try:
                facts |= _metadata(content)
            except DAMAGED:
                facts["metadata"] = "damaged"
    return {name: text for name, text in facts.items() if text}


def archived_facts(content: bytes, entry: str) -> dict[str, str]:
    """Return the texts and numbers of a JSON object in a ZIP archive, which may follow other content; {} without."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            facts = json.loads(archive.read(entry)) if archive.getinfo(entry).file_size <= MAX_BYTES else {}
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RuntimeError, EOFError, zlib.error):
        return {}
    items = facts.items() if isinstance(facts, dict) else ()
    return {name: str(value) for name, value in items if isinstance(value, str | int | float)}


def _metadata(content: bytes) -> dict[str, str]:
    """Return the texts and the sampling rate of a buffer with metadata; raise one of `DAMAGED`."""
    from flatbuffers import encode, packer
    from flatbuffers.table import Table

    model = Table(content, encode.Get(packer.uoffset, content, 0))
    facts = {}
    for name, number in TEXTS.items():
        if place := _place(model, number):
            facts[name] = model.String(place).decode(errors="replace")
    tensor = _first(_first(model, SUBGRAPHS), INPUTS)
    properties = _audio_properties(_table(tensor, CONTENT))
    if place := _place(properties, SAMPLE_RATE):
        facts["sampling_rate"] = str(encode.Get(packer.uint32, content, place))
    return facts


def _audio_properties(content: Any) -> Any:
    """Return the properties of a tensor's content if it is audio."""
    place = _place(content, PROPERTIES_TYPE)
    return _table(content, PROPERTIES) if place and content.Bytes[place] == AUDIO else None


def _place(table: Any, number: int) -> int:
    """Return the place of a field in the buffer, 0 if the table is None or lacks it."""
    offset = 0 if table is None else table.Offset(4 + 2 * number)
    return table.Pos + offset if offset else 0


def _table(table: Any, number: int) -> Any:
    """Return a table in a field, None if it is missing."""
    place = _place(table, number)
    return type(table)(table.Bytes, table.Indirect(place)) if place else None


def _first(table: Any, number: int) -> Any:
    """Return the first table of a vector in a field, None if it is missing."""
    offset = 0 if table is None else table.Offset(4 + 2 * number)
    if not offset or not table.VectorLen(offset):
        return None
    return type(table)(table.Bytes, table.Indirect(table.Vector(offset)))
