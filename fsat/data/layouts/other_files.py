"""Say what to do with the files of a data folder that may have clips or labels, and are not read."""

from __future__ import annotations

import os
from collections.abc import Mapping

from fsat.data.annotations import OTHER_PROGRAMS
from fsat.data.layouts.rows import DataFolder, listed_names
from fsat.errors import count

ADVICE = {
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"), "unpack"),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "save as CSV"),
    **dict.fromkeys((".parquet", ".arrow", ".feather", ".pkl", ".mat"), "write as CSV with columns filename and label"),
}
"""What to do with archives and tables, by suffix."""

ADVICE_AT_LAST = {
    **OTHER_PROGRAMS,
    **ADVICE,
    **dict.fromkeys((".json", ".xml"), "write as CSV with columns filename and label"),
}
"""What to do with them and with files that may be tables, most of which are none."""


def advice(data: DataFolder, known: Mapping[str, str] = ADVICE) -> list[str]:
    """Return what to do with the files of `known` suffixes, a line for each suffix."""
    found: dict[str, list[str]] = {}
    for folder in data.folders if any(data.left_out.suffixes[suffix] for suffix in known) else ():
        for name in sorted(os.listdir(folder)):
            if (suffix := os.path.splitext(name)[1].lower()) in known and name[0] != ".":
                found.setdefault(suffix, []).append(data.below(folder / name))
    return [
        f"{count(len(names), 'file')} {suffix} ({listed_names(names)}): {known[suffix]}"
        for suffix, names in found.items()
    ]
