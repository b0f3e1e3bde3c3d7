"""What a served tagger takes on at most, from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from fsat.errors import ConfigError
from fsat.options import checked, option

VARIABLES = {
    "max_mb": "FSAT_SERVE_MAX_MB",
    "max_seconds": "FSAT_SERVE_MAX_SECONDS",
    "max_clips": "FSAT_SERVE_MAX_CLIPS",
}


@dataclass(frozen=True)
class Limits:
    """Limits of one request, and of the clips in it."""

    max_mb: float = option(64.0, "Size of a request, in MB of 1,000,000 bytes", above=0)
    max_seconds: float = option(600.0, "Length of a clip, in seconds", above=0)
    max_clips: int = option(64, "Clips in a request", least=1)

    @property
    def max_bytes(self) -> int:
        """Size of a request, in bytes."""
        return round(self.max_mb * 1e6)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Limits:
        """The defaults, but for what `VARIABLES` say.

        Raises:
            ConfigError: a variable is not a number, or out of bounds.
        """
        given = {}
        for spec in fields(cls):
            name = VARIABLES[spec.name]
            if text := environment.get(name, "").strip():
                try:
                    given[spec.name] = checked(spec, text, name)
                except ConfigError as error:
                    raise ConfigError(f"{error}; unset it for the default, {spec.default}") from None
        return cls(**given)
