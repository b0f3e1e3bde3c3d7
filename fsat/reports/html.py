"""HTML pages from the jinja2 templates in ``templates/``: one self-contained file each.

Such a page opens from a disk, in a mail, and in the artifact view of MLflow, which shows it in a sandboxed frame.

``page.html`` has the frame, the style and the one script, ``parts.html`` the macros for figures, tables and players. A
page's own template extends ``page.html`` and has a block for each section; the block sees the values that the section's
function returns. All texts are escaped, and control characters in them made visible.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fsat.errors import printable

Subject = TypeVar("Subject")
Section = Callable[[Subject], Mapping[str, Any]]
"""Returns what a section's block shows; the name of the function is the name of the block and of the anchor."""


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        caption: text above it.
        columns: names, and whether the column is numeric, which aligns it on the right.
        rows: texts of the cells.
    """

    caption: str
    columns: list[tuple[str, bool]]
    rows: list[list[str]]


def table(frame: pd.DataFrame, caption: str, formats: Mapping[str, str] | None = None) -> Table:
    """Return a table for a page; missing values are empty cells, `formats` has formats such as ``.3f`` by column."""
    columns = [(str(name), pd.api.types.is_numeric_dtype(frame[name])) for name in frame]
    specs = [(formats or {}).get(name, "") for name, _ in columns]
    rows = [
        [
            "" if pd.isna(value) else format(value, spec) if spec else str(value)
            for value, spec in zip(row, specs, strict=True)
        ]
        for row in frame.itertuples(index=False, name=None)
    ]
    return Table(caption, columns, rows)


def write_page(
    path: Path,
    template: str,
    title: str,
    subtitle: str,
    sections: Mapping[str, Section[Subject]],
    subject: Subject,
) -> None:
    """Write a page.

    Args:
        path: of the HTML file; in an existing folder.
        template: name of the page's template.
        title, subtitle: heading and the line below it.
        sections: functions by heading, in the order of the page.
        subject: what the functions are called with; the template sees it as ``page``.
    """
    values = {function.__name__: function(subject) for function in sections.values()}
    headings = {function.__name__: heading for heading, function in sections.items()}
    page = _environment().get_template(template)
    html = page.render(values, title=title, subtitle=subtitle, headings=headings, page=subject)
    path.write_text(html, encoding="utf-8")


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
    return environment


def _data_uri(media_type: str, content: bytes) -> Markup:
    return Markup(f"data:{media_type};base64,{base64.b64encode(content).decode()}")
