"""Which columns of a table name the clips, their labels, folds, groups and verification.

Conventions: names are compared in lower case, with ``_`` for spaces and hyphens. An option names a column outright. Of
several columns with a usual name the first in the order below counts, and a remark says so; but if they may both be the
labels and differ, the table is ambiguous, which is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from fsat.errors import DataError, count, printable
from fsat.layout_options import LayoutOptions

USUAL = {
    "fname": (
        "fname", "filename", "file_name", "file", "path", "filepath", "file_path", "audio", "audio_file", "audio_path",
        "wav", "wav_file", "clip", "clip_name", "slice_file_name", "audio_filename", "wav_filename", "sound_file",
        "soundfile", "itemid", "sample_key",
    ),
    "label": (
        "label", "labels", "primary_label", "scene_label", "event_label", "event_labels", "category", "class",
        "class_name", "class_label", "label_name", "category_name", "target", "species", "common_name",
        "scientific_name", "tag", "tags",
    ),
    "fold": ("fold", "folds", "split", "subset", "partition"),
    "group": (
        "group", "recording_id", "freesound_id", "fsid", "src_file", "site", "identifier", "song_id", "speaker_id",
        "client_id", "subject_id", "patient_id",
    ),
    "manually_verified": ("manually_verified", "verified", "is_verified"),
}  # fmt: skip
"""Usual names of columns, by what they mean."""

LABELS_OF_A_SUBJECT = (
    "hasbird", "has_bird", "scene", "instrument", "genre", "emotion", "ebird_code", "species_code", "diagnosis",
    "keyword", "word", "digit", "positive_labels", "classes", "categories",
)  # fmt: skip
"""Names of columns that are the labels if none has a name of `USUAL`, and say something of the clips if one has."""

OPTIONS = {
    "fname": "path_column", "label": "label_column", "fold": "fold_column", "group": "group_column",
    "manually_verified": "verified_column",
}  # fmt: skip
"""The option that names the column of each meaning."""

MEANINGS = {"fname": "the files of the clips", "label": "the labels", "fold": "the folds", "group": "groups",
            "manually_verified": "what is verified"}  # fmt: skip

MEASURED = re.compile(
    r"(?:audio_|clip_|file_|n_|num_)?(?:duration|length|seconds|samples|frames|channels?|sample_?rate|sampling_rate|sr|bits|"
    r"bit_depth|snr|level|gain|db|rms|lat|latitude|lon|lng|long|longitude|altitude|elevation|temperature|humidity|"
    r"wind_speed|id|index|idx|row|number|count|start|end|onset|offset|start_time|end_time|year|month|day|hour|minute|"
    r"rating|quality|votes|weight|score|confidence|labels|annotators|test|val|valid|validation|eval|holdout|noisy|"
    r"curated|augmented|synthetic)(?:_(?:s|sec|secs|seconds|ms|db|dbfs|deg|degrees|m|hz|khz))?"
)
"""Matches names of columns, as names are compared, whose 0 and 1 are a measurement or a part, and no label."""

SHOWN = 12
"""Number of columns that a message names."""

NONE = "none"
"""Value of an option for no such column."""


def look_of(name: str) -> str:
    """Return the name of a column as names are compared."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def candidates(header: Sequence[str], options: LayoutOptions, path: Path, meaning: str) -> list[str]:
    """Return the columns that may have a meaning, the likeliest first; raise `DataError` for one that is not there."""
    option = OPTIONS[meaning]
    given = getattr(options, option)
    if given == NONE and meaning not in ("fname", "label"):
        return []
    if given:
        alike = [name for name in header if name == given] or [
            name for name in header if look_of(name) == look_of(given)
        ]
        if not alike and meaning == "label" and (several := _columns_of(header, given)):
            return several
        if not alike:
            columns = ", ".join(map(printable, filter(None, header)))
            raise DataError(f"{option}={printable(given)}: {path} has no such column; it has {columns}")
        return alike[:1]
    by_look = {look_of(name): name for name in reversed(header)}
    found = [by_look[name] for name in USUAL[meaning] if name in by_look]
    if meaning == "label":
        return found or [by_look[name] for name in LABELS_OF_A_SUBJECT if name in by_look]
    return found


