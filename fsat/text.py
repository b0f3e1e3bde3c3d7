"""How what a user has named stands in Markdown and in the names of runs, and how long a text may be."""

from __future__ import annotations

from pathlib import Path

from fsat.errors import printable

LIMIT = 5000
"""Characters that MLflow takes for a description of whatever kind."""

NAME_LIMIT, VALUE_LIMIT = 60, 200
"""Characters of what a user has named, in the name of a run and in a text."""


def code(value: object, limit: int = VALUE_LIMIT) -> str:
    """What a user has named, as Markdown's code on one line."""
    text = printable(value).replace("`", "'")
    return f"`{text if len(text) <= limit else text[: limit - 1] + '…'}`"


def short(value: object) -> str:
    """What a user has named, for the name of a run."""
    text = printable(value)
    return text if len(text) <= NAME_LIMIT else text[: NAME_LIMIT - 1] + "…"


def dataset_name(data_dir: Path | str) -> str:
    """The name of a dataset's folder, for the name of a run."""
    return short(Path(data_dir).absolute().name or data_dir)


def fold_name(model: str, fold: int, data_dir: Path | str) -> str:
    """The name of a fold's run."""
    return f"{model} fold {fold} on {dataset_name(data_dir)}"


def cut(text: str) -> str:
    """The text, without its last lines if it is too long for MLflow."""
    if len(text) <= LIMIT:
        return text
    return text[: LIMIT - 2].rpartition("\n")[0][: LIMIT - 2] + "\n…"
