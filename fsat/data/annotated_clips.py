"""Clips of annotated recordings: where they are, and their sound, cut out into WAV files in the cache folder.

A clip is named after its recording and its time there, as ``site1/day_0012.500-0015.000.wav``. The folder of the cut
clips depends on the recordings and the times, so that a changed annotation cuts anew and another run finds them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from fsat.data.annotations import Annotation
from fsat.data.audio import length_of
from fsat.data.clip_checks import stamp_of
from fsat.data.cut_pieces import Piece, cut_pieces
from fsat.data.decoders import has_ffmpeg
from fsat.data.tables import ListCell
from fsat.errors import AudioError, StorageError
from fsat.files import (
    UNFINISHED,
    Damaged,
    cache_dir,
    cache_errors,
    key_of,
    locked,
    read_facts,
    remove_store,
    write_facts,
)
from fsat.progress import Progress
from fsat.text import label_order

ANNOTATED = "annotated"
"""Folder of the cache with cut clips."""

FAULTS = "faults.json"

LONGEST_NAME = 160
"""Bytes of a recording's name in that of a clip; 255 is the limit of most file systems."""


@dataclass(frozen=True)
class Span:
    """A clip of a recording: start and end in seconds, its label, and the file and line of the annotation, if any.

    The label is a `ListCell` where a clip may have several or none.
    """

    recording: str
    start: float
    end: float
    label: str
    file: str = ""
    row: int = 0


def lengths_of(root: Path, names: Sequence[str]) -> dict[str, float]:
    """Return the lengths in seconds of the recordings that can be opened and say theirs, by name."""

    def length(name: str) -> float:
        try:
            return length_of(root / name)
        except (AudioError, StorageError, OSError):
            return float("inf")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lengths = dict(zip(names, pool.map(length, names), strict=True))
    return {name: seconds for name, seconds in lengths.items() if seconds < float("inf")}


def spans_of(recording: str, events: Iterable[Annotation], length: float, clip_seconds: float) -> list[Span]:
    """Return the clips of a recording's annotations.

    Args:
        recording: its name.
        events: its annotations.
        length: of the recording in seconds, infinite if unknown.
        clip_seconds: of each clip: a shorter annotation gets the sound around it, a longer one becomes several clips,
            evenly spaced. With 0 a clip is as long as its annotation.
    """
    spans = []
    for event in events:
        for start, end in _cut(event.start, event.end, length, clip_seconds):
            spans.append(Span(recording, start, end, event.label, event.file, event.row))
    return spans


def with_all_labels(spans: Iterable[Span], events: Sequence[Annotation]) -> list[Span]:
    """Return the clips of a recording with the labels of all that sounds in each, each clip once.

    Those are the labels of annotations that fill at least half of the clip, or of which at least half lies in it.
    """
    starts, ends = (np.array([getattr(event, name) for event in events]) for name in ("start", "end"))
    complete = []
    for span in _once(spans):
        shared = np.minimum(ends, span.end) - np.maximum(starts, span.start)
        least = np.minimum(ends - starts, span.end - span.start) / 2
        sounding = np.flatnonzero(shared >= least - 1e-6)
        complete.append(replace(span, label=ListCell(label_order(events[i].label for i in sounding.tolist()))))
    return complete


def with_own_labels(spans: Iterable[Span]) -> list[Span]:
    """Return the clips of a recording, each once, with the labels of all rows that have its time."""
    spans, labels = list(spans), dict[tuple[float, float], dict[str, None]]()
    for span in spans:
        assert isinstance(span.label, ListCell)
        labels.setdefault(_time_of(span), {}).update(dict.fromkeys(span.label.items))
    return [replace(span, label=ListCell(labels[_time_of(span)])) for span in _once(spans)]


def _once(spans: Iterable[Span]) -> list[Span]:
    first: dict[tuple[float, float], Span] = {}
    for span in spans:
        first.setdefault(_time_of(span), span)
    return list(first.values())


def _time_of(span: Span) -> tuple[float, float]:
    return round(span.start, 6), round(span.end, 6)


def _cut(start: float, end: float, length: float, seconds: float) -> list[tuple[float, float]]:
    if not seconds:
        return [(start, end)]
    number = max(1, round((end - start) / seconds))
    if number > 1:
        return [(float(first), float(first) + seconds) for first in np.linspace(start, end - seconds, number)]
    first = max(0.0, min((start + end - seconds) / 2, length - seconds))
    return [(first, min(first + seconds, length))]


