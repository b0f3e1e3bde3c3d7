"""One self-contained HTML page: words, figures, tables and players; nothing is fetched from elsewhere.

So it opens from a disk, in a mail, and in MLflow's artifact view, which shows it in a closed frame. There is no script
in it but one that does there what a browser does elsewhere: follow the links to the page's own sections.

Conventions: every text is plain and is escaped here. A page is held in memory until it is written; what is put into
it does not grow with the dataset.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from fsat.errors import printable

CSS = """
:root { color-scheme: light; --blue: #2a6f97; --line: #d9dee2; --soft: #55606a; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1c2226; background: white; margin: 0; }
main, header, nav { max-width: 66rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.5rem; padding-top: 0.6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 0.3rem; overflow-wrap: anywhere; }
p { margin: 0.5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
p.finding { font-weight: 600; }
p.note, figcaption, caption, .clip small { color: var(--soft); font-size: 0.9rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; list-style: none; padding: 0; margin: 0.6rem 0; }
a { color: var(--blue); }
a:focus-visible, audio:focus-visible, .scroll:focus-visible { outline: 3px solid var(--blue); outline-offset: 2px; }
figure { margin: 1rem 0; overflow-x: auto; }
figure img { display: block; max-width: 100%; min-width: 34rem; height: auto; }
.scroll { overflow: auto; max-height: 34rem; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 0.92rem; }
caption { text-align: left; padding: 0.2rem 0; }
th, td { text-align: left; padding: 0.25rem 1rem 0.25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
thead th { position: sticky; top: 0; background: white; white-space: nowrap; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); gap: 0.8rem 1.2rem; }
.clip strong, .clip small { display: block; overflow-wrap: anywhere; }
.clip audio { display: block; width: 100%; height: 2.4rem; margin-top: 0.2rem; }
"""

JUMPS = """
if (location.protocol === "blob:") for (const link of document.querySelectorAll("nav a")) link.onclick = event => {
  event.preventDefault();
  document.getElementById(decodeURIComponent(link.hash.slice(1))).scrollIntoView();
};
"""
"""Chromium opens no link to a part of a page whose frame is closed and whose address is a blob, as in MLflow."""


@dataclass(frozen=True)
class Sound:
    """A clip to listen to.

    Attributes:
        title: what it is, such as its label.
        note: a line below, such as file name and length; or several, with line ends between them.
        mp3: the sound as an MP3 file; None where it cannot be played, which `note` should say why.
    """

    title: str
    note: str
    mp3: bytes | None


class Page:
    """A page that is filled from top to bottom, then written.

    >>> page = Page("A dataset", "42 clips")
    >>> page.section("classes", "Classes")
    >>> page.finding("Three classes of 14 clips each.")
    >>> page.write(Path("page.html"))

    Args:
        title: the heading, and what a browser's tab says.
        subtitle: a line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._sections: list[tuple[str, str]] = []
        self._parts: list[str] = []

    def section(self, name: str, title: str) -> None:
        """Begin a section; `name` is its anchor and the ``data-section`` that tests look for."""
        if self._sections:
            self._parts.append("</section>")
        self._sections.append((name, title))
        self._parts.append(f'<section id="{_text(name)}" data-section="{_text(name)}"><h2>{_text(title)}</h2>')

    def heading(self, text: str) -> None:
        """A heading inside a section."""
        self._parts.append(f"<h3>{_text(text)}</h3>")

    def finding(self, text: str) -> None:
        """What the data say, in a sentence or two; the first thing in a section."""
        self._parts.append(f'<p class="finding">{_text(text)}</p>')

    def words(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{_text(text)}</p>")

    def note(self, text: str) -> None:
        """A paragraph in small print."""
        self._parts.append(f'<p class="note">{_text(text)}</p>')

    def figure(self, png: Path, says: str, caption: str = "") -> None:
        """A picture.

        Args:
            png: its file.
            says: what it shows, for those who do not see it.
            caption: shown below it.
        """
        data = base64.b64encode(png.read_bytes()).decode()
        below = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
        self._parts.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{_text(says)}">{below}</figure>'
        )  # fmt: skip

    def table(self, frame: pd.DataFrame, caption: str, formats: Mapping[str, str] | None = None) -> None:
        """A table, which scrolls where it is long or wide.

        Args:
            frame: its columns' names are the head; numbers stand on the right; empty cells for what is missing.
            caption: shown above it.
            formats: by column, a format such as ``.3f``.
        """
        formats = formats or {}
        sides = ["number" if pd.api.types.is_numeric_dtype(frame[name]) else "" for name in frame]
        head = "".join(
            f'<th scope="col"{_side(side)}>{_text(name)}</th>' for name, side in zip(frame, sides, strict=True)
        )
        rows = "".join(
            "<tr>"
            + "".join(
                f"<td{_side(side)}>{_text(_cell(value, formats.get(name, '')))}</td>"
                for name, side, value in zip(frame, sides, row, strict=True)
            )
            + "</tr>"
            for row in frame.itertuples(index=False, name=None)
        )
        self._parts.append(
            f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(caption)}"><table>'
            f"<caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )

    def sounds(self, sounds: Sequence[Sound]) -> None:
        """Players, side by side."""
        self._parts.append(f'<div class="clips">{"".join(map(_clip, sounds))}</div>')

    def html(self) -> str:
        """The page."""
        links = "".join(f'<li><a href="#{_text(name)}">{_text(title)}</a></li>' for name, title in self._sections)
        contents = f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if links else ""
        subtitle = f"<p>{_text(self.subtitle)}</p>" if self.subtitle else ""
        end = "</section>" if self._sections else ""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="icon" href="data:,"><title>{_text(self.title)}</title><style>{CSS}</style></head>\n'
            f"<body><header><h1>{_text(self.title)}</h1>{subtitle}</header>{contents}\n"
            f"<main>{''.join(self._parts)}{end}</main><script>{JUMPS}</script></body></html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the page as a file, making its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.html(), encoding="utf-8")


def _clip(sound: Sound) -> str:
    player = ""
    if sound.mp3 is not None:
        data = base64.b64encode(sound.mp3).decode()
        # without preload, no decoder is started before someone listens: there may be hundreds on a page
        player = (
            f'<audio controls preload="none" aria-label="{_text(sound.title)}" '
            f'src="data:audio/mpeg;base64,{data}"></audio>'
        )
    notes = "".join(f"<small>{_text(line)}</small>" for line in sound.note.split("\n"))
    return f'<div class="clip"><strong>{_text(sound.title)}</strong>{notes}{player}</div>'


def _side(side: str) -> str:
    return f' class="{side}"' if side else ""


def _cell(value: object, how: str) -> str:
    if pd.isna(value):
        return ""
    return format(value, how) if how else str(value)


def _text(value: object) -> str:
    return escape(printable(value))
