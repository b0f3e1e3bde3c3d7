"""Tagging groups of files with one tagger, decoding ahead of the models.

The result for a group depends on its files only, not on the number of threads or on what was tagged before. So a
tagging that is resumed gives the same bits as one that was never interrupted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from fsat import interrupts
from fsat.data.audio import Report
from fsat.data.clip_names import stored_name
from fsat.errors import AudioError, StorageError, printable
from fsat.metrics.ranking import top_k
from fsat.options import TagSettings
from fsat.parallel.executor import Threads, cores
from fsat.tagging.ledger import File
from fsat.tagging.recordings import Minimum, minima, segments
from fsat.tagging.tagger import Decoded, Tagger

GROUP_SIZE, DECODED_AHEAD = 64, 8
"""Files in a group; clips per core that are decoded ahead."""

MAX_SAMPLES = 1 << 25
"""Decoded samples after which a part of a group is tagged: half an hour at 16 kHz."""

Result = list[Any]
"""The result for a file, as the ledger stores it: ``[error, tags, notes]``. Tags are ``[label, score]`` of a clip, best
first, or ``[start, end, label, score]`` of a recording, with no label and score for silence. Of a tagger whose classes
are scored by themselves, which may give no label to a sound, the tags of a recording are sorted by start, and a file
that was heard but has no tag has the note `fsat.data.levels.NO_LABEL`."""


def tag_groups(
    tagger: Tagger, root: Path, settings: TagSettings, min_score: Minimum, note: Callable[[str], None],
    groups: Iterable[list[File]],
) -> Generator[list[tuple[int, Result]]]:  # fmt: skip
    """Tag groups of files, whose names are relative to `root`; yield the number and the result of each file by group.

    `min_score` is that of `settings`, or the thresholds of the tagger if it is ``auto``. `note` is called with the
    position in a long recording.
    """
    if settings.window:
        for group in groups:
            yield [(file.number, _tag_windows(tagger, root, settings, min_score, file, note)) for file in group]
        return
    files = ((i, file) for i, group in enumerate(groups) for file in group)

    def decode(item: tuple[int, File]) -> tuple[int, File, Decoded]:
        group, file = item
        with _machine_errors(root, file):
            path = os.path.join(root, stored_name(root, file.name))
            return group, file, tagger.decode(path, settings.longest)

    n_threads = len(cores())
    decoded = Threads(n_threads, DECODED_AHEAD * n_threads).map(decode, files)
    for _, numbered in groupby(decoded, key=lambda item: item[0]):
        results: list[tuple[int, Result]] = []
        batch: list[tuple[File, Decoded]] = []
        n_samples = 0
        for _, file, clip in numbered:
            interrupts.check()
            batch.append((file, clip))
            n_samples += 0 if isinstance(clip, AudioError) else sum(map(len, clip.at.values()))
            if n_samples > MAX_SAMPLES:
                results += _tag_part(tagger, settings, min_score, batch)
                batch, n_samples = [], 0
        yield results + list(_tag_part(tagger, settings, min_score, batch))


@contextmanager
def _machine_errors(root: Path, file: File) -> Iterator[None]:
    """Name the file and what to do when the machine fails; the file has no result then."""
    try:
        yield
    except StorageError as error:
        path = printable(os.path.join(root, file.name))
        raise StorageError(f"{path}: {error}; fix that, and the same command resumes there") from error


def _tag_part(
    tagger: Tagger, settings: TagSettings, min_score: Minimum, clips: list[tuple[File, Decoded]]
) -> Iterator[tuple[int, Result]]:
    minimum, n_tags = minima(min_score, len(tagger.labels)), tagger.most_tags(settings)
    scores, errors = tagger.scores_of([clip for _, clip in clips])
    for (file, clip), row, ranking, error in zip(clips, scores, top_k(scores, n_tags), errors, strict=True):
        if error.startswith("longer than max_seconds"):
            error += "; window=SECONDS gives tags over time"
        best = [[tagger.labels[j], float(row[j])] for j in ranking if row[j] >= minimum[j]]
        yield file.number, [error, best, tagger.notes_of(clip, row, best)]


def _tag_windows(
    tagger: Tagger, root: Path, settings: TagSettings, min_score: Minimum, file: File, note: Callable[[str], None]
) -> Result:
    """Return the segments of a recording, up to where it becomes unreadable."""
    error, report, is_heard = "", Report(), False

    def windows() -> Iterator[tuple[float, float, np.ndarray]]:
        nonlocal error, is_heard
        path = os.path.join(root, stored_name(root, file.name))
        try:
            over_time = tagger.over_time(path, settings.window, settings.step, settings.longest, report)
            for start, end, row in over_time:
                interrupts.check()
                note(f"{file.name} at {end:.0f} s")
                is_heard |= not math.isnan(row[0])
                yield start, end, row
        except AudioError as reason:
            error = str(reason)

    with _machine_errors(root, file):
        found = segments(windows(), tagger.labels, tagger.most_tags(settings), min_score)
        tags = list(map(list, sorted(found, key=itemgetter(0)) if tagger.use_sigmoid else found))
    labelled = [tag for tag in tags if tag[2]]
    return [error, tags, [*report.notes, *tagger.note_without(labelled, is_heard)]]
