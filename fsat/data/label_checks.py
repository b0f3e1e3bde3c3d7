"""Labels that are probably not what they seem: two spellings of one label, and several labels in one cell.

Conventions: two labels look alike if they differ only in Unicode normal form, letter case, invisible characters, spaces
and underscores, or in letters of other alphabets that look the same. The rows with the rarer spelling have the problem.
A comma, or another separator of lists, is text unless all that it separates are labels of other rows. Where a clip has
several labels or none, each of its labels is checked.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fsat.errors import count
from fsat.text import NO_VALUES, named, split_labels, why_not_a_label

_TWINS = str.maketrans("авекмнорстухіјѕο‐‑‒–—−’‘`´", "abekmhopctyxijso------''''")
"""Letters of Cyrillic and Greek, dashes and apostrophes, to those of ASCII that look the same."""

_SEPARATORS = re.compile(r"[\s_]+")
_LIST, _SPACES = re.compile(r"\s*[,;|/+&，；｜／＋＆、،؛]+\s*"), re.compile(r"\s+")
_BRACKETS = "[](){}\"'"

MAX_PIECES = 4
"""Number of pieces between separators that are looked up together, as a label that contains separators itself."""

_TIGHT = re.compile(r"[,;|](?=\S)")
"""Matches a separator of lists without a space after it, which is rarely a part of a name."""

SHOWN = 3
"""Number of labels that a warning names."""

KEEP_ONE, GIVE_EACH = "keep one, or use task=multi", "give each as a label of its own"
KEEP_OR_SEPARATE = "keep one, or separate them by commas and use task=multi"
"""What to do with a label that names several, where a clip has one label, and where it has any number."""

NONE_OF_THEM = "; if the clip has none of the classes, use task=multi"
"""What may be meant by a label that is missing in a table."""


def look_of(label: str) -> str:
    """Return a text that is equal for labels that look alike."""
    text = label
    if not (label.isascii() and label.isprintable()):
        text = "".join(char for char in unicodedata.normalize("NFKC", label) if not _is_invisible(char))
    return _SEPARATORS.sub("_", text.casefold().translate(_TWINS)).strip("_") or label


def _is_invisible(character: str) -> bool:
    """Return whether a character has no width: marks of direction, joiners, soft hyphens, variation selectors.

    Tags are visible: they tell the flags of regions apart.
    """
    category, is_tag = unicodedata.category(character), "\U000e0020" <= character <= "\U000e007f"
    return (category in ("Cf", "Cc") and not is_tag and not character.isspace()) or "\ufe00" <= character <= "\ufe0f"


@dataclass(frozen=True)
class _Spelling:
    label: str
    n_clips: int
    line: int  # the first one

    def told(self, show: Callable[[str], str] = repr) -> str:
        """Return the label with its number of clips and first line."""
        line = f", first in line {self.line}" if self.line else ""
        return f"{show(self.label)} ({count(self.n_clips, 'clip')}{line})"


def check_label_cells(
    cells: Sequence[str], lines: Sequence[int], task: str = "single", in_table: bool = True
) -> tuple[list[str], list[str]]:
    """Return why each row's label cell cannot be used, or an empty text, and what else there is to say.

    Args:
        cells: labels; where `task` is ``multi`` cells of `fsat.text.join_labels`.
        lines: of the rows.
        task: ``single`` or ``multi``.
        in_table: whether labels are cells of a table, in which several or none could be given.
    """
    rows = [split_labels(cell) if task == "multi" else [cell] for cell in cells]
    pairs = [(label, line) for own, line in zip(rows, lines, strict=True) for label in own]
    labels, label_lines = [label for label, _ in pairs], [line for _, line in pairs]
    way_out = GIVE_EACH if task == "multi" else KEEP_ONE if in_table else "keep one"
    faults, doubts = label_faults(labels, label_lines, way_out), label_warnings(labels, label_lines, way_out)
    reasons = [next((faults[label] for label in own if label in faults), "") for own in rows]
    if in_table and task == "single":
        missing = [not label.strip() or label.strip() in NO_VALUES for label in cells]
        reasons = [reason + NONE_OF_THEM * is_none for reason, is_none in zip(reasons, missing, strict=True)]
    return reasons, doubts


def label_faults(labels: Sequence[str], lines: Sequence[int], way_out: str = KEEP_ONE) -> dict[str, str]:
    """Return the labels of a table that cannot be used, with the reason.

    `labels` and `lines` have an entry for each row; `way_out` is what to do with a label that names several.
    """
    spellings = _spellings(labels, lines)
    usual = _usual(spellings)
    faults = {}
    for label, spelling in spellings.items():
        best = usual[look_of(label)]
        several = _why_several(label, usual, way_out)
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


def label_warnings(labels: Sequence[str], lines: Sequence[int], way_out: str = KEEP_ONE) -> list[str]:
    """Return what to say about the labels that are read as one each, though they may be lists of labels.

    The arguments are those of `label_faults`; labels with a fault are left out. At most one line, which names `SHOWN`
    labels at most.
    """
    faults, spellings = label_faults(labels, lines), _spellings(labels, lines)
    usual, doubts = _usual(spellings), []
    shared = _shared_parts(label for label in spellings if label not in faults)
    for label, spelling in spellings.items():
        if label in faults:
            continue
        if parts := _doubtful_parts(label, usual):
            are = "is a label" if len(parts) == 1 else "are labels"
            doubts.append(f"{spelling.told()}, though {' and '.join(parts)} {are} of other clips")
        elif label in shared:
            doubts.append(f"{spelling.told()}, though {shared[label]!r} is a part of other labels")
    if not doubts:
        return []
    others = f"; and {count(len(doubts) - SHOWN, 'other label')} like these" if len(doubts) > SHOWN else ""
    return [f"read as one label: {'; '.join(doubts[:SHOWN])}{others}: where a clip has several, {way_out}"]


def class_warnings(targets: np.ndarray, labels: Sequence[str]) -> list[str]:
    """Return what to say about the classes that all clips have, and those that only occur together.

    `targets` is bool (n_clips, n_classes); `labels` names the classes. A class with a single clip does not count.
    """
    counts, lines = targets.sum(axis=0), []
    if of_all := [named(labels[i]) for i in np.flatnonzero(counts == len(targets)).tolist() if len(targets) > 1]:
        what = f"{count(len(of_all), 'class')} of all {count(len(targets), 'clip')}, whose scores say nothing"
        lines.append(f"{what}: {_first(of_all)}; add clips without it, or take it out")
    columns: dict[bytes, list[str]] = {}
    for i in np.flatnonzero((counts > 1) & (counts < len(targets))).tolist():
        columns.setdefault(targets[:, i].tobytes(), []).append(named(labels[i]))
    if together := [" and ".join(own) for own in columns.values() if len(own) > 1]:
        what = f"{count(len(together), 'group')} of classes that the same clips have, which nothing tells apart"
        lines.append(f"{what}: {_first(together)}; if they are one label, put it in quotes")
    return lines


def _first(texts: Sequence[str]) -> str:
    return ", ".join(texts[:SHOWN]) + (", ..." if len(texts) > SHOWN else "")


def _spellings(labels: Sequence[str], lines: Sequence[int]) -> Mapping[str, _Spelling]:
    found: dict[str, _Spelling] = {}
    for label, line in zip(labels, lines, strict=True):
        known = found.get(label)
        found[label] = _Spelling(label, 1, line) if known is None else _Spelling(label, known.n_clips + 1, known.line)
    return found


def _usual(spellings: Mapping[str, _Spelling]) -> dict[str, _Spelling]:
    """Return the best of the spellings that look alike, by look."""
    by_look: dict[str, list[_Spelling]] = {}
    for spelling in spellings.values():
        by_look.setdefault(look_of(spelling.label), []).append(spelling)
    return {look: max(alike, key=_usability) for look, alike in by_look.items()}


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


def _why_several(label: str, usual: Mapping[str, _Spelling], way_out: str) -> str:
    """Return the reason if a label is a list, such as ``Dog, Cat``, of labels that are all labels of other rows."""
    parts, is_all = _parts(label, _LIST, usual)
    if not is_all:
        return ""
    others = f"{parts[0].label!r} is the label of {count(parts[0].n_clips, 'other clip')}"
    if way_out == KEEP_ONE and not re.search(r"[,;|]", label):
        way_out = KEEP_OR_SEPARATE
    takes = "" if way_out == GIVE_EACH else ", and a clip takes one label"
    return f"the label {label!r} names {len(parts)}{takes} ({others}): {way_out}"


def _doubtful_parts(label: str, usual: Mapping[str, _Spelling]) -> list[str]:
    """Return the labels of other rows that are parts of a label: at least one of a list, or all words."""
    parts, _ = _parts(label, _LIST, usual)
    if not _LIST.search(label):
        parts, is_all = _parts(label, _SPACES, usual)
        parts = parts if is_all else []
    return [repr(part.label) for part in dict.fromkeys(parts)][:SHOWN]


def _shared_parts(labels: Iterable[str]) -> dict[str, str]:
    """Return the labels with separators without spaces of which a part is in other such labels, and this part."""
    parts = {label: [part.strip() for part in _TIGHT.split(label)] for label in labels if _TIGHT.search(label)}
    counts = Counter(part for own in parts.values() for part in set(own) if part)
    found = {label: next((part for part in own if counts[part] > 1), "") for label, own in parts.items()}
    return {label: part for label, part in found.items() if part}


def _parts(label: str, separator: re.Pattern[str], usual: Mapping[str, _Spelling]) -> tuple[list[_Spelling], bool]:
    """Return the labels of other rows that a label is a list of, and true; or those that are parts of it, and false.

    A part may contain separators itself, as in ``Chirp, tweet; Dog``.
    """
    spans = [(0, 0), *(match.span() for match in separator.finditer(label)), (len(label), len(label))]
    pieces = [(start, end) for (_, start), (end, _) in pairwise(spans) if label[start:end].strip(_BRACKETS)]
    found: list[_Spelling] = []
    lists: list[list[_Spelling] | None] = [*[None for _ in pieces], []]  # labels that the rest from a piece on lists
    for i in reversed(range(len(pieces))):
        for j in range(min(i + MAX_PIECES, len(pieces)), i, -1):  # the shortest part last, which counts
            part = _other_label(label[pieces[i][0] : pieces[j - 1][1]], label, usual)
            rest = lists[j]
            if part is not None:
                found.insert(0, part)
                lists[i] = lists[i] if rest is None else [part, *rest]
    whole = lists[0] or []
    if len(whole) > 1:
        return whole, True
    return (found if len(pieces) > 1 else []), False


def _other_label(part: str, label: str, usual: Mapping[str, _Spelling]) -> _Spelling | None:
    """Return the label of other rows that a part of a label is, with or without brackets and quotes around it."""
    for text in dict.fromkeys((part, part.strip(_BRACKETS))):
        spelling = usual.get(look_of(text))
        if spelling is not None and look_of(text) != look_of(label) and not why_not_a_label(spelling.label):
            return spelling
    return None
