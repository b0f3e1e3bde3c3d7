"""Values of a JSON object that a person wrote, checked one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fsat.errors import ConfigError, printable

HOW = "`python -m fsat backbone inspect FILE` describes a network (docs/backbones.md)"
"""How to get a descriptor, in errors."""

MAX_TEXT = 1000
"""Maximum length of a text."""


class Values:
    """Values of a JSON object, with errors that name the key."""

    def __init__(self, prefix: str, values: Any) -> None:
        self._prefix = prefix
        if not isinstance(values, dict):
            raise ConfigError(f"{prefix}: expected a JSON object; {HOW}")
        self.values: Mapping[str, Any] = values

    def error(self, key: str, expected: str) -> ConfigError:
        """Return the error for a wrong value."""
        received = json.dumps(self.values.get(key), ensure_ascii=False)
        received = received if len(received) <= 60 else received[:57] + "..."
        return ConfigError(f"{self._prefix}: {key} is {printable(received)}; expected {expected}")

    def nested(self, key: str, values: Any) -> Values:
        """Return the values of a nested object."""
        if not isinstance(values, dict):
            raise self.error(key, "a JSON object")
        return Values(f"{self._prefix}: {key}", values)

    def check_keys(self, known: tuple[str, ...], required: tuple[str, ...] = ()) -> None:
        """Raise `ConfigError` for unknown and for missing keys."""
        if unknown := sorted(self.values.keys() - set(known)):
            raise ConfigError(f"{self._prefix}: unknown key {printable(unknown[0])[:40]}; expected {', '.join(known)}")
        if missing := [key for key in required if key not in self.values]:
            raise ConfigError(f"{self._prefix}: {', '.join(missing)} missing; {HOW}")

    def text(self, key: str, required: bool = False) -> str:
        """Return a text, empty if it is missing."""
        value = self.values.get(key, "")
        if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable() or (required and not value):
            raise self.error(key, f"a text of one line, at most {MAX_TEXT} characters")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """Return one of some words."""
        value = self.values.get(key)
        if value not in choices:
            raise self.error(key, f"one of {', '.join(choices)}")
        return str(value)

    def number(
        self, key: str, expected: str, least: float, most: float, whole: bool = False, optional: bool = False
    ) -> float | None:
        """Return a number within limits, None if it is missing or null and `optional`."""
        value: Any = self.values.get(key)
        if value is None and optional:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= most or (whole and value != int(value)):  # NaN is not within limits
            raise self.error(key, f"{expected}, from {least:.6g} to {most:.6g}")
        return float(value)
