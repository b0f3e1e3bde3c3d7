"""Embeddings as a Parquet table, for other programs and for `similar`.

A row is a window, or a clip: ``fname``, ``start`` and ``end`` in seconds, and ``embedding``, a list of float32. The
metadata of the schema says what they were made with, see `facts_of`; ``pyarrow.parquet.read_schema(path).metadata``
has it. Rows are written as they come, so a table may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fsat.backbones.descriptor import Backbone
from fsat.config import Config
from fsat.errors import ConfigError, DataError, printable
from fsat.files import write_whole
from fsat.tagging.tables import shown

SUFFIX, PREFIX = ".parquet", "fsat."
"""Suffix of a table, and beginning of the names of what its metadata has."""

GROUP_BYTES = 16 << 20
"""Embeddings in a row group."""

COLUMNS = ("fname", "start", "end", "embedding")
FACTS = ("backbone", "sha256", "license", "source", "sampling_rate", "window", "window_hop", "size", "per")


class Rows(NamedTuple):
    """Rows of one file: its name; start and end in seconds, float64 (n, 2); embeddings, float32 (n, size)."""

    fname: str
    spans: np.ndarray
    vectors: np.ndarray


def facts_of(backbone: Backbone, config: Config, per: str) -> dict[str, str]:
    """Return the metadata of a table: the `FACTS`, as texts."""
    numbers = {"sampling_rate": config.sampling_rate, "window": config.audio_duration, "window_hop": config.window_hop}
    texts = {"backbone": backbone.ref, **{name: getattr(backbone, name) for name in ("sha256", "license", "source")}}
    return {**texts, **{name: repr(value) for name, value in numbers.items()}, "size": str(config.embedding_size),
            "per": per}  # fmt: skip


def check_table_suffix(path: Path) -> None:
    """Raise `ConfigError` unless a path has the suffix of a Parquet table."""
    if path.suffix.lower() != SUFFIX:
        advice = "pandas.read_parquet reads it, and writes other formats"
        raise ConfigError(f"output={printable(path)}: expected a name that ends in {SUFFIX}; {advice}")


def write_embeddings(path: Path, rows: Iterable[Rows], facts: Mapping[str, str]) -> None:
    """Write a table, whole; `facts` is its metadata, as of `facts_of`."""

    def write(unfinished: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        time = pa.float64()
        types = dict(zip(COLUMNS, (pa.string(), time, time, pa.list_(pa.float32())), strict=True))
        metadata = {PREFIX + name: value for name, value in facts.items()}
        schema = pa.schema(types).with_metadata(metadata)
        with pq.ParquetWriter(unfinished, schema) as writer:
            for group in _groups(rows):
                writer.write_table(_table(group, schema))

    write_whole(path, write)


def _groups(rows: Iterable[Rows]) -> Iterator[list[Rows]]:
    """Yield rows of `GROUP_BYTES` together, or a little more."""
    group: list[Rows] = []
    n_bytes = 0
    for item in rows:
        group.append(item)
        n_bytes += item.vectors.nbytes
        if n_bytes >= GROUP_BYTES:
            yield group
            group, n_bytes = [], 0
    if group:
        yield group


def _table(group: list[Rows], schema: Any) -> Any:
    import pyarrow as pa

    spans, vectors = (np.concatenate([item[i] for item in group]) for i in (1, 2))
    names = [shown(item.fname) for item in group for _ in item.vectors]
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    embeddings = pa.ListArray.from_arrays(offsets, np.ascontiguousarray(vectors, np.float32).ravel())
    columns = [pa.array(names, pa.string()), pa.array(spans[:, 0]), pa.array(spans[:, 1]), embeddings]
    return pa.Table.from_arrays(columns, schema=schema)


def read_table_facts(path: Path) -> dict[str, str]:
    """Return the metadata of a table that `write_embeddings` wrote; raise `DataError` if it is another file."""
    with _errors(path):
        import pyarrow.parquet as pq

        schema = pq.read_schema(path)
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    facts = {name: metadata.get(PREFIX + name) for name in FACTS}
    if None in facts.values() or list(schema.names) != list(COLUMNS):
        columns = printable(", ".join(schema.names)[:200])
        raise DataError(f"{printable(path)}: has columns {columns}; expected a table that `fsat embed` wrote")
    return {name: str(value) for name, value in facts.items()}


def read_means(path: Path, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the mean embedding, float64 (size,), of each file in a table of `write_embeddings`."""
    rows = _read_rows(path, size)
    for name, group in groupby(rows, key=lambda row: row[0]):
        total, n_rows = np.zeros(size), 0
        for _, vector in group:
            total, n_rows = total + vector, n_rows + 1
        yield name, total / n_rows


def _read_rows(path: Path, size: int) -> Iterator[tuple[str, np.ndarray]]:
    with _errors(path):
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(max(1, GROUP_BYTES // (4 * size)), columns=["fname", "embedding"]):
                values = batch.column(1).flatten().to_numpy().reshape(-1, size)
                yield from zip(batch.column(0).to_pylist(), values, strict=True)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises for a file into one line."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:150]
        raise DataError(f"{printable(path)}: cannot be read as Parquet ({reason})") from error
