"""The commands in the documentation, as they stand in its blocks.

A block without a language has commands: each line that begins with ``$``, where there are such lines, with what it
prints below; else each line. A line that ends in ``|`` or a backslash goes on in the next. Blocks that are not commands
name their language (``text``, ``python``, ...).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        page: the file's name.
        text: as typed, on one line, without prompt and comment.
        fails: what is shown below it is an error of fsat's.
    """

    page: str
    text: str
    fails: bool = False


def commands(page: Path) -> Iterator[Command]:
    """All commands of a page, in order."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        if language:
            continue
        lines = _joined(block)
        if any(line.startswith("$ ") for line in lines):
            starts = [i for i, line in enumerate(lines) if line.startswith("$ ")]
            for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
                shown = lines[start + 1 : stop]
                fails = any(line.startswith("fsat: error") for line in shown)
                yield Command(page.name, _bare(lines[start][2:]), fails)
        else:
            yield from (Command(page.name, text) for text in map(_bare, lines) if text)


def fsat_arguments(text: str) -> list[str] | None:
    """What `python -m fsat` gets of a command, given so or by `mlflow run`; None for other programs."""
    text = re.split(r"\s[|]\s", text)[-1]
    words = shlex.split(text)
    if words[:3] == ["python", "-m", "fsat"]:
        return words[3:]
    if words[:3] != ["mlflow", "run", "."]:
        return None
    entry, options, rest = "main", [], words[3:]
    while rest:
        name, value, *rest = rest
        if name == "-e":
            entry = value
        elif name == "-P":
            key, _, setting = value.partition("=")
            options += [f"--{key}", setting]
        elif name != "--env-manager":
            raise ValueError(f"{text}: {name} is not an option that the documentation uses")
    return [entry, *options]


def _joined(block: str) -> list[str]:
    lines: list[str] = []
    goes_on = False
    for line in block.splitlines():
        if goes_on:
            lines[-1] = f"{lines[-1].removesuffix(chr(92)).rstrip()} {line.strip()}"
        else:
            lines.append(line)
        goes_on = line.endswith(("\\", "|"))
    return lines


def _bare(line: str) -> str:
    return re.sub(r"(^|\s+)#\s.*$", "", line).strip()
