"""Say what to do with the files of a data folder that may have clips or labels, and are not read."""

from __future__ import annotations

from fsat.data.layouts.rows import DataFolder
from fsat.errors import count

ADVICE = {
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"), "unpack"),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "save as CSV"),
    **dict.fromkeys((".parquet", ".arrow", ".feather", ".pkl", ".mat"), "write as CSV with columns filename and label"),
}
"""What to do, by suffix."""


def advice(data: DataFolder) -> list[str]:
    """Return what to do with the archives and the tables of other programs in a folder, a line for each suffix."""
    counts = data.left_out.suffixes
    return [f"{count(counts[suffix], 'file')} {suffix}: {what}" for suffix, what in ADVICE.items() if counts[suffix]]
