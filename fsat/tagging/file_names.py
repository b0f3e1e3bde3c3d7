"""Names of files and folders made from any text, such as labels, that every common file system takes.

A name has no characters that Windows, macOS or Linux refuse, no space or dot at an end, is no device of Windows, and
fits into 255 bytes with what is added to it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

FORBIDDEN = re.compile('[<>:"/\\\\|?*\u202a-\u202e\u2066-\u2069]')
"""Matches what Windows does not take, and marks that show a name in another order than it is written."""

CONTROLS = ("Cc", "Cn", "Cs", "Zl", "Zp")
"""Unicode categories of characters that no name has: controls, unassigned ones, line ends."""

DEVICE = re.compile(r"^(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?=\s*(\.|$))", re.IGNORECASE)
"""Matches the beginning of a name that Windows takes for a device, whatever its suffix."""

LONGEST = 100
"""Bytes of a name, in UTF-8; there is room for a number, a suffix, and the name while a file is unfinished."""


def safe_name(text: str, longest: int = LONGEST) -> str:
    """Return a text as the name of a file or folder, shortened at its end to a number of bytes."""
    text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    text = "".join("_" if unicodedata.category(char) in CONTROLS else char for char in FORBIDDEN.sub("_", text))
    name = shortened(text.strip(), longest).rstrip(". ")
    name = re.sub(r"^\.+", lambda dots: "_" * len(dots[0]), name) or "_"
    return DEVICE.sub(lambda device: f"{device[0]}_", name)


def shortened(text: str, longest: int) -> str:
    """Return the beginning of a text that fits into a number of bytes, without half a character."""
    return text.encode()[:longest].decode(errors="ignore")


class DistinctNames:
    """Safe names that differ even where a file system ignores letter case; `taken` are names of other files there."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = {_key(name) for name in taken}

    def of(self, text: str) -> str:
        """Return the name of another text; if it was given before, with a number."""
        name, number = safe_name(text), 1
        while _key(distinct := f"{name} ({number})" if number > 1 else name) in self._taken:
            number += 1
        self._taken.add(_key(distinct))
        return distinct


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
