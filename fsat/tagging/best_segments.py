"""Choose the best-scoring tags of each class, and name the files that they are cut out to.

Conventions: a class has a folder, and a file in it is named ``01_0.973_site1_day_000123.50-000126.50.wav``: rank,
score, recording, start and end in seconds. So files sort by score, best first. Equal scores rank in the order of the
table.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import NamedTuple

from fsat.data.cut_pieces import middle_of
from fsat.tagging.file_names import DistinctNames, safe_name
from fsat.tagging.read_tables import Tag

RECORDING_BYTES = 100
"""Bytes of a recording's name in that of a segment."""


class NamedSegment(NamedTuple):
    """A tag to cut out, and the path of its file below the folder of all, with slashes."""

    tag: Tag
    path: str


def best_tags(tags: Iterable[Tag], per_class: int, min_score: float = 0.0) -> dict[str, list[Tag]]:
    """Return the tags of each class, by label in alphabetical order, that score best, best first.

    Memory grows with the classes and `per_class`, not with the number of tags.
    """
    heaps: dict[str, list[tuple[float, int, Tag]]] = {}
    for number, tag in enumerate(tags):
        if tag.score < min_score:
            continue
        heap = heaps.setdefault(tag.label, [])
        add = heapq.heappush if len(heap) < per_class else heapq.heappushpop
        add(heap, (tag.score, -number, tag))
    return {label: [tag for *_, tag in sorted(heaps[label], reverse=True)] for label in sorted(heaps)}


def name_segments(best: dict[str, list[Tag]], longest: float, taken: Iterable[str] = ()) -> Iterator[NamedSegment]:
    """Yield the tags with the paths of their files; `taken` are names of other files in the folder.

    A time in a name is that of the tag, or of its middle if it is longer than `longest`.
    """
    folders = DistinctNames(taken)
    for label, tags in best.items():
        folder, digits = folders.of(label), max(2, len(str(len(tags))))
        for rank, tag in enumerate(tags, 1):
            parts = [f"{rank:0{digits}d}", f"{tag.score:.3f}", _recording(tag.fname)]
            if tag.start is not None and tag.end is not None:
                start, end = middle_of(tag.start, tag.end, longest)
                parts.append(f"{start:09.2f}-{end:09.2f}")
            yield NamedSegment(tag, f"{folder}/{'_'.join(parts)}.wav")


def _recording(fname: str) -> str:
    """Return the end of a recording's name, with its folders, as a part of another name."""
    path = PurePath(os.path.splitext(fname)[0])
    name = "_".join(part for part in path.parts if part not in ("..", path.anchor))
    return safe_name(name.encode("utf-8", "replace")[-RECORDING_BYTES:].decode(errors="ignore"))
