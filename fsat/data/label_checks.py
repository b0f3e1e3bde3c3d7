"""Labels that are probably not what they seem: two spellings of one label, and several labels in one cell.

Conventions: two labels look alike if they differ only in Unicode normal form, letter case, invisible characters, spaces
and underscores, or in letters of other alphabets that look the same. The rows with the rarer spelling have the problem.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fsat.errors import count
from fsat.text import NO_VALUES, why_not_a_label

_TWINS = str.maketrans("авекмнорстухіјѕο‐‑‒–—−’‘`´", "abekmhopctyxijso------''''")
"""Letters of Cyrillic and Greek, dashes and apostrophes, to those of ASCII that look the same."""

_SEPARATORS = re.compile(r"[\s_]+")
_LIST = re.compile(r"[,;|/+&\s]+")


def look_of(label: str) -> str:
    """Return a text that is equal for labels that look alike."""
    text = unicodedata.normalize("NFKC", label)
    text = "".join(character for character in text if not _is_invisible(character))
    return _SEPARATORS.sub("_", text.casefold().translate(_TWINS)).strip("_") or label


def _is_invisible(character: str) -> bool:
    """Return whether a character has no width: marks of direction, joiners, soft hyphens, variation selectors."""
    category = unicodedata.category(character)
    return (category in ("Cf", "Cc") and not character.isspace()) or "\ufe00" <= character <= "\ufe0f"


@dataclass(frozen=True)
class _Spelling:
    label: str
    n_clips: int
    line: int  # the first one

    def told(self, show: Callable[[str], str] = repr) -> str:
        """Return the label with its number of clips and first line."""
        return f"{show(self.label)} ({count(self.n_clips, 'clip')}, first in line {self.line})"


def label_faults(labels: Sequence[str], lines: Sequence[int]) -> dict[str, str]:
    """Return the labels of a table that cannot be used, with the reason.

    `labels` and `lines` have an entry for each row.
    """
    spellings = _spellings(labels, lines)
    by_look: dict[str, list[_Spelling]] = {}
    for spelling in spellings.values():
        by_look.setdefault(look_of(spelling.label), []).append(spelling)
    usual = {look: max(alike, key=_usability) for look, alike in by_look.items()}
    faults = {}
    for label, spelling in spellings.items():
        best = usual[look_of(label)]
        several = _why_several(label, usual)
        reason = why_not_a_label(label)
        if label.strip() and label not in NO_VALUES and best.label != label and not why_not_a_label(best.label):
            reason = _why_alike(spelling, best)
        elif several:
            reason = several
        elif label and all(map(_is_invisible, label)):
            reason = f"the label {label!a} has only invisible characters"
        if reason:
            faults[label] = reason
    return faults


def _spellings(labels: Sequence[str], lines: Sequence[int]) -> Mapping[str, _Spelling]:
    found: dict[str, _Spelling] = {}
    for label, line in zip(labels, lines, strict=True):
        known = found.get(label)
        found[label] = _Spelling(label, 1, line) if known is None else _Spelling(label, known.n_clips + 1, known.line)
    return found


def _usability(spelling: _Spelling) -> tuple[bool, int, int]:
    """Rank spellings of a label: those that can be used, then the most frequent, then the first."""
    return not why_not_a_label(spelling.label), spelling.n_clips, -spelling.line


def _why_alike(rarer: _Spelling, usual: _Spelling) -> str:
    """Return what is wrong with a label that looks like a more frequent one."""
    a, b = rarer.label, usual.label
    composed = [unicodedata.normalize("NFC", label) for label in (a, b)]
    if composed[0] == composed[1]:
        what, show = "only in the Unicode normal form; write all labels in one form, such as NFC", ascii
    elif composed[0].casefold() == composed[1].casefold():
        what, show = f"only in letter case; write {b!r} in all rows", repr
    elif len({"".join(character for character in label if not _is_invisible(character)) for label in (a, b)}) == 1:
        what, show = "only in invisible characters; remove them", ascii
    elif len({_SEPARATORS.sub("_", label).strip("_").casefold() for label in composed}) == 1:
        what, show = f"only in spaces and underscores; write {b!r} in all rows", repr
    else:
        what, show = f"only in characters that look the same; write {b!a} in all rows", ascii
    return f"the label {rarer.told(show)} differs from {usual.told(show)} {what}"


def _why_several(label: str, usual: Mapping[str, _Spelling]) -> str:
    """Return the reason if a label is a list of labels, of which at least one is a label of other rows.

    Parts that only white space separates must all be labels.
    """
    parts = [part.strip("[](){}\"'") for part in _LIST.split(label)]
    parts = [part for part in parts if part]
    known = [usual[look_of(part)] for part in parts if look_of(part) in usual and look_of(part) != look_of(label)]
    is_spaced = len(label.split()) == len(parts) and not re.search(r"[,;|/+&]", label)
    if len(parts) < 2 or not known or (is_spaced and len(known) < len(parts)):
        return ""
    others = f"{known[0].label!r} is the label of {count(known[0].n_clips, 'other clip')}"
    return f"the label {label!r} names {len(parts)}, and a clip takes one label ({others}): keep one"
