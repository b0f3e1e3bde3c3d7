"""Listen to every clip of a dataset once, as `eda` does: what is odd about it, and which clips are the same sound."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fsat.data.audio import LONGEST, Report, blocks
from fsat.data.byte_source import MISSING
from fsat.data.clip_names import stored_name
from fsat.data.duplicates import first_equal
from fsat.data.levels import SEPARATOR
from fsat.errors import AudioError, DataError, StorageError
from fsat.parallel.executor import Threads
from fsat.progress import Progress


@dataclass(frozen=True)
class Listened:
    """What was heard of clips, in the order of their tables.

    Attributes:
        first: int64 (n,), the number of the first clip with equal samples.
        notes: what is odd, separated by `SEPARATOR`.
        errors: why a clip cannot be used; empty if it can.
    """

    first: np.ndarray
    notes: list[str]
    errors: list[str]


def listen_to_clips(folders: Sequence[Path], tables: Sequence[pd.DataFrame]) -> Listened:
    """Decode all clips with a digest, each distinct file once, in threads and at bounded memory.

    Args:
        folders: of training and of test clips.
        tables: their clips, with ``fname, frames, samplerate, digest``; a clip without a digest cannot be used.
    """
    clips = [
        (folder, *row)
        for folder, table in zip(folders, tables, strict=True)
        for row in table[["fname", "frames", "samplerate", "digest"]].itertuples(index=False, name=None)
    ]
    sizes = Counter((frames, rate) for _, _, frames, rate, digest in clips if digest)
    files = {
        digest: (folder / stored_name(folder, fname), sizes[frames, rate] > 1)
        for folder, fname, frames, rate, digest in clips
        if digest
    }
    heard: dict[str, tuple[Hashable, str, str]] = {}
    workers = os.cpu_count() or 1
    with Progress("listening to clips", len(files)) as progress:
        all_heard = Threads(workers, 4 * workers).map(lambda file: _listen(*file), list(files.values()))
        for digest, result in zip(files, all_heard, strict=True):
            heard[digest] = result
            progress.advance()
    results = [heard.get(digest, (None, "", "")) for *_, digest in clips]
    first = first_equal([sound for sound, _, _ in results], lambda i, j: True)
    return Listened(first, [notes for _, notes, _ in results], [error for _, _, error in results])


def _listen(path: Path, may_be_a_copy: bool) -> tuple[Hashable, str, str]:
    """Return a hash of a file's rate and samples (None if it is silent or need not be compared), notes and error."""
    samples, report = hashlib.blake2b(digest_size=16), Report()
    try:
        for block in blocks(path, [], LONGEST, report):
            if may_be_a_copy:
                samples.update(b"%d" % block.samplerate)
                samples.update(block.mono.data)
    except AudioError as error:
        if str(error) == MISSING:  # it was there when its header was read
            raise DataError(f"{path}: went away while the clips were read; connect its drive and run again") from error
        return None, "", str(error)
    except StorageError as error:
        raise DataError(f"{path}: {error}; fix that and run again") from error
    sound = samples.digest() if may_be_a_copy and not report.levels.is_silent else None
    return sound, SEPARATOR.join(report.notes), ""
