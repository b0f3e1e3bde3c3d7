"""Read the commands in the documentation.

A code block without a language contains commands. If lines begin with ``$``, these are the commands and the lines below
show their output; otherwise each line is a command. A line that ends with ``|`` or a backslash continues on the next.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import yaml

from fsat.cli import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        page: name of the file.
        text: the command on one line, without prompt and comment.
        fails: whether the output shown is an error of fsat.
    """

    page: str
    text: str
    fails: bool = False


def commands(page: Path) -> Iterator[Command]:
    """Yield all commands of a page in order."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        if language:
            continue
        lines = _join_continued(block)
        has_prompts = any(line.startswith("$ ") for line in lines)
        for i, line in enumerate(lines):
            if not has_prompts and (text := _without_comment(line)):
                yield Command(page.name, text)
            elif line.startswith("$ "):
                output = takewhile(lambda shown: not shown.startswith("$ "), lines[i + 1 :])
                fails = any(shown.startswith("fsat: error") for shown in output)
                yield Command(page.name, _without_comment(line[2:]), fails)


def fsat_arguments(text: str) -> list[str] | None:
    """Return the arguments for `python -m fsat` of a command, also of `mlflow run`; None for other programs."""
    text = re.split(r"\s[|]\s", text)[-1]
    words = shlex.split(text)
    if words[:3] == ["python", "-m", "fsat"]:
        names_folder = words[3] not in cli.commands and not words[3].startswith("-")
        return ["main", "--data_dir", *words[3:]] if names_folder else words[3:]
    if words[:3] != ["mlflow", "run", "."]:
        return None
    entry_point = "main"
    given: dict[str, str] = {}
    for option, value in zip(words[3::2], words[4::2], strict=True):
        if option == "-e":
            entry_point = value
        elif option == "-P":
            name, _, setting = value.partition("=")
            given[name] = setting
        elif option != "--env-manager":
            raise ValueError(f"{text}: unexpected option {option}; expected -e, -P or --env-manager")
    project = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"][entry_point]
    named = {name: shlex.quote(given[name]) for name in project.get("parameters", {}) if name in given}
    others = [word for name, value in given.items() if name not in named for word in (f"--{name}", value)]
    return [*shlex.split(project["command"].format(**named))[3:], *others]


def _join_continued(block: str) -> list[str]:
    lines: list[str] = []
    continues = False
    for line in block.splitlines():
        if continues:
            lines[-1] = f"{lines[-1].removesuffix(chr(92)).rstrip()} {line.strip()}"
        else:
            lines.append(line)
        continues = line.endswith(("\\", "|"))
    return lines


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s+)#\s.*$", "", line).strip()
