"""Backbones in exported models: which formats can hold them, and their place between windows and embeddings.

A Keras backbone is a layer of an exported Keras model. In ONNX and TensorFlow Lite files, `fsat.export.merge_onnx` and
`fsat.export.merge_tflite` put a backbone of any format that can be converted between two halves; see `Halves`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fsat.backbones.descriptor import Backbone
from fsat.backbones.network import ModelFile, Tensor, check_input, choose_input, choose_output, read_checked
from fsat.backbones.runtime import read_model
from fsat.errors import ConfigError
from fsat.model_presets import EXPORT_FORMATS
from fsat.tagging import Tagger

INPUT, OUTPUT = "waveform", "scores"
"""Names of the input and the output of an exported model."""

HOLDERS = {
    "keras": ("onnx", "tflite", "keras"),
    "saved_model": ("onnx", "tflite"),
    "tflite": ("onnx", "tflite"),
    "onnx": ("onnx",),
}
"""Formats of exports that can hold a backbone, by its format."""


@dataclass(frozen=True)
class Network:
    """A backbone that is a part of an exported model.

    Attributes:
        backbone: its descriptor.
        file: the network.
        signature, input, output: where samples go in and the embedding comes out.
        batch: number of windows that it takes at once, 0 if it takes one without a batch axis.
        n_samples: length of a window.
        size: number of values of an embedding.
    """

    backbone: Backbone
    file: ModelFile
    signature: str
    input: Tensor
    output: Tensor
    batch: int
    n_samples: int
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the input for one window."""
        return (self.batch, self.n_samples) if self.batch else (self.n_samples,)

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"the backbone {self.backbone.name} ({self.backbone.format})"

    def keras_model(self, name: str | None = None) -> Any:
        """Return the model of a Keras file with one output, the embedding."""
        return self.file.model(self.output, name)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Slot:
    """A place for a backbone between an output of the front half and an input of the back half, by name."""

    windows: str
    embeddings: str
    network: Network


@dataclass(frozen=True)
class Halves:
    """A tagger as two Keras models, and the backbones between them.

    The number of windows m follows from the length of the waveform.

    Attributes:
        front: maps the waveform to the windows of each slot, float32 (m, n_samples), in order.
        back: maps the waveform and the embeddings of each slot, float32 (m, size), in order, to the scores.
    """

    front: Any
    back: Any
    slots: Sequence[Slot]


def backbones_of(tagger: Tagger) -> dict[str, Backbone]:
    """Return the backbones of a tagger's members, by digest."""
    digests = dict.fromkeys(member.config.backbone_digest for member in tagger.members if member.config.use_embedding)
    return {digest: tagger.backbones[digest].backbone for digest in digests}


def check_backbones(tagger: Tagger, format: str) -> None:
    """Raise `ConfigError` if an export of this format cannot hold a backbone of the tagger."""
    used = list(backbones_of(tagger).values())
    possible = [other for other in EXPORT_FORMATS if all(other in formats_of(backbone) for backbone in used)]
    for backbone in used:
        if format not in formats_of(backbone):
            kind = f"{backbone.format}{', one waveform a call' if backbone.input.rank == 1 else ''}"
            fault = f"the backbone {backbone.name} ({kind}) fits into {' or '.join(formats_of(backbone))} only"
            advice = f"use format={possible[0]}, or other members" if possible else "choose other members"
            raise ConfigError(f"format={format}: {fault}; {advice} (members=STUDY/FOLD,...)")


def formats_of(backbone: Backbone) -> list[str]:
    """Return the formats of exports that can hold a backbone."""
    is_layer = backbone.format == "keras" and backbone.input.rank == 2  # a layer needs a batch axis
    return [format for format in HOLDERS[backbone.format] if format != "keras" or is_layer]


def read_network(backbone: Backbone, n_samples: int, size: int) -> Network:
    """Read a backbone's file for windows of `n_samples`; raise `ConfigError` if it has changed."""
    content = backbone.path if backbone.path.is_dir() else read_checked(backbone)
    file = read_model(backbone.format, str(backbone), content)
    signature, output = choose_output(file, backbone.output)
    given = choose_input(file, signature, backbone.input)
    batch, _ = check_input(file, given, backbone)
    return Network(
        backbone, file, signature, given, output, 0 if backbone.input.rank == 1 else batch or 1, n_samples, size
    )
