"""A page of fsat, parsed as HTML: the text of its sections, and their tables, clips, images and players."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path


@dataclass
class Section:
    """A section of a page.

    Attributes:
        text: all of its text, with single spaces.
        tables: for each table, its rows of cells, without the head.
        clips: for each clip, its lines.
        tags: how many elements of each kind it has.
    """

    text: str = ""
    tables: list[list[list[str]]] = field(default_factory=list)
    clips: list[list[str]] = field(default_factory=list)
    tags: Counter[str] = field(default_factory=Counter)


class Page(HTMLParser):
    """A page from its file; `sections` by name, `links` as the anchors of the navigation."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sections: dict[str, Section] = {}
        self.links: list[str] = []
        self._section, self._path = Section(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes, section = dict(attrs), self._section
        if tag == "section":
            section = self._section = self.sections.setdefault(attributes["data-section"], Section())
        elif tag == "a":
            self.links.append(attributes["href"].removeprefix("#"))
        elif tag == "tbody":
            section.tables.append([])
        elif tag == "tr" and "tbody" in self._path:
            section.tables[-1].append([])
        elif tag == "td":
            section.tables[-1][-1].append("")
        elif tag == "div" and attributes.get("class") == "clip":
            section.clips.append([])
        elif tag in ("strong", "small"):
            section.clips[-1].append("")
        section.tags[tag] += 1
        if tag not in ("meta", "link", "img"):
            self._path.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._path.pop() == tag

    def handle_data(self, data: str) -> None:
        section, inside = self._section, self._path[-1] if self._path else ""
        if inside == "td":
            section.tables[-1][-1][-1] += data
        elif inside in ("strong", "small"):
            section.clips[-1][-1] += data
        section.text = " ".join(f"{section.text} {data}".split())
