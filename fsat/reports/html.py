"""HTML pages from the jinja2 templates in ``templates/``: one self-contained file each.

Such a page opens from a disk, in a mail, and in the artifact view of MLflow, which shows it in a sandboxed frame.

``page.html`` has the frame, the style and the one script, ``parts.html`` the macros for figures, tables and players. A
page's own template extends ``page.html``: it has the headings and a block for each section. All texts are escaped, and
control characters in them made visible.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fsat.errors import count, printable


class Table(NamedTuple):
    """A table of a page: its caption, its columns (name, and whether it is numeric), and the texts of its cells."""

    caption: str
    columns: list[tuple[str, bool]]
    rows: list[list[str]]


def table(frame: pd.DataFrame, caption: str, formats: Mapping[str, str] | None = None) -> Table:
    """Return a table for a page; missing values are empty cells, `formats` has formats such as ``.3f`` by column."""
    columns = [(str(name), pd.api.types.is_numeric_dtype(frame[name])) for name in frame]
    specs = [(formats or {}).get(name, "") for name, _ in columns]

    def text(value: Any, spec: str) -> str:
        return "" if pd.isna(value) else format(value, spec) if spec else str(value)

    rows = [list(map(text, row, specs)) for row in frame.itertuples(index=False, name=None)]
    return Table(caption, columns, rows)


def write_page(path: Path, template: str, **values: object) -> None:
    """Write a page into an existing folder from a template; the values, ``title`` and ``subtitle`` are for it."""
    path.write_text(_environment().get_template(template).render(values), encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fsat.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if hasattr(value, "__html__") else printable(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["png"] = lambda path: _data_uri("image/png", path.read_bytes())
    environment.filters["mp3"] = lambda content: _data_uri("audio/mpeg", content)
    environment.filters["count"] = count
    return environment


def _data_uri(media_type: str, content: bytes) -> Markup:
    return Markup(f"data:{media_type};base64,{base64.b64encode(content).decode()}")
