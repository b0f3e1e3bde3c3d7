"""All clips of a dataset, decoded and resampled once and held in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fsat.data.audio import decode
from fsat.errors import AudioError
from fsat.progress import Progress


def decode_clips(folder: Path, fnames: Sequence[str], sampling_rate: int, what: str) -> list[np.ndarray | AudioError]:
    """Decode every file, on all cores.

    Args:
        folder: the folder that the names are relative to.
        fnames: file names, already checked to stay inside it.
        sampling_rate: in Hz.
        what: what the progress line calls them.

    Returns:
        In order, float32 (n_samples,) for each clip, or the error for one that cannot be used.
    """

    def one(fname: str) -> np.ndarray | AudioError:
        try:
            return decode(folder / fname, sampling_rate)
        except AudioError as error:
            return error

    clips = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool, Progress(f"decoding {what}", len(fnames)) as progress:
        for clip in pool.map(one, fnames):
            clips.append(clip)
            progress.advance()
    return clips
