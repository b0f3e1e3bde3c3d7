"""Tagging files with one tagger: decoding ahead of the models, group by group.

What comes of a group of files depends on these files alone: not on how many threads decode, nor on what was tagged
before. So a tagging that was killed and goes on finds, to the last bit, what it would have found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from fsat import interrupts
from fsat.errors import AudioError
from fsat.metrics.ranking import top_k
from fsat.metrics.segments import segments
from fsat.options import TagSettings
from fsat.parallel.executor import Threads
from fsat.parallel.processes import cores
from fsat.tagging import Tagger
from fsat.tagging.ledger import File
from fsat.tracking.registry import open_tagger

FILES_AT_ONCE = 64
"""Files in a group."""

SAMPLES_AT_ONCE = 1 << 25
"""Decoded samples after which the clips so far are tagged, though their group has more: half an hour at 16 kHz."""

AHEAD = 8
"""Clips for each core that are decoded ahead."""


Decoded = dict[int, np.ndarray] | AudioError
"""What `Tagger.decode` makes of a file."""

Found = list[Any]
"""What was found of a file, as the ledger holds it: ``[error, tags]``; tags are ``[label, score]`` of a clip, best
first, or ``[start, end, label, score]`` of a recording."""


def tag_groups(
    tagger: Tagger,
    root: Path,
    settings: TagSettings,
    tell: Callable[[str], None],
    groups: Iterable[list[File]],
) -> Iterator[list[tuple[int, Found]]]:
    """Tag files.

    Args:
        tagger: with the members that are to be used.
        root: the folder that names are relative to.
        settings: how.
        tell: is told how far a long recording has come.
        groups: of files, taken as they are needed.

    Yields:
        for each group the number of each file and what was found.
    """
    if settings.window:
        for group in groups:
            yield [(file.number, _over_time(tagger, root, settings, file, tell)) for file in group]
        return
    files = ((i, file) for i, group in enumerate(groups) for file in group)

    def decode(one: tuple[int, File]) -> tuple[int, File, Decoded]:
        return *one, tagger.decode(os.path.join(root, one[1].name), settings.longest)

    n_threads = len(cores())
    decoded = Threads(n_threads, AHEAD * n_threads).map(decode, files)
    for _, group in groupby(decoded, key=lambda one: one[0]):
        found: list[tuple[int, Found]] = []
        waiting: list[tuple[File, Decoded]] = []
        n_samples = 0
        for _, file, clip in group:
            interrupts.check()
            waiting.append((file, clip))
            n_samples += 0 if isinstance(clip, AudioError) else sum(map(len, clip.values()))
            if n_samples > SAMPLES_AT_ONCE:
                found += _tags(tagger, settings, waiting)
                waiting, n_samples = [], 0
        found += _tags(tagger, settings, waiting)
        yield found


def tag_group_anywhere(model: str, root: Path, settings: TagSettings, group: list[File]) -> list[tuple[int, Found]]:
    """As `tag_groups` of one group, by a tagger that this process loads once."""
    return next(tag_groups(_tagger(model, settings.members), root, settings, lambda _: None, [group]))


@lru_cache(maxsize=1)
def _tagger(model: str, members: str) -> Tagger:
    return open_tagger(model).only(members)


def _tags(tagger: Tagger, settings: TagSettings, clips: list[tuple[File, Decoded]]) -> Iterator[tuple[int, Found]]:
    scores, errors = tagger.scores_of([clip for _, clip in clips])
    for (file, _), row, ranking, error in zip(clips, scores, top_k(scores, settings.tags), errors, strict=True):
        best = [] if error else [[tagger.labels[j], float(row[j])] for j in ranking if row[j] >= settings.min_score]
        yield file.number, [_with_advice(error), best]


def _with_advice(error: str) -> str:
    return f"{error}; window=SECONDS gives tags over time" if error.startswith("longer than max_seconds") else error


def _over_time(tagger: Tagger, root: Path, settings: TagSettings, file: File, tell: Callable[[str], None]) -> Found:
    """Segments of a recording; up to where it cannot be read further, if it comes to that."""
    error = ""

    def windows() -> Iterator[tuple[float, float, np.ndarray]]:
        nonlocal error
        try:
            for start, end, row in tagger.over_time(
                os.path.join(root, file.name), settings.window, settings.step, settings.longest
            ):
                interrupts.check()
                tell(f"{file.name} at {end:.0f} s")
                yield start, end, row
        except AudioError as reason:
            error = str(reason)

    tags = [list(segment) for segment in segments(windows(), tagger.labels, settings.tags, settings.min_score)]
    return [error, tags]
