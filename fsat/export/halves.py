"""An exported tagger with backbones: a half that cuts windows, the backbones, and a half that classifies embeddings.

Conventions: the front half maps `INPUT` to `SAMPLES` and to the windows of each slot, float32 (m, n_samples); the back
half maps `SAMPLES` and the embeddings of each slot, float32 (m, size), to `OUTPUT`. The number of windows m follows from
the length of the waveform. A merged model embeds one window after another, so that memory suffices for many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

INPUT, SAMPLES, OUTPUT = "waveform", "samples", "scores"
"""Names of a model's input, of the waveform between its halves, and of its output."""


@dataclass(frozen=True)
class Network:
    """A backbone in the format of the export.

    Attributes:
        part: its graph, as the module that merges this format reads it.
        batch: number of windows that it takes at once, 0 if it takes one without a batch axis.
        size: number of values of an embedding; of several frames in a window the mean is taken.
    """

    part: Any
    batch: int
    size: int


@dataclass(frozen=True)
class Slot:
    """A place of a backbone; `windows` and `embeddings` are the front half's output and the back half's input."""

    windows: str
    embeddings: str
    network: Network


@dataclass(frozen=True)
class Halves:
    """Both halves, Keras models, and the slots between them.

    The back half's inputs are `SAMPLES` and the embeddings of the slots, in order.
    """

    front: Any
    back: Any
    slots: Sequence[Slot]
