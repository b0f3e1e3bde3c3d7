"""Text that users name or read: labels, names of runs, values in Markdown.

A label is one line of text in any script. Only a submission, which separates the labels of a clip by spaces, has
underscores in place of the spaces inside a label.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from fsat.errors import printable

NO_LABEL = "None"
"""Entry of FSDKaggle2018's tables for a clip without a label."""

NO_VALUES = (NO_LABEL, "NaN", "nan", "NA", "N/A", "<NA>")
"""What programs write for a missing label; texts such as ``none`` may be real ones."""

LIMIT = 5000
"""Maximum number of characters of an MLflow description."""

NAME_LIMIT, VALUE_LIMIT = 60, 200
"""Maximum number of characters of a user's name or value in the name of a run and in a text."""


def label_order(labels: Iterable[str]) -> list[str]:
    """Return the distinct labels, sorted: column j of every prediction belongs to entry j."""
    return sorted(set(labels))


def join_labels(labels: Iterable[str]) -> str:
    """Return the labels of a clip as one cell of a table: distinct, sorted, separated by commas; empty for none.

    A label that has a comma or a quote itself is in quotes, as CSV has it.

    >>> join_labels(["Rain", "Chirp, tweet"])
    '"Chirp, tweet",Rain'
    """
    cell = io.StringIO()
    csv.writer(cell, lineterminator="").writerow(label_order(labels))
    return cell.getvalue()


def split_labels(cell: str) -> list[str]:
    """Return the labels of a cell that `join_labels` made."""
    return next(csv.reader([cell], strict=True), [])


def why_not_a_label(label: str) -> str:
    """Return the reason why a text cannot be a label, or an empty string if it can.

    A label is one line of text without control characters, and without white space around it.
    """
    if not label.strip():
        return "the label is empty"
    if label.strip() in NO_VALUES:
        return f"the label is {label.strip()}: the clip has no label"
    for character in label:
        if what := _why_not_in_a_label(character):
            return f"the label {label!r} has {what}: expected one line of text"
    if label != label.strip():
        return f"the label {label!r} has white space around it: remove it"
    return ""


def _why_not_in_a_label(character: str) -> str:
    """Name a character that a label cannot have; empty for all others."""
    category = unicodedata.category(character)
    if category == "Cs":  # from a file name; a table with such bytes is not read
        return "bytes that are not UTF-8"
    if category not in ("Cc", "Zl", "Zp"):
        return ""
    if character == "\t":
        return "a tab"
    return "a line break" if character.splitlines() == [""] else f"the control character {character!a}"


def submitted(label: str) -> str:
    """Return a label as a submission has it: with an underscore for each run of white space."""
    return "_".join(label.split())


def named(label: str) -> str:
    """Return a label as a sentence or a list names it: in quotes unless it is a single word, without a comma."""
    if not re.search(r"[\s,;]", label):
        return printable(label)
    quote = '"' if "'" in label else "'"
    return f"{quote}{printable(label)}{quote}"


def is_unknown(value: str) -> bool:
    """Return whether a cell stands for a missing number or name, such as an empty one, NA, NaN, None, null or -."""
    return value.strip().casefold() in ("", "-", "--", "?", "na", "n/a", "#n/a", "<na>", "nan", "none", "null", "nil")


NON_COMMERCIAL = re.compile(r"\bNC\b|non-?commercial|research[ -](use[ -])?only|academic use only", re.IGNORECASE)
"""Matches a licence that does not allow commercial use."""


def license_line(name: str, license: str, source: str) -> str:
    """Return a backbone, where it comes from, and what its licence demands of those who use a tagger with it."""
    origin = f" from {printable(source)}" if source else ""
    if not license:
        return (
            f"backbone {name}{origin}: its descriptor names no licence; ask its publisher before you share the tagger"
        )
    is_limited = NON_COMMERCIAL.search(license)
    demand = "non-commercial use only, which holds for the tagger too" if is_limited else "it holds for the tagger too"
    return f"backbone {name}{origin}: licence {printable(license)} ({demand})"


def code(value: object, limit: int = VALUE_LIMIT) -> str:
    """Return a user's value as Markdown code on one line."""
    text = short(value, limit).replace("`", "'")
    return f"`{text}`"


def short(value: object, limit: int = NAME_LIMIT) -> str:
    """Return a user's value, shortened for the name of a run."""
    text = printable(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def dataset_name(data_dir: Path | str) -> str:
    """Return the name of a dataset's folder, shortened for the name of a run."""
    return short(Path(data_dir).absolute().name or data_dir)


def fold_name(model: str, fold: int, data_dir: Path | str) -> str:
    """Return the name of a fold run."""
    return f"{model} fold {fold} on {dataset_name(data_dir)}"


def cut(text: str) -> str:
    """Return the text without its last lines if it is too long for MLflow."""
    if len(text) <= LIMIT:
        return text
    return text[: LIMIT - 2].rpartition("\n")[0][: LIMIT - 2] + "\n…"