def background_spans(
    taken: Mapping[str, Sequence[tuple[float, float]]],
    lengths: Mapping[str, float],
    label: str,
    seconds: float,
    most: int,
) -> list[Span]:
    """Return clips of `seconds` where nothing is `taken`, at most `most` of them, evenly spread over them all.

    `taken` has the annotations and clips of each recording, start and end in seconds, and `lengths` those of the
    recordings; one of unknown length has no such clip after its last annotation.
    """
    free = []
    for recording, times in taken.items():
        ends = [0.0, *np.maximum.accumulate([end for _, end in sorted(times)]).tolist()]
        starts = [*(start for start, _ in sorted(times)), lengths.get(recording, ends[-1])]
        for begin, stop in zip(ends, starts, strict=True):
            number = int((stop - begin) // seconds)
            free += [Span(recording, begin + i * seconds, begin + (i + 1) * seconds, label) for i in range(number)]
    indices = np.linspace(0, len(free) - 1, min(most, len(free))).round().astype(int).tolist()
    return [free[i] for i in sorted(set(indices))]


def stretches(spans: Sequence[Span]) -> list[str]:
    """Return the name of each span's stretch of its recording: spans that overlap, or touch, share one."""
    order = sorted(range(len(spans)), key=lambda i: (spans[i].recording, spans[i].start))
    names, number, end = [""] * len(spans), 0, 0.0
    for before, i in pairwise([None, *order]):
        assert i is not None
        span = spans[i]
        if before is None or spans[before].recording != span.recording or span.start >= end:
            number, end = number + 1, 0.0
        end = max(end, span.end)
        names[i] = f"{span.recording} {number}"
    return names


def clip_names(spans: Sequence[Span]) -> list[str]:
    """Return the name of each span's clip, relative to the folder of cut clips.

    A recording's name is shortened to `LONGEST_NAME` bytes, since file systems have a limit.
    """
    names, given = [], set[str]()
    for span in spans:
        path = PurePosixPath(span.recording)
        own = path.stem if path.suffix.lower() == ".wav" else path.name
        stem = f"{_shortened(own)}_{span.start:08.3f}-{span.end:08.3f}"
        name, number = path.with_name(f"{stem}.wav").as_posix(), 1
        while name in given:
            number += 1
            name = path.with_name(f"{stem}_{number}.wav").as_posix()
        given.add(name)
        names.append(name)
    return names


def _shortened(name: str) -> str:
    raw = os.fsencode(name)
    return name if len(raw) <= LONGEST_NAME else raw[:LONGEST_NAME].decode("utf-8", "ignore")


def cut_clips(root: Path, spans: Sequence[Span], names: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """Cut the spans out of the recordings in `root` unless it was done before.

    Returns the folder of the clips and, by name, why some could not be cut. Raises `FsatError` if the cache folder
    cannot be written.
    """
    recordings = sorted({span.recording for span in spans})
    states = {name: _state(root / name) for name in recordings}
    times = [[span.recording, round(span.start, 6), round(span.end, 6)] for span in spans]
    folder = cache_dir().absolute() / ANNOTATED / key_of([str(root.resolve()), has_ffmpeg(), states, times])
    with cache_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder, "cutting clips out of these recordings"):
            try:
                facts = read_facts(folder / FAULTS)
            except Damaged:
                facts = None
            if facts is None or any(not (folder / name).exists() for name in names if name not in facts["faults"]):
                if folder.exists():
                    remove_store(folder)
                facts = {"faults": _cut_all(root, spans, names, folder)}
        return folder, facts["faults"]


def _state(path: Path) -> list[int]:
    """Return size, time and readability of a file, on which it depends what can be cut out; empty if there is none."""
    try:
        return [*stamp_of(os.stat(path))[:2], os.access(path, os.R_OK)]
    except OSError:  # a broken link, say; the attempt to cut says so
        return []


def _cut_all(root: Path, spans: Sequence[Span], names: Sequence[str], folder: Path) -> dict[str, str]:
    unfinished = folder.with_name(folder.name + UNFINISHED)
    if unfinished.exists():
        remove_store(unfinished)
    by_recording: dict[str, list[int]] = {}
    for i, span in enumerate(spans):
        by_recording.setdefault(span.recording, []).append(i)
    faults: dict[str, str] = {}
    with Progress("cutting clips out of recordings", len(spans)) as progress:
        for recording, indices in by_recording.items():
            pieces = [Piece(unfinished / names[i], spans[i].start, spans[i].end) for i in indices]
            for piece in pieces:
                piece.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                cut = cut_pieces(root / recording, pieces)
                faults |= {names[i]: cut.fault for i, done in zip(indices, cut.spans, strict=True) if done is None}
            except AudioError as error:
                faults |= {names[i]: str(error) for i in indices}
            progress.advance(len(indices))
    write_facts(unfinished / FAULTS, {"faults": faults})
    os.rename(unfinished, folder)
    return faults
