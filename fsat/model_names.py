"""Names that a tagger can be registered under."""

from __future__ import annotations

from fsat.errors import ConfigError, printable

NOT_IN_A_NAME, LONGEST_NAME = '/:@?\\"', 256
"""Characters that no registered model's name can have, and how many it can have. MLflow refuses / and :, and the others
mean something in its addresses or searches; its databases have no room for longer names."""


def check_model_name(name: str) -> None:
    """Raise `ConfigError` unless a tagger can be registered under a name."""
    if wrong := sorted(set(name) & set(NOT_IN_A_NAME)):
        fault = f"it has {' '.join(wrong)} in it"
    elif not name.isprintable() or name != name.strip():
        fault = "it has control characters, or spaces at an end"
    elif name in ("", ".", ".."):
        fault = "it is no name"
    elif len(name) > LONGEST_NAME:
        fault = f"it has {len(name)} characters"
    else:
        return
    expected = f"expected at most {LONGEST_NAME} characters, without {' '.join(NOT_IN_A_NAME)}, such as team-birds"
    shown = name if len(name) <= LONGEST_NAME else f"{name[:20]}..."
    raise ConfigError(f"register_as={printable(shown)}: {fault}; {expected}")