def _columns_of(header: Sequence[str], given: str) -> list[str]:
    """Return the columns that a text names, separated by commas; none if it names another one."""
    by_look = {look_of(name): name for name in reversed(header)}
    names = [look_of(name) for name in given.split(",")]
    return [by_look[name] for name in names] if len(names) > 1 and set(names) <= by_look.keys() else []


def may_be_label(name: str) -> bool:
    """Return whether a column of 0 and 1 with this name may say which clips have the label ``name``."""
    look = look_of(name)
    is_other = any(look in names for names in USUAL.values())
    is_other = is_other or look.startswith(("is_", "has_", "in_", "use_", "was_")) or bool(MEASURED.fullmatch(look))
    return bool(look) and not is_other


def missing_meanings(header: Sequence[str], options: LayoutOptions, path: Path) -> list[str]:
    """Return which of ``fname`` and ``label`` a table has no column for."""
    missing = []
    for meaning in ("fname", "label"):
        try:
            if not candidates(header, options, path, meaning):
                missing.append(meaning)
        except DataError:
            missing.append(meaning)
    return missing


def find_candidates(
    header: Sequence[str], options: LayoutOptions, path: Path, needed: Sequence[str]
) -> dict[str, list[str]]:
    """Return the candidates for each meaning; raise `DataError` if there are none for one that is `needed`."""
    found = {meaning: candidates(header, options, path, meaning) for meaning in USUAL}
    given = {meaning for meaning in found if getattr(options, OPTIONS[meaning])}
    taken = {name for meaning in given for name in found[meaning]}
    found = {
        meaning: columns if meaning in given else [name for name in columns if name not in taken]
        for meaning, columns in found.items()
    }
    for meaning in needed:
        if not found[meaning]:
            raise DataError(f"{path}: {why_no_column(header, meaning)}")
    return {meaning: columns for meaning, columns in found.items() if columns}


def why_no_column(header: Sequence[str], meaning: str) -> str:
    """Return that a table has no column for a meaning, which ones it has, and which option names one."""
    fault = f"no column is known to be {MEANINGS[meaning]}: it has {listed_columns(header)}"
    return f"{fault}; name one with {OPTIONS[meaning]}="


def listed_columns(header: Sequence[str]) -> str:
    """Return the names of a table's columns, the first ones if they are many."""
    names = [printable(name) for name in header if name]
    return ", ".join(names[:SHOWN]) + (f", ... ({len(names)})" if len(names) > SHOWN else "")


def choose(
    frame: pd.DataFrame, found: Mapping[str, Sequence[str]], path: Path, n_resolved: Callable[[str], int]
) -> tuple[dict[str, str], list[str]]:
    """Return the column of each meaning, and remarks on those that had others beside them.

    Args:
        frame: the candidates' cells.
        found: see `find_candidates`.
        n_resolved: returns how many cells of a column name files.
    """
    chosen, remarks = {}, []
    for meaning, columns in found.items():
        chosen[meaning] = columns[0]
        if len(columns) == 1:
            continue
        if meaning == "fname":
            chosen[meaning] = max(columns, key=n_resolved)
        if meaning == "label":
            chosen[meaning] = _label_column(frame, columns, path)
        others = " and ".join(printable(name) for name in columns if name != chosen[meaning])
        what = f"{path.name}: {printable(chosen[meaning])} is read as {MEANINGS[meaning]}, not {others}"
        remarks.append(f"{what} ({OPTIONS[meaning]}= chooses another)")
    return chosen, remarks


def _label_column(frame: pd.DataFrame, columns: Sequence[str], path: Path) -> str:
    """Return the column of labels if the others number or rename the same classes; else raise `DataError`."""
    pairs = frame[list(columns)].drop_duplicates()
    counts = {name: pairs[name].nunique() for name in columns}
    if len(set(counts.values())) > 1 or len(pairs) != min(counts.values()):
        known = ", ".join(f"{printable(name)} ({count(number, 'class')})" for name, number in counts.items())
        raise DataError(f"{path}: several columns may be the labels: {known}; choose one with label_column=")
    words = [name for name in columns if not pairs[name].str.fullmatch(r"\s*\d+\s*").all()]
    return (words or columns)[0]
