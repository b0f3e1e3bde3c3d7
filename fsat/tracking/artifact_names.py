"""Names of artifacts: those of files that a user has named, as far as MLflow can store them."""

from __future__ import annotations

import re
from pathlib import Path

from fsat.errors import printable
from fsat.progress import say

UNSAFE = "#?%\\"
"""Characters that do not pass through MLflow's server in the name of an artifact."""


def artifact_name(path: Path) -> str:
    """Return a file's name as an artifact that MLflow's server stores and finds under this very name.

    The server takes ``#`` and ``?`` in a name for ends of the address, decodes ``%25``, and refuses others.
    """
    name = "".join("_" if char in UNSAFE or not (char == " " or char.isprintable()) else char for char in path.name)
    name = re.sub(r"^([A-Za-z][\w+.-]*):", r"\1_", name)  # a drive, or the scheme of an address
    return re.sub(r"^[ ]|^(?=\.artifact\.uploading\.)", "_", name)


def announce(path: Path) -> None:
    """Say so if the artifact of a file will have another name than the file."""
    if (name := artifact_name(path)) != path.name:
        say(f"note: the artifact of {printable(path.name)} is named {name}, as MLflow cannot store that name")
