"""How files are tagged: what changes the tags, beside the model."""

from __future__ import annotations

from dataclasses import dataclass

from fsat.errors import ConfigError

LONGEST_CLIP = 600.0
"""Seconds of the longest clip that is tagged as one, unless more is asked for."""


@dataclass(frozen=True)
class TagSettings:
    """How files are tagged.

    Attributes:
        top_k: tags of a clip, or of a window, at most; 0 for 3 of a clip and 1 of a window.
        min_score: the least score of a tag.
        members: which of the tagger's to use, as `fsat.tagging.Tagger.only` takes it.
        window: seconds, for tags over time; 0 for tags of clips.
        hop: seconds from window to window; 0 for `window`.
        max_seconds: length of the longest file that is tagged; 0 for `LONGEST_CLIP`, or any with `window`.

    Raises:
        ConfigError: a value is not allowed.
    """

    top_k: int = 0
    min_score: float = 0.0
    members: str = "all"
    window: float = 0.0
    hop: float = 0.0
    max_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("window", "hop", "max_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name):g}: expected a number of seconds, at least 0")
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"min_score={self.min_score:g}: expected 0 to 1")
        if self.hop and not self.window:
            raise ConfigError(f"hop={self.hop:g}: is the step from window to window; give window=SECONDS too")
        if self.hop > self.window:
            raise ConfigError(f"hop={self.hop:g}: expected at most window={self.window:g}, so that nothing is left out")
        if 0 < self.window < SHORTEST_WINDOW or 0 < self.hop < SHORTEST_WINDOW:
            raise ConfigError(f"window={self.window:g} and hop={self.hop:g}: expected at least {SHORTEST_WINDOW:g} s")

    @property
    def tags(self) -> int:
        """Tags of a clip or a window at most."""
        return self.top_k or (1 if self.window else 3)

    @property
    def step(self) -> float:
        """Seconds from window to window."""
        return self.hop or self.window

    @property
    def longest(self) -> float:
        """Length of the longest file, in seconds."""
        return self.max_seconds or (float("inf") if self.window else LONGEST_CLIP)


SHORTEST_WINDOW = 0.01
"""Seconds."""

CLIPS = TagSettings()
"""As clips are tagged if nothing else is asked for."""
